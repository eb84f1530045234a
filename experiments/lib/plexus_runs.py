"""Plans of Plexus and its learning on the phones and data at hand, measured in seconds, bytes and training seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib.kept import model_of
from gossipjax import Protocol, Task, Timeline, devices, fedavg, observe, replicate, restarted, simulate, systems, tasks
from gossipjax._base.binding import Static
from gossipjax.devices import Devices
from gossipjax.systems import Plan
from gossipjax.tasks import DataUnavailable
from gossipjax.types import NOBODY

Name = Literal["digits", "writers", "movielens", "cifar10"]
HOUR = 3600.0
GIB = 2.0**30
WITHIN = 0.15
"""Deviation from a published number that counts as its reproduction."""


class Problem(NamedTuple):
    """A task of n nodes, and how they train."""

    name: str
    task: Task
    source: str
    metric: str
    """Of the test set, by which systems are compared."""
    higher_is_better: bool
    learning_rate: float
    momentum: float | None
    parameters: int
    batch_size: int

    @property
    def named(self) -> dict[str, Any]:
        """What names a run of it, besides its data."""
        rates = {"learning_rate": self.learning_rate, "momentum": self.momentum, "batch_size": self.batch_size}
        return rates | {"data": self.source, "model": model_of(self.task)}


def problem(name: Name, n: int, *, seed: int = 0, batch_size: int = 20) -> Problem:
    """Build a task; where files are missing it takes the embedded digits, or drawn ratings, and ``source`` says so.

    ``"digits"`` small scans, Dirichlet(0.5) label skew; ``"writers"`` handwritten digits, whole writers to each node;
    ``"movielens"`` ratings, users to nodes; ``"cifar10"`` with the network of Plexus, split evenly at random.
    """
    if name == "movielens":
        return _ratings(n, seed, batch_size)
    data = _images(name)
    labels, momentum = data.train.labels, None
    inputs = int(np.prod(data.train.inputs.shape[1:]))
    shards = tasks.dirichlet(labels, n, alpha=0.5, seed=seed)
    if data.name == "cifar10":
        model, rate, momentum = tasks.gn_lenet_plexus(data.train.inputs.shape[1:], data.num_classes), 0.002, 0.9
        shards = tasks.iid(len(labels), n, seed=seed)
    elif name == "writers" and data.train.writers is not None:
        model, rate = tasks.mlp(inputs, (128,), data.num_classes), 0.05
        shards = tasks.by_user(data.train.writers, n, seed=seed)
    else:
        model, rate = tasks.mlp(inputs, (32,), data.num_classes), 0.1
    task = tasks.classification(data, shards, model, batch_size=batch_size)
    return Problem(name, task, data.source, "accuracy", True, rate, momentum, _parameters(task), batch_size)


def _images(name: str) -> tasks.Dataset:
    try:
        return {"digits": tasks.digits, "writers": tasks.mnist_by_writer, "cifar10": tasks.cifar10}[name]()
    except DataUnavailable:
        return tasks.digits()


def _ratings(n: int, seed: int, batch_size: int) -> Problem:
    try:
        data = tasks.movielens(seed=seed)
    except DataUnavailable:
        data = tasks.synthetic_ratings(seed=seed)
    task = tasks.matrix_factorization(data, tasks.ratings_by_user(data, n), batch_size=batch_size)
    return Problem("movielens", task, data.source, "rmse", False, 0.2, None, _parameters(task), batch_size)


def _parameters(task: Task) -> int:
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def phones(n: int, seed: int, *, availability: Literal["charging"] | None = None) -> Devices:
    """Take n phones from traces where their files are at hand, else draw alike ones; ``name`` says which."""
    try:
        return devices.from_traces(n, seed, availability=availability)
    except DataUnavailable:
        return devices.fitted(n, seed, availability=availability)


def kind_of(phones: Devices) -> str:
    """Say where devices come from, without their number and seed."""
    return "published traces" if phones.name.startswith("traces") else "phones drawn from fitted laws"


def _start(task: Task, num_rows: Static[int], key: Any) -> Any:
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
        Partial(_start, given.task, Static(timeline.properties.num_rows)),
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
    return Partial(_restarted_sgd, given.learning_rate, given.momentum, Static(local_steps))


def _restarted_sgd(rate: Any, momentum: Any, steps: Static[int]) -> optax.GradientTransformation:
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


def side_by_side(runs: list[xr.Dataset], along: xr.DataArray) -> xr.Dataset:
    """Put runs along a new dimension; shorter ones end in NaN."""
    numbered = [run.assign_coords(record=np.arange(run.sizes["record"])) for run in runs]
    return xr.concat(numbered, along, join="outer", combine_attrs="drop_conflicts")


def held(times: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Read a quantity that holds from each time to the next, ``(k, ...)``; NaN before the first."""
    at = np.searchsorted(times, grid, side="right") - 1
    read = np.asarray(values, np.float64)[np.maximum(at, 0)]
    read[at < 0] = np.nan
    return read


def last_known(values: xr.DataArray) -> xr.DataArray:
    """Take the last record that a run has, over ``record``."""
    last = values.notnull().cumsum("record").argmax("record")
    return values.isel(record=last)


def good(score: Any, higher_is_better: bool | int) -> Any:
    """Turn a score so that more is better."""
    return score if higher_is_better else -score


def at_target(run: xr.Dataset, target: float, higher_is_better: bool | int) -> dict[str, float]:
    """Seconds, bytes and training seconds until the score first reaches a target, linear between records, or NaN."""
    score = good(run.score.values, higher_is_better)
    goal = good(target, higher_is_better)
    reached = np.flatnonzero(score >= goal)
    names = ("time", "bytes", "training")
    if not reached.size:
        return dict.fromkeys(names, np.nan)
    last = int(reached[0])
    before = max(last - 1, 0)
    gain = score[last] - score[before]
    share = 1.0 if gain <= 0 else float((goal - score[before]) / gain)
    return {name: float(run[name].values[before] * (1 - share) + run[name].values[last] * share) for name in names}
