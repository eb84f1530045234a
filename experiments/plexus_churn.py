"""What do devices that come and go do to Plexus: to its views, and to the length of its rounds?

Devices are online while they charge, by a generator that was fitted to published traces, or by a file of them. They
leave with a word to others, or without one (crashes); beside them, the same devices always online. Views are merged as
messages come; what is plotted is how many nodes those online believe active, when a mean is taken, beside how many are.

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

CLAIM = "Plexus keeps its pace while devices come and go, if they say so; where they crash, views lag and rounds last"
NETWORKS = ("always online", "leaves", "crashes")
PACE = 1.25
"""Up to so many times the length of a round always online counts as keeping pace."""
SHARE_CHARGING = 0.203
"""Of phones in the published trace, on average over the day."""


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
    """Equal stretches of time over which rounds are averaged."""
    num_seeds: int = 3
    seed: int = 0
    keep: str | None = None
    """Folder of finished plans."""


QUICK = Config(num_nodes=160, hours=1.0, bins=20, num_seeds=2)


def run(config: Config) -> xr.Dataset:
    """Plan all networks with other devices for each seed."""
    found = []
    for network in NETWORKS:
        seeds = [_kept(config, network, config.seed + k) for k in range(config.num_seeds)]
        found.append(xr.concat(seeds, "seed", combine_attrs="drop_conflicts"))
    joined = xr.concat(found, xr.DataArray(list(NETWORKS), dims="network", name="network"), combine_attrs="override")
    named = {"num_nodes": config.num_nodes, "sample_size": config.sample_size, "hours": config.hours}
    return joined.assign_attrs(data=kind_of(phones(config.num_nodes, config.seed)), **named)


def _kept(config: Config, network: str, seed: int) -> xr.Dataset:
    named = config._asdict() | {"experiment": "plexus_churn", "network": network, "of": seed}
    for name in ("keep", "num_seeds", "seed"):
        named.pop(name)
    made = phones(config.num_nodes, seed, availability=config.availability)
    named["devices"] = kind_of(made)
    return kept_run(config.keep, named, lambda _: _plan(config, network, made, seed), made)


def _plan(config: Config, network: str, made: Devices, seed: int) -> xr.Dataset:
    """Plan one run, and average what is looked at over stretches of time."""
    if network == "always online":
        made = devices.with_availability(made, None)
    plan = systems.plexus(
        made,
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
    found = {name: ("hour", values) for name, values in columns.items()}
    facts = {name: ((), value) for name, value in _facts(plan).items()}
    return xr.Dataset(found | facts, {"hour": middle / HOUR})


def _views(plan: Plan, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Nodes believed active, at the means of each stretch: the least, mean and largest view of it."""
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
    """When each newer round is reported first, and the seconds since the one before."""
    newest = np.maximum.accumulate(history.aggregation_round)
    times = history.aggregation_s[newest > np.append(0, newest[:-1])]
    return times, np.diff(times, prepend=0.0)


def _per_bin(times: np.ndarray, values: np.ndarray, edges: np.ndarray, reduce: Any) -> np.ndarray:
    """Reduce the values of each stretch; NaN where there is none."""
    chosen = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 2)
    return np.array([reduce(values[chosen == k]) if (chosen == k).any() else np.nan for k in range(len(edges) - 1)])


def _facts(plan: Plan) -> dict[str, float]:
    """Numbers of a whole run."""
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
    """Judge whether rounds are hardly longer than those of devices that are always online; a stalled one never ends.

    Args:
        at: one network.
        alone: mean seconds a round of the devices always online, by seed.
    """
    return decide(np.where(at.stalled.values > 0, np.inf, at.mean_duration.values / alone), Band(high=PACE))


def table(dataset: xr.Dataset) -> list[Row]:
    """Who is online, how long rounds last, how far views are off, and what is wasted."""
    rows = []
    alone = dataset.sel(network="always online").mean_duration.values
    for name in NETWORKS[1:]:
        at = dataset.sel(network=name)
        words = f"keeps its pace: {pace(at, alone)}; {int(at.stalled.sum())} of {alone.size} runs stall"
        rows.append(over_seeds(f"round, in those always online, {name}", at.mean_duration.values / alone, 1.0, words))
    labels = {
        "mean_duration": ("mean seconds a round", 1.0),
        "p99_duration": ("seconds of 1 round in 100", 1.0),
        "view_gap": ("% that median views are off", 100.0),
        "wasted": ("% of trainings wasted", 100.0),
        "bytes_per_round": ("MB a round", 1e-6),
    }
    for field, (label, scale) in labels.items():
        for name in NETWORKS:
            known = 0.0 if field == "view_gap" else np.nan
            words = "of the nodes online" if field == "view_gap" else f"mean over {alone.size} seeds"
            rows.append(over_seeds(f"{label}, {name}", scale * dataset[field].sel(network=name).values, known, words))
    share = 100 * dataset.mean_online.sel(network="leaves").values / dataset.attrs["num_nodes"]
    words = f"the trace's mean over the day; hours 0 to {dataset.attrs['hours']:g} here"
    return [*rows, over_seeds("% of devices online", share, 100 * SHARE_CHARGING, words)]
