"""Run all rows of a review."""

from __future__ import annotations

import os
import pathlib
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from gossipjax._base.arguments import flag
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.paths import as_path
from gossipjax._base.progress import progress_bar
from gossipjax._engine.growth import Diverging
from gossipjax.review._archive import RECORDS, certificate, is_archive, write_manifest
from gossipjax.review._bench import Bench, Budget, ProtocolRaised, check_budget
from gossipjax.review._claims import heterogeneity, node_level, scale, seeds_row, topologies
from gossipjax.review._correctness import convex, correct
from gossipjax.review._costs import costs_row
from gossipjax.review._faults import faults_row
from gossipjax.review._report import Review
from gossipjax.review._row import Row, missing, row
from gossipjax.review._security import security_row
from gossipjax.review._submission import read
from gossipjax.review._tuning import Tuned, all_tuned, equal_tuning

QUICK, TUNING = 4, 3
"""Rows of a quick review, and the row of the tuning."""


def run(
    module: str | os.PathLike[str] | types.ModuleType,
    folder: str | os.PathLike[str] | None = None,
    *,
    quick: bool = False,
    budget: Budget | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Review:
    """Review a protocol: twelve questions that a reviewer asks, answered by runs.

    The module is one file, which is all that the archive keeps of it. It has ``protocol(task, step, **settings)``,
    which returns a :class:`gossipjax.Protocol`; ``GRID``, a dict of the values of ``step`` and of other settings; and
    ``CLAIM``, such as ``"better than dpsgd on torus"``, of the form "better than BASELINE [on NETWORK, …] [at equal
    AXIS] [for LEVEL]". It may have

    * ``WITHOUT``: settings that switch off what is new, or a function ``without(task, step, **settings)``;
    * ``timeline(graph, num_rounds, seed)``: the plan of the protocol, if it does not run in rounds;
    * ``DEVICES``: more devices on which to count seconds;
    * ``CONSERVES_MEAN = False`` and ``PRIVATE = True``: what the authors say of it; private means that neither a
      neighbour's data, nor a contribution, nor membership in the training data can be told;
    * ``AUTHORS_STEP``: the steps of baselines in the authors' comparison, and ``score(accuracy)``, how they make a
      number of a table ``(seeds, records)``; both are only judged, and never used;
    * ``expected_error(W, targets, step, noise_std, num_rounds)``: E (1/n) Σ_i ‖x_i − x*‖² on quadratics
      ``½ ‖x − b_i‖²`` with gradient noise, from x = 0, with x* the mean target.

    D-PSGD, local SGD, all-reduce and the protocol without its new part are the baselines; all are tuned with as many
    trials on a validation split, and a few more for those whose best step is the last of its grid. What is reported is
    read off, on a test split that neither the tuning nor the protocol has seen and with new seeds, at the largest cost
    on the claimed axis that both have reached; without an axis, in the last record.

    Args:
        module: a Python file, or a module.
        folder: of the archive, in a folder that exists; None: a new temporary one. A review that was interrupted goes
            on in the same folder.
        quick: only the first four rows.
        budget: how much to run; None: 16 nodes, 200 rounds, and 8 new seeds for the claim, 5 in the other rows.
        seed: of data splits, graphs and plans.
        progress: show a bar; None: only on a terminal.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the module cannot be read, a part is missing or out of range, or the folder cannot be used.
    """
    entry, quick, seed = read(module), flag("quick", quick), checked_seed(seed)
    budget = check_budget(Budget() if budget is None else budget)
    progress = None if progress is None else flag("progress", progress)
    command = f"gossipjax.review.run({entry.path!r}, quick={quick}, budget=gossipjax.review.{budget}, seed={seed})"
    bench = Bench(entry, budget, _folder(folder), seed)
    write_manifest(bench, command)  # cells of a review that is interrupted run again, too
    begun, rows = time.monotonic(), list[Row]()
    with progress_bar(progress, "review", QUICK if quick else 12) as show, warnings.catch_warnings():
        warnings.simplefilter("ignore", Diverging)  # a step that is too large is a trial like any other
        tuned = _attempt(bench, lambda: all_tuned(bench))
        for number, answer in enumerate(_answers(bench, tuned, command, quick), start=1):
            rows.append(_guarded(bench, number, answer))
            show(number)
    write_manifest(bench, command)
    found = Review(str(entry.claim), tuple(rows), bench.folder, time.monotonic() - begun, bench.runs, bench.programs)
    (bench.folder / "review.md").write_text(found.markdown(), encoding="utf-8")
    return found


class Problem(NamedTuple):
    """An exception, and whether the reviewed module is to blame for it."""

    of_the_module: bool
    words: str
    details: tuple[str, ...]


def _attempt(bench: Bench, make: Callable[[], Any]) -> Any:
    """Return what a function makes, or the problem that it has."""
    try:
        return make()
    except Exception as error:
        own = isinstance(error, ProtocolRaised) or any(
            frame.filename == bench.submission.path for frame in traceback.extract_tb(error.__traceback__)
        )
        first = str(error).strip().splitlines()
        what = f"raised {type(error).__name__}: {first[0] if first else ''}"
        return Problem(own, what, tuple(first[1:20]))


def _guarded(bench: Bench, number: int, answer: Callable[[], Row]) -> Row:
    """Answer a question; a protocol that raises fails it, an error of the review decides nothing."""
    found = _attempt(bench, answer)
    if not isinstance(found, Problem):
        return found
    if found.of_the_module:
        return row(number, False, f"the protocol {found.words}", found.details)
    return missing(number, f"the review {found.words}", found.details)


def _answers(bench: Bench, tuned: dict[str, Tuned] | Problem, command: str, quick: bool) -> list[Callable[[], Row]]:
    """List the questions; those that need tuned settings say why there are none."""
    late = (equal_tuning, seeds_row, topologies, heterogeneity, scale, costs_row, faults_row, node_level, security_row)
    if isinstance(tuned, Problem):
        rest = [_untuned(number, tuned) for number in range(3, 12)]
    else:
        bench.tuned_settings = tuned["protocol"].best
        rest = [_bound(each, bench, tuned) for each in late]
    every = [lambda: correct(bench), lambda: convex(bench), *rest, lambda: certificate(bench, command)]
    return every[:QUICK] if quick else every


def _untuned(number: int, problem: Problem) -> Callable[[], Row]:
    who = "the protocol" if problem.of_the_module else "the review"
    words = f"no settings: in the tuning {who} {problem.words}"
    if number == TUNING and problem.of_the_module:
        return lambda: row(number, False, words, problem.details)
    return lambda: missing(number, words, problem.details)


def _bound(answer: Any, bench: Bench, tuned: dict[str, Tuned]) -> Callable[[], Row]:
    return lambda: answer(bench, tuned)


def _folder(folder: Any) -> pathlib.Path:
    if folder is None:
        at = pathlib.Path(tempfile.mkdtemp(prefix="review-"))
    else:
        at = as_path("folder", folder)
        if not at.absolute().parent.is_dir() or (at.exists() and not at.is_dir()):
            raise ValueError(f"folder={str(at)!r}: must be a folder whose parent exists")
        if at.is_dir() and any(at.iterdir()) and not is_archive(at):
            raise ValueError(f"folder={str(at)!r}: has files that are not of a review; pass a new or an empty folder")
    at.mkdir(exist_ok=True)
    (at / RECORDS).mkdir(exist_ok=True)
    return at
