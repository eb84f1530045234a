"""HADFL on devices: against a replay with objects, exact times of rings and failures, and the laws of the ledger."""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hadfl_replay import Replay
from plexus_runs import network, uneven
from problems import exact_quadratic

import theory.hadfl
from gossipjax import hadfl as hadfl_protocol
from gossipjax import simulate, systems
from gossipjax.systems import HADFLCycle, HADFLFailures, HADFLMerging, HADFLSelection, HADFLSpeeds, activity, hadfl
from gossipjax.systems._activity import COMPLETED
from gossipjax.systems._hadfl import forecast as arithmetic
from gossipjax.systems._hadfl.tables import ABANDONED, AVERAGED, FRAGMENT, IDLE, OFFLINE, TOO_FEW

KEY, RATE, STEPS, MODEL = jax.random.key(5), 0.1, 3, 10_000
LEARN: dict[str, Any] = {"local_steps": STEPS, "model_bytes": MODEL, "seed": 2}
CLOSE = {"rtol": 0, "atol": 1e-12}  # some hundred sums of numbers near 1, in another order
ROUNDING = 1e-9  # float64 sums of some thousand seconds
DELAY = 0.0503
"""Seconds of a message, so that no two things happen at one time."""
_rng = np.random.default_rng(3)
X0, TARGETS = _rng.standard_normal((12, 3)), _rng.standard_normal((12, 3))
CURVATURE = _rng.uniform(0.5, 2.0, (12, 3))
ALL = HADFLSelection(count=4)


def four(powers=(4, 2, 2, 1), *, slowest=0.1, bandwidth=1e5, latency=0.05, **settings):
    """Devices of relative computing powers."""
    return network(4, seconds=slowest / np.asarray(powers), bandwidth=bandwidth, latency=latency, **settings)


def learned(plan, n=8):
    task = exact_quadratic(TARGETS[:n], CURVATURE[:n])
    protocol = hadfl_protocol(task, optax.sgd(RATE), local_steps=STEPS)
    x0 = jnp.asarray(np.concatenate([X0[:n], X0[:1]]))  # and the row of the last mean
    return simulate(KEY, protocol, systems.stand_in(plan), x0, record_every=len(plan.timeline), progress=False)


def trained(x, i):
    for _ in range(STEPS):
        x = x - RATE * CURVATURE[i] * (x - TARGETS[i])
    return x


def check_laws(plan, changes=()):
    """Nothing is lost without an account: seconds, models, bytes; and nobody waits for a broadcast."""
    history, found, traffic = plan.history, activity(plan), plan.timeline.properties.traffic
    np.testing.assert_allclose(history.node_seconds.sum(1), plan.end_s, rtol=ROUNDING)
    np.testing.assert_allclose(history.node_seconds[:, 0], plan.node_training_seconds, rtol=ROUNDING, atol=ROUNDING)
    rings = sum(2 * (int(row.sum()) - 1) for row in history.survivors if row.any())
    models = history.transfer_kind != FRAGMENT
    assert traffic.sent == rings + np.count_nonzero(models)
    assert traffic.delivered <= rings + np.count_nonzero(models & (found.state == COMPLETED))
    assert traffic.sent == traffic.delivered + traffic.dropped + traffic.superseded + traffic.in_flight
    assert (found.sent_bytes[models & (found.state == COMPLETED)] == MODEL).all()
    assert (found.sent_bytes <= MODEL).all()
    assert plan.total_bytes(plan.end_s) == pytest.approx(found.sent_bytes.sum(), rel=1e-12)
    open_rings = [c for c, outcome in enumerate(history.outcomes) if outcome == "under way"]
    assert open_rings in ([], [len(history.outcomes) - 1]) or history.outcomes[open_rings[0] + 1 :].count(
        "skipped"
    ) == (len(history.outcomes) - 1 - open_rings[0])
    check_pauses(history, found, changes)


