"""Exact sizes of sparse messages: the bits of positions and values on the wire.

Nothing is encoded. The size of a code is computed from the mask alone, in integers, so that a compiled loop can charge
every message the bits that a real encoder would write.
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

from gossipjax._base.arguments import callable_, instance, real, shown, whole, wholes
from gossipjax._base.calls import recorded

IndexCode: TypeAlias = Callable[[Bool[Array, " d"]], UInt[Array, ""]]
"""``code(mask) -> bits``, the size of the list of selected positions; must be a module-level function."""

_WORD = 32
_HEADER = 128
_SEED = 64


@recorded("elias1975universal", "dhasade2023decentralizepy")
def elias_gamma(mask: Bool[Array, " d"]) -> UInt[Array, ""]:
    """Count the bits of the Elias gamma code of the gaps between selected indices, after a header of 128 bits.

    For indices i_1 < ... < i_n,

        bits = 128 + 8 ⌈L/8⌉,   L = Σ_{m=2}^{n} (2 ⌊log2(i_m - i_{m-1})⌋ + 1).

    The header holds i_1 and L, 64 bits each; a single index needs the header only. So does an empty mask, whose i_1 is
    2^64 - 1, an impossible index. If every entry is selected independently with probability α, a gap costs
    ``1 + 2 Σ_{j>=1} (1 - α)^(2^j - 1)`` bits on average.

    ``⌊log2 gap⌋`` is the number of j >= 1 with gap >= 2^j, that is, with none of the 2^j - 1 positions before selected.
    So no gap is computed: the mask is packed into words, and each bit is spread over windows of doubling length.

    Args:
        mask: which of the d coordinates are sent; d < 2^31.

    Returns:
        The exact number of bits.

    Reference: Elias, "Universal codeword sets and representations of the integers", IEEE Trans. Information Theory
        21(2), 1975; the header is that of DecentralizePy (Dhasade et al. 2023, arXiv 2304.08322).
    """
    words = _pack(_as_mask(mask))
    selected = _popcount(words)
    windows = [2**j for j in range(1, (mask.shape[0] - 1).bit_length())]
    far = jnp.zeros((), jnp.uint32)
    before = _shift(words, 1)
    for window in windows:
        far = far + _popcount(words & ~before)
        before = before | _shift(before | words, window)
    # The first index is not a gap, but has none before it in any window: subtract its contribution.
    gaps = selected - 1 + 2 * (far - len(windows))
    return _HEADER + _whole_bytes(jnp.where(selected > 0, gaps, jnp.zeros_like(gaps)))


def int32_indices(mask: Bool[Array, " d"]) -> UInt[Array, ""]:
    """Count 32 bits for each selected index.

    Args:
        mask: which of the d coordinates are sent.

    Returns:
        The bits; exact for fewer than 2^27 indices.
    """
    return 32 * jnp.sum(_as_mask(mask), dtype=jnp.uint32)


def bitmap(mask: Bool[Array, " d"]) -> UInt[Array, ""]:
    """Count one bit for every coordinate, selected or not, rounded up to whole bytes.

    Args:
        mask: which of the d coordinates are sent.

    Returns:
        The bits.
    """
    return _whole_bytes(jnp.asarray(_as_mask(mask).shape[0], jnp.uint32))


def seed(mask: Bool[Array, " d"]) -> UInt[Array, ""]:
    """Count 64 bits for a seed from which the receiver draws the same random mask.

    Args:
        mask: which of the d coordinates are sent; not used.

    Returns:
        64.
    """
    _as_mask(mask)
    return jnp.asarray(_SEED, jnp.uint32)


def free(mask: Bool[Array, " d"]) -> UInt[Array, ""]:
    """Count 0 bits: the receiver knows the positions.

    Args:
        mask: which of the d coordinates are sent; not used.

    Returns:
        0.
    """
    _as_mask(mask)
    return jnp.zeros((), jnp.uint32)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Golomb:
    """The Golomb code of the gaps between selected indices, for a share of them that sender and receiver know.

    For indices ``i_1 < ... < i_n``, counted from 0, and ``i_0 = -1``, a gap ``g_m = i_m - i_{m-1}`` is sent as the
    quotient of ``g_m - 1`` by ``2^b`` in unary, and the rest in b bits:

        bits = n (b + 1) + Σ_m ⌊(g_m - 1) / 2^b⌋,   b = 1 + ⌊log2(log(φ - 1) / log(1 - p))⌋ ≥ 0,   φ = (1 + √5)/2.

    If every entry is selected independently with probability p, a gap costs ``b + 1/(1 - (1 - p)^(2^b))`` bits on
    average, and no other b costs less. There is no header: the receiver knows n and b. Instances are codes like
    :func:`elias_gamma`; two of one share are equal.

    >>> import jax.numpy as jnp
    >>> code = Golomb(0.25)
    >>> code.b, int(code(jnp.array([False, True, False, False, False, False, True, True])))
    (1, 8)

    Attributes:
        share: p in [10⁻¹², 1].

    Raises:
        ValueError: if the share is out of range.

    Reference: Sattler, Wiedemann, Müller, Samek 2020, arXiv 1903.02891, equation 17 and algorithm 3 (recalled, not
        looked up); Golomb, "Run-length encodings", IEEE Trans. Information Theory 12(3), 1966.
    """

    share: float

    def __post_init__(self) -> None:
        share = real("share", self.share, least=1e-12, most=1, remedy="of all coordinates; 1 sends every one")
        object.__setattr__(self, "share", share)

    @property
    def b(self) -> int:
        """Number of bits of a rest."""
        if self.share == 1:
            return 0
        return max(0, 1 + math.floor(math.log2(math.log((math.sqrt(5) - 1) / 2) / math.log1p(-self.share))))

    def __call__(self, mask: Bool[Array, " d"]) -> UInt[Array, ""]:
        """Count the bits of one list of positions, exact below 2^32; d < 2^31."""
        places = jnp.arange(_as_mask(mask).shape[0], dtype=jnp.int32)
        last = jax.lax.cummax(jnp.where(mask, places, -1))
        before = jnp.concatenate([jnp.full(1, -1, jnp.int32), last[:-1]])
        quotients = jnp.where(mask, (places - before - 1) >> self.b, 0).astype(jnp.uint32)
        return jnp.sum(mask, dtype=jnp.uint32) * (self.b + 1) + jnp.sum(quotients, dtype=jnp.uint32)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Wire:
    """The wire format of sparse messages. Wires with equal settings are equal and share one compiled program.

    Attributes:
        indices: the code of the positions.
        value_ratio: size of losslessly coded values relative to their stored size, as numerator and denominator;
            (1, 1): not coded. fpzip (Lindstrom and Isenburg 2006) achieves about (37, 40) on float32 weights.
        envelope_bytes: further bytes of every message.

    Raises:
        ValueError: if the ratio is not two positive whole numbers, or envelope_bytes is negative.

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
    """Check that the argument is a wire format, and return it.

    Raises:
        TypeError: if it is not.
    """
    return instance("wire", wire, Wire, "build one with gossipjax.compress.codes.Wire, such as Wire(envelope_bytes=40)")


