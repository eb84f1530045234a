"""Gossip learning's timers and messages: nodes send models periodically, and merge and train them on arrival."""

from __future__ import annotations

import dataclasses
import heapq
from typing import Any, Literal, NamedTuple

import numpy as np

from gossipjax._base.arguments import choice, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties, Traffic
from gossipjax.timeline._from_events import listed
from gossipjax.timeline._random_walk import out_neighbors
from gossipjax.timeline.clocks import Seconds, number_per_node, renewal, require_ticks, schedule, slowed
from gossipjax.timeline.flights import (
    Latency,
    Peers,
    check_network,
    checked_latency,
    delays,
    num_peers,
    peers_name,
)
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Timeline

PUSH, REQUEST, PUSH_PULL, REPLY = range(4)
"""Kinds of messages; all but a request carry a model."""
_SHORTEST = 1e-3
"""The shortest interval of a timer, in periods."""


@dataclasses.dataclass(frozen=True)
class RandomizedTokens:
    """The randomized token account of Danner and Jelasity: the larger the balance a, the more often tokens are spent.

    Attributes:
        spend: A ≥ 1. With fewer than A − 1 tokens, a timer saves one; with more, it sends with probability
            ``(a − A + 1)/(C − A + 1)``. A useful message sets off ``a/A`` messages, another one ``a/(2A)``, rounded at
            random.
        capacity: C ≥ A: with C tokens, a timer always sends.

    Raises:
        ValueError: if a number is not whole, or out of bounds.
    """

    spend: int
    capacity: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        whole("spend", self.spend, least=1)
        whole("capacity", self.capacity, least=self.spend, remedy="no less than spend")


Tokens = int | RandomizedTokens | None


class _Message(NamedTuple):
    arrival: float
    number: int
    """Orders messages that arrive at one time: the first sent comes first."""
    kind: int
    sender: int
    receiver: int
    row: int
    """The row that holds the model."""
    age: int


@dataclasses.dataclass
class _Run:
    """State of the simulated network, and the events so far."""

    num_nodes: int
    duration: float
    create: str
    keeps_last: bool
    direct: bool
    """Whether messages take no time, so that they need no rows of their own."""
    latency: Latency
    drop: float
    tokens: Tokens
    neighbors: list[np.ndarray] | None
    of_targets: np.random.Generator
    of_network: np.random.Generator
    of_tokens: np.random.Generator
    ages: list[int]
    last_ages: list[int | None]
    """Age of the model that each node received last; None: none yet."""
    account: list[int]
    waiting: list[_Message] = dataclasses.field(default_factory=list)
    free: list[int] = dataclasses.field(default_factory=list)
    num_rows: int = 0
    events: list[tuple] = dataclasses.field(default_factory=list)
    sent: int = 0
    delivered: int = 0
    dropped: int = 0


