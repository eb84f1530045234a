"""How much sooner do nodes learn that wait for nobody, on real data, if some devices are slow?

All systems have the same devices: a local step takes ``f_i (c + Exp(mean e))`` seconds, where f_i is 1, or a factor for
stragglers. Messages take no time, which favours the systems that wait.

- AD-PSGD (:func:`~gossipjax.timeline.pairwise`): local steps follow the device's clock, and as many models per second
are sent as in D-PSGD without slow devices. - Gossip learning (:func:`~gossipjax.timeline.gossip_learning`): a node asks
a neighbour for its model, merges it by age, and trains. Its intervals have the mean of its steps and, since they are
normal and cut off near 0, about the same standard deviation. - Asynchronous SGP
(:func:`~gossipjax.timeline.directed_push`): local steps follow the device's clock, and halves of the mass are pushed on
another clock of the same rate. - D-PSGD: rounds with a barrier among neighbours. The k-th step of node i takes
``d_i(k)`` seconds and ends at ``F_i(k) = d_i(k) + M_i(k − 1)``; the node has mixed at ``M_i(k) = max of F_j(k)`` over i
and its neighbours. At a given time nodes are in different rounds; as an approximation, round k is drawn at the mean of
``M_i(k)`` over nodes. - All-reduce SGD: a round lasts as long as its slowest node; exact.

Theory predicts gradients per second, where there is a formula, but not accuracy. As a yardstick, the ratio of gradients
per second is printed beside the ratio of times. The two would agree if all gradients were worth the same, but those of
stragglers are rare, and their data are learned less.

Reference: Lian et al. 2018, arXiv 1710.06952 (AD-PSGD); Lian et al. 2017, arXiv 1705.09056 (D-PSGD).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib import real_data, trivial
from experiments.lib.asynchronous import barrier_ends, run_each, seed_keys
from experiments.lib.curves import reached
from experiments.lib.report import Row, over_seeds
from gossipjax import (
    Protocol,
    Task,
    Timeline,
    ad_psgd,
    allreduce_sgd,
    dpsgd,
    gossip_learning,
    mixing,
    observe,
    replicate,
    sgp,
    simulate,
    tasks,
    timeline,
    topology,
)
from gossipjax.timeline import clocks
from gossipjax.topology import Topology
from theory.check.policy import above, decide

CLAIM = "if some devices are slow, nodes that wait for nobody reach the same accuracy in a fraction of the time"
ONE_DEVICE = True
SCENARIOS = ("no stragglers", "stragglers")
ASYNCHRONOUS = ("AD-PSGD", "gossip learning", "asynchronous SGP")
SYNCHRONOUS = ("D-PSGD", "all-reduce")
DEGREE = 4


class Config(NamedTuple):
    """Settings; a step of a fast device takes ``shift + Exp(mean_extra)`` seconds, one second on average."""

    dataset: str = "auto"
    num_nodes: int = 32
    alpha: float = 0.5
    hidden: int = 32
    learning_rate: float = 0.05
    batch_size: int = 16
    shift: float = 0.5
    mean_extra: float = 0.5
    slow_share: float = 0.25
    slow_factor: float = 8.0
    num_rounds: int = 500
    """Rounds of the synchronous algorithms; the asynchronous ones, with stragglers, take as many gradients."""
    num_records: int = 50
    num_seeds: int = 5
    test_samples: int | None = 1000
    test_nodes: int | None = 16
    target: float = 0.9
    """The target, as a share of the final accuracy of all-reduce SGD."""
    seed: int = 0


QUICK = Config(dataset="digits", num_nodes=16, num_rounds=200, num_records=40, num_seeds=4, test_samples=None)


class Devices(NamedTuple):
    """The devices of one seed."""

    factors: np.ndarray
    """Slowness of each node, ``(n,)``."""
    clock: clocks.Clock


def devices_of(scenario: str, config: Config, seed: int) -> Devices:
    """Draw which devices are slow; none in the scenario without stragglers."""
    share = config.slow_share if scenario == "stragglers" else 0.0
    factors = clocks.stragglers(config.num_nodes, share=share, factor=config.slow_factor, seed=seed)
    return Devices(factors, clocks.slowed(clocks.shifted_exponential(config.shift, config.mean_extra), factors))


def plan_of(system: str, graph: Topology, devices: Devices, config: Config, seed: int) -> Timeline:
    """Plan one asynchronous system."""
    duration, clock = duration_of(config), devices.clock
    if system == "AD-PSGD":  # a meeting sends two models
        return timeline.pairwise(graph, duration, compute=clock, communicate=DEGREE / 2, seed=seed)
    if system == "asynchronous SGP":
        return timeline.directed_push(graph, duration, compute=clock, send=float(DEGREE), seed=seed)
    mean = config.shift + config.mean_extra
    period, jitter = mean * devices.factors, config.mean_extra / mean
    return timeline.gossip_learning(graph, duration, period=period, jitter=jitter, mode="pull", seed=seed)


def protocol_of(system: str, task: Task, config: Config) -> Protocol:
    """Build one of the algorithms, with plain SGD of a fixed step size."""
    optimizer = Partial(optax.sgd, config.learning_rate)
    match system:
        case "AD-PSGD":
            return ad_psgd(task, optimizer)
        case "gossip learning":
            return gossip_learning(task, optimizer, merge="age")
        case "asynchronous SGP":
            return sgp(task, optimizer)
        case "D-PSGD":
            return dpsgd(task, optimizer)
    return allreduce_sgd(task, optimizer)


def step_seconds(devices: Devices, num_rounds: int, seed: int) -> np.ndarray:
    """Draw the seconds of every step of every node, ``(rounds, n)``, by the law of the devices' clocks."""
    rng = np.random.default_rng((seed, 1))
    clock, shape = devices.clock, (num_rounds, len(devices.factors))
    return np.asarray(clock.shift) + np.asarray(clock.mean_extra) * rng.exponential(size=shape)


