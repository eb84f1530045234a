"""The forms of a mixing whose rows are spread over the devices of a mesh. The loop makes them; users never do."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int, UInt


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Halo:
    """Rows that devices exchange, colour by colour; the device pairs of one colour share no device.

    Attributes:
        rows: ``(s,)`` own rows to send, for each colour in turn.
        pairs: sender and receiver of each transfer of a colour.
        slots: rows that one transfer of a colour moves.
    """

    rows: Int[Array, " s"]
    pairs: tuple[tuple[tuple[int, int], ...], ...] = dataclasses.field(metadata={"static": True})
    slots: tuple[int, ...] = dataclasses.field(metadata={"static": True})


class PlacedTable(NamedTuple):
    """The rows of a :class:`~gossipjax.mixing.TableMixing` that one device holds."""

    neighbors: Int[Array, "m d"]
    """Rows of what :func:`gossipjax.mixing._placed.reach` returns."""
    weights: Float[Array, "m d"]
    self_weight: Float[Array, " m"]
    own: Int[Array, " m"]
    """Each node's own row in what :func:`gossipjax.mixing._placed.reach` returns."""
    messages: UInt[Array, " m"]
    """Neighbours that read each node, which may be on any device."""
    halo: Halo | None
    """None: every device receives the rows of all others."""


class PlacedDense(NamedTuple):
    """The rows of a :class:`~gossipjax.mixing.DenseMixing` that one device holds; it receives all rows."""

    W: Float[Array, "m n"]
    ids: Int[Array, " m"]
    position: Int[Array, " n"]
    messages: UInt[Array, " m"]
    """As of a :class:`PlacedTable`."""


class PlacedPairs(NamedTuple):
    """The transfers of a :class:`~gossipjax.mixing.PairMixing` whose receivers one device holds."""

    receivers: Int[Array, " r"]
    """Own rows; past the end in unused lanes."""
    weights: Float[Array, " r"]
    keep: Float[Array, " r"]
    senders: Int[Array, " r"]
    """Own rows, where a transfer stays on the device."""
    slots: Int[Array, " r"]
    """Where a transfer comes from another device: its number among the rows received; -1: it stays."""
    out: Int[Array, "K c"]
    """Own rows that are sent to each device."""


PLACED = (PlacedTable, PlacedDense, PlacedPairs)
