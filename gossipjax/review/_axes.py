"""What records cost on the axes of a claim, and gains at equal cost, by which every row compares."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gossipjax.design import seconds_per_round
from gossipjax.devices import Devices, fitted, uniform
from gossipjax.review import _networks
from gossipjax.review._bench import Bench, Place
from gossipjax.review._row import at_equal, curves, final
from gossipjax.review._samples import batches_per_event
from gossipjax.systems import allreduce
from gossipjax.timeline import event_times

if TYPE_CHECKING:  # functions import xarray when they need it, because it takes 40 MB
    from xarray import Dataset as Records

PLANNED = 64
"""Rounds for which the seconds of a round are planned."""
AUTHORS = "the authors' devices"


class Ran(NamedTuple):
    """A contender's records at a place, and the settings that gave them."""

    bench: Bench
    name: str
    settings: dict[str, Any]
    place: Place
    records: Records


class Gain(NamedTuple):
    """Paired gains of one contender over another, a value for each seed."""

    values: Float[np.ndarray, " seeds"]
    unmeasured: str = ""
    """Why the axis was not measured, so that the last records are compared; empty if it was."""


def gain(ours: Ran, theirs: Ran, axis: str | None, level: str, machine: str | None = None) -> Gain:
    """Subtract accuracies at the largest cost that both have reached, read off between records by lines.

    The axis None stands for all of them, on which row 8 compares one by one: here the last records are compared.
    """
    if axis is None:
        return Gain(final(ours.records, level) - final(theirs.records, level))
    try:
        costs = [cost(each, axis, machine) for each in (ours, theirs)]
    except ValueError as error:
        return Gain(final(ours.records, level) - final(theirs.records, level), f"{axis} are not measured: {error}")
    return Gain(at_equal(curves(ours.records, level), curves(theirs.records, level), *costs))


def cost(ran: Ran, axis: str, machine: str | None = None) -> Float[np.ndarray, " records"]:
    """Return what each record has cost.

    Args:
        ran: the records.
        axis: rounds, samples of a node (in batches), bytes of all nodes, or seconds.
        machine: of :func:`machines`, for seconds; None: the authors' own devices, or phones.

    Raises:
        ValueError: why it is not measured.
    """
    events = ran.records["event"].values.astype(np.float64)
    if axis == "rounds":  # a timeline of its own may have many events in a round
        return events * (ran.bench.num_rounds(ran.name) / events[-1])
    if axis == "samples":
        return events * batches(ran)
    sent = ran.records["bytes_sent"].transpose("seed", "record").values.mean(0)
    if not np.isfinite(sent).all() or not sent[-1] > 0:
        raise ValueError(f"{ran.name} does not report bytes, or sends nothing")
    return sent if axis == "bytes" else events * _pace(ran, machine, float(sent[-1] / events[-1]))


def batches(ran: Ran) -> float:
    """Count the batches of a node in an event, at the main place.

    Raises:
        ValueError: if none is drawn in the first event.
    """
    found = _batches(ran.bench, ran.name, tuple(ran.settings.items()))
    if not (np.isfinite(found) and found > 0):
        raise ValueError(f"{ran.name} draws no batch in its first round")
    return found


@functools.lru_cache(maxsize=64)
def _batches(bench: Bench, name: str, settings: tuple[tuple[str, Any], ...]) -> float:
    task, _ = bench.problem(bench.main)
    plan = bench.timeline(name, bench.main)
    return batches_per_event(lambda given: bench.build(name, dict(settings), given), task, plan) / bench.main.num_nodes


def machines(bench: Bench, num_nodes: int) -> dict[str, Devices]:
    """Return the devices on which seconds are planned."""
    given = bench.submission.devices
    found = {
        "phones": fitted(num_nodes, seed=bench.seed),
        "data centre": uniform(num_nodes, seconds_per_sample=1e-4, bytes_per_second=1e9, latency_seconds=1e-4),
        "edge": uniform(num_nodes, seconds_per_sample=5e-3, bytes_per_second=5e6, latency_seconds=0.02),
    }
    return found | ({AUTHORS: given} if given is not None else {})


def _pace(ran: Ran, machine: str | None, sent: float) -> float:
    """Plan the seconds of a round without faults, with messages of the bytes that are reported.

    Raises:
        ValueError: if the network is not one undirected graph, the timeline is the protocol's own, or the devices do
            not fit.
    """
    bench, n, network = ran.bench, ran.place.num_nodes, ran.place.network
    known = machines(bench, n)
    devices = known[machine or (AUTHORS if AUTHORS in known else "phones")]
    steps, size = max(round(batches(ran)), 1), bench.budget.batch_size
    if ran.name == "allreduce_sgd":
        message = max(round(sent / (2 * (n - 1))), 1)
        plan = allreduce(devices, PLANNED, local_steps=steps, model_bytes=message, time_batch=size)
        return float(event_times(plan.timeline)[-1]) / PLANNED
    graph = _networks.graph(network, n, bench.seed)
    if graph is None:
        raise ValueError(f"{network} is not one undirected graph")
    if bench.has_own_timeline(ran.name):
        raise ValueError("the protocol has a timeline of its own, which says its seconds")
    message = max(round(sent / (2 * graph.num_edges)), 1)
    return seconds_per_round(
        devices, graph, model_bytes=message, local_steps=steps, time_batch=size, num_rounds=PLANNED
    )
