"""Random perfect matchings that are drawn inside the run: a plan holds one number per round and serves all seeds.

A matching pairs node π(2k) with node π(2k + 1), where π is a random permutation. Up to :data:`EXACT` nodes, π is drawn
by sorting random numbers. In larger networks, where sorting is slow, π is a keyed bijection of 0 … n − 1: each node
finds its partner ``π(π⁻¹(v) xor 1)`` without looking at the others.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree, UInt

from gossipjax._base.arguments import whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax.timeline._memory import MOST_NODES
from gossipjax.timeline._rounds import _length, _match, _matching_facts, _numbers, round_ends
from gossipjax.types import Event, Timeline

EXACT = 1 << 14
"""Nodes up to which permutations are uniform; the bijection is biased where it has few halves to choose from."""
STEPS = 6
"""Steps of the bijection."""
Words = UInt[Array, " n"]


def _mixed(words: Words, keys: UInt[Array, " 2"]) -> Words:
    """Map words one to one to words that look independent, for each pair of keys another way (a 32-bit finalizer)."""
    words = words + keys[0]
    words = (words ^ (words >> 16)) * np.uint32(0x7FEB352D)
    words = (words ^ (words >> 15) ^ keys[1]) * np.uint32(0x846CA68B)
    return words ^ (words >> 16)


def _permuted(v: Words, keys: UInt[Array, "steps 2"], a: int, b: int, *, inverse: bool = False) -> Words:
    """Apply a bijection of 0 … a b − 1, or its inverse: alternating Feistel steps on ``v = b L + R``.

    ``L ← L + F(R) mod a`` in even steps and ``R ← R + F(L) mod b`` in odd ones.
    """
    left, right = v // np.uint32(b), v % np.uint32(b)
    for step in reversed(range(STEPS)) if inverse else range(STEPS):
        other, size = (right, np.uint32(a)) if step % 2 == 0 else (left, np.uint32(b))
        shift = _mixed(other, keys[step]) % size
        shift = size - shift if inverse else shift
        left, right = ((left + shift) % size, right) if step % 2 == 0 else (left, (right + shift) % size)
    return left * np.uint32(b) + right


def _within(v: Words, n: int, keys: UInt[Array, "steps 2"], a: int, b: int, *, inverse: bool = False) -> Words:
    """Apply the bijection of 0 … n − 1 that walks along cycles of the larger one until it comes back below n."""
    found = _permuted(v, keys, a, b, inverse=inverse)
    if a * b == n:
        return found
    return jax.lax.while_loop(
        lambda found: jnp.any(found >= n),
        lambda found: jnp.where(found >= n, _permuted(found, keys, a, b, inverse=inverse), found),
        found,
    )


def factors(n: int) -> tuple[int, int]:
    """Choose a and b, of which one is at most five times the other, with the smallest product a b ≥ n."""
    root = math.isqrt(n - 1) + 1
    choices = [(a * -(-n // a), -a, -(-n // a)) for a in range(max(2, root // 2), root + 1)]
    _, a, b = min(choices)
    return -a, b


def partners(key: Key[Array, ""], n: int) -> Int[Array, " n"]:
    """Draw a perfect matching of n nodes; the node that is left over, if n is odd, is its own partner."""
    even = n - n % 2
    if n <= EXACT:
        order = jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))
        first, second = order[0:even:2], order[1:even:2]
        return jnp.arange(n, dtype=jnp.int32).at[first].set(second).at[second].set(first)
    keys, (a, b) = jax.random.bits(key, (STEPS, 2), jnp.uint32), factors(n)
    nodes = jnp.arange(n, dtype=jnp.uint32)
    places = _within(nodes, n, keys, a, b, inverse=True)
    found = _within(jnp.where(places < even, places ^ 1, places), n, keys, a, b)
    return found.astype(jnp.int32)


def _matching(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    n = shared["num_nodes"].value
    partner = partners(jax.random.fold_in(key, x["index"]), n)
    return _match(partner, jnp.arange(n, dtype=jnp.int32), shared, x)


@recorded()
def drawn_matchings(num_nodes: int, num_rounds: int, *, seconds_per_round: float = 1.0) -> Timeline:
    """Plan rounds that average the pairs of a random perfect matching drawn inside the run.

    ``x_i ← (x_i + x_partner(i)) / 2``, as :func:`matching_rounds`, but the plan holds one number per round instead of
    n, and every seed of a run draws its own matchings. In expectation a round keeps ``(1 − 1/(n − 1)) / 2`` of the
    variance for even n, and ½ for odd n; n/2 meetings of :func:`drawn_pairs`, which may meet a node twice and another
    never, keep ``(1 − 1/(n − 1))^(n/2)``, about 0.607. If n is odd, one random node has no partner in
    each round.

    Matchings are uniform up to 16,384 nodes. In larger networks, the permutation behind them is a Feistel network of
    six steps, keyed by the run and the round: nearly uniform, and drawn without sorting.

    Args:
        num_nodes: n ≥ 1.
        num_rounds: T ≥ 1.
        seconds_per_round: simulated seconds.

    Raises:
        ValueError: if a number is out of range.
    """
    n = whole("num_nodes", num_nodes, least=1, most=MOST_NODES)
    length = _length(seconds_per_round)
    properties = _matching_facts(n, f"drawn_matchings(n={n}, seconds_per_round={seconds_per_round:g})")
    shared = {"seconds_per_round": length, "num_nodes": Frozen(n)}
    return Timeline(_numbers(num_rounds), shared, _matching, properties, seconds=round_ends)
