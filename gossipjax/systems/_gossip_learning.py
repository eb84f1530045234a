"""Gossip learning on devices: models are sent at regular times, travel for a while, and are trained on arrival.

Clocks are those of the timelines. The rest is planned here, because :func:`gossipjax.timeline.gossip_learning` cannot
express it: delays that depend on concurrent transfers, peers drawn from the nodes online, trainings during which other
models wait, and departures that end trainings and transfers.
"""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from functools import partial
from typing import Literal

import numpy as np

from gossipjax._base.arguments import choice, real
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.devices import Devices
from gossipjax.facts import Properties, Traffic
from gossipjax.systems._kernel.bandwidth import MODELS, Bandwidth, capacities
from gossipjax.systems._kernel.loop import Kernel, cut_all, follow_presence, make_kernel, transfer
from gossipjax.systems._kernel.loop import run as run_kernel
from gossipjax.systems._kernel.machines import Machines, checked_system, train_seconds_of
from gossipjax.systems._kernel.queue import at, cancel, follow
from gossipjax.systems._kernel.record import activity_of, averages, columns, training_ends, training_starts
from gossipjax.systems._plan import Plan, assuming, plan_of_one
from gossipjax.systems._workload import workload
from gossipjax.timeline import clocks
from gossipjax.timeline._from_events import from_events
from gossipjax.timeline.flights import assign_slots
from gossipjax.types import NOBODY, Protocol, Timeline

SEND, MERGE, TRAIN = range(3)
"""Kinds of events."""
Inbox = Literal["queue", "newest", "drop"]
_INBOXES = ("queue", "newest", "drop")
MERGED, MISSED, OVERFLOW, SUPERSEDED, WAITING = range(5)
"""Fate of a message: merged; cut in transit, or its receiver went offline before reading it; dropped because its
receiver was training; replaced by a newer one; in flight or unread at the end."""


TRAININGS, PRESENCE, TIMERS = range(3)
"""Order at equal times, after completed transfers."""


@dataclasses.dataclass(slots=True, eq=False)
class _Run:
    """State of the simulated network."""

    kernel: Kernel
    inbox: Inbox
    message_bytes: float
    train_seconds: list[float]
    rng: random.Random
    online: list[int]
    """The nodes that are online, in no order."""
    place: list[int]
    """Position of each node in that list; -1: it is offline."""
    waiting: list[deque[int]]
    """Messages that each node has not read."""
    training: list[tuple[int, list] | None]
    """Number of each node's training in the record, and the entry of its end; None: it is idle."""
    events: list[tuple[float, int, int, int]] = dataclasses.field(default_factory=list)
    """Seconds, kind, node, message."""
    fates: list[int] = dataclasses.field(default_factory=list)
    """Of messages; their numbers are those of the transfers."""


