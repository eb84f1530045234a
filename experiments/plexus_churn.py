"""How do devices that come and go affect Plexus: its views, and the length of its rounds?

Devices are online while they charge, according to a generator that was fitted to published traces, or to a file of
traces. They announce that they leave, or do not (crashes); the reference is the same devices always online. Views are
merged when messages arrive. Plotted is the number of nodes that online nodes believe to be active whenever a mean is
taken, beside the number that are.

Reference: de Vos et al. 2024, arXiv 2302.13837 v2.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from experiments.lib.curves import held
from experiments.lib.kept import kept_run
from experiments.lib.plexus_runs import HOUR, kind_of, phones
from experiments.lib.report import Row, over_seeds
from gossipjax import devices, systems
from gossipjax.devices import Devices
from gossipjax.systems import Plan, PlexusHistory
from gossipjax.systems._plexus.history import AVERAGED
from theory.check.policy import Band, Verdict, decide

CLAIM = (
    "Plexus keeps its pace while devices come and go, if they announce it; after crashes views lag and rounds slow down"
)
NETWORKS = ("always online", "leaves", "crashes")
PACE = 1.25
"""Largest length of a round, relative to devices that are always online, that counts as keeping pace."""
SHARE_CHARGING = 0.203
"""Share of phones that charge in the published trace, on average over the day."""


class Config(NamedTuple):
    """Settings."""

    num_nodes: int = 500
    hours: float = 24.0
    sample_size: int = 13
    success_fraction: float = 0.8
    local_steps: int = 5
    time_batch: int = 1
    model_bytes: int = 4 * 85_354
    availability: Literal["charging"] = "charging"
    bins: int = 96
    """Equal intervals of time over which rounds are averaged."""
    num_seeds: int = 3
    seed: int = 0
    keep: str | None = None
    """Folder of finished plans."""


QUICK = Config(num_nodes=160, hours=1.0, bins=20, num_seeds=2)


def run(config: Config) -> xr.Dataset:
    """Plan all networks with different devices for each seed."""
    by_network = []
    for network in NETWORKS:
        seeds = [_kept(config, network, config.seed + k) for k in range(config.num_seeds)]
        by_network.append(xr.concat(seeds, "seed", combine_attrs="drop_conflicts"))
    joined = xr.concat(
        by_network, xr.DataArray(list(NETWORKS), dims="network", name="network"), combine_attrs="override"
    )
    named = {"num_nodes": config.num_nodes, "sample_size": config.sample_size, "hours": config.hours}
    return joined.assign_attrs(data=kind_of(phones(config.num_nodes, config.seed)), **named)


def _kept(config: Config, network: str, seed: int) -> xr.Dataset:
    named = config._asdict() | {"experiment": "plexus_churn", "network": network, "of": seed}
    for name in ("keep", "num_seeds", "seed"):
        named.pop(name)
    fleet = phones(config.num_nodes, seed, availability=config.availability)
    named["devices"] = kind_of(fleet)
    return kept_run(config.keep, named, lambda _: _plan(config, network, fleet, seed), fleet)


def _plan(config: Config, network: str, fleet: Devices, seed: int) -> xr.Dataset:
    """Plan one run, and average its measurements over intervals of time."""
    if network == "always online":
        fleet = devices.with_availability(fleet, None)
    plan = systems.plexus(
        fleet,
        duration_s=config.hours * HOUR,
        model_bytes=config.model_bytes,
        seed=seed,
        sample_size=config.sample_size,
        success_fraction=config.success_fraction,
        local_steps=config.local_steps,
        time_batch=config.time_batch,
        membership=systems.Membership("crash" if network == "crashes" else "graceful"),
    )
    edges = np.linspace(0.0, config.hours * HOUR, config.bins + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    online = held(plan.history.online_s, plan.history.online_count, middle)
    columns = {"online": online} | _views(plan, edges) | _rounds(plan, edges)
    variables = {name: ("hour", values) for name, values in columns.items()}
    facts = {name: ((), value) for name, value in _facts(plan).items()}
    return xr.Dataset(variables | facts, {"hour": middle / HOUR})


def _views(plan: Plan, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Return the numbers of nodes believed active at the means of each interval: smallest, mean and largest view."""
    least, mean, middle, largest = plan.history.view_active.T
    return {
        "believed_min": _per_bin(plan.history.aggregation_s, least, edges, np.min),
        "believed_mean": _per_bin(plan.history.aggregation_s, mean, edges, np.mean),
        "believed_median": _per_bin(plan.history.aggregation_s, middle, edges, np.mean),
        "believed_max": _per_bin(plan.history.aggregation_s, largest, edges, np.max),
    }


