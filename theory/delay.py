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


def bounded_staleness_step(n: int, bound: int) -> float:
    """Compute the step ``n/(2B(n − 1))`` below which gossip of updates converges if staleness is at most B.

    n users share one coordinate of curvature a, with their optimum at 0. A model is the start plus the mean of all
    updates that its user has heard of, and user i, acting at step t, adds ``−h v_t`` to the sum of its updates, where
    ``v_t`` is its model. Of every other user at most the last B updates are missing in it. Then all models tend to the
    optimum from every start and in every order, if every user acts infinitely often, h > 0 and ``ρ = hB(n−1)/n < ½``.

    Proof. Let ``e_t`` be the model that knows all updates: ``e_{t+1} = e_t − (h/n) v_t``. At most B(n − 1) updates are
    missing in v_t, so ``|v_t − e_t| ≤ ρ V``, V the largest |v| among them. The steps of missing updates go to infinity
    with t, because every user acts infinitely often. Let e and v be the limits superior of |e_t| and |v_t|, which are
    finite by the same inequalities for maxima up to t. Then ``v ≤ e + ρv``, and, as ``h/n < 1``,
    ``e ≤ (1 − h/n) e + (h/n) ρv ≤ (1 − h/n + (h/n) ρ/(1−ρ)) e``. The factor is below one, so e = 0. ∎

    The difference of two runs with different data obeys the same recursion: they forget their starts. For large n the
    condition is hB < ½. It is sufficient and not necessary; no such condition can allow more than
    :func:`exchange_threshold`, about hB = 2. Averaging of models at one optimum converges for every h < 2 and any
    staleness. Kind: bound. Source: that bounded staleness suffices is stated by Mitra and Ulukus 2024, arXiv
    2404.19749; their constants are not known, and condition and proof are derived here.

    Args:
        n: users, at least two.
        bound: B ≥ 1, updates.

    Raises:
        ValueError: fewer than two users, or a bound below one.
    """
    n = whole("n", n, least=2, remedy="staleness is between users")
    return n / (2 * whole("bound", bound, least=1, remedy="an update is missing until it has been sent") * (n - 1))


def exchange_factor(step: Number, n: int, bound: int) -> float:
    """Compute the factor ``1 − n(1 − (1 − h/n)^B)`` of the model per exchange, if users learn alone for B steps.

    The scheme of :func:`bounded_staleness_step` with messages of all to all after every B steps of each user. Kind:
    exact.

    Raises:
        ValueError: a step that is not a finite number, fewer than two users, or a bound below one.
    """
    n, bound = whole("n", n, least=2, remedy="staleness is between users"), whole("bound", bound, least=1)
    share = real("step", step) / n
    # Of n in the millions, 1 − h/n keeps few digits of h.
    change = math.expm1(bound * math.log1p(-share)) if share < 1 else (1.0 - share) ** bound - 1.0
    return 1.0 + n * change


def exchange_threshold(n: int, bound: int) -> float:
    """Compute the smallest step at which :func:`exchange_factor` is −1: ``n(1 − (1 − 2/n)^{1/B})``.

    It is about 2/B for large n. For n > 2 the factor is below −1 just above it, so models diverge. Kind: exact.

    Raises:
        ValueError: fewer than two users, or a bound below one.
    """
    n, bound = whole("n", n, least=2, remedy="staleness is between users"), whole("bound", bound, least=1)
    return -n * math.expm1(math.log1p(-2.0 / n) / bound) if n > 2 else 2.0
