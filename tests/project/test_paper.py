"""The paper's numbers are those of committed tables, and its text is whole; what is missing or stale is refused."""

import pathlib
import re
import shutil

import numpy as np
import pytest

from benchmarks.tables import RESULTS
from paper import __main__ as command
from paper import figures, numbers, source, spec
from paper.numbers import Judged, Number, Place, Sentence
from theory import staleness


@pytest.fixture
def results(tmp_path):
    """A copy of the tables, to plant faults in."""
    return pathlib.Path(shutil.copytree(RESULTS, tmp_path / "results"))


def changed(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path.name, old, text.count(old))
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_committed_numbers_are_those_of_the_tables_and_the_text_has_no_fault():
    numbers.check(spec.NUMBERS, spec.VERDICTS)
    source.check(figures.DRAWN)


@pytest.mark.parametrize("number", spec.NUMBERS, ids=lambda each: each.name)
def test_a_number_is_in_its_table(number):
    """Digit by digit: what the macro says rounds what the file says."""
    text = (RESULTS / (number.file if isinstance(number, Sentence) else number.place.file)).read_text(encoding="utf-8")
    shown = numbers.value_of(number).split(r" $\pm$")[0].replace("$-$", "-")
    if isinstance(number, Sentence) or number.digits is None:
        assert shown in text
    else:
        cell = numbers.row_of(number.place)[number.column].replace(",", "").split()[0].rstrip("%")
        assert float(shown.replace(",", "")) == pytest.approx(float(cell), rel=0.5 * 10.0 ** (1 - number.digits))


@pytest.mark.parametrize(
    ("text", "shown"), [("0.00005", "0.000050"), ("0.0123", "0.012"), ("1,234,567", "1,200,000"), ("99.7 %", "100")]
)
def test_rounded_numbers_have_no_exponent(text, shown):
    assert numbers.rounded(text, 2) == shown


def test_a_missing_row_is_named(results):
    path = results / spec.STALENESS
    lines = [line for line in path.read_text().splitlines() if "mean, uniform, λ = ln n, n = 1,000,000" not in line]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"number StaleLog: missing: .*staleness_vs_capacity.*1,000,000"):
        numbers.text_of(spec.NUMBERS, spec.VERDICTS, results)


def test_a_missing_file_column_sentence_and_verdict_are_named(results):
    place = Place(spec.ROUNDS, None, "mean seconds a round, s = 20, time by steps")
    for number, words in (
        (Number("A", Place("2026-01-01-nothing.md", None, "a"), "measured"), "missing: there is no"),
        (Number("A", place, "predicted"), "has no 'predicted'"),
        (Number("A", place, "measured", pattern="x(.)"), r"has no 'x\(\.\)'"),
        (Number("A", Place(spec.PLEXUS, "plexus_none", "a"), "measured"), "no heading 'plexus_none'"),
        (Sentence("A", spec.CLAIMS, r"All (\d+) lies hold"), "has 0 matches"),
    ):
        with pytest.raises(ValueError, match=words):
            numbers.text_of([number], [], results)
    with pytest.raises(ValueError, match=r"verdict on 'c': missing: .* has no verdict"):
        numbers.text_of([], [Judged("p", "c", place, published=None)], results)


def test_a_changed_table_makes_the_committed_numbers_stale(results):
    changed(
        results / spec.HADFL,
        "HADFL / decentralized FedAvg, samples a second | 1.98 |",
        "HADFL / decentralized FedAvg, samples a second | 1.97 |",
    )
    with pytest.raises(ValueError, match=r"stale: numbers\.tex is not what the tables say; run: python -m paper write"):
        numbers.check(spec.NUMBERS, spec.VERDICTS, results)


def test_a_changed_verdict_makes_the_committed_numbers_stale(results):
    changed(results / spec.THOUSAND, "within 1 point; contradicted: 0.0287", "within 1 point; undecided: 0.0287")
    with pytest.raises(ValueError, match="stale"):
        numbers.check(spec.NUMBERS, spec.VERDICTS, results)


