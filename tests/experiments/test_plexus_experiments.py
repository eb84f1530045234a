"""The small parts of the experiments with Plexus: curves, targets, who crashes and joins, and what is predicted."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from plexus_runs import run, uneven
from problems import CURVATURE, TARGETS, D, N

from experiments import (
    plexus_churn,
    plexus_crash,
    plexus_join,
    plexus_round_duration,
    plexus_sample_size,
    plexus_vs_baselines,
)
from experiments.lib import curves, plexus_runs, problems
from figures.lib.plexus_curves import on_one_axis
from gossipjax import fedavg, replicate, simulate, systems
from gossipjax.tasks import quadratic
from gossipjax.types import NOBODY

# Interpolation rounds a few times on numbers near 1.
CLOSE = {"rtol": 1e-12, "atol": 0}


def curve(score, *, pace=1.0):
    """A run of which every record costs a second, ten bytes and three seconds of training, times its pace."""
    k = pace * np.arange(len(score), dtype=float)
    fields = {"score": np.asarray(score, float), "time": k, "bytes": 10 * k, "training": 3 * k}
    return xr.Dataset({name: ("record", values) for name, values in fields.items()})


@pytest.mark.parametrize("name", ["writers", "cifar10"])
def test_missing_files_are_replaced_by_the_embedded_digits(name, monkeypatch):
    """With a network that fits them, and the source says so."""

    def missing(*_, **__):
        raise problems.DataUnavailable("not here")

    monkeypatch.setattr(problems.tasks, "cifar10", missing)
    monkeypatch.setattr(problems.tasks, "mnist_by_writer", missing)
    given = problems.of_plexus(name, 20)
    assert "digits" in given.source
    assert given.parameters == 64 * 32 + 32 + 32 * 10 + 10


# Curves and targets


@pytest.mark.parametrize(
    ("score", "target", "higher", "seconds"),
    [
        ([0.0, 0.5, 1.0], 0.25, True, 0.5),
        ([0.0, 0.5, 1.0], 0.5, True, 1.0),
        ([0.0, 0.8, 0.1, 0.9], 0.4, True, 0.5),  # first reached, though lost again
        ([2.0, 1.0, 0.5], 0.75, False, 1.5),
        ([0.9, 1.0], 0.5, True, 0.0),
        ([0.0, 0.5, np.nan], 0.6, True, np.nan),
    ],
)
def test_costs_until_a_target(score, target, higher, seconds):
    found = curves.at_target(curve(score), target, higher)
    np.testing.assert_allclose(found["time"], seconds, **CLOSE)
    np.testing.assert_allclose([found["bytes"], found["training"]], [10 * seconds, 3 * seconds], **CLOSE)


def test_shorter_runs_end_where_they_end():
    both = curves.side_by_side([curve([1.0, 2.0, 3.0]), curve([4.0, 5.0])], xr.DataArray([0, 1], dims="seed"))
    assert both.sizes == {"seed": 2, "record": 3}
    assert np.isnan(both.score.values[1, 2])
    assert curves.last_known(both.score).values.tolist() == [3.0, 5.0]
    assert curves.last_known(both.time).values.tolist() == [2.0, 1.0]


def test_what_holds_until_the_next_time():
    read = curves.held(np.array([1.0, 2.0]), np.array([10, 20]), np.array([0.5, 1.0, 1.9, 2.0, 9.0]))
    np.testing.assert_array_equal(read, [np.nan, 10, 10, 20, 20])


def test_curves_on_one_axis():
    """Straight lines in the cost: read anywhere without error, up to the end of the shorter one."""
    costs = np.array([[0.0, 1.0, 2.0, 4.0], [0.0, 0.5, 3.0, np.nan]])
    x, mean, low, high = on_one_axis(costs, np.array([[1.0], [3.0]]) * costs)
    np.testing.assert_allclose([x[0], x[-1]], [1.0, 3.0], **CLOSE)
    np.testing.assert_allclose([mean, low, high], [2 * x, x, 3 * x], **CLOSE)


def test_lanes_that_nobody_uses_change_nothing():
    task = quadratic(TARGETS, curvature=CURVATURE, noise_std=0.5)
    plans = [run(uneven(N), sample_size=size, num_rounds=10, local_steps=2) for size in (3, 5)]
    few, many = (plan.timeline for plan in plans)
    widened = plexus_runs.pad_timelines([few, many])
    assert {k: v.shape for k, v in widened[0].xs.items()} == {k: v.shape for k, v in widened[1].xs.items()}
    assert widened[0].properties.num_slots == many.properties.num_slots > few.properties.num_slots
    assert np.count_nonzero(widened[0].xs["nodes"] != NOBODY) == np.count_nonzero(few.xs["nodes"] != NOBODY)
    x0, protocol = replicate(jnp.zeros(D), 1), fedavg(task, optax.sgd(0.1), local_steps=2)
    found = [
        simulate(jax.random.key(0), protocol, systems.stand_in(plan), x0, progress=False) for plan in (few, widened[0])
    ]
    # A sum over more lanes, the others zero, may be taken in another order.
    np.testing.assert_allclose(found[0].x, found[1].x, rtol=1e-12)


# Round durations


def test_bytes_of_a_round():
    """Two samples, three parameters, five nodes: four messages of 12 + 440 bytes, and 13 kB."""
    assert plexus_round_duration.formula(2, 3, 5) == 4 * 452 + 13_000


# Sample sizes


def sizes(scores):
    runs = [curves.side_by_side([curve(s, pace=k + 1)], xr.DataArray([0], dims="seed", name="seed")) for k, s in scores]
    along = xr.DataArray([4, 16], dims="sample_size", name="sample_size")
    return curves.side_by_side(runs, along).assign_attrs(higher_is_better=1)


def test_target_is_a_share_of_the_weakest_gain():
    dataset = sizes([(0, [0.2, 0.7, 1.2]), (3, [0.2, 1.2, 2.2])])
    assert plexus_sample_size.target_of(dataset) == pytest.approx(0.2 + 0.95 * 1.0, rel=1e-12)
    spent = plexus_sample_size.to_target(dataset)
    # 1.9 records of a second each, and 0.95 records of four seconds each.
    np.testing.assert_allclose(spent["time"][:, 0], [1.9, 3.8], **CLOSE)
    np.testing.assert_allclose(spent["bytes"][1] / spent["bytes"][0], [2.0], **CLOSE)


# Crashes


def test_five_nodes_crash_each_minute_until_eighty_are_gone():
    config = plexus_crash.QUICK
    made = plexus_crash.machines_of(config, "crashes", 3)
    times, nodes, joins = made.transitions(np.inf)
    assert np.unique(nodes).size == nodes.size == 80
    assert not joins.any()
    np.testing.assert_array_equal(np.unique(times), 300.0 + 60.0 * np.arange(16))
    assert (np.bincount((times / 60).astype(int))[5:] == 5).all()
    assert made.transitions(300.0)[0].size == 5
    few = plexus_crash.machines_of(config, "few from the start", 3)
    np.testing.assert_array_equal(np.flatnonzero(~few.online), np.sort(nodes))


def test_survival_of_a_single_aggregator_is_a_telescoping_product():
    """It is among five that crash of m = 100, 95, …, 25 with probability 5/m: ∏ (m − 5)/m = 20/100."""
    assert plexus_crash.estimate(plexus_crash.QUICK, 0, 0.8) == pytest.approx(0.2, rel=1e-12)
    alone = plexus_crash.QUICK._replace(sample_size=1)
    assert plexus_crash.estimate(alone, 1, 1.0) == pytest.approx(0.04, rel=1e-12)  # its one model, too
    shares = [plexus_crash.estimate(plexus_crash.QUICK, k, 0.5) for k in (1, 2, 3, 5)]
    assert shares == sorted(shares)


# Joins


def test_ten_nodes_join_one_a_minute():
    made = plexus_join.machines_of(plexus_join.QUICK, 1)
    times, nodes, joins = made.transitions(1e9)
    assert made.online.sum() == 90
    assert joins.all()
    np.testing.assert_array_equal(times, 60.0 * np.arange(1, 11))
    np.testing.assert_array_equal(np.sort(nodes), np.flatnonzero(~made.online))


def test_rounds_until_half_of_the_nodes_have_had_a_message():
    attrs = {"sample_size": 10, "num_nodes": 100}
    assert plexus_join.expected_rounds(attrs) == 7  # 1 − 0.9^6 < 1/2 < 1 − 0.9^7
    assert np.isnan(plexus_join.expected_rounds(attrs | {"sample_size": 9}))


def test_course_of_runs_with_crashes():
    """What is gained after minute 2, when the last node crashes, and missing to the others, in parts of 0.9."""
    along = xr.DataArray([0], dims="seed", name="seed")
    scores = {
        "no crash": [0.1, 0.7, 0.9, 1.0],
        "crashes": [0.1, 0.5, 0.6, 0.8],
        "few from the start": [0.1, 0.2, 0.3, 0.9],
    }
    runs = []
    for score in scores.values():
        minute = np.arange(4.0)
        online, rounds = ("minute", [100.0, 60.0, 20.0, 20.0]), ("minute", 10 * minute)
        run = curve(score, pace=60.0).assign(online=online, rounds=rounds).assign_coords(minute=minute)
        runs.append(curves.side_by_side([run], along))
    names = xr.DataArray(list(scores), dims="scenario", name="scenario")
    made = curves.side_by_side(runs, names).assign_attrs(higher_is_better=1)
    course = plexus_crash.course_of(made)
    np.testing.assert_allclose(np.ravel(course), [0.2 / 0.9, 0.2 / 0.9, 0.1 / 0.9, 1.0], **CLOSE)
    assert "; no verdict: +22.2 %" in plexus_crash._verdict(made)


def test_rounds_until_half_of_the_nodes_know():
    median = np.array([4.0, 4.0, 5.0, 5.0, 6.0])
    plan = types.SimpleNamespace(
        aggregation_s=np.array([30.0, 70.0, 90.0, 125.0, 150.0]),
        aggregation_round=np.array([1, 2, 3, 4, 5]),
        view_active=np.repeat(median[:, None], 4, axis=1),
    )
    rounds, seconds = plexus_join.until_known(plan, 4, 3)
    np.testing.assert_array_equal(rounds, [2.0, 2.0, np.nan])
    np.testing.assert_array_equal(seconds, [30.0, 30.0, np.nan])


def test_kept_plans_are_not_made_again(tmp_path, monkeypatch):
    config = plexus_join.QUICK._replace(num_nodes=30, num_joins=2, num_seeds=1, duration_s=150.0, keep=str(tmp_path))
    first = plexus_join.run(config)

    def planned(*_, **__):
        raise AssertionError("planned again")

    monkeypatch.setattr(systems, "plexus", planned)
    again = plexus_join.run(config)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name], err_msg=name)
    with pytest.raises(AssertionError, match="again"):
        plexus_join.run(config._replace(sample_size=9))


# Churn


def test_stretches_of_time():
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    found = plexus_churn._per_bin(np.array([0.0, 0.5, 2.5, 3.0]), np.array([1.0, 3.0, 5.0, 7.0]), edges, np.mean)
    np.testing.assert_array_equal(found, [2.0, np.nan, 6.0])


def test_a_round_ends_with_its_first_mean():
    plan = types.SimpleNamespace(
        aggregation_s=np.array([1.0, 3.0, 4.0, 4.5, 9.0]), aggregation_round=np.array([1, 2, 2, 1, 4])
    )
    times, seconds = plexus_churn.round_ends(plan)
    assert times.tolist() == [1.0, 3.0, 9.0]
    assert seconds.tolist() == [1.0, 2.0, 6.0]


# Baselines


def compared(scores, higher=1):
    names = ["Plexus", "FL", "D-PSGD one-peer", "gossip learning"]
    seed = xr.DataArray([0], dims="seed", name="seed")
    runs = [curves.side_by_side([curve(s, pace=pace)], seed) for s, pace in scores]
    found = curves.side_by_side(runs, xr.DataArray(names, dims="system", name="system"))
    return found.assign(higher_is_better=((), higher))


def test_target_is_the_best_score_of_the_best_baseline():
    gain = [0.0, 0.2, 0.4, 0.6]
    at = compared([(gain, 1.0), (gain, 1.0), ([0.0, 0.3, 0.5, 0.4], 6.0), ([0.0, 0.1, 0.2, 0.3], 9.0)])
    assert plexus_vs_baselines.best_baseline(at) == "D-PSGD one-peer"
    found = plexus_vs_baselines.ratios(at, "D-PSGD one-peer")
    for name in plexus_vs_baselines.RATIOS:  # two records of six seconds over 2.5 of one
        np.testing.assert_allclose(found[name], [12.0 / 2.5], **CLOSE)


def test_errors_are_better_when_smaller():
    fall = [3.0, 2.0, 1.0]
    at = compared([(fall, 1.0), (fall, 1.0), ([3.0, 2.8, 2.6], 1.0), ([3.0, 2.5, 1.5], 4.0)], higher=0)
    assert plexus_vs_baselines.best_baseline(at) == "gossip learning"
    np.testing.assert_allclose(plexus_vs_baselines.ratios(at, "gossip learning")["time"], [8.0 / 1.5], **CLOSE)


def test_ratios_follow_from_round_lengths():
    """Against what plans count: uniform phones, all models needed, a minute's round of D-PSGD."""
    part = plexus_vs_baselines.Part("digits", 20, 60, 1.0, 100_000, 20, 1)
    config = plexus_vs_baselines.QUICK._replace(sample_size=5, success_fraction=1.0)
    made = systems.machines(plexus_runs.devices.uniform(20))
    plan = plexus_vs_baselines.plexus_plan(part, config, made, 100_000, 0, server=False)
    names = {"num_nodes": 20, "model_bytes": 100_000}
    at = xr.Dataset({"round_seconds": ("system", [plan.end_s / 60])} | names, {"system": ["Plexus"]})
    attrs = {"sample_size": 5, "round_seconds": 60.0, "fanout": 7}
    found = plexus_vs_baselines.from_rounds(at, "D-PSGD one-peer", attrs)
    seconds = 3.0 * config.local_steps * 20 * made.seconds_per_sample[0]
    # Per simulated second, D-PSGD over Plexus; trainings of a first round more are under way at the end.
    training = (20 * seconds / 60) / (plan.training_seconds(plan.end_s) / plan.end_s)
    assert found["training"] == pytest.approx(training, rel=0.02)
    sent = (20 * 100_000 / 60) / (plan.total_bytes(plan.end_s) / plan.end_s)
    # An aggregator sends itself nothing: 2 s − 1 messages or fewer where the formula has 2 s = 10.
    assert found["bytes"] < sent < found["bytes"] * 10 / 8.3
    many = plexus_vs_baselines.from_rounds(at, "D-PSGD 10-regular", attrs)
    assert many["bytes"] == pytest.approx(10 * found["bytes"], rel=1e-12)
    some = plexus_vs_baselines.from_rounds(at, "epidemic", attrs)
    assert some["bytes"] == pytest.approx(7 * found["bytes"], rel=1e-12)


