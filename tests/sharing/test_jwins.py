"""JWINS, top-k and random sampling against nodes that send one another lists of positions and values."""

import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pywt
from bitstream import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from problems import X0, D, N, exact_quadratic

from gossipjax import Event, dpsgd, gossip_averaging, simulate
from gossipjax._engine import loop
from gossipjax.compress.codes import Wire, bitmap, free, int32_indices
from gossipjax.compress.transforms import fourier, identity, wavelet
from gossipjax.facts import check_requires
from gossipjax.mixing import exchange, from_matrix, lazy, metropolis
from gossipjax.sharing import jwins, random_subset, top_k
from gossipjax.sharing._jwins import CUT_OFFS, cpython_draws
from gossipjax.sharing._masked import Masked, fill_in
from gossipjax.timeline import poisson_pairs, rounds
from gossipjax.topology import barabasi_albert, random_regular

KEY, RATE = jax.random.key(4), 0.2
GRAPH = barabasi_albert(12, 2, seed=1)
W = metropolis(GRAPH).toarray()
P, ROUNDS = 1237, 40
_rng = np.random.default_rng(2)
# Gaps of many sizes between curvatures and targets, so that parts of the model move at different speeds.
SLOPES = _rng.lognormal(-1.0, 1.0, (12, P))
CENTERS = _rng.standard_normal((12, P)) * _rng.lognormal(0.0, 1.0, P)


# A node as the sheet of the paper's released code describes it, in NumPy and PyWavelets


class Node:
    def __init__(self, number, x, kind, accumulate="round", rank_by="change", basis="wavelet"):
        self.number, self.kind, self.accumulate, self.rank_by, self.basis = number, kind, accumulate, rank_by, basis
        self.x, self.start, self.stream = x.astype(kind), x.astype(kind), random.Random(number)
        self.weights = {j: W[number, j] for j in range(len(W)) if W[number, j] != 0 and j != number}
        self.scores = np.zeros_like(self.forward(self.x))
        self.lengths = [part.size for part in pywt.wavedec(self.x, "sym2", "symmetric", 4)]

    def forward(self, x):
        return x.copy() if self.basis == "identity" else np.concatenate(pywt.wavedec(x, "sym2", "symmetric", 4))

    def inverse(self, w):
        if self.basis == "identity":
            return w
        parts = np.split(w, np.cumsum(self.lengths)[:-1])
        return pywt.waverec(parts, "sym2", "symmetric")[: self.x.size]

    def train(self, slopes, centers):
        self.start = self.x
        self.x = (self.x - RATE * slopes * (self.x - centers)).astype(self.kind)

    def message(self):
        share = self.stream.choice(CUT_OFFS)
        self.w, change = self.forward(self.x), self.forward(self.x - self.start)
        if self.accumulate == "training":
            self.scores = self.scores + change
            ranked = self.scores
        else:
            ranked = self.scores + change
        if self.rank_by == "value":
            ranked = self.w
        if share >= 0.5:
            self.scores = np.zeros_like(self.scores)
            return np.arange(self.w.size), self.w
        chosen = np.sort(np.argsort(-np.abs(ranked), kind="stable")[: round(share * self.w.size)])
        if self.accumulate != "nothing":
            self.scores[chosen] = 0
        return chosen, self.w[chosen]

    def receive(self, messages):
        mixed = (1 - sum(self.weights.values())) * self.w
        for j, weight in self.weights.items():
            filled = self.w.copy()
            filled[messages[j][0]] = messages[j][1]
            mixed = mixed + weight * filled
        self.x = self.inverse(mixed.astype(self.kind)).astype(self.kind)
        if self.accumulate == "round":
            self.scores = self.scores + self.forward(self.x - self.start)


def by_hand(kind, **switches):
    """Positions sent by every node in every round, and models after it."""
    nodes = [Node(i, np.zeros(P), kind, **switches) for i in range(12)]
    for node in nodes:
        node.x = CENTERS.mean(0).astype(kind)
    masks, models = [], []
    for _ in range(ROUNDS):
        for node, slopes, centers in zip(nodes, SLOPES, CENTERS, strict=True):
            node.train(slopes.astype(kind), centers.astype(kind))
        messages = [node.message() for node in nodes]
        for node in nodes:
            node.receive(messages)
        mask = np.zeros((12, nodes[0].w.size), bool)
        for row, (chosen, _) in zip(mask, messages, strict=True):
            row[chosen] = True
        masks.append(mask)
        models.append(np.stack([node.x for node in nodes]))
    return masks, models


