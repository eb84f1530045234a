"""theory.spreading: the chains against all calls of small networks, simulation, first passages and known values."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import spreading as theory

PROTOCOLS = ("push", "pull", "push-pull")
# Two float64 routes to one number, a few thousand operations each.
SAME = 1e-10
SETTINGS = settings(max_examples=25, deadline=None)


def complete(n: int) -> np.ndarray:
    return 1.0 - np.eye(n)


def ring(n: int) -> np.ndarray:
    shift = np.roll(np.eye(n), 1, axis=0)
    return np.minimum(shift + shift.T, 1.0)


def star(n: int) -> np.ndarray:
    adjacency = np.zeros((n, n))
    adjacency[0, 1:] = adjacency[1:, 0] = 1.0
    return adjacency


def path(n: int) -> np.ndarray:
    return np.eye(n, k=1) + np.eye(n, k=-1)


def barbell(k: int) -> np.ndarray:
    """Two cliques of k nodes and one edge between them."""
    adjacency = np.kron(np.eye(2), complete(k))
    adjacency[k - 1, k] = adjacency[k, k - 1] = 1.0
    return adjacency


def hypercube(d: int) -> np.ndarray:
    i = np.arange(1 << d)
    return np.isin(i[:, None] ^ i, 1 << np.arange(d)).astype(float)


def petersen() -> np.ndarray:
    pairs = list(itertools.combinations(range(5), 2))
    return np.array([[float(not set(a) & set(b)) for b in pairs] for a in pairs])


ZOO = {
    "complete": complete(11),
    "ring": ring(11),
    "star": star(11),
    "path": path(10),
    "barbell": barbell(5),
    "hypercube": hypercube(3),
    "petersen": petersen(),
}


def after_round(informed, calls: np.ndarray, protocol: str):
    """Return who is informed after a round in which replica r's node i calls calls[r, i]; informed (r, n)."""
    rows, new = np.arange(len(calls)), informed.copy()
    for i in range(informed.shape[1]):
        j = calls[:, i]
        if protocol != "pull":
            new[rows, j] |= informed[:, i]
        if protocol != "push":
            new[:, i] |= informed[rows, j]
    return new


def law_by_all_calls(n: int, protocol: str, size: int) -> np.ndarray:
    """P(R = r) by the chain on *sets* of nodes, every call of every node enumerated."""
    calls = np.array(list(itertools.product(*[[j for j in range(n) if j != i] for i in range(n)])))
    step = np.zeros((1 << n, 1 << n))
    for state in range(1, 1 << n):
        informed = np.tile(state >> np.arange(n) & 1, (len(calls), 1)).astype(bool)
        reached = after_round(informed, calls, protocol) @ (1 << np.arange(n))
        step[state] = np.bincount(reached, minlength=1 << n) / len(calls)
    law, done = np.zeros(1 << n), []
    law[1] = 1.0
    for _ in range(size):
        done.append(law[-1])
        law = law @ step
    return np.diff(done, prepend=0.0)


