"""``python -m gossipjax new`` writes a study that runs at once, and overwrites nothing."""

import pathlib
import shlex
import subprocess
import sys

import pytest

from gossipjax.__main__ import main
from gossipjax._new import STUDY, new


def test_a_folder_is_made_whole_under_its_name(tmp_path):
    folder = new(tmp_path / "ages")
    assert {path.name for path in folder.iterdir()} == {path.name for path in STUDY.iterdir()} - {"__pycache__"}
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("# ages\n")
    assert [path.name for path in tmp_path.iterdir()] == ["ages"]


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert main(["new", str(tmp_path / "empty")]) == 0
    assert "python experiment.py" in capsys.readouterr().out
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["new", "."]) == 0
    assert pathlib.Path("README.md").read_text(encoding="utf-8").startswith("# here\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    assert main(["new", str(tmp_path / "full")]) == 2
    assert "choose another name" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["my study", "$HOME", "a'b;ls", "ünï [x]*"])
def test_the_printed_commands_find_a_folder_of_any_name(tmp_path, capsys, name):
    assert main(["new", str(tmp_path / name)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    cd ")]
    assert shlex.split(line) == ["cd", str(tmp_path / name)]


@pytest.mark.parametrize("name", ["missing/study", "file"])
def test_places_that_cannot_be_are_refused(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"does not exist|not an empty folder"):
        new(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_the_study_runs_and_its_tests_pass(tmp_path):
    folder = new(tmp_path / "study")
    for words in (["experiment.py"], ["figure.py"], ["-m", "pytest", "-q", "-p", "no:cacheprovider"]):
        done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "figure.png").stat().st_size > 10_000
    assert len(list(pathlib.Path(folder, "results").glob("*.nc"))) == 2
