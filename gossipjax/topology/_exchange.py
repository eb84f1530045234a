"""Parse the graph formats of other programs: METIS and MatrixMarket."""

from __future__ import annotations

import io
import re

import numpy as np
import scipy.io
from scipy import sparse

from gossipjax.topology._layout import BANNER, HOW_TO_WEIGH, Edges, Layout, add_weight, nodes_of, number_of, numbers_of


def metis_edges(text: str, layout: Layout) -> Edges:
    """Parse METIS: comments with %, nodes from 1, undirected, each edge at both ends, optionally with weights."""
    content = [(k, line.split()) for k, line in enumerate(text.splitlines(), 1) if not line.startswith("%")]
    content = [entry for place, entry in enumerate(content) if place or entry[1]]
    header_line, header = content[0] if content else (1, [])
    if not 2 <= len(header) <= 4:
        layout.refuse(header_line, "must be 'n m', 'n m format' or 'n m format weights'")
    layout = layout._replace(first_node=1, directed=False)
    n, m = numbers_of(header[:2], header_line, " ".join(header), layout)
    n = nodes_of(n, header_line, layout)
    kind = header[2].zfill(3) if len(header) > 2 else "000"
    if not re.fullmatch("[01]{3}", kind):
        layout.refuse(header_line, f"format {header[2]}: must be up to three digits of 0 and 1")
    skipped = int(kind[0]) + (int(header[3]) if len(header) == 4 and header[3].isdigit() else 1) * int(kind[1])
    if kind[2] == "1" and layout.weights == "refuse":
        layout.refuse(header_line, f"edges have weights; {HOW_TO_WEIGH}")
    rows = content[1:]
    while len(rows) > n and not rows[-1][1]:
        rows = rows[:-1]
    if len(rows) != n:
        layout.refuse(rows[-1][0] if rows else header_line, f"{len(rows)} lines for {n} nodes: give every node a line")
    edges = Edges(n, {}, {})
    for node, (line, words) in enumerate(rows, 1):
        _metis_line(node, line, words[skipped:], kind[2] == "1", edges, layout)
    if len(edges.lines) != 2 * m:
        layout.refuse(header_line, f"{m} edges are announced, and {len(edges.lines) / 2:g} are listed at both ends")
    return edges


def _metis_line(node: int, line: int, words: list[str], weighted: bool, edges: Edges, layout: Layout) -> None:
    if weighted and len(words) % 2:
        layout.refuse(line, f"{len(words)} numbers, but each neighbour has a weight")
    neighbors = numbers_of(words[:: 1 + weighted], line, " ".join(words), layout)
    values = [number_of(word, line, layout) for word in words[1::2]] if weighted else [1.0] * len(neighbors)
    for neighbor, weight in zip(neighbors, values, strict=True):
        if (node, neighbor) in edges.lines:
            layout.refuse(line, f"neighbour {neighbor} of node {node} is listed twice")
        edges.lines[node, neighbor] = line
        if layout.weights == "use":
            add_weight(edges.weights, edges.lines, (node, neighbor), weight, layout)


def matrix_market_edges(text: str, layout: Layout) -> Edges:
    """Parse MatrixMarket with SciPy."""
    if not text.startswith(BANNER):
        layout.refuse(1, f"does not begin with {BANNER}")
    try:
        matrix = sparse.coo_array(scipy.io.mmread(io.BytesIO(text.encode())))
    except (ValueError, OverflowError, TypeError) as error:
        found = re.search(r"Line (\d+)", str(error))
        layout.refuse(int(found[1]) if found else text.count("\n"), f"is no MatrixMarket matrix ({error})")
    size = next(k for k, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("%"))
    if matrix.shape[0] != matrix.shape[1] or np.iscomplexobj(matrix.data):
        layout.refuse(size, f"a matrix of shape {matrix.shape} and type {matrix.dtype}: must be square and real")
    n = nodes_of(matrix.shape[0], size, layout)
    receivers, senders = matrix.coords
    if layout.weights == "refuse" and not (matrix.data == 1).all():
        layout.refuse(size, f"entries other than 1; {HOW_TO_WEIGH}")
    edges = Edges(n, {}, {})
    for x, y, value in zip(senders.tolist(), receivers.tolist(), matrix.data.tolist(), strict=True):
        if (x, y) in edges.lines:
            layout.refuse(size, f"entry ({y + 1}, {x + 1}) is listed twice")
        if value != 0:
            edges.lines[x, y] = size
            edges.weights[x, y] = number_of(repr(float(value)), size, layout)
    for x, y in edges.lines if not layout.directed else ():
        differ = layout.weights != "ignore" and edges.weights.get((y, x)) != edges.weights[x, y]
        if differ or (y, x) not in edges.lines:
            layout.refuse(size, f"entries ({y + 1}, {x + 1}) and ({x + 1}, {y + 1}) differ: pass directed=True")
    return edges
