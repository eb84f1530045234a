"""Sizes of codes against messages that are really written, and against the mean size of Bernoulli masks."""

import math
from fractions import Fraction

import bitstream
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gossipjax.compress.codes import (
    Golomb,
    Wire,
    bitmap,
    dense_bits,
    elias_gamma,
    free,
    int32_indices,
    message_bits,
    seed,
)
from theory import compression as theory

SETTINGS = settings(max_examples=60, deadline=None)
CODES = [elias_gamma, int32_indices, bitmap, seed, free]
each_row = jax.jit(jax.vmap(elias_gamma))
one = jax.jit(elias_gamma)
message = jax.jit(message_bits, static_argnums=2)


def written(mask):
    """Bits of the message, once it has been read back."""
    indices = np.flatnonzero(mask).tolist()
    data = bitstream.encode(indices)
    assert bitstream.decode(data) == indices
    return 8 * len(data)


def held(masks):
    assert np.asarray(each_row(jnp.asarray(masks))).tolist() == [written(mask) for mask in masks]


def at(d, *places):
    mask = np.zeros(d, bool)
    mask[[place % d for place in places]] = True
    return mask


def clustered(rng, d, density, run):
    """A chain of two states that stays in each for a while: runs of ones, of mean length ``run``."""
    enter = min(1.0, density / ((1 - density) * run))
    draws, state, mask = rng.random(d), False, np.zeros(d, bool)
    for i in range(d):
        state = draws[i] >= 1 / run if state else draws[i] < enter
        mask[i] = state
    return mask


def masks_of(d):
    rng = np.random.default_rng(d)
    random = [rng.random(d) < alpha for alpha in (1 / d, 3 / d, 0.01, 0.05, 0.34, 0.5, 0.9, 0.99) for _ in range(3)]
    runs = [clustered(rng, d, density, run) for density in (0.02, 0.2, 0.6) for run in (2, 10, 50)]
    edges = [at(d), at(d, 0), at(d, -1), at(d, d // 2), at(d, 0, -1), at(d, -1, -2), ~at(d), ~at(d, d // 2)]
    # Gaps on both sides of the powers of two, where the length of the code changes.
    steps = [at(d, *range(0, d, 2**j + off)) for j in range(2, 12) for off in (-1, 0, 1)]
    return np.stack([*random, *runs, *edges, *steps])


# The size of the code is the length of the message


@pytest.mark.parametrize("d", [1, 2, 32, 33, 100, 1000, 4097])
def test_every_message_is_as_long_as_counted(d):
    held(masks_of(d))


def test_every_mask_of_twelve_coordinates():
    held(np.array([[number >> i & 1 for i in range(12)] for number in range(2**12)], bool))


@SETTINGS
@given(hnp.arrays(bool, 77))
def test_any_mask(mask):
    assert int(one(jnp.asarray(mask))) == written(mask)


@SETTINGS
@given(st.sets(st.integers(0, 2999), max_size=12))
def test_any_few_indices_of_many(indices):
    mask = at(3000, *indices)
    assert int(one(jnp.asarray(mask))) == written(mask)


def test_one_index_or_none_is_the_header():
    assert [int(one(jnp.asarray(at(40, *places)))) for places in ((), (0,), (39,))] == [128, 128, 128]
    # Two neighbours: a gap of 1 takes one bit, in a byte of its own.
    assert int(one(jnp.asarray(at(40, 6, 7)))) == 136


def test_map_is_vmap():
    masks = jnp.asarray(masks_of(100))
    mapped = jax.jit(lambda rows: jax.lax.map(elias_gamma, rows))(masks)
    assert np.asarray(mapped).tolist() == np.asarray(each_row(masks)).tolist()


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.34])
def test_mean_size_per_index_of_bernoulli_masks(alpha):
    """Gaps G are geometric: P(G >= 2^j) = (1-α)^(2^j - 1), and B = 1 + 2 ⌊log2 G⌋ bits.

    Mean 1 + 2 Σ_j P, variance 4 (Σ_j (2j-1) P - (Σ_j P)²). By Wald's second identity L - n E B has the variance
    E n Var B, though the number of gaps is random. What the ends cut off and the last byte adds, some dozen bits, is
    far below the standard error of 2^20 coordinates.
    """
    d = 2**20
    mask = np.random.default_rng(7).random(d) < alpha
    tails = [(1 - alpha) ** (2**j - 1) for j in range(1, 20)]
    mean = 1 + 2 * sum(tails)
    variance = 4 * (sum((2 * j - 1) * p for j, p in enumerate(tails, 1)) - sum(tails) ** 2)
    gaps = int(mask.sum()) - 1
    per_gap = (int(one(jnp.asarray(mask))) - 128) / gaps
    assert abs(per_gap - mean) < 4 * math.sqrt(variance / gaps)


# The other codes


def test_other_codes_against_their_bytes():
    for d in (1, 8, 9, 100):
        for mask in masks_of(d):
            bits = [int(code(jnp.asarray(mask))) for code in (int32_indices, bitmap, seed, free)]
            listed = np.flatnonzero(mask).astype(np.int32).tobytes()
            assert bits == [8 * len(listed), 8 * len(np.packbits(mask).tobytes()), 8 * np.uint64(7).nbytes, 0]


@pytest.mark.parametrize("code", CODES)
def test_sizes_are_scalars_of_32_bits(code):
    size = jax.jit(code)(jnp.asarray(at(50, 3, 9)))
    assert (size.shape, size.dtype) == ((), jnp.uint32)


