"""The loop of a run whose numbers of events and records are data: one program for all lengths and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt

from gossipjax._engine.chunks import Piece
from gossipjax._engine.levels import run_block
from gossipjax._engine.loop import Carry, Loop, Losses, Status, Totals, first_of_devices, fresh, totals_at
from gossipjax.observe._models import Observer
from gossipjax.types import Protocol, Timeline

COUNTED = 512
"""Events whose messages are counted at once."""


class Cuts(NamedTuple):
    """Where :func:`advance` cuts its events into stretches."""

    stops: Int[Array, " r"]
    """Events of this part up to the end of each stretch, not decreasing."""
    stretches: Int[Array, ""]
    """How many of the stops are used."""
    records: Int[Array, ""]
    """How many of the stretches, from the first on, end with a record."""
    number: UInt[Array, ""]
    """Source events before this part."""
    time: Float[Array, ""]
    """Time of the last of them."""


def cuts(stops: Sequence[int], piece: Piece, room: int, before: tuple[int, float]) -> Cuts:
    """Return the stretches of a piece that end at ``stops``; there is room for ``room`` of them."""
    ends = np.zeros(room, np.int32)
    ends[: len(stops)] = stops
    lengths = (np.int32(len(stops)), np.int32(len(piece.records)))
    found: Any = Cuts(ends, *lengths, np.uint32(before[0]), np.float32(before[1]))  # type: ignore[arg-type]
    return found


def padded(xs: PyTree, room: int) -> PyTree:
    """Pad the entries of a part with zeros, for events that are not run."""

    def pad(leaf: Any) -> Any:
        missing = room - len(leaf)
        if not missing:
            return leaf
        arrays = np if isinstance(leaf, np.ndarray) else jnp
        return arrays.concatenate([leaf, arrays.zeros((missing, *leaf.shape[1:]), leaf.dtype)])

    return jax.tree.map(pad, xs)


def advance(
    key: Key[Array, ""],
    protocol: Protocol,
    timeline: Timeline,
    state: Any,
    losses: Losses,
    cuts: Cuts,
    *,
    observers: Sequence[Observer] = (),
    place: Any = None,
    block: int | None = None,
) -> tuple[tuple[Any, Status, Losses], Totals]:
    """Run one part of a longer run, in loops whose lengths are data.

    XLA knows no number of iterations, so it compiles the same loop for all of them: a run that records every event has
    exactly the numbers of one that does not. It cannot be differentiated in reverse; :func:`gossipjax.run` can.

    Args:
        key: of the run.
        protocol: the step.
        timeline: of the part. Events after the last stop are not run, so that it may be padded.
        state: before it.
        losses: before it.
        cuts: its stretches.
        observers: measured at every record.
        place: of one device of a mesh, see :class:`gossipjax._engine.mesh.placement.Place`; None: every row is here.
        block: run blocks of so many events in levels; None: run events one after another.

    Returns:
        ``((state, status, losses), totals)``; totals have one entry for each of ``cuts.stops``. Those after the last
        stretch, and what observers measure at stretches without a record, are zero.
    """
    events = Loop(key, protocol, timeline, state, observers, place)
    carry, start = fresh(state, losses), jnp.zeros((), cuts.stops.dtype)
    room = _room(events, carry, cuts)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), room.values)

    def stretch(done: tuple[Array, Array, Carry, Totals]) -> tuple[Array, Array, Carry, Totals]:
        at, start, carry, found = done
        stop = _entry(cuts.stops, at)
        carry = _run(events, carry, start, stop, block)
        number, time = _moment(events, cuts, stop)

        def look() -> Any:
            status, values = events.measure(carry, number, time)
            # At the start there is no event to name.
            return jax.tree.map(lambda new, old: jnp.where(stop > 0, new, old), status, carry.status), values

        status, values = jax.lax.cond(at < cuts.records, look, lambda: (carry.status, nothing))
        carry = carry._replace(status=status)
        entry = totals_at(carry, number, time, values, events.local)
        found = jax.tree.map(lambda a, b: jax.lax.dynamic_update_index_in_dim(a, b, at, 0), found, entry)
        return at + 1, stop, carry, found

    end = jax.lax.while_loop(lambda done: done[0] < cuts.stretches, stretch, (start, start, carry, room))
    _, _, carry, found = end
    status = carry.status if place is None else first_of_devices(carry.status)
    return (carry.state, status, carry.losses), found


def _entry(tree: PyTree, at: Int[Array, ""]) -> PyTree:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, at, keepdims=False), tree)


def _run(events: Loop, carry: Carry, start: Int[Array, ""], stop: Int[Array, ""], block: int | None) -> Carry:
    """Run the events ``start … stop − 1``."""

    def one(done: tuple[Array, Carry]) -> tuple[Array, Carry]:
        at, carry = done
        return at + 1, events.step(carry, _entry(events.xs, at))[0]

    def many(done: tuple[Array, Carry]) -> tuple[Array, Carry]:
        at, carry = done
        xs, wanted = _block(events.xs, at, stop, block)
        return at + len(wanted), run_block(events, carry, xs, wanted)

    turn = one if block is None else many
    carry = jax.lax.while_loop(lambda done: done[0] < stop, turn, (start, carry))[1]
    return carry if events.bits is None else _charged(events, carry, start, stop)


def _block(xs: PyTree, at: Int[Array, ""], stop: Int[Array, ""], size: Any) -> tuple[PyTree, Bool[Array, " w"]]:
    """Return the entries of a block that holds the events from ``at`` on, and which of them come before ``stop``."""
    total = len(jax.tree.leaves(xs)[0])
    size = min(size, total)
    first = jnp.minimum(at, total - size)
    block = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), xs)
    numbers = first + jnp.arange(size, dtype=at.dtype)
    return block, (numbers >= at) & (numbers < stop)


def _charged(events: Loop, carry: Carry, start: Int[Array, ""], stop: Int[Array, ""]) -> Carry:
    """Count the messages of the events ``start … stop − 1``, in blocks."""

    def turn(done: tuple[Array, Carry]) -> tuple[Array, Carry]:
        at, carry = done
        xs, wanted = _block(events.xs, at, stop, COUNTED)
        sent = jnp.where(wanted, events.sent(xs), jnp.zeros((), jnp.uint32))
        return at + len(wanted), events.charge(carry, sent)

    return jax.lax.while_loop(lambda done: done[0] < stop, turn, (start, carry))[1]


def _moment(events: Loop, cuts: Cuts, stop: Int[Array, ""]) -> tuple[UInt[Array, ""], Float[Array, ""]]:
    """Return the number of source events up to a stop, and the time of the last of them."""
    last = events.planned(_entry(events.xs, jnp.maximum(stop - 1, 0)))
    time = last.time[-1]
    return jnp.where(stop > 0, last.index[-1] + 1, cuts.number), jnp.where(stop > 0, time, cuts.time.astype(time.dtype))


def _room(events: Loop, carry: Carry, cuts: Cuts) -> Totals:
    """Return room for the totals of all stretches."""

    def one(carry: Carry) -> Totals:
        number, time = _moment(events, cuts, jnp.zeros((), cuts.stops.dtype))
        return totals_at(carry, number, time, events.measure(carry, number, time)[1], events.local)

    form = jax.eval_shape(one, carry)
    return jax.tree.map(lambda leaf: jnp.zeros((len(cuts.stops), *leaf.shape), leaf.dtype), form)
