"""LEAD against nodes that know their neighbours by messages only, against NIDS, and where it ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import CURVATURE, TARGETS, X0, D, N, exact_quadratic

from gossipjax import lead, nids, simulate
from gossipjax._engine import loop
from gossipjax.compress import identity, qsgd, random_gossip, scaled_sign, top_k
from gossipjax.compress._compressor import STREAM
from gossipjax.mixing import metropolis
from gossipjax.observe import models
from gossipjax.timeline import rounds
from gossipjax.topology import barabasi_albert

KEY = jax.random.key(1)
RATE, GAMMA, ALPHA, T = 0.2, 0.6, 0.3, 12
W = metropolis(barabasi_albert(N, 2, seed=1)).toarray()
TASK = exact_quadratic()
OPTIMUM = (CURVATURE * TARGETS).sum(0) / CURVATURE.sum(0)
COARSE = qsgd(1)


def run(protocol, num_rounds, x0=X0):
    return simulate(KEY, protocol, rounds(W, num_rounds), jnp.asarray(x0), observers=[models()], record_every=1)


@jax.jit
def said(vectors, number):
    """What all nodes say in a round, each with a stream of its own."""
    fold = jax.random.fold_in
    keys = jnp.stack([fold(fold(fold(fold(KEY, loop.STEPS), STREAM), node), number) for node in range(N)])
    return jax.vmap(COARSE.apply)(keys, vectors)[0]


class Node:
    """One node of the algorithm box: its own variables, and H of itself and of its neighbours."""

    def __init__(self, number):
        self.weights = {j: W[number, j] for j in range(N) if W[number, j] != 0}
        self.number, self.x, self.dual = number, X0[number], np.zeros(D)
        self.known = {j: np.zeros(D) for j in {*self.weights, number}}
        self.x = self.x - RATE * self.gradient()

    def gradient(self):
        return CURVATURE[self.number] * (self.x - TARGETS[self.number])

    def unknown(self):
        return self.x - RATE * self.gradient() - RATE * self.dual - self.known[self.number]

    def hear(self, messages):
        now = {j: known + messages[j] for j, known in self.known.items()}
        pull = sum(weight * (now[self.number] - now[j]) for j, weight in self.weights.items())
        self.dual = self.dual + GAMMA / (2 * RATE) * pull
        self.known = {j: known + ALPHA * messages[j] for j, known in self.known.items()}
        self.x = self.x - RATE * self.gradient() - RATE * self.dual


def test_lead_equals_nodes_with_copies():
    nodes, replayed = [Node(i) for i in range(N)], []
    for number in range(1, T):
        replayed.append(np.stack([node.x for node in nodes]))
        messages = np.asarray(said(np.stack([node.unknown() for node in nodes]), np.uint32(number)))
        for node in nodes:
            node.hear(messages)
    found = run(lead(TASK, RATE, COARSE, gamma=GAMMA, alpha=ALPHA), T)
    # Twelve rounds of sums in another order.
    np.testing.assert_allclose(found["model"][1:T], replayed, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.x, [node.x for node in nodes], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.state.dual, [node.dual for node in nodes], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.state.estimate, [node.known[node.number] for node in nodes], rtol=0, atol=1e-12)


def test_sending_everything_is_nids():
    """From the first round on, for every memory α."""
    found = run(lead(TASK, RATE, identity(), alpha=ALPHA), T)
    # H + (Y − H) is Y up to rounding.
    np.testing.assert_allclose(found["model"], run(nids(TASK, RATE), T)["model"], rtol=0, atol=1e-12)


def test_lead_reaches_the_optimum_and_its_mean_moves_by_the_mean_gradient():
    """Three values an entry, heterogeneous quadratics, one constant step."""
    found = run(lead(TASK, RATE, COARSE), 400)
    x = np.asarray(found["model"])
    np.testing.assert_allclose(found.x, np.broadcast_to(OPTIMUM, X0.shape), rtol=0, atol=1e-10)
    # D_i = −g_i at the end; sums of four hundred rounds of numbers of order one.
    np.testing.assert_allclose(found.state.dual, -CURVATURE * (OPTIMUM - TARGETS), rtol=0, atol=1e-10)
    means = (CURVATURE * (x[:-1] - TARGETS)).mean(axis=1)
    np.testing.assert_allclose(np.diff(x.mean(axis=1), axis=0), -RATE * means, rtol=0, atol=1e-12)
    errors = np.linalg.norm(x - OPTIMUM, axis=(1, 2))
    # Linear: forty rounds gain a digit at least, whatever their coins.
    assert (errors[40:161:40] < 0.1 * errors[0:121:40]).all()


@pytest.mark.parametrize("compressor", [top_k(1), scaled_sign(), random_gossip(0.5)], ids=lambda c: c.name)
def test_biased_messages_are_refused(compressor):
    with pytest.raises(ValueError, match=f"{compressor.name.split('(')[0]}.* is biased"):
        lead(TASK, RATE, compressor)
