"""Clique averaging: its loop, its limits, and what is sent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, N, exact_quadratic

from gossipjax import Diverged, clique_averaging, dpsgd, simulate
from gossipjax.mixing import averaging, metropolis
from gossipjax.observe import traffic_by_node
from gossipjax.timeline import rounds
from gossipjax.topology import d_cliques, star
from gossipjax.wrappers import metered

KEY, T, RATE, BETA = jax.random.key(3), 12, 0.1, 0.5
TASK = exact_quadratic()
CLIQUES = d_cliques(np.eye(N, dtype=int), 3, seed=1, between="ring")
W = metropolis(CLIQUES.topology)
SGD = Partial(optax.sgd, RATE)
W_OF_STAR = metropolis(star(N))


def run(protocol, matrix=W, form=None, **more):
    plan = rounds(matrix, T) if form is None else rounds(matrix, T, form=form)
    return simulate(KEY, protocol, plan, jnp.asarray(X0), **more)


def loop(mean_of_clique, momentum):
    x, v = X0, np.zeros_like(X0)
    for _ in range(T):
        v = momentum * v + mean_of_clique @ (CURVATURE * (x - TARGETS))
        x = W @ (x - RATE * v)
    return x


def test_it_equals_its_loop_also_with_momentum():
    J = np.zeros((N, N))
    for clique in CLIQUES.cliques:
        J[np.ix_(clique, clique)] = 1 / len(clique)
    for momentum, optimizer in ((0.0, SGD), (BETA, Partial(optax.sgd, RATE, BETA))):
        found = run(clique_averaging(TASK, optimizer, CLIQUES)).x
        np.testing.assert_allclose(found, loop(J, momentum), rtol=1e-12, atol=1e-12)  # float64, sums of three


def test_cliques_of_one_node_are_dpsgd_and_one_clique_is_centralized_sgd():
    alone = run(clique_averaging(TASK, SGD, [[i] for i in range(N)]))
    np.testing.assert_allclose(alone.x, run(dpsgd(TASK, SGD)).x, rtol=1e-12, atol=1e-12)
    together = run(clique_averaging(TASK, SGD, [list(range(N))]), averaging(N)).x
    x = X0.mean(0)  # the first round mixes the starts; from then on all models are equal
    x = x - RATE * (CURVATURE * (X0 - TARGETS)).mean(0)
    for _ in range(T - 1):
        x = x - RATE * (CURVATURE * (x - TARGETS)).mean(0)
    np.testing.assert_allclose(together, np.broadcast_to(x, together.shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["table", "dense"])
def test_gradients_are_sent_inside_cliques_and_models_to_all_neighbours(form):
    one = X0[0].size * X0.itemsize
    mates = np.zeros(N, int)
    for clique in CLIQUES.cliques:
        mates[clique] = len(clique) - 1
    degree = CLIQUES.topology.degrees
    found = run(metered(clique_averaging(TASK, SGD, CLIQUES)), form=form, observers=[traffic_by_node()], record_at=[T])
    last = found.dataset.isel(record=-1)
    assert float(last.messages_sent) == T * (degree + mates).sum()
    np.testing.assert_array_equal(last.bytes_sent_by_node, T * one * (degree + mates))
    np.testing.assert_array_equal(last.bytes_received_by_node, T * one * (degree + mates))


def test_a_clique_without_one_of_its_edges_is_no_clique():
    with pytest.raises(Diverged, match=r"NaN|finite"):
        run(clique_averaging(TASK, SGD, [[0, 1], [2, 3], [4, 5], [6, 7]]), W_OF_STAR)


@pytest.mark.parametrize("cliques", [[], [[0, 1]], [list(range(N)), [0]], [[i] for i in range(N + 1)]])
def test_cliques_must_hold_every_node_once(cliques):
    with pytest.raises(ValueError, match=r"must hold each of the nodes|must be lists of nodes"):
        clique_averaging(TASK, SGD, cliques)
