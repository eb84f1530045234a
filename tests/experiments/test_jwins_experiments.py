"""What the experiments on JWINS compute themselves: lengths, clocks, targets, padding, words."""

import json

import jax
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import jwins_accuracy_vs_bytes, jwins_dynamic_topology
from experiments.lib import sharing_schemes as schemes
from experiments.lib import store
from experiments.lib.asynchronous import barrier_ends
from experiments.lib.compressed import Network
from experiments.lib.curves import side_by_side
from experiments.lib.problems import of_jwins
from experiments.lib.sharing_schemes import FULL, JWINS, SAMPLING, SCHEMES, TOP_K
from gossipjax import topology
from gossipjax.compress import codes
from gossipjax.sharing._jwins import CUT_OFFS


def problem_of(scores, *, metric="accuracy", sent=(4.0, 1.5), clock=(10.0, 9.0), schemes_=(FULL, JWINS)):
    """Make the dataset of one problem; scores: ``(scheme, record, seed)``, bytes and seconds grow evenly."""
    scores = np.asarray(scores, float)
    count, records, seeds = scores.shape
    steps = np.linspace(0, 1, records)[None, :, None] * np.ones((count, 1, seeds))
    dims = ("scheme", "record", "seed", "statistic")
    return xr.Dataset(
        {
            "score": (dims, scores[..., None]),
            "node_bytes_sent": (dims, 1e6 * (np.asarray(sent)[:, None, None] * steps)[..., None]),
            "node_clock": (dims, (np.asarray(clock)[:, None, None] * steps)[..., None]),
            "event": ("record", np.arange(records) * 10),
            "metric": ((), metric),
            "higher_is_better": ((), int(metric == "accuracy")),
            "trivial": ((), json.dumps({"training mean": 2.0} if metric == "rmse" else {"majority class": 0.04})),
            "compute_seconds": ((), 0.1),
            "bytes_per_second": ((), 1e6),
        },
        coords={"scheme": list(schemes_), "statistic": ["mean"]},
    )


def ending(*finals, metric="accuracy", **more):
    """Full sharing, then JWINS: scores at the end of every seed."""
    ends = np.asarray(finals, float)
    start = 0.1 if metric == "accuracy" else 3.0
    return problem_of(np.stack([np.full_like(ends, start), ends], axis=1), metric=metric, **more)


def test_schemes_of_equal_bytes_have_equal_lengths_but_for_headers():
    d = 90_000
    means = {name: np.mean(SCHEMES[name].lengths(d)) for name in (SAMPLING, TOP_K, JWINS)}
    # A seed of 8 bytes, a header of 16, and a dozen more coefficients than parameters, in 131,000 bytes.
    np.testing.assert_allclose(list(means.values()), 4 * d * schemes.BUDGET, rtol=3e-4)
    # The ceiling is the saving with free positions; the abstract says up to 64 %.
    assert 0.634 < 1 - schemes.BUDGET < 1 - np.mean(CUT_OFFS)


def test_length_of_a_top_k_message_is_that_of_random_masks():
    d, count = 20_000, 60
    k = round(schemes.top_k_share(schemes.BUDGET) * d)
    rng = np.random.default_rng(0)
    masks = np.zeros((count, d), bool)
    for mask in masks:
        mask[rng.choice(d, k, replace=False)] = True
    found = np.asarray(jax.vmap(lambda mask: codes.message_bits(codes.Wire(), mask, 32))(masks), float) / 8
    error = found.std(ddof=1) / np.sqrt(count)
    (expected,) = SCHEMES[TOP_K].lengths(d)
    # The closed form is of independent positions and of a code for every index: the first has none, and k is rounded,
    # together up to two indices of five bytes.
    assert abs(found.mean() - expected) < 4 * error + 10


def test_rounds_of_equal_messages_last_as_long_as_one_node_needs():
    network = Network(8, 20, bytes_per_second=1000.0)
    # The same additions for every node; only the division at the end rounds.
    assert schemes.seconds_per_round(network, 0.5, (250.0,)) == pytest.approx(0.5 + 4 * 250 / 1000, rel=1e-12)


