"""Gradient descent on stale gradients: stability, speed and stationary noise of a quadratic.

In one coordinate of curvature a, with ``h = ηa`` for step size η, a gradient that is τ steps old gives::

    x_{t+1} = x_t − h x_{t−τ} (+ σ ξ_t),      ξ_t independent, of mean 0 and variance 1

whose modes are the roots of ``z^{τ+1} − z^τ + h``. For a vector the coordinates decouple along the Hessian's
eigenvectors, so the largest eigenvalue decides about stability. ``step`` means h everywhere here. With i.i.d. random
delays the same polynomial, averaged over the delay, governs the *mean* iterate, not the mean square.

Each docstring gives the statement, its assumptions, its source and its kind: *exact*, *bound* or *asymptotic*, and says
"recalled" where the source's text was not at hand.

Reference: Levin and May 1976, "A note on difference-delay equations" (the stability threshold); Mitliagkas, Zhang,
Hadjis, Ré 2016, arXiv 1605.09774 (geometric delays act as momentum); both recalled. Otherwise derived here.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import scipy.linalg
from jaxtyping import Float, Num

from theory.arguments import pmf, real, whole

Number: TypeAlias = int | float
_PAST = "gradients come from the past"


def stability_threshold(delay: int) -> float:
    """Compute the step ``2 sin(π/(2(2τ + 1)))`` at which a fixed delay τ turns unstable.

    ``x_{t+1} = x_t − h x_{t−τ}`` tends to zero from every start if and only if h > 0 is below it: 2 without delay, 1
    for τ = 1, about π/(2τ) for long delays. Kind: exact. Source: Levin and May 1976, recalled, not checked against the
    paper's text.

    Raises:
        ValueError: a negative delay.
    """
    delay = whole("delay", delay, least=0, remedy=_PAST)
    return 2.0 * math.sin(math.pi / (2 * (2 * delay + 1)))


def best_step(delay: int) -> float:
    """Compute the step ``τ^τ/(τ + 1)^{τ+1}`` of fastest convergence, at which two real roots meet; 1 for τ = 0.

    Kind: exact. Source: derived here from the double root of ``z^{τ+1} − z^τ + h``.

    Raises:
        ValueError: a negative delay.
    """
    delay = whole("delay", delay, least=0, remedy=_PAST)
    return math.exp(-delay * math.log1p(1.0 / delay)) / (delay + 1) if delay else 1.0


def best_linear_factor(delay: int) -> float:
    """Compute the linear factor ``τ/(τ + 1)`` of :func:`best_step`: no step gets below it. Kind: exact.

    Raises:
        ValueError: a negative delay.
    """
    delay = whole("delay", delay, least=0, remedy=_PAST)
    return delay / (delay + 1)


def linear_factor(step: Number, delay: int) -> float:
    """Compute the largest modulus of the roots of ``z^{τ+1} − z^τ + h``, by which errors shrink (or grow) per step.

    Kind: exact, with rounding of about 1e-14, but 1e-8 where roots meet, near :func:`best_step`.

    Args:
        step: h = step size times curvature.
        delay: τ, in steps.

    Raises:
        ValueError: a negative delay, or a step that is not a finite number.
    """
    step = real("step", step)
    delay = whole("delay", delay, least=0, remedy=_PAST)
    shares = np.zeros(delay + 1)
    shares[delay] = 1.0
    return _largest_root(step, shares)


def stationary_variance(step: Number, delay: int, noise_std: Number = 1.0) -> float:
    """Compute the stationary variance of ``x_{t+1} = x_t − h x_{t−τ} + σ ξ_t``, by Lyapunov's equation.

    With the delay line ``z_t = (x_t, …, x_{t−τ})``, ``z_{t+1} = M z_t + σ ξ_t e_1``: ``C = M C Mᵀ + σ² e_1 e_1ᵀ``, and
    the answer is C_11. Special cases: ``σ²/(1 − (1 − h)²)`` for τ = 0, ``σ² (1 + h)/(h (1 − h)(2 + h))`` for τ = 1.
    Kind: exact. Source: derived here.

    Args:
        step: h = step size times curvature.
        delay: τ, in steps.
        noise_std: σ, noise added to the iterate per step (step size times the gradient's noise).

    Raises:
        ValueError: a step that is not stable (naming the threshold), a negative delay or noise.
    """
    threshold = stability_threshold(delay)
    step = real("step", step)
    if not 0 < step < threshold:
        raise ValueError(f"step={step}: must be above 0 and below {threshold} for delay={delay}; take a smaller step")
    noise_std = real("noise_std", noise_std, least=0)
    line = np.eye(delay + 1, k=-1)
    line[0, 0] += 1.0
    line[0, delay] -= step
    source = np.zeros_like(line)
    source[0, 0] = 1.0
    return float(noise_std**2 * scipy.linalg.solve_discrete_lyapunov(line, source)[0, 0])


def mean_linear_factor(step: Number, delay_pmf: Num[np.ndarray, " delays"]) -> float:
    """Compute the linear factor of the mean iterate when each step draws its delay l from a pmf P, independently.

    ``E x_{t+1} = E x_t − h Σ_l P(l) E x_{t−l}``: the largest root modulus of ``z^{D+1} − z^D + h Σ_l P(l) z^{D−l}``, D
    the longest delay. For the mean square see :func:`mean_square_factor`. Kind: exact for the mean. Source: derived
    here.

    Args:
        step: h = step size times curvature.
        delay_pmf: P(0), …, P(D), summing to one.

    Raises:
        ValueError: a step that is not finite, or probabilities that are negative or do not sum to one.
    """
    step = real("step", step)
    return _largest_root(step, np.trim_zeros(pmf("delay_pmf", delay_pmf), "b"))


def geometric_delay_pmf(p: Number, size: int) -> Float[np.ndarray, " size"]:
    """Compute ``P(l) = (1 − p)p^l`` for delays l = 0 … size − 1, divided by its sum so that the cut is a pmf.

    Kind: exact for the cut law.

    Raises:
        ValueError: p outside [0, 1), or a size below one.
    """
    p = real("p", p, least=0, below=1, remedy="0 means no delay")
    size = whole("size", size, least=1)
    shares = np.float64(p) ** np.arange(size)
    return shares / shares.sum()


def geometric_delay_threshold(p: Number) -> float:
    """Compute the step ``2(1 + p)/(1 − p)`` at which the mean iterate turns unstable for delays ``P(l) = (1 − p)p^l``.

    Above 2, the threshold without delay: for the mean, not the mean square, which turns unstable earlier. Assumes:
    i.i.d. delays. Kind: exact for the mean. Source: derived here, from the heavy ball of
    :func:`geometric_linear_factor`.

    Raises:
        ValueError: p outside [0, 1).
    """
    p = real("p", p, least=0, below=1, remedy="0 means no delay")
    return 2.0 * (1.0 + p) / (1.0 - p)


def geometric_linear_factor(step: Number, p: Number) -> float:
    """Compute the linear factor of the mean iterate for i.i.d. delays ``P(l) = (1 − p)p^l``.

    The mean y obeys the heavy ball ``y_{t+1} = y_t − (1 − p) h y_t + p (y_t − y_{t−1})``: the largest root modulus of
    ``z² − (1 + p − (1 − p)h) z + p``, √p where the roots are complex. Kind: exact for the mean. Source: derived here;
    Mitliagkas et al. 2016 (momentum p), recalled, not checked against the paper's text.

    Args:
        step: h = step size times curvature.
        p: ratio of the geometric law; the mean delay is p/(1 − p).

    Raises:
        ValueError: a step that is not finite, or p outside [0, 1).
    """
    step = real("step", step)
    p = real("p", p, least=0, below=1, remedy="0 means no delay")
    half = 0.5 * (1.0 + p - (1.0 - p) * step)
    gap = half**2 - p
    return math.sqrt(p) if gap <= 0 else abs(half) + math.sqrt(gap)


def mean_square_factor(step: Number, delay_pmf: Num[np.ndarray, " delays"]) -> float:
    """Compute the factor by which ``E x²`` shrinks (or grows) per step with i.i.d. delays drawn from a pmf P.

    The spectral radius of ``K ↦ Σ_l P(l) A_l K A_lᵀ`` on ``K = E z zᵀ``, z the delay line and ``A_l`` its step with
    delay l. At least the square of :func:`mean_linear_factor`. Kind: exact, O(D^6). Source: derived here.

    Raises:
        ValueError: a step that is not finite, more than 32 delays, or no pmf.
    """
    step = real("step", step)
    shares = pmf("delay_pmf", delay_pmf, most=32)
    length = len(shares)
    flow = np.zeros((length**2, length**2))
    for delay, probability in enumerate(shares.tolist()):
        line = np.eye(length, k=-1)
        line[0, 0] += 1.0
        line[0, delay] -= step
        flow += probability * np.kron(line, line)
    return float(np.max(np.abs(np.linalg.eigvals(flow))))


def bounded_delay_step(smoothness: Number, max_delay: int, constant: Number) -> float:
    """Compute ``C/(L max(τ, 1))``, the order of a step size small enough for delays of at most τ, L-smooth functions.

    Some C exists for which every such sequence of delays converges; C is the caller's. Source: classical for delayed
    gradient methods, recalled, not checked against a paper's text. Kind: lower bound on the largest stable step size,
    order only.

    Raises:
        ValueError: a negative delay, or numbers that are not positive.
    """
    max_delay = whole("max_delay", max_delay, least=0, remedy=_PAST)
    smoothness, constant = real("smoothness", smoothness, above=0), real("constant", constant, above=0)
    return constant / (smoothness * max(max_delay, 1))


def _largest_root(step: float, shares: np.ndarray) -> float:
    """Return the largest root modulus of z^{D+1} − z^D + h Σ_l shares_l z^{D−l}."""
    coefficients = np.concatenate([[1.0], step * shares])
    coefficients[1] -= 1.0
    return float(np.max(np.abs(np.roots(coefficients)), initial=0.0))
