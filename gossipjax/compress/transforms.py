"""Linear transforms of one flat vector: wavelets, Fourier, identity.

A sparse message carries more information in a basis that concentrates a change of the model in few coefficients. All
transforms are linear, so that the coefficients of a difference are the difference of the coefficients. Wavelet and
Fourier transforms of half-precision vectors are computed, and returned, in single precision.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import pywt
from jaxtyping import Array, Float

from gossipjax._base.arguments import choice, instance, shown, whole
from gossipjax._base.binding import Bound
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed

Mode: TypeAlias = Literal["symmetric", "periodization"]
"""How a vector is extended beyond its ends: by its mirror image, or periodically."""
Bank: TypeAlias = tuple[tuple[float, ...], ...]
"""Filters of a wavelet: low and high pass of the analysis, then of the synthesis; all have one even length."""


@jax.tree_util.register_static
@displayed
@dataclasses.dataclass(frozen=True)
class Transform:
    """A linear transform. Transforms with equal settings are equal and share one compiled program.

    Attributes:
        forward: ``forward(x) -> coefficients``, ``(d,)`` to ``(c,)``; linear.
        inverse: ``inverse(coefficients, d) -> x``, ``(c,)`` to ``(d,)``; linear, accepts any coefficients, even outside
            the range of forward, and ``inverse(forward(x), d) = x``.
        size: ``size(d)``: the number c of coefficients of a vector of d numbers, c >= d.
        name: the builder and its settings.
    """

    forward: Callable[[Float[Array, " d"]], Float[Array, " c"]]
    inverse: Callable[[Float[Array, " c"], int], Float[Array, " d"]]
    size: Callable[[int], int]
    name: str

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.name, {}


def as_transform(transform: Transform) -> Transform:
    """Check that the argument is a transform, and return it.

    Raises:
        TypeError: if it is not.
    """
    return instance(
        "transform", transform, Transform, "build one with gossipjax.compress.transforms, such as wavelet()"
    )


@recorded()
def identity() -> Transform:
    """Build the identity transform: c = d.

    Returns:
        The transform.
    """
    return Transform(_same, _same_again, _as_many, "identity()")


def _same(x: Float[Array, " d"]) -> Float[Array, " d"]:
    _as_many(x.shape[0])
    return x


def _same_again(coefficients: Float[Array, " d"], d: int) -> Float[Array, " d"]:
    _check_coefficients(coefficients, _as_many(d), d)
    return coefficients


def _as_many(d: int) -> int:
    return whole("d", d, least=1, remedy="a transform needs a vector of at least one number")


def _check_coefficients(coefficients: Float[Array, " c"], size: int, d: int) -> None:
    if coefficients.shape[0] != size:
        raise ValueError(
            f"{coefficients.shape[0]} coefficients are not the {size} of a vector of d={d} numbers: "
            "pass the size of the vector that forward received"
        )


@recorded()
def fourier() -> Transform:
    """Build the discrete Fourier transform of real vectors, orthonormal: c = d and ``‖forward(x)‖ = ‖x‖``.

    With ``X_f = d^(-1/2) Σ_t x_t exp(-2πi f t / d)``, f = 0 ... d//2, the coefficients are the real parts, then the
    imaginary parts that are not zero for every x. Frequencies that stand for both f and d - f are scaled by √2. The
    real and the imaginary part of a frequency are two coefficients, selected and sent separately.

    Returns:
        The transform.

    Reference: Sorensen, Jones, Heideman, Burrus, "Real-valued fast Fourier transform algorithms", IEEE Trans. ASSP
        35(6), 1987.
    """
    return Transform(_fourier, _inverse_fourier, _as_many, "fourier()")


def _at_least_single(x: Float[Array, " d"]) -> Float[Array, " d"]:
    """Return half-precision numbers in single precision, as PyWavelets does: sums over taps would lose digits."""
    return x if x.dtype.itemsize > 2 else x.astype(jnp.float32)


def _fourier(x: Float[Array, " d"]) -> Float[Array, " d"]:
    d = _as_many(x.shape[0])
    spectrum = jnp.fft.rfft(_at_least_single(x), norm="ortho")
    paired = slice(1, (d + 1) // 2)
    real = spectrum.real.at[paired].multiply(math.sqrt(2))
    return jnp.concatenate([real, math.sqrt(2) * spectrum.imag[paired]])


def _inverse_fourier(coefficients: Float[Array, " d"], d: int) -> Float[Array, " d"]:
    _check_coefficients(coefficients, _as_many(d), d)
    coefficients, count = _at_least_single(coefficients), d // 2 + 1
    paired = slice(1, (d + 1) // 2)
    real = coefficients[:count].at[paired].multiply(math.sqrt(0.5))
    imaginary = jnp.zeros_like(real).at[paired].set(math.sqrt(0.5) * coefficients[count:])
    return jnp.fft.irfft(jax.lax.complex(real, imaginary), d, norm="ortho")


@recorded("mallat1989wavelets", "lee2019pywavelets")
def wavelet(name: str = "sym2", levels: int = 4, mode: Mode = "symmetric") -> Transform:
    """Build the discrete wavelet transform of the whole vector, equal to PyWavelets' ``wavedec`` and ``waverec``.

    With the analysis filters h (low pass) and g (high pass) of length F, and a_0 = x,

        a_l[k] = Σ_j h[j] ã_{l-1}[2k + s - j],   b_l[k] = Σ_j g[j] ã_{l-1}[2k + s - j],   l = 1 ... levels,

    where ã is a extended beyond its ends and s = 1 for ``"symmetric"``, F/2 for ``"periodization"``. The coefficients
    are [a_levels, b_levels, ..., b_1].

    ``"symmetric"``, PyWavelets' default, turns n numbers into ``⌊(n + F - 1)/2⌋`` in each half at every level, so that
    c exceeds d by a few. Coefficients mixed entry by entry may then lie outside the range of forward:
    ``forward(inverse(c, d))`` is a projection of c. ``"periodization"`` turns n numbers into ⌈n/2⌉. It is orthonormal
    for an orthogonal wavelet if d is a multiple of 2^levels: c = d, norms are kept, every c is in the range of forward.

    All levels are computed even for short vectors, whose coefficients all depend on the extension; PyWavelets does the
    same and warns. The work grows with d F.

    >>> wavelet("sym2", levels=4).size(89_834)
    89843

    Args:
        name: a discrete wavelet of PyWavelets: haar, db2, sym2, coif1, bior2.2 ...
        levels: how many times the low-pass half is split, >= 1.
        mode: how a vector is extended beyond its ends.

    Returns:
        The transform.

    Raises:
        ValueError: if name is not a discrete wavelet, levels < 1, or the mode is unknown.

    Reference: Mallat, "A theory for multiresolution signal decomposition: the wavelet representation", IEEE Trans. PAMI
        11(7), 1989; Lee et al., "PyWavelets", JOSS 4(36), 2019. The default is the transform of Dhasade et al., "Get
        More for Less in Decentralized Learning Systems" (JWINS), ICDCS 2023, arXiv 2306.04377.
    """
    if not isinstance(name, str) or name not in pywt.wavelist(kind="discrete"):
        raise ValueError(
            f"name={shown(name)}: must be a discrete wavelet of PyWavelets, such as haar, sym2, db4 or bior2.2; "
            "pywt.wavelist(kind='discrete') lists them"
        )
    levels = whole("levels", levels, least=1, remedy="for no levels use identity()")
    choice("mode", mode, get_args(Mode))
    bank = tuple(tuple(filter_) for filter_ in pywt.Wavelet(name).filter_bank)
    forward, inverse, size = (
        Bound(function, (bank, levels, mode)) for function in (_analysis, _synthesis, _num_coefficients)
    )
    return Transform(forward, inverse, size, f"wavelet({name}, levels={levels}, {mode})")


def _lengths(bank: Bank, levels: int, mode: Mode, d: int) -> list[int]:
    """Return the lengths of the low-pass part at levels 0 ... levels."""
    lengths = [_as_many(d)]
    longer = len(bank[0]) - 1 if mode == "symmetric" else 1
    for _ in range(levels):
        lengths.append((lengths[-1] + longer) // 2)
    return lengths


def _num_coefficients(bank: Bank, levels: int, mode: Mode, d: int) -> int:
    lengths = _lengths(bank, levels, mode, d)
    return lengths[-1] + sum(lengths[1:])


def _analysis(bank: Bank, levels: int, mode: Mode, x: Float[Array, " d"]) -> Float[Array, " c"]:
    _as_many(x.shape[0])
    x, parts = _at_least_single(x), []
    for _ in range(levels):
        x, high = _split(bank, mode, x)
        parts.append(high)
    return jnp.concatenate([x, *reversed(parts)])


def _synthesis(bank: Bank, levels: int, mode: Mode, coefficients: Float[Array, " c"], d: int) -> Float[Array, " d"]:
    lengths = _lengths(bank, levels, mode, d)
    _check_coefficients(coefficients, lengths[-1] + sum(lengths[1:]), d)
    coefficients = _materialize(jnp.pad(_at_least_single(coefficients), (0, 1)))
    low, start = coefficients[: lengths[-1]], lengths[-1]
    for length, longer in zip(reversed(lengths[1:]), reversed(lengths[:-1]), strict=True):
        high = coefficients[start : start + length]
        low, start = _join(bank, mode, low, high)[:longer], start + length
    return low


def _split(bank: Bank, mode: Mode, x: Float[Array, " n"]) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """Apply the low and the high pass and keep every other output: one strided slice per tap."""
    taps, n = len(bank[0]), x.shape[0]
    if mode == "symmetric":
        half = (n + taps - 1) // 2
        x = jnp.pad(x, (taps - 2, 2 * half - n), mode="symmetric")
    else:
        half = (n + 1) // 2
        x = jnp.pad(jnp.pad(x, (0, n % 2), mode="edge"), taps // 2 - 1, mode="wrap")
    # Without the barrier XLA pads, and computes the low pass, once for each of the two phases.
    phases = _materialize(x).reshape(-1, 2).T
    shifted = [phases[(j + 1) % 2, (taps - 1 - j) // 2 :][:half] for j in range(taps)]
    return _weighted_sum(bank[0], shifted), _weighted_sum(bank[1], shifted)


def _materialize(x: Float[Array, " n"]) -> Float[Array, " n"]:
    return jax.lax.optimization_barrier(x)


def _join(bank: Bank, mode: Mode, low: Float[Array, " m"], high: Float[Array, " m"]) -> Float[Array, " n"]:
    """Filter both halves and add them: compute even and odd outputs separately, then interleave them."""
    taps = len(bank[2])
    if mode == "symmetric":
        return _filter_halves(bank, low, high)
    half, around = low.shape[0], taps // 4
    low, high = (jnp.pad(part, around, mode="wrap") for part in (low, high))
    start = 2 * around - taps // 2 + 1
    return _filter_halves(bank, low, high)[start : start + 2 * half]


def _filter_halves(bank: Bank, low: Float[Array, " m"], high: Float[Array, " m"]) -> Float[Array, " n"]:
    """Return the 2 (m + 1) - F outputs that all taps reach."""
    side = len(bank[2]) // 2
    count = low.shape[0] - side + 1
    shifted = [part[side - 1 - i :][:count] for part in (low, high) for i in range(side)]
    phases = [_weighted_sum(bank[2][phase::2] + bank[3][phase::2], shifted) for phase in (0, 1)]
    return jnp.stack(phases, axis=1).reshape(-1)


def _weighted_sum(weights: tuple[float, ...], vectors: list[Float[Array, " m"]]) -> Float[Array, " m"]:
    """Return the weighted sum of the vectors, in their dtype."""
    total = weights[0] * vectors[0]
    for weight, vector in zip(weights[1:], vectors[1:], strict=True):
        total = total + weight * vector
    return total
