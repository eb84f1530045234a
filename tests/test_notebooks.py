"""Notebooks run from top to bottom, and what they say is true."""

import pathlib

import numpy as np
import pytest
from matplotlib.figure import Figure

from theory.check.policy import Band, decide

NOTEBOOKS = pathlib.Path(__file__).resolve().parent.parent / "notebooks"


def executed(name, **settings):
    """Run a notebook with other numbers in its first cell; returns its variables."""
    source = (NOTEBOOKS / f"{name}.py").read_text()
    for variable, value in settings.items():
        (line,) = (line for line in source.splitlines() if line.startswith(f"{variable} = "))
        source = source.replace(line, f"{variable} = {value!r}", 1)
    variables: dict = {"__name__": name}
    exec(compile(source, name, "exec"), variables)
    return variables


def test_does_log_n_suffice(capsys):
    sizes = (8, 32, 128)
    found = executed("does_log_n_suffice", SIZES=sizes, RUNS=4, CAPACITIES=("1", "ln n"))
    samples = found["samples"]["ln n"]
    exact = np.asarray([found["staleness"].mean_staleness(n, gossip_rate=np.log(n), update_rate=1.0) for n in sizes])
    # Student's t of three degrees of freedom at level 1e-4 each.
    assert (np.abs(samples.mean(axis=1) - exact) < 22 * samples.std(axis=1, ddof=1) / 2).all()
    assert isinstance(found["figure"], Figure)
    out = capsys.readouterr().out
    assert "fits best" in out
    assert found["answers"]["1"] == "grows"
    assert "Does Ω(log n) suffice? Yes; bounded: λ = ln n; growing: λ = 1." in out


@pytest.mark.parametrize(("slope", "answer"), [(0.0, "bounded"), (0.2, "grows"), (0.05, "undecided")])
def test_the_answer_on_log_n_follows_from_the_growth(slope, answer):
    """The rule by itself: a share of the mean for each factor e, over six runs that differ by a hundredth."""
    values = slope + 0.01 * np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    word = decide(values, Band(high=0.05)).word
    assert {"reproduced": "bounded", "contradicted": "grows"}.get(word, word) == answer


def test_which_topology(capsys):
    found = executed("which_topology", NODES=16, ROUNDS=60)
    _exact_topology_leaves_the_others_readable(found)
    rows = found["rows"]
    assert isinstance(found["figure"], Figure)
    assert capsys.readouterr().out.count("\n") == 1 + len(rows)
    assert rows["complete"]["settled"] == pytest.approx(0.0, abs=1e-12)
    assert rows["ring"]["gap"] < rows["torus"]["gap"] < rows["complete"]["gap"]
    for name in ("ring", "torus", "exponential", "star"):
        # One run of 8 coordinates over 30 rounds, of which few are independent: within a factor two.
        assert 0.5 < rows[name]["settled"] / rows[name]["predicted"] < 2.0, name


def _exact_topology_leaves_the_others_readable(found):
    """The axes span what the others settle at, with two decades of room, not the rounding of the complete graph."""
    assert found["exact"] == {"complete"}
    settled = [row["predicted"] for name, row in found["rows"].items() if name != "complete"]
    for ax in found["figure"].axes:
        low, high = ax.get_ylim()
        assert low > min(settled) / 100
        assert high < 100 * max(settled)
        assert low < min(settled) < max(settled) < high
    assert "complete: 0" in [text.get_text() for text in found["figure"].legends[0].get_texts()]
