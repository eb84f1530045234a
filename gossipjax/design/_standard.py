"""The graphs that everybody uses, which a design must beat."""

from __future__ import annotations

import math

import numpy as np

from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.arguments import whole
from gossipjax.topology import Topology, complete, exponential, hypercube, path, random_regular, ring, star, torus
from gossipjax.topology._graph import undirected

DEGREES = (4, 6, 8, 12, 16)
"""Degrees of random regular graphs; those that n nodes cannot have are left out."""


def standard_graphs(num_nodes: int, *, seed: int) -> dict[str, Topology]:
    """Build the usual undirected graphs of n nodes, by name; those that n does not allow are left out.

    The complete graph, path, ring, star, the torus with the most equal sides, hypercube, both directions of the
    exponential graph, and random regular graphs of degree 4, 6, 8, 12 and 16.

    >>> import gossipjax as gj
    >>> list(gj.design.standard_graphs(9, seed=0))
    ['complete', 'path', 'ring', 'star', 'torus 3×3', 'exponential', '4-regular', '6-regular']

    Args:
        num_nodes: n ≥ 2.
        seed: of the random regular graphs.

    Raises:
        ValueError: if a number is out of range.
    """
    n, seed = whole("num_nodes", num_nodes, least=2), checked_seed(seed)
    graphs: dict[str, Topology] = {"complete": complete(n), "path": path(n)}
    if n >= 3:
        graphs |= {"ring": ring(n), "star": star(n)}
    side = next(rows for rows in range(math.isqrt(n), 0, -1) if n % rows == 0)
    if side >= 3:
        graphs[f"torus {side}×{n // side}"] = torus(side, n // side)
    if n >= 8 and n & (n - 1) == 0:
        graphs["hypercube"] = hypercube(n.bit_length() - 1)
    if n >= 5:
        one_way = exponential(n)
        graphs["exponential"] = undirected(n, one_way.senders, one_way.receivers, f"two-way {one_way.name}")
    for degree in DEGREES:
        if degree < n - 1 and degree * n % 2 == 0:
            graphs[f"{degree}-regular"] = random_regular(n, degree, seed=seed, tries=100)
    return _distinct(graphs)


def _distinct(graphs: dict[str, Topology]) -> dict[str, Topology]:
    """Leave out graphs with the edges of an earlier one, such as the complete graph of three nodes."""
    kept: dict[bytes, str] = {}
    for name, graph in graphs.items():
        kept.setdefault(np.stack([graph.receivers, graph.senders]).tobytes(), name)
    return {name: graphs[name] for name in kept.values()}
