"""The Topology class, its checks, and conversions from NetworkX graphs and adjacency matrices."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int
from scipy import sparse

from gossipjax._base import matrices
from gossipjax._base.arguments import flag, instance, shown, whole, wholes
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.hashing import array_hash
from gossipjax._base.lazy import networkx as nx
from gossipjax._base.memory import check_memory
from gossipjax.topology._sorted import sorted_distinct

Nodes: TypeAlias = Int[np.ndarray, " m"]
"""A vector of integers, such as node numbers."""

MOST_NODES = 2**31 - 1
"""Node numbers are int32."""
HOW_TO_BUILD = "build one with gossipjax.topology, such as ring(8), or from_networkx(graph)"


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
        labels: original names of nodes 0 to n − 1, as n distinct hashable labels; None: the numbers are the names.

    Raises:
        ValueError: if there is no node, an edge names a node that does not exist, an edge is a self-loop or is listed
            twice, an undirected graph lacks the reverse of an edge, ``directed`` is not a bool, or the graph does not
            fit into memory.
        TypeError: if the name or the labels have the wrong type.
    """

    num_nodes: int
    senders: np.ndarray
    receivers: np.ndarray
    directed: bool
    name: str
    labels: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        """Check the fields and sort the edges."""
        n = require_nodes(self.num_nodes)
        directed = flag("directed", self.directed)
        instance("name", self.name, str, 'name the graph for reports, such as "my graph"')
        receivers, senders = _in_order(n, self.senders, self.receivers)
        if not directed:
            missing = np.flatnonzero(_unanswered(n, senders, receivers))
            if missing.size:
                j, i = senders[missing[0]], receivers[missing[0]]
                raise ValueError(f"undirected edge {j} -> {i} lacks its reverse: list both, or pass directed=True")
        fields: dict[str, Any] = {"num_nodes": n, "directed": directed, "labels": _as_labels(self.labels, n)}
        for field, array in (("senders", senders), ("receivers", receivers)):
            fields[field] = array.astype(np.int32)
            fields[field].setflags(write=False)
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        kind = "directed" if self.directed else "undirected"
        return self.name, {"nodes": self.num_nodes, f"{kind} edges": self.num_edges}

    @functools.cached_property
    def checksum(self) -> str:
        """Hash (sha256) of the nodes and edges, without the name; equal graphs have equal hashes."""
        return array_hash(np.concatenate([[self.num_nodes], self.senders, self.receivers]))

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
        """Return the nodes that can send to ``node``, in increasing order."""
        node = whole("node", node, least=0, most=self.num_nodes - 1)
        begin, end = np.searchsorted(self.receivers, [node, node + 1])
        return self.senders[begin:end]

    def adjacency(self) -> sparse.csr_array:
        """Return the float64 matrix A with A[i, j] = 1 if j can send to i."""
        pointers = np.concatenate([[0], np.cumsum(self.in_degrees)])
        ones = np.ones(self.senders.size)
        return sparse.csr_array((ones, self.senders, pointers), shape=(self.num_nodes, self.num_nodes))

    def to_networkx(self) -> nx.Graph:
        """Return the same graph as a ``networkx.Graph``, or a ``DiGraph`` with edges from sender to receiver.

        Nodes are in the order of their numbers and carry their labels, if there are any, so that
        :func:`from_networkx` returns this graph again.
        """
        graph = nx.DiGraph() if self.directed else nx.Graph()
        nodes = range(self.num_nodes) if self.labels is None else self.labels
        graph.add_nodes_from(nodes)
        ends = zip(self.senders.tolist(), self.receivers.tolist(), strict=True)
        graph.add_edges_from((nodes[i], nodes[j]) for i, j in ends)
        return graph

    def relabel(self, permutation: Nodes) -> Topology:
        """Return the graph in which node i is renumbered to ``permutation[i]``; labels move with their nodes."""
        n = self.num_nodes
        rule = f"the new numbers must be a permutation of 0..{n - 1}"
        permutation = wholes("permutation", permutation, shape=(n,), least=0, most=n - 1, remedy=rule)
        require(np.unique(permutation).size == n, f"permutation={shown(permutation)}: {rule}")
        labels = None if self.labels is None else tuple(self.labels[i] for i in np.argsort(permutation))
        senders, receivers = permutation[self.senders], permutation[self.receivers]
        return Topology(n, senders, receivers, self.directed, f"relabelled {self.name}", labels)

    def same_edges(self, other: Topology) -> bool:
        """Tell whether both graphs have the same nodes and the same (sender, receiver) pairs, by number."""
        other = instance("other", other, Topology, HOW_TO_BUILD)
        return (
            self.num_nodes == other.num_nodes
            and np.array_equal(self.senders, other.senders)
            and np.array_equal(self.receivers, other.receivers)
        )

    def num_components(self) -> int:
        """Count the connected components (strongly connected components if the graph is directed)."""
        A = self.adjacency()
        # A search from one node is five times faster, and shows that most graphs have one component.
        if not self.directed and sparse.csgraph.breadth_first_order(A, 0, return_predecessors=False).size == A.shape[0]:
            return 1
        return sparse.csgraph.connected_components(A, self.directed, "strong", return_labels=False)


