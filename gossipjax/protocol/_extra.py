"""EXTRA: decentralized gradient descent, corrected with the previous model and gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, bits_per_row, num_rows
from gossipjax.facts import FIXED_GRAPH, Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import init_optimizer, node_gradients
from gossipjax.types import Event, Info, Params, Protocol, Task


class ExtraState(NamedTuple):
    """Models, their last mean with what was received, last updates, and optimizer states of all nodes."""

    x: Params
    half: Params
    """``½ (I + W)`` times the models of the round before; x_0 at the start."""
    update: Params
    optimizer: Any


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> ExtraState:
    del key
    return ExtraState(x0, x0, jax.tree.map(jnp.zeros_like, x0), init_optimizer(optimizer, x0))


@by_rows
def _step(task: Task, optimizer: Partial, key, state: ExtraState, event: Event) -> tuple[ExtraState, Info]:
    loss, gradient = node_gradients(key, task, state.x, event)
    update, optimizer_state = jax.vmap(optimizer().update)(gradient, state.optimizer, state.x)
    mixed = mix(event.mixing, state.x)
    x = jax.tree.map(
        lambda x, wx, half, new, old: x + wx - half + (new - old), state.x, mixed, state.half, update, state.update
    )
    half = jax.tree.map(lambda own, others: (own + others) / 2, state.x, mixed)
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), loss, all_finite(x))
    return ExtraState(x, half, update, optimizer_state), info


def _model(state: ExtraState) -> Params:
    return state.x


@recorded("shi2015extra")
def extra(task: Task, optimizer: optax.GradientTransformation | Partial) -> Protocol:
    """Build EXTRA. With u_t the optimizer's update at x_t (``−γ g_t`` for SGD)::

        x_1 = W x_0 + u_0
        x_{t+2} = (I + W) x_{t+1} − ½ (I + W) x_t + u_{t+1} − u_t

    A message holds one vector. If W is doubly stochastic, ``x̄ ← x̄ + ū``.

    With SGD and exact gradients of convex, L-smooth losses it converges to the exact optimum for every
    γ < (1 + w) / L, where w is the smallest eigenvalue of W, and linearly if the sum of the losses is strongly convex.
    In single precision, rounding adds up in the velocity of x̄, so that the error grows with the number of rounds; that
    of :func:`~gossipjax.exact_diffusion` on the same problems did not.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: during a run, if the timeline is not synchronous rounds on one symmetric doubly stochastic matrix.

    Reference: Shi, Ling, Wu, Yin 2015, arXiv 1404.6264, algorithm 1 with W̃ = ½ (I + W).
    """
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, factory),
        step=Partial(_step, task, factory),
        model=Partial(_model),
        requires=FIXED_GRAPH | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1),
    )
