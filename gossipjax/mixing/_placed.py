"""Mixings whose rows are spread over the devices of a mesh: every reader of neighbours reads what `reach` returns."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree, UInt

from gossipjax._base.local import AXIS, Local, all_rows, send, swap
from gossipjax.mixing._forms import DenseMixing, PairMixing, TableMixing, column
from gossipjax.mixing._placed_forms import PlacedDense, PlacedPairs, PlacedTable

PAST = 2**31 - 1
"""A row past the end."""


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


def senders_of(mixing: PlacedPairs, leaf: Array) -> Array:
    """Return the row of the sender of each transfer, ``(r, ...)``, from this device or another."""
    return senders_read(mixing, lambda rows: leaf.at[rows].get(mode="clip"))


def senders_read(mixing: PlacedPairs, read: Callable[[Int[Array, " k"]], PyTree]) -> PyTree:
    """Return what is read of the sender of each transfer, on the device that holds it.

    Args:
        mixing: the transfers that this device receives.
        read: of k rows of a device, leaves ``(k, ...)``.

    Returns:
        Leaves ``(r, ...)``.
    """
    devices, most = mixing.out.shape

    def one(here: Array, out: Array) -> Array:
        got = swap(out.reshape(devices, most, *out.shape[1:])).reshape(out.shape)
        there = got.at[jnp.maximum(mixing.slots, 0)].get(mode="clip")
        return jnp.where((mixing.slots >= 0).reshape(-1, *(1,) * (here.ndim - 1)), there, here)

    return jax.tree.map(one, read(mixing.senders), read(mixing.out.ravel()))


def mix_transfers(mixing: PlacedPairs, leaf: Array) -> Array:
    """Apply the transfers to the rows of a device; all rows are read, and sent, before the first is written."""
    own, other = leaf.at[mixing.receivers].get(mode="clip"), senders_of(mixing, leaf)
    mixed = column(mixing.keep, leaf) * own + column(mixing.weights, leaf) * other
    return leaf.at[mixing.receivers].set(mixed, mode="drop")


def place_transfers(
    mixing: PairMixing, device: Int[Array, " rows"], row: Int[Array, " rows"], room: tuple[int, int], devices: int
) -> PlacedPairs:
    """Take the transfers of a device from those of all.

    Args:
        mixing: transfers between rows of the whole network.
        device: of each row.
        row: number of each row on its device.
        room: most transfers that a device receives, and most between two devices, in any event.
        devices: K.
    """
    number, here = len(device), jax.lax.axis_index(AXIS).astype(jnp.int32)
    live = (mixing.senders < number) & (mixing.receivers < number)
    source, target = (device.at[rows].get(mode="clip") for rows in (mixing.senders, mixing.receivers))
    cross = live & (source != target)
    rank = _rank(jnp.where(cross, source * devices + target, devices * devices))
    local = row.at[mixing.senders].get(mode="clip")
    leaves = jnp.where(cross & (source == here), target, devices)
    out = jnp.zeros((devices, room[1]), jnp.int32).at[leaves, rank].set(local, mode="drop")
    lanes, mine = first_lanes(live & (target == here), room[0])
    receivers = jnp.where(mine, row.at[mixing.receivers[lanes]].get(mode="clip"), PAST)
    slots = jnp.where(cross, source * room[1] + rank, -1)[lanes]
    return PlacedPairs(receivers, mixing.weights[lanes], mixing.keep[lanes], local[lanes], slots, out)


def first_lanes(marked: Bool[Array, " k"], room: int) -> tuple[Int[Array, " r"], Bool[Array, " r"]]:
    """List the marked lanes in order, and fill up to ``room`` with others; return them, and which are marked."""
    lanes = jnp.argsort(~marked, stable=True)[:room].astype(jnp.int32)
    return lanes, marked[lanes]


def _rank(groups: Int[Array, " k"]) -> Int[Array, " k"]:
    """Number the lanes of each group from 0, in order."""
    order = jnp.argsort(groups, stable=True)
    ordered = groups[order]
    first = jnp.searchsorted(ordered, ordered, side="left").astype(jnp.int32)
    return jnp.zeros_like(groups).at[order].set(jnp.arange(len(groups), dtype=groups.dtype) - first)
