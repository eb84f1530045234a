"""Deterministic graph families."""

from __future__ import annotations

import dataclasses

import numpy as np

from gossipjax._base.arguments import instance, whole
from gossipjax._base.calls import recorded
from gossipjax.topology._graph import (
    HOW_TO_BUILD,
    MOST_NODES,
    Topology,
    require,
    require_nodes,
    require_room,
    undirected,
)


def _nodes(num_nodes: int, kind: str, edges_per_node: int) -> int:
    """Check the number of nodes of a sparse graph, and that it fits into memory."""
    n = require_nodes(num_nodes)
    require_room(f"num_nodes={n}: the {kind}", n, 2 * edges_per_node * n, "choose fewer nodes")
    return n


@recorded()
def ring(num_nodes: int) -> Topology:
    """Return the cycle: node i talks to i ± 1 modulo n. One edge for n = 2, none for n = 1."""
    num_nodes = _nodes(num_nodes, "ring", 1)
    nodes = np.arange(num_nodes)
    return undirected(num_nodes, nodes, (nodes + 1) % num_nodes, f"ring({num_nodes})")


@recorded()
def path(num_nodes: int) -> Topology:
    """Return the path graph: node i talks to i − 1 and i + 1 if these nodes exist."""
    num_nodes = _nodes(num_nodes, "path", 1)
    nodes = np.arange(num_nodes - 1)
    return undirected(num_nodes, nodes, nodes + 1, f"path({num_nodes})")


@recorded()
def torus(rows: int, columns: int) -> Topology:
    """Return the grid with wrap-around: node ``r * columns + c`` talks to the nodes above, below, left and right.

    Along a side of length 2, the two nodes share one edge instead of two. If one side is 1, the torus is a ring.
    """
    rows, columns = whole("rows", rows, least=1), whole("columns", columns, least=1)
    n = whole("rows * columns", rows * columns, most=MOST_NODES)
    require_room(f"rows={rows}, columns={columns}: the torus", n, 4 * n, "choose shorter sides")
    grid = np.arange(n).reshape(rows, columns)
    near = np.tile(np.arange(n), 2)
    far = np.concatenate([np.roll(grid, -1, axis=1).ravel(), np.roll(grid, -1, axis=0).ravel()])
    return undirected(n, near, far, f"torus({rows}, {columns})")


@recorded()
def hypercube(dimension: int) -> Topology:
    """Return the hypercube on 2^dimension nodes: two nodes talk if their numbers differ in exactly one bit."""
    dimension = whole("dimension", dimension, least=0, most=30)
    n = 2**dimension
    require_room(f"dimension={dimension}: the hypercube", n, n * dimension, "choose a smaller dimension")
    bits = 1 << np.arange(dimension)
    near = np.repeat(np.arange(n), dimension)
    return undirected(n, near, near ^ np.tile(bits, n), f"hypercube({dimension})")


@recorded()
def star(num_nodes: int) -> Topology:
    """Return the star: node 0, the hub, talks to every other node."""
    num_nodes = _nodes(num_nodes, "star", 1)
    leaves = np.arange(1, num_nodes)
    return undirected(num_nodes, np.zeros_like(leaves), leaves, f"star({num_nodes})")


