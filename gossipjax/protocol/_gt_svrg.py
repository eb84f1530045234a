"""GT-SVRG: gradient tracking with gradients corrected at a snapshot of the model."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax.protocol._sampled import (
    as_finite_sum,
    check_period,
    check_step_size,
    differences,
    full_gradients,
    is_due,
    report,
    step_along,
    tracking_needs,
)
from gossipjax.tasks import FiniteSum
from gossipjax.types import Event, Info, Params, Protocol


class GTSvrgState(NamedTuple):
    """Models, trackers, last estimates, and the snapshots with their gradients, of all nodes."""

    x: Params
    tracker: Params
    estimate: Params
    """v of the last round."""
    snapshot: Params
    gradient: Params
    """The gradient at the snapshot, over all samples of the node."""


def _init(key: Key[Array, ""], x0: Params) -> GTSvrgState:
    del key
    zero = jax.tree.map(jnp.zeros_like, x0)
    return GTSvrgState(x0, zero, zero, x0, zero)


@by_rows
def _step(
    task: FiniteSum, step_size: Any, period: Frozen[int], key, state: GTSvrgState, event: Event
) -> tuple[GTSvrgState, Info]:
    """One round: a snapshot if it is due, one gradient at the model and one at the snapshot, tracker and model."""

    def taken() -> tuple[Params, Params]:
        return state.x, full_gradients(key, task, state.x, event)[1]

    snapshot, gradient = jax.lax.cond(is_due(event, period), taken, lambda: (state.snapshot, state.gradient))
    loss, difference = differences(key, task, Frozen(1), state.x, snapshot, event)
    estimate = jax.tree.map(jnp.add, difference, gradient)
    change = jax.tree.map(jnp.subtract, estimate, state.estimate)
    tracker, x = step_along(event, step_size, state.x, state.tracker, change)
    return GTSvrgState(x, tracker, estimate, snapshot, gradient), report(event, x, loss)


def _model(state: GTSvrgState) -> Params:
    return state.x


@recorded("xin2020gtvr")
def gt_svrg(task: FiniteSum, step_size: float | Float[np.ndarray | Array, ""], *, period: int) -> Protocol:
    """Build GT-SVRG: one sample a round, corrected by the full gradient at a snapshot, and tracked.

    With y = v_old = 0 at the start::

        τ ← x,  ∇f_i(τ_i) over all m samples            in rounds 0, T, 2T, … of the timeline
        s uniform in 1 … m                              drawn by each node
        v_i = ∇f_is(x_i) − ∇f_is(τ_i) + ∇f_i(τ_i)
        y ← W y + v − v_old
        x ← W x − α y

    If W is doubly stochastic, the mean of y always equals the mean of the nodes' v, and ``x̄ ← x̄ − α ȳ``. v has no bias,
    and its variance vanishes where models settle: the rate is linear on smooth, strongly convex problems with a
    constant step, to the exact optimum. With T = 1, or if all samples of a node are equal, it is
    :func:`~gossipjax.gradient_tracking` with exact gradients.

    A message holds two vectors. A node stores one gradient, not m as in :func:`~gossipjax.gt_saga`, and takes two
    of a sample a round and m at a snapshot. ``gradient_calls`` is NaN, because rounds differ.

    Args:
        task: with m samples a node (:func:`~gossipjax.tasks.finite_sum`), whose losses are not random.
        step_size: α > 0. A new value does not recompile the run.
        period: T ≥ 1, rounds from snapshot to snapshot; about m spends as much on snapshots as on samples.

    Raises:
        TypeError: if task is not a finite sum.
        ValueError: if α is not positive and finite, or T < 1; during a run, if the timeline is not synchronous rounds
            with doubly stochastic matrices.

    Reference: Xin, Khan, Kar 2020, arXiv 1912.04230, algorithm 2 (recalled, not looked up).
    """
    task = as_finite_sum(task)
    check_step_size(step_size)
    return Protocol(
        init=Partial(_init),
        step=Partial(_step, task, step_size, check_period(period)),
        model=Partial(_model),
        requires=tracking_needs(task, local_steps=None),
    )
