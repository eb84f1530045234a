"""Mixing matrices: their definitions entry by entry, what they conserve, and every documented error."""

import inspect

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from gossipjax import mixing as wt
from gossipjax import topology as tp
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
        *[(lambda rule=rule: rule(tp.exponential(4)), "directed.*use column_stochastic") for rule in SYMMETRIC],
        (lambda: wt.best_constant(tp.random_matching(4, seed=0)), "2 components"),
        (lambda: wt.lazy(wt.averaging(3), 1.0), "share=1.0.*no node would mix"),
        (lambda: wt.averaging(0), "num_nodes=0.*at least one"),
        (lambda: wt.check_weights(np.ones((2, 3)) / 3, "row"), r"\(2, 3\).*square"),
        (lambda: wt.check_weights(np.eye(2), "both"), "kind='both': must be one of 'row'"),
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


def single_precision(kind):
    """A random matrix of that kind, normalised in float32 alone, so that its sums are off by a few 1e-8."""
    rng = np.random.default_rng(3)
    W = rng.random((40, 40)).astype(np.float32)
    if kind == "row":
        return W / W.sum(axis=1, keepdims=True)
    if kind == "column":
        return W / W.sum(axis=0, keepdims=True)
    return wt.metropolis(tp.barabasi_albert(40, 3, seed=0)).toarray().astype(np.float32)


@pytest.mark.parametrize("kind", ["row", "column", "doubly", "symmetric"])
def test_float32_weights_are_completed(kind):
    W = single_precision(kind)
    axis = 0 if kind == "column" else 1
    assert np.abs(W.sum(axis=axis, dtype=np.float64) - 1).max() > 1e-8
    for form in (W, sparse.csr_array(W), np.asfortranarray(W)):
        found = wt.check_weights(form, kind)
        assert found.dtype == np.float64
        # Sums of 40 weights in float64: 40 units in the last place.
        np.testing.assert_allclose(found.sum(axis=axis), 1, rtol=0, atol=1e-14)
        # Each entry was rounded to 6e-8 of itself, and the row is off by at most a few of these.
        np.testing.assert_allclose(found.toarray(), W, rtol=0, atol=1e-6)
    if kind in ("doubly", "symmetric"):
        assert wt.is_doubly_stochastic(found, tolerance=1e-14)
        assert (found != found.T).nnz == 0
    power = np.linalg.matrix_power(found.toarray(), 10**6)
    np.testing.assert_allclose(power.sum(axis=axis), 1, rtol=0, atol=1e-8)  # 10⁶ roundings of 1e-16 each, and a margin


def test_float32_shares_without_an_own_weight_stay_nonnegative():
    third = np.full((4, 4), 1 / 3, np.float32) - np.diag(np.full(4, 1 / 3, np.float32))
    found = wt.check_weights(third, "symmetric")
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=0, atol=1e-15)
    assert np.allclose(wt.lazy(third).sum(axis=1), 1, rtol=0, atol=1e-6)
    wt.check_weights(wt.lazy(third), "symmetric")


def test_float32_is_no_excuse_for_weights_that_are_off():
    W = single_precision("row")
    W[3, 4] += np.float32(2e-5)
    with pytest.raises(ValueError, match=r"row 3 of W sums to 1.00002"):
        wt.check_weights(W, "row")
    assert not wt.is_row_stochastic(W)
    assert wt.is_row_stochastic(single_precision("row"))
    assert wt.is_symmetric(single_precision("symmetric"))
    with pytest.raises(ValueError, match="not to 1 within 1e-08"):
        wt.check_weights(single_precision("row").astype(np.float64), "row")


