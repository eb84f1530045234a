"""HADFL and its baselines on the same devices: plans of equal length, and their learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib.curves import held
from experiments.lib.hadfl_plans import PARAMETERS
from experiments.lib.plexus_runs import equal_models, series
from experiments.lib.problems import Problem
from gossipjax import (
    Protocol,
    ad_psgd,
    allreduce_sgd,
    dpsgd,
    hadfl,
    local_sgd,
    mixing,
    observe,
    simulate,
    systems,
    tasks,
    topology,
)
from gossipjax._base.binding import Frozen
from gossipjax.devices import Devices
from gossipjax.systems import Plan
from gossipjax.tasks import DataUnavailable
from gossipjax.timeline import event_times

HADFL, FEDAVG, DATA_PARALLEL, LOCAL_SGD, D_PSGD, AD_PSGD = SCHEMES = (
    "HADFL",
    "decentralized FedAvg",
    "data parallel",
    "local SGD",
    "D-PSGD",
    "AD-PSGD",
)
OF_PAPER = (HADFL, FEDAVG, DATA_PARALLEL)
"""The schemes that the paper compares, which are tuned alike."""
RESNET18_BYTES = 4 * PARAMETERS["ResNet-18"]
"""Of a model in float32."""


class Setting(NamedTuple):
    """What all schemes share."""

    batch_size: int
    unit_steps: int
    """H: local steps of a unit of HADFL, and of a round of decentralized FedAvg."""
    model_bytes: int
    members: int
    """N_p."""
    duration_s: float


def problem(name: str, num_nodes: int, batch_size: int, *, seed: int = 0) -> Problem:
    """Build a task whose data are split evenly at random; ``"digits"``, ``"fashion"`` or ``"cifar10"``.

    Without its files a task takes the embedded digits, and ``source`` says so. The learning rate is left to the tuning.
    """
    try:
        data = {"digits": tasks.digits, "fashion": tasks.fashion_mnist, "cifar10": tasks.cifar10}[name]()
    except DataUnavailable:
        data = tasks.digits()
    shape = data.train.inputs.shape[1:]
    small = int(np.prod(shape))
    model = tasks.gn_lenet(shape, data.num_classes) if data.name == "cifar10" else tasks.mlp(small, (64,), 10)
    shards = tasks.iid(len(data.train.labels), num_nodes, seed=seed)
    task = tasks.classification(data, shards, model, batch_size=batch_size)
    return Problem(name, task, data.source, "accuracy", True, float("nan"), batch_size)


def scheme(name: str, given: Problem, devices: Devices, setting: Setting, rate: float, seed: int):
    """Plan a scheme, and make its protocol.

    Returns:
        The plan, up to the duration, and the protocol.
    """
    sgd = Partial(optax.sgd, rate)
    few = max(1, setting.unit_steps // 5)
    of: dict[str, Callable[[], tuple[Plan, Protocol]]] = {
        HADFL: lambda: _hadfl(given, devices, setting, rate, seed),
        FEDAVG: lambda: (
            _rounds(devices, setting, setting.unit_steps),
            local_sgd(given.task, sgd, local_steps=setting.unit_steps),
        ),
        DATA_PARALLEL: lambda: (_rounds(devices, setting, 1), allreduce_sgd(given.task, sgd)),
        LOCAL_SGD: lambda: (_rounds(devices, setting, few), local_sgd(given.task, sgd, local_steps=few)),
        D_PSGD: lambda: (_gossip_rounds(devices, setting), dpsgd(given.task, sgd)),
        AD_PSGD: lambda: (
            systems.ad_psgd(
                devices,
                devices.num_nodes,
                setting.duration_s,
                model_bytes=setting.model_bytes,
                time_batch=setting.batch_size,
                seed=seed,
            ),
            ad_psgd(given.task, sgd),
        ),
    }
    return of[name]()


def _hadfl(given: Problem, devices: Devices, setting: Setting, rate: float, seed: int) -> tuple[Plan, Protocol]:
    plan = systems.hadfl(
        devices,
        setting.duration_s,
        model_bytes=setting.model_bytes,
        local_steps=setting.unit_steps,
        time_batch=setting.batch_size,
        selection=systems.HADFLSelection(count=setting.members),
        seed=seed,
    )
    return plan, hadfl_protocol(given, rate, setting.unit_steps)


def hadfl_protocol(given: Problem, rate: float, unit_steps: int) -> Protocol:
    """Make the protocol of HADFL, with a tenth of the learning rate in the warm-up."""
    return hadfl(given.task, Partial(_warmed_up, rate, Frozen(unit_steps)), local_steps=unit_steps)


def _warmed_up(rate: Any, steps: Frozen[int]) -> optax.GradientTransformation:
    """SGD with a tenth of the learning rate in the first unit, the warm-up."""
    schedules = [optax.constant_schedule(0.1 * rate), optax.constant_schedule(rate)]
    return optax.sgd(optax.join_schedules(schedules, [steps.value]))


def _rounds(devices: Devices, setting: Setting, local_steps: int) -> Plan:
    """Rounds that end in an exact mean, as many as fit into the duration."""
    shared: dict[str, Any] = {
        "local_steps": local_steps,
        "model_bytes": setting.model_bytes,
        "time_batch": setting.batch_size,
    }
    length = systems.allreduce(devices, 1, **shared).end_s
    return systems.allreduce(devices, max(1, int(setting.duration_s / length)), **shared)


def _gossip_rounds(devices: Devices, setting: Setting) -> Plan:
    """Rounds of D-PSGD on a ring, with barriers between neighbours."""
    weights = mixing.metropolis(topology.ring(devices.num_nodes))
    shared: dict[str, Any] = {"local_steps": 1, "model_bytes": setting.model_bytes, "round_seconds": None}
    shared["time_batch"] = setting.batch_size
    length = float(systems.synchronous(devices, weights, 20, **shared).end_s) / 20
    return systems.synchronous(devices, weights, max(1, int(setting.duration_s / length)), **shared)


def learn(
    given: Problem, plan: Plan, protocol: Protocol, setting: Setting, *, records: int, seed: int, checkpoint: Any = None
) -> xr.Dataset:
    """Learn as planned; record the accuracy of the global model, and what was spent.

    The global model is the last mean of a ring in HADFL, else the average of all nodes' models. Square roots of the
    times of the records are equally spaced.
    """
    timeline = systems.stand_in(plan)
    facts = timeline.properties
    is_hadfl = facts.made_for == "HADFL"
    watch = (
        observe.model_metrics(given.task, facts.num_nodes) if is_hadfl else observe.average_model_metrics(given.task)
    )
    end = min(setting.duration_s, plan.end_s)
    first = max(end / records**2, float(event_times(timeline)[0]))
    times = np.linspace(np.sqrt(first), np.sqrt(end), records) ** 2  # early ones lie closer: targets are reached early
    times[-1] = end
    trajectory = simulate(
        jax.random.key(seed),
        protocol,
        timeline,
        Partial(equal_models, given.task, Frozen(facts.num_rows)),
        observers=(watch,),
        record_times=times,
        checkpoint=checkpoint,
        throw=False,
    )
    score = trajectory["model_accuracy" if is_hadfl else "average_model_accuracy"]
    known = score["time"].values * (1 - 1e-9)  # a record is at its time, up to rounding
    found = series(
        given,
        times,
        held(known, score.values, times),
        systems.traffic_series(plan, times),
        systems.training_series(plan, times),
        events=held(known, trajectory["event"].values, times),
    )
    samples = samples_until(plan, times, setting.batch_size)
    return found.assign(samples=("record", samples, {"units": "1", "long_name": "samples of completed trainings"}))


def samples_until(plan: Plan, times: np.ndarray, batch_size: int) -> np.ndarray:
    """Count the samples of all trainings that are complete by given times."""
    found = systems.activity(plan)
    ends = np.sort(found.training_end_s[found.training_completed])
    steps = plan.timeline.properties.local_steps or 1
    return np.searchsorted(ends, times, side="right") * float(steps * batch_size)
