"""CHOCO against nodes that keep their own copies of their neighbours, and against what it reduces to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, D, N, exact_quadratic

from gossipjax import dpsgd, gossip_averaging, simulate, testing
from gossipjax._engine import loop
from gossipjax.compress import contractive, identity, qsgd, random_gossip, random_k, scaled_sign, top_k
from gossipjax.facts import check_requires
from gossipjax.mixing import lazy, metropolis, uniform
from gossipjax.sharing import choco, tune_gamma
from gossipjax.timeline import client_sampling, poisson_pairs, rounds
from gossipjax.timeline._events import first_event
from gossipjax.topology import barabasi_albert, ring
from theory.compression import choco_bound, choco_step

KEY = jax.random.key(1)
RATE, GAMMA, T = 0.2, 0.4, 12
GRAPH = barabasi_albert(N, 2, seed=1)
W = metropolis(GRAPH).toarray()
SGD = Partial(optax.sgd, RATE)
ROUNDS = rounds(W, T)
LOSSY = [top_k(2), random_k(1), random_gossip(0.5), contractive(qsgd(1))]


@jax.jit
def run(key, protocol, timeline, x0):
    (state, _), _ = loop.run(key, protocol, timeline, protocol.init(key, x0))
    return state


def final(protocol, timeline=ROUNDS, x0=X0):
    return np.asarray(protocol.model(run(KEY, protocol, timeline, jnp.asarray(x0))))


# Nodes with memories of their own, that know only what they were sent


def top_two(z):
    message = np.zeros(D)
    kept = np.argsort(-np.abs(z), kind="stable")[:2]
    message[kept] = z[kept]
    return message


def sign(z):
    return np.abs(z).mean() * np.where(z < 0, -1.0, 1.0)


class Node:
    def __init__(self, number, x, curvature, target):
        self.number, self.x, self.curvature, self.target = number, x.copy(), curvature, target
        self.weights = {j: W[number, j] for j in range(N) if W[number, j] != 0}
        self.copies = {j: np.zeros(D) for j in {*self.weights, number}}

    def gradient(self):
        return self.curvature * (self.x - self.target)

    def receive(self, sender, message):
        if sender in self.copies:
            self.copies[sender] = self.copies[sender] + message

    def move(self):
        own = self.copies[self.number]
        return GAMMA * sum(weight * (self.copies[j] - own) for j, weight in self.weights.items())


def replayed(compress, rate, order="adapt_then_combine"):
    nodes = [Node(i, X0[i], CURVATURE[i], TARGETS[i]) for i in range(N)]
    for _ in range(T):
        steps = [-rate * node.gradient() for node in nodes]
        if order == "adapt_then_combine":
            for node, step in zip(nodes, steps, strict=True):
                node.x = node.x + step
        messages = [compress(node.x - node.copies[node.number]) for node in nodes]
        for node in nodes:
            for sender, message in enumerate(messages):
                node.receive(sender, message)
        for node, step in zip(nodes, steps, strict=True):
            node.x = node.x + node.move() + (step if order == "combine_then_adapt" else 0.0)
    for node in nodes:
        for j in node.copies:  # every copy of a model is the same one
            np.testing.assert_array_equal(node.copies[j], nodes[j].copies[j])
    return np.stack([node.x for node in nodes])


COMPRESSORS = [(top_k(2), top_two), (scaled_sign(), sign)]


@pytest.mark.parametrize(("compressor", "by_hand"), COMPRESSORS, ids=["top_k", "scaled_sign"])
@pytest.mark.parametrize("order", ["adapt_then_combine", "combine_then_adapt"])
def test_choco_sgd_equals_nodes_with_copies(compressor, by_hand, order):
    protocol = dpsgd(exact_quadratic(), SGD, order=order, sharing=choco(compressor, GAMMA))
    # Twelve rounds of sums in another order.
    np.testing.assert_allclose(final(protocol), replayed(by_hand, RATE, order), rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", ["dense", "table"])
def test_choco_gossip_equals_nodes_with_copies(form):
    found = final(gossip_averaging(choco(top_k(2), GAMMA)), rounds(W, T, form=form))
    np.testing.assert_allclose(found, replayed(top_two, 0.0), rtol=0, atol=1e-13)


def test_random_messages_are_those_of_the_estimates():
    """All or nothing: each round an estimate either stays or becomes the model, and the coins differ by node."""
    protocol = gossip_averaging(choco(random_gossip(0.5), GAMMA))
    state, sent = run(KEY, protocol, ROUNDS[:1], jnp.asarray(X0)), []
    x, estimate = X0, np.zeros_like(X0)
    for t in range(1, 5):
        new = np.asarray(state.sharing.estimate)
        # x̂ + (x − x̂) is x up to rounding; what is not sent leaves x̂ as it was.
        coin = np.abs(new - x).max(axis=1) < 1e-15
        assert (coin | (new == estimate).all(axis=1)).all()
        np.testing.assert_allclose(state.x, x + GAMMA * (W @ new - new), rtol=0, atol=1e-15)
        sent.append(coin)
        x, estimate = np.asarray(state.x), new
        (state, _), _ = step(protocol, ROUNDS[t : t + 1], state)
    sent = np.asarray(sent)
    assert len(np.unique(sent, axis=0)) == 4
    assert 0 < sent.sum() < sent.size


@jax.jit
def step(protocol, plan, state):
    return loop.run(KEY, protocol, plan, state)


# What it reduces to, and what it keeps


@pytest.mark.parametrize("order", ["adapt_then_combine", "combine_then_adapt"])
def test_sending_everything_is_full_sharing(order):
    task = exact_quadratic()
    whole = final(dpsgd(task, SGD, order=order, sharing=choco(identity(), 1.0)))
    # x̂ + (x − x̂) and x + (W x − x) are x and W x up to rounding.
    np.testing.assert_allclose(whole, final(dpsgd(task, SGD, order=order)), rtol=0, atol=1e-14)


def test_sending_everything_is_gossip():
    whole = final(gossip_averaging(choco(random_gossip(1.0), 1.0)))
    np.testing.assert_allclose(whole, np.linalg.matrix_power(W, T) @ X0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("compressor", LOSSY, ids=lambda c: c.name)
@given(testing.starts(N), st.floats(0.01, 1.0))
@settings(max_examples=15, deadline=None)
def test_the_mean_is_conserved_whatever_is_sent(compressor, x0, gamma):
    testing.check_conserves_mean(gossip_averaging(choco(compressor, jnp.asarray(gamma))), ROUNDS, x0)


@pytest.mark.parametrize("compressor", [top_k(2), scaled_sign()], ids=lambda c: c.name)
@given(x=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_agreement_is_kept_by_what_is_not_random(compressor, x):
    start = np.repeat(np.random.default_rng(x).standard_normal((1, D)), N, axis=0)
    testing.check_fixed_point(gossip_averaging(choco(compressor, GAMMA)), ROUNDS, start)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_published_step_contracts_as_published(seed):
    """A worst case, so every start: Σ ‖x_i − x̄‖² + ‖x_i − x̂_i‖² of top-k, whose quality is k/d for every vector."""
    x0 = np.random.default_rng(seed).standard_normal((N, D))
    delta = 1 - np.sort(np.abs(np.linalg.eigvalsh(W)))[-2]
    beta = np.linalg.norm(np.eye(N) - W, 2)
    gamma = choco_step(float(delta), float(beta), 1 / D)
    state = run(KEY, gossip_averaging(choco(top_k(1), gamma)), LONG, jnp.asarray(x0))
    x, estimate = np.asarray(state.x), np.asarray(state.sharing.estimate)
    error = ((x - x.mean(0)) ** 2).sum() + ((x - estimate) ** 2).sum()
    start = ((x0 - x0.mean(0)) ** 2).sum() + (x0**2).sum()
    assert error <= choco_bound(float(delta), 1 / D) ** len(LONG) * start


LONG = rounds(W, 200)


RING = rounds(metropolis(ring(9)), 3000)
# What an independent NumPy program found from other starts: Σ ‖x_i − x̄‖² + ‖x_i − x̂_i‖² after 3,000 rounds over
# that at the start, and by how large a factor starts (and masks, where they are random) may differ.
TABLE = [
    (top_k(20), 2.5e-5, 0.42, 1.05),
    (top_k(20), 0.01, 6.8e-6, 1.3),
    (top_k(20), 0.04, 1.4e-18, 1.6),
    (top_k(20), 0.34, np.inf, 1.0),
    (random_k(20), 0.01, 3.7e-4, 6.0),
    (random_k(20), 0.04, np.inf, 1.0),
    (contractive(qsgd(16)), 0.34, 0.0, 1.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("compressor", "gamma", "left", "factor"), TABLE, ids=lambda v: getattr(v, "name", str(v)))
def test_what_converges_and_what_diverges_on_a_ring_of_nine(compressor, gamma, left, factor):
    x0 = np.random.default_rng(0).standard_normal((9, 2000))
    state = run(KEY, gossip_averaging(choco(compressor, gamma)), RING, jnp.asarray(x0))
    x, estimate = np.asarray(state.x), np.asarray(state.sharing.estimate)
    spread = ((x0 - x0.mean(0)) ** 2).sum() + (x0**2).sum()
    found = (((x - x.mean(0)) ** 2).sum() + ((x - estimate) ** 2).sum()) / spread
    if left == 0.0:
        assert found < 1e-28  # rounding
    elif left == np.inf:
        assert found > 1e10
    else:
        assert left / factor < found < left * factor


# Bits, and where it may be used


def test_bits_are_those_of_the_compressor():
    result = simulate(KEY, gossip_averaging(choco(top_k(1), GAMMA)), ROUNDS, jnp.asarray(X0), record_every=6)
    sent = np.asarray([0, 6, 12]) * 2 * GRAPH.num_edges
    np.testing.assert_array_equal(result["messages_sent"], sent)
    np.testing.assert_array_equal(result["bytes_sent"], sent * (64 + 32) / 8)


@jax.jit
def first_step(protocol, timeline, x0):
    return protocol.step(KEY, protocol.init(KEY, x0), first_event(KEY, timeline))


def test_bits_may_differ_from_node_to_node():
    protocol = gossip_averaging(choco(random_gossip(0.5), GAMMA))
    after, info = first_step(protocol, ROUNDS, jnp.asarray(X0))
    came = np.asarray(after.sharing.estimate == X0).all(axis=1)
    np.testing.assert_array_equal(info.bits, np.where(came, 64 * D, 0))
    np.testing.assert_array_equal(info.messages, GRAPH.degrees)
    assert 0 < came.sum() < N


@pytest.mark.parametrize(
    ("timeline", "message"),
    [
        (rounds([W, lazy(metropolis(GRAPH)).toarray()], T), "one fixed mixing matrix"),
        (poisson_pairs(GRAPH, T, seed=0), "one fixed mixing matrix"),
        (client_sampling(N, 3, T, seed=0), "one fixed mixing matrix"),
        (rounds(uniform(GRAPH), T), "symmetric mixing matrices"),
        (rounds(np.roll(np.eye(N), 1, axis=0) / 2 + np.eye(N) / 2, T), "symmetric mixing matrices"),
    ],
    ids=["two matrices", "pairs", "samples", "not doubly stochastic", "not symmetric"],
)
def test_graphs_on_which_copies_differ_are_refused(timeline, message):
    for protocol in (
        gossip_averaging(choco(top_k(1), GAMMA)),
        dpsgd(exact_quadratic(), SGD, sharing=choco(top_k(1), GAMMA)),
    ):
        with pytest.raises(ValueError, match=message):
            check_requires(protocol.requires, timeline.properties)


def test_settings_out_of_range_are_refused():
    for gamma in (0.0, -0.1, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"gamma={gamma}"):
            choco(top_k(1), gamma)
    with pytest.raises(ValueError, match=r"qsgd\(1\) has no quality ω for d=3"):
        gossip_averaging(choco(qsgd(1), GAMMA)).init(KEY, jnp.asarray(X0))
    with pytest.raises(ValueError, match="k=4 of d=3"):
        gossip_averaging(choco(top_k(4), GAMMA)).init(KEY, jnp.asarray(X0))


# Choosing the step


def test_the_tuned_step_is_the_best_of_those_tried():
    candidates, x0 = (0.05, 0.3, 0.9), np.random.default_rng(3).standard_normal((N, D))
    left = [
        float(np.asarray(final(gossip_averaging(choco(top_k(1), gamma)), LONG, x0)).var(0).sum())
        for gamma in candidates
    ]
    found = tune_gamma(top_k(1), W, D, candidates=candidates, num_rounds=len(LONG), seed=3)
    assert found == candidates[int(np.argmin(left))]
    assert tune_gamma(identity(), W, D, num_rounds=50) == 1.0  # nothing is lost: mix in full


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": (5.0, 9.0)}, "no candidate from 5 to 9 reduces the disagreement"),
        ({"candidates": (0.0,)}, r"candidates\[0\]=0: .*above 0"),
        ({"candidates": ()}, "candidates is empty"),
        ({"dimension": 0}, "dimension=0"),
        ({"weights": uniform(GRAPH)}, "symmetric, doubly stochastic"),
    ],
)
def test_no_step_may_do(settings, message):
    with pytest.raises(ValueError, match=message):
        tune_gamma(**({"compressor": top_k(1), "weights": W, "dimension": D, "num_rounds": 50} | settings))


def test_a_step_that_soon_diverges_is_not_taken():
    """After 100 rounds nodes are closer than at the start, but they have begun to drift apart."""
    with pytest.raises(ValueError, match="in both halves"):
        tune_gamma(top_k(share=0.05), metropolis(ring(9)), 200, candidates=(0.5,), num_rounds=100)