def check_pauses(history, found, changes):
    """Every pause between two trainings is a ring, an idle time, or an absence."""
    order = np.lexsort((found.training_start_s, found.training_node))
    node, start, end = (column[order] for column in (found.training_node, found.training_start_s, found.training_end_s))
    for k in np.flatnonzero((node[1:] == node[:-1]) & (start[1:] > end[:-1] + ROUNDING)):
        mine = history.span_node == node[k]
        spans = [*zip(history.span_start_s[mine], history.span_end_s[mine], strict=True)]
        times = [t for t, i, _ in changes if i == node[k]]
        spans += list(zip(times[::2], [*times[1::2], np.inf], strict=False))
        covered = sum(max(0.0, min(last, start[k + 1]) - max(first, end[k])) for first, last in spans)
        assert covered == pytest.approx(start[k + 1] - end[k], rel=1e-6)


SLOWEST = {"slowest": 0.1, "latency": DELAY}
VARIED = HADFLSpeeds(jitter=0.3, drift=0.1)
REPLAYS = {
    "four": (4, four(**SLOWEST), [], {}),
    "jitter": (4, four(**SLOWEST), [], {"speeds": VARIED}),
    "weights by version": (4, four(**SLOWEST), [], {"merging": HADFLMerging("version", "max"), "speeds": VARIED}),
    "a ring of twelve": (12, uneven(12, latency=DELAY), [], {"selection": HADFLSelection(count=12), "speeds": VARIED}),
}


def with_failures(seed, recovery):
    """Six devices that come and go."""
    rng, changes = np.random.default_rng(seed), []
    for node in range(6):
        times = np.sort(rng.uniform(1.0, 50.0, 4))
        changes += [(float(t), node, bool(k % 2)) for k, t in enumerate(times)]
    failures = HADFLFailures(timeout_s=0.31, handshake_s=0.23, recovery=recovery)
    settings = {"failures": failures, "selection": HADFLSelection(count=3), "speeds": VARIED, "seed": seed}
    return 6, uneven(6, seed, latency=DELAY, changes=changes), changes, settings


REPLAYS |= {
    f"failures {seed}, {recovery}": with_failures(seed, recovery)
    for seed in range(4)
    for recovery in ("backup", "broadcast")
}


@pytest.mark.parametrize("name", REPLAYS)
def test_models_and_versions_are_those_of_a_replay(name):
    n, devices, changes, settings = REPLAYS[name]
    plan = hadfl(devices, 60.0, **(LEARN | settings))
    check_laws(plan, changes)
    merging, failures = settings.get("merging", HADFLMerging()), settings.get("failures", HADFLFailures())
    again = Replay(plan, [*X0[:n]], trained, DELAY, changes, merging.beta, merging.ring_version, failures.recovery)
    run = learned(plan, n)
    np.testing.assert_allclose(run.x[:n], again.models, **CLOSE)
    np.testing.assert_allclose(run.x[n], again.means[-1][0], **CLOSE)
    assert run["messages_sent"][-1] == plan.timeline.properties.traffic.sent
    history = plan.history
    for c, decided in enumerate(history.cycle_decided_s):
        for i in np.flatnonzero(~np.isnan(history.versions[c])):
            assert history.versions[c, i] == pytest.approx(again.known(i, decided), rel=1e-12)  # sums of a few floats


def test_forecasts_and_probabilities_of_a_run_are_the_formulas():
    plan = hadfl(four(), 60.0, speeds=VARIED, selection=HADFLSelection(alpha=0.3, quantile=0.6), **LEARN)
    history = plan.history
    for i in range(4):
        expected = theory.hadfl.brown_forecast(history.versions[:, i], 0.3)
        np.testing.assert_allclose(history.forecasts[:, i], expected, rtol=1e-12)
    for forecasts, probabilities in zip(history.forecasts, history.probabilities, strict=True):
        if probabilities.any():
            expected = theory.hadfl.selection_probabilities(forecasts, quantile=0.6)
            np.testing.assert_allclose(probabilities, expected, rtol=1e-9)


@pytest.mark.parametrize("bandwidth", [np.inf, 1e6, 2e4])
@pytest.mark.parametrize("latency", [0.0, 0.05])
def test_nobody_who_lives_is_left_out(bandwidth, latency):
    """On free, fast and slow networks, also where answers and the end of the handshake fall on one instant."""
    devices = four(bandwidth=bandwidth, latency=latency)
    for failures in (HADFLFailures(), HADFLFailures(timeout_s=0.05, handshake_s=0.100001)):
        plan = hadfl(devices, 60.0, speeds=HADFLSpeeds(jitter=0.5), selection=ALL, failures=failures, **LEARN)
        history = plan.history
        assert history.cycle_bypassed.sum() == 0
        assert {"averaged"} <= set(history.outcomes) <= {"averaged", "skipped", "under way"}


