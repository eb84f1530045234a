"""Compressors against NumPy's stable sort, by their published constants, and in their random streams."""

import itertools
import math

import bitstream
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.tree_util import Partial
from scipy import stats

from gossipjax import Event, placement, testing
from gossipjax.compress import (
    _selection,
    compress_rows,
    contractive,
    identity,
    largest,
    natural,
    qsgd,
    random_gossip,
    random_k,
    scaled_sign,
    sign_top_k,
    stc,
    top_k,
)
from gossipjax.compress._compressor import STREAM
from gossipjax.compress.codes import Golomb, bitmap, elias_gamma, int32_indices
from theory import compression as theory

SETTINGS = settings(max_examples=40, deadline=None)
KEY = jax.random.key(5)
D = 8
each_row = jax.jit(jax.vmap(largest))


def event(number=3) -> Event:
    return Event(index=jnp.asarray([number], jnp.uint32), time=jnp.zeros(1))


def value_of(compressor, key, x):
    return compressor.apply(key, x)[0]


def values(compressor):
    """The vector alone, as the checks of gossipjax.testing want it."""
    return Partial(value_of, compressor)


@jax.jit
def applied(compressor, key, x):
    return compressor.apply(key, x)[0]


@jax.jit
def both(compressor, keys, vectors):
    """Values and bits of many rows; constant bits become arrays here."""
    return jax.vmap(compressor.apply)(keys, vectors)


def bits_of(compressor, kind):
    """What apply says is the size, without computing anything."""
    found = []
    jax.eval_shape(lambda key, x: found.append(compressor.apply(key, x)[1]), KEY, jax.ShapeDtypeStruct((D,), kind))
    return found[0]


rows_of = jax.jit(compress_rows)


@jax.jit
def draws(compressor, keys, x):
    return jax.vmap(lambda key: compressor.apply(key, x)[0])(keys)


def sample(compressor, x, count=4000, seed=0):
    return np.asarray(draws(compressor, jax.random.split(jax.random.key(seed), count), jnp.asarray(x)))


def by_sorting(scores, k):
    mask = np.zeros(len(scores), bool)
    mask[np.argsort(-np.abs(scores), kind="stable")[:k]] = True
    return mask


# Selection


FORMS = [(1, np.float32), (8, np.float16), (12, np.float64), (33, np.float32)]


@given(st.one_of([st.tuples(testing.compressor_inputs((d,)), st.just(kind)) for d, kind in FORMS]))
@SETTINGS
def test_the_largest_are_those_of_a_stable_sort(case):
    (k, x), kind = case
    x = np.clip(x, -6e4, 6e4).astype(kind)
    np.testing.assert_array_equal(largest(x, k), by_sorting(x, k))


@given(hnp.arrays(np.float32, (4, 12), elements=st.integers(-2, 2).map(float)), st.data())
@SETTINGS
def test_every_node_has_its_own_number(x, data):
    k = np.asarray(data.draw(st.lists(st.integers(0, 12), min_size=4, max_size=4)))
    found = each_row(x, k)
    np.testing.assert_array_equal(found, [by_sorting(row, number) for row, number in zip(x, k, strict=True)])


def test_unsigned_integers_and_signed_zeros_are_ordered_too():
    np.testing.assert_array_equal(largest(np.asarray([0, 2**32 - 1, 7, 2**31], np.uint32), 2), [0, 1, 0, 1])
    np.testing.assert_array_equal(largest(np.asarray([-0.0, 0.0, -0.0, 0.0], np.float32), 2), [1, 1, 0, 0])
    np.testing.assert_array_equal(largest(np.asarray([1.0, -np.inf, 1e-45, np.nan], np.float32), 2), [0, 1, 0, 1])


