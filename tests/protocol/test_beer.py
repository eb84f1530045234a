"""BEER against nodes that keep their own copies of their neighbours, against gradient tracking, and by its averages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, D, N, exact_quadratic

from gossipjax import beer, dpsgd, gradient_tracking
from gossipjax._engine import loop
from gossipjax.compress import identity, qsgd, random_gossip, scaled_sign, top_k
from gossipjax.facts import check_requires
from gossipjax.mixing import lazy, metropolis, uniform
from gossipjax.sharing import choco
from gossipjax.timeline import matching_rounds, poisson_pairs, rounds
from gossipjax.topology import barabasi_albert

KEY = jax.random.key(1)
RATE, GAMMA, T = 0.1, 0.4, 12
GRAPH = barabasi_albert(N, 2, seed=1)
W = metropolis(GRAPH).toarray()
SGD = Partial(optax.sgd, RATE)
ROUNDS = rounds(W, T)
COINS = random_gossip(0.5)


@jax.jit
def run(protocol, timeline, x0):
    (state, _), _ = loop.run(KEY, protocol, timeline, protocol.init(KEY, x0))
    return state


@jax.jit
def history(protocol, timeline, x0):
    """The states after every round, and what it reported."""

    def one(state, x):
        key = jax.random.fold_in(KEY, loop.STEPS)
        state, info = protocol.step(key, state, timeline.event(KEY, timeline.shared, x))
        return state, (state, info)

    return jax.lax.scan(one, protocol.init(KEY, x0), timeline.xs)[1]


def states(protocol, timeline, x0):
    return history(protocol, timeline, x0)[0]


def gradients(x):
    return CURVATURE * (x - TARGETS)


# The published loop, node by node


def top_two(z):
    message = np.zeros(D)
    kept = np.argsort(-np.abs(z), kind="stable")[:2]
    message[kept] = z[kept]
    return message


def sign(z):
    return np.abs(z).mean() * np.where(z < 0, -1.0, 1.0)


class Node:
    """One node of the algorithm box, which knows its neighbours by their messages only."""

    def __init__(self, number):
        self.number, self.x = number, X0[number].copy()
        self.weights = {j: W[number, j] for j in range(N) if W[number, j] != 0}
        self.models = {j: np.zeros(D) for j in {*self.weights, number}}
        self.trackers = {j: np.zeros(D) for j in {*self.weights, number}}
        self.tracker = self.last = self.gradient()

    def gradient(self):
        return CURVATURE[self.number] * (self.x - TARGETS[self.number])

    def pull(self, copies):
        return GAMMA * sum(weight * (copies[j] - copies[self.number]) for j, weight in self.weights.items())


def told(nodes, messages, copies):
    for node in nodes:
        known = getattr(node, copies)
        for j in known:
            known[j] = known[j] + messages[j]


def replayed(compress):
    nodes = [Node(i) for i in range(N)]
    for _ in range(T):
        for node in nodes:
            node.x = node.x + node.pull(node.models) - RATE * node.tracker
        told(nodes, [compress(node.x - node.models[node.number]) for node in nodes], "models")
        for node in nodes:
            new = node.gradient()
            node.tracker, node.last = node.tracker + node.pull(node.trackers) + new - node.last, new
        told(nodes, [compress(node.tracker - node.trackers[node.number]) for node in nodes], "trackers")
    return np.stack([node.x for node in nodes]), np.stack([node.models[node.number] for node in nodes])


@pytest.mark.parametrize(
    ("compressor", "by_hand", "form"),
    [(top_k(2), top_two, "dense"), (scaled_sign(), sign, "table")],
    ids=["top_k", "scaled_sign"],
)
def test_beer_equals_nodes_with_copies(compressor, by_hand, form):
    state = run(beer(exact_quadratic(), SGD, compressor, GAMMA), rounds(W, T, form=form), X0)
    x, estimate = replayed(by_hand)
    # Twelve rounds of sums in another order.
    np.testing.assert_allclose(state.x, x, rtol=0, atol=1e-13)
    np.testing.assert_allclose(state.x_estimate, estimate, rtol=0, atol=1e-13)
    assert np.abs(x - X0).max() > 0.1


def test_sending_everything_is_gradient_tracking_after_a_step_without_mixing():
    """Copies are then the models and trackers themselves, from the second round on."""
    task = exact_quadratic()
    tracking = run(gradient_tracking(task, SGD), ROUNDS[: T - 1], X0 - RATE * gradients(X0))
    found = run(beer(task, SGD, identity(), 1.0), ROUNDS, X0)
    # x + (W x − x) is W x, and x̂ + (x − x̂) is x, up to rounding.
    np.testing.assert_allclose(found.x, tracking.x, rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.tracker, tracking.tracker, rtol=0, atol=1e-13)


# What it keeps, and where it goes


@pytest.mark.parametrize("compressor", [top_k(2), COINS], ids=lambda c: c.name)
@given(st.integers(0, 1000), st.floats(0.01, 1.0))
@settings(max_examples=8, deadline=None)
def test_averages_are_those_of_exact_messages(compressor, seed, gamma):
    """The mean of V is that of the current gradients, and the mean of x moves by −η times it, whatever is sent."""
    x0 = np.random.default_rng(seed).standard_normal((N, D))
    after = states(beer(exact_quadratic(), SGD, compressor, jnp.asarray(gamma)), ROUNDS, x0)
    x = np.concatenate([x0[None], after.x])
    # Rounding of some hundred sums; large steps with coarse messages diverge, and so does their rounding.
    atol = 1e-13 * (1 + np.abs(x).max() + np.abs(after.tracker).max() + np.abs(after.tracker_estimate).max())
    means = gradients(x[:-1]).mean(axis=1)
    np.testing.assert_allclose(np.asarray(after.tracker).mean(axis=1), means, rtol=0, atol=atol)
    np.testing.assert_allclose(np.diff(x.mean(axis=1), axis=0), -RATE * means, rtol=0, atol=atol)


def test_messages_of_models_and_trackers_have_their_own_coins():
    """All or nothing: each round a copy either stays or moves, and the bits of a message are those of what moved."""
    after, info = history(beer(exact_quadratic(), SGD, COINS, jnp.asarray(GAMMA)), ROUNDS, X0)

    def moved(estimate):
        return np.any(np.diff(np.asarray(estimate), axis=0) != 0, axis=2)

    models, trackers = moved(after.x_estimate), moved(after.tracker_estimate)
    # 88 pairs of fair coins, of which half agree.
    assert abs((models == trackers).mean() - 0.5) < 4 * 0.5 / np.sqrt(models.size)
    np.testing.assert_array_equal(info.bits[1:], 64 * D * (models.astype(int) + trackers))
    np.testing.assert_array_equal(info.messages, np.tile(GRAPH.degrees, (T, 1)))
    assert 0 < models.sum() < models.size


OPTIMUM = (CURVATURE * TARGETS).sum(0) / CURVATURE.sum(0)
LONG = rounds(W, 1500)


def errors(protocol):
    x = np.asarray(states(protocol, LONG, X0).x)
    return np.sqrt(((x - OPTIMUM) ** 2).sum(axis=(1, 2)))


def test_converges_linearly_where_choco_sgd_is_biased():
    """Heterogeneous quadratics, exact gradients, one constant step size."""
    found = errors(beer(exact_quadratic(), SGD, top_k(1), GAMMA))
    biased = errors(dpsgd(exact_quadratic(), SGD, sharing=choco(top_k(1), GAMMA)))
    assert found[-1] < 1e-12
    # A straight line in the logarithm: as many rounds, as many digits, but for the pattern of what is sent.
    first, second = np.log10(found[200] / found[600]), np.log10(found[600] / found[1000])
    assert first > 3
    assert second == pytest.approx(first, rel=0.1)
    assert biased[-1] > 0.1
    assert biased[-1] == pytest.approx(biased[len(biased) // 2], rel=1e-3)


def test_a_common_optimum_is_a_fixed_point():
    """Messages of zero are zeros, and there are no gradients."""
    targets = np.repeat(TARGETS[:1], N, axis=0)
    state = run(beer(exact_quadratic(targets), SGD, identity(), GAMMA), ROUNDS, targets)
    # Rows of W sum to one up to rounding, twelve times over.
    np.testing.assert_allclose(state.x, targets, rtol=0, atol=1e-14)


# Bits, and where it may be used


def test_both_messages_are_counted():
    _, info = history(beer(exact_quadratic(), SGD, top_k(1), jnp.asarray(GAMMA)), ROUNDS, X0)
    np.testing.assert_array_equal(info.bits, np.full(T, 2 * (64 + 32)))
    assert info.messages is None  # as the event says: one to each neighbour


@pytest.mark.parametrize(
    ("timeline", "message"),
    [
        (rounds([W, lazy(metropolis(GRAPH)).toarray()], T), "one fixed mixing matrix"),
        (matching_rounds(N, T, seed=0), "one fixed mixing matrix"),
        (poisson_pairs(GRAPH, T, seed=0), "one fixed mixing matrix"),
        (rounds(uniform(GRAPH), T), "symmetric mixing matrices"),
        (rounds(np.full((N + 1, N + 1), 1 / (N + 1)), T), "the protocol for 8"),
    ],
    ids=["two matrices", "matchings", "pairs", "not doubly stochastic", "other nodes"],
)
def test_graphs_on_which_copies_differ_are_refused(timeline, message):
    protocol = beer(exact_quadratic(), SGD, top_k(1), GAMMA)
    with pytest.raises(ValueError, match=message):
        check_requires(protocol.requires, timeline.properties)


def test_settings_out_of_range_are_refused():
    task = exact_quadratic()
    for gamma in (0.0, -0.1, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"gamma={gamma}"):
            beer(task, SGD, top_k(1), gamma)
    with pytest.raises(ValueError, match=r"qsgd\(1\) has no quality ω for d=3"):
        beer(task, SGD, qsgd(1), GAMMA).init(KEY, jnp.asarray(X0))
