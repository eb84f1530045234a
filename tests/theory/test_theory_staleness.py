"""theory.staleness: closed forms against forward chains, quadrature, recorded values of another program, simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import staleness as theory

# Two float64 routes to one number, a few thousand operations each.
SAME = 1e-10
SETTINGS = settings(max_examples=25, deadline=None)


def complete(n: int, gossip_rate: float) -> np.ndarray:
    return gossip_rate / (n - 1) * (1.0 - np.eye(n))


def ring(n: int, gossip_rate: float) -> np.ndarray:
    return gossip_rate / 2 * (np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0))


def forward_delay(rates: np.ndarray, source: int, target: int) -> float:
    """Mean time until news reaches the target: linear solve over the growing sets of informed nodes."""
    n = len(rates)
    sets = [frozenset(c) | {source} for k in range(n) for c in itertools.combinations(range(n), k) if source not in c]
    states = [s for s in sets if target not in s]
    generator = np.zeros((len(states), len(states)))
    for a, informed in enumerate(states):
        for v in set(range(n)) - informed:
            rate = sum(rates[u, v] for u in informed)
            generator[a, a] -= rate
            if v != target:
                generator[a, states.index(informed | {v})] += rate
    return float(np.linalg.solve(-generator, np.ones(len(states)))[states.index(frozenset({source}))])


def forward_rounds(n: int, outcomes) -> float:
    """Mean rounds until node 1 hears node 0; ``outcomes(informed)`` yields (probability, newly told nodes)."""
    rest = range(2, n)
    states = [frozenset(c) | {0} for k in range(n - 1) for c in itertools.combinations(rest, k)]
    step = np.zeros((len(states), len(states)))
    for a, informed in enumerate(states):
        for probability, told in outcomes(informed):
            if 1 not in told:
                step[a, states.index(informed | frozenset(told))] += probability
    return float(np.linalg.solve(np.eye(len(states)) - step, np.ones(len(states)))[0])


def simulate(n, gossip_rate, mean_extra, shift, *, two_way=False, replicas=8000, events=250, seed=0):
    """Run update and push clocks of replicas; staleness of node 0's updates at all others just before a late push."""
    rng = np.random.default_rng(seed)
    version = np.zeros((replicas, n), np.int64)
    clock, update = np.zeros(replicas), shift * rng.random(replicas) + rng.exponential(mean_extra, replicas)
    rows = np.arange(replicas)
    for event in range(events):
        clock += rng.exponential(1.0 / (n * gossip_rate), replicas)
        while (due := update <= clock).any():
            version[due, 0] += 1
            update[due] += shift + rng.exponential(mean_extra, due.sum())
        if event == events - 1:
            return version[:, :1] - version[:, 1:]
        sender, gap = rng.integers(n, size=replicas), rng.integers(1, n, size=replicas)
        receiver = (sender + gap) % n
        newest = np.maximum(version[rows, sender], version[rows, receiver])
        version[rows, receiver] = newest
        if two_way:
            version[rows, sender] = newest
    raise AssertionError("events must be positive")


def z_score(samples: np.ndarray, predicted: float) -> float:
    return float((samples.mean() - predicted) / (samples.std(ddof=1) / np.sqrt(len(samples))))


@pytest.mark.parametrize(
    ("n", "gossip_rate", "mean_extra", "shift", "mean", "maximum"),
    [
        (20, 2.0, 1.0, 0.0, 1.77387, 3.37035),
        (20, 2.0, 0.5, 0.5, 1.77387, 3.37035),
        (60, 4.0, 1.0, 1.0, 0.5829, 1.14637),
        (10**4, math.log(10**4), 1.0, 0.5, 0.708443, None),
        (10**4, 1.0, 1.0, 0.5, 6.525, None),
    ],
)
def test_mean_and_maximum_have_the_values_of_another_program(n, gossip_rate, mean_extra, shift, mean, maximum):
    """Recorded to six digits."""
    rates = {"gossip_rate": gossip_rate, "update_rate": theory.update_rate(mean_extra, shift)}
    assert theory.mean_staleness(n, **rates) == pytest.approx(mean, rel=5e-6)
    if maximum is not None:
        assert theory.max_staleness(n, **rates) == pytest.approx(maximum, rel=5e-6)


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
def test_mean_and_maximum_are_sums_over_the_stages_of_the_delay(n):
    k = np.arange(1, n)
    stages = (n - 1) / (1.7 * k * (n - k))
    given_rates = {"gossip_rate": 1.7, "update_rate": 0.6}
    assert theory.mean_staleness(n, **given_rates) == pytest.approx(0.6 * np.cumsum(stages).mean(), rel=SAME)
    assert theory.max_staleness(n, **given_rates) == pytest.approx(0.6 * stages.sum(), rel=SAME)
    moments = theory.delay_moments(n, 1.7)
    assert moments.mean == pytest.approx(theory.mean_staleness(n, gossip_rate=1.7, update_rate=1.0), rel=SAME)