def test_no_ratio_where_the_target_is_the_start_or_missed():
    flat, low = [0.1, 0.1, 0.1], [0.1, 0.15, 0.15]
    at = compared([(low, 1.0), (low, 1.0), (flat, 1.0), ([0.1, 0.2, 0.3], 1.0)])
    assert np.isnan(plexus_vs_baselines.ratios(at, "D-PSGD one-peer")["time"]).all()
    assert (plexus_vs_baselines.ratios(at, "gossip learning")["bytes"] == 0).all()


def test_a_missed_target_supports_nothing():
    """In one seed of three the ratios of the others are shown, undecided; in all of them there is none."""
    low, high, slow = [0.1, 0.15, 0.15], [0.1, 0.3, 0.3], [0.1, 0.2, 0.3]
    for plexus, word in (((high, high, low), "undecided"), ((low, low, low), "contradicted")):
        seed = xr.DataArray([0, 1, 2], dims="seed", name="seed")
        runs = [curves.side_by_side([curve(s) for s in pair], seed) for pair in (plexus, (slow, slow, slow))]
        names = xr.DataArray(["Plexus", "D-PSGD one-peer"], dims="system", name="system")
        facts = {"higher_is_better": 1, "num_nodes": 20, "model_bytes": 1e6, "metric": "accuracy", "data": "made"}
        facts |= {"devices": "none", "trivial": '{"majority class": 0.1}'}
        at = curves.side_by_side(runs, names).assign({name: ((), value) for name, value in facts.items()})
        at = at.assign(round_seconds=(("system", "seed"), np.full((2, 3), 30.0)))
        task = xr.DataArray(["made"], dims="task", name="task")
        attrs = {"sample_size": 5, "round_seconds": 60.0, "fanout": 10}
        rows = plexus_vs_baselines.table(curves.side_by_side([at], task).assign_attrs(attrs))
        times = [row for row in rows if "TTA" in row.quantity]
        assert [f"; {word}: " in row.source for row in times] == [True] * (word == "undecided")
        missing = next(row for row in rows if "without a ratio" in row.quantity)
        assert missing.measured == plexus.count(low)
        assert f"sooner: {word}" in missing.source


@pytest.mark.parametrize("names", [("Plexus", "Chord"), ("Plexus", "FL"), ("gossip learning",)])
def test_systems_that_cannot_be_compared(names):
    with pytest.raises(ValueError, match="Plexus"):
        plexus_vs_baselines.run(plexus_vs_baselines.QUICK._replace(systems=names))