@recorded("ormandi2013gossip")
def gossip_learning(
    peers: Peers,
    duration: float,
    *,
    period: Seconds,
    jitter: float = 0.1,
    mode: Literal["push", "pull", "push_pull"] = "push",
    create: Literal["merge_update", "update_merge", "random_walk"] = "merge_update",
    merge: Literal["local", "last_received"] = "local",
    latency: Latency = None,
    drop: float = 0.0,
    tokens: Tokens = None,
    seed: int,
) -> Timeline:
    """Plan gossip learning: timers send models to random peers, which merge and update what they receive.

    The intervals of a timer are Normal(Δ, jitter · Δ). When a model m reaches node j, the new model is one of the
    following, where l is the local model or, as in 2013, the model that j received before m (the local model until
    then)::

        merge_update:   x_j ← update(merge(m, l))
        update_merge:   x_j ← merge(update(m), update(l))
        random_walk:    x_j ← update(m)

    ``merge`` averages; :func:`~gossipjax.gossip_learning` can weight it by age. With "push" the timer sends the model;
    with "pull" it requests that of a peer; with "push_pull" it sends the model, and the peer replies with the model
    that it makes of it. Requests cost no bytes. A message holds the model as it was when sent.

    Token accounts limit the messages. An int is the capacity C of the simple account: the timer sends if the account is
    full and otherwise saves a token, and a received message spends a token to send the result on.
    :class:`RandomizedTokens` is the other account. A message is useful if its model is at least as old as the local
    one.

    Planning takes one pass over all messages in Python, about 10⁵ messages per second.

    Args:
        peers: a topology, or n: every other node is a peer.
        duration: simulated seconds.
        period: Δ seconds, a number or ``(n,)``; timers start at random phases.
        jitter: standard deviation of an interval, in periods; an interval is at least 0.001 periods.
        mode: who sends.
        create: how a node makes its new model, as above.
        merge: the model l, as above.
        latency: seconds from sender to receiver: one number, ``(n, n)`` by sender and receiver, or
            ``sampler(rng, size)``; None: 0.
        drop: probability that a message (or a request) is lost.
        tokens: token account of every node for "push", empty at the start; None: every timer sends.
        seed: of the NumPy generators that draw timers, targets, the network and tokens.

    Raises:
        ValueError: if a setting is out of range, or settings contradict each other.

    Reference: Ormándi, Hegedűs, Jelasity 2013, arXiv 1109.1396, algorithms 1–3; Danner, Jelasity 2018 (tokens).
    """
    n = num_peers(peers)
    latency = checked_latency(latency, n)
    _check(peers, jitter, mode, create, merge, drop, tokens)
    duration, seed = real("duration", duration, above=0, unit="seconds"), checked_seed(seed)
    of_timers, of_targets, of_network, of_tokens = np.random.default_rng(seed).spawn(4)
    clock = renewal(lambda rng, shape: np.maximum(1.0 + jitter * rng.standard_normal(shape), _SHORTEST), 1.0)
    timer = slowed(clock, number_per_node("period", period, "seconds")[()])
    require_ticks(n, duration, "peers, duration, period", timer, bytes_each=2000)
    timers = schedule(timer, n, duration, of_timers)
    keeps_last = merge == "last_received" and create != "random_walk"
    run = _Run(
        num_nodes=n,
        duration=duration,
        create=create,
        keeps_last=keeps_last,
        direct=latency is None and create != "update_merge" and tokens is None,
        latency=latency,
        drop=drop,
        tokens=tokens,
        neighbors=out_neighbors(peers) if isinstance(peers, Topology) else None,
        of_targets=of_targets,
        of_network=of_network,
        of_tokens=of_tokens,
        ages=[0] * n,
        last_ages=[None] * n,
        account=[0] * n,
        num_rows=2 * n if keeps_last else n,
    )
    kind = {"push": PUSH, "pull": REQUEST, "push_pull": PUSH_PULL}[mode]
    for now, node in zip(timers.times.tolist(), timers.nodes.tolist(), strict=True):
        _deliver_until(run, now)
        if _timer_sends(run, node):
            _send(run, now, kind, node, _peer(run, node))
    _deliver_until(run, duration)
    properties = Properties(
        n,
        n,
        f"gossip_learning({peers_name(peers)}, {mode}, {create}, {merge})",
        num_slots=run.num_rows - n,
        traffic=Traffic(run.sent, run.delivered, run.dropped, in_flight=run.sent - run.delivered - run.dropped),
        messages="group: a received model and the local or the last one",
    )
    return listed(_arrays(run.events), properties)


def _check(peers: Peers, jitter: Any, mode: Any, create: Any, merge: Any, drop: Any, tokens: Any) -> None:
    check_network(drop, "immediate", None)
    if isinstance(peers, Topology) and (peers.out_degrees == 0).any():
        raise ValueError(
            f"node {int(np.argmin(peers.out_degrees))} of {peers.name} has no out-neighbour; add an edge from it"
        )
    real("jitter", jitter, least=0, most=1, remedy="the standard deviation of an interval, in periods")
    choice("mode", mode, ("push", "pull", "push_pull"))
    choice("create", create, ("merge_update", "update_merge", "random_walk"))
    choice("merge", merge, ("local", "last_received"))
    if tokens is not None and mode != "push":
        raise ValueError(f"mode={mode!r} with tokens: token accounts need mode='push'")
    if tokens is not None and not isinstance(tokens, RandomizedTokens):
        whole("tokens", tokens, least=1, remedy="the capacity of an account, or RandomizedTokens, or None")


def proactive(tokens: int | RandomizedTokens, balance: int) -> float:
    """Return the probability that a timer sends at this balance."""
    if isinstance(tokens, int):
        return float(balance >= tokens)
    return max(0.0, (balance - tokens.spend + 1) / (tokens.capacity - tokens.spend + 1))


def reactive(tokens: int | RandomizedTokens, balance: int, useful: bool) -> float:
    """Return the expected number of messages that a received one sets off at this balance."""
    if isinstance(tokens, int):
        return float(balance > 0)
    return balance / (tokens.spend if useful else 2 * tokens.spend)


def _timer_sends(run: _Run, node: int) -> bool:
    if run.tokens is None or run.of_tokens.random() < proactive(run.tokens, run.account[node]):
        return True
    run.account[node] += 1
    return False


def _peer(run: _Run, node: int) -> int:
    if run.neighbors is None:
        other = int(run.of_targets.integers(run.num_nodes - 1))
        return other + (other >= node)
    return int(run.of_targets.choice(run.neighbors[node]))


