"""Moniqua against nodes that know their neighbours' codes only, and how near its readings are."""

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

from gossipjax import dpsgd, gossip_averaging, testing
from gossipjax._base.binding import Frozen
from gossipjax._engine import loop
from gossipjax.compress._compressor import STREAM
from gossipjax.facts import check_requires
from gossipjax.mixing import metropolis, uniform
from gossipjax.sharing import moniqua
from gossipjax.sharing._moniqua import decode
from gossipjax.timeline import poisson_pairs, rounds
from gossipjax.timeline._events import first_event
from gossipjax.topology import barabasi_albert, ring

KEY = jax.random.key(1)
RATE, GAMMA, T = 0.2, 0.6, 12
GRAPH = barabasi_albert(N, 2, seed=1)
W = metropolis(GRAPH).toarray()
SGD = Partial(optax.sgd, RATE)
ROUNDS, LONG = rounds(W, T), rounds(W, 100)
THETA = 6.0
"""More than any two of the models ever differ here."""


@jax.jit
def run(key, protocol, timeline, x0):
    (state, _), _ = loop.run(key, protocol, timeline, protocol.init(key, x0))
    return protocol.model(state)


def final(protocol, timeline=ROUNDS, x0=X0):
    return np.asarray(run(KEY, protocol, timeline, jnp.asarray(x0)))


def learning(sharing, order="adapt_then_combine"):
    return dpsgd(exact_quadratic(), SGD, order=order, sharing=sharing)


def delta(bits):
    return 1 / (2**bits - 1)


def modulus(bits, theta=THETA):
    return 2 * theta / (1 - 2 * delta(bits))


@jax.jit
def noise_of(key, t):
    shared = jax.random.fold_in(jax.random.fold_in(key, STREAM), t)
    return jax.random.uniform(shared, (1, D), float)[0]


# Nodes that know their own models and the codes of others


class Node:
    def __init__(self, number, bits):
        self.number, self.x, self.bits, self.B = number, X0[number].copy(), bits, modulus(bits)

    def step(self, rate):
        return -rate * CURVATURE[self.number] * (self.x - TARGETS[self.number])

    def code(self, noise):
        grid = np.mod(self.x, self.B) / self.B / delta(self.bits)
        return np.floor(grid) + (noise < grid - np.floor(grid))

    def pull(self, codes):
        own = codes[self.number] * delta(self.bits) * self.B - np.mod(self.x, self.B) + self.x
        total = np.zeros(D)
        for j in np.flatnonzero(W[self.number]):
            turned = np.mod(codes[j] * delta(self.bits) * self.B - self.x, self.B)
            centred = np.where(turned >= self.B / 2, turned - self.B, turned)
            total += W[self.number, j] * (centred + self.x - own) if j != self.number else 0.0
        return GAMMA * total


def replayed(bits, rate, order):
    nodes = [Node(i, bits) for i in range(N)]
    for t in range(T):
        steps, noise = (
            [node.step(rate) for node in nodes],
            np.asarray(noise_of(jax.random.fold_in(KEY, loop.STEPS), t)),
        )
        if order == "adapt_then_combine":
            for node, step in zip(nodes, steps, strict=True):
                node.x = node.x + step
        codes = [node.code(noise) for node in nodes]
        assert max(code.max() for code in codes) < 2**bits
        for node, step in zip(nodes, steps, strict=True):
            node.x = node.x + node.pull(codes) + (step if order == "combine_then_adapt" else 0.0)
    return np.stack([node.x for node in nodes])


@pytest.mark.parametrize(("bits", "order"), [(2, "adapt_then_combine"), (5, "combine_then_adapt")])
def test_learning_equals_nodes_with_codes(bits, order):
    # Twelve rounds of sums in another order, with numbers up to B = 36.
    found = final(learning(moniqua(bits, THETA, GAMMA), order))
    np.testing.assert_allclose(found, replayed(bits, RATE, order), rtol=0, atol=1e-12)


