"""Check the claims of theory: ``list``, or ``check [NAME…] [--quick] [--json FILE] [--report DIR]``."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import gossipjax

from . import check
from .check import report
from .check.run import COMMAND
from .output import check_file, check_folder


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    command_line = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    commands = command_line.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name every claim, its statement and its source")
    run = commands.add_parser("check", help="simulate claims and judge them")
    run.add_argument("names", nargs="*", metavar="NAME", help="claims, families, or patterns such as 'staleness_*'")
    run.add_argument("--quick", action="store_true", help="the quick form: fewer points and replicas")
    run.add_argument("--seed", type=int, default=0, help="seed of all simulations")
    run.add_argument("--jobs", type=int, default=None, help="number of processes; default: one per core")
    run.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all numbers to this file")
    run.add_argument("--report", type=pathlib.Path, metavar="DIR", help="write a page with figures to this folder")
    return command_line


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns 0 if no claim is violated, 1 if one is, 2 after bad input.
    """
    options, console = parser().parse_args(words), Console(width=max(150, Console().width))
    try:
        if options.command == "list":
            report.show_list(console)
            return 0
        return _check(options, console)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _check(options: argparse.Namespace, console: Console) -> int:
    chosen = check.select(options.names)
    jobs = gossipjax._base.configuration.usable_cores() if options.jobs is None else options.jobs
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: at least one process is needed")
    if options.seed < 0:
        raise ValueError(f"seed={options.seed}: must not be negative")
    if options.json is not None:  # before any long work
        check_file("--json", options.json)
    if options.report is not None:
        check_folder("--report", options.report, "index.html", "claims.md")
    if jobs == 1:
        gossipjax.configure(host_devices=1, intra_op_threads=1, x64=True)
    words = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")
    with Progress(*words, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("claims", total=len(chosen))

        def done(result: check.Result) -> None:
            bar.update(row, advance=1, description=result.claim.name)

        results = check.check(chosen, quick=options.quick, seed=options.seed, jobs=min(jobs, len(chosen)), done=done)
    report.show_results(results, console)
    if options.json is not None:
        report.write_text(
            options.json, json.dumps(report.as_json(results, quick=options.quick, seed=options.seed), indent=1)
        )
    if options.report is not None:
        page = report.write(results, options.report)
        console.print(f"report {page}")
    return int(any(result.verdict == "violated" for result in results))


if __name__ == "__main__":
    sys.exit(main())
