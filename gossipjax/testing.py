"""Hypothesis strategies for networks: property-test your own protocols with them.

Needs the ``testing`` extra of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Int
from scipy import sparse

from gossipjax.topology import Topology

Draw: TypeAlias = Callable[..., Any]
"""The argument that Hypothesis passes to a composite strategy."""
_SIDES = hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3)


@st.composite
def connected_graphs(draw: Draw, min_nodes: int = 1, max_nodes: int = 12) -> Topology:
    """Draw an undirected connected topology: a random tree with random further edges, nodes in random order."""
    n = draw(st.integers(min_nodes, max_nodes))
    edges = {(draw(st.integers(0, node - 1)), node) for node in range(1, n)}
    if n > 1:
        pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda ends: ends[0] < ends[1])
        edges |= draw(st.sets(pair, max_size=2 * n))
    ends = draw(permutations(n))[np.array(sorted(edges), np.int64).reshape(-1, 2)]
    senders, receivers = np.concatenate([ends, ends[:, ::-1]]).T
    return Topology(n, senders, receivers, directed=False, name="hypothesis graph")


@st.composite
def connected_digraphs(draw: Draw, min_nodes: int = 1, max_nodes: int = 12) -> Topology:
    """Draw a strongly connected directed topology: a cycle through all nodes in random order, with further edges."""
    n = draw(st.integers(min_nodes, max_nodes))
    order = draw(permutations(n)).tolist()
    edges = {(order[k - 1], order[k]) for k in range(n)} if n > 1 else set()
    if n > 1:
        pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda ends: ends[0] != ends[1])
        edges |= draw(st.sets(pair, max_size=2 * n))
    senders, receivers = np.array(sorted(edges), np.int64).reshape(-1, 2).T
    return Topology(n, senders, receivers, directed=True, name="hypothesis digraph")


@st.composite
def mixing_matrices(
    draw: Draw,
    kind: Literal["row", "column", "doubly", "symmetric"] = "symmetric",
    min_nodes: int = 1,
    max_nodes: int = 12,
) -> sparse.csr_array:
    """Draw nonnegative weights on a random connected graph, every node keeping a positive share.

    Args:
        draw: given by Hypothesis.
        kind: ``"row"`` or ``"column"``: random weights on a directed graph, normalised. ``"doubly"``: a random convex
            combination of the identity, a cycle through all nodes and further permutations. ``"symmetric"``: symmetric
            and doubly stochastic on an undirected graph, each edge at most at the weight 1/(1 + max(d_i, d_j)).
        min_nodes: fewest nodes.
        max_nodes: most nodes.

    Returns:
        ``(n, n)`` float64, W[i, j] being the weight that i gives to j.
    """
    if kind == "doubly":
        return draw(_permutation_mixtures(min_nodes, max_nodes))
    topology = draw((connected_graphs if kind == "symmetric" else connected_digraphs)(min_nodes, max_nodes))
    n = topology.num_nodes
    W = np.zeros((n, n))
    size = topology.senders.size
    scales = draw(hnp.arrays(np.float64, size, elements=st.floats(0.05, 1.0)))
    W[topology.receivers, topology.senders] = scales
    if kind == "symmetric":
        degrees = topology.degrees
        W = np.triu(W) / (1 + np.maximum(degrees[:, None], degrees[None, :]))
        W = W + W.T
        return sparse.csr_array(W + np.diag(1 - W.sum(axis=1)))
    W = W + np.eye(n)
    return sparse.csr_array(W / W.sum(axis=1 if kind == "row" else 0, keepdims=True))


@st.composite
def stacked_params(draw: Draw, num_rows: int, dtype: Any = np.float32) -> dict[str, Any]:
    """Draw a pytree of floats in [−100, 100] with a row axis in front: nested, parameters of zero to two axes."""
    elements = st.floats(-100, 100, width=32)

    def leaf() -> np.ndarray:
        return draw(hnp.arrays(dtype, (num_rows, *draw(_SIDES)), elements=elements))

    return {"dense": {"kernel": leaf(), "bias": leaf()}, "scale": [leaf()]}


def permutations(num_nodes: int) -> st.SearchStrategy[Int[np.ndarray, " n"]]:
    """Draw a permutation of the node numbers, as an integer array."""
    return st.permutations(range(num_nodes)).map(lambda order: np.array(order, np.int64))


@st.composite
def _permutation_mixtures(draw: Draw, min_nodes: int, max_nodes: int) -> sparse.csr_array:
    n = draw(st.integers(min_nodes, max_nodes))
    order = draw(permutations(n))
    cycle = np.empty(n, np.int64)
    cycle[order] = np.roll(order, 1)
    images = [np.arange(n), cycle, *draw(st.lists(permutations(n), max_size=3))]
    shares = np.array(draw(st.lists(st.floats(0.05, 1.0), min_size=len(images), max_size=len(images))))
    shares /= shares.sum()
    return sparse.csr_array(sum(s * np.eye(n)[image] for s, image in zip(shares, images, strict=True)))