def mean_longest(devices: Devices, config: Config) -> float:
    """Compute the mean length ``E max_i d_i = ∫ (1 − Π_i P(d_i ≤ t)) dt`` of a round with a global barrier."""
    slowest, n = devices.factors.max(), len(devices.factors)
    t = np.linspace(0.0, slowest * (config.shift + config.mean_extra * (np.log(n) + 20.0)), 20_001)
    late = np.maximum(t[:, None] / devices.factors - config.shift, 0.0) / config.mean_extra
    return float(np.trapezoid(1.0 - np.prod(-np.expm1(-late), axis=1), t))


def duration_of(config: Config) -> float:
    """Compute the time in which asynchronous nodes, including slow ones, take as many gradients as the rounds."""
    free = np.sum(clocks.rate(devices_of("stragglers", config, config.seed).clock))
    return float(config.num_rounds * config.num_nodes / free)


def record_times(config: Config) -> np.ndarray:
    """Return the times of the records of asynchronous runs, after the start."""
    return np.linspace(0.0, duration_of(config), config.num_records + 1)[1:]


class Cell(NamedTuple):
    """One system in one scenario: accuracy and its times ``(record, seed)``, gradients per second ``(seed,)``."""

    accuracy: np.ndarray
    time: np.ndarray
    gradient_rate: np.ndarray


def task_of(config: Config) -> tuple[Task, tasks.Dataset]:
    """Partition the data by Dirichlet(α) label skew and put an MLP on it."""
    data = real_data.load(config.dataset)
    shards = tasks.dirichlet(data.train.labels, config.num_nodes, alpha=config.alpha, seed=config.seed)
    model = tasks.mlp(real_data.inputs_of(data), (config.hidden,), data.num_classes)
    return tasks.classification(data, shards, model, batch_size=config.batch_size), data


def _watch(task: Task, config: Config) -> tuple[observe.Observer, ...]:
    nodes = None if config.test_nodes is None else min(config.test_nodes, config.num_nodes)
    return (observe.node_metrics(task, nodes=nodes, samples=config.test_samples),)


