"""The loop of a run whose numbers of events and records are data: one program for all lengths and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, UInt

from gossipjax._engine.chunks import Piece
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
        carry = _run(events, carry, start, stop)
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


def _run(events: Loop, carry: Carry, start: Int[Array, ""], stop: Int[Array, ""]) -> Carry:
    """Run the events ``start … stop − 1``."""

    def turn(done: tuple[Array, Carry]) -> tuple[Array, Carry]:
        at, carry = done
        return at + 1, events.step(carry, _entry(events.xs, at))[0]

    carry = jax.lax.while_loop(lambda done: done[0] < stop, turn, (start, carry))[1]
    return carry if events.bits is None else _charged(events, carry, start, stop)


def _charged(events: Loop, carry: Carry, start: Int[Array, ""], stop: Int[Array, ""]) -> Carry:
    """Count the messages of the events ``start … stop − 1``, in blocks."""
    total = len(jax.tree.leaves(events.xs)[0])
    size = min(COUNTED, total)

    def turn(done: tuple[Array, Carry]) -> tuple[Array, Carry]:
        at, carry = done
        first = jnp.minimum(at, total - size)
        block = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), events.xs)
        numbers = first + jnp.arange(size, dtype=at.dtype)
        sent = jnp.where((numbers >= at) & (numbers < stop), events.sent(block), jnp.zeros((), jnp.uint32))
        return at + size, events.charge(carry, sent)

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
