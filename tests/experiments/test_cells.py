"""Cells are found again by their settings, marked stale by other code, refused when edited, and made by one process."""

import argparse
import contextlib
import fcntl
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time
import types
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import experiments.__main__ as command
from experiments import jwins_accuracy_vs_bytes
from experiments.lib import cells, code, papers, papers_command, queue, store
from experiments.lib.cells import Cell, Missing, Shelf, largest_grid, take, take_grid
from experiments.lib.problems import of_jwins
from experiments.lib.report import Row
from experiments.lib.sittings import Busy, Sittings
from gossipjax._base import locks

MADE = []


def draw(settings, checkpoint, *needed):
    MADE.append((settings, checkpoint))
    shift = sum(float(one.score[-1]) for one in needed)
    return xr.Dataset({"score": ("record", shift + np.arange(3.0) * settings["rate"])})


def nothing(settings):
    return ()


def cell(rate=0.5, *needs, **labels):
    return Cell(
        "stem", {"task": "t", **labels, "seed": 0}, draw, nothing, {"rate": rate, "pair": (1, 2)}, needs, {"x": 1}
    )


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    MADE.clear()
    monkeypatch.setattr(cells, "digest_of_code", lambda function: "code")
    return Shelf(str(tmp_path / "cells"), str(tmp_path / "work"))


def test_a_cell_is_made_once_and_describes_itself(shelf):
    first, again = (take(shelf, cell()) for _ in range(2))
    assert len(MADE) == 1
    assert first.identical(again)
    assert MADE[0][0] == {"rate": 0.5, "pair": [1, 2]}  # as a file returns it
    path = shelf.path(cell())
    assert path.parent.name == "stem"
    assert path.name.startswith("t_seed0-")
    assert path.stat().st_size < 100_000
    told = store.manifest_of(store.load(path.stem, path.parent))
    assert told["configuration"]["settings"] == {"rate": 0.5, "pair": [1, 2]}
    assert told["bands"] == {"x": 1}
    assert told["code"] == "code"
    assert told["sittings"] == 1
    assert 0 <= told["seconds"] < 60
    assert "jax" in told["environment"]["versions"]
    assert not pathlib.Path(shelf.work, "cells", path.stem).exists()


def test_the_name_depends_on_the_settings_and_not_on_their_order_or_the_bands():
    one = cell()
    assert one.name == one._replace(settings={"pair": [1, 2], "rate": 0.5}, bands={}).name
    assert one.name != cell(0.6).name
    assert one.name != one._replace(make=nothing).name


def test_other_code_makes_a_cell_stale_and_never_silently_reused(shelf, monkeypatch):
    take(shelf, cell())
    monkeypatch.setattr(cells, "digest_of_code", lambda function: "other")
    assert shelf.state(cell()) == "stale"
    table = shelf._replace(make=False)
    assert take(table, cell()).equals(table.file(cell()))
    assert len(MADE) == 1
    take(shelf, cell())
    assert len(MADE) == 2
    assert shelf.state(cell()) == "done"


def test_other_results_of_a_needed_cell_make_a_cell_stale(shelf):
    need = cell(0.1, of="tuning")
    found = take(shelf, cell(0.5, need))
    assert len(MADE) == 2
    np.testing.assert_allclose(found.score, 0.2 + 0.5 * np.arange(3))
    told = store.manifest_of(shelf.file(need))
    store.save(need.name, shelf.file(need) + 1.0, told, shelf.path(need).parent)
    assert shelf.state(need) == "done"
    assert shelf.state(cell(0.5, need)) == "stale"


def test_a_cell_edited_by_hand_is_refused_and_made_again(shelf):
    before = take(shelf, cell())
    path = shelf.path(cell())
    whole = path.read_bytes()
    at = whole.index(np.arange(0, 1.5, 0.5).tobytes())
    path.write_bytes(whole[: at + 8] + np.float64(9.0).tobytes() + whole[at + 16 :])
    assert shelf.state(cell()) == "damaged"
    with pytest.raises(Missing, match=r"is damaged; make it with: python -m experiments papers run stem"):
        take(shelf._replace(make=False), cell())
    assert take(shelf, cell()).equals(before)
    assert len(MADE) == 2


