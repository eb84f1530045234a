"""theory.rates: slopes, crossings and limits of published orders; the constants of the one bound, term by term."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import rates as theory

# Closed forms of a few operations.
SAME = 1e-12
SETTINGS = settings(max_examples=25, deadline=None)
SIZES = st.integers(1, 200)
NUMBERS = st.floats(0.01, 100)


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


def test_adpsgd_order_slope():
    assert slope(lambda K: theory.adpsgd_order(int(K)), 10, 1000) == pytest.approx(-0.5, rel=SAME)


# Iterations to a target


def koloskova(epsilon=0.01, n=10, mixing_rate=0.1, noise_std=1.0, heterogeneity=1.0, **more):
    numbers = {"mixing_rate": mixing_rate, "noise_std": noise_std, "heterogeneity": heterogeneity}
    return theory.koloskova_iterations(epsilon, n, **numbers, **more)


def test_koloskova_iterations_by_hand():
    # ε = 1/100, n = 4, p = 1/4, σ = 2, ζ = 3: 4·10⁴/4; (3 + 1)·4·1000; 4·100.
    found = koloskova(0.01, 4, 0.25, 2.0, 3.0)
    assert found == pytest.approx((10_000, 16_000, 400, 26_400), rel=SAME)
    assert koloskova(0.01, 4, 0.25, 2.0, 3.0, smoothness=2.0, gap=5.0) == pytest.approx(
        (100_000, 160_000, 4000, 264_000), rel=SAME
    )


def test_koloskova_slopes_in_epsilon_and_p():
    for field, power in (("noise", -2), ("disagreement", -1.5), ("optimization", -1)):
        assert slope(lambda e, f=field: getattr(koloskova(e), f), 1e-4, 1e-2) == pytest.approx(power, rel=SAME)
    for heterogeneity, power in ((0.0, -0.5), (1e9, -1.0)):
        found = slope(lambda p, h=heterogeneity: koloskova(mixing_rate=p, heterogeneity=h).disagreement, 0.01, 1)
        assert found == pytest.approx(power, abs=1e-6)


@given(n=SIZES, p=st.floats(0.01, 1), sigma=NUMBERS, zeta=st.floats(0, 100), scale=NUMBERS)
@SETTINGS
def test_transient_order_is_where_noise_equals_disagreement(n, p, sigma, zeta, scale):
    root = sigma**2 * p / (n * (zeta + sigma * math.sqrt(p)))
    terms = koloskova(root**2, n, p, sigma, zeta, smoothness=scale)
    assert terms.noise == pytest.approx(terms.disagreement, rel=1e-9)
    found = theory.dpsgd_transient_order(n, mixing_rate=p, noise_std=sigma, heterogeneity=zeta, smoothness=scale)
    assert found == pytest.approx(terms.noise, rel=1e-9)


def test_transient_order_slopes():
    def order(n=10, p=0.1, heterogeneity=0.0):
        return theory.dpsgd_transient_order(int(n), mixing_rate=p, noise_std=1.0, heterogeneity=heterogeneity)

    assert slope(lambda n: order(n=n), 10, 1000) == pytest.approx(3, rel=SAME)
    assert slope(lambda p: order(p=p), 0.01, 0.1) == pytest.approx(-2, rel=SAME)
    assert slope(lambda p: order(p=p, heterogeneity=1e6), 0.01, 0.1) == pytest.approx(-4, abs=1e-5)


def test_epidemic_transient_order():
    assert theory.epidemic_transient_order(10, 2) == 250
    assert slope(lambda n: theory.epidemic_transient_order(int(n), 1), 10, 1000) == pytest.approx(3, rel=SAME)
    assert slope(lambda s: theory.epidemic_transient_order(200, int(s)), 1, 100) == pytest.approx(-2, rel=SAME)


# Asynchronous SGD


def asynchronous(delays, mean_delay=4.0, max_delay=100.0, epsilon=0.1):
    return theory.async_sgd_iterations(
        epsilon, noise_std=2.0, mean_delay=mean_delay, max_delay=max_delay, delays=delays, smoothness=3.0, gap=0.5
    )


def test_async_sgd_iterations_by_hand():
    # L gap = 1.5; σ²/ε² = 400; √(4·100)/ε = 200, 4/ε = 40, 100/ε = 1000.
    assert asynchronous("average") == pytest.approx((600, 300, 900), rel=SAME)
    assert asynchronous("adaptive") == pytest.approx((600, 60, 660), rel=SAME)
    assert asynchronous("maximum") == pytest.approx((600, 1500, 2100), rel=SAME)


@given(mean=st.floats(1, 100), more=st.floats(0, 1000), epsilon=st.floats(1e-6, 1))
@SETTINGS
def test_async_sgd_statements_are_ordered_and_meet_at_equal_delays(mean, more, epsilon):
    names = ("adaptive", "average", "maximum")
    totals = [asynchronous(name, mean, mean + more, epsilon).total for name in names]
    assert totals == pytest.approx(sorted(totals), rel=SAME)
    equal = [asynchronous(name, mean, mean, epsilon).total for name in names]
    assert equal == pytest.approx([equal[0]] * 3, rel=SAME)


# CHOCO


def test_choco_orders():
    rounds = theory.choco_gossip_rounds_order(math.exp(-3), delta=0.5, omega=0.1)
    assert rounds == pytest.approx(3 / 0.025, rel=SAME)

    def order(iterations, n=10):
        return theory.choco_sgd_order(int(n), int(iterations), delta=0.1, omega=0.1)

    # The crossing of the two terms is at T = n/(δ²ω)² = 10⁷.
    assert slope(order, 10, 100) == pytest.approx(-2, abs=1e-3)
    assert slope(order, 1e12, 1e14) == pytest.approx(-1, abs=1e-3)
    assert order(10**7) == pytest.approx(2 / 10**8, rel=1e-9)


# Speed-up


def test_linear_speed_up_of_a_variance():
    n = np.array([1, 4, 16])
    assert theory.linear_speed_up_ratio(n, 7.0 / n) == pytest.approx([1, 1, 1], rel=SAME)
    # No speed-up at all: the ratio is n.
    assert theory.linear_speed_up_ratio(n, np.array([2, 2, 2])) == pytest.approx([1, 4, 16], rel=SAME)


def test_linear_speed_up_of_the_mean_iterate_in_simulation():
    # x̄⁺ = (1 − h) x̄ − h ξ̄ with ξ̄ of variance 1/n, after 400 steps: 0.9^800 of the start is left.
    n, h = np.array([2, 8, 32]), 0.1
    steps = np.random.default_rng(0).standard_normal((3, 400, 4000)) / np.sqrt(n)[:, None, None]
    mean = np.zeros((3, 4000))
    for t in range(400):
        mean = (1 - h) * mean - h * steps[:, t]
    ratio = theory.linear_speed_up_ratio(n, (mean**2).mean(axis=1))
    # A variance from 4000 samples has relative error √(2/4000), a ratio √2 times that.
    assert np.abs(ratio - 1).max() < 4 * math.sqrt(4 / 4000)


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
        (lambda: theory.adpsgd_order(0), "updates=0"),
        (lambda: koloskova(epsilon=0.0), "epsilon=0.0"),
        (lambda: koloskova(mixing_rate=0.0), "mixing_rate=0.0"),
        (lambda: koloskova(heterogeneity=-1.0), "heterogeneity=-1.0"),
        (lambda: theory.dpsgd_transient_order(2, mixing_rate=0.5, noise_std=0.0, heterogeneity=0.0), "noise_std=0.0"),
        (lambda: theory.epidemic_transient_order(4, 4), "s=4"),
        (lambda: asynchronous("median"), "delays='median'"),
        (
            lambda: asynchronous("average", mean_delay=5.0, max_delay=4.0),
            "max_delay=4.0: must be a finite number, at least 5",
        ),
        (lambda: asynchronous("average", mean_delay=0.5), "mean_delay=0.5"),
        (lambda: theory.choco_gossip_rounds_order(1.0, delta=0.5, omega=0.5), "epsilon=1.0"),
        (lambda: theory.choco_sgd_order(1, 1, delta=0.0, omega=0.5), "delta=0.0"),
        # Without the check of annotations, which is ours only in tests.
        (lambda: inspect.unwrap(theory.linear_speed_up_ratio)(np.ones(2), np.ones(1)), "one for each n"),
        (lambda: theory.linear_speed_up_ratio(np.array([1, 2]), np.array([1.0, 0.0])), r"value\[1\]=0"),
    ],
)
def test_bad_input_says_what_and_why(call, words):
    with pytest.raises(ValueError, match=words):
        call()
