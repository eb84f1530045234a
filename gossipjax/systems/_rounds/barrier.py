"""Rounds without a clock: a node goes on when it has trained and the models of all its neighbours have arrived."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gossipjax.systems._kernel.bandwidth import MODELS
from gossipjax.systems._kernel.exchange import Requests, alone_rates, uncontended
from gossipjax.systems._kernel.loop import DAY, Kernel, make_kernel
from gossipjax.systems._kernel.loop import run as run_kernel
from gossipjax.systems._kernel.machines import Machines
from gossipjax.systems._kernel.queue import at
from gossipjax.systems._rounds.clocked import Learning
from gossipjax.systems._rounds.tables import Tables, requests_of

LONGEST_ABSENCE_S = 30 * DAY
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


def barrier_rounds(tables: Tables, devices: Machines, num_rounds: int, learning: Learning) -> Drift:
    """Plan rounds in which node i waits for all nodes that send to it::

        e_i = max(b_i + c_i, max_j (end of the transfer j → i)),      the next round begins at b_i = e_i

    or when i is online again. Without overlap, e_i is not before the end of i's own transfers either. Transfers begin
    when the sender has trained, whatever round the receiver is in. First, all transfers are assumed to run at
    min(u_i, d_j), which is a recursion on arrays. If that exceeds a capacity somewhere, the run is simulated message by
    message.
    """
    begin = _beginner(devices)
    messages = [requests_of(tables, r) for r in range(len(tables.neighbors))]
    drift = _recursion(messages, num_rounds, learning, begin)
    if learning.bandwidth == "unlimited":
        return drift
    order = np.argsort(drift.asked_s, kind="stable")
    never = np.full(order.size, np.inf)
    requests = Requests(drift.sender[order], drift.receiver[order], drift.asked_s[order], never)
    rates = alone_rates(requests.sender, requests.receiver, learning.limits)
    if uncontended(requests, drift.ended_s[order], rates, learning.limits):
        return drift
    return _simulated(messages, num_rounds, learning, begin)


def _recursion(messages: list, num_rounds: int, learning: Learning, begin: Begin) -> Drift:
    train_seconds, n = learning.train_seconds, learning.train_seconds.size
    begins, ends = np.empty((num_rounds, n)), np.empty((num_rounds, n))
    columns: list[tuple[np.ndarray, ...]] = []
    size, limits = learning.message_bytes, learning.limits
    seconds = [size / alone_rates(senders, receivers, limits) for senders, receivers, _ in messages]
    at = np.zeros(n)
    for r in range(num_rounds):
        senders, receivers, _ = messages[r % len(messages)]
        begins[r] = [begin(i, t) for i, t in enumerate(at.tolist())]
        trained = begins[r] + train_seconds
        arrival = trained[senders] + seconds[r % len(messages)]
        at = trained.copy()
        np.maximum.at(at, receivers, arrival)
        if not learning.overlap:
            np.maximum.at(at, senders, arrival)
        ends[r] = at
        columns.append((np.full(senders.size, r), senders, receivers, trained[senders], arrival))
    return Drift(
        begins, begins + train_seconds, ends, *(np.concatenate(column) for column in zip(*columns, strict=True))
    )


class _Run(NamedTuple):
    """State of the simulated network."""

    kernel: Kernel
    size: float
    seconds: list[float]
    """Of a training of each node."""
    begin: Begin
    targets: list[list[list[int]]]
    """By round of the cycle and node: to whom it sends."""
    needed: list[list[int]]
    """How many models each node waits for."""
    begins: np.ndarray
    ends: np.ndarray
    current: list[int]
    """Round of each node."""
    trained: list[bool]
    received: list[dict[int, int]]
    """By node and round: models that are in."""
    messages: tuple[list[int], list[int], list[int], list[float], list[float]]
    """Round, sender, receiver, begin, end; the number is that of the network."""
    overlap: bool
    sending: list[int]
    """Transfers of each node that are under way."""


def _simulated(messages: list, num_rounds: int, learning: Learning, begin: Begin) -> Drift:
    """Simulate in the order of time; at equal times completions of transfers come first, then low node numbers."""
    seconds, n = learning.train_seconds, learning.train_seconds.size
    empty = np.empty((num_rounds, n))
    run = _Run(
        kernel=make_kernel(MODELS[learning.bandwidth](learning.limits.up, learning.limits.down)),
        size=learning.message_bytes,
        seconds=seconds.tolist(),
        begin=begin,
        targets=[_by_sender(senders, receivers, n) for senders, receivers, _ in messages],
        needed=[np.bincount(receivers, minlength=n).tolist() for _, receivers, _ in messages],
        begins=empty,
        ends=empty.copy(),
        current=[-1] * n,
        trained=[False] * n,
        received=[{} for _ in range(n)],
        messages=([], [], [], [], []),
        overlap=learning.overlap,
        sending=[0] * n,
    )
    for node in range(n):
        _begin_next(run, node)
    run_kernel(run.kernel, finished=partial(_arrive, run))
    kinds = (np.int64, np.int32, np.int32, np.float64, np.float64)
    columns = [np.array(column, kind) for column, kind in zip(run.messages, kinds, strict=True)]
    return Drift(run.begins, run.begins + seconds, run.ends, *columns)


def _arrive(run: _Run, number: int) -> None:
    rounds, senders, receivers, _, ended = run.messages
    r, sender, node = rounds[number], senders[number], receivers[number]
    ended[number] = run.kernel.now
    received = run.received[node]
    received[r] = received.get(r, 0) + 1
    run.sending[sender] -= 1
    for each in (node, sender):
        if run.trained[each]:
            _go_on(run, each)


def _send(run: _Run, node: int) -> None:
    """Send the model of a node that has trained to all its receivers."""
    run.trained[node] = True
    r, now, start = run.current[node], run.kernel.now, run.kernel.network.start
    receivers = run.targets[r % len(run.targets)][node]
    rounds, senders, targets, asked, ended = run.messages
    for receiver in receivers:
        start(now, node, receiver, run.size)
        rounds.append(r)
        senders.append(node)
        targets.append(receiver)
        asked.append(now)
        ended.append(now)
    run.sending[node] += len(receivers)
    _go_on(run, node)


def _go_on(run: _Run, node: int) -> None:
    """Begin the next round of a node that has trained, if all models have arrived, and without overlap are sent."""
    r = run.current[node]
    if (run.overlap or not run.sending[node]) and run.received[node].get(r, 0) == run.needed[r % len(run.needed)][node]:
        run.ends[r, node] = run.kernel.now
        run.received[node].pop(r, None)
        _begin_next(run, node)


def _begin_next(run: _Run, node: int) -> None:
    run.trained[node] = False
    run.current[node] += 1
    if run.current[node] < len(run.begins):
        start = run.begin(node, run.kernel.now)
        run.begins[run.current[node], node] = start
        at(run.kernel.queue, start + run.seconds[node], _send, run, node, rank=node)


def _by_sender(senders: np.ndarray, receivers: np.ndarray, n: int) -> list[list[int]]:
    targets: list[list[int]] = [[] for _ in range(n)]
    for sender, receiver in zip(senders.tolist(), receivers.tolist(), strict=True):
        targets[sender].append(receiver)
    return targets


def _beginner(devices: Machines) -> Begin:
    """Make the function ``begin(node, t)``: the first time from t on at which the node is online."""
    online = np.asarray(devices.online, bool)
    horizon = DAY
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