def test_a_file_under_the_name_of_another_cell_is_refused(shelf):
    take(shelf, cell())
    path = shelf.path(cell(0.6))
    path.write_bytes(shelf.path(cell()).read_bytes())
    assert shelf.state(cell(0.6)) == "damaged"


def test_the_folder_of_kept_runs_takes_the_same_cells(tmp_path):
    MADE.clear()
    need = cell(0.1, of="tuning")
    first, again = (take(str(tmp_path), cell(0.5, need)) for _ in range(2))
    assert first.equals(again)
    assert first.equals(take(None, cell(0.5, need)))
    assert len(MADE) == 4  # two kept, two not
    assert MADE[-1][1] is None


def test_cells_of_published_data_do_not_run_on_others(shelf):
    stand_in = of_jwins("digits", 8)._replace(name="writers")
    with pytest.raises(
        ValueError, match=r"must run on published data and would get scikit-learn digits.*GOSSIPJAX_DATA"
    ):
        take(shelf, cell()._replace(contents=lambda settings: (stand_in,)))
    assert not MADE
    take(shelf, cell()._replace(contents=lambda settings: (of_jwins("digits", 8),)))


def test_other_bands_are_noted_and_make_nothing_again(shelf):
    take(shelf, cell())
    assert not shelf.has_other_bands(cell())
    assert not shelf.has_other_bands(cell(0.6))  # there is none
    other = cell()._replace(bands={"x": (1, 2)})
    assert shelf.has_other_bands(other)
    assert shelf.state(other) == "done"
    take(shelf, other._replace(settings={"rate": 0.7}))
    assert not shelf.has_other_bands(other._replace(settings={"rate": 0.7}))  # as a file returns them


class Config(NamedTuple):
    keep: Shelf | None = None


def test_a_table_names_what_has_changed_since(shelf, monkeypatch):
    now, rebanded = cell(), cell(0.6)
    for one in (now, rebanded):
        take(shelf, one)
    stem = types.SimpleNamespace(CLAIM="it is so", PAPER=Config(), QUICK=Config(), cells=lambda config: [now, rebanded])
    stem.run = lambda config: take(config.keep, now)
    stem.table = lambda data: [Row("score", float(data.score[-1]), np.nan, np.nan, "")]
    monkeypatch.setitem(sys.modules, "experiments.stem", stem)
    monkeypatch.setattr(papers, "STEMS", ("stem",))

    def said():
        console = Console(record=True, width=200)
        parser = argparse.ArgumentParser()
        papers_command.add(parser.add_subparsers())
        given = parser.parse_args(["papers", "report", "--cells", shelf.folder, "--work", shelf.work])
        assert papers_command.main(given, console) == 0
        return console.export_text().split("2 cells:")[0]  # the table

    assert "score" in said()
    assert "stale" not in said()
    rebanded = rebanded._replace(bands={"x": 2})
    words = said()
    assert "cells made for other bands" in words
    assert rebanded.name in words
    assert now.name not in words
    monkeypatch.setattr(cells, "digest_of_code", lambda function: "other")
    words = said()
    assert "cells that are stale" in words
    assert now.name in words


# Tables of some of the cells


def test_the_largest_full_grid_keeps_what_is_required():
    names = ["a", "b", "c"]
    assert largest_grid(names, {"a": {0, 1, 2}, "b": {0, 1, 2}, "c": {0}}, ["a"]) == (["a", "b"], [0, 1, 2])
    assert largest_grid(names, {"a": {0, 1}, "b": {0, 1}, "c": {1}}, ["c"]) == (names, [1])
    assert largest_grid(names, {"a": {0}, "b": {1}, "c": set()}, ["a", "b"]) == ([], [])
    assert largest_grid(names, {"a": {0, 1}, "b": {0}, "c": set()}, ["a"]) == (["a", "b"], [0])  # more names in a tie