def test_mean_is_exact_for_ten_million_nodes_and_broadcasts():
    n = np.array([2, 1000, 10**7])
    expected = [math.fsum(1.0 / k for k in range(1, size)) for size in (2, 1000, 10**7)]
    np.testing.assert_allclose(theory.mean_staleness(n, gossip_rate=1.0, update_rate=1.0), expected, rtol=1e-14)
    scaled = theory.mean_staleness(n, gossip_rate=np.log(n), update_rate=2.0, two_way=True)
    np.testing.assert_allclose(scaled, np.array(expected) / np.log(n), rtol=1e-14)


def test_recorded_growth_in_n():
    n = np.array([10**2, 10**4, 10**5])
    means = theory.mean_staleness(n, gossip_rate=1.0, update_rate=1.0)
    np.testing.assert_allclose(means, [5.1774, 9.7875, 12.0901], atol=6e-5)
    n = np.array([10**2, 10**3, 10**4, 10**5, 10**6])
    means = theory.mean_staleness(n, gossip_rate=np.sqrt(np.log(n)), update_rate=1.0)
    np.testing.assert_allclose(means, [2.4126, 2.8477, 3.2250, 3.5632, 3.8722], atol=6e-5)  # four decimals recorded


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("two_way", [False, True])
def test_simulation_agrees_in_mean_and_maximum(shift, two_way):
    samples = simulate(6, 2.0, 0.5, shift, two_way=two_way, seed=int(10 * shift) + two_way)
    rate = theory.update_rate(0.5, shift)
    mean = theory.mean_staleness(6, gossip_rate=2.0, update_rate=rate, two_way=two_way)
    assert abs(z_score(samples.mean(axis=1), mean)) < 4
    assert samples.mean() == pytest.approx(mean, rel=0.05)  # and the test has the power to see 5 %
    if not two_way:
        assert abs(z_score(samples.max(axis=1), theory.max_staleness(6, gossip_rate=2.0, update_rate=rate))) < 4


def test_simulation_agrees_with_the_whole_law():
    """Chi-square of 20000 independent replicas, cells of at least five expected; p as for |z| < 4."""
    counts = simulate(7, 1.5, 1.0, 0.0, replicas=20000, seed=4)[:, 0]
    pmf = theory.staleness_pmf(7, gossip_rate=1.5, update_rate=1.0, size=40)
    cells = int(np.argmax(20000 * pmf < 5))
    expected = np.append(pmf[:cells], 1.0 - pmf[:cells].sum())
    observed = np.bincount(np.minimum(counts, cells), minlength=cells + 1)
    assert scipy.stats.chisquare(observed, 20000 * expected).pvalue > 6e-5


def test_law_has_the_recorded_values_and_its_own_moments():
    pmf = theory.staleness_pmf(30, gossip_rate=2.0, update_rate=1.0, size=120)
    k = np.arange(120)
    assert pmf[0] == pytest.approx(0.211652, abs=5e-7)
    assert pmf.sum() == pytest.approx(1.0, abs=1e-10)
    assert pmf @ k == pytest.approx(1.9808269, abs=5e-8)
    variance = theory.staleness_variance(30, gossip_rate=2.0, update_rate=1.0)
    assert variance == pytest.approx(3.018041, abs=5e-7)
    assert pmf @ k**2 - (pmf @ k) ** 2 == pytest.approx(variance, rel=1e-8)
    assert theory.delay_moments(30, 1.0).second == pytest.approx(19.8436, abs=5e-5)


