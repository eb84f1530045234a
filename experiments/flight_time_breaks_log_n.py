"""Does capacity λ = ln n still bound staleness if messages take a fixed time? It does not."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from experiments.lib import stationary
from experiments.lib.report import Row
from experiments.lib.store import mean_and_interval
from gossipjax.observe import staleness_by_source
from gossipjax.timeline import clocks, push_gossip
from theory import staleness

CLAIM = "with a flight time that does not shrink with n, λ = ln n no longer bounds staleness"
ONE_DEVICE = True


class Config(NamedTuple):
    """Settings; flight times in units of 1/m at m = 1."""

    sizes: tuple[int, ...] = (32, 100, 316, 1000, 3162, 10_000)
    flight_times: tuple[float, ...] = (0.0, 0.3, 1.0)
    update_rate: float = 1.0
    relative_error: float = 0.02
    seed: int = 0


QUICK = Config(sizes=(32, 100, 316, 1000), relative_error=0.06)


def asymptote(n: np.ndarray, flight_time: float, update_rate: float) -> np.ndarray:
    """Compute the leading term ``m ln n/α`` at λ = ln n, ``α = W_0(λd)/d``; only its growth with n is a prediction."""
    one = [
        staleness.flight_time_staleness(
            int(size), gossip_rate=float(np.log(size)), flight_time=flight_time, update_rate=update_rate
        )
        for size in n
    ]
    return np.asarray(one, np.float64)


def measured(n: int, flight_time: float, config: Config) -> np.ndarray:
    """Measure the mean staleness over all pairs in parts of the run, ``(batches,)``; blocks last two mean delays."""
    m, rate = config.update_rate, float(np.log(n))
    delay = float(asymptote(np.asarray([n]), flight_time, 1.0)[0]) + 1.0
    events = n * (m + (2 if flight_time else 1) * rate)
    variance = 1 / (m * delay) + 2 / np.log(n) ** 2
    plan = stationary.schedule(
        n,
        record=2 * delay * events,
        memory=2 * delay * events,
        burn_in=8 * delay * events,
        units=max(64, int(variance / config.relative_error**2)),
    )
    total = plan.chunk * plan.chunks
    # Messages in flight at the end never arrive, so plan d seconds more, and six standard deviations of the count.
    duration = (total + 6 * total**0.5 + 100) / events + flight_time
    timeline = push_gossip(
        n,
        duration,
        compute=clocks.poisson(m),
        gossip=rate,
        latency=flight_time or None,
        seed=config.seed + 1000 * n + config.flight_times.index(flight_time),
    )
    chunks = stationary.chunks_of(timeline, plan)
    records = stationary.records(
        jax.random.key(config.seed), chunks, plan.sources, staleness_by_source(), plan.record_every
    )
    return stationary.batches(stationary.blocks(records["staleness_of_source"], plan))


def level(mean: np.ndarray, error: np.ndarray, leading: np.ndarray) -> float:
    """Fit the constant C of ``m ln n/α + C``, which theory does not give, by weighted least squares."""
    return float(np.sum((mean - leading) / error**2) / np.sum(1 / error**2))


def run(config: Config) -> xr.Dataset:
    """Measure every size and flight time; fit the constant for positive flight times."""
    n, m = np.asarray(config.sizes), config.update_rate
    shape = (len(config.flight_times), len(n))
    mean, half, error = np.empty(shape), np.empty(shape), np.empty(shape)
    for d, flight_time in enumerate(config.flight_times):
        for k, size in enumerate(config.sizes):
            values = measured(size, flight_time, config)
            mean[d, k], half[d, k] = mean_and_interval(values)
            error[d, k] = values.std(ddof=1) / np.sqrt(values.size)
    leading = np.stack([asymptote(n, flight_time, m) for flight_time in config.flight_times])
    fitted = [
        level(mean[d], error[d], leading[d]) if flight_time else np.nan
        for d, flight_time in enumerate(config.flight_times)
    ]
    updates = {"units": "updates"}
    return xr.Dataset(
        {
            "staleness": (("flight_time", "n"), mean, updates),
            "interval": (("flight_time", "n"), half, updates | {"long_name": "half-width of the 95 % interval"}),
            "standard_error": (("flight_time", "n"), error, updates),
            "leading_term": (("flight_time", "n"), leading, updates),
            "fitted_level": ("flight_time", fitted, updates),
            "exact": ("n", staleness.mean_staleness(n, gossip_rate=np.log(n), update_rate=m), updates),
        },
        {
            "flight_time": ("flight_time", list(config.flight_times), {"units": "1/m"}),
            "n": ("n", n, {"units": "nodes"}),
        },
        {"update_rate": m},
    )


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare levels (exact without flight time, one fitted constant with it) and the growth over all sizes."""
    rows = []
    for flight_time in dataset.flight_time.values:
        at = dataset.sel(flight_time=flight_time)
        bare = flight_time == 0
        predicted = dataset.exact.values if bare else at.leading_term.values + float(at.fitted_level)
        source = "m H/λ, exact" if bare else "m ln n/α + C, C fitted"
        for k, n in enumerate(dataset.n.values):
            label = f"E S, d = {flight_time:g}, n = {n:,}"
            rows.append(Row(label, float(at.staleness[k]), float(at.interval[k]), float(predicted[k]), source))
        growth = float(at.staleness[-1] - at.staleness[0])
        half = float(np.hypot(at.interval[0], at.interval[-1]))
        source = "m H/λ, exact" if bare else "m ln n/α, asymptotic, nothing fitted"
        label = f"growth of E S, d = {flight_time:g}, n = {dataset.n.values[0]:,} to {dataset.n.values[-1]:,}"
        rows.append(Row(label, growth, half, float(predicted[-1] - predicted[0]), source))
    return rows
