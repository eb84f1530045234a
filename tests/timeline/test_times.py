"""Times are float64 on the host, from the planner to the record, whatever the loop computes in."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plans import PLANS, ROUNDS, still

from gossipjax import Info, Properties, Protocol, Requires, gossip_averaging, pack, simulate
from gossipjax import timeline as tl
from gossipjax.mixing import metropolis
from gossipjax.timeline import from_events
from gossipjax.topology import ring

KEY = jax.random.key(0)
W = metropolis(ring(4))


def recorded(plan, key=KEY, **given):
    rows = plan.properties.num_rows
    data = simulate(key, still(plan), plan, jnp.arange(float(rows)), progress=False, **given).dataset
    return data.event.values, data.time.values


@pytest.mark.parametrize(
    ("wanted", "events"), [([0.3, 0.6, 0.7], [0, 3, 6, 7, 10]), ([0.1], [0, 1, 10]), ([0.25, 0.95], [0, 2, 9, 10])]
)
def test_rounds_are_found_by_the_seconds_of_their_end(wanted, events):
    found, times = recorded(tl.rounds(W, 10, seconds_per_round=0.1), record_times=wanted)
    assert found.tolist() == events
    assert times.tolist() == [r * 0.1 for r in events]


@pytest.mark.parametrize("seconds", [0.1, 1 / 3, 0.001, 7.3, 1e5])
def test_a_thousand_rounds_are_each_found(seconds):
    """Whether their ends are multiplied, summed up, or rounded to float32 by the caller."""
    plan, every = tl.rounds(W, 1000, seconds_per_round=seconds), np.arange(1, 1001)
    for wanted in (
        [r * seconds for r in range(1, 1001)],
        np.cumsum(np.full(1000, seconds)),
        (every * seconds).astype(np.float32),
    ):
        events, times = recorded(plan, record_times=wanted)
        assert events.tolist() == list(range(1001))
        assert times.tolist() == [r * seconds for r in range(1001)]


@pytest.mark.parametrize("name", ROUNDS)
def test_rounds_of_all_builders_end_by_number(name):
    plan = ROUNDS[name](0.1)
    each = len(plan) // 40
    assert tl.event_times(plan)[::each].tolist() == [r * 0.1 for r in range(1, 41)]
    assert tl.event_times(plan[10 * each :])[0] == 11 * 0.1
    events, times = recorded(plan, record_times=[0.3, 0.6, 0.7, 2.1])
    assert (events // each).tolist() == [0, 3, 6, 7, 21, 40]
    assert times.tolist() == [r * 0.1 for r in (0, 3, 6, 7, 21, 40)]


@pytest.mark.parametrize("name", PLANS)
def test_planned_times_are_float64_and_those_of_the_loop(name, tmp_path):
    plan = PLANS[name](9.0)
    times = tl.event_times(plan)
    assert times.dtype == np.float64
    assert (np.diff(times) >= 0).all()
    assert len(times) == len(plan) > 5
    kept = tl.load(tl.save(plan, tmp_path / "plan.npz"))
    np.testing.assert_array_equal(tl.event_times(kept), times)
    _, seen = recorded(plan, record_every=1)
    np.testing.assert_array_equal(seen[1:], times)
    bare = dataclasses.replace(plan, seconds=None)  # read off the events: the loop's copies
    np.testing.assert_array_equal(tl.event_times(bare), times.astype(np.float32))
    middle = times[len(times) // 2]
    assert recorded(plan, record_times=[middle])[0][1] == np.searchsorted(times, middle, side="right")


def test_many_meetings_have_times_of_their_own():
    times = tl.event_times(tl.poisson_pairs(ring(1000), 2_000_000, seed=0))
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("start", [1e7, 1e9])
def test_a_tenth_of_a_second_is_seen_after_decades(start):
    time = start + 0.1 * np.arange(200)
    pair = np.tile([[0, 1]], (200, 1))
    fields = {"time": time, "nodes": pair[:, :1], "senders": pair, "receivers": pair[:, ::-1]}
    plan = from_events(fields, Properties(2, 2, "late"), shared={"weights": np.full(2, 0.5), "keep": np.full(2, 0.5)})
    events, times = recorded(plan, record_times=time[[3, 77, 150]])
    assert events.tolist() == [0, 4, 78, 151, 200]
    np.testing.assert_array_equal(times[1:-1], time[[3, 77, 150]])


@pytest.mark.slow
def test_times_do_not_depend_on_the_precision_of_jax():
    builders = PLANS["pushes in flight"], ROUNDS["fixed"], lambda rate: tl.drawn_pairs(4, 60, rate=rate)
    given = (9.0, 0.1, 0.7)
    wide = [recorded(build(number), record_times=[2.1, 3.0]) for build, number in zip(builders, given, strict=True)]
    with jax.enable_x64(False):
        for build, number, (events, times) in zip(builders, given, wide, strict=True):
            found, seen = recorded(build(number), record_times=[2.1, 3.0])
            np.testing.assert_array_equal(found, events)
            np.testing.assert_array_equal(seen, times)
            assert seen.dtype == np.float64


def test_packing_and_chunks_change_no_time():
    plan = tl.poisson_pairs(ring(16), 4000, seed=3)
    one, two = (recorded(plan, record_every=400, packing=way) for way in ("sequential", "packed"))
    np.testing.assert_array_equal(one[1], two[1])
    assert one[1][1:].tolist() == tl.event_times(plan)[399::400].tolist()
    wide = pack(plan, barrier_every=400)
    ends = tl.event_times(wide)[len(wide) // 10 - 1 :: len(wide) // 10]
    np.testing.assert_array_equal(ends, one[1][1:])
    with pytest.raises(ValueError, match=r"which is packed: .* not in the order of time"):
        recorded(wide, record_times=[1.0])


@pytest.mark.slow
def test_drawn_meetings_happen_at_their_mean_times_for_every_seed():
    plan = tl.drawn_pairs(8, 1000, rate=2.5)
    assert tl.event_times(plan).tolist() == [k / 20.0 for k in range(1, 1001)]
    runs = simulate(jax.random.split(KEY, 3), gossip_averaging(), plan, jnp.arange(8.0), record_times=[1.0, 7.35])
    assert runs.dataset.event.values.tolist() == [0, 20, 147, 1000]
    assert runs.dataset.time.values.tolist() == [0.0, 1.0, 7.35, 50.0]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([5.0, np.nan], r"record_times\[1\]=nan"),
        ([], "at least one"),
        ([2.0, 1.0], "increasing"),
        ([1.0, 1.0], "increasing"),
        ([-1.0, 2.0], r"record_times\[0\]=-1"),
        ([1.0, np.inf], r"record_times\[1\]=inf"),
        ([[1.0, 2.0]], "of shape"),
        ([0.05], "the first event of .* is at 1 s; begin there or later"),
    ],
)
def test_other_seconds_are_refused(wanted, message):
    unchecked = inspect.unwrap(simulate)  # the checked annotation would refuse some of them first
    with pytest.raises(ValueError, match=message):
        unchecked(KEY, gossip_averaging(), tl.rounds(W, 10), jnp.zeros(4), record_times=wanted)


def _breaks_at_six(key, state, event):
    del key
    return state, Info(finite=event.index[0] < 6)


def test_divergence_names_the_exact_second():
    protocol = Protocol(lambda key, x: x, _breaks_at_six, lambda x: x, Requires(mixing=False))
    plan = tl.rounds(W, 10, seconds_per_round=0.1)
    run = simulate(KEY, protocol, plan, jnp.zeros(4), throw=False, progress=False)
    assert (run.manifest["diverged"]["event"], run.manifest["diverged"]["time"]) == (6, 7 * 0.1)
