"""theory.robust and theory.privacy against printed numbers and definitions."""

import numpy as np
import pytest

from theory import privacy, robust


def test_two_worlds():
    for m, k in ((13, 8), (6, 2), (7, 6), (5, 5)):
        A = robust.two_worlds(m, k)
        assert A.sum(1).tolist() == [m - 1 + k] * (2 * m)
        other = m + k - abs(np.sin(np.pi * k / m) / np.sin(np.pi / m))
        assert robust.spectrum(np.diag(A.sum(1)) - A)[0] == pytest.approx(min(2 * k, other))


PRINTED = {
    1: {"cs_plus": 0.363636, "released": 0.363636, "gts": 0.318182, "nna": 0.333333, "he": 0.363636, "trimmed": 0.35},
    4: {"cs_plus": 0.32, "released": 0, "gts": 0.16, "nna": 0.190476, "he": 0.32, "trimmed": 0.235294},
    5: {"cs_plus": 0, "released": 0, "gts": 0.115385, "nna": 0.142857, "he": 0.238337, "trimmed": 0.1875},
}


@pytest.mark.parametrize("b", PRINTED)
def test_first_moves(b):
    for rule, move in PRINTED[b].items():
        assert robust.first_move(rule, 13, 8, b) == pytest.approx(move, abs=1e-6)
    assert robust.first_move("median", 13, 8, b) == 0
    assert all(robust.first_move(rule, 13, 8, 8) == 0 for rule in ("cs_plus", "gts", "nna", "he", "trimmed"))


def test_contraction():
    assert robust.contraction("cs_plus", 1, 8.0, 0.1) == pytest.approx(1 - 0.1 * 4)
    assert robust.contraction("gts", 1, 8.0, 0.1) == pytest.approx(1)
    assert robust.robustness("oracle") == 1


RING = np.asarray([[0.0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])


def test_noise_of_pairs():
    np.testing.assert_allclose(privacy.pairwise_mu_squared(RING, 1, 1), 7 / 15)
    np.testing.assert_allclose(privacy.pairwise_mu_squared(RING, 1, 1, 4), 28 / 15)
    np.testing.assert_allclose(privacy.pairwise_mu_squared(1 - np.eye(4), 1, 1), 2 / 5)
    np.testing.assert_allclose(privacy.pairwise_mu_squared(RING, 1, 1, 4, fresh=False), 4)
    path = np.asarray([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
    np.testing.assert_allclose(privacy.pairwise_mu_squared(path, 1, 1), (5 / 8, 1 / 2, 5 / 8))
    np.testing.assert_allclose(4 * privacy.pairwise_mu_squared(RING, 1, 1e4), 1, rtol=1e-6)


def test_noise_that_sums_to_zero():
    assert [privacy.zero_sum_mu_squared(4, c) for c in (1, 2, 3, 4)] == [1, 3, 9, np.inf]
    assert privacy.zero_sum_mu_squared(4, 4, own_noise=True) == 16
    m, c = 5, 3
    covariance = m / (m - 1) * (np.eye(m) - 1 / m)
    expected = np.ones(c) @ np.linalg.inv(covariance[:c, :c]) @ np.ones(c)
    assert privacy.zero_sum_mu_squared(5, 3) == pytest.approx(expected)


def test_gaussian_delta():
    assert privacy.gaussian_delta(1, 0) == pytest.approx(0.3829249)
    assert privacy.gaussian_delta(1, 4.377178) == pytest.approx(1e-5, rel=1e-5)


def test_curious_nodes_know_the_noise_of_their_own_pairs():
    """σ = σ_pair = 1: ring of 4 without node 0: 5/8, ½, 5/8; K4 without one: ½."""
    found = privacy.curious_mu_squared(RING, 1, 1, np.array([0]))
    np.testing.assert_allclose(found, (np.inf, 5 / 8, 1 / 2, 5 / 8))
    np.testing.assert_allclose(privacy.curious_mu_squared(1 - np.eye(4), 1, 1, np.array([0]))[1:], 1 / 2)
    np.testing.assert_allclose(privacy.curious_mu_squared(RING, 2.0, 1, np.array([0, 2]))[1], 1 / 4)
    with pytest.raises(ValueError, match="nobody is left"):
        privacy.curious_mu_squared(RING, 1, 1, np.arange(4))


def test_unequal_weights_of_receivers():
    for c in (1, 2, 3):
        found = privacy.zero_sum_weighted_mu_squared(np.full(4, 0.2), np.arange(c))
        assert found == pytest.approx(privacy.zero_sum_mu_squared(4, c), rel=1e-12)
    with pytest.raises(ValueError, match="at least two weights"):
        privacy.zero_sum_weighted_mu_squared(np.ones(1), np.array([0]))


def test_anticorrelated_noise():
    """Prefix sums, T = 3: μ² = 14 and variance 1 at every step; independent noise: 3, and 1, 2, 3."""
    sums = np.tril(np.ones((3, 3)))
    np.testing.assert_array_equal(sums.T @ sums, [[3, 2, 1], [2, 2, 1], [1, 1, 1]])
    assert privacy.factorized_mu_squared(sums) == 14 == 3 * 4 * 7 / 6
    np.testing.assert_allclose(privacy.factorized_variances(sums), 1)
    assert privacy.factorized_mu_squared(np.eye(3)) == 3
    np.testing.assert_allclose(privacy.factorized_variances(np.eye(3)), (1, 2, 3))
    with pytest.raises(ValueError, match="lower triangular"):
        privacy.factorized_variances(sums.T)
    with pytest.raises(ValueError, match="negative entries"):
        privacy.factorized_mu_squared(np.array([[1.0, 0.0], [-0.5, 1.0]]))
