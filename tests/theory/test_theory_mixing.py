"""theory.mixing: closed forms against all outcomes listed, products of matrices, random walks, recorded values."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import mixing as theory
from theory.spectral import contraction_factor

# Two float64 routes to one number, a few thousand operations each.
SAME = 1e-12
SETTINGS = settings(max_examples=25, deadline=None)


def ring_matrix(n: int) -> np.ndarray:
    return (np.eye(n) + np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0)) / 3


def shift(n: int, u: int) -> np.ndarray:
    return np.roll(np.eye(n), u, axis=1)


def choices(n: int, s: int):
    """Every way in which each node picks s others; ``(n, n)`` zeros and ones, row i the choice of node i."""
    own = [[set(c) for c in itertools.combinations([j for j in range(n) if j != i], s)] for i in range(n)]
    for chosen in itertools.product(*own):
        yield np.asarray([[float(j in row) for j in range(n)] for row in chosen])


def epidemic_matrices(n: int, s: int, local: bool) -> np.ndarray:
    received = [c.T if local else c for c in choices(n, s)]
    return np.asarray([(np.eye(n) + r) / (1 + r.sum(axis=1, keepdims=True)) for r in received])


def push_sum_matrices(n: int, self_allowed: bool) -> np.ndarray:
    targets = [[i for i in range(n) if self_allowed or i != j] for j in range(n)]
    eye = np.eye(n)
    return np.asarray([(eye + eye[:, list(f)]) / 2 for f in itertools.product(*targets)])


def doubly_stochastic(n: int, seed: int) -> np.ndarray:
    """A symmetric random one: Metropolis weights of random edges."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < 0.5, 1)
    A = (upper | upper.T).astype(float)
    degrees = A.sum(axis=1)
    W = A / (1 + np.maximum.outer(degrees, degrees))
    return W + np.diag(1 - W.sum(axis=1))


def z_score(samples: np.ndarray, predicted: float) -> float:
    return float((samples.mean() - predicted) / (samples.std(ddof=1) / math.sqrt(len(samples))))


# The exact factor of a lottery


@pytest.mark.parametrize("W", [ring_matrix(7), doubly_stochastic(9, 3), shift(5, 1)])
def test_one_sure_matrix_contracts_by_its_squared_norm(W):
    found = theory.expected_contraction([W])
    assert found.largest == pytest.approx(contraction_factor(W) ** 2, abs=SAME)
    # Doubly stochastic: the mean does not move.
    assert theory.expected_contraction([W], from_old_mean=True).largest == pytest.approx(found.largest, abs=SAME)


def test_pairwise_averaging_of_complete_graph_has_equal_ends():
    n = 6
    pairs = []
    for i, j in itertools.combinations(range(n), 2):
        e = np.eye(n)[i] - np.eye(n)[j]
        pairs.append(np.eye(n) - np.outer(e, e) / 2)
    found = theory.expected_contraction(pairs)
    assert found.largest == pytest.approx((n - 2) / (n - 1), abs=SAME)
    assert found.smallest == pytest.approx((n - 2) / (n - 1), abs=SAME)


@pytest.mark.parametrize("from_old_mean", [True, False])
def test_random_vectors_lie_in_the_range_and_the_ends_are_attained(from_old_mean):
    rng = np.random.default_rng(0)
    matrices = rng.random((3, 5, 5))
    matrices /= matrices.sum(axis=2, keepdims=True)
    p = np.array([0.2, 0.5, 0.3])
    found = theory.expected_contraction(matrices, p, from_old_mean=from_old_mean)

    def factor(x):
        new = np.asarray([W @ x for W in matrices])
        centre = x.mean() if from_old_mean else new.mean(axis=1, keepdims=True)
        return float(p @ ((new - centre) ** 2).sum(axis=1)) / float(((x - x.mean()) ** 2).sum())

    factors = [factor(x) for x in rng.standard_normal((20_000, 5))]
    assert found.smallest - SAME <= min(factors)
    assert max(factors) <= found.largest + SAME
    # Of 20 000 directions in 4 dimensions some lie within a few degrees of each extreme one.
    assert min(factors) == pytest.approx(found.smallest, rel=0.05)
    assert max(factors) == pytest.approx(found.largest, rel=0.05)


