"""SPARQ against nodes that keep copies and may keep silent, and against what it reduces to."""

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
from gossipjax.compress import identity, qsgd, random_gossip, sign_top_k, top_k
from gossipjax.facts import check_requires
from gossipjax.mixing import lazy, metropolis, uniform
from gossipjax.sharing import choco, sparq
from gossipjax.timeline import rounds
from gossipjax.timeline._events import first_event
from gossipjax.topology import barabasi_albert

KEY = jax.random.key(1)
RATE, GAMMA, LOCAL, T = 0.1, 0.4, 3, 12
GRAPH = barabasi_albert(N, 2, seed=1)
W = metropolis(GRAPH).toarray()
SGD = Partial(optax.sgd, RATE)
ROUNDS = rounds(W, T)
FALLING = optax.exponential_decay(0.3, 1, 0.8)


@jax.jit
def run(key, protocol, timeline, x0):
    (state, _), _ = loop.run(key, protocol, timeline, protocol.init(key, x0))
    return state


def final(protocol, timeline=ROUNDS, x0=X0):
    return np.asarray(protocol.model(run(KEY, protocol, timeline, jnp.asarray(x0))))


def learning(sharing, order="adapt_then_combine"):
    return dpsgd(exact_quadratic(), SGD, order=order, local_steps=LOCAL, sharing=sharing)


# Nodes with memories of their own, that know only what they were sent


def signs_of_two(z):
    message = np.zeros(D)
    kept = np.argsort(-np.abs(z), kind="stable")[:2]
    message[kept] = np.abs(z[kept]).mean() * np.where(z[kept] < 0, -1.0, 1.0)
    return message


class Node:
    def __init__(self, number):
        self.number, self.x = number, X0[number].copy()
        self.copies = {j: np.zeros(D) for j in {*np.flatnonzero(W[number]).tolist(), number}}

    def train(self):
        for _ in range(LOCAL):
            self.x = self.x - RATE * CURVATURE[self.number] * (self.x - TARGETS[self.number])

    def say(self, limit):
        change = self.x - self.copies[self.number]
        return signs_of_two(change) if change @ change > limit else None

    def hear(self, said):
        for j in self.copies:
            if said[j] is not None:
                self.copies[j] = self.copies[j] + said[j]
        own = self.copies[self.number]
        self.x = self.x + GAMMA * sum(W[self.number, j] * (copy - own) for j, copy in self.copies.items())


def replayed(threshold):
    nodes, spoke = [Node(i) for i in range(N)], []
    for t in range(T):
        for node in nodes:
            node.train()
        said = [node.say(threshold(t)) for node in nodes]
        for node in nodes:
            node.hear(said)
        spoke.append([message is not None for message in said])
    for node in nodes:
        for j in node.copies:  # every copy of a model is the same one
            np.testing.assert_array_equal(node.copies[j], nodes[j].copies[j])
    return np.stack([node.x for node in nodes]), np.asarray(spoke)


THRESHOLDS = [(0.2, lambda t: 0.2), (FALLING, lambda t: 0.3 * 0.8**t)]


@pytest.mark.parametrize(("threshold", "by_hand"), THRESHOLDS, ids=["number", "schedule"])
def test_learning_equals_nodes_that_may_keep_silent(threshold, by_hand):
    protocol = learning(sparq(sign_top_k(2), GAMMA, threshold))
    expected, spoke = replayed(by_hand)
    assert 0.2 < spoke.mean() < 0.8
    result = simulate(KEY, protocol, ROUNDS, jnp.asarray(X0), record_every=1)
    # Twelve rounds of sums in another order.
    np.testing.assert_allclose(result.x, expected, rtol=0, atol=1e-13)
    # Who is silent sends a message of no bits.
    bits = 8 * np.diff(np.asarray(result["bytes_sent"]))
    np.testing.assert_array_equal(bits, spoke @ GRAPH.degrees * (64 + 2 * 33))
    np.testing.assert_array_equal(np.diff(result["messages_sent"]), np.full(T, 2 * GRAPH.num_edges))


# What it reduces to