def in_rounds(sharing, kind):
    """The same from a sharing, whose steps are taken one by one."""
    slopes, centers = SLOPES.astype(kind), CENTERS.astype(kind)
    mixing = from_matrix(W, dtype=kind)

    @jax.jit
    def one_round(sharing, state, x, number):
        event = Event(index=number[None], time=jnp.zeros(1), mixing=mixing)
        trained = x - jnp.asarray(RATE, kind) * slopes * (x - centers)
        state, (payload, bits) = sharing.encode(KEY, state, x, trained, event)
        state, x = sharing.merge(KEY, state, (trained, payload, event))
        return state, x, payload.mask, bits

    x = jnp.asarray(np.broadcast_to(CENTERS.mean(0).astype(kind), (12, P)))
    state, masks, models, sizes = sharing.init(x), [], [], []
    for number in range(ROUNDS):
        state, x, mask, bits = one_round(sharing, state, x, jnp.asarray(number, jnp.uint32))
        masks.append(np.asarray(mask)), models.append(np.asarray(x)), sizes.append(np.asarray(bits))
    return masks, models, sizes


SWITCHES = [
    ({}, {}),
    ({"accumulate": "training"}, {"accumulate": "training"}),
    ({"accumulate": "nothing"}, {"accumulate": "nothing"}),
    ({"rank_by": "value"}, {"rank_by": "value"}),
    ({"basis": "identity"}, {"transform": identity()}),
]


