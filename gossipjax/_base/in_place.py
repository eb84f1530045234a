"""Loops over the rows or columns of stacked arrays that write results where the arguments lie.

``jax.lax.map`` stacks its results in new arrays. Here the results of one iteration replace its arguments, which no
other iteration reads, so that a network of large models needs no second copy of them. If the arguments are needed
afterwards, XLA copies them first.

Reverse differentiation of such a loop would add to whole arrays in every iteration, so derivatives are those of the
plain form.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

LARGE = 1 << 25
"""Bytes of a stacked array from which columns are computed in blocks."""
BLOCK = 1 << 20
"""Bytes of a block on a CPU. Five rounds of four nodes and 160 MB took 0.22 s of CPU time with blocks of 1 MB, 0.30 s
with blocks of 4 MB, and 0.48 s without blocks (two cores, JAX 0.10.2, 2026)."""
MOST_BLOCKS = 64
"""Number of blocks elsewhere: accelerators need wide operations."""


def over_rows(fn: Callable[..., PyTree], *stacked: PyTree) -> PyTree:
    """Apply a function of one row to each row in turn: ``jax.lax.map(lambda rows: fn(*rows), stacked)``.

    Args:
        fn: function of one row of each argument. Results replace arguments of the same shape and type, in order, if
            it is a ``Partial``; other functions might capture arrays that are being differentiated.
        *stacked: pytrees of arrays with the same leading axis.
    """
    if not isinstance(fn, Partial):
        return _rows_stacked(fn, stacked)
    arrays, rebuild = split_arrays(fn)

    def by(rows: Callable[..., PyTree]) -> Callable[..., PyTree]:
        return lambda arrays, stacked: rows(rebuild(arrays), stacked)

    return _derived_from(by(_rows_stacked), by(_rows_replaced))(arrays, stacked)


def split_arrays(fn: Callable[..., PyTree]) -> tuple[list, Callable[[list], Callable[..., PyTree]]]:
    """Split a ``Partial`` into its arrays and a function that rebuilds it from them; other functions have none."""
    if not isinstance(fn, Partial):
        return [], lambda _: fn
    leaves, structure = jax.tree.flatten(fn)
    at = [index for index, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]

    def rebuild(arrays: list) -> Callable[..., PyTree]:
        filled = dict(enumerate(leaves)) | dict(zip(at, arrays, strict=True))
        return jax.tree.unflatten(structure, filled.values())

    return [leaves[index] for index in at], rebuild


def over_columns(fn: Callable[..., Array], leaf: Array, *shared: PyTree) -> Array:
    """Replace a stacked array: ``leaf[:, block] ← fn(leaf[:, block], *shared)`` for each block of columns.

    Args:
        fn: a function that treats all columns alike and returns an array of the shape and type of its first argument.
        leaf: array ``(n, ...)``. Fewer than :data:`LARGE` bytes are one block.
        *shared: pytrees of arrays for all blocks.
    """
    columns = math.prod(leaf.shape[1:])
    width = block_width(leaf.shape[0], columns, leaf.dtype.itemsize)
    if width >= columns:
        return fn(leaf, *shared)
    return _derived_from(fn, functools.partial(_columns_replaced, fn, width))(leaf, *shared)


def block_width(rows: int, columns: int, itemsize: int) -> int:
    """Return the number of columns in one block of an array with these rows and columns."""
    size = rows * columns * itemsize
    if size < LARGE:
        return columns
    block = BLOCK if jax.default_backend() == "cpu" else size // MOST_BLOCKS
    return max(block // (rows * itemsize), 1)


def _derived_from(plain: Callable[..., Any], loop: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with the values of ``loop`` and the derivatives of ``plain``."""
    function = jax.custom_jvp(loop)
    function.defjvp(lambda primals, tangents: jax.jvp(plain, primals, tangents))
    return function


def _columns_replaced(fn: Callable[..., Array], width: int, leaf: Array, *shared: PyTree) -> Array:
    def block(x: Array, start: Any, size: int) -> Array:
        new = fn(lax.dynamic_slice_in_dim(x, start, size, 1), *shared)
        return lax.dynamic_update_slice_in_dim(x, new, start, 1)

    x = leaf.reshape(leaf.shape[0], -1)
    whole, rest = divmod(x.shape[1], width)
    x = lax.fori_loop(0, whole, lambda i, x: block(x, i * width, width), x)
    x = block(x, whole * width, rest) if rest else x
    return x.reshape(leaf.shape)


def _rows_stacked(fn: Callable[..., PyTree], stacked: tuple[PyTree, ...]) -> PyTree:
    return lax.map(lambda rows: fn(*rows), stacked)


def _rows_replaced(fn: Callable[..., PyTree], stacked: tuple[PyTree, ...]) -> PyTree:
    leaves, structure = jax.tree.flatten(stacked)

    def of_row(row: list[Array]) -> PyTree:
        return fn(*jax.tree.unflatten(structure, row))

    results, shape = jax.tree.flatten(jax.eval_shape(of_row, [_form_of_row(leaf) for leaf in leaves]))
    places = _places(leaves, results)

    def one(carry: tuple[Array, dict[int, Array]], others: dict[int, Array]) -> tuple[Any, dict[int, Array]]:
        row, replaced = carry

        def new() -> list[Array]:
            own = {at: lax.dynamic_index_in_dim(leaf, row, keepdims=False) for at, leaf in replaced.items()}
            read = others | own
            return jax.tree.leaves(of_row([read[at] for at in range(len(leaves))]))

        # A branch that is always taken. Without it, XLA would read the row anew for each use of a result, also after
        # the write, and copy all rows for that.
        values = lax.cond(row >= 0, new, lambda: [lax.full(form.shape, 0, form.dtype) for form in results])
        written = {at: lax.dynamic_update_index_in_dim(replaced[at], values[k], row, 0) for k, at in places.items()}
        return (row + 1, written), {k: value for k, value in enumerate(values) if k not in places}

    replaced = {at: leaves[at] for at in places.values()}
    others = {at: leaf for at, leaf in enumerate(leaves) if at not in replaced}
    (_, replaced), found = lax.scan(one, (jnp.int32(0), replaced), others, length=len(leaves[0]))
    return jax.tree.unflatten(shape, [replaced[places[k]] if k in places else found[k] for k in range(len(results))])


def _form_of_row(leaf: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def _places(leaves: list[Array], results: list[jax.ShapeDtypeStruct]) -> dict[int, int]:
    """Return the number of the argument that a result replaces, for each result that finds one."""
    places: dict[int, int] = {}
    for k, result in enumerate(results):
        for at, leaf in enumerate(leaves):
            if at not in places.values() and leaf.shape[1:] == result.shape and leaf.dtype == result.dtype:
                places[k] = at
                break
    return places
