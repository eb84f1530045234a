"""The command ``python -m gossipjax review``: a protocol in a file, reviewed without a program."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

from gossipjax._base.configuration import configure
from gossipjax.review._archive import rerun
from gossipjax.review._report import MARKS, Review
from gossipjax.review._review import run


def add_command(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("review", help="answer the twelve questions of a reviewer about a protocol in a file")
    parser.add_argument("module", nargs="?", help="a Python file with protocol, GRID and CLAIM")
    parser.add_argument("--quick", action="store_true", help="the first four rows: some minutes")
    parser.add_argument("--out", metavar="DIR", help="folder of the archive (review_NAME)")
    parser.add_argument("--seed", type=int, help="of data splits, graphs and plans (0)")
    parser.add_argument("--rerun", metavar="DIR", help="run a cell of an archive again and compare it bit for bit")
    parser.add_argument("--cell", help="which; the first in order if not given")


def answer(given: argparse.Namespace) -> int:
    """Review what a command names, or run a cell again; return the exit status: 1 if something failed.

    Raises:
        ValueError: if neither a module nor an archive is given, or they cannot be used.
    """
    if (given.module is None) == (given.rerun is None):
        raise ValueError("review: pass a Python file, or --rerun with the folder of an archive, and not both")
    unused = {"--cell": given.cell} if given.rerun is None else {
        "--quick": given.quick or None, "--out": given.out, "--seed": given.seed,
    }  # fmt: skip
    for option, value in unused.items():
        if value is not None:
            only = "is used only with --rerun" if given.rerun is None else "has no use with --rerun"
            raise ValueError(f"review: {option} {only}; leave it out")
    configure()
    if given.rerun is not None:
        found = rerun(given.rerun, given.cell)
        other = f"; another {' and another '.join(found.changed)} than in the review" if found.changed else ""
        print(f"cell {found.cell}: {'equal bit for bit' if found.equal else 'NOT equal'}{other}")
        return int(not found.equal)
    folder = f"review_{pathlib.Path(given.module).stem}" if given.out is None else given.out
    review = run(given.module, folder, quick=given.quick, seed=given.seed or 0)
    show(review)
    return int(bool(review.failed))


def show(review: Review) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=review.summary().splitlines()[0], title_justify="left")
    for column in ("row", "", "verdict", "why"):
        table.add_column(column)
    colours = {"pass": "green", "fail": "red", "not applicable": "dim"}
    for row in review.rows:
        mark = f"[{colours[row.verdict]}]{MARKS[row.verdict]}[/]"
        table.add_row(str(row.number), row.title, mark, row.reason.replace("[", "\\["))
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(table)
    console.print(f"all numbers: {review.folder / 'review.md'}", soft_wrap=True)
