"""Training samples of some nodes: what a device of a mesh holds instead of the samples of all."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, PyTree

from gossipjax._base.leaves import is_key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NodeRows:
    """Rows of some nodes, read by the number of the node like the array ``(n, ...)`` of which they are a part."""

    values: Any
    """``(m, ...)``"""
    place: Any
    """``(n,)`` row of each node; 0 for others."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of all nodes."""
        return (len(self.place), *self.values.shape[1:])

    @property
    def dtype(self) -> Any:
        """Type of the numbers."""
        return self.values.dtype

    def __getitem__(self, node: Any) -> Array:
        """Return the row of a node that is held."""
        return self.values[self.place[node]]


def rows_of_nodes(data: PyTree, nodes: Int[np.ndarray, " m"]) -> PyTree:
    """Keep the rows of some nodes in every leaf ``(n, ...)``; scalars belong to all nodes."""

    def keep(leaf: Any) -> Any:
        if not np.ndim(leaf) or is_key(leaf):
            return leaf
        place = np.zeros(len(leaf), np.int32)
        place[nodes] = np.arange(len(nodes))
        return NodeRows(np.asarray(leaf)[nodes], place)

    return jax.tree.map(keep, data)


def keep_shards(
    offsets: Any, nodes: Int[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " n_plus_1"]]:
    """Keep the shards of some nodes of a list of all shards, one after another; those of other nodes become empty.

    Returns:
        The places ``(N,)`` that are kept, in order, and the offsets ``(n + 1,)`` of all nodes in the shorter list.
    """
    ends = np.asarray(offsets)
    held = np.zeros(len(ends) - 1, bool)
    held[nodes] = True
    sizes = np.diff(ends)
    kept = np.concatenate([[0], np.cumsum(sizes * held)]).astype(ends.dtype)
    return np.flatnonzero(np.repeat(held, sizes)), kept