@pytest.mark.parametrize("order", ["adapt_then_combine", "combine_then_adapt"])
def test_without_a_threshold_it_is_choco(order):
    with_trigger, plain = (
        learning(sharing, order) for sharing in (sparq(top_k(2), GAMMA, 0.0), choco(top_k(2), GAMMA))
    )
    # The same numbers; compiled code may add in another order.
    np.testing.assert_allclose(final(with_trigger), final(plain), rtol=0, atol=1e-14)


def test_sending_everything_is_full_sharing():
    whole = final(learning(sparq(identity(), 1.0, 0.0)))
    # x̂ + (x − x̂) and x + (W x − x) are x and W x up to rounding.
    np.testing.assert_allclose(whole, final(learning(None)), rtol=0, atol=1e-14)


def test_who_never_moves_that_far_learns_alone():
    shrink = (1 - RATE * CURVATURE) ** (LOCAL * T)
    alone = TARGETS + shrink * (X0 - TARGETS)
    # Thirty-six steps against their closed form.
    np.testing.assert_allclose(final(learning(sparq(top_k(2), GAMMA, 1e6))), alone, rtol=0, atol=1e-14)


def test_copies_lag_by_no_more_than_the_threshold():
    """Where everything is sent or nothing, ``‖x − x̂‖² ≤ c`` when the copies are mixed, in every round."""

    def encode(x, estimate):
        sharing = sparq(identity(), GAMMA, 0.5)
        event = first_event(KEY, ROUNDS)
        state = sharing.init(x)._replace(estimate=estimate)
        _, (message, bits) = sharing.encode(KEY, state, x, x, event)
        return message, bits

    rng = np.random.default_rng(3)
    x, estimate = rng.standard_normal((2, N, D)) / 2
    message, bits = jax.jit(encode)(jnp.asarray(x), jnp.asarray(estimate))
    left = ((x - estimate - np.asarray(message)) ** 2).sum(axis=1)
    silent = ((x - estimate) ** 2).sum(axis=1) <= 0.5
    assert 0 < silent.sum() < N
    assert (left <= 0.5).all()
    np.testing.assert_array_equal(bits, np.where(silent, 0, 64 * D))


# What is kept, and settings


@given(st.integers(0, 10_000), st.floats(0.0, 10.0))
@settings(max_examples=10, deadline=None)
def test_the_mean_is_conserved_whoever_is_silent(seed, threshold):
    x0 = np.random.default_rng(seed).standard_normal((N, D))
    sharing = sparq(random_gossip(0.5), GAMMA, jnp.asarray(threshold))
    testing.check_conserves_mean(gossip_averaging(sharing), ROUNDS, x0)


def limit(scale, t):
    return scale / (1.0 + t.astype(float))


def test_schedules_may_carry_their_numbers():
    halves = [final(learning(sparq(top_k(1), GAMMA, Partial(limit, jnp.asarray(scale))))) for scale in (0.5, 1.0)]
    plain = final(learning(sparq(top_k(1), GAMMA, lambda t: 0.5 / (1.0 + t.astype(float)))))
    # The same numbers; compiled code may add in another order.
    np.testing.assert_allclose(halves[0], plain, rtol=0, atol=1e-14)
    assert np.abs(halves[1] - halves[0]).max() > 1e-3


def test_graphs_on_which_copies_differ_are_refused():
    requires = learning(sparq(top_k(1), GAMMA, 0.1)).requires
    for plan, message in (
        (rounds([W, lazy(metropolis(GRAPH)).toarray()], T), "one fixed mixing matrix"),
        (rounds(uniform(GRAPH), T), "symmetric mixing matrices"),
    ):
        with pytest.raises(ValueError, match=message):
            check_requires(requires, plan.properties)


def test_settings_out_of_range_are_refused():
    for gamma in (0.0, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"gamma={gamma}"):
            sparq(top_k(1), gamma, 0.1)
    for threshold in (-0.1, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"threshold={threshold}"):
            sparq(top_k(1), GAMMA, threshold)
    with pytest.raises(ValueError, match=r"qsgd\(1\) has no quality ω for d=3"):
        gossip_averaging(sparq(qsgd(1), GAMMA, 0.1)).init(KEY, jnp.asarray(X0))
