"""Claims on version age: how many versions of an outside source the nodes of a network are behind (Yates 2021)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import gossipjax as gj
from gossipjax.observe import staleness_matrix
from gossipjax.timeline import clocks, push_gossip, version_age

from ... import age as exact
from ..claim import Axis, Claim, Law, Observation, Points, Sampling, each, pointwise
from ..engine import paced, planned_runs, runs, settled

PAPER = "Yates 2021, arXiv 2102.02893"
MEAN_AGE = "mean version age, versions"
EACH_NODE = Axis("node", (0, 1, 2, 3, 4, 5, 6), (0, 5))
ONE_POINT = Sampling(768, 384)
TOGETHER = Sampling(1536, 384, independent=False)
"""Several points from the same runs."""
UNIT: dict[str, Any] = {"version_rate": 1.0, "source_rate": 1.0, "gossip_rate": 1.0}
"""λ_e, λ_s and λ: versions, the source's pushes, and each node's, per second."""
SILENT = UNIT | {"gossip_rate": 0.0}
BURN_IN, RECORDS = 6, 12
"""In mean ages; only a network without gossip remembers longer, as its ages are nearly exponential."""


class _Ages(NamedTuple):
    values: np.ndarray
    """``(replicas, records, nodes)``, versions."""
    assumptions: tuple[Any, ...]

    def observed(self, samples: np.ndarray) -> Observation:
        """Average over records: ``(replicas, records, …)``."""
        return Observation(samples.mean(axis=1), self.assumptions)


def _ages(
    seed: int, peers: Any, replicas: int, mean: float, *, rates: Any = UNIT, burn_in: int = BURN_IN, records=RECORDS
) -> _Ages:
    """Record the ages of all nodes about one mean age apart, after every so many events.

    All clocks are Poisson and of constant rate, so that what is seen after a given number of events is as
    old as what is seen at a given time.
    """
    n = peers if isinstance(peers, int) else peers.num_nodes
    pushes = rates["source_rate"] + float(np.sum(np.broadcast_to(rates["gossip_rate"], n)))
    total = pushes + rates["version_rate"]
    every = int(np.ceil(mean / rates["version_rate"] * total))
    events = every * (burn_in + records)
    duration = (events + 6 * np.sqrt(events) + 100) / total
    plans = [version_age(peers, duration, seed=seed * 100_003 + k, **rates)[:events] for k in range(replicas)]
    protocol = gj.track_versions(gj.gossip_averaging(), [n], num_nodes=n + 1)
    found = runs(seed, replicas, protocol, plans, np.zeros(n + 1), [staleness_matrix()], every=every)
    ages = found["staleness_matrix"][:, burn_in:, :n, 0]
    sent = paced(found["messages"][:, -1], events * pushes / total)
    return _Ages(ages, (settled(ages.mean(axis=2)), sent))


def _rough(graph: str, n: int) -> float:
    """A guess of the mean age at unit rates, by which the length of a run is chosen."""
    known = {"complete": exact.version_age_complete, "ring": exact.version_age_ring}
    if graph in known:
        return known[graph](n, **UNIT)
    return 1.2 * n ** (1 / 3) if graph == "torus" else 1.5 * np.log(n)


def _peers(graph: str, n: int) -> Any:
    """The network without its source; a number: everyone is a peer."""
    side = round(n**0.5)
    makers = {
        "complete": lambda: n,
        "ring": lambda: gj.topology.ring(n),
        "torus": lambda: gj.topology.torus(side, side),
        "random regular": lambda: gj.topology.random_regular(n, 4, seed=n, tries=20),
    }
    return makers[graph]()


def _mean(seed: int, point: float, replicas: int, graph: str) -> Observation:
    n = int(point)
    found = _ages(seed, _peers(graph, n), replicas, _rough(graph, n))
    return found.observed(found.values.mean(axis=2))


def _variance(seed: int, point: float, replicas: int, graph: str) -> Observation:
    """Squared distances from the known mean: those from a sample's own would be too small."""
    n = int(point)
    mean = _rough(graph, n)
    found = _ages(seed, _peers(graph, n), replicas, mean)
    return found.observed(((found.values - mean) ** 2).mean(axis=2))


def _pmf(seed: int, points: Points, replicas: int, graph: str) -> Observation:
    found = _ages(seed, _peers(graph, 16), replicas, _rough(graph, 16))
    return found.observed(np.stack([(found.values == k).mean(axis=2) for k in points], axis=2))


