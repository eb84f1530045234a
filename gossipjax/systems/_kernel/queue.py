"""A queue of timers, ordered by time; at equal times by rank, then by the order of planning."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple


class Queue(NamedTuple):
    """Entries are lists ``[seconds, rank, number, handler, arguments]``; a cancelled entry has no handler."""

    heap: list[list[Any]]
    numbers: Iterator[int]


def make_queue() -> Queue:
    """Make an empty queue."""
    return Queue([], itertools.count())


def at(queue: Queue, seconds: float, handler: Callable[..., None], *arguments: Any, rank: int = 0) -> list[Any]:
    """Plan ``handler(*arguments)``; return the entry for :func:`cancel`. At equal times low ranks go first."""
    entry = [seconds, rank, next(queue.numbers), handler, arguments]
    heapq.heappush(queue.heap, entry)
    return entry


def later(queue: Queue, seconds: float, handler: Callable[..., None], *arguments: Any) -> list[Any]:
    """Make an entry that has its place in the order of planning, but waits only from :func:`wait` on, if ever.

    A timeout that an answer is sure to forestall need not pass through the queue.
    """
    return [seconds, 0, next(queue.numbers), handler, arguments]


def wait(queue: Queue, entry: list[Any]) -> None:
    """Let an entry of :func:`later` wait; its time has not come yet."""
    heapq.heappush(queue.heap, entry)


def follow(queue: Queue, steps: Iterable[tuple[Any, ...]], handler: Callable[..., None], *, rank: int = 0) -> None:
    """Plan ``handler(*step)`` at the time ``step[0]`` of each step; one entry waits at a time.

    Args:
        queue: where they wait.
        steps: in the order of time; each is fetched when the previous one happens.
        handler: what to call.
        rank: of the entries.
    """
    _plan_next(queue, iter(steps), handler, rank)


def _plan_next(queue: Queue, rest: Iterator[tuple[Any, ...]], handler: Callable[..., None], rank: int) -> None:
    for step in rest:
        heapq.heappush(queue.heap, [step[0], rank, next(queue.numbers), _happen, (queue, rest, handler, rank, step)])
        break


def _happen(
    queue: Queue, rest: Iterator[tuple[Any, ...]], handler: Callable[..., None], rank: int, step: tuple
) -> None:
    # No closure, which would hold itself: a queue that is done is freed without the garbage collector.
    _plan_next(queue, rest, handler, rank)
    handler(*step)


def cancel(entry: list[Any]) -> None:
    """Cancel an entry; this does nothing if it has already happened."""
    entry[3], entry[4] = None, ()


def waiting(queue: Queue) -> Iterator[tuple[Callable[..., None], tuple[Any, ...]]]:
    """Yield the handlers and arguments of all pending entries, in no particular order."""
    return ((handler, arguments) for *_, handler, arguments in queue.heap if handler is not None)
