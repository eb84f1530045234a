"""Gradient tracking (DIGing, NEXT, Aug-DGM): a second vector tracks the network's mean gradient."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Key

from gossipjax._base.arguments import choice
from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, bits_per_row, num_rows, where_rows
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
    started: Bool[Array, " n"] | None
    """Whether the tracker holds gradients already; None if the order does not distinguish the first round."""


def _init(optimizer: Partial, order: Frozen[str], key: Key[Array, ""], x0: Params) -> GradientTrackingState:
    """Start tracker and last gradient at zero: the first step then sets the tracker from the gradient at x0."""
    del key
    zero = jax.tree.map(jnp.zeros_like, x0)
    started = jnp.zeros(num_rows(x0), bool) if order.value == "aug_dgm" else None
    return GradientTrackingState(x0, zero, zero, init_optimizer(optimizer, x0), started)


def _track(order: str, state: GradientTrackingState, grad: Params, event: Event) -> Params:
    """Return the new tracker."""
    change = jax.tree.map(jnp.subtract, grad, state.gradient)
    if order in ("combine_then_adapt", "next"):
        return jax.tree.map(jnp.add, mix(event.mixing, state.tracker), change)
    tracker = mix(event.mixing, jax.tree.map(jnp.add, state.tracker, change))
    return tracker if state.started is None else where_rows(state.started, tracker, grad)


@by_rows
def _step(
    task: Task, optimizer: Partial, order: Frozen[str], key, state: GradientTrackingState, event: Event
) -> tuple[GradientTrackingState, Info]:
    """One round: the tracker first, then the model moves along it."""
    loss, grad = node_gradients(key, task, state.x, event)
    tracker = _track(order.value, state, grad, event)
    updates, optimizer_state = jax.vmap(optimizer().update)(tracker, state.optimizer, state.x)
    if order.value == "combine_then_adapt":
        x = optax.apply_updates(mix(event.mixing, state.x), updates)
    else:
        x = mix(event.mixing, optax.apply_updates(state.x, updates))
    bits = 2 * bits_per_row(x)
    info = Info(*traffic_fields(event, bits, num_rows(x)), loss, all_finite(x))
    started = None if state.started is None else jnp.ones_like(state.started)
    return GradientTrackingState(x, tracker, grad, optimizer_state, started), info


def _model(state: GradientTrackingState) -> Params:
    return state.x


Order: TypeAlias = Literal["combine_then_adapt", "adapt_then_combine", "next", "aug_dgm"]


@recorded("nedic2017tracking", "xu2015augdgm", "dilorenzo2016next", "xin2021gtdsgd")
def gradient_tracking(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    order: Order = "combine_then_adapt",
) -> Protocol:
    """Build gradient tracking with stochastic or full gradients g, arranged to take one gradient per round.

    Each round computes the gradient g at x, then the tracker y, then the model. With y = 0 and g_old = 0 at the start::

        combine_then_adapt:   y ← W y + g − g_old        x ← W x + optimizer(y)      (DIGing)
        next:                 y ← W y + g − g_old        x ← W (x + optimizer(y))    (NEXT, SONATA)
        aug_dgm:              y ← W (y + g − g_old)      x ← W (x + optimizer(y))    (Aug-DGM, ATC-DIGing)
        adapt_then_combine:   y ← W (y + g − g_old)      x ← W (x + optimizer(y))    (GT-DSGD, GT-SAGA)

    The last two differ in the first round only: in ``aug_dgm`` the first y is g(x_0), as in the first two, in
    ``adapt_then_combine`` it is W g(x_0). On matrices that change, a round mixes the tracker and the model with its own
    matrix.

    If W is doubly stochastic, the mean of y always equals the mean of the nodes' current gradients, and for SGD
    ``x̄ ← x̄ − γ ȳ``. The rate is linear on smooth, strongly convex problems with a constant step, for any
    heterogeneity; the range of the step depends on W. A message holds two vectors.

    For losses of one common curvature h and a connected graph with symmetric W, whose smallest eigenvalue is w, it
    converges with SGD and exact gradients if and only if::

        combine_then_adapt:             γ h < (1 + w)² / 2
        next:                           γ h < 2, and γ h < (1 − w²) / |w| if w < 0
        aug_dgm, adapt_then_combine:    γ h < 2, and γ h < (1 + w)² / (2 w²) if w < 0

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round.
        order: which of the four forms.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if order is unknown; during a run, if the timeline is not synchronous rounds with doubly stochastic
            matrices.

    Reference: Nedić, Olshevsky, Shi 2017, arXiv 1607.03218 (DIGing); Xu, Zhu, Soh, Xie 2015 (Aug-DGM); Di Lorenzo and
        Scutari 2016 (NEXT); Xin, Khan, Kar 2021, arXiv 2008.04195, algorithm 1 (GT-DSGD).
    """
    choice("order", order, get_args(Order))
    task, factory, chosen = as_task(task), as_factory(optimizer), Frozen(order)
    return Protocol(
        init=Partial(_init, factory, chosen),
        step=Partial(_step, task, factory, chosen),
        model=Partial(_model),
        requires=Requires(
            {"synchronous", "doubly_stochastic", "own_rows"},
            mixing=True,
            num_nodes=task.num_nodes,
            local_steps=1,
            builder="timeline.rounds",
        ),
    )
