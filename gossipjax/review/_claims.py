"""Rows 4 to 7 and 10: where the claim holds, always as paired differences of new seeds on the test split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gossipjax.facts import check_requires
from gossipjax.review._bench import WRITERS, Bench, Place
from gossipjax.review._row import Row, at_equal, curves, final, line, listed, missing, row
from gossipjax.review._statistics import FEWEST, compare, interval
from gossipjax.review._submission import LEVELS, NETWORKS
from gossipjax.review._tuning import FRESH, Tuned
from gossipjax.tasks import DataUnavailable

SPLITS = ("Dirichlet 0.1", "Dirichlet 1", "Dirichlet inf", WRITERS)
LEAST_NETWORKS = 5
"""Of seven, on which a claim that names none must hold."""


def runs_at(bench: Bench, tuned: dict[str, Tuned], name: str, place: Place, seeds: int | None = None) -> Any:
    """Return the records of a tuned contender on new seeds and the test split."""
    numbers = range(FRESH, FRESH + (bench.budget.row_seeds if seeds is None else seeds))
    return bench.records(name, tuned[name].best, place, numbers, test=True)


def reason_against(bench: Bench, tuned: dict[str, Tuned], name: str, place: Place) -> str:
    """Say why a contender cannot run at a place; an empty text if it can."""
    try:
        learned, _ = bench.problem(place)
        check_requires(bench.build(name, tuned[name].best, learned).requires, bench.timeline(name, place).properties)
    except (ValueError, DataUnavailable) as error:
        return str(error).split("; a timeline that fits")[0]
    return ""


def seeds_row(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Row 4: compare with all baselines on new seeds."""
    claim, k = bench.submission.claim, bench.budget.seeds
    ends = {name: final(runs_at(bench, tuned, name, bench.main, k), claim.level) for name in bench.contenders}
    found = compare({name: ends["protocol"] - ends[name] for name in bench.contenders if name != "protocol"})
    (claimed,) = (each for each in found if each.name == claim.baseline)
    problems = (
        []
        if claimed.word == "better"
        else [
            f"{claimed.word} to {claim.baseline}"
            if claimed.word == "no difference"
            else f"{claimed.word}: {claim.baseline}"
        ]
    )
    problems += [] if k >= FEWEST else [f"{k} seeds are fewer than {FEWEST}"]
    problems += score_problems(bench.submission.score)
    accuracy = "; ".join(f"{name} {values.mean():.3f}" for name, values in ends.items())
    return row(
        4, not problems, "; ".join(problems) or f"better than {claim.baseline} on {k} new seeds", [accuracy, *found]
    )


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


def _gains(
    bench: Bench, tuned: dict[str, Tuned], places: Iterable[tuple[str, Place]]
) -> tuple[dict[str, Any], list[str]]:
    """Return final gains over the claimed baseline by condition, and why some conditions could not be run."""
    claim, gains, without = bench.submission.claim, {}, []
    for where, place in places:
        against = [
            f"{name}: {why}"
            for name in ("protocol", claim.baseline)
            if (why := reason_against(bench, tuned, name, place))
        ]
        if against:
            without.append(f"{where}: not run; {against[0]}")
            continue
        ours, theirs = (runs_at(bench, tuned, name, place) for name in ("protocol", claim.baseline))
        gains[where] = final(ours, claim.level) - final(theirs, claim.level)
    return gains, without


def topologies(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Row 5: seven networks, at equal rounds and at equal bytes."""
    claim, without, rounds, sent = bench.submission.claim, [], {}, {}
    for network in NETWORKS:
        place = bench.main._replace(network=network)
        against = [why for name in ("protocol", claim.baseline) if (why := reason_against(bench, tuned, name, place))]
        if against:
            without.append(f"{network}: not run; {against[0]}")
            continue
        ours, theirs = (runs_at(bench, tuned, name, place) for name in ("protocol", claim.baseline))
        rounds[network] = final(ours, claim.level) - final(theirs, claim.level)
        sent[network] = at_equal(curves(ours, claim.level), curves(theirs, claim.level), _bytes(ours), _bytes(theirs))
    tables = {"at equal degree": listed(rounds), "at equal bytes": listed(sent)}
    if claim.axis == "bytes":
        tables = {"at equal bytes": tables["at equal bytes"]}
    elif claim.axis is not None:
        tables = {"at equal degree": tables["at equal degree"]}
    needed, problems = claim.networks or NETWORKS, []
    for how, table in tables.items():
        good = [network for network in needed if network in table and table[network].word == "better"]
        least = len(needed) if claim.networks else LEAST_NETWORKS
        if len(good) < least:
            problems.append(f"{how} the claim holds on {len(good)} of {len(needed)} networks, and {least} are needed")
    details = [line(f"{network}, {how}", found) for how, table in tables.items() for network, found in table.items()]
    where = "all networks that it names" if claim.networks else f"{LEAST_NETWORKS} of {len(NETWORKS)} networks or more"
    return row(5, not problems, "; ".join(problems) or f"the claim holds on {where}", [*details, *without])


def _bytes(records: Any) -> Any:
    return records["bytes_sent"].transpose("seed", "record").values.mean(0)


def heterogeneity(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Row 6: other splits of the data among the nodes."""
    gains, without = _gains(bench, tuned, ((split, bench.main._replace(split=split)) for split in SPLITS))
    if not gains:
        return missing(6, "no split could be run", without)
    found = listed(gains)
    words = [each.word for each in found.values()]
    passed = 2 * words.count("better") >= len(words) and not {"worse", "no value"} & set(words)
    reason = f"better on {words.count('better')} of {len(words)} splits, worse on {words.count('worse')}"
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
    found = listed({level: final(ours, level) - final(theirs, level) for level in LEVELS})
    word = found[claim.level].word
    reason = f"claimed for the {claim.level}: {word}" + ("" if word == "better" else _elsewhere(found))
    return row(10, word == "better", reason, [line(_of(level), each) for level, each in found.items()])


def _of(level: str) -> str:
    return "average model, which is also the merged one" if level == "average model" else level


def _elsewhere(found: dict[str, Any]) -> str:
    others = [level for level, each in found.items() if each.word == "better"]
    return f"; the gain is one of the {' and the '.join(others)}" if others else ""