@recorded()
def from_networkx(
    graph: nx.Graph,
    *,
    labels: Sequence[Any] | None = None,
    ignore_weights: bool = False,
    name: str | None = None,
    allow_disconnected: bool = False,
) -> Topology:
    """Convert a NetworkX graph.

    If the nodes are 0 to n − 1, they keep their numbers. Otherwise they are numbered in the order of the graph, and
    ``labels`` of the result holds their original names.

    >>> import networkx as nx
    >>> from_networkx(nx.Graph([("b", "a"), ("a", "c")])).labels
    ('b', 'a', 'c')

    Args:
        graph: a ``Graph``, or a ``DiGraph`` whose edges go from sender to receiver.
        labels: all nodes of the graph, in the order of their new numbers. If several graphs describe the same nodes,
            pass the labels of the first topology.
        ignore_weights: drop edge weights other than 1. :func:`gossipjax.mixing.from_edge_weights` uses them.
        name: for reports; by default the name of the graph.
        allow_disconnected: accept a graph that is not (strongly) connected.

    Raises:
        ValueError: if the graph has no node, a self-loop, parallel edges or weights, if ``labels`` are not its nodes,
            or if it is not connected.
        TypeError: if ``graph`` is not a NetworkX graph.
    """
    flag("ignore_weights", ignore_weights)
    flag("allow_disconnected", allow_disconnected)
    order, senders, receivers = number_nodes(graph, labels)
    if not ignore_weights:
        for u, v, weight in graph.edges(data="weight", default=1):
            require(
                weight is not None and bool(np.all(weight == 1)),
                f"graph: edge ({shown(u)}, {shown(v)}) has weight {shown(weight)}, which a Topology cannot hold: "
                "pass the graph to gossipjax.mixing.from_edge_weights, or ignore_weights=True here",
            )
    if name is None:
        name = str(graph.name) or "networkx graph"
    topology = Topology(len(order), senders, receivers, graph.is_directed(), name, order)
    return topology if allow_disconnected else require_connected(topology)


