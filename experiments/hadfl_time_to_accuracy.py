"""How much sooner does HADFL learn than synchronous data parallel training and decentralized FedAvg, and why?

Four devices of relative powers [3, 3, 1, 1] or [4, 2, 2, 1]. The abstract's maxima, 3.15 times sooner than
decentralized FedAvg and 4.68 times sooner than data parallel training, are reported to be of the time to the maximum
accuracy. Here the time to a common target is judged: the ratio of times must be above 1 for each array and either
scheme. The table also shows its components: samples per second (at most 2.0 and 2.25 times those with a barrier, if
communication is free), samples until the target, and bytes. The learning rates of HADFL, decentralized FedAvg and data
parallel training come from one grid, each by its best accuracy with a seed that is not compared; the other schemes use
that of FedAvg.

The text of the paper was not available: devices, network, N_p, β, batch size, partition and schedules are our choice.

Reference: Cao et al. 2021, arXiv 2111.08274.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments.lib import hadfl_runs, trivial
from experiments.lib.cells import Cell, Keep, Missing, take_grid
from experiments.lib.curves import grid_of_runs, reached, side_by_side
from experiments.lib.hadfl_runs import DATA_PARALLEL, FEDAVG, HADFL, OF_PAPER, SCHEMES, Setting
from experiments.lib.problems import Problem
from experiments.lib.report import Row, over_seeds
from gossipjax import devices
from theory.check.policy import above, decide
from theory.hadfl import compute_bound

CLAIM = "HADFL reaches a common target accuracy sooner than data parallel training and decentralized FedAvg"
MAXIMUM = {FEDAVG: 3.15, DATA_PARALLEL: 4.68}
"""Largest speed-ups of the paper's abstract, in time to the maximum accuracy."""
SHARE = 0.95
"""The target, as a share of the best accuracy that all schemes of the paper reach."""
TUNING_SEED = 1000
OURS = "devices, network, N_p and β are ours"


class Config(NamedTuple):
    """Settings; a step of the fastest device takes about as long as a batch on a GPU."""

    task: str = "fashion"
    powers: tuple[tuple[int, ...], ...] = ((3, 3, 1, 1), (4, 2, 2, 1))
    schemes: tuple[str, ...] = SCHEMES
    batch_size: int = 64
    unit_steps: int = 50
    members: int = 2
    model_bytes: int = hadfl_runs.RESNET18_BYTES
    slowest_step_s: float = 0.1
    bytes_per_second: float = 1.25e9
    latency_seconds: float = 1e-4
    duration_s: float = 240.0
    rates: tuple[float, ...] = (0.03, 0.1, 0.3)
    records: int = 60
    num_seeds: int = 3
    seed: int = 0
    keep: Keep = None
    """Where finished runs are."""


QUICK = Config(
    task="digits",
    schemes=OF_PAPER,
    unit_steps=10,
    batch_size=16,
    duration_s=40.0,
    rates=(0.1,),
    records=20,
    num_seeds=2,
)
PAPER = Config(
    task="cifar10", batch_size=64, unit_steps=50, duration_s=300.0, rates=(0.02, 0.06, 0.2), records=120, num_seeds=3
)
"""CIFAR-10 with GN-LeNet in place of ResNet-18, but messages of its size; about half a day on two cores."""


def run(config: Config) -> xr.Dataset:
    """Run every scheme on both arrays; each run is kept when it is done."""
    parts = {}
    for powers in config.powers:
        with contextlib.suppress(Missing):
            parts[str(list(powers))] = _compared(_of_powers(config, powers))
    if not parts:
        raise Missing(f"no array has one seed of all of {', '.join(_required(config))}")
    along = xr.DataArray(list(parts), dims="powers", name="powers")
    found = side_by_side(list(parts.values()), along)
    return found.assign_attrs(
        num_nodes=len(config.powers[0]),
        batch_size=config.batch_size,
        model_bytes=config.model_bytes,
        bytes_per_second=config.bytes_per_second,
        members=config.members,
        compared=[name for name in MAXIMUM if name in found.scheme.values],
        maxima=[claimed for name, claimed in MAXIMUM.items() if name in found.scheme.values],
    )


