"""Claims on rumour spreading: how long it takes until all nodes have heard, in rounds and in continuous time."""

from __future__ import annotations

import math
from typing import Any

import networkx as nx
import numpy as np

import gossipjax as gj
from gossipjax.timeline import drawn_gossip, drawn_pairs, poisson_push, push_gossip

from ... import spreading as exact
from ..claim import Axis, Claim, Observation, Sampling, each, pointwise
from ..engine import paced
from . import _spreading_rounds
from ._rumours import spread

RATE = 1.5
"""Calls per node and second."""
TIME = "mean time until all have heard, s"


def _events(n: int, seconds: float, rate: float = RATE) -> int:
    """Return the number of events in a time, rounded up so that few programs are compiled."""
    return 256 * math.ceil(n * rate * seconds / 256)


def _graph(graph: str, n: int) -> Any:
    return {"complete": lambda: n, "ring": lambda: gj.topology.ring(n), "star": lambda: gj.topology.star(n)}[graph]()


def _asynchronous(seed: int, point: float, replicas: int, graph: exact.Graph, two_way: bool) -> Observation:
    """Draw events inside the run; the mean time is that of the mean number of events (Wald)."""
    n = int(point)
    mean = exact.asynchronous_time(n, graph=graph, gossip_rate=RATE, two_way=two_way)
    # Fewer than one run in 10⁶ takes longer than this: 20 times the last stage, and on the ring six deviations.
    last = {"complete": 1.0, "ring": 1.0, "star": 2.0 if two_way else n - 1.0}[graph] / (2 if two_way else 1)
    spare = 20.0 * last + (6.0 * math.sqrt(n) if graph == "ring" else 0.0)
    total = _events(n, mean + spare / RATE)
    peers = _graph(graph, n)
    if two_way:
        plan = drawn_pairs(peers, total, rate=RATE)
    else:
        plan = drawn_gossip(peers, total, update_rate=0.0, gossip_rate=RATE)
    runs = spread(seed, n, replicas, plan)
    sent = paced(runs.messages[:, -1], float(total * (2 if two_way else 1)))
    return Observation(runs.first_all(n)[:, None] / (n * RATE), (*runs.assumptions, sent))


def _mean_time_claim(graph: exact.Graph, two_way: bool, formula: str, points: Any, quick: int, catches: Any) -> Claim:
    how = "two-way calls" if two_way else "pushes"
    place = {"complete": "on the complete graph", "ring": "on the ring", "star": "from a star's hub"}[graph]
    return Claim(
        f"spreading_{'push_pull' if two_way else 'push'}_{graph}",
        f"By {how} at rate λ {place}, all have heard after {formula} on average (λ = {RATE:g}).",
        "pure birth chain of the informed nodes; derived",
        Axis("nodes n", points, (quick,)),
        TIME,
        predict=pointwise(lambda k: exact.asynchronous_time(k, graph=graph, gossip_rate=RATE, two_way=two_way)),
        simulate=each(lambda seed, n, replicas: _asynchronous(seed, n, replicas, graph, two_way)),
        sampling=Sampling(512 if graph == "complete" else 1200, 512),
        catches=catches,
    )


BIASED, ONE_WAY, WRONG_EDGES = "biased partner choice", "an exchange that works one way", "edges off by one neighbour"


BOTH_WAYS, ALL_AT_ONCE = "a push that goes both ways", "a hub that pushes to all leaves at once"


OVER_TIME = (
    _mean_time_claim("complete", False, "2 (n−1)/n H_{n−1}/λ", (4, 16, 64, 256), 24, (BIASED, BOTH_WAYS)),
    _mean_time_claim("ring", False, "(n−1)/λ", (4, 16, 64), 12, (WRONG_EDGES, BOTH_WAYS)),
    _mean_time_claim("star", False, "(n−1) H_{n−1}/λ", (4, 12, 24), 10, (ALL_AT_ONCE, BOTH_WAYS)),
    _mean_time_claim("complete", True, "(n−1)/n H_{n−1}/λ", (4, 16, 64, 256), 24, (BIASED, ONE_WAY)),
    _mean_time_claim("ring", True, "(n−1)/(2λ)", (4, 16, 64), 12, (WRONG_EDGES, ONE_WAY)),
    _mean_time_claim("star", True, "(n−1)/n H_{n−1}/λ", (4, 12, 40), 12, (ONE_WAY, "a node that is never chosen")),
)


def _timed(seed: int, n: int, replicas: int, plans: list[gj.Timeline]) -> Observation:
    """Cut all plans to the shortest, and read from their planned times the second at which all nodes have heard."""
    shortest = min(len(plan) for plan in plans)
    plans = [plan[:shortest] for plan in plans]
    runs = spread(seed, n, replicas, plans)
    last = np.minimum(runs.first_all(n).astype(int), shortest) - 1
    times = [plan.xs["time"].reshape(shortest)[at] for plan, at in zip(plans, last, strict=True)]
    return Observation(np.asarray(times, np.float64)[:, None], runs.assumptions)


def _irregular() -> gj.topology.Topology:
    return gj.topology.barabasi_albert(9, 2, seed=1)


def _adjacency(graph: gj.topology.Topology) -> np.ndarray:
    matrix = np.zeros((graph.num_nodes, graph.num_nodes))
    matrix[graph.senders, graph.receivers] = 1.0
    return matrix


