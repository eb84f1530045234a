"""Mixing matrices, on the host: how much weight each node gives to each model it hears of.

W[i, j] is the weight that node i gives to the model of node j, so that one round of mixing is x ← W x. A row-stochastic
W averages; a doubly stochastic one also conserves the network mean; a column-stochastic one conserves the sum, as
push-sum needs. :func:`gossipjax.mixing.from_matrix` takes a matrix to the device.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Num
from scipy import sparse

from gossipjax.topology import Topology

Matrix: TypeAlias = sparse.sparray | Num[np.ndarray, "rows columns"]

TOLERANCE = 1e-8
"""Largest error of a sum of weights: far above the rounding of a float64 sum of a million terms (2e-10), far below any
weight that matters. Matrices that were rounded to float32 need 1e-5."""


def metropolis(topology: Topology) -> sparse.csr_array:
    """Build the Metropolis–Hastings weights of an undirected graph: symmetric and doubly stochastic.

    W_ij = 1 / (1 + max(d_i, d_j)) on the edges, W_ii = 1 − Σ_j W_ij.

    Args:
        topology: undirected.

    Returns:
        ``(n, n)`` float64.

    Raises:
        ValueError: if the graph is directed.

    Reference: Xiao, Boyd, Lall (2005), "A scheme for robust distributed sensor fusion based on average consensus".
    """
    _require_undirected(topology, "metropolis")
    degrees = topology.degrees
    return _complete_rows(topology, 1 / (1 + np.maximum(degrees[topology.receivers], degrees[topology.senders])))


def max_degree(topology: Topology) -> sparse.csr_array:
    """Build the max-degree weights of an undirected graph: symmetric and doubly stochastic.

    W = I − L / (1 + d_max) with the Laplacian L: every edge has the weight 1 / (1 + d_max).

    Args:
        topology: undirected.

    Returns:
        ``(n, n)`` float64.

    Raises:
        ValueError: if the graph is directed.
    """
    _require_undirected(topology, "max_degree")
    return _complete_rows(topology, np.full(topology.senders.size, 1 / (1 + topology.degrees.max())))


def best_constant(topology: Topology) -> sparse.csr_array:
    """Build the constant edge weight that contracts fastest: symmetric, rows sum to one, may have negative diagonals.

    W = I − α L with α = 2 / (ℓ₂ + ℓ_n), of the Laplacian's smallest positive and largest eigenvalues; then
    ‖W − J‖₂ = (ℓ_n − ℓ₂) / (ℓ_n + ℓ₂).

    Args:
        topology: undirected and connected.

    Returns:
        ``(n, n)`` float64. Pass ``allow_negative=True`` to :func:`check_weights`.

    Raises:
        ValueError: if the graph is directed or disconnected.

    Reference: Xiao, Boyd (2004), "Fast linear iterations for distributed averaging", section 4.1.
    """
    _require_undirected(topology, "best_constant")
    if (count := topology.num_components()) > 1:
        raise ValueError(f"{topology.name} has {count} components: no weight contracts it; add edges between them")
    if topology.num_nodes == 1:
        return _complete_rows(topology, np.zeros(0))
    second, largest = _laplacian_extremes(topology)
    return _complete_rows(topology, np.full(topology.senders.size, 2 / (second + largest)))


def lazy(W: sparse.csr_array, share: float = 0.5) -> sparse.csr_array:
    """Keep a share of the own model besides mixing: W ← share · I + (1 − share) · W.

    With a share of one half a symmetric stochastic matrix has no negative eigenvalue.

    Args:
        W: ``(n, n)`` weights.
        share: in [0, 1).

    Returns:
        ``(n, n)`` float64, stochastic in whatever way W is.

    Raises:
        ValueError: if the share is out of range or W is not square.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share {share} must be at least 0 and less than 1; at 1 nobody would mix")
    W = _square(W)
    return sparse.csr_array(share * sparse.eye_array(W.shape[0]) + (1 - share) * W)


