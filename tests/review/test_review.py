"""The statistics of a review, what it reads, and the runs, archive and page of a whole one."""

import json
import pathlib
import subprocess
import sys
import types

import h5py
import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial
from reviews import TINY, acted, bench, noisy, records, renamed, settled, submission
from scipy import stats

import gossipjax as gj
from gossipjax.review import _archive, _claims, _correctness, _review, _samples, _tuning
from gossipjax.review._row import at_equal
from gossipjax.review._statistics import holm, interval
from gossipjax.review._submission import parse_claim, read
from theory.check import policy

# --- statistics ---


@pytest.mark.parametrize(("level", "seeds"), [(0.05, (34, 10, 6, 5, 4)), (0.01, (51, 16, 9, 7, 5))])
def test_seeds_needed_for_80_percent_power(level, seeds):
    effects = (0.5, 1.0, 1.5, 2.0, 3.0)
    assert tuple(gj.review.seeds_needed(effect, level=level) for effect in effects) == seeds


def test_no_effect_needs_more_seeds_than_anybody_has():
    assert gj.review.seeds_needed(0.0) is None
    assert gj.review.seeds_needed(np.inf) == 2


@pytest.mark.parametrize(("seeds", "half"), [(3, 2.484), (5, 1.242), (8, 0.836), (10, 0.715)])
def test_half_widths_of_student_intervals(seeds, half):
    values = np.linspace(-1, 1, seeds)
    mean, low, high = interval(values / values.std(ddof=1))
    assert (high - low) / 2 == pytest.approx(half, abs=5e-4)
    assert mean == pytest.approx(0, abs=1e-12)


def test_seeds_are_counted_up_to_ten_thousand():
    assert gj.review.seeds_needed(0.029) == 9335
    assert gj.review.seeds_needed(0.027) is None


@pytest.mark.parametrize(("parts", "words"), [
    ({"sizes": ()}, "must increase"), ({"sizes": (32, 16)}, "must increase"), ({"num_rounds": 11}, "multiple of 4"),
])  # fmt: skip
def test_bad_budgets_are_refused(parts, words):
    with pytest.raises(ValueError, match=words):
        gj.review._bench.check_budget(TINY._replace(**parts))


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=12))
def test_intervals_are_those_of_the_verdicts_of_the_project(values):
    array = np.asarray(values)
    mean, half = policy.interval(array)
    np.testing.assert_allclose(interval(array), (mean, mean - half, mean + half), rtol=1e-12, atol=1e-12)


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.2, 0.9]), [0.4, 0.9])
    found = holm([0.02, float("nan")])
    assert found[0] == pytest.approx(0.04)
    assert np.isnan(found[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(p_values):
    found = np.asarray(holm(p_values))
    assert (found >= np.asarray(p_values) - 1e-15).all()
    assert (found <= 1).all()
    assert (np.diff(found[np.argsort(p_values, kind="stable")]) >= 0).all()


def test_p_values_are_those_of_scipy():
    values = np.random.default_rng(0).normal(0.3, 1, 9)
    (found,) = gj.review.compare({"dpsgd": values})
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9)


@pytest.mark.parametrize(("values", "word"), [
    ([0.1] * 5, "better"), ([-0.1] * 5, "worse"), ([0.0] * 5, "no difference"), ([0.1, 0.1, np.nan], "no value"),
    ([0.0, 0.0, 0.0, 0.0, 0.1], "no difference"),
])  # fmt: skip
def test_words(values, word):
    assert gj.review.compare({"dpsgd": np.asarray(values)})[0].word == word


def equal(contender, settings, place, seeds):
    return records(noisy(contender, seeds))


def reviews(gain, number, tmp_path, seeds=8):
    """Words of row 4 in many reviews, each with new seeds."""
    of = acted(tmp_path, equal, budget={"seeds": seeds})
    tuned, found = settled(of), []
    for review in range(number):

        def act(contender, settings, place, given, review=review):
            return records(noisy(contender, given + 1000 * review, gain))

        type(of).act = staticmethod(act)
        found.append(_claims.seeds_row(of, tuned))
    return found


def test_d_psgd_renamed_comes_out_as_no_difference(tmp_path):
    """The risk of a false gain is at most 2.5 % a review; 6 of 100 would have a probability of 0.03 at that."""
    found = reviews(0.0, 100, tmp_path)
    assert sum(row.reason == "no difference to dpsgd" for row in found) >= 95


def test_a_gain_of_two_standard_deviations_is_found(tmp_path):
    """Two independent values differ by √2 · 0.01 from seed to seed; Holm's correction costs some of the power."""
    found = reviews(2 * 2**0.5 * 0.01, 40, tmp_path)
    assert sum(row.verdict == "pass" for row in found) >= 32


@pytest.mark.slow
def test_d_psgd_trained_with_other_batches_comes_out_as_no_difference():
    """The same on real runs: in 100 reviews, 5 seeds each, of D-PSGD against itself with independent keys."""
    data = gj.tasks.digits(limit=(300, 100))
    task = gj.tasks.classification(data, gj.tasks.iid(300, 4, seed=0), gj.tasks.mlp(64, (8,), 10), batch_size=8)
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(4)), 20)
    run = gj.simulate(jax.random.split(jax.random.key(0), 1000), renamed(task, 0.1), plan, task,
                      observers=[gj.observe.node_metrics(task)], record_at=[20])  # fmt: skip
    ends = run["test_accuracy"].isel(record=-1).sel(statistic="mean").values.astype(float).reshape(2, 100, 5)
    words = [gj.review.compare({"dpsgd": gain})[0].word for gain in ends[0] - ends[1]]
    assert words.count("no difference") >= 90  # two-sided: 5 % each, 11 or more have a probability of 0.01
    assert words.count("better") <= 5


