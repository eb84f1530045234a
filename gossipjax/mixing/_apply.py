"""Combining the rows of stacked models: small pytrees that say how much, and the operations on them.

Four forms of the same thing, a linear map x ← W x over the row axis of every leaf:

* :class:`DenseMixing`: the whole matrix, for small or nearly complete networks;
* :class:`TableMixing`: a padded list of neighbours per row, for sparse rounds;
* :class:`PairMixing`: a few directed transfers, for events that touch few rows of many;
* :class:`GroupMixing`: groups whose members are averaged and whose targets take the average, for sampled systems.

All forms are plain arrays: a network that changes costs no recompilation, and all can be vmapped and differentiated. An
index past the last row means "nobody". Weights are cast to the dtype of each leaf.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Integer, PyTree, UInt
from scipy import sparse

from gossipjax._base import matrices
from gossipjax._base.arguments import callable_, choice, instance, reals, shown, whole, wholes
from gossipjax._base.memory import check_memory
from gossipjax._base.placement import map_blocks
from gossipjax._base.rows import FEW, apart, read_row, write_row
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
    check_rows,
    column,
    gather,
    live_receivers,
)
from gossipjax.mixing._weights import Matrix

DENSE_NODES = 32
"""Up to this number of nodes a dense matrix is as fast as any table (on a CPU; ``benchmarks/mixing.py``)."""
DENSE_SHARE = 1 / 6
"""From this share of all pairs on a dense matrix is as fast as a table (on a CPU; the same measurement)."""


def mix(mixing: Mixing, x: PyTree) -> PyTree:
    """Combine the rows of every leaf: x ← W x.

    Conserves the mean over the rows if W is doubly stochastic, and consensus if W is row-stochastic.

    Args:
        mixing: who is combined with whom.
        x: pytree of floating-point leaves ``(num_rows, ...)``.

    Returns:
        Pytree of the same structure, shapes and dtypes.

    Raises:
        TypeError: if it is no mixing, or a leaf is not of a floating-point type.
        ValueError: if a leaf has not as many rows as a dense or table mixing, arrays of the mixing do not fit each
            other, or its groups give fragments of models.
    """
    mixing, x = _on_device(mixing, x)
    match mixing:
        case DenseMixing():
            return jax.tree.map(lambda leaf: _mix_dense(mixing, leaf), x)
        case TableMixing():
            return jax.tree.map(lambda leaf: _mix_table(mixing, leaf), x)
        case PairMixing():
            return jax.tree.map(lambda leaf: _mix_pairs(mixing, leaf), x)
        case GroupMixing():
            return jax.tree.map(lambda leaf: _mix_groups(mixing, leaf), x)


def neighbor_sum(mixing: Mixing, f: Callable[[PyTree, PyTree], PyTree], x: PyTree) -> PyTree:
    """Sum a function of the own and the other model over the others: ``Σ_{j≠i} W_ij f(x_i, x_j)`` for every row i.

    For a row-stochastic W, ``mix(W, x) = x + neighbor_sum(W, lambda own, other: other − own, x)``. Rows that receive
    nothing get 0. Values of f where W_ij = 0 do not matter, even if they are not finite.

    Args:
        mixing: who is combined with whom.
        f: ``f(own, other)`` maps two models (one row each, without the row axis) to a pytree of floats.
        x: pytree of leaves ``(num_rows, ...)``.

    Returns:
        What f returns, with the row axis in front.

    Raises:
        TypeError: if it is no mixing, or f no function.
        ValueError: as :func:`mix`.
    """
    callable_("f", f, "f(own, other) of two models")
    mixing, x = _on_device(mixing, x, averaged=False)
    match mixing:
        case DenseMixing():
            return _sum_dense(mixing, f, x)
        case TableMixing():
            return _sum_table(mixing, f, x)
        case PairMixing():
            return _sum_pairs(mixing, f, x)
        case GroupMixing():
            return _sum_groups(mixing, f, x)


def messages(mixing: Mixing, num_rows: int) -> UInt[Array, " m"]:
    """Count the models that are sent in this event, one entry per sending entity; padding counts 0.

    * Dense and table: ``(n,)``, the number of others that give row j a weight other than zero.
    * Pairs: ``(m,)``, 1 for each transfer between two different rows.
    * Groups: ``(g s + g t,)``: 1 for each present member of non-zero weight (an upload), then 1 for each present target
      (a download): FedAvg's two models per client and round.

    Args:
        mixing: who is combined with whom.
        num_rows: rows of the stacked model.

    Returns:
        Number of messages of each entity.

    Raises:
        TypeError: if it is no mixing.
        ValueError: if it has another number of rows, or its arrays do not fit each other.
    """
    mixing = as_event_mixing(mixing, whole("num_rows", num_rows, least=1, most=2**31 - 1))
    match mixing:
        case DenseMixing(W=W):
            return jnp.sum((W != 0) & ~jnp.eye(W.shape[0], dtype=bool), axis=0, dtype=jnp.uint32)
        case TableMixing(neighbors=neighbors, weights=weights):
            own = jnp.arange(neighbors.shape[0], dtype=jnp.int32)[:, None]
            live = (weights != 0) & (neighbors != own)
            return jnp.zeros(num_rows, jnp.uint32).at[neighbors].add(live.astype(jnp.uint32), mode="drop")
        case PairMixing(senders=senders, receivers=receivers):
            return ((senders < num_rows) & (receivers < num_rows) & (senders != receivers)).astype(jnp.uint32)
        case GroupMixing(members=members, weights=weights, targets=targets):
            present = ((members < num_rows) & (weights != 0)).ravel(), (targets < num_rows).ravel()
            return jnp.concatenate(present).astype(jnp.uint32)


def to_dense(mixing: Mixing, num_rows: int) -> Float[Array, "{num_rows} {num_rows}"]:
    """Write out the matrix W of any mixing, for tests and the analysis of small networks.

    Raises:
        TypeError: if it is no mixing.
        ValueError: as :func:`mix`, or the matrix does not fit into memory.
    """
    num_rows = whole("num_rows", num_rows, least=1, most=2**31 - 1)
    mixing = _of_whole_models(as_event_mixing(mixing, num_rows))
    check_memory(f"num_rows={num_rows}: a dense matrix", 16.0 * num_rows**2, "use mix, which needs no matrix")
    rows = jnp.arange(num_rows)
    match mixing:
        case DenseMixing(W=W):
            return W
        case TableMixing(neighbors=neighbors, weights=weights, self_weight=self_weight):
            return jnp.diag(self_weight).at[rows[:, None], neighbors].add(weights)
        case PairMixing(senders=senders, receivers=receivers, weights=weights, keep=keep):
            live = live_receivers(mixing, num_rows)
            W = jnp.eye(num_rows, dtype=weights.dtype).at[live, receivers].set(keep, mode="drop")
            return W.at[live, senders].add(weights, mode="drop")
        case GroupMixing(members=members, weights=weights, targets=targets):
            groups = jnp.arange(members.shape[0])[:, None]
            averages = jnp.zeros((members.shape[0], num_rows), weights.dtype)
            averages = averages.at[groups, members].add(weights, mode="drop")
            W = jnp.eye(num_rows, dtype=weights.dtype)
            return W.at[targets].set(_repeat(averages, targets.shape[1]), mode="drop")


def from_matrix(
    W: Matrix, *, form: str = "auto", dtype: jax.typing.DTypeLike | None = None
) -> DenseMixing | TableMixing:
    """Take a mixing matrix to the device, in the form that is faster to apply.

    Args:
        W: ``(n, n)`` weights, dense or sparse. Check them with :func:`gossipjax.mixing.check_weights`.
        form: ``"dense"``, ``"table"``, or ``"auto"``: dense up to :data:`DENSE_NODES` nodes, or if the busiest row
            (itself included) names at least :data:`DENSE_SHARE` of all nodes.
        dtype: of the weights; JAX's default floating-point type if None.

    Returns:
        The mixing; :func:`describe` says which form was taken.

    Raises:
        ValueError: if W is not square or holds a number that is not finite, the form is unknown, the dtype is no
            floating-point type, or the form does not fit into memory.
        TypeError: if W is no matrix.
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
    """Say in one line which form a mixing has, how large it is, and when the dense form would pay.

    Raises:
        TypeError: if it is no mixing.
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
    """Stack R mixings of one form along a new leading axis; tables are padded to the largest number of neighbours.

    Raises:
        TypeError: if one of them is no mixing.
        ValueError: if there is none, or if they differ in form or in size.
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
    # On the host: XLA would compile one operation of as many arguments as there are mixings.
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *mixings)


