"""Graphs that are given by a rule."""

from __future__ import annotations

import numpy as np

from gossipjax.topology.graph import Topology, require, require_nodes, undirected


def ring(num_nodes: int) -> Topology:
    """Return the cycle: node i talks to i ± 1 modulo n. One edge for n = 2, none for n = 1."""
    require_nodes(num_nodes)
    nodes = np.arange(num_nodes)
    return undirected(num_nodes, nodes, (nodes + 1) % num_nodes, f"ring({num_nodes})")


def path(num_nodes: int) -> Topology:
    """Return the line: node i talks to i ± 1 where these exist."""
    require_nodes(num_nodes)
    nodes = np.arange(num_nodes - 1)
    return undirected(num_nodes, nodes, nodes + 1, f"path({num_nodes})")


def torus(rows: int, columns: int) -> Topology:
    """Return the grid with wrap-around: node ``r * columns + c`` talks to the nodes above, below, left and right.

    A side of 2 has one edge where longer sides have two; a side of 1 leaves a ring.
    """
    require(rows >= 1 and columns >= 1, f"torus of {rows} rows and {columns} columns: both must be at least 1")
    n = rows * columns
    grid = np.arange(n).reshape(rows, columns)
    near = np.tile(np.arange(n), 2)
    far = np.concatenate([np.roll(grid, -1, axis=1).ravel(), np.roll(grid, -1, axis=0).ravel()])
    return undirected(n, near, far, f"torus({rows}, {columns})")


def hypercube(dimension: int) -> Topology:
    """Return the hypercube on 2^dimension nodes: nodes talk if their numbers differ in one bit."""
    require(0 <= dimension <= 30, f"dimension {dimension} of a hypercube must be from 0 to 30")
    n = 2**dimension
    bits = 1 << np.arange(dimension)
    near = np.repeat(np.arange(n), dimension)
    return undirected(n, near, near ^ np.tile(bits, n), f"hypercube({dimension})")


def star(num_nodes: int) -> Topology:
    """Return the star: node 0, the hub, talks to every other node."""
    require_nodes(num_nodes)
    leaves = np.arange(1, num_nodes)
    return undirected(num_nodes, np.zeros_like(leaves), leaves, f"star({num_nodes})")


def complete(num_nodes: int) -> Topology:
    """Return the complete graph: everybody talks to everybody."""
    require_nodes(num_nodes)
    near, far = np.triu_indices(num_nodes, 1)
    return undirected(num_nodes, near, far, f"complete({num_nodes})")


def exponential(num_nodes: int) -> Topology:
    """Return the static exponential graph: node i sends to i + 2^k modulo n for every k < ⌈log₂ n⌉. Directed.

    Reference: Ying, Yuan, Chen, Hu, Pan, Yin (2021), "Exponential graph is provably efficient for decentralized deep
    training", equation (6).
    """
    rounds = [t for t in one_peer_exponential(num_nodes) if t.senders.size]
    senders = np.concatenate([np.zeros(0, np.int32), *(t.senders for t in rounds)])
    receivers = np.concatenate([np.zeros(0, np.int32), *(t.receivers for t in rounds)])
    return Topology(num_nodes, senders, receivers, directed=True, name=f"exponential({num_nodes})")


def one_peer_exponential(num_nodes: int) -> tuple[Topology, ...]:
    """Return the ⌈log₂ n⌉ rounds of the one-peer exponential graph: in round k node i sends to i + 2^k modulo n.

    A round alone may be disconnected; their union is :func:`exponential`. With weights ½ one pass through the rounds is
    the exact average if, and only if, n is a power of two. A single node has one round, without edges.

    Reference: Ying et al. (2021), section 4.
    """
    require_nodes(num_nodes)
    nodes = np.arange(num_nodes)
    if num_nodes == 1:
        return (Topology(1, nodes[:0], nodes[:0], directed=True, name="one_peer_exponential(1)[0]"),)
    return tuple(
        Topology(num_nodes, nodes, (nodes + 2**k) % num_nodes, True, f"one_peer_exponential({num_nodes})[{k}]")
        for k in range((num_nodes - 1).bit_length())
    )
