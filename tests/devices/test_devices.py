"""Devices: exact intervals, transitions and faults; laws of the generators."""

import dataclasses
import itertools

import numpy as np
import pytest
from device_cases import INF, PREFIX, assert_same, availability, devices_of, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gossipjax import devices as dev
from gossipjax.devices import _laws

properties = settings(deadline=None)  # a loaded machine is no failure


def slowly_online(times, t):
    """The definition, one interval at a time."""
    phase = [t if period == INF else t % period for period in times.period_s]
    return [any(a <= phase[i] < b for a, b in row) for i, row in enumerate(rows_of(times))]


HAND = availability([[(0, 10), (20, 30)], [(0, 5)], [], [(2, 4), (4, 6)]], [30, 5, 7, INF])


@st.composite
def availabilities(draw):
    """Up to six devices; times are quarters of a second, so that every period's border is exact."""
    rows, periods = [], []
    for _ in range(draw(st.integers(1, 6))):
        period = draw(st.integers(1, 40))
        cuts = sorted(draw(st.sets(st.integers(0, period), max_size=8)))
        touching = draw(st.booleans())
        pairs = list(itertools.pairwise(cuts))
        rows.append([(a / 4, b / 4) for a, b in (pairs if touching else pairs[::2])])
        periods.append(INF if draw(st.integers(0, 4)) == 0 else period / 4)
    return availability(rows, periods)


# --- online and transitions -------------------------------------------------------------------------------------------


def test_hand_made_intervals():
    machines = devices_of(HAND)
    expected = {
        0.0: [True, True, False, False],
        2.0: [True, True, False, True],
        4.0: [True, True, False, True],
        6.0: [True, True, False, False],
        10.0: [False, True, False, False],
        29.5: [True, True, False, False],
        30.0: [True, True, False, False],
        40.0: [False, True, False, False],
    }
    for t, states in expected.items():
        assert dev.online(machines, t).tolist() == states


def test_hand_made_transitions_unite_what_touches_and_include_the_end():
    found = dev.transitions(devices_of(HAND), 50.0)
    expected = [(2, 3, True), (6, 3, False), (10, 0, False), (20, 0, True), (40, 0, False), (50, 0, True)]
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected
    assert devices_of(HAND).transitions(49.0).times_s.size == 5
    assert dev.transitions(devices_of(HAND), 0.0).times_s.size == 0


def test_borders_unite_also_where_a_period_is_no_binary_fraction():
    times = availability([[(0, 0.05), (0.07, 0.1)]], [0.1])
    found = dev.transitions(devices_of(times), 100.0)
    assert found.goes_online.tolist() == [False, True] * 1000
    # Rounding of 1000 multiples of 0.1: a few units in the last place of 100.
    np.testing.assert_allclose(found.times_s[::2], 0.05 + 0.1 * np.arange(1000), rtol=1e-14)


def test_without_availability_all_are_online_for_ever():
    machines = dev.uniform(3)
    assert dev.online(machines, 1e9).all()
    assert dev.transitions(machines, 1e9).times_s.size == 0


@properties
@given(availabilities(), st.integers(0, 400))
def test_online_is_the_definition(times, quarter):
    assert dev.online(devices_of(times), quarter / 4).tolist() == slowly_online(times, quarter / 4)


@properties
@given(availabilities(), st.integers(0, 120))
def test_transitions_turn_the_first_state_into_every_later_one(times, quarters):
    machines = devices_of(times)
    found = dev.transitions(machines, quarters / 4)
    state = dev.online(machines, 0.0)
    done = 0
    for quarter in range(quarters + 1):
        while done < found.times_s.size and found.times_s[done] <= quarter / 4:
            assert state[found.nodes[done]] != found.goes_online[done]  # they alternate
            state[found.nodes[done]] = found.goes_online[done]
            done += 1
        assert state.tolist() == slowly_online(times, quarter / 4)
    assert done == found.times_s.size
    order = list(zip(found.times_s.tolist(), found.nodes.tolist(), strict=True))
    assert order == sorted(order)


@properties
@given(availabilities(), st.data())
def test_take_and_subset_repeat_devices(times, data):
    chosen = np.array(data.draw(st.lists(st.integers(0, times.num_nodes - 1), min_size=1, max_size=9)))
    rows, periods = rows_of(times), times.period_s.tolist()
    taken = dev.take(times, chosen)
    assert rows_of(taken) == [rows[i] for i in chosen]
    assert taken.period_s.tolist() == [periods[i] for i in chosen]
    assert rows_of(dev.subset(devices_of(times), chosen).availability) == rows_of(taken)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 30)), max_size=12))
