"""Linear algebra modulo a prime: which fractions are exactly equal, where float64 only knows which are nearly so.

Ranks modulo a prime p are those of fractions unless p divides a minor of the matrix. Decisions here are about numbers
that do not know p, and fail with a probability near ``1/p``, below 1e-9 each.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float64, Int64

PRIME = 2147483629
"""2³¹ − 19: products of two residues fit into int64. Powers of 1/2 do not repeat early, as modulo 2³¹ − 1."""
_HALF, _CHUNK = 1 << 16, 64
"""Sums of 64 products of 16 and 31 bits are exact in float64."""


def residue(value: Fraction) -> int:
    """Return a fraction modulo the prime."""
    return value.numerator * pow(value.denominator, -1, PRIME) % PRIME


def product(A: Int64[np.ndarray, "m k"], B: Int64[np.ndarray, "k n"]) -> Int64[np.ndarray, "m n"]:
    """Multiply matrices of residues, by multiplications of floats that are exact."""
    total = np.zeros((A.shape[0], B.shape[1]), np.int64)
    high, low = (part.astype(np.float64) for part in (A // _HALF, A % _HALF))
    right = B.astype(np.float64)
    for start in range(0, A.shape[1], _CHUNK):
        part = slice(start, start + _CHUNK)
        upper, lower = ((left[:, part] @ right[part]).astype(np.int64) % PRIME for left in (high, low))
        total = (total + upper * _HALF + lower) % PRIME
    return total


def rank(A: Int64[np.ndarray, "r k"]) -> int:
    """Return the rank of a matrix of residues."""
    return len(_eliminated(_squeezed(_squeezed(A).T.copy()), above=False)[1])


def determined(A: Int64[np.ndarray, "r k"]) -> tuple[int, Bool[np.ndarray, " k"]]:
    """Return the rank, and whether the unit vector of each column lies in the row space."""
    A, pivots = _eliminated(_squeezed(A), above=True)
    rows, columns = np.asarray(pivots, np.int64).reshape(-1, 2).T
    free = np.ones(A.shape[1], bool)
    free[columns] = False
    sure = np.zeros(A.shape[1], bool)
    sure[columns] = ~np.any(A[rows][:, free], axis=1)
    return len(pivots), sure


def _squeezed(A: Int64[np.ndarray, "r k"]) -> Int64[np.ndarray, "s k"]:
    """Replace more rows than columns by as many random combinations as there are columns."""
    r, k = A.shape
    if r <= k:
        return A.astype(np.int64)
    return product(np.random.default_rng(r).integers(1, PRIME, (k, r)), A.astype(np.int64))


def _eliminated(A: Int64[np.ndarray, "r k"], above: bool) -> tuple[Int64[np.ndarray, "r k"], list[tuple[int, int]]]:
    """Eliminate the leading entry of each row from the rows below it, or from all others; return pivots."""
    pivots = []
    for i in range(len(A)):
        there = np.flatnonzero(A[i])
        if not there.size:
            continue
        c = int(there[0])
        pivots.append((i, c))
        A[i] = A[i] * pow(int(A[i, c]), -1, PRIME) % PRIME
        first = 0 if above else i + 1
        live = first + np.flatnonzero(A[first:, c])
        live = live[live != i]
        A[live] = (A[live] - A[live, c, None] * A[i]) % PRIME
    return A, pivots


def residues_of(values: Float64[np.ndarray, "..."], fraction: dict[float, Fraction]) -> Int64[np.ndarray, "..."]:
    """Look up the fractions of numbers, modulo the prime."""
    distinct, place = np.unique(values, return_inverse=True)
    found = np.asarray([residue(fraction[value]) for value in distinct.tolist()], np.int64)
    return found[place].reshape(values.shape)
