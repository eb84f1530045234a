"""Code that experiments on clocks share: records at given seconds, one plan per seed, scores against theory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from experiments.lib.store import mean_and_interval
from gossipjax import Protocol, Timeline, simulate, timeline
from gossipjax._base.streams import STARTS
from gossipjax.observe import Observer
from gossipjax.topology import Topology
from gossipjax.types import Params

_PACKING: Literal["sequential"] = "sequential"
"""If packed, each interval between records would have its own width and be compiled separately."""


def run_each(
    protocol: Protocol,
    plans: Sequence[Timeline],
    times: np.ndarray,
    start: Callable[[jax.Array], Params] | Params,
    observers: Sequence[Observer],
    keys: Sequence[jax.Array],
) -> xr.Dataset:
    """Run each plan with its own key, so that seeds are independent in clocks, targets and gradients.

    Args:
        protocol: the algorithm.
        plans: one timeline per run.
        times: times of the records in seconds, increasing.
        start: stacked parameters, or a function that draws them from a key.
        observers: observers of the records.
        keys: one key per run.

    Returns:
        The records, with dimensions ``record`` (at 0 and at each of the times) and ``seed``.
    """
    filled, width = timeline.align(plans, times)
    # The start is drawn here, because every call of simulate would compile a function again.
    make = jax.jit(start) if callable(start) else None
    runs = []
    for key, plan in zip(keys, filled, strict=True):
        x0 = start if make is None else make(jax.random.fold_in(key, STARTS))
        trajectory = simulate(key, protocol, plan, x0, observers=observers, record_every=width, packing=_PACKING)
        runs.append(trajectory.dataset.drop_vars(["event", "time"]).drop_attrs())
    return xr.concat(runs, "seed").transpose("record", ..., "seed")


def barrier_ends(
    graphs: Sequence[Topology] | None, steps: Float[np.ndarray, "rounds n *copies"], *, latency: float = 0.0
) -> np.ndarray:
    """Compute when rounds end, by the max-plus recursion ``M_i(k) = max_{j ∈ N(i) ∪ i} (d_j(k) + M_j(k − 1) + τ_ij)``.

    Args:
        graphs: symmetric graphs whose neighbours wait for each other; round k uses graph k modulo their number. None:
            all nodes wait for all.
        steps: seconds d of every step.
        latency: τ, seconds of a message between neighbours of the graphs (not used without graphs).

    Returns:
        ``M``, the time in seconds at which each node has mixed, of the same shape as ``steps``.
    """
    ends, last = np.empty_like(steps), np.zeros(steps.shape[1:])
    for number, seconds in enumerate(steps):
        done = last + seconds
        if graphs is None:
            last = np.broadcast_to(done.max(axis=0), done.shape)
        else:
            graph, last = graphs[number % len(graphs)], done.copy()
            np.maximum.at(last, graph.receivers, done[graph.senders] + latency)
        ends[number] = last
    return ends


def seed_keys(seed: int, num_seeds: int) -> list[jax.Array]:
    """Return one key per seed; equal seeds give equal start models everywhere."""
    return [jax.random.fold_in(jax.random.key(seed), number) for number in range(num_seeds)]


def z_score(values: np.ndarray, predicted: float) -> float:
    """Compute how many standard errors the mean of independent values lies above a prediction."""
    mean, half = mean_and_interval(values)
    return float((mean - predicted) / (half / stats.t.ppf(0.975, len(values) - 1)))


def settled_mean(curve: Any, times: np.ndarray, settled: float) -> np.ndarray:
    """Average each seed's curve ``(record, seed)`` over the records after a given time; return ``(seed,)``."""
    return np.asarray(curve, np.float64)[times >= settled].mean(axis=0)
