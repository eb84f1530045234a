"""Read and write graph files: the two formats of DecentralizePy, and CSV edge lists."""

from __future__ import annotations

import csv
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from gossipjax._base.arguments import choice, flag, instance, optional_whole, whole
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.topology._graph import HOW_TO_BUILD, MOST_NODES, Topology, require, require_connected, require_room

Pairs: TypeAlias = dict[tuple[int, int], int]
"""Edges in file order, each with the number of its line."""

FORMATS = ("edges", "adjacency", "csv")
_FORMS = {
    "edges": "the number of nodes alone on line 1, then one edge 'x y' per line",
    "adjacency": "the number of nodes alone on line 1, then the neighbours of one node per line",
    "csv": "one edge 'x,y' per line, with or without a header",
}
_LEAVE = ("source", "src", "from", "sender", "tail")
_ARRIVE = ("target", "dst", "dest", "destination", "to", "receiver", "head")
"""CSV column names of the sender (above) and of the receiver; their order gives the direction of the edges."""
_OTHERWISE = (
    "read_graph also takes format='edges', 'adjacency' or 'csv'; for other formats, read the file with NetworkX and "
    "pass the graph to gossipjax.topology.from_networkx"
)


class _Row(NamedTuple):
    line: int
    numbers: list[int]


class _Layout(NamedTuple):
    """The arguments of :func:`read_graph` that describe a file."""

    path: pathlib.Path
    format: str
    num_nodes: int | None
    first_node: int
    directed: bool

    def refuse(self, line: int, fault: str) -> NoReturn:
        raise ValueError(f"{self.path}, line {line}: {fault}; expected: {_FORMS[self.format]}; {_OTHERWISE}")


@recorded()
def read_graph(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    num_nodes: int | None = None,
    first_node: int = 0,
    directed: bool = False,
    allow_disconnected: bool = False,
) -> Topology:
    """Read a graph file: an edge list or adjacency lists in DecentralizePy's formats, or a CSV edge list.

    Lines that begin with ``#`` or ``%`` are comments.

    Args:
        path: the file, UTF-8 text.
        format: ``"edges"``: the first line is n, then one edge "x y" per line; repeated edges count once, blank lines
            are skipped. ``"adjacency"``: the first line is n, the next line lists the neighbours of node 0, the next
            those of node 1, and so on; a blank line is a node without neighbours. ``"csv"``: one edge "x,y" per line;
            a header of two names is skipped. None: ``"csv"`` if the file name ends in .csv, else whichever of the
            other two fits.
        num_nodes: n, if the first line of the file is not n. CSV files need it only if the last nodes have no edge.
        first_node: number of the first node in the file, 0 or 1. Nodes of a Topology are numbered from 0.
        directed: if true, "x y" lets only x send to y, and the line of a node lists the nodes that it sends to. If
            false, edges go both ways, and an adjacency list must name each edge at both ends.
        allow_disconnected: accept a graph that is not (strongly) connected.

    Raises:
        ValueError: if the file is malformed (the message names the line, the expected format and the alternatives), if
            it is valid both as edges and as adjacency lists of another graph, or if the graph is not connected.
    """
    path = _path(path)
    format = None if format is None else choice("format", format, FORMATS)
    num_nodes = optional_whole("num_nodes", num_nodes, least=1, most=MOST_NODES)
    first_node = whole("first_node", first_node, least=0, most=1)
    directed, allow_disconnected = flag("directed", directed), flag("allow_disconnected", allow_disconnected)
    if format is None and path.suffix.lower() == ".csv":
        format = "csv"
    layout = _Layout(path, format or "edges", num_nodes, first_node, directed)
    text = _text(layout)
    topology = _either(text, layout) if format is None else _read(text, layout)
    return topology if allow_disconnected else require_connected(topology)


def write_graph(path: str | os.PathLike[str], topology: Topology, *, format: str = "edges") -> None:
    """Write a graph file for :func:`read_graph`; nodes are written as numbers.

    ``"edges"`` and ``"adjacency"`` are DecentralizePy's formats and list undirected edges in both directions;
    ``"csv"`` has a header and lists each undirected edge once. The write is atomic: a temporary file is renamed.

    Raises:
        ValueError: if the format is unknown, the folder does not exist, or the format is CSV and the last node has no
            edge, because the file would lose it.
        OSError: if the file cannot be written; no partial file remains.
    """
    path, topology = _path(path), instance("topology", topology, Topology, HOW_TO_BUILD)
    choice("format", format, FORMATS)
    require(
        os.path.isdir(path.parent) and not os.path.isdir(path),
        f"path={str(path)!r}: must name a file in a folder that exists",
    )
    lines = "\n".join(_lines(topology, format)) + "\n"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(lines)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _lines(topology: Topology, format: str) -> Iterator[str]:
    order = np.lexsort((topology.receivers, topology.senders))
    senders, receivers = topology.senders[order].tolist(), topology.receivers[order].tolist()
    if format == "csv":
        last = topology.num_nodes - 1
        used = last in (max(senders, default=-1), max(receivers, default=-1))
        require(
            used, f"format='csv': node {last} of {topology.name} has no edge, and CSV would lose it; use format='edges'"
        )
        yield "source,target"
        yield from (f"{x},{y}" for x, y in zip(senders, receivers, strict=True) if topology.directed or x < y)
        return
    yield str(topology.num_nodes)
    if format == "edges":
        yield from (f"{x} {y}" for x, y in zip(senders, receivers, strict=True))
        return
    ends = np.cumsum(topology.out_degrees)
    yield from (" ".join(map(str, receivers[a:b])) for a, b in zip([0, *ends[:-1]], ends, strict=True))


