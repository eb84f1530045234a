"""Builders of mixings, from matrices and from pairs of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer
from scipy import sparse

from gossipjax._base import matrices
from gossipjax._base.arguments import choice, instance, reals, shown, whole, wholes
from gossipjax._base.memory import check_memory
from gossipjax.mixing._forms import (
    FORMS,
    HOW_TO_MIX,
    DenseMixing,
    GroupMixing,
    Mixing,
    PairMixing,
    TableMixing,
    as_arrays,
    as_event_mixing,
)
from gossipjax.mixing._stochastic import Matrix

DENSE_NODES = 32
"""Number of nodes up to which a dense matrix is as fast as any table (on a CPU; ``benchmarks/mixing.py``)."""


DENSE_SHARE = 1 / 6
"""Share of all pairs from which a dense matrix is as fast as a table (on a CPU; the same measurement)."""


def from_matrix(
    W: Matrix, *, form: str = "auto", dtype: jax.typing.DTypeLike | None = None
) -> DenseMixing | TableMixing:
    """Put a mixing matrix on the device, in the form that is faster to apply.

    Args:
        W: ``(n, n)`` weights, dense or sparse. Check them with :func:`gossipjax.mixing.check_weights`.
        form: ``"dense"``, ``"table"``, or ``"auto"``: dense up to :data:`DENSE_NODES` nodes, or if the fullest row
            (diagonal included) has entries for at least :data:`DENSE_SHARE` of all nodes.
        dtype: of the weights; JAX's default floating-point type if None.

    Returns:
        The mixing; :func:`describe` tells its form.

    Raises:
        ValueError: if W is not square or holds a number that is not finite, the form is unknown, the dtype is not a
            floating-point type, or the form does not fit into memory.
        TypeError: if W is not a matrix.
    """
    form = choice("form", form, ("auto", "dense", "table"))
    W, dtype = (
        matrices.square("W", W, "pass one of gossipjax.mixing, such as metropolis(topology)", entry="weight"),
        _float_type(dtype),
    )
    n, degree = W.shape[0], _largest_degree(W)
    if form == "auto":
        form = "dense" if n <= DENSE_NODES or degree + 1 >= DENSE_SHARE * n else "table"
    width = n if form == "dense" else degree
    advice = f"the busiest of {n} nodes has {degree} neighbours; bound the degree, or plan events such as poisson_pairs"
    check_memory(f"W, form={form!r}: a mixing of {n} rows of {width} weights", 24.0 * n * width, advice)
    if form == "dense":
        return DenseMixing(jnp.asarray(W.toarray(), dtype))
    neighbors, weights, own = _table(W)
    return TableMixing(jnp.asarray(neighbors), jnp.asarray(weights, dtype), jnp.asarray(own, dtype))


def describe(mixing: Mixing) -> str:
    """Describe a mixing in one line: its form, its size, and when the dense form is faster.

    Raises:
        TypeError: if mixing is not one of the four forms.
    """
    mixing = as_arrays(mixing)
    match mixing:
        case DenseMixing(W=W):
            return f"dense: {W.shape[-1]} nodes ({_RULE})"
        case TableMixing(neighbors=neighbors):
            return f"table: {neighbors.shape[-1]} neighbours of {neighbors.shape[-2]} nodes ({_RULE})"
        case PairMixing(senders=senders):
            return f"pairs: {senders.shape[-1]} transfers"
        case GroupMixing(members=members, targets=targets):
            return f"groups: {members.shape[-2]} of {members.shape[-1]} members and {targets.shape[-1]} targets"


def stack_mixings(mixings: Sequence[Mixing]) -> Mixing:
    """Stack R mixings of one form along a new leading axis; pad tables to the largest number of neighbours.

    Raises:
        TypeError: if an item is not a mixing.
        ValueError: if the list is empty, or the mixings differ in form or in size.
    """
    if isinstance(mixings, FORMS) or not isinstance(mixings, Sequence):
        raise TypeError(f"mixings={shown(mixings)}: must be a list of mixings; {HOW_TO_MIX}")
    mixings = [as_event_mixing(instance(f"mixings[{k}]", each, FORMS, HOW_TO_MIX)) for k, each in enumerate(mixings)]
    forms = sorted({type(mixing).__name__ for mixing in mixings})
    if len(forms) != 1:
        raise ValueError(f"mixings of {len(forms)} forms {forms}: stack at least one, all of one form; see from_matrix")
    if tables := [mixing for mixing in mixings if isinstance(mixing, TableMixing)]:
        degree = max(table.neighbors.shape[1] for table in tables)
        mixings = [_pad_table(table, degree) for table in tables]
    shapes = sorted({tuple(leaf.shape for leaf in jax.tree.leaves(mixing)) for mixing in mixings})
    if len(shapes) != 1:
        raise ValueError(f"mixings of different sizes {shapes[0]} and {shapes[1]}: pad them with nobody to one size")
    # On the host, since XLA would compile one operation with as many arguments as there are mixings.
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *mixings)


def take_mixing(stacked: Mixing, r: Integer[ArrayLike, ""]) -> Mixing:
    """Take mixing number r from the result of :func:`stack_mixings`; a traced r is clamped to the range.

    Raises:
        TypeError: if stacked is not a mixing.
        ValueError: if r is not a whole number, or is out of range and not traced.
    """
    stacked = as_arrays(instance("stacked", stacked, FORMS, "build it with stack_mixings"))
    if stacked[0].ndim == 0 or (isinstance(stacked, DenseMixing | TableMixing | GroupMixing) and stacked[0].ndim < 3):
        raise ValueError(f"stacked: one {type(stacked).__name__}, not several; stack them with stack_mixings")
    if not isinstance(r, jax.core.Tracer):
        r = whole("r", r, least=0, most=len(stacked[0]) - 1)
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, r, keepdims=False), stacked)


def exchange(i: ArrayLike, j: ArrayLike, weight: ArrayLike = 0.5) -> PairMixing:
    """Let nodes i and j average: ``x_i, x_j ← (1 − a) x_i + a x_j, (1 − a) x_j + a x_i``. Conserves the mean.

    Args:
        i: scalar or ``(k,)`` node numbers.
        j: their partners, of the same shape; no node may occur twice in i and j together.
        weight: a, scalar or ``(k,)``.

    Raises:
        ValueError: if nodes are not whole numbers of at least 0, the weight is not finite, or shapes do not match.
    """
    i, j, weight = _transfers(i, j, weight)
    weights = jnp.concatenate([weight, weight])
    return PairMixing(jnp.concatenate([i, j]), jnp.concatenate([j, i]), weights, 1 - weights)


def push(i: ArrayLike, j: ArrayLike, weight: ArrayLike) -> PairMixing:
    """Let node i send its model to node j: ``x_j ← (1 − a) x_j + a x_i``. Does not conserve the mean.

    Args:
        i: scalar or ``(k,)`` senders.
        j: distinct receivers, of the same shape.
        weight: a, scalar or ``(k,)``.

    Raises:
        ValueError: if nodes are not whole numbers of at least 0, the weight is not finite, or shapes do not match.
    """
    i, j, weight = _transfers(i, j, weight)
    return PairMixing(i, j, weight, 1 - weight)


_RULE = f"dense pays up to {DENSE_NODES} nodes or from a sixth of all pairs"


def _table(W: sparse.csr_array) -> tuple[Int[np.ndarray, "n d"], Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """List the neighbours of each row, padded with the row itself at weight 0."""
    n, own = W.shape[0], W.diagonal()
    entries = W.tocoo()
    off = (entries.row != entries.col) & (entries.data != 0)
    rows, columns, values = entries.row[off], entries.col[off], entries.data[off]
    counts = np.bincount(rows, minlength=n)
    place = np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)
    neighbors = np.repeat(np.arange(n, dtype=np.int32)[:, None], counts.max(initial=0), axis=1)
    weights = np.zeros(neighbors.shape)
    neighbors[rows, place] = columns
    weights[rows, place] = values
    return neighbors, weights, own


def _pad_table(mixing: TableMixing, degree: int) -> TableMixing:
    n, missing = mixing.neighbors.shape[0], degree - mixing.neighbors.shape[1]
    own = jnp.broadcast_to(jnp.arange(n, dtype=mixing.neighbors.dtype)[:, None], (n, missing))
    neighbors = jnp.concatenate([mixing.neighbors, own], axis=1)
    return mixing._replace(neighbors=neighbors, weights=jnp.pad(mixing.weights, ((0, 0), (0, missing))))


def _transfers(i: Any, j: Any, weight: Any) -> tuple[Array, Array, Array]:
    i, j = _nodes("i", i), _nodes("j", j)
    if i.shape != j.shape or i.ndim != 1:
        raise ValueError(f"i and j of shapes {i.shape} and {j.shape}: give two scalars or two vectors of one length")
    if not isinstance(weight, jax.core.Tracer):
        reals("weight", weight)
    if np.shape(weight) not in ((), (1,), i.shape):
        raise ValueError(f"weight of shape {np.shape(weight)}: must be one number, or of shape {i.shape} as the nodes")
    return i, j, jnp.broadcast_to(jnp.asarray(weight), i.shape)


def _nodes(name: str, nodes: Any) -> Int[Array, "*k"]:
    """Check node numbers; of traced ones only the dtype can be checked."""
    if not isinstance(nodes, jax.core.Tracer):
        nodes = wholes(name, nodes, least=0, most=2**31 - 1)
    elif not jnp.issubdtype(nodes.dtype, jnp.integer):
        raise ValueError(f"{name} of type {nodes.dtype}: must be whole numbers")
    return jnp.atleast_1d(jnp.asarray(nodes, jnp.int32))


def _float_type(dtype: Any) -> np.dtype:
    if dtype is None:
        return np.dtype(jnp.result_type(float))
    try:
        kind = np.dtype(dtype) if isinstance(dtype, type | str | np.dtype) else None
    except TypeError:
        kind = None
    if kind is None or not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"dtype={shown(dtype)}: must be a floating-point type, such as jax.numpy.float32")
    return kind


def _largest_degree(W: sparse.csr_array) -> int:
    """Count the off-diagonal entries in the fullest row."""
    rows = np.repeat(np.arange(W.shape[0]), np.diff(W.indptr))
    return int(np.bincount(rows[(rows != W.indices) & (W.data != 0)], minlength=1).max())