def test_sessions_wrap_and_unite(sessions):
    periods = np.array([20, 7, 33])
    nodes, begin, length = np.array(sessions, np.int64).reshape(-1, 3).T
    times = dev.from_sessions(nodes, begin, length, periods)
    seconds = [np.zeros(period, bool) for period in periods]
    for node, first, count in sessions:
        seconds[node][(first + np.arange(min(count, periods[node]))) % periods[node]] = True
    for i, row in enumerate(rows_of(times)):
        covered = [any(a <= t < b for a, b in row) for t in range(periods[i])]
        assert covered == seconds[i].tolist()
    for row in rows_of(times):  # as few intervals as can be
        assert all(a[1] < b[0] for a, b in itertools.pairwise(row))
    np.testing.assert_array_equal(dev.share_online(times) * periods, [mask.sum() for mask in seconds])


# --- the devices themselves -------------------------------------------------------------------------------------------


def test_latency_goes_by_cities_and_broadcasts():
    delay = np.array([[0.5, 1.0], [2.0, 0.25]])
    machines = dev.from_arrays(np.ones(5), np.ones(5), np.ones(5), latency_seconds=delay)
    nodes = np.arange(5)
    full = machines.latency_seconds(nodes[:, None], nodes[None])
    np.testing.assert_array_equal(full, [[delay[i % 2, j % 2] for j in range(5)] for i in range(5)])
    assert machines.latency_seconds(3, 0) == 2.0
    np.testing.assert_array_equal(machines.latency_seconds(nodes, 1), full[:, 1])
    assert dev.uniform(4, latency_seconds=0.1).latency_seconds(0, 3) == 0.1


def test_training_takes_three_times_inference():
    machines = dev.from_arrays(np.array([0.25, 0.5]), np.ones(2), np.ones(2))
    np.testing.assert_array_equal(dev.training_seconds(machines, 100), [75.0, 150.0])
    np.testing.assert_array_equal(dev.training_seconds(machines, np.array([4, 0])), [3.0, 0.0])
    for samples, message in ((-1, "samples=-1: must be finite"), (np.ones(3), "one number, or one per node")):
        with pytest.raises(ValueError, match=message):
            dev.training_seconds(machines, samples)


def test_subset_keeps_everything_of_a_node():
    machines = dev.fitted(300, 4, availability="strict")
    nodes = np.array([299, 3, 3])
    some = dev.subset(machines, nodes)
    assert_same(some, machines, nodes)
    np.testing.assert_array_equal(some.latency_seconds(0, 1), machines.latency_seconds(299, 3))