def _path(path: Any) -> pathlib.Path:
    instance("path", path, (str, os.PathLike), "name the file")
    require("\0" not in os.fsdecode(path), f"path={str(path)!r}: a file name must not contain a zero byte")
    return pathlib.Path(os.fsdecode(path))


def _text(layout: _Layout) -> str:
    """Read UTF-8 text, with or without a byte-order mark."""
    path = layout.path
    if not os.path.isfile(path):  # pathlib raises OSError if a name is too long
        kind = "a folder, or not a regular file" if os.path.exists(path) else "there is no such file"
        raise ValueError(f"path={str(path)!r}: {kind}; expected: a file with {_FORMS[layout.format]}; {_OTHERWISE}")
    # Lists of Python integers and a dictionary of pairs take about 60 bytes per byte of text.
    check_memory(f"path={str(path)!r}", 60.0 * path.stat().st_size, "convert it with tools for large graphs")
    try:
        content = path.read_bytes()
    except OSError as error:
        layout.refuse(1, f"cannot be read ({error.strerror})")
    if content.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")):
        layout.refuse(1, "the file is compressed; unpack it first")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        layout.refuse(content[: error.start].count(b"\n") + 1, "not UTF-8 text, perhaps UTF-16; save it as UTF-8")
    if "\0" in text:
        layout.refuse(
            text[: text.index("\0")].count("\n") + 1, "contains a zero byte, perhaps UTF-16; save it as UTF-8"
        )
    if text.startswith("%%MatrixMarket"):
        layout.refuse(1, "is a MatrixMarket file; pass scipy.io.mmread(path) to gossipjax.topology.from_adjacency")
    return text


def _either(text: str, layout: _Layout) -> Topology:
    """Read edges or adjacency lists, whichever fits; refuse a file that is valid as both."""
    topologies, faults = {}, {}
    for format in ("edges", "adjacency"):
        # DecentralizePy's adjacency lists may name an edge at one end only; the second read below checks that.
        relaxed = layout._replace(format=format, directed=layout.directed or format == "adjacency")
        try:
            topologies[format] = _read(text, relaxed)
        except ValueError as error:
            faults[format] = error
    if len(topologies) == 2 and topologies["edges"].same_edges(topologies["adjacency"]):
        return topologies["edges"]
    if len(topologies) == 2:
        raise ValueError(
            f"{layout.path}, line 2: the file can be read as edges or as adjacency lists of two different graphs: pass "
            f"format='edges' or format='adjacency'; expected: {_FORMS['edges']}, or {_FORMS['adjacency']}; {_OTHERWISE}"
        )
    if "adjacency" in topologies:
        return _read(text, layout._replace(format="adjacency"))
    if "edges" in topologies:
        return topologies["edges"]
    lengths = {len(line.split()) for line in text.splitlines()[1:] if not _is_comment(line)}
    raise faults["edges" if lengths <= {0, 2} or len(lengths) < 2 else "adjacency"]


def _read(text: str, layout: _Layout) -> Topology:
    rows = list(_csv_rows(text, layout) if layout.format == "csv" else _rows(text, layout))
    n = layout.num_nodes
    if n is None and layout.format == "csv":
        top = max(rows, key=lambda row: max(row.numbers), default=None)
        if top is None:
            layout.refuse(1, "the file has no edge")
        n = _nodes(max(top.numbers) + 1 - layout.first_node, top.line, layout)
    elif n is None:
        line, numbers = rows[0] if rows else _Row(1, [])
        if len(numbers) != 1:
            layout.refuse(line, "must be the number of nodes; pass num_nodes if the file does not give it")
        n = _nodes(numbers[0], line, layout)
        rows = rows[1:]
    pairs = _adjacency_lines(rows, n, layout) if layout.format == "adjacency" else _edge_lines(rows, layout)
    return _build(n, pairs, layout)


