"""Mixing matrices on the host.

W[i, j] is the weight that node i gives to the model of node j, so that one round of mixing is x ← W x. A row-stochastic
W averages; a doubly stochastic one also conserves the network mean; a column-stochastic one conserves the sum, as
push-sum needs. :func:`gossipjax.mixing.from_matrix` puts a matrix on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from gossipjax._base import matrices
from gossipjax._base.arguments import choice, instance, real, shown
from gossipjax._base.calls import recorded
from gossipjax._base.lazy import networkx as nx
from gossipjax._base.memory import check_memory
from gossipjax.mixing._stochastic import HOW_TO_WEIGH, KINDS, TOLERANCE, Matrix, check_weights, is_float32
from gossipjax.topology import Topology
from gossipjax.topology._graph import number_nodes, require_nodes

_HOW_TO_BUILD = (
    "build one with gossipjax.topology, such as ring(8) or from_networkx(graph); several rounds, such as those of "
    "one_peer_exponential, have one matrix each: [uniform(round) for round in rounds]"
)


@recorded("xiao2005consensus")
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
    topology = _undirected(topology, "metropolis")
    degrees = topology.degrees
    return _complete_rows(topology, 1 / (1 + np.maximum(degrees[topology.receivers], degrees[topology.senders])))


@recorded()
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
    topology = _undirected(topology, "max_degree")
    return _complete_rows(topology, np.full(topology.senders.size, 1 / (1 + topology.degrees.max())))


@recorded("xiao2004averaging")
def best_constant(topology: Topology) -> sparse.csr_array:
    """Build the constant edge weights that contract fastest: symmetric, rows sum to one, diagonal may be negative.

    W = I − α L with α = 2 / (ℓ₂ + ℓ_n), where ℓ₂ and ℓ_n are the smallest positive and the largest eigenvalue of the
    Laplacian L. Then ‖W − J‖₂ = (ℓ_n − ℓ₂) / (ℓ_n + ℓ₂).

    Args:
        topology: undirected and connected.

    Returns:
        ``(n, n)`` float64. Pass ``allow_negative=True`` to :func:`check_weights`.

    Raises:
        ValueError: if the graph is directed or disconnected, or its Laplacian cannot be factorised in memory.

    Reference: Xiao, Boyd (2004), "Fast linear iterations for distributed averaging", section 4.1.
    """
    topology = _undirected(topology, "best_constant")
    if (count := topology.num_components()) > 1:
        raise ValueError(f"{topology.name} has {count} components: no weight contracts it; add edges between them")
    if topology.num_nodes == 1:
        return _complete_rows(topology, np.zeros(0))
    second, largest = _laplacian_extremes(topology)
    return _complete_rows(topology, np.full(topology.senders.size, 2 / (second + largest)))


@recorded()
def lazy(W: Matrix, share: float = 0.5) -> sparse.csr_array:
    """Blend a mixing matrix with the identity: W ← share · I + (1 − share) · W.

    A share of one half makes all eigenvalues of a symmetric stochastic matrix nonnegative.

    Args:
        W: ``(n, n)`` weights.
        share: in [0, 1).

    Returns:
        ``(n, n)``, stochastic in the same sense as W: float64, or float32 if W is, since its sums are no more precise.

    Raises:
        ValueError: if the share is out of range, or W is not square or not finite.
    """
    share = real("share", share, least=0, below=1, remedy="at 1 no node would mix")
    single, W = is_float32(W), matrices.square("W", W, HOW_TO_WEIGH, entry="weight")
    mixed = sparse.csr_array(share * sparse.eye_array(W.shape[0]) + (1 - share) * W)
    return mixed.astype(np.float32) if single else mixed


@recorded()
def uniform(topology: Topology) -> sparse.csr_array:
    """Weight the own model and those of all in-neighbours equally: row-stochastic.

    W_ij = 1 / (1 + d_i) with the in-degree d_i. Doubly stochastic if all in-degrees and out-degrees are the same
    number, as in the exponential graphs; otherwise the network converges to a weighted mean.

    Args:
        topology: any.

    Returns:
        ``(n, n)`` float64.
    """
    topology = instance("topology", topology, Topology, _HOW_TO_BUILD)
    return _complete_rows(topology, 1 / (1 + topology.in_degrees[topology.receivers]))


@recorded("kempe2003pushsum", "nedic2016push")
def column_stochastic(topology: Topology) -> sparse.csr_array:
    """Split each node's mass equally among itself and its out-neighbours: column-stochastic, the weights of push-sum.

    W_ij = 1 / (1 + d_j) with the out-degree d_j of the sender.

    Args:
        topology: any.

    Returns:
        ``(n, n)`` float64.

    Reference: Kempe, Dobra, Gehrke (2003); Nedić, Olshevsky (2016), "Stochastic gradient-push".
    """
    topology = instance("topology", topology, Topology, _HOW_TO_BUILD)
    shares = 1 / (1 + topology.out_degrees)
    return sparse.csr_array(_off_diagonal(topology, shares[topology.senders]) + sparse.diags_array(shares))


@recorded()
def averaging(num_nodes: int) -> sparse.csr_array:
    """Build the matrix J = 1 1ᵀ / n that replaces every model by the network mean, as an all-reduce does.

    A round on it is charged as a ring all-reduce: each node sends 2 (n − 1)/n models. The same numbers in another
    array, or Metropolis weights of a complete graph, are charged as a model to each of n − 1 neighbours.

    Args:
        num_nodes: n ≥ 1.

    Returns:
        ``(n, n)`` float64.

    Raises:
        ValueError: if n < 1, or n² weights do not fit into memory.
    """
    n = require_nodes(num_nodes)
    advice = "GroupMixing averages all nodes with n weights, and timeline.client_sampling samples some"
    check_memory(f"num_nodes={n}: the averaging matrix", 36.0 * n * n, advice)
    return Averaging(np.full((n, n), 1 / n))


class Averaging(sparse.csr_array):
    """The type of the matrix that :func:`averaging` builds. A matrix computed from it, such as ``lazy(J)``, may keep
    the type without being J: see :func:`is_averaging`."""


def is_averaging(W: Matrix) -> bool:
    """Return whether a matrix is the unchanged result of :func:`averaging`."""
    n = W.shape[0]
    return isinstance(W, Averaging) and W.nnz == n * n and bool((W.data == 1 / n).all())


@recorded()
def from_edge_weights(
    graph: nx.Graph | Matrix,
    kind: str = "row",
    *,
    attribute: str = "weight",
    labels: Sequence[Any] | None = None,
) -> sparse.csr_array:
    """Build a mixing matrix from a graph whose edges have weights.

    W_ij is the weight of the edge from j to i, and each node keeps the rest: W_ii = 1 − Σ_j W_ij (``"column"``:
    1 − Σ_j W_ji). If the graph has self-loops, their weights are the diagonal, and nothing is added.

    >>> import networkx as nx
    >>> graph = nx.Graph()
    >>> graph.add_weighted_edges_from([(0, 1, 0.5), (1, 2, 0.25)])
    >>> from_edge_weights(graph, "symmetric").toarray()
    array([[0.5 , 0.5 , 0.  ],
           [0.5 , 0.25, 0.25],
           [0.  , 0.25, 0.75]])

    Args:
        graph: a NetworkX graph, numbered as :func:`gossipjax.topology.from_networkx` does, or a matrix ``(n, n)`` with
            the weight of the edge from j to i in row i.
        kind: the property that the result must have; see :func:`check_weights`.
        attribute: name of the edge attribute that holds the weights of a NetworkX graph.
        labels: of a NetworkX graph, as in :func:`gossipjax.topology.from_networkx`.

    Returns:
        ``(n, n)`` float64, checked.

    Raises:
        ValueError: if an edge has no weight, a weight is negative or not finite, edges are parallel, or the weights of
            a node sum to more than 1.
        TypeError: if graph is neither a graph nor a matrix.
    """
    kind = choice("kind", kind, KINDS)
    if isinstance(graph, nx.Graph):
        instance("attribute", attribute, str, "name the attribute of the edges, such as 'weight'")
        A = _edge_matrix(graph, attribute, labels)
    else:
        A = matrices.square("graph", graph, "pass a NetworkX graph or a matrix of weights", entry="weight")
        if labels is not None:
            raise ValueError(
                f"labels={shown(labels)}: labels name the nodes of a NetworkX graph; omit them for a matrix"
            )
    matrices.reject(A, A.data < 0, "weights must not be negative", "graph")
    if not A.diagonal().any():
        axis, what = (0, "column") if kind == "column" else (1, "row")
        rest = 1 - np.asarray(A.sum(axis=axis))
        if rest.min() < -TOLERANCE:
            worst = int(np.argmin(rest))
            raise ValueError(
                f"graph: the weights of {what} {worst} sum to {1 - rest[worst]:.6g}, which leaves nothing for the node "
                "itself: divide all weights by that, or by more"
            )
        A = sparse.csr_array(A + sparse.diags_array(np.maximum(rest, 0)))
    return check_weights(A, kind)


def _edge_matrix(graph: nx.Graph, attribute: str, labels: Sequence[Any] | None) -> sparse.csr_array:
    """Return the edge weights of a NetworkX graph as a matrix, with the edge from node j to node i in row i."""
    order, senders, receivers = number_nodes(graph, labels)
    weights: dict[tuple[int, int], float] = {}
    number = {label: k for k, label in enumerate(order)}
    for u, v, value in graph.edges(data=attribute):
        weight = real(f"graph: attribute {attribute!r} of edge ({shown(u)}, {shown(v)})", value, least=0)
        ends = [(number[v], number[u])] if graph.is_directed() else [(number[v], number[u]), (number[u], number[v])]
        for edge in {*ends}:
            if edge in weights:
                raise ValueError(f"graph: edge ({shown(u)}, {shown(v)}) occurs twice: add up parallel edges first")
            weights[edge] = weight
    values = np.array([weights[i, j] for i, j in zip(receivers.tolist(), senders.tolist(), strict=True)], np.float64)
    return sparse.csr_array((values, (receivers, senders)), shape=(len(order), len(order)))


def _undirected(topology: Any, rule: str) -> Topology:
    topology = instance("topology", topology, Topology, _HOW_TO_BUILD)
    if topology.directed:
        raise ValueError(
            f"topology={topology.name} is directed and {rule} weights are symmetric: use column_stochastic "
            "weights with push_sum or sgp, which find the mean; uniform weights weight the nodes"
        )
    return topology


def _off_diagonal(topology: Topology, weights: Float[np.ndarray, " m"]) -> sparse.csr_array:
    """Build the matrix of edge weights. Edges are sorted by receiver, which is the order of a CSR matrix."""
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
    check_memory(
        f"topology={topology.name}: the factors of its Laplacian", 24.0 * _envelope(L), "use metropolis or max_degree"
    )
    # A fixed start vector: ARPACK's default is random. A negative shift makes the matrix to invert definite.
    start = np.random.default_rng(0).standard_normal(topology.num_nodes)
    largest = sparse.linalg.eigsh(L, k=1, which="LA", v0=start, return_eigenvectors=False)[0]
    low = sparse.linalg.eigsh(sparse.csc_array(L), k=2, sigma=-1e-3, which="LM", v0=start, return_eigenvectors=False)
    return float(low.max()), float(largest)


def _envelope(L: sparse.csr_array) -> int:
    """Bound the entries of a triangular factor by the envelope of the matrix in reverse Cuthill–McKee order."""
    order = sparse.csgraph.reverse_cuthill_mckee(L, symmetric_mode=True)
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    entries, first = L.tocoo(), np.arange(order.size)
    np.minimum.at(first, place[entries.row], place[entries.col])
    return int(np.sum(np.arange(order.size) - first + 1))
