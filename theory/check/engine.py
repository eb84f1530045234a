"""Independent runs of the engine, and tests of assumptions on them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from scipy import stats

import gossipjax as gj
from gossipjax import Properties, Protocol, Timeline
from gossipjax._base.binding import bind
from gossipjax._base.streams import STARTS, STEPS
from gossipjax.facts import check_requires
from gossipjax.observe import Observer

from .claim import Assumption

SURE = 1e-7
"""Level of each test of an assumption; it is small because there are many tests, and most assumptions are true."""
Records = dict[str, np.ndarray]
"""Values of the observers, ``(replicas, records, …)``, and ``messages``, the number sent so far."""


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _each(functions, facts: Properties, every: int | None, protocol, shared, keys, own, observers):
    """Run replicas one after another, which is fastest for loops of narrow events."""
    static, xs_of_all, start = shared

    def one(arguments):
        key, xs = arguments
        timeline = Timeline(xs_of_all if xs is None else xs, static, functions[0], facts, functions[1])
        x0 = start(jax.random.fold_in(key, STARTS)) if isinstance(start, Partial) else start
        state = protocol.init(jax.random.fold_in(key, STEPS), gj.with_slots(x0, facts))
        _, records = gj.run(key, protocol, timeline, state, record_every=every, observers=observers)
        high, low = records.messages
        return records.values | {"messages": high.astype(float) * 2.0**32 + low.astype(float)}

    return jax.lax.map(one, (keys, own))


def runs(
    seed: int,
    replicas: int,
    protocol: Protocol,
    plan: Timeline | Sequence[Timeline],
    x0: Any,
    observers: Sequence[Observer],
    *,
    every: int | None = None,
) -> Records:
    """Run one plan with many keys, or many plans of equal shape with one key each.

    Args:
        seed: seed of all keys.
        replicas: number of runs.
        protocol: protocol; it is checked against the plan.
        plan: a timeline, or one for each replica (see :func:`gossipjax.timeline.align`).
        x0: stacked start, or a ``Partial`` that draws it from a key.
        observers: observers, measured at every record.
        every: events between records; None: one record at the end.
    """
    plans = [plan] if isinstance(plan, Timeline) else list(plan)
    first, protocol = plans[0], bind(protocol)
    check_requires(protocol.requires, first.properties)
    if any(not _same(other.shared, first.shared) for other in plans[1:]):
        raise ValueError(f"plans of {first.properties.name} differ in their constants: cut them out of one long plan")
    # The compiled program does not depend on these facts, which differ by seed or matrix.
    facts = dataclasses.replace(first.properties, name="claim", traffic=None, min_eigenvalue=None)
    slots = max(p.properties.num_slots for p in plans)
    facts = dataclasses.replace(facts, num_slots=slots)
    keys = jax.random.split(jax.random.key(seed), replicas)
    many = (
        None if isinstance(plan, Timeline) else jax.tree.map(lambda *leaves: np.stack(leaves), *(p.xs for p in plans))
    )
    shared = first.shared, (first.xs if many is None else None), x0
    records = _each((first.event, first.draw), facts, every, protocol, shared, keys, many, tuple(observers))
    return {name: np.asarray(values, np.float64) for name, values in records.items()}


def _same(one: Any, other: Any) -> bool:
    """Return whether two pytrees hold equal arrays."""
    if one is other:  # pieces of one plan
        return True
    leaves = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(leaves[0]) == len(leaves[1]) and all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def planned_runs(
    seed: int,
    replicas: int,
    protocol: Protocol,
    plan: Callable[[int], Timeline],
    times: np.ndarray,
    x0: Any,
    observers: Sequence[Observer],
) -> Records:
    """Plan each replica with its own seed, and record all replicas at the same times."""
    plans, width = gj.timeline.align([plan(seed * 100_003 + k) for k in range(replicas)], np.asarray(times))
    return runs(seed, replicas, protocol, plans, x0, observers, every=width)


def settled(values: np.ndarray) -> Assumption:
    """Test that records ``(replicas, records)`` after the burn-in have the same mean in both halves."""
    half = values.shape[1] // 2
    gap = values[:, :half].mean(axis=1) - values[:, -half:].mean(axis=1)
    return _no_shift("the run has forgotten its start", gap)


def paced(messages: np.ndarray, expected: float) -> Assumption:
    """Test that replicas send as many messages on average as Poisson clocks of the stated rates.

    Args:
        messages: total number in each replica, ``(replicas,)``.
        expected: expected total.
    """
    return _no_shift("messages come at the stated rate", np.ravel(messages) - expected)


def _no_shift(name: str, gap: np.ndarray) -> Assumption:
    if np.ptp(gap) == 0.0:
        return Assumption(name, bool(gap[0] == 0.0), f"off by {gap[0]:.3g} in every replica")
    p = float(stats.ttest_1samp(gap, 0.0).pvalue)
    return Assumption(
        name, p > SURE, f"off by {gap.mean():.3g} ± {gap.std(ddof=1) / np.sqrt(gap.size):.2g}, p = {p:.1e}"
    )


def averages(plan: Timeline) -> Assumption:
    """Report whether every mixing matrix of a plan is doubly stochastic, according to its builder."""
    held = "doubly_stochastic" in plan.properties
    return Assumption("mixing is doubly stochastic", held, f"{plan.properties.name} is not")


def stacked(values: np.ndarray) -> jax.Array:
    """Put start models on the device as float64."""
    return jnp.asarray(values, jnp.float64)