def _star(seed: int, point: float, replicas: int, hub: bool) -> Observation:
    n = int(point)
    ages = exact.version_age_bipartite(1, n - 1, **UNIT)
    found = _ages(seed, gj.topology.star(n), replicas, max(ages))
    return found.observed(found.values[..., 0] if hub else found.values[..., 1:].mean(axis=2))


def _star_age(n: np.ndarray, hub: bool) -> np.ndarray:
    ages = [exact.version_age_bipartite(1, int(k) - 1, **UNIT) for k in n]
    return np.asarray([one.left if hub else one.right for one in ages])


def _alone(seed: int, point: float, replicas: int) -> Observation:
    n = int(point)
    found = _ages(seed, n, replicas, float(n), rates=SILENT, burn_in=16, records=16)
    return found.observed(found.values.mean(axis=2))


def _irregular() -> gj.topology.Topology:
    """A connected graph with nodes of one to five neighbours."""
    return gj.topology.erdos_renyi(7, 0.4, seed=3, tries=50)


NODE_RATES = np.array([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0])
"""Pushes per second where nodes differ; one is silent."""


def _recursion(points: np.ndarray, gossip: np.ndarray) -> np.ndarray:
    graph = _irregular()
    rates = np.zeros((7, 7))
    rates[graph.senders, graph.receivers] = (gossip / graph.degrees)[graph.senders]
    ages = exact.version_age(rates, np.full(7, 1 / 7), 1.0)
    return np.asarray([ages[int(i)] for i in points])


def _small_graph(seed: int, points: Points, replicas: int, gossip: np.ndarray) -> Observation:
    found = _ages(seed, _irregular(), replicas, 5.0, rates=UNIT | {"gossip_rate": gossip})
    return found.observed(found.values[..., [int(i) for i in points]])


def _freshest(seed: int, points: Points, replicas: int) -> Observation:
    found = _ages(seed, 12, replicas, _rough("complete", 12))
    return found.observed(np.stack([found.values[..., : int(k)].min(axis=2) for k in points], axis=2))


def _freshest_age(points: np.ndarray) -> np.ndarray:
    rates, source_rates = np.full((12, 12), 1 / 11), np.full(12, 1 / 12)
    members = [tuple(range(int(k))) for k in points]
    return np.asarray([exact.version_age_of_set(rates, source_rates, 1.0, some) for some in members])


UNEQUAL = {"version_rate": 2.0, "source_rate": 3.0}


def _rates(seed: int, gossip: float, replicas: int) -> Observation:
    rates = UNEQUAL | {"gossip_rate": float(gossip)}
    found = _ages(seed, 12, replicas, exact.version_age_complete(12, **rates), rates=rates)
    return found.observed(found.values.mean(axis=2))


def _bound(n: np.ndarray, side: str) -> np.ndarray:
    bounds = [exact.version_age_complete_bounds(int(k), version_rate=1.0, gossip_rate=1.0) for k in n]
    return np.asarray([getattr(one, side) for one in bounds])


def _growth(seed: int, point: float, replicas: int, graph: str) -> Observation:
    """Shorter runs than elsewhere: the largest networks take most of the time."""
    n = int(point)
    found = _ages(seed, _peers(graph, n), replicas, _rough(graph, n), burn_in=4, records=4)
    return found.observed(found.values.mean(axis=2))


SIZES = Axis("nodes n", (9, 36, 144, 576, 1600), (9, 36, 121, 400, 900))
"""Squares, for the torus."""
CLUSTERS, MEMBERS = 3, 5
CLUSTERED: dict[str, float] = {"version_rate": 1.0, "source_rate": 3.0, "head_rate": 2.0, "gossip_rate": 1.5}
INSIDE: tuple[exact.Inside, ...] = ("complete", "ring")


def _clusters(inside: exact.Inside) -> gj.topology.Topology:
    """Edges from the source, node 0, to the heads, from each head to its members, and between members."""
    size = 1 + CLUSTERS + CLUSTERS * MEMBERS
    edges = np.zeros((size, size), bool)
    edges[0, 1 : 1 + CLUSTERS] = True
    graph = gj.topology.ring(MEMBERS) if inside == "ring" else gj.topology.complete(MEMBERS)
    for cluster in range(CLUSTERS):
        first = 1 + CLUSTERS + cluster * MEMBERS
        edges[1 + cluster, first : first + MEMBERS] = True
        edges[first + graph.senders, first + graph.receivers] = True
    senders, receivers = np.nonzero(edges)
    return gj.topology.Topology(size, senders, receivers, directed=True, name=f"clusters, {inside} inside")


