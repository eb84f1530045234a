"""Fixed-point words modulo 2³², masks between pairs of neighbours, and sums in which the masks cancel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from gossipjax._base.local import Local, largest
from gossipjax._base.rows import before_writing
from gossipjax.compress._compressor import STREAM, ravel_rows
from gossipjax.sharing import _shamir
from gossipjax.sharing._edges import Edges, in_reach, own_nodes
from gossipjax.types import Event, Params

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_PAIRS, _OWN, _COEFFICIENTS = STREAM, STREAM - 2, STREAM - 3
"""Streams of the seeds of pairs, of a member's own seeds, and of the polynomials that share these."""
_LIMBS = 4
"""A seed of 64 bits is shared in four parts of 16 bits: every part is an element of the field."""
HEADROOM = 2**20
"""Steps of the fixed point that stay free below 2³¹, for the rounding of weights and values of thousands of nodes."""


def vectors_of(x: Params) -> Float[Array, "n d"]:
    """Return flat models in a dtype with at least 24 bits of precision."""
    vectors = ravel_rows(x)
    return vectors if vectors.dtype.itemsize >= 4 else vectors.astype(jnp.float32)


def fixed_point(
    fraction_bits: int, weights: Float[Array, "n s"], vectors: Float[Array, "n d"]
) -> UInt32[Array, "n s d"]:
    """Return ``rint(2^f W_ij x_j)`` modulo 2³², for each sender j and each of its receivers i.

    The product is rounded once to the float type of the models, and once to a whole number. Values must be in range:
    conversion to integers saturates.
    """
    scaled = weights.astype(vectors.dtype)[..., None] * vectors[:, None]
    whole_numbers = jnp.rint(scaled * 2.0**fraction_bits).astype(jnp.int32)
    return jax.lax.bitcast_convert_type(whole_numbers, jnp.uint32)


