"""A progress bar with the time that is left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(shown: bool | None, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on the standard error stream while the block runs; yield the function that moves it.

    Args:
        shown: whether there is one; None: only on a terminal.
        name: what is being done.
        total: the number at which it is full.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(name, total=total)
        yield lambda done: bar.update(row, completed=done)
