"""Gaussian differential privacy of noise that nodes share, in closed form, for steps of one round and many.

μ of a step with sensitivity Δ; over T steps with fresh noise ``√T μ``. Noise has the standard deviation σ in each
coordinate.

Reference: Dong, Roth and Su 2022 (Gaussian differential privacy). DECOR: Allouah et al. 2024, arXiv 2405.01031.
ZIP-DL: Biswas et al. 2025, arXiv 2403.11795.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm

from .arguments import flag, real, reals, square, whole, wholes

Number: TypeAlias = int | float


def gaussian_delta(mu: Number, epsilon: Number) -> float:
    """Give ``δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ)``.

    Kind: exact. Source: Balle and Wang 2018, theorem 8.
    """
    mu, epsilon = real("mu", mu, above=0), real("epsilon", epsilon, least=0)
    return float(norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu)))


def pairwise_mu_squared(
    adjacency: Float[np.ndarray, "n n"], sigma: Number, sigma_pair: Number, num_steps: int = 1, fresh: bool = True
) -> Float[np.ndarray, " n"]:
    """Give μ² of each node against an eavesdropper, for Δ = 1 and noise ``z_i + Σ_j v_ij`` with ``v_ji = −v_ij``.

    ``T (Σ⁻¹)_ii`` with ``Σ = σ² I + σ_pair² L``, if the v are drawn anew for every step. If they are reused in T ≥ 2
    steps, ``T/σ²``, as without noise of pairs: they cancel where the shifts of the steps sum to 0, which unit vectors
    can in two dimensions or more.

    Kind: exact. Source: the covariance of what is sent.
    """
    A = square("adjacency", adjacency, least=0, nodes=(2, None), symmetric=True)
    sigma, pair = real("sigma", sigma, above=0), real("sigma_pair", sigma_pair, least=0)
    steps = whole("num_steps", num_steps, least=1)
    covariance = sigma**2 * np.eye(len(A)) + pair**2 * (np.diag(A.sum(axis=1)) - A)
    once = np.diagonal(np.linalg.inv(covariance))
    if flag("fresh", fresh) or steps == 1:
        return steps * once
    return np.full(len(A), steps / sigma**2)


def zero_sum_mu_squared(degree: int, colluders: int, own_noise: bool = False) -> float:
    """Give μ² of a node that sends each of d neighbours its value with noise that sums to 0, for Δ = σ = 1.

    ``c (m − 1)/(m − c)`` against c colluding receivers, with m = d, or m = d + 1 if the node keeps a part of the noise
    itself; infinite at c = m. The noise is ``√(m/(m − 1))`` times m standard normals minus their mean.

    Kind: exact. Source: the covariance of c of the m.
    """
    d, c = whole("degree", degree, least=2), whole("colluders", colluders, least=1)
    m = d + flag("own_noise", own_noise)
    if c > d:
        raise ValueError(f"colluders={c}: must be at most degree={d}, the receivers")
    return float("inf") if c == m else c * (m - 1) / (m - c)


def zero_sum_weighted_mu_squared(weights: Float[np.ndarray, " m"], receivers: Int[np.ndarray, " c"]) -> float:
    """Give μ² of a node whose noise sums to 0 in receivers that weight its messages unequally, for Δ = σ = 1.

    Receiver k of m gets the noise ``w̄/w_k`` times that of :func:`zero_sum_mu_squared`, w̄ the mean of the weights. With
    ``u_k = w_k/w̄``, the c receivers C that collude learn ``(m − 1)/m (Σ_C u_k² + (Σ_C u_k)²/(m − c))``.

    Kind: exact. Source: the inverse of the covariance of c of the m.
    """
    w = reals("weights", weights, shape=(None,), above=0)
    who = np.unique(wholes("receivers", receivers, shape=(None,), least=0, most=len(w) - 1))
    m, c = len(w), len(who)
    if m < 2 or not c:
        raise ValueError(f"{m} weights and {c} receivers: must be at least two weights and one receiver that colludes")
    u = w[who] / w.mean()
    return float("inf") if c == m else float((m - 1) / m * (np.sum(u**2) + np.sum(u) ** 2 / (m - c)))


def curious_mu_squared(
    adjacency: Float[np.ndarray, "n n"], sigma: Number, sigma_pair: Number, observers: Int[np.ndarray, " o"]
) -> Float[np.ndarray, " n"]:
    """Give μ² of each node against curious nodes that pool what they know and hear everything, per step, for Δ = 1.

    They know the noise of their own pairs: what is left of ``Σ = σ² I + σ_pair² L`` is that of the graph without them.
    Infinity for the observers.

    Kind: exact. Source: the covariance of what is sent, given the noise of the observers' pairs.
    """
    A = square("adjacency", adjacency, least=0, nodes=(2, None), symmetric=True)
    curious = wholes("observers", observers, shape=(None,), least=0, most=len(A) - 1)
    others = np.setdiff1d(np.arange(len(A)), curious)
    if not len(others):
        raise ValueError("observers: nobody is left to be protected; name fewer")
    found = np.full(len(A), np.inf)
    sigma, pair = real("sigma", sigma, above=0), real("sigma_pair", sigma_pair, least=0)
    rest = A[np.ix_(others, others)]
    found[others] = np.diagonal(
        np.linalg.inv(sigma**2 * np.eye(len(rest)) + pair**2 * (np.diag(rest.sum(axis=1)) - rest))
    )
    return found


def factorized_mu_squared(C: Float[np.ndarray, "t t"]) -> float:
    """Give μ² of all steps of a node against an eavesdropper, if the noise of its steps is ``C⁻¹ z``, for Δ = σ = 1.

    C is lower triangular, z of independent standard normals. Steps s and t are then seen with the precision ``M =
    CᵀC``, and equal shifts are the worst if no entry is negative: ``1ᵀM1``. Anti-correlated noise (AntiPGD), C the
    matrix of prefix sums, has ``T (T + 1) (2T + 1)/6``, and independent noise T.

    Kind: exact. Source: the covariance ``(CᵀC)⁻¹`` of what is sent.
    """
    C = _triangular(C)
    M = C.T @ C
    if (M < 0).any():
        raise ValueError("C: CᵀC has negative entries, so that equal shifts are not the worst; C must have none")
    return float(M.sum())


def factorized_variances(C: Float[np.ndarray, "t t"]) -> Float[np.ndarray, " t"]:
    """Give the variance of the noise of a node's model after each step, if the noise of its steps is ``C⁻¹ z``.

    The diagonal of ``A (CᵀC)⁻¹ Aᵀ`` with A the prefix sums: 1 at every step for C = A, and 1, 2, 3, … for C = I.

    Kind: exact. Source: the sum of the noise up to a step.
    """
    C = _triangular(C)
    summed = np.tril(np.ones_like(C)) @ np.linalg.inv(C)
    return np.sum(summed**2, axis=1)


def _triangular(C: Float[np.ndarray, "t t"]) -> Float[np.ndarray, "t t"]:
    C = square("C", C)
    if np.triu(C, 1).any() or (np.diagonal(C) == 0).any():
        raise ValueError("C: must be lower triangular, without 0 on its diagonal, since noise cannot foresee steps")
    return C