@pytest.mark.parametrize("name", ["2030-01-01-plexus.md", "2030-01-01-more.md"])
def test_a_newer_table_of_the_same_name_makes_a_number_stale(results, name):
    text = (results / spec.PLEXUS).read_text(encoding="utf-8")
    (results / name).write_text(text if name.endswith("more.md") else "# Plexus\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"stale: .*is older than {name}"):
        numbers.text_of(spec.NUMBERS, spec.VERDICTS, results)


def test_a_stale_figure_is_refused(results):
    (results / "2030-01-01-again.md").write_text(f"## {spec.CAPACITY}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="stale"):
        figures.staleness_points(results)


def test_the_figure_has_the_points_of_the_table_beside_the_exact_law():
    rates = {"1": lambda n: np.ones_like(n), "ln n": np.log, "n": lambda n: n}
    for name, points in figures.staleness_points().items():
        n, measured, half, exact = points.T
        law = staleness.mean_staleness(n.astype(int), gossip_rate=rates[name](n), update_rate=1.0)
        np.testing.assert_allclose(exact, law, rtol=1e-3)  # four digits in the table
        assert (np.abs(measured - exact) < 3 * half).all()
    drawn = figures.draw_staleness().axes[0]
    assert len(drawn.containers) == 3


WHOLE = r"\newcommand{\NOne}{1}\begin{table}\label{a}\NOne\ref{a}\end{table}"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (r"\ref{a}", r"\ref{b}", r"\\ref\{b\} without a label"),
        (r"\NOne\ref", r"\NTwo\ref", r"\\NTwo is not defined"),
        (r"\NOne\ref", r"\ref", r"\\NOne is defined and not used"),
        (r"\ref{a}", r"\ref{a}\alhpa", r"\\alhpa is not defined"),
        (r"\ref{a}", r"\ref{a}{", "1 braces { without }"),
        (r"\ref{a}", r"\ref{a}}", "a brace } without {"),
        (r"\ref{a}", r"\ref{a}$", "an odd number of"),
        (r"\end{table}", r"\end{figure}", r"\\end\{figure\} without its \\begin"),
        (r"\end{table}", "", r"\\begin\{table\} without \\end"),
        (r"\label{a}", r"\label{a}\label{a}", "label a stands there twice"),
        (r"\ref{a}", r"\ref{a}\citep{nobody2000}", r"\\cite\{nobody2000\} is in no bibliography"),
        (r"\ref{a}", r"\ref{a} λ", "a character that is not ASCII: λ"),
    ],
)
def test_faults_of_the_text_are_found(old, new, fault):
    assert [each for each in source.faults(WHOLE) if "more.bib" not in each] == []
    assert WHOLE.count(old) == 1
    assert any(re.search(fault, each) for each in source.faults(WHOLE.replace(old, new)))


def test_a_typed_number_is_found():
    assert "a typed number: 3.15" in source.faults(WHOLE, r"sooner by 3.15 times, not \NOne")


def test_a_missing_part_is_named(tmp_path):
    (tmp_path / "paper.tex").write_text(r"\input{sections/none} % \input{comment}")
    with pytest.raises(ValueError, match=r"\\input\{sections/none\}: there is no"):
        source.source(tmp_path / "paper.tex")


def test_without_tex_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.setattr(figures.write, "__defaults__", (tmp_path,))
    assert "install TeX Live" in command.build()
    assert (tmp_path / "staleness.pdf").read_bytes().startswith(b"%PDF")


def test_what_tex_lacks_is_named(monkeypatch, tmp_path):
    """A latexmk that fails as it does where a package is not installed."""
    (tmp_path / "latexmk").write_text(
        '#!/bin/sh\necho "! LaTeX Error: File \\`lmodern.sty\' not found." > build/paper.log\nexit 12\n'
    )
    (tmp_path / "latexmk").chmod(0o755)
    (tmp_path / "build").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(command, "HERE", tmp_path)
    monkeypatch.setattr(figures.write, "__defaults__", (tmp_path,))
    with pytest.raises(ValueError, match=r"latexmk ended with status 12: .*File `lmodern.sty' not found. Install it: "):
        command.build()


def test_a_fault_ends_the_build(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["paper", "build"])
    monkeypatch.setattr(numbers.check, "__defaults__", (RESULTS, pathlib.Path("nowhere.tex")))
    assert command.main() == 1
    assert "paper: stale: nowhere.tex is not what the tables say" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(command.commands() is None, reason="no TeX")
def test_tex_makes_the_pdf():
    assert command.build().startswith("wrote ")
    log = (command.HERE / "build" / "paper.log").read_text(encoding="utf-8", errors="replace")
    # Lines of the log end after 79 characters, so only the beginnings of warnings are whole.
    assert re.findall(r"(?:LaTeX|natbib) Warning: (?:Reference|Citation|There were undefined|Label).*", log) == []
    assert "Overfull" not in log
