"""What can be predicted without a model: the floor that a model must beat before its accuracy says anything.

Of classes, the most frequent one of the training set. Of ratings, the mean of the training set, the mean of the user,
and the mean of the user plus that of the item, both from training ratings alone and clipped to the stars that exist:
``μ_u + Σ_i (r_ui − μ_u)/(c_i + 5)``, c_i the number of ratings of the item; an item without any has 0.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from experiments.lib.report import Row
from gossipjax import Task
from gossipjax.tasks._data.ratings import STARS
from theory.check.policy import Verdict, above, decide

MARGIN = {True: 0.05, False: 0.02}
"""By how much a model must beat the floor to count as trained: absolute for accuracies (True), relative for errors."""
DIGITS = 12
"""Decimals of a margin: one that is met exactly is not exceeded by rounding."""
FEW = 5.0
"""Ratings at 0 that are added to those of each item."""
CLASS, MEAN, USER, BOTH = "majority class", "training mean", "user means", "user and item means"


def predictors(task: Task, metric: str, test: Any = None) -> dict[str, float]:
    """Compute the score of each trivial predictor.

    Args:
        task: a task of classes, of the next character, or of ratings.
        metric: ``"rmse"`` of ratings, else the accuracy.
        test: the part of the test set that its models are evaluated on; None: all.
    """
    data, test = task.data, task.test if test is None else test
    if metric == "rmse":
        return _of_ratings(data["inputs"], data["labels"], test["inputs"], test["labels"])
    return {CLASS: _of_classes(_training_labels(task), np.asarray(test["labels"]))}


def _training_labels(task: Task) -> np.ndarray:
    data = task.data
    if "codes" not in data:
        return np.asarray(data["labels"])[np.asarray(data["indices"])]
    context = task.batch.args[0].value.context  # type: ignore[attr-defined]
    return np.asarray(data["codes"])[np.asarray(data["starts"]) + context]  # the character after each window


def _of_classes(train: np.ndarray, test: np.ndarray) -> float:
    return float(np.mean(test == np.bincount(train).argmax()))


def _of_ratings(train: Any, stars: Any, test: Any, wanted: Any) -> dict[str, float]:
    (users, items), (test_users, test_items) = np.asarray(train).T, np.asarray(test).T
    stars, wanted = np.asarray(stars, np.float64), np.asarray(wanted, np.float64)
    count = int(max(users.max(), test_users.max())) + 1
    ratings = np.bincount(users, minlength=count)
    mean = stars.mean()
    of_user = np.where(ratings > 0, np.bincount(users, stars, count) / np.maximum(ratings, 1), mean)
    size = int(max(items.max(), test_items.max())) + 1
    above_user = np.bincount(items, stars - of_user[users], size) / (np.bincount(items, minlength=size) + FEW)
    guesses = {
        MEAN: np.full(wanted.size, mean),
        USER: of_user[test_users],
        BOTH: of_user[test_users] + above_user[test_items],
    }
    return {name: float(np.sqrt(np.mean((np.clip(g, *STARS) - wanted) ** 2))) for name, g in guesses.items()}


def noted(task: Task, metric: str, test: Any = None) -> str:
    """Write the scores of the trivial predictors as text, which a stored run can hold."""
    return json.dumps(predictors(task, metric, test))


def read(text: Any) -> dict[str, float]:
    """Read :func:`noted`; empty for runs that were stored without it."""
    return json.loads(str(text)) if str(text).startswith("{") else {}


def stored(dataset: xr.Dataset) -> dict[str, float]:
    """Read the trivial predictors of a dataset, which are its variable or its attribute ``trivial``."""
    held = dataset["trivial"].values if "trivial" in dataset else dataset.attrs.get("trivial", "")
    return read(held)


def floor_of(known: dict[str, float], higher_is_better: bool | int) -> float:
    """Return the score that a model must beat, the best of the predictors but :data:`BOTH`; NaN if none is known.

    The means of users and items together are a model of every user and item, with as many facts about the items as a
    node can only have from others. They are shown for comparison; that a model has learned does not hang on them.
    """
    scores = [score for name, score in known.items() if name != BOTH]
    return (max if higher_is_better else min)(scores, default=np.nan)


def learned(ends: Any, known: dict[str, float], higher_is_better: bool | int) -> Verdict:
    """Judge whether models beat the floor by :data:`MARGIN`.

    Args:
        ends: scores at the end, one per seed, by the metric.
        known: trivial predictors.
        higher_is_better: 1 for accuracies, 0 for errors.
    """
    floor, higher, ends = floor_of(known, higher_is_better), bool(higher_is_better), np.asarray(ends, np.float64)
    if higher:
        lead = ends - floor
    else:
        lead = 1.0 - ends / floor if floor else -ends  # no error is below zero
    return decide(np.round(lead, DIGITS), above(MARGIN[higher]))


def no_room(known: dict[str, float], higher_is_better: bool | int) -> bool:
    """Whether even a perfect model would not beat the floor by :data:`MARGIN`, as with samples of one class."""
    floor = floor_of(known, higher_is_better)
    return floor >= 1.0 - MARGIN[True] if higher_is_better else floor <= 0.0


def gated(words: Any, ends: Any, known: dict[str, float], higher_is_better: bool | int) -> str:
    """Return a verdict on scores, or that it is undecided because the model has not learned."""
    found = learned(ends, known, higher_is_better)
    if found.word in ("reproduced", "no verdict"):
        return str(words)
    if not known:
        return "undecided: the run was stored without trivial predictors"
    if found.missing:
        return str(found)
    if no_room(known, higher_is_better):
        return "undecided: nothing can be better than the trivial predictor by the margin"
    return f"undecided: model has not learned (margin to the trivial predictor: {found})"


def rows(label: str, known: dict[str, float], higher_is_better: bool | int) -> list[Row]:
    """Tabulate the trivial predictors by the metric."""
    margin = MARGIN[bool(higher_is_better)]
    unit = f"{100 * margin:g} points" if higher_is_better else f"{100 * margin:g} %"
    said = {BOTH: "a model of every user and item, though not of factors: for comparison"}
    words = (
        f"no model; one that has learned is better than each of these, but for the last of ratings, by more than {unit}"
    )
    return [Row(f"{label}{name}", score, np.nan, np.nan, said.get(name, words)) for name, score in known.items()]
