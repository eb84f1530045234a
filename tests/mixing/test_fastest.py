"""The weights that contract fastest: known optima, bounds from duality, and random changes that make them slower."""

import tracemalloc

import networkx as nx
import numpy as np
import pytest
from scipy import optimize

from gossipjax.mixing import best_constant, check_weights, fastest, metropolis
from gossipjax.topology import Topology, barabasi_albert, complete, from_networkx, path, random_tree, ring, star


def rho(W):
    W = W.toarray()
    return np.linalg.norm(W - 1 / len(W), 2)


@pytest.mark.parametrize("graph", [ring(8), star(6), path(4)], ids=lambda graph: graph.name)
def test_equal_weights_are_fastest_on_graphs_whose_edges_are_alike(graph):
    """On edge-transitive graphs the mean over all symmetries is as fast; on the path of 4, Xiao and Boyd's example."""
    np.testing.assert_allclose(rho(fastest(graph, gap=1e-4)), rho(best_constant(graph)), rtol=1e-4)


TWO_TRIANGLES = nx.Graph([(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (3, 5)])
OPTIMA = {
    "path 4": (path(4), 0.804738, 0.707107, np.cos(np.pi / 4)),
    "path 8": (path(8), 0.949253, 0.923880, np.cos(np.pi / 8)),
    "star 6": (star(6), 0.833333, 0.714286, 5 / 7),
    "two triangles": (from_networkx(TWO_TRIANGLES), 0.890388, 0.824621, np.sqrt(2 / 3)),
    "barbell": (from_networkx(nx.barbell_graph(4, 0)), 0.929150, 0.881917, np.sqrt(3) / 2),
    "lollipop": (from_networkx(nx.lollipop_graph(4, 2)), 0.892507, 0.825605, np.sqrt(5 / 8)),
    "house": (from_networkx(nx.house_graph()), 0.654508, 0.539345, 3 / 7),
    "K2,3": (from_networkx(nx.complete_bipartite_graph(2, 3)), 0.5, 0.428571, 3 / 7),
    "ring 6": (ring(6), 0.666667, 0.6, 3 / 5),
}
"""ρ of Metropolis weights and of the best constant ones, and of the optimum, whose closed form an SDP confirms."""


@pytest.mark.parametrize("name", OPTIMA)
def test_optima_of_small_graphs_are_found_and_not_undercut(name):
    graph, usual, constant, least = OPTIMA[name]
    assert rho(metropolis(graph)) == pytest.approx(usual, abs=1e-6)
    assert rho(best_constant(graph)) == pytest.approx(constant, abs=1e-6)
    assert least - 1e-6 < rho(fastest(graph, gap=1e-4)) < least + 1e-4


@pytest.mark.parametrize("graph", [barabasi_albert(12, 2, seed=0), random_tree(10, seed=1)], ids=["graph", "tree"])
def test_no_other_weights_are_faster(graph):
    """The problem is convex: no step in any direction gains more than the gap."""
    W = fastest(graph, gap=1e-3)
    check_weights(W, "symmetric", allow_negative=True)
    assert rho(W) < rho(best_constant(graph)) - 1e-3
    assert set(zip(*W.nonzero(), strict=True)) <= set(zip(graph.receivers, graph.senders, strict=True)) | {
        (i, i) for i in range(graph.num_nodes)
    }
    rng, edges = np.random.default_rng(0), graph.receivers < graph.senders
    for scale in 10.0 ** -np.arange(6):
        change = np.zeros(W.shape)
        change[graph.receivers[edges], graph.senders[edges]] = scale * rng.standard_normal(edges.sum())
        change += change.T
        change -= np.diag(change.sum(1))
        assert np.linalg.norm(W.toarray() + change - 1 / len(change), 2) > rho(W) * (1 - 1e-3)


def wheel(rim):
    """A ring and a hub: two kinds of edges."""
    turn = np.roll(np.eye(rim, dtype=bool), 1, 0)
    A = np.block([[turn | turn.T, np.ones((rim, 1), bool)], [np.ones((1, rim), bool), np.zeros((1, 1), bool)]])
    j, i = np.nonzero(A)
    return Topology(rim + 1, j, i, directed=False, name="a wheel")


KINDS = {
    "path": (path(5), lambda i, j: np.minimum(np.minimum(i, j), 3 - np.minimum(i, j))),
    "wheel": (wheel(7), lambda i, j: (np.maximum(i, j) == 7).astype(int)),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_optimum_of_two_weights_is_found(name):
    """The mean over symmetries is no slower, so that edges of a kind weigh the same: a search in the plane finds it."""
    graph, kind_of = KINDS[name]
    n, i, j = graph.num_nodes, graph.receivers, graph.senders
    kinds = kind_of(i, j)
    assert set(kinds) == {0, 1}

    def slowness(weights):
        W = np.zeros((n, n))
        W[i, j] = weights[kinds]
        return np.linalg.norm(W + np.diag(1 - W.sum(1)) - 1 / n, 2)

    least = min(
        optimize.minimize(slowness, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10}).fun
        for start in ([0.3, 0.3], [0.5, 0.1], [0.1, 0.5])
    )
    found = rho(fastest(graph, gap=1e-4))
    assert least * (1 - 1e-7) <= found <= least * (1 + 1e-4)


def test_memory_does_not_grow_with_the_square_of_the_edges():
    """A matrix over the 1,225 edges would take 12 MB."""
    graph = complete(50)
    fastest(complete(5))
    tracemalloc.start()
    fastest(graph)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 * 50**2 + 200 * graph.num_edges + 1e6


def test_small_and_impossible_graphs():
    assert rho(fastest(complete(5))) < 1e-12
    assert fastest(path(1)).toarray().tolist() == [[1.0]]
    pair = Topology(4, np.array([0, 1]), np.array([1, 0]), directed=False, name="a pair")
    with pytest.raises(ValueError, match="components"):
        fastest(pair)


@pytest.mark.parametrize("graph", [star(6), path(3), ring(7), complete(5)], ids=lambda graph: graph.name)
def test_they_are_never_slower_than_the_best_constant_weights(graph):
    """Where these are optimal, such as on edge-transitive graphs, the search returns them."""
    assert rho(fastest(graph)) <= rho(best_constant(graph)) * (1 + 1e-12)
