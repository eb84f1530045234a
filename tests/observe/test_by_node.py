"""One value for each node: against the statistics over nodes, against exact counts, and as a table."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax.results._plot_nodes import worst_tenth

N = 12


@pytest.fixture(scope="module")
def graph():
    return gj.topology.barabasi_albert(N, 2, seed=0)


@pytest.fixture(scope="module")
def task():
    data = gj.tasks.digits(limit=(120, 30))
    return gj.tasks.classification(data, gj.tasks.iid(120, N, seed=0), gj.tasks.softmax_regression(64, 10))


@pytest.fixture(scope="module")
def run(graph, task):
    protocol = gj.metered(gj.track_versions(gj.dpsgd(task, Partial(optax.sgd, 0.1))), bytes_per_second=1e5)
    watch = [
        gj.observe.metrics_by_node(task),
        gj.observe.node_metrics(task),
        gj.observe.traffic_by_node(),
        gj.observe.clock_by_node(),
        gj.observe.staleness_by_node(),
        gj.observe.staleness_matrix(),
        gj.observe.meter_summary(),
    ]
    plan = gj.timeline.rounds(gj.mixing.metropolis(graph), 6)
    return gj.simulate(jax.random.key(0), protocol, plan, task, observers=watch, record_every=2)


def test_the_mean_over_nodes_is_that_of_the_summary(run):
    for name in ("accuracy", "loss"):
        own, summary = run[f"{name}_by_node"].values, run[f"test_{name}"]
        np.testing.assert_allclose(own.mean(1), summary.sel(statistic="mean").values, rtol=1e-6)
        np.testing.assert_allclose(own.max(1), summary.sel(statistic="max").values, rtol=1e-6)
    np.testing.assert_allclose(run["clock_by_node"].mean("node"), run["node_clock"].sel(statistic="mean"), rtol=1e-6)


def test_a_node_sends_its_model_to_every_neighbour(run, graph):
    expected = 6 * graph.degrees * (64 * 10 + 10) * 4
    np.testing.assert_array_equal(run["bytes_sent_by_node"].values[-1], expected)
    assert run["bytes_sent_by_node"].values[-1].sum() == run["bytes_sent"].values[-1]


def test_staleness_of_a_node_is_a_row_of_the_matrix(run):
    matrix = run["staleness_matrix"].values.astype(float)
    others = ~np.eye(N, dtype=bool)
    expected = np.stack([[row[keep].mean() for row, keep in zip(each, others, strict=True)] for each in matrix])
    np.testing.assert_allclose(run["staleness_by_node"].values, expected, rtol=1e-6)
    np.testing.assert_array_equal(run["max_staleness_by_node"].values, np.where(others, matrix, 0).max(-1))


def test_the_table_has_a_row_for_each_record_and_node(run):
    table = run.to_frame()
    assert list(table.columns[:4]) == ["record", "event", "time", "node"]
    assert len(table) == 4 * N
    assert not {"test_accuracy", "staleness_matrix"} & set(table.columns)
    at = table[(table.event == 4) & (table.node == 3)]
    assert at.accuracy_by_node.item() == run["accuracy_by_node"].values[2, 3]
    statistics = run.to_frame("statistic")
    assert set(statistics.statistic) == set(run.dataset.statistic.values)
    assert len(run.to_frame(None)) == 4


def test_the_table_has_a_column_of_seeds(task, tmp_path):
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(N)), 2)
    watch = [gj.observe.metrics_by_node(task, samples=10)]
    keys = jax.random.split(jax.random.key(0), 3)
    table = gj.simulate(keys, gj.dpsgd(task, Partial(optax.sgd, 0.1)), plan, task, observers=watch).to_frame()
    assert table.groupby(["event", "node"]).seed.nunique().eq(3).all()
    table.to_csv(tmp_path / "nodes.csv", index=False)
    assert len(pd.read_csv(tmp_path / "nodes.csv")) == len(table)


@pytest.mark.parametrize("by", ["source", "seed", "parameter"])
def test_a_dimension_that_is_not_there_is_refused(run, by):
    with pytest.raises(ValueError, match=r"use observe\.metrics_by_node"):
        run.to_frame(by)


def test_what_has_no_value_for_each_node_is_refused(task):
    walks = gj.timeline.random_walks(gj.topology.complete(N), 10, num_walks=2, service=1.0, seed=0)
    protocol = gj.random_walk(task, Partial(optax.sgd, 0.1))
    with pytest.raises(ValueError, match="use node_metrics"):
        gj.simulate(jax.random.key(0), protocol, walks, task, observers=[gj.observe.metrics_by_node(task)])
    plan = gj.timeline.rounds(gj.mixing.averaging(2), 1)
    for observer, words in (
        (gj.observe.clock_by_node(), "metered"),
        (gj.observe.staleness_by_node(), "track_versions"),
    ):
        with pytest.raises(ValueError, match=words):
            gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, jnp.zeros((2, 1)), observers=[observer])


def test_the_worst_tenth_is_at_least_one_node():
    assert worst_tenth(np.asarray([3.0, 1.0, 2.0])) == 1.0
    assert worst_tenth(np.arange(20.0), "highest") == 18.5
    np.testing.assert_array_equal(worst_tenth(np.arange(40.0).reshape(2, 20)), [0.5, 20.5])


def test_the_picture_shows_the_nodes(run, graph, tmp_path):
    figure = run.plot_nodes(tmp_path / "nodes.png", against=graph.degrees)
    over_time, at_end = figure.axes
    worst = next(line for line in over_time.lines if "worst" in line.get_label())
    np.testing.assert_allclose(worst.get_ydata(), 100 * run["accuracy_by_node"].values.min(1), rtol=1e-6)
    np.testing.assert_allclose(at_end.lines[0].get_xdata(), graph.degrees)
    np.testing.assert_allclose(at_end.lines[0].get_ydata(), 100 * run["accuracy_by_node"].values[-1], rtol=1e-6)
    assert (tmp_path / "nodes.png").stat().st_size > 10_000
    shares = run.plot_nodes(variable="loss_by_node", worst="highest").axes[1].lines[0]
    assert shares.get_ydata()[-1] == 100


def test_a_picture_of_something_else_is_refused(run):
    plot = run.plot_nodes
    with pytest.raises(ValueError, match="accuracy_by_node"):
        plot(variable="test_accuracy")
    with pytest.raises(ValueError, match="one for each node"):
        plot(against=np.arange(3.0))
    with pytest.raises(ValueError, match="worst"):
        plot(worst="least")
