"""Rows 4 to 7 and 10: where the claim holds, always as paired differences of new seeds on the test split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from gossipjax.facts import check_requires
from gossipjax.review._axes import Gain, Ran, gain
from gossipjax.review._bench import WRITERS, Bench, Place
from gossipjax.review._row import Row, final, line, listed, missing, row
from gossipjax.review._statistics import FEWEST, compare, interval
from gossipjax.review._submission import LEVELS, NETWORKS
from gossipjax.review._tuning import FRESH, Tuned
from gossipjax.tasks import DataUnavailable

SPLITS = ("Dirichlet 0.1", "Dirichlet 1", "Dirichlet inf", WRITERS)
LEAST_NETWORKS = 5
"""Of seven, on which a claim that names none must hold; of fewer that a protocol runs on, the same share."""


def runs_at(bench: Bench, tuned: dict[str, Tuned], name: str, place: Place, seeds: int | None = None) -> Ran:
    """Return the records of a tuned contender on new seeds and the test split."""
    numbers = range(FRESH, FRESH + (bench.budget.row_seeds if seeds is None else seeds))
    settings = tuned[name].best
    return Ran(bench, name, settings, place, bench.records(name, settings, place, numbers, test=True))


def reason_against(bench: Bench, tuned: dict[str, Tuned], name: str, place: Place) -> str:
    """Say why a contender cannot run at a place; an empty text if it can."""
    try:
        learned, _ = bench.problem(place)
        check_requires(bench.build(name, tuned[name].best, learned).requires, bench.timeline(name, place).properties)
    except (ValueError, DataUnavailable) as error:
        return f"{name}: {error}"
    return ""


def seeds_row(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Row 4: compare with all baselines on new seeds."""
    claim, k = bench.submission.claim, bench.budget.seeds
    runs = {name: runs_at(bench, tuned, name, bench.main, k) for name in bench.contenders}
    ours = runs["protocol"]
    gains = {name: gain(ours, ran, claim.axis, claim.level) for name, ran in runs.items() if name != "protocol"}
    found = compare({name: each.values for name, each in gains.items()})
    (claimed,) = (each for each in found if each.name == claim.baseline)
    problems = [] if claimed.word == "better" else [claimed.verdict]
    problems += [] if k >= FEWEST else [f"{k} seeds are fewer than {FEWEST}"]
    problems += score_problems(bench.submission.score)
    ends = {name: final(ran.records, claim.level).mean() for name, ran in runs.items()}
    accuracy = f"at the last record: {'; '.join(f'{name} {value:.3f}' for name, value in ends.items())}"
    details = [accuracy, *found, *unmeasured(gains)]
    return row(4, not problems, "; ".join(problems) or f"better than {claim.baseline} on {k} new seeds", details)


def unmeasured(gains: dict[str, Gain]) -> list[str]:
    """Say where the last records were compared, because the axis of the claim was not measured."""
    return [
        f"{where}: the last records are compared; {each.unmeasured}" for where, each in gains.items() if each.unmeasured
    ]


def score_problems(score: Callable[[Any], Any] | None) -> list[str]:
    """Say what the authors' score reports that is not the mean over seeds of the last record."""
    if score is None:
        return []
    values = np.random.default_rng(0).uniform(0.2, 0.8, (FEWEST, 20))
    found, right = float(score(values.copy())), float(values[:, -1].mean())
    if abs(found - right) <= 1e-6:
        return []
    known = {
        "the best record of each seed": values.max(1).mean(),
        "the best seed": values[:, -1].max(),
        "the best record of the best seed": values.max(),
        "the best record of the mean": values.mean(0).max(),
    }
    what = next((name for name, value in known.items() if abs(found - value) <= 1e-6), f"{found:.3g}")
    return [
        f"the authors' score is {what}, and not the mean over seeds of the last record ({right:.3g} of a test table)"
    ]


def nan_problems(score: Callable[[Any], Any] | None) -> list[str]:
    """Say whether the authors' score hides a NaN."""
    if score is None:
        return []
    values = np.full((FEWEST, 20), 0.5)
    values[0, -3:] = np.nan
    return [] if np.isnan(float(score(values))) else ["the authors' score is a number although a seed ended in NaN"]


def _pairs(
    bench: Bench, tuned: dict[str, Tuned], places: Iterable[tuple[str, Place]]
) -> Iterator[tuple[str, tuple[Ran, Ran] | str]]:
    """Yield the runs of the protocol and of the claimed baseline by condition, or why it could not be run."""
    names = ("protocol", bench.submission.claim.baseline)
    for where, place in places:
        against = [why for name in names if (why := reason_against(bench, tuned, name, place))]
        if against:
            yield where, against[0]
        else:
            ours, theirs = (runs_at(bench, tuned, name, place) for name in names)
            yield where, (ours, theirs)


