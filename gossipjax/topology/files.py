"""Graph files in the two formats of DecentralizePy."""

from __future__ import annotations

import os
import pathlib
import tempfile
from typing import TypeAlias

import numpy as np

from gossipjax.topology.graph import Topology, require, require_connected

Pairs: TypeAlias = dict[tuple[int, int], int]
"""Edges in the order in which they are read, with the number of the line that names them."""


def read_graph(
    path: str | os.PathLike[str],
    *,
    format: str = "edges",
    directed: bool = False,
    allow_disconnected: bool = False,
) -> Topology:
    """Read a graph file of DecentralizePy: the first line is n, nodes are numbered from 0.

    Args:
        path: the file.
        format: ``"edges"``: one edge "x y" per line; repeated edges count once, blank lines are skipped.
            ``"adjacency"``: the line after the first lists the neighbours of node 0, the next those of node 1, and so
            on; a blank line is a node without neighbours.
        directed: if true, "x y" lets x send to y only, and the line of a node lists whom it sends to. If false, edges
            go both ways; an adjacency list must then name each edge at both its ends.
        allow_disconnected: accept a graph that is not (strongly) connected.

    Raises:
        ValueError: naming file and line of the first fault, or if the graph is not connected.
    """
    path = pathlib.Path(path)
    require(format in ("edges", "adjacency"), f"format {format!r} is unknown: choose 'edges' or 'adjacency'")
    rows = [_numbers(path, k, line) for k, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)]
    if not rows or len(rows[0]) != 1 or rows[0][0] < 1:
        raise ValueError(f"{path}, line 1: must be the number of nodes, at least 1")
    n = rows[0][0]
    pairs = _edge_lines(path, rows) if format == "edges" else _adjacency_lines(path, rows)
    for (x, y), line in pairs.items():
        require(x < n and y < n, f"{path}, line {line}: node {max(x, y)} is not in 0..{n - 1}")
        require(x != y, f"{path}, line {line}: self-loop at node {x}: leave it out")
    if format == "adjacency" and not directed:
        _require_both_ends(path, pairs)
    ends = {*pairs} if directed else {*pairs, *(pair[::-1] for pair in pairs)}
    senders, receivers = np.array(sorted(ends), np.int64).reshape(-1, 2).T
    topology = Topology(n, senders, receivers, directed, path.name)
    return topology if allow_disconnected else require_connected(topology)


def write_graph(path: str | os.PathLike[str], topology: Topology, *, format: str = "edges") -> None:
    """Write a graph file for :func:`read_graph` and DecentralizePy; undirected edges are written in both directions.

    The file appears whole or not at all: it is written under a temporary name and renamed.
    """
    require(format in ("edges", "adjacency"), f"format {format!r} is unknown: choose 'edges' or 'adjacency'")
    order = np.lexsort((topology.receivers, topology.senders))
    senders, receivers = topology.senders[order].tolist(), topology.receivers[order].tolist()
    if format == "edges":
        lines = [f"{x} {y}" for x, y in zip(senders, receivers, strict=True)]
    else:
        ends = np.cumsum(topology.out_degrees)
        lines = [" ".join(map(str, receivers[a:b])) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("\n".join([str(topology.num_nodes), *lines]) + "\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _numbers(path: pathlib.Path, number: int, line: str) -> list[int]:
    words = line.split()
    require(
        all(word.isascii() and word.isdigit() for word in words),
        f"{path}, line {number}: {line.strip()[:40]!r} must be node numbers separated by blanks",
    )
    return [int(word) for word in words]


def _edge_lines(path: pathlib.Path, rows: list[list[int]]) -> Pairs:
    pairs: Pairs = {}
    for number, row in enumerate(rows[1:], 2):
        require(len(row) in (0, 2), f"{path}, line {number}: {len(row)} numbers where an edge 'x y' has 2")
        if row:
            pairs.setdefault((row[0], row[1]), number)
    return pairs


def _adjacency_lines(path: pathlib.Path, rows: list[list[int]]) -> Pairs:
    n = rows[0][0]
    while len(rows) > n + 1 and not rows[-1]:
        rows.pop()
    # A last node without neighbours may have lost its blank line.
    require(len(rows) <= n + 1, f"{path}, line {n + 2}: more lines than the {n} nodes that line 1 announces")
    require(len(rows) >= n, f"{path}: {len(rows) - 1} adjacency lines for {n} nodes: give every node a line")
    return {(node, neighbor): node + 2 for node, row in enumerate(rows[1:]) for neighbor in row}


def _require_both_ends(path: pathlib.Path, pairs: Pairs) -> None:
    for (x, y), line in pairs.items():
        require(
            (y, x) in pairs,
            f"{path}, line {line}: node {x} lists {y}, but line {y + 2} does not list {x}: name both, or pass "
            "directed=True",
        )
