"""The symmetric weights of a graph that contract fastest (FDLA)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import sparse

from gossipjax._base.arguments import real, shown
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.mixing._weights import _complete_rows, _undirected, best_constant
from gossipjax.topology import Topology

_POWERS = tuple(2**k for k in range(3, 17))
"""Exponents p of the smooth norms, one after another: (Σ λ^2p)^(1/2p) is above max |λ| by a factor n^(1/2p) at most."""


@recorded("xiao2004averaging")
def fastest(topology: Topology, *, gap: float = 1e-3) -> sparse.csr_array:
    """Build the symmetric weights that contract fastest: rows sum to one, weights may be negative.

    Minimizes ``ρ = ‖W − J‖₂`` over all symmetric W with ``W 1 = 1`` and entries on the edges and the diagonal only, a
    convex problem. It is solved by minimizing Schatten norms ``(Σ_k λ_k^2p)^(1/2p)`` of W − J for increasing p, whose
    gradients also give a lower bound of ρ; the search ends when W is within ``gap`` of that bound.

    >>> import numpy as np
    >>> from gossipjax import mixing, topology
    >>> path = topology.path(4)
    >>> rho = lambda W: np.linalg.norm(W.toarray() - 1 / 4, 2).round(3)
    >>> rho(mixing.metropolis(path)), rho(mixing.best_constant(path)), rho(mixing.fastest(path))
    (np.float64(0.805), np.float64(0.707), np.float64(0.707))

    Args:
        topology: undirected and connected. Takes O(n³) time a step and O(n²) memory, however many edges there are: for
            up to a few hundred nodes.
        gap: largest relative excess of ρ over its lower bound, at least 1e-5. Some graphs do not reach less than 1e-3.

    Returns:
        ``(n, n)`` float64. Pass ``allow_negative=True`` to :func:`check_weights`.

    Raises:
        ValueError: if the graph is directed or disconnected, gap is out of range or was not reached.

    Reference: Xiao, Boyd (2004), "Fast linear iterations for distributed averaging", section 4.2 (the problem).
    """
    gap = real("gap", gap, least=1e-5, below=1, remedy="1e-3 is enough for experiments")
    graph = _undirected(topology, "fastest")
    n = graph.num_nodes
    # Some ten dense matrices; L-BFGS holds twenty vectors of the edges, and the lists of edges are a few more.
    size = 80.0 * n * n + 200.0 * graph.num_edges
    check_memory(f"topology={graph.name}: the eigenvectors of a dense matrix", size, "use best_constant")
    start = best_constant(graph)
    if n < 3:
        return start
    from scipy import optimize  # takes almost a second, which only this function needs

    one_way = graph.senders < graph.receivers
    i, j = graph.receivers[one_way], graph.senders[one_way]
    weights = start.toarray()[i, j]
    best, bound = (float(np.linalg.norm(start.toarray() - 1 / n, 2)), weights), 0.0
    for power in _POWERS:
        weights = optimize.minimize(
            _norm, weights, (i, j, n, power), method="L-BFGS-B", jac=True, options={"maxiter": 200}
        ).x
        rho, lower = _bounds(weights, i, j, n, power)
        bound = max(bound, lower)
        if rho < best[0]:
            best = rho, weights
        if best[0] <= max((1 + gap) * bound, 1e-12):
            return _complete_rows(graph, _on_both_ways(best[1], graph, i, j))
    raise ValueError(
        f"gap={shown(gap)}: the weights found for {graph.name} have ρ = {best[0]:.6g}, and the bound is {bound:.6g}; "
        "allow a larger gap, or use best_constant"
    )


def _on_both_ways(weights: np.ndarray, graph: Topology, i: np.ndarray, j: np.ndarray) -> Float[np.ndarray, " m"]:
    n = graph.num_nodes
    place = {edge: k for k, edge in enumerate((np.minimum(i, j) * n + np.maximum(i, j)).tolist())}
    low, high = np.minimum(graph.receivers, graph.senders), np.maximum(graph.receivers, graph.senders)
    return weights[[place[edge] for edge in (low.astype(np.int64) * n + high).tolist()]]


def _spectrum(weights: np.ndarray, i: np.ndarray, j: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues and eigenvectors of W − J."""
    W = np.zeros((n, n))
    W[i, j] = W[j, i] = weights
    W[np.diag_indices(n)] = 1 - W.sum(1)
    return np.linalg.eigh(W - 1 / n)


def _slopes(values: np.ndarray, vectors: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return the derivative of ``Σ_k c_k λ_k`` by the weight of each edge: ``−Σ_k c_k (v_ki − v_kj)²``."""
    return -_along_edges((vectors * values) @ vectors.T, i, j)


def _along_edges(Y: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return ``⟨Y, B_e⟩`` for all edges, with ``B_e = (e_i − e_j)(e_i − e_j)ᵀ``."""
    diagonal = np.diagonal(Y)
    return diagonal[i] + diagonal[j] - 2 * Y[i, j]


def _without_edges(Y: np.ndarray, i: np.ndarray, j: np.ndarray) -> Float[np.ndarray, "n n"]:
    """Return the matrix closest to Y that is orthogonal to all ``B_e``: ``Y − Σ_e c_e B_e``.

    The normal equations ``⟨B_e, Σ c B⟩ = r_e`` are ``(2 I + Kᵀ K) c = r`` with the incidence matrix K without signs, so
    ``c = (r − Kᵀ (2 I + K Kᵀ)⁻¹ K r) / 2``, where ``K Kᵀ = D + A`` has n rows only.
    """
    n = len(Y)
    r = _along_edges(Y, i, j)
    A = np.zeros((n, n))
    A[i, j] = A[j, i] = 1
    at_nodes = np.bincount(i, r, n) + np.bincount(j, r, n)
    solved = np.linalg.solve(np.diag(2 + A.sum(1)) + A, at_nodes)
    L = np.zeros((n, n))
    L[i, j] = L[j, i] = -(r - solved[i] - solved[j]) / 2
    L[np.diag_indices(n)] = -L.sum(1)
    return Y - L


def _norm(weights: np.ndarray, i: np.ndarray, j: np.ndarray, n: int, power: int) -> tuple[float, np.ndarray]:
    """Return the Schatten norm of order 2p and its gradient."""
    values, vectors = _spectrum(weights, i, j, n)
    largest = np.abs(values).max()
    scaled = values / largest
    total = np.sum(scaled ** (2 * power))
    factors = np.sign(scaled) * np.abs(scaled) ** (2 * power - 1) * total ** (1 / (2 * power) - 1)
    return float(largest * total ** (1 / (2 * power))), _slopes(factors, vectors, i, j)


def _bounds(weights: np.ndarray, i: np.ndarray, j: np.ndarray, n: int, power: int) -> tuple[float, float]:
    """Return ρ of these weights, and a lower bound of ρ for all weights of the graph.

    For Y = Σ_k c_k v_k v_kᵀ with Σ|c_k| = 1 and Y 1 = 0, every W has ρ ≥ ⟨Y, W − J⟩. That does not depend on W where
    the slopes vanish; the least change of Y that makes them vanish costs as much of the bound as its nuclear norm.
    """
    values, vectors = _spectrum(weights, i, j, n)
    factors = np.sign(values) * np.abs(values / np.abs(values).max()) ** (2 * power - 1)
    Y = _without_edges((vectors * (factors / np.abs(factors).sum())) @ vectors.T, i, j)
    nuclear = np.abs(np.linalg.eigvalsh(Y)).sum()
    return float(np.abs(values).max()), float(np.trace(Y) / nuclear)
