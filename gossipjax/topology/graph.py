"""The graph itself, its checks, and the way in from NetworkX."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
from jaxtyping import Int
from scipy import sparse

from gossipjax._base.display import displayed

Nodes: TypeAlias = Int[np.ndarray, " m"]
"""A vector of node numbers, or of other integers."""


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Topology:
    """A simple graph: node ``senders[e]`` can send to node ``receivers[e]``.

    Two topologies are equal only if they are the same object; compare graphs with :meth:`same_edges`.

    Attributes:
        num_nodes: n, at least one. Nodes are the numbers 0 to n − 1.
        senders: ``(m,)`` int32, read-only.
        receivers: ``(m,)`` int32, read-only. Edges are sorted by (receiver, sender); an undirected graph lists each
            edge in both directions.
        directed: whether edges have a direction.
        name: the generator and its settings, for reports.

    Raises:
        ValueError: if there is no node, an edge names a node that does not exist, an edge is a self-loop or is listed
            twice, or an undirected graph misses the reverse of an edge.
    """

    num_nodes: int
    senders: np.ndarray
    receivers: np.ndarray
    directed: bool
    name: str

    def __post_init__(self) -> None:
        """Check the edges and put them in order."""
        n = self.num_nodes
        require_nodes(n)
        senders, receivers = _as_nodes(self.senders, n), _as_nodes(self.receivers, n)
        if senders.shape != receivers.shape:
            raise ValueError(f"{senders.size} senders and {receivers.size} receivers: give one of each per edge")
        loops = senders[senders == receivers]
        if loops.size:
            raise ValueError(
                f"self-loop at node {loops[0]}: leave it out, a node always keeps a share of its own model"
            )
        codes = np.sort(receivers * n + senders)
        repeated = codes[1:][codes[1:] == codes[:-1]]
        if repeated.size:
            receiver, sender = divmod(int(repeated[0]), n)
            raise ValueError(f"edge {sender} -> {receiver} is listed twice: list every edge once")
        receivers, senders = np.divmod(codes, n)
        if not self.directed:
            _require_symmetric(n, codes, senders * n + receivers)
        for field, array in (("senders", senders), ("receivers", receivers)):
            array = array.astype(np.int32)
            array.setflags(write=False)
            object.__setattr__(self, field, array)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        kind = "directed" if self.directed else "undirected"
        return self.name, {"nodes": self.num_nodes, f"{kind} edges": self.num_edges}

    @property
    def num_edges(self) -> int:
        """Number of edges; an undirected edge counts once."""
        return self.senders.size if self.directed else self.senders.size // 2

    @property
    def in_degrees(self) -> Int[np.ndarray, " n"]:
        """Number of nodes that can send to each node."""
        return np.bincount(self.receivers, minlength=self.num_nodes)

    @property
    def out_degrees(self) -> Int[np.ndarray, " n"]:
        """Number of nodes that each node can send to."""
        return np.bincount(self.senders, minlength=self.num_nodes)

    @property
    def degrees(self) -> Int[np.ndarray, " n"]:
        """Number of neighbours of each node of an undirected graph."""
        if self.directed:
            raise ValueError(f"{self.name} is directed: ask for in_degrees or out_degrees")
        return self.in_degrees

    def neighbors(self, node: int) -> Nodes:
        """Return the nodes that can send to a node, in increasing order."""
        if not 0 <= node < self.num_nodes:
            raise ValueError(f"node {node} is not in 0..{self.num_nodes - 1}")
        begin, end = np.searchsorted(self.receivers, [node, node + 1])
        return self.senders[begin:end]

    def adjacency(self) -> sparse.csr_array:
        """Return the float64 matrix A with A[i, j] = 1 if j can send to i."""
        pointers = np.concatenate([[0], np.cumsum(self.in_degrees)])
        ones = np.ones(self.senders.size)
        return sparse.csr_array((ones, self.senders, pointers), shape=(self.num_nodes, self.num_nodes))

    def to_networkx(self) -> nx.Graph:
        """Return the same graph as a ``networkx.Graph``, or a ``DiGraph`` with edges from sender to receiver."""
        graph = nx.DiGraph() if self.directed else nx.Graph()
        graph.add_nodes_from(range(self.num_nodes))
        graph.add_edges_from(zip(self.senders.tolist(), self.receivers.tolist(), strict=True))
        return graph

    def relabel(self, permutation: Nodes) -> Topology:
        """Return the graph in which node i has become node ``permutation[i]``."""
        permutation = np.asarray(permutation)
        if not np.array_equal(np.sort(permutation), np.arange(self.num_nodes)):
            raise ValueError(f"the new labels must be a permutation of 0..{self.num_nodes - 1}")
        return dataclasses.replace(
            self,
            senders=permutation[self.senders],
            receivers=permutation[self.receivers],
            name=f"relabelled {self.name}",
        )

    def same_edges(self, other: Topology) -> bool:
        """Tell whether both graphs have the same nodes and the same (sender, receiver) pairs."""
        return (
            self.num_nodes == other.num_nodes
            and np.array_equal(self.senders, other.senders)
            and np.array_equal(self.receivers, other.receivers)
        )

    def num_components(self) -> int:
        """Count the connected components (of a directed graph: the strongly connected ones)."""
        return sparse.csgraph.connected_components(self.adjacency(), self.directed, "strong", return_labels=False)


def from_networkx(graph: nx.Graph, *, name: str | None = None, allow_disconnected: bool = False) -> Topology:
    """Take over a NetworkX graph; its nodes are numbered in the order in which it lists them.

    Args:
        graph: a ``Graph``, or a ``DiGraph`` whose edges go from sender to receiver.
        name: for reports; by default the graph's own.
        allow_disconnected: accept a graph that is not (strongly) connected.

    Raises:
        ValueError: if the graph has no node, a self-loop or parallel edges, or is not connected.
    """
    number = {node: k for k, node in enumerate(graph.nodes)}
    ends = np.array([(number[u], number[v]) for u, v in graph.edges()], np.int64).reshape(-1, 2)
    senders, receivers = ends.T
    if not graph.is_directed():
        once = senders != receivers
        senders, receivers = np.concatenate([ends, ends[once, ::-1]]).T
    topology = Topology(len(number), senders, receivers, graph.is_directed(), name or graph.name or "networkx graph")
    return topology if allow_disconnected else require_connected(topology)


def undirected(num_nodes: int, near: Nodes, far: Nodes, name: str) -> Topology:
    """Build from pairs, each at least once in one direction; repeated pairs and pairs of one node are dropped."""
    near, far = near.astype(np.int64), far.astype(np.int64)
    distinct = near != far
    codes = np.unique(np.minimum(near, far)[distinct] * num_nodes + np.maximum(near, far)[distinct])
    low, high = np.divmod(codes, num_nodes)
    return Topology(num_nodes, np.concatenate([low, high]), np.concatenate([high, low]), directed=False, name=name)


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError`` with a message unless a condition holds."""
    if not condition:
        raise ValueError(message)


