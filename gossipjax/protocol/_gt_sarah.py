"""GT-SARAH: gradient tracking with gradients that are corrected from round to round."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import whole
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


class GTSarahState(NamedTuple):
    """Models, trackers, last estimates and last models of all nodes."""

    x: Params
    tracker: Params
    estimate: Params
    """v of the last round."""
    previous: Params
    """x of the last round."""


def _init(key: Key[Array, ""], x0: Params) -> GTSarahState:
    del key
    zero = jax.tree.map(jnp.zeros_like, x0)
    return GTSarahState(x0, zero, zero, x0)


@by_rows
def _step(
    task: FiniteSum, step_size: Any, period: Frozen[int], size: Frozen[int], key, state: GTSarahState, event: Event
) -> tuple[GTSarahState, Info]:
    """One round: the full gradient if it is due, else the last estimate and a difference; tracker and model."""

    def full() -> tuple[Array, Params]:
        return full_gradients(key, task, state.x, event)

    def corrected() -> tuple[Array, Params]:
        loss, difference = differences(key, task, size, state.x, state.previous, event)
        return loss, jax.tree.map(jnp.add, difference, state.estimate)

    loss, estimate = jax.lax.cond(is_due(event, period), full, corrected)
    change = jax.tree.map(jnp.subtract, estimate, state.estimate)
    tracker, x = step_along(event, step_size, state.x, state.tracker, change)
    return GTSarahState(x, tracker, estimate, state.x), report(event, x, loss)


def _model(state: GTSarahState) -> Params:
    return state.x


@recorded("xin2022gtsarah")
def gt_sarah(
    task: FiniteSum, step_size: float | Float[np.ndarray | Array, ""], *, period: int, batch_size: int = 1
) -> Protocol:
    """Build GT-SARAH: a full gradient now and then, between them differences of a few samples, and tracked.

    With y = v_old = 0 at the start::

        in rounds 0, T, 2T, … of the timeline:   v_i = ∇f_i(x_i) over all m samples
        else:   s_1 … s_B uniform in 1 … m              drawn by each node, with replacement
                v_i = v_old,i + (1/B) Σ_b (∇f_is_b(x_i) − ∇f_is_b(x_old,i))
        y ← W y + v − v_old
        x ← W x − α y

    If W is doubly stochastic, the mean of y always equals the mean of the nodes' v, and ``x̄ ← x̄ − α ȳ``. Between full
    gradients v has a bias, unlike that of :func:`~gossipjax.gt_svrg`, but a smaller variance. With T = 1, or if all
    samples of a node are equal, it is :func:`~gossipjax.gradient_tracking` with exact gradients.

    A message holds two vectors. A node takes m gradients of samples in a round with a full gradient, and 2 B in others.
    ``gradient_calls`` is NaN, because rounds differ.

    Args:
        task: with m samples a node (:func:`~gossipjax.tasks.finite_sum`), whose losses are not random.
        step_size: α > 0. A new value does not recompile the run.
        period: T ≥ 1, rounds from full gradient to full gradient; the published inner loop has q = T − 1.
        batch_size: B ≥ 1.

    Raises:
        TypeError: if task is not a finite sum.
        ValueError: if α is not positive and finite, T < 1, or B < 1; during a run, if the timeline is not synchronous
            rounds with doubly stochastic matrices.

    Reference: Xin, Khan, Kar 2022, arXiv 2008.07428, algorithm 1 (recalled, and checked against two implementations).
    """
    task = as_finite_sum(task)
    check_step_size(step_size)
    size = Frozen(whole("batch_size", batch_size, least=1, most=2**31 - 1, remedy="samples of a node in a round"))
    return Protocol(
        init=Partial(_init),
        step=Partial(_step, task, step_size, check_period(period), size),
        model=Partial(_model),
        requires=tracking_needs(task, local_steps=None),
    )
