"""BEER: gradient tracking with compressed differences of both models and trackers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Key, UInt

from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, num_rows, where_rows
from gossipjax.compress._compressor import STREAM, Compressor, as_compressor, compress_rows
from gossipjax.facts import FIXED_GRAPH, Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import init_optimizer, node_gradients
from gossipjax.sharing._choco import check_gamma, check_quality, consensus_step
from gossipjax.types import Event, Info, Params, Protocol, Task

TRACKERS = STREAM - 1
"""Stream of the trackers' messages, distinct from that of the models'; no node has this number."""


class BeerState(NamedTuple):
    """Models, trackers, the neighbours' copies of both, last gradients, and optimizer states of all nodes."""

    x: Params
    x_estimate: Params
    """H, leaves ``(n, ...)``."""
    tracker: Params
    """V of the last gradients."""
    tracker_estimate: Params
    """G, which lags one mixing behind V."""
    gradient: Params
    started: Bool[Array, " n"]
    """Whether the node has a tracker to send."""
    optimizer: Any


def _init(compressor: Compressor, optimizer: Partial, key: Key[Array, ""], x0: Params) -> BeerState:
    """Start tracker and last gradient at zero: the first step then sets the tracker to the gradient at x0."""
    del key
    check_quality(compressor, x0)
    zero = jax.tree.map(jnp.zeros_like, x0)
    started = jnp.zeros(num_rows(x0), bool)
    return BeerState(x0, zero, zero, zero, zero, started, init_optimizer(optimizer, x0))


def tell(
    key: Key[Array, ""], compressor: Compressor, estimate: Params, x: Params, event: Event
) -> tuple[Params, int | UInt[Array, " n"]]:
    """Send ``Q(x − x̂)``, and add it to the copies; also return the bits of one message."""
    message, bits = compress_rows(key, compressor, jax.tree.map(jnp.subtract, x, estimate), event)
    return jax.tree.map(jnp.add, estimate, message), bits


@by_rows
def _step(
    task: Task, optimizer: Partial, compressor: Compressor, gamma: Any, key, state: BeerState, event: Event
) -> tuple[BeerState, Info]:
    """One round: V from the gradient at x, then G from V, x from V and H, and H from x."""
    loss, grad = node_gradients(key, task, state.x, event)
    change = jax.tree.map(jnp.subtract, grad, state.gradient)
    tracker = consensus_step(gamma, event.mixing, state.tracker, state.tracker_estimate)
    tracker = jax.tree.map(jnp.add, tracker, change)
    of_trackers = jax.random.fold_in(key, TRACKERS)
    told, tracker_bits = tell(of_trackers, compressor, state.tracker_estimate, tracker, event)
    # The published G is 0 when V_0 is known: V_1 is the first that it is told of.
    tracker_estimate = where_rows(state.started, told, state.tracker_estimate)
    updates, optimizer_state = jax.vmap(optimizer().update)(tracker, state.optimizer, state.x)
    x = optax.apply_updates(consensus_step(gamma, event.mixing, state.x, state.x_estimate), updates)
    x_estimate, bits = tell(key, compressor, state.x_estimate, x, event)
    info = Info(*traffic_fields(event, bits + tracker_bits, num_rows(x)), loss, all_finite(x))
    started = jnp.ones_like(state.started)
    return BeerState(x, x_estimate, tracker, tracker_estimate, grad, started, optimizer_state), info


def _model(state: BeerState) -> Params:
    return state.x


@recorded("zhao2022beer")
def beer(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    compressor: Compressor,
    gamma: float | Float[np.ndarray | Array, ""],
) -> Protocol:
    """Build BEER, gradient tracking with compressed messages, on stochastic or full gradients g::

        x ← x + γ (W − I) H + optimizer(V)                  −η V for SGD
        H ← H + Q(x − H)                                    by each node and its neighbours
        V ← V + γ (W − I) G + g(x) − g_old
        G ← G + Q(V − G)                                    by each node and its neighbours

    with H = G = 0 and V = g(x_0) at the start. Here a round begins in the middle of this loop, with V, so that each
    round takes one gradient and none is needed before the first. With V = 0 and g_old = 0 at the start, the first V is
    the gradient at x_0, and G stays 0 in the first round. After every round, the models equal those of the published
    loop.

    If W is doubly stochastic, the mean of V always equals the mean of the nodes' current gradients, and for SGD x̄
    moves by −η V̄, for any Q. On smooth problems the rate is ``O(1/T)`` without a bound on the heterogeneity of the
    data, and linear with exact gradients under the Polyak–Łojasiewicz condition. With ω = 1 and γ = 1 it equals
    :func:`~gossipjax.gradient_tracking` (combine then adapt) after a first step ``x + optimizer(g(x))`` without mixing.

    A message holds two compressed vectors and counts as one.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round.
        compressor: Q, with a quality ω (:mod:`gossipjax.compress`).
        gamma: consensus step size γ > 0, of the order of ω. A new value does not recompile the run.

    Raises:
        ValueError: if γ is not positive and finite, or the compressor has no ω for models of this size; during a run,
            if the timeline is not synchronous rounds on one symmetric doubly stochastic matrix.

    Reference: Zhao, Li, Li, Richtárik, Chi 2022, arXiv 2201.13320, algorithm 1.
    """
    as_compressor(compressor)
    check_gamma(gamma)
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, compressor, factory),
        step=Partial(_step, task, factory, compressor, gamma),
        model=Partial(_model),
        requires=FIXED_GRAPH | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1),
    )