def uniform(topology: Topology) -> sparse.csr_array:
    """Weight the own model and all that are heard of equally: row-stochastic.

    W_ij = 1 / (1 + d_i) with the in-degree d_i. Doubly stochastic if all in-degrees and out-degrees are the same
    number, as in the exponential graphs; otherwise it draws the network to a weighted mean.

    Args:
        topology: any.

    Returns:
        ``(n, n)`` float64.
    """
    return _complete_rows(topology, 1 / (1 + topology.in_degrees[topology.receivers]))


def column_stochastic(topology: Topology) -> sparse.csr_array:
    """Split the own mass equally among oneself and all one sends to: column-stochastic, the weights of push-sum.

    W_ij = 1 / (1 + d_j) with the out-degree d_j of the sender.

    Args:
        topology: any.

    Returns:
        ``(n, n)`` float64.

    Reference: Kempe, Dobra, Gehrke (2003); Nedić, Olshevsky (2016), "Stochastic gradient-push".
    """
    shares = 1 / (1 + topology.out_degrees)
    return sparse.csr_array(_off_diagonal(topology, shares[topology.senders]) + sparse.diags_array(shares))


def averaging(num_nodes: int) -> sparse.csr_array:
    """Build the matrix J = 1 1ᵀ / n that replaces every model by the network mean, as an all-reduce does.

    Rounds on it are charged as a ring all-reduce, 2 (n − 1)/n models a node, where the same numbers in another array,
    or Metropolis weights of a complete graph, are n − 1 neighbours who are sent a model each.
    """
    if num_nodes < 1:
        raise ValueError(f"{num_nodes} nodes: a network needs at least one")
    return Averaging(np.full((num_nodes, num_nodes), 1 / num_nodes))


class Averaging(sparse.csr_array):
    """A matrix that :func:`averaging` built; what is computed from it, such as ``lazy(J)``, may be one no longer."""


def is_averaging(W: Matrix) -> bool:
    """Tell whether a matrix is that of :func:`averaging`, unchanged."""
    n = W.shape[0]
    return isinstance(W, Averaging) and W.nnz == n * n and bool((W.data == 1 / n).all())


def is_row_stochastic(W: Matrix, *, tolerance: float = TOLERANCE) -> bool:
    """Tell whether all rows sum to one. Signs are not looked at."""
    return bool(np.all(np.abs(_row_sums(W) - 1) <= tolerance))


def is_column_stochastic(W: Matrix, *, tolerance: float = TOLERANCE) -> bool:
    """Tell whether all columns sum to one. Signs are not looked at."""
    return is_row_stochastic(W.T, tolerance=tolerance)


def is_doubly_stochastic(W: Matrix, *, tolerance: float = TOLERANCE) -> bool:
    """Tell whether all rows and all columns sum to one. Signs are not looked at."""
    return is_row_stochastic(W, tolerance=tolerance) and is_column_stochastic(W, tolerance=tolerance)


def is_symmetric(W: Matrix, *, tolerance: float = TOLERANCE) -> bool:
    """Tell whether a matrix equals its transpose."""
    W = sparse.csr_array(W, dtype=np.float64)
    return W.shape[0] == W.shape[1] and bool(np.all(np.abs((W - W.T).data) <= tolerance))


