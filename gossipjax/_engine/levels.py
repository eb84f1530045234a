"""Narrow events in levels that are found on the device: no plan of levels, and the order of single events.

A block of consecutive events runs in turns. In each, an event runs if no earlier one that is still to run touches any
of its rows. Such events share no row, so a turn is one wide event, and the block is the sequential run. Most events run
in the first turn; the others are few, and take part in narrower ones, the earliest first.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from gossipjax._engine.loop import Carry, Loop
from gossipjax.facts import Properties
from gossipjax.mixing._forms import GroupMixing, PairMixing
from gossipjax.timeline._events import EMPTY
from gossipjax.types import NOBODY, Event

LEAST = 64
"""Fewest events of a block."""
SHARE = 16
"""Rows for each event of a block. Longer blocks take more turns each; shorter ones are more in number."""
LATER = 4
"""A turn after the first takes one of so many events of the block. In the first, an eighth is left of a block of
n/16 meetings of n nodes: each meets an earlier one with probability 2 w / n."""


def block_size(facts: Properties) -> int:
    """Choose the events of a block, a power of two."""
    return max(LEAST, 1 << max((facts.num_rows + facts.num_slots) // SHARE, 1).bit_length() - 1)


def run_block(loop: Loop, carry: Carry, xs: PyTree, pending: Bool[Array, " w"]) -> Carry:
    """Run a block of events.

    Args:
        loop: of the run.
        carry: before the block.
        xs: entries of its events.
        pending: which of them to run.
    """
    events = jax.vmap(loop.planned)(xs)
    rows = touched(events, loop.facts)
    free = jnp.full(loop.facts.num_rows + loop.facts.num_slots + loop.facts.num_nodes, NOBODY, jnp.int32)

    def turn(pending: Array, free: Array, carry: Carry, events: Event, rows: Array) -> tuple[Array, Array, Carry]:
        runs, free = _earliest(rows, pending, free)
        return runs, free, loop.apply(carry, loop.on_device(merged(events, runs)))

    def later(done: tuple[Array, Array, Carry]) -> tuple[Array, Array, Carry]:
        pending, free, carry = done
        lanes = jnp.nonzero(pending, size=-(-len(pending) // LATER), fill_value=len(pending))[0]
        chosen, touches = jax.tree.map(lambda leaf: leaf.at[lanes].get(mode="clip"), (events, rows))
        runs, free, carry = turn(lanes < len(pending), free, carry, chosen, touches)
        return pending.at[lanes].set(~runs, mode="drop"), free, carry

    runs, free, carry = turn(pending, free, carry, events, rows)
    return jax.lax.while_loop(lambda done: jnp.any(done[0]), later, (pending & ~runs, free, carry))[2]


def _earliest(rows: Int[Array, "w r"], pending: Bool[Array, " w"], free: Int[Array, " n"]) -> tuple[Array, Array]:
    """Find the pending events that are the earliest of all of their rows.

    Args:
        rows: of each event, in order.
        pending: which events are to run.
        free: room for a number for each row, all :data:`NOBODY`; it comes back so.
    """
    lanes = jnp.arange(len(rows), dtype=jnp.int32)
    waiting = jnp.where(pending, lanes, NOBODY)[:, None]
    first = free.at[rows].min(jnp.broadcast_to(waiting, rows.shape), mode="drop")
    earliest = jnp.min(first.at[rows].get(mode="fill", fill_value=NOBODY), axis=1)
    return pending & (lanes <= earliest), first.at[rows].set(NOBODY, mode="drop")


def touched(events: Event, facts: Properties) -> Int[Array, "w r"]:
    """Return the rows that each event reads or writes; a node that trains another row than its own is one more row."""
    rows = facts.num_rows + facts.num_slots
    nodes, mixing = events.nodes, events.mixing
    assert nodes is not None
    columns: list[Any] = [nodes, events.rows, events.begin, events.speakers]
    if events.rows is not None:
        columns[0] = jnp.where(nodes < facts.num_nodes, nodes + rows, EMPTY["nodes"])
    if isinstance(mixing, PairMixing):
        columns += [mixing.senders, mixing.receivers]
    elif isinstance(mixing, GroupMixing):
        columns += [mixing.members, mixing.targets]
    flat = [column.reshape(len(nodes), -1) for column in columns if column is not None]
    return jnp.concatenate(flat, axis=1).astype(jnp.int32)


def merged(events: Event, runs: Bool[Array, " w"]) -> Event:
    """Merge the events that run now into one; the others leave empty lanes.

    Args:
        events: each field ``(w, k, ...)``.
        runs: which of them.
    """

    def lanes(name: str, field: Any) -> Any:
        if field is None:
            return None
        live = runs.reshape(-1, *(1,) * (field.ndim - 1))
        kept = jnp.where(live, field, jnp.asarray(EMPTY[name], field.dtype)) if name not in ("index", "time") else field
        return kept.reshape(-1, *field.shape[2:])

    mixing, said, nodes = events.mixing, events.speakers, events.nodes
    assert nodes is not None
    if events.messages is not None and said is None and isinstance(mixing, PairMixing):
        if mixing.senders.shape == events.messages.shape:  # messages of the merged event are not those of its lanes
            said = jnp.where(events.messages > 0, mixing.senders, jnp.int32(EMPTY["speakers"]))
    if mixing is not None:
        mixing = type(mixing)(*map(lanes, mixing._fields, mixing))
    index, time = (jnp.broadcast_to(field, nodes.shape) for field in (events.index, events.time))
    fields = {"index": index, "time": time, "nodes": nodes, "rows": events.rows, "begin": events.begin}
    fields |= {"messages": events.messages, "speakers": said, "sources": events.sources}
    return events._replace(mixing=mixing, **{name: lanes(name, field) for name, field in fields.items()})