def test_a_table_is_made_of_the_cells_that_there_are(shelf):
    grid = {(name, seed): cell(rate, of=seed) for name, rate in (("a", 1.0), ("b", 2.0)) for seed in range(3)}
    table = shelf._replace(make=False)
    with pytest.raises(Missing, match="no seed has all of a, b"):
        take_grid(table, grid, ["a", "b"])
    for at in (("a", 0), ("a", 2), ("b", 2), ("b", 1)):
        grid[at] = grid[at]._replace(settings=grid[at].settings | {"seed": at[1]})
        take(shelf, grid[at])
    assert list(take_grid(table, grid, ["a", "b"])) == [("a", 2), ("b", 2)]
    assert len(MADE) == 4


@pytest.mark.slow
def test_an_experiment_makes_its_table_of_committed_cells_alone(shelf):
    part = jwins_accuracy_vs_bytes.Part("digits", 6, 3, 1)
    config = jwins_accuracy_vs_bytes.QUICK._replace(
        parts=(part,), num_nodes=8, schemes=("full sharing", "JWINS"), keep=shelf
    )
    made = jwins_accuracy_vs_bytes.run(config)
    more = config._replace(parts=(part._replace(num_seeds=2), part._replace(task="writers")))
    some = jwins_accuracy_vs_bytes.run(more._replace(keep=shelf._replace(make=False)))  # a seed and a task are missing
    xr.testing.assert_identical(some, made)
    assert jwins_accuracy_vs_bytes.table(some)
    with pytest.raises(Missing, match="no task has"):
        jwins_accuracy_vs_bytes.run(more._replace(parts=more.parts[1:], keep=shelf._replace(make=False)))


# One process at a time, in several sittings


def hold(folder, ready, done):
    with Sittings(folder, "code"):
        ready.set()
        done.wait(60)


@pytest.mark.slow
def test_two_processes_never_work_on_one_cell(shelf):
    sittings = shelf.sittings(cell())
    start = multiprocessing.get_context("spawn")
    ready, done = start.Event(), start.Event()
    other = start.Process(target=hold, args=(sittings.folder, ready, done))
    other.start()
    try:
        assert ready.wait(60)
        assert sittings.is_busy()
        with pytest.raises(Busy, match=rf"is in use by process {other.pid} on"):
            take(shelf, cell())
        assert not MADE
        other.kill()  # the lock goes with its process
        other.join()
        assert not sittings.is_busy()
        take(shelf, cell())
        assert store.manifest_of(shelf.file(cell()))["sittings"] == 2
    finally:
        other.kill()


def test_who_looks_at_a_run_does_not_keep_others_from_it(tmp_path, monkeypatch):
    one = Sittings(tmp_path / "cell", "code")
    with one:
        pass
    look = open(one.folder / "lock", encoding="utf-8")
    fcntl.flock(look, fcntl.LOCK_SH)
    assert not one.is_busy()  # for another one who looks
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: look.close())
    with one:
        assert look.closed
        assert one.is_busy()


def test_a_checkpoint_made_from_other_results_is_dropped(shelf):
    need = cell(0.1, of="tuning")
    one = cell(0.5, need)
    take(shelf, need)
    with shelf.sittings(one) as before:
        before.checkpoint.mkdir()
    with shelf.sittings(one) as same:
        assert same.checkpoint.exists()
        assert same.count() == 2
    told = store.manifest_of(shelf.file(need))
    store.save(need.name, shelf.file(need) + 1.0, told, shelf.path(need).parent)
    with shelf.sittings(one) as other:
        assert other.checkpoint != before.checkpoint
        assert not before.checkpoint.exists()
        assert other.count() == 1


