"""Is bounded staleness enough for convergence, and is it necessary? Steps against bounds, in three schemes.

The model of the criterion: a user's model is the start plus the mean of all updates of all users that it has heard of
(:mod:`theory.check.additive`), so version counters describe models exactly. With staleness of at most B, all models
tend to the optimum if ``h B(n−1)/n < ½`` (:func:`theory.delay.bounded_staleness_step`). Three schemes, all on x²/2:

* *gated gossip*: a user skips updates that would exceed the bound B; converges below the condition, as it must;
* *exchange every B steps*: users learn alone, then all hear all; its factor is exact, and beyond ``h ≈ 2/B`` it
  diverges, so that some condition of this form is needed;
* *free gossip*: Poisson clocks, whose staleness has no bound; it converges at steps far above those that the largest
  observed staleness would allow, so the criterion is not necessary.

Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (bounded staleness as the sufficient criterion; constants derived
here).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from experiments.lib.report import Row, over_seeds
from gossipjax import observe, simulate
from theory import delay
from theory.check.additive import Plan, exchange_every, gated_gossip, sums_of_updates

CLAIM = "bounded staleness suffices for convergence below a step of n/(2B(n−1)), and is not necessary"
ONE_DEVICE = True
GATED, EXCHANGE, FREE = SCHEMES = ("gated gossip", "exchange every B steps", "free gossip")


class Config(NamedTuple):
    """Settings; steps are multiples of the allowed one, n/(2B(n−1)), of free gossip with the B that it reaches."""

    num_nodes: int = 16
    bounds: tuple[int, ...] = (1, 2, 4, 8)
    shares: tuple[float, ...] = (0.5, 0.95, 2.0, 3.0, 4.5, 6.0, 12.0)
    gossip_rate: float = 2.0
    sweeps: int = 160
    """Updates and pushes of each user, together."""
    num_records: int = 40
    num_seeds: int = 6
    seed: int = 0


QUICK = Config(num_nodes=8, bounds=(1, 4), shares=(0.5, 0.95, 3.0, 4.5, 12.0), num_seeds=4)


def plan_of(scheme: str, bound: int, config: Config, seed: int) -> Plan:
    """Plan a scheme, with about the same number of events, a multiple of the records."""
    n, records = config.num_nodes, config.num_records
    if scheme == EXCHANGE:
        return exchange_every(n, bound, records)
    events = n * config.sweeps // records * records
    limit = bound if scheme == GATED else None
    return gated_gossip(n, events, gossip_rate=config.gossip_rate, bound=limit, seed=seed)


def rate(plan: Plan, step: float, config: Config) -> float:
    """Measure the growth of the largest model per update of every user, ``ln factor / h``: −1 without staleness."""
    watch, n = [observe.models()], config.num_nodes
    every = len(plan.timeline) // config.num_records
    run = simulate(
        jax.random.key(0),
        sums_of_updates(step),
        plan.timeline,
        jnp.ones(n),
        observers=watch,
        record_every=every,
        packing="sequential",
        throw=False,
    )
    path = np.abs(run["model"].values.reshape(config.num_records + 1, n)).max(axis=1)
    # What is below rounding is noise; what diverges ends early.
    last = int(np.flatnonzero((path > 1e-5) & np.isfinite(path))[-1])
    window = max(1, last // 4)
    early, late = path[1 : 1 + window].max(), path[last + 1 - window : last + 1].max()
    apart = max(1, last - window) / config.num_records * plan.updates / n
    return float(np.log(late / early) / apart / step)


def run(config: Config) -> xr.Dataset:
    """Run every scheme with every bound and step."""
    found = np.full((len(SCHEMES), len(config.bounds), len(config.shares), config.num_seeds), np.nan)
    staleness = np.full((len(SCHEMES), len(config.bounds), config.num_seeds), np.nan)
    for at, scheme in enumerate(SCHEMES):
        for which, bound in enumerate(config.bounds[:1] if scheme == FREE else config.bounds):
            plans = [plan_of(scheme, bound, config, config.seed + k) for k in range(config.num_seeds)]
            staleness[at, which] = [plan.staleness for plan in plans]
            for place, share in enumerate(config.shares):
                for k, plan in enumerate(plans):
                    step = share * delay.bounded_staleness_step(config.num_nodes, plan.staleness)
                    found[at, which, place, k] = rate(plan, step, config)
    return xr.Dataset(
        {
            "rate": (("scheme", "bound", "share", "seed"), found),
            "staleness": (("scheme", "bound", "seed"), staleness, {"units": "updates"}),
            "exchange_rate": (("bound", "share"), _exchange_rates(config)),
        },
        {"scheme": list(SCHEMES), "bound": list(config.bounds), "share": list(config.shares)},
    )


def _exchange_rates(config: Config) -> np.ndarray:
    """Compute the exact rates of exchanges; minus infinity where one exchange reaches the optimum."""
    n, rates = config.num_nodes, []
    for bound in config.bounds:
        steps = [share * delay.bounded_staleness_step(n, bound) for share in config.shares]
        with np.errstate(divide="ignore"):
            rates.append([np.log(np.abs(delay.exchange_factor(h, n, bound))) / bound / h for h in steps])
    return np.asarray(rates)


def table(dataset: xr.Dataset) -> list[Row]:
    """Report the rate of every scheme, whether it converges, and whether the criterion promised that."""
    rows = []
    for scheme in dataset.scheme.values:
        for bound in dataset.bound.values:
            for share in dataset.share.values:
                values = dataset.rate.sel(scheme=scheme, bound=bound, share=share).values
                if np.isnan(values).any():
                    continue
                stale = dataset.staleness.sel(scheme=scheme, bound=bound).values
                label = f"{scheme}, B = {bound}" if scheme != FREE else f"{scheme}, staleness to {int(stale.max())}"
                exact = dataset.exchange_rate.sel(bound=bound, share=share) if scheme == EXCHANGE else np.nan
                label = f"rate, {label}, h = {share:g} of the allowed"
                rows.append(over_seeds(label, values, float(exact), _words(values, float(share))))
    return rows


def _words(values: np.ndarray, share: float) -> str:
    converged = int((values < 0).sum())
    promised = "as the criterion promises" if share < 1 else "the criterion promises nothing"
    return f"{converged} of {values.size} seeds converge; {promised}"
