"""Spectral gaps and averaging rates: how fast gossip removes differences.

Each docstring gives the statement, its assumptions, its source, and its kind: *exact*, *upper bound*, or *recalled*
(from memory of the literature, not derived again). J = 1 1ᵀ / n throughout; V = Σ_i ‖x_i − x̄‖².
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Num
from scipy import sparse

from .arguments import choice, real, reals, square, whole

Matrix: TypeAlias = sparse.sparray | Num[np.ndarray, "rows columns"]

_DENSE = 1500


def contraction_factor(W: Matrix) -> float:
    """Compute the contraction factor ρ = ‖W − J‖₂ of a doubly stochastic matrix.

    ‖W^t x − x̄‖ ≤ ρ^t ‖x − x̄‖ for every x. Kind: exact (the definition; the bound is attained after one step).
    Assumes: W doubly stochastic, of any sign and symmetry. Source: Xiao, Boyd (2004).

    Args:
        W: ``(n, n)``. Up to 1500 nodes all singular values are computed; beyond, Lanczos iteration is used.
    """
    W = _matrix("W", W)
    n = W.shape[0]
    if n <= _DENSE:
        return float(np.linalg.norm(_dense(W) - 1 / n, 2))
    W = sparse.csr_array(W, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n)
    if abs(W - W.T).max() == 0:
        deviation = _minus_mean(W)
        return float(abs(sparse.linalg.eigsh(deviation, k=1, which="LM", v0=start, return_eigenvectors=False)[0]))
    return float(sparse.linalg.svds(_minus_mean(W), k=1, v0=start, return_singular_vectors=False)[0])


def spectral_gap(W: Matrix) -> float:
    """Compute the spectral gap 1 − ‖W − J‖₂ of a doubly stochastic matrix. Kind: exact (the definition)."""
    return 1 - contraction_factor(W)


def slem(W: Matrix) -> float:
    """Compute the second largest modulus among the eigenvalues of a row- or column-stochastic matrix.

    It is the asymptotic rate, ‖W^t x − lim‖ ~ SLEM^t; equal to ρ for normal matrices, and at most ρ for others. Kind:
    exact. Assumes: 1 is an eigenvalue; it is left out once.
    """
    W = _matrix("W", W)
    n = W.shape[0]
    if n == 1:
        return 0.0
    if n <= _DENSE:
        eigenvalues = np.linalg.eigvals(_dense(W))
    else:
        start = np.random.default_rng(0).standard_normal(n)
        W = sparse.csr_array(W, dtype=np.float64)
        eigenvalues = sparse.linalg.eigs(W, k=2, which="LM", v0=start, return_eigenvectors=False)
    return float(np.abs(np.delete(eigenvalues, np.argmin(np.abs(eigenvalues - 1)))).max())


def contraction_ring(num_nodes: int) -> float:
    """Return ρ of the ring with weights 1/3: max_{k≥1} |1 + 2 cos(2πk/n)| / 3. Kind: exact, for n ≥ 3 (else
    ValueError).

    Source: eigenvalues of a circulant matrix.
    """
    num_nodes = whole("num_nodes", num_nodes, least=3, remedy="in a smaller ring a node lacks two distinct neighbours")
    return float(np.abs(1 + _cosines(num_nodes)[1:]).max() / 3)


def contraction_path(num_nodes: int) -> float:
    """Return ρ of the path with edge weights 1/3: (1 + 2 cos(π/n)) / 3. Kind: exact.

    Source: Laplacian eigenvalues 2 − 2 cos(πk/n). For n ≥ 3 these are the max-degree and the Metropolis weights.
    """
    num_nodes = whole("num_nodes", num_nodes, least=1)
    return (1 + 2 * math.cos(math.pi / num_nodes)) / 3 if num_nodes > 1 else 0.0


def contraction_torus(rows: int, columns: int) -> float:
    """Return ρ of the torus with weights 1/5: max |1 + 2 cos(2πk/r) + 2 cos(2πl/c)| / 5 over (k, l) ≠ (0, 0).

    Kind: exact, for sides of at least 3 (else ValueError). Source: eigenvalues of a Cartesian product of cycles.
    """
    remedy = "in a smaller torus a node lacks four distinct neighbours"
    rows, columns = (
        whole("rows", rows, least=3, remedy=remedy),
        whole("columns", columns, least=3, remedy=remedy),
    )
    eigenvalues = 1 + _cosines(rows)[:, None] + _cosines(columns)[None, :]
    return float(np.abs(eigenvalues.ravel()[1:]).max() / 5)


def contraction_hypercube(dimension: int) -> float:
    """Return ρ of the hypercube with weights 1/(d + 1): (d − 1)/(d + 1). Kind: exact.

    Source: Laplacian eigenvalues 2k, k = 0..d.
    """
    dimension = whole("dimension", dimension, least=0)
    return (dimension - 1) / (dimension + 1) if dimension else 0.0


def contraction_star(num_nodes: int) -> float:
    """Return ρ of the star with Metropolis weights 1/n: 1 − 1/n for n ≥ 3, else 0. Kind: exact.

    Source: Laplacian eigenvalues 0, 1 (n − 2 times) and n.
    """
    num_nodes = whole("num_nodes", num_nodes, least=1)
    return 1 - 1 / num_nodes if num_nodes > 2 else 0.0


def contraction_complete(num_nodes: int) -> float:
    """Return ρ of the complete graph with weights 1/n: 0, since W = J. Kind: exact."""
    num_nodes = whole("num_nodes", num_nodes, least=1)
    return 0.0


def contraction_exponential(num_nodes: int) -> float:
    """Return ρ of the static exponential graph: i sends to i + 2^k, k < τ = ⌈log₂ n⌉, with weights 1/(τ + 1).

    ρ = max_{m≥1} |1 + Σ_k ω^{m 2^k}| / (τ + 1), ω = exp(2πi/n), since the matrix is circulant, hence normal. Kind:
    exact for every n. For even n it is 1 − 2/(1 + τ), for odd n it is smaller. Source: Ying et al. (2021), proposition
    1.
    """
    num_nodes = whole("num_nodes", num_nodes, least=1)
    rounds = (num_nodes - 1).bit_length()
    if num_nodes == 1:
        return 0.0
    first_row = np.zeros(num_nodes)
    first_row[[0, *(2**k for k in range(rounds))]] = 1 / (rounds + 1)
    return float(np.abs(np.fft.fft(first_row))[1:].max())


def contraction_best_constant(adjacency: Matrix) -> float:
    """Return ρ of the best constant edge weight: (ℓ_n − ℓ₂)/(ℓ_n + ℓ₂) for the weight 2/(ℓ₂ + ℓ_n). Kind: exact.

    Assumes: undirected and connected; Laplacian eigenvalues 0 = ℓ₁ < ℓ₂ ≤ … ≤ ℓ_n. Source: Xiao, Boyd (2004). Optimal
    among all symmetric weights on edge-transitive graphs (recalled).
    """
    eigenvalues = np.linalg.eigvalsh(laplacian(adjacency))
    if len(eigenvalues) == 1:
        return 0.0
    if not eigenvalues[1] > 1e-12 * eigenvalues[-1]:
        raise ValueError("adjacency: must be of a connected graph; connect it")
    return float((eigenvalues[-1] - eigenvalues[1]) / (eigenvalues[-1] + eigenvalues[1]))


def laplacian(adjacency: Matrix) -> Float[np.ndarray, "n n"]:
    """Compute the Laplacian D − A of an undirected graph, dense."""
    A = _dense(_matrix("adjacency", adjacency, least=0))
    if not np.array_equal(A, A.T):
        raise ValueError("adjacency is not symmetric: these formulas are for undirected graphs")
    return np.diag(A.sum(axis=1)) - A


def pairwise_matrix(adjacency: Matrix) -> Float[np.ndarray, "n n"]:
    """Compute W̄ = E W of pairwise averaging in which a random node wakes and picks a random neighbour.

    W̄ = I − (D − P − Pᵀ)/(2n), P_ij = A_ij / d_i, D = diag Σ_j (P_ij + P_ji). Kind: exact. Assumes: undirected, no
    isolated node. Source: Boyd, Ghosh, Prabhakar, Shah (2006), equation (5).
    """
    A = np.diag(np.diag(laplacian(adjacency))) - laplacian(adjacency)
    degrees = A.sum(axis=1)
    if not degrees.all():
        raise ValueError(f"node {np.argmin(degrees)} has no neighbour to average with")
    P = A / degrees[:, None]
    return np.eye(len(A)) - (np.diag((P + P.T).sum(axis=1)) - P - P.T) / (2 * len(A))


def edge_clock_matrix(adjacency: Matrix) -> Float[np.ndarray, "n n"]:
    """Compute W̄ = E W of pairwise averaging over a random edge: I − L/(2m), m edges. Kind: exact.

    Assumes: undirected, at least one edge. Source: the mean of I − (e_i − e_j)(e_i − e_j)ᵀ/2 over the edges.
    """
    L = laplacian(adjacency)
    if not np.trace(L):
        raise ValueError("adjacency: must have at least one edge")
    return np.eye(len(L)) - L / np.trace(L)


def pairwise_contraction(adjacency: Matrix, *, clock: str = "node") -> float:
    """Compute λ₂(W̄): E V after k pairwise events is at most λ₂^k V. Kind: upper bound, exact on complete graphs.

    Assumes: those of :func:`pairwise_matrix` (``clock="node"``) or :func:`edge_clock_matrix` (``clock="edge"``), n ≥ 2.
    On a d-regular graph λ₂ = 1 − ℓ₂/(n d) for both; on K_n it is (n − 2)/(n − 1). Source: Boyd et al. (2006).
    """
    mean = _mean_event(adjacency, clock)
    if len(mean) < 2:
        raise ValueError("adjacency of shape (1, 1): pairs need at least 2 nodes")
    return float(np.linalg.eigvalsh(mean)[-2])


def pairwise_one_event(adjacency: Matrix, x: Num[np.ndarray, " n *d"], *, clock: str = "node") -> float:
    """Compute E V after one event of pairwise averaging: (x − x̄)ᵀ W̄ (x − x̄), summed over columns.

    Kind: exact, because every event is a projection (W² = W = Wᵀ). Assumes: see :func:`pairwise_contraction`. Source:
    Boyd et al. (2006).

    Args:
        adjacency: ``(n, n)``.
        x: ``(n,)`` or ``(n, d)`` states before the event.
        clock: ``"node"`` or ``"edge"``.
    """
    n = _matrix("adjacency", adjacency).shape[0]
    values = reals("x", x, remedy="one row per node")
    if values.ndim not in (1, 2) or len(values) != n:
        raise ValueError(f"x of shape {values.shape}: must be ({n},) or ({n}, d), one row per node")
    deviation = values.reshape(n, -1)
    deviation = deviation - deviation.mean(axis=0)
    return float(np.sum(deviation * (_mean_event(adjacency, clock) @ deviation)))


def averaging_time_bounds(lambda2: float, epsilon: float) -> tuple[float, float]:
    """Bound the ε-averaging time, in events: from 0.5 ln(1/ε)/ln(1/λ₂) to 3 ln(1/ε)/ln(1/λ₂).

    After this time P(‖x − x̄‖ ≥ ε ‖x(0)‖) ≤ ε from every start. Kind: recalled; good for a test of slopes only. Source:
    Boyd et al. (2006), theorem 3.

    Raises:
        ValueError: if λ₂ or ε is not between 0 and 1.
    """
    lambda2, epsilon = real("lambda2", lambda2, above=0, below=1), real("epsilon", epsilon, above=0, below=1)
    unit = math.log(1 / epsilon) / math.log(1 / lambda2)
    return 0.5 * unit, 3 * unit


def _mean_event(adjacency: Matrix, clock: str) -> Float[np.ndarray, "n n"]:
    choice("clock", clock, ("node", "edge"))
    return pairwise_matrix(adjacency) if clock == "node" else edge_clock_matrix(adjacency)


def _cosines(num_nodes: int) -> Float[np.ndarray, " n"]:
    return 2 * np.cos(2 * np.pi * np.arange(num_nodes) / num_nodes)


def _matrix(name: str, value: Any, least: int | None = None) -> Any:
    """Check a square matrix; a sparse one stays sparse."""
    if not sparse.issparse(value):
        return square(name, value, least=least)
    if value.ndim != 2 or value.shape[0] != value.shape[1] or not value.shape[0]:
        raise ValueError(f"{name} of shape {value.shape}: must be a square matrix of at least 1 nodes")
    if value.nnz:
        reals(f"the entries of {name}", value.data, least=least)
    return value


def _dense(W: Matrix) -> Float[np.ndarray, "n n"]:
    return sparse.csr_array(W, dtype=np.float64).toarray()


def _minus_mean(W: sparse.csr_array) -> sparse.linalg.LinearOperator:
    """Return x ↦ (W − J) x without forming J."""
    return sparse.linalg.LinearOperator(
        W.shape,
        matvec=lambda x: W @ x.ravel() - x.mean(),
        rmatvec=lambda x: W.T @ x.ravel() - x.mean(),
        dtype=np.float64,
    )
