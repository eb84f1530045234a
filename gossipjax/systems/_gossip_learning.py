"""Gossip learning on devices: models leave at regular times, take time on the way, and are trained on arrival."""

from __future__ import annotations

import dataclasses
import heapq
import random
from collections import deque
from typing import Literal

import numpy as np
from jaxtyping import Float

from gossipjax._base.arguments import choice, real
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.devices import Devices
from gossipjax.systems._activity import Activity, SystemPlan
from gossipjax.systems._assumed import assuming
from gossipjax.systems._kernel.bandwidth import Network
from gossipjax.systems._kernel.exchange import SHARING, Sharing, capacities
from gossipjax.systems._kernel.machines import Machines
from gossipjax.systems._plexus.plan import COMPLETED, CUT, UNDER_WAY
from gossipjax.systems._rounds.planner import checked, train_seconds_of
from gossipjax.timeline import clocks
from gossipjax.timeline._planned import planned
from gossipjax.timeline.flights import assign_slots
from gossipjax.types import NOBODY, Properties, Timeline, Traffic

SEND, MERGE, TRAIN = range(3)
"""Kinds of events."""
Inbox = Literal["queue", "newest", "drop"]
_INBOXES = ("queue", "newest", "drop")
MERGED, MISSED, OVERFLOW, SUPERSEDED, WAITING = range(5)
"""What became of a message: merged; its transfer was cut, or its receiver went offline before it was read; its receiver
was training; a newer one took its place; on its way or unread at the end."""


@dataclasses.dataclass(slots=True, eq=False)
class _Run:
    """The network while it is simulated."""

    network: Network
    inbox: Inbox
    message_bytes: float
    train_seconds: list[float]
    rng: random.Random
    online: list[int]
    """The nodes that are online, in no order."""
    place: list[int]
    """Of each node in that list; -1: it is offline."""
    waiting: list[deque[int]]
    """Messages that each node has not read."""
    training: list[int]
    """Number of each node's training in the log; -1: it is idle."""
    moving: list[set[int]]
    """Transfers from and to each node."""
    ready: list[tuple[float, int, int]] = dataclasses.field(default_factory=list)
    """Heap: end, training, node; those that were interrupted are passed over."""
    events: list[tuple[float, int, int, int]] = dataclasses.field(default_factory=list)
    """Seconds, kind, node, message."""
    messages: list[list] = dataclasses.field(default_factory=list)
    """Sender, receiver, begin, end, bytes sent, state, fate."""
    trainings: list[list] = dataclasses.field(default_factory=list)
    """Node, begin, end, whether it was completed."""


@recorded("ormandi2013gossip", "dhasade2025plexus")
def gossip_learning(
    devices: Devices | Machines,
    duration_s: int | float,
    *,
    model_bytes: int,
    local_steps: int,
    period_s: int | float = 60.0,
    time_batch: int = 1,
    transfers: Sharing = "greedy",
    inbox: Inbox = "queue",
    seed: int,
) -> SystemPlan:
    """Plan gossip learning on devices: every ``period_s`` each online node sends its model to a random online node.

    A transfer takes its bytes over the bandwidth. When it is in, node j merges it and trains::

        x_j ← (1 − a) x_j + a x_i                    at once
        x_j ← x_j after E local steps                3 E b s_j seconds later (s_j a sample)

    so a model sent meanwhile is merged, not yet trained. Nodes train on receipt only, one model at a time. What comes
    while a node trains waits, by ``inbox``: "queue" in the order of arrival; "newest": one place, for the latest;
    "drop": nowhere, it is lost. Timers have random phases. A node that goes offline stops training (the merged model
    stays), forgets what waits, and its transfers both ways are cut.

    Run :func:`gossipjax.gossip_learning` with ``merge="age"`` and E local steps on ``plan.timeline``: a is then the
    share of the received model's age. One pass over all messages in Python, some ten microseconds each. Where nobody
    sends, the timeline is empty.

    >>> from gossipjax import devices, systems
    >>> plan = systems.gossip_learning(devices.uniform(10), 600.0, model_bytes=340_000, local_steps=5, seed=0)
    >>> plan.timeline.properties.traffic.sent
    100

    Args:
        devices: of n ≥ 2 nodes.
        duration_s: simulated seconds.
        model_bytes: of one message.
        local_steps: E.
        period_s: seconds between two sends of a node.
        time_batch: b, samples of a step in the training time.
        transfers: how bandwidth is shared, see :func:`gossipjax.systems.plexus`.
        inbox: what becomes of a model that comes while its receiver trains.
        seed: of phases and receivers.

    Raises:
        ValueError: settings out of range.

    Reference: Ormándi, Hegedűs, Jelasity 2013, arXiv 1109.1396; as a baseline of Dhasade et al. 2025, arXiv 2503.05509.
    """
    given = checked(devices, 1, local_steps, time_batch, model_bytes, None, transfers)
    n = given.seconds_per_sample.size
    _check(n, duration_s, period_s, inbox)
    seed, sends = checked_seed(seed), n * (duration_s / period_s)
    what = f"duration_s={duration_s:g}, period_s={period_s:g}: about {sends:.3g} messages of {n} nodes"
    check_memory(what, 1000.0 * sends, "plan a shorter time, or a longer period")
    run = _make(given, train_seconds_of(given, local_steps, time_batch), float(model_bytes), transfers, inbox, seed)
    timers = clocks.schedule(clocks.deterministic(period_s), n, float(duration_s), np.random.default_rng(seed))
    _simulate(run, given, timers.times.tolist(), timers.nodes.tolist(), float(duration_s))
    name = f"gossip learning: {n} nodes, period {period_s:g} s, {inbox} inbox, {transfers} transfers, seed={seed}"
    plan = _plan(run, name, n, float(duration_s))
    return assuming(plan, message_bytes=model_bytes, local_steps=local_steps)


