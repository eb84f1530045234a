"""The edges of a fixed graph as tables, for sharings that send something else to each neighbour."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gossipjax._base.arguments import instance
from gossipjax.mixing._forms import DenseMixing, TableMixing
from gossipjax.topology._graph import Topology


class Edges(NamedTuple):
    """The edges of each node, padded with edges to itself; arrays, which are arguments of compiled functions."""

    neighbors: Int[Array, "n s"]
    """In increasing order, before the padding."""
    reverse: Int[Array, "n s"]
    """Position of the same edge among those of the neighbour."""
    signs: Int[Array, "n s"]
    """1 at the end with the lower number, −1 at the other, 0 for padding."""

    @property
    def present(self) -> Bool[Array, "n s"]:
        """Which entries are edges, not padding."""
        return self.signs != 0


def undirected(topology: Topology) -> Topology:
    """Check that the argument is an undirected graph, and return it.

    Raises:
        TypeError: if it is not a topology.
        ValueError: if it is directed.
    """
    instance("topology", topology, Topology, "build one with gossipjax.topology, such as ring(8)")
    if topology.directed:
        raise ValueError(f"{topology.name} is directed: both ends of an edge must know it; use an undirected graph")
    return topology


def edges_of(topology: Topology) -> Edges:
    """List the edges of each node of an undirected graph."""
    n = topology.num_nodes
    receivers, senders = topology.receivers.astype(np.int64), topology.senders.astype(np.int64)
    counts = topology.in_degrees
    place = np.arange(senders.size) - (np.cumsum(counts) - counts)[receivers]
    shape = n, int(counts.max(initial=0))
    neighbors = np.repeat(np.arange(n, dtype=np.int32)[:, None], shape[1], axis=1)
    reverse = np.repeat(np.arange(shape[1], dtype=np.int32)[None], n, axis=0)
    signs = np.zeros(shape, np.int32)
    neighbors[receivers, place] = senders
    # Edges are sorted by (receiver, sender): the reverse of edge (i, j) is found where (j, i) stands.
    reverse[receivers, place] = place[np.searchsorted(receivers * n + senders, senders * n + receivers)]
    signs[receivers, place] = np.where(receivers < senders, 1, -1)
    return Edges(jnp.asarray(neighbors), jnp.asarray(reverse), jnp.asarray(signs))


def check_rows_of(topology_rows: int, rows: int, builder: str) -> None:
    """Raise ValueError if the number of models differs from the number of nodes of the topology."""
    if rows != topology_rows:
        raise ValueError(
            f"{rows} models on a topology of {topology_rows} nodes: build {builder} for the graph of the timeline"
        )


def edge_weights(mixing: Any, edges: Edges, builder: str) -> Float[Array, "n s"]:
    """Return W_ij of the edges of a matrix or table; NaN in rows with weights on other edges.

    Raises:
        ValueError: if the mixing has another form, or more neighbours than the topology.
    """
    n, degree = edges.neighbors.shape
    rows = jnp.arange(n, dtype=jnp.int32)[:, None]
    if isinstance(mixing, DenseMixing):
        shares = jnp.where(edges.present, mixing.W[rows, edges.neighbors], 0)
        return _only_known(shares, jnp.sum(mixing.W, axis=1) - jnp.diagonal(mixing.W))
    if not isinstance(mixing, TableMixing):
        raise ValueError(
            f"{type(mixing).__name__} has no weight for each edge: {builder} needs rounds on one mixing matrix"
        )
    if mixing.neighbors.shape[1] > degree:
        raise ValueError(
            f"a mixing with {mixing.neighbors.shape[1]} neighbours on a topology with at most {degree}: build both on "
            "the same graph"
        )
    same = (mixing.neighbors[:, None, :] == edges.neighbors[:, :, None]) & edges.present[..., None]
    shares = jnp.sum(jnp.where(same, mixing.weights[:, None, :], 0), axis=-1)
    return _only_known(shares, jnp.sum(jnp.where(mixing.neighbors != rows, mixing.weights, 0), axis=1))


def _only_known(shares: Float[Array, "n s"], whole: Float[Array, " n"]) -> Float[Array, "n s"]:
    """Set rows with weights on other edges than the topology's to NaN, since traced values cannot raise errors."""
    known = jnp.abs(jnp.sum(shares, axis=1) - whole) < 1e-4
    return jnp.where(known[:, None], shares, jnp.nan)
