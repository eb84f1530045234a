"""How soon, and with how many bytes and how much training, does Plexus learn what decentralized learning learns?

Six systems run on the same phones: Plexus; federated learning with a server (the same, but one node with unlimited
bandwidth averages); D-PSGD in rounds of a minute, with one peer of the exponential graph or on a random 10-regular
graph; gossip learning; and Epidemic Learning, which is not in the paper and sets no target. The target is the highest
score of the best decentralized baseline of the paper, as the mean over the evaluated nodes. Simulated time, bytes of
models and training seconds of all nodes until the target (TTA, CTA, RTA) are given as ratios, baseline over Plexus.
They are compared with what follows from round lengths alone: in T seconds of Plexus s nodes train and 2 s models are
sent, and in a minute of the baselines all n nodes train and send d models each.

The paper has CIFAR-10 of 1,000 nodes, CelebA of 500 and FEMNIST of 355; see :data:`PAPER` for the first. The default is
feasible on two cores: MNIST by writer in the role of FEMNIST, with messages of that size, and MovieLens, which was in
an earlier version of the paper.

Reference: Dhasade et al. 2025, arXiv 2503.05509, figure 3 and section 4.2 (EuroMLSys'25).
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments.lib import trivial
from experiments.lib.cells import Cell, Keep, Missing, take_grid
from experiments.lib.curves import at_target, good, grid_of_runs, last_known, side_by_side
from experiments.lib.plexus_runs import GIB, HOUR, kind_of, learn, optimizer_of, phones, record
from experiments.lib.problems import Name, Problem, of_plexus
from experiments.lib.report import Row, over_seeds
from experiments.lib.store import mean_and_interval
from gossipjax import gossip_learning as gossip_learning_protocol
from gossipjax import local_sgd, observe, systems, topology
from gossipjax.devices import Devices
from gossipjax.systems import Plan
from gossipjax.systems._plexus.history import AVERAGED
from gossipjax.systems._plexus.sizes import model_message_bytes
from theory.check.policy import Band, Verdict, above, decide

CLAIM = "Plexus reaches the accuracy of decentralized learning sooner, with far fewer bytes and far less training"
PLEXUS, SERVER, ONE_PEER, REGULAR, GOSSIP, EPIDEMIC = SYSTEMS = (
    "Plexus",
    "FL",
    "D-PSGD one-peer",
    "D-PSGD 10-regular",
    "gossip learning",
    "epidemic",
)
RATIOS = {"time": ("TTA", (1.4, 1.6)), "bytes": ("CTA", (15.8, 292.0)), "training": ("RTA", (30.5, 77.9))}
"""Names of the costs, and the paper's ranges, over data sets, of the ratio of the best baseline to Plexus.

