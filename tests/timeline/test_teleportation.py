"""Teleportation: who holds which model, what is counted, and a NumPy loop of the algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, N, exact_quadratic
from scipy import stats

from gossipjax import gossip_averaging, push_sum, random_walk, simulate
from gossipjax.mixing import metropolis, uniform
from gossipjax.timeline import rounds, teleportation
from gossipjax.topology import one_peer_exponential, path, star

KEY, RATE, K, T = jax.random.key(1), 0.2, 4, 9
W = metropolis(star(K)).toarray()


def cycle():
    return [uniform(graph).toarray() for graph in one_peer_exponential(K)]


@pytest.mark.parametrize("matrices", [[W], cycle()], ids=["one matrix", "a cycle"])
def test_it_equals_its_loop(matrices):
    """Takezawa and Stich 2025, algorithm 1, with a model at every node: the r-th fetches that of the r-th before."""
    plan = teleportation(matrices if len(matrices) > 1 else matrices[0], N, T, seed=3)
    held, names = {}, plan.xs["nodes"]
    for t, nodes in enumerate(names):
        before = nodes if t == 0 else names[t - 1]
        fetched = [X0[r] if t == 0 else held[node] for r, node in enumerate(before)]
        stepped = [x - RATE * CURVATURE[i] * (x - TARGETS[i]) for x, i in zip(fetched, nodes, strict=True)]
        mixed = matrices[t % len(matrices)] @ np.stack(stepped)
        held = dict(zip(nodes, mixed, strict=True))
    found = simulate(KEY, random_walk(exact_quadratic(), Partial(optax.sgd, RATE)), plan, jnp.asarray(X0[:K]))
    np.testing.assert_allclose(found.x, [held[node] for node in names[-1]], rtol=0, atol=1e-12)
    # A node sends to its neighbours in W, and to the next node of its model, unless that is itself.
    degrees = sum(np.count_nonzero(matrices[t % len(matrices)]) - K for t in range(T))
    moves = np.count_nonzero(names[1:] != names[:-1])
    assert found["messages_sent"].values[-1] == degrees + moves
    assert found["bytes_sent"].values[-1] == (degrees + moves) * X0.shape[1] * 8


@pytest.mark.parametrize("method", [push_sum, gossip_averaging], ids=lambda build: build.__name__)
def test_averaging_of_models_that_jump_is_that_of_rounds(method):
    """Who holds a model does not matter without data: the same numbers as on rounds of the k models, bit for bit."""
    moved = simulate(KEY, method(), teleportation(cycle(), N, T, seed=3), jnp.asarray(X0[:K]))
    stayed = simulate(KEY, method(), rounds(cycle(), T), jnp.asarray(X0[:K]))
    np.testing.assert_array_equal(moved.x, stayed.x)
    np.testing.assert_allclose(moved.x, np.broadcast_to(X0[:K].mean(0), (K, X0.shape[1])), rtol=0, atol=1e-12)


def test_nodes_are_drawn_uniformly_in_random_order():
    """Without replacement in a round; every place of the order equally often."""
    nodes = teleportation(W, 10, 2000, seed=0).xs["nodes"]
    assert all(len(set(row)) == K for row in nodes)
    for place in nodes.T:
        assert stats.chisquare(np.bincount(place, minlength=10)).pvalue > 1e-4


def test_facts_are_those_of_the_matrix():
    facts = teleportation(uniform(path(3)), 7, 5, seed=0).properties
    assert (facts.num_nodes, facts.num_rows) == (7, 3)
    assert facts.tags == {"walks", "row_stochastic"}


def test_more_models_than_nodes_are_refused():
    with pytest.raises(ValueError, match="num_nodes=3"):
        teleportation(W, 3, T, seed=0)


def test_a_plan_that_is_too_large_is_refused_before_a_node_is_drawn(monkeypatch):
    """A round takes a node, a count and what is computed on the way, for each of four models."""
    monkeypatch.setattr("gossipjax.timeline._memory.free_bytes", lambda: 2.0**30)
    with pytest.raises(ValueError, match=r"num_rounds, weights: about 2e\+07 rounds .* 2.09 GiB"):
        teleportation(W, 10, 20_000_000, seed=0)
