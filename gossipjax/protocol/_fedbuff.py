"""FedBuff: an asynchronous server that applies buffered changes of clients, older ones with less weight."""

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
from gossipjax.mixing._counting import sent
from gossipjax.protocol._local import check_steps
from gossipjax.protocol._local_async import train_apart
from gossipjax.types import Event, Info, Params, Protocol, Task


class FedBuffState(NamedTuple):
    """The server's model, then its buffer, the model that trains, and the model that each busy client fetched."""

    x: Params


def _init(key: Key[Array, ""], x0: Params) -> FedBuffState:
    del key
    return FedBuffState(x0)


def _step(task: Task, optimizer: Partial, steps: Frozen[int], key, state: FedBuffState, event: Event):
    x, _, trained = train_apart(key, task, optimizer, steps, state.x, None, event)
    info = Info(*sent(event, bits_per_row(x), num_rows(x)), trained.loss, trained.finite)
    return FedBuffState(mix(event.mixing, x)), info


def _model(state: FedBuffState) -> Params:
    return state.x


@recorded("nguyen2022fedbuff")
def fedbuff(task: Task, optimizer: optax.GradientTransformation | Partial, *, local_steps: int = 1) -> Protocol:
    """Build FedBuff on a :func:`~gossipjax.timeline.fedbuff` timeline.

    A client that fetched the server's version t_0 returns ``Δ = x_start − x_end`` after H steps of a fresh optimizer.
    The server, by now at version t, does::

        buffer ← buffer + s(t − t_0) Δ         s(τ) = (1 + τ)^(−1/2)
        after K of them:   x ← x − η buffer/K          t ← t + 1          buffer ← 0

    All of this is linear with weights that the plan knows, so the step here is: train, mix. The one model row is the
    server's. A fetch and a return are one message each.

    Args:
        task: one shard per client.
        optimizer: the clients' optax transformation (its state does not outlive a visit), or a Partial of one. A
            schedule counts the steps of one visit: 0 … H − 1, again in every visit.
        local_steps: H ≥ 1.

    Raises:
        TypeError: what is no task or no optimizer.
        ValueError: local_steps < 1; when run, a timeline of another builder.

    Reference: Nguyen et al. 2022, arXiv 2106.06639, algorithm 1.
    """
    step = Partial(_step, as_task(task), as_factory(optimizer), check_steps(local_steps))
    requires = Requires({"buffered"}, mixing=True, num_nodes=task.num_nodes, builder="timeline.fedbuff")
    return Protocol(Partial(_init), step, Partial(_model), requires)
