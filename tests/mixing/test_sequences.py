"""Base graphs, EquiTopo and STL-FW: published lengths and rounds, exact means over draws, and every round."""

import functools
import operator

import numpy as np
import pytest

from gossipjax.mixing import base_graph, check_weights, equi_dynamic, equi_static, finite_time, stl_fw
from gossipjax.mixing._equi_topo import _mean_of_shifts, _one_peer, _paired
from gossipjax.topology import ring

LENGTHS = {
    1: "1 3 2 5 4 5 3 7 6 7 5 7 6 7 4 9 8 9 7 9 8 9 6 9 8 9 7 9 8 9 5 11",
    2: "1 1 2 3 2 4 3 2 4 5 3 5 5 4 4 5 3 6 5 5 6 6 4 6 6 3 6 7 5 7 5 6",
    3: "1 1 1 3 2 3 2 2 4 4 2 4 4 4 2",
}
"""Rounds of the Base-(k+1) graph for n = 2, 3, …"""


def product(matrices):
    return functools.reduce(operator.matmul, [W.toarray() for W in matrices][::-1])


def neighbors(W):
    dense = W.toarray()
    np.fill_diagonal(dense, 0)
    return max(np.count_nonzero(dense, axis=0).max(), np.count_nonzero(dense, axis=1).max())


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_base_graphs_average_exactly_with_few_peers(k):
    for n in range(1, 65):
        rounds = np.stack([W.toarray() for W in base_graph(n, k)])
        assert abs(functools.reduce(operator.matmul, rounds[::-1]) - 1 / n).max() < 1e-12
        assert np.count_nonzero(rounds * (1 - np.eye(n)), axis=2).max() <= k
        assert (rounds == rounds.transpose(0, 2, 1)).all()
        assert rounds.min() >= 0
        assert abs(rounds.sum(axis=2) - 1).max() < 1e-12


@pytest.mark.parametrize("k", LENGTHS)
def test_lengths_of_base_graphs(k):
    lengths = [int(word) for word in LENGTHS[k].split()]
    assert [len(base_graph(n, k)) for n in range(2, 2 + len(lengths))] == lengths


def test_rounds_of_two_base_graphs():
    half, rounds = 0.5, {5: [], 6: []}
    for n, into in rounds.items():
        for W in base_graph(n, 1):
            i, j = np.nonzero(np.triu(W.toarray(), 1))
            into.append({f"{a}{b}": round(float(W[a, b]), 9) for a, b in zip(i, j, strict=True)})
    first, second = {"01": half, "23": half}, {"02": half, "13": half}
    assert rounds[5] == [first, second, {"01": half, "34": 0.8}, first, second]
    both = {"01": half, "34": half}
    third = round(2 / 3, 9)
    assert rounds[6] == [both, {"12": third, "45": third}, both, {"03": half, "14": half, "25": half}]


@pytest.mark.parametrize(("n", "eta", "factor"), [(6, 0.5, 0.416667), (6, 1.0, 0.666667), (24, 0.5, 0.479167)])
def test_directed_rounds_of_equitopo_contract_alike_in_every_direction(n, eta, factor):
    """E WᵀW over the shifts is a multiple of the identity on disagreement."""
    rounds = [_one_peer((np.arange(n) - u) % n, eta).toarray() for u in range(1, n)]
    mean = sum(W.T @ W for W in rounds) / (n - 1)
    np.testing.assert_allclose(mean, factor * (np.eye(n) - 1 / n) + 1 / n, atol=1e-6)
    drawn = {tuple(W.toarray().ravel()) for W in equi_dynamic(n, 20, seed=0, eta=eta)}
    assert drawn <= {tuple(W.ravel()) for W in rounds}


