"""Parse graph files: from text to edges with the numbers of their lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import numpy as np
from scipy import sparse

from gossipjax.topology._exchange import matrix_market_edges, metis_edges
from gossipjax.topology._graph import Topology
from gossipjax.topology._layout import (
    HOW_TO_WEIGH,
    Edges,
    Layout,
    Row,
    add_weight,
    nodes_of,
    number_of,
    numbers_of,
)

_LEAVE = ("source", "src", "from", "sender", "tail")
_ARRIVE = ("target", "dst", "dest", "destination", "to", "receiver", "head")
"""CSV column names of the sender (above) and of the receiver; their order gives the direction of the edges."""


def edges_of(text: str, layout: Layout) -> Edges:
    """Parse a graph.

    Raises:
        ValueError: if the text is malformed; the message names the line.
    """
    if layout.format == "matrix_market":
        return matrix_market_edges(text, layout)
    if layout.format == "metis":
        return metis_edges(text, layout)
    n, rows = _numbered(text, layout)
    if layout.format == "adjacency":
        return Edges(n, _adjacency_lines(rows, n, layout), {})
    return Edges(n, *edge_lines(rows, layout))


def rounds_of(text: str, layout: Layout) -> list[Edges]:
    """Parse the graphs of all rounds, from lines that begin with the number of their round.

    Raises:
        ValueError: if the text is malformed, or a round between 0 and the last has no edge; the message names the line.
    """
    n, rows = _numbered(text, layout)
    by_round: dict[int, list[Row]] = {}
    for row in rows:
        if row.numbers and len(row.numbers) != 3:
            layout.refuse(row.line, f"{len(row.numbers)} numbers, but a round and an edge 't x y' have 3")
        if row.numbers:
            by_round.setdefault(row.numbers[0], []).append(row._replace(numbers=row.numbers[1:]))
    if not by_round:
        layout.refuse(1, "the file has no edge")
    for t, number in enumerate(sorted(by_round)):
        if t != number:
            fault = f"round {number}, but no line has round {t}: number the rounds from 0, without a gap"
            layout.refuse(by_round[number][0].line, fault)
    return [Edges(n, *edge_lines(by_round[t], layout)) for t in range(len(by_round))]


def _numbered(text: str, layout: Layout) -> tuple[int, list[Row]]:
    """Return the number of nodes and the rows of edges or lists."""
    rows = list(_csv_rows(text, layout) if layout.format == "csv" else _rows(text, layout))
    n = layout.num_nodes
    if n is None and layout.format == "csv":
        top = max(rows, key=lambda row: max(row.numbers[layout.rounds :]), default=None)
        if top is None:
            layout.refuse(1, "the file has no edge")
        n = nodes_of(max(top.numbers[layout.rounds :]) + 1 - layout.first_node, top.line, layout)
    elif n is None:
        line, numbers, weight = rows[0] if rows else Row(1, [])
        if len(numbers) != 1 or weight is not None:
            layout.refuse(line, "must be the number of nodes; pass num_nodes if the file does not give it")
        n = nodes_of(numbers[0], line, layout)
        rows = rows[1:]
    return n, rows


def is_comment(content: str) -> bool:
    """Return whether a line is a comment."""
    return content.lstrip().startswith(("#", "%"))


def _rows(text: str, layout: Layout) -> Iterator[Row]:
    for line, content in enumerate(text.splitlines(), 1):
        if not is_comment(content):
            words = content.split()
            weight = _weight(words, line, layout)
            yield Row(line, numbers_of(words, line, content.strip(), layout), weight)


def _weight(words: list[str], line: int, layout: Layout) -> float | None:
    """Take the weight, the last word of an edge, from the words of a line."""
    if layout.weights == "refuse" or layout.format == "adjacency" or len(words) != 3 + layout.rounds:
        return None
    return number_of(words.pop(), line, layout)


def _csv_rows(text: str, layout: Layout) -> Iterator[Row]:
    first, columns = True, 2 + layout.rounds
    for line, content in enumerate(text.splitlines(), 1):
        if not content.strip() or is_comment(content):
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([content], strict=True))]
        except csv.Error as error:
            layout.refuse(line, f"{content[:40]!r} is not valid CSV ({error})")
        header = first and not any(cell[:1].isdigit() or not cell for cell in cells[:columns])
        weight = None if header else _weight(cells, line, layout)
        given = len(cells) - (header and layout.weights != "refuse" and len(cells) == columns + 1)
        if given != columns:
            more = HOW_TO_WEIGH if given == columns + 1 else "separated by a comma"
            what = "a round and an edge have 3" if layout.rounds else "an edge has 2"
            layout.refuse(line, f"{content[:40]!r} has {len(cells)} columns, but {what}, {more}")
        if not header:
            yield Row(line, numbers_of(cells, line, content.strip(), layout), weight)
        elif cells[layout.rounds].lower() in _ARRIVE or cells[1 + layout.rounds].lower() in _LEAVE:
            layout.refuse(line, f"{content[:40]!r} puts the receiver first: an edge 'x,y' goes from x to y; swap them")
        first = False


def edge_lines(rows: list[Row], layout: Layout) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], float]]:
    """Return the lines and the weights of edges; a repeated edge counts once, unless its weights differ."""
    lines: dict[tuple[int, int], int] = {}
    weights: dict[tuple[int, int], float] = {}
    for line, numbers, weight in rows:
        if len(numbers) not in (0, 2):
            weighted = f"; {HOW_TO_WEIGH}" if len(numbers) == 3 else ""
            layout.refuse(line, f"{len(numbers)} numbers, but an edge 'x y' has 2{weighted}")
        if not numbers:
            continue
        edge = (numbers[0], numbers[1])
        lines.setdefault(edge, line)
        if layout.weights == "use":
            if weight is None:
                layout.refuse(line, f"edge {edge[0]} {edge[1]} has no weight; give all edges one")
            add_weight(weights, lines, edge, weight, layout)
    return lines, weights


def _adjacency_lines(rows: list[Row], n: int, layout: Layout) -> dict[tuple[int, int], int]:
    while len(rows) > n and not rows[-1].numbers:
        rows = rows[:-1]
    if len(rows) > n:
        layout.refuse(rows[n].line, f"more lines than the {n} nodes")
    # The blank line of a last node without neighbours may be missing.
    if len(rows) < n - 1:
        layout.refuse(
            rows[-1].line if rows else 1, f"{len(rows)} adjacency lines for {n} nodes: give every node a line"
        )
    pairs: dict[tuple[int, int], int] = {}
    for node, (line, numbers, _) in enumerate(rows, layout.first_node):
        for neighbor in numbers:
            if (node, neighbor) in pairs:
                layout.refuse(line, f"neighbour {neighbor} of node {node} is listed twice")
            pairs[node, neighbor] = line
    return pairs


def checked(edges: Edges, layout: Layout, *, loops: bool = False) -> Edges:
    """Check nodes, self-loops and lists of both ends; number nodes from 0.

    Args:
        edges: as in the file.
        layout: of the file.
        loops: whether self-loops are legal.

    Raises:
        ValueError: if an edge breaks a rule; the message names its line.
    """
    if layout.format == "metis":
        layout = layout._replace(first_node=1, directed=False)
    first = 0 if layout.format == "matrix_market" else layout.first_node
    last = first + edges.num_nodes - 1
    for (x, y), line in edges.lines.items():
        if min(x, y) < first or max(x, y) > last:
            from_one = first == 0 and max(x, y) == edges.num_nodes and all(min(pair) > 0 for pair in edges.lines)
            hint = "; pass first_node=1 if nodes are numbered from 1" if from_one else ""
            layout.refuse(line, f"node {y if first <= x <= last else x} is not in {first}..{last}{hint}")
        if x == y and not loops:
            layout.refuse(line, f"self-loop at node {x}: leave it out")
    for (x, y), line in edges.lines.items() if layout.format in ("adjacency", "metis") else ():
        if not layout.directed and (y, x) not in edges.lines:
            layout.refuse(line, f"node {x} lists {y}, but {y} does not list {x}: list both, or pass directed=True")
    lines = {(x - first, y - first): line for (x, y), line in edges.lines.items()}
    weights = {(x - first, y - first): weight for (x, y), weight in edges.weights.items()}
    return Edges(edges.num_nodes, lines, weights)


def topology_of(edges: Edges, layout: Layout, name: str) -> Topology:
    """Build the graph of a file."""
    edges = checked(edges, layout)
    directed = layout.directed and layout.format != "metis"
    ends = {*edges.lines} if directed else {*edges.lines, *(edge[::-1] for edge in edges.lines)}
    senders, receivers = np.array(sorted(ends), np.int64).reshape(-1, 2).T
    return Topology(edges.num_nodes, senders, receivers, directed, name)


def matrix_of(edges: Edges, layout: Layout) -> sparse.csr_array:
    """Build the matrix of the weights of a file: the weight of the edge from j to i in row i."""
    edges = checked(edges, layout, loops=True)
    both = {} if layout.directed else {edge[::-1]: weight for edge, weight in edges.weights.items()}
    weights = both | edges.weights
    senders, receivers = np.array([*weights], np.int64).reshape(-1, 2).T
    values = np.array([*weights.values()], np.float64)
    return sparse.csr_array((values, (receivers, senders)), shape=(edges.num_nodes,) * 2)
