"""Statistics of staleness by counting, against sorting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax.observe._models import percentiles
from gossipjax.observe._ranks import BLOCK, Pairs, statistics

by_counting, by_sorting = jax.jit(statistics), jax.jit(percentiles)


def both(pairs):
    """The statistics by counting, and by sorting all pairs that count."""
    stale = np.array(pairs.own[None] - pairs.held)
    counts = np.arange(stale.shape[0])[:, None] != np.asarray(pairs.sources)[None]
    expected = by_sorting(jnp.asarray(np.where(counts, stale, np.nan).ravel()))
    return by_counting(pairs), (expected, np.where(counts, stale, 0).max(axis=0, initial=0))


def drawn(seed, rows, s, most, sources):
    rng = np.random.default_rng(seed)
    held = most - np.minimum(most, rng.geometric(min(1.0, 4 / (most + 1)), (rows, s)) - 1)
    return Pairs(*(jnp.asarray(x, jnp.int32) for x in (held, np.full(s, most), sources)))


@pytest.mark.parametrize("most", [0, 1, 40, 2**31 - 2])
@pytest.mark.parametrize("sources", [[-1, -1, -1], [0, 700, 3100]])
def test_blocks_and_rest(most, sources):
    """More rows than blocks of a CPU hold, with a source in the first block, in another, and in the rest."""
    pairs = drawn(0, 3200, 3, most, sources)
    assert 3200 * 3 > 2 * BLOCK
    assert 3100 >= 3200 // (BLOCK // 3) * (BLOCK // 3)
    (found, holders), (expected, largest) = both(pairs)
    np.testing.assert_array_equal(found[1:], expected[1:])
    # The order of summation differs; the sum of 9,600 float64 rounds by less than 1e-12 of itself.
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    np.testing.assert_array_equal(holders, largest)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (5, 3)]), st.integers(0, 30), st.booleans())
def test_few_rows(seed, shape, most, nodes):
    rows, s = shape
    sources = np.random.default_rng(seed).integers(0, rows, s) if nodes else np.full(s, -1)
    (found, holders), (expected, largest) = both(drawn(seed, rows, s, most, sources))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(holders, largest)
