"""Published convergence rates of decentralized and asynchronous SGD: one bound with constants, else orders.

An *order* leaves out a numerical constant nobody states: compare slopes and ratios, never values. ε is the target for
the mean squared gradient norm ``(1/T) Σ E ‖∇f(x̄_t)‖²``, σ the standard deviation of a stochastic gradient, ζ that of
the nodes' gradients about their mean, L the smoothness, ``gap = f(x̄_0) − f*``; p is the mixing rate,
``E ‖Wx − x̄‖² ≤ (1 − p) ‖x − x̄‖²`` (``1 − ρ²`` for a fixed W). Each docstring gives the statement, what it assumes, its
source and its kind; "recalled" marks what was not checked against the paper's text.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Num

from theory.arguments import choice, real, reals, whole

Number: TypeAlias = int | float


class DecentralizedIterations(NamedTuple):
    """Terms of an iteration count, and their sum."""

    noise: float
    """Gradient noise, averaged by all nodes: falls as 1/n."""
    disagreement: float
    """Noise and heterogeneity that the graph has not yet averaged."""
    optimization: float
    """What is left without noise and heterogeneity."""
    total: float


class AsynchronousIterations(NamedTuple):
    """Terms of an iteration count, and their sum."""

    noise: float
    """Gradient noise: no delay in it."""
    delay: float
    """What stale gradients cost."""
    total: float


# D-PSGD and AD-PSGD


def dpsgd_step(n: int, iterations: int, *, noise_std: Number, smoothness: Number) -> float:
    """Give the step size ``1/(2L + σ √(K/n))`` under which :func:`dpsgd_rate` holds.

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

    The second term falls as 1/√n at equal K: linear speed-up. Kind: upper bound, once K passes a threshold of the order
    :func:`dpsgd_threshold_order`, for the step size :func:`dpsgd_step`. Assumes: smooth f_i, bounded variances,
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
    """Give the order ``n⁵/(1 − c)⁴`` of the K beyond which :func:`dpsgd_rate` holds; c = ‖W − J‖₂.

    (The paper writes √ρ for c.) Kind: order, in n and in the gap alone. Source: as :func:`dpsgd_rate` (recalled).

    Raises:
        ValueError: no node, a contraction outside [0, 1).
    """
    n = whole("n", n, least=1)
    contraction = real("contraction", contraction, least=0, below=1, remedy="1 says that the graph never agrees")
    return n**5 / (1.0 - contraction) ** 4


def adpsgd_order(updates: int) -> float:
    """Give the order ``1/√K`` of the mean squared gradient of AD-PSGD after K updates, any node's counted.

    Kind: order. Assumes: bounded staleness, K large, a step size of order 1/√K. Source: Lian et al. 2018, arXiv
    1710.06952, corollary 2 (the rate from the abstract; the rest recalled, not checked against the paper's text).

    Raises:
        ValueError: no update.
    """
    updates = whole("updates", updates, least=1)
    return 1.0 / math.sqrt(updates)


# Iterations to a target


def koloskova_iterations(
    epsilon: Number,
    n: int,
    *,
    mixing_rate: Number,
    noise_std: Number,
    heterogeneity: Number,
    smoothness: Number = 1.0,
    gap: Number = 1.0,
) -> DecentralizedIterations:
    """Give the order of iterations of decentralized SGD to mean squared gradient ε on nonconvex functions.

    ::

        L gap ( σ²/(nε²) + (ζ + σ√p)/(p ε^{3/2}) + 1/(pε) )

    Kind: order. Assumes: mixing at rate p in every round, one local step. Source: Koloskova et al. 2020, arXiv
    2003.10422, theorem 2 (recalled, not checked against the paper's text).

    Args:
        epsilon: ε > 0.
        n: nodes.
        mixing_rate: p in (0, 1].
        noise_std: σ ≥ 0.
        heterogeneity: ζ ≥ 0.
        smoothness: L > 0.
        gap: ``f(x̄_0) − f* > 0``.

    Raises:
        ValueError: numbers out of range.
    """
    epsilon = real("epsilon", epsilon, above=0)
    n = whole("n", n, least=1)
    mixing_rate = real("mixing_rate", mixing_rate, above=0, most=1, remedy="for a fixed W it is 1 - rho^2")
    noise_std = real("noise_std", noise_std, least=0)
    heterogeneity = real("heterogeneity", heterogeneity, least=0)
    scale = _scale(smoothness, gap)
    noise = scale * noise_std**2 / (n * epsilon**2)
    slow = heterogeneity + noise_std * math.sqrt(mixing_rate)
    disagreement = scale * slow / (mixing_rate * epsilon**1.5)
    optimization = scale / (mixing_rate * epsilon)
    return DecentralizedIterations(noise, disagreement, optimization, noise + disagreement + optimization)


def dpsgd_transient_order(
    n: int,
    *,
    mixing_rate: Number,
    noise_std: Number,
    heterogeneity: Number,
    smoothness: Number = 1.0,
    gap: Number = 1.0,
) -> float:
    """Give the order of iterations after which the graph no longer shows: noise beats disagreement.

    Where the first two terms of :func:`koloskova_iterations` are equal, ``ε^{1/2} = σ² p / (n (ζ + σ√p))``; the value
    is the first term there, ``L gap n³ (ζ + σ√p)⁴/(σ⁶ p⁴)``: ``n³/p²`` for equal data, ``n³/p⁴`` else. Kind: order.
    Source: derived from that order.

    Raises:
        ValueError: numbers out of range; without noise the transient never ends.
    """
    n = whole("n", n, least=1)
    mixing_rate = real("mixing_rate", mixing_rate, above=0, most=1, remedy="for a fixed W it is 1 - rho^2")
    noise_std = real("noise_std", noise_std, above=0)
    heterogeneity = real("heterogeneity", heterogeneity, least=0)
    slow = heterogeneity + noise_std * math.sqrt(mixing_rate)
    return _scale(smoothness, gap) * n**3 * slow**4 / (noise_std**6 * mixing_rate**4)


