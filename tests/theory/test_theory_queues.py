"""theory.queues: formulas against quadrature, counting, simulated queues and known values."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import queues as theory

# Two float64 routes to one number, a few thousand operations each.
SAME = 1e-10
# Adaptive quadrature is asked for 1e-10.
QUADRATURE = 1e-8
SETTINGS = settings(max_examples=40, deadline=None)
UPDATES = [(3.0, 0.5, 0.5), (0.2, 2.0, 0.0), (8.0, 0.1, 3.0), (1.0, 1.0, 1.0)]
"""Arrival rate λ, mean extra time e, shift c."""


def over_update_times(value, mean_extra: float, shift: float) -> float:
    """E value(X), X = c + Exp(mean e), in the variable u = (X − c)/e."""
    return scipy.integrate.quad(lambda u: value(shift + mean_extra * u) * math.exp(-u), 0, 60, epsabs=0, epsrel=1e-10)[
        0
    ]


def z_score(samples: np.ndarray, predicted: float) -> float:
    return float((samples.mean() - predicted) / (samples.std(ddof=1) / np.sqrt(len(samples))))


@pytest.mark.parametrize("update", UPDATES)
def test_inbox_law_is_a_poisson_mixed_over_the_update_time(update):
    rate, mean_extra, shift = update
    pmf = theory.inbox_pmf(rate, mean_extra, shift, size=12)
    for k in range(12):
        mixed = over_update_times(lambda x, k=k: scipy.stats.poisson.pmf(k, rate * x), mean_extra, shift)
        assert pmf[k] == pytest.approx(mixed, rel=QUADRATURE)


@pytest.mark.parametrize("update", UPDATES)
def test_inbox_moments_and_overflow_are_those_of_the_law(update):
    pmf, k = theory.inbox_pmf(*update, size=600), np.arange(600)  # what is beyond is below 1e-20
    assert pmf.sum() == pytest.approx(1.0, abs=1e-12)
    assert theory.inbox_mean(*update) == pytest.approx(pmf @ k, rel=SAME)
    assert theory.inbox_variance(*update) == pytest.approx(pmf @ k**2 - (pmf @ k) ** 2, rel=SAME)
    for capacity in (0, 1, 5, 40):
        # The relative error of the tail itself: nothing is subtracted from one.
        assert theory.inbox_overflow(capacity, *update) == pytest.approx(pmf[capacity + 1 :].sum(), rel=SAME)


def test_simulated_inboxes():
    """40,000 updates: mean, variance and one overflow probability, |z| < 4."""
    rng, (rate, mean_extra, shift) = np.random.default_rng(1), (3.0, 0.5, 0.5)
    arrived = rng.poisson(rate * (shift + rng.exponential(mean_extra, 40_000))).astype(float)
    mean = theory.inbox_mean(rate, mean_extra, shift)
    assert abs(z_score(arrived, mean)) < 4
    assert abs(z_score((arrived - mean) ** 2, theory.inbox_variance(rate, mean_extra, shift))) < 4
    assert abs(z_score((arrived > 6).astype(float), theory.inbox_overflow(6, rate, mean_extra, shift))) < 4


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("overflow", [0.9, 0.1, 1e-3, 1e-12, 1e-60])
def test_inbox_capacity_is_the_smallest_that_suffices(update, overflow):
    capacity = theory.inbox_capacity(overflow, *update)
    assert theory.inbox_overflow(capacity, *update) <= overflow
    assert capacity == 0 or theory.inbox_overflow(capacity - 1, *update) > overflow


@SETTINGS
@given(
    rate=st.floats(0.01, 20.0), mean_extra=st.floats(0.01, 5.0), shift=st.floats(0.0, 5.0), capacity=st.integers(0, 60)
)
def test_overflow_is_a_survival_function(rate, mean_extra, shift, capacity):
    here = theory.inbox_overflow(capacity, rate, mean_extra, shift)
    assert 0 <= theory.inbox_overflow(capacity + 1, rate, mean_extra, shift) <= here <= 1 + SAME
    step = here - theory.inbox_overflow(capacity + 1, rate, mean_extra, shift)
    mass = theory.inbox_pmf(rate, mean_extra, shift, size=capacity + 2)[-1]
    assert step == pytest.approx(mass, abs=1e-13, rel=1e-9)
    assert theory.inbox_overflow(capacity, rate, mean_extra, shift + 1.0) >= here - 1e-13


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("n", [2, 12, 1000])
def test_distinct_senders_are_those_with_a_push_in_the_update(n, update):
    rate, mean_extra, shift = update
    heard = over_update_times(lambda x: -math.expm1(-rate / (n - 1) * x), mean_extra, shift)
    ours = theory.distinct_senders(n, gossip_rate=rate, mean_extra=mean_extra, shift=shift)
    assert ours == pytest.approx((n - 1) * heard, rel=QUADRATURE)
    assert ours <= min(n - 1, theory.inbox_mean(rate, mean_extra, shift))


def test_distinct_senders_have_the_known_value():
    """Known to six digits and confirmed by an independent simulation: n = 12, λ = 3, c = ½, e = ½."""
    value = theory.distinct_senders(12, gossip_rate=3.0, mean_extra=0.5, shift=0.5)
    assert value == pytest.approx(2.55396, rel=3e-6)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_round_receivers_equal_the_count_of_all_calls(n):
    calls = itertools.product(*[[j for j in range(n) if j != i] for i in range(n)])
    counts = [len(set(targets)) for targets in calls]
    assert theory.round_receivers(n) == pytest.approx(sum(counts) / len(counts), rel=SAME)


def test_round_receivers_of_large_networks():
    assert theory.round_receivers(12) == pytest.approx(7.79407, rel=2e-6)  # confirmed by an independent simulation
    assert theory.round_receivers(10**7) / 10**7 == pytest.approx(1 - math.exp(-1), rel=1e-6)  # its limit, error O(1/n)


@pytest.mark.parametrize("n", [2, 6, 40])
def test_hearing_from_all_is_the_longest_of_the_waits(n):
    rate = 2.0 / (n - 1)
    slowest = scipy.integrate.quad(
        lambda t: -math.expm1((n - 1) * math.log1p(-math.exp(-rate * t))), 1e-300, 40 * (n - 1), limit=200
    )[0]
    assert theory.hear_from_all(n, 2.0) == pytest.approx(slowest, rel=1e-7)


def test_hearing_from_all_has_the_known_value():
    assert theory.hear_from_all(6, 2.0) == pytest.approx(5 * (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 2, rel=SAME)


@pytest.mark.parametrize("n", [2, 3, 4, 24, 366, 10_001])
def test_birthday_equals_its_integral(n):
    """``∫_0^∞ (1 + t/N)^N e^{−t} dt``, Klamkin and Newman 1967."""
    targets = n - 1
    width = 12 * math.sqrt(targets) + 50
    integral = scipy.integrate.quad(lambda t: math.exp(targets * math.log1p(t / targets) - t), 0, width, limit=200)[0]
    assert theory.pushes_until_repeat(n) == pytest.approx(integral, rel=1e-7)


def test_birthday_counts():
    assert theory.pushes_until_repeat(2) == pytest.approx(2.0, rel=SAME)  # the same target again
    assert theory.pushes_until_repeat(4) == pytest.approx(26 / 9, rel=SAME)  # 1 + 1 + 2/3 + 2/9
    assert theory.pushes_until_repeat(366) == pytest.approx(24.6166, abs=5e-5)  # the birthdays of a year


@pytest.mark.parametrize(("mean_extra", "shift"), [(1.0, 0.0), (0.5, 0.5), (0.1, 3.0)])
def test_time_since_update_is_the_mean_of_the_integrated_tail(mean_extra, shift):
    """The age at a stationary time has density P(X > t)/E X."""
    tail = over_update_times(lambda x: x**2 / 2, mean_extra, shift)
    assert theory.time_since_update(mean_extra, shift) == pytest.approx(tail / (mean_extra + shift), rel=QUADRATURE)
    ticks = (shift + np.random.default_rng(4).exponential(mean_extra, (3000, 200))).cumsum(axis=1)
    at = 60 * (shift + mean_extra)
    last = np.where(ticks <= at, ticks, 0.0).max(axis=1)
    assert abs(z_score(at - last, theory.time_since_update(mean_extra, shift))) < 4


def test_renewal_age_of_simple_clocks():
    assert theory.renewal_age(3.0, 9.0) == 1.5  # a regular clock
    assert theory.renewal_age(3.0, 18.0) == 3.0  # a Poisson clock has no memory
    assert theory.time_since_update(2.0) == 2.0
    assert theory.renewal_age(0.1, 0.1**2) == pytest.approx(0.05, rel=SAME)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.inbox_mean(0.0, 1.0), "arrival_rate=0"),
        (lambda: theory.inbox_variance(1.0, -1.0), "mean_extra=-1"),
        (lambda: theory.inbox_pmf(1.0, 1.0, -0.5, size=3), "shift=-0.5"),
        (lambda: theory.inbox_pmf(1.0, 1.0, size=0), "size=0"),
        (lambda: theory.inbox_overflow(-1, 1.0, 1.0), "capacity=-1"),
        (lambda: theory.inbox_capacity(0.0, 1.0, 1.0), "overflow=0"),
        (lambda: theory.distinct_senders(1, gossip_rate=1.0, mean_extra=1.0), "n=1"),
        (lambda: theory.round_receivers(1), "n=1"),
        (lambda: theory.hear_from_all(3, -1.0), "gossip_rate=-1"),
        (lambda: theory.pushes_until_repeat(1), "n=1"),
        (lambda: theory.renewal_age(0.0, 1.0), "mean=0"),
        (lambda: theory.renewal_age(2.0, 3.9), "second_moment=3.9"),
        (lambda: theory.time_since_update(1.0, -1.0), "shift=-1"),
    ],
)
def test_bad_input_is_named(call: Any, message: str):
    with pytest.raises(ValueError, match=message):
        call()