@pytest.mark.parametrize(
    ("n", "idle", "largest"), [(6, 0.1333, 0.513889), (8, 0.0714, 0.507812), (24, 0.1014, 0.554468)]
)
def test_undirected_rounds_of_equitopo_leave_few_nodes_alone(n, idle, largest):
    partners = [_paired(n, u, start) for u in range(1, n) for start in range(n)]
    assert np.mean([partner == np.arange(n) for partner in partners]) == pytest.approx(idle, abs=5e-5)
    rounds = [_one_peer(partner, 0.5).toarray() for partner in partners]
    mean = sum(W.T @ W for W in rounds) / len(rounds) - 1 / n
    assert np.linalg.eigvalsh(mean)[-1] == pytest.approx(largest, abs=1e-6)
    for W in equi_dynamic(n, 5, seed=1, directed=False):
        check_weights(W, "symmetric")
        assert neighbors(W) <= 1


def test_means_of_shifts_contract_as_their_spectrum_says():
    shifts = np.array([13, 16, 6, 1])
    for directed, rho in ((True, 0.750784), (False, 0.714363)):
        W = _mean_of_shifts(17, shifts, directed).toarray()
        assert np.linalg.norm(W - 1 / 17, 2) == pytest.approx(rho, abs=1e-6)
    W = equi_static(17, 4, seed=3)
    check_weights(W, "doubly")
    assert neighbors(W) <= 4
    np.testing.assert_array_equal(W.toarray(), equi_static(17, 4, seed=3).toarray())


@pytest.mark.parametrize("n", [5, 6, 7, 11, 13])
def test_two_peers_average_any_number_of_nodes(n):
    """Circulant filters, one for each frequency: the finite-time weights of a ring."""
    rounds = finite_time(ring(n), dtype=np.float64)
    assert len(rounds) == n // 2
    assert max(map(neighbors, rounds)) <= 2
    np.testing.assert_allclose(product(rounds), 1 / n, atol=1e-12)


def objective(W, labels, penalty):
    n = len(W)
    return (np.sum((W @ labels - labels.mean(0)) ** 2) + penalty * np.sum((W - 1 / n) ** 2)) / n


def test_stl_fw_lowers_its_objective_as_the_formula_says():
    """One label a node, K = 10 equal classes: 1/(l+1) − 1/K + λ (1/(l+1) − 1/n), l neighbours a node."""
    n, K, penalty = 100, 10, 0.1
    labels = np.eye(K)[np.random.default_rng(0).permutation(np.arange(n) % K)]
    assert objective(np.eye(n), labels, penalty) == pytest.approx(0.999)
    for degree in (1, 2, 3, 6, 9):
        W = stl_fw(labels, degree, penalty=penalty)
        check_weights(W, "doubly")
        assert neighbors(W) <= degree
        share = 1 / (degree + 1)
        found = objective(W.toarray(), labels, penalty)
        assert found == pytest.approx(share - 1 / K + penalty * (share - 1 / n), abs=1e-9)


@pytest.mark.parametrize(("penalty", "before", "after"), [(0.1, 0.575, 0.025), (1.0, 1.25, 0.25)])
def test_stl_fw_of_four_nodes(penalty, before, after):
    labels = np.eye(2)[[0, 0, 1, 1]]
    assert objective(np.eye(4), labels, penalty) == pytest.approx(before)
    W = stl_fw(7 * labels, 1, penalty=penalty).toarray()  # shares count, not samples
    assert objective(W, labels, penalty) == pytest.approx(after)
    np.testing.assert_allclose(np.diag(W), 0.5)


def test_stl_fw_ends_where_nothing_is_gained():
    """One label everywhere: only mixing counts, and three steps on four nodes reach J."""
    W = stl_fw(np.ones((4, 1)), 50, penalty=2.0).toarray()
    np.testing.assert_allclose(W, 0.25, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_counts": np.zeros((3, 2))}, "node 0 has no samples"),
        ({"label_counts": np.ones((1, 2))}, "needs two nodes"),
        ({"max_degree": 0}, "max_degree=0"),
        ({"penalty": 0.0}, "penalty=0"),
        ({"label_counts": np.ones((100_000, 2))}, "fewer nodes"),
    ],
)
def test_what_stl_fw_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        stl_fw(**({"label_counts": np.ones((4, 2)), "max_degree": 2} | options))