def test_seconds_add_up_over_sittings_until_the_last_checkpoint(tmp_path):
    one = Sittings(tmp_path / "cell", "code")
    one.folder.mkdir()
    now = time.time()
    times = [[now - 500.0, now - 400.0], [now - 300.0, None]]
    (one.folder / "sittings.json").write_text(json.dumps({"made_by": "code", "times": times}))
    assert one.seconds() == pytest.approx(100.0)
    one.checkpoint.mkdir()
    piece = one.checkpoint / "after-000000000000010.npz"
    piece.touch()
    os.utime(piece, (now - 250.0, now - 250.0))
    assert one.seconds() == pytest.approx(150.0, abs=0.1)
    with one:
        assert one.count() == 3
        assert 150.0 <= one.seconds() < 200.0
    other = Sittings(tmp_path / "cell", "new")
    assert other.seconds() == 0.0
    with other:
        assert not one.checkpoint.exists()  # of other code
        assert other.count() == 1


# The queue


CELLS, OUTCOMES = {}, []


def made(config):
    """Make a cell of this file in this process, or fail as the list says."""
    outcome = OUTCOMES.pop(0) if OUTCOMES else ""
    if outcome == "lost":
        raise RuntimeError("its process died")
    if outcome:
        return xr.Dataset({"error": outcome})
    return queue.make_one(CELLS[config["cell"]], Shelf(config["folder"], config["work"]))


def stops(config):
    """Be stopped by a signal whose exception is lost, as in a callback of Python's."""
    with contextlib.suppress(queue.Stopped):
        signal.raise_signal(signal.SIGTERM)
    return xr.Dataset({"error": queue.BUSY})


def fails(settings, checkpoint):
    raise ValueError("a fault of its own")


def work(shelf, jobs, *outcomes, most=100):
    CELLS.update({job.cell.name: job.cell for job in jobs})
    OUTCOMES[:] = outcomes
    lines = []
    asked = {"folder": shelf.folder, "work": shelf.work}
    failed, ended_by = queue.run(jobs, shelf, made, asked, most=most, say=lines.append, engine="serial")
    assert ended_by is None
    assert not list(pathlib.Path(shelf.work).glob("queue-*"))
    return failed, lines


def jobs_of(*some):
    return [papers.Job(one, 2.0) for one in some]


def test_the_queue_follows_the_list_and_waits_for_what_a_cell_needs(shelf):
    need = cell(0.1, of="tuning")
    jobs = jobs_of(cell(0.5, need), cell(0.7), need)
    assert work(shelf, jobs)[0] == 0
    assert [settings["rate"] for settings, _ in MADE] == [0.7, 0.1, 0.5]


@pytest.mark.parametrize("outcome", ["it broke", "lost"])
def test_a_cell_that_fails_or_is_with_others_does_not_hold_up_the_rest(shelf, outcome):
    jobs = jobs_of(cell(0.1), cell(0.2), cell(0.3))
    failed, lines = work(shelf, jobs, outcome, queue.BUSY)
    assert failed == 1
    assert [settings["rate"] for settings, _ in MADE] == [0.3, 0.2]  # the busy one is tried again
    assert [line for line in lines if line.startswith(f"{jobs[0].cell.name} failed; the others go on")]
    assert ("broke" if outcome == "it broke" else "died") in "".join(lines)


def test_a_queue_of_which_every_worker_dies_ends(shelf):
    failed, lines = work(shelf, jobs_of(cell(0.1), cell(0.2)), "lost", "lost")
    assert failed == 2
    assert "its process died" in lines[-1]
    assert not MADE


def test_other_errors_are_told_with_their_trace(shelf):
    bad = cell()._replace(make=fails)
    failed, lines = work(shelf, jobs_of(bad))
    assert failed == 1
    assert "Traceback" in lines[-1]
    assert "in fails" in lines[-1]


