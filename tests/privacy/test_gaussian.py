"""Gaussian differential privacy, and the optimum behind μ of several contributions."""

import warnings

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gossipjax import privacy
from gossipjax.privacy._sensitivity import largest_shift


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0, 8.0])
def test_delta_is_the_integral_of_the_privacy_loss(mu, epsilon):
    """δ(ε) = E max(0, 1 − e^(ε − L)) with L the privacy loss, N(μ²/2, μ²)."""
    law = scipy.stats.norm(mu**2 / 2, mu)
    integral, error = scipy.integrate.quad(lambda x: (1 - np.exp(epsilon - x)) * law.pdf(x), epsilon, epsilon + 40 * mu)
    assert abs(privacy.delta(mu, epsilon) - integral) < max(10 * error, 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-3, 20), st.floats(-12, -0.1))
def test_epsilon_inverts_delta(mu, exponent):
    target = 10.0**exponent
    found = privacy.epsilon(mu, target)
    if found == 0:
        assert privacy.delta(mu, 0.0) <= target
    else:
        np.testing.assert_allclose(privacy.delta(mu, found), target, rtol=1e-6)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="broadcast"):
        privacy.delta([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"row 1 of W\^1 is zero"):
        privacy.muffliato(np.asarray([[1.0, 0.0], [0.0, 0.0]]), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert privacy.epsilon(1e200, 1e-5) == np.inf
        assert 38.0 < privacy.epsilon(1.0, 1e-320) < 40.0
        assert privacy.delta(1e-320, 1.0) == 0


def test_ends():
    np.testing.assert_array_equal(privacy.epsilon([0.0, np.inf], 1e-5), [0, np.inf])
    np.testing.assert_array_equal(privacy.delta([0.0, np.inf], 1.0), [0, 1])
    np.testing.assert_allclose(privacy.auc([0.0, np.inf]), [0.5, 1])
    # Printed digits; the area that the optimal attack on node 2 of a path of 3 reached was 0.58781 ± 0.00039.
    np.testing.assert_allclose(privacy.auc(np.sqrt(0.1)), 0.588468, atol=5e-7)
    for bad in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="delta"):
            privacy.epsilon(1.0, bad)
    with pytest.raises(ValueError, match="mu"):
        privacy.delta(-1.0, 1.0)


def gram(seed, T, rank):
    factor = np.random.default_rng(seed).standard_normal((rank, T))
    projector = np.linalg.pinv(factor) @ factor if rank < T else factor.T @ factor
    return projector


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 8))
@example(90, 7, 4)  # converges slowly
def test_certificates_meet_around_every_choice(seed, T, rank):
    M = gram(seed, T, rank)
    found = largest_shift(M[None])
    assert found.upper[0] - found.lower[0] <= 1e-6 * found.upper[0]
    rng = np.random.default_rng(seed)
    shifts = rng.standard_normal((200, T, 3))
    shifts /= np.linalg.norm(shifts, axis=2, keepdims=True)
    reached = np.einsum("st,ksr,ktr->k", M, shifts, shifts)
    assert reached.max() <= found.upper[0] + 1e-9
    bounds = np.abs(M).sum(), T * np.linalg.eigvalsh(M)[-1]
    assert max(M.sum(), np.trace(M)) - 1e-9 <= found.upper[0] <= min(bounds) * (1 + 1e-6)


def test_two_contributions_have_a_closed_form():
    for seed in range(5):
        M = gram(seed, 2, 2)
        found = largest_shift(M[None])
        np.testing.assert_allclose([found.lower[0], found.upper[0]], np.trace(M) + 2 * abs(M[0, 1]), rtol=1e-9)


def test_padding_changes_nothing():
    M = gram(3, 4, 2)
    padded = np.zeros((2, 7, 7))
    padded[0, :4, :4] = M
    found, alone = largest_shift(padded), largest_shift(M[None])
    np.testing.assert_allclose(found.upper[0], alone.upper[0], rtol=1e-6)
    assert found.upper[1] == 0


