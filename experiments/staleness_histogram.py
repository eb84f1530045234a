"""What is the law of staleness if capacity grows as ln n? Counts of pairs against the exact law and its limit."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from experiments.lib import stationary
from experiments.lib.report import Row
from experiments.lib.store import mean_and_interval
from gossipjax.observe import staleness_histogram
from gossipjax.timeline import drawn_gossip
from theory import staleness

CLAIM = "at λ = a ln n staleness follows the exact mixture of Poisson laws, which slowly approaches Poisson(m/a)"
ONE_DEVICE = True


class Config(NamedTuple):
    """Settings; λ = ``rate_factor`` · ln n."""

    sizes: tuple[int, ...] = (100, 1000, 10_000, 100_000)
    rate_factor: float = 1.0
    update_rate: float = 1.0
    bins: int = 8
    """Bins of staleness 0 … bins − 2, and of all larger values."""
    num_blocks: int = 200
    seed: int = 0


QUICK = Config(sizes=(32, 316, 3162), num_blocks=60)


def shares(n: int, config: Config) -> np.ndarray:
    """Measure the share of pairs at each staleness, ``(blocks, bins)``, in blocks of two mean delays."""
    m, rate = config.update_rate, config.rate_factor * float(np.log(n))
    delay = float(staleness.mean_staleness(n, gossip_rate=rate, update_rate=1.0))
    events = n * (m + rate)
    plan = stationary.schedule(
        n, record=2 * delay * events, memory=2 * delay * events, burn_in=8 * np.log(n) / rate * events, units=1
    )
    plan = plan._replace(blocks=config.num_blocks)
    drawn = drawn_gossip(n, plan.chunk, update_rate=m, gossip_rate=rate)
    records = stationary.records(
        jax.random.fold_in(jax.random.key(config.seed), n),
        itertools.repeat(drawn, plan.chunks),
        plan.sources,
        staleness_histogram(config.bins),
        plan.record_every,
    )
    counts = records["staleness_histogram"][plan.burn_in : plan.records]
    counts = counts.reshape(plan.blocks, plan.block, -1).mean(axis=1)
    return counts / counts.sum(axis=1, keepdims=True)


def last_bin_open(pmf: np.ndarray) -> np.ndarray:
    """Replace the last bin by all remaining probability."""
    return np.append(pmf[:-1], 1.0 - pmf[:-1].sum())


def hotelling(samples: np.ndarray, law: np.ndarray) -> tuple[float, float]:
    """Compute Hotelling's F of all bins but the last against a law, and its expectation under that law.

    ``F = (B − p)/(p(B − 1)) T²`` has the law F(p, B − p), of mean ``(B − p)/(B − p − 2)``, for B independent normal
    vectors of p shares. Pairs of one network are dependent, so they must not be counted as independent.
    """
    blocks, p = samples.shape[0], samples.shape[1] - 1
    gap = samples[:, :-1].mean(axis=0) - law[:-1]
    covariance = np.cov(samples[:, :-1], rowvar=False)
    squared = blocks * float(gap @ np.linalg.solve(covariance, gap))
    return (blocks - p) / (p * (blocks - 1)) * squared, (blocks - p) / (blocks - p - 2)


def run(config: Config) -> xr.Dataset:
    """Measure every size; add the exact law and its limit."""
    a, m, bins = config.rate_factor, config.update_rate, config.bins
    blocks = {n: shares(n, config) for n in config.sizes}
    exact = {
        n: last_bin_open(staleness.staleness_pmf(n, gossip_rate=a * float(np.log(n)), update_rate=m, size=bins))
        for n in config.sizes
    }
    statistics = [hotelling(blocks[n], exact[n]) for n in config.sizes]
    limit = last_bin_open(staleness.window_pmf(rate_factor=a, update_rate=m, size=bins))
    share = {"units": "1", "long_name": "share of pairs (holder, source); the last bin includes all larger values"}
    return xr.Dataset(
        {
            "share": (("n", "block", "updates"), np.stack(list(blocks.values())), share),
            "exact_share": (("n", "updates"), np.stack(list(exact.values())), {"units": "1"}),
            "limit_share": ("updates", limit, {"units": "1"}),
            "hotelling": ("n", [one[0] for one in statistics], {"units": "1"}),
            "expected_hotelling": ("n", [one[1] for one in statistics], {"units": "1"}),
        },
        {"n": ("n", list(config.sizes), {"units": "nodes"}), "updates": ("updates", np.arange(bins))},
        {"rate_factor": a, "update_rate": m},
    )


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare every bin, and the whole vector, with the exact law; report the distance from the limit."""
    rows = []
    last = dataset.sizes["updates"] - 1
    for n in dataset.n.values:
        at = dataset.sel(n=n)
        mean, half = mean_and_interval(at.share.values)
        for k in range(last + 1):
            label = f"P(S {'≥' if k == last else '='} {k}), n = {n:,}"
            rows.append(Row(label, float(mean[k]), float(half[k]), float(at.exact_share[k]), "exact pmf"))
        source = "mean of F under the exact pmf"
        rows.append(Row(f"Hotelling F, n = {n:,}", float(at.hotelling), np.nan, float(at.expected_hotelling), source))
        gap, exact_gap = _distance(mean, dataset.limit_share), _distance(at.exact_share, dataset.limit_share)
        source = "exact pmf against the limit"
        rows.append(Row(f"total variation from Poisson(m/a), n = {n:,}", gap, np.nan, exact_gap, source))
    return rows


def _distance(one, other) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).sum() / 2)
