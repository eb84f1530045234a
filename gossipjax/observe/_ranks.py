"""Statistics of the staleness of many pairs, without sorting them or writing them out.

The entries of :data:`gossipjax.observe.STATISTICS` are those of ``jnp.nanmean``, ``nanmin``, ``nanmax`` and
``nanquantile``. Quantiles of integers are found by counting: every pass over the pairs counts those that are at most as
stale as each of a few thresholds, which narrows the range of every quantile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

PROBABILITIES = (0.1, 0.5, 0.9)
BLOCK = 2048
"""Pairs that a CPU compares at once; XLA would write out the comparisons of a long vector before it sums them."""
_MOST = np.iinfo(np.int32).max


class Pairs(NamedTuple):
    """Staleness ``own − held`` of every row and source; those of a source and its own row do not count."""

    held: Int[Array, "rows s"]
    own: Int[Array, " s"]
    sources: Int[Array, " s"]
    """The row of each source; −1 if all its pairs count."""


class _Extent(NamedTuple):
    """Smallest, largest and total staleness, of every source or of every lane of a block."""

    least: Int[Array, "..."]
    most: Int[Array, "..."]
    total: Float[Array, "..."]


class _Lanes(NamedTuple):
    """What the entries of a block of whole rows have in common with those of all other blocks."""

    blocks: Int[Array, "b lanes"]
    own: Int[Array, " lanes"]
    source: Int[Array, " lanes"]
    row: Int[Array, " lanes"]
    """Row of each entry in the first block."""
    rows: int
    """Rows in a block."""


def statistics(pairs: Pairs) -> tuple[Float[Array, " statistic"], Int[Array, " s"]]:
    """Return the statistics over all pairs that count, and the largest staleness of each source (0 if none counts)."""
    lanes, rest = _cut(pairs)
    extent = _extent(rest)
    if lanes is not None:
        extent = _joined(extent, _extent_of_lanes(lanes, len(pairs.own)))
    kind = extent.total.dtype
    number = pairs.held.size - jnp.sum(pairs.sources >= 0, dtype=jnp.int32)
    least, most, counted = jnp.min(extent.least), jnp.max(extent.most), number.astype(kind)
    # Interpolate between the pairs beside the rank q (number − 1), in the arithmetic of jnp.nanquantile.
    rank = jnp.asarray(PROBABILITIES, kind) * (counted - 1)
    below, above = jnp.floor(rank), jnp.ceil(rank)
    ranks = jnp.clip(jnp.concatenate([below, above]), 0, counted - 1).astype(jnp.int32)
    low, high = _of_rank(Partial(_at_most, pairs, lanes, rest), ranks, least, most).reshape(2, -1).astype(kind)
    quantiles = low * (1 - (rank - below)) + high * (rank - below)
    values = jnp.stack([jnp.sum(extent.total) / counted, least.astype(kind), most.astype(kind)])
    return jnp.where(number > 0, jnp.concatenate([values, quantiles]), jnp.nan), extent.most


def _cut(pairs: Pairs) -> tuple[_Lanes | None, Pairs]:
    """Cut the rows into blocks, and the rest; all is rest unless a CPU reads many rows."""
    n, s = pairs.held.shape
    w = max(1, BLOCK // s)
    b = n // w
    if jax.default_backend() != "cpu" or b < 2:
        return None, pairs
    rest = Pairs(pairs.held[b * w :], pairs.own, jnp.where(pairs.sources < b * w, -1, pairs.sources - b * w))
    row = jnp.repeat(jnp.arange(w, dtype=jnp.int32), s)
    blocks = pairs.held[: b * w].reshape(b, w * s)
    return _Lanes(blocks, jnp.tile(pairs.own, w), jnp.tile(pairs.sources, w), row, w), rest


def _extent(pairs: Pairs) -> _Extent:
    stale, counts = pairs.own[None] - pairs.held, _that_count(pairs)
    kept = jnp.where(counts, stale, 0)
    least = jnp.min(jnp.where(counts, stale, _MOST), axis=0, initial=_MOST)
    return _Extent(least, jnp.max(kept, axis=0, initial=0), jnp.sum(kept.astype(jnp.result_type(float)), axis=0))


def _that_count(pairs: Pairs) -> Bool[Array, "rows s"]:
    return jnp.arange(pairs.held.shape[0], dtype=jnp.int32)[:, None] != pairs.sources[None]


def _extent_of_lanes(lanes: _Lanes, s: int) -> _Extent:
    """Return the extent by source, after one pass over the blocks with a running extent of every lane."""
    shape, kind = lanes.own.shape, jnp.result_type(float)

    def add(i: Array, extent: _Extent) -> _Extent:
        stale = lanes.own - jax.lax.dynamic_index_in_dim(lanes.blocks, i, keepdims=False)
        counts = lanes.row + i * lanes.rows != lanes.source
        kept = jnp.where(counts, stale, 0)
        return _Extent(
            jnp.minimum(extent.least, jnp.where(counts, stale, _MOST)),
            jnp.maximum(extent.most, kept),
            extent.total + kept.astype(kind),
        )

    start = _Extent(jnp.full(shape, _MOST, jnp.int32), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, kind))
    done = jax.lax.fori_loop(0, lanes.blocks.shape[0], add, start)
    least, most, total = (leaf.reshape(-1, s) for leaf in done)
    return _Extent(jnp.min(least, axis=0), jnp.max(most, axis=0), jnp.sum(total, axis=0))


def _joined(one: _Extent, other: _Extent) -> _Extent:
    return _Extent(jnp.minimum(one.least, other.least), jnp.maximum(one.most, other.most), one.total + other.total)


def _of_rank(
    at_most: Callable[[Array], Array], ranks: Int[Array, " r"], least: Int[Array, ""], most: Int[Array, ""]
) -> Int[Array, " r"]:
    """Return the smallest t such that more pairs than the rank are stale by at most t, for every rank.

    Args:
        at_most: counts the pairs that are stale by at most each of some thresholds.
        ranks: of pairs in the order of their staleness, from 0.
        least: smallest staleness.
        most: largest staleness.
    """

    def narrow(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        thresholds = _spread(low, high)
        enough = at_most(thresholds)[None] > ranks[:, None]
        return (
            jnp.maximum(low, jnp.max(jnp.where(enough, 0, thresholds[None] + 1), axis=1)),
            jnp.minimum(high, jnp.min(jnp.where(enough, thresholds[None], _MOST), axis=1)),
        )

    start = jnp.broadcast_to(least, ranks.shape), jnp.broadcast_to(most, ranks.shape)
    return jax.lax.while_loop(lambda bounds: jnp.any(bounds[0] < bounds[1]), narrow, start)[0]


def _spread(low: Int[Array, " r"], high: Int[Array, " r"]) -> Int[Array, " r"]:
    """Put a threshold into each range ``low … high − 1``. They interleave, so that equal ranges are divided evenly."""
    r = low.shape[0]
    places = jnp.arange(1, r + 1, dtype=jnp.int32)
    whole, part = jnp.divmod(high - low, r + 1)  # the product of a range and a place might overflow
    return low + whole * places + part * places // (r + 1)


def _at_most(pairs: Pairs, lanes: _Lanes | None, rest: Pairs, thresholds: Int[Array, " t"]) -> Int[Array, " t"]:
    """Count the pairs whose staleness is at most each threshold."""
    counts = _count(rest.own[None] - rest.held, thresholds)
    if lanes is not None:
        counts += _count_lanes(lanes, thresholds)
    at = jnp.maximum(pairs.sources, 0), jnp.arange(len(pairs.own), dtype=jnp.int32)
    mine = jnp.where(pairs.sources < 0, _MOST, pairs.own - pairs.held[at])
    return counts - _count(mine, thresholds)


def _count(stale: Int[Array, "..."], thresholds: Int[Array, " t"]) -> Int[Array, " t"]:
    return jnp.sum(stale.ravel()[None] <= thresholds[:, None], axis=1, dtype=jnp.int32)


def _count_lanes(lanes: _Lanes, thresholds: Int[Array, " t"]) -> Int[Array, " t"]:
    newest = lanes.own[None] - thresholds[:, None]  # stale by at most t: holds at least own − t

    def add(i: Array, counts: Array) -> Array:
        held = jax.lax.dynamic_index_in_dim(lanes.blocks, i, keepdims=False)
        return counts + (held[None] >= newest).astype(jnp.int32)

    counts = jax.lax.fori_loop(0, lanes.blocks.shape[0], add, jnp.zeros(newest.shape, jnp.int32))
    return jnp.sum(counts, axis=1, dtype=jnp.int32)
