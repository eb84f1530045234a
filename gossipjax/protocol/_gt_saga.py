"""GT-SAGA: gradient tracking with a table of the last gradient at every sample."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import before_writing, num_rows, scale_rows
from gossipjax.mixing._apply import mix
from gossipjax.protocol._sampled import (
    as_finite_sum,
    check_step_size,
    one_sample,
    report,
    sample_gradients,
    tracking_needs,
)
from gossipjax.tasks import FiniteSum
from gossipjax.types import Event, Info, Params, Protocol


class GTSagaState(NamedTuple):
    """Models, trackers, last estimates, and the gradients at all samples, of all nodes."""

    x: Params
    tracker: Params
    estimate: Params
    """g of the last round."""
    table: Params
    """The last gradient at each sample, leaves ``(n, m, ...)``."""
    mean: Params
    """The mean of the table over samples."""


def _init(task: FiniteSum, key: Key[Array, ""], x0: Params) -> GTSagaState:
    zero = jax.tree.map(jnp.zeros_like, x0)
    table = sample_gradients(key, task, x0)
    return GTSagaState(x0, zero, zero, table, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=1), table))


@by_rows
def _step(task: FiniteSum, step_size: Any, key, state: GTSagaState, event: Event) -> tuple[GTSagaState, Info]:
    """One round: one gradient, the tracker, the model; the table takes the gradient."""
    number, loss, gradient = one_sample(key, task, state.x, event)
    places = jnp.arange(num_rows(state.x), dtype=jnp.int32), number

    def changed() -> Params:
        return jax.tree.map(lambda new, table: new - table[places], gradient, state.table)

    # Always taken, for no round has the largest number. The write below waits for the branch, and adds: XLA would copy
    # the table in every round if it could read these rows again after the write.
    change = before_writing(event.index[0] != jnp.uint32(2**32 - 1), changed, lambda: gradient)
    estimate = jax.tree.map(jnp.add, change, state.mean)
    moved = jax.tree.map(lambda y, new, old: y + new - old, state.tracker, estimate, state.estimate)
    tracker = mix(event.mixing, moved)
    x = mix(event.mixing, jax.tree.map(jnp.subtract, state.x, scale_rows(step_size, tracker)))
    table = jax.tree.map(lambda table, new: table.at[places].add(new), state.table, change)
    mean = jax.tree.map(jnp.add, state.mean, scale_rows(1 / task.num_samples, change))
    return GTSagaState(x, tracker, estimate, table, mean), report(event, x, loss)


def _model(state: GTSagaState) -> Params:
    return state.x


@recorded("xin2022gtsaga", "xin2020gtvr")
def gt_saga(task: FiniteSum, step_size: float | Float[np.ndarray | Array, ""]) -> Protocol:
    """Build GT-SAGA: one gradient a round, corrected by a table of the last gradient at each sample, and tracked.

    With a table ``t_ij`` of the m samples of node i, which begins with the gradients at x_0, and y = g_old = 0::

        s uniform in 1 … m                              drawn by each node
        g_i = ∇f_is(x_i) − t_is + (1/m) Σ_j t_ij
        y ← W (y + g − g_old)
        x ← W (x − α y)
        t_is ← ∇f_is(x_i)                               the gradient taken above

    If W is doubly stochastic, the mean of y always equals the mean of the nodes' g, and ``x̄ ← x̄ − α ȳ``. g has no bias,
    and its variance vanishes where models settle: the rate is linear on smooth, strongly convex problems with a
    constant step, to the exact optimum, although a round takes one gradient. With m = 1 it is
    :func:`~gossipjax.gradient_tracking` with ``order="adapt_then_combine"``.

    A message holds two vectors. Each node stores m gradients, and takes them before the first round;
    ``gradient_calls`` counts one a round.

    Args:
        task: with m samples a node (:func:`~gossipjax.tasks.finite_sum`), whose losses are not random.
        step_size: α > 0. A new value does not recompile the run.

    Raises:
        TypeError: if task is not a finite sum.
        ValueError: if α is not positive and finite; during a run, if the timeline is not synchronous rounds with doubly
            stochastic matrices.

    Reference: Xin, Khan, Kar 2022, arXiv 2011.03853, algorithm 1, with the sample of the gradient as that of the table,
        as in Xin, Khan, Kar 2020, arXiv 1912.04230 (both recalled; the order of mixing checked against an
        implementation).
    """
    task = as_finite_sum(task)
    check_step_size(step_size)
    return Protocol(
        init=Partial(_init, task),
        step=Partial(_step, task, step_size),
        model=Partial(_model),
        requires=tracking_needs(task, local_steps=1),
    )
