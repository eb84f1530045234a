"""The apps run from top to bottom, say what is true, and show their figures in Jupyter."""

import ast
import base64
import functools
import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys

import nbclient
import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

from theory.check.policy import Band, decide

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
if importlib.util.find_spec("marimo") is None:
    pytest.skip("marimo is not installed: pip install gossipjax[notebooks]", allow_module_level=True)
asking = importlib.import_module("notebooks.ask")
ask, APPS = asking.ask, asking.APPS


def app(name):
    return importlib.import_module(f"notebooks.{name}")


def test_every_app_is_listed_and_has_a_slider_for_every_setting():
    assert sorted(APPS) == sorted(path.stem for path in NOTEBOOKS.glob("*.py") if path.stem != "ask")
    for name in APPS:
        source = (NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8")
        for setting in app(name).SETTINGS:
            assert source.count(f'=SETTINGS["{setting}"]') == 1, (name, setting)
            assert f"{{{setting}}}" in source, (name, setting)  # its place on the page


def test_the_setup_of_an_app_shows_nothing():
    """marimo shows the last expression of a cell, and so a string that documents a name."""
    for name in APPS:
        tree = ast.parse((NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8"))
        (setup,) = [node for node in tree.body if isinstance(node, ast.With)]
        assert not isinstance(setup.body[-1], ast.Expr), name


def test_wrong_questions_are_refused():
    with pytest.raises(ValueError, match=r"app='which': there are does_log_n_suffice, which_topology"):
        ask("which")
    with pytest.raises(ValueError, match="which_topology has no setting n; it has nodes, step_size"):
        ask("which_topology", n=16)


@pytest.mark.parametrize(
    ("name", "setting", "error", "words"),
    [
        ("how_stale_is_node_17", {"clock": "foo"}, ValueError, "clock='foo': choose one of poisson, periodic"),
        ("how_stale_is_node_17", {"nodes": 10}, ValueError, "nodes=10: must be 25 or more"),
        ("does_log_n_suffice", {"capacities": []}, ValueError, r"capacities=\[\]: choose a list of some of "),
        ("does_log_n_suffice", {"margin": -1.0}, ValueError, "margin=-1.0: must be 0.01 or more"),
        ("does_log_n_suffice", {"margin": float("nan")}, ValueError, "margin=nan"),
        ("cost_on_phones", {"share": 200}, ValueError, "share=200: must be 5 or more, at most 100"),
        ("which_topology", {"nodes": 16.5}, TypeError, "nodes=16.5: must be a whole number"),
        ("what_compression_saves", {"schemes": ["foo"]}, ValueError, "schemes=.*: choose a list of some of random"),
        ("what_compression_saves", {"target": 300}, ValueError, "target=300: .* at most 99"),
    ],
)
def test_answers_without_a_meaning_are_not_given(name, setting, error, words):
    with pytest.raises(error, match=words):
        ask(name, **setting)


@pytest.mark.parametrize("nodes", [16, 20, 25, 32])
def test_compared_networks_have_the_same_size(nodes):
    graphs = app("which_topology").graphs_of(nodes)
    assert {graph.num_nodes for graph in graphs.values()} == {nodes}
    assert ("torus" in graphs, "hypercube" in graphs) == (nodes in (16, 25), nodes in (16, 32))
    if nodes not in (16, 25):
        with pytest.raises(ValueError, match=f"nodes={nodes}: a torus needs a square number"):
            app("how_stale_is_node_17").graph_of("torus", nodes)


SMALL = {
    "does_log_n_suffice": {"largest": 128, "runs": 4},
    "which_topology": {"nodes": 16, "rounds": 60},
    "cost_on_phones": {"phones": 50, "rounds": 20, "sample": 5},
    "how_stale_is_node_17": {"nodes": 25},
    "what_compression_saves": {"schemes": ["top-k"]},
}


@functools.cache
def asked(name):
    return ask(name, **SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", APPS)
def test_an_app_with_sliders_says_what_it_says_when_asked(name):
    """As marimo runs it: all cells with the sliders, except the one that computes, whose results are given."""
    found, module = asked(name), app(name)
    answer = {"answer", "controls", "figure", "verdicts"}
    results = {key: value for key, value in found.values.items() if key not in answer and not hasattr(module, key)}
    _, values = module.app.run(defs=results)
    assert values["controls"].value == module.SETTINGS
    assert values["answer"] == found.text
    assert isinstance(values["figure"], Figure)


@pytest.mark.slow
def test_does_log_n_suffice():
    found = asked("does_log_n_suffice")
    samples, sizes = found.values["samples"]["ln n"], found.values["sizes"]
    assert sizes.tolist() == [8, 16, 64, 128]
    mean_staleness = app("does_log_n_suffice").staleness.mean_staleness
    exact = np.asarray([mean_staleness(int(n), gossip_rate=np.log(n), update_rate=1.0) for n in sizes])
    # Student's t of three degrees of freedom at level 1e-4 each.
    assert (np.abs(samples.mean(axis=1) - exact) < 22 * samples.std(axis=1, ddof=1) / 2).all()
    assert found.text.startswith("**Yes.** Bounded: λ = ln n; growing: λ = 1.")


@pytest.mark.parametrize(("slope", "answer"), [(0.0, "Yes"), (0.2, "No"), (0.05, "Undecided")])
def test_the_answer_on_log_n_follows_from_the_growth(slope, answer):
    """The rule by itself: growth as a share of the mean for each factor e, over six runs that differ by a hundredth."""
    verdict = decide(slope + 0.01 * np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]), Band(high=0.05))
    assert app("does_log_n_suffice").answer_of({"ln n": verdict}).startswith(f"**{answer}.**")
    assert app("does_log_n_suffice").answer_of({"n": verdict}).startswith("**Undecided.**")


def test_growth_is_the_slope_over_the_mean():
    sizes = np.array([8, 32, 128])
    values = 2.0 + 3.0 * np.log(sizes)[:, None] + np.array([-0.5, 0.5])  # two runs, a constant apart
    np.testing.assert_allclose(app("does_log_n_suffice").growth(sizes, values), 3.0 / values.mean(), rtol=1e-12)


def test_which_topology():
    found = asked("which_topology")
    rows = found.values["rows"]
    _exact_topology_leaves_the_others_readable(found.figure, rows)
    assert [line.split(" | ")[0] for line in found.text.splitlines()[4:]] == [f"| {name}" for name in rows]
    assert rows["complete"]["settled"] == pytest.approx(0.0, abs=1e-12)
    assert rows["ring"]["gap"] < rows["torus"]["gap"] < rows["complete"]["gap"]
    messages = {"ring": 32, "torus": 64, "hypercube": 64, "exponential": 64, "star": 30, "complete": 240}
    assert {name: rows[name]["messages"] for name in messages} == messages
    for name in ("ring", "torus", "exponential", "star"):
        # One run of 8 coordinates over 30 rounds, of which few are independent: within a factor two.
        assert 0.5 < rows[name]["settled"] / rows[name]["predicted"] < 2.0, name


def test_the_choice_of_a_topology():
    rows = {
        name: {"messages": messages, "predicted": left}
        for name, messages, left in [("a", 10, 5.0), ("b", 20, 1.9), ("c", 30, 1.0), ("d", 20, 1.8), ("e", 99, 1e-12)]
    }
    choose = app("which_topology").cheapest_within
    assert choose(rows, 2.0) == "d"
    assert choose(rows, 1.5) == "c"
    assert choose(rows, 10.0) == "a"
    assert choose({name: row | {"predicted": 0.0} for name, row in rows.items()}, 2.0) is None


def _exact_topology_leaves_the_others_readable(figure, rows):
    """The axes span what the others settle at, with two decades of room, not the rounding of the complete graph."""
    assert app("which_topology").exact_ones(rows) == {"complete"}
    settled = [row["predicted"] for name, row in rows.items() if name != "complete"]
    for ax in figure.axes:
        low, high = ax.get_ylim()
        assert low > min(settled) / 100
        assert high < 100 * max(settled)
        assert low < min(settled) < max(settled) < high
    assert "complete: 0" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_cost_on_phones():
    settings = {"phones": 50, "rounds": 20, "sample": 5, "megabytes": 1.0, "share": 50, "degree": 4}
    costs = ask("cost_on_phones", **settings).values["costs"]
    message = 0.5  # MB
    assert costs["D-PSGD"]["sent"] == costs["D-PSGD"]["most"] == pytest.approx(20 * 4 * message)
    assert costs["Epidemic Learning"]["sent"] == pytest.approx(20 * 4 * message)
    assert costs["D-PSGD"]["updates"] == costs["Epidemic Learning"]["updates"] == 20 * 50
    # At most a message to and from each of a sample for each aggregator, beside views and control messages.
    assert 20 * 5 * message / 50 < costs["Plexus"]["sent"] < 4 * 20 * 5 * message / 50
    for cost in costs.values():
        assert cost["by_phone"].max() == cost["most"]
        assert cost["by_phone"].mean() == pytest.approx(cost["sent"])


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["complete", "ring"])
def test_how_stale_is_node_17(topology):
    """Means over blocks of instants against the exact mean: |t| of nine degrees of freedom at level 1e-4."""
    values = ask("how_stale_is_node_17", nodes=25, topology=topology).values
    blocks = values["stale"].mean(axis=1)[:200].reshape(10, 20).mean(axis=1)
    assert abs(blocks.mean() - values["exact"]) < 6.6 * blocks.std(ddof=1) / np.sqrt(10)


def test_a_flight_time_makes_node_17_stale():
    asked = {time: ask("how_stale_is_node_17", nodes=25, flight_time=time) for time in (0.0, 2.0)}
    assert asked[0.0].values["exact"] is not None
    assert asked[2.0].values["exact"] is None
    assert "no exact formula" in asked[2.0].text
    means = {time: found.values["stale"].mean() for time, found in asked.items()}
    assert means[2.0] > means[0.0] + 1.5  # a flight of two seconds alone is two updates
    assert asked[2.0].values["stale"].shape[1] == 24


@pytest.mark.slow
def test_what_compression_saves():
    found = asked("what_compression_saves")
    curves = found.values["curves"]
    sent = {scheme: curve[1][-1] for scheme, curve in curves.items()}
    assert sent["full"] == pytest.approx(120 * 4 * 4 * 650 / 1e6)  # rounds, neighbours, bytes, parameters
    assert 0.1 < sent["top-k"] / sent["full"] < 0.15  # a tenth of the values, and their positions
    assert all(curve[0][-1] > 0.85 for curve in curves.values())
    assert "fewer bytes than whole models" in found.text


def test_megabytes_to_a_target():
    accuracy, sent = np.array([0.1, 0.5, 0.9, 0.8]), np.array([0.0, 1.0, 2.0, 3.0])
    to = app("what_compression_saves").megabytes_to
    assert to((accuracy, sent), 0.7) == pytest.approx(1.5)
    assert to((accuracy, sent), 0.1) == 0.0
    assert np.isnan(to((accuracy, sent), 0.95))


def outputs_in_jupyter(cells, monkeypatch, folder):
    """What a kernel shows of each cell: the data of its results, by type."""
    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=300, resources=where).execute()
    return [
        [output["data"] for output in cell.outputs if output.output_type in ("execute_result", "display_data")]
        for cell in notebook.cells
    ]


