"""How much do larger samples cost Plexus? Accuracy against hours, bytes and training hours, by sample size.

A larger sample needs about as many rounds to a target, but each round has more models and more trainings: in the paper,
a sample four times as large costs four times the bytes and training. The target is 95 % of the gain of the weakest
sample size from start to end. ``model_bytes`` sets the size of messages, such as that of FEMNIST's network, so that
hours and bytes are those of a larger model than the one that learns.

Reference: Dhasade et al. 2025, arXiv 2503.05509, figure 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments.lib import curves, trivial
from experiments.lib.curves import at_target, grid_of_runs, last_known
from experiments.lib.kept import kept_run
from experiments.lib.plexus_runs import GIB, HOUR, kind_of, learn, pad_timelines, phones
from experiments.lib.problems import Name, Problem, of_plexus
from experiments.lib.report import Row
from experiments.lib.store import mean_and_interval
from gossipjax import observe, systems
from gossipjax.systems import Plan
from theory.check.policy import Verdict, above, around, decide

CLAIM = "Larger samples do not reach an accuracy sooner: four times the sample costs four times the bytes and training"
PAPER_RATIO = 4.0
"""Ratio of bytes and of training to 80 %, samples of 40 to samples of 10."""
WITHIN = 0.25
"""Largest deviation from the paper's ratio that counts as its reproduction; noise between seeds alone is a tenth."""
FEMNIST_BYTES = 4 * 1_690_046
SHARE_OF_GAIN = 0.95
COSTS = {"time": ("hours", HOUR), "bytes": ("GiB", GIB), "training": ("training hours", HOUR)}


class Config(NamedTuple):
    """Settings; the task is MNIST by writer in the role of FEMNIST, an MLP with messages of FEMNIST's size."""

    task: Name = "writers"
    num_nodes: int = 355
    sample_sizes: tuple[int, ...] = (10, 20, 40)
    num_rounds: int = 1500
    every: int = 20
    """Rounds between two records."""
    model_bytes: int | None = FEMNIST_BYTES
    """None: the size of the model that learns."""
    success_fraction: float = 0.8
    local_steps: int = 5
    time_batch: int = 1
    num_seeds: int = 3
    test_samples: int | None = 2000
    one_program: bool = False
    """Whether all sample sizes share the compiled program of the largest, for short runs."""
    seed: int = 0
    keep: str | None = None
    """Folder of finished runs."""


QUICK = Config("digits", 40, (4, 8, 16), num_rounds=160, every=8, num_seeds=2, test_samples=None, one_program=True)


def run(config: Config) -> xr.Dataset:
    """Learn with every sample size; each seed has its own phones, samples and learning."""
    problem = of_plexus(config.task, config.num_nodes, seed=config.seed)
    source = kind_of(phones(config.num_nodes, config.seed))
    named = config._asdict() | {"experiment": "plexus_sample_size", "devices": source} | problem.named
    for name in ("keep", "sample_sizes", "num_seeds", "seed"):
        named.pop(name)

    def one(size: int, seed: int) -> xr.Dataset:
        def make(checkpoint):
            return _learn(config, problem, size, seed, checkpoint)

        settings = named | {"size": size, "of": seed, "partition": config.seed}
        return kept_run(config.keep, settings, make, problem.task, phones(config.num_nodes, seed))

    seeds = [config.seed + k for k in range(config.num_seeds)]
    return grid_of_runs(config.sample_sizes, "sample_size", seeds, one).assign_attrs(
        devices=source,
        num_nodes=config.num_nodes,
        model_bytes=config.model_bytes or 4 * problem.parameters,
        trivial=trivial.noted(problem.task, problem.metric, observe.subset(problem.task, config.test_samples, seed=0)),
    )


def _learn(config: Config, problem: Problem, size: int, seed: int, checkpoint: Any) -> xr.Dataset:
    plan = _plan(config, problem, size, seed)
    timeline = plan.timeline
    if config.one_program:
        widest = _plan(config, problem, max(config.sample_sizes), config.seed).timeline
        timeline = pad_timelines([timeline, widest])[0]
    return learn(
        problem,
        plan,
        timeline,
        local_steps=config.local_steps,
        every=config.every,
        test_samples=config.test_samples,
        seed=seed,
        checkpoint=checkpoint,
    )