def message_bits(wire: Wire, mask: Bool[Array, " d"], value_bits: int) -> UInt[Array, ""]:
    """Count the bits of one sparse message: positions, values in whole bytes, envelope.

        bits = indices(mask) + 8 ⌈value_bits n ratio / 8⌉ + 8 envelope_bytes,   n = Σ mask.

    Args:
        wire: the wire format.
        mask: which of the d coordinates are sent.
        value_bits: bits of one stored value: 32 for float32.

    Returns:
        The bits; exact for messages below 2^32 bits (512 MiB) at any n, else modulo 2^32.

    Raises:
        ValueError: if value_bits < 1, or the ratio has so many digits that products overflow 32 bits.
    """
    numerator, denominator = _value_bytes(wire, value_bits)
    if (numerator + 1) * denominator >= 2**31:
        raise ValueError(
            f"value_ratio={wire.value_ratio!r} at value_bits={value_bits}: {numerator}/{denominator} bytes per value "
            "cannot be multiplied in 32 bits; round the ratio to fewer digits"
        )
    count = jnp.sum(_as_mask(mask), dtype=jnp.uint32)
    # Divide first, since count * numerator would overflow: groups of whole bytes, then the rest.
    rest = (count % denominator * numerator + (denominator - 1)) // denominator
    values = count // denominator * numerator + rest
    return wire.indices(mask) + 8 * values + 8 * wire.envelope_bytes


def dense_bits(wire: Wire, d: int, value_bits: int) -> int:
    """Count the bits of a dense message: all d values, no positions.

        bits = 8 ⌈value_bits d ratio / 8⌉ + 8 envelope_bytes.

    >>> dense_bits(Wire(), 89_834, 32) // 8
    359336

    Args:
        wire: the wire format; its index code is not used.
        d: number of values.
        value_bits: bits of one stored value: 32 for float32.

    Returns:
        The bits, a Python int.

    Raises:
        ValueError: if d < 0 or value_bits < 1.
    """
    d = whole("d", d, least=0, remedy="the number of values")
    numerator, denominator = _value_bytes(wire, value_bits)
    return 8 * -(-d * numerator // denominator) + 8 * wire.envelope_bytes


def _as_mask(mask: Bool[Array, " d"]) -> Bool[Array, " d"]:
    """Return the mask; raise ValueError unless it is a boolean vector."""
    if getattr(mask, "dtype", None) != np.bool_ or mask.ndim != 1:
        raise ValueError(f"mask={shown(mask)}: must be a boolean vector with one entry per coordinate")
    return mask


def _value_bytes(wire: Wire, value_bits: int) -> tuple[int, int]:
    """Return the bytes per value as a reduced fraction."""
    as_wire(wire)
    value_bits = whole("value_bits", value_bits, least=1, remedy="bits of one value, such as 32")
    numerator, denominator = value_bits * wire.value_ratio[0], 8 * wire.value_ratio[1]
    shared = math.gcd(numerator, denominator)
    return numerator // shared, denominator // shared


def _whole_bytes(bits: UInt[Array, ""]) -> UInt[Array, ""]:
    return (bits + 7) // 8 * 8


def _pack(mask: Bool[Array, " d"]) -> UInt[Array, " r"]:
    """Pack 32 positions into each word: bit b of word w is position b r + w, so that a shift moves whole words."""
    rows = max(1, -(-mask.shape[0] // _WORD))
    bits = jnp.pad(mask, (0, _WORD * rows - mask.shape[0])).reshape(_WORD, rows)
    places = jnp.arange(_WORD, dtype=jnp.uint32)[:, None]
    # A sum over the bits: XLA compiles a chain of ORs to code that is several times slower.
    return jnp.sum(bits.astype(jnp.uint32) << places, axis=0, dtype=jnp.uint32)


def _shift(words: UInt[Array, " r"], places: int) -> UInt[Array, " r"]:
    """Shift every position up by places < d, and drop those past the end."""
    bits, rest = divmod(places, words.shape[0])
    if rest:
        cut = words.shape[0] - rest
        # Positions shifted out of the last words enter the first words, one bit higher.
        words = jnp.concatenate([words[cut:] << 1, words[:cut]])
    return words << bits


def _popcount(words: UInt[Array, " r"]) -> UInt[Array, ""]:
    return jnp.sum(jax.lax.population_count(words), dtype=jnp.uint32)