def test_gossip_by_tables_equals_nodes_with_codes():
    found = final(gossip_averaging(moniqua(3, THETA, GAMMA)), rounds(W, T, form="table"))
    np.testing.assert_allclose(found, replayed(3, 0.0, "adapt_then_combine"), rtol=0, atol=1e-12)


# How near the readings are


@jax.jit
def readings(sharing, bits, theta, x, key):
    """What every node of the first axis's models is read as by itself, and by node 0: ``(n, 2, d)``."""
    _, (codes, _) = sharing.encode(key, (), x, x, first_event(key, ROUNDS))
    codes = codes.astype(x.dtype)
    return jnp.stack([decode(bits, theta, codes, near) for near in (x, jnp.broadcast_to(x[:1], x.shape))], axis=1)


@pytest.mark.parametrize("bits", [2, 8])
@given(st.integers(0, 10_000), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_readings_are_as_near_as_stated_and_the_same_for_others(bits, seed, center, theta):
    x = center + 0.499 * theta * np.random.default_rng(seed).uniform(-1, 1, (N, D))
    B, rounding = modulus(bits, theta), 1e-13 * (abs(center) + 10 * theta)
    sharing = moniqua(bits, jnp.asarray(theta))
    found = np.asarray(readings(sharing, Frozen(bits), jnp.asarray(theta), jnp.asarray(x), KEY))
    assert np.abs(found - x[:, None]).max() <= delta(bits) * B + rounding
    # x + (q B − x) mod B differs by rounding from node to node.
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=0, atol=rounding)


def test_the_bound_is_attained():
    """A fraction f is rounded up where the noise is below f: errors of f up to the noise, of 1 − f down to it."""
    x = np.repeat(np.linspace(0, modulus(2), 4000)[:, None], D, axis=1)
    own = np.asarray(readings(moniqua(2, THETA), Frozen(2), jnp.asarray(THETA), jnp.asarray(x), KEY))[:, 0]
    noise = np.asarray(noise_of(KEY, 0))
    expected = np.maximum(noise, 1 - noise) * delta(2) * modulus(2)
    # The models are this far apart.
    np.testing.assert_allclose(np.abs(own - x).max(axis=0), expected, rtol=0, atol=modulus(2) / 3999)


def test_beyond_theta_readings_are_wrong_by_a_multiple_of_the_modulus():
    theta, far = 0.5, np.zeros((N, D))
    far[1] = 100.0
    found = np.asarray(readings(moniqua(8, theta), Frozen(8), jnp.asarray(theta), jnp.asarray(far), KEY))[1, 1]
    turns = (found - far[1]) / modulus(8, theta)
    off = np.abs(turns - np.round(turns))
    assert (np.round(turns) != 0).all()
    assert (off <= delta(8) + 1e-12).all()
    assert (np.abs(found - far[0]) <= modulus(8, theta) / 2).all()


# What is kept


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_the_mean_is_conserved_within_theta(seed):
    x0 = 1e3 + np.random.default_rng(seed).uniform(-1, 1, (N, D))
    testing.check_conserves_mean(gossip_averaging(moniqua(2, 4.0, 0.2)), ROUNDS, x0)


def test_beyond_theta_models_do_not_agree_though_symmetric_weights_keep_the_mean():
    """Both nodes of a pair are wrong by the same multiple, unless the rounding decides it: of 16 bits, hardly ever."""
    within, beyond = (final(gossip_averaging(moniqua(16, theta)), LONG) for theta in (THETA, 0.2))
    assert np.ptp(within, axis=0).max() < 4 * delta(16) * modulus(16)
    assert np.ptp(beyond, axis=0).max() > 1
    np.testing.assert_allclose(beyond.mean(axis=0), X0.mean(axis=0), rtol=0, atol=1e-13)  # a hundred roundings


