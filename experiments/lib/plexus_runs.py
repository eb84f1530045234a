"""Plans and runs of Plexus on the available phones and data, measured in seconds, bytes and training seconds."""

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
"""Largest relative deviation from a published number that counts as its reproduction."""


def phones(n: int, seed: int, *, availability: Literal["charging"] | None = None) -> Devices:
    """Take n phones from traces if their files are available, else draw similar ones; ``name`` says which."""
    try:
        return devices.from_traces(n, seed, availability=availability)
    except DataUnavailable:
        return devices.fitted(n, seed, availability=availability)


def kind_of(phones: Devices) -> str:
    """Describe where devices come from, without their number and seed."""
    return "published traces" if phones.name.startswith("traces") else "phones drawn from fitted laws"


def equal_models(task: Task, num_rows: Frozen[int], key: Any) -> Any:
    """Start all rows at the same model; as a module-level function, it lets runs share compiled programs."""
    return replicate(task.init(key), num_rows.value)


def pad_timelines(timelines: Sequence[Timeline]) -> list[Timeline]:
    """Pad timelines with unused lanes and slots, so that their runs share one compiled program."""
    widths = {name: max(one.xs[name].shape[-1] for one in timelines) for name in timelines[0].xs}
    slots = max(one.properties.num_slots for one in timelines)
    filled = []
    for one in timelines:
        xs = {}
        for name, array in one.xs.items():
            missing = [(0, 0)] * (array.ndim - 1) + [(0, widths[name] - array.shape[-1])]
            if name in ("index", "time"):
                xs[name] = np.pad(array, missing, mode="edge")
            else:
                xs[name] = np.pad(array, missing, constant_values=0 if name in ("weights", "messages") else NOBODY)
        facts = dataclasses.replace(one.properties, num_slots=slots)
        filled.append(dataclasses.replace(one, xs=xs, properties=facts))
    return filled


def learn(
    problem: Problem,
    plan: Plan,
    timeline: Timeline | None = None,
    *,
    local_steps: int,
    every: int,
    test_samples: int | None = None,
    seed: int = 0,
    checkpoint: Any = None,
) -> xr.Dataset:
    """Run a plan; record the score of the global model, and its costs so far, over ``record``.

    Args:
        problem: the task.
        plan: plan for the same number of nodes.
        timeline: timeline of the plan, possibly padded by :func:`pad_timelines`; None: that of the plan.
        local_steps: E, the same as in the plan.
        every: means between two records; those after the last record are omitted.
        test_samples: size of a fixed random subset of the test set; None: all.
        seed: seed of the learning.
        checkpoint: folder to resume from.
    """
    protocol = fedavg(problem.task, optimizer_of(problem, local_steps), local_steps=local_steps)
    timeline = plan.timeline if timeline is None else timeline
    return record(
        problem,
        plan,
        timeline,
        protocol,
        nodes=[0],
        every=every,
        test_samples=test_samples,
        seed=seed,
        checkpoint=checkpoint,
    )


def record(
    problem: Problem,
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
    """Run a protocol on a plan's timeline; record the mean score of some nodes, and the costs, over ``record``.

    Events after the last multiple of ``every`` are omitted, so that all calls share one compiled program. Bytes come
    from the plan, whose messages may have the size of a larger network than the one that learns.
    """
    timeline = systems.stand_in(timeline)
    length = max(1, len(timeline) // every) * every
    trajectory = simulate(
        jax.random.key(seed),
        protocol,
        timeline[:length] if length < len(timeline) else timeline,
        Partial(equal_models, problem.task, Frozen(timeline.properties.num_rows)),
        observers=(observe.node_metrics(problem.task, nodes=nodes, samples=test_samples, seed=0),),
        record_every=min(every, len(timeline)),
        checkpoint=checkpoint,
        throw=False,
    )
    score = trajectory[f"test_{problem.metric}"].sel(statistic="mean").values
    events = trajectory["event"].values
    times = np.minimum(trajectory["time"].values.astype(np.float64), plan.end_s)
    sent, training = systems.traffic_series(plan, times), systems.training_series(plan, times)
    return series(problem, times, score, sent, training, events=events)


def optimizer_of(problem: Problem, local_steps: int) -> Partial:
    """Build SGD with the task's learning rate and momentum; every training restarts its state."""
    if problem.momentum is None:
        return Partial(optax.sgd, problem.learning_rate)
    return Partial(_restarted_sgd, problem.learning_rate, problem.momentum, Frozen(local_steps))


def _restarted_sgd(rate: Any, momentum: Any, steps: Frozen[int]) -> optax.GradientTransformation:
    return restarted(optax.sgd(rate, momentum), steps.value)


def series(problem: Problem, times, score, sent, training, *, events) -> xr.Dataset:
    """Return the records of one run over ``record``: score, seconds, bytes, training seconds, and events so far."""
    columns = {"score": score, "time": times, "bytes": sent, "training": training, "event": events}
    units = {"score": problem.metric, "time": "s", "bytes": "B", "training": "s", "event": "1"}
    variables = {
        name: ("record", np.asarray(values, np.float64), {"units": units[name]}) for name, values in columns.items()
    }
    return xr.Dataset(variables).assign_attrs(
        problem=problem.name,
        data=problem.source,
        metric=problem.metric,
        higher_is_better=int(problem.higher_is_better),
        parameters=problem.parameters,
    )