def test_arrays_are_copies_that_cannot_be_written():
    given = np.ones(2)
    machines = dev.from_arrays(given, given, given)
    given[0] = 7
    assert machines.seconds_per_sample[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        machines.seconds_per_sample[0] = 7


def test_summary_names_the_middle_of_everything_and_the_notes():
    machines = dev.uniform(3, seconds_per_sample=0.25, bytes_per_second=INF, latency_seconds=0.0125)
    machines = dev.with_availability(machines, availability([[(0, 1)]] * 3, [4] * 3))
    text = dev.summary(dataclasses.replace(machines, notes=("one entry was clipped",)))
    for part in ("uniform(3): 3 nodes in 1 cities", "/ 250 /", "/ inf /", "/ 12.5 /", "/ 25 /", "note: one entry was"):
        assert part in text
    assert "always" in dev.summary(dev.uniform(2))


DEVICES_FAULTS = {
    "compute NaN": ({"seconds_per_sample": np.array([1.0, np.nan])}, r"seconds_per_sample\[1\]=nan: must"),
    "compute negative": (
        {"seconds_per_sample": np.array([1.0, -2.0])},
        r"seconds_per_sample\[1\]=-2: must",
    ),
    "compute empty": ({"seconds_per_sample": np.zeros(0)}, "empty: a network needs at least one node"),
    "compute matrix": ({"seconds_per_sample": np.ones((2, 1))}, r"seconds_per_sample of shape \(2, 1\)"),
    "compute text": ({"seconds_per_sample": np.array(["1", "2"])}, "seconds_per_sample=.*must be finite numbers"),
    "upload zero": ({"upload_bytes_per_second": np.array([0.0, 1.0])}, r"upload.*\[0\]=0: must be numbers, above 0"),
    "download short": ({"download_bytes_per_second": np.ones(1)}, r"download.* of shape \(1,\)"),
    "latency oblong": ({"city_latency_seconds": np.ones((1, 2))}, r"latency_seconds of shape \(1, 2\): give \(c, c\)"),
    "latency infinite": ({"city_latency_seconds": np.full((1, 1), INF)}, r"latency_seconds\[0, 0\]=inf: must"),
    "city unknown": ({"city": np.array([0, 1])}, r"city\[1\]=1: must be whole numbers in 0 … 0"),
    "city fraction": ({"city": np.array([0.0, 0.0])}, "city=.*must be whole numbers"),
    "availability": ({"availability": HAND}, "availability of 4 devices for 2 nodes"),
}


@pytest.mark.parametrize("fault", DEVICES_FAULTS)
def test_devices_that_cannot_be_are_refused(fault):
    change, message = DEVICES_FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(dev.uniform(2), **change)


AVAILABILITY_FAULTS = {
    "negative": (([[(-1, 2)]], [9]), r"device 0, interval 0: \[-1, 2\) s begins before 0"),
    "NaN": (([[(0, np.nan)]], [9]), r"off_s\[0\]=nan: must"),
    "infinite": (([[(0, INF)]], [INF]), r"\[0, inf\) s must have finite times"),
    "swapped": (([[], [(0, 1), (5, 4)]], [9, 9]), r"device 1, interval 1: \[5, 4\) s must end after it begins"),
    "empty": (([[(3, 3)]], [9]), r"\[3, 3\) s must end after it begins: drop"),
    "overlapping": (([[(0, 3), (2, 5)]], [9]), r"interval 1: \[2, 5\) s begins before the previous one ends"),
    "unsorted": (([[(4, 5), (0, 1)]], [9]), r"interval 1: \[0, 1\) s begins before the previous one ends"),
    "beyond": (([[(4, 10)]], [9]), r"\[4, 10\) s ends beyond the period"),
    "period zero": (([[]], [0]), r"device \[0\]: period_s \[0\.\] must be positive"),
    "no device": (([], []), "at least one device"),
}


@pytest.mark.parametrize("fault", AVAILABILITY_FAULTS)
def test_intervals_that_cannot_be_are_refused(fault):
    rows, message = AVAILABILITY_FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        availability(*rows)


OFFSET_FAULTS = {
    "short": ([0, 1], "offsets has 2 entries for 2 devices"),
    "falls": ([0, 2, 1], r"offsets decrease after entry \[1\]"),
    "ends early": ([0, 1, 1], "offsets run from 0 to 1: they must run from 0 to the 2 intervals"),
    "fractions": ([0.0, 1.0, 2.0], "offsets=.*must be whole numbers"),
}


@pytest.mark.parametrize("fault", OFFSET_FAULTS)
def test_offsets_that_do_not_fit_are_refused(fault):
    offsets, message = OFFSET_FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        dev.Availability(np.array(offsets), np.array([0.0, 3.0]), np.array([1.0, 4.0]), np.array([9.0, 9.0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dev.uniform(0), "n=0: must be a whole number of at least 1; a network needs"),
        (lambda: dev.from_powers(()), r"powers is empty: a network needs at least one node"),
        (lambda: dev.from_powers((4, 0)), r"powers\[1\]=0: must be finite numbers, above 0; one relative speed per"),
        (lambda: dev.from_powers((-1.5, 1)), r"powers\[0\]=-1.5: must be finite numbers, above 0"),
        (lambda: dev.from_powers((1, np.nan)), r"powers\[1\]=nan: must be finite numbers, above 0"),
        (lambda: dev.from_powers((1, INF)), r"powers\[1\]=inf: must be finite numbers, above 0"),
        (lambda: dev.from_powers((1,), seconds_per_sample=-1), "seconds_per_sample=-1: must be a finite number"),
        (lambda: dev.from_powers((1,), bytes_per_second=0), "bytes_per_second=0: must be a number, above 0; infinite"),
        (lambda: dev.fitted(0, 1), "n=0: must be a whole number of at least 1; a network needs"),
        (lambda: dev.fitted(2, -1), "seed=-1"),
        (lambda: dev.online(dev.uniform(1), -0.5), "t=-0.5: must be a finite number of seconds"),
        (lambda: dev.online(devices_of(HAND), np.nan), "t=nan: must be a finite number of seconds"),
        (lambda: dev.transitions(dev.uniform(1), INF), "until_s=inf: must be a finite"),
        (lambda: dev.subset(dev.uniform(2), np.array([2])), r"nodes\[0\]=2: must be whole numbers in 0 … 1"),
        (lambda: dev.take(HAND, np.array([-1])), r"devices\[0\]=-1: must be whole numbers in 0 … 3"),
        (lambda: dev.take(HAND, np.array([], np.int64)), "devices is empty: name at least one"),
        (lambda: dev.from_sessions(*(np.array([k]) for k in (0, 0, -1, 9))), r"length_s\[0\]=-1: must"),
    ],
)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- relative powers --------------------------------------------------------------------------------------------------

POWERS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6)


