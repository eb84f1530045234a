"""Notebooks run from top to bottom, and what they say is true."""

import base64
import os
import pathlib
import re

import nbclient
import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

from theory.check.policy import Band, decide

NOTEBOOKS = pathlib.Path(__file__).resolve().parents[2] / "notebooks"


def source_of(name, **settings):
    """A notebook with other numbers in its first cell."""
    source = (NOTEBOOKS / f"{name}.py").read_text()
    for variable, value in settings.items():
        (line,) = (line for line in source.splitlines() if line.startswith(f"{variable} = "))
        source = source.replace(line, f"{variable} = {value!r}", 1)
    return source


def executed(name, **settings):
    """Run a notebook as a script; returns its variables."""
    variables: dict = {"__name__": name}
    exec(compile(source_of(name, **settings), name, "exec"), variables)
    return variables


def cells_of(source):
    """Code cells of a notebook in the percent format."""
    parts = re.split(r"^# %%(.*)$", source, flags=re.MULTILINE)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [code.strip() for kind, code in pairs if "[markdown]" not in kind]


def outputs_in_jupyter(cells, monkeypatch, folder):
    """What a kernel shows of each cell: the data of its results, by type."""
    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOKS.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=300, resources=where).execute()
    return [
        [output["data"] for output in cell.outputs if output.output_type in ("execute_result", "display_data")]
        for cell in notebook.cells
    ]


@pytest.mark.slow
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


PICTURES = """
import gossipjax as gj

plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(8)), 20)
watch = [gj.observe.consensus_distance()]
run_of_eight = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, jnp.arange(8.0), observers=watch)
labels = np.arange(90) % 3
partition = gj.tasks.iid(90, 8, seed=0)
devices = gj.devices.uniform(8)
system = gj.systems.synchronous(devices, gj.topology.ring(8), 3, local_steps=1, model_bytes=100_000)
"""
SHOWN = (
    "run_of_eight.plot()",
    "partition.plot(labels)",
    "gj.systems.picture(system, nodes=[0, 1], first_s=0, last_s=9)",
)
TABLES = ("run_of_eight", "plan", "system", "partition", "devices", "TASK", "gj.dpsgd(TASK, optax.sgd(0.1))")


@pytest.mark.slow
def test_pictures_and_tables_appear_in_jupyter(monkeypatch, tmp_path):
    """A kernel shows every figure as an image, before pyplot is imported and once after, and every value as a table."""
    cells = cells_of(source_of("which_topology", NODES=16, ROUNDS=20))
    again = f"import matplotlib.pyplot\n{SHOWN[0]}"
    found = outputs_in_jupyter([*cells, PICTURES, *SHOWN, *TABLES, again], monkeypatch, tmp_path)
    own = [data for outputs in found[: len(cells)] for data in outputs if "image/png" in data]
    shown = found[len(cells) + 1 :][: len(SHOWN)]
    tables = found[len(cells) + 1 + len(SHOWN) :][: len(TABLES)]
    for data in (*own, *(outputs[0] for outputs in (*shown, found[-1]))):
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert own
    assert [len(outputs) for outputs in (*shown, found[-1])] == [1] * (len(SHOWN) + 1)
    for outputs in tables:
        (data,) = outputs
        assert "<table>" in data["text/html"]
        assert len(data["text/plain"]) <= 400


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