The ranges are printed but not used for verdicts: a range over three data sets says little about a fourth.
"""
CLAIMED: dict[str, Band] = {"time": above(1.0), "bytes": Band(low=10.0), "training": Band(low=10.0)}
"""Bands of the verdicts: sooner, with far fewer bytes and far less training; "far" is a factor of ten."""
DEGREE = 10
PAPER_BASELINES = (ONE_PEER, REGULAR, GOSSIP)
"""Baselines of the paper; the best of them sets the target."""


class Part(NamedTuple):
    """One task, its number of nodes, and the length of its runs."""

    task: Name
    num_nodes: int
    rounds: int
    """Rounds of Plexus and of federated learning."""
    hours: float
    """Hours of the other systems."""
    model_bytes: int | None
    """None: those of the model that learns."""
    time_batch: int
    """Samples per step that count in the training time: 1, or all 20, as in earlier versions of the system."""
    num_seeds: int


class Config(NamedTuple):
    """Settings, for two cores and an hour; see :data:`PAPER`."""

    parts: tuple[Part, ...] = (
        Part("writers", 355, 1500, 8.0, 4 * 1_690_046, 1, 2),
        Part("movielens", 610, 2000, 8.0, None, 20, 1),
    )
    systems: tuple[str, ...] = SYSTEMS
    sample_size: int = 13
    success_fraction: float = 0.8
    local_steps: int = 5
    round_seconds: float = 60.0
    fanout: int = 10
    """Fanout of Epidemic Learning."""
    num_records: int = 40
    evaluated: float = 0.2
    """Share of the nodes whose models are evaluated."""
    most_evaluated: int = 40
    test_samples: int | None = 1000
    seed: int = 0
    keep: Keep = None
    """Where finished runs are."""


QUICK = Config(
    parts=(Part("digits", 40, 160, 1.5, 4 * 85_354, 20, 1),),
    systems=(PLEXUS, SERVER, ONE_PEER),
    sample_size=6,
    num_records=30,
    test_samples=None,
)
PAPER = Config(
    parts=(
        Part("writers", 355, 1500, 8.0, 4 * 1_690_046, 1, 3),
        Part("movielens", 610, 2000, 8.0, None, 20, 3),
        Part("cifar10", 1000, 4500, 50.0, None, 20, 3),
    ),
    systems=SYSTEMS[:-1],
    num_records=100,
    most_evaluated=200,
    test_samples=None,
)
"""Three seeds; CIFAR-10 as in the paper: training all 1,000 nodes 3,000 times over needs an accelerator."""


def run(config: Config) -> xr.Dataset:
    """Run every system on every task; each run is stored when it is complete.

    Raises:
        ValueError: unknown systems, or no Plexus or no decentralized baseline of the paper among them.
    """
    unknown = sorted(set(config.systems) - set(SYSTEMS))
    if unknown or PLEXUS not in config.systems or not set(config.systems) & set(PAPER_BASELINES):
        raise ValueError(
            f"systems={config.systems}: must include Plexus and at least one of {PAPER_BASELINES}; others are "
            f"{SERVER!r} and {EPIDEMIC!r}"
        )
    found = {}
    for part in config.parts:
        with contextlib.suppress(Missing):
            found[part.task] = _run_part(part, config)
    if not found:
        raise Missing(f"no task has one seed of all of {', '.join(_required(config))}")
    along = xr.DataArray(list(found), dims="task", name="task")
    return side_by_side(list(found.values()), along).assign_attrs(
        sample_size=config.sample_size,
        round_seconds=config.round_seconds,
        fanout=config.fanout,
        target_of=list(PAPER_BASELINES),
    )


def _required(config: Config) -> list[str]:
    """Name the systems without which the target is not known."""
    return [name for name in config.systems if name in (PLEXUS, *PAPER_BASELINES)]


def cells(config: Config) -> list[Cell]:
    """List the runs of a configuration."""
    return [cell for part in config.parts for cell in _cells(part, config).values()]


def _cells(part: Part, config: Config) -> dict[tuple[str, int], Cell]:
    """Name the runs of a task by system and seed."""
    options = config._replace(parts=(), systems=(), keep=None)._asdict()
    bands: dict[str, Any] = {cost: {"low": band.low} for cost, band in CLAIMED.items()}
    bands |= {"better than trivial by": trivial.MARGIN[part.task != "movielens"]}
    found = {}
    for seed in range(config.seed, config.seed + part.num_seeds):
        for name in config.systems:
            labels = {"task": part.task, "system": name, "seed": seed}
            settings = {"part": part._replace(num_seeds=1)._asdict(), "config": options, "system": name, "seed": seed}
            found[name, seed] = Cell("plexus_vs_baselines", labels, one, contents, settings, bands=bands)
    return found


def contents(settings: dict[str, Any]) -> tuple[Problem, Devices]:
    """Build the problem and the phones of a run."""
    part = Part(**settings["part"])
    problem = of_plexus(part.task, part.num_nodes, seed=settings["config"]["seed"])
    return problem, phones(part.num_nodes, settings["seed"])


def one(settings: dict[str, Any], checkpoint: Any) -> xr.Dataset:
    """Plan and learn one run; note what it ran on."""
    part, config = Part(**settings["part"]), Config(**settings["config"])
    problem, fleet = contents(settings)
    found = _one(part, config, problem, fleet, settings["system"], settings["seed"], checkpoint)
    test = observe.subset(problem.task, config.test_samples, seed=0)
    facts = {"devices": kind_of(fleet), "trivial": trivial.noted(problem.task, problem.metric, test)}
    return found.assign_attrs(facts | {"model_bytes": part.model_bytes or 4 * problem.parameters})


def _run_part(part: Part, config: Config) -> xr.Dataset:
    runs = take_grid(config.keep, _cells(part, config), _required(config))
    names, seeds = (list(dict.fromkeys(each)) for each in zip(*runs, strict=True))
    found = grid_of_runs(names, "system", seeds, lambda name, seed: runs[name, seed])
    # As variables, because attributes that differ between tasks would be dropped.
    told = next(iter(runs.values())).attrs
    facts = {name: told[name] for name in ("metric", "higher_is_better", "model_bytes", "data", "devices", "trivial")}
    facts |= {"num_nodes": part.num_nodes}
    return found.drop_attrs(deep=False).assign({name: ((), value) for name, value in facts.items()})


def _one(
    part: Part, config: Config, problem: Problem, fleet: Devices, system: str, seed: int, checkpoint: Any
) -> xr.Dataset:
    """Plan one run and learn; note the mean length of a round."""
    size = part.model_bytes or 4 * problem.parameters
    if system in (PLEXUS, SERVER):
        plan = plexus_plan(part, config, fleet, size, seed, server=system == SERVER)
        every = max(1, part.rounds // config.num_records)
        dataset = learn(
            problem,
            plan,
            local_steps=config.local_steps,
            every=every,
            test_samples=config.test_samples,
            seed=seed,
            checkpoint=checkpoint,
        )
        return dataset.assign(
            round_seconds=plan.end_s / float(plan.history.aggregation_round.max()),
            wasted=float(np.mean(plan.history.training_fate != AVERAGED)),
        )
    plan, protocol = baseline(part, config, problem, fleet, size, system, seed)
    count = min(config.most_evaluated, max(1, round(config.evaluated * part.num_nodes)))
    dataset = record(
        problem,
        plan,
        plan.timeline,
        protocol,
        nodes=count,
        every=max(1, len(plan.timeline) // config.num_records),
        test_samples=config.test_samples,
        seed=seed,
        checkpoint=checkpoint,
    )
    return dataset.assign(round_seconds=config.round_seconds, wasted=np.nan)


def plexus_plan(part: Part, config: Config, fleet: Devices, size: int, seed: int, *, server: bool) -> Plan:
    """Plan Plexus, or the same system with a server."""
    return systems.plexus(
        fleet,
        num_rounds=part.rounds,
        model_bytes=size,
        seed=seed,
        sample_size=config.sample_size,
        success_fraction=config.success_fraction,
        local_steps=config.local_steps,
        time_batch=part.time_batch,
        aggregators="server" if server else "next",
    )


def baseline(part: Part, config: Config, problem: Problem, fleet: Devices, size: int, system: str, seed: int):
    """Plan a decentralized baseline, and build its protocol."""
    n, optimizer, seconds = part.num_nodes, optimizer_of(problem, config.local_steps), part.hours * HOUR
    rounds = max(1, round(seconds / config.round_seconds))
    shared: dict[str, Any] = {
        "local_steps": config.local_steps,
        "model_bytes": size,
        "time_batch": part.time_batch,
    }
    if system == GOSSIP:
        plan = systems.gossip_learning(fleet, seconds, period_s=config.round_seconds, seed=seed, **shared)
        return plan, gossip_learning_protocol(problem.task, optimizer, local_steps=config.local_steps, merge="age")
    shared["round_seconds"] = config.round_seconds
    if system == EPIDEMIC:
        plan = systems.epidemic(fleet, config.fanout, rounds, seed=seed, **shared)
    elif system == ONE_PEER:
        plan = systems.synchronous(fleet, topology.one_peer_exponential(n), rounds, **shared)
    else:
        graph = topology.random_regular(n, DEGREE, seed=seed, tries=50)
        plan = systems.synchronous(fleet, graph, rounds, **shared)
    return plan, local_sgd(problem.task, optimizer, local_steps=config.local_steps)


def of_task(dataset: xr.Dataset, task: Any) -> xr.Dataset:
    """Select one task, without seeds that only other tasks have."""
    at = dataset.sel(task=task)
    return at.isel(seed=at.score.notnull().any(["system", "record"]).values)


def baselines(dataset: xr.Dataset) -> list[str]:
    """Return the names of the decentralized systems."""
    return [str(name) for name in dataset.system.values if name not in (PLEXUS, SERVER)]


def best_of(at: xr.Dataset, name: str) -> np.ndarray:
    """Return the best score of a system in each seed."""
    score = good(at.score.sel(system=name), int(at.higher_is_better))
    return good(score.max("record"), int(at.higher_is_better)).values


def best_baseline(at: xr.Dataset) -> str:
    """Return the decentralized baseline of the paper whose best score, averaged over seeds, is highest."""
    names = [name for name in baselines(at) if name in PAPER_BASELINES]
    return max(names, key=lambda name: float(good(best_of(at, name).mean(), int(at.higher_is_better))))


def ratios(at: xr.Dataset, name: str) -> dict[str, np.ndarray]:
    """Return costs of a baseline's best score, relative to Plexus: 0 if Plexus misses it, NaN if it starts there."""
    costs: dict[str, list[float]] = {cost: [] for cost in RATIOS}
    for seed, target in zip(at.seed.values, best_of(at, name), strict=True):
        own = at_target(at.sel(system=name, seed=seed), float(target), int(at.higher_is_better))
        other = at_target(at.sel(system=PLEXUS, seed=seed), float(target), int(at.higher_is_better))
        for cost in RATIOS:
            costs[cost].append(_ratio(own[cost], other[cost]))
    return {cost: np.array(values) for cost, values in costs.items()}


