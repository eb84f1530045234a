"""Read and write graph files: formats of DecentralizePy, METIS and MatrixMarket, and CSV edge lists."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gossipjax._base.arguments import choice, flag, instance, optional_whole, shown, whole
from gossipjax._base.calls import recorded
from gossipjax.topology._graph import HOW_TO_BUILD, MOST_NODES, Topology, require, require_connected
from gossipjax.topology._layout import BANNER, FORMATS, FORMS, OTHERWISE, Layout, text_of
from gossipjax.topology._parse import edges_of, is_comment, rounds_of, topology_of

_WRITTEN = ("edges", "adjacency", "csv")
_SUFFIXES = {".csv": "csv", ".mtx": "matrix_market", ".metis": "metis", ".graph": "metis"}


@recorded()
def read_graph(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    num_nodes: int | None = None,
    first_node: int = 0,
    directed: bool = False,
    ignore_weights: bool = False,
    allow_disconnected: bool = False,
) -> Topology:
    """Read a graph file: edge lists, adjacency lists, CSV, METIS or MatrixMarket.

    Lines that begin with ``#`` or ``%`` are comments. Edge lists and adjacency lists are DecentralizePy's formats.

    Args:
        path: the file, UTF-8 text.
        format: ``"edges"``: the first line is n, then one edge "x y" per line; repeated edges count once, blank lines
            are skipped. ``"adjacency"``: the first line is n, the next line lists the neighbours of node 0, the next
            those of node 1, and so on; a blank line is a node without neighbours. ``"csv"``: one edge "x,y" per line;
            a header of two names is skipped. ``"metis"``: the header "n m [format [weights]]", then the neighbours of
            each node, counted from 1; weights of nodes are skipped. ``"matrix_market"``: entry (i, j) of the matrix is
            the edge from j to i, as in :func:`from_adjacency`. None: by the banner of MatrixMarket, or the suffix .csv,
            .mtx, .metis or .graph; else whichever of ``"edges"`` and ``"adjacency"`` fits.
        num_nodes: n, if the first line of the file is not n. CSV files need it only if the last nodes have no edge.
        first_node: number of the first node in lists of edges or neighbours, 0 or 1. Nodes of a Topology are numbered
            from 0.
        directed: if true, "x y" lets only x send to y, and the line of a node lists the nodes that it sends to. If
            false, edges go both ways, adjacency lists must name each edge at both ends, and a MatrixMarket matrix must
            be symmetric.
        ignore_weights: drop the weights of edges, such as a third column; :func:`gossipjax.mixing.read_weights` uses
            them.
        allow_disconnected: accept a graph that is not (strongly) connected. :func:`with_ring` connects it.

    Raises:
        ValueError: if the file is malformed (the message names the line, the expected format and the alternatives), if
            it is valid both as edges and as adjacency lists of another graph, or if the graph is not connected.
    """
    described = layout_of(path, format, num_nodes, first_node, directed, ignore_weights)
    allow_disconnected = flag("allow_disconnected", allow_disconnected)
    topology = _graph_of(*described)
    return topology if allow_disconnected else require_connected(topology)


@recorded()
def read_graphs(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    format: str | None = None,
    num_nodes: int | None = None,
    first_node: int = 0,
    directed: bool = False,
    ignore_weights: bool = False,
) -> tuple[Topology, ...]:
    """Read the graphs of consecutive rounds, which may be disconnected: for ``timeline.changing_rounds``.

    Args:
        paths: a list of files, one per round, each as for :func:`read_graph`; or one file whose lines begin with the
            number of the round: "t x y" (``"edges"``, after a first line with n) or "t,x,y" (``"csv"``). Rounds are
            numbered from 0, and each has an edge; the order of the lines does not matter.
        format: as for :func:`read_graph`; of one file, ``"edges"`` or ``"csv"``; None: ``"csv"`` if the name of the
            file ends in .csv, else ``"edges"``.
        num_nodes: as for :func:`read_graph`.
        first_node: as for :func:`read_graph`.
        directed: as for :func:`read_graph`.
        ignore_weights: as for :func:`read_graph`.

    Raises:
        ValueError: as :func:`read_graph`, or if a round is missing, or rounds differ in their numbers of nodes.
    """
    if isinstance(paths, Sequence) and not isinstance(paths, str | bytes):
        for k, each in enumerate(paths):
            instance(f"paths[{k}]", each, (str, os.PathLike), "name the files")
        require(len(paths) > 0, "paths=[]: name at least one file")
        options = (format, num_nodes, first_node, directed, ignore_weights)
        described = [layout_of(each, *options) for each in paths]
        graphs = tuple(
            _graph_of(layout._replace(argument=f"paths[{k}]"), sure) for k, (layout, sure) in enumerate(described)
        )
        sizes = {graph.num_nodes for graph in graphs}
        require(len(sizes) == 1, f"paths: graphs of {sorted(sizes)} nodes; give each file the same number of nodes")
        return graphs
    layout = rounds_layout("paths", paths, format, num_nodes, first_node, directed, ignore_weights)
    found = rounds_of(text_of(layout), layout)
    return tuple(topology_of(edges, layout, f"{layout.path.name}[{t}]") for t, edges in enumerate(found))


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
    choice("format", format, _WRITTEN)
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


def _graph_of(layout: Layout, sure: bool) -> Topology:
    text = text_of(layout)
    return _read(text, layout) if sure else _either(text, layout)


def layout_of(
    path: Any, format: Any, num_nodes: Any, first_node: Any, directed: Any, ignore_weights: Any
) -> tuple[Layout, bool]:
    """Check the arguments of a reader; return the layout, and whether the format is sure."""
    path = _path(path)
    format = None if format is None else choice("format", format, FORMATS)
    num_nodes = optional_whole("num_nodes", num_nodes, least=1, most=MOST_NODES)
    first_node = whole("first_node", first_node, least=0, most=1)
    directed = flag("directed", directed)
    weights: Any = "ignore" if flag("ignore_weights", ignore_weights) else "refuse"
    format = _SUFFIXES.get(path.suffix.lower()) if format is None else format
    if format is None and _begins_with_banner(path):
        format = "matrix_market"
    if format in ("metis", "matrix_market"):
        require(
            num_nodes is None and first_node == 0 and not (directed and format == "metis"),
            f"format={format!r} with num_nodes={num_nodes}, first_node={first_node}, directed={directed}: such a file "
            "states its size and counts from 1, and METIS is undirected; leave these out",
        )
    return Layout(path, format or "edges", num_nodes, first_node, directed, weights), format is not None


def rounds_layout(
    name: str, path: Any, format: Any, num_nodes: Any, first_node: Any, directed: Any, ignore_weights: Any
) -> Layout:
    """Check the arguments of a reader of one file of rounds."""
    instance(name, path, (str, os.PathLike), "name one file of rounds, or a list of files")
    layout, _ = layout_of(path, format, num_nodes, first_node, directed, ignore_weights)
    if layout.format not in ("edges", "csv"):
        raise ValueError(
            f"format={layout.format!r} of {name}={shown(path)}: rounds in one file are lines 't x y' (format='edges') "
            "or 't,x,y' (format='csv'); for other formats pass a list of files"
        )
    return layout._replace(rounds=True, argument=name)


def _begins_with_banner(path: pathlib.Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(BANNER)) == BANNER.encode()
    except OSError:
        return False


def _path(path: Any) -> pathlib.Path:
    instance("path", path, (str, os.PathLike), "name the file")
    require("\0" not in os.fsdecode(path), f"path={str(path)!r}: a file name must not contain a zero byte")
    return pathlib.Path(os.fsdecode(path))


def _either(text: str, layout: Layout) -> Topology:
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
            f"format='edges' or format='adjacency'; expected: {FORMS['edges']}, or {FORMS['adjacency']}; {OTHERWISE}"
        )
    if "adjacency" in topologies:
        return _read(text, layout._replace(format="adjacency"))
    if "edges" in topologies:
        return topologies["edges"]
    lengths = {len(line.split()) for line in text.splitlines()[1:] if not is_comment(line)}
    raise faults["edges" if lengths <= {0, 2} or len(lengths) < 2 else "adjacency"]


def _read(text: str, layout: Layout) -> Topology:
    return topology_of(edges_of(text, layout), layout, layout.path.name)
