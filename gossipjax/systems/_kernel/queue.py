"""A small event queue: what happens next, in the order of time; at equal times in the order of planning."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Queue(NamedTuple):
    """Entries are lists ``[seconds, number, handler, arguments]``; a cancelled one has no handler."""

    heap: list[list[Any]]
    numbers: Iterator[int]


def make_queue() -> Queue:
    """Make an empty queue."""
    return Queue([], itertools.count())


def at(queue: Queue, seconds: float, handler: Callable[..., None], *arguments: Any) -> list[Any]:
    """Plan ``handler(*arguments)``; return the entry, which :func:`cancel` takes."""
    entry = [seconds, next(queue.numbers), handler, arguments]
    heapq.heappush(queue.heap, entry)
    return entry


def cancel(entry: list[Any]) -> None:
    """Take an entry out; one that has happened already is not touched."""
    entry[2], entry[3] = None, ()


def next_time(queue: Queue) -> float:
    """Seconds of the next entry; infinity where there is none."""
    heap = queue.heap
    while heap and heap[0][2] is None:
        heapq.heappop(heap)
    return heap[0][0] if heap else float("inf")


def pop(queue: Queue) -> tuple[Callable[..., None], tuple[Any, ...]]:
    """Take the next entry out and return its handler and arguments; call :func:`next_time` before."""
    entry = heapq.heappop(queue.heap)
    return entry[2], entry[3]


def waiting(queue: Queue) -> list[list[Any]]:
    """List the entries that are still to come, in no order."""
    return [entry for entry in queue.heap if entry[2] is not None]