def test_law_of_two_nodes_is_geometric():
    """T ~ Exp(λ), so S is geometric with ratio m/(m + λ); a short table must not feel the mass beyond it."""
    for size in (1, 3, 50):
        pmf = theory.staleness_pmf(2, gossip_rate=0.5, update_rate=2.0, size=size)
        np.testing.assert_allclose(pmf, 0.2 * 0.8 ** np.arange(size), atol=1e-11)  # the documented absolute error


def test_delay_variance_tends_to_half_pi_squared():
    mean, second = theory.delay_moments(10**6, 3.0)
    assert 9.0 * (second - mean**2) == pytest.approx(math.pi**2 / 2, rel=1e-4)  # error O(ln² n / n)


def test_log_rates_tend_to_a_poisson_window():
    limit = theory.window_pmf(rate_factor=2.0, update_rate=3.0, size=30)
    k = np.arange(30)
    np.testing.assert_allclose(limit, np.exp(-1.5) * 1.5**k / scipy.special.factorial(k), rtol=1e-12)
    distances = []
    for n in (10**2, 10**3, 10**4):
        pmf = theory.staleness_pmf(n, gossip_rate=2 * math.log(n), update_rate=3.0, size=30)
        distances.append(np.abs(pmf - limit).sum())
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.75 * distances[0]  # of order 1/ln n: half, from 10² to 10⁴
    at_1e5 = theory.staleness_pmf(10**5, gossip_rate=math.log(10**5), update_rate=1.0, size=4)
    np.testing.assert_allclose(at_1e5, [0.3564, 0.3612, 0.1895, 0.0684], atol=6e-5)  # four decimals recorded


def test_sure_bound_is_kept_by_every_clock_and_attained():
    """Updates exactly c apart attain it in the closed window that starts at one; random clocks c + Exp stay below."""
    windows = np.array([0.0, 0.3, 0.7, 0.99, 2.5])
    packed = [np.sum(0.7 * np.arange(9) <= window) for window in windows]
    np.testing.assert_array_equal(theory.sure_bound(windows, 0.7), packed)
    rng = np.random.default_rng(0)
    ticks = np.cumsum(0.7 + rng.exponential(0.05, 5000))
    ends, delays = rng.uniform(20.0, ticks[-1], 5000), rng.exponential(3.0, 5000)
    counts = np.searchsorted(ticks, ends, side="right") - np.searchsorted(ticks, ends - delays)
    bound = theory.sure_bound(delays, 0.7)
    assert (counts <= bound).all()
    assert (counts == bound).any()


@pytest.mark.parametrize("i", [0, 3])
def test_unequal_rates_equal_the_forward_chain(i):
    rates = np.random.default_rng(1).uniform(0.1, 5.0, 6)
    network = np.repeat(rates[:, None] / 5, 6, axis=1)
    bounds = theory.delay_bounds(rates)
    for j in (1, 5):
        delay = theory.mean_delay_heterogeneous(rates, i, j)
        assert delay == pytest.approx(forward_delay(network, i, j), rel=1e-9)  # quadrature to 1e-10
        assert bounds.lower <= delay <= bounds.upper


@pytest.mark.parametrize("n", [2, 3, 9, 200])
def test_equal_rates_are_the_closed_form(n):
    rates = np.full(n, 1.7)
    bounds = theory.delay_bounds(rates)
    delay = theory.mean_delay_heterogeneous(rates, 0, n - 1)
    assert delay == pytest.approx(theory.mean_staleness(n, gossip_rate=1.7, update_rate=1.0), rel=1e-9)
    assert bounds.lower == pytest.approx(delay, rel=1e-9) == bounds.upper


def test_small_graphs_equal_the_forward_chain():
    rng = np.random.default_rng(5)
    rates = rng.uniform(0.1, 5.0, (5, 5)) * (rng.random((5, 5)) < 0.6) + 0.2 * np.roll(np.eye(5), 1, axis=1)
    delays = theory.graph_delay(rates, 2)
    assert delays[2] == 0.0
    for j in (0, 1, 3, 4):
        assert delays[j] == pytest.approx(forward_delay(rates, 2, j), rel=SAME)


def test_news_that_never_arrives_is_infinitely_late():
    rates = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(theory.graph_delay(rates, 0), [0.0, 0.5, np.inf])


