"""Cells: the runs of paper-scale experiments, one (system, data, seed) each, finished once and then committed.

A cell is a module-level function of JSON-able settings, and a finished one is a small file of records under
:data:`FOLDER`. Its name says what it is and ends in a hash of its settings; inside are the settings, the bands as they
were stated before the run, the versions, a digest of the code that it reaches (:mod:`experiments.lib.code`), a digest
of its data, and the seconds that it took. Experiments take their runs with :func:`take`, from such files or from the
folder of :func:`experiments.lib.kept.kept_run`; both are written, found and resumed by the same functions.

Other code, or other results of cells that one needs, make a cell *stale*: it is made again by the queue, and as long as
a table shows it, a row of the table names it. Another row names cells whose bands are no longer those stated before
the run; their numbers stay good, so they are not made again. Other versions of packages, and other data, do not make a
cell stale: both are noted in the file and not compared, because tables are also made where the data are not at hand.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import xarray as xr

from experiments.lib import store
from experiments.lib.code import digest_of_code
from experiments.lib.kept import digest, hash_of, keep_file, kept_file, kept_run
from experiments.lib.problems import Problem
from experiments.lib.sittings import Busy, Sittings
from gossipjax.devices import Devices
from gossipjax.results._trajectory import environment
from theory.output import check_folder

FOLDER = pathlib.Path("benchmarks/cells")
"""Of finished cells; committed."""
WORK = pathlib.Path("results/papers")
"""Of what is under way, and of the tables made from cells; not committed."""
State: TypeAlias = Literal["done", "stale", "damaged", "missing"]
Name = TypeVar("Name", bound=Hashable)


class Cell(NamedTuple):
    """One run, before it is made."""

    stem: str
    labels: dict[str, Any]
    """What it is, for people and for the order of the queue: task, scheme, seed and the like."""
    make: Callable[..., xr.Dataset]
    """``make(settings, checkpoint, *needed)``, a function of a module; it gets the results of ``needs``."""
    contents: Callable[[dict[str, Any]], tuple[Any, ...]]
    """``contents(settings)``: the problem, the devices and whatever else tells its data from others."""
    settings: dict[str, Any]
    """JSON-able; all that the numbers depend on, besides code and data."""
    needs: tuple[Cell, ...] = ()
    """Cells whose results it depends on."""
    bands: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, which nobody changes
    """What its verdicts allow."""

    @property
    def configuration(self) -> dict[str, Any]:
        """What names it, as a file returns it."""
        told = {"stem": self.stem, "run": f"{self.make.__module__}.{self.make.__qualname__}", "settings": self.settings}
        return json.loads(json.dumps(told))

    @property
    def name(self) -> str:
        """Name its file."""
        words = "_".join(f"{key}{value}" if key == "seed" else str(value) for key, value in self.labels.items())
        return f"{re.sub('[^a-z0-9._]+', '-', words.lower()).strip('-')}-{hash_of(self.configuration)[:8]}"


class Shelf(NamedTuple):
    """Where cells stand; takes the place of the folder ``keep`` of an experiment at paper scale."""

    folder: str = str(FOLDER)
    work: str = str(WORK)
    make: bool = True
    """Whether cells that are missing or stale are made; else stale ones are taken as they are."""

    def file(self, cell: Cell) -> xr.Dataset | None:
        """Read a finished cell, whatever code made it; None if there is none, or a damaged one."""
        return kept_file(cell.name, cell.configuration, self._folder(cell))

    def path(self, cell: Cell) -> pathlib.Path:
        """Return where a finished cell lies."""
        return store.path_of(cell.name, self._folder(cell))

    def state(self, cell: Cell) -> State:
        """Say whether a cell is done."""
        found = self.file(cell)
        if found is None:
            return "damaged" if self.path(cell).exists() else "missing"
        known = store.manifest_of(found)
        same = known["code"] == digest_of_code(cell.make) and known["needed"] == self._needed(cell)
        return "done" if same else "stale"

    def has_other_bands(self, cell: Cell) -> bool:
        """Whether a finished cell was made when its verdicts allowed something else."""
        found = self.file(cell)
        return found is not None and store.manifest_of(found)["bands"] != json.loads(json.dumps(cell.bands))

    def sittings(self, cell: Cell) -> Sittings:
        """Return the folder in which a cell is under way, by today's code and results of the cells that it needs."""
        folder = pathlib.Path(self.work) / "cells" / cell.name
        return Sittings(folder, digest_of_code(cell.make), self._needed(cell))

    def _folder(self, cell: Cell) -> pathlib.Path:
        return pathlib.Path(self.folder) / cell.stem

    def _needed(self, cell: Cell) -> dict[str, str | None]:
        found = {one.name: self.file(one) for one in cell.needs}
        return {name: None if one is None else _content(one) for name, one in found.items()}


Keep: TypeAlias = str | Shelf | None
"""Where an experiment keeps its runs: a folder of its own, the shelf of committed cells, or nowhere."""


class NotAtHand(ValueError):
    """A cell must run on published data, whose files are not at hand."""


