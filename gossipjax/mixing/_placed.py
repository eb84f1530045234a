"""Mixings whose rows are spread over the devices of a mesh: every reader of neighbours reads what `reach` returns."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, UInt

from gossipjax._base.local import Local, all_rows, send
from gossipjax.mixing._forms import DenseMixing, TableMixing
from gossipjax.mixing._placed_forms import PlacedDense, PlacedTable


def reach(mixing: PlacedTable | PlacedDense, leaf: Array) -> Array:
    """Return the rows that a device reads: its own and those of its halo; or all rows, of a dense mixing in order.

    Args:
        mixing: placed on this device.
        leaf: the device's own rows ``(m, ...)``.
    """
    if isinstance(mixing, PlacedDense):
        return all_rows(leaf)[mixing.position]
    if mixing.halo is None:
        return all_rows(leaf)
    found, at = [leaf], 0
    for pairs, slots in zip(mixing.halo.pairs, mixing.halo.slots, strict=True):
        found.append(send(leaf[mixing.halo.rows[at : at + slots]], pairs))
        at += slots
    return jnp.concatenate(found)


def place(mixing: TableMixing | DenseMixing, messages: UInt[Array, " m"], local: Local) -> PlacedTable | PlacedDense:
    """Take the rows of a device from a mixing that every device holds; all rows are exchanged.

    Args:
        mixing: of the whole network.
        messages: of the nodes of this device.
        local: its rows.
    """
    if isinstance(mixing, DenseMixing):
        return PlacedDense(mixing.W[local.ids], local.ids, local.position, messages)
    neighbors, weights, own = (array[local.ids] for array in mixing)
    return PlacedTable(local.position[neighbors], weights, own, local.position[local.ids], messages, None)
