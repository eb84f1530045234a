"""GT-VR: gradient tracking with gradients corrected at snapshots that nodes take at random."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import num_rows, scale_rows, where_rows
from gossipjax._base.streams import node_keys
from gossipjax.mixing._apply import mix
from gossipjax.protocol._sampled import (
    as_finite_sum,
    check_step_size,
    differences,
    full_gradients,
    report,
    tracking_needs,
)
from gossipjax.tasks import FiniteSum
from gossipjax.types import Event, Info, Params, Protocol

SNAPSHOTS = 2**32 - 1
"""Stream of the coins for snapshots; no node has this number."""


class GTVrState(NamedTuple):
    """Models, trackers, last estimates, and the snapshots with their gradients, of all nodes."""

    x: Params
    tracker: Params
    estimate: Params
    """v of the last round."""
    snapshot: Params
    gradient: Params
    """The gradient at the snapshot, over all samples of the node."""
    started: Bool[Array, " n"]
    """Whether the node has a snapshot and a tracker."""


def _init(key: Key[Array, ""], x0: Params) -> GTVrState:
    del key
    zero = jax.tree.map(jnp.zeros_like, x0)
    return GTVrState(x0, zero, zero, x0, zero, jnp.zeros(num_rows(x0), bool))


def _coins(key: Key[Array, ""], probability: Any, num_nodes: int, event: Event) -> Bool[Array, " n"]:
    """Toss a coin for each node, with a stream of its own."""
    keys = node_keys(jax.random.fold_in(key, SNAPSHOTS), event, num_nodes)
    return jax.vmap(lambda key: jax.random.uniform(key))(keys) < probability


@by_rows
def _step(
    task: FiniteSum, step_size: Any, probability: Any, key, state: GTVrState, event: Event
) -> tuple[GTVrState, Info]:
    """One round: snapshots of some nodes, one gradient at the model and one at the snapshot, tracker and model."""
    due = _coins(key, probability, task.task.num_nodes, event) | ~state.started

    def taken() -> tuple[Params, Params]:
        new = state.x, full_gradients(key, task, state.x, event)[1]
        return where_rows(due, new, (state.snapshot, state.gradient))

    snapshot, gradient = jax.lax.cond(jnp.any(due), taken, lambda: (state.snapshot, state.gradient))
    loss, difference = differences(key, task, Frozen(1), state.x, snapshot, event)
    estimate = jax.tree.map(jnp.add, difference, gradient)
    moved = jax.tree.map(lambda y, new, old: y + new - old, state.tracker, estimate, state.estimate)
    tracker = where_rows(state.started, mix(event.mixing, moved), estimate)
    x = mix(event.mixing, jax.tree.map(jnp.subtract, state.x, scale_rows(step_size, tracker)))
    started = jnp.ones_like(state.started)
    return GTVrState(x, tracker, estimate, snapshot, gradient, started), report(event, x, loss)


def _model(state: GTVrState) -> Params:
    return state.x


@recorded("jiang2023gtvr")
def gt_vr(
    task: FiniteSum,
    step_size: float | Float[np.ndarray | Array, ""],
    *,
    snapshot_probability: float | Float[np.ndarray | Array, ""],
) -> Protocol:
    """Build GT-VR: one sample a round, corrected by the full gradient at a snapshot of random age, and tracked::

        τ_i ← x_i with probability p, drawn by each node; ∇f_i(τ_i) over all m samples then
        s uniform in 1 … m                              drawn by each node
        v_i = ∇f_is(x_i) − ∇f_is(τ_i) + ∇f_i(τ_i)
        y ← W (y + v − v_old)
        x ← W (x − α y)

    In the first round all nodes take a snapshot and y = v = ∇f(x_0), without mixing. The published loop begins with the
    model, for which it needs a gradient before the first round; the models after every round are the same.

    If W is doubly stochastic, the mean of y always equals the mean of the nodes' v, and ``x̄ ← x̄ − α ȳ``. v has no bias,
    and its variance vanishes where models settle, so that a constant step leads to the exact optimum. With p = 1, or if
    all samples of a node are equal, it is :func:`~gossipjax.gradient_tracking` with exact gradients and
    ``order="aug_dgm"``.

    A message holds two vectors. A node takes two gradients of a sample a round and m at a snapshot, 2 + p m on average
    after the first round. Snapshots are taken in rounds of the node's own, unlike those of
    :func:`~gossipjax.gt_svrg`; the program takes the full gradients of all nodes in a round in which one is due, and of
    none otherwise. ``gradient_calls`` is NaN, because rounds differ.

    Args:
        task: with m samples a node (:func:`~gossipjax.tasks.finite_sum`), whose losses are not random.
        step_size: α > 0. A new value does not recompile the run.
        snapshot_probability: p in (0, 1]; about 1/m spends as much on snapshots as on samples. A new value does not
            recompile the run.

    Raises:
        TypeError: if task is not a finite sum.
        ValueError: if a number is out of range; during a run, if the timeline is not synchronous rounds with doubly
            stochastic matrices.

    Reference: Jiang, Zeng, Sun, Chen 2023, arXiv 2106.14479, algorithm 1, line by line as decent-bench 0.3.0 quotes it.
    """
    task = as_finite_sum(task)
    check_step_size(step_size)
    real("snapshot_probability", snapshot_probability, above=0, most=1, remedy="1 takes a snapshot in every round")
    return Protocol(
        init=Partial(_init),
        step=Partial(_step, task, step_size, snapshot_probability),
        model=Partial(_model),
        requires=tracking_needs(task, local_steps=None),
    )
