"""Staleness in networks of up to ten million nodes, for two capacities of gossip, beside the exact lines.

All nodes update and push at Poisson times drawn inside the run, and the versions of a few of them are tracked, so that
a node costs tens of bytes. Every node starts with the newest versions. At time t, delays are then those of the
stationary network, cut off at t: the start is forgotten once the slowest delay, about ``2 ln n/λ``, has passed.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from experiments.lib import stationary
from experiments.lib.kept import kept_run
from experiments.lib.report import Row
from experiments.lib.store import mean_and_interval
from experiments.staleness_vs_capacity import capacity
from gossipjax.observe import staleness_by_source
from gossipjax.timeline import drawn_gossip
from theory import staleness

CLAIM = "to ten million nodes staleness grows as ln n for constant capacity, and stays bounded for λ = ln n"
ONE_DEVICE = True
CAPACITIES = ("1", "ln n")


class Config(NamedTuple):
    """Settings."""

    sizes: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000, 10_000_000)
    update_rate: float = 1.0
    units: int = 128
    """Smallest number of means of one source over two mean delays; sources of one run count as units."""
    most_events: float = 2e9
    """Where more events than these would be needed for all units, five blocks must do."""
    burn_in: float = 3.0
    """Time before the first record, in units of ``ln n/λ``."""
    seed: int = 0
    keep: str | None = None
    """Folder of finished runs, one per network; None: nothing is kept."""


QUICK = Config(sizes=(1000, 10_000), units=64)


def exact(n: Any, rate: Any, update_rate: float) -> tuple[Any, Any]:
    """Compute ``E S = m H_{n−1}/λ`` and ``E max_j S = 2m (n−1)/n H_{n−1}/λ``."""
    rates = {"gossip_rate": rate, "update_rate": update_rate}
    return staleness.mean_staleness(n, **rates), staleness.max_staleness(n, **rates)


def schedule(n: int, rate: float, config: Config) -> stationary.Schedule:
    """Cut a run into blocks of two mean delays, and leave out its start."""
    per_time = n * (config.update_rate + rate)
    delay = float(exact(n, rate, 1.0)[0])
    return stationary.schedule(
        n,
        record=delay * per_time / 4,
        memory=2 * delay * per_time,
        burn_in=config.burn_in * np.log(n) / rate * per_time,
        units=config.units,
        most_events=config.most_events,
    )


def measured(name: str, n: int, config: Config) -> xr.Dataset:
    """Measure mean and maximum staleness of one network in parts of one run."""
    rate = float(capacity(name, n))
    plan = schedule(n, rate, config)
    drawn = drawn_gossip(n, plan.chunk, update_rate=config.update_rate, gossip_rate=rate)
    key = jax.random.fold_in(jax.random.key(config.seed), 2 * n + CAPACITIES.index(name))
    chunks = itertools.repeat(drawn, plan.chunks)
    recorded = stationary.records(key, chunks, plan.nodes(n), staleness_by_source(), plan.record_every)
    parts = {
        "mean": stationary.batches(stationary.blocks(recorded["staleness_of_source"], plan)),
        "maximum": stationary.batches(stationary.blocks(recorded["max_staleness_of_source"], plan)),
    }
    events = ((), float(plan.chunk * plan.chunks), {"units": "events"})
    return xr.Dataset(
        {key: ("part", values, {"units": "updates"}) for key, values in parts.items()} | {"events": events}
    )


def run(config: Config) -> xr.Dataset:
    """Measure all networks; add the exact values."""
    runs = [[_kept(name, n, config) for n in config.sizes] for name in CAPACITIES]
    dataset = xr.concat(
        [
            xr.concat([one.assign_coords(part=range(one.sizes["part"])) for one in row], "n", join="outer")
            for row in runs
        ],
        "capacity",
        join="outer",
    ).assign_coords(n=("n", list(config.sizes), {"units": "nodes"}), capacity=list(CAPACITIES))
    values = np.asarray([[exact(n, capacity(c, n), config.update_rate) for n in config.sizes] for c in CAPACITIES])
    for number, key in enumerate(("mean", "maximum")):
        dataset[f"exact_{key}"] = (("capacity", "n"), values[..., number], {"units": "updates"})
    return dataset.assign(update_rate=((), config.update_rate, {"units": "updates per node and unit time"}))


def _kept(name: str, n: int, config: Config) -> xr.Dataset:
    settings = {"stem": "staleness_at_scale", "capacity": name, "n": n, **config._asdict()}
    del settings["sizes"], settings["keep"]
    return kept_run(config.keep, settings, lambda _: measured(name, n, config))


def interval(dataset: xr.Dataset, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and half-width of its 95 % interval over the parts of one run."""
    values = dataset[key].transpose("part", ...).values
    mean, half = mean_and_interval(values[np.isfinite(values)])
    return mean, half


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare mean and maximum with the exact values."""
    rows = []
    for key, formula in (("mean", "m H/λ"), ("maximum", "2m (n−1)/n H/λ")):
        for name in CAPACITIES:
            for n in dataset.n.values:
                at = dataset.sel(capacity=name, n=n)
                mean, half = interval(at, key)
                label = f"{key}, λ = {name}, n = {n:,}"
                rows.append(Row(label, float(mean), float(half), float(at[f"exact_{key}"]), f"{formula}, exact"))
    return rows