def simulate_rounds(n: int, protocol: str, replicas: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    informed = np.zeros((replicas, n), bool)
    informed[:, 0] = True
    rounds = np.zeros(replicas, np.int64)
    while not informed.all():
        rounds += ~informed.all(axis=1)
        calls = (np.arange(n) + rng.integers(1, n, (replicas, n))) % n
        informed = after_round(informed, calls, protocol)
    return rounds


def z_score(samples: np.ndarray, predicted: float) -> float:
    return float((samples.mean() - predicted) / (samples.std(ddof=1) / np.sqrt(len(samples))))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_round_law_equals_the_count_of_all_calls(n, protocol):
    np.testing.assert_allclose(
        theory.rounds_pmf(n, protocol=protocol, size=12), law_by_all_calls(n, protocol, 12), atol=1e-13, rtol=0
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_simulated_rounds_follow_the_law(protocol):
    """4000 runs at n = 30: mean |z| < 4, and chi-square over all cells that expect five runs or more."""
    samples, pmf = simulate_rounds(30, protocol, 4000, seed=1), theory.rounds_pmf(30, protocol=protocol)
    assert abs(z_score(samples, theory.mean_rounds(30, protocol))) < 4
    expected, seen = pmf * len(samples), np.bincount(samples, minlength=len(pmf))
    big = expected >= 5
    cells = [*zip(seen[big], expected[big], strict=True), (seen[~big].sum(), expected[~big].sum())]
    statistic = sum((a - b) ** 2 / b for a, b in cells)
    assert scipy.stats.chi2.sf(statistic, len(cells) - 1) > 6e-5  # two-sided |z| < 4


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("n", [1, 2, 3, 17, 50, 300])
def test_mean_is_the_mean_of_the_law(n, protocol):
    pmf = theory.rounds_pmf(n, protocol=protocol)
    assert pmf.sum() == pytest.approx(1.0, abs=1e-12)
    assert theory.mean_rounds(n, protocol) == pytest.approx(pmf @ np.arange(len(pmf)), rel=SAME, abs=1e-12)


@pytest.mark.parametrize(("protocol", "value"), [("push", 10.5146), ("pull", 8.49145), ("push-pull", 5.67687)])
def test_fifty_nodes_have_the_known_means(protocol, value):
    """Values known to six digits, each confirmed by an independent simulation."""
    assert theory.mean_rounds(50, protocol) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("protocol", "excesses"),
    [("push", (0.9992, 1.0790, 1.1249, 1.1508)), ("push-pull", (0.1470, 0.1319, 0.1100, 0.0874))],
)
def test_excess_over_the_asymptotics_is_the_known_one(protocol, excesses):
    for n, excess in zip((64, 128, 256, 512), excesses, strict=True):
        ours = theory.mean_rounds(n, protocol) - theory.rounds_asymptotic(n, protocol)
        assert ours == pytest.approx(excess, abs=6e-5)  # four published decimals


def test_excess_of_pull_stays_bounded():
    excess = [theory.mean_rounds(n, "pull") - theory.rounds_asymptotic(n, "pull") for n in (16, 128, 1024)]
    assert all(0 < e < 1.5 for e in excess)


@pytest.mark.parametrize("n", [33, 64, 100, 256, 600])
def test_mean_push_rounds_lie_in_their_window(n):
    window = theory.push_rounds_window(n)
    assert window.lower <= theory.mean_rounds(n, "push") <= window.upper
    powers = math.floor(math.log2(n)), math.ceil(math.log2(n))
    assert window.lower - math.log(n) == pytest.approx(powers[0] - 1.116)
    assert window.upper - math.log(n) == pytest.approx(powers[1] + 2.765)


@pytest.mark.parametrize("n", [3, 8, 9, 20])
def test_fewest_rounds(n):
    """Push at most doubles; everybody may pull from one node at once, and push-pull spares the one who is called."""
    law = {protocol: theory.rounds_pmf(n, protocol=protocol, size=40) for protocol in PROTOCOLS}
    fewest = (n - 1).bit_length()
    assert not law["push"][:fewest].any()
    assert law["push"][fewest] > 0
    assert law["pull"][1] == pytest.approx((n - 1.0) ** -(n - 1), rel=SAME)
    assert law["push-pull"][1] == pytest.approx((n - 1.0) ** -(n - 2), rel=SAME)


@SETTINGS
@given(n=st.integers(2, 40))
def test_using_both_directions_is_stochastically_faster(n):
    law = {protocol: np.cumsum(theory.rounds_pmf(n, protocol=protocol, size=60)) for protocol in PROTOCOLS}
    for slower in ("push", "pull"):
        assert (law["push-pull"] >= law[slower] - 1e-13).all()
        assert law["push-pull"][1:].sum() > law[slower][1:].sum() or n == 2


def test_a_short_law_is_the_head_of_the_long_one():
    whole = theory.rounds_pmf(9, protocol="pull")
    np.testing.assert_array_equal(theory.rounds_pmf(9, protocol="pull", size=4), whole[:4])


@pytest.mark.parametrize("two_way", [False, True])
@pytest.mark.parametrize("n", [2, 3, 4, 9])
def test_closed_times_equal_the_chain_of_sets(n, two_way):
    graphs = [("complete", complete(n), 0), ("ring", ring(n), n // 2), ("star", star(n), 0), ("star", star(n), n - 1)]
    for graph, adjacency, start in graphs:
        kind = "leaf" if graph == "star" and start else "hub"
        closed = theory.asynchronous_time(n, graph=graph, gossip_rate=1.7, two_way=two_way, start=kind)
        rates = theory.contact_rates(adjacency, 1.7, two_way=two_way)
        assert closed == pytest.approx(theory.asynchronous_time_graph(rates, start), rel=SAME)


@pytest.mark.parametrize(
    ("n", "graph", "two_way", "value"),
    [
        (50, "complete", False, 8.77924),
        (50, "complete", True, 4.38962),
        (12, "ring", False, 11.0),
        (12, "ring", True, 5.5),
        (9, "star", True, 2.41587),
    ],
)
def test_times_have_the_known_values(n, graph, two_way, value):
    """Values known to six digits, each confirmed by an independent simulation."""
    assert theory.asynchronous_time(n, graph=graph, gossip_rate=1.0, two_way=two_way) == pytest.approx(value, rel=2e-6)


def test_time_on_any_graph_is_the_latest_first_passage():
    """Exponential edge lengths: everybody has heard at the largest distance from the start; 4000 samples, |z| < 4."""
    rng = np.random.default_rng(5)
    n = 7
    rates = rng.uniform(0.2, 3.0, (n, n)) * (rng.random((n, n)) < 0.4) + np.roll(np.eye(n), 1, axis=1)
    np.fill_diagonal(rates, 0.0)
    with np.errstate(divide="ignore"):
        lengths = rng.exponential(size=(4000, n, n)) / rates
    times = np.full((4000, n), np.inf)
    times[:, 2] = 0.0
    for _ in range(n):
        times = np.minimum(times, (times[:, :, None] + lengths).min(axis=1))
    assert abs(z_score(times.max(axis=1), theory.asynchronous_time_graph(rates, 2))) < 4


def test_a_chain_of_nodes_takes_the_sum_of_its_delays():
    rates = np.diag([0.5, 2.0, 4.0], k=1) + 9.0 * np.eye(4)
    assert theory.asynchronous_time_graph(rates) == pytest.approx(2.0 + 0.5 + 0.25, rel=SAME)
    assert theory.asynchronous_time_graph(rates, 1) == math.inf


@SETTINGS
@given(n=st.integers(2, 6), seed=st.integers(0, 10**6))
def test_time_scales_falls_with_rates_and_forgets_labels(n, seed):
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.1, 5.0, (n, n))
    start, order = int(rng.integers(n)), rng.permutation(n)
    time = theory.asynchronous_time_graph(rates, start)
    assert theory.asynchronous_time_graph(3.0 * rates, start) == pytest.approx(time / 3.0, rel=SAME)
    assert theory.asynchronous_time_graph(rates + rates.T, start) <= time * (1 + SAME)
    renamed = theory.asynchronous_time_graph(rates[np.ix_(order, order)], int(np.flatnonzero(order == start)[0]))
    assert renamed == pytest.approx(time, rel=SAME)


def test_contact_rates_share_a_nodes_calls_among_its_neighbours():
    rates = theory.contact_rates(star(4), 1.2)
    np.testing.assert_allclose(rates.sum(axis=1), 1.2, rtol=SAME)
    np.testing.assert_allclose(rates[0], [0.0, 0.4, 0.4, 0.4], rtol=SAME)
    np.testing.assert_allclose(theory.contact_rates(star(4), 1.2, two_way=True)[0, 1], 1.6, rtol=SAME)


def conductance_by_definition(adjacency: np.ndarray) -> float:
    n, volume, best = len(adjacency), adjacency.sum(axis=1), math.inf
    for k in range(1, n):
        for inside in itertools.combinations(range(n), k):
            outside = [i for i in range(n) if i not in inside]
            if volume[list(inside)].sum() <= volume[outside].sum() + 1e-9:
                best = min(best, adjacency[np.ix_(inside, outside)].sum() / volume[list(inside)].sum())
    return best


@pytest.mark.parametrize("name", ZOO)
def test_conductance_is_the_smallest_share_of_edges_that_leave(name):
    assert theory.conductance(ZOO[name]) == pytest.approx(conductance_by_definition(ZOO[name]), rel=SAME)


def test_conductance_of_known_graphs():
    for n in range(2, 14):
        assert theory.conductance(complete(n)) == pytest.approx(theory.conductance_complete(n), rel=SAME)
        assert theory.conductance(ring(n)) == pytest.approx(theory.conductance_ring(n), rel=SAME)
    assert theory.conductance(star(16)) == pytest.approx(1.0, rel=SAME)
    assert theory.conductance(barbell(6)) == pytest.approx(1 / (6 * 5 + 1), rel=SAME)
    assert theory.conductance(hypercube(4)) == pytest.approx(1 / 4, rel=SAME)
    assert theory.conductance(np.kron(np.eye(2), complete(3))) == 0.0


@SETTINGS
@given(n=st.integers(2, 8), seed=st.integers(0, 10**6))
def test_conductance_of_weighted_graphs(n, seed):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.uniform(0.1, 4.0, (n, n)) * (rng.random((n, n)) < 0.6), 1) + 0.1 * np.eye(n, k=1)
    phi = theory.conductance(upper + upper.T)
    assert 0 < phi <= 1 + SAME
    assert phi == pytest.approx(conductance_by_definition(upper + upper.T), rel=1e-8)
    assert theory.conductance(5.0 * (upper + upper.T)) == pytest.approx(phi, rel=SAME)


@pytest.mark.parametrize("name", ZOO)
def test_push_pull_time_stays_below_the_order_of_the_conductance_bound(name):
    """C = 1.5 covers all these graphs, with push-pull in continuous time and the worst start."""
    adjacency = ZOO[name]
    rates = theory.contact_rates(adjacency, 1.0, two_way=True)
    worst = max(theory.asynchronous_time_graph(rates, start) for start in range(len(adjacency)))
    assert worst <= theory.conductance_bound(len(adjacency), theory.conductance(adjacency), 1.5)


def test_conductance_bound_is_linear_in_its_constant():
    assert theory.conductance_bound(8, 0.25, 2.0) == pytest.approx(2 * math.log(8) / 0.25, rel=SAME)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.rounds_pmf(0, protocol="push"), "n=0"),
        (lambda: theory.rounds_pmf(4, protocol="push", size=0), "size=0"),
        (lambda: theory.rounds_asymptotic(2, "push"), "n=2"),
        (lambda: theory.push_rounds_window(1), "n=1"),
        (lambda: theory.asynchronous_time(1, graph="ring", gossip_rate=1.0), "n=1"),
        (lambda: theory.asynchronous_time(3, graph="ring", gossip_rate=0.0), "gossip_rate=0"),
        (lambda: theory.asynchronous_time_graph(np.ones((13, 13))), "2 to 12 nodes"),
        (lambda: theory.asynchronous_time_graph(np.array([[0.0, -1.0], [1.0, 0.0]])), r"rates\[0, 1\]=-1"),
        (lambda: theory.asynchronous_time_graph(np.ones((3, 3)), 3), "start=3"),
        (lambda: theory.contact_rates(np.eye(3), 1.0), "without neighbours"),
        (lambda: theory.conductance(complete(17)), "2 to 16 nodes"),
        (lambda: theory.conductance(np.roll(np.eye(3), 1, axis=0)), "not symmetric"),
        (lambda: theory.conductance_complete(1), "n=1"),
        (lambda: theory.conductance_ring(1), "n=1"),
        (lambda: theory.conductance_bound(4, 0.0, 1.0), "phi=0"),
        (lambda: theory.conductance_bound(4, 0.5, -1.0), "constant=-1"),
    ],
)
def test_bad_input_is_named(call: Any, message: str):
    with pytest.raises(ValueError, match=message):
        call()
