"""Helpers of the claims on averaging: exact predictions and what is read off plans."""

import networkx as nx
import numpy as np
import pytest

from gossipjax import timeline, topology
from theory.check.claims import _averages, _pushes, averaging, mixing, push_sum


@pytest.mark.parametrize("n", [2, 3, 5, 8, 12, 13])
def test_one_pass_of_the_one_peer_graph_is_a_product_of_shifts(n):
    product = np.eye(n)
    for k in range((n - 1).bit_length()):
        product = (np.eye(n) + np.roll(np.eye(n), 2**k, axis=0)) / 2 @ product
    # Sums of at most 16 halves.
    assert averaging._one_peer_deviation(n) == pytest.approx(np.linalg.norm(product - 1 / n), abs=1e-14)


def test_starts_have_mean_zero_and_length_one():
    columns = _averages.starts(7)
    np.testing.assert_allclose(columns.sum(axis=0), 0, atol=1e-15)
    np.testing.assert_allclose(_averages.spread(columns[None]), 1, rtol=1e-14)
    assert np.linalg.matrix_rank(columns) == 3


def test_petersen_graph():
    graph = mixing._GRAPHS[2]
    assert nx.is_isomorphic(nx.from_scipy_sparse_array(graph.adjacency()), nx.petersen_graph())


def test_growth_sees_either_extreme_move_out():
    inside = np.array([[[1.0], [4.0]], [[2.0], [3.0]], [[2.0], [3.0]]])
    assert _pushes.growth(inside) == 1.0
    assert _pushes.growth(np.concatenate([inside, [[[2.0], [6.0]]]])) == 2.0
    assert _pushes.growth(np.concatenate([inside, [[[0.5], [3.0]]]])) == 4.0


@pytest.mark.parametrize("latency", [None, 0.3, 4.0])
def test_messages_in_flight_are_found_in_the_plan(latency):
    plan = timeline.directed_push(topology.ring(5), 10.0, compute=None, send=1.0, latency=latency, seed=3)
    assert len(push_sum._in_flight(plan)) == plan.properties.traffic.in_flight


def test_filled_meetings_keep_the_plan():
    plan = timeline.poisson_pairs(topology.ring(5), 6, seed=0)
    filled = mixing._until(plan, 9)
    assert len(filled) == 9
    for name, values in plan.xs.items():
        np.testing.assert_array_equal(filled.xs[name][:6], values)
    for name in ("first", "second"):
        assert (filled.xs[name][6:] >= 5).all()


@pytest.mark.parametrize("self_allowed", [False, True])
def test_shares_of_push_sum_are_columns(self_allowed):
    P = push_sum._uniform_shares(np.random.default_rng(0), 6, self_allowed)
    np.testing.assert_array_equal(P.sum(axis=0), 1)  # halves are exact
    assert (np.diag(P) >= 0.5).all()
    assert self_allowed or (np.diag(P) == 0.5).all()
