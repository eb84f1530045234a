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
from gossipjax.review._bench import Bench, Budget, measure, scans
from gossipjax.review._row import Row, row
from gossipjax.review._submission import read

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
    learned, held = scans(bench.budget.samples, bench.seed)
    about = {
        "command": command,
        "rerun": f"python -m gossipjax review --rerun {bench.folder}",
        "claim": str(bench.submission.claim),
        "module": bench.submission.name,
        "module_sha256": bench.submission.digest,
        "seed": bench.seed,
        "budget": bench.budget._asdict(),
        "data_sha256": {"with the validation split": learned.checksum, "with the test split": held.checksum},
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


def cells_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the files of all cells."""
    return sorted((folder / RECORDS).glob("[!.]*.nc"))


def rerun(folder: str | os.PathLike[str], cell: str | None = None) -> Rerun:
    """Run a cell of an archive again, and compare all its records bit for bit.

    Args:
        folder: that :func:`run` wrote.
        cell: the name of a file in its folder ``records``, with or without ``.nc``; None: the first in order.

    Raises:
        ValueError: if the folder is no archive, there is no such cell, or its file is damaged.
    """
    bench, about = open_archive(folder)
    return rerun_cell(bench, about["environment"], cell)


def rerun_cell(bench: Bench, then: dict[str, Any], cell: str | None) -> Rerun:
    """Run one cell again."""
    from gossipjax.sweeps._cells import read as read_cell

    found = {path.stem: path for path in cells_of(bench.folder)}
    name = min(found, default="") if cell is None else cell.removesuffix(".nc")
    if name not in found:
        raise ValueError(f"cell={shown(cell)}: the archive has {', '.join(found) or 'no cells'}")
    about, kept = read_cell(found[name])
    again = measure(bench, about.config)
    equal = all(np.array_equal(kept[each].values, again[each].values, equal_nan=True) for each in again.data_vars)
    now = environment()
    changed = tuple(each for each in ("versions", "device", "x64", "code") if then.get(each) != now[each])
    return Rerun(name, bool(equal), changed)


def certificate(bench: Bench, command: str) -> Row:
    """Row 12: what the numbers rest on; one cell is run again."""
    found = rerun_cell(bench, environment(), None)
    learned, _ = scans(bench.budget.samples, bench.seed)
    versions = ", ".join(f"{name} {version}" for name, version in environment()["versions"].items())
    details = [versions, f"seed {bench.seed}; module {bench.submission.digest[:12]}; data {learned.checksum[:12]}",
               f"{bench.runs} runs, {bench.programs} programs; command: {command}"]  # fmt: skip
    problems = [] if found.equal else [f"cell {found.cell} is not equal bit for bit when it is run again"]
    problems += _over(bench)
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
