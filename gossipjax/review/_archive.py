"""Row 12 and the archive: what a review rests on, in a folder, from which any of its cells runs again."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from gossipjax._base.arguments import shown
from gossipjax._base.paths import as_path
from gossipjax.results._trajectory import environment
from gossipjax.review._bench import Bench, Budget, forget, measure
from gossipjax.review._row import Row, missing, row
from gossipjax.review._submission import read
from gossipjax.sweeps._cells import Cell
from gossipjax.sweeps._cells import read as read_cell

MODULE, MANIFEST, RECORDS = "submission.py", "manifest.json", "records"


class Rerun(NamedTuple):
    """A cell of an archive that was run again."""

    cell: str
    equal: bool
    """Whether all its records are equal bit for bit."""
    changed: tuple[str, ...]
    """Versions, device or code that are others than in the review."""


def write_manifest(bench: Bench, command: str) -> None:
    """Write the copy of the module and the manifest."""
    (bench.folder / MODULE).write_text(bench.submission.source, encoding="utf-8")
    bench.data(bench.main.split)  # hashed even if no run was made
    about = {
        "command": command,
        "rerun": f"python -m gossipjax review --rerun {bench.folder}",
        "claim": str(bench.submission.claim),
        "module": bench.submission.name,
        "module_sha256": bench.submission.digest,
        "seed": bench.seed,
        "budget": bench.budget._asdict(),
        "data_sha256": bench.checksums,
        "environment": environment(),
        "runs": bench.runs,
        "programs": bench.programs,
    }
    (bench.folder / MANIFEST).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def open_archive(folder: str | os.PathLike[str]) -> tuple[Bench, dict[str, Any]]:
    """Read the bench and the manifest of an archive.

    Raises:
        ValueError: if the folder is no archive of a review.
    """
    at = as_path("folder", folder)
    try:
        about = json.loads((at / MANIFEST).read_text(encoding="utf-8"))
        budget = Budget(**{**about["budget"], "sizes": tuple(about["budget"]["sizes"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"folder={shown(str(folder))}: is no archive of a review ({error})") from error
    return Bench(read(at / MODULE), budget, at, int(about["seed"])), about


def is_archive(folder: pathlib.Path) -> bool:
    """Whether a folder is that of a review."""
    try:
        return "module_sha256" in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def cells_of(bench: Bench) -> dict[str, Cell]:
    """Return the cells of this module, budget, seed and data; those of earlier versions stay in the folder unread."""
    found = {path.stem: read_cell(path)[0] for path in sorted((bench.folder / RECORDS).glob("[!.]*.nc"))}
    return {name: each for name, each in found.items() if each.version == bench.version(each.config["split"])}


def rerun(folder: str | os.PathLike[str], cell: str | None = None) -> Rerun:
    """Run a cell of an archive again, and compare all its records bit for bit.

    The module of the archive is read, and nothing that was compiled or loaded before is used.

    Args:
        folder: that :func:`run` wrote.
        cell: the name of a file in its folder ``records``, with or without ``.nc``; None: the first in order.

    Raises:
        ValueError: if the folder is no archive, there is no such cell, its file is damaged, or it was made by another
            version of the module.
    """
    bench, about = open_archive(folder)
    forget()
    found = cells_of(bench)
    name = min(found, default="") if cell is None else cell.removesuffix(".nc")
    if name not in found:
        raise ValueError(
            f"cell={shown(cell)}: the archive has {', '.join(found) or 'no cells'} of its module and its data"
        )
    _, kept = read_cell(bench.folder / RECORDS / f"{name}.nc")
    again = measure(bench, found[name].config)
    equal = all(np.array_equal(kept[each].values, again[each].values, equal_nan=True) for each in again.data_vars)
    then, now = about["environment"], environment()
    changed = tuple(each for each in ("versions", "device", "x64", "code") if then.get(each) != now[each])
    return Rerun(name, bool(equal), changed)


def certificate(bench: Bench, command: str) -> Row:
    """Row 12: what the numbers rest on; one cell is run again, from the archive."""
    versions = ", ".join(f"{name} {version}" for name, version in environment()["versions"].items())
    data = ", ".join(f"{name} {about['test'][:12]}" for name, about in bench.checksums.items())
    details = [versions, f"seed {bench.seed}; module {bench.submission.digest[:12]}; data: {data}",
               f"{bench.runs} runs, {bench.programs} programs in this process; command: {command}"]  # fmt: skip
    if not cells_of(bench):
        return missing(12, "no cell was finished, so none can be run again", details)
    found = rerun(bench.folder)
    over = _over(bench)
    problems = [] if found.equal else [f"cell {found.cell} is not equal bit for bit when it is run again"]
    if bench.budget == Budget():
        problems += over
    else:  # who chose the budget chose its limits, too
        details += over
    return row(12, not problems, "; ".join(problems) or f"cell {found.cell} run again is equal bit for bit", details)


def _over(bench: Bench) -> list[str]:
    budget, problems = bench.budget, []
    if bench.programs > budget.most_programs:
        problems.append(
            f"{bench.programs} programs were compiled, and {budget.most_programs} are allowed: keep settings as "
            "arguments, as Partial(optax.sgd, step) does"
        )
    if bench.runs > budget.most_runs:
        problems.append(f"{bench.runs} runs were made, and {budget.most_runs} are allowed: try fewer settings")
    return problems