def require_nodes(num_nodes: int) -> None:
    """Raise ``ValueError`` unless there is a node."""
    require(num_nodes >= 1, f"{num_nodes if num_nodes < 0 else 'zero'} nodes: a network needs at least one")


def require_connected(topology: Topology) -> Topology:
    """Return a (strongly) connected graph as it is; raise ``ValueError`` for any other."""
    count = topology.num_components()
    kind = "strongly connected components" if topology.directed else "components"
    require(
        count == 1,
        f"{topology.name} has {count} {kind}: add edges between them, or pass allow_disconnected=True if it is only "
        "one round of a network that changes",
    )
    return topology


def _require_symmetric(num_nodes: int, codes: Nodes, reverse: Nodes) -> None:
    missing = codes[~np.isin(reverse, codes, assume_unique=True)]
    if missing.size:
        i, j = divmod(int(missing[0]), num_nodes)
        raise ValueError(f"undirected edge {j} -> {i} lacks its reverse: list both, or pass directed=True")


def _as_nodes(nodes: np.ndarray, num_nodes: int) -> Nodes:
    nodes = np.asarray(nodes)
    require(
        nodes.ndim == 1 and (np.issubdtype(nodes.dtype, np.integer) or nodes.size == 0),
        f"nodes must be a vector of integers, not {nodes.dtype} of shape {nodes.shape}",
    )
    outside = nodes[(nodes < 0) | (nodes >= num_nodes)]
    require(outside.size == 0, f"node {outside[:1]} of an edge is not in 0..{num_nodes - 1}")
    return nodes.astype(np.int64)