def test_orders_that_come_late_make_the_ring_later():
    """T_sync is shorter than the way of an order to one device."""
    slow = np.full((4, 4), 0.01)
    slow[0, 3] = slow[3, 0] = 0.6
    cycle, failures = HADFLCycle(sync_s=0.2, cadence="after_ring"), HADFLFailures(timeout_s=0.05, handshake_s=1.3)
    for seed in range(5):
        plan = hadfl(
            four(latency=slow), 20.0, cycle=cycle, failures=failures, selection=ALL, **(LEARN | {"seed": seed})
        )
        assert plan.history.cycle_bypassed.sum() == 0
        assert plan.round_end_s.size > 3


def test_a_device_that_returns_in_the_warm_up_is_counted():
    changes = [(0.35, 0, False), (0.6, 0, True)]
    plan = hadfl(network(2, seconds=[0.03, 0.1], changes=changes), 60.0, **LEARN)
    assert plan.round_end_s.size > 20
    assert plan.history.node_seconds[:, IDLE].max() < 5.0


@pytest.mark.parametrize(("cadence", "latency"), [("clock", 0.01), ("after_ring", 0.01), ("after_ring", 0.0)])
def test_equal_speeds_and_all_in_the_ring_is_decentralized_fedavg(cadence, latency):
    """A cycle of two units each, then the exact mean. On the clock: while all rings together take less than a unit."""
    devices = network(4, seconds=0.1, bandwidth=1e6, latency=latency)
    cycle = HADFLCycle(hyperperiods=2, cadence=cadence)
    plan = hadfl(devices, 22.0, cycle=cycle, selection=ALL, **LEARN)
    rounds = plan.round_end_s.size
    assert rounds > 9
    x = np.array([trained(X0[i], i) for i in range(4)])  # the warm-up
    for _ in range(rounds):
        for _ in range(2):
            x = np.array([trained(x[i], i) for i in range(4)])
        x = np.broadcast_to(x.mean(0), x.shape)
    ended = activity(plan).training_end_s
    for node in range(4):
        mine = ended[(activity(plan).training_node == node) & activity(plan).training_completed]
        for _ in range(np.count_nonzero((mine > plan.round_end_s[-1]) & (mine < plan.end_s))):
            x = np.array([trained(x[i], i) if i == node else x[i] for i in range(4)])
    np.testing.assert_allclose(learned(plan, 4).x[:4], x, **CLOSE)


@pytest.mark.parametrize(("powers", "units"), [((4, 2, 2, 1), [4, 2, 2, 1]), ((3, 3, 1, 1), [3, 3, 1, 1])])
def test_whole_units_fill_a_cycle(powers, units):
    history = hadfl(four(powers), 30.0, **LEARN).history
    assert history.units_per_cycle.tolist() == units
    np.testing.assert_allclose(history.units_per_cycle * history.measured_s, history.sync_s, rtol=1e-12)
    assert history.hyperperiod_s == pytest.approx(3 * STEPS * 0.1, rel=1e-12)


def test_hyperperiods():
    seconds = np.array([1.0, 1.5, 0.5])
    assert arithmetic.hyperperiod(seconds, 8, 4.0) == 3.0
    assert arithmetic.hyperperiod(np.array([0.3, 0.3 * (1 + 1e-3)]), 8, 4.0) == 0.3
    assert arithmetic.whole_units(3.0, np.array([1.0, 1.5, 0.5, np.nan])).tolist() == [3, 2, 6, 0]


def test_a_hyperperiod_that_is_too_long_is_a_unit_of_the_slowest():
    devices = network(3, seconds=[0.1, 0.13, 0.17])
    history = hadfl(devices, 30.0, cycle=HADFLCycle(), **LEARN).history
    assert history.hyperperiod_s == np.inf
    assert history.sync_s == pytest.approx(9 * 0.17, rel=1e-12)
    assert history.units_per_cycle.tolist() == [1, 1, 1]


FORECASTS = {0.3: [6.4, 10.12, 14.512, 19.198], 0.5: [8, 13, 18, 22.75], 0.8: [10.4, 15.52, 19.872, 23.968]}