# --- costs ---


def test_values_at_equal_cost_are_read_off_by_lines():
    ours, theirs = np.array([[0.0, 0.4, 0.8]]), np.array([[0.0, 0.2, 0.6]])
    cost = np.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(at_equal(ours, theirs, cost, cost), 0.2)
    np.testing.assert_allclose(at_equal(ours, theirs, 2 * cost, cost), 0.4 - 0.6)
    np.testing.assert_allclose(at_equal(ours, theirs, 1.5 * cost, cost), 0.4 + 0.4 / 3 - 0.6)
    np.testing.assert_allclose(at_equal(ours, theirs, 0 * cost, cost), 0.8 - 0.6)  # nothing is spent
    assert np.isnan(at_equal(np.array([[0.1, 0.2, np.nan]]), theirs, 2 * cost, cost)).all()


SGD = Partial(optax.sgd, 0.1)


@pytest.mark.parametrize("strategy", ["vmap", "map"])
@pytest.mark.parametrize(("build", "batches"), [
    (lambda task: gj.dpsgd(task, SGD), 1), (lambda task: gj.dpsgd(task, SGD, local_steps=3), 3),
    (lambda task: gj.gradient_tracking(task, SGD), 1), (lambda task: gj.allreduce_sgd(task, SGD), 1),
])  # fmt: skip
def test_batches_are_counted_in_the_program(tmp_path, build, batches, strategy):
    of = bench(tmp_path)
    task, _ = of.problem(of.main)
    with gj.placement.using(strategy):
        assert _samples.batches_per_event(build, task, of.timeline("dpsgd", of.main)) == 9 * batches


# --- what is read ---


def test_claims_are_read():
    assert parse_claim("better than dpsgd").networks == ()
    found = parse_claim("better than local_sgd on ring, one-peer at equal bytes for worst decile")
    assert found == ("local_sgd", ("ring", "one-peer"), "bytes", "worst decile")
    assert parse_claim("Better than dpsgd on Base-2").networks == ("base-2",)
    assert str(found) == "better than local_sgd on ring, one-peer at equal bytes for worst decile"


