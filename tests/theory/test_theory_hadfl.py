"""theory.hadfl: worked examples, two routes to one number, symmetries, and draws against their law."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from theory import hadfl as theory

# Two float64 routes of some hundred operations on positive numbers.
SAME = 1e-12
SETTINGS = settings(max_examples=60, deadline=None)
ALPHAS = st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)
COUNTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=8)
WEIGHTS = st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=7)
"""Up to a factor: probabilities whose smallest is at least a ten-thousandth."""


def probabilities(weights: list[float]) -> np.ndarray:
    return np.asarray(weights) / np.sum(weights)


# --- forecasts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(0.3, (6.4, 10.12, 14.512, 19.198)), (0.5, (8, 13, 18, 22.75)), (0.8, (10.4, 15.52, 19.872, 23.968))],
)
def test_forecasts_of_the_worked_example(alpha, expected):
    found = theory.brown_forecast(np.array([4.0, 8, 12, 16, 20]), alpha)
    assert found[0] == 4.0  # one observation knows no trend
    # The table has three digits behind the point.
    np.testing.assert_allclose(found[1:], expected, atol=5e-4)


def textbook(versions, alpha, horizon):
    """Brown's equations as they are written down, in rational numbers."""
    alpha = Fraction(alpha)
    once = twice = Fraction(versions[0])
    found = []
    for version in versions:
        once = alpha * Fraction(version) + (1 - alpha) * once
        twice = alpha * once + (1 - alpha) * twice
        trend = alpha / (1 - alpha) * (once - twice)
        found.append(float(2 * once - twice + trend * Fraction(horizon)))
    return found


@SETTINGS
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12), ALPHAS, st.integers(0, 5))
@example([0, 1000, 1], 1.0 - 2**-53, 3)
@example([0, 1000, 1], 5e-324, 3)
def test_forecasts_are_browns_for_every_alpha(versions, alpha, horizon):
    # Versions up to 1000 and trends up to 1000 · horizon, in a few dozen operations.
    expected = textbook(versions, alpha, horizon)
    found = theory.brown_forecast(np.asarray(versions, float), alpha, horizon)
    np.testing.assert_allclose(found, expected, rtol=SAME, atol=1e-10)


@SETTINGS
@given(st.floats(-1e6, 1e6), ALPHAS, st.integers(1, 40), st.floats(0, 10))
def test_constant_versions_are_forecast_exactly(version, alpha, cycles, horizon):
    found = theory.brown_forecast(np.full(cycles, version), alpha, horizon)
    # α v + (1 − α) v is v up to two roundings each cycle; numbers below 1e-300 have fewer digits.
    np.testing.assert_allclose(found, version, rtol=SAME, atol=1e-300)


@SETTINGS
@given(st.floats(-1e3, 1e3), ALPHAS, st.integers(1, 60), st.floats(0, 10))
@example(4.0, 1e-6, 60, 1.0)
@example(4.0, 1.0 - 2**-53, 60, 1.0)
def test_error_on_linear_versions_is_the_closed_form(slope, alpha, cycles, horizon):
    versions = slope * np.arange(cycles)
    error = versions[-1] + slope * horizon - theory.brown_forecast(versions, alpha, horizon)[-1]
    expected = theory.linear_forecast_error(slope, alpha, cycles, horizon)
    # Rounding of numbers up to slope (cycles + horizon), fed back for 1/α cycles at most.
    assert error == pytest.approx(expected, abs=1e-12 * abs(slope) * (cycles + horizon) + 1e-300)


@SETTINGS
@given(ALPHAS.filter(lambda alpha: alpha > 0.153))
@example(0.3)
@example(1.0 - 2**-53)
def test_linear_versions_are_forecast_after_200_cycles(alpha):
    assert 0 <= theory.linear_forecast_error(1.0, alpha, 200) < 1e-12
    versions = np.arange(200.0)
    # Versions near 200 have a spacing of 3e-14; a forecast is a few of them.
    assert abs(200.0 - theory.brown_forecast(versions, alpha)[-1]) < 1e-12 + 200 * 1e-14


@SETTINGS
@given(ALPHAS.filter(lambda alpha: alpha >= 1e-3))
def test_errors_on_linear_versions_vanish_for_every_alpha(alpha):
    """q^m beats m: the time constant is 1/α cycles, so a small α is slow."""
    assert theory.linear_forecast_error(1.0, alpha, 1 + math.ceil(60 / alpha)) < 1e-12


# --- selection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e-3, 1e9])
@pytest.mark.parametrize(
    ("powers", "expected"),
    [((4, 2, 2, 1), (0.1505, 0.3495, 0.3495, 0.1505)), ((3, 3, 1, 1), (0.4404, 0.4404, 0.0596, 0.0596))],
)
def test_selection_of_the_worked_examples(powers, expected, scale):
    found = theory.selection_probabilities(scale * np.asarray(powers, float))
    np.testing.assert_allclose(found, expected, atol=5e-5)  # four digits behind the point