def _ratio(baseline: float, plexus: float) -> float:
    if np.isnan(plexus):
        return 0.0
    return baseline / plexus if plexus > 0 else np.nan


def judged(ratios: dict[str, np.ndarray]) -> dict[str, Verdict]:
    """Judge the ratios of a baseline to Plexus, seed by seed."""
    return {cost: decide(ratios[cost], CLAIMED[cost]) for cost in RATIOS}


def _trained(at: xr.Dataset, name: str, verdict: Verdict) -> str:
    """Return a verdict, or that it is undecided because the baseline that sets the target has not learned."""
    return trivial.gated(verdict, best_of(at, name), trivial.stored(at), int(at.higher_is_better))


def from_rounds(at: xr.Dataset, name: str, attrs: dict[str, Any]) -> dict[str, float]:
    """Predict CTA and RTA, in units of TTA, from the length T of a round of Plexus and the d models per node.

    ``n d T M / (60 · 2 s (M + view))`` and ``n T / (60 s)``.
    """
    n, size = int(at.num_nodes), float(at.model_bytes)
    length = float(at.round_seconds.sel(system=PLEXUS).mean())
    models = {REGULAR: DEGREE, EPIDEMIC: int(attrs["fanout"])}.get(name, 1)
    per_minute = n * length / (float(attrs["round_seconds"]) * int(attrs["sample_size"]))
    share = size / model_message_bytes(int(size), n)
    return {"time": np.nan, "bytes": per_minute * models * share / 2, "training": per_minute}


