"""The edges of a fixed graph as tables, for sharings and protocols that say something else to each neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from gossipjax._base.local import Local
from gossipjax.mixing._forms import DenseMixing, TableMixing
from gossipjax.mixing._placed import reach
from gossipjax.mixing._placed_forms import PlacedDense, PlacedTable
from gossipjax.topology._graph import Topology
from gossipjax.types import NOBODY, Event


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


class EdgeCycle(NamedTuple):
    """The edges of the graphs of g rounds, which repeat; padded to the largest degree of all."""

    neighbors: Int[Array, "g n s"]
    reverse: Int[Array, "g n s"]
    signs: Int[Array, "g n s"]


def cycle_of(graphs: Sequence[Topology]) -> EdgeCycle:
    """List the edges of undirected graphs with the same number of nodes."""
    every = [edges_of(graph) for graph in graphs]
    width = max(edges.neighbors.shape[1] for edges in every)
    return EdgeCycle(*(jnp.stack(leaves) for leaves in zip(*(_widened(edges, width) for edges in every), strict=True)))


def _widened(edges: Edges, width: int) -> Edges:
    """Pad to a larger degree."""
    n, degree = edges.neighbors.shape
    own, lanes = jnp.arange(n, dtype=jnp.int32)[:, None], jnp.arange(degree, width, dtype=jnp.int32)[None]
    more = Edges(own, lanes, jnp.zeros_like(own))
    return Edges(*(jnp.concatenate([old, jnp.broadcast_to(new, (n, width - degree))], axis=1)
                   for old, new in zip(edges, more, strict=True)))  # fmt: skip


def edges_at(cycle: EdgeCycle, number: Int[Array, ""] | UInt[Array, ""] | int) -> Edges:
    """Return the edges of a round."""
    graphs = len(cycle.neighbors)
    if graphs == 1:
        return Edges(*(leaf[0] for leaf in cycle))
    place = (jnp.asarray(number, jnp.uint32) % np.uint32(graphs)).astype(jnp.int32)
    return Edges(*(jax.lax.dynamic_index_in_dim(leaf, place, keepdims=False) for leaf in cycle))


def check_rows_of(topology_rows: int, rows: int, builder: str) -> None:
    """Raise ValueError if the number of models differs from the number of nodes of the topology."""
    if rows != topology_rows:
        raise ValueError(
            f"{rows} models on a topology of {topology_rows} nodes: build {builder} for the graph of the timeline"
        )


def own_edges(edges: Edges, local: Local | None) -> Edges:
    """Return the edges of the nodes whose rows are here; neighbours keep their numbers."""
    return edges if local is None else Edges(*(leaf[local.ids] for leaf in edges))


def own_nodes(edges: Edges, local: Local | None) -> Int[Array, " n"]:
    """Return the numbers of the nodes of :func:`own_edges`."""
    return jnp.arange(len(edges.neighbors), dtype=jnp.int32) if local is None else local.ids


def self_weights(mixing: Any, local: Local | None) -> Float[Array, " n"]:
    """Return W_ii of a matrix or table."""
    if isinstance(mixing, TableMixing | PlacedTable):
        return mixing.self_weight
    return jnp.diagonal(mixing.W) if local is None else mixing.W[jnp.arange(len(local.ids)), local.ids]


def from_neighbors(event: Event, edges: Edges, leaf: Array) -> Array:
    """Read the rows ``(n, s, ...)`` of the neighbours of each node, wherever they lie.

    Args:
        event: of rounds.
        edges: of the nodes whose rows are here.
        leaf: their rows ``(n, ...)``.
    """
    everyone, place = in_reach(event, leaf)
    return everyone[edges.neighbors if place is None else place[edges.neighbors]]


def over_reverse(event: Event, edges: Edges, leaf: Array) -> Array:
    """Read what each neighbour holds for its edge to the node, of leaf ``(n, s, ...)``; ``(n, s, ...)``."""
    everyone, place = in_reach(event, leaf)
    rows = edges.neighbors if place is None else place[edges.neighbors]
    return everyone.at[rows, edges.reverse].get(mode="promise_in_bounds")


def in_reach(event: Event, leaf: Array) -> tuple[Array, Int[Array, " n"] | None]:
    """Return the rows that can be read here, and in which of them each node lies; None: in its own."""
    if event.local is None:
        return leaf, None
    return reach(event.mixing, leaf), _place(event.mixing, event.local)[1]


def _place(mixing: Any, local: Local) -> tuple[Int[Array, " r"], Int[Array, " n"]]:
    """Return the node of each row that :func:`gossipjax.mixing._placed.reach` returns, and a row of each node.

    A node out of reach, with weight 0 on the edge to it, has any row.
    """
    numbers = reach(mixing, local.ids + 1) - 1  # devices that receive nothing receive zeros
    rows = jnp.arange(len(numbers), dtype=jnp.int32)
    found = jnp.zeros(len(local.position), jnp.int32)
    return numbers, found.at[jnp.where(numbers < 0, NOBODY, numbers)].set(rows, mode="drop")


def as_on_one_device(mixing: Any, local: Local | None) -> Any:
    """Return the rows of a mixing that are here, with numbers of nodes as neighbours."""
    if isinstance(mixing, PlacedDense):
        return DenseMixing(mixing.W)
    if isinstance(mixing, PlacedTable):
        assert local is not None
        return TableMixing(_place(mixing, local)[0][mixing.neighbors], mixing.weights, mixing.self_weight)
    return mixing


def edge_weights(mixing: Any, edges: Edges, builder: str, local: Local | None = None) -> Float[Array, "n s"]:
    """Return W_ij of the edges of a matrix or table; NaN in rows with weights on other edges.

    Args:
        mixing: of a round.
        edges: of the nodes whose rows are here.
        builder: for the message.
        local: the rows of a device of a mesh; None: all are here.

    Raises:
        ValueError: if the mixing has another form, or more neighbours than the topology.
    """
    degree = edges.neighbors.shape[1]
    rows = own_nodes(edges, local)[:, None]
    mixing = as_on_one_device(mixing, local)
    if isinstance(mixing, DenseMixing):
        places = jnp.arange(len(rows), dtype=jnp.int32)[:, None]
        shares = jnp.where(edges.present, mixing.W[places, edges.neighbors], 0)
        return _only_known(shares, jnp.sum(mixing.W, axis=1) - self_weights(mixing, local))
    if not isinstance(mixing, TableMixing):
        raise ValueError(
            f"{type(mixing).__name__} has no weight for each edge: {builder} needs rounds on a "
            "mixing matrix; use timeline.rounds"
        )
    if mixing.neighbors.shape[1] > degree:
        raise ValueError(
            f"a mixing with {mixing.neighbors.shape[1]} neighbours on a topology with at most {degree}: build both on "
            "the same graph, such as timeline.rounds on metropolis(topology)"
        )
    same = (mixing.neighbors[:, None, :] == edges.neighbors[:, :, None]) & edges.present[..., None]
    shares = jnp.sum(jnp.where(same, mixing.weights[:, None, :], 0), axis=-1)
    return _only_known(shares, jnp.sum(jnp.where(mixing.neighbors != rows, mixing.weights, 0), axis=1))


def heard(event: Event, edges: Edges, builder: str) -> Float[Array, "n s"]:
    """Return 1 where a message arrives over an edge, 0 where not; NaN in rows with weights on other edges.

    A message arrives if its weight is not 0. Raises as :func:`edge_weights`.
    """
    shares = edge_weights(event.mixing, edges, builder, event.local)
    return jnp.where(jnp.isnan(shares), shares, (shares != 0).astype(shares.dtype))


def over_edges(arrives: Float[Array, "n s"], message: Float[Array, "n s *shape"], otherwise: Any) -> Array:
    """Take the messages that arrive, and ``otherwise`` on other edges; NaN in rows with unknown edges."""
    mask = arrives.astype(message.dtype).reshape(arrives.shape + (1,) * (message.ndim - 2))
    return jnp.where(mask == 1, message, jnp.where(jnp.isnan(mask), mask, otherwise))


def _only_known(shares: Float[Array, "n s"], whole: Float[Array, " n"]) -> Float[Array, "n s"]:
    """Set rows with weights on other edges than the topology's to NaN, since traced values cannot raise errors."""
    known = jnp.abs(jnp.sum(shares, axis=1) - whole) < 1e-4
    return jnp.where(known[:, None], shares, jnp.nan)


def off_graph(protocol: Any, mixing: Any) -> tuple[int, int] | None:
    """Return the first edge (sender, receiver) of a mixing on the host that the edges in a protocol lack, if any does.

    Says why rows of :func:`edge_weights` are NaN. Mixings without weights of edges are not looked at.
    """
    graphs = [each for each in jax.tree.leaves(protocol, is_leaf=_is_edges) if _is_edges(each)]
    if not graphs or not isinstance(mixing, DenseMixing | TableMixing):
        return None
    if isinstance(mixing, DenseMixing):
        receivers, senders = np.nonzero(np.asarray(mixing.W))
    else:
        receivers, lanes = np.nonzero(np.asarray(mixing.weights))
        senders = np.asarray(mixing.neighbors)[receivers, lanes]
    for edges in graphs:
        known = (np.asarray(edges.neighbors)[receivers] == senders[:, None]).any(1) | (senders == receivers)
        if not known.all():
            first = int(np.argmin(known))
            return int(senders[first]), int(receivers[first])
    return None


def _is_edges(value: Any) -> bool:
    return isinstance(value, Edges)
