"""Sharing of some coordinates: receivers fill in the others from their own models."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from gossipjax._base.placement import by_rows, map_blocks
from gossipjax._base.rows import num_rows
from gossipjax.compress._compressor import ravel_rows, unravel_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import Mixing, neighbor_sum
from gossipjax.mixing._counting import speakers
from gossipjax.mixing._forms import DenseMixing, TableMixing, column, gather
from gossipjax.mixing._placed_forms import PlacedDense, PlacedTable
from gossipjax.sharing._wire import Message, WireState, fill_coordinates, receive
from gossipjax.types import Event, Params

OWN_MODELS = Requires({"own_rows"}, mixing=True)
"""Requirement of own models, from which nodes fill in coordinates that a message does not hold."""


class Masked(NamedTuple):
    """The messages of all nodes: the coordinates under their masks."""

    values: Float[Array, "n c"]
    """Coefficients; receivers read those under the mask only."""
    mask: Bool[Array, "n c"]


@by_rows
def merge_masked(key: Key[Array, ""], state: WireState, arrived: tuple[Params, Any, Event]) -> tuple[WireState, Params]:
    """Merge messages that hold some coordinates of a model, in rounds, at meetings and in flight.

    Args:
        key: not used.
        state: of :func:`start_masks`.
        arrived: the models ``(rows, ...)``, the message of each speaker, and the event. What a node keeps of its own
            model, and fills in where a message has nothing, is the model itself, not its message.

    Returns:
        The state, and the models.

    Raises:
        TypeError: if the payload is not a :class:`Message`.
        ValueError: if its mask is not ``(speakers, coordinates)`` bools.
    """
    del key
    x, sent, event = arrived
    rows, own = speakers(event, num_rows(x)), ravel_rows(x)
    sent = _checked(sent, own.shape[0] if rows is None else rows.shape[0], own.shape[1])
    if rows is None or isinstance(event.mixing, DenseMixing | TableMixing | PlacedDense | PlacedTable):
        mask = jnp.ones(own.shape, bool) if sent.mask is None else sent.mask
        return state, unravel_rows(fill_in(event.mixing, Masked(ravel_rows(sent.values), mask), own), x)
    x, masks = receive(event, x, state.masks, sent, rows, fill_coordinates)
    return state._replace(masks=masks), x


def _checked(sent: Any, num_speakers: int, num_coordinates: int) -> Message:
    """Check a message while the step is traced."""
    if not isinstance(sent, Message):
        raise TypeError(
            f"merge_masked received a {type(sent).__name__} as payload: encode must return Message(values, mask), or "
            "Message(values) for whole models"
        )
    mask, expected = sent.mask, (num_speakers, num_coordinates)
    if mask is not None and (mask.shape != expected or mask.dtype != bool):
        raise ValueError(
            f"the mask of a message is {mask.dtype}{list(mask.shape)}: must be bool{list(expected)}, a row for each "
            "speaker and a column for each coordinate of the model"
        )
    return sent


def fill_in(mixing: Mixing, sent: Masked, own: Float[Array, "n c"] | None = None) -> Float[Array, "n c"]:
    """Average with the neighbours coordinate by coordinate; own values replace coordinates that were not received.

    With ``z_ij = v_j`` under the mask of sender j and ``w_i`` elsewhere::

        w_i ← W_ii w_i + Σ_{j≠i} W_ij z_ij = w_i + Σ_{j≠i} W_ij M_j (v_j − w_i)

    Equal models are a fixed point for every row-stochastic W. The mean is not conserved, since masks belong to senders:
    in the matrix of one coordinate, rows sum to one but columns do not. Masks of ones give ``w ← W w``.

    Args:
        mixing: W; every node sends and receives.
        sent: v and masks of all nodes.
        own: w of all nodes; None: what they send is their own model, w = v.

    Returns:
        The new coefficients of all nodes.
    """
    values, mask = sent
    w = values if own is None else own
    if isinstance(mixing, DenseMixing):
        mixed = w + _dense(mixing, jnp.where(mask, values, 0)) - _dense(mixing, mask.astype(w.dtype)) * w
        itself = jnp.diagonal(mixing.W).astype(w.dtype)
        return mixed if own is None else mixed + column(itself, w) * jnp.where(mask, w - values, 0)
    if isinstance(mixing, TableMixing):
        return map_blocks(_fill_in_rows, (values, mask), w, mixing.neighbors, mixing.weights)
    return w + neighbor_sum(mixing, _difference, (w, sent))


def _dense(mixing: DenseMixing, rows: Array) -> Array:
    return jnp.matmul(mixing.W.astype(rows.dtype), rows, precision=jax.lax.Precision.HIGHEST)


def _fill_in_rows(everyone: tuple[Array, Array], own: Array, neighbors: Array, weights: Array) -> Array:
    values, masks = everyone
    total = own
    for k in range(neighbors.shape[1]):
        other, present = gather(values, neighbors[:, k]), gather(masks, neighbors[:, k])
        total = total + jnp.where(present, column(weights[:, k], own) * (other - own), 0)
    return total


def _difference(own: tuple[Array, Masked], other: tuple[Array, Masked]) -> Array:
    (w, _), (_, sent) = own, other
    return jnp.where(sent.mask, sent.values - w, 0)
