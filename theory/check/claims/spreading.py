"""Claims on rumour spreading: how long until everybody has heard, in rounds and in continuous time.

Averaging spreads a rumour: from a model that is one at a single node and zero elsewhere, a node's value is positive if
and only if it has heard.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import networkx as nx
import numpy as np
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import Properties
from gossipjax.observe import Observer, Snapshot, Variable
from gossipjax.timeline import drawn_gossip, drawn_pairs, from_events, poisson_push, push_gossip, push_rounds
from gossipjax.timeline.flights import rank_in
from gossipjax.types import NOBODY

from ... import spreading as exact
from ..claim import Assumption, Axis, Claim, Law, Observation, Points, Sampling, each, once, pointwise
from ..engine import paced, runs

SMALLEST = 1e-290
"""Below it a value is close to where numbers are rounded to zero, and the rumour would be lost."""
RATE = 1.5
"""Calls per node and second."""
TIME, ROUNDS = "mean time until all have heard, s", "mean rounds until all have heard"


def _measure(snapshot: Snapshot) -> dict[str, Any]:
    heard = snapshot.x > 0
    return {"informed": jnp.sum(heard), "smallest": jnp.min(jnp.where(heard, snapshot.x, 1.0))}


def informed() -> Observer:
    """Count the nodes that have heard, and keep the smallest value that is not zero."""
    variables = Variable("informed", "nodes that have heard"), Variable("smallest", "smallest positive value")
    return Observer(Partial(_measure), variables)


INFORMED = (informed(),)


class _Spread(NamedTuple):
    counts: np.ndarray
    """Nodes informed after each event or round, ``(replicas, records)``."""
    messages: np.ndarray
    assumptions: tuple[Assumption, ...]

    def first_all(self, n: int) -> np.ndarray:
        """Number of the event (from one on) after which everybody has heard."""
        return 1.0 + (self.counts < n).sum(axis=1)


def _spread(seed: int, n: int, replicas: int, plan: Any) -> _Spread:
    """Let node 0 start a rumour and record after every event."""
    start = np.zeros(n)
    start[0] = 1.0
    found = runs(seed, replicas, gj.gossip_averaging(), plan, start, INFORMED, every=1)
    counts, late = found["informed"], int((found["informed"][:, -1] < n).sum())
    kept = bool((np.diff(counts, axis=1) >= 0).all() and found["smallest"].min() > SMALLEST)
    smallest = f"a value of {found['smallest'].min():.1e}, or somebody forgot"
    assumptions = (
        Assumption("everybody has heard before the run ends", late == 0, f"not in {late} of {len(counts)} runs"),
        Assumption("values are far above the smallest number", kept, smallest),
    )
    return _Spread(counts, found["messages"], assumptions)


def _events(n: int, seconds: float, rate: float = RATE) -> int:
    """Events in a time, rounded up so that few programs are compiled."""
    return 256 * math.ceil(n * rate * seconds / 256)


def _graph(graph: str, n: int) -> Any:
    return {"complete": lambda: n, "ring": lambda: gj.topology.ring(n), "star": lambda: gj.topology.star(n)}[graph]()


def _asynchronous(seed: int, point: float, replicas: int, graph: exact.Graph, two_way: bool) -> Observation:
    """Events are drawn inside the run; the mean time is that of the mean number of events (Wald)."""
    n = int(point)
    mean = exact.asynchronous_time(n, graph=graph, gossip_rate=RATE, two_way=two_way)
    # Not one run in 10⁶ takes so much longer: 20 times the last stage, and on the ring six deviations.
    last = {"complete": 1.0, "ring": 1.0, "star": 2.0 if two_way else n - 1.0}[graph] / (2 if two_way else 1)
    spare = 20.0 * last + (6.0 * math.sqrt(n) if graph == "ring" else 0.0)
    total = _events(n, mean + spare / RATE)
    peers = _graph(graph, n)
    if two_way:
        plan = drawn_pairs(peers, total, rate=RATE)
    else:
        plan = drawn_gossip(peers, total, update_rate=0.0, gossip_rate=RATE)
    found = _spread(seed, n, replicas, plan)
    sent = paced(found.messages[:, -1], float(total * (2 if two_way else 1)))
    return Observation(found.first_all(n)[:, None] / (n * RATE), (*found.assumptions, sent))


def _claim(graph: exact.Graph, two_way: bool, formula: str, points: Any, quick: int, catches: Any) -> Claim:
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
    _claim("complete", False, "2 (n−1)/n H_{n−1}/λ", (4, 16, 64, 256), 24, (BIASED, BOTH_WAYS)),
    _claim("ring", False, "(n−1)/λ", (4, 16, 64), 12, (WRONG_EDGES, BOTH_WAYS)),
    _claim("star", False, "(n−1) H_{n−1}/λ", (4, 12, 24), 10, (ALL_AT_ONCE, BOTH_WAYS)),
    _claim("complete", True, "(n−1)/n H_{n−1}/λ", (4, 16, 64, 256), 24, (BIASED, ONE_WAY)),
    _claim("ring", True, "(n−1)/(2λ)", (4, 16, 64), 12, (WRONG_EDGES, ONE_WAY)),
    _claim("star", True, "(n−1)/n H_{n−1}/λ", (4, 12, 40), 12, (ONE_WAY, "a node that is never chosen")),
)


def _timed(seed: int, n: int, replicas: int, plans: list[gj.Timeline]) -> Observation:
    """Times of the events are planned: cut all plans to the shortest, and read the second at which all have heard."""
    shortest = min(len(plan) for plan in plans)
    plans = [plan[:shortest] for plan in plans]
    found = _spread(seed, n, replicas, plans)
    last = np.minimum(found.first_all(n).astype(int), shortest) - 1
    times = [plan.xs["time"].reshape(shortest)[at] for plan, at in zip(plans, last, strict=True)]
    return Observation(np.asarray(times, np.float64)[:, None], found.assumptions)


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


LONGEST, LONGEST_PULL = 40, 28
"""Rounds of each run: of up to 1024 nodes not one run in 10⁶ takes longer (28: with pulls, up to 64 nodes)."""


def _windows(plan: gj.Timeline, rounds: int) -> list[gj.Timeline]:
    """Cut one long plan, whose rounds are independent, into runs that share all that is compiled."""
    return [plan[start : start + rounds] for start in range(0, len(plan), rounds)]


def _pushed(seed: int, n: int, replicas: int) -> _Spread:
    plan = push_rounds(n, LONGEST * replicas, compute=None, pushes="one", seed=seed)
    return _spread(seed, n, replicas, _windows(plan, LONGEST))


def _push_rounds(seed: int, point: float, replicas: int) -> Observation:
    found = _pushed(seed, int(point), replicas)
    sent = paced(found.messages[:, -1], LONGEST * point)
    return Observation(found.first_all(int(point))[:, None], (*found.assumptions, sent))


def _push_rounds_pmf(seed: int, points: Points, replicas: int) -> Observation:
    found = _pushed(seed, 32, replicas)
    return Observation((found.first_all(32)[:, None] == np.asarray(points)).astype(float), found.assumptions)


def _largest_growth(seed: int, point: float, replicas: int) -> Observation:
    """The largest ratio of numbers informed after and before a round, among 64 runs."""
    del replicas
    found = _pushed(seed, int(point), 64)
    before = np.concatenate([np.ones((64, 1)), found.counts[:, :-1]], axis=1)
    return Observation(np.max(found.counts / before, keepdims=True), found.assumptions)


def _fewest_rounds(seed: int, point: float, replicas: int) -> Observation:
    """The fewest rounds of 64 runs."""
    del replicas
    found = _pushed(seed, int(point), 64)
    return Observation(found.first_all(int(point)).min(keepdims=True)[:, None], found.assumptions)


def _called(seed: int, n: int, num_rounds: int, protocol: str) -> gj.Timeline:
    """Rounds in which everybody calls a uniform other: who hears averages with all whom it hears."""
    rng = np.random.default_rng(seed)
    own = np.broadcast_to(np.arange(n), (num_rounds, n))
    called = rng.integers(0, n - 1, (num_rounds, n))
    called = called + (called >= own)
    seconds, nobody = np.arange(1.0, num_rounds + 1), np.full((num_rounds, 1), NOBODY)
    xs = {"time": seconds, "nodes": nobody}
    facts = Properties(n, n, f"{protocol} rounds of {n} nodes")
    if protocol == "pull":
        shared = {"weights": np.full(n, 0.5), "keep": np.full(n, 0.5)}
        return from_events(xs | {"senders": called, "receivers": own}, facts, shared=shared)
    rounds = np.arange(num_rounds)[:, None]
    place = rank_in((rounds * n + called).ravel()).reshape(called.shape)
    members = np.full((num_rounds, n, 3 + int(place.max())), NOBODY)
    members[..., 0], members[..., 1] = own, called
    members[rounds, called, 2 + place] = own
    weights = (members != NOBODY) / (members != NOBODY).sum(axis=2, keepdims=True)
    return from_events(xs | {"members": members, "weights": weights, "targets": own[..., None]}, facts)


def _called_rounds(seed: int, point: float, replicas: int, protocol: str) -> Observation:
    n = int(point)
    plan = _called(seed, n, LONGEST_PULL * replicas, protocol)
    found = _spread(seed, n, replicas, _windows(plan, LONGEST_PULL))
    return Observation(found.first_all(n)[:, None], found.assumptions)


def _mean_rounds(protocol: Any) -> Any:
    return lambda n: np.asarray([exact.mean_rounds(int(k), protocol) for k in n])


WINDOW = "Doerr and Künnemann 2014, Tight Analysis of Randomized Rumor Spreading in Complete Graphs (abstract)"
GIAKKOUPIS = "order: Giakkoupis 2011, Tight bounds for rumor spreading in graphs of a given conductance"
CONSTANT = 2.0
"""C of the conductance bound: ours, as the theorem's is not at hand."""


