"""The README's programs run, its first screen is as promised, and its tables name what exists."""

import importlib
import inspect
import itertools
import pathlib
import re

import jax
import pytest
from readme import python_blocks

import gossipjax as gj

README = pathlib.Path(__file__).parents[2] / "README.md"
LINES = README.read_text(encoding="utf-8").splitlines()


def test_first_screen():
    picture = next(i for i, line in enumerate(LINES) if line.startswith("!["))
    example = next(i for i, line in enumerate(LINES) if line == "```python")
    length = LINES[example + 1 :].index("```")
    assert picture < example < 30
    assert length <= 13
    assert (README.parent / re.search(r"\((.*)\)", LINES[picture]).group(1)).is_file()


@pytest.mark.slow
def test_examples_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(README)
    space: dict = {}
    with jax.enable_x64(False):
        exec(blocks[0].replace("300)", "30)"), space)
        assert (tmp_path / "rounds.png").is_file()
        rounds = space["trajectory"]
        exec(blocks[1].replace("300 * n", "30 * n"), space)
        exec(blocks[0].split("timeline = ")[1].split("\n", 1)[1].replace("rounds.png", "poisson.png"), space)
        exec(blocks[2].replace("300.0", "30.0").replace("[150.0, 299.9]", "[15.0, 29.9]"), space)
        stale = space["run"]["staleness_matrix"].isel(record=2, node=17)
        assert float(stale.time) == pytest.approx(29.9, abs=0.1)
        assert int(stale[17]) == 0 < int(stale.max())
        exec(blocks[3].replace("300)", "30)"), space)
        sent = space["run"]["node_bytes_sent"].isel(record=-1).sel(statistic="mean")
        assert 0.3 < float(sent) / (30 * 4 * 4 * 2_410) < 0.4
        exec(blocks[4], space)
        assert len(space["plan"].history.aggregation_s) >= 300
        assert float(space["run"]["test_accuracy"].sel(statistic="mean")[-1]) > 0.8
        exec(blocks[5].replace("200)", "20)").replace("[:100]", "[:10]"), space)
        assert space["run"]["event"].values[-1] <= 20
        assert space["again"].dataset.drop_attrs().equals(space["run"].dataset.drop_attrs())
        exec(blocks[6], space)
        space["timeline"] = gj.timeline.poisson_pairs(space["graph"], 100, seed=0)
        protocol = space["lazy_gossip"]
        exec(blocks[7].replace("max_examples=100", "max_examples=1"), space)
        space["test_lazy_gossip_conserves_the_mean"]()
        exec(blocks[8], space)
        assert int(space["report"].dataset["messages_received"].sum()) == 10 * 8 * 3
        run = gj.simulate(space["key"], protocol, space["timeline"], gj.replicate(jax.numpy.ones(2), space["n"]))
    assert float(rounds["test_accuracy"].sel(statistic="mean")[-1]) > 0.5
    assert float(space["trajectory"]["test_accuracy"].sel(statistic="mean")[-1]) > 0.5
    assert run.x.shape == (64, 2)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("| `gj.")])
def test_tables_name_what_exists(line):
    module = importlib.import_module("gossipjax." + re.match(r"\| `gj\.([\w.]+)`", line).group(1))
    names = re.findall(r"`(\w+)`", line.split("|", 2)[2])
    assert names
    for name in names:
        assert hasattr(module, name), name


@pytest.mark.parametrize("room", ["activity", "clocks", "flights", "losses", "overlays"])
def test_public_modules_of_the_timeline_export_what_they_define(room):
    module = importlib.import_module(f"gossipjax.timeline.{room}")
    functions = {name for name in module.__all__ if inspect.isroutine(getattr(module, name))}
    assert all(getattr(module, name).__module__ == module.__name__ for name in functions)
    named = [line for line in LINES if line.startswith(f"| `gj.timeline.{room}`")]
    assert {name for line in named for name in re.findall(r"`(\w+)`", line.split("|", 2)[2])} <= functions


def test_the_table_of_experiments_is_the_folder():
    begin = LINES.index("| stem | claim |")
    rows = itertools.takewhile(lambda line: line.startswith("|"), LINES[begin + 2 :])
    named = [stem for row in rows for stem in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(path.stem for path in (README.parent / "experiments").glob("[!_]*.py"))
