"""State of a simulated run of Plexus, and what all its handlers need: time, messages, models in transit."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gossipjax.systems._kernel.loop import Kernel, cut, transfer
from gossipjax.systems._kernel.queue import at, cancel
from gossipjax.systems._plexus import views as beliefs
from gossipjax.systems._plexus.counts import Counts
from gossipjax.systems._plexus.history import CANCELLED
from gossipjax.systems._plexus.record import PlexusRecord, set_fate
from gossipjax.systems._plexus.sampler import candidates
from gossipjax.systems._plexus.settings import PlexusSettings
from gossipjax.systems._plexus.sizes import TRAINED
from gossipjax.systems._plexus.views import View, Views

TRAINING, SEARCHING, SENDING, WAITING, OVER = range(5)
"""Phases of a job: training, looking for an aggregator, sending the model, waiting for its acknowledgement, over."""


@dataclasses.dataclass(slots=True, eq=False)
class Job:
    """What a node does in a round."""

    node: int
    round: int
    training: int
    """Its number in the record."""
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


class ModelMessage(NamedTuple):
    """A model message in transit."""

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

    settings: PlexusSettings
    kernel: Kernel
    record: PlexusRecord
    order: Callable[[int], Sequence[int]]
    views: Views | None
    """None: all are equal, because nobody comes or goes."""
    counts: Counts | None
    """Of the nodes that each view holds active."""
    rng: random.Random
    latency: Callable[[int, int], float]
    train_seconds: list[float]
    by_bandwidth: Callable[[tuple[int, ...]], Sequence[int]]
    """Sort nodes, largest bandwidth first."""
    counters: list[int]
    """Joins and leaves, by node, from 1."""
    train_round: list[int]
    jobs: list[Job | None]
    done: list[bool]
    aggregations: defaultdict[int, dict[int, Aggregation]]
    finished: defaultdict[int, set[int]]
    """Rounds that each node aggregated."""
    pending: defaultdict[int, dict[int, tuple[int, int]]]
    """Joins that each node heard of and has not merged: round and status, by node."""
    searches: defaultdict[int, list[Any]]
    whole_searches: bool = True
    """Without views: plan the answers to all pings of a search at once."""
    busy: int = 0
    """Trainings, transfers and aggregations under way."""
    idle_since: float = 0.0
    stall: list[Any] | None = None
    """Entry of the queue: the end of the run if nobody works until then."""


def work(sim: Simulation, change: int) -> None:
    """Count work that begins (1) or ends (-1); when none is left, the stall timer starts."""
    sim.busy += change
    sim.idle_since = sim.kernel.now
    if sim.stall is not None:
        cancel(sim.stall)
        sim.stall = None
    if not sim.busy:
        sim.stall = at(sim.kernel.queue, sim.idle_since + sim.settings.timers.stall_s, _stalls, sim, rank=LAST)


def _stalls(sim: Simulation) -> None:
    sim.kernel.stopped = "duration" if sim.kernel.now == sim.settings.duration_s else "stalled"


LAST = 1
"""Rank of what happens after all else at its time."""


def send(sim: Simulation, kind: int, sender: int, receiver: int, handler: Callable[..., None], *content: Any) -> None:
    """Send a control message to ``handler(sim, receiver, sender, *content)``; one to itself does not count."""
    kernel = sim.kernel
    if sender == receiver:
        at(kernel.queue, kernel.now, _arrive_at_home, sim, receiver, handler, content)
        return
    sim.record.sent[kind] += 1
    at(kernel.queue, kernel.now + sim.latency(sender, receiver), arrive, sim, kind, sender, receiver, handler, content)


def arrive(
    sim: Simulation, kind: int, sender: int, receiver: int, handler: Callable[..., None], content: tuple
) -> None:
    """Deliver a control message; a node that is offline drops it."""
    if not sim.kernel.online[receiver]:
        sim.record.lost[kind] += 1
        return
    sim.record.delivered[kind] += 1
    handler(sim, receiver, sender, *content)


def _arrive_at_home(sim: Simulation, node: int, handler: Callable[..., None], content: tuple) -> None:
    if sim.kernel.online[node]:
        handler(sim, node, node, *content)


def send_model(sim: Simulation, message: ModelMessage) -> int | None:
    """Start a model message; return the number of its transfer, or None if it is over at once.

    To oneself it costs no bytes; to a node that has gone offline nothing gets through.
    """
    kind, sender, receiver, handler, content, ended = message
    kernel = sim.kernel
    if sender == receiver:
        at(kernel.queue, kernel.now, _arrive_at_home, sim, receiver, handler, content)
        ended()
        return None
    number = transfer(kernel, sender, receiver, float(sim.settings.message_bytes), _model_message_over, sim, message)
    sim.record.kinds.append(kind)
    sim.record.sent[kind] += 1
    work(sim, 1)
    if kernel.online[receiver]:
        return number
    cut(kernel, number)
    return None


def _model_message_over(number: int, completed: bool, sim: Simulation, message: ModelMessage) -> None:
    del number
    work(sim, -1)
    if completed:
        sim.record.delivered[message.kind] += 1
        message.handler(sim, message.receiver, message.sender, *message.content)
    else:
        sim.record.lost[message.kind] += 1
        if message.kind == TRAINED:
            set_fate(sim.record, message.content[1], CANCELLED)
    message.ended()


def round_estimate(sim: Simulation, node: int) -> int:
    """The latest round that a node knows of; not needed if views are equal."""
    if sim.views is None:
        return 0
    known, heard = sim.train_round[node], sim.views.latest[node]
    if heard > known:
        known = heard
    if node in sim.aggregations:
        for round_ in sim.aggregations[node]:
            if round_ > known:
                known = round_
    return known


def own_view(sim: Simulation, node: int) -> View | None:
    """Copy a node's view for a message."""
    return None if sim.views is None else beliefs.copy_of(sim.views, node)


def hear_model(sim: Simulation, node: int, sender: int, round_: int, view: View | None) -> None:
    """Merge the view that came with a model; its sender was active in that round or in the latest one."""
    if sim.views is None or view is None:
        return
    beliefs.take_in(sim.views, node, view)
    beliefs.note(sim.views, node, sender, max(round_, round_estimate(sim, node)))


def merge_pending(sim: Simulation, node: int) -> None:
    """Merge the joins that a node has heard of; this waits for its next model message."""
    if sim.views is None or not sim.pending[node]:
        return
    for other, (round_, status) in sim.pending[node].items():
        beliefs.note(sim.views, node, other, round_, status)
    sim.pending[node].clear()


def order_of(sim: Simulation, node: int, round_: int) -> Sequence[int]:
    """Sort the candidates of a round by hash, as a node sees them.

    Without churn nobody can fall out of the activity window before its length in rounds; a run without views that gets
    there has to be repeated with views.
    """
    order, window = sim.order(round_), sim.settings.membership.activity_window
    if sim.views is None:
        if window is not None and round_ >= window:
            sim.kernel.stopped = NEEDS_VIEWS
        return order
    return candidates(beliefs.believed_active(sim.views, node, round_, window, order))


NEEDS_VIEWS = "needs views"
"""Outcome of a run without views in which they would begin to differ."""