@pytest.mark.parametrize("alpha", FORECASTS)
def test_forecasts_of_a_linear_version(alpha):
    """The vectors of the specification, to their last digit; and a linear sequence is learned."""
    state, found = arithmetic.start_smoothing(1), []
    for version in (4, 8, 12, 16, 20):
        state = arithmetic.observe(state, np.array([float(version)]), alpha)
        found.append(float(arithmetic.forecast(state, alpha)[0]))
    np.testing.assert_allclose(found[1:], FORECASTS[alpha], rtol=0, atol=5e-4)
    for version in range(24, 4 * 200, 4):
        state = arithmetic.observe(state, np.array([float(version)]), alpha)
    assert abs(arithmetic.forecast(state, alpha)[0] - (version + 4)) < 1e-9  # float64 at 800


def test_a_device_that_is_not_observed_keeps_its_forecast():
    state = arithmetic.observe(arithmetic.start_smoothing(3), np.array([1.0, 2.0, np.nan]), 0.5)
    later = arithmetic.observe(state, np.array([3.0, np.nan, 5.0]), 0.5)
    assert later.first.tolist() == [2.0, 2.0, 5.0]
    assert np.isnan(state.first[2])


def test_probabilities_of_selection():
    """The vectors of the specification; raw versions degenerate."""
    for scale in (1.0, 7.0, 1e6):
        weights = np.exp(arithmetic.log_weights(scale * np.array([4.0, 2.0, 2.0, 1.0]), 0.75, "std"))
        np.testing.assert_allclose(weights, [0.1505, 0.3495, 0.3495, 0.1505], atol=5e-5)
        weights = np.exp(arithmetic.log_weights(scale * np.array([3.0, 3.0, 1.0, 1.0]), 0.75, "std"))
        np.testing.assert_allclose(weights, [0.4404, 0.4404, 0.0596, 0.0596], atol=5e-5)
    raw = np.exp(arithmetic.log_weights(np.array([40.0, 20.0, 20.0, 10.0]), 0.75, "unit"))
    np.testing.assert_allclose(raw, [0, 0.5, 0.5, 0], atol=1e-9)
    far = np.exp(arithmetic.log_weights(np.array([0.0, 1e9, 2e9]), 0.75, "unit"))  # nothing underflows to 0/0
    assert far.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.exp(arithmetic.log_weights(np.full(5, 3.0), 0.75, "std")), 0.2)


@pytest.mark.parametrize(
    ("versions", "inclusion"),
    [([4.0, 2, 2, 1], [0.339, 0.661, 0.661, 0.339]), ([3.0, 3, 1, 1], [0.8428, 0.8428, 0.1572, 0.1572])],
)
def test_frequencies_of_selection(versions, inclusion):
    """10⁴ draws of two: within three standard errors of the exact probabilities."""
    rng, logs = np.random.default_rng(0), arithmetic.log_weights(np.array(versions), 0.75, "std")
    draws = np.concatenate([arithmetic.draw(rng, logs, 2) for _ in range(10_000)])
    found = np.bincount(draws, minlength=4) / 10_000
    error = np.sqrt(np.array(inclusion) * (1 - np.array(inclusion)) / 10_000)
    assert (abs(found - inclusion) < 3 * error + 5e-4).all()  # the vectors have four digits


def test_a_ring_ends_when_its_last_fragment_comes():
    """2 (M − 1) (L + S/(M B)) after the last member has finished its unit; the others wait."""
    latency, rate = 0.05, 1e5
    plan = hadfl(four(latency=latency, bandwidth=rate), 40.0, selection=HADFLSelection(count=3), **LEARN)
    history, found = plan.history, activity(plan)
    rings = np.flatnonzero(history.cycle_outcome == AVERAGED)
    assert rings.size > 5
    undisturbed = 0
    for c in rings:
        members = np.flatnonzero(history.selected[c])
        ready = []
        for i in members:
            ends = found.training_end_s[(found.training_node == i) & found.training_completed]
            ready.append(ends[ends <= history.cycle_end_s[c]].max())
        busy = (found.asked_s < history.cycle_end_s[c]) & (found.ended_s > min(ready))
        busy &= (history.transfer_kind != FRAGMENT) & np.isin(found.sender, members)
        if busy.any():
            continue  # a broadcast or a backup has a share of the bandwidth
        undisturbed += 1
        expected = max(ready) + 4 * (latency + MODEL / 3 / rate)
        assert history.cycle_end_s[c] == pytest.approx(expected, rel=1e-9)
    assert undisturbed > 2


