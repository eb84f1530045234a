"""SWIFT: nodes never wait, and average with the newest model that they have received from each neighbour."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.outputs import encode
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps, init_optimizer
from gossipjax.protocol._local_async import node_rows, train_apart
from gossipjax.sharing._full import as_own_pace_sharing
from gossipjax.types import Event, Info, Params, Protocol, Sharing, Task


class SwiftState(NamedTuple):
    """Models of the nodes and of the mailboxes, optimizer states of the nodes."""

    x: Params
    optimizer: Any
    sharing: Any


def _init(task: Task, optimizer: Partial, sharing: Sharing, key: Key[Array, ""], x0: Params) -> SwiftState:
    del key
    return SwiftState(x0, init_optimizer(optimizer, node_rows(x0, task.num_nodes)), sharing.init(x0))


@by_rows
def _step(task: Task, optimizer: Partial, steps: Frozen[int], sharing: Sharing, key, state: SwiftState, event: Event):
    x, optimizer_state, trained = train_apart(key, task, optimizer, steps, state.x, state.optimizer, event)
    shared, (payload, bits) = encode(sharing, key, state.sharing, state.x, x, event)
    shared, x = sharing.merge(key, shared, (x, payload, event))
    info = Info(*traffic_fields(event, bits, num_rows(x)), trained.loss, trained.finite)
    return SwiftState(x, optimizer_state, shared), info


def _model(state: SwiftState) -> Params:
    return state.x


@recorded("bornstein2023swift")
def swift(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    local_steps: int = 1,
    sharing: Sharing | None = None,
) -> Protocol:
    """Build SWIFT's step of an acting node i, with the clocks and mailboxes of :func:`~gossipjax.timeline.swift`::

        x_i ← x_i + optimizer(g_i(x_i))          (−γ g_i for SGD)
        send x_i to all neighbours, waiting for none
        x_i ← w_ii x_i + Σ_j w_ij x̃_j            at every s-th step of i; x̃_j the newest model received from j

    The weights make the *expected* mixing matrix doubly stochastic, so the mean is conserved in expectation only.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own local steps, not events or seconds.
        local_steps: H ≥ 1 gradient steps per tick.
        sharing: what nodes send; None: the full model.

    Raises:
        TypeError: if task, optimizer or sharing has the wrong type.
        ValueError: if local_steps < 1, or the sharing needs synchronous rounds; during a run, if another builder made
            the timeline.

    Reference: Bornstein, Rabbani, Wang, Bedi, Huang 2023, arXiv 2210.14026, algorithm 1.
    """
    task, factory, chosen = as_task(task), as_factory(optimizer), as_own_pace_sharing(sharing)
    requires = Requires(
        {"row_stochastic", "own_rows", "mailboxes"},
        mixing=True,
        num_nodes=task.num_nodes,
        local_steps=local_steps,
        made_for="SWIFT",
        builder="timeline.swift",
    )
    return Protocol(
        init=Partial(_init, task, factory, chosen),
        step=Partial(_step, task, factory, check_steps(local_steps), chosen),
        model=Partial(_model),
        requires=requires | chosen.requires,
    )
