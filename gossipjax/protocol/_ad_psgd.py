"""AD-PSGD: gradients at older copies of the models, and averaging that does not wait for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.outputs import encode
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import num_rows, put, state_rows, take
from gossipjax.facts import Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import init_optimizer
from gossipjax.protocol._local_async import node_rows, step_from
from gossipjax.sharing._full import as_own_pace_sharing
from gossipjax.types import Event, Info, Params, Protocol, Sharing, Task


class ADPSGDState(NamedTuple):
    """Models of all rows; for each node, the copy at which it computes its gradient, and its optimizer state."""

    x: Params
    snapshot: Params
    optimizer: Any
    sharing: Any


def _init(task: Task, optimizer: Partial, sharing: Sharing, key: Key[Array, ""], x0: Params) -> ADPSGDState:
    del key
    snapshot = node_rows(x0, task.num_nodes)
    return ADPSGDState(x0, snapshot, init_optimizer(optimizer, snapshot), sharing.init(x0))


@by_rows
def _step(
    task: Task, optimizer: Partial, sharing: Sharing, key, state: ADPSGDState, event: Event
) -> tuple[ADPSGDState, Info]:
    snapshot = state.snapshot
    if event.begin is not None:
        snapshot = put(snapshot, event.begin, take(state.x, event.begin))
    point = take(snapshot, state_rows(event))
    x, optimizer_state, trained = step_from(key, task, optimizer, point, state.x, state.optimizer, event)
    if event.begin is None:  # the next gradient starts as soon as this one is applied
        snapshot = put(snapshot, state_rows(event), trained.x)
    shared, (payload, bits) = encode(sharing, key, state.sharing, state.x, x, event)
    shared, x = sharing.merge(key, shared, (x, payload, event))
    info = Info(*traffic_fields(event, bits, num_rows(x)), trained.loss, trained.finite)
    return ADPSGDState(x, snapshot, optimizer_state, shared), info


def _model(state: ADPSGDState) -> Params:
    return state.x


@recorded("lian2018adpsgd")
def ad_psgd(
    task: Task, optimizer: optax.GradientTransformation | Partial, *, sharing: Sharing | None = None
) -> Protocol:
    """Build asynchronous decentralized parallel SGD.

    Node i computes its gradient at a copy s_i of its model, while others average with the model itself. When the
    gradient is done, i acts::

        x_i ← x_i + optimizer(g_i(s_i))      s_i ← x_i          then the event's mixing, on x alone: x ← W x

    For SGD the update is ``−γ g_i``. The next gradient starts at once; on a timeline with ``Event.begin``, copies are
    taken there instead, before the step. With doubly stochastic mixings the mean moves by gradients only:
    ``x̄ ← x̄ + u_i/n``.

    Use any timeline of pairwise averaging or pushes in which computations end on one clock of each node and
    communication happens on another.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own local steps, not events or seconds.
        sharing: what nodes send; None: the full model.

    Raises:
        TypeError: if task, optimizer or sharing has the wrong type.
        ValueError: if the sharing needs synchronous rounds; during a run, if the timeline has rounds or names
            fragments, or nodes train rows other than their own.

    Reference: Lian et al. 2018, arXiv 1710.06952, algorithm 1.
    """
    task, factory, chosen = as_task(task), as_factory(optimizer), as_own_pace_sharing(sharing)
    requires = Requires(
        {"row_stochastic", "own_rows", "meetings"},
        mixing=True,
        num_nodes=task.num_nodes,
        local_steps=1,
        made_for="AD-PSGD",
        builder="timeline.pairwise",
    )
    return Protocol(
        init=Partial(_init, task, factory, chosen),
        step=Partial(_step, task, factory, chosen),
        model=Partial(_model),
        requires=requires | chosen.requires,
    )
