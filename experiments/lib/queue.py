"""The queue of paper-scale cells: one after another, each in a process of its own, at the lowest priority.

A cell that is stopped or killed goes on from its last checkpoint, a twentieth of the run or less ago. Several queues
may run side by side: none works on a cell that another one has. A cell that fails does not hold up the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from experiments.lib import store
from experiments.lib.cells import Busy, Cell, Shelf, State, take
from experiments.lib.papers import Job

OTHERS_WORK = 75
"""Exit status of a process whose cell another one is making: EX_TEMPFAIL of sysexits.h."""


class Stopped(BaseException):
    """The queue was asked to stop, by SIGINT or SIGTERM."""


class Line(NamedTuple):
    """Status of one cell."""

    job: Job
    state: State | Literal["under way", "begun"]
    hours: float
    """What it took if it is done, else what is left."""
    measured: bool
    """Whether the hours rest on finished cells of the same kind, and not on the estimate of the list."""


def status(jobs: Sequence[Job], shelf: Shelf) -> list[Line]:
    """Say of each cell how far it is, and how long it took or will take."""
    states = {job.cell.name: shelf.state(job.cell) for job in jobs}
    taken: dict[tuple[Any, ...], list[float]] = {}
    for job in jobs:
        if states[job.cell.name] in ("done", "stale"):
            taken.setdefault(_kind(job.cell), []).append(_seconds(shelf, job.cell))
    return [_line(job, states[job.cell.name], taken.get(_kind(job.cell), []), shelf) for job in jobs]


def _line(job: Job, state: State, taken: list[float], shelf: Shelf) -> Line:
    if state == "done":
        return Line(job, state, _seconds(shelf, job.cell) / 3600, True)
    sittings = shelf.sittings(job.cell)
    whole = sum(taken) / len(taken) / 3600 if taken else job.hours
    left = max(0.0, whole - sittings.seconds() / 3600)
    if sittings.is_busy():
        return Line(job, "under way", left, bool(taken))
    begun = sittings.checkpoint.exists() and state != "stale"
    return Line(job, "begun" if begun else state, left, bool(taken))


def _kind(cell: Cell) -> tuple[Any, ...]:
    """Tell cells apart that take different times: all but their seeds and rates."""
    return cell.stem, *(value for name, value in cell.labels.items() if name not in ("seed", "rate"))


def _seconds(shelf: Shelf, cell: Cell) -> float:
    found = shelf.file(cell)
    return float("nan") if found is None else float(store.manifest_of(found)["seconds"])


def run(jobs: Sequence[Job], shelf: Shelf, start: Callable[[Cell], subprocess.Popen], *, most: int, say: Any) -> int:
    """Make cells that are missing, then those that are stale, in the order of the list.

    Args:
        jobs: in order of value.
        shelf: where they stand.
        start: begins a process that makes a cell.
        most: number of cells after which it stops.
        say: prints a line.

    Returns:
        The number of cells that failed.
    """
    failed: set[str] = set()
    busy: set[str] = set()
    done = 0
    with _stoppable():
        try:
            while done < most and (job := _next(jobs, shelf, failed | busy)) is not None:
                say(f"{job.cell.stem}: {job.cell.name}")
                code = _wait(start(job.cell))
                if code == 0:
                    done, busy = done + 1, set()
                elif code == OTHERS_WORK:
                    busy.add(job.cell.name)
                else:
                    failed.add(job.cell.name)
                    say(f"  failed with status {code}; the others go on")
        except Stopped:
            say("stopped; the same command goes on from the last checkpoint")
    return len(failed)


def _next(jobs: Sequence[Job], shelf: Shelf, left_out: set[str]) -> Job | None:
    """Choose the next cell: all that it needs is done, and no other process has it."""
    free = [job for job in jobs if job.cell.name not in left_out]
    states = {job.cell.name: shelf.state(job.cell) for job in free}
    for wanted in (("missing", "damaged"), ("stale",)):
        for job in free:
            ready = all(shelf.state(one) == "done" for one in job.cell.needs)
            if states[job.cell.name] in wanted and ready and not shelf.sittings(job.cell).is_busy():
                return job
    return None


def _wait(process: subprocess.Popen) -> int:
    try:
        return process.wait()
    except Stopped:
        process.terminate()
        process.wait()
        raise


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into :class:`Stopped`."""

    def stop(number: int, _: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def make_one(cell: Cell, shelf: Shelf, parent: int | None) -> int:
    """Make a cell in this process, which ends at once if it is asked to, or if its parent has ended."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)  # files are written whole or not at all: nothing has to be tidied up
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        take(shelf, cell)
    except Busy as error:
        print(error, file=sys.stderr)
        return OTHERS_WORK
    return 0


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