def test_probabilities_default_to_uniform_and_weigh():
    matrices = np.asarray([np.eye(4), np.full((4, 4), 0.25)])
    assert theory.expected_contraction(matrices).largest == pytest.approx(0.5, abs=SAME)
    assert theory.expected_contraction(matrices, np.array([0.9, 0.1])).largest == pytest.approx(0.9, abs=SAME)


# One-round factors against all outcomes


@pytest.mark.parametrize(("n", "s"), [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (4, 3), (5, 1), (5, 3)])
@pytest.mark.parametrize("local", [True, False])
def test_epidemic_factor_equals_the_list_of_all_outcomes(n, s, local):
    found = theory.expected_contraction(epidemic_matrices(n, s, local), from_old_mean=True)
    predicted = theory.epidemic_factor(n, s, local)
    assert found.largest == pytest.approx(predicted, abs=SAME)
    assert found.smallest == pytest.approx(predicted, abs=SAME)


@pytest.mark.parametrize(("local", "recorded", "error"), [(False, 0.217365, 0.0009), (True, 0.277877, 0.0013)])
def test_epidemic_factor_against_a_recorded_simulation(local, recorded, error):
    assert abs(recorded - theory.epidemic_factor(24, 3, local)) < 4 * error


@pytest.mark.parametrize("local", [True, False])
def test_epidemic_factor_against_simulation(local):
    n, s, replicas = 24, 3, 3000
    rng = np.random.default_rng(7)
    x = rng.standard_normal(n)
    x -= x.mean()
    order = np.argsort(rng.random((replicas, n, n)) + np.where(np.eye(n), 9.0, 0.0), axis=2)
    chosen = np.zeros((replicas, n, n))
    np.put_along_axis(chosen, order[:, :, :s], 1.0, axis=2)
    received = chosen.transpose(0, 2, 1) if local else chosen
    new = (x + received @ x) / (1 + received.sum(axis=2))
    assert abs(z_score((new**2).sum(axis=1) / (x @ x), theory.epidemic_factor(n, s, local))) < 4
    if local:
        silent = (received.sum(axis=2) == 0).mean(axis=1)
        assert abs(z_score(silent, theory.no_message_probability(n, s))) < 4


@pytest.mark.parametrize(("n", "s"), [(2, 1), (4, 1), (4, 2), (5, 2)])
def test_no_message_probability_counts_outcomes(n, s):
    silent = [c[:, 0].sum() == 0 for c in choices(n, s)]
    assert theory.no_message_probability(n, s) == pytest.approx(np.mean(silent), abs=SAME)


def test_no_message_probability_tends_to_exp_minus_s():
    # (1 - s/N)^N = e^-s (1 - s²/(2N) + …)
    assert theory.no_message_probability(1_000_001, 3) == pytest.approx(math.exp(-3), rel=1e-5)


@pytest.mark.parametrize(("n", "eta"), [(2, 0.5), (5, 0.5), (6, 0.2), (9, 1.0), (9, 0.0)])
def test_one_peer_shift_factor_equals_the_list_of_shifts(n, eta):
    found = theory.expected_contraction([(1 - eta) * np.eye(n) + eta * shift(n, u) for u in range(1, n)])
    predicted = theory.one_peer_shift_factor(n, eta)
    assert found.largest == pytest.approx(predicted, abs=SAME)
    assert found.smallest == pytest.approx(predicted, abs=SAME)


def test_one_peer_shift_factor_against_a_recorded_simulation():
    assert theory.one_peer_shift_factor(24, 0.5) == pytest.approx(22 / 46, abs=SAME)
    assert abs(0.478817 - theory.one_peer_shift_factor(24, 0.5)) < 4 * 0.00068


@pytest.mark.parametrize("self_allowed", [True, False])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_push_sum_factor_equals_the_list_of_all_outcomes(n, self_allowed):
    found = theory.expected_contraction(push_sum_matrices(n, self_allowed), from_old_mean=True)
    predicted = theory.push_sum_factor(n, self_allowed)
    assert found.largest == pytest.approx(predicted, abs=SAME)
    assert found.smallest == pytest.approx(predicted, abs=SAME)


@pytest.mark.parametrize(("self_allowed", "recorded", "error"), [(True, 0.484358, 0.00075), (False, 0.451364, 0.00049)])
def test_push_sum_factor_against_a_recorded_simulation(self_allowed, recorded, error):
    assert abs(recorded - theory.push_sum_factor(16, self_allowed)) < 4 * error


