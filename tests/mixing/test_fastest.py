"""The weights that contract fastest: known optima, bounds from duality, and random changes that make them slower."""

import numpy as np
import pytest

from gossipjax.mixing import best_constant, check_weights, fastest
from gossipjax.topology import Topology, barabasi_albert, complete, path, random_tree, ring, star


def rho(W):
    W = W.toarray()
    return np.linalg.norm(W - 1 / len(W), 2)


@pytest.mark.parametrize("graph", [ring(8), star(6), path(4)], ids=lambda graph: graph.name)
def test_equal_weights_are_fastest_on_graphs_whose_edges_are_alike(graph):
    """On edge-transitive graphs the mean over all symmetries is as fast; on the path of 4, Xiao and Boyd's example."""
    np.testing.assert_allclose(rho(fastest(graph, gap=1e-4)), rho(best_constant(graph)), rtol=1e-4)


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


def test_small_and_impossible_graphs():
    assert rho(fastest(complete(5))) < 1e-12
    assert fastest(path(1)).toarray().tolist() == [[1.0]]
    pair = Topology(4, np.array([0, 1]), np.array([1, 0]), directed=False, name="a pair")
    with pytest.raises(ValueError, match="components"):
        fastest(pair)
