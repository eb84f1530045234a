"""Natural compression: random rounding to powers of two, of which sign and exponent are sent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.calls import recorded
from gossipjax.compress._compressor import Compressor, quality_of_unbiased

_VARIANCE = 0.125
"""The largest u (1 − u)/(1 + u)², at u = 1/3."""


def _natural(key: Key[Array, ""], x: Float[Array, " d"]) -> tuple[Float[Array, " d"], int]:
    """Round by the bits of the floats: the fraction of the last digits is the probability of the next exponent."""
    kind, width = jnp.finfo(x.dtype), 8 * x.dtype.itemsize
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{width}"))
    one = jnp.asarray(1 << kind.nmant, bits.dtype)
    fraction = bits & (one - 1)
    power = bits - fraction
    largest = jnp.asarray(jnp.finfo(x.dtype).max, x.dtype)
    last = jax.lax.bitcast_convert_type(largest, bits.dtype) >> kind.nmant << kind.nmant
    room = (power << 1 >> 1) < last
    coins = jax.random.bits(key, x.shape, bits.dtype) >> (width - kind.nmant)
    rounded = jnp.where((coins < fraction) & room, power + one, power)
    value = jax.lax.bitcast_convert_type(rounded, x.dtype)
    return jnp.where(jnp.isfinite(x), value, x), x.shape[0] * (1 + kind.nexp)


def _variance(d: int) -> float:
    del d
    return _VARIANCE


@recorded("horvath2022natural")
def natural() -> Compressor:
    """Build natural compression: round each entry to one of the two nearest powers of two, without bias.

    With ``2^a ≤ |t| ≤ 2^(a+1)``::

        C(t) = sign(t) 2^a        with probability (2^(a+1) − |t|) / 2^a
        C(t) = sign(t) 2^(a+1)    else

    and C(0) = 0. ``E ‖C(x) − x‖² ≤ ‖x‖²/8``, attained by entries ``(4/3) 2^a``, so ω = 7/8 for every d. Nothing is
    computed with the numbers: the probabilities, exact in every type, are read off the digits behind the leading one.

    Entries above the largest power of two of their type (2^127 in float32) are rounded down to it; infinities and NaN
    stay. Bits: sign and exponent of each entry, 9 in float32 and 12 in float64. The derivative is 0.

    Reference: Horváth, Ho, Horváth, Sahu, Canini, Richtárik 2019, arXiv 1905.10988, definition 1 and theorem 1
    (recalled, not looked up).
    """
    variance = Partial(_variance)
    return Compressor(Partial(_natural), Partial(quality_of_unbiased, variance), "natural()", variance)
