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


def test_largest_inbox_is_of_its_order():
    """200 rounds of 2000 pushes: the ratio tends to one so slowly that between one and two is all it says."""
    inboxes = np.random.default_rng(3).multinomial(2000, np.full(2000, 1 / 2000), size=200)
    assert 1 < inboxes.max(axis=1).mean() / theory.largest_inbox(2000) < 2


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


@pytest.mark.parametrize("n", [10, 1000, 10**6])
def test_birthday_asymptotics_err_by_the_next_term(n):
    error = theory.pushes_until_repeat(n) - theory.pushes_until_repeat_asymptotic(n)
    assert error * math.sqrt(n - 1) == pytest.approx(math.sqrt(math.pi / 2) / 12, rel=0.2)  # of relative order n^{−1/2}


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


def simulate_mm1_age(arrival_rate: float, service_rate: float, *, replicas: int, updates: int, seed: int) -> np.ndarray:
    """Average age over the later half of each run: Lindley's recursion, and the area under the saw teeth."""
    rng = np.random.default_rng(seed)
    made = rng.exponential(1 / arrival_rate, (replicas, updates)).cumsum(axis=1)
    service = rng.exponential(1 / service_rate, (replicas, updates))
    done = np.zeros((replicas, updates))
    for k in range(updates):
        done[:, k] = np.maximum(done[:, k - 1] if k else 0.0, made[:, k]) + service[:, k]
    half = updates // 2
    length = np.diff(done[:, half:], axis=1)
    area = length * (done - made)[:, half:-1] + length**2 / 2
    return area.sum(axis=1) / length.sum(axis=1)


@pytest.mark.parametrize(("arrival_rate", "service_rate"), [(0.5, 1.0), (0.4, 2.0), (1.5, 2.0)])
def test_age_behind_a_simulated_queue(arrival_rate, service_rate):
    ages = simulate_mm1_age(arrival_rate, service_rate, replicas=400, updates=1000, seed=5)
    assert abs(z_score(ages, theory.age_mm1(arrival_rate, service_rate))) < 4
    assert ages.mean() == pytest.approx(theory.age_mm1(arrival_rate, service_rate), rel=0.03)  # and it could see 3 %


def test_age_is_least_at_the_known_load():
    best = scipy.optimize.minimize_scalar(lambda load: theory.age_mm1(load, 1.0), bounds=(0.05, 0.95), method="bounded")
    assert best.x == pytest.approx(0.53, abs=0.005)  # two published digits, Kaul et al. 2012


@SETTINGS
@given(load=st.floats(0.01, 0.99), scale=st.floats(0.1, 10.0))
def test_age_is_a_time_and_no_less_than_without_a_queue(load, scale):
    age = theory.age_mm1(load, 1.0)
    assert theory.age_mm1(load * scale, scale) == pytest.approx(age / scale, rel=1e-9)
    assert age > 1 + 1 / load  # an update's service, and the age of a Poisson clock


@pytest.mark.parametrize(("helpers", "layers"), [(0, 0), (3, 0), (0, 2), (2, 3)])
def test_mixture_of_agents_load_counts_the_jobs(helpers, layers):
    """One prompt a node: jobs per node, however the helpers are drawn."""
    rng, n, jobs = np.random.default_rng(6), 9, np.zeros(9)
    for node in range(n):
        others = np.delete(np.arange(n), node)
        for _ in range(layers):
            jobs[node] += 1
            jobs[rng.choice(others, helpers, replace=False)] += 1
        jobs[node] += 1
    load = theory.mixture_of_agents_load(helpers, layers, mean_service=0.1, prompt_rate=2.0)
    assert load == pytest.approx(jobs.mean() * 0.1 * 2.0, rel=SAME)


def test_mixture_of_agents_is_stable_below_load_one():
    common = {"mean_service": 0.125, "prompt_rate": 1.0}
    assert theory.mixture_of_agents_stable(1, 3, **common)
    assert not theory.mixture_of_agents_stable(0, 7, **common)  # a load of exactly one
    assert not theory.mixture_of_agents_stable(2, 3, **common)
    slow = np.array([0.01, 0.125, 0.1])
    assert theory.mixture_of_agents_load(1, 3, mean_service=slow, prompt_rate=1.0) == 0.875  # the slowest node decides


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
        (lambda: theory.largest_inbox(2), "n=2"),
        (lambda: theory.hear_from_all(3, -1.0), "gossip_rate=-1"),
        (lambda: theory.pushes_until_repeat(1), "n=1"),
        (lambda: theory.pushes_until_repeat_asymptotic(1), "n=1"),
        (lambda: theory.renewal_age(0.0, 1.0), "mean=0"),
        (lambda: theory.renewal_age(2.0, 3.9), "second_moment=3.9"),
        (lambda: theory.time_since_update(1.0, -1.0), "shift=-1"),
        (lambda: theory.age_mm1(1.0, 1.0), "arrival_rate=1.0"),
        (lambda: theory.age_mm1(1.0, 0.0), "service_rate=0"),
        (lambda: theory.mixture_of_agents_load(-1, 1, mean_service=1.0, prompt_rate=1.0), "helpers=-1"),
        (lambda: theory.mixture_of_agents_load(1, -1, mean_service=1.0, prompt_rate=1.0), "layers=-1"),
        (lambda: theory.mixture_of_agents_load(1, 1, mean_service=0.0, prompt_rate=1.0), "mean_service=0"),
        (lambda: theory.mixture_of_agents_load(1, 1, mean_service=1.0, prompt_rate=0.0), "prompt_rate=0"),
    ],
)
def test_bad_input_is_named(call: Any, message: str):
    with pytest.raises(ValueError, match=message):
        call()