def _make(
    devices: Machines,
    train_seconds: Float[np.ndarray, " n"],
    message_bytes: float,
    transfers: Sharing,
    inbox: Inbox,
    seed: int,
) -> _Run:
    """Set up the state before time 0."""
    n = devices.online.size
    limits = capacities(devices.upload_bytes_per_second, devices.download_bytes_per_second)
    online = np.flatnonzero(devices.online)
    place = np.full(n, -1)
    place[online] = np.arange(online.size)
    return _Run(
        network=SHARING[transfers](limits.up, limits.down),
        inbox=inbox,
        message_bytes=message_bytes,
        train_seconds=train_seconds.tolist(),
        rng=random.Random(seed),
        online=online.tolist(),
        place=place.tolist(),
        waiting=[deque() for _ in range(n)],
        training=[-1] * n,
        moving=[set() for _ in range(n)],
    )


def _check(n: int, duration_s: int | float, period_s: int | float, inbox: str) -> None:
    if n < 2:
        raise ValueError(f"devices of {n} node: gossip needs at least two")
    for name, seconds in (("duration_s", duration_s), ("period_s", period_s)):
        real(name, seconds, above=0, unit="seconds")
    choice("inbox", inbox, _INBOXES)


def _simulate(run: _Run, devices: Machines, ticks: list[float], nodes: list[int], duration: float) -> None:
    """Do things in the order of time; at equal times: transfers, trainings, who comes and goes, timers."""
    changes = [list(column) for column in devices.transitions(duration)]
    infinity, tick, change = float("inf"), 0, 0
    while True:
        times = (
            run.network.next_time(),
            run.ready[0][0] if run.ready else infinity,
            float(changes[0][change]) if change < len(changes[0]) else infinity,
            ticks[tick] if tick < len(ticks) else infinity,
        )
        now = min(times)
        if now >= duration:
            return
        first = times.index(now)
        if first == 0:
            _arrive(run, now, run.network.finish())
        elif first == 1:
            _, number, node = heapq.heappop(run.ready)
            if run.training[node] == number:
                _trained(run, now, node)
        elif first == 2:
            (_come if changes[2][change] else _go)(run, now, int(changes[1][change]))
            change += 1
        else:
            _send(run, now, nodes[tick])
            tick += 1


def _send(run: _Run, now: float, node: int) -> None:
    """Start a transfer to a random online node; its number is that of the network."""
    others = len(run.online) - 1
    if run.place[node] < 0 or others < 1:
        return
    k = run.rng.randrange(others)
    receiver = run.online[k + (k >= run.place[node])]
    number = run.network.start(now, node, receiver, run.message_bytes)
    run.messages.append([node, receiver, now, now, 0.0, UNDER_WAY, WAITING])
    run.events.append((now, SEND, node, number))
    run.moving[node].add(number)
    run.moving[receiver].add(number)


