"""What a simulated run of Plexus consists of, and what all its handlers need: time, messages, models on their way."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from gossipjax.systems._kernel.bandwidth import Network
from gossipjax.systems._kernel.queue import Queue, at
from gossipjax.systems._plexus import views as beliefs
from gossipjax.systems._plexus.plan import CANCELLED
from gossipjax.systems._plexus.record import Log, set_fate, transfer_ends, transfer_starts
from gossipjax.systems._plexus.sampler import candidates
from gossipjax.systems._plexus.sizes import TRAINED
from gossipjax.systems._plexus.views import View, Views


class Settings(NamedTuple):
    """What a run is told; see :func:`gossipjax.systems.plexus`."""

    num_nodes: int
    num_rounds: float
    """Infinity where the duration ends the run."""
    duration_s: float
    sample_size: int
    needed: int
    """Models that make a mean."""
    message_bytes: int
    """Of a model message."""
    next_aggregator: bool
    """The aggregator of the trainings of round k is of sample k + 1; else of sample k."""
    server: int | None
    """The node that always aggregates."""
    num_aggregators: int | None
    """MoDeST; None: Plexus."""
    activity_window: int | None
    graceful: bool
    resend_s: float
    ping_timeout_s: float
    aggregation_timeout_s: float
    min_models: int
    stall_s: float


TRAINING, SEARCHING, SENDING, WAITING, OVER = range(5)
"""Phases of a task: training, looking for an aggregator, sending the model, waiting for its acknowledgement, over."""


@dataclasses.dataclass(slots=True, eq=False)
class Task:
    """What a node does in a round."""

    node: int
    round: int
    training: int
    """Its number in the log."""
    phase: int = TRAINING
    entry: list[Any] = dataclasses.field(default_factory=lambda: [0.0, 0, None, ()])
    """Of the queue: the end of the training."""
    search: Any = None
    uploads: set[int] = dataclasses.field(default_factory=set)
    left: int = 0
    """Uploads that have not ended."""


@dataclasses.dataclass(slots=True, eq=False)
class Aggregation:
    """What an aggregator does for the models that were trained in round ``round - 1``."""

    node: int
    round: int
    models: dict[int, int] = dataclasses.field(default_factory=dict)
    """Sender to training."""
    timer: list[Any] | None = None
    collecting: bool = False
    """Counts as work under way, for the detection of stalls: until its timeout. Without one it may wait for ever."""
    left: int = 0
    """Downloads of the mean that have not ended."""


class Delivery(NamedTuple):
    """A model message on its way."""

    kind: int
    sender: int
    receiver: int
    handler: Callable[..., None]
    content: tuple[int, int, View | None]
    """Round, training or aggregation, and the sender's view."""
    ended: Callable[[], None]


@dataclasses.dataclass(slots=True, eq=False)
class Simulation:
    """The whole state of a run."""

    settings: Settings
    queue: Queue
    network: Network
    order: Callable[[int], tuple[int, ...]]
    views: Views | None
    """None: all are equal, because nobody comes or goes."""
    rng: random.Random
    latency: Callable[[int, int], float]
    train_seconds: list[float]
    bandwidth: list[float]
    online: list[bool]
    log: Log
    counters: list[int]
    """Joins and leaves, by node, from 1."""
    train_round: list[int]
    tasks: list[Task | None]
    done: list[bool]
    aggregations: list[dict[int, Aggregation]]
    finished: list[set[int]]
    """Rounds that each node aggregated."""
    pending: list[dict[int, tuple[int, int]]]
    """Joins that each node heard of and has not merged: round and status, by node."""
    searches: list[list[Any]]
    deliveries: dict[int, Delivery]
    moving: list[set[int]]
    """Transfers from and to each node."""
    now: float = 0.0
    busy: int = 0
    """Trainings, transfers and aggregations under way."""
    idle_since: float = 0.0
    outcome: str = ""


def work(sim: Simulation, change: int) -> None:
    """Count work that begins (1) or ends (-1)."""
    sim.busy += change
    sim.idle_since = sim.now


def send(sim: Simulation, kind: int, sender: int, receiver: int, handler: Callable[..., None], *content: Any) -> None:
    """Send a control message to ``handler(sim, receiver, sender, *content)``; one to oneself is no message."""
    if sender == receiver:
        at(sim.queue, sim.now, _arrive_at_home, sim, receiver, handler, content)
        return
    sim.log.sent[kind] += 1
    seconds = sim.now + sim.latency(sender, receiver)
    at(sim.queue, seconds, arrive, sim, kind, sender, receiver, handler, content)


