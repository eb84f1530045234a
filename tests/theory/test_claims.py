"""Every claim holds in its quick form; verdicts, pooled scores, the command line and the report do what they say."""

import dataclasses
import importlib.util
import json
import pathlib
import sys
from typing import get_args

import numpy as np
import pytest
from scipy import stats

import theory.__main__ as command
from theory.check import Assumption, Claim, Observation, claims, judge, pool, report, run_claim, select
from theory.check.claim import Axis, Law, Mark, Sampling, check_claim
from theory.check.judge import FAMILY, level, scores_of

ALL = {claim.name: claim for claim in claims()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_claim_holds_in_its_quick_form(name):
    result = run_claim(ALL[name], quick=True, seed=0, tests=300)
    assert result.verdict == "holds", f"{result.detail}; predicted {result.predicted}, found {result.mean}"


@pytest.mark.parametrize("name", ALL)
def test_a_claim_predicts_at_every_point(name):
    claim = ALL[name]
    for points in (claim.axis.quick, claim.axis.points):
        predicted = np.broadcast_to(np.asarray(claim.predict(np.asarray(points)), np.float64), (len(points),))
        assert np.isfinite(predicted).all()


def test_there_are_enough_claims_and_each_says_what_it_is():
    assert len(ALL) >= 40
    for claim in ALL.values():
        assert claim.source
        assert claim.catches, claim.name
        assert len(claim.statement) <= 130, claim.name
    assert {"equality", "upper", "lower", "scaling"} == {claim.kind for claim in ALL.values()}
    assert {"exact", "recalled"} <= {claim.mark for claim in ALL.values()}


# --- verdicts ---------------------------------------------------------------------------------------------------------

PLAIN = Claim(
    "plain",
    "The mean is one.",
    "made up",
    Axis("x", (1, 2), (1,)),
    "y",
    predict=np.ones_like,
    simulate=lambda seed, points, replicas: Observation(np.ones((replicas, len(points)))),
    sampling=Sampling(50, 50),
)


def verdict(samples, assumptions=(), tolerance=None, **changes):
    claim = dataclasses.replace(PLAIN, sampling=Sampling(50, 50, tolerance), **changes)
    points = tuple(range(1, np.shape(samples)[1] + 1))
    return judge(claim, Observation(np.asarray(samples), assumptions), points, 10, 0.0).verdict


def normal(mean, deviation=1.0, size=(200, 2)):
    return np.random.default_rng(0).normal(mean, deviation, size)


def test_equalities():
    assert verdict(normal(1.0)) == "holds"
    assert verdict(normal([1.0, 1.5])) == "violated"
    assert verdict(normal([1.0, 0.5])) == "violated"
    assert verdict(normal(1.0, 20.0)) == "inconclusive"  # too few replicas for the noise
    assert verdict(np.ones((20, 2))) == "inconclusive"  # nothing varies: no standard error
    assert verdict(np.full((20, 2), np.inf)) == "violated"


@pytest.mark.parametrize("kind", ["equality", "upper", "lower", "scaling"])
def test_a_sample_that_is_missing_decides_nothing(kind):
    samples = normal([1.0, 1.5])
    samples[3, 1] = np.nan
    law = Law(("logarithm",)) if kind == "scaling" else None
    found = judge(dataclasses.replace(PLAIN, kind=kind, law=law), Observation(samples), (1, 2), 10, 0.0)
    assert (found.verdict, found.detail[:8]) == ("inconclusive", "1 of 400")


def test_bounds_fail_on_one_side_only():
    assert verdict(normal(0.5), kind="upper") == "holds"
    assert verdict(normal(1.5), kind="upper") == "violated"
    assert verdict(normal(1.5), kind="lower") == "holds"
    assert verdict(normal(0.5), kind="lower") == "violated"


def test_what_is_not_random_has_a_tolerance():
    assert verdict([[1.0, 1.0 + 1e-13]], tolerance=1e-12) == "holds"
    assert verdict([[1.0, 1.0 + 1e-11]], tolerance=1e-12) == "violated"
    assert verdict([[0.0, 1.0]], tolerance=0.0, kind="upper") == "holds"
    assert verdict([[1.0, 1.1]], tolerance=0.0, kind="upper") == "violated"


def test_a_broken_assumption_comes_first():
    broken = (Assumption("connected", True), Assumption("stationary", False, "still falling"))
    assert verdict(normal(5.0), broken) == "assumption not met"


@pytest.mark.parametrize(
    ("law", "value", "expected"),
    [
        (("logarithm",), lambda n: 2 + np.log(n), "holds"),
        (("logarithm",), lambda n: np.sqrt(n), "violated"),
        (("power",), lambda n: np.sqrt(n), "holds"),
        (("constant", "saturating"), lambda n: 3.0 + 0 * n, "holds"),
        (("constant", "saturating"), lambda n: 3.0 + 1 / np.log(n), "holds"),
        (("constant", "saturating"), lambda n: np.log(n), "violated"),
        (("power",), lambda n: 3.0 + 0 * n, "inconclusive"),
    ],
)
def test_growth(law, value, expected):
    n = np.array([10, 30, 100, 300, 1000, 3000])
    samples = value(n) * np.random.default_rng(1).normal(1.0, 0.05, (100, 6))
    claim = dataclasses.replace(PLAIN, kind="scaling", law=Law(law))
    assert judge(claim, Observation(samples), tuple(n.tolist()), 10, 0.0).verdict == expected


def test_a_predicted_exponent_is_tested():
    n = np.array([10, 30, 100, 300, 1000])
    samples = np.sqrt(n) * np.random.default_rng(2).normal(1.0, 0.02, (100, 5))
    claim = dataclasses.replace(PLAIN, kind="scaling", law=Law(("power",), 0.5))
    points = tuple(n.tolist())
    found = judge(claim, Observation(samples), points, 10, 0.0)
    assert found.verdict == "holds"
    assert found.fit.best == "power"
    wrong = dataclasses.replace(claim, law=Law(("power",), 0.6))
    assert judge(wrong, Observation(samples), points, 10, 0.0).verdict == "violated"
    slack = dataclasses.replace(claim, law=Law(("power",), 0.6, slack=0.1))
    assert judge(slack, Observation(samples), points, 10, 0.0).verdict == "holds"


@pytest.mark.parametrize("exponent", [0.333, 0.383, 0.41, 0.45, 0.6])
def test_noise_never_turns_a_violated_exponent_into_one_that_holds(exponent):
    """The same noise around the same values, at growing scale, against 1/3 ± (0.04 + 0.04)."""
    n = np.array([10, 30, 100, 300, 1000])
    noise = np.random.default_rng(4).standard_normal((48, 5))
    noise -= noise.mean(axis=0)  # the means, and with them the fitted exponent, stay
    claim = dataclasses.replace(PLAIN, kind="scaling", law=Law(("power",), 1 / 3, slack=0.04, precision=0.04))

    def verdict_at(scale):
        return judge(claim, Observation(n**exponent * (1 + scale * noise)), tuple(n.tolist()), 300, 0.0).verdict

    words = [verdict_at(scale) for scale in (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 1.0, 5.0)]
    assert words[0] == ("holds" if exponent < 0.413 else "violated")
    assert set(words) <= {words[0], "inconclusive"}
    assert words == sorted(words, key=lambda word: word == "inconclusive")
    assert words[-1] == "inconclusive"


def test_true_claims_are_called_violated_as_rarely_as_promised():
    """Runs of 50 tests each of which is true: at most a thousandth raises a false alarm, whatever the replicas."""
    rng, runs, tests = np.random.default_rng(3), 4000, 50
    for replicas in (8, 40):
        samples = rng.standard_normal((replicas, runs * tests))
        p = 2 * stats.norm.sf(np.abs(scores_of(samples, np.zeros(runs * tests))))
        alarms = (p.reshape(runs, tests) < level(tests)).any(axis=1).sum()
        assert alarms <= stats.binom.isf(1e-6, runs, FAMILY)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / p.size))  # four standard errors


