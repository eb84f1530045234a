"""Operations that combine the rows of stacked models, each with a case for every form of mixing.

All four forms are pytrees that stand for a linear map x ← W x over the row axis of every leaf:

* :class:`DenseMixing`: the whole matrix, for small or nearly complete networks;
* :class:`TableMixing`: a padded list of neighbours per row, for sparse rounds;
* :class:`PairMixing`: a few directed transfers, for events that touch few rows of many;
* :class:`GroupMixing`: groups that average their members and write the average to their targets, for sampled systems.

The fields are plain arrays: a new network needs no recompilation, and every form can be vmapped and differentiated. An
index past the last row means "nobody". Weights are cast to the dtype of each leaf.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt

from gossipjax._base.arguments import callable_, shown, whole
from gossipjax._base.in_place import over_columns
from gossipjax._base.memory import check_memory
from gossipjax._base.placement import choose_blocks, map_blocks, using
from gossipjax._base.rows import FEW, before_writing, read_row, write_row
from gossipjax.mixing._forms import (
    DenseMixing,
    Form,
    GroupMixing,
    Mixing,
    PairMixing,
    TableMixing,
    as_event_mixing,
    check_rows,
    column,
    gather,
    live_receivers,
)
from gossipjax.mixing._placed import mix_transfers, reach, senders_of
from gossipjax.mixing._placed_forms import PLACED, PlacedDense, PlacedPairs, PlacedTable


def mix(mixing: Mixing, x: PyTree) -> PyTree:
    """Combine the rows of every leaf: x ← W x.

    Conserves the mean over the rows if W is doubly stochastic, and consensus if W is row-stochastic.

    Args:
        mixing: W in any of the four forms.
        x: pytree of floating-point leaves ``(num_rows, ...)``.

    Returns:
        Pytree of the same structure, shapes and dtypes.

    Raises:
        TypeError: if mixing is not one of the four forms, or a leaf is not of a floating-point type.
        ValueError: if the number of rows of a leaf differs from that of a dense or table mixing, the arrays of the
            mixing do not match in shape, or its groups send fragments of models.
    """
    mixing, x = _on_device(mixing, x)
    match mixing:
        case DenseMixing():
            return jax.tree.map(lambda leaf: over_columns(_mix_dense, leaf, mixing), x)
        case TableMixing():
            return jax.tree.map(lambda leaf: _mix_table(mixing, leaf), x)
        case PairMixing():
            return jax.tree.map(lambda leaf: _mix_pairs(mixing, leaf), x)
        case GroupMixing():
            return jax.tree.map(lambda leaf: _mix_groups(mixing, leaf), x)
        case PlacedPairs():
            return jax.tree.map(lambda leaf: mix_transfers(mixing, leaf), x)
        case PlacedTable() | PlacedDense():
            return jax.tree.map(lambda leaf: over_columns(_mix_placed, leaf, mixing), x)


def neighbor_sum(mixing: Mixing, f: Callable[[PyTree, PyTree], PyTree], x: PyTree) -> PyTree:
    """Sum a weighted function of pairs of models over all neighbours: ``Σ_{j≠i} W_ij f(x_i, x_j)`` for every row i.

    For a row-stochastic W, ``mix(W, x) = x + neighbor_sum(W, lambda own, other: other − own, x)``. Rows that receive
    nothing get 0. Where W_ij = 0 the value of f is ignored, even if it is not finite.

    Args:
        mixing: W in any of the four forms.
        f: ``f(own, other)`` maps two models (one row each, without the row axis) to a pytree of floats.
        x: pytree of leaves ``(num_rows, ...)``.

    Returns:
        Pytree with the structure of f's output and a leading row axis.

    Raises:
        TypeError: if mixing is not one of the four forms, or f is not a function.
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
        case PlacedTable():
            return _sum_columns(mixing, mixing.own, f, x, jax.tree.map(lambda leaf: reach(mixing, leaf), x))
        case PlacedPairs():
            return _sum_transfers(mixing, f, x)
        case PlacedDense(W=W, ids=ids):
            everyone = jax.tree.map(lambda leaf: reach(mixing, leaf), x)
            return _sum_senders(W, ids, jnp.arange(W.shape[1], dtype=ids.dtype), f, x, everyone)