def decode(fraction_bits: int, total: UInt32[Array, "n d"], like: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Return the number that a sum of :func:`fixed_point` stands for, in the float type of ``like``."""
    return jax.lax.bitcast_convert_type(total, jnp.int32).astype(like.dtype) * 2.0**-fraction_bits


def rounded(products: Float[Array, "n d"], never: Bool[Array, ""]) -> Float[Array, "n d"]:
    """Return products as they are, each rounded once, in every compiled program.

    A compiler may fuse a product and a sum into one operation with one rounding, and do so in one program and not in
    another; an optimization barrier does not keep XLA's CPU compiler from it. Here it would have to know that ``never``
    is false, which flips the last bits.
    """
    kind = jnp.dtype(f"uint{8 * products.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(products, kind) ^ never.astype(kind)
    return jax.lax.bitcast_convert_type(bits, products.dtype)


def in_range(
    fraction_bits: int, weights: Float[Array, "n s"], vectors: Float[Array, "n d"], local: Local | None
) -> Bool[Array, " n"]:
    """Return whether no sum of a neighbourhood can overflow if all its members pass: a check that each makes alone."""
    heaviest = largest(local, jnp.max(jnp.sum(jnp.abs(weights), axis=1), initial=1.0)).astype(vectors.dtype)
    most = (2.0**31 - HEADROOM) / 2.0**fraction_bits / heaviest
    return jnp.all(jnp.abs(vectors) <= most, axis=1)


def neighborhood_sum(
    event: Event, edges: Edges, heard: Bool[Array, "n s"], words: UInt32[Array, "n s d"]
) -> UInt32[Array, "n d"]:
    """Add up, modulo 2³², what each node receives."""
    total = jnp.zeros((words.shape[0], words.shape[2]), jnp.uint32)
    everyone, place = in_reach(event, words)
    for k in range(edges.neighbors.shape[1]):
        neighbors = edges.neighbors[:, k]
        arrived = everyone[neighbors if place is None else place[neighbors], edges.reverse[:, k]]
        total = total + jnp.where(heard[:, k, None], arrived, jnp.uint32(0))
    return total


def _pairs(edges: Edges) -> Int[Array, "p 2"]:
    """List all pairs of positions among the neighbours of a node."""
    return jnp.asarray(np.stack(np.triu_indices(edges.neighbors.shape[1], 1), axis=1), jnp.int32)


def threefry(seed: UInt32[Array, "2"], first: UInt32[Array, " h"], second: UInt32[Array, " h"]) -> tuple[Array, Array]:
    """Encrypt counters with Threefry-2x32 and return both words of each.

    Its 20 rounds are written out: on a CPU, JAX's loop takes 2.5 times as long.

    Reference: Salmon, Moraes, Dror, Shaw 2011, Parallel random numbers: as easy as 1, 2, 3.
    """
    schedule = seed[0], seed[1], seed[0] ^ seed[1] ^ np.uint32(_PARITY)
    a, b = first + schedule[0], second + schedule[1]
    for step in range(5):
        for places in _ROTATIONS[step % 2]:
            a = a + b
            b = a ^ ((b << np.uint32(places)) | (b >> np.uint32(32 - places)))
        a, b = a + schedule[(step + 1) % 3], b + schedule[(step + 2) % 3] + np.uint32(step + 1)
    return a, b


def stream(key: Key[Array, ""], number: int) -> Key[Array, ""]:
    """Return the key of one use of random numbers by this sharing."""
    return jax.random.fold_in(jax.random.fold_in(key, STREAM), number)


def fold(key: Key[Array, ""], *numbers: Array) -> Key[Array, ""]:
    """Fold several numbers into a key, in order."""
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def expand_seed(seed: UInt32[Array, "2"], d: int) -> UInt32[Array, " d"]:
    """Expand a seed to d uniform words."""
    counters = jnp.arange(-(-d // 2), dtype=jnp.uint32)
    return jnp.concatenate(threefry(seed, counters, jnp.zeros_like(counters)))[:d]


def _pair_words(key: Key[Array, ""], edges: Edges, event: Event, pair: Int[Array, "2"], d: int) -> UInt32[Array, "n d"]:
    """Expand, at each receiver, the seed that two of its neighbours share for this round; 0 where one is padding."""
    masks = stream(key, _PAIRS)
    low, high = (jax.lax.dynamic_index_in_dim(edges.neighbors, place, 1, keepdims=False) for place in pair)
    # Neighbours stand in front of the padding: where the second is one, so is the first.
    both = jax.lax.dynamic_index_in_dim(edges.present, pair[1], 1)

    def expand(low: Int[Array, ""], high: Int[Array, ""], receiver: Int[Array, ""]) -> UInt32[Array, " d"]:
        seed = fold(masks, low, high, receiver, event.index[0])
        return expand_seed(jax.random.bits(seed, (2,), jnp.uint32), d)

    receivers = own_nodes(edges, event.local)
    # Without the branch, XLA expands the seeds again wherever the words are used.
    words = before_writing(
        jnp.any(both), lambda: jax.vmap(expand)(low, high, receivers), lambda: jnp.zeros((len(low), d), jnp.uint32)
    )
    return jnp.where(both, words, jnp.uint32(0))


def pairwise_masks(key: Key[Array, ""], edges: Edges, event: Event, d: int) -> UInt32[Array, "s n d"]:
    """Return the mask of the k-th neighbour of each receiver; over the neighbours of a receiver they sum to 0."""

    def add(masks: UInt32[Array, "s n d"], pair: Int[Array, "2"]) -> tuple[UInt32[Array, "s n d"], None]:
        words = _pair_words(key, edges, event, pair, d)
        # Updates with dynamic_update_index_in_dim copy all masks, and take three times as long on a CPU.
        masks = masks.at[pair[0]].add(words, mode="promise_in_bounds")
        return masks.at[pair[1]].add(-words, mode="promise_in_bounds"), None

    (n, s), pairs = edges.neighbors.shape, _pairs(edges)
    start = jnp.zeros((s, n, d), jnp.uint32)
    return jax.lax.scan(add, start, pairs)[0] if len(pairs) else start


def without_stray_masks(
    key: Key[Array, ""],
    edges: Edges,
    event: Event,
    heard: Bool[Array, "n s"],
    recovers: Bool[Array, " n"],
    total: UInt32[Array, "n d"],
) -> UInt32[Array, "n d"]:
    """Remove the masks between a neighbour that is heard and one that is lost, at the nodes that have their seeds."""

    def remove(total: UInt32[Array, "n d"], pair: Int[Array, "2"]) -> tuple[UInt32[Array, "n d"], None]:
        low, high = (jax.lax.dynamic_index_in_dim(heard, place, 1) for place in pair)
        stray = (low != high) & recovers[:, None]

        def removed() -> UInt32[Array, "n d"]:
            words = _pair_words(key, edges, event, pair, total.shape[1])
            return total - jnp.where(stray, jnp.where(low, words, -words), jnp.uint32(0))

        return jax.lax.cond(jnp.any(stray), removed, lambda: total), None

    pairs = _pairs(edges)
    return jax.lax.scan(remove, total, pairs)[0] if len(pairs) else total


# The second mask: a member's own


def _lane(edges: Edges, lane: Int[Array, ""]) -> tuple[Int[Array, " n"], Bool[Array, "n 1"]]:
    """Return the member in one lane of each receiver, and whether there is one."""
    members = jax.lax.dynamic_index_in_dim(edges.neighbors, lane, 1, keepdims=False)
    return members, jax.lax.dynamic_index_in_dim(edges.present, lane, 1)


def _each_member(key: Key[Array, ""], number: int, event: Event, members: Int[Array, " n"]) -> Key[Array, " n"]:
    """Derive one key for the member in a lane of each receiver, of this round."""
    receivers = jnp.arange(len(members), dtype=jnp.int32) if event.local is None else event.local.ids
    one = stream(key, number)
    return jax.vmap(lambda member, receiver: fold(one, member, receiver, event.index[0]))(members, receivers)


def own_seeds(key: Key[Array, ""], event: Event, members: Int[Array, " n"]) -> UInt32[Array, "n 2"]:
    """Draw the seed of the own mask of the member in a lane of each receiver."""
    keys = _each_member(key, _OWN, event, members)
    return jax.vmap(lambda each: jax.random.bits(each, (2,), jnp.uint32))(keys)


def with_own_masks(
    key: Key[Array, ""], edges: Edges, event: Event, masks: UInt32[Array, "s n d"]
) -> UInt32[Array, "s n d"]:
    """Add to the mask of each member that of its own seed, which only shares of the others can remove."""
    d = masks.shape[2]

    def add(masks: UInt32[Array, "s n d"], lane: Int[Array, ""]) -> tuple[UInt32[Array, "s n d"], None]:
        members, there = _lane(edges, lane)
        words = jax.vmap(lambda seed: expand_seed(seed, d))(own_seeds(key, event, members))
        return masks.at[lane].add(jnp.where(there, words, jnp.uint32(0)), mode="promise_in_bounds"), None

    return jax.lax.scan(add, masks, jnp.arange(len(masks), dtype=jnp.int32))[0] if len(masks) else masks


def seed_shares(
    key: Key[Array, ""], edges: Edges, event: Event, thresholds: Int[Array, " n"], members: Int[Array, " n"]
) -> UInt32[Array, "n h 4"]:
    """Share the seed of the member in a lane of each receiver among all members, any t of whom can reconstruct it."""
    holders = edges.neighbors.shape[1]
    seeds = own_seeds(key, event, members)
    limbs = jnp.stack([seeds & np.uint32(0xFFFF), seeds >> np.uint32(16)], axis=-1).reshape(len(seeds), _LIMBS)
    keys = _each_member(key, _COEFFICIENTS, event, members)
    drawn = jax.vmap(lambda each: jax.random.bits(each, (_LIMBS, holders - 1), jnp.uint32))(keys)
    degree = jnp.arange(1, holders, dtype=jnp.int32)[None]
    live = (degree < thresholds[:, None])[:, None]
    coefficients = jnp.where(live, drawn % np.uint32(_shamir.PRIME), jnp.uint32(0))
    return jnp.moveaxis(_shamir.shares(limbs, coefficients, holders), 1, 2)


def _joined(limbs: UInt32[Array, "n 4"]) -> UInt32[Array, "n 2"]:
    return limbs[:, ::2] | (limbs[:, 1::2] << np.uint32(16))


def first_holders(heard: Bool[Array, "n s"], thresholds: Int[Array, " n"]) -> Bool[Array, "n s"]:
    """Choose the first t members that are heard."""
    return heard & (jnp.cumsum(heard, axis=1, dtype=jnp.int32) <= thresholds[:, None])


def without_own_masks(
    key: Key[Array, ""],
    edges: Edges,
    event: Event,
    heard: Bool[Array, "n s"],
    thresholds: Int[Array, " n"],
    total: UInt32[Array, "n d"],
) -> UInt32[Array, "n d"]:
    """Reconstruct the seeds of the members that are heard, from the shares of t of them, and remove their masks."""
    weights = _shamir.weights_at_zero(first_holders(heard, thresholds))

    def remove(total: UInt32[Array, "n d"], lane: Int[Array, ""]) -> tuple[UInt32[Array, "n d"], None]:
        members, _ = _lane(edges, lane)
        held = seed_shares(key, edges, event, thresholds, members)
        seeds = _joined(jnp.stack([_shamir.reconstruct(weights, held[..., limb]) for limb in range(_LIMBS)], axis=1))
        words = jax.vmap(lambda seed: expand_seed(seed, total.shape[1]))(seeds)
        arrived = jax.lax.dynamic_index_in_dim(heard, lane, 1)
        return total - jnp.where(arrived, words, jnp.uint32(0)), None

    lanes = jnp.arange(edges.neighbors.shape[1], dtype=jnp.int32)
    return jax.lax.scan(remove, total, lanes)[0] if len(lanes) else total
