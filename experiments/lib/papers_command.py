"""The commands ``python -m experiments papers run | status | report``."""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import gossipjax
from experiments.lib import papers, queue, store
from experiments.lib.cells import FOLDER, WORK, Cell, Missing, Shelf
from experiments.lib.report import Row, show
from theory.output import check_folder


def add(commands: Any) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser("papers", help="make the paper-scale runs cell by cell, and tables from them")
    parser.add_argument("what", choices=("run", "status", "report", "cell"), help="cell: only the one that is named")
    parser.add_argument("names", nargs="*", metavar="STEM", help=f"{', '.join(papers.STEMS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="the quick configurations: a rehearsal, minutes")
    parser.add_argument("--most", type=int, default=10**9, metavar="N", help="stop after N cells")
    parser.add_argument("--cells", type=pathlib.Path, default=None, metavar="DIR", help=f"default: {FOLDER}")
    parser.add_argument("--work", type=pathlib.Path, default=WORK, metavar="DIR", help="checkpoints and tables")
    parser.add_argument("--nice", type=int, default=19, metavar="N", help="priority, 0 to 19; default: 19, the lowest")
    parser.add_argument("--parent", type=int, default=None, help=argparse.SUPPRESS)


def main(given: argparse.Namespace, console: Console) -> int:
    """Do what was asked for.

    Raises:
        ValueError: unknown stems or cells, or no stems with cells.
    """
    size = "quick" if given.quick else "paper"
    # A rehearsal is not committed.
    folder = given.cells or (given.work / "quick" if given.quick else FOLDER)
    shelf = Shelf(str(folder), str(given.work))
    if given.what == "cell":
        return _cell(given, size, shelf)
    if unknown := [name for name in given.names if name not in papers.STEMS]:
        raise ValueError(f"{', '.join(unknown)}: choose among {', '.join(papers.STEMS)}, which have cells")
    stems = tuple(given.names) or papers.STEMS
    if given.what == "report":
        return _report(stems, size, shelf._replace(make=False), console)
    jobs = papers.jobs(stems, size, shelf)
    if given.what == "status":
        _status(queue.status(jobs, shelf), console)
        return 0
    check_folder("--cells", folder)
    check_folder("--work", given.work)

    def start(cell: Cell) -> subprocess.Popen:
        return subprocess.Popen([*_words(given, size), "cell", cell.stem, cell.name, "--parent", str(os.getpid())])

    failed = queue.run(jobs, shelf, start, most=given.most, say=lambda text: console.print(text, highlight=False))
    return 1 if failed else 0


def _words(given: argparse.Namespace, size: str) -> list[str]:
    words = [sys.executable, "-m", "experiments", "papers", "--work", str(given.work), "--nice", str(given.nice)]
    words += ["--cells", str(given.cells)] if given.cells else []
    return words + (["--quick"] if size == "quick" else [])


def _cell(given: argparse.Namespace, size: str, shelf: Shelf) -> int:
    stem, name = given.names
    found = {job.cell.name: job for job in papers.jobs((stem,), size, shelf)}
    if name not in found:
        raise ValueError(f"{stem} has no cell {name}")
    os.nice(given.nice)
    gossipjax.configure()
    return queue.make_one(found[name].cell, shelf, given.parent)


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
    console.print(f"{counts}; {hours:.1f} hours left, {estimated:.1f} of them by estimates, not by measured cells")


def _report(stems: tuple[str, ...], size: str, shelf: Shelf, console: Console) -> int:
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
