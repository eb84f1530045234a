"""Mixing matrices as functions of one number per edge, which gradients pass through."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int
from scipy import sparse

from gossipjax._base.arguments import choice, shown
from gossipjax.learn._checks import float_array
from gossipjax.mixing import DenseMixing, TableMixing, from_matrix
from gossipjax.topology import Topology
from gossipjax.topology._graph import require_undirected

MOST_EDGES = 1 << 24
"""Numbers of edges pass through float32."""


def edge_ends(graph: Topology) -> tuple[Int[np.ndarray, " edges"], Int[np.ndarray, " edges"]]:
    """Return both ends of every edge of an undirected graph, the smaller number first, in the order of the topology."""
    require_undirected(graph, "graph")
    if not graph.senders.size:
        raise ValueError(f"graph={graph.name}: has no edge to give a weight to")
    once = graph.senders < graph.receivers
    return graph.senders[once], graph.receivers[once]


def edge_weights(
    graph: Topology, weights: Float[Array | np.ndarray, "*rounds edges"], *, form: str = "auto"
) -> DenseMixing | TableMixing:
    """Build ``W = I − Σ_e w_e b_e b_eᵀ`` from one weight for each edge: ``W_ij = w_e``, ``W_ii = 1 − Σ_e w_e``.

    With b_e = 1 and −1 at the ends of edge e. W is symmetric and its rows and columns sum to one for any w, so that
    mixing conserves the mean. Weights may be negative: the fastest ones of some graphs are. Differentiable in w.

    >>> import jax, gossipjax as gj
    >>> ring = gj.topology.ring(4)
    >>> gj.mixing.to_dense(gj.learn.edge_weights(ring, jax.numpy.full(4, 0.25)), 4)[0].tolist()
    [0.5, 0.25, 0.0, 0.25]

    Args:
        graph: undirected.
        weights: ``(edges,)``, in the order of the pairs ``graph.senders < graph.receivers``; or ``(R, edges)`` for R
            rounds.
        form: "dense", "table" or "auto", as in :func:`gossipjax.mixing.from_matrix`.

    Returns:
        The mixing, for :func:`gossipjax.timeline.with_mixing`; with a leading axis of rounds if the weights have one.

    Raises:
        TypeError: if the weights are not floating-point numbers.
        ValueError: if the graph is directed or has no edge, or the number of weights is not that of its edges.
    """
    choice("form", form, ("auto", "dense", "table"))
    first, second = edge_ends(graph)
    if np.ndim(weights) not in (1, 2) or np.shape(weights)[-1] != first.size:
        raise ValueError(
            f"weights of shape {np.shape(weights)}: {graph.name} has {first.size} edges; give one weight for each, or "
            "(rounds, edges)"
        )
    if first.size >= MOST_EDGES:
        raise ValueError(
            f"graph={graph.name} has {first.size:,} edges: more than {MOST_EDGES - 1:,} lose their numbers"
        )
    n, number = graph.num_nodes, np.arange(1, first.size + 1)
    rows, columns = np.concatenate([first, second]), np.concatenate([second, first])
    numbers = sparse.csr_array((np.tile(number, 2).astype(np.float64), (rows, columns)), shape=(n, n))
    with jax.ensure_compile_time_eval():
        pattern = from_matrix(numbers, form=form)
    values = float_array("weights", weights)
    padded = jnp.concatenate([jnp.zeros_like(values[..., :1]), values], axis=-1)
    own = 1 - jnp.zeros((*values.shape[:-1], n), values.dtype).at[..., rows].add(jnp.tile(values, 2))
    if isinstance(pattern, DenseMixing):
        off = padded[..., np.asarray(pattern.W).round().astype(np.int32)]
        return DenseMixing(off + jnp.where(np.eye(n, dtype=bool), own[..., None], jnp.zeros_like(own)[..., None]))
    chosen = padded[..., np.asarray(pattern.weights).round().astype(np.int32)]
    neighbors = jnp.broadcast_to(pattern.neighbors, chosen.shape)
    return TableMixing(neighbors, chosen, own)


def positive_weights(
    graph: Topology, free: Float[Array | np.ndarray, "*rounds edges"]
) -> Float[Array, "*rounds edges"]:
    """Map any numbers to weights whose matrix is nonnegative, ``w_e = s_e / (1 + max(S_i, S_j))``, ``s = exp(free)``.

    S_i is the sum of s over the edges of node i, so the weights of a node sum to less than one. Zeros give the
    Metropolis weights.

    Args:
        graph: undirected.
        free: one number for each edge, as in :func:`edge_weights`.

    Raises:
        TypeError: if the numbers are not floating-point numbers.
        ValueError: if the graph is directed or has no edge, or the number of weights is not that of its edges.
    """
    first, second = edge_ends(graph)
    if np.shape(free)[-1:] != first.shape:
        raise ValueError(f"free={shown(free)}: {graph.name} has {first.size} edges; give one number for each")
    logs = float_array("free", free)
    # In logarithms, with the largest number of each node apart, so that exp neither overflows nor vanishes everywhere.
    at_node = jnp.zeros((*logs.shape[:-1], graph.num_nodes), logs.dtype)
    top = lax.stop_gradient(at_node.at[..., first].max(logs).at[..., second].max(logs))
    total = (
        at_node.at[..., first]
        .add(jnp.exp(logs - top[..., first]))
        .at[..., second]
        .add(jnp.exp(logs - top[..., second]))
    )
    log_sum = top + jnp.log(jnp.exp(-top) + total)  # ln(1 + S_i); top ≥ 0
    return jnp.exp(logs - jnp.maximum(log_sum[..., first], log_sum[..., second]))
