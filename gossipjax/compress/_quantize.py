"""Compressors that send all coordinates with fewer bits each, or all or nothing."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key, UInt

from gossipjax._base.arguments import real, whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax.compress._compressor import Compressor, quality_of_unbiased, value_bits


def _identity(key: Key[Array, ""], x: Float[Array, " d"]) -> tuple[Float[Array, " d"], int]:
    del key
    return x, x.size * value_bits(x)


def _one_for_all(d: int) -> float:
    del d
    return 1.0


def _none_for_all(d: int) -> float:
    del d
    return 0.0


@recorded()
def identity() -> Compressor:
    """Build ``Q(x) = x``, with ω = 1. Bits: those of d values."""
    return Compressor(Partial(_identity), Partial(_one_for_all), "identity()", Partial(_none_for_all))


def _random_gossip(p: Any, key: Key[Array, ""], x: Float[Array, " d"]) -> tuple[Float[Array, " d"], UInt[Array, ""]]:
    sent = jax.random.bernoulli(key, p)
    return jnp.where(sent, x, 0), jnp.where(sent, x.size * value_bits(x), 0).astype(jnp.uint32)


def _probability(p: Any, d: int) -> Any:
    del d
    return p


@recorded("koloskova2019choco")
def random_gossip(p: float) -> Compressor:
    """Build randomized gossip: each node independently sends x with probability p, else nothing.

    ``E ‖Q(x) − x‖² = (1 − p) ‖x‖²`` for every x, so ``ω = p``. Bits: those of d values, or 0.

    Args:
        p: in (0, 1].

    Raises:
        ValueError: if p is out of range.

    Reference: Koloskova, Stich, Jaggi 2019, arXiv 1902.00340, section 3.5.
    """
    real("p", p, above=0, most=1, remedy="at 0 a node would never send")
    return Compressor(Partial(_random_gossip, p), Partial(_probability, p), "random_gossip")


def _norm(x: Float[Array, " d"]) -> Float[Array, ""]:
    """Return ``‖x‖``, safe against overflow and underflow of the squares; its derivative at 0 is 0.

    XLA flushes subnormal numbers to zero.
    """
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    zero = scale == 0
    scaled = x / jnp.where(zero, 1, scale)
    return jnp.where(zero, 0, scale * jnp.sqrt(jnp.where(zero, 1, jnp.sum(jnp.square(scaled)))))


def _qsgd(levels: Frozen[int], key: Key[Array, ""], x: Float[Array, " d"]) -> tuple[Float[Array, " d"], int]:
    s, d = levels.value, x.shape[0]
    norm = _norm(x)
    level = s * jnp.minimum(jnp.abs(x) / jnp.where(norm == 0, 1, norm), 1)
    below = jnp.floor(level)
    # Not floor(level + u): the sum would lose the last digits of u, and could reach s + 1.
    up = jax.random.uniform(key, (d,), x.dtype) < level - below
    rounded = (below + up.astype(x.dtype)) / s
    return norm * jnp.sign(x) * rounded, value_bits(x) + d * (1 + math.ceil(math.log2(s + 1)))


def _qsgd_variance(levels: Frozen[int], d: int) -> float:
    return min(d / levels.value**2, math.sqrt(d) / levels.value)


@recorded("alistarh2017qsgd")
def qsgd(levels: int) -> Compressor:
    """Build QSGD: round each coordinate stochastically to one of s + 1 multiples of the norm, without bias.

    ``Q(x)_i = ‖x‖ sign(x_i) ξ_i``, where ξ_i is one of the two neighbours of ``|x_i|/‖x‖`` on the grid 0, 1/s … 1, and
    ``E ξ_i = |x_i|/‖x‖``. ``E ‖Q(x) − x‖² ≤ min(d/s², √d/s) ‖x‖²``. CHOCO takes ``contractive(qsgd(s))`` for every d.
    Bits: the norm (32 in float32), and for each coordinate a sign and ``⌈log₂(s + 1)⌉`` bits. The paper's Elias codes,
    which are shorter if most levels are 0, are not counted.

    Args:
        levels: s ≥ 1, levels above zero; 2^b − 1 fill b bits.

    Raises:
        ValueError: if levels < 1, or float32 cannot resolve so many.

    Reference: Alistarh, Grubic, Li, Tomioka, Vojnovic 2017, arXiv 1610.02132, section 3.1 and lemma 3.1.
    """
    levels = whole("levels", levels, least=1, most=2**23 - 1, remedy="such as 15 for 4 bits")
    variance = Partial(_qsgd_variance, Frozen(levels))
    omega = Partial(quality_of_unbiased, variance)
    return Compressor(Partial(_qsgd, Frozen(levels)), omega, f"qsgd({levels})", variance)


def _scaled_sign(key: Key[Array, ""], x: Float[Array, " d"]) -> tuple[Float[Array, " d"], int]:
    del key
    size = jnp.mean(jnp.abs(x))
    return jnp.where(x < 0, -size, size), value_bits(x) + x.shape[0]


def _sign_quality(d: int) -> float:
    return 1.0 / d


@recorded("karimireddy2019feedback")
def scaled_sign() -> Compressor:
    """Build ``Q(x) = (‖x‖₁/d) sign(x)``, with sign(0) = 1 since one bit has two values.

    ``‖Q(x) − x‖² = ‖x‖² − ‖x‖₁²/d`` for every x, so ``ω = 1/d``, attained by a vector with one non-zero entry. For
    many Gaussian coordinates the error is about ``(1 − 2/π) ‖x‖²``. Bits: one value (32 in float32), and one per
    coordinate. Biased.

    Reference: Karimireddy, Rebjock, Stich, Jaggi 2019, arXiv 1901.09847, lemma 8.
    """
    return Compressor(Partial(_scaled_sign), Partial(_sign_quality), "scaled_sign()")