def messages(mixing: Mixing, num_rows: int) -> UInt[Array, " m"]:
    """Count the models that each sender sends in one event; padding counts 0.

    * Dense and table: ``(n,)``, the number of other rows that give row j a non-zero weight.
    * Pairs: ``(m,)``, 1 for each transfer between two different rows.
    * Groups: ``(g s + g t,)``: 1 for each present member of non-zero weight (an upload), then 1 for each present target
      (a download): FedAvg's two models per client and round.

    Args:
        mixing: W in any of the four forms.
        num_rows: rows of the stacked model.

    Returns:
        Number of messages of each sender.

    Raises:
        TypeError: if mixing is not one of the four forms.
        ValueError: if it has a different number of rows, or its arrays do not match in shape.
    """
    if isinstance(mixing, PlacedTable | PlacedDense):
        return mixing.messages
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
    """Return the matrix W of any mixing, for tests and the analysis of small networks.

    Raises:
        TypeError: if mixing is not one of the four forms.
        ValueError: as :func:`mix`, or if the matrix does not fit into memory.
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


_BLOCK = 16


def _mix_placed(leaf: Array, mixing: PlacedTable | PlacedDense) -> Array:
    everyone = reach(mixing, leaf)
    if isinstance(mixing, PlacedDense):
        return jnp.tensordot(mixing.W.astype(leaf.dtype), everyone, axes=1, precision=jax.lax.Precision.HIGHEST)
    return _mix_rows(everyone, leaf, mixing.neighbors, mixing.weights, mixing.self_weight)


def _mix_dense(leaf: Array, mixing: DenseMixing) -> Array:
    # The default precision of accelerators (TF32) would break the conservation of the mean at 1e-3.
    return jnp.tensordot(mixing.W.astype(leaf.dtype), leaf, axes=1, precision=jax.lax.Precision.HIGHEST)


def _mix_table(mixing: TableMixing, leaf: Array) -> Array:
    chosen = choose_blocks(leaf, leaf, *mixing)  # a block of columns may be too small to be sharded
    with using(chosen.strategy):
        return over_columns(_mix_columns, leaf, mixing)


def _mix_columns(leaf: Array, mixing: TableMixing) -> Array:
    return map_blocks(_mix_rows, leaf, leaf, *mixing)


def _mix_rows(everyone: Array, own: Array, neighbors: Array, weights: Array, self_weight: Array) -> Array:
    """Mix a block of rows, whose neighbours may be in any block."""
    # Unrolled gathers are several times faster than segment_sum or one gather of all neighbours. A scan over blocks
    # of neighbours is twice as fast as one long expression, and compiles in constant time.
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
    """Apply the transfers one by one; compute every new row before the first is written."""
    receivers, lanes = live_receivers(mixing, leaf.shape[0]), range(len(mixing.senders))
    weights, keep = mixing.weights.astype(leaf.dtype), mixing.keep.astype(leaf.dtype)

    def old() -> list[Array]:
        return [read_row(leaf, receivers[k]) for k in lanes]

    def new() -> list[Array]:
        others = [read_row(leaf, mixing.senders[k]) for k in lanes]
        return [keep[k] * own + weights[k] * other for k, own, other in zip(lanes, old(), others, strict=True)]

    alone = len(mixing.senders) == 1  # one write needs no barrier
    rows = new() if alone else before_writing(jnp.any(receivers < leaf.shape[0]), new, old)
    for k in lanes:
        leaf = write_row(leaf, receivers[k], rows[k])
    return leaf


def _mix_few_groups(mixing: GroupMixing, leaf: Array) -> Array:
    """Apply the groups one by one; compute every average before the first row is written."""
    (g, s), n = mixing.members.shape, leaf.shape[0]
    weights = mixing.weights.astype(leaf.dtype)

    def average(group: int) -> Array:
        members = mixing.members[group]
        # Not weight * row for an absent member: 0 * inf is NaN.
        parts = [jnp.where(members[k] < n, weights[group, k] * read_row(leaf, members[k]), 0) for k in range(s)]
        return sum(parts[1:], start=parts[0])

    nothing = [jnp.zeros((1, *leaf.shape[1:]), leaf.dtype)] * g
    averages = before_writing(
        jnp.any(mixing.targets < n), lambda: [average(group) for group in range(g)], lambda: nothing
    )
    for group in range(g):
        for target in mixing.targets[group]:
            leaf = write_row(leaf, target, averages[group])
    return leaf


def _mix_groups(mixing: GroupMixing, leaf: Array) -> Array:
    if mixing.members.size <= 2 * FEW and mixing.targets.size <= FEW:
        return _mix_few_groups(mixing, leaf)
    # Fill absent members with 0 instead of clamping the index: 0 * inf is NaN.
    models = leaf.at[mixing.members].get(mode="fill", fill_value=0)
    weights = mixing.weights.astype(leaf.dtype)
    averages = jnp.einsum("gs,gs...->g...", weights, models, precision=jax.lax.Precision.HIGHEST)
    return leaf.at[mixing.targets].set(_repeat(averages, mixing.targets.shape[1]), mode="drop")


def _sum_dense(mixing: DenseMixing, f: Callable, x: PyTree) -> PyTree:
    rows = jnp.arange(mixing.W.shape[0])
    return _sum_senders(mixing.W, rows, rows, f, x, x)


def _sum_senders(
    W: Array, rows: Int[Array, " m"], senders: Int[Array, " n"], f: Callable, x: PyTree, everyone: PyTree
) -> PyTree:
    """Scan over the senders, so that no (n, n, ...) array is allocated.

    Args:
        W: rows of the matrix, ``(m, n)``.
        rows: their numbers.
        senders: numbers of all rows.
        f: of two models.
        x: the models of these rows.
        everyone: the models of all senders.
    """

    def add(total: PyTree, sender: tuple[Array, Array, PyTree]) -> tuple[PyTree, None]:
        j, weights, other = sender
        values = jax.vmap(f, in_axes=(0, None))(x, other)
        return _add_scaled(total, weights, rows != j, values), None

    return jax.lax.scan(add, _zeros(f, x, x), (senders, W.T, everyone))[0]


def _sum_table(mixing: TableMixing, f: Callable, x: PyTree) -> PyTree:
    return _sum_columns(mixing, jnp.arange(mixing.neighbors.shape[0], dtype=jnp.int32), f, x, x)


def _sum_columns(
    mixing: TableMixing | PlacedTable, rows: Int[Array, " m"], f: Callable, x: PyTree, everyone: PyTree
) -> PyTree:
    """Add the neighbours of all rows, one column of the table after another; ``rows`` are their own in everyone."""
    total = _zeros(f, x, x)
    for k in range(mixing.neighbors.shape[1]):
        neighbors = mixing.neighbors[:, k]
        values = jax.vmap(f)(x, jax.tree.map(lambda leaf, rows=neighbors: gather(leaf, rows), everyone))
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


def _sum_transfers(mixing: PlacedPairs, f: Callable, x: PyTree) -> PyTree:
    own = jax.tree.map(lambda leaf: leaf.at[mixing.receivers].get(mode="clip"), x)
    other = jax.tree.map(lambda leaf: senders_of(mixing, leaf), x)
    apart = (mixing.slots >= 0) | (mixing.senders != mixing.receivers)
    values = _add_scaled(_zeros(f, own, other), mixing.weights, apart, jax.vmap(f)(own, other))
    return jax.tree.map(lambda zero, value: zero.at[mixing.receivers].set(value, mode="drop"), _zeros(f, x, x), values)


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
    """Add weight · value where the weight is not 0, since 0 · inf would make the sum NaN."""
    weights = jnp.where(present, weights, 0)

    def add(sum_: Array, value: Array) -> Array:
        factor = column(weights, value)
        return sum_ + jnp.where(factor == 0, 0, factor * value)

    return jax.tree.map(add, total, values)


def _repeat(averages: Array, count: int) -> Array:
    return jnp.broadcast_to(averages[:, None], (averages.shape[0], count, *averages.shape[1:]))


def _of_whole_models(mixing: Form) -> Form:
    if isinstance(mixing, GroupMixing) and mixing.parts is not None:
        raise ValueError(
            "mixing: its groups send fragments of models (GroupMixing.parts), which mix would treat as whole models: "
            "use dpsgd(sharing=fragments(...)), or a timeline without fragments"
        )
    return mixing


def _on_device(mixing: Any, x: PyTree, *, averaged: bool = True) -> tuple[Mixing, PyTree]:
    """Check the mixing and the leaves, and convert both to JAX arrays."""
    x = jax.tree_util.tree_map_with_path(_leaf, x)
    if isinstance(mixing, PLACED):  # made by the loop, from a mixing that was checked
        return mixing, x
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
        raise TypeError(f"not an array but {type(leaf).__name__}")
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{_name(path)}={shown(leaf)}: must be an array with the row axis in front") from error


def _name(path: tuple) -> str:
    return f"x{jax.tree_util.keystr(path)}"
