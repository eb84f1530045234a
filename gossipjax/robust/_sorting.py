"""Sorting a few models coordinate by coordinate."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FEW = 16
"""Models up to which a network of comparisons is used: its compilation takes longer with each."""


@functools.cache
def comparisons(number: int) -> tuple[tuple[int, int], ...]:
    """List the comparisons of Batcher's merge exchange: after each, the smaller value is in the first of two places.

    Reference: Knuth, The Art of Computer Programming, volume 3, algorithm 5.2.2M.
    """
    top = 1 << max((number - 1).bit_length() - 1, 0)
    found = []
    p = top
    while p:
        q, r, d = top, 0, p
        while True:
            found += [(i, i + d) for i in range(number - d) if i & p == r]
            if q == p:
                break
            q, r, d = q >> 1, p, q - p
        p >>= 1
    return tuple(found)


def sort_rows(values: Float[Array, "N P"]) -> Float[Array, "N P"]:
    """Sort every column; no value may be NaN.

    A network of minima and maxima of whole rows is a loop without branches: on a CPU more than ten times faster for
    nine rows. Elsewhere it was not measured, and is not used.
    """
    if len(values) > FEW or jax.default_backend() != "cpu":
        return jnp.sort(values, axis=0)
    rows = list(values)
    for low, high in comparisons(len(rows)):
        rows[low], rows[high] = jnp.minimum(rows[low], rows[high]), jnp.maximum(rows[low], rows[high])
    return jnp.stack(rows)