@pytest.mark.parametrize(("parts", "words"), [
    ({"claim": "best of all"}, "cannot be read; write"), ({"claim": "better than sgd"}, "'sgd' is not known"),
    ({"claim": "better than dpsgd on lattice"}, "'lattice' is not known"), ({"claim": 3}, "cannot be read"),
    ({"claim": "better than dpsgd on ring, ring"}, "repeated"),
    ({"claim": "better than dpsgd on , at equal rounds"}, "CLAIM"),
    ({"claim": "better than without"}, "has no WITHOUT"), ({"grid": ()}, "at least one"),
    ({"grid": (0.1, 0.1)}, "different values"),
    ({"grid": (-0.1,)}, "positive numbers"), ({"CONSERVE_MEAN": False}, "CONSERVE_MEAN is not read"),
    ({"AUTHORS_STEP": {"sgd": 0.1}}, "positive step"),
    ({"protocol": lambda task: None}, "cannot be called as protocol"),
    ({"GRID": {"momentum": [0.9]}}, "has no step sizes"), ({"grid": (np.inf,)}, "finite"),
    ({"grid": ([0.1], 0.2)}, "must be a finite number"), ({"WITHOUT": {"momentm": 0}}, "no setting of protocol"),
    ({"WITHOUT": {"step": 0.1}}, "no setting of protocol"),
    ({"without": lambda task: None}, "without: cannot be called as without"),
    ({"timeline": lambda graph: None}, "timeline: cannot be called as timeline"),
    ({"score": lambda: 0.0}, "score: cannot be called"),
])  # fmt: skip
def test_bad_submissions_are_refused_before_any_run(parts, words):
    with pytest.raises(ValueError, match=words):
        submission(**parts)


def test_a_missing_file_and_one_that_cannot_be_imported_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a Python file that exists"):
        gj.review.run(tmp_path / "nothing.py")
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(ValueError, match="cannot be imported: ModuleNotFoundError"):
        gj.review.run(tmp_path / "broken.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match="has no protocol"):
        gj.review.run(tmp_path / "empty.py")


@pytest.mark.parametrize("steps", [np.arange(1, 4), [np.float32(0.5), 2], np.array([0.25, 0.5])])
def test_numbers_of_numpy_are_numbers(steps):
    found = submission(GRID={"step": steps}).grid["step"]
    assert found == tuple(float(step) for step in steps)
    assert all(type(step) in (int, float) for step in found)


def test_a_module_without_a_file_is_refused():
    with pytest.raises(ValueError, match="has no file, which the archive must keep"):
        gj.review.run(types.ModuleType("typed"))


def test_a_dataclass_with_postponed_annotations_can_be_read(tmp_path):
    dataclass = "import dataclasses\n@dataclasses.dataclass\nclass Setting:\n    value: int = 3\n"
    (tmp_path / "mine.py").write_text("from __future__ import annotations\n" + dataclass + SOURCE)
    assert read(tmp_path / "mine.py").name == "mine"


@pytest.mark.parametrize("line", ["import helper", "from helper import value", "from . import helper"])
def test_a_neighbour_of_the_module_is_refused(tmp_path, monkeypatch, line):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "helper.py").write_text("value = 1\n")
    (tmp_path / "mine.py").write_text(f"{SOURCE}\ndef later():\n    {line}\n")
    with pytest.raises(ValueError, match="put all of the protocol in one file"):
        read(tmp_path / "mine.py")


def test_other_data_or_another_module_are_another_version(tmp_path):
    of = bench(tmp_path)
    versions = {of.version("iid"), bench(tmp_path, budget={"samples": 200}).version("iid")}
    assert len(versions) == 2
    data = of.data("iid")
    of.data = lambda split: data[::-1]
    assert of.version("iid") not in versions


# --- tuning ---


@pytest.mark.parametrize("number", [1, 3, 4])
def test_every_baseline_has_as_many_trials_as_the_protocol(tmp_path, number):
    grid = {"step": [0.1, 0.3], "momentum": list(np.linspace(0.1, 0.9, number))}
    of = bench(tmp_path, protocol=lambda task, step, momentum: None, GRID=grid, WITHOUT={"momentum": 0.0})
    for name in of.contenders:
        found = _tuning.first_trials(of, name)
        assert len(found) == 2 * number
        assert len({json.dumps(each) for each in found}) == 2 * number
    assert all(each["momentum"] == 0.0 for each in _tuning.first_trials(of, "without"))


def test_one_setting_has_no_second_best(tmp_path):
    of = acted(tmp_path, equal, grid=(0.1,), budget={"extra_trials": 0})
    row = _tuning.equal_tuning(of, _tuning.all_tuned(of))
    assert row.verdict == "not applicable"
    assert "the second best needs two" in row.reason


def test_probes_use_the_tuned_setting(tmp_path):
    of = bench(tmp_path)
    assert of.settings_at(0.5) == {"step": 0.5}
    of.tuned_settings = {"step": 0.1, "momentum": 0.9}
    assert of.settings_at(0.5) == {"step": 0.5, "momentum": 0.9}


