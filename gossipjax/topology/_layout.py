"""Descriptions of graph files, their text, and the checks that all formats share."""

from __future__ import annotations

import os
import pathlib
from typing import Literal, NamedTuple, NoReturn

import numpy as np

from gossipjax._base.memory import check_memory
from gossipjax.topology._graph import MOST_NODES, require_room

FORMATS = ("edges", "adjacency", "csv", "metis", "matrix_market")
FORMS = {
    "edges": "the number of nodes alone on line 1, then one edge 'x y' per line",
    "adjacency": "the number of nodes alone on line 1, then the neighbours of one node per line",
    "csv": "one edge 'x,y' per line, with or without a header",
    "metis": "'n m' or 'n m format' on line 1, then the neighbours of one node per line, counted from 1",
    "matrix_market": "a banner %%MatrixMarket, then a square matrix whose entry (i, j) is an edge from j to i",
}
OTHERWISE = (
    "read_graph also takes format='edges', 'adjacency', 'csv', 'metis' or 'matrix_market'; for other formats, read the "
    "file with NetworkX and pass the graph to gossipjax.topology.from_networkx"
)
HOW_TO_WEIGH = "pass weights to gossipjax.mixing.read_weights, or drop them with ignore_weights=True"


BANNER = "%%MatrixMarket"


class Row(NamedTuple):
    """One line of a file."""

    line: int
    numbers: list[int]
    weight: float | None = None


class Layout(NamedTuple):
    """Description of a file, from the arguments of the readers."""

    path: pathlib.Path
    format: str
    num_nodes: int | None
    first_node: int
    directed: bool
    weights: Literal["refuse", "ignore", "use"] = "refuse"
    rounds: bool = False
    """Whether each line begins with the number of a round."""
    argument: str = "path"
    """The name of the argument that holds the path, for messages."""

    def refuse(self, line: int, fault: str) -> NoReturn:
        """Raise a ValueError that names the file, the line, the format and other ways."""
        form = FORMS[self.format]
        form = form.replace("'x", "'t x" if self.format == "edges" else "'t,x") if self.rounds else form
        raise ValueError(f"{self.path}, line {line}: {fault}; expected: {form}; {OTHERWISE}")


class Edges(NamedTuple):
    """Directed edges in file order; those of an undirected graph may be listed once or twice."""

    num_nodes: int
    lines: dict[tuple[int, int], int]
    """(sender, receiver) -> the number of its line; nodes are numbered as in the file."""
    weights: dict[tuple[int, int], float]
    """(sender, receiver) -> weight, if weights are used."""


def text_of(layout: Layout) -> str:
    """Read UTF-8 text, with or without a byte-order mark."""
    path = layout.path
    if not os.path.isfile(path):  # pathlib raises OSError if a name is too long
        kind = "a folder, or not a regular file" if os.path.exists(path) else "there is no such file"
        raise ValueError(
            f"{layout.argument}={str(path)!r}: {kind}; expected: a file with {FORMS[layout.format]}; {OTHERWISE}"
        )
    # Lists of Python integers and a dictionary of pairs take about 60 bytes per byte of text.
    check_memory(
        f"{layout.argument}={str(path)!r}", 60.0 * path.stat().st_size, "convert it with tools for large graphs"
    )
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
    if text.startswith(BANNER) and layout.format != "matrix_market":
        layout.refuse(1, "is a MatrixMarket file; pass format='matrix_market'")
    return text


def nodes_of(n: int, line: int, layout: Layout) -> int:
    """Return the number of nodes that the file gives, after a check that memory holds them."""
    if n < 1 or n > MOST_NODES:
        layout.refuse(line, f"{n} nodes: must be the number of nodes, at least 1 and at most {MOST_NODES}")
    subject = f"{layout.path}, line {line}: a graph of {n} nodes"
    require_room(subject, n, 0, f"expected: {FORMS[layout.format]}; {OTHERWISE}")
    return n


def number_of(word: str, line: int, layout: Layout) -> float:
    """Read a weight, a finite number of at least 0; otherwise refuse the file, naming the line."""
    try:
        weight = float(word)
    except ValueError:
        weight = np.nan
    if not (np.isfinite(weight) and weight >= 0):
        layout.refuse(line, f"{word[:40]!r} is not a weight: must be a finite number of at least 0")
    return weight


def numbers_of(words: list[str], line: int, content: str, layout: Layout) -> list[int]:
    """Read the node numbers of a line; otherwise refuse the file, naming the line and its content."""
    if not all(word.isascii() and word.isdigit() for word in words):
        comma = ", or pass format='csv'" if "," in content and layout.format != "csv" else ""
        layout.refuse(line, f"{content[:40]!r} must be node numbers separated by {_separator(layout)}{comma}")
    if any(len(word) > 100 for word in words):  # Python refuses to convert thousands of digits
        layout.refuse(line, f"{content[:40]!r} … must be node numbers of at most 100 digits")
    return [int(word) for word in words]


def _separator(layout: Layout) -> str:
    return "a comma" if layout.format == "csv" else "spaces"


def add_weight(weights: dict, lines: dict, edge: tuple[int, int], weight: float, layout: Layout) -> None:
    """Note a weight, after a check that it does not contradict an earlier one."""
    line = lines[edge]
    for same in (edge,) if layout.directed else (edge, edge[::-1]):
        if weights.get(same, weight) != weight:
            fault = f"edge {edge[0]} {edge[1]} has the weights {weights[same]:g} and {weight:g}; give one"
            layout.refuse(max(line, lines[same]), fault if layout.directed else f"{fault}, or pass directed=True")
    weights[edge] = weight