def take_mixing(stacked: Mixing, r: Integer[ArrayLike, ""]) -> Mixing:
    """Pick one of :func:`stack_mixings`; a traced number is clamped to the range.

    Raises:
        TypeError: if it is no mixing.
        ValueError: if the number is not whole or, as far as it is known, not in the range.
    """
    stacked = as_arrays(instance("stacked", stacked, FORMS, "make it with stack_mixings"))
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
        ValueError: if nodes are not whole numbers of at least 0, the weight is not finite, or shapes do not fit.
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
        ValueError: if nodes are not whole numbers of at least 0, the weight is not finite, or shapes do not fit.
    """
    i, j, weight = _transfers(i, j, weight)
    return PairMixing(i, j, weight, 1 - weight)


_BLOCK = 16
_RULE = f"dense pays up to {DENSE_NODES} nodes or from a sixth of all pairs"


def _mix_dense(mixing: DenseMixing, leaf: Array) -> Array:
    # The default precision of accelerators (TF32) would break the conservation of the mean at 1e-3.
    return jnp.tensordot(mixing.W.astype(leaf.dtype), leaf, axes=1, precision=jax.lax.Precision.HIGHEST)


def _mix_table(mixing: TableMixing, leaf: Array) -> Array:
    return map_blocks(_mix_rows, leaf, leaf, *mixing)


def _mix_rows(everyone: Array, own: Array, neighbors: Array, weights: Array, self_weight: Array) -> Array:
    """Mix a block of rows; its neighbours are anywhere."""
    # Unrolled gathers: several times faster than segment_sum, or than gathering all neighbours at once. Many
    # neighbours go in blocks: twice as fast as one long expression, and compiled in constant time.
    neighbors, weights = neighbors.T, weights.T
    degree = neighbors.shape[0]
    blocks, rest = divmod(degree, _BLOCK) if degree >= 2 * _BLOCK else (0, degree)
    result = _add_neighbors(column(self_weight, own) * own, neighbors[:rest], weights[:rest], everyone)
    if blocks:
        shape = (blocks, _BLOCK, neighbors.shape[1])
        xs = neighbors[rest:].reshape(shape), weights[rest:].reshape(shape)
        result, _ = jax.lax.scan(lambda total, block: (_add_neighbors(total, *block, everyone), None), result, xs)
    return result


def _add_neighbors(total: Array, neighbors: Int[Array, "k n"], weights: Float[Array, "k n"], leaf: Array) -> Array:
    for k in range(neighbors.shape[0]):
        total = total + column(weights[k], leaf) * gather(leaf, neighbors[k])
    return total


def _mix_pairs(mixing: PairMixing, leaf: Array) -> Array:
    if len(mixing.senders) <= FEW:
        return _mix_few_pairs(mixing, leaf)
    own, other = leaf.at[mixing.receivers].get(mode="clip"), leaf.at[mixing.senders].get(mode="clip")
    mixed = column(mixing.keep, leaf) * own + column(mixing.weights, leaf) * other
    return leaf.at[live_receivers(mixing, leaf.shape[0])].set(mixed, mode="drop")


def _mix_few_pairs(mixing: PairMixing, leaf: Array) -> Array:
    """One transfer after another, all computed before any is written."""
    receivers, lanes = live_receivers(mixing, leaf.shape[0]), range(len(mixing.senders))
    weights, keep = mixing.weights.astype(leaf.dtype), mixing.keep.astype(leaf.dtype)

    def kept() -> list[Array]:
        return [read_row(leaf, receivers[k]) for k in lanes]

    def mixed() -> list[Array]:
        others = [read_row(leaf, mixing.senders[k]) for k in lanes]
        return [keep[k] * own + weights[k] * other for k, own, other in zip(lanes, kept(), others, strict=True)]

    alone = len(mixing.senders) == 1  # one write needs no barrier
    rows = mixed() if alone else apart(jnp.any(receivers < leaf.shape[0]), mixed, kept)
    for k in lanes:
        leaf = write_row(leaf, receivers[k], rows[k])
    return leaf


def _mix_few_groups(mixing: GroupMixing, leaf: Array) -> Array:
    """One group after another, all computed before any is written."""
    (g, s), n = mixing.members.shape, leaf.shape[0]
    weights = mixing.weights.astype(leaf.dtype)

    def average(group: int) -> Array:
        members = mixing.members[group]
        # A weight of 0 does not silence a row that is not finite.
        parts = [jnp.where(members[k] < n, weights[group, k] * read_row(leaf, members[k]), 0) for k in range(s)]
        return sum(parts[1:], start=parts[0])

    nothing = [jnp.zeros((1, *leaf.shape[1:]), leaf.dtype)] * g
    averages = apart(jnp.any(mixing.targets < n), lambda: [average(group) for group in range(g)], lambda: nothing)
    for group in range(g):
        for target in mixing.targets[group]:
            leaf = write_row(leaf, target, averages[group])
    return leaf


def _mix_groups(mixing: GroupMixing, leaf: Array) -> Array:
    if mixing.members.size <= 2 * FEW and mixing.targets.size <= FEW:
        return _mix_few_groups(mixing, leaf)
    # Filled, not clamped: a weight of 0 does not silence a row that is not finite.
    models = leaf.at[mixing.members].get(mode="fill", fill_value=0)
    weights = mixing.weights.astype(leaf.dtype)
    averages = jnp.einsum("gs,gs...->g...", weights, models, precision=jax.lax.Precision.HIGHEST)
    return leaf.at[mixing.targets].set(_repeat(averages, mixing.targets.shape[1]), mode="drop")


def _sum_dense(mixing: DenseMixing, f: Callable, x: PyTree) -> PyTree:
    """Go through the senders one by one, so that no (n, n, ...) array is made."""
    rows = jnp.arange(mixing.W.shape[0])

    def add(total: PyTree, sender: tuple[Array, Array, PyTree]) -> tuple[PyTree, None]:
        j, weights, other = sender
        values = jax.vmap(f, in_axes=(0, None))(x, other)
        return _add_scaled(total, weights, rows != j, values), None

    return jax.lax.scan(add, _zeros(f, x, x), (rows, mixing.W.T, x))[0]


def _sum_table(mixing: TableMixing, f: Callable, x: PyTree) -> PyTree:
    total, rows = _zeros(f, x, x), jnp.arange(mixing.neighbors.shape[0], dtype=jnp.int32)
    for k in range(mixing.neighbors.shape[1]):
        neighbors = mixing.neighbors[:, k]
        values = jax.vmap(f)(x, jax.tree.map(lambda leaf, rows=neighbors: gather(leaf, rows), x))
        total = _add_scaled(total, mixing.weights[:, k], neighbors != rows, values)
    return total


def _sum_pairs(mixing: PairMixing, f: Callable, x: PyTree) -> PyTree:
    own = jax.tree.map(lambda leaf: leaf.at[mixing.receivers].get(mode="clip"), x)
    other = jax.tree.map(lambda leaf: leaf.at[mixing.senders].get(mode="clip"), x)
    values = _add_scaled(
        _zeros(f, own, other), mixing.weights, mixing.senders != mixing.receivers, jax.vmap(f)(own, other)
    )
    live = live_receivers(mixing, jax.tree.leaves(x)[0].shape[0])
    return jax.tree.map(lambda zero, value: zero.at[live].set(value, mode="drop"), _zeros(f, x, x), values)


def _sum_groups(mixing: GroupMixing, f: Callable, x: PyTree) -> PyTree:
    targets = mixing.targets.ravel()
    own = jax.tree.map(lambda leaf: leaf.at[targets].get(mode="clip"), x)

    def add(total: PyTree, member: tuple[Array, Array]) -> tuple[PyTree, None]:
        members, weights = (jnp.repeat(array, mixing.targets.shape[1]) for array in member)
        other = jax.tree.map(lambda leaf: leaf.at[members].get(mode="fill", fill_value=0), x)
        return _add_scaled(total, weights, members != targets, jax.vmap(f)(own, other)), None

    values, _ = jax.lax.scan(add, _zeros(f, own, own), (mixing.members.T, mixing.weights.T))
    return jax.tree.map(lambda zero, value: zero.at[targets].set(value, mode="drop"), _zeros(f, x, x), values)


def _zeros(f: Callable, own: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(jax.vmap(f), own, other))


def _add_scaled(total: PyTree, weights: Float[Array, " k"], present: Bool[Array, " k"], values: PyTree) -> PyTree:
    """Add weight · value where the weight counts; 0 · inf must not spoil the sum."""
    weights = jnp.where(present, weights, 0)

    def add(sum_: Array, value: Array) -> Array:
        factor = column(weights, value)
        return sum_ + jnp.where(factor == 0, 0, factor * value)

    return jax.tree.map(add, total, values)


def _repeat(averages: Array, count: int) -> Array:
    return jnp.broadcast_to(averages[:, None], (averages.shape[0], count, *averages.shape[1:]))


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
    """Check node numbers, as far as they are known."""
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
    """Count the entries beside the diagonal in the fullest row."""
    rows = np.repeat(np.arange(W.shape[0]), np.diff(W.indptr))
    return int(np.bincount(rows[(rows != W.indices) & (W.data != 0)], minlength=1).max())


def _of_whole_models(mixing: Mixing) -> Mixing:
    if isinstance(mixing, GroupMixing) and mixing.parts is not None:
        raise ValueError(
            "mixing: its groups give fragments of models (GroupMixing.parts), which would be taken for whole models: "
            "use dpsgd(sharing=fragments(...)), or a timeline without fragments"
        )
    return mixing


def _on_device(mixing: Any, x: PyTree, *, averaged: bool = True) -> tuple[Mixing, PyTree]:
    """Check the leaves, and make JAX arrays of all."""
    x = jax.tree_util.tree_map_with_path(_leaf, x)
    mixing, leaves = _of_whole_models(as_event_mixing(mixing)), jax.tree_util.tree_leaves_with_path(x)
    rows = mixing[0].shape[0] if isinstance(mixing, DenseMixing | TableMixing) else None
    if not leaves:
        raise ValueError(f"x={shown(x)}: holds no array; pass stacked models, rows in front")
    for path, leaf in leaves:
        if averaged and not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise TypeError(f"{_name(path)} is of type {leaf.dtype}: only floating-point leaves can be averaged")
        if leaf.shape[:1] in ((), (0,)) or (rows is not None and leaf.shape[0] != rows):
            raise ValueError(f"{_name(path)} has shape {leaf.shape}: needs the row axis in front, {rows or 'all'} rows")
        rows = leaf.shape[0]
    check_rows(mixing, leaves[0][1].shape[0])
    return mixing, x


def _leaf(path: tuple, leaf: Any) -> Array:
    try:
        if isinstance(leaf, numbers.Number) or hasattr(leaf, "__array__"):
            return jnp.asarray(leaf)
        raise TypeError(f"no array but {type(leaf).__name__}")
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{_name(path)}={shown(leaf)}: must be an array with the row axis in front") from error


def _name(path: tuple) -> str:
    return f"x{jax.tree_util.keystr(path)}"