TABLE = (
    (0.1, 0.340669, 0.528186, 0.012995),
    (0.5, 1.993091, 0.638163, 0.033899),
    (0.5**0.5, 2.943225, 0.691462, 0.052698),
    (1.0, 4.377178, 0.760250, 0.092362),
    (3.0, 16.675494, 0.983053, 0.749734),
)
"""μ, ε at δ = 1e-5, the largest area under a ROC curve, and the largest rate of true positives at 1 % false ones."""


@pytest.mark.parametrize(("mu", "epsilon", "area", "rate"), TABLE)
def test_printed_table(mu, epsilon, area, rate):
    """The rate is the least of ``e^ε 0.01 + δ(ε)`` over ε, which every (ε, δ) promises."""
    assert privacy.epsilon(mu, 1e-5) == pytest.approx(epsilon, abs=1e-6)
    assert privacy.auc(mu) == pytest.approx(area, abs=1e-6)
    promised = min(np.exp(e) * 0.01 + privacy.delta(mu, e) for e in np.linspace(0, 16, 16_001))
    assert promised == pytest.approx(rate, abs=1e-6)


def composed_epsilon(losses, masses, times, delta, step):
    """Return ε of T-fold composition: privacy losses on a grid, rounded up, convolved by FFT."""
    low = np.ceil(losses.min() / step)
    place = (np.ceil(losses / step) - low).astype(int)
    wide = 1 << 20
    law = np.bincount(place, masses, minlength=wide)
    composed = np.fft.irfft(np.fft.rfft(law) ** times, wide)
    # The convolution is circular: a window around the mean holds all mass that counts.
    mean = times * (np.arange(wide) @ law)
    offset = int(mean) - wide // 2
    grid = (np.arange(offset, offset + wide) + times * low) * step
    composed = np.maximum(composed[np.arange(offset, offset + wide) % wide], 0)

    def hockey(epsilon):
        beyond = grid > epsilon
        return (composed[beyond] * -np.expm1(epsilon - grid[beyond])).sum()

    below, above = 0.0, 50.0
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (middle, above) if hockey(middle) > delta else (below, middle)
    return above


def test_the_limit_of_sampled_steps_is_below_the_truth():
    """Batches with q = 0.01, noise z = 1, T = 1000: a numerical ε of 1.828, and 1.618 by the central limit formula.

    Rounding losses up to a grid adds at most the width of a cell in each step, and on average half of that in all but
    the smallest part: the grid is the smaller, the nearer ε.
    """
    q, times, delta = 0.01, 1000, 1e-5
    x = np.linspace(-12, 13, 400_001)
    without, with_it = (np.exp(-((x - m) ** 2) / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0]) for m in (0, 1))
    mixed = (1 - q) * without + q * with_it
    loss = np.log1p(q * np.expm1(x - 0.5))
    found = []
    for step in (2e-5, 1e-5):
        removed = composed_epsilon(loss, mixed, times, delta, step)
        added = composed_epsilon(-loss, without, times, delta, step)
        found.append(max(removed, added))
    numerical = 2 * found[1] - found[0]  # the error of rounding up is proportional to the step
    assert numerical == pytest.approx(1.828244, abs=1e-3)
    limit = privacy.epsilon(q * np.sqrt(times * np.expm1(1.0)), delta)
    assert limit == pytest.approx(1.617712, abs=1e-6)
    assert limit < numerical - 0.2


def test_epsilon_of_large_mu_is_not_below_the_truth():
    """δ(ε) ≤ Φ(−c) at ε = μ²/2 + cμ, and as near as 1/μ: ε is within the rounding of c from Φ⁻¹(1 − δ)."""
    delta = 1e-5
    c = scipy.stats.norm.isf(delta)
    for mu in (1e6, 1e8, 1e12, 1e149):
        found = float(privacy.epsilon(mu, delta))
        least = mu * (mu / 2 + scipy.stats.norm.isf(delta + 1 / mu))  # the second term of δ is below 1/μ
        assert least <= found <= mu * (mu / 2 + c) * (1 + 1e-13)