@recorded()
def balanced_tree(branching: int, height: int) -> Topology:
    """Return the tree in which every node that is not a leaf has ``branching`` children, and leaves have one depth.

    Node 0 is the root; the children of node i are the nodes ``branching * i + 1`` to ``branching * i + branching``.

    Args:
        branching: children of a node, at least 1; 1: a path.
        height: edges from the root to a leaf, at least 0.

    Raises:
        ValueError: if an argument is out of range, or the tree does not fit into memory.
    """
    branching = whole("branching", branching, least=1, most=MOST_NODES)
    height = whole("height", height, least=0, most=MOST_NODES if branching == 1 else 31)
    n = height + 1 if branching == 1 else (branching ** (height + 1) - 1) // (branching - 1)
    n = whole(f"branching={branching}, height={height}: number of nodes", n, most=MOST_NODES)
    require_room(f"branching={branching}, height={height}: the tree", n, 2 * n, "choose a smaller tree")
    children = np.arange(1, n)
    return undirected(n, (children - 1) // branching, children, f"balanced_tree({branching}, {height})")


@recorded()
def complete(num_nodes: int) -> Topology:
    """Return the complete graph: every node talks to every other node.

    The result stores all n (n − 1) / 2 edges.

    Raises:
        ValueError: if ``num_nodes`` is below 1, or the edges do not fit into memory.
    """
    n = require_nodes(num_nodes)
    advice = "random_regular and exponential need few edges, and timeline.drawn_pairs takes n instead of a graph"
    require_room(f"num_nodes={n}: the complete graph", n, n * (n - 1), advice)
    nodes = np.arange(n, dtype=np.int32)
    others = nodes[:-1] + (nodes[:-1] >= nodes[:, None])
    return Topology(n, others.ravel(), np.repeat(nodes, n - 1), directed=False, name=f"complete({n})")


@recorded("ying2021exponential")
def exponential(num_nodes: int) -> Topology:
    """Return the static exponential graph: node i sends to i + 2^k modulo n for every k < ⌈log₂ n⌉. Directed.

    Reference: Ying, Yuan, Chen, Hu, Pan, Yin (2021), "Exponential graph is provably efficient for decentralized deep
    training", equation (6).
    """
    rounds = [t for t in one_peer_exponential(num_nodes) if t.senders.size]
    senders = np.concatenate([np.zeros(0, np.int32), *(t.senders for t in rounds)])
    receivers = np.concatenate([np.zeros(0, np.int32), *(t.receivers for t in rounds)])
    return Topology(num_nodes, senders, receivers, directed=True, name=f"exponential({num_nodes})")


@recorded()
def one_peer_exponential(num_nodes: int) -> tuple[Topology, ...]:
    """Return the ⌈log₂ n⌉ rounds of the one-peer exponential graph: in round k node i sends to i + 2^k modulo n.

    One round may be disconnected; the union of all rounds is :func:`exponential`. With weights ½, one pass through the
    rounds computes the exact average if and only if n is a power of two. For n = 1 there is one round without edges.

    Reference: Ying et al. (2021), section 4.
    """
    num_nodes = require_nodes(num_nodes)
    hops = (num_nodes - 1).bit_length()
    require_room(f"num_nodes={num_nodes}: the exponential graph", num_nodes, num_nodes * hops, "choose fewer nodes")
    nodes = np.arange(num_nodes)
    if num_nodes == 1:
        return (Topology(1, nodes[:0], nodes[:0], directed=True, name="one_peer_exponential(1)[0]"),)
    return tuple(
        Topology(num_nodes, nodes, (nodes + 2**k) % num_nodes, True, f"one_peer_exponential({num_nodes})[{k}]")
        for k in range(hops)
    )


@recorded()
def with_ring(topology: Topology) -> Topology:
    """Add the edges of a ring to an undirected graph, so that it is connected, as DecentralizePy's force-connect does.

    >>> from gossipjax.topology import random_matching
    >>> with_ring(random_matching(6, seed=0)).num_components()
    1

    Args:
        topology: undirected.

    Raises:
        ValueError: if the graph is directed.
    """
    topology = instance("topology", topology, Topology, HOW_TO_BUILD)
    require(not topology.directed, f"topology={topology.name} is directed; a ring connects undirected graphs")
    nodes = np.arange(topology.num_nodes)
    near, far = np.append(topology.senders, nodes), np.append(topology.receivers, (nodes + 1) % nodes.size)
    joined = undirected(nodes.size, near, far, f"{topology.name} with a ring")
    return dataclasses.replace(joined, labels=topology.labels)
