"""Closed forms of spectral gaps against singular values, and pairwise averaging against exhaustive expectation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipjax import mixing as wt
from gossipjax import topology as tp
from gossipjax.testing import connected_graphs, mixing_matrices
from theory import spectral as sp

# Singular values of float64 matrices of norm one.
EXACT = {"rel": 0, "abs": 1e-10}


@pytest.mark.parametrize("n", [3, 4, 5, 8, 17, 30])
def test_ring(n):
    assert sp.contraction_factor(wt.metropolis(tp.ring(n))) == pytest.approx(sp.contraction_ring(n), **EXACT)


@pytest.mark.parametrize("n", [1, 2, 3, 9, 20])
def test_path(n):
    A = tp.path(n).adjacency().toarray()
    W = np.eye(n) - (np.diag(A.sum(axis=1)) - A) / 3
    assert sp.contraction_factor(W) == pytest.approx(sp.contraction_path(n), **EXACT)
    if n >= 3:
        assert sp.contraction_factor(wt.max_degree(tp.path(n))) == pytest.approx(sp.contraction_path(n), **EXACT)


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (3, 4), (4, 4), (5, 6), (3, 11)])
def test_torus(rows, columns):
    W = wt.metropolis(tp.torus(rows, columns))
    assert sp.contraction_factor(W) == pytest.approx(sp.contraction_torus(rows, columns), **EXACT)


@pytest.mark.parametrize("n", [1, 2, 3, 9, 20])
def test_star_and_complete(n):
    assert sp.contraction_factor(wt.metropolis(tp.star(n))) == pytest.approx(sp.contraction_star(n), **EXACT)
    assert sp.contraction_factor(wt.metropolis(tp.complete(n))) == pytest.approx(sp.contraction_complete(n), **EXACT)


@pytest.mark.parametrize("dimension", [0, 1, 2, 5])
def test_hypercube(dimension):
    W = wt.metropolis(tp.hypercube(dimension))
    assert sp.contraction_factor(W) == pytest.approx(sp.contraction_hypercube(dimension), **EXACT)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 8, 12, 33, 100])
def test_exponential(n):
    factor = sp.contraction_exponential(n)
    assert sp.contraction_factor(wt.uniform(tp.exponential(n))) == pytest.approx(factor, **EXACT)
    gap, hops = 1 - factor, int(np.ceil(np.log2(n)))
    if n % 2 == 0:
        assert gap == pytest.approx(2 / (1 + hops), **EXACT)
    elif n > 1:
        assert gap > 2 / (1 + hops) + 1e-3


# Values of record to the digits given.
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (sp.contraction_ring(17), 0.95498149),
        (sp.contraction_torus(5, 6), 0.8),
        (sp.contraction_hypercube(5), 0.66666667),
        (sp.contraction_star(9), 0.88888889),
        (sp.contraction_path(9), 0.95979508),
        (sp.contraction_best_constant(tp.ring(16).adjacency()), 0.92667047),
        (sp.contraction_best_constant(tp.hypercube(5).adjacency()), 0.66666667),
        (sp.contraction_best_constant(tp.star(9).adjacency()), 0.8),
        (sp.contraction_exponential(100), 0.75),
    ],
)
def test_values_of_record(value, expected):
    assert value == pytest.approx(expected, rel=0, abs=5e-9)


@given(connected_graphs())
def test_best_constant(topology):
    factor = sp.contraction_factor(wt.best_constant(topology))
    assert factor == pytest.approx(sp.contraction_best_constant(topology.adjacency()), **EXACT)


@given(mixing_matrices("symmetric"))
def test_slem_of_symmetric_matrices_is_the_contraction_factor(W):
    # Unlike singular values, eigenvalues of the general solver lose a few digits.
    assert sp.slem(W) == pytest.approx(sp.contraction_factor(W), rel=0, abs=1e-7)
    assert sp.contraction_factor(W) < 1


@given(mixing_matrices("doubly"), st.integers(0, 99))
def test_contraction_factor_bounds_every_start(W, seed):
    x = np.random.default_rng(seed).standard_normal(W.shape[0])
    x -= x.mean()
    assert np.linalg.norm(W @ x) <= sp.contraction_factor(W) * np.linalg.norm(x) + 1e-12  # rounding
    assert sp.slem(W) <= sp.contraction_factor(W) + 1e-7
    assert sp.spectral_gap(W) == 1 - sp.contraction_factor(W)


def test_push_sum_on_the_directed_ring():
    n = 9
    senders = np.arange(n)
    cycle = tp.Topology(n, senders, (senders + 1) % n, directed=True, name="cycle")
    assert sp.slem(wt.column_stochastic(cycle)) == pytest.approx(np.cos(np.pi / n), **EXACT)


@pytest.mark.parametrize("topology", [tp.torus(40, 42), tp.exponential(1600)])
def test_large_sparse_matrices(topology):
    W = wt.uniform(topology)
    expected = sp.contraction_exponential(1600) if topology.directed else sp.contraction_torus(40, 42)
    assert sp.contraction_factor(W) == pytest.approx(expected, **EXACT)
    assert sp.slem(W) == pytest.approx(expected, rel=0, abs=1e-8)  # the iteration stops at its own residual


def events(topology, clock):
    """Every possible event with its probability."""
    n, d = topology.num_nodes, topology.degrees
    for i, j in zip(topology.receivers, topology.senders, strict=True):
        W = np.eye(n)
        W[[i, i, j, j], [i, j, i, j]] = 0.5
        yield (1 / (n * d[i]) if clock == "node" else 1 / topology.senders.size), W


@pytest.mark.parametrize("clock", ["node", "edge"])
@given(topology=connected_graphs(min_nodes=2), seed=st.integers(0, 99))
def test_pairwise_averaging_against_all_events(clock, topology, seed):
    A, n = topology.adjacency(), topology.num_nodes
    x = np.random.default_rng(seed).standard_normal((n, 2))
    mean = sum(p * W for p, W in events(topology, clock))
    expected = sum(p * n * np.var(W @ x, axis=0).sum() for p, W in events(topology, clock))
    theory = sp.pairwise_matrix(A) if clock == "node" else sp.edge_clock_matrix(A)
    np.testing.assert_allclose(theory, mean, rtol=0, atol=1e-14)  # rounding
    assert sp.pairwise_one_event(A, x, clock=clock) == pytest.approx(expected, rel=1e-12)
    bound = sp.pairwise_contraction(A, clock=clock) * n * np.var(x, axis=0).sum()
    assert expected <= bound * (1 + 1e-12)


@pytest.mark.parametrize("n", [2, 3, 9])
def test_pairwise_averaging_on_the_complete_graph_has_one_rate(n):
    A, x = tp.complete(n).adjacency(), np.random.default_rng(0).standard_normal(n)
    factor = (n - 2) / (n - 1)
    assert sp.pairwise_contraction(A) == pytest.approx(factor, **EXACT)
    assert sp.pairwise_one_event(A, x) == pytest.approx(factor * n * np.var(x), **EXACT)


def test_both_clocks_agree_on_regular_graphs():
    topology = tp.random_regular(20, 4, seed=0)
    A = topology.adjacency()
    np.testing.assert_allclose(sp.pairwise_matrix(A), sp.edge_clock_matrix(A), rtol=0, atol=1e-15)
    second = np.linalg.eigvalsh(sp.laplacian(A))[1]
    assert sp.pairwise_contraction(A) == pytest.approx(1 - second / (20 * 4), **EXACT)


def test_averaging_time_bounds():
    low, high = sp.averaging_time_bounds(0.5, 0.25)
    assert (low, high) == pytest.approx((1.0, 6.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sp.contraction_ring(2), "at least 3"),
        (lambda: sp.contraction_torus(2, 5), "at least 3"),
        (lambda: sp.contraction_path(0), "num_nodes=0: .* at least 1"),
        (lambda: sp.contraction_hypercube(-1), "dimension=-1"),
        (lambda: sp.contraction_factor(np.ones((2, 3))), "square"),
        (lambda: sp.laplacian(np.array([[0.0, 1.0], [0.0, 0.0]])), "not symmetric"),
        (lambda: sp.pairwise_matrix(np.zeros((2, 2))), "node 0 has no neighbour"),
        (lambda: sp.edge_clock_matrix(np.zeros((2, 2))), "at least one edge"),
        (
            lambda: sp.pairwise_contraction(tp.ring(3).adjacency(), clock="sun"),
            "clock='sun': must be one of",
        ),
        (lambda: sp.averaging_time_bounds(1.0, 0.1), "lambda2=1.0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
