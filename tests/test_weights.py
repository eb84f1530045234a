"""Mixing matrices: their definitions entry by entry, what they conserve, and every documented error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from gossipjax import topology as tp
from gossipjax import weights as wt
from gossipjax.testing import connected_digraphs, connected_graphs, mixing_matrices, permutations

SYMMETRIC = [wt.metropolis, wt.max_degree, wt.best_constant]


@given(connected_graphs())
def test_metropolis_entries(topology):
    W, d = wt.metropolis(topology).toarray(), topology.degrees
    for i in range(topology.num_nodes):
        for j in topology.neighbors(i):
            assert W[i, j] == 1 / (1 + max(d[i], d[j]))
    assert np.count_nonzero(W - np.diag(np.diag(W))) == 2 * topology.num_edges


@pytest.mark.parametrize("rule", SYMMETRIC)
@given(topology=connected_graphs())
def test_symmetric_rules(rule, topology):
    W = wt.check_weights(rule(topology), "symmetric", allow_negative=rule is wt.best_constant)
    assert W.dtype == np.float64
    assert np.linalg.norm(W.toarray() - 1 / topology.num_nodes, 2) < 1


@given(connected_graphs(min_nodes=2), st.floats(0.01, 1.0))
def test_best_constant_is_best(topology, fraction):
    n, A = topology.num_nodes, topology.adjacency().toarray()
    L = np.diag(A.sum(axis=1)) - A
    best = np.linalg.norm(wt.best_constant(topology).toarray() - 1 / n, 2)
    other = np.linalg.norm(np.eye(n) - fraction * L - 1 / n, 2)
    assert best <= other + 1e-12  # rounding of the singular values


def test_best_constant_of_a_large_graph_uses_the_known_spectrum():
    n = 2000
    largest, second = 4.0, 2 - 2 * np.cos(2 * np.pi / n)
    W = wt.best_constant(tp.ring(n))
    assert W[0, 1] == pytest.approx(2 / (largest + second), rel=1e-10)


@given(connected_digraphs())
def test_directed_rules(topology):
    W, P = wt.uniform(topology), wt.column_stochastic(topology)
    wt.check_weights(W, "row")
    wt.check_weights(P, "column")
    reverse = tp.Topology(topology.num_nodes, topology.receivers, topology.senders, True, "reverse")
    # The two rules are each other's transpose on the reversed graph; 1 − sum and 1 / (1 + d) differ by rounding.
    np.testing.assert_allclose(P.toarray(), wt.uniform(reverse).toarray().T, rtol=0, atol=1e-15 * topology.num_nodes)


@pytest.mark.parametrize("n", [1, 2, 6, 8, 33])
def test_uniform_on_the_exponential_graph_is_doubly_stochastic(n):
    W = wt.check_weights(wt.uniform(tp.exponential(n)), "doubly")
    np.testing.assert_allclose(W.data, 1 / (1 + np.ceil(np.log2(n))), rtol=1e-14)


@pytest.mark.parametrize(("n", "exact"), [(8, True), (32, True), (128, True), (12, False)])
def test_one_peer_exponential_averages_exactly_for_powers_of_two(n, exact):
    product = np.eye(n)
    for topology in tp.one_peer_exponential(n):
        product = wt.uniform(topology).toarray() @ product
    deviation = np.abs(product - 1 / n).max()
    assert deviation < 1e-15 if exact else deviation == pytest.approx(0.0417, abs=5e-5)


def test_averaging_and_lazy():
    J = wt.averaging(4)
    assert np.all(J.toarray() == 0.25)
    np.testing.assert_array_equal(wt.lazy(J, 0.2).toarray(), 0.2 * np.eye(4) + 0.8 * J.toarray())
    assert np.linalg.eigvalsh(wt.lazy(wt.metropolis(tp.ring(6))).toarray()).min() >= 0


@pytest.mark.parametrize("rule", [wt.metropolis, wt.max_degree, wt.uniform, wt.column_stochastic])
@given(data=st.data())
def test_relabelling_nodes_permutes_the_weights(rule, data):
    topology = data.draw(connected_graphs())
    order = data.draw(permutations(topology.num_nodes))
    relabelled = rule(topology.relabel(order)).toarray()
    # The diagonal is one minus a sum that runs in another order.
    np.testing.assert_allclose(relabelled[np.ix_(order, order)], rule(topology).toarray(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", ["row", "column", "doubly", "symmetric"])
@given(data=st.data())
def test_strategies_keep_their_word(kind, data):
    W = wt.check_weights(data.draw(mixing_matrices(kind)), kind)
    assert np.all(W.diagonal() > 0)
    assert wt.is_row_stochastic(W) or kind == "column"
    assert wt.is_column_stochastic(W) or kind == "row"
    assert wt.is_symmetric(W) or kind != "symmetric"
    assert wt.is_doubly_stochastic(W) or kind in ("row", "column")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *[
            (lambda rule=rule: rule(tp.exponential(4)), "directed.*use uniform or column_stochastic")
            for rule in SYMMETRIC
        ],
        (lambda: wt.best_constant(tp.random_matching(4, seed=0)), "2 components"),
        (lambda: wt.lazy(wt.averaging(3), 1.0), "share 1.0"),
        (lambda: wt.averaging(0), "at least one"),
        (lambda: wt.check_weights(np.ones((2, 3)) / 3, "row"), r"\(2, 3\).*square"),
        (lambda: wt.check_weights(np.eye(2), "both"), "choose 'row'"),
        (lambda: wt.check_weights(np.array([[1, 0], [np.nan, 1]]), "row"), r"W\[1, 0\] = nan"),
        (lambda: wt.check_weights(np.array([[1, 0], [-0.5, 1.5]]), "row"), r"W\[1, 0\] = -0.5.*allow_negative=True"),
        (lambda: wt.check_weights(np.array([[1, 0], [0.5, 0.6]]), "row"), "row 1 of W sums to 1.1.*divide each row"),
        (lambda: wt.check_weights(np.array([[1, 0], [0.5, 0.5]]), "doubly"), "column 0 of W sums to 1.5.*metropolis"),
        (lambda: wt.check_weights(np.array([[0.5, 0], [0.6, 1]]), "column"), "column 0 of W sums to 1.1"),
        (lambda: wt.check_weights(np.roll(np.eye(3), 1, axis=0), "symmetric"), r"W - W.T\[0, 1\].*transpose"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_check_weights_returns_the_matrix():
    W = wt.check_weights(np.array([[1.5, -0.5], [-0.5, 1.5]]), "symmetric", allow_negative=True)
    assert isinstance(W, sparse.csr_array)
    assert not wt.is_row_stochastic(np.full((2, 2), np.nan))
    assert not wt.is_symmetric(np.ones((2, 3)))
