"""What experiments on clocks share: records at given seconds in every run, one plan a seed, scores against theory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
import xarray as xr
from scipy import stats

from experiments.store import mean_and_interval
from gossipjax import simulate
from gossipjax.engine import STARTS
from gossipjax.observe import Observer
from gossipjax.types import NOBODY, Params, Protocol, Timeline

_PACKING: Literal["sequential"] = "sequential"
"""Packed, each interval between records would have a width of its own, and be compiled by itself."""
_NOBODY_IN = ("nodes", "rows", "begin", "senders", "receivers", "members", "targets", "sources")
_NOTHING = {name: NOBODY for name in _NOBODY_IN} | {"weights": 0.0, "keep": 1.0, "messages": 0, "parts": 0}


def recorded_at(plans: Sequence[Timeline], times: np.ndarray) -> tuple[list[Timeline], int]:
    """Fill up planned runs with events in which nothing happens, so that records fall on the same seconds in all.

    Then all plans have one shape, which is compiled once, and what is recorded is the network at a time of its own
    choosing: right after some event it would be seen more often when much happens.

    Args:
        plans: timelines of :func:`gossipjax.timeline.planned.planned`, one per seed; what follows the last time is cut.
        times: increasing seconds.

    Returns:
        The plans, and the number of events between two records.
    """
    edges = [np.searchsorted(plan.xs["time"][:, 0], times, side="right") for plan in plans]
    counts = [np.diff(edge, prepend=0) for edge in edges]
    width = max(1, *(int(count.max()) for count in counts))
    return [_filled(plan, times, count, width) for plan, count in zip(plans, counts, strict=True)], width


def _filled(plan: Timeline, times: np.ndarray, counts: np.ndarray, width: int) -> Timeline:
    done = np.cumsum(counts)
    kept = int(done[-1])
    interval = np.repeat(np.arange(len(times)), counts)
    place = interval * width + np.arange(kept) - (done - counts)[interval]
    idle = {
        "time": np.repeat(times, width),
        "index": np.repeat(np.maximum(done - 1, 0), width),
    }
    xs = {}
    for name, array in plan.xs.items():
        shape = (len(times) * width, *array.shape[1:])
        empty = idle[name].reshape(-1, *(1,) * (array.ndim - 1)) if name in idle else _NOTHING[name]
        xs[name] = np.broadcast_to(empty, shape).astype(array.dtype)
        xs[name][place] = array[:kept]
    return dataclasses.replace(plan, xs=xs)


def run_each(
    protocol: Protocol,
    plans: Sequence[Timeline],
    times: np.ndarray,
    start: Callable[[jax.Array], Params] | Params,
    observers: Sequence[Observer],
    keys: Sequence[jax.Array],
) -> xr.Dataset:
    """Run each plan with a key of its own: seeds are independent in clocks, targets and gradients.

    Args:
        protocol: the algorithm.
        plans: one timeline a run.
        times: increasing seconds of the records.
        start: stacked parameters, or a function of a key that makes them.
        observers: what is measured.
        keys: one a run.

    Returns:
        What was observed, with dimensions ``record`` (at 0 and at each of the times) and ``seed``.
    """
    filled, width = recorded_at(plans, times)
    # Made here: given a function, every call of simulate would compile it anew.
    make = jax.jit(start) if callable(start) else None
    runs = []
    for key, plan in zip(keys, filled, strict=True):
        x0 = start if make is None else make(jax.random.fold_in(key, STARTS))
        trajectory = simulate(key, protocol, plan, x0, observers=observers, record_every=width, packing=_PACKING)
        runs.append(trajectory.dataset.drop_vars(["event", "time"]).drop_attrs())
    return xr.concat(runs, "seed").transpose("record", ..., "seed")


def seed_keys(seed: int, num_seeds: int) -> list[jax.Array]:
    """Make one key per seed; the same seeds give the same start models everywhere."""
    return [jax.random.fold_in(jax.random.key(seed), number) for number in range(num_seeds)]


def z_score(values: np.ndarray, predicted: float) -> float:
    """Compute how many standard errors the mean of independent values lies above a prediction."""
    mean, half = mean_and_interval(values)
    return float((mean - predicted) / (half / stats.t.ppf(0.975, len(values) - 1)))


def settled_mean(curve: Any, times: np.ndarray, settled: float) -> np.ndarray:
    """Average each seed's curve ``(record, seed)`` over the records from a time on, ``(seed,)``."""
    return np.asarray(curve, np.float64)[times >= settled].mean(axis=0)
