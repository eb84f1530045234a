"""FedBuff's server: whenever a client returns, another one starts; a full buffer updates the model."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np

from gossipjax._base.arguments import instance, optional_whole, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties, Traffic
from gossipjax.timeline._from_events import listed
from gossipjax.timeline._memory import MOST_NODES, require_room
from gossipjax.timeline._updates import MOST_SEARCHED, require_update
from gossipjax.timeline.clocks import A_CLOCK, Clock, expected_ticks, service_times
from gossipjax.types import NOBODY, Timeline

SERVER, BUFFER, WORK, FETCHED = range(4)
"""Rows: the server's model, its buffer, the row that trains, and from ``FETCHED`` on the models of busy clients."""


class _Return(NamedTuple):
    """A client comes back, and another one fetches the model."""

    time: float
    client: int
    """Who returns; nobody at the start."""
    place: int
    """The place among the concurrent clients that becomes free and is taken again."""
    weight: float
    """Of the change in the buffer; 0: dropped."""
    full: bool
    """Whether the buffer is applied."""


@recorded("nguyen2022fedbuff")
def fedbuff(
    num_nodes: int,
    duration: float,
    *,
    concurrency: int,
    train_time: Clock,
    buffer_size: int,
    server_lr: float = 1.0,
    max_staleness: int | None = None,
    staleness_power: float = 0.5,
    seed: int,
) -> Timeline:
    """Plan asynchronous federated learning with a buffer: M clients train at any time.

    A client that fetched version t_0 and trained on it returns Δ = x_start − x_end when the server is at version t::

        buffer ← buffer + s(τ) Δ        s(τ) = (1 + τ)^(−p),  τ = t − t_0
        after K of them:   x ← x − η buffer/K,   t ← t + 1,   buffer ← 0

    Then a client drawn uniformly from the idle ones, which include the one that returned, fetches x. K = 1 applies each
    change by itself. Each return is one event: the model that the client fetched is trained, the change is added to the
    buffer, and the next client fetches x. The server's model is the only model row; slots hold the buffer, the row that
    trains, and one row per busy client.

    Each fetch and each return is a message; a change that is too old counts as dropped.

    Args:
        num_nodes: n clients.
        duration: simulated seconds.
        concurrency: M, from 1 to n, clients that train at the same time.
        train_time: clock whose intervals are the seconds from a client's fetch to its return.
        buffer_size: K ≥ 1.
        server_lr: η > 0.
        max_staleness: largest staleness τ, in versions; older changes are dropped. None: no limit.
        staleness_power: p ≥ 0.
        seed: of the NumPy generators that draw clients and times.

    Raises:
        ValueError: if a setting is out of range, the plan does not fit into memory, or it ends before the first update.

    Reference: Nguyen et al. 2022, arXiv 2106.06639, algorithm 1.
    """
    num_nodes = whole("num_nodes", num_nodes, least=1, most=MOST_NODES)
    buffer_size = whole("buffer_size", buffer_size, least=1)
    concurrency = whole("concurrency", concurrency, least=1, most=num_nodes, remedy="of the clients train at a time")
    server_lr, staleness_power = (
        real("server_lr", server_lr, above=0),
        real("staleness_power", staleness_power, least=0),
    )
    max_staleness = optional_whole("max_staleness", max_staleness, least=0)
    duration, seed = real("duration", duration, above=0, unit="seconds"), checked_seed(seed)
    instance("train_time", train_time, Clock, A_CLOCK)
    returning = concurrency / num_nodes * expected_ticks(train_time, num_nodes, duration, "train_time")
    require_room(returning, 600, "returns", "num_nodes, duration, concurrency, train_time", num_nodes=num_nodes)
    buffer = _Buffer(buffer_size, max_staleness, staleness_power)
    returns = _run(num_nodes, duration, concurrency, train_time, buffer, seed)
    fetches = [_Return(0.0, NOBODY, place, 0.0, False) for place in range(concurrency)]
    dropped = sum(event.weight == 0.0 for event in returns)
    sent = concurrency + 2 * len(returns)
    properties = Properties(
        num_nodes,
        1,
        f"fedbuff({concurrency} of {num_nodes}, buffer of {buffer_size})",
        num_slots=FETCHED - 1 + concurrency,
        tags={"buffered"},
        traffic=Traffic(sent, sent - dropped, dropped=dropped),
        messages="group: a client and the server",
    )
    return listed(_events(fetches + returns, server_lr / buffer_size), properties)