def arrive(
    sim: Simulation, kind: int, sender: int, receiver: int, handler: Callable[..., None], content: tuple
) -> None:
    """Hand a control message over; a node that is offline drops it."""
    if not sim.online[receiver]:
        sim.log.lost[kind] += 1
        return
    sim.log.delivered[kind] += 1
    handler(sim, receiver, sender, *content)


def _arrive_at_home(sim: Simulation, node: int, handler: Callable[..., None], content: tuple) -> None:
    if sim.online[node]:
        handler(sim, node, node, *content)


def send_model(sim: Simulation, delivery: Delivery) -> int | None:
    """Start a model message; return the number of the transfer, None where it is over at once.

    To oneself it costs no bytes; to a node that has gone offline nothing gets through.
    """
    kind, sender, receiver, handler, content, ended = delivery
    if sender == receiver:
        at(sim.queue, sim.now, _arrive_at_home, sim, receiver, handler, content)
        ended()
        return None
    size = sim.settings.message_bytes
    number = sim.network.start(sim.now, sender, receiver, float(size))
    transfer_starts(sim.log, sender, receiver, kind, sim.now, size)
    work(sim, 1)
    sim.deliveries[number] = delivery
    sim.moving[sender].add(number)
    sim.moving[receiver].add(number)
    if sim.online[receiver]:
        return number
    cancel_transfer(sim, number)
    return None


def _end_transfer(sim: Simulation, number: int, bytes_sent: float | None) -> Delivery:
    delivery = sim.deliveries.pop(number)
    sim.moving[delivery.sender].discard(number)
    sim.moving[delivery.receiver].discard(number)
    transfer_ends(sim.log, number, sim.now, bytes_sent)
    work(sim, -1)
    return delivery


def finish_transfer(sim: Simulation) -> None:
    """Carry out the next completion of a transfer."""
    delivery = _end_transfer(sim, sim.network.finish(), None)
    delivery.handler(sim, delivery.receiver, delivery.sender, *delivery.content)
    delivery.ended()


def cancel_transfer(sim: Simulation, number: int) -> None:
    """Cut a transfer; both sides get their bandwidth back."""
    delivery = _end_transfer(sim, number, sim.network.cancel(sim.now, number))
    if delivery.kind == TRAINED:
        set_fate(sim.log, delivery.content[1], CANCELLED)
    delivery.ended()


def round_estimate(sim: Simulation, node: int) -> int:
    """The latest round that a node knows of; not needed where views are equal."""
    if sim.views is None:
        return 0
    return max(sim.train_round[node], sim.views.latest[node], max(sim.aggregations[node], default=0))


def own_view(sim: Simulation, node: int) -> View | None:
    """Copy a node's view for a message."""
    return None if sim.views is None else beliefs.copy_of(sim.views, node)


def hear_model(sim: Simulation, node: int, sender: int, round_: int, view: View | None) -> None:
    """Merge the view that came with a model; its sender was active in that round or in the latest one."""
    if sim.views is None or view is None:
        return
    beliefs.take_in(sim.views, node, view)
    beliefs.note_active(sim.views, node, sender, max(round_, round_estimate(sim, node)))


def merge_pending(sim: Simulation, node: int) -> None:
    """Take in the joins that a node heard of: only after its next model message."""
    if sim.views is None or not sim.pending[node]:
        return
    for other, (round_, status) in sim.pending[node].items():
        beliefs.note_active(sim.views, node, other, round_)
        beliefs.note_status(sim.views, node, other, status)
    sim.pending[node].clear()


def order_of(sim: Simulation, node: int, round_: int) -> tuple[int, ...]:
    """Sort the candidates of a round by hash, as a node sees them.

    Without churn nobody can fall out of the activity window before its length in rounds; a run without views that gets
    there has to be repeated with views.
    """
    order, window = sim.order(round_), sim.settings.activity_window
    if sim.views is None:
        if window is not None and round_ >= window:
            sim.outcome = NEEDS_VIEWS
        return order
    active = beliefs.believed_active(sim.views, node, round_, window)
    return order if active.all() else candidates(order, active)


NEEDS_VIEWS = "needs views"
"""Outcome of a run without views in which they would begin to differ."""