def results(factor=1.0, shift=0.0):
    """Twenty true claims; their samples may have errors that are wrong by a factor, or be shifted."""
    rng, found = np.random.default_rng(4), []
    for number in range(20):
        samples = rng.standard_normal((64, 3))
        if factor != 1.0:  # replicas that are not independent: copies of a few
            samples = np.repeat(samples[:8], 8, axis=0)
        claim = dataclasses.replace(PLAIN, name=f"c{number}", predict=np.zeros_like)
        found.append(judge(claim, Observation(samples + shift), (1, 2, 3), 60, 0.0))
    return found


def test_pooled_scores_are_standard_normal_only_if_errors_are_right():
    right = pool(results())
    assert right.scores == 20 * 3 * 4
    assert right.normal
    assert not pool(results(factor=2.0)).normal
    assert not pool(results(shift=0.1)).normal


def test_points_of_one_run_count_once():
    claim = dataclasses.replace(PLAIN, sampling=Sampling(50, 50, independent=False))
    assert judge(claim, Observation(normal(1.0)), (1, 2), 10, 0.0).scores.shape == (4,)
    assert judge(PLAIN, Observation(normal(1.0)), (1, 2), 10, 0.0).scores.shape == (8,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis": Axis("x", (), (1,))}, "at least one point"),
        ({"kind": "scaling"}, "must name its law"),
        ({"law": Law(("power",))}, "must name its law"),
        ({"sampling": Sampling(50, 3)}, "at least 8"),
    ],
)
def test_claims_that_do_not_fit_together(change, message):
    with pytest.raises(ValueError, match=message):
        check_claim(dataclasses.replace(PLAIN, **change))


