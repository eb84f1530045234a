"""Run experiments: ``python -m experiments list | run STEM… | run all [--quick | --paper] [--out DIR]``.

``python -m experiments papers run | status | report`` works through the list of paper-scale runs, cell by cell.
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from rich.console import Console

import gossipjax
from experiments.lib import papers_command, store
from experiments.lib.cells import Shelf
from experiments.lib.report import show
from theory.output import check_folder

STEMS = tuple(sorted(path.stem for path in pathlib.Path(__file__).parent.glob("[!_]*.py")))
"""Every module of this folder is an experiment, and its name the stem of its result, table and figure."""
SIZES = {"quick": "QUICK", "full": "Config", "paper": "PAPER"}
"""Names of the configurations in the module of an experiment."""


def module_of(stem: str) -> ModuleType:
    """Import the module of a stem.

    Raises:
        ValueError: an unknown stem.
    """
    if stem not in STEMS:
        raise ValueError(f"unknown stem {stem!r}; choose among {', '.join(STEMS)}, or 'all'")
    return importlib.import_module(f"experiments.{stem}")


def configuration(module: ModuleType, size: str, folder: pathlib.Path) -> Any:
    """Return the quick, the full, or the paper's own configuration of an experiment.

    A configuration with a field ``keep`` stores each run in a folder beside the results, and reads it from there again.
    At the paper's scale, an experiment with cells takes them from the shelf of committed ones.

    Raises:
        ValueError: the experiment has no such configuration.
    """
    settings = getattr(module, SIZES[size], None)
    if settings is None:
        having = [stem for stem in STEMS if hasattr(module_of(stem), SIZES[size])]
        raise ValueError(f"{module.__name__} has no {size} configuration; these have one: {', '.join(having)}")
    config = settings() if isinstance(settings, type) else settings
    if size == "paper" and hasattr(module, "cells"):
        return config._replace(keep=Shelf())
    if size != "quick" and "keep" in config._fields:
        return config._replace(keep=str(folder / "runs"))
    return config


def run_one(stem: str, folder: pathlib.Path, *, size: str, console: Console) -> pathlib.Path:
    """Run one experiment, store its result and print its table."""
    from gossipjax.results._trajectory import code_version

    module = module_of(stem)
    config = configuration(module, size, folder)
    start = time.monotonic()
    dataset = module.run(config)
    facts = {"configuration": config._asdict(), "quick": size == "quick", "size": size, "code": code_version()}
    path = store.save(stem, dataset, facts | {"seconds": round(time.monotonic() - start, 1)}, folder)
    show(f"{stem}: {module.CLAIM}", module.table(store.load(stem, folder)), console)
    console.print(f"  {time.monotonic() - start:.0f} s; result {path}\n")
    return path


def wants_one_device(stem: str) -> bool:
    """Return whether a stem runs long scans of narrow events, which are much slower with more devices or threads.

    The module of such a stem sets ``ONE_DEVICE = True``.
    """
    return getattr(module_of(stem), "ONE_DEVICE", False)


def run_alone(stem: str, folder: pathlib.Path, *, size: str) -> None:
    """Run one experiment in its own process, because the number of devices is fixed once JAX has started.

    Raises:
        OSError: the experiment failed; its output says why.
    """
    words = [sys.executable, "-m", "experiments", "run", stem, "--out", str(folder)]
    words += [] if size == "full" else [f"--{size}"]
    if status := subprocess.run(words, check=False).returncode:
        raise OSError(f"{stem} ended with status {status}")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; bad input ends with a one-line error and status 2."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list every experiment and its claim")
    run = commands.add_parser("run", help="run experiments and store their results")
    run.add_argument("stems", nargs="+", metavar="STEM", help=f"{', '.join(STEMS)}, or all")
    sizes = run.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="the quick form: seconds instead of minutes")
    sizes.add_argument("--paper", action="store_true", help="the paper's own scale")
    run.add_argument("--out", type=pathlib.Path, default=store.DEFAULT, metavar="DIR", help="folder of the results")
    papers_command.add(commands)
    options = parser.parse_args(words)
    console = Console(width=max(150, Console().width))
    try:
        if options.command == "list":
            for stem in STEMS:
                console.print(f"{stem:34} {module_of(stem).CLAIM}")
            return 0
        if options.command == "papers":
            return papers_command.main(options, console)
        size = "quick" if options.quick else "paper" if options.paper else "full"
        stems = list(STEMS) if options.stems == ["all"] else options.stems
        for stem in stems:  # before any long work
            configuration(module_of(stem), size, options.out)
        check_folder("--out", options.out, *(store.path_of(stem).name for stem in stems))
        narrow = [stem for stem in stems if wants_one_device(stem)]
        if narrow == stems:
            gossipjax.configure(host_devices=1, intra_op_threads=1)
            narrow = []
        else:
            gossipjax.configure()
        for stem in stems:
            if stem in narrow:
                run_alone(stem, options.out, size=size)
            else:
                run_one(stem, options.out, size=size, console=console)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