def test_on_a_complete_graph_everyone_waits_for_the_longest_message():
    network = Network(5, 4000, bytes_per_second=1.0)  # of degree 4, so complete
    chance, copies = 1 - 0.75**5, 4
    found = schemes.seconds_per_round(network, 0.0, (0.0, 0.0, 0.0, 1.0), copies=copies) / network.degree
    error = np.sqrt(chance * (1 - chance) / (network.num_rounds * copies))
    assert abs(found - chance) < 4 * error


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=30)
def test_barriers_agree_with_simulated_waiting_on_changing_graphs(seed, rounds, period):
    graphs = [topology.random_regular(7, 2, seed=number, tries=50) for number in range(period)]
    steps = np.random.default_rng(seed).random((rounds, 7, 2))
    clock = np.zeros((7, 2))
    for number in range(rounds):
        graph = graphs[number % period]
        done = clock + steps[number]
        heard = {i: [i] for i in range(7)}
        for s, r in zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True):
            heard[r].append(s)
        clock = np.stack([done[heard[i]].max(axis=0) for i in range(7)])
    # The same sums in the same order.
    np.testing.assert_array_equal(barrier_ends(graphs, steps)[-1], clock)


@pytest.mark.parametrize("metric", ["accuracy", "rmse"])
def test_target_and_its_cost_are_those_of_a_straight_line(metric):
    start, end = (0.2, 0.8) if metric == "accuracy" else (3.0, 1.0)
    line = start + (end - start) * np.linspace(0, 1, 5)
    slow = start + (end - start) * np.linspace(0, 0.9, 5)
    at = problem_of(np.stack([line, slow])[..., None].repeat(2, axis=-1), metric=metric)
    target = schemes.target_of(at)
    sign = 1 if metric == "accuracy" else -1
    assert target == pytest.approx(sign * (start + schemes.GAIN * (end - start)), rel=1e-12)  # rounding
    cost = schemes.cost_of(at, FULL, target)
    assert cost.reached
    # Rounding only, by one subtraction of near numbers.
    np.testing.assert_allclose(cost[1:], [schemes.GAIN * 40, schemes.GAIN * 4.0, schemes.GAIN * 10.0], rtol=1e-9)
    missed = schemes.cost_of(at, JWINS, target)
    assert not missed.reached
    np.testing.assert_allclose(missed[1:], [40, 1.5, 9.0], rtol=1e-12)  # rounding


def test_savings_and_waiting_are_ratios_of_totals():
    at = ending([0.9, 0.9], [0.9, 0.9])
    assert schemes.saving(at, JWINS) == pytest.approx(100 * (1 - 1.5 / 4), rel=1e-12)
    # Ten rounds; 0.1 s of training and 0.15 s of sending against 0.9 s of the clock.
    assert schemes.waiting(at, JWINS) == pytest.approx(0.9 / (0.1 + 0.15), rel=1e-12)


@pytest.mark.parametrize(
    ("finals", "more", "expected"),
    [
        (
            ([0.90, 0.91, 0.92], [0.90, 0.909, 0.918]),
            {},
            "reproduced: 62.5 % saved, similar within 1 point: reproduced",
        ),
        (([0.90] * 3, [0.99, 0.98, 0.97]), {}, "reproduced"),
        (([0.90, 0.91, 0.92], [0.80, 0.81, 0.82]), {}, "contradicted: 62.5 % saved"),
        (([0.90, 0.91, 0.92], [0.80, 0.91, 0.99]), {}, "undecided"),
        (([0.90, 0.91, 0.92], [0.90, 0.91, 0.92]), {"sent": (4.0, 2.0)}, "contradicted: 50.0 % saved, similar"),
        (([0.90, 0.91], [0.90, 0.91]), {}, "no verdict: 62.5 % saved"),
        (([0.105] * 3, [0.105] * 3), {}, "undecided: 62.5 % saved, but that full sharing itself gains more"),
        (([0.90] * 3, [0.9, 0.9, np.nan]), {}, "contradicted: 62.5 % saved, diverged"),
        (([1.00] * 3, [1.019] * 3), {"metric": "rmse"}, "reproduced: 62.5 % saved, similar within 2 %"),
        (([1.00] * 3, [1.03] * 3), {"metric": "rmse"}, "contradicted"),
        (([1.00] * 3, [0.90] * 3), {"metric": "rmse"}, "reproduced"),
    ],
)
def test_verdict_follows_from_the_interval_of_the_loss_and_the_saving(finals, more, expected):
    assert schemes.verdict(ending(*finals, **more)).startswith(expected)