def test_push_sum_factor_against_simulation_of_the_potential():
    n, replicas, rng = 8, 20_000, np.random.default_rng(1)
    shares = rng.random((n, n))
    # One round from arbitrary shares whose columns sum to one.
    shares /= shares.sum(axis=0)

    def potential(v):
        return ((v - v.sum(axis=-1, keepdims=True) / n) ** 2).sum(axis=(-2, -1))

    target = (np.arange(n) + rng.integers(1, n, (replicas, n))) % n
    A = (np.eye(n) + np.eye(n)[target].transpose(0, 2, 1)) / 2
    ratio = potential(A @ shares) / potential(shares)
    assert abs(z_score(ratio, theory.push_sum_factor(n, self_allowed=False))) < 4


# Rounds that average exactly


@pytest.mark.parametrize("n", range(1, 34))
def test_one_peer_exponential_exact_equals_the_product_of_rounds(n):
    product = np.eye(n)
    for k in range((n - 1).bit_length()):
        product = (np.eye(n) + shift(n, 2**k % n)) / 2 @ product
    # The entries are multiples of 2^-6: exact in float64, but for 1/n.
    assert theory.one_peer_exponential_exact(n) == (np.abs(product - 1 / n).max() < 1e-15)


@pytest.mark.parametrize("d", [3, 4, 6])
def test_random_regular_graphs_come_close_to_the_bound(d):
    graph = nx.random_regular_graph(d, 600, seed=d)
    second = np.linalg.eigvalsh(nx.to_numpy_array(graph))[-2]
    # Finite n stays a few per cent below the limit (3.458 of 3.464 at n = 2000, d = 4).
    assert 0.95 < second / theory.random_regular_lambda2_bound(d) < 1.02


# Push-sum


@pytest.mark.parametrize("n", [2, 3, 9, 16])
def test_push_sum_rate_of_the_directed_ring(n):
    P = (np.eye(n) + shift(n, 1)) / 2
    assert theory.push_sum_rate(P) == pytest.approx(theory.push_sum_rate_ring(n), abs=1e-10)


def test_push_sum_rate_of_the_ring_of_nine_recorded():
    # Eight digits were recorded.
    assert theory.push_sum_rate_ring(9) == pytest.approx(0.93969262, abs=5e-9)


def test_push_sum_rate_is_what_ratios_do():
    rng = np.random.default_rng(5)
    P = rng.random((6, 6)) * (rng.random((6, 6)) < 0.5) + np.diag(rng.random(6)) + shift(6, 1)
    P = (P / P.sum(axis=0) + 4 * np.eye(6)) / 5
    x, w = rng.standard_normal(6), np.ones(6)
    mean, errors = x.mean(), []
    for _ in range(250):
        x, w = P @ x, P @ w
        errors.append(np.abs(x / w - mean).max())
    # Early rounds know other eigenvalues; near round 300 the error reaches rounding.
    slope = np.polyfit(np.arange(100, 250), np.log(errors[100:]), 1)[0]
    # Complex pairs make the error swing by a factor of a few, over 150 rounds.
    assert math.exp(slope) == pytest.approx(theory.push_sum_rate(P), rel=0.01)


def test_push_sum_rate_of_two_islands_is_one():
    assert theory.push_sum_rate(np.kron(np.eye(2), np.full((2, 2), 0.5))) == pytest.approx(1, abs=SAME)


# Effective neighbours


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99])
def test_effective_neighbors_of_nobody_and_of_everybody(gamma):
    assert theory.effective_neighbors(np.eye(7), gamma) == pytest.approx(1, rel=1e-10)
    assert theory.effective_neighbors(np.full((7, 7), 1 / 7), gamma) == pytest.approx(7, rel=1e-10)


def test_effective_neighbors_without_memory_is_the_inverse_squared_weight():
    # γ = 0: variance Σ_j W_ij² = 1/3.
    assert theory.effective_neighbors(ring_matrix(12), 0) == pytest.approx(3, rel=SAME)


def test_effective_neighbors_by_lyapunov_equal_eigenvalues():
    # Circulant matrices are normal: W Wᵀ has the eigenvalues |λ|².
    n, gamma = 9, 0.9
    directed = (np.eye(n) + shift(n, 1) + shift(n, 2)) / 3
    eigenvalues = np.abs(np.linalg.eigvals(directed)) ** 2
    predicted = 1 / (1 - gamma) / np.mean(eigenvalues / (1 - gamma * eigenvalues))
    assert theory.effective_neighbors(directed, gamma) == pytest.approx(predicted, rel=1e-10)
    assert theory.effective_neighbors(shift(n, 1), gamma) == pytest.approx(1, rel=1e-10)