def _small_time(points: np.ndarray, two_way: bool) -> np.ndarray:
    adjacency = _adjacency(_irregular())
    rates = [exact.contact_rates(adjacency, float(rate), two_way=two_way) for rate in points]
    return np.asarray([exact.asynchronous_time_graph(matrix, 0) for matrix in rates])


def _small_push(seed: int, rate: float, replicas: int) -> Observation:
    graph, total = _irregular(), 768
    plans = [poisson_push(graph, total, rate=float(rate), seed=seed * 100_003 + k) for k in range(replicas)]
    return _timed(seed, 9, replicas, plans)


def _small_pairs(seed: int, rate: float, replicas: int) -> Observation:
    graph, duration = _irregular(), 45.0 / float(rate)
    plans = [
        push_gossip(graph, duration, compute=None, gossip=float(rate), two_way=True, seed=seed * 100_003 + k)
        for k in range(replicas)
    ]
    return _timed(seed, 9, replicas, plans)


GIAKKOUPIS = "order: Giakkoupis 2011, Tight bounds for rumor spreading in graphs of a given conductance"


CONSTANT = 2.0
"""C of the conductance bound: our choice, because the theorem's constant is not known to us."""


def _zoo(number: float) -> gj.topology.Topology:
    """Return a graph of ten nodes; some are regular, and some have bottlenecks."""
    t = gj.topology
    makers = (
        lambda: t.from_networkx(nx.barbell_graph(5, 0)),
        lambda: t.star(10),
        lambda: t.ring(10),
        lambda: t.path(10),
        lambda: t.complete(10),
        lambda: t.from_networkx(nx.petersen_graph()),
        lambda: t.barabasi_albert(10, 2, seed=3),
        lambda: t.from_networkx(nx.lollipop_graph(6, 4)),
    )
    return makers[int(number)]()


def _on_zoo(seed: int, number: float, replicas: int) -> Observation:
    plan = drawn_pairs(_zoo(number), 1536)
    runs = spread(seed, 10, replicas, plan)
    return Observation(runs.first_all(10)[:, None] / 10.0, runs.assumptions)


def _conductance_bound(numbers: np.ndarray) -> np.ndarray:
    return np.asarray([exact.conductance_bound(10, exact.conductance(_adjacency(_zoo(k))), CONSTANT) for k in numbers])


def _closed_conductance(graph: exact.Graph, phi: Any, words: str) -> Claim:
    """Claim the conductance bound on graphs whose closed form of φ allows large n."""
    return Claim(
        f"spreading_conductance_bound_{graph}",
        f"Two-way calls inform all within C ln n/(λφ) on average, {words} (C = {CONSTANT:g}, λ = {RATE:g}).",
        GIAKKOUPIS,
        Axis("nodes n", (4, 16, 64), (16,)),
        TIME,
        predict=pointwise(lambda n: exact.conductance_bound(n, phi(n), CONSTANT) / RATE),
        simulate=each(lambda seed, n, replicas: _asynchronous(seed, n, replicas, graph, two_way=True)),
        sampling=Sampling(256, 192),
        catches=("edges that never fire", "messages that are lost"),
        kind="upper",
        mark="recalled",
    )


CLAIMS = (
    *OVER_TIME,
    Claim(
        "spreading_push_irregular_graph",
        "On any graph a recursion over sets of informed nodes gives the time until all have heard by pushes.",
        "forward chain of informed sets; derived (preferential attachment, n = 9, from node 0)",
        Axis("rate λ, calls per node and second", (0.5, 2.0), (2.0,)),
        TIME,
        predict=lambda rate: _small_time(rate, two_way=False),
        simulate=each(_small_push),
        sampling=Sampling(2048, 512),
        catches=("partners drawn uniformly from all nodes", "edges off by one neighbour", "clocks of another rate"),
    ),
    Claim(
        "spreading_push_pull_irregular_graph",
        "For two-way calls on any graph the same recursion holds with rates λ_uv + λ_vu.",
        "forward chain of informed sets; derived (preferential attachment, n = 9, from node 0)",
        Axis("rate λ, calls per node and second", (0.5, 2.0), (2.0,)),
        TIME,
        predict=lambda rate: _small_time(rate, two_way=True),
        simulate=each(_small_pairs),
        sampling=Sampling(2048, 512),
        catches=("an exchange that works one way", "partners drawn uniformly from all nodes", "clocks of another rate"),
    ),
    *_spreading_rounds.CLAIMS,
    Claim(
        "spreading_conductance_bound",
        f"Two-way calls inform all within C ln n/φ on average; φ is the conductance (C = {CONSTANT:g}, λ = 1).",
        GIAKKOUPIS,
        Axis(
            "graph of 10 nodes (0 barbell, 1 star, 2 ring, 3 path, 4 complete, 5 Petersen, 6 hubs, 7 lollipop)",
            tuple(float(k) for k in range(8)),
            (0.0, 4.0),
        ),
        TIME,
        predict=_conductance_bound,
        simulate=each(_on_zoo),
        sampling=Sampling(256, 192),
        catches=("edges that never fire", "messages that are lost"),
        kind="upper",
        mark="recalled",
    ),
    _closed_conductance("complete", exact.conductance_complete, "φ = ⌈n/2⌉/(n − 1) of the complete graph"),
    _closed_conductance("ring", exact.conductance_ring, "φ = 1/⌊n/2⌋ of the ring"),
    _spreading_rounds.GROWTH,
)
