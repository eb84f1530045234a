"""Row 8: the same accuracies over rounds, samples, bytes and seconds, and whether these are counted honestly."""

from __future__ import annotations

import numpy as np

from gossipjax.review._axes import Gain, Ran, batches, cost, gain, machines
from gossipjax.review._bench import Bench
from gossipjax.review._claims import runs_at
from gossipjax.review._row import Row, line, listed, missing, row
from gossipjax.review._statistics import Comparison
from gossipjax.review._submission import AXES
from gossipjax.review._tuning import Tuned
from gossipjax.review._wire import Wire, least_bits

NEEDED = {None: AXES, "rounds": ("rounds", "samples")}
"""Axes on which a claim must hold, besides that which it names: equal rounds must be equal samples too, because rounds
cost nothing by themselves."""


def costs_row(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Compare the curves of row 4 at equal cost, for each of the axes."""
    claim = bench.submission.claim
    runs = [runs_at(bench, tuned, name, bench.main, bench.budget.seeds) for name in ("protocol", claim.baseline)]
    gains = _gains(bench, *runs)
    found = listed({on: each.values for on, each in gains.items() if not each.unmeasured})
    needed = [on for on in gains if on.split()[0] in NEEDED.get(claim.axis, (claim.axis,))]
    honest, words = _wire(bench)
    problems, unknown = _problems(claim.axis, needed, gains, found)
    problems += [] if honest else [words]
    details = [line(f"at equal {on}", found[on]) if on in found else f"{on}: {gains[on].unmeasured}" for on in gains]
    details += [*_prices(runs), words]
    if unknown and not problems:
        held = ", ".join(on for on in needed if on in found)
        return missing(8, f"better at equal {held}; not measured: {', '.join(unknown)}", details)
    worse = [on for on, each in found.items() if each.word == "worse" and on not in needed]
    reason = f"better at equal {', '.join(needed)}" + (f"; worse at equal {', '.join(worse)}" if worse else "")
    return row(8, not problems, "; ".join(problems) or reason, details)


def _problems(
    axis: str | None, needed: list[str], gains: dict[str, Gain], found: dict[str, Comparison]
) -> tuple[list[str], list[str]]:
    """Say where the claim does not hold, and which other axes that it needs were not measured."""
    behind = [on for on in needed if on in found and found[on].word != "better"]
    problems = [f"not better at equal {', '.join(behind)}"] if behind else []
    lacking = [on for on in needed if on not in found]
    claimed = [on for on in lacking if axis is not None and on.split()[0] == axis]
    problems += [f"claimed at equal {axis}, but {gains[claimed[0]].unmeasured}"] if claimed else []
    return problems, [on for on in lacking if on not in claimed]


def _gains(bench: Bench, ours: Ran, theirs: Ran) -> dict[str, Gain]:
    """Return the gains on all axes, seconds on each of the machines."""
    level = bench.submission.claim.level
    found = {axis: gain(ours, theirs, axis, level) for axis in AXES if axis != "seconds"}
    for machine in machines(bench, bench.main.num_nodes):
        found[f"seconds on {machine}"] = gain(ours, theirs, "seconds", level, machine)
    return found


def _prices(runs: list[Ran]) -> list[str]:
    """Say what a round costs, where it is known."""
    lines: list[str] = []
    try:
        lines.append(f"batches a round and node: {', '.join(f'{ran.name} {batches(ran):g}' for ran in runs)}")
        for machine in machines(runs[0].bench, runs[0].place.num_nodes):
            paces = ((ran.name, np.diff(cost(ran, "seconds", machine))[-1] / _last(ran)) for ran in runs)
            lines.append(f"seconds a round on {machine}: {', '.join(f'{name} {pace:.4g}' for name, pace in paces)}")
    except ValueError:  # the line of the axis says why
        pass
    return lines


def _last(ran: Ran) -> float:
    return float(np.diff(cost(ran, "rounds"))[-1])


def _wire(bench: Bench) -> tuple[bool, str]:
    """Compare the bytes that the protocol reports with the fewest that its messages can have."""
    if bench.submission.timeline is not None:
        return True, "bytes: the report was not checked, because the protocol has a timeline of its own"
    settings = bench.settings_at(0.05)
    try:
        found = least_bits(lambda task: bench.build("protocol", settings, task))
    except Exception as error:  # whatever a protocol raises that was not made for this task
        words = f"the probe does not run: {type(error).__name__}: {error}"
        return True, f"bytes: the report was not checked, because {words}"
    return found.believable, _words(found)


def _words(found: Wire) -> str:
    if not found.known:
        return (
            "bytes: the report was not checked, because values are rounded before they are sent, and no bound is known"
        )
    least = f"{found.reported / 8:.0f} bytes reported in the probe, at least {found.least / 8:.0f} needed"
    of_indices = f", of which {found.indices / 8:.0f} say which coordinates they are" if found.indices else ""
    return f"bytes: {least}{of_indices}" if found.believable else f"too few bytes are reported: {least}{of_indices}"