def test_raw_versions_that_have_drifted_apart_leave_out_the_extremes():
    found = theory.selection_probabilities(np.array([40.0, 20, 20, 10]), spread="unit")
    np.testing.assert_allclose(found, [0, 0.5, 0.5, 0], atol=1e-40)  # e^−100 beside 1
    assert 0 < found[0] == pytest.approx(0.5 * math.exp(-100), rel=SAME)


@pytest.mark.parametrize("spread", ["std", "unit"])
@pytest.mark.parametrize("versions", [[0.0], [7.0] * 5, [0.1 + 0.2] * 3, [-(2.0**53)] * 2])
def test_equal_versions_are_equally_likely(versions, spread):
    found = theory.selection_probabilities(np.asarray(versions), spread=spread)
    np.testing.assert_array_equal(found, np.full(len(versions), 1 / len(versions)))


@SETTINGS
@given(COUNTS, st.integers(-1000, 1000), st.integers(1, 50), st.floats(0, 1))
def test_selection_ignores_unit_and_origin_of_versions(counts, shift, scale, quantile):
    versions = np.asarray(counts, float)
    found = theory.selection_probabilities(scale * versions + shift, quantile)
    # z of whole numbers, up to 3, and its square in the exponent.
    np.testing.assert_allclose(found, theory.selection_probabilities(versions, quantile), rtol=SAME, atol=0)


@SETTINGS
@given(COUNTS, st.integers(-1000, 1000), st.floats(0, 1))
def test_raw_selection_ignores_the_origin_alone(counts, shift, quantile):
    versions = np.asarray(counts, float)
    moved = theory.selection_probabilities(versions + shift, quantile, "unit")
    # The quantile of numbers up to 1e4 rounds by 1e-12, and its effect on log p is z times that.
    np.testing.assert_allclose(
        moved, theory.selection_probabilities(versions, quantile, "unit"), rtol=1e-7, atol=1e-300
    )


@SETTINGS
@given(COUNTS, st.randoms(use_true_random=False), st.sampled_from(["std", "unit"]))
def test_selection_follows_a_permutation_of_the_devices(counts, random, spread):
    order = random.sample(range(len(counts)), len(counts))
    versions = np.asarray(counts, float)
    found = theory.selection_probabilities(versions[order], spread=spread)
    # Sums in another order; under "unit" log p is up to 1e8/2, of spacing 1e-8.
    expected = theory.selection_probabilities(versions, spread=spread)[order]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-300)


@SETTINGS
@given(
    st.lists(st.floats(-(2.0**53), 2.0**53), min_size=1, max_size=8),
    st.floats(0, 1),
    st.sampled_from(["std", "unit"]),
)
@example([0.0, 5e-324], 0.75, "std")
@example([-(2.0**53), 2.0**53, 0.0], 0.75, "unit")
@example([0.0, 1e6], 0.5, "unit")
def test_selection_is_a_law_whatever_the_versions(versions, quantile, spread):
    found = theory.selection_probabilities(np.asarray(versions), quantile, spread)
    assert np.all(found >= 0)
    assert found.sum() == pytest.approx(1.0, rel=SAME)


# --- draws without replacement ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["enumeration", "quadrature"])
@pytest.mark.parametrize(
    ("powers", "expected"),
    [((4, 2, 2, 1), (0.339, 0.661, 0.661, 0.339)), ((3, 3, 1, 1), (0.8428, 0.8428, 0.1572, 0.1572))],
)
def test_inclusion_of_the_worked_examples(powers, expected, method):
    p = theory.selection_probabilities(np.asarray(powers, float))
    # As many digits as the examples have.
    np.testing.assert_allclose(theory.inclusion_probabilities(p, 2, method=method), expected, atol=5e-4)


def by_orders(p, count):
    """Sum over all orders of drawing, each by its own product."""
    inclusion = np.zeros(len(p))
    for order in itertools.permutations(range(len(p)), count):
        probability = 1.0
        for k, i in enumerate(order):
            probability *= p[i] / sum(p[j] for j in range(len(p)) if j not in order[:k])
        inclusion[list(order)] += probability
    return inclusion


@settings(max_examples=30, deadline=None)
@given(WEIGHTS, st.data())
def test_three_routes_to_inclusion(weights, data):
    p = probabilities(weights)
    count = data.draw(st.integers(1, len(p)))
    enumerated, integrated = (
        theory.inclusion_probabilities(p, count, method=method) for method in ("enumeration", "quadrature")
    )
    np.testing.assert_allclose(enumerated, by_orders(p, count), rtol=SAME)
    # The rule is cut off at e^−40 and its step leaves 1e-13.
    np.testing.assert_allclose(integrated, enumerated, rtol=0, atol=1e-12)
    assert enumerated.sum() == pytest.approx(count, rel=SAME)


