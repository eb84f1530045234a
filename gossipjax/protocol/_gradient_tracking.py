"""Gradient tracking (DIGing): a second vector tracks the network's mean gradient."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.arguments import choice
from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import all_finite, bits_per_row, num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import init_optimizer, node_gradients
from gossipjax.types import Event, Info, Params, Protocol, Task


class GradientTrackingState(NamedTuple):
    """Models, trackers, last gradients and optimizer states of all nodes."""

    x: Params
    tracker: Params
    gradient: Params
    optimizer: Any


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> GradientTrackingState:
    """Start tracker and last gradient at zero: the first step then sets the tracker to the gradient at x0."""
    del key
    zero = jax.tree.map(jnp.zeros_like, x0)
    return GradientTrackingState(x0, zero, zero, init_optimizer(optimizer, x0))


def _step(
    task: Task, optimizer: Partial, combine_first: Frozen[bool], key, state: GradientTrackingState, event: Event
) -> tuple[GradientTrackingState, Info]:
    """One round: y ← W y + g(x) − g_old first, then the model moves along y."""
    loss, grad = node_gradients(key, task, state.x, event)
    change = jax.tree.map(jnp.subtract, grad, state.gradient)
    if combine_first.value:
        tracker = jax.tree.map(jnp.add, mix(event.mixing, state.tracker), change)
    else:
        tracker = mix(event.mixing, jax.tree.map(jnp.add, state.tracker, change))
    updates, optimizer_state = jax.vmap(optimizer().update)(tracker, state.optimizer, state.x)
    if combine_first.value:
        x = optax.apply_updates(mix(event.mixing, state.x), updates)
    else:
        x = mix(event.mixing, optax.apply_updates(state.x, updates))
    bits = 2 * bits_per_row(x)
    info = Info(*traffic_fields(event, bits, num_rows(x)), loss, all_finite(x))
    return GradientTrackingState(x, tracker, grad, optimizer_state), info


def _model(state: GradientTrackingState) -> Params:
    return state.x


@recorded("nedic2017tracking", "dilorenzo2016next")
def gradient_tracking(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    order: Literal["adapt_then_combine", "combine_then_adapt"] = "combine_then_adapt",
) -> Protocol:
    """Build gradient tracking with stochastic or full gradients g.

    Combine-then-adapt (DIGing, arranged to take one gradient per round)::

        y ← W y + g(x) − g_old          x ← W x + optimizer(y)

    with y = 0 and g_old = 0 at the start, so that the first y is g(x_0). Adapt-then-combine::

        y ← W (y + g(x) − g_old)        x ← W (x + optimizer(y))

    If W is doubly stochastic, the mean of y always equals the mean of the nodes' current gradients. The rate is linear
    on smooth, strongly convex problems with a constant step, for any heterogeneity. A message holds two vectors.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round.
        order: which of the two forms.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if order is unknown; during a run, if the timeline is not synchronous rounds with doubly stochastic
            matrices.

    Reference: Nedić, Olshevsky, Shi 2017, arXiv 1607.03218; Di Lorenzo and Scutari 2016 (adapt-then-combine).
    """
    choice("order", order, ("adapt_then_combine", "combine_then_adapt"))
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, factory),
        step=Partial(_step, task, factory, Frozen(order == "combine_then_adapt")),
        model=Partial(_model),
        requires=Requires(
            {"synchronous", "doubly_stochastic", "own_rows"},
            mixing=True,
            num_nodes=task.num_nodes,
            local_steps=1,
            builder="timeline.rounds",
        ),
    )