def test_weights_are_returned_as_they_are_in_float64():
    W = wt.metropolis(tp.barabasi_albert(30, 2, seed=0))
    found = wt.check_weights(W, "symmetric")
    assert np.array_equal(found.toarray(), W.toarray())
    given = sparse.csr_array((np.array([0.5, 0.5, 1.0]), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    assert np.array_equal(wt.check_weights(given, "row").toarray(), np.eye(2))
    assert given.nnz == 3  # the caller's two halves are still apart


@pytest.mark.parametrize("rule", [*SYMMETRIC, wt.uniform, wt.column_stochastic])
@pytest.mark.parametrize("thing", [tp.one_peer_exponential(4), nx.path_graph(3), 8, None, [tp.ring(3)], np.eye(3)])
def test_rules_take_one_topology(rule, thing):
    with pytest.raises(TypeError, match=r"topology=.*must be a Topology.*\[uniform\(round\) for round in rounds\]"):
        inspect.unwrap(rule)(thing)


def weighted(kind, *edges):
    graph = kind()
    graph.add_weighted_edges_from(edges)
    return graph


def test_edge_weights_become_a_mixing_matrix():
    graph = weighted(nx.Graph, (2, 0, 0.5), (0, 1, 0.25))
    W = np.array([[0.25, 0.25, 0.5], [0.25, 0.75, 0.0], [0.5, 0.0, 0.5]])
    np.testing.assert_array_equal(wt.from_edge_weights(graph, "symmetric").toarray(), W)
    np.testing.assert_array_equal(wt.from_edge_weights(W - np.diag(np.diag(W)), "doubly").toarray(), W)
    np.testing.assert_array_equal(wt.from_edge_weights(W, "symmetric").toarray(), W)  # with self-loops: as it is
    names = nx.relabel_nodes(graph, dict(enumerate("abc")))
    labels = tp.from_networkx(names, ignore_weights=True).labels
    order = ["abc".index(label) for label in labels]
    np.testing.assert_array_equal(wt.from_edge_weights(names).toarray(), W[np.ix_(order, order)])
    np.testing.assert_array_equal(
        wt.from_edge_weights(names, labels="c a b".split()).toarray(), W[np.ix_([2, 0, 1], [2, 0, 1])]
    )


def test_directed_edge_weights_run_from_sender_to_receiver():
    graph = weighted(nx.DiGraph, (0, 1, 0.5), (1, 2, 0.25), (2, 0, 0))
    rows = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.25, 0.75]]
    np.testing.assert_array_equal(wt.from_edge_weights(graph, "row").toarray(), rows)
    columns = [[0.5, 0.0, 0.0], [0.5, 0.75, 0.0], [0.0, 0.25, 1.0]]
    np.testing.assert_array_equal(wt.from_edge_weights(graph, "column").toarray(), columns)


def test_edge_weights_on_the_edges_of_a_topology():
    topology = tp.exponential(9)
    graph = topology.to_networkx()
    nx.set_edge_attributes(graph, 0.2, "share")
    W = wt.from_edge_weights(graph, "doubly", attribute="share")
    assert np.array_equal((W - sparse.diags_array(W.diagonal())).toarray(), 0.2 * topology.adjacency().toarray())


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (weighted(nx.Graph, (0, 1, 0.9), (1, 2, 0.5)), "row 1 sum to 1.4.*divide all weights by that"),
        (weighted(nx.Graph, (0, 1, 0.5), (1, 2, -0.5)), r"graph: attribute 'weight' of edge \(1, 2\)=-0.5"),
        (weighted(nx.Graph, (0, 1, float("inf"))), r"edge \(0, 1\)=inf"),
        (weighted(nx.Graph, (0, 1, "much")), r"edge \(0, 1\)='much'"),
        (nx.path_graph(3), r"edge \(0, 1\)=None"),
        (weighted(nx.MultiGraph, (0, 1, 0.2), (1, 0, 0.2)), "occurs twice"),
        (nx.Graph(), "graph has zero nodes"),
        (np.array([[0.0, 0.7], [0.7, 0.0]]) - np.eye(2), r"graph\[0, 0\] = -1: weights must not be negative"),
        (np.array([[0.4, 0.7], [0.3, 0.7]]), "row 0 of W sums to 1.1"),
        (np.ones((2, 3)), "graph of shape"),
    ],
)
def test_edge_weights_that_cannot_mix(graph, message):
    with pytest.raises(ValueError, match=message):
        wt.from_edge_weights(graph)


def test_matrices_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr("gossipjax._base.memory.free_bytes", lambda: 2.0**28)
    with pytest.raises(ValueError, match=r"num_nodes=200000: the averaging matrix would take about .*GroupMixing"):
        wt.averaging(200_000)
    graph = tp.random_regular(20_000, 4, seed=0)
    with pytest.raises(
        ValueError, match=r"topology=random_regular.*the factors of its Laplacian would take.*metropolis"
    ):
        wt.best_constant(graph)