@recorded()
def from_adjacency(
    A: Any,
    *,
    directed: bool = False,
    ignore_weights: bool = False,
    name: str = "adjacency matrix",
    allow_disconnected: bool = False,
) -> Topology:
    """Convert an adjacency matrix: node j can send to node i where A[i, j] is not 0.

    This is the inverse of :meth:`Topology.adjacency`. For directed graphs, NetworkX uses the transpose.

    >>> import numpy as np
    >>> from_adjacency(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))
    Topology(adjacency matrix: 3 nodes, 2 undirected edges)

    Args:
        A: ``(n, n)``, dense or sparse, with entries 0 and 1 and a zero diagonal.
        directed: whether edges have a direction; if false, A must be symmetric.
        ignore_weights: treat every nonzero entry as an edge. :func:`gossipjax.mixing.from_edge_weights` uses the
            weights.
        name: for reports.
        allow_disconnected: accept a graph that is not (strongly) connected.

    Raises:
        ValueError: if A is not square, if an entry is negative, infinite or NaN, if A has self-loops or weights, if A
            is not symmetric and ``directed`` is false, or if the graph is not connected.
        TypeError: if A is not a matrix.
    """
    directed, ignore_weights = flag("directed", directed), flag("ignore_weights", ignore_weights)
    flag("allow_disconnected", allow_disconnected)
    matrix = matrices.square("A", A, "pass a NumPy array or a SciPy sparse array").copy()
    matrix.eliminate_zeros()
    n = require_nodes(matrix.shape[0])
    matrices.reject(matrix, matrix.data < 0, "use 1 for an edge and 0 for no edge", "A")
    advice = "pass A to gossipjax.mixing.from_edge_weights to use weights, or ignore_weights=True here"
    if not ignore_weights:
        matrices.reject(matrix, matrix.data != 1, f"use 1 for an edge and 0 for no edge; {advice}", "A")
    receivers, senders = np.repeat(np.arange(n), np.diff(matrix.indptr)), matrix.indices
    loops = senders[senders == receivers]
    require(
        loops.size == 0,
        f"A[{loops[:1].sum()}, {loops[:1].sum()}] is not 0, a self-loop: set the diagonal to 0; a node always keeps a "
        "share of its own model",
    )
    if not directed:
        matrices.reject(matrix, _unanswered(n, senders, receivers), "A is not symmetric: pass directed=True", "A")
    topology = Topology(n, senders, receivers, directed, name)
    return topology if allow_disconnected else require_connected(topology)


def number_nodes(graph: nx.Graph, labels: Sequence[Any] | None) -> tuple[tuple[Any, ...], Nodes, Nodes]:
    """Number the nodes of a NetworkX graph.

    Args:
        graph: directed or not.
        labels: its nodes in the order of their new numbers; None: keep the numbers if the nodes are 0 to n − 1, else
            use the order of the graph.

    Returns:
        The labels in the order of their numbers, senders, and receivers; undirected edges in both directions.
    """
    instance("graph", graph, nx.Graph, "read or build one with NetworkX, such as networkx.Graph([(0, 1)])")
    n = len(graph)
    require(n > 0, "graph has zero nodes: a network needs at least one node")
    order = tuple(range(n)) if set(graph) == set(range(n)) else tuple(graph)
    if labels is not None:
        order = _as_labels(labels, n) or tuple(range(n))
        strange = next((label for label in order if label not in graph), None)
        require(strange is None, f"labels: {shown(strange)} is not a node of the graph; add it with graph.add_node")
    number = {label: k for k, label in enumerate(order)}
    ends = np.array([(number[u], number[v]) for u, v in graph.edges()], np.int64).reshape(-1, 2)
    senders, receivers = ends.T
    if not graph.is_directed():
        once = senders != receivers
        senders, receivers = np.concatenate([ends, ends[once, ::-1]]).T
    return order, senders, receivers


def undirected(num_nodes: int, near: Nodes, far: Nodes, name: str) -> Topology:
    """Build an undirected graph from pairs in either direction; drop repeated pairs and self-loops."""
    distinct = near != far
    low, high = np.minimum(near, far)[distinct].astype(np.int64), np.maximum(near, far)[distinct]
    low, high = np.divmod(sorted_distinct(low * num_nodes + high)[0], num_nodes)
    return Topology(num_nodes, np.concatenate([low, high]), np.concatenate([high, low]), directed=False, name=name)


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_nodes(num_nodes: Any) -> int:
    """Return a number of nodes; raise ``ValueError`` unless it is an integer of at least 1."""
    return whole("num_nodes", num_nodes, least=1, most=MOST_NODES, remedy="a network needs at least one node")


def require_room(subject: str, num_nodes: int, num_directed: int | float, remedy: str, *, extra: float = 0.0) -> None:
    """Raise ``ValueError`` if a graph does not fit into memory.

    Args:
        subject: argument, value and the object to build, for the message.
        num_nodes: n.
        num_directed: number of edges; an undirected edge counts twice.
        remedy: what to do instead.
        extra: additional bytes that the builder needs.
    """
    # The builders peak at up to 74 bytes per edge and direction (measured); every graph needs a vector or two of n
    # numbers.
    check_memory(subject, 75.0 * num_directed + 32.0 * num_nodes + extra, remedy)


