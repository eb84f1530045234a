"""Shamir's secret sharing in the field of 2³¹ − 1, many secrets at once: t shares give a secret, fewer say nothing.

A share of s is the value of a polynomial ``s + a_1 z + … + a_{t−1} z^{t−1}`` with uniform coefficients at z = 1, 2, …

Reference: Shamir 1979, How to share a secret.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

PRIME = 2**31 - 1
_HALF = 16


def _reduce(a: UInt32[Array, "*s"]) -> UInt32[Array, "*s"]:
    """Return a modulo the prime, for any 32 bits."""
    folded = (a & np.uint32(PRIME)) + (a >> np.uint32(31))
    return jnp.where(folded >= PRIME, folded - np.uint32(PRIME), folded)


def add(a: UInt32[Array, "*s"], b: UInt32[Array, "*s"]) -> UInt32[Array, "*s"]:
    """Add two elements of the field."""
    return _reduce(a + b)


def subtract(a: UInt32[Array, "*s"], b: UInt32[Array, "*s"]) -> UInt32[Array, "*s"]:
    """Subtract two elements of the field."""
    return _reduce(a + (np.uint32(PRIME) - b))


def _shift(a: UInt32[Array, "*s"]) -> UInt32[Array, "*s"]:
    """Multiply by 2¹⁶: modulo 2³¹ − 1, that rotates the 31 bits."""
    return ((a << np.uint32(_HALF)) & np.uint32(PRIME)) | (a >> np.uint32(31 - _HALF))


def multiply(a: UInt32[Array, "*s"], b: UInt32[Array, "*s"]) -> UInt32[Array, "*s"]:
    """Multiply two elements of the field, in halves of 16 bits whose products fit 32 bits."""
    low, half = np.uint32(2**_HALF - 1), np.uint32(_HALF)
    a1, a0, b1, b0 = a >> half, a & low, b >> half, b & low
    cross = _reduce(_reduce(a1 * b0) + _reduce(a0 * b1))
    return add(add(_shift(_shift(a1 * b1)), _shift(cross)), _reduce(a0 * b0))


def invert(a: UInt32[Array, "*s"]) -> UInt32[Array, "*s"]:
    """Return ``a^(p−2)``, the inverse of an element other than 0."""

    def square(step: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        power, result = carry
        bit = (np.uint32(PRIME - 2) >> step.astype(jnp.uint32)) & np.uint32(1)
        return multiply(power, power), jnp.where(bit == 1, multiply(result, power), result)

    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(31), square, (a, jnp.ones_like(a)))[1]


def shares(secrets: UInt32[Array, "*n"], coefficients: UInt32[Array, "*n c"], holders: int) -> UInt32[Array, "*n h"]:
    """Share secrets among holders 0, 1, …, who get the values at 1, 2, ….

    Args:
        secrets: elements of the field.
        coefficients: a_1 … a_c, uniform in the field; zeros at the end lower the threshold.
        holders: h.
    """
    points = jnp.broadcast_to(jnp.arange(1, holders + 1, dtype=jnp.uint32), (*secrets.shape, holders))
    value = jnp.zeros_like(points)
    for number in reversed(range(coefficients.shape[-1])):
        value = multiply(add(value, jnp.broadcast_to(coefficients[..., number, None], points.shape)), points)
    return add(value, jnp.broadcast_to(secrets[..., None], points.shape))


def weights_at_zero(chosen: Bool[Array, "n h"]) -> UInt32[Array, "n h"]:
    """Return the weights with which the shares of chosen holders add up to a secret (Lagrange); 0 for all others."""
    holders = chosen.shape[1]
    points = jnp.broadcast_to(jnp.arange(1, holders + 1, dtype=jnp.uint32), chosen.shape)
    above = below = jnp.ones(chosen.shape, jnp.uint32)
    for other in range(holders):
        point = jnp.full(chosen.shape, other + 1, jnp.uint32)
        both = chosen[:, other, None] & (points != point)
        above = jnp.where(both, multiply(above, point), above)
        below = jnp.where(both, multiply(below, subtract(point, points)), below)
    return jnp.where(chosen, multiply(above, invert(below)), jnp.uint32(0))


def reconstruct(weights: UInt32[Array, "n h"], held: UInt32[Array, "n h"]) -> UInt32[Array, " n"]:
    """Return the secrets from the shares that the weights choose."""
    total = jnp.zeros(len(held), jnp.uint32)
    for holder in range(held.shape[1]):
        total = add(total, multiply(weights[:, holder], held[:, holder]))
    return total
