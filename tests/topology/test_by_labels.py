"""Trees, D-Cliques, and overlays of similar nodes."""

import networkx as nx
import numpy as np
import pytest
from scipy import stats

from gossipjax import mixing
from gossipjax import topology as tp

ONE_LABEL = np.eye(10, dtype=int)[np.arange(100) % 10]
"""A hundred nodes with one label each, ten of each label."""


def test_trees():
    assert nx.is_isomorphic(tp.balanced_tree(3, 2).to_networkx(), nx.balanced_tree(3, 2))
    assert tp.balanced_tree(1, 4).same_edges(tp.path(5))
    assert tp.balanced_tree(2, 0).num_nodes == 1
    assert tp.balanced_tree(2, 3).neighbors(1).tolist() == [0, 3, 4]
    for n in (1, 2, 3, 30):
        tree = tp.random_tree(n, seed=4)
        assert (tree.num_edges, tree.num_components()) == (n - 1, 1)
    for build, message in (
        (lambda: tp.balanced_tree(2, 31), "number of nodes"),
        (lambda: tp.balanced_tree(0, 2), "branch"),
    ):
        with pytest.raises(ValueError, match=message):
            build()


def test_random_trees_are_uniform():
    """Cayley: 16 labelled trees on 4 nodes."""
    drawn = [tuple(map(tuple, tp.random_tree(4, seed=s).adjacency().toarray())) for s in range(800)]
    _, counts = np.unique(np.array(drawn).reshape(800, -1), axis=0, return_counts=True)
    assert counts.size == 16
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    ("between", "edges"), [("complete", 495), ("ring", 460), ("fractal", 495), ("small_world", 480)]
)
def test_d_cliques_of_a_hundred_nodes(between, edges):
    """Ten cliques of 45 edges each; small world: offsets 1, 2 and 4 give 30 pairs."""
    found = tp.d_cliques(ONE_LABEL, 10, seed=0, between=between)
    assert found.topology.num_edges == edges
    assert found.topology.num_components() == 1
    assert np.array_equal(np.sort(np.concatenate(found.cliques)), np.arange(100))
    inside = found.topology.adjacency().toarray()
    for clique in found.cliques:
        assert inside[np.ix_(clique, clique)].sum() == 90
        outside = inside[clique].sum(1) - 9
        assert outside.max() - outside.min() <= 1 or between == "complete"  # edges between cliques are spread
    mixing.check_weights(mixing.metropolis(found.topology), "symmetric")


def test_d_cliques_have_every_label():
    """With one label a node, the skew falls from that of random cliques to 0: each label in each clique."""
    random = tp.d_cliques(ONE_LABEL, 10, seed=3, swaps=0)
    swapped = tp.d_cliques(ONE_LABEL, 10, seed=3)
    assert random.skew.mean() > 0.4
    assert swapped.skew.max() < 1e-12
    assert all((ONE_LABEL[clique].sum(0) == 1).all() for clique in swapped.cliques)
    six = tp.d_cliques(np.eye(3)[[0, 0, 1, 1, 2, 2]], 3, seed=0)
    assert six.skew.tolist() == [0.0, 0.0]
    shares = np.random.default_rng(0).dirichlet(np.full(5, 0.1), 60)
    before, after = (tp.d_cliques(shares, 12, seed=0, swaps=swaps) for swaps in (0, 1000))
    assert after.skew.mean() < 0.1 * before.skew.mean()


def test_groups_of_cliques_are_joined_fractally():
    """Eight cliques of two nodes in bundles of two: 4 + 2 + 1 edges between them."""
    found = tp.d_cliques(np.ones((16, 1)), 2, seed=0, between="fractal")
    assert found.topology.num_edges == 8 + 4 + 2 + 1
    assert found.topology.num_components() == 1
    assert tp.d_cliques(np.ones((16, 1)), 2, seed=0, between="ring").topology.num_edges == 8 + 8
    assert tp.d_cliques(np.ones((4, 1)), 2, seed=0, between="ring").topology.num_edges == 2 + 1
    assert tp.d_cliques(np.ones((4, 1)), 9, seed=0).topology.same_edges(tp.complete(4))


def test_results_say_what_they_are():
    assert "100 nodes, 10 cliques" in repr(tp.d_cliques(ONE_LABEL, 10, seed=3))
    assert "bytes sent" in repr(tp.label_overlay(ONE_LABEL[:9], 2, num_rounds=1, seed=3))


def best(counts, degree, sign):
    """The nodes with the largest cosines, by brute force; of equals the smaller number."""
    unit = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    scores = np.round(unit @ unit.T, 9) * sign
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :degree]


@pytest.mark.parametrize(("prefer", "sign"), [("similar", 1), ("different", -1)])
def test_nodes_find_their_most_similar_peers(prefer, sign):
    counts = np.random.default_rng(1).multinomial(50, np.full(6, 1 / 6), 40) + np.eye(6)[np.arange(40) % 6] * 30
    exact = best(counts, 4, sign)
    shares = []
    for num_rounds in (0, 2, 60):
        found = tp.label_overlay(counts, 4, num_rounds=num_rounds, prefer=prefer, seed=0)
        shares.append(np.mean([np.isin(a, b).mean() for a, b in zip(found.chosen, exact, strict=True)]))
    assert shares[0] < shares[1] < shares[2] == 1.0
    assert np.array_equal(found.chosen, exact)
    A = found.topology.adjacency().toarray().astype(bool)
    chosen = np.zeros((40, 40), bool)
    np.put_along_axis(chosen, exact, True, axis=1)
    assert np.array_equal(A, chosen | chosen.T)


def test_the_bytes_of_an_overlay():
    """With all nodes heard from the start, every message can be counted by hand."""
    n, k, labels, rounds = 5, 4, 3, 7
    counts = np.random.default_rng(0).integers(1, 9, (n, labels))
    found = tp.label_overlay(counts, k, num_rounds=rounds, seed=0)
    # Start: every pair exchanges its shares twice. A round: a question and an answer of k + 1 nodes. End: k notes.
    assert found.messages_sent.sum() == n * (2 * k + 2 * rounds + k)
    one = 4 + 4 * labels
    assert found.bytes_sent.sum() == n * (2 * k * one + 2 * rounds * (k + 1) * one + k * 4)
    asking = tp.label_overlay(np.ones((30, 2)), 1, num_rounds=1, random_peers=30, seed=0)
    # Everybody asks everybody else that it has not heard; who was asked does not hear the asker.
    extra = asking.messages_sent.sum() - 30 * (2 + 2 + 1)
    assert extra % 2 == 0
    assert 2 * 30 * 24 < extra <= 2 * 30 * 28


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tp.d_cliques(np.ones((4, 2)), 1, seed=0), "clique_size=1"),
        (lambda: tp.d_cliques(np.zeros((4, 2)), 2, seed=0), "label_counts: node 0 has no samples"),
        (lambda: tp.d_cliques(-np.ones((4, 2)), 2, seed=0), "label_counts"),
        (lambda: tp.label_overlay(np.ones((4, 2)), 4, seed=0), "degree=4"),
        (lambda: tp.label_overlay(np.ones((4, 2)), 2, random_peers=5, seed=0), "random_peers=5"),
        (lambda: tp.label_overlay(np.ones((1, 2)), 1, seed=0), "label_counts of shape"),
    ],
)
def test_what_cannot_be_built_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
