"""Cut a run into compiled calls of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, PyTree

from gossipjax._base.arguments import shown, whole, wholes

CHUNK_EVENTS = 1 << 20
"""Most events in one call, so that memory on the device does not grow with the length of the run."""
CHUNKS = 20
"""Least number of calls of a run that shows its progress or can be resumed, and of any long run."""
SIZES = (1, 8, 64, 512, 4096, 32_768, 262_144, 1 << 20)
"""Numbers of events, and of records, for which calls have room. Few, so that few programs are compiled."""
USUAL = 64
"""Room that short runs have, too, so that they share a program."""
PACKED_EVENTS = 1 << 16
"""Events that are packed at once: their wide events have one shape, and those of another piece maybe another."""
SPARE_BYTES = 4 << 20
"""Most bytes for which a call has room beyond what is wanted."""


class Piece(NamedTuple):
    """Consecutive events that run in one call."""

    start: int
    stop: int
    records: Int[np.ndarray, " r"]
    """Numbers of events after which to record, in start … stop."""

    @property
    def stops(self) -> list[int]:
        """Events of this piece up to each of its records, and to its end."""
        ends = (self.records - self.start).tolist()
        length = self.stop - self.start
        return ends if ends and ends[-1] == length else [*ends, length]


class Room(NamedTuple):
    """Numbers of events and of records for which a compiled call has room."""

    events: int
    records: int


def bytes_per_entry(xs: PyTree) -> int:
    """Return the bytes of the entry of one event."""
    return sum(int(np.prod(leaf.shape[1:])) * leaf.dtype.itemsize for leaf in jax.tree.leaves(xs))


def room(num_events: int, num_records: int, event_bytes: int, record_bytes: int) -> Room:
    """Choose the room of the calls of a run: few numbers for all runs, because other room is another program.

    Args:
        num_events: T.
        num_records: r.
        event_bytes: size of the entry of one event.
        record_bytes: size of one record.
    """
    records = size(num_records // CHUNKS, record_bytes)
    between = num_events // max(num_records, 1)
    return Room(size(min(num_events // CHUNKS, between * records), event_bytes), records)


def size(wanted: int, each_bytes: int) -> int:
    """Return the smallest of :data:`SIZES` that is at least what is wanted, and :data:`USUAL`.

    If that takes more than :data:`SPARE_BYTES`, return the largest that is at most what is wanted.
    """
    least = min(max(wanted, USUAL), SIZES[-1])
    above = min(each for each in SIZES if each >= least)
    if above * each_bytes <= SPARE_BYTES:
        return above
    return max(each for each in SIZES if each <= max(wanted, 1))


def positions(num_events: int, record_every: int | None, record_at: Sequence[int] | None) -> Int[np.ndarray, " r"]:
    """Return the numbers of events after which a run records, its end included.

    Args:
        num_events: T.
        record_every: events between records; None: about 100 records.
        record_at: increasing numbers of events in 1 … T, instead.

    Raises:
        ValueError: both are given, or numbers outside the run.
    """
    if record_at is not None:
        if record_every is not None:
            raise ValueError("both record_every and record_at are given; pass one of them")
        return _ends(num_events, record_at)
    every = interval(num_events, record_every)
    ends = np.arange(every, num_events + 1, every)
    return np.append(ends, num_events) if num_events % every else ends


def interval(num_events: int, record_every: int | None) -> int:
    """Return the events between two records.

    Raises:
        ValueError: fewer than one, or more than there are.
    """
    if record_every is None:
        return max(1, num_events // 100)
    remedy = f"the timeline has {num_events} events"
    return whole("record_every", record_every, least=1, most=num_events or None, remedy=remedy)


def plan(
    ends: Int[np.ndarray, " r"], start: int, most: Room, *, packed: bool = False, many: bool = False
) -> list[Piece]:
    """Cut a run into pieces, which end with a record where there is one.

    Args:
        ends: numbers of events after which to record, those already recorded left out; the last is the end of the run.
        start: number of events already done.
        most: room of a piece.
        packed: whether pieces are packed: their records lie at one interval, which is cut only if it is too long.
        many: whether at least :data:`CHUNKS` pieces are wanted, if there are as many records.
    """
    length = _length(ends, start, most, packed, many)
    pieces, first = [], 0
    while first < len(ends):
        last = min(int(np.searchsorted(ends, start + length, side="right")), first + most.records)
        if packed:
            last = first + _even(ends[first:last], start)
        stop = int(ends[last - 1]) if last > first else start + length
        pieces.append(Piece(start, stop, ends[first:last]))
        start, first = stop, last
    return pieces


def _length(ends: Int[np.ndarray, " r"], start: int, most: Room, packed: bool, many: bool) -> int:
    """Return the most events of a piece."""
    total = int(ends[-1]) if len(ends) else start
    few = max(total // CHUNKS, int(np.diff(ends, prepend=start).max(initial=1)))
    if packed:
        return min(CHUNK_EVENTS, few if many else max(few, PACKED_EVENTS))
    return min(CHUNK_EVENTS, most.events, few if many else most.events)


def _even(ends: Int[np.ndarray, " r"], start: int) -> int:
    """Return how many records, from the first on, lie at one interval; one at the start is no interval."""
    own = int(len(ends) > 0 and ends[0] == start)
    gaps = np.diff(ends[own:], prepend=start)
    same = gaps == gaps[:1]
    return own + (len(same) if same.all() else int(np.argmin(same)))


def _ends(num_events: int, record_at: Sequence[int]) -> Int[np.ndarray, " r"]:
    rule = f"increasing event counts in 1 … {num_events}"
    ends = wholes("record_at", record_at, shape=(None,), remedy=f"pass {rule}")
    if not ends.size or ends[0] < 1 or ends[-1] > num_events or (np.diff(ends) <= 0).any():
        raise ValueError(f"record_at={shown(ends.tolist())}: must be {rule}")
    return ends if ends[-1] == num_events else np.append(ends, num_events)