def _send(run: _Run, now: float, kind: int, sender: int, receiver: int) -> None:
    """Send a message; only a model that will arrive takes a row."""
    carries = kind != REQUEST
    run.sent += carries
    lost = run.drop > 0 and run.of_network.random() < run.drop
    run.dropped += lost and carries
    message = _Message(
        now + _way(run, sender, receiver), len(run.events), kind, sender, receiver, sender, run.ages[sender]
    )
    if lost or message.arrival >= run.duration:
        if carries:
            run.events.append(_event(now, speaker=sender))
    elif run.direct:
        _receive(run, now, message)
    else:
        if carries:
            message = message._replace(row=_new_row(run))
            run.events.append(_event(now, copy=(sender, message.row), speaker=sender))
        heapq.heappush(run.waiting, message)


def _way(run: _Run, sender: int, receiver: int) -> float:
    """Draw the seconds that a message takes."""
    if run.latency is None or isinstance(run.latency, int | float):
        return run.latency or 0.0
    if isinstance(run.latency, np.ndarray):
        return float(run.latency[sender, receiver])
    return float(delays(run.latency, run.of_network, np.array([sender]), np.array([receiver]))[0])


def _new_row(run: _Run) -> int:
    if run.free:
        return run.free.pop()
    run.num_rows += 1
    return run.num_rows - 1


def _deliver_until(run: _Run, end: float) -> None:
    while run.waiting and run.waiting[0].arrival <= end:
        message = heapq.heappop(run.waiting)
        _receive(run, message.arrival, message)


def _receive(run: _Run, now: float, message: _Message) -> None:
    """Receive a message, then reply or send the result on."""
    node = message.receiver
    if message.kind != REQUEST:
        run.delivered += 1
        useful = message.age >= run.ages[node]
        run.events += _created(run, now, message)
        if not run.direct:
            run.free.append(message.row)
    if message.kind in (REQUEST, PUSH_PULL):
        _send(run, now, REPLY, node, message.sender)
    elif run.tokens is not None:
        mean = reactive(run.tokens, run.account[node], useful)
        count = min(run.account[node], int(mean + run.of_tokens.random()))
        run.account[node] -= count
        for _ in range(count):
            _send(run, now, PUSH, node, _peer(run, node))


def _created(run: _Run, now: float, message: _Message) -> list[tuple]:
    """Make the new model from a received one: write its events, and update ages and the model received last."""
    node, row, speaker = message.receiver, message.row, message.sender if run.direct else NOBODY
    last = run.num_nodes + node if run.keeps_last else NOBODY
    train = _event(now, act=(node, node))
    older, age = node, run.ages[node]
    if run.keeps_last and (last_age := run.last_ages[node]) is not None:
        older, age = last, last_age
    run.last_ages[node] = message.age
    if run.create == "random_walk":
        run.ages[node] = message.age + 1
        return [_event(now, copy=(row, node), speaker=speaker), train]
    run.ages[node] = max(message.age, age) + 1
    average = (older, row, 0.5, 0.5, node)
    if run.create == "merge_update":
        return [_event(now, merge=average, copy=(row, last), speaker=speaker), train]
    begin = [_event(now, merge=(older, NOBODY, 1.0, 0.0, node), copy=(row, last))] if run.keeps_last else []
    return [*begin, _event(now, act=(node, row)), _event(now, act=(node, node), merge=(node, row, 0.5, 0.5, node))]


def _event(
    now, *, act=(NOBODY, NOBODY), merge=(NOBODY, NOBODY, 0.0, 0.0, NOBODY), copy=(NOBODY, NOBODY), speaker=NOBODY
):
    """Fields of an event: time, training, merge (two rows, their weights, the result), copy, and sender."""
    return now, *act, *merge, *copy, speaker


def _arrays(events: list[tuple]) -> dict[str, np.ndarray]:
    """Write each event as two groups: the merge and the copy."""
    columns = np.asarray(events, np.float64).reshape(len(events), 11)
    rows = columns.astype(np.int64)
    nobody = np.full(len(events), NOBODY)
    copies = rows[:, 9] != NOBODY
    source, goal = np.where(copies, rows[:, 8], NOBODY), rows[:, 9]
    zero = np.zeros(len(events))
    return {
        "time": columns[:, 0],
        "nodes": rows[:, 1:2],
        "rows": rows[:, 2:3],
        "members": np.stack([rows[:, 3:5], np.stack([source, nobody], axis=1)], axis=1),
        "weights": np.stack([columns[:, 5:7], np.stack([copies.astype(float), zero], axis=1)], axis=1),
        "targets": np.stack([rows[:, 7], goal], axis=1)[:, :, None],
        "messages": (rows[:, 10:11] != NOBODY).astype(np.uint32),
        "speakers": rows[:, 10:11],
    }