def test_ring_delay_is_the_minimum_of_two_gammas_and_the_recursion():
    delays = theory.graph_delay(ring(9, 1.4), 0)
    for r in range(1, 9):
        integral = scipy.integrate.quad(
            lambda t, r=r: scipy.special.gammaincc(r, 0.7 * t) * scipy.special.gammaincc(9 - r, 0.7 * t), 0, np.inf
        )[0]
        assert theory.ring_delay(9, r, 1.4) == pytest.approx(delays[r], rel=SAME)
        assert theory.ring_delay(9, r, 1.4) == pytest.approx(integral, rel=1e-7)  # quad's own tolerance
    assert theory.graph_delay(complete(8, 2.0), 3)[0] == pytest.approx(1.2964286, abs=5e-8)


def opportunistic(n, gossip_rate, rate, relay, *, replicas=6000, events=600, seed=0):
    """Mean staleness over all pairs at the end, per replica, when few nodes share the capacity nλ (jump chain)."""
    rng = np.random.default_rng(seed)
    known = np.zeros((replicas, n, n), np.int64)  # known[r, j, i]: version of i at j
    newest, holds = np.zeros(replicas, np.int64), np.zeros((replicas, n), bool)
    holds[:, 0] = True
    for _ in range(events):
        updates = rng.random(replicas) < rate / (rate + gossip_rate)
        node, gap = rng.integers(n, size=replicas), rng.integers(1, n, size=replicas)
        rows = np.flatnonzero(updates)
        known[rows, node[rows], node[rows]] += 1
        newest[rows], holds[rows] = node[rows], False
        holds[rows, node[rows]] = True
        rows = np.flatnonzero(~updates)
        if relay:
            sender, receiver = newest[rows], (newest[rows] + gap[rows]) % n
            known[rows, receiver] = np.maximum(known[rows, receiver], known[rows, sender])
            continue
        sender = np.argmax(rng.random((len(rows), n)) * holds[rows], axis=1)
        receiver, what = (sender + gap[rows]) % n, newest[rows]
        known[rows, receiver, what] = np.maximum(known[rows, receiver, what], known[rows, sender, what])
        holds[rows, receiver] = True
    behind = np.einsum("rii->ri", known)[:, None, :] - known
    return behind.sum(axis=(1, 2)) / (n * (n - 1))


@pytest.mark.parametrize("relay", [True, False])
def test_opportunistic_schemes_agree_with_simulation(relay):
    samples = opportunistic(5, 2.0, 1.0, relay, seed=relay)
    mean = theory.opportunistic_staleness(5, gossip_rate=2.0, update_rate=1.0, relay=relay)
    recorded = theory.opportunistic_staleness(15, gossip_rate=3.0, update_rate=1.0, relay=relay)
    assert recorded == pytest.approx(1.08385 if relay else 4.66667, abs=6e-6)
    assert abs(z_score(samples, mean)) < 4
    assert samples.mean() == pytest.approx(mean, rel=0.05)


@pytest.mark.parametrize("n", [2, 3, 50, 3000])
def test_hops_are_the_depth_of_the_random_recursive_tree(n):
    total, depths = 0.0, []
    for k in range(1, n):  # node k hangs below one of the k before it
        depths.append(1.0 + total / k)
        total += depths[-1]
    assert theory.mean_hops(n) == pytest.approx(np.mean(depths), rel=SAME)
    if n == 3000:
        assert theory.mean_hops(n) == pytest.approx(7.58628, abs=5e-6)


def test_fixed_steps_equal_the_forward_chain_over_sets():
    """Poisson pushes: every other node hears independently. Time reversal makes forward and backward means equal."""
    n, load = 4, 0.8

    def outcomes(informed):
        outside = sorted(set(range(n)) - informed)
        p = 1.0 - math.exp(-load * len(informed) / (n - 1))
        for told in itertools.product([False, True], repeat=len(outside)):
            yield math.prod(p if t else 1 - p for t in told), [v for v, t in zip(outside, told, strict=True) if t]

    rounds = theory.fixed_step_rounds(n, gossip_rate=1.6, step=0.5)
    assert rounds == pytest.approx(forward_rounds(n, outcomes), rel=SAME)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_one_push_a_round_equals_the_forward_chain_over_sets(n):
    """Forward, targets of one sender exclude each other, so the chain is another one; its mean is the same."""

    def outcomes(informed):
        choices = [[v for v in range(n) if v != u] for u in informed]
        for told in itertools.product(*choices):
            yield (n - 1.0) ** -len(informed), told

    assert theory.one_push_rounds(n) == pytest.approx(forward_rounds(n, outcomes), rel=SAME)


