"""Published convergence rate of D-PSGD, with its constants, and the order of the number of rounds from which it holds.

An *order* omits an unknown numerical constant: compare slopes and ratios, never values. The rate bounds the
mean squared gradient norm ``(1/K) Σ E ‖∇f(x̄_t)‖²``; σ is the standard deviation of a stochastic gradient, L the
smoothness, ``gap = f(x̄_0) − f*``. Each docstring gives the statement, its assumptions, its source and its kind.
"Recalled" marks a formula that was not checked against the paper's text.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from .arguments import real, whole

Number: TypeAlias = int | float


def dpsgd_step(n: int, iterations: int, *, noise_std: Number, smoothness: Number) -> float:
    """Return the step size ``1/(2L + σ √(K/n))`` for which :func:`dpsgd_rate` holds.

    Kind: part of that statement. Source: Lian et al. 2017, arXiv 1705.09056, corollary 2 (recalled, not checked against
    the paper's text).

    Args:
        n: nodes.
        iterations: K ≥ 1.
        noise_std: σ ≥ 0.
        smoothness: L > 0.

    Raises:
        ValueError: numbers out of range.
    """
    n, iterations = whole("n", n, least=1), whole("iterations", iterations, least=1)
    noise_std = real("noise_std", noise_std, least=0)
    smoothness = real("smoothness", smoothness, above=0)
    return 1.0 / (2.0 * smoothness + noise_std * math.sqrt(iterations / n))


def dpsgd_rate(n: int, iterations: int, *, gap: Number, noise_std: Number, smoothness: Number) -> float:
    """Bound the mean squared gradient of D-PSGD by ``8 gap L/K + (8 gap + 4L) σ/√(Kn)``.

    At equal K the second term falls as 1/√n: linear speed-up. Kind: upper bound for the step size :func:`dpsgd_step`,
    if K is above a threshold of the order :func:`dpsgd_threshold_order`. Assumes: smooth f_i, bounded variances,
    symmetric doubly stochastic W with ρ < 1. Source: Lian et al. 2017, arXiv 1705.09056, corollary 2 (recalled, not
    checked against the paper's text).

    Args:
        n: nodes.
        iterations: K ≥ 1.
        gap: ``f(x̄_0) − f* ≥ 0``.
        noise_std: σ ≥ 0.
        smoothness: L > 0.

    Raises:
        ValueError: numbers out of range.
    """
    n, iterations = whole("n", n, least=1), whole("iterations", iterations, least=1)
    gap = real("gap", gap, least=0)
    noise_std = real("noise_std", noise_std, least=0)
    smoothness = real("smoothness", smoothness, above=0)
    slow = (8.0 * gap + 4.0 * smoothness) * noise_std / math.sqrt(iterations * n)
    return 8.0 * gap * smoothness / iterations + slow


def dpsgd_threshold_order(n: int, contraction: Number) -> float:
    """Return the order ``n⁵/(1 − c)⁴`` of the K beyond which :func:`dpsgd_rate` holds; c = ‖W − J‖₂.

    The paper writes √ρ for c. Kind: order in n and in the gap 1 − c only. Source: as :func:`dpsgd_rate` (recalled).

    Raises:
        ValueError: no node, a contraction outside [0, 1).
    """
    n = whole("n", n, least=1)
    contraction = real("contraction", contraction, least=0, below=1, remedy="with 1 the nodes never agree")
    return n**5 / (1.0 - contraction) ** 4