def check_weights(
    W: Matrix, kind: str, *, allow_negative: bool = False, tolerance: float = TOLERANCE
) -> sparse.csr_array:
    """Check that a matrix is the mixing matrix it is meant to be.

    Args:
        W: ``(n, n)`` weights, dense or sparse.
        kind: ``"row"``, ``"column"`` or ``"doubly"`` stochastic, or ``"symmetric"``: doubly stochastic and equal to its
            transpose.
        allow_negative: allow negative weights, as :func:`best_constant` may have on its diagonal.
        tolerance: largest error of a sum.

    Returns:
        The same matrix, ``(n, n)`` float64.

    Raises:
        ValueError: naming the first row, column or entry at fault.
    """
    if kind not in ("row", "column", "doubly", "symmetric"):
        raise ValueError(f"kind {kind!r} is unknown: choose 'row', 'column', 'doubly' or 'symmetric'")
    W = _square(W)
    _reject(W, ~np.isfinite(W.data), "every weight must be a finite number; look for a division by zero")
    if not allow_negative:
        _reject(W, W.data < 0, "weights must not be negative; pass allow_negative=True if they are meant to be")
    if kind != "column":
        _check_sums(W, "row", "divide each row by its sum", tolerance)
    if kind != "row":
        _check_sums(W.T, "column", "use metropolis, or column_stochastic with push-sum on a directed graph", tolerance)
    if kind == "symmetric":
        difference = sparse.csr_array(W - W.T)
        wrong = np.abs(difference.data) > tolerance
        _reject(difference, wrong, "W must equal its transpose; use metropolis or average W and W.T", "W - W.T")
    return W


def _require_undirected(topology: Topology, rule: str) -> None:
    if topology.directed:
        raise ValueError(
            f"{topology.name} is directed and {rule} weights are symmetric: use uniform or column_stochastic weights"
        )


def _off_diagonal(topology: Topology, weights: Float[np.ndarray, " m"]) -> sparse.csr_array:
    """Put one weight on every edge. The edges are sorted by receiver, which is the order of a CSR matrix."""
    W = topology.adjacency()
    W.data = weights.astype(np.float64)
    return W


def _complete_rows(topology: Topology, weights: Float[np.ndarray, " m"]) -> sparse.csr_array:
    W = _off_diagonal(topology, weights)
    return sparse.csr_array(W + sparse.diags_array(1 - W.sum(axis=1)))


def _laplacian_extremes(topology: Topology) -> tuple[float, float]:
    """Return the smallest positive and the largest eigenvalue of the Laplacian of a connected graph."""
    L = sparse.csr_array(sparse.diags_array(topology.degrees.astype(np.float64)) - topology.adjacency())
    if topology.num_nodes <= 1500:
        eigenvalues = np.linalg.eigvalsh(L.toarray())
        return float(eigenvalues[1]), float(eigenvalues[-1])
    # Fixed start vectors: ARPACK's own are random. The shift is negative, so that the matrix to invert is definite.
    start = np.random.default_rng(0).standard_normal(topology.num_nodes)
    largest = sparse.linalg.eigsh(L, k=1, which="LA", v0=start, return_eigenvectors=False)[0]
    low = sparse.linalg.eigsh(sparse.csc_array(L), k=2, sigma=-1e-3, which="LM", v0=start, return_eigenvectors=False)
    return float(low.max()), float(largest)


def _square(W: Matrix) -> sparse.csr_array:
    W = sparse.csr_array(W, dtype=np.float64)
    if W.ndim != 2 or W.shape[0] != W.shape[1]:
        raise ValueError(f"a matrix of shape {W.shape} cannot mix: W must be square, one row and column per node")
    return W


def _row_sums(W: Matrix) -> Float[np.ndarray, " n"]:
    return np.asarray(W.sum(axis=1), np.float64)


def _reject(W: sparse.csr_array, wrong: np.ndarray, rule: str, name: str = "W") -> None:
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        row = int(np.searchsorted(W.indptr, first, side="right")) - 1
        raise ValueError(f"{name}[{row}, {W.indices[first]}] = {W.data[first]:.6g}: {rule}")


def _check_sums(W: Matrix, what: str, remedy: str, tolerance: float) -> None:
    sums = _row_sums(W)
    wrong = np.flatnonzero(~(np.abs(sums - 1) <= tolerance))
    if wrong.size:
        raise ValueError(
            f"{what} {wrong[0]} of W sums to {sums[wrong[0]]:.10g}, not to 1 within {tolerance:g} "
            f"({wrong.size} of {sums.size} {what}s are off): {remedy}"
        )
