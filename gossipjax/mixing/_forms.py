"""The four forms of a mixing, and the checks and accessors that all operations on them share."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gossipjax._base.arguments import instance, shown
from gossipjax.mixing._placed_forms import PlacedDense, PlacedPairs, PlacedTable


class DenseMixing(NamedTuple):
    """A whole mixing matrix: ``x[i] ← Σ_j W[i, j] x[j]``."""

    W: Float[Array, "n n"]


class TableMixing(NamedTuple):
    """A table of neighbours: ``x[i] ← self_weight[i] x[i] + Σ_k weights[i, k] x[neighbors[i, k]]``.

    A row with fewer than d neighbours is padded with its own index and weight 0.
    """

    neighbors: Int[Array, "n d"]
    weights: Float[Array, "n d"]
    self_weight: Float[Array, " n"]


class PairMixing(NamedTuple):
    """Directed transfers: ``x[r] ← keep x[r] + weight x[s]`` for each; all rows are read before the first is written.

    The receivers of one event are distinct. A symmetric exchange is the two transfers (i → j) and (j → i). A transfer
    is skipped if its sender or receiver is past the last row.
    """

    senders: Int[Array, " m"]
    receivers: Int[Array, " m"]
    weights: Float[Array, " m"]
    keep: Float[Array, " m"]


class GroupMixing(NamedTuple):
    """Groups with a common result: ``m_g = Σ_s weights[g, s] x[members[g, s]]``, then ``x[targets[g, :]] ← m_g``.

    All groups are read before the first is written; targets are distinct over all groups. A member or target past the
    last row is absent; the weight of an absent member must be 0.
    """

    members: Int[Array, "g s"]
    weights: Float[Array, "g s"]
    targets: Int[Array, "g t"]
    parts: Int[Array, "g s"] | None = None
    """Number of the fragment that each member sends; None: whole models. :func:`mix` rejects fragments: only protocols
    and sharings for fragments combine them."""


Form = DenseMixing | TableMixing | PairMixing | GroupMixing
Mixing = Form | PlacedTable | PlacedDense | PlacedPairs
FORMS = (DenseMixing, TableMixing, PairMixing, GroupMixing)
HOW_TO_MIX = "use from_matrix, exchange, push or one of the four forms of gossipjax.mixing"

_AXES: dict[type, dict[str, str]] = {
    DenseMixing: {"W": "nn"},
    TableMixing: {"neighbors": "nd", "weights": "nd", "self_weight": "n"},
    PairMixing: {"senders": "m", "receivers": "m", "weights": "m", "keep": "m"},
    GroupMixing: {"members": "gs", "weights": "gs", "targets": "gt", "parts": "gs"},
}
"""Fields with their axes; equal letters stand for equal lengths."""
_ROWS = ("neighbors", "senders", "receivers", "members", "targets", "parts")
"""Fields that hold integers."""


def column(weights: Float[Array, " k"], leaf: Array) -> Array:
    """Shape one weight per row, in the leaf's dtype, so that it multiplies whole rows."""
    return weights.astype(leaf.dtype).reshape(-1, *(1,) * (leaf.ndim - 1))


def gather(leaf: Array, rows: Int[Array, " n"]) -> Array:
    """Read many rows, whose numbers must be in range."""
    return leaf.at[rows].get(mode="promise_in_bounds", wrap_negative_indices=False)


def live_receivers(mixing: PairMixing, num_rows: int) -> Int[Array, " m"]:
    """Return the receivers, with those of absent senders replaced by an absent row."""
    return jnp.where(mixing.senders < num_rows, mixing.receivers, num_rows)


def as_arrays(mixing: Any) -> Form:
    """Convert the fields to JAX arrays, with int32 indices; axes may be stacked in front.

    Raises:
        TypeError: if mixing is not one of the four forms, or a field is not an array of the right type.
    """
    instance("mixing", mixing, FORMS, HOW_TO_MIX)
    return type(mixing)(*(_as_array(mixing, field) for field in mixing._fields))