# --- errors ---


def test_a_protocol_for_labelled_data_is_not_judged_on_quadratics(tmp_path):
    of = bench(tmp_path, protocol=lambda task, step: renamed(task, step * (1 + len(task.data["labels"]) * 0)))
    for row in (_correctness.correct(of), _correctness.convex(of)):
        assert row.verdict == "not applicable"
        assert "does not run on quadratics: KeyError" in row.reason


def test_what_is_no_protocol_is_named(tmp_path):
    of = bench(tmp_path, protocol=lambda task, step: None)
    with pytest.raises(gj.review._bench.ProtocolRaised, match="returned None, and not"):
        of.records("protocol", {"step": 0.1}, of.main, [0, 1], test=True)


def test_a_module_that_exits_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(ValueError, match="SystemExit"):
        read(tmp_path / "mine.py")


def test_errors_of_the_review_decide_nothing_and_those_of_the_protocol_fail(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE + "\ndef broken():\n    return {}['x']\n")
    spec = read(tmp_path / "mine.py")
    of = gj.review._bench.Bench(spec, TINY, tmp_path, 0)
    ours = _review._guarded(of, 4, lambda: {}["protocol"])
    assert (ours.verdict, ours.reason) == ("not applicable", "the review raised KeyError: 'protocol'")
    theirs = _review._guarded(of, 4, spec.protocol.__globals__["broken"])
    assert (theirs.verdict, theirs.reason) == ("fail", "the protocol raised KeyError: 'x'")


def test_a_failed_tuning_fails_row_3_and_leaves_the_others_open(tmp_path):
    of = bench(tmp_path)
    problem = _review.Problem(True, "raised ValueError: no", ())
    rows = [answer() for answer in _review._answers(of, problem, "", False)[2:11]]
    assert [each.verdict for each in rows] == ["fail"] + 8 * ["not applicable"]
    assert all("in the tuning the protocol raised ValueError: no" in each.reason for each in rows)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    with pytest.raises(ValueError, match="files that are not of a review"):
        gj.review.run(tmp_path / "mine.py", tmp_path)


def test_a_review_is_a_sequence_of_rows(tmp_path):
    rows = tuple(gj.review.Row(number, "pass", "") for number in (1, 2))
    review = gj.review.Review("claim", rows, tmp_path, 0.0, 0, 0)
    assert list(review) == list(rows)
    assert len(review) == 2


def test_words_of_comparisons():
    (none,) = gj.review.compare({"dpsgd": [0.1, np.nan]})
    assert str(none) == "no value to compare with dpsgd"
    (flat,) = gj.review.compare({"dpsgd": [0.1] * 8})
    assert flat.p == 0.0
    assert flat.seeds_needed is None
    (worse,) = gj.review.compare({"dpsgd": [-0.1, -0.2, -0.1, -0.15, -0.12]})
    assert worse.verdict == "worse than dpsgd"


# --- row 2 ---


def expected(W, targets, step, noise_std, num_rounds):
    """E (1/n) Σ ‖x_i − x*‖² of D-PSGD on ``½ ‖x − b_i‖²``: bias and variance, round by round."""
    n, d = targets.shape
    bias, second = -np.tile(targets.mean(0), (n, 1)), np.zeros((n, n))
    pull = targets - targets.mean(0)
    for _ in range(num_rounds):
        bias = W @ ((1 - step) * bias + step * pull)
        second = W @ ((1 - step) ** 2 * second + step**2 * noise_std**2 * np.eye(n)) @ W.T
    return float((bias**2).sum() / n + d * np.trace(second) / n)


def test_the_formula_of_the_authors_is_compared_with_runs(tmp_path):
    right = _correctness.convex(bench(tmp_path, expected_error=expected))
    assert right.verdict == "pass", right
    wrong = _correctness.convex(bench(tmp_path, expected_error=lambda *of: 1.5 * expected(*of)))
    assert wrong.verdict == "fail"


def diverging(task, step):
    return gj.dpsgd(task, Partial(optax.sgd, -step))


@pytest.mark.filterwarnings("ignore::gossipjax.Diverging")
def test_a_protocol_that_leaves_the_optimum_fails_row_2(tmp_path):
    assert _correctness.convex(bench(tmp_path, protocol=diverging)).verdict == "fail"


# --- a whole review ---

