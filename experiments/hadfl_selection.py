"""Which devices are in the rings of HADFL, and how often: planned runs against the exact law of the draws.

There are two arrays of powers, rings of two and three, and two spreads of the bell curve by which members are drawn:
the standard deviation of the forecasts, or one unit. Given the forecasts of a cycle, the probability that a device is
drawn is exact; the frequency is compared with its mean over cycles. Communication is free, so that no cycle is skipped.
Without averaging, versions would be multiples of the powers, and would give other probabilities, because rings bring
versions together.

Whether the paper draws in this way is unknown: its text was not available, and the formulas are our design.

Reference: Cao et al. 2021, arXiv 2111.08274.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.lib.hadfl_plans import ARRAYS, DESIGN, duration_of, named
from experiments.lib.report import Row, over_seeds
from gossipjax import devices, systems
from gossipjax.systems import HADFLHistory
from theory.check.policy import Band, Verdict, decide
from theory.hadfl import inclusion_probabilities, selection_probabilities

CLAIM = "Devices are in rings as often as the exact law says; with unit spread the same few are drawn every time"
SPREADS: tuple[Literal["std", "unit"], ...] = ("std", "unit")
WITHIN = 0.03
"""Largest difference between frequency and exact probability that counts as agreement."""
COLLAPSE = 0.05
"""Largest distance of the share of unused devices from 1 − N_p/n that counts as a collapse, and from 0 as none."""
SURE = 1.96
"""Standard deviations on either side of the mean that contain 95 % of a normal law."""


class Config(NamedTuple):
    """Settings."""

    powers: tuple[tuple[int, ...], ...] = ARRAYS
    counts: tuple[int, ...] = (2, 3)
    cycles: int = 2000
    quantile: float = 0.75
    num_seeds: int = 5
    seed: int = 0


QUICK = Config(cycles=300, num_seeds=3)


def run(config: Config) -> xr.Dataset:
    """Plan all arrays, spreads and sizes of the ring, with different draws for each seed."""
    by_powers = []
    for powers in config.powers:
        by_spread = [
            xr.concat([_seeds(config, powers, spread, count) for count in config.counts], _axis("count", config.counts))
            for spread in SPREADS
        ]
        by_powers.append(xr.concat(by_spread, _axis("spread", SPREADS)))
    dataset = xr.concat(by_powers, _axis("array", [named(powers) for powers in config.powers]))
    power = xr.DataArray(np.array(config.powers, np.float64), dims=("array", "device"))
    return dataset.assign(power=power).assign_attrs(data="devices of relative powers on a free network", note=DESIGN)


def _axis(name: str, values) -> xr.DataArray:
    return xr.DataArray(list(values), dims=name, name=name)


def _seeds(config: Config, powers: tuple[int, ...], spread: Literal["std", "unit"], count: int) -> xr.Dataset:
    """Plan one case for all seeds; ``static`` is the law for versions in proportion to the powers."""
    seeds = range(config.seed, config.seed + config.num_seeds)
    dataset = xr.concat([_plan(config, powers, spread, count, seed) for seed in seeds], "seed")
    alone = selection_probabilities(np.array(powers, np.float64), config.quantile, spread)
    return dataset.assign(static=("device", inclusion_probabilities(alone, count)))


def _plan(config: Config, powers: tuple[int, ...], spread: Literal["std", "unit"], count: int, seed: int) -> xr.Dataset:
    """Plan a run whose hyperperiod is a unit of the slowest device, one second."""
    plan = systems.hadfl(
        devices.from_powers(powers, seconds_per_sample=1 / 3, bytes_per_second=np.inf),
        duration_of(config.cycles, 1.0, 1.0),
        model_bytes=4,
        local_steps=1,
        cycle=systems.HADFLCycle(sync_s=1.0),
        selection=systems.HADFLSelection(count=count, quantile=config.quantile, scale=spread),
        seed=seed,
    )
    return measured(plan.history, count, config.quantile, spread)


def inclusion(
    forecasts: Float[np.ndarray, " n"], count: int, quantile: float, spread: Literal["std", "unit"]
) -> Float[np.ndarray, " n"]:
    """Compute the probability that each device is drawn.

    If fewer than N_p probabilities are above 0 in float64, those devices are drawn first, and then others by the same
    weights, scaled up.
    """
    p = selection_probabilities(forecasts, quantile, spread)
    certain = p > 0
    missing = count - int(np.count_nonzero(certain))
    if missing <= 0:
        return inclusion_probabilities(p, count)
    law = certain.astype(np.float64)
    logs = -0.5 * (forecasts[~certain] - np.quantile(forecasts, quantile)) ** 2  # with "std" no weight underflows
    weights = np.exp(logs - logs.max())
    law[~certain] = inclusion_probabilities(weights / weights.sum(), missing)
    return law


def measured(history: HADFLHistory, count: int, quantile: float, spread: Literal["std", "unit"]) -> xr.Dataset:
    """Compare the drawn devices with the law of the draws, given the forecasts of each cycle.

    Args:
        history: history of a run in which all devices are always alive.
        count: N_p.
        quantile: quantile of the centre.
        spread: "std" or "unit".

    Returns:
        ``frequency`` and ``exact`` by device; ``deviation``, their difference in standard deviations of the law (0 if
        nothing is random); ``formula_gap`` between the planner's probabilities and the formula; ``gap``, the range of
        the versions by cycle; ``unused``, the share of devices that are in no ring of the second half.
    """
    first = np.array([selection_probabilities(row, quantile, spread) for row in history.forecasts])
    law = np.array([inclusion(row, count, quantile, spread) for row in history.forecasts])
    sure = np.sqrt(np.sum(law * (1 - law), axis=0))
    excess = np.sum(history.selected - law, axis=0)
    later = history.selected[history.selected.shape[0] // 2 :]
    return xr.Dataset(
        {
            "frequency": ("device", history.selected.mean(0)),
            "exact": ("device", law.mean(0)),
            "deviation": ("device", np.divide(excess, sure, out=np.zeros_like(sure), where=sure > 0)),
            "formula_gap": ((), float(np.abs(history.probabilities - first).max())),
            "gap": ("cycle", np.ptp(history.versions, axis=1)),
            "unused": ((), float(np.mean(~later.any(0)))),
        },
        {"cycle": np.arange(1, history.selected.shape[0] + 1)},
    )


def agrees(difference: Float[np.ndarray, " seeds"]) -> Verdict:
    """Judge whether a device's frequency is that of the law, from their differences over seeds."""
    return decide(difference, Band(-WITHIN, WITHIN))