def test_a_queue_that_is_stopped_stands_still(shelf):
    CELLS.update({cell(0.2).name: cell(0.2)})
    lines, before = [], signal.getsignal(signal.SIGTERM)
    jobs, asked = jobs_of(cell(0.1), cell(0.2)), {"folder": shelf.folder, "work": shelf.work}
    end = queue.run(jobs, shelf, stops, asked, most=100, say=lines.append, engine="serial")
    assert end == (0, signal.SIGTERM)
    assert "stopped" in lines[-1]
    assert "checkpoints, if they have any" in lines[-1]
    assert len(MADE) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert not list(pathlib.Path(shelf.work).glob("queue-*"))


@pytest.mark.parametrize(
    ("failed", "ended_by", "status"), [(0, None, 0), (2, None, 1), (0, signal.SIGTERM, 143), (2, signal.SIGINT, 130)]
)
def test_a_queue_that_is_stopped_has_the_exit_status_of_its_signal(tmp_path, monkeypatch, failed, ended_by, status):
    monkeypatch.setattr(queue, "run", lambda *args, **settings: queue.End(failed, ended_by))
    parser = argparse.ArgumentParser()
    papers_command.add(parser.add_subparsers())
    asked = parser.parse_args(["papers", "run", "--quick", "--work", str(tmp_path)])
    assert papers_command.main(asked, Console()) == status


def test_what_a_killed_queue_left_is_removed(shelf):
    old, other = (pathlib.Path(shelf.work) / f"queue-{name}" for name in ("killed", "running"))
    for folder in (old, other):
        folder.mkdir(parents=True)
        (folder / "lock").touch()
    with locks.take_lock(other / "lock"):
        CELLS.update({cell().name: cell()})
        asked = {"folder": shelf.folder, "work": shelf.work}
        assert queue.run(jobs_of(cell()), shelf, made, asked, most=1, say=list, engine="serial").failed == 0
        assert not old.exists()
        assert other.exists()


def test_what_a_cell_says_of_its_input_is_told_without_a_trace(shelf):
    stand_in = of_jwins("digits", 8)._replace(name="writers")
    bad = cell()._replace(contents=lambda settings: (stand_in,))
    failed, lines = work(shelf, jobs_of(bad, cell(0.2)))
    assert failed == 1
    assert any("GOSSIPJAX_DATA" in line and "Traceback" not in line for line in lines)
    assert len(MADE) == 1


def test_stale_cells_come_after_missing_ones(shelf, monkeypatch):
    jobs = jobs_of(cell(0.1), cell(0.2))
    work(shelf, jobs, most=1)
    monkeypatch.setattr(cells, "digest_of_code", lambda function: "other")
    MADE.clear()
    work(shelf, jobs)
    assert [settings["rate"] for settings, _ in MADE] == [0.2, 0.1]


def test_hours_come_from_finished_cells_of_the_kind_or_else_from_the_list(shelf):
    first, second = cell(0.1), cell(0.2)._replace(labels={"task": "t", "seed": 1})
    other = cell(0.3)._replace(labels={"task": "u", "seed": 0})
    jobs = jobs_of(first, second, other)
    assert [(line.state, line.hours, line.measured) for line in queue.status(jobs, shelf)] == [
        ("missing", 2.0, False)
    ] * 3
    take(shelf, first)
    told = store.manifest_of(shelf.file(first)) | {"seconds": 1800.0}
    store.save(first.name, shelf.file(first), told, shelf.path(first).parent)
    lines = queue.status(jobs, shelf)
    assert [(line.state, line.hours, line.measured) for line in lines] == [
        ("done", 0.5, True),
        ("missing", 0.5, True),
        ("missing", 2.0, False),
    ]
    with shelf.sittings(second):
        assert queue.status(jobs, shelf)[1].state == "under way"


def test_every_entry_of_the_list_takes_cells_and_each_cell_stands_once():
    jobs = papers.jobs(papers.STEMS, "paper", Shelf("none", "none"))
    names = [job.cell.name for job in jobs]
    assert len(set(names)) == len(names)
    for entry in papers.ORDER:
        assert any(entry.takes(job.cell) for job in jobs), entry
    assert [job.cell.labels["scheme"] for job in jobs[:2]] == ["full sharing", "JWINS"]
    for job in jobs:  # what a cell needs stands before it
        assert all(names.index(one.name) < names.index(job.cell.name) for one in job.cell.needs)


