"""Row 3: every contender is tuned with as many trials, on a validation split."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from gossipjax._engine.simulate import simulate
from gossipjax.review._axes import Gain, Ran, gain
from gossipjax.review._bench import Bench
from gossipjax.review._row import Row, final, missing, row
from gossipjax.review._statistics import compare
from gossipjax.review._submission import WITHOUT

FRESH = 10_000
"""Seeds of all numbers that are reported begin here, and those of tuning at 0."""
_BEYOND = math.sqrt(10)
"""Ratio of the steps that are tried beyond the ends of the grid."""


class Trial(NamedTuple):
    """One setting on the validation split."""

    settings: dict[str, Any]
    accuracy: float


class Tuned(NamedTuple):
    """All trials of a contender, best first."""

    trials: list[Trial]
    at_the_end: bool
    """Whether the best step is the smallest or the largest that was tried."""

    @property
    def best(self) -> dict[str, Any]:
        """The settings of all runs that are reported."""
        return self.trials[0].settings


def tune(bench: Bench, contender: str) -> Tuned:
    """Try all settings of a grid, and steps beyond its ends while the best lies there, as many as the budget has.

    Every contender may try beyond its grid, so one whose best lies inside has fewer trials in the end.
    """
    trials = [_try(bench, contender, settings) for settings in first_trials(bench, contender)]
    for _ in range(bench.budget.extra_trials):
        further = _beyond(trials)
        if further is None:
            break
        trials.append(_try(bench, contender, further))
    ordered = sorted(trials, key=lambda each: -each.accuracy)
    return Tuned(ordered, _beyond(trials) is not None)


def first_trials(bench: Bench, contender: str) -> list[dict[str, Any]]:
    """Return the grid of the protocol, or as many settings for a baseline.

    Where a baseline has fewer settings than the protocol, it gets more steps, over the same range and then beyond.
    """
    entry = bench.submission
    if contender == "protocol":
        return entry.trials
    steps, number = sorted(entry.grid["step"]), len(entry.trials)
    others: list[dict[str, Any]] = [{}]
    if contender == WITHOUT:
        named = [{n: v for n, v in (each | entry.changed).items() if n != "step"} for each in entry.trials]
        others = [each for at, each in enumerate(named) if each not in named[:at]]
    found = [{"step": step} | other for step in steps for other in others]
    ends = [steps[0], steps[-1]]
    while len(found) < number:
        above = (len(found) // len(others) - len(steps)) % 2 == 0
        ends[above] *= _BEYOND if above else 1 / _BEYOND
        found += [{"step": float(f"{ends[above]:.3g}")} | other for other in others]
    return found[:number]


def _try(bench: Bench, contender: str, settings: dict[str, Any]) -> Trial:
    records = bench.records(contender, settings, bench.main, range(bench.budget.tuning_seeds), test=False)
    accuracy = final(records, bench.submission.claim.level).mean()
    return Trial(settings, float(accuracy) if np.isfinite(accuracy) else -math.inf)


def _beyond(trials: list[Trial]) -> dict[str, Any] | None:
    """Return the settings one step beyond the end of the grid at which the best trial lies; None if it lies inside."""
    best = max(trials, key=lambda each: each.accuracy)
    steps = sorted(each.settings["step"] for each in trials)
    if best.settings["step"] == steps[-1]:
        return best.settings | {"step": float(f"{steps[-1] * _BEYOND:.3g}")}
    return best.settings | {"step": float(f"{steps[0] / _BEYOND:.3g}")} if best.settings["step"] == steps[0] else None


def equal_tuning(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Compare best with best and second best with second best, on new seeds and the test split.

    The rank holds if the gain of the best setting is significant, and that of the second best has the same sign.
    """
    claim = bench.submission.claim
    details = [_trials(name, found) for name, found in tuned.items()]
    for name in ("protocol", claim.baseline):
        if len(tuned[name].trials) < 2:
            return missing(3, f"one setting of {name} was tried, and the rank of the second best needs two", details)
    gains = [_ranked(bench, tuned, number) for number in (0, 1)]
    names = [f"{claim.baseline}, {place} against {place}" for place in ("best", "second best")]
    ranks = [compare({name: each.values})[0] for name, each in zip(names, gains, strict=True)]
    holds = ranks[0].word == "better" and ranks[1].mean > 0
    problems = ["the protocol reads the test set of its task"] if reads_the_test_split(bench, tuned) else []
    problems += [] if holds else ["the rank does not hold for the best and the second-best setting"]
    if tuned[claim.baseline].at_the_end:
        problems.append(f"the best step of {claim.baseline} lies beyond all that were tried")
    problems += _of_authors(bench, tuned)
    details = [*map(str, ranks), *details]
    details += [f"the last records are compared; {gains[0].unmeasured}"] if gains[0].unmeasured else []
    reason = "; ".join(problems) or "the rank holds for the best and the second-best setting"
    return row(3, not problems, reason, details)


def _trials(name: str, found: Tuned) -> str:
    end = "; the best step is the last that was tried" if found.at_the_end else ""
    return f"{name}: {len(found.trials)} trials, best {_words(found.best)}, {found.trials[0].accuracy:.3f}{end}"


def _ranked(bench: Bench, tuned: dict[str, Tuned], number: int) -> Gain:
    """Return the gain of the protocol with its setting of a rank over the baseline with its own of that rank."""
    claim = bench.submission.claim
    ours, theirs = (_fresh(bench, tuned[name].trials[number].settings, name) for name in ("protocol", claim.baseline))
    return gain(ours, theirs, claim.axis, claim.level)


def _fresh(bench: Bench, settings: dict[str, Any], contender: str) -> Ran:
    """Return the records of new seeds on the test split, at the main place."""
    seeds = range(FRESH, FRESH + bench.budget.seeds)
    return Ran(bench, contender, settings, bench.main, bench.records(contender, settings, bench.main, seeds, test=True))


def reads_the_test_split(bench: Bench, tuned: dict[str, Tuned]) -> bool:
    """Whether another test set in the task gives other models: then something has looked at it."""
    task, _ = bench.problem(bench.main)
    inputs, labels = (np.asarray(task.test[name]) for name in ("inputs", "labels"))
    turned = {"inputs": inputs.max() - inputs, "labels": labels.max() - labels}
    plan, ends = bench.timeline("protocol", bench.main), []
    for each in (task, dataclasses.replace(task, test=task.test | turned)):
        protocol = bench.build("protocol", tuned["protocol"].best, each)
        ends.append(simulate(jax.random.key(0), protocol, plan, each, record_at=[len(plan)], throw=False).x)
    return not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*map(jax.tree.leaves, ends), strict=True))


def _of_authors(bench: Bench, tuned: dict[str, Tuned]) -> list[str]:
    """Say which baselines do better with the step that was found here than with that of the authors."""
    problems = []
    for name, step in bench.submission.authors_step.items():
        found, level = tuned[name].best, bench.submission.claim.level
        best, authors = (_fresh(bench, each, name) for each in (found, found | {"step": step}))
        gap = final(best.records, level) - final(authors.records, level)
        (compared,) = compare({name: gap})
        if compared.word in ("better", "no value"):
            problems.append(
                f"{name} with the authors' step {step:g} is {compared.mean:.3f} below its best, step {found['step']:g}"
            )
    return problems


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


def all_tuned(bench: Bench) -> dict[str, Tuned]:
    """Tune all contenders."""
    return {name: tune(bench, name) for name in bench.contenders}
