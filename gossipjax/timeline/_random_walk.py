"""Random walks of models: nodes train them one after another, then send them on."""

from __future__ import annotations

import collections
import heapq
from typing import Literal

import numpy as np

from gossipjax._base.arguments import choice, flag, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.timeline._checks import connected
from gossipjax.timeline._from_events import listed
from gossipjax.timeline._memory import MOST_EVENTS, MOST_NODES, require_room
from gossipjax.timeline.clocks import Clock, Rate, as_clock, rate, service_times
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Timeline


@recorded("gholami2025walks")
def random_walks(
    topology: Topology,
    num_events: int | None = None,
    *,
    duration: float | None = None,
    num_walks: int,
    service: Clock | Rate,
    transition: Literal["metropolis", "uniform"] = "metropolis",
    mix_on_arrival: bool = False,
    seed: int,
) -> Timeline:
    """Plan R models on random walks: a node trains them in order of arrival, and sends each to a neighbour.

    An event is the end of a service: node v has trained model row r. The walk then moves to node u without delay. With
    "uniform", u is a uniform neighbour of v. With "metropolis", the walk moves to a uniform neighbour u with
    probability ``min(1, d_v/d_u)`` and otherwise queues at v again, which makes all nodes equally likely in the long
    run. With ``mix_on_arrival``, each node keeps a copy s of the walk that it served last, and the walk averages at u,
    ``y_r ← (y_r + s_u)/2``, if s_u is a copy of another walk. Walks start at uniform nodes at time 0.

    Args:
        topology: who can send to whom; undirected for "metropolis".
        num_events: T services; exactly one of this and ``duration``.
        duration: simulated seconds.
        num_walks: R ≥ 1 model rows.
        service: clock whose intervals are the seconds of a service; or the rate of exponential services per second, a
            number or ``(n,)``.
        transition: rule of the moves.
        mix_on_arrival: whether walks average on arrival; takes one more row per node.
        seed: of the NumPy generators that draw starts, moves and times.

    Raises:
        ValueError: if a setting is out of range, not exactly one of num_events and duration is given, or a node has no
            out-neighbour.

    Reference: Gholami and Seferoglu 2025, arXiv 2504.09792 (several walks); Hastings 1970 (the transitions).
    """
    n, service = connected(topology).num_nodes, as_clock("service", service)
    if (num_events is None) == (duration is None):
        raise ValueError("pass exactly one of num_events (count) and duration (simulated seconds)")
    num_walks, mix_on_arrival = (
        whole("num_walks", num_walks, least=1, most=MOST_NODES),
        flag("mix_on_arrival", mix_on_arrival),
    )
    expected: float
    if duration is None:
        expected = num_events = whole("num_events", num_events, least=1, most=MOST_EVENTS)
    else:
        duration = real("duration", duration, above=0, unit="seconds")
        expected = duration * min(num_walks, n) * float(np.max(rate(service)))
    choice("transition", transition, ("metropolis", "uniform"))
    if transition == "metropolis" and topology.directed:
        raise ValueError(f"transition={transition!r} on {topology.name}, which is directed: pass 'uniform'")
    if (topology.out_degrees == 0).any():
        raise ValueError(f"a walk cannot leave node {int(np.argmin(topology.out_degrees))} of {topology.name}")
    names = "num_events, num_walks" if duration is None else "duration, num_walks, service"
    require_room(expected, 400, "services", names, num_nodes=n + num_walks)
    of_moves, of_times = np.random.default_rng(checked_seed(seed)).spawn(2)
    seconds = service_times(service, n, of_times)
    visits = _walk(topology, num_events, duration, num_walks, seconds, transition == "metropolis", of_moves)
    columns = np.asarray(visits, np.float64).reshape(len(visits), 4)
    time, (node, walk, goal) = columns[:, 0], columns[:, 1:].T.astype(np.int64)
    xs = {
        "time": time,
        "nodes": node[:, None],
        "rows": walk[:, None],
        "messages": (goal != node).astype(np.uint32)[:, None],
    }
    if mix_on_arrival:
        xs |= _meetings(node, walk, goal, n, num_walks)
    name = f"random_walks({num_walks} on {topology.name}, {transition}{', mixing' if mix_on_arrival else ''})"
    slots = n if mix_on_arrival else 0
    words = "pair: a walk and who was there"
    return listed(xs, Properties(n, num_walks, name, num_slots=slots, tags={"walks"}, messages=words))


def out_neighbors(topology: Topology) -> list[np.ndarray]:
    """List the out-neighbours of each node."""
    order = np.argsort(topology.senders, kind="stable")
    return np.split(topology.receivers[order], np.cumsum(topology.out_degrees)[:-1])


def _walk(topology, num_events, duration, num_walks, seconds, metropolis: bool, rng) -> list[tuple]:
    """Simulate the walks; return time, node, walk and next node of each service."""
    neighbors, degrees = out_neighbors(topology), topology.out_degrees
    queues: list[collections.deque[int]] = [collections.deque() for _ in range(topology.num_nodes)]
    ends: list[tuple[float, int]] = []
    visits: list[tuple[float, int, int, int]] = []

    def arrive(walk: int, node: int, now: float) -> None:
        queues[node].append(walk)
        if len(queues[node]) == 1:
            heapq.heappush(ends, (now + seconds(node), node))

    for walk, node in enumerate(rng.integers(topology.num_nodes, size=num_walks).tolist()):
        arrive(walk, node, 0.0)
    while num_events is None or len(visits) < num_events:
        now, node = heapq.heappop(ends)
        if duration is not None and now >= duration:
            break
        goal = int(neighbors[node][rng.integers(degrees[node])])
        if metropolis and rng.random() * degrees[goal] >= degrees[node]:
            goal = node
        walk = queues[node].popleft()
        visits.append((now, node, walk, goal))
        if queues[node]:
            heapq.heappush(ends, (now + seconds(node), node))
        arrive(walk, goal, now)
    return visits


def _meetings(node, walk, goal, n: int, num_walks: int) -> dict[str, np.ndarray]:
    """Write two transfers per event: the walk leaves a copy, and averages with the one at its next node."""
    left_by = np.full(n, -1)
    other = np.empty(node.size, bool)
    for event, (v, r, u) in enumerate(zip(node.tolist(), walk.tolist(), goal.tolist(), strict=True)):
        other[event] = u != v and left_by[u] not in (-1, r)
        left_by[v] = r
    receivers = np.stack([num_walks + node, np.where(other, walk, NOBODY)], axis=1)
    return {
        "senders": np.stack([walk, np.where(other, num_walks + goal, NOBODY)], axis=1),
        "receivers": receivers,
        "weights": np.broadcast_to([1.0, 0.5], receivers.shape),
        "keep": np.broadcast_to([0.0, 0.5], receivers.shape),
    }
