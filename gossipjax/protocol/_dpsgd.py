"""D-PSGD: local gradient steps and mixing with the neighbours, in either order."""

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
from gossipjax._base.outputs import encode
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import increase, num_rows, put, take, trained_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps, init_optimizer, train, write
from gossipjax.protocol._local_async import node_rows
from gossipjax.sharing._full import as_sharing
from gossipjax.types import Event, Info, Params, Protocol, Sharing, Task


class DPSGDState(NamedTuple):
    """Models of all rows, optimizer states of the nodes, and the state of the sharing."""

    x: Params
    optimizer: Any
    sharing: Any


def _init(task: Task, optimizer: Partial, sharing: Sharing, key: Key[Array, ""], x0: Params) -> DPSGDState:
    del key
    return DPSGDState(x0, init_optimizer(optimizer, node_rows(x0, task.num_nodes)), sharing.init(x0))


@by_rows
def _adapt_then_combine(
    task: Task, optimizer: Partial, steps: Frozen[int], sharing: Sharing, key, state: DPSGDState, event: Event
) -> tuple[DPSGDState, Info]:
    trained = train(key, task, optimizer, steps, state.x, state.optimizer, event)
    x, optimizer_state = write(state.x, state.optimizer, trained, event)
    shared, (payload, bits) = encode(sharing, key, state.sharing, state.x, x, event)
    shared, x = sharing.merge(key, shared, (x, payload, event))
    info = Info(*traffic_fields(event, bits, num_rows(x)), trained.loss, trained.finite)
    return DPSGDState(x, optimizer_state, shared), info


@by_rows
def _combine_then_adapt(
    task: Task, optimizer: Partial, steps: Frozen[int], sharing: Sharing, key, state: DPSGDState, event: Event
) -> tuple[DPSGDState, Info]:
    trained = train(key, task, optimizer, steps, state.x, state.optimizer, event)
    rows = trained_rows(event)
    change = jax.tree.map(jnp.subtract, trained.x, take(state.x, rows))
    shared, (payload, bits) = encode(sharing, key, state.sharing, state.x, state.x, event)
    shared, mixed = sharing.merge(key, shared, (state.x, payload, event))
    x = increase(mixed, rows, change)
    info = Info(*traffic_fields(event, bits, num_rows(x)), trained.loss, trained.finite)
    return DPSGDState(x, put(state.optimizer, rows, trained.optimizer), shared), info


def _model(state: DPSGDState) -> Params:
    return state.x


_REQUIRES = Requires({"row_stochastic", "own_rows"}, mixing=True, builder="timeline.rounds")
_ORDERS = {"adapt_then_combine": _adapt_then_combine, "combine_then_adapt": _combine_then_adapt}


@recorded("lian2017dpsgd", "stich2019local")
def dpsgd(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    order: Literal["adapt_then_combine", "combine_then_adapt"] = "adapt_then_combine",
    local_steps: int = 1,
    sharing: Sharing | None = None,
) -> Protocol:
    """Build decentralized parallel SGD.

    With u_j the sum of the optimizer's H updates from x_j (``−γ g_j(x_j)`` for one step of SGD)::

        adapt_then_combine:   x_i ← Σ_j W_ij (x_j + u_j)
        combine_then_adapt:   x_i ← Σ_j W_ij x_j + u_i          (gradient at the unmixed model; the 2017 form)

    On rounds this is the synchronous algorithm. On a pairwise timeline (:func:`~gossipjax.timeline.poisson_pairs`),
    each event is a step of the acting node and an average of the pair. With flight times, a message holds the model, or
    the part of it, as it was when sent. With :func:`~gossipjax.sharing.fragments` it is Shatter on
    :func:`~gossipjax.timeline.shatter`, and DivShare on :func:`~gossipjax.timeline.divshare`. With a doubly stochastic
    W, mixing conserves the mean: ``x̄ ← x̄ + ū``. If only its rows sum to one, node j counts in proportion to π_j, with
    ``π W = π``, in what the network agrees on; :func:`~gossipjax.sgp` counts all alike on directed graphs.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, with one state per node; or ``Partial(optax.sgd, 0.1)`` to keep its
            numbers as arguments. A schedule counts the node's own local steps (H at each of its events), not events or
            seconds.
        order: which of the two forms.
        local_steps: H ≥ 1 optimizer steps before each mixing (local SGD).
        sharing: what nodes send; None: the full model.

    Raises:
        TypeError: if task, optimizer or sharing has the wrong type.
        ValueError: if order is unknown or local_steps < 1; during a run, if the timeline names fragments and the
            sharing cannot send them, or nodes train rows other than their own.

    Reference: Lian et al. 2017, arXiv 1705.09056, algorithm 1 (combine-then-adapt); Stich 2019 (local steps).
    """
    choice("order", order, _ORDERS)
    task, factory, chosen = as_task(task), as_factory(optimizer), as_sharing(sharing)
    return Protocol(
        init=Partial(_init, task, factory, chosen),
        step=Partial(_ORDERS[order], task, factory, check_steps(local_steps), chosen),
        model=Partial(_model),
        requires=_REQUIRES | Requires(num_nodes=task.num_nodes, local_steps=local_steps) | chosen.requires,
    )
