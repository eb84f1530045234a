"""Operations on rows of stacked pytrees.

A row is a node or a model slot. ``None`` stands for "every row, in order", and needs no gather and no scatter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from gossipjax._base.arguments import shown, whole
from gossipjax._base.calls import recorded
from gossipjax._base.leaves import form_of
from gossipjax._base.memory import check_device_memory
from gossipjax.types import Event, Params

FEW = 4
"""Number of rows up to which they are read and written one by one. XLA compiles a loop of such events to one kernel, 10
times faster than a gather and a scatter of two rows (150 against 14 million exchanges a second, 10⁴ scalar nodes, one
core)."""


def read_row(leaf: Array, row: Int[Array, ""]) -> Array:
    """Read one row, ``(1, ...)``; an index past the end reads the last."""
    return jax.lax.dynamic_index_in_dim(leaf, row, keepdims=True)


def write_row(leaf: Array, row: Int[Array, ""], value: Array) -> Array:
    """Write one row ``(1, ...)``; an index past the end writes nothing."""
    value = jnp.where(row < leaf.shape[0], value, read_row(leaf, row))
    return jax.lax.dynamic_update_slice_in_dim(leaf, value, row, 0)


def before_writing(live: Bool[Array, ""], new: Callable[[], Any], old: Callable[[], Any]) -> Any:
    """Compute every new row before the first is written: ``new()``, or ``old()`` if the event touches nobody.

    Without the branch, XLA may recompute a new row for each of its uses, between two writes, and would then copy the
    whole array at every event.
    """
    return jax.lax.cond(live, new, old)


def take(x: PyTree, rows: Int[Array, " k"] | None) -> PyTree:
    """Read rows of every leaf; an index past the end reads the last row."""
    if rows is None:
        return x
    if len(rows) <= FEW:
        return jax.tree.map(lambda leaf: jnp.concatenate([read_row(leaf, row) for row in rows]), x)
    return jax.tree.map(lambda leaf: leaf.at[rows].get(mode="clip"), x)


def put(x: PyTree, rows: Int[Array, " k"] | None, values: PyTree) -> PyTree:
    """Write rows of every leaf; an index past the end is dropped."""
    if rows is None:
        return values
    return jax.tree.map(lambda leaf, value: put_rows(leaf, rows, value), x, values)


def put_rows(leaf: Array, rows: Int[Array, " k"], values: Array) -> Array:
    """Write rows of one array ``(n, ...)``; an index past the end is dropped."""
    _check_values(leaf, rows, values)
    if len(rows) > FEW:
        return leaf.at[rows].set(values, mode="drop")
    for lane in range(len(rows)):
        leaf = write_row(leaf, rows[lane], values[lane : lane + 1])
    return leaf


def _check_values(leaf: Array, rows: Int[Array, " k"], values: Array) -> None:
    """Raise ValueError unless there is one value per row, since a single value would be broadcast silently."""
    if values.shape != (len(rows), *leaf.shape[1:]):
        raise ValueError(
            f"values of shape {values.shape} for {len(rows)} rows of shape {leaf.shape[1:]}: give one value a row"
        )


def increase(x: PyTree, rows: Int[Array, " k"] | None, change: PyTree) -> PyTree:
    """Add to rows of every leaf; an index past the end is dropped."""
    if rows is None:
        return jax.tree.map(jnp.add, x, change)
    jax.tree.map(lambda leaf, value: _check_values(leaf, rows, value), x, change)
    if len(rows) <= FEW:
        return put(x, rows, jax.tree.map(jnp.add, take(x, rows), change))
    return jax.tree.map(lambda leaf, value: leaf.at[rows].add(value, mode="drop"), x, change)


def where_rows(rows: Bool[Array, " n"], chosen: PyTree, other: PyTree) -> PyTree:
    """Return ``chosen`` in the marked rows of every leaf and ``other`` in the rest."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, chosen, other)


def trained_rows(event: Event) -> Int[Array, " k"] | None:
    """Return the model rows that the acting nodes train; None: all of them, in order."""
    return event.nodes if event.rows is None else event.rows


def state_rows(event: Event) -> Int[Array, " k"] | None:
    """Return the rows of the acting nodes in what each node keeps for itself, such as optimizer states."""
    return event.nodes if event.local is None else event.local.acting


def acting_nodes(event: Event, num_nodes: int) -> Int[Array, " k"]:
    """Return the indices of the acting nodes."""
    if event.nodes is not None:
        return event.nodes
    return jnp.arange(num_nodes, dtype=jnp.int32) if event.local is None else event.local.ids


def num_rows(x: PyTree) -> int:
    """Return the length of the row axis."""
    return jax.tree.leaves(x)[0].shape[0]


def parameters_per_row(x: PyTree) -> int:
    """Return the number of scalars in one row."""
    return sum(leaf.size // max(leaf.shape[0], 1) for leaf in jax.tree.leaves(x))


def bytes_per_row(x: PyTree) -> int:
    """Return the bytes of one row as stored."""
    check_stacked("x", x)
    return sum(leaf.dtype.itemsize * (leaf.size // max(leaf.shape[0], 1)) for leaf in jax.tree.leaves(x))


def check_stacked(name: str, x: PyTree) -> None:
    """Raise TypeError unless all leaves are arrays with a row axis."""
    for leaf in jax.tree.leaves(x):
        if not getattr(leaf, "shape", ()):
            raise TypeError(f"{name}={shown(x)}: must be a pytree of arrays (num_rows, ...), one row for each model")


def bits_per_row(x: PyTree) -> int:
    """Return the bits of one row as stored."""
    return 8 * bytes_per_row(x)


def all_finite(x: PyTree) -> Bool[Array, ""]:
    """Return whether every entry of every leaf is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(x)]))


def finite_rows(x: PyTree) -> Bool[Array, " n"]:
    """Return a mask of the rows whose entries are all finite."""
    leaves = [jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(x)]
    return jnp.all(jnp.stack(leaves), axis=0)


def mean_row(x: Params) -> Params:
    """Return the mean over rows, the mean model of the network."""
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), x)


@recorded()
def replicate(params: Params, rows: int) -> Params:
    """Stack ``rows`` copies of a model, leaves ``(rows, ...)``: a common start for all nodes.

    Raises:
        ValueError: if rows < 1, params has no arrays, or the result does not fit into memory.
        TypeError: if a leaf is not an array.
    """
    rows = whole("rows", rows, least=1, remedy="pass the timeline's num_rows")
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ValueError(f"params={shown(params)}: holds no arrays; pass one model, such as task.init(key)")
    size = 0
    for leaf in leaves:
        if (form := form_of(leaf)) is None:
            raise TypeError(f"params holds {shown(leaf)}, a {type(leaf).__name__}: its leaves must be arrays")
        size += form.size * form.dtype.itemsize
    what = f"rows={rows}: as many copies of {size:,} bytes of parameters"
    check_device_memory(what, rows * size, "take fewer nodes or a smaller model")
    return jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], rows, axis=0), params)


def scale_rows(factor: Any, x: PyTree) -> PyTree:
    """Multiply every row by a number, ``()``, or by one of its own, ``(n,)``, in the leaf's dtype."""

    def scale(leaf: Array) -> Array:
        number = jnp.asarray(factor).astype(leaf.dtype)
        return number.reshape(number.shape + (1,) * (leaf.ndim - number.ndim if number.ndim else 0)) * leaf

    return jax.tree.map(scale, x)
