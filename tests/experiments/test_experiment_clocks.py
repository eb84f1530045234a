"""Helpers of the experiments on clocks: records at given seconds, barriers, waiting times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gossipjax as gj
from experiments import async_beats_sync_under_stragglers as stragglers
from experiments.lib.asynchronous import barrier_ends, run_each, settled_mean, z_score
from experiments.lib.curves import reached
from gossipjax import observe, timeline
from gossipjax.timeline import clocks
from gossipjax.types import NOBODY


def plans(count=3):
    return [timeline.push_gossip(5, 6.0, compute=clocks.poisson(1.0), gossip=2.0, seed=seed) for seed in range(count)]


def test_filled_plans_keep_every_event_in_its_interval():
    times = np.array([0.5, 2.0, 2.25, 5.0])
    made = plans()
    filled, width = timeline.align(made, times)
    assert {len(plan) for plan in filled} == {width * len(times)}
    for plan, full in zip(made, filled, strict=True):
        at = np.asarray(full.xs["time"])[:, 0]
        happens = (np.asarray(full.xs["nodes"])[:, 0] != NOBODY) | (np.asarray(full.xs["receivers"])[:, 0] != NOBODY)
        kept = np.asarray(plan.xs["time"])[:, 0] <= times[-1]
        for name, array in plan.xs.items():
            np.testing.assert_array_equal(np.asarray(full.xs[name])[happens], array[kept])
        interval = np.arange(len(at))[happens] // width
        # Times are kept in float32, edges are compared in float64.
        np.testing.assert_array_equal(interval, np.searchsorted(times, at[happens].astype(np.float64), side="left"))


def test_records_show_the_network_at_the_seconds_asked_for():
    """The models at a time are those after all events up to it, whatever else a plan is filled with."""
    times, x0 = np.array([1.0, 2.5, 6.0]), jnp.arange(5.0)
    made, keys = plans(), list(jax.random.split(jax.random.key(0), 3))
    found = run_each(gj.gossip_averaging(), made, times, x0, [observe.consensus_distance()], keys)
    for seed, (key, plan) in enumerate(zip(keys, made, strict=True)):
        for record, second in enumerate(times, start=1):
            events = int(np.searchsorted(plan.xs["time"][:, 0], second, side="right"))
            alone = gj.simulate(key, gj.gossip_averaging(), plan[:events], x0, observers=[observe.consensus_distance()])
            # The same operations in the same order, but compiled apart.
            expected = float(alone["consensus_distance"][-1])
            np.testing.assert_allclose(found.consensus_distance[record, seed], expected, rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 7))
def test_barriers_agree_with_simulated_waiting(seed, rounds, n):
    """Brute force: a node mixes when it and its neighbours have done their steps, and goes on at once."""
    rng = np.random.default_rng(seed)
    graph = gj.topology.ring(n) if n > 2 else gj.topology.complete(2)
    steps = rng.random((rounds, n))
    neighbors = {
        i: {i} | {int(s) for s, r in zip(graph.senders, graph.receivers, strict=True) if r == i} for i in range(n)
    }
    mixed = [0.0] * n
    for number in range(rounds):
        done = [mixed[i] + steps[number, i] for i in range(n)]
        mixed = [max(done[j] for j in neighbors[i]) for i in range(n)]
    # The same sums in the same order.
    np.testing.assert_array_equal(barrier_ends([graph], steps)[-1], mixed)
    everyone = barrier_ends(None, steps)
    np.testing.assert_allclose(everyone[:, 0], np.cumsum(steps.max(axis=1)), rtol=1e-12)  # another order of adding
    assert (everyone >= barrier_ends([graph], steps) - 1e-12).all()


def test_mean_longest_step_of_equal_devices_is_a_harmonic_number():
    """The largest of n exponentials has mean e H_n; all share the constant part."""
    config = stragglers.Config(num_nodes=12, shift=0.4, mean_extra=0.6)
    devices = stragglers.devices_of("no stragglers", config, 0)
    exact = 0.4 + 0.6 * sum(1 / k for k in range(1, 13))
    assert stragglers.mean_longest(devices, config) == pytest.approx(exact, rel=1e-6)  # trapezoids of 1e-3 s


def test_mean_longest_step_with_stragglers_agrees_with_drawn_steps():
    config = stragglers.Config(num_nodes=12)
    devices = stragglers.devices_of("stragglers", config, 0)
    longest = stragglers.step_seconds(devices, 20_000, 0).max(axis=1)
    error = longest.std(ddof=1) / np.sqrt(longest.size)
    assert abs(longest.mean() - stragglers.mean_longest(devices, config)) < 4 * error


def test_time_to_interpolates_between_records():
    time = np.array([0.0, 1.0, 3.0])
    assert reached(0.5, time, np.array([0.0, 0.25, 0.75])) == pytest.approx(2.0)
    assert reached(0.0, time, np.array([0.0, 0.25, 0.75])) == 0.0
    assert np.isnan(reached(0.8, time, np.array([0.0, 0.25, 0.75])))
    assert reached(0.5, time, np.array([0.0, 0.6, 0.1])) == pytest.approx(5 / 6)  # the first time counts


def test_scores_and_settled_means():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    error = np.std(values, ddof=1) / 2
    assert z_score(values, 2.0) == pytest.approx(0.5 / error)
    curve, times = np.arange(8.0).reshape(4, 2), np.arange(4.0)
    np.testing.assert_array_equal(settled_mean(curve, times, 2.0), [5.0, 6.0])