@pytest.mark.parametrize(("hand", "ours"), SWITCHES, ids=["jwins", "training", "no_accumulation", "value", "identity"])
@pytest.mark.slow
def test_jwins_selects_what_nodes_by_hand_select(hand, ours):
    masks, models = by_hand(np.float64, **hand)
    found = in_rounds(jwins(draws=cpython_draws(7, 12, ROUNDS), **ours), np.float64)
    for mine, theirs in zip(found[0], masks, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # Forty rounds of sums in another order.
    np.testing.assert_allclose(found[1][-1], models[-1], rtol=0, atol=1e-11)


@pytest.mark.slow  # compiled as users compile it: other orders of sums decide a near-tie otherwise in some round
def test_selections_are_identical_in_single_precision():
    masks, models = by_hand(np.float32)
    found = in_rounds(jwins(draws=cpython_draws(7, 12, ROUNDS)), np.float32)
    chosen = sum(int(mask.sum()) for mask in masks)
    assert chosen > 150_000  # enough for a near-tie to show
    assert sum(int((mine != theirs).sum()) for mine, theirs in zip(found[0], masks, strict=True)) == 0
    scale = np.abs(models[-1]).max()
    # Rounding of 40 rounds of float32.
    np.testing.assert_allclose(found[1][-1], models[-1], rtol=0, atol=1e-5 * max(1.0, scale))


@pytest.mark.slow
def test_bits_are_those_of_an_encoder():
    masks, _, sizes = in_rounds(jwins(draws=cpython_draws(7, 12, ROUNDS)), np.float64)
    whole = cpython_draws(7, 12, ROUNDS) == 6
    for number in range(ROUNDS):
        for node in range(12):
            chosen = np.flatnonzero(masks[number][node])
            indices = 0 if whole[number, node] else 8 * len(encode(chosen))
            assert sizes[number][node] == indices + 64 * chosen.size  # values are float64 here


@pytest.mark.parametrize(
    ("indices", "bits"), [(int32_indices, 32 * 124), (bitmap, 1240), (free, 0)], ids=["int32", "bitmap", "free"]
)
def test_bits_of_other_codes(indices, bits):
    _, _, sizes = in_rounds(top_k(0.1, wire=Wire(indices=indices, envelope_bytes=10)), np.float64)
    assert all((row == bits + 64 * 124 + 80).all() for row in sizes)  # round(0.1 · 1237) = 124


# What it reduces to, and what it keeps

QUADRATIC = exact_quadratic()
SMALL = lazy(metropolis(barabasi_albert(N, 2, seed=1))).toarray()
SGD = Partial(optax.sgd, RATE)
HAAR = wavelet("haar", levels=1)


@jax.jit
def run(key, protocol, timeline, x0):
    (state, _), _ = loop.run(key, protocol, timeline, protocol.init(key, x0))
    return protocol.model(state)


PLANS = {"rounds": lambda W: rounds(W, 6), "pairs": lambda W: poisson_pairs(random_regular(6, 3, seed=0), 20, seed=1)}


@pytest.mark.parametrize("plan", PLANS)
def test_pixels_of_kernels_lie_next_to_each_other(plan):
    """A model with a kernel is the flat vector (out, in, height, width), as in PyTorch; only leaves of four axes."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(6, 5, 4, 3, 2)).astype(np.float32)
    matrix = rng.normal(size=(6, 7, 3)).astype(np.float32)
    flat = np.concatenate([kernel.transpose(0, 4, 3, 1, 2).reshape(6, -1), matrix.reshape(6, -1)], axis=1)
    plan = PLANS[plan](metropolis(random_regular(6, 3, seed=0)))
    sharing = jwins((0.1, 0.3), rank_by="value")  # without training, changes are rounding
    run = simulate(
        jax.random.key(0),
        gossip_averaging(sharing),
        plan,
        {"kernel": jnp.asarray(kernel), "matrix": jnp.asarray(matrix)},
    )
    plain = simulate(jax.random.key(0), gossip_averaging(sharing), plan, jnp.asarray(flat))
    # The same numbers in the same order; XLA may fuse products and sums of the two programs in another way.
    kernels = np.asarray(plain.x)[:, :120].reshape(6, 2, 3, 5, 4).transpose(0, 3, 4, 2, 1)
    np.testing.assert_allclose(run.x["kernel"], kernels, atol=1e-6)
    np.testing.assert_allclose(run.x["matrix"], np.asarray(plain.x)[:, 120:].reshape(6, 7, 3), atol=1e-6)
    assert np.abs(np.asarray(run.x["kernel"]) - kernel).max() > 0.1


@pytest.mark.parametrize("transform", [identity(), HAAR, fourier()], ids=["identity", "haar", "fourier"])
def test_cut_off_one_is_dpsgd(transform):
    plan, x0 = rounds(SMALL, 20), jnp.asarray(X0)
    whole = run(KEY, dpsgd(QUADRATIC, SGD, sharing=jwins((1.0,), transform=transform)), plan, x0)
    # Twenty rounds of a transform and its inverse.
    np.testing.assert_allclose(whole, run(KEY, dpsgd(QUADRATIC, SGD), plan, x0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["dense", "table"])
@pytest.mark.parametrize("sharing", [jwins((0.3, 0.6), transform=HAAR), random_subset(0.5), top_k(0.4)])
def test_equal_models_are_a_fixed_point(form, sharing):
    x0 = jnp.broadcast_to(jnp.asarray(X0[0]), (N, D))
    x = run(KEY, gossip_averaging(sharing), rounds(SMALL, 15, form=form), x0)
    np.testing.assert_allclose(x, x0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("form", ["dense", "table"])
@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=25, deadline=None)
def test_filling_in_equals_its_definition(form, seed):
    rng = np.random.default_rng(seed)
    w, mask = rng.standard_normal((12, 5)), rng.random((12, 5)) < 0.5
    filled = np.where(mask[None], w[None], w[:, None])  # [i, j]: what i takes for the model of j
    np.testing.assert_allclose(
        _filled(from_matrix(W, form=form), Masked(jnp.asarray(w), jnp.asarray(mask))),
        np.einsum("ij,ijc->ic", W, filled),
        rtol=0,
        atol=1e-14,
    )


_filled = jax.jit(fill_in)


def test_filling_in_on_pairs():
    w, mask = np.arange(12.0).reshape(4, 3), np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0]], bool)
    mixed = fill_in(exchange(0, 3, 0.25), Masked(jnp.asarray(w), jnp.asarray(mask)))
    expected = w.copy()
    expected[0, 1] += 0.25 * (w[3, 1] - w[0, 1])
    expected[3, [0, 2]] += 0.25 * (w[0, [0, 2]] - w[3, [0, 2]])
    np.testing.assert_allclose(mixed, expected, rtol=0, atol=0)


def test_the_mean_drifts_where_masks_differ():
    """The network mean moves by as much as the closed form says, and is kept where every mask is the same."""
    x0 = jnp.asarray(_rng.standard_normal((12, 64)))
    sharing = top_k(0.25, accumulate=False)
    event = Event(index=jnp.zeros(1, jnp.uint32), time=jnp.zeros(1), mixing=from_matrix(W))
    state = sharing.init(jnp.zeros_like(x0))
    state, (sent, _) = sharing.encode(KEY, state, x0, x0, event)
    _, x = sharing.merge(KEY, state, (x0, sent, event))
    start, mask = np.asarray(x0), np.asarray(sent.mask)
    moved = np.einsum("ij,jc,ijc->c", W, mask, start[None] - start[:, None]) / 12
    np.testing.assert_allclose(np.asarray(x).mean(0) - start.mean(0), moved, rtol=0, atol=1e-15)
    assert np.linalg.norm(moved) > 0.02 * np.linalg.norm(start.mean(0))
    everywhere = fill_in(event.mixing, Masked(x0, jnp.ones_like(sent.mask)))
    np.testing.assert_allclose(np.asarray(everywhere).mean(0), start.mean(0), rtol=0, atol=1e-15)


def test_the_saving_of_the_released_list():
    """Positions at random, float32 values: the paper's up to 64 %. Every node draws another cut-off."""
    d, number = 20_000, len(CUT_OFFS)
    sharing = jwins(draws=np.arange(number)[None], transform=identity())
    x = jnp.asarray(np.random.default_rng(5).standard_normal((number, d)), jnp.float32)
    event = Event(index=jnp.zeros(1, jnp.uint32), time=jnp.zeros(1), mixing=from_matrix(np.eye(number)))
    _, (_, bits) = jax.jit(sharing.encode)(KEY, sharing.init(jnp.zeros_like(x)), x, x, event)
    saving = 1 - np.mean(np.asarray(bits, np.float64)) / (32 * d)
    assert 0.634 <= saving <= 0.657


@pytest.mark.parametrize("kind", [jnp.float16, jnp.bfloat16])
def test_equal_models_stay_what_they_are_in_short_types(kind):
    """To the bit: transforms are made in single precision, whose errors such a type does not see."""
    x0 = jnp.asarray(np.repeat(_rng.standard_normal((1, 50)), 6, axis=0), kind)
    ring = np.roll(np.eye(6), 1, 0) / 4 + np.roll(np.eye(6), -1, 0) / 4 + np.eye(6) / 2
    x = run(KEY, gossip_averaging(jwins()), rounds(ring, 30, form="table"), x0)
    np.testing.assert_array_equal(x, x0)


def test_a_message_holds_one_value_at_least():
    sharing, x = top_k(0.1), jnp.asarray([[1.0, 2.0, 3.0]] * 2)
    event = Event(index=jnp.zeros(1, jnp.uint32), time=jnp.zeros(1), mixing=from_matrix(np.full((2, 2), 0.5)))
    _, (sent, _) = sharing.encode(KEY, sharing.init(jnp.zeros_like(x)), x, x, event)
    np.testing.assert_array_equal(sent.mask, [[0, 0, 1]] * 2)


# Random numbers


def test_draws_of_the_released_code():
    table = cpython_draws(7, 2, 10)
    assert [CUT_OFFS[k] for k in table[:, 0]] == [1.0, 0.25, 1.0, 0.25, 0.1, 0.2, 0.3, 0.25, 0.25, 1.0]
    assert [CUT_OFFS[k] for k in table[:, 1]] == [0.15, 0.3, 1.0, 1.0, 1.0, 0.1, 0.2, 0.1, 0.25, 1.0]


def test_cut_offs_are_drawn_with_their_probabilities():
    p = [0.2, 0.5, 0.3]
    sharing = jwins((0.1, 0.2, 0.3), probabilities=p, transform=identity())
    x = jnp.asarray(np.random.default_rng(0).standard_normal((400, 10)))
    mixing = from_matrix(np.eye(400), form="table")
    counts = np.zeros(3)
    for number in range(5):
        event = Event(index=jnp.full(1, number, jnp.uint32), time=jnp.zeros(1), mixing=mixing)
        _, (sent, _) = sharing.encode(KEY, sharing.init(jnp.zeros_like(x)), x, x, event)
        counts += np.bincount(np.asarray(sent.mask).sum(1), minlength=4)[1:4]
    expected = 2000 * np.asarray(p)
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected * (1 - np.asarray(p)))).all()