def _clustered(seed: int, point: float, replicas: int) -> Observation:
    graph, first = _clusters(INSIDE[int(point)]), 1 + CLUSTERS
    pushes = np.full(graph.num_nodes, CLUSTERED["gossip_rate"])
    pushes[0], pushes[1:first] = CLUSTERED["source_rate"], CLUSTERED["head_rate"]
    versions = np.full(graph.num_nodes, 1e-9)  # a clock needs a rate; the other nodes make no version
    versions[0] = CLUSTERED["version_rate"]
    times = 3.0 * (BURN_IN + np.arange(1, RECORDS + 1))

    def plan(k: int) -> gj.Timeline:
        return push_gossip(graph, float(times[-1]), compute=clocks.poisson(versions), gossip=pushes, seed=k)

    protocol = gj.track_versions(gj.gossip_averaging(), [0], num_nodes=graph.num_nodes)
    found = planned_runs(seed, replicas, protocol, plan, times, np.zeros(graph.num_nodes), [staleness_matrix()])
    ages = found["staleness_matrix"][:, :, first:, 0].mean(axis=2)
    return Observation(ages.mean(axis=1), (settled(ages),))


CLAIMS = (
    Claim(
        "version_age_complete",
        "On the complete graph v_1 follows from v_j = (λ_e + g_j v_{j+1})/(jλ_s/n + g_j), g_j = j(n−j)λ/(n−1).",
        f"{PAPER}, Theorem 1 by symmetry",
        Axis("nodes n", (4, 16, 64, 144), (16,)),
        MEAN_AGE,
        predict=pointwise(lambda k: exact.version_age_complete(k, **UNIT)),
        simulate=each(lambda seed, n, replicas: _mean(seed, n, replicas, "complete")),
        sampling=ONE_POINT,
        catches=(
            "biased partner choice",
            "a receiver that takes an older version",
            "the source counted among the peers",
        ),
    ),
    Claim(
        "version_age_rates",
        "The same recursion holds where λ_e = 2, λ_s = 3 and λ differ (complete graph, n = 12).",
        f"{PAPER}, Theorem 1 by symmetry",
        Axis("gossip rate λ, pushes per node and second", (0.2, 1.0, 5.0), (0.5,)),
        MEAN_AGE,
        predict=pointwise(lambda g: exact.version_age_complete(12, **UNEQUAL, gossip_rate=g)),
        simulate=each(_rates),
        sampling=ONE_POINT,
        catches=("a rate per node taken for one of the network", "versions and pushes of the source swapped"),
    ),
    Claim(
        "version_age_ring",
        "On the ring v_1 follows from the same recursion with g_j = λ, the two ends of an arc.",
        f"{PAPER}, section on the ring",
        Axis("nodes n", (4, 16, 36, 100), (16,)),
        MEAN_AGE,
        predict=pointwise(lambda k: exact.version_age_ring(k, **UNIT)),
        simulate=each(lambda seed, n, replicas: _mean(seed, n, replicas, "ring")),
        sampling=ONE_POINT,
        catches=("edges off by one neighbour", "a receiver that takes an older version"),
    ),
    Claim(
        "version_age_star_hub",
        "The hub of a star has the age v_{1,0} of the recursion over leaves and hub.",
        f"{PAPER}, Theorem 1 by symmetry; bipartite networks in Maranzatto 2024, arXiv 2401.11580",
        Axis("nodes n", (4, 12, 40), (12,)),
        "mean version age of the hub, versions",
        predict=lambda n: _star_age(n, hub=True),
        simulate=each(lambda seed, n, replicas: _star(seed, n, replicas, hub=True)),
        sampling=ONE_POINT,
        catches=("partners drawn uniformly from all nodes",),
    ),
    Claim(
        "version_age_star_leaf",
        "The leaves of a star have the age v_{0,1} of the recursion over leaves and hub.",
        f"{PAPER}, Theorem 1 by symmetry; bipartite networks in Maranzatto 2024, arXiv 2401.11580",
        Axis("nodes n", (4, 12, 40), (12,)),
        "mean version age of a leaf, versions",
        predict=lambda n: _star_age(n, hub=False),
        simulate=each(lambda seed, n, replicas: _star(seed, n, replicas, hub=False)),
        sampling=ONE_POINT,
        catches=("partners drawn uniformly from all nodes", "a hub that pushes to all leaves at once"),
    ),
    Claim(
        "version_age_irregular_graph",
        "On any graph v_S = (λ_e + Σ_u λ_u(S) v_{S∪u})/(λ_0(S) + Σ_u λ_u(S)), u outside S (7 random nodes).",
        f"{PAPER}, Theorem 1",
        EACH_NODE,
        MEAN_AGE,
        predict=lambda i: _recursion(i, np.ones(7)),
        simulate=lambda seed, points, replicas: _small_graph(seed, points, replicas, np.ones(7)),
        sampling=TOGETHER,
        catches=("edges off by one neighbour", "partners drawn uniformly from all nodes"),
    ),
    Claim(
        "version_age_unequal_nodes",
        "The recursion over sets holds where nodes push at rates from 0 to 3 (random graph of 7 nodes).",
        f"{PAPER}, Theorem 1",
        EACH_NODE,
        MEAN_AGE,
        predict=lambda i: _recursion(i, NODE_RATES),
        simulate=lambda seed, points, replicas: _small_graph(seed, points, replicas, NODE_RATES),
        sampling=TOGETHER,
        catches=("rates of other nodes", "the rate of the receiver in place of the sender's"),
    ),
    Claim(
        "version_age_of_set",
        "The freshest of j nodes has the age v_j of the recursion (complete graph, n = 12).",
        f"{PAPER}, Theorem 1",
        Axis("nodes j of the set", (1, 2, 4, 8, 12), (2, 6)),
        "mean version age of the freshest, versions",
        predict=_freshest_age,
        simulate=_freshest,
        sampling=TOGETHER,
        catches=("nodes that learn of a version together although only one was told",),
    ),
    Claim(
        "version_age_distribution",
        "The age counts versions in a random passage time: E z^X = φ(λ_e(1 − z)) (complete graph, n = 16).",
        "Nasser, Issa, Abou-Faycal 2022, arXiv 2202.01297; generating function inverted by FFT",
        Axis("version age k, versions", (0, 1, 2, 3, 5, 8), (1, 3)),
        "share of nodes",
        predict=lambda k: exact.version_age_complete_pmf(16, size=64, **UNIT)[k.astype(int)],
        simulate=lambda seed, points, replicas: _pmf(seed, points, replicas, "complete"),
        sampling=TOGETHER,
        catches=("versions at regular times",),
    ),
    Claim(
        "version_age_distribution_ring",
        "On the ring as well the whole law of the age is that of versions in the passage time (n = 16).",
        "Maranzatto and Michelen 2024, arXiv 2409.12710; generating function inverted by FFT",
        Axis("version age k, versions", (0, 1, 2, 4, 6, 9), (1, 4)),
        "share of nodes",
        predict=lambda k: exact.version_age_ring_pmf(16, size=64, **UNIT)[k.astype(int)],
        simulate=lambda seed, points, replicas: _pmf(seed, points, replicas, "ring"),
        sampling=TOGETHER,
        catches=("versions at regular times", "edges off by one neighbour"),
    ),
    Claim(
        "version_age_variance",
        "The variance of the age is λ_e² Var T + λ_e E T, T the passage time (complete graph).",
        "Maranzatto and Michelen 2024, arXiv 2409.12710, mixed over T",
        Axis("nodes n", (4, 16, 64), (16,)),
        "variance of the version age, versions²",
        predict=pointwise(lambda k: exact.version_age_variance(k, **UNIT)),
        simulate=each(lambda seed, n, replicas: _variance(seed, n, replicas, "complete")),
        # Squares are skewed: it takes many until their mean is normal.
        sampling=Sampling(3072, 768),
        catches=("versions at regular times", "clocks that are not memoryless"),
    ),
    Claim(
        "version_age_no_gossip",
        "Without gossip the age is n λ_e/λ_s: each node waits for the source alone.",
        PAPER,
        Axis("nodes n", (2, 12, 60), (12,)),
        MEAN_AGE,
        predict=pointwise(lambda k: exact.version_age_no_gossip(k, version_rate=1.0, source_rate=1.0)),
        simulate=each(_alone),
        sampling=ONE_POINT,
        catches=("a source that pushes to every node at its full rate",),
    ),
    Claim(
        "version_age_upper_bound",
        "For λ_s = λ the age on the complete graph is at most (λ_e/λ) H_n.",
        PAPER,
        Axis("nodes n", (4, 16, 64), (16,)),
        MEAN_AGE,
        predict=lambda n: _bound(n, "upper"),
        simulate=each(lambda seed, n, replicas: _mean(seed, n, replicas, "complete")),
        sampling=ONE_POINT,
        catches=("messages that are lost", "a receiver that takes an older version"),
        kind="upper",
        mark="recalled",
    ),
    Claim(
        "version_age_lower_bound",
        "For λ_s = λ the age on the complete graph is at least (λ_e/λ) [(n−1)/n H_{n−1} + 1/n].",
        PAPER,
        Axis("nodes n", (4, 16, 64), (16,)),
        MEAN_AGE,
        predict=lambda n: _bound(n, "lower"),
        simulate=each(lambda seed, n, replicas: _mean(seed, n, replicas, "complete")),
        sampling=ONE_POINT,
        catches=("a push that reaches more than one node", "versions that are not counted"),
        kind="lower",
        mark="recalled",
    ),
    Claim(
        "version_age_grows_complete",
        "For λ_s = λ the age on the complete graph grows as (λ_e/λ) ln n.",
        PAPER,
        SIZES,
        MEAN_AGE,
        predict=pointwise(lambda k: exact.version_age_complete(k, **UNIT)),
        simulate=each(lambda seed, n, replicas: _growth(seed, n, replicas, "complete")),
        sampling=Sampling(192, 96),
        catches=("partners drawn from neighbours on a ring",),
        kind="scaling",
        law=Law(("logarithm",)),
    ),
    Claim(
        "version_age_grows_random_regular",
        "On random 4-regular graphs, which are expanders, the age grows as ln n.",
        "Maranzatto and Michelen 2024, arXiv 2409.12710; order only",
        SIZES,
        MEAN_AGE,
        predict=lambda n: 1.2 * np.log(n),
        simulate=each(lambda seed, n, replicas: _growth(seed, n, replicas, "random regular")),
        sampling=Sampling(96, 48),
        catches=("a random graph that is one long ring",),
        kind="scaling",
        law=Law(("logarithm",)),
        mark="recalled",
    ),
    Claim(
        "version_age_grows_ring",
        "For λ_s = λ the age on the ring grows as (λ_e/λ) √(πn/2).",
        PAPER,
        SIZES,
        MEAN_AGE,
        predict=pointwise(lambda k: exact.version_age_ring(k, **UNIT)),
        simulate=each(lambda seed, n, replicas: _growth(seed, n, replicas, "ring")),
        sampling=Sampling(24, 24),
        catches=("shortcuts between distant nodes",),
        kind="scaling",
        # The exact ages of these sizes fit an exponent of 0.53: they are two thirds of a version below the law.
        law=Law(("power",), exponent=0.5, slack=0.04),
    ),
    Claim(
        "version_age_grows_torus",
        "On the torus the age grows as n^(1/3).",
        "Srivastava and Ulukus 2023; Maranzatto and Michelen 2024, arXiv 2409.12710; order only",
        SIZES,
        MEAN_AGE,
        predict=lambda n: 1.2 * n ** (1 / 3),
        simulate=each(lambda seed, n, replicas: _growth(seed, n, replicas, "torus")),
        sampling=Sampling(96, 48),
        catches=("neighbours in one direction only",),
        kind="scaling",
        # Only the order is known; that of the ring shows how far small networks are from it.
        law=Law(("power",), exponent=1 / 3, slack=0.04),
        mark="recalled",
    ),
    Claim(
        "version_age_clustered",
        "In clusters fed by heads a member is v_head + v_member behind, v_head = M λ_e/λ_s (3 clusters of 5).",
        "Buyukates, Bastopcu, Ulukus 2021, arXiv 2109.08669",
        Axis("members: 0 complete graph, 1 ring", (0, 1), (0, 1)),
        MEAN_AGE,
        predict=pointwise(
            lambda which: exact.version_age_clustered(CLUSTERS, MEMBERS, inside=INSIDE[which], **CLUSTERED).member
        ),
        simulate=each(_clustered),
        sampling=Sampling(512, 256),
        catches=("partners drawn uniformly from all nodes", "rates of other nodes"),
    ),
)
