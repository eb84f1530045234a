"""Consensus distance for given updates of the nodes: any loss, as long as the updates change slowly.

Source: derived here. It is the modal sum of :mod:`theory.consensus` in the limit of small steps, for any W whose powers
converge to the average.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from jaxtyping import Float

from .arguments import reals, square


def consensus_from_updates(
    W: Float[np.ndarray, "n n"],
    updates: Float[np.ndarray, "n d"],
    variances: Float[np.ndarray, " n"],
    *,
    mean_error: Float[np.ndarray, " n"] | float = 0.0,
) -> float:
    """Return the stationary consensus distance of ``x ← W (x + u + ξ)`` with fixed mean updates u and noise ξ.

    With Π = I − J and K = W (I − W + J)⁻¹ Π::

        (1/n) E Σ_i ‖x_i − x̄‖² = (1/n) [ ‖K u‖²_F + tr C ],      C = W (C + Π D Π) Wᵀ,   D = diag(v)

    The result is exact for constant u and v. To predict a learning run, let u be the mean updates at the nodes' own
    models; they must be nearly constant over the 1/(1 − ρ) rounds that the network remembers. The noise term neglects
    curvature (order step size × curvature). Kind: exact for the linear system; an approximation for a learning run.

    Args:
        W: doubly stochastic, ρ < 1; need not be symmetric.
        updates: u, the mean change of each node per round (−η times its mean gradient).
        variances: v, the variance of each node's change per round, summed over the d coordinates.
        mean_error: total variance of the error of each row of ``updates``, if they are estimates; its expected
            contribution to ‖K u‖² is subtracted.

    Raises:
        ValueError: shapes that do not fit, rows or columns that do not sum to one, or ρ = 1 (no convergence).
    """
    W = square("W", W, sums="rows and columns")
    n = len(W)
    updates = reals("updates", updates, shape=(n, None))
    variances = reals("variances", variances, shape=(n,), least=0)
    mean_error = reals("mean_error", mean_error, least=0, remedy="one number, or one for each node")
    if mean_error.shape not in ((), (n,)):
        raise ValueError(f"mean_error of shape {mean_error.shape}: must be one number, or one for each of {n} nodes")
    average = np.full((n, n), 1.0 / n)
    project = np.eye(n) - average
    if np.abs(np.linalg.eigvals(W - average)).max() > 1 - 1e-12:
        raise ValueError("W has a second eigenvalue of modulus one: disagreement never shrinks; connect the graph")
    kernel = W @ np.linalg.solve(np.eye(n) - W + average, project)
    drift = np.sum((kernel @ updates) ** 2) - np.sum(kernel**2 @ np.broadcast_to(mean_error, (n,)))
    reduced = W @ project
    noise = scipy.linalg.solve_discrete_lyapunov(reduced, reduced @ np.diag(variances) @ reduced.T)
    return float((drift + np.trace(noise)) / n)