def test_beyond_theta_the_mean_moves_on_directed_graphs():
    one_way = np.roll(np.eye(N), 1, axis=0) / 2 + np.eye(N) / 2
    testing.check_conserves_mean(gossip_averaging(moniqua(6, THETA)), rounds(one_way, T), X0)
    assert (
        np.abs(final(gossip_averaging(moniqua(6, 0.2)), rounds(one_way, T)).mean(axis=0) - X0.mean(axis=0)).max() > 0.05
    )


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_equal_models_stay_equal(seed):
    start = np.repeat(np.random.default_rng(seed).standard_normal((1, D)), N, axis=0)
    found = final(gossip_averaging(moniqua(2, 1.0)), x0=start)
    # A node reads its own code and those of others in different kernels, which need not round alike. In each of the
    # rounds that is a few roundings of numbers up to B; other noise at every node would cost δ B = 2.
    atol = 8 * T * np.finfo(start.dtype).eps * (modulus(2, 1.0) + np.abs(start).max())
    np.testing.assert_allclose(found, start, rtol=0, atol=atol)


def test_changing_graphs_and_lopsided_weights_will_do():
    both = gossip_averaging(moniqua(8, THETA))
    testing.check_conserves_mean(both, rounds([W, metropolis(ring(N)).toarray()], T), X0)
    check_requires(both.requires, rounds(uniform(GRAPH), T).properties)
    with pytest.raises(ValueError, match="synchronous rounds"):
        check_requires(both.requires, poisson_pairs(GRAPH, T, seed=0).properties)


# What it reduces to


def test_with_many_bits_it_is_full_sharing():
    """No round adds more than 2 δ B, and none of steps and averages makes differences larger."""
    apart = np.abs(final(learning(moniqua(16, THETA))) - final(learning(None))).max()
    assert 0 < apart <= T * 2 * delta(16) * modulus(16)


@jax.jit
def repeated(keys, protocol, timeline, x0):
    return jax.vmap(lambda key: run(key, protocol, timeline, x0))(keys)


@pytest.mark.slow
def test_in_the_mean_it_is_full_sharing():
    """Within θ the readings are unbiased, and averaging is linear."""
    found = np.asarray(repeated(jax.random.split(KEY, 2000), gossip_averaging(moniqua(4, THETA)), ROUNDS[:6], X0))
    assert (np.ptp(found, axis=1) < THETA).all()
    expected = np.linalg.matrix_power(W, 6) @ X0
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert (error > 1e-4).all()
    assert np.abs((found.mean(axis=0) - expected) / error).max() < 4


def test_short_floats_are_read_in_single_precision():
    x0 = jnp.asarray(X0, jnp.bfloat16)
    found = run(KEY, gossip_averaging(moniqua(16, THETA)), ROUNDS, x0)
    assert found.dtype == jnp.bfloat16
    exact = np.linalg.matrix_power(W, T) @ np.asarray(x0, float)
    # Each round rounds x, below 4, to its type, and adds at most 2 δ B.
    allowed = T * (4 * float(jnp.finfo(jnp.bfloat16).eps) + 2 * delta(16) * modulus(16))
    assert np.abs(np.asarray(found, float) - exact).max() < allowed


# Bits and settings


@pytest.mark.parametrize("bits", [2, 7, 16])
def test_bits_are_those_of_the_entries(bits):
    found = []

    def encode(x):
        _, (codes, size) = moniqua(bits, THETA).encode(KEY, (), x, x, first_event(KEY, ROUNDS))
        found.append(size)
        return codes

    codes = jax.eval_shape(encode, jnp.asarray(X0))
    assert found == [bits * D]
    assert codes.shape == (N, D)
    assert codes.dtype == jnp.uint16


def test_all_codes_are_used_and_no_others():
    x = np.linspace(-100, 100, 4096).reshape(-1, 1)
    codes = jax.jit(moniqua(2, 1.0).encode)(KEY, (), jnp.asarray(x), jnp.asarray(x), first_event(KEY, ROUNDS))
    np.testing.assert_array_equal(np.unique(codes[1][0]), [0, 1, 2, 3])


def test_settings_out_of_range_are_refused():
    for bits in (1, 17, True):
        with pytest.raises(ValueError, match=f"bits={bits!r}"):
            moniqua(bits, THETA)
    for bad in (0.0, -0.1, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"theta={bad}"):
            moniqua(4, bad)
        with pytest.raises(ValueError, match=f"gamma={bad}"):
            moniqua(4, THETA, bad)
