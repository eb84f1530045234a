"""Compressors that send the values or the signs of some coordinates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Key

from gossipjax._base.arguments import callable_, flag, real, shown, whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax.compress._compressor import Bits, Compressor, quality_of_unbiased, value_bits
from gossipjax.compress._selection import largest
from gossipjax.compress.codes import IndexCode

INDEX_BITS = 32
SEED_BITS = 64


def _check_part(k: int | None, share: float | None) -> Frozen[int | float]:
    """Check a number of coordinates or a share of them."""
    if (k is None) == (share is None):
        raise ValueError(f"k={shown(k)}, share={shown(share)}: give either a number of coordinates or a share of them")
    if k is None:
        return Frozen(real("share", share, above=0, most=1, remedy="1 sends every coordinate"))
    return Frozen(whole("k", k, least=1, remedy="a message holds at least one coordinate; or give a share of them"))


def _check_code(indices: IndexCode | None) -> Frozen[IndexCode | None]:
    """Check a code of positions; None: 32 bits for each."""
    if indices is not None:
        callable_("indices", indices, "indices(mask) -> bits, such as gossipjax.compress.codes.elias_gamma")
    return Frozen(indices)


def _number(part: Frozen[int | float], d: int) -> int:
    """Return k for vectors of d coordinates."""
    if isinstance(part.value, float):
        return max(1, round(part.value * d))
    if part.value > d:
        raise ValueError(f"k={part.value} of d={d} coordinates: k must lie between 1 and d; lower it or give a share")
    return part.value


def _title(name: str, part: Frozen[int | float], suffix: str = "") -> str:
    return f"{name}({'share' if isinstance(part.value, float) else 'k'}={part.value:g}{suffix})"


def _code_suffix(indices: IndexCode | None) -> str:
    return "" if indices is None else f", indices={getattr(indices, '__name__', type(indices).__name__)}"


def _index_bits(code: Frozen[IndexCode | None], mask: Bool[Array, " d"], k: int) -> Bits:
    """Return the size of the list of k indices: an int at 32 bits each, else the size that the code counts."""
    return k * INDEX_BITS if code.value is None else code.value(mask)


def _part_quality(part: Frozen[int | float], d: int) -> float:
    return _number(part, d) / d


def _top_k(
    part: Frozen[int | float], code: Frozen[IndexCode | None], key: Key[Array, ""], x: Float[Array, " d"]
) -> tuple[Float[Array, " d"], Bits]:
    del key
    k = _number(part, x.shape[0])
    chosen = largest(x, k)
    return jnp.where(chosen, x, 0), k * value_bits(x) + _index_bits(code, chosen, k)


@recorded("stich2018sparsified")
def top_k(k: int | None = None, *, share: float | None = None, indices: IndexCode | None = None) -> Compressor:
    """Build top-k: send the k coordinates of largest magnitude; the lowest index wins a tie.

    ``ω = k/d``, attained by a constant x; the error is small if few entries are large. Bits: the value (32 in float32)
    of each of the k, and their indices, 32 bits each unless they are coded. Biased.

    >>> top_k(share=0.25).omega(8)
    0.25

    Args:
        k: coordinates, 1 … d; or
        share: of all coordinates, in (0, 1]: ``k = round(share d)``, at least 1.
        indices: code of the k indices, such as :func:`gossipjax.compress.codes.elias_gamma`, whose size differs from
            message to message; None: 32 bits each.

    Raises:
        ValueError: if both or neither of k and share are given, or one is out of range; k > d raises once d is known.

    Reference: Stich, Cordonnier, Jaggi 2018, arXiv 1809.07599, lemma A.1.
    """
    part = _check_part(k, share)
    apply = Partial(_top_k, part, _check_code(indices))
    return Compressor(apply, Partial(_part_quality, part), _title("top_k", part, _code_suffix(indices)))


def _sign_top_k(
    part: Frozen[int | float], code: Frozen[IndexCode | None], key: Key[Array, ""], x: Float[Array, " d"]
) -> tuple[Float[Array, " d"], Bits]:
    del key
    k = _number(part, x.shape[0])
    chosen = largest(x, k)
    size = jnp.sum(jnp.where(chosen, jnp.abs(x), 0)) / k
    value = jnp.where(chosen, jnp.where(x < 0, -size, size), 0)
    return value, value_bits(x) + k + _index_bits(code, chosen, k)


def _sign_quality(part: Frozen[int | float], d: int) -> float:
    k = _number(part, d)
    return min(1.0 / k, k / d)


@recorded("basu2019qsparse")
def sign_top_k(k: int | None = None, *, share: float | None = None, indices: IndexCode | None = None) -> Compressor:
    """Build sign-top-k: send the signs of the k coordinates of largest magnitude, and their mean magnitude.

    ``Q(x)_c = m sign(x_c)`` on the k coordinates, with ``m = (1/k) Σ |x_c|`` over them, else 0; sign(0) = 1 since one
    bit has two values. ``‖Q(x) − x‖² = ‖x‖² − k m²`` for every x, so ``ω = min(1/k, k/d)``, attained by one non-zero
    entry or by a constant x: at fixed m, ``‖x‖²`` is convex in the sorted magnitudes, hence largest if j ≤ k of them
    are equal and the others 0, or if all d are equal. Bits: one value (32 in float32), a sign for each of the k, and
    their indices, 32 bits each unless they are coded. Biased.

    >>> sign_top_k(2).omega(16)
    0.125

    Args:
        k: coordinates, 1 … d; or
        share: of all coordinates, in (0, 1]: ``k = round(share d)``, at least 1.
        indices: code of the k indices, as in :func:`top_k`; None: 32 bits each.

    Raises:
        ValueError: if both or neither of k and share are given, or one is out of range; k > d raises once d is known.

    Reference: Basu, Data, Karakus, Diggavi 2019, arXiv 1906.02367, lemma 3 (whose constant for this norm is 1/d, which
    is smaller, or depends on x).
    """
    part = _check_part(k, share)
    apply = Partial(_sign_top_k, part, _check_code(indices))
    return Compressor(apply, Partial(_sign_quality, part), _title("sign_top_k", part, _code_suffix(indices)))


def _random_k(
    part: Frozen[int | float], scale: Frozen[bool], key: Key[Array, ""], x: Float[Array, " d"]
) -> tuple[Float[Array, " d"], int]:
    d = x.shape[0]
    k = _number(part, d)
    # The k largest of d random numbers: all subsets are equally likely, up to ties (d/2³² of all draws).
    chosen = largest(jax.random.bits(key, (d,), jnp.uint32), k)
    return jnp.where(chosen, x * (d / k) if scale.value else x, 0), k * value_bits(x) + SEED_BITS


def _random_variance(part: Frozen[int | float], d: int) -> float:
    return d / _number(part, d) - 1.0


@recorded("stich2018sparsified")
def random_k(k: int | None = None, *, share: float | None = None, unbiased: bool = False) -> Compressor:
    """Build random-k: send k random coordinates, drawn anew for every node and message, and the seed of the draw.

    Unscaled: ``E ‖Q(x) − x‖² = (1 − k/d) ‖x‖²`` for every x, so ``ω = k/d``. Unbiased: values are scaled by d/k, and
    ``E ‖Q(x) − x‖² = (d/k − 1) ‖x‖²``, so that ω exists only for k > d/2. Bits: the value (32 in float32) of each of
    the k, and 64 of the seed, from which the receiver draws the indices.

    Args:
        k: coordinates, 1 … d; or
        share: of all coordinates, in (0, 1]: ``k = round(share d)``, at least 1.
        unbiased: scale by d/k.

    Raises:
        ValueError: if both or neither of k and share are given, or one is out of range; k > d raises once d is known.

    Reference: Stich, Cordonnier, Jaggi 2018, arXiv 1809.07599, definition 2.1; Koloskova, Stich, Jaggi 2019, arXiv
    1902.00340, section 3.5.
    """
    part = _check_part(k, share)
    apply = Partial(_random_k, part, Frozen(flag("unbiased", unbiased)))
    if not unbiased:
        return Compressor(apply, Partial(_part_quality, part), _title("random_k", part))
    variance = Partial(_random_variance, part)
    omega = Partial(quality_of_unbiased, variance)
    return Compressor(apply, omega, _title("random_k", part, ", unbiased"), variance)