def _gains(
    bench: Bench, tuned: dict[str, Tuned], places: Iterable[tuple[str, Place]]
) -> tuple[dict[str, Any], list[str]]:
    """Return gains over the claimed baseline by condition, and notes on those that lack a run or the axis."""
    claim, gains, without = bench.submission.claim, {}, []
    for where, found in _pairs(bench, tuned, places):
        if isinstance(found, str):
            without.append(f"{where}: not run; {found}")
        else:
            gains[where] = gain(*found, claim.axis, claim.level)
    return {where: each.values for where, each in gains.items()}, [*without, *unmeasured(gains)]


def topologies(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Row 5: seven networks, at equal cost on the claimed axis; without one, at equal rounds and at equal bytes."""
    claim, without = bench.submission.claim, []
    axes = ("rounds", "bytes") if claim.axis is None else (claim.axis,)
    gains: dict[str, dict[str, Gain]] = {axis: {} for axis in axes}
    for network, runs in _pairs(bench, tuned, ((each, bench.main._replace(network=each)) for each in NETWORKS)):
        if isinstance(runs, str):
            without.append(f"{network}: not run; {runs}")
            continue
        for axis in axes:
            gains[axis][network] = gain(*runs, axis, claim.level)
    ran = list(gains[axes[0]])
    needed = claim.networks or tuple(ran)
    if not set(needed) & set(ran):
        return missing(5, "no network of the claim could be run", without)
    least = len(needed) if claim.networks else math.ceil(len(needed) * LEAST_NETWORKS / len(NETWORKS))
    problems, details = [], []
    for axis, on in gains.items():
        found = listed({network: each.values for network, each in on.items()})
        good = [network for network in needed if network in found and found[network].word == "better"]
        if len(good) < least:
            held = f"{len(good)} of {len(needed)} networks{'' if claim.networks else ' that can be run'}"
            problems.append(f"at equal {axis} the claim holds on {held}, and {least} are needed")
        details += [line(f"{network}, at equal {axis}", each) for network, each in found.items()]
        without += unmeasured(on)
    where = "all networks that it names" if claim.networks else f"{least} of {len(needed)} networks or more"
    return row(5, not problems, "; ".join(problems) or f"the claim holds on {where}", [*details, *without])


def heterogeneity(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Row 6: other splits of the data among the nodes."""
    gains, without = _gains(bench, tuned, ((split, bench.main._replace(split=split)) for split in SPLITS))
    if not gains:
        return missing(6, "no split could be run", without)
    found = listed(gains)
    words = [each.word for each in found.values()]
    passed = 2 * words.count("better") >= len(words) and not {"worse", "no value"} & set(words)
    worse = words.count("worse")
    reason = f"better on {words.count('better')} of {len(words)} splits, shown to be worse on {worse or 'none'}"
    return row(6, passed, reason, [*(line(where, each) for where, each in found.items()), *without])


def scale(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Row 7: more nodes share the same data."""
    sizes = bench.budget.sizes
    gains, without = _gains(bench, tuned, ((f"n = {n}", bench.main._replace(num_nodes=n)) for n in sizes))
    if len(gains) < 2:
        return missing(7, "fewer than two sizes could be run", without)
    ran = [n for n in sizes if f"n = {n}" in gains]
    found, table = listed(gains), np.stack(list(gains.values()))
    slopes = np.polyfit(np.log2(ran), table, 1)[0] if np.isfinite(table).all() else np.full(2, np.nan)
    mean, low, high = interval(slopes)
    trend = "grows" if low > 0 else "shrinks" if high < 0 else "has no clear trend"
    last, words = f"n = {ran[-1]}", [each.word for each in found.values()]
    passed = found[last].word == "better" and not {"worse", "no value"} & set(words)
    reason = f"{found[last].word} at {last}; the gain {trend}: {mean:+.3f} ({low:+.3f} to {high:+.3f}) a doubling"
    return row(7, passed, reason, [*(line(where, each) for where, each in found.items()), *without])


def node_level(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Row 10: whose accuracy has gained."""
    claim = bench.submission.claim
    ours, theirs = (
        runs_at(bench, tuned, name, bench.main, bench.budget.seeds) for name in ("protocol", claim.baseline)
    )
    gains = {level: gain(ours, theirs, claim.axis, level) for level in LEVELS}
    found = listed({level: each.values for level, each in gains.items()})
    word = found[claim.level].word
    reason = f"claimed for the {claim.level}: {word}" + ("" if word == "better" else _elsewhere(found))
    details = [line(_of(level), each) for level, each in found.items()]
    return row(10, word == "better", reason, [*details, *unmeasured(gains)])


def _of(level: str) -> str:
    return "average model, which is also the merged one" if level == "average model" else level


def _elsewhere(found: dict[str, Any]) -> str:
    others = [level for level, each in found.items() if each.word == "better"]
    return f"; the gain is one of the {' and the '.join(others)}" if others else ""
