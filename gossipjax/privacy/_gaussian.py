"""What μ of Gaussian differential privacy says about ε, δ and attacks: exact formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64

from gossipjax._base.arguments import real, reals
from gossipjax._base.calls import recorded
from gossipjax._base.lazy import special

_BEYOND = 1e150
"""No float holds ε, about μ²/2, of a larger μ."""
_STEPS = 200
"""Halvings: far more than float64 has digits."""
_ROUNDINGS = 16 * np.finfo(float).eps
"""Largest relative error of a few operations, the normal distribution among them."""


@recorded("dong2022gaussian")
def delta(mu: Any, epsilon: Any) -> Float64[np.ndarray, "..."]:
    """Return the smallest δ for which μ-Gaussian differential privacy is (ε, δ)-differential privacy.

    ``δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ)``, exact. 0 for μ = 0, and 1 for μ = ∞.

    Args:
        mu: μ ≥ 0, of any shape; infinity is legal.
        epsilon: ε ≥ 0, of a shape that broadcasts.

    Raises:
        ValueError: if a number is negative or NaN, or shapes do not broadcast.

    Reference: Balle and Wang 2018, theorem 8; Dong, Roth and Su 2022, corollary 1.
    """
    mu, loss = reals("mu", mu, least=0, infinite=True), reals("epsilon", epsilon, least=0)
    try:
        return _delta(*np.broadcast_arrays(mu, loss))
    except ValueError:
        raise ValueError(f"mu of shape {mu.shape}, epsilon of shape {loss.shape}: must broadcast together") from None


def _delta(mu: Any, epsilon: Any) -> Any:
    some = (mu > 0) & np.isfinite(mu)
    m = np.where(some, mu, 1.0)
    with np.errstate(over="ignore"):  # ε/μ may be infinite: δ is 0 then
        exact = _difference(epsilon / m - m / 2, epsilon / m + m / 2)
    return np.where(some, np.maximum(exact, 0.0), np.where(mu > 0, 1.0, 0.0))


def _difference(c: Any, total: Any) -> Any:
    """Return δ of ``ε = μ²/2 + cμ`` with ``total = μ + c``: ``e^ε Φ(−μ − c)`` is a product of two factors up to 1."""
    with np.errstate(over="ignore"):  # c² may be infinite: the product is 0 then
        return special.ndtr(-c) - np.exp(-np.square(c) / 2) * special.erfcx(total / np.sqrt(2)) / 2


@recorded("balle2018gaussian")
def epsilon(mu: Any, delta: float) -> Float64[np.ndarray, "..."]:
    """Return the smallest ε for which μ-Gaussian differential privacy is (ε, δ)-differential privacy.

    The inverse of :func:`delta` in ε, by bisection to the last digits, never below it. 0
    where δ(0) ≤ δ; infinity for μ = ∞.

    >>> from gossipjax import privacy
    >>> round(float(privacy.epsilon(1.0, 1e-5)), 6)
    4.377178

    Args:
        mu: μ ≥ 0, of any shape; infinity is legal.
        delta: δ in (0, 1).

    Raises:
        ValueError: if a number is out of range.

    Reference: Dong, Roth and Su 2022, corollary 1.
    """
    target = real("delta", delta, above=0, below=1, remedy="such as 1e-5, below one over the number of samples")
    return smallest_epsilon(reals("mu", mu, least=0, infinite=True), target)


def smallest_epsilon(values: Float64[np.ndarray, "*any"], target: float) -> Float64[np.ndarray, "..."]:
    """Return ε for checked arguments; NaN stays NaN."""
    some = values < _BEYOND
    finite = np.where(some, values, 1.0)
    # In c of ε = μ²/2 + cμ nothing cancels for large μ. δ(ε) ≤ Φ(−c) ≤ e^{−c²/2}, which is δ at the upper end.
    low, high = -finite / 2, np.full_like(finite, np.sqrt(-2 * np.log(target)))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        above = _difference(middle, finite + middle) + _ROUNDINGS * special.ndtr(-middle) > target
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    rounded = _ROUNDINGS * (finite / 2 + np.abs(high))
    found = np.where(_delta(finite, np.zeros_like(finite)) <= target, 0.0, finite * (finite / 2 + high + rounded))
    return np.where(some, found, values + np.inf)


def auc(mu: Any) -> Float64[np.ndarray, "..."]:
    """Return the largest area under the ROC curve of an attack against μ-Gaussian differential privacy: ``Φ(μ/√2)``.

    Args:
        mu: μ ≥ 0, of any shape; infinity is legal.

    Reference: Dong, Roth and Su 2022: the best test tells N(0, 1) from N(μ, 1).
    """
    return np.asarray(special.ndtr(reals("mu", mu, least=0, infinite=True) / np.sqrt(2)))
