"""Sharing of some coordinates: receivers fill in the others from their own models."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from gossipjax._base.placement import map_blocks
from gossipjax._base.rows import num_rows
from gossipjax.compress._compressor import ravel_rows, unravel_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import Mixing, neighbor_sum
from gossipjax.mixing._counting import speakers
from gossipjax.mixing._forms import DenseMixing, TableMixing, column, gather
from gossipjax.sharing._wire import Message, WireState, fill_coordinates, receive
from gossipjax.types import Event, Params

OWN_MODELS = Requires({"own_rows"}, mixing=True)
"""Requirement of own models, from which nodes fill in coordinates that a message does not hold."""


class Masked(NamedTuple):
    """The messages of all nodes: the coordinates under their masks."""

    values: Float[Array, "n c"]
    """Coefficients of the whole model; receivers read those under the mask only."""
    mask: Bool[Array, "n c"]


def merge_masked(
    key: Key[Array, ""], state: WireState, arrived: tuple[Params, Message, Event]
) -> tuple[WireState, Params]:
    """Merge messages that hold some coordinates of a model, in rounds, at meetings and in flight."""
    del key
    x, sent, event = arrived
    rows = speakers(event, num_rows(x))
    if rows is None or isinstance(event.mixing, DenseMixing | TableMixing):
        assert sent.mask is not None
        return state, unravel_rows(fill_in(event.mixing, Masked(ravel_rows(sent.values), sent.mask)), x)
    x, masks = receive(event, x, state.masks, sent, rows, fill_coordinates)
    return state._replace(masks=masks), x


def fill_in(mixing: Mixing, sent: Masked) -> Float[Array, "n c"]:
    """Average with the neighbours coordinate by coordinate; own values replace coordinates that were not received.

    With ``z_ij = w_j`` under the mask of sender j and ``w_i`` elsewhere::

        w_i ← W_ii w_i + Σ_{j≠i} W_ij z_ij = w_i + Σ_j W_ij M_j (w_j − w_i)

    Equal models are a fixed point for every row-stochastic W. The mean is not conserved, since masks belong to senders:
    in the matrix of one coordinate, rows sum to one but columns do not. Masks of ones give ``w ← W w``.

    Args:
        mixing: W; every node sends and receives.
        sent: values and masks of all nodes.

    Returns:
        The new coefficients of all nodes.
    """
    w, mask = sent
    if isinstance(mixing, DenseMixing):
        return w + _dense(mixing, jnp.where(mask, w, 0)) - _dense(mixing, mask.astype(w.dtype)) * w
    if isinstance(mixing, TableMixing):
        return map_blocks(_fill_in_rows, (w, mask), w, mixing.neighbors, mixing.weights)
    return w + neighbor_sum(mixing, _difference, sent)


def _dense(mixing: DenseMixing, rows: Array) -> Array:
    return jnp.matmul(mixing.W.astype(rows.dtype), rows, precision=jax.lax.Precision.HIGHEST)


def _fill_in_rows(everyone: tuple[Array, Array], own: Array, neighbors: Array, weights: Array) -> Array:
    values, masks = everyone
    total = own
    for k in range(neighbors.shape[1]):
        other, present = gather(values, neighbors[:, k]), gather(masks, neighbors[:, k])
        total = total + jnp.where(present, column(weights[:, k], own) * (other - own), 0)
    return total


def _difference(own: Masked, other: Masked) -> Array:
    return jnp.where(other.mask, other.values - own.values, 0)
