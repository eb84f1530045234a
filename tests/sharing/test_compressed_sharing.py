"""Compressed schemes against nodes that keep their own memories, and against what they reduce to."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, D, N, exact_quadratic

from gossipjax import dpsgd, gossip_averaging, simulate
from gossipjax._engine import loop
from gossipjax.compress import identity, qsgd, random_gossip, random_k, scaled_sign, top_k
from gossipjax.facts import check_requires
from gossipjax.mixing import lazy, metropolis, uniform
from gossipjax.sharing import choco, compressed, dcd, deep_squeeze, ecd, error_feedback, full, moniqua
from gossipjax.timeline import poisson_pairs, rounds
from gossipjax.timeline._events import first_event
from gossipjax.topology import barabasi_albert, ring

KEY = jax.random.key(1)
RATE, GAMMA, T = 0.2, 0.3, 12
GRAPH = barabasi_albert(N, 2, seed=1)
W = metropolis(GRAPH).toarray()
SGD = Partial(optax.sgd, RATE)
ROUNDS, TABLES = rounds(W, T), rounds(W, T, form="table")
CHANGING = [W, metropolis(ring(N)).toarray()]


@jax.jit
def run(key, protocol, timeline, x0):
    (state, _), _ = loop.run(key, protocol, timeline, protocol.init(key, x0))
    return state


def final(protocol, timeline=ROUNDS, x0=X0):
    return np.asarray(protocol.model(run(KEY, protocol, timeline, jnp.asarray(x0))))


def learning(sharing, order="adapt_then_combine"):
    return dpsgd(exact_quadratic(), SGD, order=order, sharing=sharing)


def _on_a_grid(key, x):
    del key
    return 0.05 * jnp.round(x / 0.05), 8 * x.shape[0]


GRID = dataclasses.replace(identity(), apply=Partial(_on_a_grid), name="grid")
"""Deterministic, and said to be unbiased: the algebra of a scheme does not ask whether it is."""


# Nodes with memories of their own, that know only what they were sent


def top_two(z):
    message = np.zeros(D)
    kept = np.argsort(-np.abs(z), kind="stable")[:2]
    message[kept] = z[kept]
    return message


def grid(z):
    return 0.05 * np.round(z / 0.05)


class Node:
    """One node of the network: its model, its row of W, and what it remembers of others."""

    def __init__(self, number, x0, compress, rate):
        self.number, self.x, self.compress, self.rate = number, x0[number].copy(), compress, rate
        self.memory = {j: x0[j].copy() for j in range(N) if W[number, j] != 0 or j == number}
        self.inbox = {}

    def step(self):
        return -self.rate * CURVATURE[self.number] * (self.x - TARGETS[self.number])

    def weighted(self, known):
        return sum(W[self.number, j] * value for j, value in known.items() if W[self.number, j] != 0)


class Naive(Node):
    def say(self, t):
        del t
        self.x = self.x + self.step()
        return self.compress(self.x)

    def hear(self, t):
        del t
        own = self.inbox[self.number]
        self.x = self.x + GAMMA * sum(W[self.number, j] * (value - own) for j, value in self.inbox.items())


class Squeeze(Naive):
    error = np.zeros(D)

    def say(self, t):
        del t
        self.x = self.x + self.step()
        wanted = self.x + self.error
        message = self.compress(wanted)
        self.error = wanted - message
        return message


class DCD(Node):
    def say(self, t):
        del t
        half = self.weighted(self.memory) + self.step()
        return self.compress(half - self.x)

    def hear(self, t):
        del t
        self.x = self.x + self.inbox[self.number]
        for j, message in self.inbox.items():
            self.memory[j] = self.memory[j] + message


class ECD(Node):
    def say(self, t):
        new = self.weighted(self.memory) + self.step()
        z = (1 - 0.5 * t) * self.x + 0.5 * t * new
        self.x = new
        return self.compress(z)

    def hear(self, t):
        for j, message in self.inbox.items():
            self.memory[j] = (1 - 2 / t) * self.memory[j] + 2 / t * message


def replayed(kind, compress, rate=RATE, x0=X0):
    nodes = [kind(i, x0, compress, rate) for i in range(N)]
    for t in range(1, T + 1):
        said = [node.say(t) for node in nodes]
        for node in nodes:
            node.inbox = {j: said[j] for j in node.memory}
            node.hear(t)
    for node in nodes:
        for j in node.memory:  # every copy of a model is the same one
            np.testing.assert_array_equal(node.memory[j], nodes[j].memory[j] if kind is not Naive else X0[j])
    return np.stack([node.x for node in nodes])


SCHEMES = [
    (compressed(top_k(2), GAMMA), Naive, top_two),
    (deep_squeeze(top_k(2), GAMMA), Squeeze, top_two),
    (dcd(GRID), DCD, grid),
    (ecd(GRID), ECD, grid),
]
IDS = ["compressed", "deep_squeeze", "dcd", "ecd"]


@pytest.mark.parametrize(("sharing", "kind", "by_hand"), SCHEMES, ids=IDS)
def test_schemes_equal_nodes_with_memories(sharing, kind, by_hand):
    found = final(learning(sharing))
    # Twelve rounds of sums in another order.
    np.testing.assert_allclose(found, replayed(kind, by_hand), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("sharing", "kind", "by_hand"), SCHEMES, ids=IDS)
def test_without_gradients_and_by_tables_too(sharing, kind, by_hand):
    found = final(gossip_averaging(sharing), TABLES)
    np.testing.assert_allclose(found, replayed(kind, by_hand, 0.0), rtol=0, atol=1e-13)


# What they reduce to


@pytest.mark.parametrize("sharing", [compressed(identity()), deep_squeeze(identity(), 1.0)], ids=IDS[:2])
def test_sending_everything_is_full_sharing(sharing):
    # x + (W x − x) is W x up to rounding.
    np.testing.assert_allclose(final(learning(sharing)), final(learning(None)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("scheme", [dcd, ecd])
def test_sending_every_difference_is_the_form_that_mixes_first(scheme):
    plain = final(learning(None, "combine_then_adapt"))
    # x̂ + (h − x̂) is h up to rounding; (2/t) (t/2) likewise, and old errors keep their size.
    np.testing.assert_allclose(final(learning(scheme(identity()))), plain, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        final(gossip_averaging(scheme(identity()))), np.linalg.matrix_power(W, T) @ X0, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("scheme", [dcd, ecd])
def test_in_the_other_order_steps_arrive_a_round_late(scheme):
    known, x = X0, X0
    for _ in range(T):
        step = -RATE * CURVATURE * (x - TARGETS)
        known = W @ known + (x - known)
        x = known + step
    found = final(learning(scheme(identity()), "combine_then_adapt"))
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-13)


def test_feedback_changes_nothing_where_nothing_is_lost():
    plain, wrapped = (final(learning(s)) for s in (full(), error_feedback(full())))
    np.testing.assert_array_equal(plain, wrapped)


# The mean

LOSSY = [compressed(top_k(1), 0.7), deep_squeeze(scaled_sign(), 0.1)]


@pytest.mark.parametrize("sharing", LOSSY, ids=IDS[:2])
@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_the_mean_is_conserved_whatever_is_sent(sharing, seed):
    x0 = np.random.default_rng(seed).standard_normal((N, D))
    found = final(gossip_averaging(sharing), rounds(CHANGING, T), x0)
    # Twelve roundings of models that naive compression may let grow.
    tolerance = T * N * np.finfo(float).eps * max(np.abs(x0).max(), np.abs(found).max())
    np.testing.assert_allclose(found.mean(axis=0), x0.mean(axis=0), rtol=0, atol=tolerance)


@pytest.mark.parametrize("scheme", [dcd, ecd])
def test_replicas_move_the_mean_by_what_is_lost(scheme):
    found = final(gossip_averaging(scheme(GRID)))
    assert np.abs(found.mean(axis=0) - X0.mean(axis=0)).max() > 1e-3


@jax.jit
def onward(keys, protocol, timeline, states):
    """Run many copies of a network, each with its own key, on from where they are."""
    return jax.vmap(lambda key, state: loop.run(key, protocol, timeline, state)[0][0])(keys, states)


def starts(keys, protocol):
    state = protocol.init(KEY, jnp.asarray(X0))
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (len(keys), *leaf.shape)), state)


@pytest.mark.slow
@pytest.mark.parametrize("sharing", [dcd(random_k(2, unbiased=True)), ecd(qsgd(15))], ids=["dcd", "ecd"])
def test_in_the_mean_they_are_what_sends_everything(sharing):
    """Gradients are linear and messages unbiased, so every model is that of D-PSGD in expectation."""
    keys, protocol = jax.random.split(KEY, 1000), learning(sharing)
    found = np.asarray(onward(keys, protocol, ROUNDS[:8], starts(keys, protocol)).x)
    expected = final(learning(None, "combine_then_adapt"), ROUNDS[:8])
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert (error > 1e-4).all()
    assert np.abs((found.mean(axis=0) - expected) / error).max() < 4


# Where they lead


def fixed_point(weights):
    """Solve ``x = W x − η a (x − b)``, coordinate by coordinate: where D-PSGD stands still."""
    columns = [
        np.linalg.solve(np.eye(N) - weights + RATE * np.diag(CURVATURE[:, c]), RATE * CURVATURE[:, c] * TARGETS[:, c])
        for c in range(D)
    ]
    return np.stack(columns, axis=1)


def test_compressed_differences_reach_the_fixed_point():
    """The noise is relative to a difference that vanishes there."""
    weights = lazy(metropolis(GRAPH)).toarray()
    found = final(learning(dcd(qsgd(7))), rounds(weights, 400))
    # The spectral radius of the iteration is about 0.8, whose 400th power is nothing; what is left is rounding.
    np.testing.assert_allclose(found, fixed_point(weights), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_extrapolation_lets_the_noise_fall():
    """Squared errors fall as 1/t or faster: four times the rounds, at most a quarter; twice that is allowed."""
    weights = lazy(metropolis(GRAPH)).toarray()
    keys, protocol, plan = jax.random.split(KEY, 20), learning(ecd(qsgd(31))), rounds(weights, 240)
    states, errors = starts(keys, protocol), []
    for start in (0, 60, 120, 180):
        states = onward(keys, protocol, plan[start : start + 60], states)
        errors.append(((np.asarray(states.x) - fixed_point(weights)) ** 2).mean())
    assert 0 < errors[-1] < errors[0] / 2


# Two coordinates differ, but the third is larger
HIDDEN = X0 + np.asarray([0.0, 0.0, 20.0])


@jax.jit
def time_average(protocol, timeline, x0):
    def add(carry, t):
        state, total = carry
        (state, _), _ = loop.run(KEY, protocol, timeline, state)
        del t
        return (state, jax.tree.map(jnp.add, total, protocol.model(state))), None

    carry = protocol.init(KEY, x0), jnp.zeros_like(x0)
    (state, total), _ = jax.lax.scan(add, carry, length=2000)
    return state, total / 2000


def test_naive_top_k_never_mixes_what_it_never_sends():
    gamma, count = 0.02, 2000
    state, _ = time_average(gossip_averaging(compressed(top_k(1), gamma)), ROUNDS[:1], jnp.asarray(HIDDEN))
    np.testing.assert_array_equal(state.x[:, :2], HIDDEN[:, :2])
    mixed = np.linalg.matrix_power((1 - gamma) * np.eye(N) + gamma * W, count) @ HIDDEN[:, 2]
    # 2,000 roundings of numbers of size 20.
    np.testing.assert_allclose(state.x[:, 2], mixed, rtol=0, atol=1e-11)


def test_error_feedback_says_it_later():
    """``x(T) = x(0) + γ (W − I) (Σ_t<T x(t) − e(T))``, and so the time average agrees."""
    gamma, count = 0.02, 2000
    state, average = time_average(gossip_averaging(deep_squeeze(top_k(1), gamma)), ROUNDS[:1], jnp.asarray(HIDDEN))
    x, error, average = np.asarray(state.x), np.asarray(state.sharing.error), np.asarray(average)
    total = count * average - x + HIDDEN  # x(0) … x(T − 1)
    expected = HIDDEN + gamma * (W - np.eye(N)) @ (total - error)
    # Sums of 2,000 numbers of size 20, and as many roundings of x.
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-9)
    start = ((HIDDEN - HIDDEN.mean(axis=0)) ** 2).sum(axis=0)
    left = ((average - HIDDEN.mean(axis=0)) ** 2).sum(axis=0)
    assert (left < 0.02 * start).all()


# Bits, and where they may be used


@pytest.mark.parametrize(
    ("sharing", "bits"),
    [
        (compressed(top_k(1)), 64 + 32),
        (deep_squeeze(scaled_sign(), 0.1), 64 + D),
        (error_feedback(full()), 64 * D),
        (dcd(qsgd(3)), 64 + 3 * D),
        (ecd(random_k(2, unbiased=True)), 2 * 64 + 64),
    ],
    ids=["compressed", "deep_squeeze", "feedback", "dcd", "ecd"],
)
def test_bits_are_those_of_the_compressor(sharing, bits):
    _, info = first_step(gossip_averaging(sharing))
    assert info.bits == bits
    assert info.messages is None


def first_step(protocol):
    """The form of the state, and the report of one round, without computing anything."""
    found = []

    def step(x):
        after, info = protocol.step(KEY, protocol.init(KEY, x), first_event(KEY, ROUNDS))
        found.append(info)
        return after

    return jax.eval_shape(step, jnp.asarray(X0)), found[0]


def test_a_run_counts_them():
    """Also a state that holds the start twice, which is given away to the loop."""
    result = simulate(KEY, gossip_averaging(ecd(qsgd(3))), ROUNDS, jnp.asarray(X0), record_every=6)
    sent = np.asarray([0, 6, 12]) * 2 * GRAPH.num_edges
    np.testing.assert_array_equal(result["messages_sent"], sent)
    np.testing.assert_array_equal(result["bytes_sent"], sent * (64 + 3 * D) / 8)


def test_bits_may_differ_from_node_to_node():
    protocol = gossip_averaging(deep_squeeze(random_gossip(0.5), GAMMA))
    after, info = jax.jit(protocol.step)(KEY, protocol.init(KEY, jnp.asarray(X0)), first_event(KEY, ROUNDS))
    silent = np.asarray(after.sharing.error == X0).all(axis=1)
    np.testing.assert_array_equal(info.bits, np.where(silent, 0, 64 * D))
    assert 0 < silent.sum() < N


@pytest.mark.parametrize("sharing", [SCHEMES[1][0], SCHEMES[3][0]], ids=["deep_squeeze", "ecd"])
def test_a_model_of_many_leaves_is_one_vector(sharing):
    x0 = {"a": X0[:, :1], "b": X0[:, 1:].reshape(N, 2, 1)}
    whole = final(gossip_averaging(sharing), TABLES)
    parts = run(KEY, gossip_averaging(sharing), TABLES, jax.tree.map(jnp.asarray, x0)).x
    found = np.concatenate([parts["a"], np.reshape(parts["b"], (N, 2))], axis=1)
    # Compiled code may add in another order.
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-14)


ONE_WAY = np.roll(np.eye(N), 1, axis=0) / 2 + np.eye(N) / 2


@pytest.mark.parametrize(("sharing", "kind", "by_hand"), SCHEMES, ids=IDS)
def test_timelines_that_do_not_fit_are_refused(sharing, kind, by_hand):
    del by_hand
    requires = learning(sharing).requires
    meetings = poisson_pairs(GRAPH, T, seed=0).properties
    if kind is Naive:
        check_requires(requires, meetings)
    else:
        with pytest.raises(ValueError, match=r"one fixed mixing matrix|synchronous rounds"):
            check_requires(requires, meetings)
    check_requires(requires, rounds(ONE_WAY, T).properties)
    remember = kind in (DCD, ECD)
    for plan, message in (
        (rounds(CHANGING, T), "one fixed mixing matrix"),
        (rounds(uniform(GRAPH), T), "doubly stochastic"),
    ):
        if remember:
            with pytest.raises(ValueError, match=message):
                check_requires(requires, plan.properties)
        else:
            check_requires(requires, plan.properties)


def test_feedback_of_what_is_no_model_is_refused():
    for sharing in (choco(top_k(1), 0.1), dcd(identity()), deep_squeeze(top_k(1), 0.1)):
        with pytest.raises(ValueError, match=r"has a state, \w*State: error feedback needs"):
            gossip_averaging(error_feedback(sharing)).init(KEY, jnp.asarray(X0))
    with pytest.raises(ValueError, match=r"of the form uint16\[8, 3\] differs from the models float64\[8, 3\]"):
        simulate(KEY, gossip_averaging(error_feedback(moniqua(4, 10.0))), ROUNDS, jnp.asarray(X0))


def test_settings_out_of_range_are_refused():
    for gamma in (0.0, -0.1, np.inf, np.nan):
        for build in (compressed, deep_squeeze):
            with pytest.raises(ValueError, match=f"gamma={gamma}"):
                build(top_k(1), gamma)
    for build in (dcd, ecd):
        for biased in (top_k(2), scaled_sign(), random_k(2)):
            with pytest.raises(ValueError, match=r"is biased: .CD-PSGD needs E Q\(x\) = x"):
                build(biased)
    with pytest.raises(ValueError, match=r"qsgd\(1\) has no quality ω for d=3"):
        gossip_averaging(deep_squeeze(qsgd(1), GAMMA)).init(KEY, jnp.asarray(X0))
