"""How fast do nodes that join become known? Ninety nodes start, and ten more join, one per minute.

A node that joins informs ten times as many random nodes as there are in a sample, here all nodes. They count it when
the next model message reaches them, and pass its view on. If all nodes are informed, half of them have had a message,
and count the node, after ``ln 2 / −ln(1 − s/n)`` rounds of s out of n. Plotted is the number of nodes that online nodes
believe to be active at every mean. There are two systems: MoDeST, with one aggregator and means of 90 % of the sample,
and Plexus.

Reference: de Vos et al. 2023, arXiv 2302.13837 v1 (MoDeST); Dhasade et al. 2025, arXiv 2503.05509 (Plexus).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.lib.curves import held
from experiments.lib.kept import kept_run
from experiments.lib.plexus_runs import kind_of, phones
from experiments.lib.report import Row, over_seeds
from gossipjax import systems
from gossipjax.systems import Machines, PlexusHistory
from gossipjax.systems._plexus.membership import ANNOUNCED
from theory.check.policy import Band, Verdict, decide

CLAIM = "Half of the nodes count a new node as soon as half of them have had a model message"
SYSTEMS = ("MoDeST", "Plexus")
MINUTE = 60.0
CLOSE = 1.0
"""Difference in rounds up to which the delay agrees with the derived one, because joins fall within rounds."""


class Config(NamedTuple):
    """Settings."""

    num_nodes: int = 100
    num_joins: int = 10
    duration_s: float = 1200.0
    sample_size: int = 10
    success_fractions: tuple[float, float] = (0.9, 0.8)
    """Success fractions of MoDeST and of Plexus."""
    num_aggregators: int = 1
    local_steps: int = 5
    time_batch: int = 1
    model_bytes: int = 4 * 85_354
    num_points: int = 240
    num_seeds: int = 10
    seed: int = 0
    keep: str | None = None
    """Folder of finished plans."""


QUICK = Config(num_seeds=3)


def machines_of(config: Config, seed: int) -> Machines:
    """Take phones, of which the last in a random order come online, one per minute from the first minute on."""
    machines = systems.machines(phones(config.num_nodes, seed))
    late = np.random.default_rng(seed).permutation(config.num_nodes)[: config.num_joins]
    times = MINUTE * (1 + np.arange(late.size))

    def transitions(until: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        known = times <= until
        return times[known], late[known], np.ones(int(known.sum()), bool)

    return machines._replace(online=~np.isin(np.arange(config.num_nodes), late), transitions=transitions)


def run(config: Config) -> xr.Dataset:
    """Plan both systems with different phones and joins for each seed."""
    by_system = []
    for system, fraction in zip(SYSTEMS, config.success_fractions, strict=True):
        seeds = [_kept(config, system, fraction, config.seed + k) for k in range(config.num_seeds)]
        by_system.append(xr.concat(seeds, "seed", combine_attrs="drop_conflicts"))
    joined = xr.concat(
        by_system, xr.DataArray(list(SYSTEMS), dims="system", name="system"), combine_attrs="drop_conflicts"
    )
    facts: dict[str, float] = {"num_nodes": config.num_nodes, "num_joins": config.num_joins}
    facts["sample_size"] = config.sample_size
    facts["expected_rounds"] = expected_rounds(facts)
    return joined.assign_attrs(data=kind_of(phones(config.num_nodes, config.seed)), **facts)


def _kept(config: Config, system: str, fraction: float, seed: int) -> xr.Dataset:
    named = config._asdict() | {"experiment": "plexus_join", "system": system, "fraction": fraction, "of": seed}
    for name in ("keep", "num_seeds", "seed", "success_fractions"):
        named.pop(name)
    fleet = phones(config.num_nodes, seed)
    named["devices"] = kind_of(fleet)
    return kept_run(config.keep, named, lambda _: _plan(config, system, fraction, seed), fleet)


def _plan(config: Config, system: str, fraction: float, seed: int) -> xr.Dataset:
    plan = systems.plexus(
        machines_of(config, seed),
        duration_s=config.duration_s,
        model_bytes=config.model_bytes,
        seed=seed,
        sample_size=config.sample_size,
        success_fraction=fraction,
        local_steps=config.local_steps,
        time_batch=config.time_batch,
        aggregators=config.num_aggregators if system == "MoDeST" else "next",
    )
    grid = np.linspace(0.0, config.duration_s, config.num_points + 1)[1:]
    views = held(plan.history.aggregation_s, plan.history.view_active, grid)
    columns = {f"believed_{name}": views[:, k] for k, name in enumerate(("min", "mean", "median", "max"))}
    columns["online"] = held(plan.history.online_s, plan.history.online_count, grid)
    variables = {name: ("minute", values) for name, values in columns.items()}
    rounds, seconds = until_known(plan.history, config.num_nodes - config.num_joins, config.num_joins)
    variables |= {"rounds_until_known": ("join", rounds), "seconds_until_known": ("join", seconds)}
    facts = {"rounds": ((), float(plan.history.aggregation_round.max()))}
    facts["final"] = ((), float(plan.history.view_active[-1, 2]))
    return xr.Dataset(variables | facts, {"minute": grid / MINUTE})


def until_known(history: PlexusHistory, started: int, joins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rounds and seconds from each join until half of the online nodes know all nodes that have joined; or NaN.

    Views grow, and joins are a minute apart: the j-th is known when the median view holds ``started + j`` nodes.
    """
    rounds, seconds = np.full(joins, np.nan), np.full(joins, np.nan)
    median = history.view_active[:, 2]
    for j in range(joins):
        joined = MINUTE * (1 + j)
        known = np.flatnonzero((median >= started + j + 1) & (history.aggregation_s >= joined))
        if known.size:
            seconds[j] = history.aggregation_s[known[0]] - joined
            before = history.aggregation_round[history.aggregation_s < joined].max(initial=0)
            rounds[j] = history.aggregation_round[known[0]] - before
    return rounds, seconds


