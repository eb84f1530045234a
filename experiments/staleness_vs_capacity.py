"""How much gossip keeps staleness bounded as the network grows? Four schemes, three capacities.

Uniform gossip runs up to 10⁶ nodes for λ = 1 and ln n, and up to 10⁴ for λ = n; the opportunistic schemes run up to
10⁴. If only a node's own, or the network's newest, version travels, only the events that can carry versions of the
tracked nodes are planned. For λ = n the scheme of the last updater ends at 3,162: its staleness comes from the one
update in n that loses the channel before its first push, and at 10⁴ about 10¹¹ events contain only a dozen of these. No
run is longer than ``most_events``; if that is too short for the target standard error, the reported interval is wider.
The exact lines extend to 10⁶.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from experiments.lib import stationary
from experiments.lib.report import Row
from experiments.lib.store import mean_and_interval
from gossipjax import Timeline
from gossipjax.observe import staleness_by_source
from gossipjax.timeline import drawn_gossip, opportunistic_windows
from theory import staleness

CLAIM = "staleness stays bounded iff λ grows as ln n, or as n if only the newest version travels"
ONE_DEVICE = True

SCHEMES = ("uniform", "everything", "newest", "none")
"""Uniform push gossip; the last updater pushes all it knows; only the newest version travels; nothing is relayed."""
SINGLE = ("newest", "none")
"""Schemes in which a push carries only one version, so that a few sources can be simulated alone."""
CAPACITIES = ("1", "ln n", "n")


class Config(NamedTuple):
    """Settings; the ``largest`` simulated sizes are in the order of ``CAPACITIES``."""

    sizes: tuple[int, ...] = (10, 32, 100, 316, 1000, 3162, 10_000, 100_000, 316_228, 1_000_000)
    largest_uniform: tuple[int, int, int] = (1_000_000, 1_000_000, 10_000)
    largest_everything: tuple[int, int, int] = (10_000, 10_000, 3162)
    largest_single: tuple[int, int, int] = (10_000, 10_000, 10_000)
    update_rate: float = 1.0
    relative_error: float = 0.025
    """Target standard error, as a share of the mean."""
    large_error: float = 0.04
    """The same from 500,000 nodes on."""
    most_events: float = 2e9
    """Largest number of events of a run, unless the minimum number of blocks needs more."""
    seed: int = 0


QUICK = Config(
    sizes=(10, 100, 1000),
    largest_uniform=(1000, 1000, 1000),
    largest_everything=(100, 100, 100),
    largest_single=(1000, 1000, 1000),
    relative_error=0.06,
)


def capacity(name: str, n: Any) -> Any:
    """Return λ, pushes per node and unit time."""
    return {"1": np.ones_like(n, np.float64), "ln n": np.log(n), "n": np.asarray(n, np.float64)}[name]


def exact_mean(scheme: str, n: Any, rate: Any, update_rate: float) -> Any:
    """``E S``: ``m H_{n−1}/λ``, or ``m (n−1)/λ`` if nothing is relayed or only the newest version travels."""
    if scheme == "uniform":
        return staleness.mean_staleness(n, gossip_rate=rate, update_rate=update_rate)
    relay = scheme == "everything"
    return staleness.opportunistic_staleness(n, gossip_rate=rate, update_rate=update_rate, relay=relay)


def exact_maximum(scheme: str, n: Any, rate: Any, update_rate: float) -> Any:
    """``E max_j S``: ``2m (n−1)/n H_{n−1}/λ``, or ``m (n−1) H_{n−1}/λ`` if the mean is ``m (n−1)/λ``."""
    relay = scheme in ("uniform", "everything")
    return staleness.opportunistic_max_staleness(n, gossip_rate=rate, update_rate=update_rate, relay=relay)


def schedule(scheme: str, n: int, rate: float, config: Config) -> stationary.Schedule:
    """Choose a run that is long enough to forget the start, with as many units as the standard error needs.

    The length of a block follows from estimates of the relative variance of its mean: 1/E S from the updates, and
    ``2/ln² n`` from the delay. In the scheme of the last updater, a source that loses the channel at once keeps its
    news until its next update. In the scheme of the newest version, news of a source spreads for ``(n−1)/λ + 1/m`` on
    average, because its turns are rare for large λ.
    """
    m, logarithm = config.update_rate, float(np.log(n))
    delay = float(exact_mean(scheme, n, rate, 1.0))
    memory, burn_in, variance = 2 * delay, 8 * logarithm / rate, 1 / (m * delay) + 2 / logarithm**2
    if scheme == "everything":
        memory, burn_in = max(memory, 4 / m), burn_in + 4 / m
        variance = 0.5 + 2 / logarithm**2 + rate / (2 * m * logarithm**2)
    elif scheme != "uniform":
        memory, burn_in = 4 * (delay + 1 / m), (logarithm + 6) * (delay + 1 / m)
        variance = 0.5 / (m * delay) + 2 / logarithm**2
    error = config.relative_error if n < 500_000 else config.large_error
    units = max(64, int(np.ceil(variance / error**2)))
    acting = stationary.num_sources(n, units) if scheme in SINGLE else n
    events = acting * (m + rate)
    return stationary.schedule(
        n,
        record=min(2 * n * logarithm, memory * events / 8),
        memory=memory * events,
        burn_in=burn_in * events,
        units=units,
        most_events=config.most_events,
    )


def chunks(
    scheme: str, n: int, rate: float, plan: stationary.Schedule, config: Config, seed: int
) -> Iterator[Timeline]:
    """Return the events of the run, drawn inside it or planned window by window."""
    m = config.update_rate
    if scheme == "uniform":
        drawn = drawn_gossip(n, plan.chunk, update_rate=m, gossip_rate=rate)
        return itertools.repeat(drawn, plan.chunks)
    windows = opportunistic_windows(
        n,
        plan.chunk,
        update_rate=m,
        capacity=rate,
        relay=scheme,  # type: ignore[arg-type]
        seed=seed,
        sources=plan.nodes(n) if scheme in SINGLE else None,
    )
    return itertools.islice(windows, plan.chunks)


def measured(scheme: str, name: str, n: int, config: Config) -> dict[str, float]:
    """Measure mean and maximum staleness of one network, with 95 % intervals; add the exact values."""
    rate, m = float(capacity(name, n)), config.update_rate
    plan = schedule(scheme, n, rate, config)
    # Every network has its own random numbers.
    seed = 1_000_003 * config.seed + 12 * n + 3 * SCHEMES.index(scheme) + CAPACITIES.index(name)
    events = chunks(scheme, n, rate, plan, config, seed)
    recorded = stationary.records(jax.random.key(seed), events, plan.nodes(n), staleness_by_source(), plan.record_every)
    of_mean, of_maximum = (
        stationary.batches(stationary.blocks(recorded[name], plan))
        for name in ("staleness_of_source", "max_staleness_of_source")
    )
    mean, mean_half = mean_and_interval(of_mean)
    most, most_half = mean_and_interval(of_maximum)
    return {
        "mean": float(mean),
        "mean_interval": float(mean_half),
        "maximum": float(most),
        "maximum_interval": float(most_half),
        "exact_mean": float(exact_mean(scheme, n, rate, m)),
        "exact_maximum": float(exact_maximum(scheme, n, rate, m)),
        "units": float(plan.blocks * plan.sources),
        "events": float(plan.chunk * plan.chunks),
    }


def cases(config: Config) -> list[tuple[str, str, int]]:
    """Return scheme, capacity and size of every simulated network."""
    series = []
    for scheme in SCHEMES:
        largest = config.largest_single if scheme in SINGLE else config.largest_everything
        ends = config.largest_uniform if scheme == "uniform" else largest
        for name, end in zip(CAPACITIES, ends, strict=True):
            series += [(scheme, name, n) for n in config.sizes if n <= end]
    return series


def run(config: Config) -> xr.Dataset:
    """Simulate every case; add the exact lines."""
    every = cases(config)
    values = [measured(*case, config) for case in every]
    scheme, name, n = (np.asarray(column) for column in zip(*every, strict=True))
    dataset = xr.Dataset(
        {key: ("case", [one[key] for one in values], {"units": _unit(key)}) for key in values[0]},
        {"scheme": ("case", scheme), "capacity": ("case", name), "n": ("case", n, {"units": "nodes"})},
    )
    return dataset.merge(lines(config))


def lines(config: Config) -> xr.Dataset:
    """Compute exact mean and maximum for every scheme and capacity, up to a million nodes."""
    n = np.unique(np.geomspace(10, 1_000_000, 60).round().astype(int))
    shape = ("line_scheme", "line_capacity", "line_n")
    curves = {}
    for key, exact in {"line_mean": exact_mean, "line_maximum": exact_maximum}.items():
        values = [[exact(s, n, capacity(c, n), config.update_rate) for c in CAPACITIES] for s in SCHEMES]
        curves[key] = (shape, np.asarray(values), {"units": "updates"})
    return xr.Dataset(curves, {"line_scheme": list(SCHEMES), "line_capacity": list(CAPACITIES), "line_n": n})


def _unit(key: str) -> str:
    return {"units": "1", "events": "events"}.get(key, "updates")


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare the mean staleness of all cases, and the maximum over nodes at the largest size of every series."""
    rows, last = [], {}
    for k in range(dataset.sizes["case"]):
        at = dataset.isel(case=k)
        scheme, name, n = str(at.scheme.values), str(at.capacity.values), int(at.n)
        formula = "m H/λ" if scheme in SCHEMES[:2] else "m (n−1)/λ"
        rows.append(_row(at, "mean", f"mean, {scheme}, λ = {name}, n = {n:,}", f"{formula}, exact"))
        most = "2m (n−1)/n H/λ" if scheme in SCHEMES[:2] else "m (n−1) H/λ"
        last[scheme, name] = _row(at, "maximum", f"maximum, {scheme}, λ = {name}, n = {n:,}", f"{most}, exact")
    return rows + list(last.values())


def _row(at: xr.Dataset, key: str, label: str, source: str) -> Row:
    return Row(label, float(at[key]), float(at[f"{key}_interval"]), float(at[f"exact_{key}"]), source)
