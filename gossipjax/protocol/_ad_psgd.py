"""AD-PSGD: gradients that are taken at an older copy of the model, and averaging that waits for nobody."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import bits_per_row, num_rows, put, take
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import sent
from gossipjax.protocol._local import init_optimizer
from gossipjax.protocol._local_async import node_rows, step_from
from gossipjax.types import Event, Info, Params, Protocol, Task


class ADPSGDState(NamedTuple):
    """Models of all rows; of each node the copy at which its gradient is being computed, and its optimizer state."""

    x: Params
    snapshot: Params
    optimizer: Any


def _init(task: Task, optimizer: Partial, key: Key[Array, ""], x0: Params) -> ADPSGDState:
    del key
    snapshot = node_rows(x0, task.num_nodes)
    return ADPSGDState(x0, snapshot, init_optimizer(optimizer, snapshot))


def _step(task: Task, optimizer: Partial, key, state: ADPSGDState, event: Event) -> tuple[ADPSGDState, Info]:
    snapshot = state.snapshot
    if event.begin is not None:
        snapshot = put(snapshot, event.begin, take(state.x, event.begin))
    x, optimizer_state, (loss, finite) = step_from(key, task, optimizer, snapshot, state.x, state.optimizer, event)
    if event.begin is None:  # the next gradient starts as soon as this one is applied
        snapshot = put(snapshot, event.nodes, take(x, event.nodes))
    info = Info(*sent(event, bits_per_row(x), num_rows(x)), loss, finite)
    return ADPSGDState(mix(event.mixing, x), snapshot, optimizer_state), info


def _model(state: ADPSGDState) -> Params:
    return state.x


@recorded("lian2018adpsgd")
def ad_psgd(task: Task, optimizer: optax.GradientTransformation | Partial) -> Protocol:
    """Build asynchronous decentralized parallel SGD.

    Node i computes its gradient at a copy s_i of its model while others average with the model itself. When it is
    done (an event in which i acts)::

        x_i ← x_i + optimizer(g_i(s_i))      s_i ← x_i          then the event's mixing, on x alone: x ← W x

    ``−γ g_i`` for SGD. The next gradient starts at once; where the timeline says who begins, copies are taken there
    instead, before the step. With doubly stochastic mixings the mean moves by gradients only: ``x̄ ← x̄ + u_i/n``.

    The clock: computations end on a clock of each node, meetings of random neighbours on another; any timeline of
    pairwise averaging or pushes will do.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own local steps, not events or seconds.

    Raises:
        TypeError: what is no task or no optimizer.
        ValueError: when run, rounds, fragments, or nodes that train other rows than their own.

    Reference: Lian et al. 2018, arXiv 1710.06952, algorithm 1.
    """
    task, factory = as_task(task), as_factory(optimizer)
    requires = Requires(
        {"row_stochastic", "own_rows", "meetings"},
        mixing=True,
        num_nodes=task.num_nodes,
        local_steps=1,
        made_for="AD-PSGD",
        builder="timeline.pairwise",
    )
    return Protocol(Partial(_init, task, factory), Partial(_step, task, factory), Partial(_model), requires)