def first_ring(plan):
    """Members, and the seconds at which fragments are asked for and arrive, of the first ring."""
    history, found = plan.history, activity(plan)
    inside = (history.transfer_kind == FRAGMENT) & (found.asked_s <= history.cycle_end_s[0])
    return np.flatnonzero(history.selected[0]), np.unique(
        np.concatenate([found.asked_s[inside], found.ended_s[inside]])
    )


FAST = HADFLFailures(timeout_s=0.4, handshake_s=0.2)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_member_that_dies_at_any_step_costs_one_bounded_delay(count):
    """Every member, before the first ring and between any two moments at which a fragment leaves or comes."""
    given = LEARN | {"selection": HADFLSelection(count=count), "failures": FAST}
    plan = hadfl(four(), 7.0, **given)
    members, moments = first_ring(plan)
    end, sync = plan.history.cycle_end_s[0], plan.history.cycle_sync_s[0]
    ring = {"model_bytes": MODEL, "bytes_per_second": 1e5, "latency_s": 0.05}
    whole = theory.hadfl.cycle_seconds_bound(count, 1, timeout_s=FAST.timeout_s, handshake_s=FAST.handshake_s, **ring)
    bound = whole - theory.hadfl.ring_seconds(count, **ring)  # survivors come when they would have come
    abandoned = 0
    for member in members:
        for moment in [sync - 0.2, *((moments[1:] + moments[:-1]) / 2)]:
            death = [(moment, member, False)]
            dead = hadfl(four(changes=death), 7.0, **given)
            check_laws(dead, death)
            history = dead.history
            assert np.isfinite(history.cycle_end_s[0])
            assert history.cycle_end_s[0] <= end + bound
            assert history.cycle_bypassed[0] <= 1
            survivors = history.survivors[0].sum()
            if history.cycle_outcome[0] == AVERAGED:
                assert survivors in (count, count - 1)
                assert survivors == count or not history.survivors[0, member]
            else:
                assert (count, history.cycle_outcome[0]) == (2, ABANDONED)
                abandoned += 1
    assert (abandoned > 0) == (count == 2)


@pytest.mark.parametrize("recovery", ["backup", "broadcast"])
def test_a_device_that_comes_back_begins_from_a_mean(recovery):
    changes = [(5.0, 0, False), (9.0, 0, True)]
    plan = hadfl(four(changes=changes), 30.0, failures=HADFLFailures(recovery=recovery), **LEARN)
    check_laws(plan, changes)
    history, found = plan.history, activity(plan)
    assert history.node_seconds[0, OFFLINE] == pytest.approx(4.0)
    idle = (history.span_node == 0) & (history.span_state == IDLE) & (history.span_start_s == 9.0)
    assert idle.sum() == 1
    back = float(history.span_end_s[idle][0])
    took = found.mean_s[(found.mean_node == 0) & (found.mean_s == back)]
    assert took.size == 1
    starts = found.training_start_s[found.training_node == 0]
    assert not ((starts > 5.0) & (starts < back)).any()
    assert (starts == back).any()
    if recovery == "backup":  # the request, the model, and its latency
        assert back == pytest.approx(9.0 + 0.05 + MODEL / 1e5 + 0.05, rel=1e-9)


def test_a_coordinator_that_fails_leaves_devices_alone():
    plan = hadfl(four(), 30.0, coordinator_fails_s=10.0, **LEARN)
    check_laws(plan)
    assert "the coordinator failed at 10 s" in plan.history.report
    assert (plan.history.cycle_decided_s < 10.0).all()
    assert plan.round_end_s.size > 2
    training = activity(plan)
    assert (np.bincount(training.training_node[training.training_start_s > 15.0], minlength=4) > 5).all()


def test_without_a_strategy_the_plan_says_so():
    early = hadfl(four(), 20.0, coordinator_fails_s=0.5, **LEARN)
    dead = hadfl(four(changes=[(0.01, i, False) for i in range(4)]), 20.0, **LEARN)
    alone = hadfl(four(online=[True, False, False, False]), 20.0, **LEARN)
    for plan in (early, dead, alone):
        assert "no strategy" in plan.history.report
        assert plan.round_end_s.size == 0
        learned(plan, 4)