def _compared(at: xr.Dataset) -> xr.Dataset:
    """Add the target, and the costs of each scheme and seed until the target over those of HADFL.

    A ratio is 0 if HADFL misses the target, and NaN if the other scheme does.
    """
    goal = target(at)
    costs = {name: spent(at, name, goal) for name in at.scheme.values}
    own = costs[HADFL]
    result = at.assign(target=((), goal))
    for cost in ("time", "bytes", "samples"):
        ratios = [np.where(np.isnan(own[cost]), 0.0, costs[name][cost] / own[cost]) for name in at.scheme.values]
        result[f"{cost}_ratio"] = (("scheme", "seed"), np.array(ratios))
    rates = {name: rates_of(at, name) for name in at.scheme.values}
    result["rate_ratio"] = (("scheme", "seed"), np.array([rates[HADFL] / rates[name] for name in at.scheme.values]))
    bests = {name: until_best(at, name) for name in at.scheme.values}
    result["best_ratio"] = (("scheme", "seed"), np.array([bests[name] / bests[HADFL] for name in at.scheme.values]))
    return result


def _required(config: Config) -> list[str]:
    return [name for name in config.schemes if name in OF_PAPER]


def cells(config: Config) -> list[Cell]:
    """List the runs of a configuration; those that choose a learning rate first."""
    runs = [cell for powers in config.powers for cell in _cells(config, powers).values()]
    tuning = {one.name: one for cell in runs for one in cell.needs}
    return [*tuning.values(), *runs]


def _cells(config: Config, powers: tuple[int, ...]) -> dict[tuple[str, int], Cell]:
    """Name the runs of an array by scheme and seed."""
    seeds = range(config.seed, config.seed + config.num_seeds)
    return {(name, seed): _compared_cell(config, powers, name, seed) for seed in seeds for name in config.schemes}


def _compared_cell(config: Config, powers: tuple[int, ...], name: str, seed: int) -> Cell:
    """Name a run that is compared; its learning rate is the one of the grid that did best, with a seed of its own."""
    tuned = name if name in OF_PAPER else FEDAVG if FEDAVG in config.schemes else None
    if len(config.rates) == 1 or tuned is None:
        return _cell(config, powers, name, seed, config.rates[:1])
    needs = [_cell(config, powers, tuned, TUNING_SEED, (rate,)) for rate in config.rates]
    return _cell(config, powers, name, seed, config.rates, tuple(needs))


def _cell(
    config: Config,
    powers: tuple[int, ...],
    name: str,
    seed: int,
    rates: tuple[float, ...],
    needs: tuple[Cell, ...] = (),
) -> Cell:
    settings = config._asdict() | {"powers": powers, "scheme": name, "seed": seed, "rates": rates}
    for other in ("schemes", "num_seeds", "keep"):
        settings.pop(other)
    labels: dict[str, Any] = {"task": config.task, "powers": "".join(map(str, powers)), "scheme": name}
    labels |= {"rate": rates[0]} if seed == TUNING_SEED else {"seed": seed}
    bands = {"times sooner, above": 1.0, "better than trivial by": trivial.MARGIN[True]}
    return Cell("hadfl_time_to_accuracy", labels, one, contents, settings, needs, bands)


def one(settings: dict[str, Any], checkpoint: Any, *tuning: xr.Dataset) -> xr.Dataset:
    """Plan and learn one run; ``tuning`` has the runs of all learning rates, if there is a choice."""
    problem, fleet = contents(settings)
    rates, seed = settings["rates"], settings["seed"]
    rate = rates[int(np.nanargmax([float(each.score.max()) for each in tuning]))] if tuning else rates[0]
    setting = Setting(*(settings[name] for name in Setting._fields))
    plan, protocol = hadfl_runs.scheme(settings["scheme"], problem, fleet, setting, rate, seed)
    found = hadfl_runs.learn(
        problem, plan, protocol, setting, records=settings["records"], seed=seed, checkpoint=checkpoint
    )
    return found.assign(rate=((), rate), trivial=((), trivial.noted(problem.task, problem.metric)))


def contents(settings: dict[str, Any]) -> tuple[Problem, devices.Devices]:
    """Build the problem and the devices of a run."""
    fleet = devices.from_powers(
        settings["powers"],
        seconds_per_sample=settings["slowest_step_s"] / (3 * settings["batch_size"]),
        bytes_per_second=settings["bytes_per_second"],
        latency_seconds=settings["latency_seconds"],
    )
    return hadfl_runs.problem_of(
        settings["task"], fleet.num_nodes, settings["batch_size"], seed=settings["seed"]
    ), fleet


