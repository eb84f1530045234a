"""The rows that one device of a mesh holds, and what it must exchange to know something about all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

AXIS = "nodes"
"""Name of the only axis of a mesh: nodes are spread over devices."""


class Local(NamedTuple):
    """The m rows of one device. Devices with fewer nodes than others have ghosts in their last rows.

    A ghost does what the node does whose number it bears, row for row and bit for bit. So it can do no harm, and
    nothing must be masked except sums and counts over nodes.
    """

    ids: Int[Array, " m"]
    """Number of the node in each row."""
    valid: Bool[Array, " m"] | None
    """False for ghosts. None in an event of single nodes, whose lanes are none of them."""
    position: Int[Array, " n"]
    """Row of each node in the concatenation of the rows of all devices."""
    acting: Int[Array, " k"] | None = None
    """Own row of each acting node, among the rows of nodes; None: all, in order."""


def add_up(local: Local | None, value: Any) -> Any:
    """Add a value of each device over all devices."""
    return value if local is None else jax.tree.map(lambda leaf: jax.lax.psum(leaf, AXIS), value)


def largest(local: Local | None, value: Array) -> Array:
    """Return the largest of the values of all devices."""
    return value if local is None else jax.lax.pmax(value, AXIS)


def in_node_order(local: Local | None, x: PyTree) -> PyTree:
    """Return the rows of all nodes, ``(n, ...)``, on every device."""
    return x if local is None else jax.tree.map(lambda leaf: all_rows(leaf)[local.position], x)


def all_rows(leaf: Array) -> Array:
    """Concatenate the rows of all devices, ghosts included, on every device."""
    return _plain(lambda rows: jax.lax.all_gather(rows, AXIS, tiled=True), leaf)


def send(leaf: Array, pairs: tuple[tuple[int, int], ...]) -> Array:
    """Send rows from the first to the second device of each pair; devices without a sender receive zeros."""
    return _plain(lambda rows: jax.lax.ppermute(rows, AXIS, pairs), leaf)


def swap(leaf: Array) -> Array:
    """Give block k of the first axis ``(K, ...)`` to device k, and take one from each."""
    return _plain(lambda blocks: jax.lax.all_to_all(blocks, AXIS, 0, 0), leaf)


def _plain(move: Callable[[Array], Array], leaf: Array) -> Array:
    """Move bools as bytes, since not every backend moves bits between processes."""
    return move(leaf.astype(jnp.uint8)).astype(bool) if leaf.dtype == bool else move(leaf)


def real_rows(local: Local | None, leaf: Array) -> Array:
    """Replace the rows of ghosts by zeros."""
    if local is None or local.valid is None:
        return leaf
    return jnp.where(local.valid.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, jnp.zeros((), leaf.dtype))


def mean_of_rows(local: Local | None, leaf: Array) -> Array:
    """Return the mean over the rows of all nodes, leaf ``(m, ...)``."""
    if local is None:
        return jnp.mean(leaf, axis=0)
    return add_up(local, jnp.sum(real_rows(local, leaf), axis=0)) / len(local.position)


def network_size(local: Local | None, rows: int) -> int:
    """Return the number of rows of the whole network, of which this device holds ``rows``."""
    return rows if local is None else len(local.position)
