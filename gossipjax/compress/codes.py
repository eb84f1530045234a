"""Sizes of sparse messages: the bits that positions and values take on the wire, exactly.

Nothing is encoded. The size of a code is counted from the mask alone, in integers, so that a compiled loop can charge
every message what a real encoder would have written.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt

from gossipjax._base.arguments import callable_, instance, shown, whole, wholes
from gossipjax._base.calls import recorded

IndexCode: TypeAlias = Callable[[Bool[Array, " d"]], UInt[Array, ""]]
"""``code(mask) -> bits``: the size of the list of selected positions; a module-level function."""

_WORD = 32
_HEADER = 128
_SEED = 64


@recorded("elias1975universal", "dhasade2023decentralizepy")
def elias_gamma(mask: Bool[Array, " d"]) -> UInt[Array, ""]:
    """Count the bits of the gaps between selected indices in Elias' gamma code, behind a header of 128 bits.

    For indices i_1 < ... < i_n,

        bits = 128 + 8 ⌈L/8⌉,   L = Σ_{m=2}^{n} (2 ⌊log2(i_m - i_{m-1})⌋ + 1).

    The header holds i_1 and L, 64 bits each; a single index is the header alone. No index is the header too, with an
    i_1 that no vector has (2^64 - 1). Where every entry is selected with probability α, independently, a gap costs
    ``1 + 2 Σ_{j>=1} (1 - α)^(2^j - 1)`` bits on average.

    ``⌊log2 gap⌋`` is the number of j >= 1 with gap >= 2^j: with none selected among the 2^j - 1 positions before. So
    no gap is ever computed: the mask is packed into words and smeared over windows that double.

    Args:
        mask: which of the d coordinates are sent; d < 2^31.

    Returns:
        The bits; exact.

    Reference: Elias, "Universal codeword sets and representations of the integers", IEEE Trans. Information Theory
        21(2), 1975; the header is that of DecentralizePy (Dhasade et al. 2023, arXiv 2304.08322).
    """
    words = _packed(_checked(mask))
    selected = _ones(words)
    windows = [2**j for j in range(1, (mask.shape[0] - 1).bit_length())]
    far = jnp.zeros((), jnp.uint32)
    before = _later(words, 1)
    for window in windows:
        far = far + _ones(words & ~before)
        before = before | _later(before | words, window)
    # Before the first index there is none, at any window, and it is no gap.
    gaps = selected - 1 + 2 * (far - len(windows))
    return _HEADER + _whole_bytes(jnp.where(selected > 0, gaps, jnp.zeros_like(gaps)))


def int32_indices(mask: Bool[Array, " d"]) -> UInt[Array, ""]:
    """Count 32 bits for each selected index.

    Args:
        mask: which of the d coordinates are sent.

    Returns:
        The bits; exact for fewer than 2^27 indices.
    """
    return 32 * jnp.sum(_checked(mask), dtype=jnp.uint32)


def bitmap(mask: Bool[Array, " d"]) -> UInt[Array, ""]:
    """Count a bit for every coordinate, selected or not, in whole bytes.

    Args:
        mask: which of the d coordinates are sent.

    Returns:
        The bits.
    """
    return _whole_bytes(jnp.asarray(_checked(mask).shape[0], jnp.uint32))


def seed(mask: Bool[Array, " d"]) -> UInt[Array, ""]:
    """Count the 64 bits of a seed from which the receiver draws the same random mask.

    Args:
        mask: which of the d coordinates are sent; any.

    Returns:
        64.
    """
    _checked(mask)
    return jnp.asarray(_SEED, jnp.uint32)


def free(mask: Bool[Array, " d"]) -> UInt[Array, ""]:
    """Count nothing: the receiver knows the positions.

    Args:
        mask: which of the d coordinates are sent; any.

    Returns:
        0.
    """
    _checked(mask)
    return jnp.zeros((), jnp.uint32)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Wire:
    """How sparse messages are written. Wires of equal settings are equal and share one compiled program.

    Attributes:
        indices: the code of the positions.
        value_ratio: numerator and denominator of the size of the values under a lossless coder, per size as they are;
            (1, 1): as they are. fpzip (Lindstrom and Isenburg 2006) leaves about (37, 40) of float32 weights.
        envelope_bytes: bytes of every message besides.

    Raises:
        ValueError: a ratio that is not two positive whole numbers; a negative envelope.

    Reference: Lindstrom, Isenburg, "Fast and Efficient Compression of Floating-Point Data", IEEE Trans. Visualization
        and Computer Graphics 12(5), 2006.
    """

    indices: IndexCode = elias_gamma
    value_ratio: tuple[int, int] = (1, 1)
    envelope_bytes: int = 0

    def __post_init__(self) -> None:
        callable_("indices", self.indices, "indices(mask) -> bits, such as gossipjax.compress.codes.elias_gamma")
        remedy = "a numerator and a denominator, such as (37, 40) for 0.925"
        ratio = wholes("value_ratio", self.value_ratio, shape=(2,), least=1, remedy=remedy)
        object.__setattr__(self, "value_ratio", tuple(ratio.tolist()))
        object.__setattr__(self, "envelope_bytes", whole("envelope_bytes", self.envelope_bytes, least=0))


def as_wire(wire: Wire) -> Wire:
    """Return how messages are written.

    Raises:
        TypeError: something else.
    """
    return instance("wire", wire, Wire, "build one with gossipjax.compress.codes.Wire, such as Wire(envelope_bytes=40)")


def message_bits(wire: Wire, mask: Bool[Array, " d"], value_bits: int) -> UInt[Array, ""]:
    """Count the bits of one sparse message: positions, values in whole bytes, envelope.

        bits = indices(mask) + 8 ⌈value_bits n ratio / 8⌉ + 8 envelope_bytes,   n = Σ mask.

    Args:
        wire: how messages are written.
        mask: which of the d coordinates are sent.
        value_bits: of one value as it is: 32 for float32.

    Returns:
        The bits; exact for messages below 2^32 bits (512 MiB), whatever n, beyond modulo 2^32.

    Raises:
        ValueError: value_bits < 1, or a ratio of so many digits that the product would not fit 32 bits.
    """
    numerator, denominator = _value_bytes(wire, value_bits)
    if (numerator + 1) * denominator >= 2**31:
        raise ValueError(
            f"value_ratio={wire.value_ratio!r} at value_bits={value_bits}: {numerator}/{denominator} bytes per value "
            "cannot be multiplied in 32 bits; round the ratio to fewer digits"
        )
    count = jnp.sum(_checked(mask), dtype=jnp.uint32)
    # Groups that take whole bytes, then the rest: count * numerator itself would leave 32 bits.
    rest = (count % denominator * numerator + (denominator - 1)) // denominator
    values = count // denominator * numerator + rest
    return wire.indices(mask) + 8 * values + 8 * wire.envelope_bytes


def dense_bits(wire: Wire, d: int, value_bits: int) -> int:
    """Count the bits of a message of all d values, which needs no positions.

        bits = 8 ⌈value_bits d ratio / 8⌉ + 8 envelope_bytes.

    >>> dense_bits(Wire(), 89_834, 32) // 8
    359336

    Args:
        wire: how messages are written; its index code is not used.
        d: number of values.
        value_bits: of one value as it is: 32 for float32.

    Returns:
        The bits, a Python int.

    Raises:
        ValueError: d < 0 or value_bits < 1.
    """
    d = whole("d", d, least=0, remedy="the number of values")
    numerator, denominator = _value_bytes(wire, value_bits)
    return 8 * -(-d * numerator // denominator) + 8 * wire.envelope_bytes


def _checked(mask: Bool[Array, " d"]) -> Bool[Array, " d"]:
    """Return a mask; ValueError unless it is a vector of truth values."""
    if getattr(mask, "dtype", None) != np.bool_ or mask.ndim != 1:
        raise ValueError(f"mask={shown(mask)}: must be a vector of truth values, one for each coordinate")
    return mask


def _value_bytes(wire: Wire, value_bits: int) -> tuple[int, int]:
    """Give the bytes per value as a reduced fraction."""
    as_wire(wire)
    value_bits = whole("value_bits", value_bits, least=1, remedy="bits of one value, such as 32")
    numerator, denominator = value_bits * wire.value_ratio[0], 8 * wire.value_ratio[1]
    shared = math.gcd(numerator, denominator)
    return numerator // shared, denominator // shared


def _whole_bytes(bits: UInt[Array, ""]) -> UInt[Array, ""]:
    return (bits + 7) // 8 * 8


def _packed(mask: Bool[Array, " d"]) -> UInt[Array, " r"]:
    """Pack 32 positions into each word: bit b of word w is position b r + w, so that neighbours lie in step."""
    rows = max(1, -(-mask.shape[0] // _WORD))
    bits = jnp.pad(mask, (0, _WORD * rows - mask.shape[0])).reshape(_WORD, rows)
    places = jnp.arange(_WORD, dtype=jnp.uint32)[:, None]
    # A sum over the bits, not a chain of ORs, which XLA compiles to code several times slower.
    return jnp.sum(bits.astype(jnp.uint32) << places, axis=0, dtype=jnp.uint32)


def _later(words: UInt[Array, " r"], places: int) -> UInt[Array, " r"]:
    """Move every position on by some places < d; what leaves the end is gone."""
    bits, rest = divmod(places, words.shape[0])
    if rest:
        cut = words.shape[0] - rest
        # What leaves the last words enters the first, one bit higher.
        words = jnp.concatenate([words[cut:] << 1, words[:cut]])
    return words << bits


def _ones(words: UInt[Array, " r"]) -> UInt[Array, ""]:
    return jnp.sum(jax.lax.population_count(words), dtype=jnp.uint32)