def test_all_devices_dead_is_no_hang():
    changes = [(8.0, i, False) for i in range(4)]
    plan = hadfl(four(changes=changes), 60.0, **LEARN)
    check_laws(plan, changes)
    late = plan.history.cycle_decided_s > 9.0
    assert late.sum() > 10
    assert (plan.history.cycle_outcome[late] == TOO_FEW).all()


def test_fewer_living_than_members_is_a_smaller_ring():
    changes = [(6.0, 0, False), (6.0, 3, False)]
    plan = hadfl(four(changes=changes), 30.0, selection=ALL, **LEARN)
    check_laws(plan, changes)
    history = plan.history
    late = (history.cycle_decided_s > 7.0) & (history.cycle_outcome == AVERAGED)
    assert late.sum() > 3
    assert (history.survivors[late] == [False, True, True, False]).all()


@pytest.mark.parametrize("seed", range(12))
def test_devices_that_come_and_go(seed):
    """Random absences, options and machines: all laws hold, and every ring ends within what its dead can cost."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    changes = []
    for node in range(n):
        times = np.sort(rng.uniform(0.0, 60.0, 2 * rng.integers(0, 4)))
        changes += [(t, node, bool(k % 2)) for k, t in enumerate(times.tolist())]
    count = int(rng.integers(2, n + 1))
    failures = HADFLFailures(timeout_s=0.5, handshake_s=0.7, recovery=("backup", "broadcast")[seed % 2])
    cycle = HADFLCycle(cadence=("clock", "after_ring")[seed // 2 % 2], hyperperiods=1 + seed % 3)
    plan = hadfl(
        uneven(n, seed, changes=changes),
        60.0,
        selection=HADFLSelection(count=count, alpha=rng.uniform(0.1, 0.9), scale=("std", "unit")[seed % 2]),
        merging=HADFLMerging(beta=(0.5, "version")[seed % 2], ring_version=("mean", "max")[seed // 3 % 2]),
        failures=failures,
        cycle=cycle,
        speeds=HADFLSpeeds(jitter=0.2, drift=0.1),
        bandwidth=("greedy", "fair", "unlimited")[seed % 3],
        **LEARN,
    )
    check_laws(plan, changes)
    history = plan.history
    began = np.maximum(history.cycle_sync_s, history.cycle_decided_s)
    seconds = (history.cycle_end_s - began)[np.isfinite(history.cycle_end_s)]
    unit, step = 9 * 0.2 * np.exp(1.5), 0.3 + MODEL / 2e4 * n  # generous: jitter and drift, n transfers at once
    worst = unit + count * (0.5 + 0.7 + 0.6 + 2 * (count - 1) * step)
    assert (seconds <= worst).all()
    task = exact_quadratic(TARGETS[:n], CURVATURE[:n])
    assert np.isfinite(learned(plan, task.num_nodes).x).all()


def test_plans_of_one_seed_are_equal_and_of_others_not():
    plans = [hadfl(uneven(6), 40.0, speeds=HADFLSpeeds(jitter=0.1), **LEARN | {"seed": seed}) for seed in (0, 0, 1)]
    selected = [plan.history.selected for plan in plans]
    np.testing.assert_array_equal(selected[0], selected[1])
    assert not np.array_equal(selected[0], selected[2])


BAD = [
    ({"selection": HADFLSelection(count=5)}, ValueError, "selection.count=5: .* 2 … 4"),
    ({"selection": None}, TypeError, "selection=None"),
    ({"cycle": 3}, TypeError, "cycle=3"),
    ({"failures": HADFLFailures(handshake_s=0.05)}, ValueError, "handshake_s=0.05: the longest round trip takes 0.1 s"),
    ({"coordinator_at": 4}, ValueError, "coordinator_at=4"),
    ({"local_steps": 0}, ValueError, "local_steps=0"),
    ({"bandwidth": "most"}, ValueError, "bandwidth='most'"),
    ({"duration_s": 0.0}, ValueError, "duration_s=0"),
]


@pytest.mark.parametrize(("change", "kind", "words"), BAD)
def test_wrong_settings_are_refused(change, kind, words):
    with pytest.raises(kind, match=words):
        inspect.unwrap(hadfl)(**{"devices": four(), "duration_s": 20.0, **LEARN, **change})


GROUPS = [
    (HADFLSelection, {"count": 1}, "count=1"),
    (HADFLSelection, {"alpha": 1.0}, "alpha=1"),
    (HADFLSelection, {"quantile": 1.5}, "quantile=1.5"),
    (HADFLSelection, {"scale": "raw"}, "scale='raw'"),
    (HADFLCycle, {"hyperperiods": 0}, "hyperperiods=0"),
    (HADFLCycle, {"sync_s": -1.0}, "sync_s=-1"),
    (HADFLCycle, {"cadence": "often"}, "cadence='often'"),
    (HADFLCycle, {"max_hyperperiod": 0.5}, "max_hyperperiod=0.5"),
    (HADFLMerging, {"beta": 0.0}, "beta=0"),
    (HADFLMerging, {"beta": "half"}, "beta='half'"),
    (HADFLMerging, {"ring_version": "min"}, "ring_version='min'"),
    (HADFLFailures, {"timeout_s": 0.0}, "timeout_s=0"),
    (HADFLFailures, {"recovery": "none"}, "recovery='none'"),
    (HADFLSpeeds, {"jitter": -0.1}, "jitter=-0.1"),
]


@pytest.mark.parametrize(("group", "change", "words"), GROUPS)
def test_wrong_options_are_refused(group, change, words):
    made = object.__new__(group)  # without the types, which forbid some of these values
    for field in dataclasses.fields(group):
        object.__setattr__(made, field.name, change.get(field.name, field.default))
    with pytest.raises(ValueError, match=words):
        group.__post_init__(made)


def test_one_device_and_a_power_of_zero_are_refused():
    with pytest.raises(ValueError, match="HADFL needs two"):
        hadfl(network(1), 20.0, **LEARN)
    with pytest.raises(ValueError, match="seconds_per_sample"):
        hadfl(network(2, seconds=[0.1, 0.0]), 20.0, **LEARN)


def test_devices_that_all_wait_for_a_broadcast_begin_again():
    """All are away at once after the first rings: nobody is left to broadcast."""
    changes = [(6.0 + 0.01 * i, i, False) for i in range(4)]
    changes += [(8.0 + 0.01 * i, i, True) for i in range(4)]
    plan = hadfl(four(changes=changes), 40.0, failures=HADFLFailures(recovery="broadcast"), **LEARN)
    check_laws(plan, changes)
    assert (plan.round_end_s > 15.0).sum() > 5


@pytest.mark.slow
def test_drift_is_a_walk_in_time():
    """The variance of the logarithm grows by δ² in a unit of the slowest device, within three standard errors."""
    n, drift, seconds = 200, 0.05, 45.0
    plan = hadfl(
        network(n, seconds=0.1 / 3), seconds, local_steps=1, model_bytes=10, seed=0, speeds=HADFLSpeeds(drift=drift)
    )
    found, logs = activity(plan), np.zeros(n)
    for i in range(n):
        mine = np.flatnonzero((found.training_node == i) & found.training_completed)[-1]
        logs[i] = np.log((found.training_end_s - found.training_start_s)[mine] / 0.1)
    assert logs.std() == pytest.approx(drift * np.sqrt(seconds / 0.1), rel=3 / np.sqrt(2 * n))


TOO_MUCH = [
    ({"cycle": HADFLCycle(sync_s=1e-300)}, "sync_s=1e-300: about .* synchronisations"),
    ({"failures": HADFLFailures(timeout_s=1e-300, handshake_s=1.0)}, "timeout_s=1e-300: less than a millionth"),
    ({"speeds": HADFLSpeeds(jitter=4.0, drift=4.0), "duration_s": 60.0}, "jitter=4.0, drift=4.0.*: more than"),
    ({"model_bytes": 10**400}, "model_bytes="),
    ({"duration_s": 1e308}, "duration_s=1e.308"),
]


@pytest.mark.parametrize(("change", "words"), TOO_MUCH)
@pytest.mark.filterwarnings("error")
def test_plans_without_end_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        hadfl(**{"devices": four(), "duration_s": 600.0, **LEARN, **change})