@pytest.mark.parametrize(("n", "count"), [(12, 6), (25, 3), (25, 24), (40, 20)])
def test_inclusion_of_many_devices_sums_to_their_number(n, count):
    p = probabilities(np.random.default_rng(n).exponential(size=n) ** 2)
    found = theory.inclusion_probabilities(p, count, method="quadrature")
    assert found.sum() == pytest.approx(count, abs=n * 1e-12)  # the rule's error, n times
    assert np.all(np.diff(found[np.argsort(p)]) > -1e-12)  # the likelier, up to the rule's error
    if n == 12:
        np.testing.assert_allclose(found, theory.inclusion_probabilities(p, count), rtol=0, atol=1e-12)


@SETTINGS
@given(WEIGHTS, st.data())
def test_inclusion_follows_a_permutation_of_the_devices(weights, data):
    p = probabilities(weights)
    count, order = data.draw(st.integers(1, len(p))), data.draw(st.permutations(range(len(p))))
    found = theory.inclusion_probabilities(p[order], count)
    np.testing.assert_allclose(found, theory.inclusion_probabilities(p, count)[order], rtol=SAME)


@pytest.mark.parametrize("method", ["enumeration", "quadrature"])
def test_inclusion_at_the_edges(method):
    uniform = theory.inclusion_probabilities(np.full(5, 0.2), 3, method=method)
    np.testing.assert_allclose(uniform, 0.6, rtol=SAME)
    p = np.array([0.0, 0.5, 0.25, 0.25])
    np.testing.assert_allclose(theory.inclusion_probabilities(p, 1, method=method), p, atol=1e-12)
    np.testing.assert_allclose(theory.inclusion_probabilities(p, 3, method=method), [0, 1, 1, 1], atol=1e-12)
    # The sure one first, then one of two that are hardly ever drawn, by their ratio.
    tiny = np.array([1.0, 3e-310, 1e-310])
    np.testing.assert_allclose(theory.inclusion_probabilities(tiny, 2, method=method), [1, 0.75, 0.25], atol=1e-12)
    with pytest.raises(ValueError, match="count=4: must be a whole number in 1 … 3; pass at most the number"):
        theory.inclusion_probabilities(p, 4, method=method)
    with pytest.raises(ValueError, match="of 21 devices: at most 20; choose method='quadrature'"):
        theory.inclusion_probabilities(np.full(21, 1 / 21), 2, method="enumeration")


@pytest.mark.parametrize("powers", [(4, 2, 2, 1), (3, 3, 1, 1)])
def test_draws_include_devices_as_often_as_the_law_says(powers):
    """10,000 draws of two: each frequency within four standard errors."""
    p, draws = theory.selection_probabilities(np.asarray(powers, float)), 10_000
    rng = np.random.default_rng(5)
    chosen = np.zeros(4)
    for _ in range(draws):
        first = int(np.searchsorted(np.cumsum(p), rng.random()))
        rest = np.where(np.arange(4) == first, 0.0, p)
        second = int(np.searchsorted(np.cumsum(rest), rng.random() * rest.sum(), side="right"))
        chosen[[first, second]] += 1
    law = theory.inclusion_probabilities(p, 2)
    z = (chosen / draws - law) / np.sqrt(law * (1 - law) / draws)
    assert np.abs(z).max() < 4


# --- hyperperiods, rings, merges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("periods", "seconds", "units"),
    [
        ((2.5, 5.0, 5.0, 10.0), 10.0, (4, 2, 2, 1)),
        ((10 / 3, 10 / 3, 10.0, 10.0), 10.0, (3, 3, 1, 1)),
        ((2.0, 3.0), 6.0, (3, 2)),
        ((0.7,), 0.7, (1,)),
        ((1.0, 1.0 + 1e-9), 1.0, (1, 1)),  # measured: as good as equal
    ],
)
def test_hyperperiods(periods, seconds, units):
    found = theory.hyperperiod(np.asarray(periods))
    assert found.seconds == pytest.approx(seconds, rel=SAME)
    assert found.units == units
    assert all(type(unit) is int for unit in found.units)


@SETTINGS
@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=6), st.integers(1, 16))
def test_hyperperiods_are_common_and_least(periods, max_denominator):
    found = theory.hyperperiod(np.asarray(periods), max_denominator)
    times = np.asarray(found.units) * np.asarray(periods)
    # Rounding to a/b moves a ratio above 1 by at most 1/(2 max_denominator), and float64 by a little more.
    assert np.all(np.abs(times / found.seconds - 1) <= 0.5 / max_denominator * (1 + 1e-9) + 1e-12)
    assert math.gcd(*found.units) == 1  # else a fraction of it would do
    fastest = int(np.argmin(periods))
    assert found.units[fastest] * periods[fastest] == pytest.approx(found.seconds, rel=SAME)