# --- command line -----------------------------------------------------------------------------------------------------


def test_select():
    assert {claim.name for claim in select(["staleness_*"])} == {n for n in ALL if n.startswith("staleness_")}
    assert select(["staleness"])[0].name == "staleness_mean_push"
    assert len(select([])) == len(ALL)
    with pytest.raises(ValueError, match=r"no claim is called 'stalenes_mean': did you mean staleness_m"):
        select(["stalenes_mean"])


def test_list_names_every_claim(capsys):
    assert command.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ALL)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "no_such_claim"], "no claim is called 'no_such_claim'"),
        (["check", "messages_conserved", "--jobs", "0"], "jobs=0"),
        (["check", "messages_conserved", "--seed", "-1"], "seed=-1"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, capsys):
    assert command.main(words) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def here(monkeypatch):
    """Run in this process, whose devices are fixed already."""
    monkeypatch.setattr(command.gossipjax, "configure", lambda **settings: None)


def test_check_writes_numbers_and_a_page(tmp_path, capsys, here):
    words = ["check", "messages_conserved", "delayed_gradient_variance", "--quick", "--jobs", "1"]
    words += ["--json", str(tmp_path / "deep" / "claims.json"), "--report", str(tmp_path / "page")]
    assert command.main(words) == 0
    assert "2 holds" in capsys.readouterr().out
    found = json.loads((tmp_path / "deep" / "claims.json").read_text())
    exact, random = found["claims"]
    assert exact["verdict"] == random["verdict"] == "holds"
    assert random["error"][0] > 0 == exact["error"][0]
    assert found["pooled_scores"]["scores"] == 4
    page = (tmp_path / "page" / "index.html").read_text()
    for claim in (exact, random):
        assert claim["statement"].split(",")[0][:20] in page
        assert (tmp_path / "page" / f"{claim['name']}.png").stat().st_size > 5000
    assert "| messages_conserved |" in (tmp_path / "page" / "claims.md").read_text()


@pytest.mark.parametrize("mark", get_args(Mark))
def test_every_standing_has_words(tmp_path, mark):
    claim = dataclasses.replace(ALL["messages_conserved"], mark=mark)
    result = judge(claim, Observation(np.zeros((1, 2))), (1, 2), 10, 0.0)
    assert "Source: " in report.write([result], tmp_path).read_text()


@pytest.fixture
def installed():
    """Import the package once more, under its name in a wheel."""
    path = pathlib.Path(command.__file__).parent / "__init__.py"
    spec = importlib.util.spec_from_file_location("gossipjax_theory", path)
    package = sys.modules["gossipjax_theory"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    yield importlib.import_module("gossipjax_theory.__main__")
    for name in [name for name in sys.modules if name.split(".")[0] == "gossipjax_theory"]:
        del sys.modules[name]


def test_the_package_works_under_its_name_in_a_wheel(installed, capsys, here):
    assert installed.main(["check", "messages_conserved", "--quick", "--jobs", "1"]) == 0
    assert "1 holds" in capsys.readouterr().out
    assert installed.main(["check", "no_such_claim"]) == 2
    assert "`python -m gossipjax_theory list`" in capsys.readouterr().err
    (claim,) = installed.check.select(["messages_conserved"])
    assert claim.statement == ALL["messages_conserved"].statement
    assert not isinstance(claim, Claim)  # modules of the two names are apart


def test_a_violated_claim_ends_with_status_one(monkeypatch, capsys, here):
    wrong = dataclasses.replace(ALL["messages_conserved"], predict=np.ones_like)
    monkeypatch.setattr(command.check, "select", lambda names: (wrong,))
    assert command.main(["check", "--quick", "--jobs", "1"]) == 1
    assert "violated" in capsys.readouterr().out


def test_a_run_that_cannot_be_made_is_no_verdict_on_the_theorem():
    def refuse(seed, points, replicas):
        raise ValueError("the graph is not connected")

    result = run_claim(dataclasses.replace(PLAIN, simulate=refuse), quick=True, seed=0, tests=1)
    assert result.verdict == "assumption not met"
    assert "not connected" in result.detail
