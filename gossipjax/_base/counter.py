"""Exact 64-bit counters in 32-bit arithmetic, for the bits that long runs send.

A counter is a pair of uint32, high and low word. Without x64 JAX has no 64-bit integers, and float32 is exact only up
to 2²⁴.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

from gossipjax._base.arguments import whole

MOST_BITS = 1 << 32
"""Bits of a model from which messages of changing size may be too large for their counter."""
_HALF = np.uint32(0xFFFF)
_SIXTEEN = np.uint32(16)
_BLOCK = 1 << 16
"""Number of 16-bit halves whose sum fits into 32 bits."""
_FEW = 8
"""Number of terms up to which they are added one by one."""


class Counter(NamedTuple):
    """``high · 2³² + low``."""

    high: UInt[Array, "..."]
    low: UInt[Array, "..."]


def zero() -> Counter:
    """Return a counter at zero."""
    return zeros(())


def zeros(shape: tuple[int, ...]) -> Counter:
    """Return counters at zero."""
    return Counter(jnp.zeros(shape, jnp.uint32), jnp.zeros(shape, jnp.uint32))


def pack(*counters: Counter) -> UInt[Array, " w"]:
    """Pack counters into one array: a loop runs faster if it carries one small array instead of scalars."""
    return jnp.stack([word for counter in counters for word in counter])


def unpack(words: UInt[Array, " w"]) -> list[Counter]:
    """Undo :func:`pack`."""
    return [Counter(words[i], words[i + 1]) for i in range(0, words.shape[0], 2)]


def _plus(counter: Counter, high: UInt[Array, "..."], low: UInt[Array, "..."]) -> Counter:
    total = counter.low + low
    return Counter(counter.high + high + (total < low).astype(jnp.uint32), total)


def _shifted(counter: Counter, value: UInt[Array, "..."], places: int) -> Counter:
    """Add ``value · 2^places``, with places 0, 16, 32 and 48."""
    if places == 0:
        return _plus(counter, jnp.zeros_like(value), value)
    if places >= 32:
        return _plus(counter, value << np.uint32(places - 32), jnp.zeros_like(value))
    return _plus(counter, value >> np.uint32(32 - places), value << np.uint32(places))


def _add_sum(counter: Counter, values: UInt[Array, " m"], places: int) -> Counter:
    """Add ``2^places · Σ values`` exactly (modulo 2⁶⁴): sum 16-bit halves in blocks, so that no sum overflows."""
    if values.size <= _FEW:
        # Narrow events: XLA fuses scalar additions into one small kernel, but gives each reduction a separate one.
        for i in range(values.size):
            counter = _shifted(counter, values[i], places)
        return counter
    for start, half in ((0, values & _HALF), (16, values >> _SIXTEEN)):
        if places + start < 64:
            counter = _add_sum(counter, _sums_of_blocks(half), places + start)
    return counter


def _sums_of_blocks(halves: UInt[Array, " m"]) -> UInt[Array, " b"]:
    blocks = halves.size // _BLOCK
    rest = jnp.sum(halves[blocks * _BLOCK :], dtype=jnp.uint32)[None]
    if blocks == 0:
        return rest
    return jnp.append(jnp.sum(halves[: blocks * _BLOCK].reshape(blocks, _BLOCK), axis=1, dtype=jnp.uint32), rest)


def add_products(counter: Counter, a: UInt[Array, " m"], b: UInt[Array, " m"]) -> Counter:
    """Add ``Σ_m a_m b_m`` exactly (modulo 2⁶⁴).

    Each factor is split into two 16-bit halves, whose products fit into 32 bits.
    """
    for i, half_a in enumerate((a & _HALF, a >> _SIXTEEN)):
        for j, half_b in enumerate((b & _HALF, b >> _SIXTEEN)):
            counter = _add_sum(counter, half_a * half_b, 16 * (i + j))
    return counter


def add_product(counter: Counter, a: UInt[Array, " n"], b: UInt[Array, " n"]) -> Counter:
    """Add ``a b`` to each of n counters exactly (modulo 2⁶⁴)."""
    for i, half_a in enumerate((a & _HALF, a >> _SIXTEEN)):
        for j, half_b in enumerate((b & _HALF, b >> _SIXTEEN)):
            counter = _shifted(counter, half_a * half_b, 16 * (i + j))
    return counter


def add_products_at(counter: Counter, rows: Int[Array, " k"], a: UInt[Array, " k"], b: UInt[Array, " k"]) -> Counter:
    """Add ``a b`` to the counters of some of n rows exactly (modulo 2⁶⁴); rows past the end are dropped.

    A row may occur up to 2¹⁶ times.
    """
    for i, half_a in enumerate((a & _HALF, a >> _SIXTEEN)):
        for j, half_b in enumerate((b & _HALF, b >> _SIXTEEN)):
            product = half_a * half_b
            for k, digit in enumerate((product & _HALF, product >> _SIXTEEN)):
                if i + j + k < 4:
                    sums = jnp.zeros_like(counter.low).at[rows].add(digit, mode="drop")
                    counter = _shifted(counter, sums, 16 * (i + j + k))
    return counter


def plus(a: Counter, b: Counter) -> Counter:
    """Add two counters (modulo 2⁶⁴)."""
    return _plus(a, b.high, b.low)


def add_sum(counter: Counter, values: UInt[Array, " m"]) -> Counter:
    """Add ``Σ_m values_m`` exactly (modulo 2⁶⁴)."""
    return _add_sum(counter, values, 0)


def add_multiple(counter: Counter, amount: Counter, factor: int) -> Counter:
    """Add ``factor · amount`` exactly (modulo 2⁶⁴), for 0 ≤ factor < 2⁶⁴."""
    factor = whole("factor", factor, least=0, most=(1 << 64) - 1)
    digits = [half for word in (amount.low, amount.high) for half in (word & _HALF, word >> _SIXTEEN)]
    for i, digit in enumerate(digits):
        for j in range(4 - i):
            if part := factor >> 16 * j & 0xFFFF:
                counter = _shifted(counter, digit * np.uint32(part), 16 * (i + j))
    return counter


def value(counter: Counter) -> np.ndarray:
    """Return the values of counters on the host, as uint64."""
    high, low = (np.asarray(word).astype(np.uint64) for word in counter)
    return np.asarray((high << np.uint64(32)) + low)