def test_powers_are_speeds_relative_to_the_slowest():
    machines = dev.from_powers((4, 2, 2, 1), seconds_per_sample=1.0, bytes_per_second=INF, latency_seconds=0.25)
    assert machines.seconds_per_sample.tolist() == [0.25, 0.5, 0.5, 1.0]
    assert np.isinf(machines.upload_bytes_per_second).all()
    assert machines.latency_seconds(0, 3) == 0.25
    assert (machines.name, machines.availability) == ("from_powers(4, 2, 2, 1)", None)
    assert "4 nodes" in repr(machines)
    assert dev.from_powers(np.arange(1, 10)).name.endswith("8, …)")


@properties
@given(POWERS, st.floats(1e-9, 10.0))
def test_powers_times_their_seconds_are_the_same_for_all(powers, seconds):
    machines = dev.from_powers(powers, seconds_per_sample=seconds)
    # Two products and one division of float64.
    np.testing.assert_allclose(machines.seconds_per_sample * powers, seconds * min(powers), rtol=1e-15)
    doubled = dev.from_powers([2 * power for power in powers], seconds_per_sample=seconds)
    np.testing.assert_array_equal(doubled.seconds_per_sample, machines.seconds_per_sample)


def test_equal_powers_are_uniform_devices():
    given = {"seconds_per_sample": 0.2, "bytes_per_second": 5.0, "latency_seconds": 0.1}
    for arguments in ({}, given):
        assert_same(dev.from_powers([3, 3, 3], **arguments), dev.uniform(3, **arguments), np.arange(3))


# --- the generators ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "charging", "strict"])
def test_adding_nodes_changes_no_other_node(kind):
    few, many = (dev.fitted(PREFIX[size], 3, availability=kind) for size in ("n", "more"))
    assert_same(few, many, np.arange(PREFIX["n"]))
    other = dev.fitted(PREFIX["n"], 4, availability=kind)
    assert (few.seconds_per_sample != other.seconds_per_sample).any()
    assert (few.city_latency_seconds != other.city_latency_seconds).any()


def test_uniform_devices_are_equal():
    machines = dev.uniform(4, seconds_per_sample=0.5, bytes_per_second=10, latency_seconds=1)
    assert machines.seconds_per_sample.tolist() == [0.5] * 4
    assert machines.upload_bytes_per_second.tolist() == machines.download_bytes_per_second.tolist() == [10.0] * 4


def test_compute_has_the_law_of_the_table():
    """Chi-square of 20,000 draws over 72 values: mean 71, standard error sqrt(142)."""
    n = 20_000
    drawn = np.rint(1e3 * dev.fitted(n, 1).seconds_per_sample).astype(int)
    expected = n * np.array(_laws.COMPUTE_WEIGHTS) / 139
    counts = np.bincount(drawn, minlength=200)[list(_laws.COMPUTE_MS)]
    assert counts.sum() == n
    z = (((counts - expected) ** 2 / expected).sum() - 71) / np.sqrt(142)
    assert abs(z) < 4


def test_compute_and_bandwidth_are_independent_and_bandwidth_has_its_quantiles():
    n = 20_000
    machines = dev.fitted(n, 2)
    rho = stats.spearmanr(machines.seconds_per_sample, machines.upload_bytes_per_second)[0]
    assert abs(rho * np.sqrt(n - 1)) < 4  # under independence of mean 0 and standard error 1/sqrt(n - 1)
    for p, kbps in zip(*_laws.BANDWIDTH_KBPS, strict=True):
        below = (machines.upload_bytes_per_second < kbps * 128).mean()
        assert abs(below - p) <= 4 * np.sqrt(p * (1 - p) / n)


def test_latency_is_symmetric_and_a_city_is_near_itself():
    delay = dev.fitted(1, 5).city_latency_seconds
    assert delay.shape == (227, 227)
    np.testing.assert_array_equal(delay, delay.T)
    assert (np.diag(delay) == 2e-5).all()
    assert np.median(delay) > 100 * 2e-5
