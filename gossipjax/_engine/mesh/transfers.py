"""Events of single nodes on a mesh: which device holds which row of a message, and how many lanes devices need."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

from gossipjax._base.binding import Frozen
from gossipjax._base.local import AXIS, Local
from gossipjax._engine.mesh.layout import Layout
from gossipjax.facts import Properties
from gossipjax.mixing._counting import count, speakers
from gossipjax.mixing._forms import PairMixing
from gossipjax.mixing._placed import first_lanes, place_transfers
from gossipjax.timeline._events import event_form, event_of
from gossipjax.types import NOBODY, Event, Timeline


class Rows(NamedTuple):
    """Where the rows of a network lie, those of messages in flight included."""

    device: Int[Array, " rows"]
    row: Int[Array, " rows"]
    """On that device: its nodes first, then its messages."""
    room: Frozen[tuple[int, int, int, int]]
    """Lanes of a device: most nodes that act, most transfers that it receives, most between two devices, and most rows
    that speak."""
    devices: Frozen[int]

    def of(self, event: Event, local: Local) -> Event:
        """Return an event with the lanes of one device."""
        here, n = jax.lax.axis_index(AXIS), len(local.position)
        acting, receiving, between, speaking = self.room.value
        said, sent = self._speech(event, here, speaking)
        mixing = event.mixing
        if mixing is not None:
            mixing = place_transfers(mixing, self.device, self.row, (receiving, between), self.devices.value)
        nodes, begin = event.nodes, event.begin
        assert nodes is not None
        lanes, mine = first_lanes(self._own(nodes, n, here) < NOBODY, acting)
        index, time = (jnp.broadcast_to(field, nodes.shape)[lanes] for field in (event.index, event.time))
        rows = jnp.where(mine, self._own(nodes, n, here)[lanes], NOBODY)
        own, models = local._replace(valid=None, acting=rows), len(local.ids)
        return event._replace(
            index=index, time=time, nodes=jnp.where(mine, nodes[lanes], NOBODY), rows=rows, mixing=mixing,
            begin=None if begin is None else self._own(begin, n, here), messages=sent, speakers=said, sources=None,
            models=None if event.models is None else Frozen(models), local=own,
        )  # fmt: skip

    def _speech(self, event: Event, here: Array, room: int) -> tuple[Int[Array, " s"] | None, UInt[Array, " s"]]:
        """Return the rows of this device that speak, and how many messages each sends.

        Where an event does not say who speaks, the first device counts all messages.
        """
        rows = len(self.device)
        sent = count(event, rows)
        if not says_who(event, rows):
            return None, jnp.where(here == 0, sent, jnp.uint32(0))
        said = speakers(event, rows)
        assert said is not None
        lanes, mine = first_lanes(self._own(said, rows, here) < NOBODY, room)
        return jnp.where(mine, self._own(said, rows, here)[lanes], NOBODY), jnp.where(mine, sent[lanes], jnp.uint32(0))

    def _own(self, nodes: Int[Array, " k"], n: int, here: Array) -> Int[Array, " k"]:
        """Return the row of each node that this device holds, and nobody for others."""
        mine = (nodes < n) & (self.device.at[nodes].get(mode="clip") == here)
        return jnp.where(mine, self.row.at[nodes].get(mode="clip"), NOBODY)


def says_who(event: Event, rows: int) -> bool:
    """Whether an event of single nodes names the sender of each of the messages that it counts."""
    try:
        said = jax.eval_shape(lambda event: speakers(event, rows), event)
        return said is not None and said.shape == jax.eval_shape(lambda event: count(event, rows), event).shape
    except ValueError:
        return False


class Lanes(NamedTuple):
    """Who does what in the events of a plan, on the host."""

    nodes: Int[np.ndarray, "T k"]
    senders: Int[np.ndarray, "T m"]
    receivers: Int[np.ndarray, "T m"]
    speakers: Int[np.ndarray, "T s"]


def lanes_of(timeline: Timeline) -> Lanes | None:
    """Return the lanes of all events; None if they are drawn during the run."""
    if timeline.draw is not None or not len(timeline):
        return None
    fields = _fields(timeline.event, timeline.properties, timeline.shared, timeline.xs)
    return Lanes(*(np.asarray(field) for field in fields))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fields(function: Any, facts: Properties, shared: Any, xs: Any) -> tuple[Array, ...]:
    rows, nobody = facts.num_rows + facts.num_slots, jnp.zeros(0, jnp.int32)

    def one(x: Any) -> tuple[Any, ...]:
        event = event_of(jax.random.key(0), Timeline(x, shared, function, facts), x)
        moves = (nobody, nobody) if event.mixing is None else (event.mixing.senders, event.mixing.receivers)
        return event.nodes, *moves, speakers(event, rows) if says_who(event, rows) else nobody

    return jax.vmap(one)(xs)


def room_of(
    timeline: Timeline, device: Int[np.ndarray, " rows"], devices: int, block: int | None = None
) -> tuple[int, int, int, int]:
    """Count the lanes that a device needs in any event of a timeline, rounded up so that few programs are compiled.

    Where a block of events runs in levels, any number of them may meet on a device.
    """
    form = event_form(timeline)
    k = len(form.nodes)  # type: ignore[arg-type]
    m = len(form.mixing.senders) if isinstance(form.mixing, PairMixing) else 0
    number, lanes = len(device), lanes_of(timeline)
    if lanes is None or block is not None:
        said = max(m, 1 if form.speakers is None else len(form.speakers))
        k, m, said = ((block or 1) * number for number in (k, m, said))
        return k, m, m, said
    source, target = (device[np.minimum(rows, number - 1)] for rows in (lanes.senders, lanes.receivers))
    live = (lanes.senders < number) & (lanes.receivers < number)
    acts = device[np.minimum(lanes.nodes, number - 1)]
    cross = live & (source != target)
    return (
        _most(acts, lanes.nodes < number, devices, k),
        _most(target, live, devices, m),
        _most(source * devices + target, cross, devices * devices, m),
        _most(
            device[np.minimum(lanes.speakers, number - 1)], lanes.speakers < number, devices, lanes.speakers.shape[1]
        ),
    )


def _most(groups: np.ndarray, marked: np.ndarray, number: int, lanes: int) -> int:
    """Return the largest number of marked lanes of one group in any event: a power of two, or all lanes."""
    events = np.broadcast_to(np.arange(len(groups))[:, None], groups.shape)
    counts = np.unique((events * number + groups)[marked], return_counts=True)[1]
    return min(lanes, 1 << (max(int(counts.max(initial=1)), 1) - 1).bit_length())


def devices_of_rows(timeline: Timeline, where: Layout) -> Int[np.ndarray, " rows"]:
    """Return the device of each row: messages in flight lie where they are delivered most often."""
    facts, n = timeline.properties, len(where.position)
    if not facts.num_slots:
        return where.parts.astype(np.int32)
    lanes, votes = lanes_of(timeline), np.zeros((facts.num_slots, where.devices), np.int64)
    if lanes is not None:
        delivered = (lanes.senders >= n) & (lanes.senders < n + facts.num_slots) & (lanes.receivers < n)
        np.add.at(votes, (lanes.senders[delivered] - n, where.parts[lanes.receivers[delivered]]), 1)
    return np.append(where.parts, votes.argmax(axis=1)).astype(np.int32)


def rows_of(device: Int[np.ndarray, " rows"], where: Layout) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " L"]]:
    """Number the rows on their devices, and list the row that lies in each place, device after device.

    There are more places than rows: ghosts and spare slots of messages hold copies of rows of their device.
    """
    n = len(where.position)
    slots = np.bincount(device[n:], minlength=where.devices)
    most = int(slots.max(initial=0))
    row = np.append(where.position % where.rows, np.zeros(len(device) - n, int)).astype(np.int32)
    nodes = where.ids.reshape(where.devices, -1)
    places = np.concatenate([nodes, np.repeat(nodes[:, -1:], most, axis=1)], axis=1)  # spare ones copy their last node
    for own in range(where.devices):
        held = n + np.flatnonzero(device[n:] == own)
        row[held] = where.rows + np.arange(len(held))
        places[own, where.rows : where.rows + len(held)] = held
    return row, places.ravel()