def require_undirected(topology: Any, name: str = "topology") -> Topology:
    """Check that the argument is an undirected graph, and return it.

    Raises:
        TypeError: if it is not a topology.
        ValueError: if it is directed.
    """
    instance(name, topology, Topology, "build one with gossipjax.topology, such as ring(8)")
    if topology.directed:
        raise ValueError(f"{topology.name} is directed: both ends of an edge must know it; use an undirected graph")
    return topology


def require_connected(topology: Topology) -> Topology:
    """Return a (strongly) connected graph unchanged; raise ``ValueError`` for any other."""
    fewest = topology.num_nodes - topology.num_edges  # a lower bound in constant time
    count = fewest if fewest > 1 else topology.num_components()
    parts = f"{'at least ' if fewest > 1 else ''}{count} {'strongly connected ' if topology.directed else ''}components"
    require(
        count == 1,
        f"{topology.name} has {parts}: add edges between them, or pass allow_disconnected=True if it is only one round "
        "of a network that changes",
    )
    return topology


def _in_order(num_nodes: int, senders: Any, receivers: Any) -> tuple[Nodes, Nodes]:
    """Check the edges; return receivers and senders, sorted by receiver, then by sender."""
    rule: dict[str, Any] = {"least": 0, "most": num_nodes - 1, "remedy": "nodes are numbered from 0"}
    senders = wholes("senders", senders, shape=(None,), **rule)
    receivers = wholes("receivers", receivers, shape=(None,), **rule)
    if senders.shape != receivers.shape:
        raise ValueError(f"{senders.size} senders and {receivers.size} receivers: give one of each per edge")
    subject = f"num_nodes={num_nodes}: a graph of {senders.size} edges"
    require_room(subject, num_nodes, senders.size, "choose fewer nodes or edges")
    loops = senders == receivers
    if loops.any():
        node = senders[loops][0]
        raise ValueError(f"self-loop at node {node}: leave it out; a node always keeps a share of its own model")
    # In place, because complete graphs may nearly fill the memory.
    codes = receivers
    codes *= num_nodes
    codes += senders
    codes.sort()
    repeated = codes[1:] == codes[:-1]
    if repeated.any():
        receiver, sender = divmod(int(codes[1:][repeated][0]), num_nodes)
        raise ValueError(f"edge {sender} -> {receiver} is listed twice: list every edge once")
    return np.divmod(codes, num_nodes)


def _unanswered(num_nodes: int, senders: Nodes, receivers: Nodes) -> np.ndarray:
    """Mark the edges whose reverse is missing; edges are distinct and sorted by (receiver, sender)."""
    codes = receivers.astype(np.int64) * num_nodes + senders
    reverse = senders.astype(np.int64) * num_nodes + receivers
    reverse.sort()
    if np.array_equal(codes, reverse):
        return np.zeros(codes.size, bool)
    return ~np.isin(senders.astype(np.int64) * num_nodes + receivers, codes, assume_unique=True)


def _as_labels(labels: Any, num_nodes: int) -> tuple[Any, ...] | None:
    if labels is None:
        return None
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise TypeError(f"labels={shown(labels)}: must be a list of {num_nodes} labels, one per node")
    labels = tuple(labels)
    try:
        distinct = len(set(labels))
    except TypeError as error:
        raise TypeError(f"labels={shown(labels)}: must be hashable, such as numbers or words") from error
    require(
        len(labels) == distinct == num_nodes,
        f"labels={shown(labels)}: must be {num_nodes} distinct labels, one per node, not {distinct}",
    )
    numbers = tuple(range(num_nodes))
    if labels == numbers:
        return None
    require(
        set(labels) != set(numbers),
        f"labels={shown(labels)}: nodes named 0 to {num_nodes - 1} keep their numbers; use Topology.relabel",
    )
    return labels
