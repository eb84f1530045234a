"""Properties of compressors: contraction and unbiasedness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

Compressor: TypeAlias = Callable[[Key[Array, ""], Array], Any]
"""``Q(key, x)``: the vector ``(d,)`` that the receiver decodes for a vector ``(d,)``; or ``(Q(key, x), bits)``."""

DRAWS = 4096
"""Number of keys over which a random compressor is averaged."""
DEVIATIONS = 5.0
"""z of the intervals below. If 100 examples meet a bound with equality, one fails by chance in at most one of 1,300
runs by Bernstein's bound, and in one of 30,000 by the normal approximation."""


def check_contracts(
    compressor: Compressor,
    omega: float,
    x: Float[np.ndarray, " d"],
    *,
    random: bool = False,
    draws: int = DRAWS,
    z: float = DEVIATIONS,
    key: Key[Array, ""] | None = None,
) -> None:
    """Assert ``E ‖Q(x) − x‖² ≤ (1 − ω) ‖x‖²``.

    Deterministic compressors must meet the bound up to the rounding of a sum of squares, ``8 (d + 2) ε ‖x‖²``. For
    random ones the mean over N keys may exceed it by at most ``z s/√N + (7/6) z² R/(N − 1)``, where s is the standard
    deviation and R the largest of the N errors. The first term is z standard errors. The second, from the empirical
    Bernstein bound, keeps means that depend on rare draws from failing by chance (probability about 2 exp(−z²/2)).

    >>> import jax.numpy as jnp
    >>> def sign(key, x):
    ...     return jnp.sign(x) * jnp.mean(jnp.abs(x))
    >>> check_contracts(sign, 1 / 3, np.array([1.0, -2.0, 3.0]))

    Args:
        compressor: module-level function of a key and a vector ``(d,)``, or a ``Partial`` of one, so that it is
            compiled once for each d.
        omega: ω in (0, 1], 1 for no loss.
        x: ``(d,)``; draw it from :func:`~gossipjax.testing.vectors`.
        random: whether the compressor uses its key.
        draws: N, number of keys of a random compressor.
        z: width of the interval.
        key: split into the N keys; None: always the same key.

    Raises:
        AssertionError: if the error exceeds the bound, or Q(x) is not finite; states error, bound and excess.
        ValueError: if omega is outside (0, 1], draws < 2, or x is not a vector.

    Reference: Koloskova, Stich, Jaggi 2019, arXiv 1902.00340, assumption 1; Maurer and Pontil 2009, theorem 4.
    """
    if not 0.0 < omega <= 1.0:
        raise ValueError(f"omega={omega}: the contraction must lie in (0, 1], 1 meaning no loss")
    _check_draws(draws)
    found, exact = _compress(compressor, x, draws if random else 1, key)
    errors, size = np.sum((found - exact) ** 2, axis=1), float(np.sum(exact**2))
    bound, rounding = (1.0 - omega) * size, 8.0 * (exact.size + 2) * float(np.finfo(np.asarray(x).dtype).eps) * size
    margin = _margin(errors, float(errors.max()), z) if random else 0.0
    if errors.mean() > bound + margin + rounding:
        how = f"mean of {draws} draws, margin {margin:.3g}" if random else "deterministic"
        raise AssertionError(
            f"‖Q(x) − x‖² is {errors.mean():.6g} ({how}) for ‖x‖² = {size:.6g}; omega = {omega:.6g} allows "
            f"{bound:.6g}: too much by {errors.mean() - bound:.3g}"
        )


def check_unbiased(
    compressor: Compressor,
    x: Float[np.ndarray, " d"],
    *,
    draws: int = DRAWS,
    z: float = DEVIATIONS,
    key: Key[Array, ""] | None = None,
) -> None:
    """Assert ``E Q(x) = x`` in every coordinate.

    A coordinate fails if its mean over N keys is off by more than ``z s/√N + (7/6) z² R/(N − 1)`` plus the rounding of
    a sum, where s is its standard deviation and R its range. If all draws agree, R is the largest magnitude drawn in
    any coordinate, since the draws may have missed a rare value.

    >>> import jax
    >>> def half(key, x):
    ...     return jax.numpy.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0)
    >>> check_unbiased(half, np.array([1.0, 0.0, -3.0], np.float32))

    Args:
        compressor: as for :func:`check_contracts`.
        x: ``(d,)``.
        draws: N; an entry that is kept with probability p needs many more than 1/p.
        z: width of the interval.
        key: split into the N keys; None: always the same key.

    Raises:
        AssertionError: if a mean is off, or Q(x) is not finite; states the coordinate, its mean and the difference.
        ValueError: if draws < 2, or x is not a vector.
    """
    _check_draws(draws)
    found, exact = _compress(compressor, x, draws, key)
    ranges = np.ptp(found, axis=0)
    always = ranges == 0
    ranges = np.where(always, np.abs(found).max(), ranges)
    rounding = 8.0 * float(np.finfo(np.asarray(x).dtype).eps) * np.abs(found).max(axis=0, initial=0)
    off = np.abs(found.mean(axis=0) - exact)
    margins = np.asarray([_margin(found[:, c], float(ranges[c]), z) for c in range(exact.size)]) + rounding
    worst = int(np.argmax(off - margins))
    if off[worst] > margins[worst]:
        raise AssertionError(
            f"Q(x)[{worst}] is {found[:, worst].mean():.6g} in the mean of {draws} draws, x[{worst}] is "
            f"{exact[worst]:.6g}; it must be unbiased: off by {off[worst]:.3g}, {margins[worst]:.3g} is allowed"
        )


def _check_draws(draws: int) -> None:
    if draws < 2:
        raise ValueError(f"draws={draws}: a standard error needs at least two keys")


def _margin(values: Float[np.ndarray, " N"], largest: float, z: float) -> float:
    count = len(values)
    return float(z * values.std(ddof=1) / np.sqrt(count) + 7.0 / 6.0 * z**2 * largest / (count - 1))


def _compress(
    compressor: Compressor, x: Any, draws: int, key: Key[Array, ""] | None
) -> tuple[Float[np.ndarray, "N d"], Float[np.ndarray, " d"]]:
    """Return all draws and the vector, in float64."""
    x = np.asarray(x)
    if x.ndim != 1 or not x.size or not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"x is {x.dtype} of shape {x.shape}: pass a vector (d,) of floats, d ≥ 1")
    keys = jax.random.split(jax.random.key(0) if key is None else key, draws)
    bound = compressor if isinstance(compressor, Partial) else Partial(compressor)
    found = np.asarray(_compressed(bound, keys, x), np.float64)
    if found.shape != (draws, x.size):
        raise ValueError(f"the compressor returns shape {found.shape[1:]} for a vector of shape {x.shape}")
    if not np.isfinite(found).all():
        raise AssertionError(f"Q(x) holds {found[~np.isfinite(found)][0]}; all must be finite for a finite x")
    return found, x.astype(np.float64)


@jax.jit
def _compressed(compressor: Partial, keys: Key[Array, " N"], x: Float[Array, " d"]) -> Float[Array, "..."]:
    found = jax.vmap(compressor, in_axes=(0, None))(keys, x)
    return found[0] if isinstance(found, tuple) else found
