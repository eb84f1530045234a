"""Every row compares at equal cost on the claimed axis, and says where this was not measured."""

import numpy as np
import pytest
from reviews import acted, bench, noisy, records, settled

from gossipjax.review import _claims, _correctness, _costs, _faults, _security, _tuning
from gossipjax.review._axes import Ran, cost, gain

ROWS = {
    3: _tuning.equal_tuning, 4: _claims.seeds_row, 5: _claims.topologies, 6: _claims.heterogeneity, 7: _claims.scale,
    8: _costs.costs_row, 10: _claims.node_level,
}  # fmt: skip


def costing(factor, lead):
    """The same curve at another price a round, with a lead that does not depend on it."""

    def act(contender, settings, place, seeds):
        ours = contender == "protocol"
        return records(noisy(contender, seeds, lead), sent=1000.0 * factor if ours else 1000.0)

    return act


@pytest.mark.parametrize("number", ROWS)
@pytest.mark.parametrize(("factor", "lead", "verdict"), [(0.1, -0.05, "pass"), (10.0, 0.05, "fail")])
def test_a_claim_at_equal_bytes_is_judged_at_equal_bytes_in_every_row(
    tmp_path, monkeypatch, number, factor, lead, verdict
):
    """A tenth of the bytes buys ten times the rounds; ten times the bytes a tenth."""
    monkeypatch.setattr(_tuning, "reads_the_test_split", lambda bench, tuned: False)
    monkeypatch.setattr(_claims, "SPLITS", _claims.SPLITS[:3])
    monkeypatch.setattr(_costs, "_wire", lambda bench: (True, "not probed"))
    of = acted(tmp_path, costing(factor, lead), claim="better than dpsgd at equal bytes",
               budget={"num_nodes": 16, "sizes": (16, 32), "row_seeds": 5, "samples": 1000})  # fmt: skip
    row = ROWS[number](of, settled(of))
    assert row.verdict == verdict, row


def test_faults_are_judged_at_equal_bytes(tmp_path):
    """Faults that make the protocol send ten times as much cost it most of its accuracy at equal bytes."""

    def act(contender, settings, place, seeds):
        dear = contender == "protocol" and place.fault == "churn"
        return records(noisy(contender, seeds), sent=10_000.0 if dear else 1000.0)

    found = {}
    for axis in ("bytes", "rounds"):
        of = acted(tmp_path, act, claim=f"better than dpsgd on torus at equal {axis}", budget={"row_seeds": 5})
        found[axis] = _faults.faults_row(of, settled(of))
    assert "loses more than dpsgd under churn" in found["bytes"].reason
    assert found["rounds"].verdict == "pass"
    assert "not shown to lose more" in found["rounds"].reason


def test_gains_at_equal_cost_by_hand(tmp_path):
    of = bench(tmp_path)
    one, two = (records(np.full((2, 9), end), sent=sent) for end, sent in ((0.8, 2000.0), (0.6, 1000.0)))
    ours, theirs = (Ran(of, name, {"step": 0.1}, of.main, each) for name, each in (("protocol", one), ("dpsgd", two)))
    np.testing.assert_allclose(gain(ours, theirs, None, "mean").values, 0.2)
    np.testing.assert_allclose(gain(ours, theirs, "rounds", "mean").values, 0.2)
    np.testing.assert_allclose(gain(ours, theirs, "bytes", "mean").values, 0.4 - 0.6, atol=1e-12)
    np.testing.assert_allclose(cost(ours, "rounds"), [0, 2, 4, 6, 8])


def silent(contender, settings, place, seeds):
    """A good protocol that reports no bytes."""
    return records(noisy(contender, seeds, 0.05), sent=np.nan if contender == "protocol" else 1000.0)


@pytest.mark.parametrize(("axis", "verdict"), [(" at equal bytes", "fail"), (" at equal rounds", "pass"),
                                               (" at equal seconds", "fail"), ("", "not applicable")])  # fmt: skip