def asynchronous(system: str, task: Task, graph: Topology, config: Config) -> dict[str, Cell]:
    """Run one asynchronous system in all scenarios; each seed has its own devices, clocks and partners."""
    seeds = range(config.seed, config.seed + config.num_seeds)
    plans = [
        plan_of(system, graph, devices_of(scenario, config, seed), config, seed)
        for scenario in SCENARIOS
        for seed in seeds
    ]

    def start(key):
        return replicate(task.init(key), config.num_nodes)

    protocol, times = protocol_of(system, task, config), record_times(config)
    keys = seed_keys(config.seed, config.num_seeds) * len(SCENARIOS)
    records = run_each(protocol, plans, times, start, _watch(task, config), keys)
    accuracy = np.split(records.test_accuracy.sel(statistic="mean").values, len(SCENARIOS), axis=1)
    steps = np.array([np.count_nonzero(plan.xs["nodes"] < config.num_nodes) for plan in plans]) / times[-1]
    seconds = np.broadcast_to(np.append(0.0, times)[:, None], accuracy[0].shape)
    return {
        scenario: Cell(accuracy[i], seconds, np.split(steps, len(SCENARIOS))[i]) for i, scenario in enumerate(SCENARIOS)
    }


def synchronous(system: str, task: Task, graph: Topology, config: Config) -> dict[str, Cell]:
    """Run one synchronous algorithm; its rounds are the same in all scenarios, and only their times differ."""
    n, seeds = config.num_nodes, np.arange(config.seed, config.seed + config.num_seeds)
    keys = jnp.stack(seed_keys(config.seed, config.num_seeds))

    def start(key):
        return replicate(task.init(key), n)

    plan = timeline.rounds(mixing.metropolis(graph), config.num_rounds)
    every = max(1, config.num_rounds // config.num_records)
    protocol = protocol_of(system, task, config)
    trajectory = simulate(keys, protocol, plan, start, observers=_watch(task, config), record_every=every)
    accuracy = trajectory["test_accuracy"].sel(statistic="mean").transpose("record", "seed").values
    done = trajectory.dataset.event.values.astype(int)
    waiting = graph if system == "D-PSGD" else None
    cells = {}
    for scenario in SCENARIOS:
        ends = [_mean_ends(waiting, devices_of(scenario, config, int(seed)), config, int(seed)) for seed in seeds]
        times = np.stack([np.append(0.0, end)[done] for end in ends], axis=1)
        cells[scenario] = Cell(accuracy, times, n * config.num_rounds / times[-1])
    return cells


def _mean_ends(waiting: Topology | None, devices: Devices, config: Config, seed: int) -> np.ndarray:
    graphs = None if waiting is None else [waiting]
    return barrier_ends(graphs, step_seconds(devices, config.num_rounds, seed)).mean(axis=1)


def predicted_rates(scenario: str, config: Config) -> dict[str, float]:
    """Predict gradients per second: ``Σ 1/(f_i · mean)`` without barriers, ``n / E max`` for all-reduce."""
    devices = devices_of(scenario, config, config.seed)
    free = float(np.sum(clocks.rate(devices.clock)))
    rates = dict.fromkeys(ASYNCHRONOUS, free) | {"D-PSGD": float("nan")}
    return rates | {"all-reduce": config.num_nodes / mean_longest(devices, config)}


def run(config: Config) -> xr.Dataset:
    """Run every system in both scenarios, and measure the time to the target."""
    task, data = task_of(config)
    graph = topology.random_regular(config.num_nodes, DEGREE, seed=config.seed, tries=20)
    cells: dict[str, dict[str, Cell]] = {}
    for system in ASYNCHRONOUS:
        cells[system] = asynchronous(system, task, graph, config)
    for system in SYNCHRONOUS:
        cells[system] = synchronous(system, task, graph, config)
    target = config.target * float(cells["all-reduce"][SCENARIOS[0]].accuracy[-1].mean())
    about = {"num_nodes": config.num_nodes, "data": data.source, "slow": _words(config)}
    about["trivial"] = trivial.noted(task, "accuracy", observe.subset(task, config.test_samples))
    return _dataset(cells, target, config).assign_attrs(about | {"target": target})


def _words(config: Config) -> str:
    return f"{round(config.slow_share * config.num_nodes)} of {config.num_nodes} devices {config.slow_factor:g}× slower"


def _dataset(cells: dict[str, dict[str, Cell]], target: float, config: Config) -> xr.Dataset:
    """Stack the cells; runs with fewer records are padded with NaN."""
    systems = [*ASYNCHRONOUS, *SYNCHRONOUS]
    length = max(len(cell.time) for row in cells.values() for cell in row.values())

    def stack(field: str) -> np.ndarray:
        return np.stack([[_padded(getattr(cells[s][c], field), length) for c in SCENARIOS] for s in systems])

    waited = [[_times_to(target, cells[system][scenario]) for scenario in SCENARIOS] for system in systems]
    rates = [[predicted_rates(scenario, config)[system] for scenario in SCENARIOS] for system in systems]
    return xr.Dataset(
        {
            "test_accuracy": (("system", "scenario", "record", "seed"), stack("accuracy")),
            "time": (("system", "scenario", "record", "seed"), stack("time"), {"units": "s"}),
            "gradient_rate": (
                ("system", "scenario", "seed"),
                np.stack([[cells[s][c].gradient_rate for c in SCENARIOS] for s in systems]),
            ),
            "predicted_gradient_rate": (("system", "scenario"), np.asarray(rates)),
            "time_to_target": (("system", "scenario", "seed"), np.asarray(waited), {"units": "s"}),
        },
        {"system": systems, "scenario": list(SCENARIOS)},
    )


def _padded(curve: np.ndarray, length: int) -> np.ndarray:
    return np.pad(np.asarray(curve, np.float64), ((0, length - len(curve)), (0, 0)), constant_values=np.nan)


def _times_to(target: float, cell: Cell) -> list[float]:
    return [reached(target, *pair) for pair in zip(cell.time.T, cell.accuracy.T, strict=True)]


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare gradients per second with theory; report seconds to the target, and their ratios."""
    cells: Sequence[tuple[str, str]] = [(s, c) for c in SCENARIOS for s in dataset.system.values]
    rows = []
    for system, scenario in cells:
        at = dataset.sel(system=system, scenario=scenario)
        law = float(at.predicted_gradient_rate)
        source = "no formula (max-plus)" if np.isnan(law) else "Σ 1/E dᵢ" if system in ASYNCHRONOUS else "n / E max dᵢ"
        rows.append(over_seeds(f"gradients/s, {system}, {scenario}", at.gradient_rate.values, law, source))
    for system, scenario in cells:
        rows.append(_wait(dataset.sel(system=system, scenario=scenario), system, scenario, dataset.attrs["target"]))
    for system, scenario in cells:
        if system not in SYNCHRONOUS:
            continue
        rows.append(_ratio(dataset.sel(scenario=scenario), system, scenario))
    return rows + trivial.rows("accuracy, ", trivial.stored(dataset), True)


def _wait(at: xr.Dataset, system: str, scenario: str, target: float) -> Row:
    waited, name = at.time_to_target.values, f"s to target, {system}, {scenario}"
    missed = int(np.isnan(waited).sum())
    if missed:  # a mean over only the successful seeds would be biased
        end = float(np.nanmax(at.time.values))
        return Row(name, end, np.nan, np.nan, f"longer: {missed} of {len(waited)} seeds never reach {target:.1%}")
    return over_seeds(name, waited, np.nan, f"mean accuracy of nodes {target:.1%}")


def _ratio(at: xr.Dataset, system: str, scenario: str) -> Row:
    """Return the ratio of times to the target, over AD-PSGD's, beside the inverse ratio of gradients per second."""
    rates = at.gradient_rate.mean("seed")
    yardstick = float(rates.sel(system="AD-PSGD") / rates.sel(system=system))
    ratio = at.time_to_target.sel(system=system).values / at.time_to_target.sel(system="AD-PSGD").values
    name = f"time ratio {system} / AD-PSGD, {scenario}"
    words = ""
    if scenario == "stragglers":
        ends = np.full(ratio.size, at.attrs["target"])  # who reaches the target has learned what it takes
        words = f"; sooner: {trivial.gated(decide(ratio, above(1.0)), ends, trivial.stored(at), True)}"
    if np.isnan(ratio).any():
        return Row(name, yardstick, np.nan, np.nan, f"gradients/s only: the target was missed{words}")
    return over_seeds(name, ratio, yardstick, f"yardstick: gradients/s{words}")