def _plan(config: Config, problem: Problem, size: int, seed: int) -> Plan:
    return systems.plexus(
        phones(config.num_nodes, seed),
        num_rounds=config.num_rounds,
        model_bytes=config.model_bytes or 4 * problem.parameters,
        seed=seed,
        sample_size=size,
        success_fraction=config.success_fraction,
        local_steps=config.local_steps,
        time_batch=config.time_batch,
    )


def target_of(dataset: xr.Dataset) -> float:
    """Return the score after 95 % of the gain of the sample size that ends worst; means over seeds."""
    start, ends = float(dataset.score.isel(record=0).mean()), last_known(dataset.score).mean("seed").values
    return curves.target_of(start, ends, SHARE_OF_GAIN, dataset.attrs["higher_is_better"])


def to_target(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    """Return seconds, bytes and training seconds to the target, ``(sizes, seeds)``."""
    target, higher = target_of(dataset), dataset.attrs["higher_is_better"]
    costs = [
        [at_target(dataset.sel(sample_size=size, seed=seed), target, higher) for seed in dataset.seed.values]
        for size in dataset.sample_size.values
    ]
    return {name: np.array([[run[name] for run in row] for row in costs]) for name in COSTS}


def judged(spent: dict[str, np.ndarray]) -> dict[str, Verdict]:
    """Judge the costs of the largest sample over the smallest: slower, and bytes and training as in the paper.

    Args:
        spent: costs to the target, ``(sizes, seeds)``.
    """
    bands = {"time": above(1.0)} | dict.fromkeys(("bytes", "training"), around(PAPER_RATIO, WITHIN))
    return {name: decide(_ratio(spent[name]), band) for name, band in bands.items()}


def table(dataset: xr.Dataset) -> list[Row]:
    """Report ratios of costs to the target, largest sample to smallest; costs; and final scores."""
    sizes, spent = dataset.sample_size.values.tolist(), to_target(dataset)
    known, higher, factor = trivial.stored(dataset), dataset.attrs["higher_is_better"], sizes[-1] / sizes[0]
    last = last_known(dataset.score)
    ends = (last.min if higher else last.max)("sample_size").values  # of the size that sets the target
    verdicts = {name: trivial.gated(verdict, ends, known, higher) for name, verdict in judged(spent).items()}
    words = f"{100 * SHARE_OF_GAIN:.0f} % of the weakest's gain; {dataset.attrs['data']}"
    rows = [Row(f"target ({dataset.attrs['metric']})", target_of(dataset), np.nan, np.nan, words)]
    rows += trivial.rows(f"{dataset.attrs['metric']}, ", known, higher)
    for name in ("bytes", "training"):
        mean, half = _over_seeds(_ratio(spent[name]))
        paper = PAPER_RATIO * factor / 4
        source = f"paper (40 to 10): {PAPER_RATIO:g}; {verdicts[name]}" if factor == 4 else "ratio of the sample sizes"
        rows.append(Row(f"{COSTS[name][0]} to target, s = {sizes[-1]} to {sizes[0]}", mean, half, paper, source))
    mean, half = _over_seeds(_ratio(spent["time"]))
    words = f"paper: slower; {verdicts['time']}"
    rows.append(Row(f"hours to target, s = {sizes[-1]} to {sizes[0]}", mean, half, np.nan, words))
    for name, (unit, scale) in COSTS.items():
        for size, values in zip(sizes, spent[name], strict=True):
            mean, half = _over_seeds(values / scale)
            rows.append(Row(f"{unit} to target, s = {size}", mean, half, np.nan, _missed(values)))
    for size in sizes:
        mean, half = _over_seeds(last_known(dataset.score.sel(sample_size=size)).values)
        words = f"after {float(dataset['event'].sel(sample_size=size).max()) - 1:.0f} rounds"
        rows.append(Row(f"final {dataset.attrs['metric']}, s = {size}", mean, half, np.nan, words))
    return [row for row in rows if np.isfinite(row.measured)]


def _ratio(values: np.ndarray) -> np.ndarray:
    """Return the cost of the last size over that of the first, seed by seed; NaN if one of them misses the target."""
    return values[-1] / values[0]


def _over_seeds(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return np.nan, np.nan
    mean, half = mean_and_interval(known)
    return float(mean), float(half)


def _missed(values: np.ndarray) -> str:
    missing = int(np.sum(~np.isfinite(values)))
    return f"{missing} of {values.size} seeds miss it" if missing else "mean over seeds"
