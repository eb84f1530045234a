"""What values say of themselves: short, with the numbers that matter, and the same as a table."""

import copy
import importlib.metadata
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from plexus_runs import network, uneven
from plexus_runs import run as plexus_run

import gossipjax as gj
from gossipjax._base.display import MOST_CHARACTERS, MOST_LINES, displayed, size, span, text
from gossipjax.tasks import Dataset, Examples

N = 8
RING = gj.topology.ring(N)
PLAN = gj.timeline.rounds(gj.mixing.metropolis(RING), 1000)
PIXELS = np.zeros((60, 28, 28, 1), np.uint8)
LABELS = np.arange(60, dtype=np.int32) % 10
EXAMPLES = Examples(PIXELS, LABELS, np.arange(60, dtype=np.int32) // 10)
DATASET = Dataset("blank", EXAMPLES, Examples(PIXELS[:20], LABELS[:20]), 10, (0.0,), (1.0,), "zeros")
PARTITION = gj.tasks.dirichlet(LABELS, N, alpha=0.5, seed=0)
MODEL = gj.tasks.mlp(784, (64, 32), 10)
TASK = gj.tasks.classification(DATASET, PARTITION, MODEL)
PROTOCOL = gj.dpsgd(TASK, Partial(optax.sgd, 0.1), sharing=gj.sharing.deep_squeeze(gj.compress.top_k(1), 0.5))
WATCH = [gj.observe.consensus_distance(), gj.observe.node_metrics(gj.tasks.quadratic(np.ones((N, 3))))]


def trajectory():
    protocol = gj.dpsgd(gj.tasks.quadratic(np.eye(N, 3)), Partial(optax.sgd, 0.1))
    keys = jax.random.split(jax.random.key(0), 2)
    return gj.simulate(keys, protocol, PLAN[:4], jnp.zeros((N, 3)), observers=WATCH, record_every=1)


CASES = {
    "trajectory": (trajectory, ["D-PSGD", "8 nodes", "4 events", "5 records", "2 seeds", "train_loss", "bytes_sent"]),
    "timeline": (lambda: PLAN, ["rounds(n=8, fixed W)", "1,000 events", "8 nodes", "synchronous"]),
    "timeline of pairs": (lambda: gj.timeline.poisson_pairs(RING, 5000, seed=0), ["poisson_pairs(", "5,000 events"]),
    "timeline with messages in flight": (
        lambda: gj.timeline.push_gossip(
            N, 30.0, compute=gj.timeline.clocks.poisson(1.0), gossip=2.0, latency=0.1, seed=0
        ),
        ["push_gossip(", "message slots", "delivered"],
    ),
    "system plan": (
        lambda: gj.systems.synchronous(network(N), RING, 5, local_steps=1, model_bytes=100),
        ["5 rounds", "40 trainings", "80 transfers", "8 kB", "duration"],
    ),
    "plexus plan": (lambda: plexus_run(uneven(12), num_rounds=4), ["12 nodes", "trainings", "sent", "ended by rounds"]),
    "protocol": (lambda: PROTOCOL, ["dpsgd", "sgd(0.1)", "needs", "8 nodes", "synchronous"]),
    "wrapped protocol": (lambda: gj.track_versions(PROTOCOL, num_nodes=N), ["dpsgd", "tracks versions"]),
    "sharing": (gj.sharing.jwins, ["jwins", "needs own rows"]),
    "task": (lambda: TASK, ["classification", "8 nodes", "52,650 parameters", "data 53"]),
    "regression": (lambda: gj.tasks.quadratic(np.ones((N, 3))), ["quadratic", "8 nodes", "3 parameters"]),
    "data set": (lambda: DATASET, ["blank", "60 training samples", "20 test samples", "10 classes", "28 x 28 x 1"]),
    "examples": (lambda: EXAMPLES, ["60 samples", "28 x 28 x 1 uint8", "6 writers"]),
    "texts": (lambda: gj.tasks.synthetic_text(4, seed=0), ["4 roles", "characters", "training windows"]),
    "ratings": (lambda: gj.tasks.synthetic_ratings(20, 30, seed=0), ["20 users", "30 items", "training ratings"]),
    "partition": (lambda: PARTITION, ["8 nodes", "60 samples", "samples per node"]),
    "model": (lambda: MODEL, ["52,650 parameters"]),
    "topology": (lambda: RING, ["ring(8)", "8 nodes", "8 undirected edges"]),
    "directed": (lambda: gj.topology.exponential(N), ["24 directed edges"]),
    "devices": (lambda: gj.devices.uniform(N), ["8 nodes", "compute", "upload", "download", "online always"]),
    "clock": (lambda: gj.timeline.clocks.poisson(np.arange(1.0, 1001.0)), ["1,000 nodes", "mean interval 0.001 … 1 s"]),
    "observer": (lambda: WATCH[1], ["test_squared_error"]),
    "compressor": (lambda: gj.compress.top_k(share=0.1), ["top_k(", "biased"]),
    "properties": (lambda: PLAN.properties, ["rounds(n=8, fixed W)", "8 nodes", "synchronous"]),
    "requirements": (lambda: PROTOCOL.requires, ["8 nodes", "synchronous"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_value_is_shown_in_a_few_lines(name):
    make, words = CASES[name]
    value = make()
    shown = repr(value)
    assert shown.startswith(f"{type(value).__name__}(")
    assert shown.endswith(")")
    assert len(shown) <= MOST_CHARACTERS
    assert shown.count("\n") < MOST_LINES
    for word in words:
        assert word in " ".join(shown.split()), shown
    assert str(value) == shown


@pytest.mark.parametrize("name", CASES)
def test_a_notebook_shows_a_table_of_the_same(name):
    value = CASES[name][0]()
    table = value._repr_html_()
    assert f"<b>{type(value).__name__}</b>" in table
    assert table.count("<tr>") == table.count("</tr>") >= 1
    assert len(table) < 60_000  # with the records of a trajectory, folded


def test_html_is_escaped():
    graph = gj.topology.Topology(2, np.array([0, 1]), np.array([1, 0]), False, "<script>alert(1)</script> & co")
    table = graph._repr_html_()
    assert "<script>" not in table
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in table


def test_long_names_are_cut():
    graph = gj.topology.Topology(2, np.array([0, 1]), np.array([1, 0]), False, "word " * 300)
    assert len(repr(graph)) <= MOST_CHARACTERS
    assert repr(graph).count("\n") < MOST_LINES
    assert "2 nodes" in repr(graph)
    unbroken = gj.topology.Topology(2, np.array([0, 1]), np.array([1, 0]), False, "x" * 3000)
    assert len(repr(unbroken)) <= MOST_CHARACTERS


def test_equality_hashing_and_copies_are_untouched():
    again = gj.timeline.rounds(gj.mixing.metropolis(RING), 3).properties
    assert again == PLAN.properties
    assert hash(again) == hash(PLAN.properties)
    assert gj.tasks.softmax_regression(4, 2) == gj.tasks.softmax_regression(4, 2)
    assert hash(gj.tasks.softmax_regression(4, 2)) == hash(gj.tasks.softmax_regression(4, 2))
    assert RING != gj.topology.ring(N)
    assert gj.sharing.full()._fields == ("init", "encode", "merge", "requires", "mass")
    copied = pickle.loads(pickle.dumps(PARTITION))
    assert repr(copied) == repr(PARTITION)
    assert repr(copy.copy(TASK)) == repr(TASK)


def test_values_are_shown_inside_a_trace():
    """JAX shows pytrees in its own messages, with placeholders for leaves; a repr must not fail there."""
    seen = []

    @jax.jit
    def function(task):
        seen.append(repr(task))
        return task.data["indices"].sum()

    function(TASK)
    assert seen == [repr(TASK)]
    hollow = jax.tree.map(lambda _: object(), TASK)
    assert repr(hollow).startswith("Task(")
    assert repr(jax.tree.map(lambda _: None, PLAN)).startswith("Timeline(")


def test_facts_that_cannot_be_had_are_left_out():
    @displayed
    class Broken:
        def _facts(self):
            raise RuntimeError("not now")

    assert repr(Broken()) == "Broken(…)"
    assert "Broken" in Broken()._repr_html_()


def test_each_sort_of_fact_has_its_form():
    class Value:
        def _facts(self):
            return "x", {
                "nodes": np.int64(1200),
                "directed": True,
                "fixed": False,
                "clock": None,
                "rate": 0.125,
                "a": "",
            }

    assert text(Value()) == "Value(x: 1,200 nodes, directed, rate 0.125)"


@pytest.mark.parametrize(("number", "words"), [(0, "0 B"), (999, "999 B"), (1250, "1.25 kB"), (3.1e12, "3.1 TB")])
def test_bytes_in_words(number, words):
    assert size(number) == words


def test_spans():
    assert span([]) == "none"
    assert span([3, 3], "s") == "3 s"
    assert span(np.array([2.0, 1.0])) == "1 … 2"


def test_the_package_knows_its_version():
    assert gj.__version__ == importlib.metadata.version("gossipjax")
