"""Rounds without a clock: a node goes on when it has trained and the models of all its neighbours are in."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gossipjax.systems._kernel.exchange import SHARING, Capacities, Requests, Sharing, alone_rates, uncontended
from gossipjax.systems._kernel.machines import Machines
from gossipjax.systems._rounds.tables import Tables, requests_of

FIRST_LOOK_S = 86_400.0
LONGEST_ABSENCE_S = 30 * FIRST_LOOK_S
"""A node that is away for longer never comes back."""
Begin = Callable[[int, float], float]


class Drift(NamedTuple):
    """When each node begins and ends its rounds, and its messages."""

    begin_s: Float[np.ndarray, "r n"]
    trained_s: Float[np.ndarray, "r n"]
    end_s: Float[np.ndarray, "r n"]
    round: Int[np.ndarray, " x"]
    """Of each message."""
    sender: Int[np.ndarray, " x"]
    receiver: Int[np.ndarray, " x"]
    asked_s: Float[np.ndarray, " x"]
    ended_s: Float[np.ndarray, " x"]


def barrier_rounds(
    tables: Tables,
    devices: Machines,
    num_rounds: int,
    *,
    train_seconds: Float[np.ndarray, " n"],
    message_bytes: float,
    sharing: Sharing,
    limits: Capacities,
) -> Drift:
    """Plan rounds in which node i waits for all that it hears of::

        e_i = max(b_i + c_i, max_j (end of the transfer j → i)),      the next round begins at b_i = e_i

    or when i is online again. Transfers begin when the sender has trained, whatever round the receiver is in. First all
    are taken to run at min(u_i, d_j), which is a recursion on arrays; if that exceeds a capacity somewhere, the run is
    simulated, message by message.
    """
    begin = _beginner(devices)
    messages = [requests_of(tables, r) for r in range(len(tables.neighbors))]
    drift = _recursion(messages, num_rounds, train_seconds, message_bytes, begin, limits)
    if sharing == "unlimited":
        return drift
    order = np.argsort(drift.asked_s, kind="stable")
    never = np.full(order.size, np.inf)
    requests = Requests(drift.sender[order], drift.receiver[order], drift.asked_s[order], never)
    rates = alone_rates(requests.sender, requests.receiver, limits)
    if uncontended(requests, drift.ended_s[order], rates, limits):
        return drift
    return _simulated(messages, num_rounds, train_seconds, message_bytes, begin, sharing, limits)


def _recursion(messages, num_rounds: int, train_seconds, size: float, begin: Begin, limits: Capacities) -> Drift:
    n = train_seconds.size
    begins, ends = np.empty((num_rounds, n)), np.empty((num_rounds, n))
    columns: list[tuple[np.ndarray, ...]] = []
    seconds = [size / alone_rates(senders, receivers, limits) for senders, receivers, _ in messages]
    at = np.zeros(n)
    for r in range(num_rounds):
        senders, receivers, _ = messages[r % len(messages)]
        begins[r] = [begin(i, t) for i, t in enumerate(at.tolist())]
        trained = begins[r] + train_seconds
        arrival = trained[senders] + seconds[r % len(messages)]
        at = trained.copy()
        np.maximum.at(at, receivers, arrival)
        ends[r] = at
        columns.append((np.full(senders.size, r), senders, receivers, trained[senders], arrival))
    return Drift(
        begins, begins + train_seconds, ends, *(np.concatenate(column) for column in zip(*columns, strict=True))
    )


class _Run(NamedTuple):
    """The network while it is simulated."""

    begins: np.ndarray
    ends: np.ndarray
    current: list[int]
    """Round of each node."""
    trained: list[bool]
    received: list[dict[int, int]]
    """By node and round: models that are in."""
    training: list[tuple[float, int]]
    """Heap: when who has trained."""
    messages: list[list]
    """Round, sender, receiver, begin, end; the number is that of the network."""


def _simulated(messages, num_rounds: int, train_seconds, size: float, begin: Begin, sharing, limits) -> Drift:
    """Do things in the order of time; at equal times completions of transfers come first."""
    n = train_seconds.size
    network = SHARING[sharing](limits.up, limits.down)
    targets = [_by_sender(senders, receivers, n) for senders, receivers, _ in messages]
    needed = [np.bincount(receivers, minlength=n).tolist() for _, receivers, _ in messages]
    empty = np.empty((num_rounds, n))
    run = _Run(empty, empty.copy(), [-1] * n, [False] * n, [{} for _ in range(n)], [], [])
    seconds = train_seconds.tolist()
    for node in range(n):
        _begin_next(run, node, 0.0, begin, seconds)

    def go_on(node: int, now: float) -> None:
        r = run.current[node]
        if run.trained[node] and run.received[node].get(r, 0) == needed[r % len(needed)][node]:
            run.ends[r, node] = now
            run.received[node].pop(r, None)
            _begin_next(run, node, now, begin, seconds)

    while True:
        completion = network.next_time()
        ready = run.training[0][0] if run.training else float("inf")
        if completion == ready == float("inf"):
            return Drift(run.begins, run.begins + train_seconds, run.ends, *_arrays(run.messages))
        if completion <= ready:
            message = run.messages[network.finish()]
            message[4] = completion
            received = run.received[message[2]]
            received[message[0]] = received.get(message[0], 0) + 1
            go_on(message[2], completion)
        else:
            now, node = heapq.heappop(run.training)
            run.trained[node] = True
            r = run.current[node]
            for receiver in targets[r % len(targets)][node]:
                network.start(now, node, receiver, size)
                run.messages.append([r, node, receiver, now, now])
            go_on(node, now)


def _arrays(messages: list[list]) -> tuple[np.ndarray, ...]:
    kinds = (np.int64, np.int32, np.int32, np.float64, np.float64)
    columns = zip(*messages, strict=True) if messages else ((),) * len(kinds)
    return tuple(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True))


def _begin_next(run: _Run, node: int, now: float, begin: Begin, seconds: list[float]) -> None:
    run.trained[node] = False
    run.current[node] += 1
    if run.current[node] < len(run.begins):
        start = begin(node, now)
        run.begins[run.current[node], node] = start
        heapq.heappush(run.training, (start + seconds[node], node))


def _by_sender(senders: np.ndarray, receivers: np.ndarray, n: int) -> list[list[int]]:
    targets: list[list[int]] = [[] for _ in range(n)]
    for sender, receiver in zip(senders.tolist(), receivers.tolist(), strict=True):
        targets[sender].append(receiver)
    return targets


def _beginner(devices: Machines) -> Begin:
    """Make the function ``begin(node, t)``: the first time from t on at which the node is online."""
    online = np.asarray(devices.online, bool)
    horizon = FIRST_LOOK_S
    changes = _changes(devices, horizon)

    def begin(node: int, t: float) -> float:
        nonlocal horizon, changes
        while True:
            times, joins = changes[node]
            if t <= horizon and not times.size and online[node]:
                return t
            k = int(np.searchsorted(times, t, side="right"))
            is_online = online[node] if k == 0 else joins[k - 1]
            if t <= horizon and is_online:
                return t
            if t <= horizon and k < len(times):
                return float(times[k])  # changes alternate
            if horizon > t + LONGEST_ABSENCE_S:
                raise ValueError(
                    f"node {node} never comes online after {t:,.0f} s, and the others wait for it: give round_seconds, "
                    "or leave the node out"
                )
            horizon *= 2
            changes = _changes(devices, horizon)

    return begin


def _changes(devices: Machines, horizon: float) -> list[tuple[np.ndarray, np.ndarray]]:
    times, nodes, joins = (np.asarray(column) for column in devices.transitions(horizon))
    order = np.argsort(nodes, kind="stable")
    edges = np.searchsorted(nodes[order], np.arange(len(devices.online) + 1))
    return [
        (times[order[a:b]].astype(float), joins[order[a:b]].astype(bool))
        for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
