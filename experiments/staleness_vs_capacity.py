"""How much gossip keeps staleness bounded as the network grows? Four schemes, three capacities.

Uniform gossip runs to 10⁶ nodes where λ = 1 and ln n, and to 10⁴ where λ = n; the opportunistic schemes to 10⁴. Of the
two in which only a node's own or the network's newest version travels, just the events that can carry versions of the
nodes looked at are planned. Where λ = n the last updater's scheme ends at 3,162: its staleness comes from the one
update in n that loses the channel before its first push, and at 10⁴ some 10¹¹ events see but a dozen of these. No run
is longer than ``most_events``: where that is too few for the standard error aimed at, the interval is wider, as it
says. The exact lines go to 10⁶ throughout.
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

CLAIM = "staleness stays bounded iff λ grows as ln n; as n, if only the newest version travels"
ONE_DEVICE = True

SCHEMES = ("uniform", "everything", "newest", "none")
"""Uniform push gossip; the last updater pushes all it knows; the newest version travels; nothing is relayed."""
SINGLE = ("newest", "none")
"""Schemes in which a push carries one version only, so that a few sources can be simulated alone."""
CAPACITIES = ("1", "ln n", "n")


class Config(NamedTuple):
    """Settings; the ``largest`` sizes simulated are in the order of ``CAPACITIES``."""

    sizes: tuple[int, ...] = (10, 32, 100, 316, 1000, 3162, 10_000, 100_000, 316_228, 1_000_000)
    largest_uniform: tuple[int, int, int] = (1_000_000, 1_000_000, 10_000)
    largest_everything: tuple[int, int, int] = (10_000, 10_000, 3162)
    largest_single: tuple[int, int, int] = (10_000, 10_000, 10_000)
    update_rate: float = 1.0
    relative_error: float = 0.025
    """Standard error aimed at, as a share of the mean."""
    large_error: float = 0.04
    """The same from 500,000 nodes on."""
    most_events: float = 2e9
    """Of one run, as far as the fewest blocks allow."""
    seed: int = 0


QUICK = Config(
    sizes=(10, 100, 1000),
    largest_uniform=(1000, 1000, 1000),
    largest_everything=(100, 100, 100),
    largest_single=(1000, 1000, 1000),
    relative_error=0.06,
)


def capacity(name: str, n: Any) -> Any:
    """Pushes λ per node and unit time."""
    return {"1": np.ones_like(n, np.float64), "ln n": np.log(n), "n": np.asarray(n, np.float64)}[name]


def exact_mean(scheme: str, n: Any, rate: Any, update_rate: float) -> Any:
    """``E S``: ``m H_{n−1}/λ``, or ``m (n−1)/λ`` where news is not relayed or the newest version alone travels."""
    if scheme == "uniform":
        return staleness.mean_staleness(n, gossip_rate=rate, update_rate=update_rate)
    relay = scheme == "everything"
    return staleness.opportunistic_staleness(n, gossip_rate=rate, update_rate=update_rate, relay=relay)


def exact_maximum(scheme: str, n: Any, rate: Any, update_rate: float) -> Any:
    """``E max_j S``: ``2m (n−1)/n H_{n−1}/λ``, or ``m (n−1) H_{n−1}/λ`` where the mean is ``m (n−1)/λ``."""
    relay = scheme in ("uniform", "everything")
    return staleness.opportunistic_max_staleness(n, gossip_rate=rate, update_rate=update_rate, relay=relay)


def schedule(scheme: str, n: int, rate: float, config: Config) -> stationary.Schedule:
    """Run long enough to forget the start, and for as many units as the standard error asks for.

    What decides the length of a block, and the relative variance of its mean (estimates, for planning only): 1/E S
    from the updates and ``2/ln² n`` from the delay; in the last updater's scheme a source that loses the channel at
    once keeps its news until it updates again; in the newest version's a source has news under way for
    ``(n−1)/λ + 1/m`` on average, as its turns are few where λ is large.
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
    """Events of the run: drawn inside it, or planned window by window."""
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
    """Mean and maximum staleness of one network, with 95 % intervals, beside the exact values."""
    rate, m = float(capacity(name, n)), config.update_rate
    plan = schedule(scheme, n, rate, config)
    # Every network has random numbers of its own.
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
    """Scheme, capacity and size of every network simulated."""
    found = []
    for scheme in SCHEMES:
        largest = config.largest_single if scheme in SINGLE else config.largest_everything
        ends = config.largest_uniform if scheme == "uniform" else largest
        for name, end in zip(CAPACITIES, ends, strict=True):
            found += [(scheme, name, n) for n in config.sizes if n <= end]
    return found


def run(config: Config) -> xr.Dataset:
    """Simulate every case; compute the exact lines."""
    every = cases(config)
    found = [measured(*case, config) for case in every]
    scheme, name, n = (np.asarray(column) for column in zip(*every, strict=True))
    dataset = xr.Dataset(
        {key: ("case", [one[key] for one in found], {"units": _unit(key)}) for key in found[0]},
        {"scheme": ("case", scheme), "capacity": ("case", name), "n": ("case", n, {"units": "nodes"})},
    )
    return dataset.merge(lines(config))


def lines(config: Config) -> xr.Dataset:
    """Exact mean and maximum for every scheme and capacity, to a million nodes."""
    n = np.unique(np.geomspace(10, 1_000_000, 60).round().astype(int))
    shape = ("line_scheme", "line_capacity", "line_n")
    found = {}
    for key, exact in {"line_mean": exact_mean, "line_maximum": exact_maximum}.items():
        values = [[exact(s, n, capacity(c, n), config.update_rate) for c in CAPACITIES] for s in SCHEMES]
        found[key] = (shape, np.asarray(values), {"units": "updates"})
    return xr.Dataset(found, {"line_scheme": list(SCHEMES), "line_capacity": list(CAPACITIES), "line_n": n})


def _unit(key: str) -> str:
    return {"units": "1", "events": "events"}.get(key, "updates")


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare mean staleness everywhere, and the maximum over holders at the largest size of every series."""
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