def _rounds(plan: Plan, edges: np.ndarray) -> dict[str, np.ndarray]:
    times, seconds = round_ends(plan.history)
    return {
        "duration": _per_bin(times, seconds, edges, np.mean),
        "longest": _per_bin(times, seconds, edges, np.max),
    }


def round_ends(history: PlexusHistory) -> tuple[np.ndarray, np.ndarray]:
    """Return when each newer round is first reported, and the seconds since the previous one."""
    newest = np.maximum.accumulate(history.aggregation_round)
    times = history.aggregation_s[newest > np.append(0, newest[:-1])]
    return times, np.diff(times, prepend=0.0)


def _per_bin(times: np.ndarray, values: np.ndarray, edges: np.ndarray, reduce: Any) -> np.ndarray:
    """Reduce the values of each interval; NaN if there is none."""
    chosen = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 2)
    return np.array([reduce(values[chosen == k]) if (chosen == k).any() else np.nan for k in range(len(edges) - 1)])


def _facts(plan: Plan) -> dict[str, float]:
    """Return statistics of a whole run."""
    _, seconds = round_ends(plan.history)
    online = held(plan.history.online_s, plan.history.online_count, plan.history.aggregation_s)
    gap = np.abs(plan.history.view_active[:, 2] - online) / online
    length = np.diff(np.append(plan.history.online_s, plan.end_s))
    return {
        "rounds": float(plan.history.aggregation_round.max()),
        "mean_duration": float(seconds.mean()),
        "p99_duration": float(np.quantile(seconds, 0.99)),
        "wasted": float(np.mean(plan.history.training_fate != AVERAGED)),
        "view_gap": float(gap.mean()),
        "mean_online": float(np.sum(plan.history.online_count * length) / plan.end_s),
        "bytes_per_round": float(plan.history.message_bytes.sum() / plan.history.aggregation_round.max()),
        "stalled": float(plan.history.outcome == "stalled"),
    }


def pace(at: xr.Dataset, alone: np.ndarray) -> Verdict:
    """Judge whether rounds are hardly longer than with devices that are always online; stalled rounds never end.

    Args:
        at: one network.
        alone: mean seconds per round of devices that are always online, by seed.
    """
    return decide(np.where(at.stalled.values > 0, np.inf, at.mean_duration.values / alone), Band(high=PACE))


def table(dataset: xr.Dataset) -> list[Row]:
    """Report who is online, how long rounds take, how far views are off, and how much work is wasted."""
    rows = []
    alone = dataset.sel(network="always online").mean_duration.values
    for name in NETWORKS[1:]:
        at = dataset.sel(network=name)
        words = f"keeps its pace: {pace(at, alone)}; {int(at.stalled.sum())} of {alone.size} runs stall"
        rows.append(
            over_seeds(f"length of a round / always online, {name}", at.mean_duration.values / alone, 1.0, words)
        )
    labels = {
        "mean_duration": ("mean seconds per round", 1.0),
        "p99_duration": ("seconds per round, 99th percentile", 1.0),
        "view_gap": ("error of median views, %", 100.0),
        "wasted": ("wasted trainings, %", 100.0),
        "bytes_per_round": ("MB per round", 1e-6),
    }
    for field, (label, scale) in labels.items():
        for name in NETWORKS:
            known = 0.0 if field == "view_gap" else np.nan
            words = "relative to the nodes online" if field == "view_gap" else f"mean over {alone.size} seeds"
            rows.append(over_seeds(f"{label}, {name}", scale * dataset[field].sel(network=name).values, known, words))
    share = 100 * dataset.mean_online.sel(network="leaves").values / dataset.attrs["num_nodes"]
    words = f"the trace's mean over the day; hours 0 to {dataset.attrs['hours']:g} here"
    return [*rows, over_seeds("devices online, %", share, 100 * SHARE_CHARGING, words)]
