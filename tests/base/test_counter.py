"""Exact counts against Python integers."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax._base import counter
from gossipjax._base.counter import Counter

WORD = st.integers(0, 2**32 - 1)
LARGE = st.sampled_from([0, 1, 2**16 - 1, 2**16, 2**31, 2**32 - 1]) | WORD

add = jax.jit(counter.add_products)


def as_words(values):
    return jnp.asarray(np.asarray(values, np.uint32))


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([1, 5]).flatmap(lambda m: st.lists(st.tuples(LARGE, LARGE), min_size=m, max_size=m)),
    st.integers(0, 2**64 - 1),
)
def test_products_are_exact_modulo_2_64(pairs, before):
    a, b = zip(*pairs, strict=True)
    start = Counter(as_words(before >> 32), as_words(before % 2**32))
    expected = (before + sum(x * y for x, y in pairs)) % 2**64
    assert int(counter.value(add(start, as_words(a), as_words(b)))) == expected


def test_many_carries_beyond_32_bits():
    """A thousand events of 40 Gbit each: sums that neither uint32 nor float32 can hold."""
    bits, messages = as_words([2**32 - 1] * 10), as_words([1] * 10)
    total = jax.lax.fori_loop(0, 1000, lambda _, c: counter.add_products(c, bits, messages), counter.zero())
    assert int(counter.value(total)) == 1000 * 10 * (2**32 - 1)


@pytest.mark.parametrize("size", [(1 << 16) - 1, 1 << 16, (1 << 16) + 3, 9 << 16, (9 << 16) + 1])
def test_wide_events_are_summed_in_blocks(size):
    """The largest values, so that a block of one more would wrap around; nine blocks are summed once more."""
    values = as_words(np.full(size, 2**32 - 1))
    assert int(counter.value(add(counter.zero(), values, as_words(np.full(size, 7))))) == size * (2**32 - 1) * 7


def test_an_event_of_a_hundred_million_terms():
    """More than 2^24 of them, where sums of bytes would wrap around as well."""
    terms = jnp.full(100_000_000, 250, jnp.uint8)

    def total(terms):
        return counter.add_sum(counter.zero(), terms.astype(jnp.uint32))

    assert int(counter.value(jax.jit(total)(terms))) == 250 * 100_000_000


def test_values_of_a_batch():
    batch = Counter(np.asarray([0, 1], np.uint32), np.asarray([5, 7], np.uint32))
    np.testing.assert_array_equal(counter.value(batch), np.asarray([5, 2**32 + 7], np.uint64))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 2**64 - 1))
def test_multiples_are_exact(start, amount, factor):
    start_words, amount_words = (Counter(as_words(v >> 32), as_words(v % 2**32)) for v in (start, amount))
    made = counter.add_multiple(start_words, amount_words, factor)
    assert int(counter.value(made)) == (start + amount * factor) % 2**64
    assert int(counter.value(counter.plus(start_words, amount_words))) == (start + amount) % 2**64


def test_sums_are_exact_and_factors_bounded():
    values = jnp.full(70_000, 0xFFFFFFFF, jnp.uint32)
    assert int(counter.value(counter.add_sum(counter.zero(), values))) == 70_000 * 0xFFFFFFFF
    for factor in (1 << 64, -1, 1.5):
        with pytest.raises(ValueError, match="factor="):
            inspect.unwrap(counter.add_multiple)(counter.zero(), counter.zero(), factor)
