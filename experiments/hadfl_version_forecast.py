"""How well does Brown's forecast in HADFL predict the versions of devices whose speeds vary?

At every synchronisation the coordinator smooths its observations twice, with factor α. Two quantities are forecast:
versions, as in planned runs, which a ring moves to the mean of its members; and progress, the number of units that each
device has trained, by the same formula. Speeds vary from unit to unit (jitter σ), as a random walk (drift δ), or both.
The error is the mean of |forecast − observation one synchronisation later|, after some cycles of start-up, divided by
the mean |change| between synchronisations; the last version as forecast has an error of 1. Without variation the error
on progress is known exactly, cycle by cycle.

Theory predicts that the error on a line vanishes for every α, that a larger α follows drift, and that a smaller one
averages jitter. The last statement is about noise around a line and need not hold here: a slow unit delays all later
ones, so the noise of progress is a random walk. The paper's equations are recalled, its α is unknown, and its text was
not available.

Reference: Cao et al. 2021, arXiv 2111.08274.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Float64

from experiments.lib.hadfl_plans import DESIGN, duration_of, named
from experiments.lib.report import Row, over_seeds
from gossipjax import devices, systems
from gossipjax.systems import Plan
from theory.check.policy import Band, Verdict, above, decide
from theory.hadfl import brown_forecast, linear_forecast_error

CLAIM = "Without jitter the forecast error vanishes; a larger α follows drift, a smaller one averages jitter"
NONE = 1e-3
"""Largest error, in changes per cycle, that counts as none."""
WARM_UP = 6
"""Most seconds that a unit of one second may take; it gives all plans the same cycles. A longer unit fails the run."""
SUBJECTS = ("progress", "versions")
"""Units that a device has trained, and its version, which averaging changes as well."""


class Config(NamedTuple):
    """Settings."""

    powers: tuple[int, ...] = (4, 2, 2, 1)
    jitters: tuple[float, ...] = (0.0, 0.1, 0.3)
    drifts: tuple[float, ...] = (0.0, 0.05, 0.2)
    alphas: tuple[float, ...] = (0.3, 0.5, 0.8)
    ring_size: int = 2
    cycles: int = 40
    start_up: int = 10
    """Cycles at the start that do not count."""
    num_seeds: int = 20
    seed: int = 0


QUICK = Config(num_seeds=3)


def run(config: Config) -> xr.Dataset:
    """Plan every jitter, drift and α, with different speeds and draws for each seed."""
    by_jitter = []
    for jitter in config.jitters:
        by_drift = []
        for drift in config.drifts:
            seeds = range(config.seed, config.seed + config.num_seeds)
            by_drift.append(xr.concat([_errors(config, jitter, drift, seed) for seed in seeds], "seed"))
        by_jitter.append(xr.concat(by_drift, xr.DataArray(list(config.drifts), dims="drift", name="drift")))
    dataset = xr.concat(by_jitter, xr.DataArray(list(config.jitters), dims="jitter", name="jitter"))
    exact = [[linear_forecast_error(1, alpha, int(k)) for k in dataset.cycle] for alpha in config.alphas]
    facts = {"data": f"devices of powers {named(config.powers)}, a free network", "start_up": config.start_up}
    facts |= {"ring_size": config.ring_size, "num_nodes": len(config.powers), "note": DESIGN}
    return dataset.assign(exact=(("alpha", "cycle"), exact)).assign_attrs(facts)


def _errors(config: Config, jitter: float, drift: float, seed: int) -> xr.Dataset:
    """Measure the errors of all α: on versions in the run with that α, on progress averaged over all runs."""
    plans = [_plan(config, jitter, drift, alpha, seed) for alpha in config.alphas]
    units = [progress(plan) for plan in plans]
    curves, totals = [], []
    for alpha, plan in zip(config.alphas, plans, strict=True):
        foreseen = [np.stack([brown_forecast(column, alpha) for column in counts.T], axis=1) for counts in units]
        pairs = [
            [(later[:-1] - counts[1:], np.diff(counts, axis=0)) for later, counts in zip(foreseen, units, strict=True)],
            [(plan.history.forecast_errors(), np.diff(plan.history.versions, axis=0))],
        ]
        curves.append([np.mean([curve(*pair)[: config.cycles] for pair in some], axis=0) for some in pairs])
        settled = slice(config.start_up, config.cycles)
        totals.append([np.mean([relative_error(e[settled], c[settled]) for e, c in some]) for some in pairs])
    fields = {"curve": (("alpha", "subject", "cycle"), curves), "error": (("alpha", "subject"), totals)}
    axes = {"alpha": list(config.alphas), "subject": list(SUBJECTS), "cycle": np.arange(1, config.cycles + 1)}
    return xr.Dataset(fields, axes)


def _plan(config: Config, jitter: float, drift: float, alpha: float, seed: int) -> Plan:
    """Plan a run that is synchronised once per unit of the slowest device, one second, with time for a long warm-up."""
    return systems.hadfl(
        devices.from_powers(config.powers, seconds_per_sample=1 / 3, bytes_per_second=np.inf),
        duration_of(config.cycles + WARM_UP, 1.0, 1.0),
        model_bytes=4,
        local_steps=1,
        cycle=systems.HADFLCycle(sync_s=1.0),
        selection=systems.HADFLSelection(count=config.ring_size, alpha=alpha),
        speeds=systems.HADFLSpeeds(jitter=jitter, drift=drift),
        seed=seed,
    )


def progress(plan: Plan) -> Float64[np.ndarray, "c n"]:
    """Count the units that each device has completed at the coordinator's decision on each synchronisation."""
    activity = systems.activity(plan)
    ends = [
        np.sort(activity.training_end_s[activity.training_completed & (activity.training_node == node)])
        for node in range(plan.num_nodes)
    ]
    decided = plan.history.cycle_decided_s
    return np.stack([np.searchsorted(times, decided, side="right") for times in ends], axis=1).astype(np.float64)


