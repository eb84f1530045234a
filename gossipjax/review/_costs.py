"""Row 8: the same accuracies over rounds, samples, bytes and seconds, and whether these are counted honestly."""

from __future__ import annotations

from typing import Any

import numpy as np

from gossipjax.design import seconds_per_round
from gossipjax.devices import Devices, fitted, uniform
from gossipjax.review import _networks
from gossipjax.review._bench import Bench
from gossipjax.review._claims import runs_at
from gossipjax.review._row import Row, at_equal, curves, line, listed, row
from gossipjax.review._samples import batches_per_event
from gossipjax.review._tuning import Tuned
from gossipjax.review._wire import Wire, least_bits
from gossipjax.systems import allreduce
from gossipjax.timeline import event_times

PLANNED = 64
"""Rounds for which the seconds of a round are planned."""
NEEDED = {
    None: ("rounds", "samples", "bytes", "seconds"),
    "rounds": ("rounds", "samples"),
    "samples": ("samples",),
    "bytes": ("bytes",),
    "seconds": ("seconds",),
}
"""Axes on which a claim must hold. Rounds cost nothing by themselves, so equal rounds must be equal samples too."""


def machines(bench: Bench) -> dict[str, Devices]:
    """Return the devices on which seconds are planned."""
    n, given = bench.budget.num_nodes, bench.submission.devices
    found = {
        "phones": fitted(n, seed=bench.seed),
        "data centre": uniform(n, seconds_per_sample=1e-4, bytes_per_second=1e9, latency_seconds=1e-4),
        "edge": uniform(n, seconds_per_sample=5e-3, bytes_per_second=5e6, latency_seconds=0.02),
    }
    return found | ({"the authors' devices": given} if given is not None else {})


def costs_row(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Compare the curves of row 4 at equal cost, for each of the axes."""
    claim = bench.submission.claim
    names = ("protocol", claim.baseline)
    records = {name: runs_at(bench, tuned, name, bench.main, bench.budget.seeds) for name in names}
    batches = {name: _batches(bench, tuned, name) for name in names}
    axes, details = {}, [f"batches a round and node: {', '.join(f'{name} {b:g}' for name, b in batches.items())}"]
    for axis, costs in _axes(bench, records, batches, details).items():
        ours, theirs = (curves(records[name], claim.level) for name in names)
        axes[axis] = at_equal(ours, theirs, *(costs[name] for name in names))
    found = listed(axes)
    needed = [axis for axis in found if axis.split(" on ")[0] in NEEDED[claim.axis]]
    behind = [axis for axis in needed if found[axis].word != "better"]
    problems = [f"not better at equal {', '.join(behind)}"] if behind else []
    if "seconds" in NEEDED[claim.axis] and not any(axis.startswith("seconds") for axis in found):
        problems += ["seconds are claimed, and could not be planned"] if claim.axis == "seconds" else []
    honest, words = _wire(bench)
    problems += [] if honest else [words]
    worse = [axis for axis, each in found.items() if each.word == "worse" and axis not in behind]
    held = f"better at equal {', '.join(needed)}" + (f"; worse at equal {', '.join(worse)}" if worse else "")
    lines = [line(f"at equal {axis}", each) for axis, each in found.items()]
    return row(8, not problems, "; ".join(problems) or held, [*lines, *details, words])


def _axes(bench: Bench, records: Any, batches: dict[str, float], details: list[str]) -> dict[str, dict[str, Any]]:
    """Return the cost of each record, by axis and contender."""
    events = {name: each["event"].values.astype(np.float64) for name, each in records.items()}
    sent = {name: each["bytes_sent"].transpose("seed", "record").values.mean(0) for name, each in records.items()}
    axes = {"rounds": events}
    if all(np.isfinite(each) and each > 0 for each in batches.values()):
        axes["samples"] = {name: events[name] * batches[name] for name in events}
    else:
        details.append("samples: not compared; a protocol draws no batch in its first round")
    if all(np.isfinite(each).all() and each[-1] > 0 for each in sent.values()):
        axes["bytes"] = sent
    else:
        details.append("bytes: not compared; a protocol does not report them, or sends nothing")
        return axes
    for name, devices in machines(bench).items():
        try:
            paces = {c: _pace(bench, c, devices, sent[c][-1] / events[c][-1], batches[c]) for c in events}
        except ValueError as error:
            details.append(f"seconds on {name}: not planned; {error}")
        else:
            axes[f"seconds on {name}"] = {c: events[c] * paces[c] for c in events}
            details.append(f"seconds a round on {name}: {', '.join(f'{c} {pace:.4g}' for c, pace in paces.items())}")
    return axes


def _pace(bench: Bench, contender: str, devices: Devices, sent: float, batches: float) -> float:
    """Plan the seconds of a round, with messages of the bytes that are reported.

    Raises:
        ValueError: if its network is not one undirected graph, or its timeline is its own.
    """
    steps, size = max(round(batches), 1), bench.budget.batch_size
    n = bench.budget.num_nodes
    if contender == "allreduce_sgd":
        plan = allreduce(
            devices, PLANNED, local_steps=steps, model_bytes=max(round(sent / (2 * (n - 1))), 1), time_batch=size
        )
        return float(event_times(plan.timeline)[-1]) / PLANNED
    graph = _networks.graph(bench.main.network, n, bench.seed)
    if graph is None:
        raise ValueError(f"{bench.main.network} is not one undirected graph")
    if contender != bench.submission.claim.baseline and bench.submission.timeline is not None:
        raise ValueError("the protocol has a timeline of its own, which says its seconds")
    message = max(round(sent / (2 * graph.num_edges)), 1)
    return seconds_per_round(
        devices, graph, model_bytes=message, local_steps=steps, time_batch=size, num_rounds=PLANNED
    )


def _batches(bench: Bench, tuned: dict[str, Tuned], name: str) -> float:
    task, _ = bench.problem(bench.main)
    plan = bench.timeline(name, bench.main)
    return (
        batches_per_event(lambda given: bench.build(name, tuned[name].best, given), task, plan) / bench.budget.num_nodes
    )


def _wire(bench: Bench) -> tuple[bool, str]:
    """Compare the bytes that the protocol reports with the fewest that its messages can have."""
    if bench.submission.timeline is not None:
        return True, "bytes: the report was not checked, because the protocol has a timeline of its own"
    settings = bench.submission.trials[0] | {"step": 0.05}
    try:
        found = least_bits(lambda task: bench.build("protocol", settings, task))
    except ValueError as error:
        return True, f"bytes: the report was not checked, because the probe does not run: {error}"
    return found.believable, _words(found)


def _words(found: Wire) -> str:
    if not found.known:
        return (
            "bytes: the report was not checked, because values are rounded before they are sent, and no bound is known"
        )
    least = f"{found.reported / 8:.0f} bytes reported in the probe, at least {found.least / 8:.0f} needed"
    of_indices = f", of which {found.indices / 8:.0f} say which coordinates they are" if found.indices else ""
    return f"bytes: {least}{of_indices}" if found.believable else f"too few bytes are reported: {least}{of_indices}"