@pytest.mark.parametrize("flight_time", [1e-9, 1.0, 30.0])
def test_flight_time_solves_the_growth_equation(flight_time):
    alpha = theory.flight_time_growth_rate(3.0, flight_time)
    assert 3.0 * math.exp(-alpha * flight_time) == pytest.approx(alpha, rel=1e-12)
    n = np.array([200, 3200])
    means = theory.flight_time_staleness(n, gossip_rate=3.0, flight_time=flight_time, update_rate=0.5)
    assert means[1] - means[0] == pytest.approx(0.5 * math.log(16) / alpha, rel=1e-12)


def test_flight_time_zero_and_dead_time():
    assert theory.flight_time_growth_rate(3.0, 0.0) == 3.0
    assert theory.dead_time_rate(3.0, 0.0) == pytest.approx(3.0, rel=1e-15)
    assert math.log(16) / theory.dead_time_rate(3.0, 0.25) == pytest.approx(1.617, abs=5e-4)  # three decimals recorded
    gaps = 0.25 + np.random.default_rng(0).exponential(1 / 3, 20000)
    assert abs(z_score(gaps, 1.0 / theory.dead_time_rate(3.0, 0.25))) < 4


@pytest.mark.parametrize("weight", [0.3, 0.5, 1.0])
def test_push_event_factor_is_the_mean_over_all_pushes(weight):
    n, x = 6, np.random.default_rng(2).normal(size=6)
    after = []
    for i, j in itertools.permutations(range(n), 2):
        y = x.copy()
        y[j] += weight * (x[i] - x[j])
        after.append(n * np.var(y))
    assert theory.push_event_factor(n, weight) == pytest.approx(np.mean(after) / (n * np.var(x)), rel=SAME)


@pytest.mark.parametrize("weight", [0.3, 0.5, 1.0])
def test_consensus_variance_is_the_limit_of_the_second_moment(weight):
    """Average over all pushes of M Z Mᵀ, iterated until disagreement is below rounding."""
    n, x = 5, np.random.default_rng(3).normal(size=5)
    x -= x.mean()
    pushes = []
    for i, j in itertools.permutations(range(n), 2):
        M = np.eye(n)
        M[j, j], M[j, i] = M[j, j] - weight, weight
        pushes.append(M)
    M, Z = np.array(pushes), np.outer(x, x)
    for _ in range(600):
        Z = np.mean(M @ Z @ M.transpose(0, 2, 1), axis=0)
    assert theory.consensus_variance(n, weight, float(x @ x)) == pytest.approx(Z.mean(), rel=1e-9)


def test_push_averaging_has_the_recorded_values():
    V0 = 3.676208
    assert V0 * theory.push_decay(9, 1.0, 2.0) == pytest.approx(1.0532513, abs=5e-7)  # V0 has seven digits
    assert V0 * theory.push_decay(9, 1.0, 2.0, 0.3) == pytest.approx(1.3659934, abs=5e-7)
    assert theory.consensus_variance(9, 0.5, V0) == pytest.approx(0.04084676, abs=1e-8)
    assert theory.consensus_variance(9, 0.3, V0) == pytest.approx(0.018566709, abs=1e-8)
    times = np.array([0.0, 1.0, 2.5])
    np.testing.assert_allclose(theory.push_decay(9, 1.3, times), np.exp(-1.3 * times * 10 / 16), rtol=1e-13)


@SETTINGS
@given(n=st.integers(2, 6), seed=st.integers(0, 2**20))
def test_more_pushing_never_makes_news_later(n, seed):
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.1, 5.0, (n, n))
    delays = theory.graph_delay(rates, 0)
    more = rates + rng.uniform(0.0, 2.0, (n, n)) * (rng.random((n, n)) < 0.3)
    assert (theory.graph_delay(more, 0) <= delays * (1 + 1e-12)).all()
    np.testing.assert_allclose(theory.graph_delay(3.0 * rates, 0), delays / 3.0, rtol=SAME)


@SETTINGS
@given(n=st.integers(2, 7), seed=st.integers(0, 2**20))
def test_relabelling_permutes_delays(n, seed):
    rng = np.random.default_rng(seed)
    rates, order = rng.uniform(0.1, 5.0, (n, n)), rng.permutation(n)
    permuted = theory.graph_delay(rates[np.ix_(order, order)], int(np.flatnonzero(order == 0)[0]))
    np.testing.assert_allclose(permuted, theory.graph_delay(rates, 0)[order], rtol=SAME)