def _nodes(n: int, line: int, layout: _Layout) -> int:
    """Check the number of nodes that the file gives, before it is used to allocate memory."""
    if n < 1 or n > MOST_NODES:
        layout.refuse(line, f"{n} nodes: must be the number of nodes, at least 1 and at most {MOST_NODES}")
    subject = f"{layout.path}, line {line}: a graph of {n} nodes"
    require_room(subject, n, 0, f"expected: {_FORMS[layout.format]}; {_OTHERWISE}")
    return n


def _is_comment(content: str) -> bool:
    return content.lstrip().startswith(("#", "%"))


def _rows(text: str, layout: _Layout) -> Iterator[_Row]:
    for line, content in enumerate(text.splitlines(), 1):
        if not _is_comment(content):
            yield _Row(line, _numbers(content.split(), line, content.strip(), layout))


def _csv_rows(text: str, layout: _Layout) -> Iterator[_Row]:
    first = True
    for line, content in enumerate(text.splitlines(), 1):
        if not content.strip() or _is_comment(content):
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([content], strict=True))]
        except csv.Error as error:
            layout.refuse(line, f"{content[:40]!r} is not valid CSV ({error})")
        if len(cells) != 2:
            more = "pass weights to gossipjax.mixing.from_edge_weights" if len(cells) > 2 else "separated by a comma"
            layout.refuse(line, f"{content[:40]!r} has {len(cells)} columns, but an edge has 2, {more}")
        if not first or any(cell[:1].isdigit() or not cell for cell in cells):
            yield _Row(line, _numbers(cells, line, content.strip(), layout))
        elif cells[0].lower() in _ARRIVE or cells[1].lower() in _LEAVE:
            layout.refuse(line, f"{content[:40]!r} puts the receiver first: an edge 'x,y' goes from x to y; swap them")
        first = False


def _numbers(words: list[str], line: int, content: str, layout: _Layout) -> list[int]:
    if not all(word.isascii() and word.isdigit() for word in words):
        comma = ", or pass format='csv'" if "," in content and layout.format != "csv" else ""
        layout.refuse(line, f"{content[:40]!r} must be node numbers separated by {_separator(layout)}{comma}")
    if any(len(word) > 100 for word in words):  # Python refuses to convert thousands of digits
        layout.refuse(line, f"{content[:40]!r} … must be node numbers of at most 100 digits")
    return [int(word) for word in words]


def _separator(layout: _Layout) -> str:
    return "a comma" if layout.format == "csv" else "spaces"


def _edge_lines(rows: list[_Row], layout: _Layout) -> Pairs:
    pairs: Pairs = {}
    for line, numbers in rows:
        if len(numbers) not in (0, 2):
            weighted = "; pass weights to gossipjax.mixing.from_edge_weights" if len(numbers) == 3 else ""
            layout.refuse(line, f"{len(numbers)} numbers, but an edge 'x y' has 2{weighted}")
        if numbers:
            pairs.setdefault((numbers[0], numbers[1]), line)
    return pairs


def _adjacency_lines(rows: list[_Row], n: int, layout: _Layout) -> Pairs:
    while len(rows) > n and not rows[-1].numbers:
        rows = rows[:-1]
    if len(rows) > n:
        layout.refuse(rows[n].line, f"more lines than the {n} nodes")
    # The blank line of a last node without neighbours may be missing.
    if len(rows) < n - 1:
        layout.refuse(
            rows[-1].line if rows else 1, f"{len(rows)} adjacency lines for {n} nodes: give every node a line"
        )
    pairs: Pairs = {}
    for node, (line, numbers) in enumerate(rows, layout.first_node):
        for neighbor in numbers:
            if (node, neighbor) in pairs:
                layout.refuse(line, f"neighbour {neighbor} of node {node} is listed twice")
            pairs[node, neighbor] = line
    return pairs


def _build(n: int, pairs: Pairs, layout: _Layout) -> Topology:
    first, last = layout.first_node, layout.first_node + n - 1
    for (x, y), line in pairs.items():
        if min(x, y) < first or max(x, y) > last:
            from_one = first == 0 and max(x, y) == n and all(min(pair) > 0 for pair in pairs)
            hint = "; pass first_node=1 if nodes are numbered from 1" if from_one else ""
            layout.refuse(line, f"node {y if first <= x <= last else x} is not in {first}..{last}{hint}")
        if x == y:
            layout.refuse(line, f"self-loop at node {x}: leave it out")
    if layout.format == "adjacency" and not layout.directed:
        for (x, y), line in pairs.items():
            if (y, x) not in pairs:
                layout.refuse(line, f"node {x} lists {y}, but {y} does not list {x}: list both, or pass directed=True")
    ends = {*pairs} if layout.directed else {*pairs, *(pair[::-1] for pair in pairs)}
    senders, receivers = np.array(sorted(ends), np.int64).reshape(-1, 2).T - first
    return Topology(n, senders, receivers, layout.directed, layout.path.name)
