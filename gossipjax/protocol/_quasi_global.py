"""Quasi-global momentum: D-PSGD with a momentum of what models change in a whole round, mixing included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.outputs import encode
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import init_optimizer, node_gradients
from gossipjax.sharing._full import as_sharing
from gossipjax.types import Event, Info, Params, Protocol, Sharing, Task


class MomentumState(NamedTuple):
    """Models, momenta and optimizer states of all nodes, and the state of the sharing."""

    x: Params
    momentum: Params
    """In the unit of the models: the published momentum times the learning rate."""
    optimizer: Any
    sharing: Any


def _init(optimizer: Partial, sharing: Sharing, key: Key[Array, ""], x0: Params) -> MomentumState:
    del key
    return MomentumState(x0, jax.tree.map(jnp.zeros_like, x0), init_optimizer(optimizer, x0), sharing.init(x0))


@by_rows
def _step(
    task: Task, optimizer: Partial, beta: Any, sharing: Sharing, key, state: MomentumState, event: Event
) -> tuple[MomentumState, Info]:
    loss, gradient = node_gradients(key, task, state.x, event)
    updates, optimizer_state = jax.vmap(optimizer().update)(gradient, state.optimizer, state.x)
    trained = jax.tree.map(lambda x, u, v: x + u - jnp.asarray(beta, x.dtype) * v, state.x, updates, state.momentum)
    shared, (payload, bits) = encode(sharing, key, state.sharing, state.x, trained, event)
    shared, x = sharing.merge(key, shared, (trained, payload, event))

    def blend(v: Array, old: Array, new: Array) -> Array:
        share = jnp.asarray(beta, v.dtype)
        return share * v + (1 - share) * (old - new)

    momentum = jax.tree.map(blend, state.momentum, state.x, x)
    info = Info(*traffic_fields(event, bits, num_rows(x)), loss, all_finite(x))
    return MomentumState(x, momentum, optimizer_state, shared), info


def _model(state: MomentumState) -> Params:
    return state.x


def with_momentum(step: Callable[..., Any], task: Any, optimizer: Any, momentum: Any, sharing: Any) -> Protocol:
    """Check the arguments of a protocol with a momentum of whole rounds, and build it; raises as its builder says."""
    real("momentum", momentum, least=0, below=1, remedy="0.9 is usual; 0 is D-PSGD")
    task, factory, chosen = as_task(task), as_factory(optimizer), as_sharing(sharing)
    needs = Requires(
        {"synchronous", "row_stochastic", "own_rows"},
        mixing=True,
        num_nodes=task.num_nodes,
        local_steps=1,
        builder="timeline.rounds",
    )
    return Protocol(
        init=Partial(_init, factory, chosen),
        step=Partial(step, task, factory, momentum, chosen),
        model=Partial(_model),
        requires=needs | chosen.requires,
    )


@recorded("lin2021quasi")
def quasi_global_momentum(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    momentum: float | Float[np.ndarray | Array, ""] = 0.9,
    sharing: Sharing | None = None,
) -> Protocol:
    """Build D-PSGD with quasi-global momentum (QG-DSGDm).

    With u the optimizer's update at x (``−γ g(x)`` for SGD), β the momentum, and v = 0 at the start::

        z = x + u − β v
        x⁺ = W z
        v⁺ = β v + (1 − β) (x − x⁺)

    which for SGD with a constant γ is the published method, whose momentum is v / γ. The momentum follows the change
    of the model over a whole round, mixing included, so that it does not amplify the differences between nodes' data.
    With exact gradients and a constant step its fixed points are those of adapt-then-combine D-PSGD with the same γ;
    the average model moves as with the step γ / (1 − β).

    With a doubly stochastic W, ``x̄⁺ = x̄ + ū − β v̄``. With β = 0 it is :func:`~gossipjax.dpsgd`, adapt then combine.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. An optimizer's own
            momentum β' adds to this one: the fixed points are those of SGD with the step γ / (1 − β'). A schedule
            counts the node's own steps, here one a round.
        momentum: β in [0, 1). A new value does not recompile the run.
        sharing: what nodes send; None: the full model.

    Raises:
        TypeError: if task, optimizer or sharing has the wrong type.
        ValueError: if β is out of range; during a run, if the timeline is not synchronous rounds whose rows sum to one.

    Reference: Lin, Karimireddy, Stich, Jaggi 2021, arXiv 2102.04761, algorithm 1 with μ = β.
    """
    return with_momentum(_step, task, optimizer, momentum, sharing)
