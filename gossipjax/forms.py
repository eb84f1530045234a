"""The four forms of a mixing, and what all operations on them share."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


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
    """Directed transfers: ``x[r] ← keep x[r] + weight x[s]`` for each; all are read before any is written.

    The receivers of one event are distinct. A symmetric exchange is the two transfers (i → j) and (j → i). A transfer
    whose sender or receiver is past the last row does not happen.
    """

    senders: Int[Array, " m"]
    receivers: Int[Array, " m"]
    weights: Float[Array, " m"]
    keep: Float[Array, " m"]


class GroupMixing(NamedTuple):
    """Groups with a common result: ``m_g = Σ_s weights[g, s] x[members[g, s]]``, then ``x[targets[g, :]] ← m_g``.

    All groups are read before any is written; targets are distinct over all groups. A member or target past the last
    row is nobody; the weight of an absent member must be 0.
    """

    members: Int[Array, "g s"]
    weights: Float[Array, "g s"]
    targets: Int[Array, "g t"]
    parts: Int[Array, "g s"] | None = None
    """The fragment of its model that each member gives; None: the whole model. Only :func:`mix_parts` reads it."""


Mixing = DenseMixing | TableMixing | PairMixing | GroupMixing


def column(weights: Float[Array, " k"], leaf: Array) -> Array:
    """Shape one weight per row, in the leaf's dtype, so that it multiplies whole rows."""
    return weights.astype(leaf.dtype).reshape(-1, *(1,) * (leaf.ndim - 1))


def gather(leaf: Array, rows: Int[Array, " n"]) -> Array:
    """Read many rows that are known to be there."""
    return leaf.at[rows].get(mode="promise_in_bounds", wrap_negative_indices=False)


def live_receivers(mixing: PairMixing, num_rows: int) -> Int[Array, " m"]:
    """Send what comes from nobody to nobody."""
    return jnp.where(mixing.senders < num_rows, mixing.receivers, num_rows)


def as_arrays(mixing: Mixing) -> Mixing:
    """Make JAX arrays of what may be NumPy arrays, with indices of one type."""
    if not isinstance(mixing, Mixing):
        raise TypeError(f"{type(mixing).__name__} is no mixing: use one of the four forms of gossipjax.mixing")
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.int32 if jnp.issubdtype(a.dtype, jnp.integer) else None), mixing)
