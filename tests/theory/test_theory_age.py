"""theory.age: size recursions against the recursion over sets, forward chains, recorded values and simulation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import dijkstra

from theory import age as theory

# Two float64 routes to one number, a few thousand operations each.
SAME = 1e-10
SETTINGS = settings(max_examples=25, deadline=None)


def complete(n: int, gossip_rate: float) -> np.ndarray:
    return gossip_rate / max(n - 1, 1) * (1.0 - np.eye(n))


def ring(n: int, gossip_rate: float) -> np.ndarray:
    return gossip_rate / 2 * (np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0))


def bipartite(left: int, right: int, gossip_rate: float) -> np.ndarray:
    rates = np.zeros((left + right, left + right))
    rates[:left, left:], rates[left:, :left] = gossip_rate / right, gossip_rate / left
    return rates


class Passage:
    """Time T until news from the source first reaches some nodes: the chain of growing informed sets, forward."""

    def __init__(self, rates: np.ndarray, source_rates: np.ndarray, targets: set[int]):
        n = len(rates)
        others = sorted(set(range(n)) - targets)
        states = [frozenset(c) for k in range(len(others) + 1) for c in itertools.combinations(others, k)]
        self.generator, self.absorb = np.zeros((len(states), len(states))), np.zeros(len(states))
        for a, informed in enumerate(states):
            for v in set(range(n)) - informed:
                rate = source_rates[v] + sum(rates[u, v] for u in informed)
                self.generator[a, a] -= rate
                if v in targets:
                    self.absorb[a] += rate
                else:
                    self.generator[a, states.index(informed | {v})] += rate

    def moments(self) -> tuple[float, float]:
        mean = np.linalg.solve(-self.generator, np.ones(len(self.absorb)))
        return float(mean[0]), float(2 * np.linalg.solve(-self.generator, mean)[0])

    def age_pmf(self, version_rate: float, size: int) -> np.ndarray:
        """P(X = k): k versions, one after another, before the passage is over."""
        before = version_rate * np.eye(len(self.absorb)) - self.generator
        weight, pmf = np.linalg.solve(before, self.absorb), []
        for _ in range(size):
            pmf.append(weight[0])
            weight = version_rate * np.linalg.solve(before, weight)
        return np.array(pmf)


def network(seed: int, n: int, density: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.1, 5.0, (n, n)) * (rng.random((n, n)) < density)
    np.fill_diagonal(rates, 0.0)
    return rates, rng.uniform(0.1, 5.0, n)


def simulate(rates, source_rates, version_rate, *, replicas=5000, events=500, seed=0):
    """Ages of all nodes after many events of the jump chain: its total rate is constant, so its law is the same."""
    rng = np.random.default_rng(seed)
    n = len(rates)
    pairs = np.argwhere(rates > 0)
    weights = np.concatenate([[version_rate], source_rates, rates[rates > 0]])
    sender, receiver = np.concatenate([[[0, 0]], [[0, j] for j in range(n)], pairs]).T
    ages, rows = np.zeros((replicas, n), np.int64), np.arange(replicas)
    for _ in range(events):
        event = rng.choice(len(weights), size=replicas, p=weights / weights.sum())
        i, j = sender[event], receiver[event]
        heard = np.where(event <= n, 0, np.minimum(ages[rows, i], ages[rows, j]))
        ages[rows, j] = np.where(event == 0, ages[rows, j], heard)
        ages += (event == 0)[:, None]
    return ages


def z_score(samples: np.ndarray, predicted: float) -> float:
    return float((samples.mean() - predicted) / (samples.std(ddof=1) / np.sqrt(len(samples))))


def test_recursion_over_sets_equals_the_forward_chain():
    rates, source_rates = network(1, 5)
    ages = theory.set_ages(rates, source_rates, 1.3)
    assert np.isnan(ages[0])
    for k in range(1, 6):
        for members in itertools.combinations(range(5), k):
            mean, _ = Passage(rates, source_rates, set(members)).moments()
            assert ages[sum(1 << i for i in members)] == pytest.approx(1.3 * mean, rel=SAME)
            assert theory.version_age_of_set(rates, source_rates, 1.3, members) == pytest.approx(1.3 * mean, rel=SAME)


def test_recursion_over_sets_agrees_with_simulation():
    rates, source_rates = network(2, 5)
    samples = simulate(rates, source_rates, 2.0)
    predicted = theory.version_age(rates, source_rates, 2.0)
    for i in range(5):
        assert abs(z_score(samples[:, i], predicted[i])) < 4
    pair = theory.version_age_of_set(rates, source_rates, 2.0, (0, 3))
    assert abs(z_score(samples[:, [0, 3]].min(axis=1), pair)) < 4


def test_age_is_the_first_passage_time_of_reversed_edges():
    """Dijkstra over independent exponential edge lengths, from node 0 back to the source; 2000 samples, |z| < 4."""
    rates, n = ring(12, 1.0), 12
    rng = np.random.default_rng(3)
    lengths = np.zeros((n + 1, n + 1))  # row u holds the edges by which u hears; node n is the source
    times = []
    for _ in range(2000):
        with np.errstate(divide="ignore"):
            lengths[:n, :n] = np.where(rates.T > 0, rng.exponential(size=(n, n)) / rates.T, 0.0)
        lengths[:n, n] = rng.exponential(size=n) / (2.0 / n)
        times.append(dijkstra(lengths, indices=0)[n])
    predicted = theory.version_age_ring(n, version_rate=1.0, gossip_rate=1.0, source_rate=2.0)
    assert abs(z_score(np.array(times), predicted)) < 4
    assert np.mean(times) == pytest.approx(predicted, rel=0.05)  # and the test has the power to see 5 %


def test_a_node_that_hears_nothing_is_infinitely_old():
    rates = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [5.0, 5.0, 0.0]])
    ages = theory.version_age(rates, np.array([1.0, 0.0, 0.0]), 1.0)
    np.testing.assert_array_equal(ages, [1.0, 2.0, np.inf])
    assert theory.version_age_of_set(rates, np.array([1.0, 0.0, 0.0]), 1.0, (1, 2)) == 2.0


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16])
def test_complete_graph_and_ring_equal_the_recursion_over_sets(n):
    settings_ = {"version_rate": 1.3, "gossip_rate": 0.8, "source_rate": 2.1}
    source = np.full(n, 2.1 / n)
    on_complete, on_ring = theory.version_age_complete(n, **settings_), theory.version_age_ring(n, **settings_)
    np.testing.assert_allclose(theory.version_age(complete(n, 0.8), source, 1.3), on_complete, rtol=SAME)
    np.testing.assert_allclose(theory.version_age(ring(n, 0.8), source, 1.3), on_ring, rtol=SAME)
    silent = theory.version_age_no_gossip(n, version_rate=1.3, source_rate=2.1)
    np.testing.assert_allclose(theory.version_age(np.zeros((n, n)), source, 1.3), silent, rtol=SAME)
    assert silent == pytest.approx(n * 1.3 / 2.1, rel=SAME)


@pytest.mark.parametrize("graph", ["complete", "ring"])
def test_sums_over_stages_equal_the_downward_recursions(graph):
    """Age and second moment once more as E T and E T² by recursion from the whole network down to one node."""
    n, version, gossip, source = 40, 1.3, 0.8, 2.1
    t, u = 1 / source, 2 / source**2
    for j in range(n - 1, 0, -1):
        g = gossip if graph == "ring" else j * (n - j) * gossip / (n - 1)
        r = j * source / n + g
        u = 2 / r**2 + 2 * g / r**2 * t + g / r * u
        t = 1 / r + g / r * t
    settings_ = {"version_rate": version, "gossip_rate": gossip, "source_rate": source}
    age = {"complete": theory.version_age_complete, "ring": theory.version_age_ring}[graph](n, **settings_)
    assert age == pytest.approx(version * t, rel=SAME)
    variance = theory.version_age_variance(n, graph=graph, **settings_)
    assert variance == pytest.approx(version**2 * (u - t * t) + version * t, rel=SAME)


@pytest.mark.parametrize("graph", ["complete", "ring"])
def test_law_equals_that_of_the_forward_chain(graph):
    n, settings_ = 4, {"version_rate": 1.3, "gossip_rate": 0.8, "source_rate": 0.6}
    rates = {"complete": complete, "ring": ring}[graph](n, 0.8)
    passage = Passage(rates, np.full(n, 0.15), {0})
    pmf = {"complete": theory.version_age_complete_pmf, "ring": theory.version_age_ring_pmf}[graph]
    for size in (1, 10, 60):
        # 1e-11: the documented absolute error with a margin; a short table must not feel the mass beyond it.
        np.testing.assert_allclose(pmf(n, size=size, **settings_), passage.age_pmf(1.3, size), atol=1e-11)
    mean, second = passage.moments()
    variance = theory.version_age_variance(n, graph=graph, **settings_)
    assert variance == pytest.approx(1.3**2 * (second - mean**2) + 1.3 * mean, rel=SAME)


def test_law_has_the_mean_and_variance_of_the_recursions():
    settings_ = {"version_rate": 1.0, "gossip_rate": 1.0, "source_rate": 1.0}
    k = np.arange(400)
    for graph, pmf, age in (
        ("complete", theory.version_age_complete_pmf, theory.version_age_complete),
        ("ring", theory.version_age_ring_pmf, theory.version_age_ring),
    ):
        law = pmf(200, size=400, **settings_)
        assert law.sum() == pytest.approx(1.0, abs=1e-9)  # 400 entries of error 1e-12
        assert law @ k == pytest.approx(age(200, **settings_), rel=1e-7)
        variance = theory.version_age_variance(200, graph=graph, **settings_)
        assert law @ k**2 - (law @ k) ** 2 == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("n", [2, 10, 1000])
def test_bounds_hold_on_the_complete_graph(n):
    bounds = theory.version_age_complete_bounds(n, version_rate=1.5, gossip_rate=0.5)
    assert bounds.lower <= theory.version_age_complete(n, version_rate=1.5, gossip_rate=0.5, source_rate=0.5)
    assert theory.version_age_complete(n, version_rate=1.5, gossip_rate=0.5, source_rate=0.5) <= bounds.upper
    harmonic = math.fsum(1.0 / k for k in range(1, n + 1))
    assert bounds.upper == pytest.approx(3.0 * harmonic, rel=SAME)
    assert bounds.upper - bounds.lower == pytest.approx(3.0 / n * (harmonic - 1 / n), rel=1e-8)  # a difference


def test_a_million_nodes_have_the_limiting_growth():
    unit = {"version_rate": 1.0, "gossip_rate": 1.0, "source_rate": 1.0}
    n = 10**6
    assert theory.version_age_complete(n, **unit) == pytest.approx(math.log(n) + np.euler_gamma, abs=1e-3)
    assert 0.998 < theory.version_age_ring(n, **unit) / math.sqrt(math.pi * n / 2) < 1.0
    star = theory.version_age_bipartite(1, 3999, **unit)
    assert star.left == pytest.approx(math.e - 1, abs=1e-3)
    assert star.right == pytest.approx(2000.609, abs=1e-2)


@pytest.mark.parametrize(("left", "right"), [(1, 1), (1, 6), (3, 5), (4, 4)])
def test_bipartite_graphs_equal_the_recursion_over_sets(left, right):
    sides = theory.version_age_bipartite(left, right, version_rate=1.3, gossip_rate=0.8, source_rate=2.1)
    n = left + right
    ages = theory.version_age(bipartite(left, right, 0.8), np.full(n, 2.1 / n), 1.3)
    np.testing.assert_allclose(ages, [sides.left] * left + [sides.right] * right, rtol=SAME)


@pytest.mark.parametrize("inside", ["complete", "ring", "none"])
def test_clusters_equal_the_recursion_over_sets_of_the_whole_network(inside):
    """Two clusters of four: heads are nodes of their own, fed by the source, silent towards each other."""
    graph = {"complete": complete, "ring": ring, "none": lambda n, rate: np.zeros((n, n))}[inside]
    rates = np.zeros((10, 10))
    for head, first in ((0, 2), (1, 6)):
        rates[head, first : first + 4] = 1.7 / 4
        rates[first : first + 4, first : first + 4] = graph(4, 0.8)
    ages = theory.version_age(rates, np.array([1.05, 1.05] + [0.0] * 8), 1.3)
    clustered = theory.version_age_clustered(
        2, 4, version_rate=1.3, source_rate=2.1, head_rate=1.7, gossip_rate=0.8, inside=inside
    )
    np.testing.assert_allclose(ages, [clustered.head] * 2 + [clustered.member] * 8, rtol=SAME)


@SETTINGS
@given(seed=st.integers(0, 2**20), n=st.integers(1, 7))
def test_fresher_sets_scaling_and_linearity(seed, n):
    rates, source_rates = network(seed, n)
    ages = theory.set_ages(rates, source_rates, 1.0)
    assert (ages[1:] >= (1 - 1e-12) / source_rates.sum()).all()
    for i in range(n):
        without = np.array([s for s in range(1, 2**n) if not s >> i & 1], dtype=int)
        assert (ages[without | 1 << i] <= ages[without] * (1 + 1e-12)).all()
    faster = theory.set_ages(3.0 * rates, 3.0 * source_rates, 1.0)[1:]
    np.testing.assert_allclose(faster, ages[1:] / 3.0, rtol=SAME)
    np.testing.assert_allclose(theory.set_ages(rates, source_rates, 2.5)[1:], 2.5 * ages[1:], rtol=SAME)


@SETTINGS
@given(seed=st.integers(0, 2**20), n=st.integers(2, 7))
def test_more_gossip_never_ages_and_relabelling_permutes(seed, n):
    rates, source_rates = network(seed, n)
    rng = np.random.default_rng(seed)
    ages = theory.version_age(rates, source_rates, 1.0)
    more = rates + rng.uniform(0.0, 2.0, (n, n)) * (rng.random((n, n)) < 0.3)
    assert (theory.version_age(more, source_rates, 1.0) <= ages * (1 + 1e-12)).all()
    order = rng.permutation(n)
    permuted = theory.version_age(rates[np.ix_(order, order)], source_rates[order], 1.0)
    np.testing.assert_allclose(permuted, ages[order], rtol=SAME)


@SETTINGS
@given(n=st.integers(1, 10), gossip=st.floats(0.1, 5.0), source=st.floats(0.1, 5.0), version=st.floats(0.1, 5.0))
def test_size_recursion_equals_set_recursion(n, gossip, source, version):
    settings_ = {"version_rate": version, "gossip_rate": gossip, "source_rate": source}
    each = np.full(n, source / n)
    for graph, age in ((complete, theory.version_age_complete), (ring, theory.version_age_ring)):
        np.testing.assert_allclose(theory.version_age(graph(n, gossip), each, version), age(n, **settings_), rtol=SAME)


UNIT: dict[str, Any] = {"version_rate": 1.0, "gossip_rate": 1.0, "source_rate": 1.0}


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.version_age(np.ones((17, 17)), np.ones(17), 1.0), "17, 17"),
        (lambda: theory.version_age(-np.ones((3, 3)), np.ones(3), 1.0), "rates\\[0, 0\\]=-1"),
        (lambda: theory.version_age(np.ones((3, 3)), -np.ones(3), 1.0), "source_rates\\[0\\]=-1"),
        (lambda: theory.version_age(np.ones((3, 3)), np.ones(3), 0.0), "version_rate=0.0"),
        (lambda: theory.version_age_of_set(np.ones((3, 3)), np.ones(3), 1.0, ()), "members"),
        (lambda: theory.version_age_of_set(np.ones((3, 3)), np.ones(3), 1.0, (3,)), "members"),
        (lambda: theory.version_age_complete(0, **UNIT), "n=0"),
        (lambda: theory.version_age_ring(3, **{**UNIT, "gossip_rate": -1.0}), "gossip_rate=-1.0"),
        (lambda: theory.version_age_ring(3, **{**UNIT, "source_rate": 0.0}), "source_rate=0.0"),
        (lambda: theory.version_age_complete_bounds(0, version_rate=1.0, gossip_rate=1.0), "n=0"),
        (lambda: theory.version_age_bipartite(0, 3, **UNIT), "left=0"),
        (lambda: theory.version_age_clustered(0, 3, head_rate=1.0, **UNIT), "clusters=0"),
        (lambda: theory.version_age_complete_pmf(3, size=0, **UNIT), "size=0"),
    ],
)
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_recorded_values_of_another_program():
    age = theory.version_age_complete(11, version_rate=1.5, gossip_rate=2.0, source_rate=0.7)
    assert age == pytest.approx(3.86809, abs=5e-6)
    unit = {"version_rate": 1.0, "gossip_rate": 1.0, "source_rate": 1.0}
    assert theory.version_age_bipartite(1, 3999, **unit).left == pytest.approx(1.71808, abs=5e-6)
    for inside, value in (("complete", 4.9013), ("ring", 4.94286), ("none", 7.0)):
        clustered = theory.version_age_clustered(3, 4, head_rate=1.0, inside=inside, **unit)
        assert clustered.head == 3.0
        assert clustered.member == pytest.approx(value, abs=5e-6)
