"""The queue of paper-scale cells: workers of :func:`gossipjax.sweep` make them side by side, at the lowest priority.

A cell that is stopped or killed goes on from its last checkpoint, a twentieth of the run or less ago. Several queues
may run side by side: none works on a cell that another one has. A cell that fails does not hold up the others.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import xarray as xr

import gossipjax
from experiments.lib import store
from experiments.lib.cells import Busy, Cell, NotAtHand, Shelf, State, take
from experiments.lib.papers import Job
from gossipjax._base.locks import is_locked, take_lock
from gossipjax.tasks import DataUnavailable


class Stopped(BaseException):
    """The queue was asked to stop, by SIGINT or SIGTERM."""


class End(NamedTuple):
    """How a queue ended."""

    failed: int
    """Number of cells."""
    signal: int | None
    """The signal that stopped it; None if it came to the end of its list."""


BUSY = "another process makes it"


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


def run(
    jobs: Sequence[Job],
    shelf: Shelf,
    make: Callable[[dict[str, Any]], xr.Dataset],
    asked: dict[str, Any],
    *,
    most: int,
    say: Callable[[str], Any],
    **how: Any,
) -> End:
    """Make cells that are missing, then those that are stale, in the order of the list.

    Args:
        jobs: in order of value.
        shelf: where they stand.
        make: a cell of :func:`gossipjax.sweep` that calls :func:`make_one`; it gets ``asked`` and ``cell``, a name.
        asked: what else it needs to find the cell.
        most: number of cells after which it stops.
        say: prints a line.
        how: ``engine`` and ``workers`` of :func:`gossipjax.sweep`.

    Returns:
        How many cells failed, and whether it was stopped before its end.
    """
    failed: set[str] = set()
    busy: set[str] = set()
    done = 0
    with _stoppable() as stop:
        try:
            while stop.asked is None and (wave := _wave(jobs, shelf, failed | busy)[: most - done]):
                names = [job.cell.name for job in wave]
                say(f"{len(wave)} cells: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}")
                errors = _make_all(make, asked, names, shelf, how)
                for name in names:
                    if not errors[name]:
                        done, busy = done + 1, set()
                    elif errors[name] == BUSY:
                        busy.add(name)
                    else:
                        failed.add(name)
                        say(f"{name} failed; the others go on\n{errors[name]}")
        except BaseException:  # closing the workers may fail as well, when they take too long
            if stop.asked is None:
                raise
        if stop.asked is not None:
            say(
                "stopped; the same command goes on, and begun cells go on from their last checkpoints, if they have "
                "any. A cluster ends the cells that it has begun"
            )
    return End(len(failed), stop.asked)


def _wave(jobs: Sequence[Job], shelf: Shelf, left_out: set[str]) -> list[Job]:
    """Choose the next cells, up to the first one that needs one of them; cells of other processes are left out."""
    free = [job for job in jobs if job.cell.name not in left_out and not shelf.sittings(job.cell).is_busy()]
    states = {job.cell.name: shelf.state(job.cell) for job in free}
    for wanted in (("missing", "damaged"), ("stale",)):
        chosen: list[Job] = []
        for job in (job for job in free if states[job.cell.name] in wanted):
            needed = [one for one in job.cell.needs if shelf.state(one) != "done"]
            if not needed:
                chosen.append(job)
            elif {one.name for one in needed} <= {one.cell.name for one in chosen}:
                break
        if chosen:
            return chosen
    return []


def _make_all(
    make: Callable[[dict[str, Any]], xr.Dataset],
    asked: dict[str, Any],
    names: list[str],
    shelf: Shelf,
    how: dict[str, Any],
) -> dict[str, str]:
    """Make cells by a sweep whose files say how each ended, and return that; whether a cell is done the shelf knows."""
    axes = {name: [value] for name, value in asked.items()} | {"cell": names}
    with _folder_of_ends(pathlib.Path(shelf.work)) as folder:
        try:
            table = gossipjax.sweep(make, axes, folder, throw=False, **how)
        except gossipjax.SweepFailed as error:  # not one of them ended by itself
            return dict.fromkeys(names, str(error))
    lost = {one["config"]["cell"]: one["error"] for one in json.loads(table.attrs.get("failed", "[]"))}
    ended = table.squeeze(list(asked)).error
    return {name: lost.get(name) or str(ended.sel(cell=name).item()) for name in names}


@contextmanager
def _folder_of_ends(work: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make a folder for the files of a sweep, and remove those of queues that were killed."""
    work.mkdir(parents=True, exist_ok=True)
    for old in work.glob("queue-*"):
        if (old / "lock").exists() and not is_locked(old / "lock"):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="queue-") as name:
        folder = pathlib.Path(name)
        with take_lock(folder / "lock"):
            yield folder


def make_one(cell: Cell, shelf: Shelf) -> xr.Dataset:
    """Make a cell in this process, and say how it ended: what a cell of the queue's sweep returns."""
    error = ""
    try:
        take(shelf, cell)
    except Busy:
        error = BUSY
    except (NotAtHand, DataUnavailable) as cause:
        error = str(cause)
    except Exception:
        error = traceback.format_exc()
    return xr.Dataset({"error": error})


class _Stop:
    """The signal by which the queue was asked to stop."""

    asked: int | None = None

    def __call__(self, number: int, _: object) -> None:
        """Handle a signal; each one raises, since what raises inside a callback of Python's can get lost."""
        self.asked = number if self.asked is None else self.asked
        raise Stopped


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    """Turn SIGINT and SIGTERM into :class:`Stopped`."""
    stop = _Stop()
    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
