"""Runs whose nodes are spread over the devices of a mesh: the whole loop inside one ``shard_map``."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree, UInt

from gossipjax._base.binding import Frozen
from gossipjax._base.leaves import is_key
from gossipjax._base.local import AXIS, Local
from gossipjax._base.placement import is_by_rows
from gossipjax._engine.mesh.data import Spreading
from gossipjax._engine.mesh.devices import as_mesh
from gossipjax._engine.mesh.layout import Exchange, Layout, choose_parts, exchange, layout
from gossipjax._engine.mesh.transfers import Rows, devices_of_rows, lanes_of, room_of, rows_of
from gossipjax.mixing._apply import messages
from gossipjax.mixing._forms import DenseMixing, PairMixing, TableMixing
from gossipjax.mixing._placed import place
from gossipjax.mixing._placed_forms import Halo, PlacedDense, PlacedTable
from gossipjax.timeline._events import event_form
from gossipjax.timeline._rounds import planned_mixings, without_mixings
from gossipjax.types import NOBODY, Event, Timeline


class Rounds(NamedTuple):
    """The R matrices of planned rounds, of the rows of one device; on the host, of all devices one after another."""

    table: PlacedTable | None
    """``(m, R, ...)`` in place of ``(m, ...)``; None: dense matrices."""
    dense: Float[Array, "m R n"] | None
    messages: UInt[Array, "m R"]

    def at(self, index: UInt[Array, ""], local: Local) -> PlacedTable | PlacedDense:
        """Return the mixing of round ``index``."""
        number = index % jnp.uint32(self.messages.shape[1])

        def take(leaf: Array) -> Array:
            return jax.lax.dynamic_index_in_dim(leaf, number, axis=1, keepdims=False)

        sent = take(self.messages)
        if self.table is None:
            assert self.dense is not None
            return PlacedDense(take(self.dense), local.ids, local.position, sent)
        table = self.table
        neighbors, weights, own = map(take, (table.neighbors, table.weights, table.self_weight))
        return PlacedTable(neighbors, weights, own, table.own, sent, table.halo)


class Place(NamedTuple):
    """What one device knows of the layout."""

    local: Local
    rounds: Rounds | None
    """None: each event holds the mixing of the whole network."""
    rows: Rows | None = None
    """Of events of single nodes; None: events are rounds."""

    def of(self, event: Event) -> Event:
        """Return an event as this device sees it: nodes of all devices, rows of its own."""
        if self.rows is not None:
            return self.rows.of(event, self.local)
        local, mixing, sent = self.local, event.mixing, event.messages
        if self.rounds is not None:
            mixing = self.rounds.at(event.index[0], local)
        elif mixing is not None:
            mixing = place(mixing, messages(mixing, len(local.position))[local.ids], local)
        sent = None if sent is None else sent[local.ids]
        return self._acting(event._replace(local=local, mixing=mixing, messages=sent))

    def _acting(self, event: Event) -> Event:
        """Return an event with one lane for each row of this device."""
        if event.nodes is None:
            return event
        local, m, n = self.local, len(self.local.ids), len(self.local.position)
        own = jnp.arange(len(event.nodes), dtype=jnp.int32)
        lane = jnp.full(n, NOBODY, jnp.int32).at[event.nodes].set(own, mode="drop")[local.ids]
        nodes, rows = (
            jnp.where(lane < NOBODY, numbers, NOBODY) for numbers in (local.ids, jnp.arange(m, dtype=jnp.int32))
        )
        index, time = (jnp.broadcast_to(field, event.nodes.shape) for field in (event.index, event.time))
        index, time = (field.at[lane].get(mode="clip") for field in (index, time))
        return event._replace(index=index, time=time, nodes=nodes, rows=rows, local=local._replace(acting=rows))


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """Where the rows of a run lie, and what its programs need for it."""

    mesh: Mesh
    where: Layout
    rows: Int[np.ndarray, " L"]
    """The row that lies in each place, device after device, those of messages in flight included."""
    device: Int[np.ndarray, " rows"]
    """The device of each row."""
    home: Int[np.ndarray, " rows"]
    """The place of each row; ghosts and spare places for messages hold copies of rows, maybe of the start."""
    place: Place
    timeline: Timeline
    """The events, without matrices that ``place`` holds."""
    protocol: Any
    observers: Any
    report: dict[str, Any]

    def lay_out(self, tree: PyTree, *, seeds: bool = False) -> PyTree:
        """Spread rows over the devices.

        Args:
            tree: leaves ``(n, ...)`` in the order of nodes, or with an axis of seeds before.
            seeds: whether there is one.

        Returns:
            Leaves ``(K m, ...)``, one block for each device.
        """
        spec, axis = P(None, AXIS) if seeds else P(AXIS), int(seeds)

        def lay(leaf: Any) -> Any:
            of_nodes = np.shape(leaf)[axis] == len(self.where.position)
            return _put(self.mesh, spec, _take(leaf, self.where.ids if of_nodes else self.rows, axis))

        return jax.tree.map(lay, tree)

    def form(self, tree: PyTree, *, seeds: bool = False) -> PyTree[jax.ShapeDtypeStruct]:
        """Return the shapes of what :meth:`lay_out` returns, without laying anything out."""
        where = NamedSharding(self.mesh, P(None, AXIS) if seeds else P(AXIS))

        def laid(leaf: Any) -> jax.ShapeDtypeStruct:
            shape, axis = list(leaf.shape), int(seeds)
            of_nodes = shape[axis] == len(self.where.position)
            shape[axis] = len(self.where.ids if of_nodes else self.rows)
            return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype, sharding=where)

        return jax.tree.map(laid, tree)

    def gather(self, tree: PyTree, *, seeds: bool = False) -> PyTree:
        """Bring rows back to the host, in the order of nodes and of messages."""
        axis = int(seeds)

        def bring(leaf: Any) -> Any:
            of_nodes = np.shape(leaf)[axis] == len(self.where.ids)
            return _take(_whole(leaf), self.where.position if of_nodes else self.home, axis)

        return jax.tree.map(bring, tree)

    def place_for(self, part: Timeline, block: int | None = None) -> Place:
        """Return what a device needs for a part of the timeline, of which ``block`` events may run at once."""
        rows = self.place.rows
        if rows is None:
            return self.place
        room = Frozen(room_of(part, self.device, self.mesh.size, block))
        return self.place._replace(rows=rows._replace(room=room))


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """Copy arrays to every device."""
    return jax.tree.map(lambda leaf: _put(mesh, P(), leaf) if hasattr(leaf, "dtype") else leaf, tree)


def _put(mesh: Mesh, spec: P, leaf: Any) -> Any:
    """Give each device its part of an array that every process holds."""
    where = NamedSharding(mesh, spec)
    if is_key(leaf):
        data = _put(mesh, spec, jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    if where.is_fully_addressable:
        return jax.device_put(leaf, where)
    if getattr(leaf, "weak_type", False):
        return leaf.item()
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, where, lambda index: values[index])


def _take(leaf: Any, rows: Int[np.ndarray, " k"], axis: int) -> Any:
    if is_key(leaf):
        data = _take(jax.random.key_data(leaf), rows, axis)
        return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(leaf))
    return np.asarray(leaf).take(rows, axis)


def _whole(leaf: Any) -> Any:
    """Return an array of all processes on this one."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    from jax.experimental import multihost_utils

    if is_key(leaf):
        data = multihost_utils.process_allgather(jax.random.key_data(leaf), tiled=True)
        return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(leaf))
    return multihost_utils.process_allgather(leaf, tiled=True)


