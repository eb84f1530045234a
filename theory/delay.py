"""Gradient descent on stale gradients: stability, speed and stationary noise of a quadratic.

In one coordinate of curvature a, let ``h = ηa`` for step size η. Gradients that are τ steps old give::

    x_{t+1} = x_t − h x_{t−τ} (+ σ ξ_t),      ξ_t independent, of mean 0 and variance 1

The modes of this recursion are the roots of ``z^{τ+1} − z^τ + h``. Vectors decouple along the Hessian's eigenvectors,
so the largest eigenvalue decides stability. The argument ``step`` is always h.

Each docstring gives the statement, its assumptions, its source and its kind: *exact*, *bound* or *asymptotic*.
"Recalled" marks a formula that was not checked against the source's text.

Reference: Levin and May 1976, "A note on difference-delay equations" (the stability threshold), recalled. Otherwise
derived here.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import scipy.linalg

from .arguments import real, whole

Number: TypeAlias = int | float
_PAST = "a gradient cannot come from the future"


def stability_threshold(delay: int) -> float:
    """Compute the step ``2 sin(π/(2(2τ + 1)))`` at which gradient descent with a fixed delay τ becomes unstable.

    ``x_{t+1} = x_t − h x_{t−τ}`` tends to zero from every start if and only if h > 0 is below this threshold: 2 without
    delay, 1 for τ = 1, about π/(2τ) for long delays. Kind: exact. Source: Levin and May 1976, recalled, not checked
    against the paper's text.

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
    """Compute the linear factor ``τ/(τ + 1)`` of :func:`best_step`, the smallest of any step. Kind: exact.

    Raises:
        ValueError: a negative delay.
    """
    delay = whole("delay", delay, least=0, remedy=_PAST)
    return delay / (delay + 1)


def linear_factor(step: Number, delay: int) -> float:
    """Compute the largest modulus of the roots of ``z^{τ+1} − z^τ + h``, by which errors shrink or grow in each step.

    Kind: exact. Rounding errors are about 1e-14, but 1e-8 near :func:`best_step`, where roots meet.

    Args:
        step: h = step size times curvature.
        delay: τ, in steps.

    Raises:
        ValueError: a negative delay, or a step that is not a finite number.
    """
    step = real("step", step)
    delay = whole("delay", delay, least=0, remedy=_PAST)
    coefficients = np.zeros(delay + 2)
    coefficients[0] = 1.0
    coefficients[1] -= 1.0
    coefficients[-1] += step
    return float(np.max(np.abs(np.roots(coefficients)), initial=0.0))


def stationary_variance(step: Number, delay: int, noise_std: Number = 1.0) -> float:
    """Compute the stationary variance of ``x_{t+1} = x_t − h x_{t−τ} + σ ξ_t``, by Lyapunov's equation.

    The delay line ``z_t = (x_t, …, x_{t−τ})`` obeys ``z_{t+1} = M z_t + σ ξ_t e_1``, its covariance solves
    ``C = M C Mᵀ + σ² e_1 e_1ᵀ``, and the result is C_11. Special cases: ``σ²/(1 − (1 − h)²)`` for τ = 0,
    ``σ² (1 + h)/(h (1 − h)(2 + h))`` for τ = 1.
    Kind: exact. Source: derived here.

    Args:
        step: h = step size times curvature.
        delay: τ, in steps.
        noise_std: σ, standard deviation of the noise that each step adds to the iterate (step size times the gradient's
            noise).

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