def test_random_subset_sends_each_coordinate_with_its_probability():
    sharing, share = random_subset(0.3), 0.3
    x = jnp.zeros((50, 400))
    event = Event(index=jnp.zeros(1, jnp.uint32), time=jnp.zeros(1), mixing=from_matrix(np.eye(50)))
    _, (sent, bits) = sharing.encode(KEY, sharing.init(x), x, x, event)
    mask = np.asarray(sent.mask)
    assert abs(mask.mean() - share) < 4 * math.sqrt(share * (1 - share) / mask.size)
    assert np.unique(mask, axis=0).shape[0] == 50  # each node draws its own
    np.testing.assert_array_equal(bits, 64 * mask.sum(1) + 64)


def test_a_random_subset_conserves_the_mean_in_expectation():
    x0, sharing = jnp.asarray(_rng.standard_normal((12, 6))), random_subset(0.4)
    event = Event(index=jnp.zeros(1, jnp.uint32), time=jnp.zeros(1), mixing=from_matrix(W))

    def drift(key):
        state, (payload, _) = sharing.encode(key, sharing.init(x0), x0, x0, event)
        _, x = sharing.merge(key, state, (x0, payload, event))
        return jnp.mean(x, axis=0) - jnp.mean(x0, axis=0)

    drifts = np.asarray(jax.jit(jax.vmap(drift))(jax.random.split(KEY, 4000)))
    assert drifts.std() > 0
    z = drifts.mean(0) / (drifts.std(0, ddof=1) / math.sqrt(len(drifts)))
    assert (np.abs(z) < 4).all()


