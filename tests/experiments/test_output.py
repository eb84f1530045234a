"""Places that cannot be written to are refused before any work."""

import pytest

import benchmarks.__main__ as benchmarking
import experiments.__main__ as command
import figures.__main__ as drawing
import theory.__main__ as checking
from theory import check
from theory.output import check_file, check_folder


@pytest.fixture(params=["file in the way", "file above", "folder of the name", "no device"])
def bad(request, tmp_path):
    """A folder for ``heterogeneity``'s files, and a file, neither of which can be written."""
    (tmp_path / "file").write_text("")
    if request.param == "file in the way":
        return tmp_path / "file", tmp_path / "file" / "out.md"
    if request.param == "file above":
        return tmp_path / "file" / "deep" / "er", tmp_path / "file" / "deep" / "out.md"
    if request.param == "folder of the name":
        for name in ("heterogeneity.nc", "heterogeneity.png", "index.html"):
            (tmp_path / "taken" / name).mkdir(parents=True)
        return tmp_path / "taken", tmp_path / "taken"
    import pathlib

    return pathlib.Path("/proc/no/such"), pathlib.Path("/proc/out.md")


def working(*_, **__):
    raise AssertionError("work began")


def test_experiments(bad, monkeypatch, capsys):
    monkeypatch.setattr(command, "run_one", working)
    monkeypatch.setattr(command.gossipjax, "configure", working)
    assert command.main(["run", "heterogeneity", "--quick", "--out", str(bad[0])]) == 2
    assert "--out" in capsys.readouterr().err


def test_figures(bad, monkeypatch, capsys):
    monkeypatch.setattr(drawing.store, "load", working)
    assert drawing.main(["heterogeneity", "--out", str(bad[0])]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_claims(bad, option, monkeypatch, capsys):
    monkeypatch.setattr(check, "check", working)
    assert checking.main(["check", "--quick", option, str(bad[option == "--json"])]) == 2
    assert option in capsys.readouterr().err


def test_benchmarks(bad, monkeypatch, capsys):
    monkeypatch.setattr(benchmarking, "case", working)
    with pytest.raises(SystemExit) as ended:
        benchmarking.main(["million", "--out", str(bad[1])])
    assert ended.value.code == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["robust", "--rules", "GTSS"], ["million", "--rules", "GTS"]])
def test_rules_that_are_not_measured(words, monkeypatch, capsys):
    monkeypatch.setattr(benchmarking, "case", working)
    with pytest.raises(SystemExit) as ended:
        benchmarking.main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "choose among plain mean; clipped" in said or "an option of the section robust" in said


def test_every_configuration_is_found_before_the_first_runs(monkeypatch, capsys, tmp_path):
    """The second stem has none of the paper's size."""
    monkeypatch.setattr(command, "run_one", working)
    assert command.main(["run", "jwins_ablation", "heterogeneity", "--paper", "--out", str(tmp_path)]) == 2
    assert "heterogeneity" in capsys.readouterr().err


def test_good_places_are_made_and_left_empty(tmp_path):
    check_folder("--out", tmp_path / "a" / "b", "file.nc")
    check_file("--json", tmp_path / "c" / "d.json")
    assert list((tmp_path / "a" / "b").iterdir()) == list((tmp_path / "c").iterdir()) == []
    with pytest.raises(ValueError, match="must name a file"):
        check_file("--json", "/")
