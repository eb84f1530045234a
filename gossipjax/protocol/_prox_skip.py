"""ProxSkip (Scaffnew): corrected local steps, and a common coin that decides when nodes communicate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, bits_per_row, num_rows
from gossipjax.compress._compressor import STREAM
from gossipjax.facts import FIXED_GRAPH, Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import count
from gossipjax.protocol._local import init_optimizer, node_gradients
from gossipjax.types import Event, Info, Mixing, Params, Protocol, Task

_COINS = STREAM - 2
"""Stream of the coins; no node has this number."""


class ProxSkipState(NamedTuple):
    """Models, corrections and optimizer states of all nodes."""

    x: Params
    y: Params
    optimizer: Any


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> ProxSkipState:
    del key
    return ProxSkipState(x0, jax.tree.map(jnp.zeros_like, x0), init_optimizer(optimizer, x0))


def _talks(key: Key[Array, ""], probability: Any, event: Event) -> Bool[Array, ""]:
    """Flip the coin of the round, the same for all nodes."""
    coin = jax.random.fold_in(jax.random.fold_in(key, _COINS), event.index[0])
    return jax.random.uniform(coin, dtype=jnp.float32) < jnp.asarray(probability, jnp.float32)


def _mixed(mixing: Mixing, chi: Any, z: Params) -> Params:
    def move(own: Array, others: Array) -> Array:
        return own - (own - others) / (2 * jnp.asarray(chi, own.dtype))

    return jax.tree.map(move, z, mix(mixing, z))


@by_rows
def _step(
    task: Task, optimizer: Partial, probability: Any, chi: Any, key, state: ProxSkipState, event: Event
) -> tuple[ProxSkipState, Info]:
    loss, gradient = node_gradients(key, task, state.x, event)
    updates, optimizer_state = jax.vmap(optimizer().update)(gradient, state.optimizer, state.x)
    z = jax.tree.map(lambda x, u, y: x + u - y, state.x, updates, state.y)
    talks = _talks(key, probability, event)
    x = jax.lax.cond(talks, lambda: _mixed(event.mixing, chi, z), lambda: z)
    y = jax.tree.map(lambda y, z, x: y + jnp.asarray(probability, z.dtype) * (z - x), state.y, z, x)
    sent = jnp.where(talks, count(event, num_rows(x)), 0).astype(jnp.uint32)
    info = Info(bits_per_row(x), sent, loss, all_finite(x))
    return ProxSkipState(x, y, optimizer_state), info


def _model(state: ProxSkipState) -> Params:
    return state.x


@recorded("mishchenko2022proxskip", "guo2023proxskip")
def prox_skip(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    probability: float | Float[np.ndarray | Array, ""],
    chi: float | Float[np.ndarray | Array, ""] = 1.0,
) -> Protocol:
    """Build decentralized ProxSkip, in which all nodes communicate in a round with probability p, or none does.

    With u the optimizer's update at x (``−γ g(x)`` for SGD), y = 0 at the start and ``W_χ = I − (I − W)/(2χ)``::

        z = x + u − y
        with probability p:   x⁺ = W_χ z,   y⁺ = y + p (z − x⁺)
        otherwise:            x⁺ = z,       y⁺ = y

    The y always sum to zero, so ``x̄ ← x̄ + ū``. Where it stops, all nodes have one model and ``y_i = u_i``: it is exact
    for SGD with exact gradients. A message holds one vector; rounds without communication send none. With p = 1 and
    χ = 1 it is :func:`~gossipjax.exact_diffusion`.

    Coins come from the key of the run, so that seeds differ in them.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round, with or without communication.
        probability: p in (0, 1]. A new value does not recompile the run.
        chi: χ ≥ 1; larger values mix more slowly. A new value does not recompile the run.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if p or χ is out of range; during a run, if the timeline is not synchronous rounds on one symmetric
            doubly stochastic matrix.

    Reference: Mishchenko, Malinovsky, Stich, Richtárik 2022, arXiv 2202.09357; in this form Guo, Alghunaim, Yuan,
        Condat, Cao 2023, arXiv 2310.07983.
    """
    real("probability", probability, above=0, most=1, remedy="1 communicates in every round")
    real("chi", chi, least=1, remedy="1 mixes with ½ (I + W)")
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, factory),
        step=Partial(_step, task, factory, probability, chi),
        model=Partial(_model),
        requires=FIXED_GRAPH | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1),
    )
