"""theory.delay: roots against recursions, contour counts, spectra and the enumeration of all delays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import delay as theory

DELAYS = (0, 1, 2, 3, 5, 8, 13)
# Two float64 routes to one number, a few thousand operations each.
SAME = 1e-10
SETTINGS = settings(max_examples=40, deadline=None)


def run(step: float, delay: int, steps: int) -> np.ndarray:
    """The recursion itself, from x = 1 now and before."""
    x = np.ones(delay + 1 + steps)
    for t in range(delay, delay + steps):
        x[t + 1] = x[t] - step * x[t - delay]
    return x[delay:]


def polynomial(z: np.ndarray, step: float, delay: int) -> np.ndarray:
    return z ** (delay + 1) - z**delay + step


def roots_inside(radius: float, step: float, delay: int) -> int:
    """Count roots by how often the polynomial winds around zero along a circle."""
    values = polynomial(radius * np.exp(2j * np.pi * np.linspace(0.0, 1.0, 20001)), step, delay)
    return round(np.sum(np.angle(values[1:] / values[:-1])) / (2 * np.pi))


def z_score(samples: np.ndarray, predicted: float) -> float:
    return float((samples.mean() - predicted) / (samples.std(ddof=1) / np.sqrt(len(samples))))


@pytest.mark.parametrize("delay", DELAYS)
def test_recursion_decays_below_the_threshold_and_grows_above(delay):
    threshold, steps = theory.stability_threshold(delay), 200 * (delay + 1) + 2000
    period = 4 * (2 * delay + 1)
    for share, grows in ((0.98, False), (1.02, True)):
        x = np.abs(run(share * threshold, delay, steps))
        early, late = x[steps // 2 : steps // 2 + period].max(), x[-period:].max()
        assert late > 2 * early if grows else late < early / 2


@pytest.mark.parametrize("delay", DELAYS)
def test_threshold_is_where_the_largest_root_meets_the_circle(delay):
    low = theory.best_step(delay)
    found = scipy.optimize.brentq(lambda h: theory.linear_factor(h, delay) - 1.0, low, 2.5, xtol=1e-12)
    assert theory.stability_threshold(delay) == pytest.approx(found, abs=1e-9)  # the roots there are simple


@pytest.mark.parametrize(("delay", "value"), [(0, 2.0), (1, 1.0), (2, (math.sqrt(5) - 1) / 2), (5, 0.28462968)])
def test_threshold_has_its_known_values(delay, value):
    assert theory.stability_threshold(delay) == pytest.approx(value, abs=1e-8)


@pytest.mark.parametrize(("step", "delay"), [(0.3, 0), (1.7, 0), (0.1, 2), (0.5, 2), (0.05, 9), (0.4, 9), (1.0, 0)])
def test_linear_factor_bounds_all_roots_and_is_attained(step, delay):
    factor = theory.linear_factor(step, delay)
    assert roots_inside(factor + 1e-3, step, delay) == delay + 1
    if factor > 0:
        assert roots_inside(factor - 1e-3, step, delay) < delay + 1


@pytest.mark.parametrize("delay", [1, 2, 5, 13, 60])
def test_best_step_is_the_double_root(delay):
    z, h = theory.best_linear_factor(delay), theory.best_step(delay)
    assert z == delay / (delay + 1)
    assert polynomial(np.array(z), h, delay) == pytest.approx(0.0, abs=1e-15)
    assert (delay + 1) * z - delay == pytest.approx(0.0, abs=1e-13)  # the derivative, without its factor z^(τ−1)


@pytest.mark.parametrize("delay", [0, 1, 2, 5, 13])
def test_no_step_beats_the_best_one(delay):
    best, factor = theory.best_step(delay), theory.best_linear_factor(delay)
    assert theory.linear_factor(best, delay) == pytest.approx(factor, abs=1e-6)  # a double root loses half the digits
    for step in np.linspace(0.01, 1.2, 120) * theory.stability_threshold(delay):
        assert theory.linear_factor(float(step), delay) >= factor - 1e-6
    for step in (0.99 * best, 1.01 * best):
        assert theory.linear_factor(step, delay) > factor + 1e-4


@SETTINGS
@given(delay=st.integers(0, 20), share=st.floats(0.01, 2.0))
def test_stable_exactly_below_the_threshold(delay, share):
    if abs(share - 1.0) > 1e-3:
        factor = theory.linear_factor(share * theory.stability_threshold(delay), delay)
        assert (factor < 1.0) == (share < 1.0)


def variance_by_spectrum(step: float, delay: int) -> float:
    """Mean of the spectral density ``1/|p(e^{iω})|²`` over the circle: the trapezoidal rule converges geometrically."""
    z = np.exp(2j * np.pi * np.arange(1 << 14) / (1 << 14))
    return float(np.mean(1.0 / np.abs(polynomial(z, step, delay)) ** 2))


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_stationary_variance_equals_the_integral_of_the_spectrum(delay, share):
    step = share * theory.stability_threshold(delay)
    assert theory.stationary_variance(step, delay) == pytest.approx(variance_by_spectrum(step, delay), rel=1e-9)


@pytest.mark.parametrize("step", [0.05, 0.3, 0.9])
def test_stationary_variance_of_short_delays_is_closed(step):
    assert theory.stationary_variance(step, 0) == pytest.approx(1 / (1 - (1 - step) ** 2), rel=SAME)
    assert theory.stationary_variance(step, 1) == pytest.approx((1 + step) / (step * (1 - step) * (2 + step)), rel=SAME)
    assert theory.stationary_variance(step, 1, 3.0) == pytest.approx(9 * theory.stationary_variance(step, 1), rel=SAME)


@pytest.mark.parametrize(("step", "delay", "value"), [(0.3, 0, 1.9607843), (0.3, 1, 2.6915114), (0.2, 3, 5.40973)])
def test_stationary_variance_has_its_known_values(step, delay, value):
    """The last of them was confirmed by an independent simulation, the others by their closed form."""
    assert theory.stationary_variance(step, delay) == pytest.approx(value, rel=1e-6)


def test_simulated_noise_has_the_stationary_variance():
    """4000 runs of 150 steps, which forget their start by a factor of 1e-12; |z| < 4."""
    rng, step, delay, sigma = np.random.default_rng(2), 0.25, 2, 0.7
    x = np.zeros((4000, delay + 1))
    for _ in range(150):
        x = np.column_stack([x[:, 0] - step * x[:, delay] + sigma * rng.standard_normal(4000), x[:, :-1]])
    assert abs(z_score(x[:, 0] ** 2, theory.stationary_variance(step, delay, sigma))) < 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.stability_threshold(-1), "delay=-1"),
        (lambda: theory.best_step(-1), "delay=-1"),
        (lambda: theory.best_linear_factor(-1), "delay=-1"),
        (lambda: theory.linear_factor(math.inf, 1), "step=inf"),
        (lambda: theory.linear_factor(0.1, -2), "delay=-2"),
        (lambda: theory.stationary_variance(1.0, 2), "step=1.0"),
        (lambda: theory.stationary_variance(0.0, 2), "step=0.0"),
        (lambda: theory.stationary_variance(0.1, 2, -1.0), "noise_std=-1"),
    ],
)
def test_bad_input_is_named(call: Any, message: str):
    with pytest.raises(ValueError, match=message):
        call()
