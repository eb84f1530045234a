"""FedBuff: an asynchronous server that applies buffered changes of clients, with less weight for older ones."""

from __future__ import annotations

from typing import NamedTuple

import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import bits_per_row, num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps
from gossipjax.protocol._local_async import train_apart
from gossipjax.types import Event, Info, Params, Protocol, Task


class FedBuffState(NamedTuple):
    """The server's model, its buffer, the model that trains, and the models that busy clients fetched."""

    x: Params


def _init(key: Key[Array, ""], x0: Params) -> FedBuffState:
    del key
    return FedBuffState(x0)


def _step(task: Task, optimizer: Partial, steps: Frozen[int], key, state: FedBuffState, event: Event):
    x, _, trained = train_apart(key, task, optimizer, steps, state.x, None, event)
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), trained.loss, trained.finite)
    return FedBuffState(mix(event.mixing, x)), info


def _model(state: FedBuffState) -> Params:
    return state.x


@recorded("nguyen2022fedbuff")
def fedbuff(task: Task, optimizer: optax.GradientTransformation | Partial, *, local_steps: int = 1) -> Protocol:
    """Build FedBuff, and other servers that add changes of clients to their model, whose plan says which and when.

    On :func:`~gossipjax.timeline.fedbuff` it is FedBuff. With one step of SGD it is Ringmaster and asynchronous SGD on
    :func:`~gossipjax.timeline.ringmaster`, and Rennala, Malenia, m-synchronous or minibatch SGD on
    :func:`~gossipjax.timeline.rennala`, :func:`~gossipjax.timeline.malenia` or
    :func:`~gossipjax.timeline.m_synchronous`.

    A client that fetched the server's version t_0 returns ``Δ = x_start − x_end`` after H steps of a fresh optimizer.
    The server, which is then at version t, applies it::

        buffer ← buffer + s(t − t_0) Δ         s(τ) = (1 + τ)^(−1/2)
        after K of them:   x ← x − η buffer/K          t ← t + 1          buffer ← 0

    The plan contains the weights of these linear operations, so the step is training followed by mixing. The only model
    row is the server's. A fetch and a return are one message each.

    Args:
        task: one shard per client.
        optimizer: the clients' optax transformation, or a Partial of one; its state is new at every fetch, so that one
            step with momentum is one without. A schedule counts the steps since the fetch: 0 … H − 1.
        local_steps: H ≥ 1.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if local_steps < 1; during a run, if another builder made the timeline.

    Reference: Nguyen et al. 2022, arXiv 2106.06639, algorithm 1.
    """
    step = Partial(_step, as_task(task), as_factory(optimizer), check_steps(local_steps))
    requires = Requires(
        {"buffered"},
        mixing=True,
        num_nodes=task.num_nodes,
        local_steps=local_steps,
        made_for="FedBuff",
        builder="timeline.fedbuff",
    )
    return Protocol(Partial(_init), step, Partial(_model), requires)