def table(dataset: xr.Dataset) -> list[Row]:
    """Report ratios to the best baseline, with the paper's range, and to the others; scores; and round lengths."""
    rows = []
    for task in dataset.task.values:
        at = of_task(dataset, task)
        best = best_baseline(at)
        rows += _ratios(dataset, at, str(task), best, paper=True)
        for name in baselines(at):
            rows += _ratios(dataset, at, str(task), name, paper=False) if name != best else []
        rows += [row for name in at.system.values for row in _ends(at, str(task), str(name), best)]
        rows += trivial.rows(f"{task}: {at.metric.item()}, ", trivial.stored(at), int(at.higher_is_better))
    return rows


def _ratios(dataset: xr.Dataset, at: xr.Dataset, task: str, name: str, *, paper: bool) -> list[Row]:
    rows, costs = [], ratios(at, name)
    relative = from_rounds(at, name, dataset.attrs)
    verdicts = {cost: _trained(at, name, verdict) for cost, verdict in judged(costs).items()}
    sooner = _mean(costs["time"])[0]
    missed, started = int(np.sum(costs["time"] == 0)), int(np.isnan(costs["time"]).sum())
    if missed + started and paper:
        words = f"Plexus misses the best of {name} in {missed} of {costs['time'].size} seeds, starts there in {started}"
        words += f"; sooner: {verdicts['time']}"
        rows.append(Row(f"{task}: seeds without a ratio", float(missed + started), np.nan, 0.0, words))
    for cost, (label, (low, high)) in RATIOS.items():
        mean, half = _mean(costs[cost])
        words = "predicted from round lengths and the measured TTA"
        if paper:
            words = f"EuroMLSys'25: {low:g} to {high:g} (CIFAR-10, CelebA, FEMNIST together); {verdicts[cost]}; "
            words += f"here {int(at.num_nodes)} nodes, {float(at.model_bytes) / 1e6:.3g} MB, {at.devices.item()}"
        if np.isfinite(mean):
            rows.append(Row(f"{task}: {label}, {name} to Plexus", mean, half, relative[cost] * sooner, words))
    return rows


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Return mean and interval over the seeds in which both reach the target."""
    known = values[values > 0]
    if not known.size:
        return np.nan, np.nan
    mean, half = mean_and_interval(known)
    return float(mean), float(half)


def _ends(at: xr.Dataset, task: str, name: str, best: str) -> list[Row]:
    run = at.sel(system=name)
    target = np.nan if name == best else float(best_of(at, best).mean())
    words = f"{'the target' if name == best else f'target: {best}'}; {at.data.item()}"
    rows = [over_seeds(f"{task}: best {at.metric.item()}, {name}", best_of(at, name), target, words)]
    for cost, (label, unit) in {"time": ("hours", HOUR), "bytes": ("GiB", GIB), "training": ("h", HOUR)}.items():
        named = f"{label} of training" if cost == "training" else label
        rows.append(
            over_seeds(
                f"{task}: total {named}, {name}", last_known(run[cost]).values / unit, np.nan, "until the last record"
            )
        )
    if name in (PLEXUS, SERVER):
        rows.append(
            over_seeds(f"{task}: seconds per round, {name}", run.round_seconds.values, np.nan, "mean of the run")
        )
    return rows
