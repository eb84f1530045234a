"""A queue of timers: what happens next, in the order of time; at equal times by rank, then in the order of planning."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class Queue(NamedTuple):
    """Entries are lists ``[seconds, rank, number, handler, arguments]``; a cancelled entry has no handler."""

    heap: list[list[Any]]
    numbers: Iterator[int]


def make_queue() -> Queue:
    """Make an empty queue."""
    return Queue([], itertools.count())


def at(queue: Queue, seconds: float, handler: Callable[..., None], *arguments: Any, rank: int = 0) -> list[Any]:
    """Plan ``handler(*arguments)``; return the entry, which :func:`cancel` takes. At equal times low ranks go first."""
    entry = [seconds, rank, next(queue.numbers), handler, arguments]
    heapq.heappush(queue.heap, entry)
    return entry


def follow(
    queue: Queue, seconds: Sequence[float], handler: Callable[..., None], *columns: Sequence[Any], rank: int = 0
) -> None:
    """Plan ``handler(seconds[k], *(column[k] for column in columns))`` for all k; one entry waits at a time.

    Args:
        queue: where they wait.
        seconds: not decreasing.
        handler: what to call.
        *columns: its further arguments, as long as ``seconds``.
        rank: of the entries.
    """
    _follow(queue, zip(seconds, *columns, strict=True), handler, rank)


def _follow(queue: Queue, steps: Iterator[tuple], handler: Callable[..., None], rank: int) -> None:
    step = next(steps, None)
    if step is not None:
        at(queue, step[0], _step, queue, steps, handler, rank, step, rank=rank)


def _step(queue: Queue, steps: Iterator[tuple], handler: Callable[..., None], rank: int, step: tuple) -> None:
    _follow(queue, steps, handler, rank)
    handler(*step)


def cancel(entry: list[Any]) -> None:
    """Take an entry out; one that has happened already is not touched."""
    entry[3], entry[4] = None, ()


def waiting(queue: Queue) -> Iterator[tuple[Callable[..., None], tuple[Any, ...]]]:
    """Yield the handlers and arguments that are still to come, in no order."""
    return ((handler, arguments) for *_, handler, arguments in queue.heap if handler is not None)