def test_effective_neighbors_against_a_random_walk():
    n, gamma, replicas = 8, 0.8, 4000
    W, rng = ring_matrix(n), np.random.default_rng(11)
    x, y = np.zeros((n, replicas)), np.zeros((n, replicas))
    # 0.8^100 of the start is left.
    for _ in range(100):
        noise = rng.standard_normal((n, replicas))
        x, y = W @ (math.sqrt(gamma) * x + noise), math.sqrt(gamma) * y + noise
    alone, mixed = (y**2).mean(axis=0), (x**2).mean(axis=0)
    predicted = theory.effective_neighbors(W, gamma)
    assert abs(z_score(alone - predicted * mixed, 0.0)) < 4


@given(n=st.integers(2, 8), seed=st.integers(0, 1000), gamma=st.floats(0, 0.95))
@SETTINGS
def test_effective_neighbors_lie_between_one_and_n_and_grow_with_memory(n, seed, gamma):
    W = doubly_stochastic(n, seed)
    found = theory.effective_neighbors(W, gamma)
    assert 1 - 1e-9 <= found <= n + 1e-9
    assert theory.effective_neighbors(W, gamma + 0.04) >= found - 1e-9
    order = np.random.default_rng(seed).permutation(n)
    assert theory.effective_neighbors(W[np.ix_(order, order)], gamma) == pytest.approx(found, rel=1e-9)


@given(n=st.integers(2, 40), data=st.data())
@SETTINGS
def test_epidemic_factors_contract_and_more_messages_help(n, data):
    s = data.draw(st.integers(1, n - 1))
    oracle, local = (theory.epidemic_factor(n, s, kind) for kind in (False, True))
    assert -SAME <= oracle <= local + SAME
    assert local < 1
    if s > 1:
        assert oracle < theory.epidemic_factor(n, s - 1, False)
        assert local < theory.epidemic_factor(n, s - 1, True)


# Bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.epidemic_factor(1, 1, True), "n=1"),
        (lambda: theory.epidemic_factor(5, 5, True), "s=5: must be a whole number in 1"),
        (lambda: theory.no_message_probability(5, 0), "s=0"),
        (lambda: theory.one_peer_shift_factor(5, 1.5), "eta=1.5"),
        (lambda: theory.one_peer_shift_factor(1, 0.5), "n=1"),
        (lambda: theory.one_peer_exponential_exact(0), "n=0"),
        (lambda: theory.random_regular_lambda2_bound(2), "d=2"),
        (lambda: theory.push_sum_factor(1, True), "n=1"),
        (lambda: theory.push_sum_rate_ring(1), "n=1"),
        (lambda: theory.push_sum_rate(np.array([[0.5, 0.5], [0.4, 0.5]])), "is off by 0.1: must be one"),
        (lambda: theory.push_sum_rate(np.array([[1.5, 0.0], [-0.5, 1.0]])), r"P\[1, 0\]=-0.5"),
        (lambda: theory.effective_neighbors(np.eye(3), 1.0), "gamma=1.0"),
        (lambda: theory.effective_neighbors(np.ones((2, 2)), 0.5), "must be one"),
        (lambda: theory.effective_neighbors(np.array([[3.0, -2.0], [-2.0, 3.0]]), 0.5), "below 1"),
        (lambda: theory.expected_contraction([np.eye(3)], np.array([0.5])), "that sum to one"),
        (lambda: theory.expected_contraction([np.eye(3)], np.array([0.5, 0.5])), "probabilities of shape"),
        (lambda: theory.expected_contraction([np.eye(1)]), "at least 2 nodes"),
    ],
)
def test_bad_input_says_what_and_why(call, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        call()


def test_effective_neighbors_against_the_series_of_powers():
    W, gamma = doubly_stochastic(6, 1), 0.8
    variance, power = np.zeros(6), np.eye(6)
    for t in range(400):
        power = W @ power
        variance += gamma**t * (power**2).sum(axis=1)
    # What is left out is below 0.8^400.
    assert theory.effective_neighbors(W, gamma) == pytest.approx(1 / (1 - gamma) / variance.mean(), rel=1e-10)
