"""Exact averages after finitely many rounds: the known step sizes, any order, and what rounding leaves."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gossipjax as gj
from gossipjax import topology as tp
from gossipjax.mixing import finite_time
from gossipjax.mixing._finite_time import leja

PETERSEN = tp.from_networkx(nx.petersen_graph())
BIPARTITE = tp.from_networkx(nx.complete_bipartite_graph(3, 5))


def steps_of(graph):
    i, j = graph.senders[0], graph.receivers[0]
    return [float(W[i, j]) for W in finite_time(graph)]


EIGENVALUES = [
    (tp.ring(16), 2 - 2 * np.cos(2 * np.pi * np.arange(1, 9) / 16)),
    (tp.path(8), 2 - 2 * np.cos(np.pi * np.arange(1, 8) / 8)),
    (tp.torus(4, 4), [2, 4, 6, 8]),
    (tp.hypercube(4), [2, 4, 6, 8]),
    (tp.star(9), [1, 9]),
    (PETERSEN, [2, 5]),
    (BIPARTITE, [3, 5, 8]),
    (tp.complete(7), [7]),
]


@pytest.mark.parametrize(("graph", "inverse"), EIGENVALUES, ids=lambda value: getattr(value, "name", None))
def test_step_sizes_are_inverse_eigenvalues(graph, inverse):
    np.testing.assert_allclose(sorted(steps_of(graph)), sorted(1 / np.asarray(inverse, float)), rtol=1e-9)


def test_the_torus_of_unequal_sides_takes_eleven_rounds():
    assert len(finite_time(tp.torus(5, 6))) == 11


@pytest.mark.parametrize("graph", [graph for graph, _ in EIGENVALUES], ids=lambda graph: graph.name)
def test_these_average_exactly_in_any_order(graph):
    rng, matrices = np.random.default_rng(0), [W.toarray() for W in finite_time(graph)]
    for _ in range(20):
        product = np.eye(graph.num_nodes)
        for W in rng.permutation(matrices):
            product = W @ product
        # Partial products are large in a bad order, and rounding is 1e-16 of them.
        np.testing.assert_allclose(product, 1 / graph.num_nodes, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 16), st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_product_is_the_average_in_any_order(n, seed, random):
    matrices = finite_time(tp.random_tree(n, seed=seed))
    random.shuffle(matrices)
    product = np.eye(n)
    for W in matrices:
        product = W @ product
    # Partial products of up to 15 matrices reach 1e5 or so in a bad order, times 1e-16 of float64.
    np.testing.assert_allclose(product, 1 / n, atol=1e-7)


def test_the_order_of_leja_of_the_ring():
    eigenvalues = 2 - 2 * np.cos(2 * np.pi * np.arange(1, 9) / 16)
    expected = [4, 0.1522, 2, 3.4142, 0.5858, 2.7654, 1.2346, 3.8478]
    np.testing.assert_allclose(leja(eigenvalues), expected, atol=5e-5)


def test_rounding_is_harmless_in_this_order_and_not_in_increasing_order():
    """128 nodes in a ring, in float32: below 1e-4 here, and worse than nothing with increasing eigenvalues."""
    graph = tp.ring(128)
    matrices = finite_time(graph)
    increasing = sorted(matrices, key=lambda W: -W[0, 1])

    def error(cycle):
        plan = gj.timeline.rounds(cycle, len(cycle), form="table")
        start = jnp.eye(128, dtype=jnp.float32)
        run = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, start, throw=False)
        return float(np.linalg.norm(np.asarray(run.x, np.float64) - 1 / 128))

    assert error(matrices) < 1e-4
    assert error(increasing) > 1


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (tp.exponential(6), "directed"),
        (tp.from_adjacency(np.kron(np.eye(2), [[0, 1], [1, 0]]), allow_disconnected=True), "components"),
    ],
)
def test_graphs_that_cannot_average_are_refused(graph, words):
    with pytest.raises(ValueError, match=words):
        finite_time(graph)


@pytest.mark.parametrize(("n", "seed"), [(60, 0), (60, 3), (30, 0)])
def test_graphs_whose_rounding_errors_explode_are_refused(n, seed):
    """Trees with a hub: the product of the matrices is off by 0.06 to 10¹³ in float64."""
    with pytest.raises(ValueError, match="eigenvalues lie so far apart"):
        finite_time(tp.random_tree(n, seed=seed))


def test_the_precision_of_the_models_decides():
    graph = tp.erdos_renyi(50, 0.2, seed=1)
    product = np.linalg.multi_dot([W.toarray() for W in finite_time(graph, dtype=jnp.float64)])
    np.testing.assert_allclose(product, 1 / 50, atol=1e-8)
    with pytest.raises(ValueError, match=r"precision of 1.2e-07"):
        finite_time(graph, dtype=jnp.float32)


def test_one_node_has_nothing_to_do():
    assert finite_time(tp.path(1))[0].toarray().tolist() == [[1.0]]