def expected_rounds(attrs: dict) -> float:
    """Compute the rounds after which half of the nodes have had a message; NaN if not all are informed of a join."""
    share = attrs["sample_size"] / attrs["num_nodes"]
    return float(np.ceil(np.log(2) / -np.log1p(-share))) if ANNOUNCED * share >= 1 > share else np.nan


def as_derived(at: xr.Dataset, derived: float) -> Verdict:
    """Judge each seed's mean rounds until joins are known; infinite if one of them never is."""
    delays = at.rounds_until_known.fillna(np.inf).mean("join").values
    return decide(delays, Band(derived - CLOSE, derived + CLOSE))


def table(dataset: xr.Dataset) -> list[Row]:
    """Report how long joins take to be known, and the final views."""
    rows = []
    for system in SYSTEMS:
        at = dataset.sel(system=system)
        missed = int(at.rounds_until_known.isnull().sum())
        for field, label in (("rounds_until_known", "rounds"), ("seconds_until_known", "seconds")):
            values = at[field].mean("join").values
            derived = float(dataset.attrs["expected_rounds"]) if label == "rounds" else np.nan
            words = "until half of the nodes know of a join"
            if np.isfinite(derived):
                words += f"; {as_derived(at, derived)}"
            words += f"; {missed} of {at[field].size} never" if missed else ""
            rows.append(
                over_seeds(f"{label} until a join is known, {system}", values[np.isfinite(values)], derived, words)
            )
        everyone = float(dataset.attrs["num_nodes"])
        words = "all nodes; " + ("in every run" if (at.final.values == everyone).all() else "not in every run")
        rows.append(over_seeds(f"believed active at the end, {system}", at.final.values, everyone, words))
        last = at.isel(minute=-1)
        rows.append(over_seeds(f"smallest view at the end, {system}", last.believed_min.values, everyone, "all nodes"))
        rows.append(
            over_seeds(
                f"rounds per minute, {system}",
                at.rounds.values / float(dataset.minute[-1]),
                np.nan,
                f"{at.sizes['seed']} seeds",
            )
        )
    return rows