@SETTINGS
@given(st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_powers_that_divide_one_another_give_local_steps_in_their_ratio(powers):
    assume(max(powers) % min(powers) == 0)
    units = theory.hyperperiod(1.0 / np.asarray(powers)).units
    ratios = [Fraction(unit, units[0]) for unit in units]
    assert ratios == [Fraction(power, powers[0]) for power in powers]


def test_a_common_multiple_beyond_float64_is_refused():
    primes = np.array([p for p in range(2, 1200) if all(p % k for k in range(2, p))], float)
    with pytest.raises(ValueError, match=f"of {len(primes)} periods exceeds float64: lower max_denominator=8"):
        theory.hyperperiod(primes)


@pytest.mark.parametrize(("powers", "bound"), [((4, 2, 2, 1), 2.25), ((3, 3, 1, 1), 2.0), ((7,), 1.0), ((2, 2), 1.0)])
def test_bound_on_the_gain_in_throughput(powers, bound):
    assert theory.compute_bound(np.asarray(powers, float)) == bound


def ring_by_steps(members, model_bytes, bytes_per_second, latency_s):
    """Pass chunks on step by step; at the end everyone has every sum."""
    clock, arrivals = 0.0, [[] for _ in range(members)]
    for step in range(2 * (members - 1)):
        for i in range(members):
            arrivals[(i + 1) % members].append((i - step) % members)
        clock += latency_s + model_bytes / members / bytes_per_second
    if members > 1:  # the arrival that completes a sum, and those of the M − 1 other sums
        assert all(sorted(chunks[members - 2 :]) == list(range(members)) for chunks in arrivals)
    return clock


@pytest.mark.parametrize("members", [1, 2, 3, 4, 7])
def test_ring_takes_as_long_as_its_steps(members):
    arguments = members, 44.7e6, 1e8, 0.01
    assert theory.ring_seconds(*arguments) == pytest.approx(ring_by_steps(*arguments), rel=SAME)


LINKS = {"model_bytes": 8e6, "bytes_per_second": 1e6, "latency_s": 0.5}
TIMERS = {"timeout_s": 7.0, "handshake_s": 2.0}


def test_bound_on_a_cycle_by_hand():
    """Rings of 4, 3, 2 members: 6 (0.5 + 2), 4 (0.5 + 8/3), 2 (0.5 + 4) seconds; a death costs 9.5 more."""
    rings = [6 * 2.5, 4 * (0.5 + 8 / 3), 2 * 4.5, 0.0]
    for deaths in range(4):
        found = theory.cycle_seconds_bound(4, deaths, **LINKS, **TIMERS, wait_s=1.5)
        assert found == pytest.approx(1.5 + sum(rings[: deaths + 1]) + 9.5 * deaths, rel=SAME)
    assert theory.cycle_seconds_bound(4, 0, **LINKS, **TIMERS) == theory.ring_seconds(4, *LINKS.values())
    with pytest.raises(ValueError, match=r"deaths=4: must be a whole number in 0 … 3; one member survives"):
        theory.cycle_seconds_bound(4, 4, **LINKS, **TIMERS)


def cycle_by_events(members, deaths_at):
    """Play attempts: in each, one member falls silent after some whole steps (the last entry: none does)."""
    clock = 0.0
    for attempt, steps in enumerate(deaths_at):
        step = LINKS["latency_s"] + LINKS["model_bytes"] / (members - attempt) / LINKS["bytes_per_second"]
        clock += steps * step + TIMERS["timeout_s"] + TIMERS["handshake_s"] + LINKS["latency_s"]
    return clock + theory.ring_seconds(members - len(deaths_at), *LINKS.values())


@SETTINGS
@given(st.integers(2, 6), st.data())
def test_no_cycle_exceeds_the_bound(members, data):
    deaths = data.draw(st.integers(0, members - 1))
    at = [data.draw(st.integers(0, 2 * (members - attempt - 1) - 1)) for attempt in range(deaths)]
    bound = theory.cycle_seconds_bound(members, deaths, **LINKS, **TIMERS)
    assert cycle_by_events(members, at) <= bound * (1 + SAME)


def test_merge_weights():
    versions = np.array([0.0, 1, 3, 9])
    np.testing.assert_array_equal(theory.merge_weights(versions, 3), np.full(4, 0.5))
    np.testing.assert_array_equal(theory.merge_weights(versions, 3, "version"), [1, 0.75, 0.5, 0.25])
    np.testing.assert_array_equal(theory.merge_weights(versions, 0, "version"), [0.5, 0, 0, 0])