def test_an_axis_that_was_not_measured_is_not_passed(tmp_path, monkeypatch, axis, verdict):
    monkeypatch.setattr(_costs, "_wire", lambda bench: (True, "not probed"))
    of = acted(tmp_path, silent, claim=f"better than dpsgd on torus{axis}")
    row = _costs.costs_row(of, settled(of))
    assert row.verdict == verdict, row
    assert axis == " at equal rounds" or "not measured" in row.reason
    if not axis:
        assert "bytes, seconds on phones" in row.reason
    four = _claims.seeds_row(of, settled(of))
    assert any("last records are compared" in str(each) for each in four.details) == ("bytes" in axis or "sec" in axis)


def test_a_claim_at_equal_seconds_needs_a_network_on_which_they_are_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(_costs, "_wire", lambda bench: (True, "not probed"))
    of = acted(tmp_path, costing(1.0, 0.05), claim="better than dpsgd on exponential at equal seconds")
    row = _costs.costs_row(of, settled(of))
    assert row.verdict == "fail"
    assert "exponential is not one undirected graph" in row.reason


# --- row 2: the shape of a curve ---


def curve(values):
    import xarray as xr

    return xr.DataArray(np.asarray(values, float), {"event": ("record", np.arange(len(values)))}, "record")


ROUNDS = np.arange(201)
SHAPES = {
    "linear": (0.97**ROUNDS, True),
    "fast": (0.5**ROUNDS, True),
    "at once": (np.where(ROUNDS > 3, 0.0, 1.0), True),
    "two modes": (0.5 * 0.95**ROUNDS + 0.5 * 0.975**ROUNDS, True),
    "too slow": (0.99**ROUNDS, False),
    "1/t²": (11.0**2 / (ROUNDS + 11.0) ** 2, False),
    "a power that reaches the floor": ((11.0 / (ROUNDS + 11.0)) ** 11, False),
    "a floor above the optimum": (0.8**ROUNDS + 1e-3, False),
    "growing": (1.01**ROUNDS, False),
    "NaN": (np.where(ROUNDS > 100, np.nan, 0.9**ROUNDS), False),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_only_a_straight_line_to_the_optimum_is_a_linear_rate(shape):
    values, linear = SHAPES[shape]
    found = _correctness._approach(curve(values))
    assert found.linear == linear, found


# --- row 5: networks that a protocol runs on ---


def own(graph, num_rounds, seed):
    import gossipjax as gj

    return gj.timeline.rounds(gj.mixing.metropolis(graph), num_rounds, form="dense")


@pytest.mark.parametrize(("lead", "verdict"), [(0.05, "pass"), (0.0, "fail")])
def test_a_timeline_of_its_own_is_judged_on_the_networks_where_it_runs(tmp_path, lead, verdict):
    of = acted(tmp_path, costing(1.0, lead), claim="better than dpsgd at equal rounds", timeline=own,
               budget={"num_nodes": 16, "row_seeds": 5})  # fmt: skip
    row = _claims.topologies(of, settled(of))
    assert row.verdict == verdict, row
    assert len([each for each in row.details if "not run" in str(each)]) == 3


# --- row 11 ---


@pytest.mark.parametrize(("area", "leaks"), [(0.99, True), (0.5, False), (np.nan, None)])
def test_membership_counts_as_a_leak(area, leaks):
    areas = np.random.default_rng(0).normal(area, 0.01, (5, 9))
    areas += area - areas.mean()
    assert _security.judged(areas).leaks is leaks


def test_words_under_a_mask_that_is_held_too_are_seen():
    rng = np.random.default_rng(0)
    secret = rng.integers(0, 2**20, (60, 2))
    mask = rng.integers(0, 2**32, (60, 2)).astype(np.uint32)
    found = _security._features([secret.astype(np.uint32) + mask, mask])
    assert _security._explained(found, secret - secret.mean(0)) > 0.999
    alone = _security._features([secret.astype(np.uint32) + mask])
    assert _security._explained(alone, secret - secret.mean(0)) < 0.5


def test_a_state_of_more_numbers_than_runs_is_not_called_safe(tmp_path, monkeypatch):
    monkeypatch.setattr(_security, "_states", lambda bench, targets: [np.random.default_rng(0).normal(size=(384, 200))])
    found = _security._from_states(bench(tmp_path))
    assert found.leaks is None
    assert "not decided" in found.words