def test_unknown_stems_and_cells_are_refused(capsys):
    assert command.main(["papers", "run", "nonsense"]) == 2
    assert "nonsense: choose among" in capsys.readouterr().err
    assert command.main(["papers", "run", papers.HADFL_STEM, "writers_jwins_seed9"]) == 2
    assert "writers_jwins_seed9: choose among" in capsys.readouterr().err


def test_one_cell_can_be_named(tmp_path):
    name = papers.jobs((papers.JWINS_STEM,), "paper", Shelf(str(tmp_path), str(tmp_path)))[0].cell.name
    console = Console(record=True, width=200)
    parser = argparse.ArgumentParser()
    papers_command.add(parser.add_subparsers())
    given = parser.parse_args(["papers", "status", name, "--cells", str(tmp_path), "--work", str(tmp_path)])
    assert papers_command.main(given, console) == 0
    assert "1 missing" in console.export_text()


@pytest.mark.slow
def test_worker_processes_make_cells_and_share_them_out(tmp_path):
    words = ["papers", "run", papers.JWINS_STEM, "--quick", "--work", str(tmp_path), "--nice", "0"]
    words += ["--workers", "2", "--most", "3"]
    assert command.main(words) == 0
    shelf = Shelf(str(tmp_path / "quick"), str(tmp_path))
    states = [shelf.state(job.cell) for job in papers.jobs((papers.JWINS_STEM,), "quick", shelf)]
    assert states[:3] == ["done"] * 3
    assert set(states[3:]) == {"missing"}
    assert not list((tmp_path / "cells").iterdir())


# The code of a cell

SOURCES = {
    "__init__.py": "from fake import room\nfrom fake.inner import *\n",
    "inner.py": 'SCALE = 2\n\ndef helper(x):\n    """Help."""\n    return SCALE * x\n\ndef unused():\n    return 0\n',
    "room/__init__.py": "from fake.room._one import one\nfrom fake.room._two import two\n",
    "room/_one.py": "def one(x):\n    if x < 0:\n        raise ValueError('negative')\n    return x\n",
    "room/_two.py": "def two(x):\n    return x\n",
    "main.py": "from fake import helper, room\ndef run(x):\n    return helper(room.one(x))\ndef show():\n    return 1",
}


def digest_after(folder, monkeypatch, name=None, old="", new=""):
    """Digest ``fake.main.run`` after one text has been replaced in one file."""
    for path, text in SOURCES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        assert path != name or old in text
        (folder / path).write_text(text.replace(old, new) if path == name else text)
    monkeypatch.setattr(code, "ROOTS", {"fake": folder})
    code._source.cache_clear()
    code.digest_of_code.cache_clear()

    def run():
        pass

    run.__module__, run.__qualname__ = "fake.main", "run"
    try:
        return code.digest_of_code(run)
    finally:
        code._source.cache_clear()
        code.digest_of_code.cache_clear()


@pytest.mark.parametrize(
    ("name", "old", "new", "same"),
    [
        ("inner.py", '"""Help."""', '"""Help more."""', True),
        ("inner.py", "SCALE * x", "SCALE  *  x  # scaled", True),
        ("inner.py", "return 0", "return 1", True),
        ("main.py", "return 1", "return 2", True),
        ("room/_two.py", "return x", "return 2 * x", True),
        ("room/_one.py", "'negative'", "'must not be negative'", True),
        ("inner.py", "SCALE = 2", "SCALE = 3", False),
        ("inner.py", "SCALE * x", "x * SCALE", False),
        ("room/_one.py", "x < 0", "x <= 0", False),
        ("room/__init__.py", "fake.room._one import one", "fake.room._two import two as one", False),
        ("main.py", "room.one(x)", "room.two(x)", False),
        ("inner.py", "SCALE = 2", "SCALE = 2\nprint('at import')", False),
    ],
)
def test_only_a_change_of_what_a_function_reaches_is_other_code(tmp_path, monkeypatch, name, old, new, same):
    before = digest_after(tmp_path, monkeypatch)
    assert (digest_after(tmp_path, monkeypatch, name, old, new) == before) == same


