"""Cutting a run into compiled calls of few different lengths."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

CHUNK_EVENTS = 1 << 20
"""Events that travel to the device at once: memory does not grow with the length of the run."""
CHUNKS = 20
"""Calls that a run is cut into at least, where its records allow it: for progress and resume."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """Consecutive events that run in one call, with a record after every ``every`` events, or with none."""

    start: int
    stop: int
    every: int | None


def plan(
    num_events: int, record_every: int | None, record_at: Sequence[int] | None, *, packed: bool = False
) -> list[Piece]:
    """Cut a run so that records fall where they were asked for, and at its end.

    Args:
        num_events: T.
        record_every: events between records; None: about 100 records.
        record_at: increasing numbers of events in 1 … T, instead.
        packed: whether pieces are packed, after which pieces of similar lengths have one shape.

    Raises:
        ValueError: both are given, or numbers outside the run.
    """
    if record_at is not None:
        if record_every is not None:
            raise ValueError("both record_every and record_at are given; pass one of them")
        return _irregular(_ends(num_events, record_at), packed)
    if num_events == 0:  # nothing but the start to record
        return []
    every = max(1, num_events // 100) if record_every is None else record_every
    if not 1 <= every <= num_events:
        raise ValueError(f"record_every={every}: must lie between 1 and the {num_events} events of the timeline")
    whole, rest = divmod(num_events, every)
    if every > CHUNK_EVENTS:
        return _irregular([every * (i + 1) for i in range(whole)] + ([num_events] if rest else []), packed)
    step = _records_per_call(whole, max(1, CHUNK_EVENTS // every))
    pieces = [Piece(i * every, min(i + step, whole) * every, every) for i in range(0, whole, step)]
    return pieces + ([Piece(whole * every, num_events, rest)] if rest else [])


def _records_per_call(records: int, most: int) -> int:
    """Pick a number that divides ``records`` where a large enough one exists: one shape to compile instead of two."""
    limit = max(1, min(most, records // CHUNKS))
    divisor = max(size for size in range(1, limit + 1) if records % size == 0)
    return divisor if 4 * divisor >= limit else limit


def _ends(num_events: int, record_at: Sequence[int]) -> list[int]:
    ends = [int(end) for end in np.asarray(record_at).ravel()]
    if not ends or ends[0] < 1 or ends[-1] > num_events or any(a >= b for a, b in itertools.pairwise(ends)):
        raise ValueError(f"record_at={list(record_at)[:5]} …: must be increasing event counts in 1 … {num_events}")
    return ends if ends[-1] == num_events else [*ends, num_events]


def _irregular(ends: Sequence[int], packed: bool) -> list[Piece]:
    """Cut irregular intervals into powers of eight, so that at most 8 shapes are compiled whatever they are."""
    pieces, start = [], 0
    for end in ends:
        while start < end:
            left = end - start
            size = min(CHUNK_EVENTS, left if packed else 8 ** ((left.bit_length() - 1) // 3))
            pieces.append(Piece(start, start + size, size if start + size == end else None))
            start += size
    return pieces