def _zoo(number: float) -> gj.topology.Topology:
    """Graphs of ten nodes, regular and not, with and without bottlenecks."""
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
    found = _spread(seed, 10, replicas, plan)
    return Observation(found.first_all(10)[:, None] / 10.0, found.assumptions)


def _conductance_bound(numbers: np.ndarray) -> np.ndarray:
    return np.asarray([exact.conductance_bound(10, exact.conductance(_adjacency(_zoo(k))), CONSTANT) for k in numbers])


def _closed_conductance(graph: exact.Graph, phi: Any, words: str) -> Claim:
    """The conductance bound where a closed form of φ lets n be large."""
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
        "On any graph the time until all have heard by pushes is a recursion over the sets of informed nodes.",
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
        "On any graph the time until all have heard by two-way calls is the recursion with rates λ_uv + λ_vu.",
        "forward chain of informed sets; derived (preferential attachment, n = 9, from node 0)",
        Axis("rate λ, calls per node and second", (0.5, 2.0), (2.0,)),
        TIME,
        predict=lambda rate: _small_time(rate, two_way=True),
        simulate=each(_small_pairs),
        sampling=Sampling(2048, 512),
        catches=("an exchange that works one way", "partners drawn uniformly from all nodes", "clocks of another rate"),
    ),
    Claim(
        "spreading_push_rounds",
        "The mean number of push rounds on the complete graph follows from the chain of informed nodes.",
        "Markov chain of the number informed, as in Frieze and Grimmett 1985 and Pittel 1987; derived",
        Axis("nodes n", (4, 16, 64, 256), (32,)),
        ROUNDS,
        predict=_mean_rounds("push"),
        simulate=each(_push_rounds),
        sampling=Sampling(512, 192),
        catches=("messages of a round carry what came in it", "pushes that get lost when several arrive at one node"),
    ),
    Claim(
        "spreading_push_rounds_distribution",
        "The whole law of the number of push rounds is that of the chain (complete graph, n = 32).",
        "Markov chain of the number informed; derived",
        Axis("rounds", (7, 8, 9, 10, 12), (8, 9)),
        "share of runs",
        predict=lambda r: exact.rounds_pmf(32, protocol="push", size=64)[r.astype(int)],
        simulate=_push_rounds_pmf,
        sampling=Sampling(4096, 1024, independent=False),
        catches=("messages of a round carry what came in it", "rounds that repeat their targets"),
    ),
    Claim(
        "spreading_pull_rounds",
        "In pull rounds the informed nodes grow from k to k + Bin(n − k, k/(n − 1)): the mean number is known.",
        "Karp, Schindelhauer, Shenker, Vöcking 2000 (the protocol); derived",
        Axis("nodes n", (4, 8, 24), (16,)),
        ROUNDS,
        predict=_mean_rounds("pull"),
        simulate=each(lambda seed, n, replicas: _called_rounds(seed, n, replicas, "pull")),
        sampling=Sampling(512, 128),
        catches=("transfers of an event that see one another", "senders and receivers swapped"),
    ),
    Claim(
        "spreading_push_pull_rounds",
        "Where the calls of a round are used both ways, the chain gives the mean number of rounds.",
        "Karp, Schindelhauer, Shenker, Vöcking 2000 (the protocol); derived",
        Axis("nodes n", (4, 8, 24), (16,)),
        ROUNDS,
        predict=_mean_rounds("push-pull"),
        simulate=each(lambda seed, n, replicas: _called_rounds(seed, n, replicas, "push-pull")),
        sampling=Sampling(512, 128),
        catches=("groups of an event that see one another", "members of a group that are left out"),
    ),
    Claim(
        "spreading_push_rounds_at_least",
        "Push rounds on the complete graph take at least ⌊log₂ n⌋ + ln n − 1.116 on average.",
        WINDOW,
        Axis("nodes n", (64, 256), (64,)),
        ROUNDS,
        predict=pointwise(lambda k: exact.push_rounds_window(k).lower),
        simulate=each(_push_rounds),
        sampling=Sampling(512, 192),
        catches=("messages of a round carry what came in it", "a push that reaches more than one node"),
        kind="lower",
        mark="paper",
    ),
    Claim(
        "spreading_push_rounds_at_most",
        "Push rounds on the complete graph take at most ⌈log₂ n⌉ + ln n + 2.765 + o(1) on average.",
        f"{WINDOW}; its o(1) left out",
        Axis("nodes n", (64, 256), (64,)),
        ROUNDS,
        predict=pointwise(lambda k: exact.push_rounds_window(k).upper),
        simulate=each(_push_rounds),
        sampling=Sampling(512, 192),
        catches=("messages that are lost", "pushes that get lost when several arrive at one node"),
        kind="upper",
        mark="paper",
    ),
    Claim(
        "spreading_at_most_doubles",
        "In a push round the number of informed nodes never more than doubles.",
        "each informed node calls one other; sure",
        Axis("nodes n", (16, 64, 256), (64,)),
        "largest growth of the number informed in one round, 64 runs",
        predict=lambda n: np.full(n.shape, 2.0),
        simulate=each(_largest_growth),
        sampling=once(0.0),
        catches=("messages of a round carry what came in it", "a push that reaches more than one node"),
        kind="upper",
    ),
    Claim(
        "spreading_takes_log2_rounds",
        "No run of push rounds informs all n nodes in fewer than log₂ n rounds.",
        "the number informed at most doubles in a round; sure",
        Axis("nodes n", (16, 64, 256), (64,)),
        "fewest rounds until all have heard, 64 runs",
        # Rounds are whole numbers; without the ceiling, log₂ could be rounded upwards past them.
        predict=pointwise(lambda k: float((k - 1).bit_length())),
        simulate=each(_fewest_rounds),
        sampling=once(0.0),
        catches=("messages of a round carry what came in it",),
        kind="lower",
    ),
    Claim(
        "spreading_conductance_bound",
        f"Two-way calls inform all within C ln n/φ on average, φ the conductance (C = {CONSTANT:g}, λ = 1).",
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
    Claim(
        "spreading_push_rounds_grow",
        "The push rounds until all have heard grow as log₂ n + ln n.",
        "Frieze and Grimmett 1985; Pittel 1987",
        Axis("nodes n", (16, 64, 256, 1024), (16, 64, 256)),
        ROUNDS,
        predict=pointwise(lambda n: exact.rounds_asymptotic(n, "push")),
        simulate=each(_push_rounds),
        sampling=Sampling(512, 192),
        catches=("messages of a round carry what came in it", "a push that reaches more than one node"),
        kind="scaling",
        law=Law(("logarithm",)),
        mark="asymptotic",
    ),
)
