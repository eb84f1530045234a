"""Sampling by hash: every node computes the same sample of a round from its view, without communication."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache, partial
from typing import Any, Literal, overload

import jax
import numpy as np
from jaxtyping import Array, Bool, Int64, UInt

from gossipjax._base.arguments import choice, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.placement import on_cpu

Hashing = Literal["mix", "md5"]


def make_order(num_nodes: int, seed: int, hashing: Hashing = "mix") -> Callable[[int], Sequence[int]]:
    """Make the function ``order(k)``: all n nodes sorted by hash(node, k); ties go by the number of the node.

    ``sample(k)`` is the first s candidates of it: a uniform s-subset, independent over rounds.

    Args:
        num_nodes: n.
        seed: of the identities, on which all hashes depend.
        hashing: "mix": a finaliser of 64 bits, vectorised; "md5": ``MD5(public key + "-" + decimal(k))`` with random
            public keys of 74 bytes, as in the public code. The distribution is the same.

    Returns:
        ``order``, which caches the last rounds requested.

    Raises:
        ValueError: an unknown hashing.

    Reference: Dhasade et al. 2025, arXiv 2503.05509, algorithm 1.
    """
    choice("hashing", hashing, ("mix", "md5"))
    num_nodes, seed = whole("num_nodes", num_nodes, least=1), checked_seed(seed)
    rng = np.random.default_rng(seed)
    if hashing == "md5":
        keys = [rng.bytes(74) for _ in range(num_nodes)]
        return lru_cache(maxsize=32)(lambda k: _by_digest(keys, k))
    identities = rng.integers(0, 2**64, num_nodes, np.uint64)
    if num_nodes < MANY:
        return lru_cache(maxsize=32)(lambda k: Order(partial(_least, mixed(identities, k))))
    near = lru_cache(maxsize=4)(partial(_near, identities))

    def order(k: int) -> Order:
        return Order(partial(_first, identities, k, near, cache(partial(mixed, identities, k))))

    return lru_cache(maxsize=32)(order)


class Order(Sequence[int]):
    """Nodes in an order that is worked out as far as someone looks: most rounds read a few of many."""

    __slots__ = ("_all", "_array", "_first", "_known")

    def __init__(self, first: Callable[[int], tuple[Any, bool]]):
        """Take the function that returns the first so many nodes, or more, and whether these are all."""
        self._first, self._all = first, False
        self._known: list[int] = []
        self._array: np.ndarray | None = None

    def __len__(self) -> int:
        while not self._all:
            self._work_out(2 * len(self._known) + 1)
        return len(self._known)

    def __iter__(self) -> Iterator[int]:
        at = 0
        while True:
            self._work_out(at + 1)
            if at >= len(self._known):
                return
            for node in itertools.islice(self._known, at, None):
                at += 1
                yield node

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> list[int]: ...
    def __getitem__(self, at: int | slice) -> int | list[int]:
        if isinstance(at, slice):
            least = -1 if at.stop is None else min(at.start or 0, at.stop)
            if least < 0 or (at.step or 1) < 0:
                len(self)
            else:
                self._work_out(at.stop)
            return self._known[at]
        self._work_out(at + 1 if at >= 0 else len(self))
        return self._known[at]

    def block(self, begin: int, end: int) -> Int64[np.ndarray, " m"]:
        """Return the nodes at these places as an array."""
        self._work_out(end)
        known = self._known if self._array is None else self._array
        return np.asarray(known[begin:end], np.int64)

    def _work_out(self, count: int) -> None:
        if count > len(self._known) and not self._all:
            found, self._all = self._first(count)
            if isinstance(found, np.ndarray):
                self._array, found = found, found.tolist()
            self._known = found


_AHEAD = 64
"""The fewest nodes of an order that are worked out at once."""


def _least(hashes: UInt[np.ndarray, " n"], count: int) -> tuple[Int64[np.ndarray, " m"], bool]:
    """Return the nodes of at least ``count`` least hashes, in their order, and whether they are all."""
    # Hashes are uniform: this share of them holds almost surely as many.
    share = max(2 * _AHEAD, count + 8 * math.sqrt(count)) / hashes.size
    if share < 0.5:
        near = np.flatnonzero(hashes < np.uint64(share * 2.0**64))
        if near.size >= count:
            return near[np.argsort(hashes[near], kind="stable")], False
    return np.argsort(hashes, kind="stable"), True


MANY = 1 << 15
"""Nodes from which hashes are computed by one compiled loop, for some rounds at a time. NumPy passes over all nodes
eighteen times: a round of 100,000 takes 0.27 ms, and 0.05 ms compiled (two cores, JAX 0.10.2, 2026)."""
_ROUNDS = 16


def _near(identities: UInt[np.ndarray, " n"], block: int) -> list[Int64[np.ndarray, " m"]]:
    """Return for each round of a block the nodes of the least hashes, about twice as many as are mostly needed."""
    steps = np.array([_step(_ROUNDS * block + k) for k in range(_ROUNDS)], np.uint64)
    end = np.uint64(2 * _AHEAD / identities.size * 2.0**64)
    with jax.enable_x64(True), on_cpu():
        below = np.asarray(_below(identities, steps, end))
    return [np.flatnonzero(row) for row in below]


@jax.jit
def _below(identities: UInt[Array, " n"], steps: UInt[Array, " r"], end: UInt[Array, ""]) -> Bool[Array, "r n"]:
    """Tell whose hash lies below a number in each round."""
    return _hashes(identities[None], steps[:, None]) < end


def _first(
    identities: UInt[np.ndarray, " n"],
    k: int,
    near: Callable[[int], list[Int64[np.ndarray, " m"]]],
    hashes: Callable[[], UInt[np.ndarray, " n"]],
    count: int,
) -> tuple[Int64[np.ndarray, " m"], bool]:
    """Return the nodes of at least ``count`` least hashes of round k, as :func:`_least` does."""
    block, number = divmod(k, _ROUNDS)
    least = near(block)[number]
    if least.size < count:
        return _least(hashes(), count)
    return least[np.argsort(mixed(identities[least], k), kind="stable")], False


def _by_digest(keys: list[bytes], k: int) -> tuple[int, ...]:
    suffix = b"-%d" % k
    digests = [hashlib.md5(key + suffix, usedforsecurity=False).digest() for key in keys]
    return tuple(sorted(range(len(keys)), key=digests.__getitem__))


def mixed(identities: UInt[np.ndarray, " n"], k: int) -> UInt[np.ndarray, " n"]:
    """Hash identities and a round to 64 bits: two turns of SplitMix64's finaliser, a bijection for every k.

    Reference: Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators, figure 18.
    """
    return _hashes(identities, np.full(1, _step(k)))


_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def _step(k: int) -> np.uint64:
    return np.uint64((k + 1) * 0x9E3779B97F4A7C15 % 2**64)


def _hashes(identities: Any, step: Any) -> Any:
    """Hash arrays of NumPy or of JAX; those of NumPy are computed in place, and ``step`` is overwritten."""
    once = _finalised(identities + step)
    once ^= _finalised(step)
    return _finalised(once)


def _finalised(z: Any) -> Any:
    for shift, factor in _FACTORS:
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z


def candidates(nodes: Iterator[int]) -> Order:
    """Make an order of the nodes that an iterator yields; they are asked for one after another."""
    kept: list[int] = []

    def first(count: int) -> tuple[list[int], bool]:
        kept.extend(itertools.islice(nodes, count - len(kept)))
        return kept, len(kept) < count

    return Order(first)
