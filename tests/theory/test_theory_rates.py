"""theory.rates: the constants of the published bound term by term, its slopes, and the order of its threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from theory import rates as theory

# Closed forms of a few operations.
SAME = 1e-12


def slope(function, low: float, high: float) -> float:
    """Exponent of a power between two arguments."""
    return math.log(function(high) / function(low)) / math.log(high / low)


# D-PSGD


def test_dpsgd_rate_term_by_term():
    numbers = {"gap": 3.0, "smoothness": 2.0}
    # σ = 0: gradient descent, whatever n; f₀ = f*, K n = 400: 4 L σ / 20.
    assert theory.dpsgd_rate(7, 100, noise_std=0.0, **numbers) == pytest.approx(8 * 3 * 2 / 100, rel=SAME)
    assert theory.dpsgd_rate(4, 100, noise_std=5.0, gap=0.0, smoothness=2.0) == pytest.approx(2, rel=SAME)


def test_dpsgd_step_ends():
    assert theory.dpsgd_step(4, 100, noise_std=0.0, smoothness=2.0) == pytest.approx(1 / 4, rel=SAME)
    # 1/(2·2 + 3·√25)
    assert theory.dpsgd_step(4, 100, noise_std=3.0, smoothness=2.0) == pytest.approx(1 / 19, rel=SAME)


def test_dpsgd_rate_slopes_show_linear_speed_up():
    def rate(n, iterations):
        return theory.dpsgd_rate(int(n), int(iterations), gap=1.0, noise_std=1.0, smoothness=1.0)

    # The term 8 L gap / K is a 10⁻⁴ part of the other there.
    assert slope(lambda K: rate(4, K), 10**12, 10**14) == pytest.approx(-0.5, abs=1e-3)
    assert slope(lambda n: rate(n, 10**12), 1, 100) == pytest.approx(-0.5, abs=1e-3)


def test_dpsgd_rate_holds_for_gradient_descent_on_a_quadratic():
    # One node without noise: f = L x²/2 with step 1/(2L) from x = 1; the mean squared gradient is L² Σ 4^{-t} / K.
    L, K = 3.0, 50
    step = theory.dpsgd_step(1, K, noise_std=0.0, smoothness=L)
    x = (1 - step * L) ** np.arange(K)
    assert np.mean((L * x) ** 2) <= theory.dpsgd_rate(1, K, gap=L / 2, noise_std=0.0, smoothness=L)


def test_dpsgd_rate_holds_for_noisy_quadratics_on_the_complete_graph():
    # W = J keeps all nodes together: the mean squared gradient of x̄ is L² E x̄², a recursion.
    n, K, L, sigma = 8, 4000, 1.0, 2.0
    step, second, total = theory.dpsgd_step(n, K, noise_std=sigma, smoothness=L), 1.0, 0.0
    for _ in range(K):
        total += L**2 * second
        second = (1 - step * L) ** 2 * second + step**2 * sigma**2 / n
    assert total / K <= theory.dpsgd_rate(n, K, gap=L / 2, noise_std=sigma, smoothness=L)


def test_dpsgd_threshold_slopes():
    assert slope(lambda n: theory.dpsgd_threshold_order(int(n), 0.5), 4, 64) == pytest.approx(5, rel=SAME)
    order = slope(lambda gap: theory.dpsgd_threshold_order(4, 1 - gap), 0.01, 0.1)
    # 1 − (1 − gap) has lost the last digits of the gap.
    assert order == pytest.approx(-4, abs=1e-10)


# Bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.dpsgd_step(0, 1, noise_std=1.0, smoothness=1.0), "n=0"),
        (lambda: theory.dpsgd_step(1, 1, noise_std=-1.0, smoothness=1.0), "noise_std=-1.0"),
        (lambda: theory.dpsgd_rate(1, 0, gap=1.0, noise_std=1.0, smoothness=1.0), "iterations=0"),
        (lambda: theory.dpsgd_rate(1, 1, gap=-1.0, noise_std=1.0, smoothness=1.0), "gap=-1.0"),
        (lambda: theory.dpsgd_rate(1, 1, gap=1.0, noise_std=1.0, smoothness=0.0), "smoothness=0.0"),
        (lambda: theory.dpsgd_threshold_order(4, 1.0), "contraction=1.0"),
    ],
)
def test_bad_input_says_what_and_why(call, words):
    with pytest.raises(ValueError, match=words):
        call()
