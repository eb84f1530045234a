"""The small parts of the experiments with HADFL: laws, errors, rates and crossings with known values."""

import numpy as np
import pytest

from experiments import hadfl_network, hadfl_scaling, hadfl_selection, hadfl_version_forecast
from experiments.lib.hadfl_plans import STATES, duration_of, seconds_by_state, units_per_second
from gossipjax import devices, systems
from theory.hadfl import inclusion_probabilities

CLOSE = {"rtol": 1e-12, "atol": 0}  # a few operations on numbers near 1
SUMS = {
    "rtol": 1e-8,
    "atol": 1e-8,
}  # the strategy begins 1e-9 s after the warm-up; float64 sums of 20 s


def plan(powers=(4, 2, 2, 1), cycles=20, *, bandwidth=np.inf, model_bytes=4, **settings):
    """A unit of the slowest device takes a second, and so does a cycle."""
    made = devices.from_powers(powers, seconds_per_sample=1 / 3, bytes_per_second=bandwidth)
    return systems.hadfl(
        made, duration_of(cycles, 1.0, 1.0), model_bytes=model_bytes, local_steps=1, seed=3, **settings
    )


# HADFLSelection


def test_inclusion_goes_on_where_probabilities_underflow():
    """Two of the devices are next to the quantile; of those far away the nearer one is drawn next."""
    forecasts = np.array([4000.0, 1001.0, 1001.0, 990.0, 900.0])
    law = hadfl_selection.inclusion(forecasts, 3, 0.5, "unit")
    np.testing.assert_allclose(law, [0, 1, 1, 1, 0], **CLOSE)
    far = np.array([1100.0, 1001.0, 1001.0, 902.0])
    law = hadfl_selection.inclusion(far, 3, 0.5, "unit")  # equally far from the centre
    np.testing.assert_allclose(law, [0.5, 1, 1, 0.5], **CLOSE)


def test_inclusion_is_the_law_of_the_draws():
    """Powers (3, 3, 1, 1): the values of an enumeration by hand, to their four digits."""
    law = hadfl_selection.inclusion(np.array([3.0, 3.0, 1.0, 1.0]), 2, 0.75, "std")
    np.testing.assert_allclose(law, [0.8428, 0.8428, 0.1572, 0.1572], atol=5e-5, rtol=0)


def test_a_run_is_compared_with_the_law_of_its_own_cycles():
    history = plan().history
    found = hadfl_selection.measured(history, 2, 0.75, "std")
    law = np.array([inclusion_probabilities(p, 2) for p in history.probabilities])
    np.testing.assert_allclose(found.exact, law.mean(0), rtol=1e-9, atol=0)  # probabilities by another route
    excess = (history.selected - law).sum(0) / np.sqrt((law * (1 - law)).sum(0))
    np.testing.assert_allclose(found.deviation, excess, rtol=1e-9, atol=1e-9)
    assert found.frequency.sum() == pytest.approx(2)
    assert found.gap[0] == 3  # versions 4, 2, 2, 1 when the first ring is drawn


# Forecasts


def test_progress_counts_units_and_not_what_averaging_makes_of_versions():
    one = plan()
    units = hadfl_version_forecast.progress(one)
    np.testing.assert_array_equal(np.diff(units, axis=0), np.tile([4, 2, 2, 1], (len(units) - 1, 1)))
    assert not np.array_equal(units, one.history.versions)


def test_the_forecast_that_nothing_changes_has_error_one():
    values = np.random.default_rng(0).standard_normal((9, 4)).cumsum(0)
    changes = np.diff(values, axis=0)
    assert hadfl_version_forecast.relative_error(-changes, changes) == pytest.approx(1, rel=1e-12)
    assert hadfl_version_forecast.relative_error(0 * changes, changes) == 0
    assert hadfl_version_forecast.curve(-changes, changes).mean() == pytest.approx(1, rel=1e-12)


# Rates and bytes


def test_on_a_free_network_nobody_waits():
    one = plan()
    seconds = seconds_by_state(one)
    np.testing.assert_allclose(seconds[list(STATES).index("training")], one.end_s - one.history.start_s, **SUMS)
    np.testing.assert_allclose(seconds.sum(0), one.end_s - one.history.start_s, **SUMS)
    assert units_per_second(one) == pytest.approx(9, rel=1e-8)


def test_bytes_of_a_cycle_are_those_of_a_plan():
    """In whole cycles, on a network fast enough that no transfer outlasts the plan."""
    one = plan(bandwidth=1e9, model_bytes=1000)
    rounds = one.round_end_s.size
    expected = hadfl_scaling.bytes_of_cycle(4, 2, 1000)
    assert rounds == 20
    assert one.total_bytes(one.end_s) / 4 / rounds == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("ring", "n", "count"), [("two", 64, 2), ("a quarter", 64, 16), ("a quarter", 4, 2)])
def test_sizes_of_rings(ring, n, count):
    assert hadfl_scaling.members(ring, n) == count


# Crossings


@pytest.mark.parametrize(
    ("speedup", "expected"),
    [
        ([8.0, 4.0, 2.0, 2.0], 20.0),  # in the middle of 4 and 2, where log bandwidth is, too
        ([8.0, 2.0, 4.0, 2.0], 200.0),  # the last one counts
        ([2.0, 2.0, 2.0, 2.0], np.nan),
        ([4.0, 4.0, 4.0, 4.0], np.nan),
    ],
)
def test_the_crossing_is_where_the_level_is_last_reached(speedup, expected):
    bandwidth = np.array([1.0, 10.0, 40.0, 1000.0])
    found = hadfl_network.crossing(bandwidth, np.array(speedup), np.sqrt(8))
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_at_the_crossing_of_free_rings_the_speedup_is_the_level():
    level, bound, size, seconds = 4.68, 2.25, 4e7, 0.15
    bandwidth = hadfl_network.free_crossing(level, bound, size, 4, seconds)
    made = devices.from_powers((4, 2, 2, 1), seconds_per_sample=seconds / 3, bytes_per_second=bandwidth)
    other = systems.allreduce(made, 1, local_steps=1, model_bytes=int(size))
    # Links move whole bytes a second.
    assert bound * other.end_s / seconds == pytest.approx(level, rel=1e-6)