@pytest.mark.parametrize(
    ("finals", "known", "metric", "untrained"),
    [
        ([0.60, 0.61, 0.62], {"majority class": 0.30}, "accuracy", False),
        ([0.60, 0.61, 0.62], {"majority class": 0.58}, "accuracy", True),  # ahead, but not by the margin
        ([0.90, 0.90, 0.91], {"training mean": 1.04, "user means": 0.94}, "rmse", False),
        ([0.93, 0.93, 0.94], {"training mean": 1.04, "user means": 0.94}, "rmse", True),
        ([0.90, 0.90, 0.91], {}, "rmse", True),
        ([0.90, 0.90], {"training mean": 1.04}, "rmse", False),  # two seeds give no verdict of any kind
    ],
)
def test_no_verdict_on_models_that_have_not_learned(finals, known, metric, untrained):
    at = ending(finals, finals, metric=metric)
    at["trivial"] = ((), json.dumps(known) if known else "")
    assert schemes.verdict(at).startswith("undecided") == untrained
    assert ("has not learned" in schemes.verdict(at)) == (untrained and bool(known))
    # Equal runs: JWINS is not ahead, unless nothing can be said.
    assert schemes.ahead(at, FULL).startswith("undecided") == untrained
    rows = schemes.trivial_rows("a", at)
    assert [row.measured for row in rows] == pytest.approx(
        [v * (100 if metric == "accuracy" else 1) for v in known.values()]
    )


def test_differences_are_printed_in_points_or_in_the_metric_and_worse_is_behind():
    better, worse = ending([0.9], [0.8]), ending([1.0], [1.2], metric="rmse")
    for at, factor, lost in ((better, 100.0, 10.0), (worse, 1.0, 0.2)):
        assert schemes.points(at)[0] == factor
        assert factor * schemes.behind(at, JWINS)[0] == pytest.approx(lost, rel=1e-9)  # rounding of a difference
    assert schemes.shown(worse, schemes.scores(worse, JWINS)[-1])[0] == pytest.approx(1.2, rel=1e-15)


def test_stacked_problems_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    parts = [problem_of(rng.random((2, *shape))) for shape in ((5, 3), (3, 1), (7, 2))]
    parts[1]["score"][dict(scheme=1)] = np.nan  # diverged: to be kept
    for number, one in enumerate(parts):  # as finished runs are: kept in files
        store.save(f"part{number}", one, {}, tmp_path)
    read = [store.load(f"part{number}", tmp_path).drop_attrs() for number in range(3)]
    joined = side_by_side(read, xr.DataArray(["a", "b", "c"], dims="task", name="task"))
    store.save("joined", joined, {}, tmp_path)
    joined = store.load("joined", tmp_path)
    assert joined.sizes["record"] == 7
    assert joined.sizes["seed"] == 3
    for name, expected in zip("abc", parts, strict=True):
        found = schemes.part(joined, task=name)
        for variable in ("score", "node_bytes_sent", "event"):
            ordered = found[variable].transpose(*expected[variable].dims)
            np.testing.assert_array_equal(ordered.values, expected[variable].values)


def test_choco_refuses_a_changing_graph_before_any_work():
    network = Network(8, 5, dynamic=True)
    assert "fixed" in jwins_dynamic_topology.refusal(of_jwins("digits", 8), network)


def test_schemes_are_checked_before_any_work():
    config = jwins_accuracy_vs_bytes.QUICK
    with pytest.raises(ValueError, match=r"'no such'.*choose among full sharing"):
        jwins_accuracy_vs_bytes.run(config._replace(schemes=(FULL, JWINS, "no such")))
    with pytest.raises(ValueError, match="add JWINS"):
        jwins_accuracy_vs_bytes.run(config._replace(schemes=(FULL,)))


def test_a_table_stands_even_where_full_sharing_gains_nothing():
    at = ending([0.05, 0.05], [0.04, 0.06])
    facts = {"predicted_megabytes": ("scheme", [4.0, 1.5]), "predicted_seconds": ("scheme", [1.0, 0.9])}
    joined = side_by_side([at.assign(facts)], xr.DataArray(["a"], dims="task", name="task"))
    rows = {row.quantity: row for row in jwins_accuracy_vs_bytes.table(joined)}
    assert rows["a: MB per node to target, full sharing"].measured == 0
    assert all(np.isfinite(row.measured) for row in rows.values())