# Messages


@pytest.mark.parametrize("code", CODES)
def test_message_is_positions_values_and_envelope(code):
    wire = Wire(code, envelope_bytes=11)
    for mask in masks_of(33)[::5]:
        positions = int(code(jnp.asarray(mask)))
        values = np.zeros(int(mask.sum()), np.float32).tobytes()
        assert int(message(wire, jnp.asarray(mask), 32)) == positions + 8 * (len(values) + 11)


@pytest.mark.parametrize("ratio", [(1, 1), (37, 40), (74, 80), (1, 3), (999, 1000), (3, 2)])
@pytest.mark.parametrize("value_bits", [1, 16, 32, 64])
def test_values_fill_whole_bytes(ratio, value_bits):
    masks = np.arange(100) < np.arange(101)[:, None]
    wire = Wire(free, ratio)
    bits = jax.vmap(lambda mask: message_bits(wire, mask, value_bits))(jnp.asarray(masks))
    exact = [8 * math.ceil(Fraction(value_bits * n, 8) * Fraction(*ratio)) for n in range(101)]
    assert np.asarray(bits).tolist() == exact
    assert [dense_bits(wire, n, value_bits) for n in range(101)] == exact


def test_nothing_overflows_on_the_way():
    """5,000,001 values of 999/250 bytes: 999 times their number is beyond 2^32; then more bits than 2^31."""
    for d, ratio in ((5_000_001, (999, 1000)), (2**26 + 3, (1, 1))):
        exact = 8 * math.ceil(Fraction(32 * d, 8) * Fraction(*ratio))
        assert d * 999 > 2**32 > exact
        assert int(message(Wire(free, ratio), jnp.ones(d, bool), 32)) == exact


def test_dense_message_has_no_positions():
    assert dense_bits(Wire(envelope_bytes=5), 10, 32) == 8 * (np.zeros(10, np.float32).nbytes + 5)
    assert dense_bits(Wire(), 10**12, 64) == 64 * 10**12


def test_equal_wires_share_one_program():
    traces = []

    @jax.jit
    def size(wire, mask):
        traces.append(wire)
        return message_bits(wire, mask, 32)

    mask = jnp.asarray(at(20, 3))
    for wire in (Wire(elias_gamma, (37, 40)), Wire(value_ratio=(37, 40)), Wire(bitmap, (37, 40))):
        size(wire, mask)
    assert len(traces) == 2


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: Wire(value_ratio=(1, 0)), r"value_ratio\[1\]=0.*at least 1"),
        (lambda: Wire(value_ratio=(-1, 2)), r"value_ratio\[0\]=-1.*at least 1"),
        (lambda: Wire(envelope_bytes=-1), r"envelope_bytes=-1.*at least 0"),
        (lambda: message_bits(Wire(), jnp.ones(3, bool), 0), r"value_bits=0.*at least 1"),
        (lambda: message_bits(Wire(free, (10**8 + 1, 10**8)), jnp.ones(3, bool), 32), "fewer digits"),
        (lambda: dense_bits(Wire(), -1, 32), r"d=-1.*at least 0"),
        (lambda: dense_bits(Wire(), 3, -8), r"value_bits=-8.*at least 1"),
    ],
)
def test_bad_input(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()


# Golomb's code


def golomb(mask, b):
    """The code itself, as a string: quotients in unary, rests in b bits."""
    before, code = -1, ""
    for place in np.flatnonzero(mask).tolist():
        quotient, rest = divmod(place - before - 1, 2**b)
        code, before = code + "1" * quotient + "0" + (f"{rest:0{b}b}" if b else ""), place
    return code


@pytest.mark.parametrize(("share", "b"), [(1.0, 0), (0.5, 0), (0.25, 1), (0.1, 3), (0.01, 6)])
def test_golomb_bits_are_those_of_the_written_code(share, b):
    code, d = Golomb(share), 60
    masks = np.stack([*(np.random.default_rng(0).random((20, d)) < min(share, 0.5)), at(d, 0), at(d, -1), ~at(d)])
    assert code.b == b
    found = jax.jit(jax.vmap(code))(masks)
    assert found.tolist() == [len(golomb(mask, b)) for mask in masks]
    assert int(code(jnp.zeros(7, bool))) == 0


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_golomb_is_the_shortest_of_its_kind_on_random_masks(share):
    """The mean of 400,000 draws; no other b is shorter, and Elias gamma is longer in the mean."""
    found = Golomb(share)
    best = theory.golomb_gap_bits(share)
    # The same formula; near the threshold of two b both are equally long up to rounding.
    assert found.b + 1 / (1 - (1 - share) ** 2.0**found.b) == pytest.approx(best, rel=1e-12)
    assert best < theory.bernoulli_gap_bits(share) or share >= 0.5
    mask = np.random.default_rng(0).random(400_000) < share
    count = mask.sum()
    # A gap is geometric, and its quotient too, with the ratio r; the standard error of the mean of such numbers.
    ratio = (1 - share) ** 2.0**found.b
    assert abs(int(found(jnp.asarray(mask))) / count - best) < 4 * np.sqrt(ratio / count) / (1 - ratio)


def test_golomb_codes_of_one_share_are_equal():
    assert Golomb(0.25) == Golomb(0.25) != Golomb(0.5)
    assert int(message_bits(Wire(Golomb(0.25)), jnp.asarray(at(12, 2, 6, 7)), 32)) == 8 + 3 * 32
    with pytest.raises(ValueError, match="share=0"):
        Golomb(0.0)
