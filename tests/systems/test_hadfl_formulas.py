"""The planner's own arithmetic of HADFL against theory, which knows nothing of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gossipjax.systems._hadfl import forecast
from theory import hadfl

# Two float64 routes of some hundred operations.
SAME = 1e-12
SETTINGS = settings(max_examples=60, deadline=None)
COUNTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=8)


@SETTINGS
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12), st.floats(0.01, 0.99))
def test_forecasts(counts, alpha):
    """Two devices, of which the second is observed from the third cycle on."""
    versions, state, found = np.asarray(counts, float), forecast.start_smoothing(2), []
    for cycle, version in enumerate(versions):
        state = forecast.observe(state, np.array([version, version if cycle >= 2 else np.nan]), alpha)
        found.append(forecast.forecast(state, alpha))
    columns = np.asarray(found).T
    # The planner divides by 1 − α: versions up to 1000, a hundredfold, and a few roundings each cycle.
    np.testing.assert_allclose(columns[0], hadfl.brown_forecast(versions, alpha), rtol=SAME, atol=1e-9)
    assert np.isnan(columns[1][:2]).all()
    if len(versions) > 2:
        late = hadfl.brown_forecast(versions[2:], alpha)
        np.testing.assert_allclose(columns[1][2:], late, rtol=SAME, atol=1e-9)


@SETTINGS
@given(COUNTS, st.floats(0, 1), st.sampled_from(["std", "unit"]))
def test_selection(counts, quantile, spread):
    versions = np.asarray(counts, float)
    found = np.exp(forecast.log_weights(versions, quantile, spread))
    # Under "unit" log p is up to 1e8/2, where float64 has a spacing of 1e-8.
    expected = hadfl.selection_probabilities(versions, quantile, spread)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-300)


@pytest.mark.parametrize("powers", [(4, 2, 2, 1), (3, 3, 1, 1), (5, 4, 3, 2, 1)])
def test_draws(powers):
    """10,000 draws of two: each frequency within four standard errors of the exact inclusion."""
    rng, draws = np.random.default_rng(3), 10_000
    versions = np.asarray(powers, float)
    logs, chosen = forecast.log_weights(versions, 0.75, "std"), np.zeros(versions.size)
    for _ in range(draws):
        chosen[forecast.draw(rng, logs, 2)] += 1
    law = hadfl.inclusion_probabilities(hadfl.selection_probabilities(versions), 2)
    z = (chosen / draws - law) / np.sqrt(law * (1 - law) / draws)
    assert np.abs(z).max() < 4


@SETTINGS
@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=6), st.integers(1, 16))
@example([3.40625, 3.46875, 5.372297104463158, 6.3125, 6.40625, 0.1], 15)  # 10¹² times the longest
def test_hyperperiods(periods, max_denominator):
    times = np.asarray(periods)
    for ratio in times / times.min():  # half-way between two fractions the last digit of the quotient decides
        assume(len({Fraction(ratio * by).limit_denominator(max_denominator) for by in (1 - 1e-9, 1, 1 + 1e-9)}) == 1)
    exact = hadfl.hyperperiod(times, max_denominator)
    assert forecast.hyperperiod(times, max_denominator, 1e300) == pytest.approx(exact.seconds, rel=SAME)


@pytest.mark.parametrize("powers", [(4, 2, 2, 1), (3, 3, 1, 1), (6, 3, 2)])
def test_units(powers):
    times = 0.7 / np.asarray(powers)
    exact = hadfl.hyperperiod(times)
    assert tuple(forecast.whole_units(exact.seconds, times).tolist()) == exact.units