def collapses(unused: Float[np.ndarray, " seeds"], count: int, n: int) -> Verdict:
    """Judge whether only N_p devices are used, from the share of unused devices in each seed."""
    return decide(unused, Band(low=1 - count / n - COLLAPSE))


def takes_turns(unused: Float[np.ndarray, " seeds"]) -> Verdict:
    """Judge whether nearly all devices are used."""
    return decide(unused, Band(high=COLLAPSE))


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare frequencies with the law; report how many are within chance, and which devices are unused."""
    rows, n = [], dataset.sizes["device"]
    for array in dataset.array.values:
        for count in dataset["count"].values.tolist():
            rows += _frequencies(dataset.sel(array=array, count=count, spread="std"), str(array), count)
    drawn = dataset.deviation.sel(spread="std").values
    share = 100 * float(np.mean(np.abs(drawn) <= SURE))
    words = f"of {drawn.size} frequencies with spread std; those of one run depend on each other"
    rows.append(Row("% of frequencies within 1.96 sd of the law", share, np.nan, 95.0, words))
    worst = float(dataset.formula_gap.max())
    rows.append(Row("planner's probability − formula, largest", worst, np.nan, 0.0, "of being drawn first"))
    for array in dataset.array.values:
        for count in dataset["count"].values.tolist():
            at = dataset.sel(array=array, count=count).unused
            unit, std = at.sel(spread="unit").values, at.sel(spread="std").values
            name = f"share in no ring, N_p = {count} of {array}"
            rows.append(over_seeds(f"{name}, std", std, 0.0, str(takes_turns(std))))
            words = f"1 − N_p/n; {collapses(unit, count, n)}"
            rows.append(over_seeds(f"{name}, unit", unit, 1 - count / n, words))
    return rows


def _frequencies(at: xr.Dataset, array: str, count: int) -> list[Row]:
    rows = []
    for device, power in enumerate(at.power.values.tolist()):
        one = at.isel(device=device)
        verdict = agrees((one.frequency - one.exact).values)
        words = f"{verdict}; {float(one.static):.3f} if versions were multiples of powers"
        name = f"N_p = {count} of {array}: device {device + 1}, power {power:g}"
        rows.append(over_seeds(name, one.frequency.values, float(one.exact.mean()), words))
    return rows