def epidemic_transient_order(n: int, s: int) -> float:
    """Give the order ``n³/s²`` of the transient iterations of Epidemic Learning, s messages per node and round.

    Kind: order. Source: de Vos et al. 2023, arXiv 2310.01972, abstract and theorem 1.

    Raises:
        ValueError: s outside 1 … n − 1.
    """
    n = whole("n", n, least=2)
    s = whole("s", s, least=1, most=n - 1, remedy="messages go to other nodes")
    return n**3 / s**2


def async_sgd_iterations(
    epsilon: Number,
    *,
    noise_std: Number,
    mean_delay: Number,
    max_delay: Number,
    delays: str = "average",
    smoothness: Number = 1.0,
    gap: Number = 1.0,
) -> AsynchronousIterations:
    """Give the order of iterations of asynchronous SGD to mean squared gradient ε on nonconvex functions.

    ``L gap (σ²/ε² + D/ε)``, with D for one and the same algorithm ``√(τ_max τ_avg)`` (``delays="average"``), earlier
    ``τ_max`` (``"maximum"``), and ``τ_avg`` for steps adapted to the delay (``"adaptive"``). Delays count from one, so
    that D = 1 is SGD. Kind: order. Source: Koloskova, Stich, Jaggi 2022, arXiv 2206.08307, abstract; the factor L gap
    recalled, not checked against the paper's text.

    Args:
        epsilon: ε > 0.
        noise_std: σ ≥ 0.
        mean_delay: τ_avg ≥ 1.
        max_delay: τ_max ≥ τ_avg.
        delays: which statement.
        smoothness: L > 0.
        gap: ``f(x_0) − f* > 0``.

    Raises:
        ValueError: numbers out of range, an unknown statement.
    """
    epsilon = real("epsilon", epsilon, above=0)
    noise_std = real("noise_std", noise_std, least=0)
    mean_delay = real("mean_delay", mean_delay, least=1)
    max_delay = real("max_delay", max_delay, least=mean_delay, remedy="no delay is longer than the longest")
    match choice("delays", delays, ("average", "adaptive", "maximum")):
        case "average":
            cost = math.sqrt(max_delay * mean_delay)
        case "adaptive":
            cost = float(mean_delay)
        case _:
            cost = float(max_delay)
    scale = _scale(smoothness, gap)
    noise, delay = scale * noise_std**2 / epsilon**2, scale * cost / epsilon
    return AsynchronousIterations(noise, delay, noise + delay)


# CHOCO


def choco_gossip_rounds_order(epsilon: Number, *, delta: Number, omega: Number) -> float:
    """Give the order ``ln(1/ε)/(δ²ω)`` of rounds of CHOCO-gossip to relative error ε.

    Kind: order. Source: Koloskova, Stich, Jaggi 2019, arXiv 1902.00340, abstract.

    Raises:
        ValueError: ε outside (0, 1), δ or ω outside (0, 1].
    """
    delta, omega = real("delta", delta, above=0, most=1), real("omega", omega, above=0, most=1)
    epsilon = real("epsilon", epsilon, above=0, below=1, remedy="it is relative to the error at the start")
    return math.log(1.0 / epsilon) / (delta**2 * omega)


def choco_sgd_order(n: int, iterations: int, *, delta: Number, omega: Number) -> float:
    """Give the order ``1/(nT) + 1/(T δ²ω)²`` of CHOCO-SGD's suboptimality on strongly convex functions.

    Kind: order. Source: Koloskova, Stich, Jaggi 2019, arXiv 1902.00340, abstract.

    Raises:
        ValueError: no node or iteration, δ or ω outside (0, 1].
    """
    n, iterations = whole("n", n, least=1), whole("iterations", iterations, least=1)
    delta, omega = real("delta", delta, above=0, most=1), real("omega", omega, above=0, most=1)
    return 1.0 / (n * iterations) + 1.0 / (iterations * delta**2 * omega) ** 2


# Speed-up


def linear_speed_up_ratio(
    n: Num[np.ndarray, " sizes"], value: Num[np.ndarray, " sizes"]
) -> Float[np.ndarray, " sizes"]:
    """Compute ``(n v_n)/(n_0 v_{n_0})`` against the first size: ones if a variance (or a time) falls exactly as 1/n.

    Kind: exact (the definition). For iterations to a target the same ratio, for a bound of order 1/√(Kn) take its
    square.

    Args:
        n: numbers of nodes.
        value: positive variance, squared error or time at each.

    Raises:
        ValueError: lengths that differ, values that are not positive.
    """
    n = reals("n", n, shape=(None,), above=0)
    value = reals("value", value, shape=n.shape, above=0, remedy="one for each n")
    return n * value / (n[0] * value[0])


def _scale(smoothness: Number, gap: Number) -> float:
    return real("smoothness", smoothness, above=0) * real("gap", gap, above=0)
