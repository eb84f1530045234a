"""Cut a run into compiled calls of few different lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from gossipjax._base.arguments import shown, whole, wholes

CHUNK_EVENTS = 1 << 20
"""Most events in one call, so that memory on the device does not grow with the length of the run."""
CHUNKS = 20
"""Least number of calls of a run, if its records allow so many: for progress and resume."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """Consecutive events that run in one call, with a record after every ``every`` events, or with none."""

    start: int
    stop: int
    every: int | None


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
    num_events: int,
    record_every: int | None,
    record_at: Sequence[int] | None,
    *,
    packed: bool = False,
    start: int = 0,
    single: bool = False,
) -> list[Piece]:
    """Cut a run so that records fall at the requested events, and at its end.

    Args:
        num_events: T.
        record_every: events between records; None: about 100 records.
        record_at: increasing numbers of events in 1 … T, instead.
        packed: whether pieces are packed; packed pieces of similar lengths have the same shape.
        start: number of events already done.
        single: whether every record ends a piece.

    Raises:
        ValueError: both are given, or numbers outside the run.
    """
    ends = positions(num_events, record_every, record_at)
    ends = ends[ends > start]
    if record_at is not None:
        return _irregular(ends, packed, start)
    every = interval(num_events, record_every)
    if every > CHUNK_EVENTS:
        return _irregular(ends, packed, start)
    records = num_events // every
    step = 1 if single else _records_per_call(records, max(1, CHUNK_EVENTS // every))
    pieces, done = [], start
    if done % every and done < num_events:
        pieces.append(Piece(done, int(ends[0]), int(ends[0]) - done))
        done = int(ends[0])
    for first in range(done // every, records, step):
        done = min(first + step, records) * every
        pieces.append(Piece(first * every, done, every))
    return pieces + ([Piece(done, num_events, num_events - done)] if done < num_events else [])


def _records_per_call(records: int, most: int) -> int:
    """Pick a divisor of ``records`` if there is a large enough one, so that one shape is compiled instead of two."""
    limit = max(1, min(most, records // CHUNKS))
    divisor = max(size for size in range(1, limit + 1) if records % size == 0)
    return divisor if 4 * divisor >= limit else limit


def _ends(num_events: int, record_at: Sequence[int]) -> Int[np.ndarray, " r"]:
    rule = f"increasing event counts in 1 … {num_events}"
    ends = wholes("record_at", record_at, shape=(None,), remedy=f"pass {rule}")
    if not ends.size or ends[0] < 1 or ends[-1] > num_events or (np.diff(ends) <= 0).any():
        raise ValueError(f"record_at={shown(ends.tolist())}: must be {rule}")
    return ends if ends[-1] == num_events else np.append(ends, num_events)


def _irregular(ends: Int[np.ndarray, " r"], packed: bool, start: int) -> list[Piece]:
    """Cut irregular intervals into powers of eight, so that at most 8 shapes are compiled."""
    pieces = []
    for end in ends.tolist():
        while start < end:
            left = end - start
            size = min(CHUNK_EVENTS, left if packed else 8 ** ((left.bit_length() - 1) // 3))
            pieces.append(Piece(start, start + size, size if start + size == end else None))
            start += size
    return pieces
