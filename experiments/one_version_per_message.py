"""If a message carries one version, no rule bounds staleness with less than λ = Ω(n): six rules, and one outside.

Total capacity is nλ messages per unit time; any node may send any version that it holds to any other. The bound
``k − k(k+1)/(2x)``, ``x = m(n−1)/λ``, ``k = ⌊x⌋``, holds for every rule that does not know future updates
(:mod:`theory.opportunistic`). It is about half of ``m(n−1)/λ``, the mean of random targets. Four rules are made to go
below that mean: targets in turn, every update at once to a random set of nodes, every x-th update at once to all, and
the stalest pair first. Beside them runs uniform gossip, whose messages carry all that the sender knows: it is outside
the class, and below the bound.

Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (the order Ω(n)).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr

from experiments.lib.asynchronous import run_each, seed_keys, z_score
from experiments.lib.report import Row, over_seeds
from gossipjax import Timeline, gossip_averaging, track_versions
from gossipjax.observe import staleness_by_source
from gossipjax.timeline import clocks, push_gossip
from theory import opportunistic, staleness
from theory.check.one_version import RULES, plan

CLAIM = "with one version per message, staleness is bounded only if λ grows as n, whatever the rule"
ONE_DEVICE = True
OUTSIDE = "all versions"
SCHEMES = (*RULES, OUTSIDE)
CAPACITIES = {"λ = 1": lambda n: 1.0, "λ = n / 4": lambda n: n / 4}
"""Messages per node and second; updates come at rate 1 per node."""


class Config(NamedTuple):
    """Settings; records begin after ``burn_in`` times m(n − 1)/λ, and are two such times apart."""

    sizes: tuple[int, ...] = (8, 16, 32, 64)
    burn_in: float = 8.0
    num_records: int = 12
    num_seeds: int = 12
    seed: int = 0


QUICK = Config(sizes=(8, 16, 32), num_seeds=8)


def exact(scheme: str, n: int, rate: float) -> float:
    """Compute the mean staleness of a scheme; NaN for the stalest pair first, of which only the bound is known."""
    rates: dict[str, Any] = {"gossip_rate": rate, "update_rate": 1.0}
    formulas = {
        "random targets": lambda: staleness.opportunistic_staleness(n, **rates, relay=False),
        "newest version": lambda: staleness.opportunistic_staleness(n, **rates, relay=False),
        "in turn": lambda: opportunistic.in_turn_staleness(n, **rates),
        "coin": lambda: opportunistic.coin_staleness(n, **rates),
        "every x-th update": lambda: opportunistic.least_staleness(n, **rates),
        OUTSIDE: lambda: staleness.mean_staleness(n, **rates),
    }
    return float(formulas[scheme]()) if scheme in formulas else np.nan


def planned(scheme: str, n: int, duration: float, rate: float, seed: int) -> Timeline:
    """Plan the updates and messages of a scheme."""
    if scheme == OUTSIDE:
        return push_gossip(n, duration, compute=clocks.poisson(1.0), gossip=rate, seed=seed)
    made = plan(scheme, n, duration, update_rate=1.0, capacity=rate, seed=seed)  # type: ignore[arg-type]
    # With one name, plans that differ only in numbers share one compiled program.
    return dataclasses.replace(made, properties=dataclasses.replace(made.properties, name="one version per message"))


def measured(n: int, rate: float, config: Config) -> np.ndarray:
    """Measure mean staleness over pairs and time, ``(schemes, seeds)``."""
    apart = max(1.0, (n - 1) / rate)
    times = apart * (config.burn_in + 2 * np.arange(1, config.num_records + 1))
    keys, seeds = seed_keys(config.seed, config.num_seeds), range(config.seed, config.seed + config.num_seeds)
    protocol = track_versions(gossip_averaging(), num_nodes=n)
    found = []
    for schemes in (RULES, (OUTSIDE,)):
        plans = [planned(scheme, n, float(times[-1]), rate, seed) for scheme in schemes for seed in seeds]
        records = run_each(protocol, plans, times, jnp.zeros(n), [staleness_by_source()], keys * len(schemes))
        means = records.staleness_of_source.isel(record=slice(1, None)).mean(["record", "source"])
        found.append(means.values.reshape(len(schemes), config.num_seeds))
    return np.concatenate(found)


def run(config: Config) -> xr.Dataset:
    """Run every scheme at every size and capacity."""
    cases = [[(n, rate(n)) for n in config.sizes] for rate in CAPACITIES.values()]
    values = np.asarray([[measured(n, rate, config) for n, rate in row] for row in cases])
    laws = [[[exact(scheme, n, rate) for n, rate in row] for scheme in SCHEMES] for row in cases]
    bounds = [
        [float(opportunistic.least_staleness(n, gossip_rate=rate, update_rate=1.0)) for n, rate in row] for row in cases
    ]
    return xr.Dataset(
        {
            "staleness": (("capacity", "n", "scheme", "seed"), values, {"units": "updates"}),
            "exact": (("capacity", "scheme", "n"), np.asarray(laws), {"units": "updates"}),
            "bound": (("capacity", "n"), np.asarray(bounds), {"units": "updates"}),
        },
        {"capacity": list(CAPACITIES), "scheme": list(SCHEMES), "n": list(config.sizes)},
    )


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare each scheme with its exact mean, and with the bound of its class."""
    rows = []
    for name in dataset.capacity.values:
        for scheme in dataset.scheme.values:
            for n in dataset.n.values:
                at = dataset.sel(capacity=name, scheme=scheme, n=n)
                label = f"staleness, {scheme}, {name}, n = {n}"
                rows.append(over_seeds(label, at.staleness.values, float(at.exact), _source(at)))
    return rows


def _source(at: xr.Dataset) -> str:
    """Write how a scheme lies to its exact mean and to the bound, in standard errors."""
    bound, law = float(at.bound), float(at.exact)
    ratio = float(at.staleness.mean()) / bound
    words = f"{ratio:.2f} times the bound {bound:.3g}"
    if str(at.scheme.values) == OUTSIDE:
        words += " of one version per message, which does not apply"
    return f"{words}; exact, z = {z_score(at.staleness.values, law):+.1f}" if np.isfinite(law) else words
