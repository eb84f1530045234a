"""Wang–Elia: gradient descent with an integral of the disagreement."""

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


class WangEliaState(NamedTuple):
    """Models, integrals and optimizer states of all nodes."""

    x: Params
    integral: Params
    """z, which sums to zero over the nodes."""
    optimizer: Any


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> WangEliaState:
    del key
    return WangEliaState(x0, jax.tree.map(jnp.zeros_like, x0), init_optimizer(optimizer, x0))


@by_rows
def _step(task: Task, optimizer: Partial, key, state: WangEliaState, event: Event) -> tuple[WangEliaState, Info]:
    loss, gradient = node_gradients(key, task, state.x, event)
    update, optimizer_state = jax.vmap(optimizer().update)(gradient, state.optimizer, state.x)
    mixed = mix(event.mixing, (state.x, state.integral))
    disagreement, of_integrals = jax.tree.map(lambda own, others: (own - others) / 2, (state.x, state.integral), mixed)
    x = jax.tree.map(lambda x, kx, kz, u: x - (kx + kz) + u, state.x, disagreement, of_integrals, update)
    integral = jax.tree.map(jnp.add, state.integral, disagreement)
    info = Info(*traffic_fields(event, 2 * bits_per_row(x), num_rows(x)), loss, all_finite(x))
    return WangEliaState(x, integral, optimizer_state), info


def _model(state: WangEliaState) -> Params:
    return state.x


@recorded("bin2022wangelia", "wang2010control")
def wang_elia(task: Task, optimizer: optax.GradientTransformation | Partial) -> Protocol:
    """Build the Wang–Elia algorithm: models are pulled together by their disagreement and by its integral.

    With ``K = ½ (I − W)``, u the optimizer's update at x (``−γ g(x)`` for SGD), and z = 0 at the start::

        x⁺ = x − K (x + z) + u
        z⁺ = z + K x

    If W is doubly stochastic, z always sums to zero, so ``x̄ ← x̄ + ū``. Where it stops, all nodes have one model and
    ``(K z)_i = −γ g_i``: it is exact with exact gradients. A message holds two vectors, x and z.

    For losses of one common curvature h it converges with SGD if and only if ``γ h < (3 + (1 + w)² / 4) / 2``, where w
    is the smallest eigenvalue of W; no graph makes that less than 3/2. (The two modes of a disagreement with the
    eigenvalue k of K are those of ``[[1 − k − γ h, −k], [k, 1]]``.)

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: during a run, if the timeline is not synchronous rounds on one symmetric doubly stochastic matrix.

    Reference: Wang, Elia 2010; Bin, Notarnicola, Parisini 2022. In this form as documented by decent-bench 0.3.0, whose
        weights K these are.
    """
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, factory),
        step=Partial(_step, task, factory),
        model=Partial(_model),
        requires=FIXED_GRAPH | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1),
    )