ASKED = """
import jax, jax.numpy as jnp, numpy as np, optax
from notebooks.ask import ask
import gossipjax as gj

found = ask("which_topology", nodes=16, rounds=60)
"""
PICTURES = """
TASK = gj.tasks.quadratic(np.zeros((8, 3)))
plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(8)), 20)
watch = [gj.observe.consensus_distance()]
run_of_eight = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, jnp.arange(8.0), observers=watch)
labels = np.arange(90) % 3
partition = gj.tasks.iid(90, 8, seed=0)
devices = gj.devices.uniform(8)
system = gj.systems.synchronous(devices, gj.topology.ring(8), 3, local_steps=1, model_bytes=100_000)
"""
SHOWN = (
    "found.figure",
    "run_of_eight.plot()",
    "partition.plot(labels)",
    "gj.systems.picture(system, nodes=[0, 1], first_s=0, last_s=9)",
)
TABLES = ("run_of_eight", "plan", "system", "partition", "devices", "TASK", "gj.dpsgd(TASK, optax.sgd(0.1))")


def exported(name, folder):
    """The code cells of an app as a Jupyter notebook."""
    path = folder / f"{name}.ipynb"
    words = ["export", "ipynb", str(NOTEBOOKS / f"{name}.py"), "-o", str(path)]
    subprocess.run([sys.executable, "-m", "marimo", "-q", *words], check=True, capture_output=True, cwd=folder)
    return ["".join(cell.source) for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_pictures_and_tables_appear_in_jupyter(monkeypatch, tmp_path):
    """A kernel shows every figure as an image, before pyplot is imported and once after, and every value as a table."""
    again = f"import matplotlib.pyplot\n{SHOWN[1]}"
    cells = exported("cost_on_phones", tmp_path)
    found = outputs_in_jupyter([*cells, ASKED, PICTURES, "found", *SHOWN, *TABLES, again], monkeypatch, tmp_path)
    assert any("image/png" in data for outputs in found[: len(cells)] for data in outputs)
    asked, _, answer, *rest = found[len(cells) :]
    assert asked == []
    assert answer[0]["text/markdown"].startswith("**")
    shown, tables = rest[: len(SHOWN)], rest[len(SHOWN) : -1]
    for data in (outputs[0] for outputs in (*shown, rest[-1])):
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert [len(outputs) for outputs in (*shown, rest[-1])] == [1] * (len(SHOWN) + 1)
    for outputs in tables:
        (data,) = outputs
        assert "<table>" in data["text/html"]
        assert len(data["text/plain"]) <= 400
