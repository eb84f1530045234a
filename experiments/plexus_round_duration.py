"""How long does a round of Plexus take, how often is one slow, and how many bytes does it send?

The network and the message size are those of FEMNIST: 355 nodes and 1,690,046 parameters. Plans give durations and
bytes without any learning. The training time depends on the number of local steps alone, or on their samples (the
published durations fit the former). The bytes of a round with a sample of s nodes are compared with
``2 s (4 P + 88 n) + 13 kB``.

Reference: Dhasade et al. 2025, arXiv 2503.05509, figure 5.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from experiments.lib.kept import kept_run
from experiments.lib.plexus_runs import WITHIN, kind_of, phones
from experiments.lib.report import Row, over_seeds
from experiments.lib.store import mean_and_interval
from gossipjax import systems
from gossipjax.devices import Devices
from theory.check.policy import Band, Verdict, around, decide

CLAIM = "A round of Plexus lasts 45 s with samples of 10 and only 1.2 times as long with 40; slow rounds are rare"
PAPER_MEAN = {10: 45.1, 40: 54.9}
"""Seconds per round by sample size."""
PAPER_SLOW = (20, 18 / 6941)
"""Sample size, and share of its rounds that take longer than SLOW_S."""
SLOW_BAND = Band(*(100 * stats.chi2.ppf((0.025, 0.975), (36, 38)) / 2 / 6941))
"""Percentages in agreement with the published count: the exact 95 % interval of a Poisson count of 18."""
PAPER_LONGEST = (20, 178.0)
SLOW_S = 100.0
VIEW_ENTRY, CONTROL = 88, 13e3
"""Bytes per node in a view, and of the control messages of a round."""


class Config(NamedTuple):
    """Settings; ``num_rounds`` has one entry per sample size."""

    num_nodes: int = 355
    parameters: int = 1_690_046
    sample_sizes: tuple[int, ...] = (10, 20, 40)
    num_rounds: tuple[int, ...] = (1500, 7000, 1500)
    success_fraction: float = 0.8
    local_steps: int = 5
    time_batches: tuple[int, ...] = (1, 20)
    num_seeds: int = 3
    seed: int = 0
    keep: str | None = None
    """Folder of finished plans' durations."""


QUICK = Config(num_rounds=(300, 600, 200), num_seeds=2)


def run(config: Config) -> xr.Dataset:
    """Plan every sample size with both laws of the training time, and different phones and samples for each seed."""
    sizes = dict(zip(config.sample_sizes, config.num_rounds, strict=True))
    source = kind_of(phones(config.num_nodes, config.seed))
    by_batch = []
    for batch in config.time_batches:
        by_size = []
        for size in sizes:
            seeds = [_kept(config, batch, size, sizes[size], config.seed + k, source) for k in range(config.num_seeds)]
            by_size.append(xr.concat(seeds, "seed"))
        numbered = [at.assign_coords(round=np.arange(at.sizes["round"])) for at in by_size]
        along = xr.DataArray(list(sizes), dims="sample_size", name="sample_size")
        by_batch.append(xr.concat(numbered, along, join="outer", combine_attrs="drop_conflicts"))
    dataset = xr.concat(by_batch, xr.DataArray(list(config.time_batches), dims="time_batch", name="time_batch"))
    paper = {"paper_sizes": list(PAPER_MEAN), "paper_means": list(PAPER_MEAN.values())}
    paper |= {"slow_s": SLOW_S, "paper_slow_size": PAPER_SLOW[0], "paper_slow_share": PAPER_SLOW[1]}
    named = {"data": source, "num_nodes": config.num_nodes, "parameters": config.parameters}
    return dataset.assign_attrs(named | paper)


def _kept(config: Config, batch: int, size: int, rounds: int, seed: int, source: str) -> xr.Dataset:
    settings = config._asdict() | {"batch": batch, "size": size, "rounds": rounds, "of": seed, "devices": source}
    for name in ("keep", "sample_sizes", "num_rounds", "time_batches", "num_seeds", "seed"):
        settings.pop(name)
    named = {"experiment": "plexus_round_duration"} | settings
    fleet = phones(config.num_nodes, seed)
    return kept_run(config.keep, named, lambda _: _plan(settings, fleet), fleet)