class Missing(ValueError):
    """Cells that a table needs are not there."""


def take(keep: Keep, cell: Cell) -> xr.Dataset:
    """Return a finished run, or make it.

    Raises:
        Missing: it is not on a shelf of which nothing is made.
        Busy: another process makes it.
        NotAtHand: real data of a cell are not at hand.
        ValueError: as :func:`experiments.lib.kept.kept_run`.
    """
    if not isinstance(keep, Shelf):
        return _kept(keep, cell)
    state = keep.state(cell)
    found = keep.file(cell)
    if found is not None and (state == "done" or not keep.make):
        return found
    if not keep.make:
        raise Missing(
            f"{cell.name} of {cell.stem} is {state}; make it with: python -m experiments papers run {cell.stem}"
        )
    return _made(keep, cell)


def _kept(keep: str | None, cell: Cell) -> xr.Dataset:
    needed = [_kept(keep, one) for one in cell.needs]
    of_needs = {"needed": [_content(one) for one in needed]} if cell.needs else {}
    contents = () if keep is None else cell.contents(cell.configuration["settings"])
    return kept_run(keep, cell.configuration | of_needs, lambda at: _run(cell, needed, at), *contents)


def _run(cell: Cell, needed: list[xr.Dataset], checkpoint: pathlib.Path | None) -> xr.Dataset:
    return cell.make(cell.configuration["settings"], checkpoint, *needed)


def _made(shelf: Shelf, cell: Cell) -> xr.Dataset:
    """Make a cell on its shelf, unless another process has just done so."""
    check_folder("the folder of cells", shelf.path(cell).parent, shelf.path(cell).name)
    needed = [take(shelf, one) for one in cell.needs]
    with shelf.sittings(cell) as sittings:
        if shelf.state(cell) == "done":
            return take(shelf, cell)
        contents = cell.contents(cell.configuration["settings"])
        _check_real(cell, contents)
        facts: dict[str, Any] = {
            "configuration": cell.configuration,
            "labels": cell.labels,
            "bands": cell.bands,
            "code": sittings.code,
            "contents": digest(*contents),
            "needed": {one.name: _content(found) for one, found in zip(cell.needs, needed, strict=True)},
            "environment": environment(),
        }
        made = _run(cell, needed, sittings.checkpoint)
        facts |= {"seconds": round(sittings.seconds(), 1), "sittings": sittings.count()}
        found = keep_file(cell.name, made, facts, shelf.path(cell).parent, sittings.checkpoint)
    shutil.rmtree(sittings.folder, ignore_errors=True)
    return found


def _content(found: xr.Dataset) -> str:
    """Name the records of a cell, whenever they were made."""
    return store.checksum(found.drop_attrs(deep=False))


def _check_real(cell: Cell, contents: Sequence[Any]) -> None:
    for one in contents:
        if (isinstance(one, Problem) and one.is_stand_in) or (
            isinstance(one, Devices) and one.name.startswith("fitted")
        ):
            source = one.source if isinstance(one, Problem) else one.name
            raise NotAtHand(
                f"the cell {cell.name} must run on published data and would get {source}: their files are not at hand; "
                "name their folder in GOSSIPJAX_DATA"
            )


def take_grid(
    keep: Keep, cells: Mapping[tuple[Name, int], Cell], required: Sequence[Name]
) -> dict[tuple[Name, int], xr.Dataset]:
    """Take the cells of all (name, seed); of a shelf of which nothing is made, the largest full grid among them.

    Raises:
        Missing: not one seed has all required names.
    """
    if not isinstance(keep, Shelf) or keep.make:
        return {at: take(keep, cell) for at, cell in cells.items()}
    there = {at: found for at, cell in cells.items() if (found := keep.file(cell)) is not None}
    names = list(dict.fromkeys(name for name, _ in cells))
    kept, seeds = largest_grid(names, {name: {s for n, s in there if n == name} for name in names}, required)
    if not seeds:
        at = next((cell for (name, _), cell in cells.items() if name in required), None)
        raise Missing(f"no seed has all of {', '.join(map(str, required))}" + (f" for {at.labels}" if at else ""))
    return {(name, seed): there[name, seed] for name in kept for seed in seeds}


def largest_grid(
    names: Sequence[Name], seeds: Mapping[Name, set[int]], required: Sequence[Name]
) -> tuple[list[Name], list[int]]:
    """Choose names, the required ones among them, and seeds that all of them have: as many pairs as there can be."""
    rest = [name for name in names if name not in required]
    best: tuple[int, int, list[Name], list[int]] = (0, 0, [], [])
    for count in range(len(rest) + 1):
        for more in itertools.combinations(rest, count):
            chosen = [name for name in names if name in required or name in more]
            common = sorted(set.intersection(*(seeds.get(name, set()) for name in chosen)))
            if common:
                best = max(best, (len(chosen) * len(common), len(chosen), chosen, common), key=lambda one: one[:2])
    return best[2], best[3]


__all__ = ["FOLDER", "WORK", "Busy", "Cell", "Keep", "Missing", "Shelf", "State", "largest_grid", "take", "take_grid"]
