"""Sampling by hash: every node computes the same sample of a round from its view, without communication."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt

from gossipjax._base.arguments import choice, whole
from gossipjax._base.arguments import seed as checked_seed

Hashing = Literal["mix", "md5"]


def make_order(num_nodes: int, seed: int, hashing: Hashing = "mix") -> Callable[[int], tuple[int, ...]]:
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
    return lru_cache(maxsize=32)(lambda k: tuple(np.argsort(mixed(identities, k), kind="stable").tolist()))


def _by_digest(keys: list[bytes], k: int) -> tuple[int, ...]:
    suffix = b"-%d" % k
    digests = [hashlib.md5(key + suffix, usedforsecurity=False).digest() for key in keys]
    return tuple(sorted(range(len(keys)), key=digests.__getitem__))


def mixed(identities: UInt[np.ndarray, " n"], k: int) -> UInt[np.ndarray, " n"]:
    """Hash identities and a round to 64 bits: two turns of SplitMix64's finaliser, a bijection for every k.

    Reference: Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators, figure 18.
    """
    step = np.uint64((k + 1) * 0x9E3779B97F4A7C15 % 2**64)
    return _finalised(_finalised(identities + step) ^ _finalised(np.full(1, step)))


def _finalised(z: UInt[np.ndarray, " n"]) -> UInt[np.ndarray, " n"]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def candidates(order: tuple[int, ...], active: Bool[np.ndarray, " n"]) -> tuple[int, ...]:
    """Keep the nodes of an order that are believed active."""
    ids = np.asarray(order)
    return tuple(ids[active[ids]].tolist())