def as_event_mixing(mixing: Any, num_rows: int | None = None) -> Form:
    """Convert the mixing of one event to JAX arrays, and check it; traced values cannot be checked.

    Args:
        mixing: any of the four forms, not stacked.
        num_rows: rows of the stacked model; None: not known.

    Raises:
        TypeError: as :func:`as_arrays`.
        ValueError: if shapes do not match each other or the number of rows, a weight is not finite, a row is negative
            or is written twice, a table names a neighbour that does not exist, or an absent member has a weight.
    """
    mixing = as_arrays(mixing)
    sizes: dict[str, int] = {}
    for field, axes in _AXES[type(mixing)].items():
        array = getattr(mixing, field)
        if array is not None:
            _check_axes(f"{type(mixing).__name__}.{field}", array.shape, axes, sizes)
    if num_rows is not None and sizes.get("n", num_rows) != num_rows:
        raise ValueError(f"num_rows={num_rows}: the mixing has {sizes['n']} rows")
    if (known := _on_host(mixing)) is not None:
        _check_values(known)
    if num_rows is not None:
        check_rows(mixing, num_rows)
    return mixing


def check_rows(mixing: Mixing, num_rows: int) -> None:
    """Check the rules that depend on the number of rows; traced values cannot be checked.

    Raises:
        ValueError: if a row is written twice, or an absent member has a weight.
    """
    known: Any = _on_host(mixing)
    if isinstance(known, PairMixing):
        written = known.receivers[(known.senders < num_rows) & (known.receivers < num_rows)]
        _check_distinct("PairMixing.receivers", written)
    if isinstance(known, GroupMixing):
        _check_distinct("GroupMixing.targets", known.targets[known.targets < num_rows])
        if (known.weights[known.members >= num_rows] != 0).any():
            raise ValueError(f"GroupMixing.weights: a member past row {num_rows - 1} is absent; give it the weight 0")


def _on_host(mixing: Mixing) -> Any:
    """Convert to NumPy arrays; return None if they are traced."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in mixing):
        return None
    return jax.tree.map(np.asarray, mixing)


def _as_array(mixing: Mixing, field: str) -> Any:
    value, name = getattr(mixing, field), f"{type(mixing).__name__}.{field}"
    if value is None and field == "parts":
        return None
    integers = field in _ROWS
    if isinstance(value, str) or not (isinstance(value, Sequence | numbers.Number) or hasattr(value, "__array__")):
        raise TypeError(f"{name}={shown(value)}: must be an array, not of type {type(value).__name__}")
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}={shown(value)}: must be an array") from error
    kinds = (jnp.integer,) if integers else (jnp.integer, jnp.floating)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
        raise TypeError(f"{name}={shown(value)}: must be an array of {'integers' if integers else 'numbers'}")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        return jnp.asarray(array)
    if isinstance(array, np.ndarray) and array.size and max(array.max(), -array.min()) > np.iinfo(np.int32).max:
        raise ValueError(f"{name}={shown(value)}: must fit into 32 bits")
    return jnp.asarray(array, jnp.int32)


def _check_axes(name: str, shape: tuple, axes: str, sizes: dict[str, int]) -> None:
    """Compare a shape with its axes and the lengths known so far, and add the lengths that are new."""
    if len(shape) == len(axes) and all(sizes.setdefault(axis, n) == n for axis, n in zip(axes, shape, strict=True)):
        return
    wanted = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
    raise ValueError(f"{name} of shape {shape}: must be of shape ({wanted}{',' * (len(axes) == 1)})")


def _check_values(mixing: Any) -> None:
    name = type(mixing).__name__
    for field in _AXES[type(mixing)]:
        array = getattr(mixing, field)
        if array is None or field == "parts":
            continue
        if field in _ROWS and array.size and array.min() < 0:
            raise ValueError(f"{name}.{field} holds {array.min()}: rows count from 0; one past the last is absent")
        if field not in _ROWS and not np.isfinite(array).all():
            raise ValueError(f"{name}.{field} holds a weight that is not finite; look for a division by 0")
    if isinstance(mixing, TableMixing) and mixing.neighbors.max(initial=0) >= max(len(mixing.neighbors), 1):
        last = len(mixing.neighbors) - 1
        raise ValueError(f"{name}.neighbors holds {mixing.neighbors.max()}: must be a row, in 0..{last}")


def _check_distinct(name: str, rows: Any) -> None:
    distinct, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name}: row {distinct[counts > 1][0]} is written twice in one event; make two events of it")
