"""The commands ``python -m experiments papers run | status | report``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from experiments.lib import papers, queue, store
from experiments.lib.cells import FOLDER, WORK, Missing, Shelf
from experiments.lib.code import digest_of_code
from experiments.lib.report import Row, show
from gossipjax._base.configuration import usable_cores
from gossipjax._base.memory import free_bytes
from theory.output import check_folder

GB_OF_CELL = 4
"""Memory that a cell may take."""


def add(commands: Any) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser("papers", help="make the paper-scale runs cell by cell, and tables from them")
    parser.add_argument("what", choices=("run", "status", "report"))
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"experiments ({', '.join(papers.STEMS)}) or cells, before options; default: all",
    )
    parser.add_argument("--quick", action="store_true", help="the quick configurations: a rehearsal, minutes")
    parser.add_argument("--most", type=_at_least_one, default=10**9, metavar="N", help="stop after N cells")
    parser.add_argument("--cells", type=pathlib.Path, default=None, metavar="DIR", help=f"default: {FOLDER}")
    parser.add_argument("--work", type=pathlib.Path, default=WORK, metavar="DIR", help="checkpoints and tables")
    parser.add_argument(
        "--nice", type=int, default=19, choices=range(20), metavar="N", help="priority, 0 to 19, the lowest"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=_at_least_one,
        default=None,
        metavar="N",
        help=f"processes of one thread each; default: one per core and {GB_OF_CELL} GB of free memory",
    )
    where.add_argument(
        "--scheduler", default=None, metavar="ADDRESS", help="of a Dask cluster whose machines see the folders"
    )


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return number


def _workers() -> int:
    """Count the processes for which there are cores and memory."""
    return int(max(1, min(usable_cores(), free_bytes() / (1e9 * GB_OF_CELL))))


def main(given: argparse.Namespace, console: Console) -> int:
    """Do what was asked for.

    Raises:
        ValueError: unknown experiments or cells, or experiments without cells.
    """
    size = "quick" if given.quick else "paper"
    # A rehearsal is not committed.
    folder = (given.cells or (given.work / "quick" if given.quick else FOLDER)).absolute()
    shelf = Shelf(str(folder), str(given.work.absolute()))
    stems = tuple(name for name in given.names if name in papers.STEMS)
    jobs = papers.jobs(papers.STEMS if set(given.names) - set(stems) or not stems else stems, size, shelf)
    if unknown := set(given.names) - set(stems) - {job.cell.name for job in jobs}:
        raise ValueError(
            f"{', '.join(sorted(unknown))}: choose among {', '.join(papers.STEMS)}, which have cells, or name one of "
            "their cells, as: python -m experiments papers status"
        )
    jobs = [job for job in jobs if not given.names or {job.cell.stem, job.cell.name} & set(given.names)]
    if given.what == "report":
        chosen = [stem for stem in papers.STEMS if stem in {*stems, *(job.cell.stem for job in jobs)}]
        return _report(chosen or papers.STEMS, size, shelf._replace(make=False), console)
    if given.what == "status":
        _status(queue.status(jobs, shelf), console)
        return 0
    check_folder("--cells", folder)
    check_folder("--work", given.work)
    asked = {"size": size, "folder": shelf.folder, "work": shelf.work, "nice": given.nice}
    with _engine(given.scheduler) as engine:
        end = queue.run(
            jobs,
            shelf,
            make,
            asked,
            most=given.most,
            say=lambda text: console.print(text, highlight=False, markup=False),
            engine=engine,
            workers=given.workers or _workers(),
        )
    return status_of(end)


def status_of(end: queue.End) -> int:
    """Return the exit status: 1 if a cell failed, and 128 + its number for a signal, as shells do."""
    return int(end.failed > 0) if end.signal is None else 128 + end.signal


@contextlib.contextmanager
def _engine(address: str | None) -> Iterator[Any]:
    """Return where cells are made: worker processes of this machine, or those of a Dask cluster."""
    if address is None:
        yield "processes"
        return
    import distributed

    with distributed.Client(address) as client:
        yield client


def make(config: dict[str, Any]) -> xr.Dataset:
    """Make the cell ``cell`` of the list: a cell of a sweep, in a process of its own."""
    os.setpriority(os.PRIO_PROCESS, 0, max(config["nice"], os.getpriority(os.PRIO_PROCESS, 0)))
    shelf = Shelf(config["folder"], config["work"])
    found = {job.cell.name: job.cell for job in papers.jobs(papers.STEMS, config["size"], shelf)}
    for one in found.values():  # what this process has imported now, not what stands there when a later cell begins
        digest_of_code(one.make)
    try:
        return queue.make_one(found[config["cell"]], shelf)
    finally:
        jax.clear_caches()  # a worker makes many cells, and each has programs of its own


def _status(lines: list[queue.Line], console: Console) -> None:
    table = Table(title="Cells of the papers, in order of value", title_justify="left")
    for name in ("experiment", "cell", "state", "hours", "hours are"):
        table.add_column(name, no_wrap=True, justify="right" if name == "hours" else "left")
    for line in lines:
        source = "taken" if line.state == "done" else "left, as measured" if line.measured else "left, estimated"
        table.add_row(line.job.cell.stem, line.job.cell.name, line.state, f"{line.hours:.2f}", source)
    console.print(table)
    counts = ", ".join(f"{number} {state}" for state, number in Counter(line.state for line in lines).items())
    left = [line for line in lines if line.state != "done"]
    hours, estimated = (sum(line.hours for line in some) for some in (left, [one for one in left if not one.measured]))
    console.print(
        f"{counts}; {hours:.1f} hours left for one worker, {estimated:.1f} of them by estimates, not by measured cells"
    )


def _report(stems: Sequence[str], size: str, shelf: Shelf, console: Console) -> int:
    """Make tables and results from the cells that there are; say what is missing, and what has changed since."""
    for stem in stems:
        module, cells = importlib.import_module(f"experiments.{stem}"), papers.cells(stem, size, shelf)
        states = {cell.name: shelf.state(cell) for cell in cells}
        lacking = {
            state: [name for name, of in states.items() if of == state] for state in ("missing", "damaged", "stale")
        }
        config = papers.configuration(stem, size, shelf)
        try:
            dataset = module.run(config)
        except Missing as error:
            console.print(f"{stem}: no table yet: {error}", highlight=False)
        else:
            facts = {"configuration": config._asdict(), "size": size, "cells": states}
            facts["other_bands"] = [cell.name for cell in cells if shelf.has_other_bands(cell)]
            store.save(stem, dataset, facts, pathlib.Path(shelf.work))
            kept = store.load(stem, pathlib.Path(shelf.work))
            show(f"{stem}: {module.CLAIM}", [*module.table(kept), *changed(store.manifest_of(kept))], console)
        console.print(f"  {len(cells)} cells: {_told(lacking, len(cells))}\n", highlight=False)
    return 0


def changed(manifest: dict[str, Any]) -> list[Row]:
    """Return the rows that name the cells of a table which are not as they would be made today."""
    stale = [name for name, state in manifest["cells"].items() if state == "stale"]
    some = {"cells that are stale": stale, "cells made for other bands": manifest["other_bands"]}
    return [Row(what, len(names), np.nan, np.nan, ", ".join(names)) for what, names in some.items() if names]


def _told(lacking: dict[str, list[str]], count: int) -> str:
    done = count - sum(map(len, lacking.values()))
    words = [f"{state}: {', '.join(names)}" for state, names in lacking.items() if names]
    return "; ".join([f"{done} done", *words])