def test_counts_of_many_blocks_share_a_word(monkeypatch):
    """1,023 blocks, the most that a field holds, and a rest; extreme numbers, ties, and values of any scale."""
    monkeypatch.setattr(_selection, "BLOCK", 4)
    d, rng = 4 * 1023 + 3, np.random.default_rng(0)
    assert _selection._width(d) == 5
    assert _selection._width(d - 3) == 4
    select = jax.jit(_selection._largest.__wrapped__)  # apart from programs that were compiled with other blocks
    normal = rng.standard_normal(d)
    spread = normal * np.exp(20 * rng.standard_normal(d))
    for x in (normal, spread, np.repeat(normal[: d // 5], 6)[:d], np.zeros(d), np.where(normal > 1, normal, 0)):
        for k in (0, 1, 409, d - 1, d):
            scores = x[: d - 3 * (k % 2)].astype(np.float32)
            k = min(k, len(scores))
            np.testing.assert_array_equal(select(scores, np.int32(k)), by_sorting(scores, k))
    most = np.full(d, 2**32 - 1, np.uint32)
    for k in (0, 7, d):
        np.testing.assert_array_equal(select(most, np.int32(k)), np.arange(d) < k)


@pytest.mark.slow
def test_long_vectors_too():
    """Vectors that are compared block by block; one of them nearly all zeros."""
    rng, d = np.random.default_rng(0), 50_001
    normal, rare = rng.standard_normal(d), rng.random(d) < 0.05
    for x in (normal, rng.integers(-3, 3, d).astype(float), np.where(rare, normal, 0.0)):
        for k in (0, 1, 5_000, d - 1, d):
            np.testing.assert_array_equal(largest(x.astype(np.float32), k), by_sorting(x.astype(np.float32), k))


# Constants

ALL = [
    identity(),
    top_k(3),
    random_k(3),
    random_k(3, unbiased=True),
    random_gossip(0.3),
    qsgd(3),
    contractive(qsgd(1)),
    scaled_sign(),
    sign_top_k(3),
    natural(),
]


@pytest.mark.parametrize("compressor", ALL, ids=lambda c: c.name)
@given(testing.vectors(D))
@settings(max_examples=25, deadline=None)
def test_no_vector_loses_more_than_the_quality_says(compressor, x):
    x = np.where(np.abs(x) < 1e-37, 0, x).astype(np.float32)  # what XLA flushes to zero
    if (omega := compressor.omega(D)) is not None:
        testing.check_contracts(values(compressor), omega, x, random=True, draws=1024)
    if compressor.unbiased:
        testing.check_unbiased(values(compressor), x, draws=1024)


@pytest.mark.parametrize(
    ("compressor", "expected"),
    [
        (identity(), 1.0),
        (top_k(2), theory.top_k(2, D)),
        (top_k(share=0.3), theory.top_k(2, D)),
        (top_k(share=0.01), theory.top_k(1, D)),
        (random_k(3), theory.random_k(3, D)),
        (random_k(share=0.5), theory.random_k(4, D)),
        (random_k(2, unbiased=True), None),
        (random_k(6, unbiased=True), 1 - (D / 6 - 1)),
        (random_gossip(0.25), theory.random_gossip(0.25)),
        (qsgd(1), None),
        (qsgd(4), 1 - theory.qsgd_variance(4, D)),
        (contractive(qsgd(1)), theory.qsgd(1, D)),
        (contractive(qsgd(7)), theory.qsgd(7, D)),
        (scaled_sign(), 1 / D),
        (natural(), 7 / 8),
        (stc(0.25), 2 / D),
        (sign_top_k(1), theory.top_k(1, D)),
        (sign_top_k(share=0.25), 2 / D),
        (sign_top_k(5), 1 / 5),
        (sign_top_k(D), 1 / D),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_quality_is_the_published_one(compressor, expected):
    found = compressor.omega(D)
    assert found is None if expected is None else found == pytest.approx(expected, rel=1e-15)  # one division more


BITS = [
    (identity(), D * 32),
    (top_k(3), 3 * (32 + 32)),
    (random_k(3), 3 * 32 + 64),
    (random_k(3, unbiased=True), 3 * 32 + 64),
    (qsgd(15), 32 + D * (1 + 4)),
    (qsgd(16), 32 + D * (1 + 5)),
    (contractive(qsgd(1)), 32 + D * 2),
    (scaled_sign(), 32 + D),
    (sign_top_k(3), 32 + 3 * (1 + 32)),
]


@pytest.mark.parametrize(("compressor", "expected"), BITS, ids=[c.name for c, _ in BITS])
def test_bits_of_a_message(compressor, expected):
    bits = bits_of(compressor, jnp.float32)
    assert isinstance(bits, int)
    assert bits == expected
    # Values have the width at which they are stored.
    values_sent = {"identity()": D, "top_k(k=3)": 3}.get(compressor.name, 3 if "random_k" in compressor.name else 1)
    assert bits_of(compressor, jnp.float64) - bits == 32 * values_sent


@pytest.mark.parametrize("build", [top_k, sign_top_k])
@pytest.mark.parametrize("code", [int32_indices, bitmap, elias_gamma])
def test_coded_indices_take_the_bits_of_their_code(build, code):
    """The message is the same; its size is that without indices, and that of a list really written."""
    x = jnp.asarray(np.random.default_rng(3).standard_normal((5, 200)), jnp.float32)
    keys = jax.random.split(KEY, 5)
    plain, raw = both(build(20), keys, x)
    found, bits = both(build(20, indices=code), keys, x)
    np.testing.assert_array_equal(found, plain)
    lists = [np.flatnonzero(row) for row in np.asarray(plain)]
    size = {
        int32_indices: lambda places: 32 * len(places),
        bitmap: lambda places: 200,
        elias_gamma: lambda places: 8 * len(bitstream.encode(places)),
    }[code]
    np.testing.assert_array_equal(bits, np.asarray(raw) - 20 * 32 + [size(places) for places in lists])
    assert build(20, indices=code).omega(200) == build(20).omega(200)
    assert code.__name__ in build(20, indices=code).name


# Each compressor


def test_top_k_keeps_the_first_of_equal_entries():
    x = jnp.asarray([1.0, -2, 2, 0, -2, 3, 2, 1])
    np.testing.assert_array_equal(applied(top_k(3), KEY, x), [0, -2, 2, 0, 0, 3, 0, 0])


def test_random_k_draws_every_subset_equally_often():
    found = sample(random_k(2), np.ones(4), 6000)
    assert (found.sum(axis=1) == 2).all()
    counts = [(found[:, list(pair)] == 1).all(axis=1).sum() for pair in itertools.combinations(range(4), 2)]
    # 5 degrees of freedom: |z| < 4 is the level 6e-5.
    assert stats.chisquare(counts).pvalue > 2 * stats.norm.sf(4)


def test_random_k_scaled_and_rescaled_is_random_k():
    x = jnp.arange(1.0, 9)
    back = contractive(random_k(3, unbiased=True))
    assert back.omega(8) == pytest.approx(3 / 8, rel=1e-15)
    plain, scaled = (applied(c, KEY, x) for c in (random_k(3), random_k(3, unbiased=True)))
    # x · (8/3) / (1 + (8/3 − 1)): a few roundings.
    np.testing.assert_allclose(applied(back, KEY, x), plain, rtol=1e-15)
    np.testing.assert_allclose(scaled, plain * 8 / 3, rtol=1e-15)


def test_random_gossip_sends_all_or_nothing():
    x = jnp.broadcast_to(jnp.arange(1.0, 4, dtype=jnp.float32), (4000, 3))
    found, bits = both(random_gossip(0.3), jax.random.split(KEY, 4000), x)
    sent = np.asarray(found[:, 0] == 1)
    np.testing.assert_array_equal(found, np.where(sent[:, None], [1.0, 2, 3], 0))
    np.testing.assert_array_equal(bits, np.where(sent, 96, 0))
    assert abs(sent.mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("levels", [1, 3, 16])
def test_qsgd_rounds_to_the_two_neighbours_on_its_grid(levels, scale):
    """In float32, where squares of these numbers overflow or vanish; the variance is that of each rounding."""
    x = np.asarray([3.0, -1.0, 0.25, 0.0, 0.7, -2.0]).astype(np.float32) * np.float32(scale)
    found = sample(qsgd(levels), x).astype(float)
    exact = x.astype(float)
    norm = np.linalg.norm(exact)
    level = levels * np.abs(exact) / norm
    steps = np.abs(found) * levels / norm
    # float32 rounding of the norm and of a product.
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)
    assert (np.abs(steps - level) < 1 + 1e-5).all()
    assert (np.sign(found) * np.sign(exact) >= 0).all()
    chance = level - np.floor(level)
    errors = np.square((found - exact) / norm).sum(axis=1)
    expected = (chance * (1 - chance)).sum() / levels**2
    assert abs(errors.mean() - expected) < 4 * errors.std(ddof=1) / math.sqrt(len(errors))
    assert expected <= qsgd(levels).variance(6)


@pytest.mark.parametrize(("kind", "bits"), [(jnp.float32, 9), (jnp.float64, 12), (jnp.bfloat16, 9), (jnp.float16, 6)])
def test_natural_compression_rounds_to_the_two_nearest_powers(kind, bits):
    """Each upper power as often as the fraction says; errors are the least that two values allow."""
    x = jnp.asarray([3.0, -2.5, 1.25, -4 / 3, 7.75, 8.0, -0.5, 0.0, 6.5e-5], kind)
    exact = np.asarray(x, np.float64)
    found = sample(natural(), x, 6000).astype(np.float64)
    below = 2.0 ** np.floor(np.log2(np.abs(exact), where=exact != 0, out=np.full(9, -np.inf)))
    up = np.abs(found) == 2 * below
    assert ((np.abs(found) == below) | up).all()
    assert (np.sign(found) == np.sign(exact)).all()
    chance = np.abs(exact) / np.where(below == 0, 1, below) - (below > 0)
    # |z| < 4 for each entry; entries that are powers are not moved.
    assert (np.abs(up[:, :7].mean(0) - chance[:7]) <= 4 * np.sqrt(chance * (1 - chance) / 6000)[:7]).all()
    assert (found[:, 5:8] == exact[5:8]).all()
    assert natural().variance(9) == (1 / 3) * (2 / 3) / (4 / 3) ** 2
    assert bits_of(natural(), kind) == bits * D


def test_natural_compression_stays_in_the_range_of_the_type():
    """There is no power of two between the largest and infinity; what diverged is still seen."""
    top = float(jnp.finfo(jnp.float32).max)
    x = jnp.asarray([top, -top, jnp.inf, -jnp.inf, jnp.nan, 2.0**-126], jnp.float32)
    expected = np.asarray([2.0**127, -(2.0**127), np.inf, -np.inf, np.nan, 2.0**-126], np.float32)
    np.testing.assert_array_equal(sample(natural(), x, 16), np.tile(expected, (16, 1)))


def test_stc_is_sign_top_k_with_the_bits_of_its_code():
    """By hand: gaps 3, 4 and 1 at b = 1 take 2 bits each, and one more for each whole 2 below; 3 signs and the mean."""
    x = jnp.asarray([0.0, 0.1, 3.0, 0, 0, 0, -2.0, 1.0, 0.5, 0.5, 0, 0], jnp.float32)
    value, bits = both(stc(0.25), KEY[None], x[None])
    np.testing.assert_array_equal(value[0], [0, 0, 2, 0, 0, 0, -2, 2, 0, 0, 0, 0])
    assert int(bits[0]) == (1 + 1 + 0) + 3 * 2 + 3 + 32
    assert stc(0.25).name == "stc(0.25)"
    coded = both(sign_top_k(share=0.25, indices=Golomb(0.25)), KEY[None], x[None])
    np.testing.assert_array_equal(coded[0], value)
    np.testing.assert_array_equal(coded[1], bits)


@given(testing.vectors(9, np.float64))
@SETTINGS
def test_scaled_sign_loses_exactly_what_it_says(x):
    found = np.asarray(draws(scaled_sign(), jax.random.split(KEY, 1), jnp.asarray(x)))[0]
    lost = ((found - x) ** 2).sum()
    # Sums of nine squares.
    assert lost == pytest.approx((x**2).sum() - np.abs(x).sum() ** 2 / 9, abs=1e-13 * (x**2).sum())
    assert len(np.unique(np.abs(found))) == 1


@given(testing.vectors(9, np.float64), st.integers(1, 9))
@SETTINGS
def test_sign_top_k_loses_exactly_what_it_says(x, k):
    found = np.asarray(applied(sign_top_k(k), KEY, jnp.asarray(x)))
    kept = by_sorting(x, k)
    assert (found[~kept] == 0).all()
    lost, size = ((found - x) ** 2).sum(), (x**2).sum()
    # Sums of nine squares.
    assert lost == pytest.approx(size - np.abs(x[kept]).sum() ** 2 / k, abs=1e-13 * size)
    assert len(np.unique(np.abs(found[kept]))) == 1


@pytest.mark.parametrize("k", [1, 2, 3, 5, D])
def test_the_quality_of_sign_top_k_is_attained(k):
    """By one entry, or by equal ones."""
    left = []
    for x in (np.eye(D)[2], np.ones(D)):
        found = np.asarray(applied(sign_top_k(k), KEY, jnp.asarray(x)))
        left.append(1 - ((found - x) ** 2).sum() / (x**2).sum())
    assert min(left) == pytest.approx(sign_top_k(k).omega(D), rel=1e-14)  # sums of eight squares


def test_sign_top_k_of_all_is_the_scaled_sign():
    x = jnp.asarray([1.0, -2, 0, 4, -0.0, 3, -1, 0.5])
    # A sum divided by d, and a mean.
    np.testing.assert_allclose(applied(sign_top_k(D), KEY, x), applied(scaled_sign(), KEY, x), rtol=1e-15)


@jax.jit
def value_and_gradient(compressor, x):
    return jax.value_and_grad(lambda x: jnp.sum(compressor.apply(KEY, x)[0]))(x)


@pytest.mark.parametrize(
    "compressor", [top_k(3), qsgd(3), scaled_sign(), sign_top_k(3), random_gossip(0.5), natural()], ids=lambda c: c.name
)
def test_zero_stays_zero_and_has_a_derivative(compressor):
    value, gradient = value_and_gradient(compressor, jnp.zeros(D))
    assert value == 0
    assert np.isfinite(gradient).all()


# Rows


def tree(n=5):
    rng = np.random.default_rng(1)
    draw = rng.standard_normal
    return {"a": jnp.asarray(draw((n, 2, 3))), "b": jnp.asarray(draw(n)), "c": jnp.asarray(draw((n, 1)))}


@pytest.mark.parametrize(
    ("compressor", "strategy"),
    [
        (top_k(3), "shard"),
        (random_k(3), "vmap"),
        (random_gossip(0.5), "map"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_rows_are_compressed_as_one_vector_each(compressor, strategy):
    x = tree()
    with placement.using(strategy):
        found, bits = rows_of(KEY, compressor, x, event())
    fold = jax.random.fold_in
    keys = jnp.stack([fold(fold(fold(KEY, STREAM), node), 3) for node in range(5)])
    vectors = np.concatenate([np.reshape(leaf, (5, -1)) for leaf in (x["a"], x["b"], x["c"])], axis=1)
    expected, sizes = both(compressor, keys, vectors)
    # Compiled code may divide by multiplying with the inverse.
    np.testing.assert_allclose(found["a"], expected[:, :6].reshape(5, 2, 3), rtol=1e-14)
    np.testing.assert_allclose(found["b"], expected[:, 6], rtol=1e-14)
    np.testing.assert_allclose(found["c"], expected[:, 7:], rtol=1e-14)
    np.testing.assert_array_equal(np.broadcast_to(bits, 5), sizes)


def test_constant_sizes_stay_numbers_and_streams_are_apart():
    sizes = []
    for compressor in (scaled_sign(), random_gossip(0.5)):
        jax.eval_shape(lambda x, c=compressor: sizes.append(compress_rows(KEY, c, x, event())[1]), tree())
    assert isinstance(sizes[0], int)
    assert sizes[1].shape == (5,)
    ones = jax.tree.map(jnp.ones_like, tree())
    with placement.using("vmap"):
        first, later = (rows_of(KEY, random_k(3), ones, event(number))[0] for number in (0, 1))
    assert len(np.unique(first["a"], axis=0)) > 2
    assert (np.asarray(first["a"]) != later["a"]).any(axis=(1, 2)).sum() > 2


def test_leaves_of_different_types_keep_them():
    x = {"half": jnp.ones((3, 4), jnp.bfloat16), "single": jnp.ones((3, 2), jnp.float32)}
    found, bits = rows_of(KEY, identity(), x, event())
    assert {name: leaf.dtype for name, leaf in found.items()} == {name: leaf.dtype for name, leaf in x.items()}
    assert bits == 6 * 32


# Settings


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: top_k(), "give either"),
        (lambda: top_k(2, share=0.5), "give either"),
        (lambda: top_k(0), "k=0"),
        (lambda: random_k(True), "k=True"),
        (lambda: random_k(share=1.5), "share=1.5"),
        (lambda: top_k(9).omega(8), "k=9 of d=8"),
        (lambda: sign_top_k(9).omega(8), "k=9 of d=8"),
        (lambda: random_k(9).apply(KEY, jnp.ones(8)), "k=9 of d=8"),
        (lambda: random_gossip(0.0), "p=0.0"),
        (lambda: random_gossip(math.nan), "p=nan"),
        (lambda: qsgd(0), "levels=0"),
        (lambda: stc(0.0), "share=0.0"),
        (lambda: qsgd(2**23), "levels=8388608"),
        (lambda: contractive(top_k(2)), r"top_k\(k=2\) is biased"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
