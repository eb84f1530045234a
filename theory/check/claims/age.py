"""Claims on version age: how many versions the nodes of a network are behind an external source (Yates 2021)."""

from __future__ import annotations

import numpy as np

import gossipjax as gj

from ... import age as exact
from ..claim import Axis, Claim, Observation, Points, Sampling, each, pointwise
from . import _age_clusters, _age_growth
from ._ages import MEAN_AGE, PAPER, UNIT, ages_of, peers_of, rough_age

EACH_NODE = Axis("node", (0, 1, 2, 3, 4, 5, 6), (0, 5))
ONE_POINT = Sampling(768, 384)
TOGETHER = Sampling(1536, 384, independent=False)
"""Several points are measured in the same runs."""
SILENT = UNIT | {"gossip_rate": 0.0}


def _mean(seed: int, point: float, replicas: int, graph: str) -> Observation:
    n = int(point)
    ages = ages_of(seed, peers_of(graph, n), replicas, rough_age(graph, n))
    return ages.observed(ages.values.mean(axis=2))


def _variance(seed: int, point: float, replicas: int, graph: str) -> Observation:
    """Measure squared distances from the known mean; those from the sample mean would be too small."""
    n = int(point)
    mean = rough_age(graph, n)
    ages = ages_of(seed, peers_of(graph, n), replicas, mean)
    return ages.observed(((ages.values - mean) ** 2).mean(axis=2))


def _pmf(seed: int, points: Points, replicas: int, graph: str) -> Observation:
    ages = ages_of(seed, peers_of(graph, 16), replicas, rough_age(graph, 16))
    return ages.observed(np.stack([(ages.values == k).mean(axis=2) for k in points], axis=2))


def _star(seed: int, point: float, replicas: int, hub: bool) -> Observation:
    n = int(point)
    ages = exact.version_age_bipartite(1, n - 1, **UNIT)
    runs = ages_of(seed, gj.topology.star(n), replicas, max(ages))
    return runs.observed(runs.values[..., 0] if hub else runs.values[..., 1:].mean(axis=2))


def _star_age(n: np.ndarray, hub: bool) -> np.ndarray:
    ages = [exact.version_age_bipartite(1, int(k) - 1, **UNIT) for k in n]
    return np.asarray([one.left if hub else one.right for one in ages])


def _alone(seed: int, point: float, replicas: int) -> Observation:
    n = int(point)
    ages = ages_of(seed, n, replicas, float(n), rates=SILENT, burn_in=16, records=16)
    return ages.observed(ages.values.mean(axis=2))


def _irregular() -> gj.topology.Topology:
    """Return a connected graph whose nodes have one to five neighbours."""
    return gj.topology.erdos_renyi(7, 0.4, seed=3, tries=50)


NODE_RATES = np.array([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0])
"""Pushes per second of nodes that differ; one is silent."""


def _recursion(points: np.ndarray, gossip: np.ndarray) -> np.ndarray:
    graph = _irregular()
    rates = np.zeros((7, 7))
    rates[graph.senders, graph.receivers] = (gossip / graph.degrees)[graph.senders]
    ages = exact.version_age(rates, np.full(7, 1 / 7), 1.0)
    return np.asarray([ages[int(i)] for i in points])


def _small_graph(seed: int, points: Points, replicas: int, gossip: np.ndarray) -> Observation:
    ages = ages_of(seed, _irregular(), replicas, 5.0, rates=UNIT | {"gossip_rate": gossip})
    return ages.observed(ages.values[..., [int(i) for i in points]])


def _freshest(seed: int, points: Points, replicas: int) -> Observation:
    ages = ages_of(seed, 12, replicas, rough_age("complete", 12))
    return ages.observed(np.stack([ages.values[..., : int(k)].min(axis=2) for k in points], axis=2))


def _freshest_age(points: np.ndarray) -> np.ndarray:
    rates, source_rates = np.full((12, 12), 1 / 11), np.full(12, 1 / 12)
    members = [tuple(range(int(k))) for k in points]
    return np.asarray([exact.version_age_of_set(rates, source_rates, 1.0, some) for some in members])


UNEQUAL = {"version_rate": 2.0, "source_rate": 3.0}


def _rates(seed: int, gossip: float, replicas: int) -> Observation:
    rates = UNEQUAL | {"gossip_rate": float(gossip)}
    ages = ages_of(seed, 12, replicas, exact.version_age_complete(12, **rates), rates=rates)
    return ages.observed(ages.values.mean(axis=2))


def _bound(n: np.ndarray, side: str) -> np.ndarray:
    bounds = [exact.version_age_complete_bounds(int(k), version_rate=1.0, gossip_rate=1.0) for k in n]
    return np.asarray([getattr(one, side) for one in bounds])


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
        "The same recursion holds for unequal rates λ_e = 2, λ_s = 3 and λ (complete graph, n = 12).",
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
        "On the ring, too, the whole law of the age is that of versions in the passage time (n = 16).",
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
        # Squares are skewed, so that their mean is normal only for many replicas.
        sampling=Sampling(3072, 768),
        catches=("versions at regular times", "clocks that are not memoryless"),
    ),
    Claim(
        "version_age_no_gossip",
        "Without gossip the age is n λ_e/λ_s: each node hears only the source.",
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
    *_age_growth.CLAIMS,
    *_age_clusters.CLAIMS,
)
