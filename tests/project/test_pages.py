"""What pages of the site say about their runs is true."""

import pathlib

import jax
import matplotlib.pyplot as plt
import pytest
from readme import python_blocks

import gossipjax as gj

DOCS = pathlib.Path(__file__).parents[2] / "docs"


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """A function that runs the programs of a page, one after another, as a user does; returns their variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))

    def run(name):
        space: dict = {"__name__": name}
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            for block in python_blocks(DOCS / f"{name}.md"):
                exec(compile(block, name, "exec"), space)
        return space

    yield run
    plt.close("all")


def mean_at_the_end(run, name):
    return float(run[name].isel(record=-1).sel(statistic="mean"))


@pytest.mark.slow
def test_quickstart(executed):
    page = executed("quickstart")
    assert mean_at_the_end(page["trajectory"], "test_accuracy") > 0.8
    assert mean_at_the_end(page["asynchronous"], "test_accuracy") > 0.8
    whole, part = (float(page[name]["bytes_sent"][-1]) for name in ("trajectory", "sparse"))
    assert 0.1 <= part / whole < 0.11


@pytest.mark.slow
def test_time_and_devices(executed):
    page = executed("time-and-devices")
    sent = {name: cost["node_bytes_sent"] for name, cost in page["costs"].items()}
    assert sent["full models"] == 36 * 4 * 4 * 650  # rounds, neighbours, bytes of a parameter, parameters
    assert 0.3 < sent["JWINS"] / sent["full models"] < 0.4
    assert float(page["stale"].time) == pytest.approx(99.9, abs=0.1)
    assert int(page["stale"][7]) == 0 < int(page["stale"].max())
    assert len(page["sampled"].history.aggregation_s) >= 300
    assert mean_at_the_end(page["run"], "test_accuracy") > 0.8


@pytest.mark.slow
def test_privacy(executed, capsys):
    page = executed("privacy")
    assert capsys.readouterr().out.splitlines()[-2:] == ["fresh=True: μ² = 1.8667", "fresh=False: μ² = 4.0000"]
    assert page["formula"] < 0.05 < page["exact"] == pytest.approx(1)
    assert page["areas"].mean() < page["bound"]
    assert page["promise"].mu == 1


@pytest.mark.slow
def test_robustness(executed):
    """What the page says of its numbers; the factors between them are far larger than those asked for."""
    errors = executed("robustness")["errors"]
    rules, start = ("clipped (He)", "IOS"), 5.0  # five coordinates of variance one
    assert errors["plain", "dissensus"] > 1e6
    assert all(errors[rule, "dissensus"] < start / 10 for rule in rules)
    assert errors["IOS", "ALIE"] > 2 * errors["plain", "ALIE"]


@pytest.mark.slow
def test_design(executed):
    """What the page says of its numbers: who wins at which accuracy, and that a gain is no claim."""
    page = executed("design")
    seconds = page["seconds"]
    winners = {error: min(page["graphs"], key=lambda name: seconds[error, name]) for error in (1.0, 0.1, 0.001)}
    assert winners == {1.0: "ring", 0.1: "torus", 0.001: "complete"}
    assert page["found"].gain >= 1
    assert page["found"].graph.degrees.max() <= 4
    assert page["verdict"].ratios.size == 12
    assert page["rounds"].score.seconds < page["found"].score.seconds  # one changing peer or two beat a fixed graph
    assert page["lost"].seconds["designed"].size == 12


@pytest.mark.slow
def test_predict(executed):
    page = executed("predict")
    checked = [each for each in page["forecast"].predictions if each.check is not None]
    assert len(checked) > 5
    assert all(each.agrees for each in checked)
    assert page["star"]["meetings_to_error"].value < page["star"]["meetings_from_any_start"].value
    assert page["law"].factor < page["law"].trivial_factor
    assert page["training"].origin == "fitted"


@pytest.mark.slow
def test_review(executed):
    page = executed("review")
    assert [row.number for row in page["review"].rows] == [1, 2, 3, 4]
    assert not [row for row in page["review"].rows if "raised" in row.reason]
    assert page["review"][1].verdict == page["review"][2].verdict == "pass"


@pytest.mark.slow
def test_results(executed, capsys):
    page = executed("results")
    records = page["run"].dataset.drop_attrs()
    for name in ("continued", "kept", "again", "repeated"):
        assert page[name].dataset.drop_attrs().equals(records), name
    assert page["loaded"].dataset.equals(page["run"].dataset)
    assert 0 < int(page["early"]["event"][-1]) < 100
    capsys.readouterr()
    page["run"].cite()
    assert "@software{gossipjax," in capsys.readouterr().out


@pytest.mark.slow
def test_the_plan_on_processes():
    (program,) = (b for b in python_blocks(DOCS / "from-decentralizepy-and-pytorch.md") if "gj.deploy.execute" in b)
    space: dict = {"gj": gj, "jax": jax}
    with jax.enable_x64(False):
        exec(program, space)
    assert int(space["report"].dataset["messages_received"].sum()) == 10 * 8 * 3
