"""Read mixing matrices from files of weighted graphs."""

from __future__ import annotations

import os

from scipy import sparse

from gossipjax._base.arguments import choice, flag
from gossipjax._base.calls import recorded
from gossipjax.mixing._stochastic import KINDS
from gossipjax.mixing._weights import from_edge_weights
from gossipjax.topology._files import layout_of, rounds_layout
from gossipjax.topology._layout import text_of
from gossipjax.topology._parse import edges_of, matrix_of, rounds_of


@recorded(file="path")
def read_weights(
    path: str | os.PathLike[str],
    kind: str = "row",
    *,
    format: str | None = None,
    num_nodes: int | None = None,
    first_node: int = 0,
    directed: bool = False,
    rounds: bool = False,
) -> sparse.csr_array | list[sparse.csr_array]:
    """Read a mixing matrix, or a cycle of them, from a file of weighted edges.

    The weight of the edge from j to i is W_ij, and each node keeps the rest, as in :func:`from_edge_weights`; weights
    of self-loops are the diagonal.

    Args:
        path: the file, in a format of :func:`gossipjax.topology.read_graph` with weights: ``"edges"``, "x y w" per
            line; ``"csv"``, "x,y,w"; ``"metis"`` with weights of edges; ``"matrix_market"``, with W_ij as entry (i, j).
        kind: the property that each matrix must have; see :func:`check_weights`.
        format: of the file; None: as in :func:`gossipjax.topology.read_graph`, ``"edges"`` if nothing else is sure.
        num_nodes: n, if the first line of the file is not n.
        first_node: number of the first node in the file, 0 or 1.
        directed: if false, an edge has its weight both ways.
        rounds: whether each line begins with the number of its round, from 0: "t x y w" or "t,x,y,w".

    Returns:
        ``(n, n)`` float64, checked; with ``rounds``, a list with one matrix per round, for ``timeline.rounds``.

    Raises:
        ValueError: if the file is malformed, an edge has no weight or two, a weight is negative or not finite, a round
            is missing, or the weights of a node sum to more than 1.
    """
    kind = choice("kind", kind, KINDS)
    reading = (format, num_nodes, first_node, directed, False)
    layout = rounds_layout("path", path, *reading) if flag("rounds", rounds) else layout_of(path, *reading)[0]
    if layout.format == "adjacency":
        raise ValueError("format='adjacency': lists of neighbours have no weights; use topology.read_graph")
    layout = layout._replace(weights="use")
    text = text_of(layout)
    found = rounds_of(text, layout) if rounds else [edges_of(text, layout)]
    matrices = []
    for t, edges in enumerate(found):
        try:
            matrices.append(from_edge_weights(matrix_of(edges, layout), kind))
        except ValueError as error:
            raise ValueError(f"path={str(path)!r}{f', round {t}' if rounds else ''}: {error}") from error
    return matrices if rounds else matrices[0]