class _Buffer(NamedTuple):
    """How the server takes updates in."""

    size: int
    max_staleness: int | None
    power: float
    """Of the weight of a stale update."""


def _run(n: int, duration: float, concurrency: int, train_time: Clock, buffer: _Buffer, seed: int) -> list[_Return]:
    """Simulate the clients in order of time."""
    of_clients, of_times = np.random.default_rng(seed).spawn(2)
    seconds = service_times(train_time, n, of_times)
    idle = of_clients.permutation(n).tolist()
    busy: list[tuple[float, int, int, int]] = []

    def begin(now: float, place: int, version: int) -> None:
        at = int(of_clients.integers(len(idle)))
        idle[at], idle[-1] = idle[-1], idle[at]
        client = idle.pop()
        heapq.heappush(busy, (now + seconds(client), place, client, version))

    for place in range(concurrency):
        begin(0.0, place, 0)
    version, waiting, searched, returns = 0, 0, 0, []
    while version == 0 or busy[0][0] < duration:
        now, place, client, start = heapq.heappop(busy)
        staleness = version - start
        kept = buffer.max_staleness is None or staleness <= buffer.max_staleness
        waiting += kept
        full = waiting == buffer.size and kept
        searched += now >= duration
        if full or searched == MOST_SEARCHED:
            require_update(duration, now, "train_time, concurrency or buffer_size", found=full)
        returns.append(_Return(now, client, place, (1.0 + staleness) ** -buffer.power if kept else 0.0, full))
        if full:
            version, waiting = version + 1, 0
        idle.append(client)
        begin(now, place, version)
    return returns


def _events(returns: list[_Return], step: float) -> dict[str, np.ndarray]:
    """Write each return as three groups: the server and the next fetch, the buffer, and the row that trains next."""
    total = len(returns)
    time, client, place, weight, full = (np.asarray(column) for column in zip(*returns, strict=True))
    fetched = (FETCHED + place).astype(np.int32)
    started = client != NOBODY
    following = np.append(fetched[1:], NOBODY)
    following[:-1][~started[1:]] = NOBODY
    same = following == fetched  # the next to return is the one that fetches now
    members = np.full((total, 3, 4), NOBODY, np.int32)
    members[:, 0] = members[:, 1] = np.array([SERVER, BUFFER, FETCHED, WORK])
    members[:, :2, 2] = fetched[:, None]
    members[:, 2, 0] = following
    shares = np.zeros((total, 3, 4))
    shares[:, 0, 0] = 1.0
    shares[:, 0, 1] = np.where(full, -step, 0.0)
    shares[:, 0, 2], shares[:, 0, 3] = np.where(full, -step * weight, 0.0), np.where(full, step * weight, 0.0)
    shares[:, 1, 1] = np.where(full, 0.0, 1.0)
    shares[:, 1, 2], shares[:, 1, 3] = np.where(full, 0.0, weight), np.where(full, 0.0, -weight)
    shares[:, 2, 0] = 1.0
    targets = np.full((total, 3, 3), NOBODY, np.int32)
    targets[:, 0, 0], targets[:, 0, 1] = SERVER, fetched
    targets[:, 0, 2] = np.where(same, WORK, NOBODY)
    targets[:, 1, 0] = BUFFER
    targets[:, 2, 0] = np.where(same | (following == NOBODY), NOBODY, WORK)
    shares[:, 2, 0] = targets[:, 2, 0] == WORK
    return {
        "time": time,
        "nodes": client[:, None],
        "rows": np.where(started, WORK, NOBODY)[:, None],
        "members": members,
        "weights": shares,
        "targets": targets,
        "messages": (1 + started).astype(np.uint32)[:, None],
    }