@recorded("ormandi2013gossip", "dhasade2025plexus")
def gossip_learning(
    devices: Devices | Machines,
    duration_s: int | float,
    *,
    learner: Protocol | None = None,
    model_bytes: int | None = None,
    local_steps: int | None = None,
    period_s: int | float = 60.0,
    time_batch: int = 1,
    bandwidth: Bandwidth = "greedy",
    inbox: Inbox = "queue",
    seed: int,
) -> Plan:
    """Plan gossip learning on devices: every ``period_s`` each online node sends its model to a random online node.

    A transfer takes its bytes over the bandwidth. When it is in, node j merges it and trains::

        x_j ← (1 − a) x_j + a x_i                    at once
        x_j ← x_j after E local steps                3 E b s_j seconds later (s_j a sample)

    so a model sent during training is merged but not yet trained. Nodes train only when they receive a model, one at a
    time. ``inbox`` says what happens to models that arrive during training: "queue" keeps them in the order of arrival,
    "newest" keeps only the latest, "drop" discards them. Timers have random phases. A node that goes offline stops
    training (the merged model stays) and discards its inbox, and its transfers in both directions are cut.

    Run :func:`gossipjax.gossip_learning` with ``merge="age"`` and E local steps on ``plan.timeline``: a is then the
    received model's share of the two ages. Planning is one pass over all messages in Python, about ten microseconds
    each. If nobody sends, the timeline is empty.

    >>> from gossipjax import devices, systems
    >>> plan = systems.gossip_learning(devices.uniform(10), 600.0, model_bytes=340_000, local_steps=5, seed=0)
    >>> plan.timeline.properties.traffic.sent
    100

    Args:
        devices: of n ≥ 2 nodes.
        duration_s: simulated seconds.
        learner: the protocol that will run on the plan, instead of ``local_steps`` and ``model_bytes``, which are then
            read off it; see :func:`gossipjax.systems.plexus`.
        model_bytes: of one message.
        local_steps: E.
        period_s: seconds between two sends of a node.
        time_batch: b, samples of a step in the training time.
        bandwidth: how it is shared, see :func:`gossipjax.systems.plexus`.
        inbox: what happens to a model that arrives while its receiver trains.
        seed: of phases and receivers.

    Raises:
        ValueError: settings out of range.

    Reference: Ormándi, Hegedűs, Jelasity 2013, arXiv 1109.1396; as a baseline of Dhasade et al. 2025, arXiv 2503.05509.
    """
    given = checked_system(devices, time_batch=time_batch, bandwidth=bandwidth)
    n = given.seconds_per_sample.size
    load = workload(learner, model_bytes=model_bytes, local_steps=local_steps, num_nodes=n, made_for="gossip learning")
    _check(n, duration_s, period_s, inbox)
    seed, sends = checked_seed(seed), n * (duration_s / period_s)
    what = f"duration_s={duration_s:g}, period_s={period_s:g}: about {sends:.3g} messages of {n} nodes"
    check_memory(what, 1000.0 * sends, "plan a shorter time, or a longer period")
    duration, train_seconds = float(duration_s), train_seconds_of(given, load.local_steps, time_batch)
    timers = clocks.schedule(clocks.deterministic(period_s), n, duration, np.random.default_rng(seed))
    limits = capacities(given.upload_bytes_per_second, given.download_bytes_per_second)
    kernel = make_kernel(MODELS[bandwidth](limits.up, limits.down), given.online.tolist())
    run = _make(kernel, inbox, float(load.message_bytes), train_seconds.tolist(), random.Random(seed))
    last = float(np.nextafter(duration, 0.0))  # events at the very end do not count
    follow_presence(kernel, given, last, partial(_change, run), rank=PRESENCE)
    ticks = zip(timers.times.tolist(), timers.nodes.tolist(), strict=True)
    follow(kernel.queue, ticks, partial(_send, run), rank=TIMERS)
    run_kernel(kernel, until=last)
    name = f"gossip learning: {n} nodes, period {period_s:g} s, {inbox} inbox, {bandwidth} transfers, seed={seed}"
    timeline = assuming(_timeline(run, name, n, np.array(run.fates, np.int64)), load)
    return plan_of_one(name, timeline, duration, activity_of(kernel.record, duration, kernel.network.sent(duration)))


def _make(kernel: Kernel, inbox: Inbox, message_bytes: float, train_seconds: list[float], rng: random.Random) -> _Run:
    """Set up the state before time 0."""
    n, online = len(kernel.online), [node for node, is_online in enumerate(kernel.online) if is_online]
    place = [-1] * n
    for k, node in enumerate(online):
        place[node] = k
    waiting: list[deque[int]] = [deque() for _ in range(n)]
    return _Run(kernel, inbox, message_bytes, train_seconds, rng, online, place, waiting, [None] * n)


def _check(n: int, duration_s: int | float, period_s: int | float, inbox: str) -> None:
    if n < 2:
        raise ValueError(f"devices of {n} node: gossip needs at least two")
    for name, seconds in (("duration_s", duration_s), ("period_s", period_s)):
        real(name, seconds, above=0, unit="seconds")
    choice("inbox", inbox, _INBOXES)


def _send(run: _Run, now: float, node: int) -> None:
    """Start a transfer to a random online node."""
    others = len(run.online) - 1
    if run.place[node] < 0 or others < 1:
        return
    k = run.rng.randrange(others)
    receiver = run.online[k + (k >= run.place[node])]
    number = transfer(run.kernel, node, receiver, run.message_bytes, _arrive, run, receiver)
    run.fates.append(WAITING)
    run.events.append((now, SEND, node, number))