# On other networks


def test_a_changing_graph_needs_no_memory():
    graphs = [metropolis(random_regular(N, 3, seed=seed)).toarray() for seed in range(6)]
    protocol = dpsgd(QUADRATIC, SGD, sharing=jwins(transform=HAAR))
    check_requires(protocol.requires, rounds(graphs, 60).properties)
    x = run(KEY, protocol, rounds(graphs, 60), jnp.asarray(X0))
    assert np.isfinite(np.asarray(x)).all()
    spread = np.asarray(x).std(0).max()
    assert spread < 0.5 * X0.std(0).max()


BAD = [
    (lambda: jwins(()), "at least one share"),
    (lambda: jwins((0.0, 0.5)), r"cut_offs\[0\]=0: .*above 0 and at most 1"),
    (lambda: jwins(cap=0.0), "cap=0.0: .*above 0"),
    (lambda: jwins((0.1, 0.2), probabilities=(0.5, 0.6)), "with sum 1"),
    (lambda: jwins((0.1, 0.2), draws=np.full((3, 4), 2)), "whole numbers in 0 … 1"),
    (lambda: random_subset(1.5), "share=1.5: .*at most 1"),
    (lambda: top_k(0.0), "share=0.0: .*above 0"),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_draws_for_other_nodes():
    sharing, x = jwins(draws=np.zeros((3, 4), int)), jnp.zeros((5, 30))
    event = Event(index=jnp.zeros(1, jnp.uint32), time=jnp.zeros(1), mixing=None)
    with pytest.raises(ValueError, match="draws for 4 nodes in a network of 5"):
        sharing.encode(KEY, sharing.init(x), x, x, event)


def test_given_draws_are_of_rounds():
    plan = poisson_pairs(barabasi_albert(N, 2, seed=1), 10, seed=0)
    drawn = jwins(draws=np.zeros((3, N), int))
    with pytest.raises(ValueError, match="synchronous"):
        simulate(KEY, dpsgd(QUADRATIC, SGD, sharing=drawn), plan, jnp.asarray(X0))
