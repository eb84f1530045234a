"""Parts of training samples, as ``shards`` of :func:`gossipjax.placement.by_shards` returns them: checks, padding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, PyTree

from gossipjax._base.arguments import shown
from gossipjax._base.describe import describe
from gossipjax._base.leaves import is_key
from gossipjax._base.placement import on_cpu
from gossipjax.types import Task

_AT_ONCE = 64
"""Batches that are drawn side by side to check them."""


def size(leaf: Any) -> int:
    """Return the bytes of an array on a device, where JAX may narrow its type."""
    return int(leaf.nbytes if is_key(leaf) else leaf.size * jax.dtypes.canonicalize_dtype(leaf.dtype).itemsize)


def narrow(leaf: Any) -> np.ndarray:
    """Return an array on the host in the type that it has on a device."""
    return np.asarray(leaf).astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)


def padded(part: np.ndarray, length: int, *, other: bool = False) -> np.ndarray:
    """Append rows up to a length: of −1 in whole numbers, no node's, and 0 elsewhere; ``other``: of another sort."""
    rows = np.empty((length, *part.shape[1:]), part.dtype)
    rows[: len(part)] = part
    rows[len(part) :] = np.asarray(_fill(part.dtype, other)).astype(part.dtype)
    return rows


def _fill(dtype: Any, other: bool) -> int:
    if not jnp.issubdtype(dtype, np.integer):
        return int(other)
    if not other:
        return -1
    return -2 if jnp.issubdtype(dtype, np.unsignedinteger) else int(jnp.iinfo(dtype).max)


def checked(batch: str, parts: list[PyTree], whole: set[int]) -> list[PyTree]:
    """Check what ``shards`` returns: for all devices one tree, of arrays of samples, or of all nodes.

    Args:
        batch: name of the function that is marked, for messages.
        parts: of each device.
        whole: ids of the leaves of the data.

    Raises:
        TypeError: a leaf that is no array of samples and no leaf of the data.
        ValueError: trees, types or shapes of a sample that differ between devices.
    """
    for part in parts:
        for path, leaf in jax.tree_util.tree_leaves_with_path(part, is_leaf=lambda leaf: leaf is None):
            if id(leaf) not in whole and not _is_samples(leaf) and (leaf is not None or not path):
                raise TypeError(
                    f"by_shards: shards of {batch} returned data{jax.tree_util.keystr(path)}={shown(leaf)}: must be an "
                    "array (samples, ...), or a leaf of data as it is"
                )
        if _forms(part) != _forms(parts[0]):
            raise ValueError(
                f"by_shards: shards of {batch} returned {_forms(parts[0])} for the nodes of one device and "
                f"{_forms(part)} for those of another: names, types and shapes of a sample must be the same for all"
            )
    return parts


def check_padding(task: Task, parts: list[PyTree], nodes: Int[np.ndarray, "devices rows"]) -> None:
    """Check that no batch depends on the rows of padding: one is drawn for each node, beside two sorts of them.

    Args:
        task: whose data were cut.
        parts: of each device.
        nodes: of each device.

    Raises:
        ValueError: a batch that depends on them.
    """
    whole = set(map(id, jax.tree.leaves(task.data)))
    leaves, structures = zip(*map(jax.tree.flatten, parts), strict=True)
    most = [max(map(_length, each)) for each in zip(*leaves, strict=True)]
    for own, structure, here in zip(leaves, structures, nodes, strict=True):
        cut = [id(leaf) not in whole for leaf in own]
        if not any(apart and len(leaf) < length for apart, leaf, length in zip(cut, own, most, strict=True)):
            continue
        with on_cpu():
            drawn = [
                _draws(task.batch, jax.tree.unflatten(structure, _filled(own, cut, most, other)), here)
                for other in (False, True)
            ]
        same = np.all(list(map(_same, *map(jax.tree.leaves, drawn))), axis=0)
        if not same.all():
            raise ValueError(
                f"by_shards: the batch of node {here[~same][0]}, drawn by {describe(task.batch)}, depends on rows of "
                "padding, which fill up a device with fewer samples than others: read only rows that the data name "
                "for the node, such as those between its offsets, and nothing of all rows, such as their number"
            )


def _filled(leaves: list[Any], cut: list[bool], most: list[int], other: bool) -> list[Any]:
    each = zip(leaves, cut, most, strict=True)
    return [padded(narrow(leaf), length, other=other) if apart else leaf for leaf, apart, length in each]


@jax.jit
def _draws(batch: Any, data: PyTree, nodes: Int[Array, " rows"]) -> PyTree:
    key: Key[Array, ""] = jax.random.key(0)
    return jax.lax.map(lambda node: batch(key, data, node), nodes, batch_size=min(_AT_ONCE, len(nodes)))


def _same(one: Any, other: Any) -> Bool[np.ndarray, " rows"]:
    one, other = (np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in (one, other))
    same = (one == other) | ((one != one) & (other != other))
    return same.all(axis=tuple(range(1, same.ndim)))


def _is_samples(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | jax.Array) and leaf.ndim > 0 and leaf.dtype != object and not is_key(leaf)


def _length(leaf: Any) -> int:
    return len(leaf) if np.ndim(leaf) else 0


def _forms(part: PyTree) -> PyTree:
    """Describe the leaves: type and shape of a sample."""
    return jax.tree.map(lambda leaf: f"{getattr(leaf, 'dtype', type(leaf).__name__)}{list(np.shape(leaf)[1:])}", part)