def _arrive(number: int, completed: bool, run: _Run, node: int) -> None:
    if not completed:
        run.fates[number] = MISSED
    elif run.training[node] is None:
        _merge(run, node, number)
    elif run.inbox == "drop":
        run.fates[number] = OVERFLOW
    else:
        if run.inbox == "newest" and run.waiting[node]:
            run.fates[run.waiting[node].pop()] = SUPERSEDED
        run.waiting[node].append(number)


def _merge(run: _Run, node: int, number: int) -> None:
    """Merge a model and begin to train."""
    kernel, now = run.kernel, run.kernel.now
    run.fates[number] = MERGED
    run.events.append((now, MERGE, node, number))
    averages(kernel.record, now, node)
    entry = at(kernel.queue, now + run.train_seconds[node], _trained, run, node, rank=TRAININGS)
    run.training[node] = training_starts(kernel.record, now, node), entry


def _trained(run: _Run, node: int) -> None:
    run.events.append((run.kernel.now, TRAIN, node, -1))
    _stop_training(run, node, completed=True)
    if run.waiting[node]:
        _merge(run, node, run.waiting[node].popleft())


def _stop_training(run: _Run, node: int, *, completed: bool) -> None:
    if (training := run.training[node]) is not None:
        number, entry = training
        training_ends(run.kernel.record, run.kernel.now, number, completed)
        cancel(entry)
        run.training[node] = None


def _change(run: _Run, node: int, joins: bool) -> None:
    if run.kernel.online[node] != joins:
        run.kernel.online[node] = joins
        (_come if joins else _go)(run, node)


def _come(run: _Run, node: int) -> None:
    run.place[node] = len(run.online)
    run.online.append(node)


def _go(run: _Run, node: int) -> None:
    """Take a node offline: its training, its transfers and its inbox are lost."""
    last = run.online.pop()
    if last != node:
        run.online[run.place[node]], run.place[last] = last, run.place[node]
    run.place[node] = -1
    _stop_training(run, node, completed=False)
    for number in run.waiting[node]:
        run.fates[number] = MISSED
    run.waiting[node].clear()
    cut_all(run.kernel, node)


def _timeline(run: _Run, name: str, n: int, fate: np.ndarray) -> Timeline:
    """Write a send as a copy to the row of the message, a merge as a group of two; only merged messages have rows."""
    seconds, *numbers = columns(run.events, 4)
    kind, node, message = (np.array(column, np.int64) for column in numbers)
    total = kind.size
    sends, merges = np.flatnonzero(kind == SEND), np.flatnonzero(kind == MERGE)
    released = np.full(fate.size, total)
    released[message[merges]] = merges
    read = fate == MERGED
    slots, num_slots = assign_slots(sends[read], released[read])
    rows = np.full(fate.size, NOBODY)
    rows[read] = n + slots
    members, targets = np.full((total, 1, 2), NOBODY), np.full((total, 1, 1), NOBODY)
    weights = np.zeros((total, 1, 2))
    copied = sends[read]
    members[copied, 0, 0], targets[copied, 0, 0], weights[copied, 0, 0] = node[copied], rows[read], 1.0
    members[merges, 0, 0], members[merges, 0, 1] = node[merges], rows[message[merges]]
    targets[merges, 0, 0], weights[merges, 0] = node[merges], 0.5
    xs = {
        "time": np.array(seconds, np.float64),
        "nodes": np.where(kind == TRAIN, node, NOBODY)[:, None],
        "members": members,
        "weights": weights,
        "targets": targets,
        "messages": (kind == SEND).astype(np.uint32)[:, None],
        "speakers": np.where(kind == SEND, node, NOBODY)[:, None],
    }
    counts = np.bincount(fate, minlength=WAITING + 1).tolist()
    traffic = Traffic(fate.size, counts[MERGED], counts[MISSED], counts[OVERFLOW], counts[SUPERSEDED], counts[WAITING])
    words = "group: a received model and the local one"
    return from_events(xs, Properties(n, n, name, num_slots=num_slots, traffic=traffic, messages=words))