def placement_of(mesh: Any, parts: Any, timeline: Timeline, protocol: Any, observers: Any) -> Placement:
    """Lay the nodes of a run out on a mesh, and plan what its devices exchange.

    Args:
        mesh: of devices.
        parts: see :func:`gossipjax._engine.mesh.layout.choose_parts`.
        timeline: of synchronous rounds whose rows are nodes.
        protocol: whose arrays every device needs.
        observers: likewise.
    """
    mesh, n = as_mesh(mesh), timeline.properties.num_nodes
    planned = planned_mixings(timeline)
    planned = None if planned is None else jax.tree.map(np.asarray, planned)
    single = isinstance(event_form(timeline).mixing, PairMixing)
    edges = _met(timeline) if single else None if planned is None else _edges(planned)
    where = layout(choose_parts(parts, n, mesh.size, edges), mesh.size)
    rounds, moves = _rounds(planned, edges, where)
    report = {
        "devices": mesh.size,
        "processes": len({device.process_index for device in mesh.devices.flat}),
        "rows": np.bincount(where.parts, minlength=mesh.size).tolist(),
        "padding": len(where.ids) - n,
        "all_gather": _everyone(where),
    }
    spread, everywhere = (partial(_put, mesh, spec) for spec in (P(AXIS), P()))
    local = Local(spread(where.ids), spread(where.valid), everywhere(where.position))
    device = devices_of_rows(timeline, where)
    row, places = rows_of(device, where)
    home = device * (len(places) // mesh.size) + row
    place = Place(local, jax.tree.map(spread, rounds))
    if single:
        of_rows = Rows(everywhere(device), everywhere(row), Frozen((0, 0, 0, 0)), Frozen(mesh.size))
        place, moves = place._replace(rows=of_rows), _transfers(timeline, device)
    timeline = timeline if planned is None else without_mixings(timeline)
    timeline = dataclasses.replace(timeline, shared=replicate(mesh, timeline.shared))
    data = Spreading(where, partial(_put, mesh))
    protocol = data.spread(protocol)
    observers = tuple(data.spread(each, own_nodes=is_by_rows(each.measure)) for each in observers)
    report |= data.report
    return Placement(mesh, where, places, device, home, place, timeline, protocol, observers, report | moves)


def _transfers(timeline: Timeline, device: Int[np.ndarray, " rows"]) -> dict[str, Any]:
    """Count the transfers of a plan, and those between devices; None where they are drawn during the run.

    How many rows move depends on how events are packed: each sends the same number between any two devices.
    """
    report: dict[str, Any] = {"exchange": "transfers", "transfers": None, "moved": None, "bound": None, "colours": None}
    if (lanes := lanes_of(timeline)) is None:
        return report
    live = (lanes.senders < len(device)) & (lanes.receivers < len(device))
    senders, receivers = lanes.senders[live], lanes.receivers[live]
    cross = int(np.count_nonzero(device[senders] != device[receivers]))
    return report | {"transfers": len(senders), "bound": cross}


def _everyone(where: Layout) -> int:
    """Return the rows that move if each device sends its rows to all others."""
    return len(where.ids) * (where.devices - 1)


def _met(timeline: Timeline) -> Int[np.ndarray, "e 2"] | None:
    """List receiver and sender of every transfer between two nodes, each once."""
    if (lanes := lanes_of(timeline)) is None:
        return None
    n = timeline.properties.num_nodes
    met = (lanes.senders < n) & (lanes.receivers < n) & (lanes.senders != lanes.receivers)
    return np.unique(np.stack([lanes.receivers[met], lanes.senders[met]], axis=1), axis=0)


def _edges(stacked: TableMixing | DenseMixing) -> Int[np.ndarray, "e 2"]:
    """List receiver and sender of every message of stacked mixings, each once."""
    if isinstance(stacked, DenseMixing):
        pairs = np.argwhere((stacked.W != 0).any(axis=0))
    else:
        rounds, reader, lane = np.nonzero(stacked.weights)
        pairs = np.unique(np.stack([reader, stacked.neighbors[rounds, reader, lane]], axis=1), axis=0)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _rounds(
    stacked: TableMixing | DenseMixing | None, edges: Int[np.ndarray, "e 2"] | None, where: Layout
) -> tuple[Rounds | None, dict[str, Any]]:
    """Return the rows of all devices, and how they are exchanged: by a halo if that moves fewer than half of all."""
    report: dict[str, Any] = {"exchange": "all rows", "moved": _everyone(where), "bound": None, "colours": None}
    if stacked is None or edges is None:
        return None, report
    sent = np.stack([_sent(stacked, number) for number in range(len(stacked[0]))], axis=1)[where.ids]
    plan = exchange(edges, where)
    report["bound"] = plan.bound
    if isinstance(stacked, DenseMixing):
        return Rounds(None, np.swapaxes(stacked.W, 0, 1)[where.ids], sent), report
    neighbors, weights, own = (np.swapaxes(leaf, 0, 1)[where.ids] for leaf in stacked)
    itself, halo = where.position[where.ids], None
    reads = where.position[neighbors]
    if 2 * plan.moved < _everyone(where):
        report |= {"exchange": "halo", "moved": plan.moved, "colours": len(plan.slots)}
        halo = Halo(plan.rows.ravel(), plan.pairs, plan.slots)  # type: ignore[arg-type]
        itself, reads = itself % where.rows, _in_halo(neighbors, weights, plan, where)
    table = PlacedTable(reads.astype(np.int32), weights, own, itself.astype(np.int32), sent, halo)
    return Rounds(table, None, sent), report


def _sent(stacked: TableMixing | DenseMixing, number: int) -> Any:
    """Count the messages of each node in one of the stacked rounds."""
    mixing = type(stacked)(*(leaf[number] for leaf in stacked))
    return messages(mixing, len(mixing[0]))


def _in_halo(neighbors: Any, weights: Any, plan: Exchange, where: Layout) -> Int[np.ndarray, "Km R d"]:
    """Return the row in which each neighbour lies on the device that reads it; its own row if it is not read."""
    rows = np.arange(len(where.ids))
    device = np.broadcast_to((rows // where.rows)[:, None, None], neighbors.shape)
    reads = where.position[neighbors] % where.rows
    far = (where.parts[neighbors] != device) & (weights != 0)
    pairs = zip(device[far].tolist(), neighbors[far].tolist(), strict=True)
    reads[far] = [plan.place[pair] for pair in pairs]
    itself = where.position[where.ids] % where.rows
    return np.where(weights == 0, itself[:, None, None], reads)