@SETTINGS
@given(n=st.integers(2, 60), gossip_rate=st.floats(0.3, 5.0), update_rate=st.floats(0.1, 3.0))
def test_law_is_a_distribution_with_the_stated_mean_and_variance(n, gossip_rate, update_rate):
    """The heaviest tail shrinks by 3/3.3 a step: next to nothing lies beyond 600; entries have errors of 1e-12."""
    rates, k = {"gossip_rate": gossip_rate, "update_rate": update_rate}, np.arange(600)
    pmf = theory.staleness_pmf(n, size=600, **rates)
    mean, variance = theory.mean_staleness(n, **rates), theory.staleness_variance(n, **rates)
    assert pmf.sum() == pytest.approx(1.0, abs=1e-8)
    assert pmf @ k == pytest.approx(mean, rel=1e-6, abs=1e-7)
    assert pmf @ (k - mean) ** 2 == pytest.approx(variance, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.mean_staleness(1, gossip_rate=1.0, update_rate=1.0), "n=1"),
        (lambda: theory.mean_staleness(5, gossip_rate=0.0, update_rate=1.0), "gossip_rate=0: "),
        (lambda: theory.max_staleness(5, gossip_rate=1.0, update_rate=-1.0), "update_rate=-1: "),
        (lambda: theory.opportunistic_staleness(5, gossip_rate=math.inf, update_rate=1.0, relay=False), "gossip_rate"),
        (lambda: theory.update_rate(0.0), "mean_extra=0: "),
        (lambda: theory.mean_delay_heterogeneous(np.ones(3), 1, 1), "i=1, j=1"),
        (lambda: theory.mean_delay_heterogeneous(np.array([1.0, 0.0]), 0, 1), "rates"),
        (lambda: theory.delay_bounds(np.ones(1)), "rates of 1 node"),
        (lambda: theory.graph_delay(np.ones((17, 17)), 0), "17, 17"),
        (lambda: theory.graph_delay(np.ones((3, 3)), 3), "source=3"),
        (lambda: theory.graph_delay(-np.ones((3, 3)), 0), "rates\\[0, 0\\]=-1"),
        (lambda: theory.ring_delay(5, 5, 1.0), "distance=5"),
        (lambda: theory.staleness_pmf(5, gossip_rate=1.0, update_rate=1.0, size=0), "size=0"),
        (lambda: theory.window_pmf(rate_factor=1.0, update_rate=1.0, size=0), "size=0"),
        (lambda: theory.sure_bound(1.0, 0.0), "shift=0.0"),
        (lambda: theory.flight_time_growth_rate(1.0, -1.0), "flight_time=-1.0"),
        (lambda: theory.dead_time_rate(1.0, -1.0), "dead_time=-1.0"),
        (lambda: theory.fixed_step_rounds(5, gossip_rate=1.0, step=0.0), "step=0.0"),
        (lambda: theory.push_event_factor(5, 0.0), "weight=0.0"),
        (lambda: theory.consensus_variance(1, 0.5, 1.0), "n=1"),
    ],
)
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_rounds_have_the_recorded_values_and_a_bias_that_vanishes_with_the_step():
    assert theory.one_push_rounds(40) == pytest.approx(5.44138, abs=5e-6)
    assert theory.fixed_step_rounds(40, gossip_rate=0.3, step=1.0) == pytest.approx(15.8444, abs=5e-5)
    continuous = theory.mean_staleness(1000, gossip_rate=1.0, update_rate=1.0)
    for step, recorded in ((0.05, 1.0216), (0.5, 1.2085)):
        ratio = theory.fixed_step_staleness(1000, gossip_rate=1.0, step=step, update_rate=1.0) / continuous
        assert ratio == pytest.approx(recorded, abs=6e-5)  # four decimals recorded
    small = theory.fixed_step_staleness(20, gossip_rate=1.0, step=1e-5, update_rate=1.0)
    exact = theory.mean_staleness(20, gossip_rate=1.0, update_rate=1.0)
    assert small == pytest.approx(exact, rel=1e-5)  # bias about half the step times the rate