def curve(errors: Float64[np.ndarray, "c n"], changes: Float64[np.ndarray, "c n"]) -> Float64[np.ndarray, " c"]:
    """Compute the mean |error| of each cycle, divided by the mean |change| of all cycles."""
    return np.abs(errors).mean(1) / np.abs(changes).mean()


def relative_error(errors: Float64[np.ndarray, "c n"], changes: Float64[np.ndarray, "c n"]) -> float:
    """Compute ``Σ|error|/Σ|change|`` over cycles, averaged over devices; the last value as forecast has the error 1."""
    return float(np.mean(np.abs(errors).sum(0) / np.abs(changes).sum(0)))


def vanishes(last: Float[np.ndarray, " seeds"]) -> Verdict:
    """Judge whether the error of the last cycle vanishes, over seeds."""
    return decide(last, Band(high=NONE))


def gains(gain: Float[np.ndarray, " seeds"]) -> Verdict:
    """Judge whether one α has a smaller error than another, from the differences over seeds."""
    return decide(gain, above(0.0))


def table(dataset: xr.Dataset) -> list[Row]:
    """Report the last errors without variation, the gain by the choice of α under jitter and drift, and all errors."""
    rows = []
    still = dataset.curve.sel(jitter=0.0, drift=0.0).isel(cycle=-1)
    for subject in SUBJECTS:
        for k, alpha in enumerate(dataset.alpha.values.tolist()):
            last = still.sel(subject=subject, alpha=alpha).values
            exact = float(dataset.exact.isel(alpha=k, cycle=-1))
            route = "exact" if subject == "progress" else "exact without averaging"
            rows.append(
                over_seeds(
                    f"last error, {subject}, no jitter, α = {alpha:g}", last, exact, f"{route}; {vanishes(last)}"
                )
            )
    low, high = float(dataset.alpha.min()), float(dataset.alpha.max())
    worst = {"jitter": float(dataset.jitter.max()), "drift": float(dataset.drift.max())}
    for subject in SUBJECTS:
        at = dataset.error.sel(subject=subject)
        jitter = at.sel(jitter=worst["jitter"], drift=0.0)
        gain = (jitter.sel(alpha=high) - jitter.sel(alpha=low)).values
        name = f"error at α = {high:g} − at {low:g}, {subject}, σ = {worst['jitter']:g}"
        rows.append(over_seeds(name, gain, source=f"theory: above 0; {gains(gain)}"))
        drift = at.sel(jitter=0.0, drift=worst["drift"])
        gain = (drift.sel(alpha=low) - drift.sel(alpha=high)).values
        name = f"error at α = {low:g} − at {high:g}, {subject}, δ = {worst['drift']:g}"
        rows.append(over_seeds(name, gain, source=f"theory: above 0; {gains(gain)}"))
    for subject in SUBJECTS:
        for jitter in dataset.jitter.values.tolist():
            for drift in dataset.drift.values.tolist():
                at = dataset.error.sel(subject=subject, jitter=jitter, drift=drift)
                best = float(at.mean("seed").idxmin("alpha"))
                words = f"at the best α, {best:g}; 1: that nothing changes"
                name = f"error, {subject}, σ = {jitter:g}, δ = {drift:g}"
                rows.append(over_seeds(name, at.sel(alpha=best).values, source=words))
    return rows
