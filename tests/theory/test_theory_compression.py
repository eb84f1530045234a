"""theory.compression: compressors on vectors, CHOCO by listing all outcomes, codes by encoding, recorded values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from theory import compression as theory
from theory.spectral import contraction_factor

# Two float64 routes to one number, a few thousand operations each.
SAME = 1e-12
SETTINGS = settings(max_examples=25, deadline=None)
VECTORS = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-10, 10, allow_subnormal=False)).filter(
    lambda x: np.abs(x).max() > 1e-3
)


def ring_matrix(n: int) -> np.ndarray:
    return (np.eye(n) + np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0)) / 3


def gap_and_norm(W: np.ndarray) -> tuple[float, float]:
    return 1 - contraction_factor(W), float(np.linalg.norm(np.eye(len(W)) - W, 2))


def z_score(samples: np.ndarray, predicted: float) -> float:
    return float((samples.mean() - predicted) / (samples.std(ddof=1) / math.sqrt(len(samples))))


def error_of(x: np.ndarray, sent: np.ndarray) -> np.ndarray:
    """Squared error relative to the squared norm, per row."""
    return ((sent - x) ** 2).sum(axis=-1) / (x @ x)


# Compressors


@given(x=VECTORS, data=st.data())
@SETTINGS
def test_top_k_keeps_at_least_its_share(x, data):
    k = data.draw(st.integers(1, len(x)))
    sent = np.zeros_like(x)
    kept = np.argsort(-np.abs(x))[:k]
    sent[kept] = x[kept]
    # Sums of at most 12 squares.
    assert error_of(x, sent) == pytest.approx(1 - theory.kept_energy(x, k), abs=SAME)
    assert theory.kept_energy(x, k) >= theory.top_k(k, len(x)) - SAME


def test_top_k_share_is_attained_by_a_constant_vector():
    assert theory.kept_energy(np.full(8, -3.0), 2) == pytest.approx(theory.top_k(2, 8), abs=SAME)


def test_random_k_leaves_its_share_exactly_in_mean():
    x, k = np.array([3.0, -1.0, 0.5, 2.0, 7.0]), 2
    subsets = list(itertools.combinations(range(5), k))
    errors = [error_of(x, np.where(np.isin(np.arange(5), kept), x, 0.0)) for kept in subsets]
    assert np.mean(errors) == pytest.approx(1 - theory.random_k(k, 5), abs=SAME)


def test_random_gossip_leaves_its_share_exactly_in_mean():
    x = np.array([3.0, -1.0])
    p = theory.random_gossip(0.3)
    assert p * error_of(x, x) + (1 - p) * error_of(x, 0 * x) == pytest.approx(1 - 0.3, abs=SAME)


def test_qsgd_keeps_the_mean_and_its_variance_bound():
    rng = np.random.default_rng(3)
    for d, s in ((4, 1), (16, 2), (64, 8), (3, 16)):
        x = rng.standard_normal(d)
        level = np.abs(x) / np.linalg.norm(x) * s
        chance = level - np.floor(level)
        # One coordinate's rounding has variance chance (1 - chance) / s² in units of the norm.
        variance = float(np.sum(chance * (1 - chance))) / s**2
        assert variance <= theory.qsgd_variance(s, d)
        quality = theory.qsgd(s, d)
        draws = (np.floor(level) + (rng.random((4000, d)) < chance)) * np.sign(x) * np.linalg.norm(x) / s
        found = error_of(x, draws * quality)
        assert abs(z_score(found, quality**2 * variance + (1 - quality) ** 2)) < 4
        assert quality**2 * variance + (1 - quality) ** 2 <= 1 - quality + SAME


def test_qsgd_sixteen_levels_recorded():
    # d = 2000, s = 16: three digits were recorded, to one unit of the last.
    assert theory.qsgd(16, 2000) == pytest.approx(0.264, abs=1e-3)


@given(x=VECTORS.filter(lambda x: bool(np.all(x != 0))))
@SETTINGS
def test_scaled_sign_has_exactly_its_quality(x):
    sent = np.abs(x).sum() / len(x) * np.sign(x)
    assert error_of(x, sent) == pytest.approx(1 - theory.scaled_sign(x), abs=1e-11)
    assert theory.scaled_sign(x) >= 1 / len(x) - SAME


@pytest.mark.parametrize("d", [1, 3, 40])
def test_scaled_sign_of_gaussian_vectors(d):
    draws = np.random.default_rng(d).standard_normal((4000, d))
    found = np.abs(draws).sum(axis=1) ** 2 / (d * (draws**2).sum(axis=1))
    predicted = theory.scaled_sign_gaussian(d)
    assert np.allclose(found, predicted, atol=SAME) if d == 1 else abs(z_score(found, predicted)) < 4


def test_scaled_sign_of_many_gaussian_coordinates_is_two_over_pi():
    assert theory.scaled_sign_gaussian(10**8) == pytest.approx(2 / math.pi, abs=1e-8)


# CHOCO-gossip


def listed_factor(W: np.ndarray, omega: float, gamma: float) -> float:
    """Spectral radius of the mean of A ⊗ A over all 2^n outcomes, on z with the mean of x removed."""
    n = len(W)
    one, none, J = np.eye(n), np.zeros((n, n)), np.full((n, n), 1 / n)
    remove = np.block([[one - J, none], [-J, one]])
    move = np.block([[one, gamma * (W - one)], [none, one]])
    total = np.zeros((4 * n * n, 4 * n * n))
    for outcome in itertools.product((0.0, 1.0), repeat=n):
        b = np.diag(outcome)
        A = remove @ move @ np.block([[one, none], [b, one - b]]) @ remove
        weight = omega ** sum(outcome) * (1 - omega) ** (n - sum(outcome))
        total += weight * np.kron(A, A)
    return float(np.abs(np.linalg.eigvals(total)).max())


@pytest.mark.parametrize(("omega", "gamma"), [(0.5, 0.3), (0.2, 0.1), (0.9, 1.2), (0.3, 1.0)])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_choco_factor_equals_the_list_of_all_outcomes(n, omega, gamma):
    W = ring_matrix(n) if n > 2 else np.array([[0.7, 0.3], [0.3, 0.7]])
    # Eigenvalues of a matrix of order 100 that is not normal.
    assert theory.choco_factor(W, omega, gamma) == pytest.approx(listed_factor(W, omega, gamma), rel=1e-7)


def test_choco_factor_on_an_irregular_graph():
    W = np.array([[0.5, 0.25, 0.25, 0], [0.25, 0.75, 0, 0], [0.25, 0, 0.5, 0.25], [0, 0, 0.25, 0.75]])
    assert theory.choco_factor(W, 0.4, 0.5) == pytest.approx(listed_factor(W, 0.4, 0.5), rel=1e-7)


def test_choco_factor_recorded_on_a_ring_of_six():
    # Five digits were recorded; the simulation gave .7854.
    assert theory.choco_factor(ring_matrix(6), 0.5, 0.3) == pytest.approx(0.78575, abs=5e-6)


@pytest.mark.parametrize(
    ("omega", "factor", "bound"), [(0.2, 0.99888, 0.99973), (0.5, 0.99701, 0.99932), (1.0, 0.99332, 0.99864)]
)
def test_published_choco_step_recorded_on_a_ring_of_six(omega, factor, bound):
    W = ring_matrix(6)
    delta, beta = gap_and_norm(W)
    assert theory.choco_factor(W, omega, theory.choco_step(delta, beta, omega)) == pytest.approx(factor, abs=5e-6)
    assert theory.choco_bound(delta, omega) == pytest.approx(bound, abs=1e-5)


def test_choco_factor_agrees_with_recorded_random_one_percent():
    # Random 1 % of 2000 coordinates on a ring of 9 has the second moments of "all with probability 0.01". After 3000
    # rounds the squared error was down to 3.7e-4 at γ = .01 and grew at γ = .04. A constant in front and the faster
    # modes make the recorded ratio smaller or larger than factor^3000, by far less than e².
    W = ring_matrix(9)
    decay = 3000 * math.log(theory.choco_factor(W, 0.01, 0.01))
    assert decay == pytest.approx(math.log(3.7e-4), abs=2)
    assert theory.choco_factor(W, 0.01, 0.04) > 1


def test_published_choco_step_recorded_for_top_one_percent():
    assert theory.choco_step(*gap_and_norm(ring_matrix(9)), 0.01) == pytest.approx(2.5e-5, abs=0.05e-5)


@pytest.mark.parametrize("gamma", [0.2, 1.0, 1.4])
def test_choco_factor_without_compression_is_that_of_plain_gossip(gamma):
    W = ring_matrix(7)
    plain = contraction_factor((1 - gamma) * np.eye(7) + gamma * W)
    assert theory.choco_factor(W, 1.0, gamma) == pytest.approx(plain**2, rel=1e-9)


@pytest.mark.parametrize(("n", "omega", "gamma"), [(9, 0.3, 0.2), (10, 0.5, 0.001), (10, 0.1, 0.5), (8, 1.0, 0.4)])
def test_both_routes_to_the_choco_factor_agree(monkeypatch, n, omega, gamma):
    W = ring_matrix(n)
    dense = theory.choco_factor(W, omega, gamma)
    monkeypatch.setattr(theory, "_DENSE", 1)
    # The iteration stops at 1e-10 relative; eigenvalues of the dense matrix are good to about 1e-9.
    assert theory.choco_factor(W, omega, gamma) == pytest.approx(dense, rel=1e-8)


def test_choco_error_decays_by_the_factor_in_simulation():
    n, omega, gamma, replicas, rounds = 6, 0.5, 0.3, 20_000, 12
    W, rng = ring_matrix(n), np.random.default_rng(2)
    x = np.tile(rng.standard_normal(n), (replicas, 1))
    xhat, start = np.zeros_like(x), x[0]
    for _ in range(rounds):
        xhat = np.where(rng.random(x.shape) < omega, x, xhat)
        x = x + gamma * xhat @ (W - np.eye(n))
    found = ((x - start.mean()) ** 2).sum(axis=1) + ((x - xhat) ** 2).sum(axis=1)
    assert np.abs(x.mean(axis=1) - start.mean()).max() < SAME
    assert abs(z_score(found, listed_error(W, omega, gamma, start, rounds))) < 4


def listed_error(W, omega, gamma, start, rounds):
    """Second moments round by round, with the noise written as the variance of each coordinate."""
    n = len(W)
    one, none = np.eye(n), np.zeros((n, n))
    mean = np.block([[one, none], [omega * one, (1 - omega) * one]])
    move = np.block([[one, gamma * (W - one)], [none, one]])
    z = np.concatenate([start, np.zeros(n)])
    K = np.outer(z, z)
    for _ in range(rounds):
        squared = np.diag(K)[:n] + np.diag(K)[n:] - 2 * np.diag(K[:n, n:])
        noise = scipy.linalg.block_diag(none, omega * (1 - omega) * np.diag(squared))
        K = move @ (mean @ K @ mean.T + noise) @ move.T
    spread = np.trace(K[:n, :n]) - n * start.mean() ** 2
    return spread + np.trace(K[:n, :n]) + np.trace(K[n:, n:]) - 2 * np.trace(K[:n, n:])


@given(n=st.integers(2, 6), omega=st.floats(0.05, 1), seed=st.integers(0, 1000))
@SETTINGS
def test_published_bound_holds_at_the_published_step(n, omega, seed):
    rng = np.random.default_rng(seed)
    A = np.triu(rng.random((n, n)), 1)
    A = A + A.T
    W = np.eye(n) - (np.diag(A.sum(axis=1)) - A) / (1.1 * A.sum(axis=1).max())
    delta, beta = gap_and_norm(W)
    factor = theory.choco_factor(W, omega, theory.choco_step(delta, beta, omega))
    assert factor <= theory.choco_bound(delta, omega) + 1e-9


# Codes


def elias_gamma(value: int) -> str:
    binary = format(value, "b")
    return "0" * (len(binary) - 1) + binary


@given(values=st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=20))
@SETTINGS
def test_elias_gamma_bits_equal_the_code(values):
    found = theory.elias_gamma_bits(np.asarray(values, np.int64))
    assert found.tolist() == [len(elias_gamma(value)) for value in values]


def test_elias_gamma_bits_around_powers_of_two():
    powers = np.asarray([2**k for k in range(1, 63)], np.int64)
    k = np.arange(1, 63)
    assert (theory.elias_gamma_bits(powers) == 2 * k + 1).all()
    assert (theory.elias_gamma_bits(powers - 1) == 2 * k - 1).all()
    assert theory.elias_gamma_bits(np.asarray([[2**40 + 1], [1]], np.int64)).tolist() == [[81], [1]]
    assert theory.elias_gamma_bits(np.zeros(0, np.int64)).shape == (0,)


def subsets(k: int, d: int):
    for chosen in itertools.combinations(range(1, d + 1), k):
        yield np.diff((0, *chosen))


@pytest.mark.parametrize(("k", "d"), [(1, 1), (1, 9), (3, 9), (8, 9), (9, 9)])
def test_gaps_and_their_bits_equal_the_list_of_subsets(k, d):
    gaps = np.asarray(list(subsets(k, d)))
    pmf = theory.gap_pmf(k, d)
    assert len(pmf) == d - k + 1
    for place in range(k):
        counted = np.bincount(gaps[:, place], minlength=d - k + 2)[1:] / len(gaps)
        assert pmf == pytest.approx(counted, abs=SAME)
    bits = theory.elias_gamma_bits(gaps).sum(axis=1).mean()
    assert theory.expected_gap_bits(k, d) == pytest.approx(bits, rel=SAME)


@given(d=st.integers(1, 3000), data=st.data())
@SETTINGS
def test_gap_law_and_tail_sum_agree(d, data):
    k = data.draw(st.integers(1, d))
    pmf = theory.gap_pmf(k, d)
    gaps = np.arange(1, len(pmf) + 1)
    # Sums of up to 3000 logarithms.
    assert pmf.sum() == pytest.approx(1, abs=1e-10)
    # The k gaps and the rest behind them, k + 1 exchangeable parts, make up d + 1.
    assert pmf @ gaps == pytest.approx((d + 1) / (k + 1), rel=1e-10)
    mean = float(pmf @ theory.elias_gamma_bits(gaps))
    assert theory.expected_gap_bits(k, d) == pytest.approx(k * mean, rel=1e-10)
    assert theory.expected_gap_bits(k, d) >= theory.subset_entropy_bits(k, d) - 1e-8


def test_expected_gap_bits_against_drawn_subsets():
    k, d, rng = 60, 900, np.random.default_rng(0)
    order = np.sort(np.argsort(rng.random((2000, d)), axis=1)[:, :k], axis=1) + 1
    bits = theory.elias_gamma_bits(np.diff(order, axis=1, prepend=0)).sum(axis=1)
    assert abs(z_score(bits, theory.expected_gap_bits(k, d))) < 4


RECORDED = [(0.01, 11.76, 8.08), (0.05, 7.43, 5.73), (0.1, 5.70, 4.69), (0.15, 4.76, 4.07)]
RECORDED += [(0.2, 4.12, 3.61), (0.25, 3.64, 3.25), (0.3, 3.26, 2.94), (0.4, 2.69, 2.43)]


@pytest.mark.parametrize(("alpha", "bits", "entropy"), RECORDED)
def test_bits_per_index_recorded(alpha, bits, entropy):
    # Two digits after the point were recorded, once cut rather than rounded.
    assert theory.bernoulli_gap_bits(alpha) == pytest.approx(bits, abs=0.01)
    d = 200_000
    k = round(alpha * d)
    assert theory.subset_entropy_bits(k, d) / k == pytest.approx(entropy, abs=0.01)
    # Subsets of fixed size differ from random masks by O(1/k).
    assert theory.expected_gap_bits(k, d) / k == pytest.approx(theory.bernoulli_gap_bits(alpha), abs=2 / k)


@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 7), (30, 60), (60, 60)])
def test_subset_entropy_bits_equal_the_binomial(k, d):
    assert theory.subset_entropy_bits(k, d) == pytest.approx(math.log2(math.comb(d, k)), abs=1e-9)


# Bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.top_k(0, 4), "k=0: must be a whole number in 1"),
        (lambda: theory.random_k(5, 4), "k=5: must be a whole number in 1"),
        (lambda: theory.kept_energy(np.zeros(3), 1), "squared norm"),
        (lambda: theory.scaled_sign(np.array([math.inf])), "finite"),
        (lambda: theory.scaled_sign_gaussian(0), "d=0"),
        (lambda: theory.random_gossip(0.0), "p=0.0"),
        (lambda: theory.from_unbiased(-1.0), "variance=-1.0"),
        (lambda: theory.qsgd_variance(0, 4), "levels=0"),
        (lambda: theory.choco_step(0.5, 0.4, 0.5), "beta=0.4"),
        (lambda: theory.choco_step(1.5, 1.6, 0.5), "delta=1.5"),
        (lambda: theory.choco_bound(0.5, 0.0), "omega=0.0"),
        (lambda: theory.choco_factor(np.eye(3)[[1, 2, 0]], 0.5, 0.1), "symmetric"),
        (lambda: theory.choco_factor(np.ones((3, 3)), 0.5, 0.1), "is off by 2: must be one"),
        (lambda: theory.choco_factor(np.ones((1, 1)), 0.5, 0.1), "at least 2 nodes"),
        (lambda: theory.choco_factor(ring_matrix(4), 0.5, 0.0), "gamma=0.0"),
        (lambda: theory.choco_factor(ring_matrix(4), 1.5, 0.1), "omega=1.5"),
        (lambda: theory.elias_gamma_bits(np.array([3, 0])), "values\\[1\\]=0"),
        (lambda: theory.gap_pmf(0, 3), "k=0"),
        (lambda: theory.expected_gap_bits(4, 3), "k=4"),
        (lambda: theory.bernoulli_gap_bits(0.0), "alpha=0.0"),
        (lambda: theory.golomb_gap_bits(0.0), "alpha=0.0"),
        (lambda: theory.subset_entropy_bits(0, 3), "k=0"),
    ],
)
def test_bad_input_says_what_and_why(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_choco_errors_are_means_over_all_coins():
    """Three rounds of a triangle by enumerating which nodes send: 2^9 outcomes."""
    W, omega, gamma, x0 = np.full((3, 3), 0.25) + 0.25 * np.eye(3), 0.3, 0.7, np.array([2.0, -0.5, -1.5])
    exact = np.zeros(4)
    for coins in itertools.product((0, 1), repeat=9):
        x, copy = x0.copy(), np.zeros(3)
        share = np.prod([omega if coin else 1 - omega for coin in coins])
        for t in range(4):
            exact[t] += share * (((x - x.mean()) ** 2).sum() + ((x - copy) ** 2).sum())
            if t < 3:
                copy = np.where(coins[3 * t : 3 * t + 3], x, copy)
                x = x + gamma * (W - np.eye(3)) @ copy
    found = theory.choco_errors(W, x0, np.arange(4), omega=omega, gamma=gamma)
    np.testing.assert_allclose(found, exact, rtol=1e-12)  # float64 sums of 512 terms
    late = theory.choco_errors(W, x0, np.array([60, 61]), omega=omega, gamma=gamma)
    assert late[1] / late[0] == pytest.approx(theory.choco_factor(W, omega, gamma), rel=1e-6)
    with pytest.raises(ValueError, match="mean zero"):
        theory.choco_errors(W, x0 + 1, np.arange(2), omega=omega, gamma=gamma)