def _arrive(run: _Run, now: float, number: int) -> None:
    message = run.messages[number]
    sender, node = message[0], message[1]
    message[3], message[4], message[5] = now, run.message_bytes, COMPLETED
    run.moving[sender].discard(number)
    run.moving[node].discard(number)
    if run.training[node] < 0:
        _merge(run, now, node, number)
    elif run.inbox == "drop":
        message[6] = OVERFLOW
    else:
        if run.inbox == "newest" and run.waiting[node]:
            run.messages[run.waiting[node].pop()][6] = SUPERSEDED
        run.waiting[node].append(number)


def _merge(run: _Run, now: float, node: int, number: int) -> None:
    """Merge a model and begin to train."""
    run.messages[number][6] = MERGED
    run.events.append((now, MERGE, node, number))
    run.training[node] = len(run.trainings)
    heapq.heappush(run.ready, (now + run.train_seconds[node], len(run.trainings), node))
    run.trainings.append([node, now, now, False])


def _trained(run: _Run, now: float, node: int) -> None:
    run.events.append((now, TRAIN, node, -1))
    run.trainings[run.training[node]][2:] = [now, True]
    run.training[node] = -1
    if run.waiting[node]:
        _merge(run, now, node, run.waiting[node].popleft())


def _come(run: _Run, now: float, node: int) -> None:
    del now
    run.place[node] = len(run.online)
    run.online.append(node)


def _go(run: _Run, now: float, node: int) -> None:
    """Take a node offline: its training, its transfers and what waits are lost."""
    last = run.online.pop()
    if last != node:
        run.online[run.place[node]], run.place[last] = last, run.place[node]
    run.place[node] = -1
    if run.training[node] >= 0:
        run.trainings[run.training[node]][2] = now
        run.training[node] = -1
    for number in run.waiting[node]:
        run.messages[number][6] = MISSED
    run.waiting[node].clear()
    for number in sorted(run.moving[node]):
        message = run.messages[number]
        message[3:] = [now, run.network.cancel(now, number), CUT, MISSED]
        run.moving[message[0]].discard(number)
        run.moving[message[1]].discard(number)


def _plan(run: _Run, name: str, n: int, duration: float) -> SystemPlan:
    for number, sent in run.network.sent(duration).items():
        run.messages[number][3:5] = [duration, sent]
    for number in run.training:
        if number >= 0:
            run.trainings[number][2] = duration
    node, begin, end, done = _columns(run.trainings, 4)
    sender, receiver, asked, ended, sent_bytes, state, fate = _columns(run.messages, 7)
    merges = [(seconds, node) for seconds, kind, node, _ in run.events if kind == MERGE]
    activity = Activity(
        training_node=np.array(node, np.int32),
        training_start_s=np.array(begin, np.float64),
        training_end_s=np.array(end, np.float64),
        training_completed=np.array(done, bool),
        sender=np.array(sender, np.int32),
        receiver=np.array(receiver, np.int32),
        asked_s=np.array(asked, np.float64),
        ended_s=np.array(ended, np.float64),
        sent_bytes=np.array(sent_bytes, np.float64),
        state=np.array(state, np.int8),
        mean_s=np.array([seconds for seconds, _ in merges], np.float64),
        mean_node=np.array([node for _, node in merges], np.int32),
    )
    return plan_of_one(name, _timeline(run, name, n, np.array(fate, np.int64)), duration, activity)


def _columns(rows: list, count: int) -> tuple:
    """Turn rows into columns, also where there are none."""
    return tuple(zip(*rows, strict=True)) if rows else ((),) * count


def plan_of_one(name: str, timeline: Timeline, duration: float, activity: Activity) -> SystemPlan:
    """Make a plan without rounds, in one piece."""
    return SystemPlan(
        name=name,
        timeline=timeline,
        end_s=duration,
        activities=(activity,),
        pattern=np.zeros(1, np.int64),
        begin_s=np.zeros(1),
        round_end_s=np.zeros(0),
        round_bytes=np.zeros(0),
        round_dropped=np.zeros(0, np.int64),
        node_round_end_s=np.zeros((0, timeline.properties.num_nodes)),
    )


def _timeline(run: _Run, name: str, n: int, fate: np.ndarray) -> Timeline:
    """Write a send as a copy to the message's row, a merge as a group of two; only what is merged takes a row."""
    seconds, *numbers = _columns(run.events, 4)
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
    return planned(xs, Properties(n, n, name, num_slots=num_slots, traffic=traffic, messages=words))