def _plan(settings: dict[str, Any], fleet: Devices) -> xr.Dataset:
    """Plan one run; return the seconds of its rounds, and its bytes per round."""
    plan = systems.plexus(
        fleet,
        num_rounds=settings["rounds"],
        model_bytes=4 * settings["parameters"],
        seed=settings["of"],
        sample_size=settings["size"],
        success_fraction=settings["success_fraction"],
        local_steps=settings["local_steps"],
        time_batch=settings["batch"],
    )
    seconds = plan.round_seconds
    facts = {"duration": ("round", seconds, {"units": "s"})}
    return xr.Dataset(facts | {"bytes_per_round": ((), float(plan.history.message_bytes.sum()) / settings["rounds"])})


def formula(sample_size: int, parameters: int, num_nodes: int) -> float:
    """Predict the bytes of a round: every sampled node receives, and sends, a model with a view."""
    return 2 * sample_size * (4 * parameters + VIEW_ENTRY * num_nodes) + CONTROL


def means(at: xr.Dataset) -> np.ndarray:
    """Return the mean seconds per round of each seed."""
    return np.nanmean(at.duration.transpose("seed", "round").values, axis=1)


def table(dataset: xr.Dataset) -> list[Row]:
    """Report mean durations, their ratio, slow rounds, and bytes per round."""
    rows = []
    for batch in dataset.time_batch.values:
        at = dataset.sel(time_batch=batch)
        rows += [*_durations(at, int(batch)), *_tail(at, int(batch))]
    for size in dataset.sample_size.values:
        at = dataset.isel(time_batch=0).sel(sample_size=size)
        mean, half = mean_and_interval(at.bytes_per_round.values / 1e6)
        expected = formula(int(size), dataset.attrs["parameters"], dataset.attrs["num_nodes"]) / 1e6
        gap = 100 * (float(mean) / expected - 1)
        words = f"2 s (4 P + 88 n) + 13 kB; ours {gap:+.1f} %: aggregators send none to themselves, some are cut"
        rows.append(Row(f"MB per round, s = {size}", float(mean), float(half), expected, words))
    return rows


def _durations(at: xr.Dataset, batch: int) -> list[Row]:
    rows, by_size = [], {}
    for size in at.sample_size.values.tolist():
        by_size[size] = means(at.sel(sample_size=size))
        paper = PAPER_MEAN.get(size, np.nan)
        words = "no mean is published"
        if not np.isnan(paper):
            words = f"paper; {decide(by_size[size], around(paper, WITHIN))}"
        rows.append(over_seeds(f"mean seconds per round, s = {size}, {_law(batch)}", by_size[size], paper, words))
    small, large = min(by_size), max(by_size)
    if small < large:
        ratio = by_size[large] / by_size[small]
        paper = PAPER_MEAN[40] / PAPER_MEAN[10] if (small, large) == (10, 40) else np.nan
        words = ""
        if not np.isnan(paper):
            words = f"paper; its excess over 1: {decide(ratio - 1, around(paper - 1, WITHIN))}"
        rows.append(over_seeds(f"s = {large} to s = {small}, {_law(batch)}", ratio, paper, words))
    return rows


def slowness(shares: np.ndarray) -> Verdict:
    """Compare the percentages of slow rounds, seed by seed, with the published count."""
    return decide(shares, SLOW_BAND)


def _tail(at: xr.Dataset, batch: int) -> list[Row]:
    """Return rows on slow rounds: their share, and the longest."""
    rows = []
    for size in at.sample_size.values.tolist():
        seconds = at.sel(sample_size=size).duration.transpose("seed", "round").values
        known = np.sum(np.isfinite(seconds), axis=1)
        slow = 100 * np.sum(seconds > SLOW_S, axis=1) / known
        paper = 100 * PAPER_SLOW[1] if size == PAPER_SLOW[0] else np.nan
        words = "no share is published"
        if np.isfinite(paper):
            words = f"paper: 18 of 6,941; {slowness(slow)}"
        name = f"% of rounds over {SLOW_S:.0f} s, s = {size}, {_law(batch)}"
        rows.append(over_seeds(name, slow, paper, words))
        if size == PAPER_LONGEST[0]:
            longest = float(np.nanmax(seconds))
            words = f"the paper's in 6,941 rounds; ours in {int(known.sum()):,}"
            rows.append(Row(f"longest round (s), s = {size}, {_law(batch)}", longest, np.nan, PAPER_LONGEST[1], words))
    return rows


def _law(batch: int) -> str:
    return f"time by {'steps' if batch == 1 else f'samples (batch {batch})'}"