def _of_powers(config: Config, powers: tuple[int, ...]) -> xr.Dataset:
    runs = take_grid(config.keep, _cells(config, powers), _required(config))
    names, seeds = (list(dict.fromkeys(each)) for each in zip(*runs, strict=True))
    found = grid_of_runs(names, "scheme", seeds, lambda name, seed: runs[name, seed])
    rate, known = found.rate.isel(seed=0, drop=True), found.trivial.isel(scheme=0, seed=0, drop=True)
    return found.assign(rate=rate, trivial=known, bound=((), compute_bound(np.array(powers, float))))


def target(at: xr.Dataset) -> float:
    """Return 95 % of the best accuracy, as a mean over seeds, that all schemes of the paper reach."""
    best = [
        float(at.score.sel(scheme=name).max("record").mean("seed")) for name in at.scheme.values if name in OF_PAPER
    ]
    return SHARE * min(best)


def spent(at: xr.Dataset, name: str, goal: float) -> dict[str, np.ndarray]:
    """Return seconds, bytes and samples until a scheme first reaches a goal, by seed; NaN if it does not."""
    costs: dict[str, list[float]] = {"time": [], "bytes": [], "samples": []}
    for seed in at.seed.values:
        curve = at.sel(scheme=name, seed=seed)
        for cost, values in costs.items():
            values.append(reached(goal, curve[cost].values, curve.score.values))
    return {cost: np.array(values) for cost, values in costs.items()}


def until_best(at: xr.Dataset, name: str) -> np.ndarray:
    """Return the seconds at which a scheme has its own best accuracy, by seed."""
    score = at.score.sel(scheme=name)
    return at.time.sel(scheme=name).isel(record=score.argmax("record")).values


def rates_of(at: xr.Dataset, name: str) -> np.ndarray:
    """Return the samples per second over the whole run, by seed."""
    run = at.sel(scheme=name).isel(record=-1)
    return (run.samples / run.time).values


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare speed-ups with those of the paper, and report their components."""
    rows = []
    for powers in dataset.powers.values:
        at = dataset.sel(powers=powers)
        for name in [name for name in at.scheme.values if name != HADFL]:
            rows += _against(at, str(powers), str(name))
        for name in at.scheme.values:
            best, rate = at.score.sel(scheme=name).max("record").values, float(at.rate.sel(scheme=name))
            rows.append(over_seeds(f"{powers}: best accuracy, {name}", best, np.nan, f"learning rate {rate:g}"))
        rows += trivial.rows(f"{powers}: accuracy, ", trivial.stored(at), True)
    return rows


def _sooner(at: xr.Dataset, name: str) -> str:
    """Judge whether HADFL reaches the target first, if both have learned."""
    ends = np.minimum(*(at.score.sel(scheme=each).max("record").values for each in (HADFL, name)))
    return trivial.gated(decide(at.time_ratio.sel(scheme=name).values, above(1.0)), ends, trivial.stored(at), True)


def _against(both: xr.Dataset, powers: str, name: str) -> list[Row]:
    at = both.sel(scheme=name)
    of_paper, goal = name in MAXIMUM, f"until {float(at.target):.4g}"
    claimed = MAXIMUM.get(name, np.nan)
    note = f"; the paper's maximum, reported of the time to the best; {OURS}" if of_paper else ""
    verdict = f"; {_sooner(both, name)}" if of_paper else ""
    ratio = f"{powers}: {name} / HADFL"
    bound = float(at.bound) if name == FEDAVG else np.nan
    why = "bound: computing alone, against a barrier" if name == FEDAVG else "over the whole run"
    rows = [
        over_seeds(f"{ratio}, time", at.time_ratio.values, claimed, f"{goal}{note}{verdict}"),
        over_seeds(f"{powers}: HADFL / {name}, samples per second", at.rate_ratio.values, bound, why),
        over_seeds(f"{ratio}, samples", at.samples_ratio.values, np.nan, goal),
        over_seeds(f"{ratio}, bytes", at.bytes_ratio.values, np.nan, goal),
    ]
    if of_paper:
        words = f"a noisy number{note}"
        rows.append(over_seeds(f"{ratio}, time to own best", at.best_ratio.values, claimed, words))
    return rows
