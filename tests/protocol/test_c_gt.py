"""C-GT against nodes that know their neighbours by messages only, against gradient tracking, and where it ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, D, N, exact_quadratic

from gossipjax import c_gt, gradient_tracking, simulate
from gossipjax._engine import loop
from gossipjax.compress import identity, qsgd, top_k
from gossipjax.compress._compressor import STREAM
from gossipjax.mixing import metropolis
from gossipjax.observe import models
from gossipjax.protocol._beer import TRACKERS
from gossipjax.timeline import rounds
from gossipjax.topology import barabasi_albert

KEY = jax.random.key(1)
RATE, GAMMA, ALPHA, T = 0.1, 0.4, 0.7, 12
W = metropolis(barabasi_albert(N, 2, seed=1)).toarray()
TASK = exact_quadratic()
OPTIMUM = (CURVATURE * TARGETS).sum(0) / CURVATURE.sum(0)
COARSE = qsgd(1)
COARSE_BITS = int(COARSE.apply(KEY, jnp.ones(D))[1])


def run(protocol, num_rounds, x0=X0):
    return simulate(KEY, protocol, rounds(W, num_rounds), jnp.asarray(x0), observers=[models()], record_every=1)


@jax.jit
def said(vectors, number):
    """What all nodes say of models and trackers in a round, each with a stream of its own."""
    fold, nodes = jax.random.fold_in, jnp.arange(N)
    base = fold(KEY, loop.STEPS)
    streams = jnp.stack([fold(base, STREAM), fold(fold(base, TRACKERS), STREAM)])
    keys = jax.vmap(lambda stream: jax.vmap(lambda node: fold(fold(stream, node), number))(nodes))(streams)
    return jax.vmap(jax.vmap(COARSE.apply))(keys, vectors)[0]


class Node:
    """One node of the algorithm box: its own variables, and H_x and H_y of itself and of its neighbours."""

    def __init__(self, number):
        self.weights = {j: W[number, j] for j in range(N) if W[number, j] != 0}
        self.number, self.x = number, X0[number]
        self.y = self.gradient()
        self.known = [{j: np.zeros(D) for j in {*self.weights, number}} for _ in range(2)]

    def gradient(self):
        return CURVATURE[self.number] * (self.x - TARGETS[self.number])

    def unknown(self):
        return [value - known[self.number] for value, known in zip((self.x, self.y), self.known, strict=True)]

    def pull(self, known, messages):
        """(I − W) of what was said; H of all whom this node hears moves on."""
        now = {j: known[j] + messages[j] for j in known}
        known.update({j: known[j] + ALPHA * messages[j] for j in known})
        return sum(weight * (now[self.number] - now[j]) for j, weight in self.weights.items())

    def hear(self, messages):
        pulls = [self.pull(*each) for each in zip(self.known, messages, strict=True)]
        old = self.gradient()
        self.x = self.x - GAMMA * pulls[0] - RATE * self.y
        self.y = self.y - GAMMA * pulls[1] + self.gradient() - old


def test_c_gt_equals_nodes_with_copies():
    nodes, replayed = [Node(i) for i in range(N)], []
    for number in range(T):
        replayed.append(np.stack([node.x for node in nodes]))
        vectors = np.stack([np.stack(each) for each in zip(*(node.unknown() for node in nodes), strict=True)])
        messages = np.asarray(said(vectors, np.uint32(number)))
        for node in nodes:
            node.hear(messages)
    found = run(c_gt(TASK, RATE, COARSE, GAMMA, alpha=ALPHA), T)
    # Twelve rounds of sums in another order.
    np.testing.assert_allclose(found["model"][:T], replayed, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.x, [node.x for node in nodes], rtol=0, atol=1e-12)
    trackers = found.state.mixed + CURVATURE * (np.asarray(found.x) - TARGETS) - found.state.gradient
    np.testing.assert_allclose(trackers, [node.y for node in nodes], rtol=0, atol=1e-12)
    for kept, which in zip((found.state.x_estimate, found.state.tracker_estimate), (0, 1), strict=True):
        np.testing.assert_allclose(kept, [node.known[which][node.number] for node in nodes], rtol=0, atol=1e-12)
    # A message holds two vectors.
    assert found["bytes_sent"].values[-1] == T * (np.count_nonzero(W) - N) * 2 * COARSE_BITS / 8


@pytest.mark.slow
def test_sending_everything_is_gradient_tracking():
    """For every memory α."""
    tracked = run(gradient_tracking(TASK, Partial(optax.sgd, RATE)), T)
    # H + (X − H) is X up to rounding.
    found = run(c_gt(TASK, RATE, identity(), 1.0, alpha=ALPHA), T)
    np.testing.assert_allclose(found["model"], tracked["model"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("compressor", "alpha"),
    [(COARSE, 0.5), pytest.param(top_k(1), 1.0, marks=pytest.mark.slow)],
    ids=["unbiased", "biased"],
)
def test_c_gt_reaches_the_optimum_and_conserves_the_tracked_mean(compressor, alpha):
    found = run(c_gt(TASK, RATE, compressor, GAMMA, alpha=alpha), 1200)
    x = np.asarray(found["model"])
    np.testing.assert_allclose(found.x, np.broadcast_to(OPTIMUM, X0.shape), rtol=0, atol=1e-10)
    means = [np.mean(leaf, axis=0) for leaf in (found.state.mixed, found.state.gradient)]
    np.testing.assert_allclose(*means, rtol=0, atol=1e-12)
    # x̄ moves by −η times the mean gradient: sums of numbers of order one.
    slopes = (CURVATURE * (x[:-1] - TARGETS)).mean(axis=1)
    np.testing.assert_allclose(np.diff(x.mean(axis=1), axis=0), -RATE * slopes, rtol=0, atol=1e-12)