def test_a_room_that_is_passed_on_counts_with_all_that_it_has(tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "main.py", SOURCES["main.py"].replace("room.one(x)", "getattr(room, x)"))
    before = digest_after(tmp_path, monkeypatch)
    assert digest_after(tmp_path, monkeypatch, "room/_two.py", "return x", "return 2 * x") != before


def test_the_code_of_a_real_cell_is_what_it_runs_and_not_its_table():
    first, hadfl = papers.cells(papers.JWINS_STEM, "quick", None)[0], papers.cells(papers.HADFL_STEM, "quick", None)[0]
    of_jwins_run, of_hadfl = (code.definitions_of(one.make) for one in (first, hadfl))
    modules = {one.module for one in of_jwins_run}
    for needed in (
        "gossipjax.sharing._jwins",
        "gossipjax._engine.loop",
        "gossipjax.protocol._dpsgd",
        "gossipjax.mixing._apply",
    ):
        assert needed in modules
    assert not {"gossipjax.protocol._hadfl", "gossipjax.results._plot", "theory.check.judge"} & modules
    assert "gossipjax.protocol._hadfl" in {one.module for one in of_hadfl}
    own = {one.name for one in of_hadfl if one.module == hadfl.make.__module__}
    assert own == {"one", "contents"}


def test_a_name_that_cannot_be_followed_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="fake has no nothing"):
        digest_after(tmp_path, monkeypatch, "main.py", "import helper, room", "import nothing as helper, room")


def test_a_function_of_other_packages_has_no_code():
    with pytest.raises(ValueError, match="must be a top-level function of gossipjax, theory, experiments"):
        code.digest_of_code(draw)


# A whole queue, in processes of its own


def start_queue(folder):
    words = ["papers", "run", papers.HADFL_STEM, "--quick", "--most", "1", "--work", str(folder), "--nice", "0"]
    given = [sys.executable, "-m", "experiments", *words]
    return subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def quick_shelf(folder):
    return Shelf(str(folder / "quick"), str(folder))


def children(pid):
    return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="needs the process table of Linux")
@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_queue_that_is_killed_or_stopped_goes_on_from_the_checkpoint(tmp_path, how):
    job = papers.jobs((papers.HADFL_STEM,), "quick", quick_shelf(tmp_path))[0]
    sittings = quick_shelf(tmp_path).sittings(job.cell)
    first = start_queue(tmp_path)
    deadline = time.monotonic() + 300
    while not list(sittings.checkpoint.glob("after-*.npz")):
        assert first.poll() is None, first.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    cells = children(first.pid) if how == "kill" else []
    for cell in cells:  # it must not end by itself before it sees that its parent has ended
        os.kill(cell, signal.SIGSTOP)
    getattr(first, how)()
    if cells:
        first.wait(timeout=60)
        time.sleep(1.5)  # more than the time between two looks
    for cell in cells:
        os.kill(cell, signal.SIGCONT)
    said = first.communicate(timeout=60)[0]
    while sittings.is_busy():  # the process of the cell sees within a second that its parent has ended
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert quick_shelf(tmp_path).state(job.cell) == "missing"
    assert sittings.checkpoint.exists()
    if how == "terminate":
        assert first.returncode == 128 + signal.SIGTERM
        assert "go on from their last checkpoints, if they have any" in said
        return
    second = start_queue(tmp_path)
    said = second.communicate(timeout=300)[0]
    assert second.returncode == 0, said
    made = quick_shelf(tmp_path).file(job.cell)
    assert store.manifest_of(made)["sittings"] == 2