SOURCE = """
import gossipjax as gj, optax
from jax.tree_util import Partial

GRID = {"step": [0.1, 0.3]}
CLAIM = "better than dpsgd on torus at equal rounds"

def protocol(task, step):
    return gj.dpsgd(task, Partial(optax.sgd, step))
"""


def test_a_cell_of_an_archive_runs_again_bit_for_bit_and_a_changed_record_is_seen(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    (folder := tmp_path / "archive").mkdir()
    of = gj.review._bench.Bench(read(tmp_path / "mine.py"), TINY, folder, 0)
    of.records("protocol", {"step": 0.1}, of.main, [0, 1], test=True)
    _archive.write_manifest(of, "by hand")
    row = _archive.certificate(of, "by hand")
    assert row.verdict == "pass", row
    cell = row.reason.split()[1]
    assert gj.review.rerun(folder) == (cell, True, ())
    about = json.loads((folder / "manifest.json").read_text())
    assert about["data_sha256"]["digits"].keys() == {"validation", "test"}
    assert about["runs"] == 2
    path = folder / "records" / f"{cell}.nc"
    with h5py.File(path, "r+") as file:
        file["bytes_sent"][0, -1] += 1
    assert not gj.review.rerun(folder).equal
    assert _archive.certificate(of, "by hand").verdict == "fail"
    source = folder / "submission.py"
    source.write_text(source.read_text().replace("(optax.sgd, step)", "(optax.sgd, 2 * step)"))
    with pytest.raises(ValueError, match="no cells of its module"):
        gj.review.rerun(folder)
    source.write_text(SOURCE)
    with pytest.raises(ValueError, match="the archive has"):
        gj.review.rerun(folder, "another")
    with pytest.raises(ValueError, match="is no archive of a review"):
        gj.review.rerun(tmp_path)


def test_too_many_programs_fail_the_certificate(tmp_path):
    of = bench(tmp_path)
    of.programs, of.done = 61, {str(number) for number in range(401)}
    assert [each.split()[0] for each in _archive._over(of)] == ["61", "401"]


@pytest.mark.slow
def test_d_psgd_renamed_reviewed_in_full(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    review = gj.review.run(tmp_path / "mine.py", tmp_path / "archive", budget=TINY)
    assert [row.number for row in review.rows] == list(range(1, 13))
    assert not [row for row in review if "raised" in row.reason], review.summary()
    assert review[4].reason == "no difference to dpsgd"
    verdicts = {row.number: row.verdict for row in review.rows}
    assert verdicts[1] == verdicts[2] == verdicts[11] == verdicts[12] == "pass"
    assert verdicts[3] == verdicts[4] == verdicts[5] == verdicts[8] == verdicts[10] == "fail"
    page = (tmp_path / "archive" / "review.md").read_text()
    assert page.count("\n## ") == 12
    assert review.runs < 400
    assert review.programs <= 60


@pytest.mark.parametrize(("words", "error"), [
    ([], "pass a Python file"), (["nothing.py"], "must be a Python file that exists"),
    (["--rerun", "nowhere"], "is no archive"), (["mine.py", "--cell", "a"], "--cell is used only with --rerun"),
    (["--rerun", "nowhere", "--quick"], "--quick has no use with --rerun"),
    (["--rerun", "nowhere", "--seed", "0"], "--seed"), (["--rerun", "nowhere", "--out", "a"], "--out"),
    (["mine.py", "--rerun", "nowhere"], "not both"),
])  # fmt: skip
def test_the_command_refuses_in_a_line(tmp_path, monkeypatch, capsys, words, error):
    from gossipjax.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gj.review._command, "configure", lambda: None)
    assert main(["review", *words]) == 2
    assert error in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_reviews_and_runs_again(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    start = [sys.executable, "-m", "gossipjax", "review"]
    root = str(pathlib.Path(__file__).parents[2])
    import os

    here = {"cwd": tmp_path, "capture_output": True, "text": True, "env": os.environ | {"PYTHONPATH": root}}
    done = subprocess.run([*start, "mine.py", "--quick"], check=False, **here)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "no difference to dpsgd" in done.stdout
    again = subprocess.run([*start, "--rerun", "review_mine"], check=False, **here)
    assert again.returncode == 0, again.stdout + again.stderr[-2000:]
    assert "equal bit for bit" in again.stdout
