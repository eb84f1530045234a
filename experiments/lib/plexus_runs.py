"""Plans of Plexus and its learning on the phones and data at hand, measured in seconds, bytes and training seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib.problems import Problem
from gossipjax import Protocol, Task, Timeline, devices, fedavg, observe, replicate, restarted, simulate, systems
from gossipjax._base.binding import Frozen
from gossipjax.devices import Devices
from gossipjax.systems import Plan
from gossipjax.tasks import DataUnavailable
from gossipjax.types import NOBODY

HOUR = 3600.0
GIB = 2.0**30
WITHIN = 0.15
"""Deviation from a published number that counts as its reproduction."""


def phones(n: int, seed: int, *, availability: Literal["charging"] | None = None) -> Devices:
    """Take n phones from traces where their files are at hand, else draw alike ones; ``name`` says which."""
    try:
        return devices.from_traces(n, seed, availability=availability)
    except DataUnavailable:
        return devices.fitted(n, seed, availability=availability)


def kind_of(phones: Devices) -> str:
    """Say where devices come from, without their number and seed."""
    return "published traces" if phones.name.startswith("traces") else "phones drawn from fitted laws"


def equal_models(task: Task, num_rows: Frozen[int], key: Any) -> Any:
    """Start all rows at one model; a function of the module, so that runs of one problem share what is compiled."""
    return replicate(task.init(key), num_rows.value)


def alike(timelines: Sequence[Timeline]) -> list[Timeline]:
    """Fill up timelines with lanes and slots that nobody uses, so that their runs share one compiled program."""
    widths = {name: max(one.xs[name].shape[-1] for one in timelines) for name in timelines[0].xs}
    slots = max(one.properties.num_slots for one in timelines)
    found = []
    for one in timelines:
        xs = {}
        for name, array in one.xs.items():
            missing = [(0, 0)] * (array.ndim - 1) + [(0, widths[name] - array.shape[-1])]
            if name in ("index", "time"):
                xs[name] = np.pad(array, missing, mode="edge")
            else:
                xs[name] = np.pad(array, missing, constant_values=0 if name in ("weights", "messages") else NOBODY)
        facts = dataclasses.replace(one.properties, num_slots=slots)
        found.append(dataclasses.replace(one, xs=xs, properties=facts))
    return found


def learn(
    given: Problem,
    plan: Plan,
    timeline: Timeline | None = None,
    *,
    local_steps: int,
    every: int,
    test_samples: int | None = None,
    seed: int = 0,
    checkpoint: Any = None,
) -> xr.Dataset:
    """Learn as planned; record the score of the global model, and what was spent until then, over ``record``.

    Args:
        given: the task.
        plan: of as many nodes.
        timeline: of the plan, maybe filled up by :func:`alike`; None: as it is.
        local_steps: E, as in the plan.
        every: means between two records; those after the last record are left out.
        test_samples: a fixed random subset; None: all.
        seed: of the learning.
        checkpoint: folder to resume from.
    """
    protocol = fedavg(given.task, optimizer_of(given, local_steps), local_steps=local_steps)
    made = plan.timeline if timeline is None else timeline
    return record(
        given, plan, made, protocol, nodes=[0], every=every, test_samples=test_samples, seed=seed, checkpoint=checkpoint
    )


def record(
    given: Problem,
    plan: Plan,
    timeline: Timeline,
    protocol: Protocol,
    *,
    nodes: Sequence[int] | int,
    every: int,
    test_samples: int | None,
    seed: int,
    checkpoint: Any,
) -> xr.Dataset:
    """Run a protocol on a plan's timeline; record the mean score of some nodes, and what was spent, over ``record``.

    The events after the last whole ``every`` of them are left out, so that all compiled calls are alike. Bytes are read
    off the plan, whose messages may have the size of a larger network than the one that learns.
    """
    timeline = systems.stand_in(timeline)
    kept = max(1, len(timeline) // every) * every
    trajectory = simulate(
        jax.random.key(seed),
        protocol,
        timeline[:kept] if kept < len(timeline) else timeline,
        Partial(equal_models, given.task, Frozen(timeline.properties.num_rows)),
        observers=(observe.node_metrics(given.task, nodes=nodes, samples=test_samples, seed=0),),
        record_every=min(every, len(timeline)),
        checkpoint=checkpoint,
        throw=False,
    )
    score = trajectory[f"test_{given.metric}"].sel(statistic="mean").values
    events = trajectory["event"].values
    times = np.minimum(trajectory["time"].values.astype(np.float64), plan.end_s)
    sent, training = systems.traffic_series(plan, times), systems.training_series(plan, times)
    return series(given, times, score, sent, training, events=events)


def optimizer_of(given: Problem, local_steps: int) -> Partial:
    """SGD with the task's learning rate and momentum, which every training starts anew."""
    if given.momentum is None:
        return Partial(optax.sgd, given.learning_rate)
    return Partial(_restarted_sgd, given.learning_rate, given.momentum, Frozen(local_steps))


def _restarted_sgd(rate: Any, momentum: Any, steps: Frozen[int]) -> optax.GradientTransformation:
    return restarted(optax.sgd(rate, momentum), steps.value)


def series(given: Problem, times, score, sent, training, *, events) -> xr.Dataset:
    """Write the records of one run over ``record``: score, seconds, bytes, training seconds, and events so far."""
    columns = {"score": score, "time": times, "bytes": sent, "training": training, "event": events}
    units = {"score": given.metric, "time": "s", "bytes": "B", "training": "s", "event": "1"}
    found = {
        name: ("record", np.asarray(values, np.float64), {"units": units[name]}) for name, values in columns.items()
    }
    return xr.Dataset(found).assign_attrs(
        problem=given.name,
        data=given.source,
        metric=given.metric,
        higher_is_better=int(given.higher_is_better),
        parameters=given.parameters,
    )
