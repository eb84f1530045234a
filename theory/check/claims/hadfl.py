"""Claims on parts of HADFL: devices of unequal power, forecasts of their versions, and draws.

Communication takes no time. Devices train without waiting in plans of AD-PSGD, and behind a barrier in plans of
all-reduce. Claims on whole cycles, which run plans of HADFL, are in :mod:`theory.check.claims.hadfl_cycles`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num

import gossipjax as gj

from ... import hadfl
from ..claim import Assumption, Axis, Claim, Observation, Points, Sampling, once

SOURCE = "Cao, Lian, Liu, Zhu, Ji 2021, arXiv 2111.08274 (reported; full text not read)"
POWERS = ((4.0, 2.0, 2.0, 1.0), (3.0, 3.0, 1.0, 1.0), (8.0, 1.0), (5.0, 3.0, 2.0))
"""Arrays of relative speeds; the first two are those reported of the paper."""
DEVICES = Axis("device, of powers (4, 2, 2, 1)", (0, 1, 2, 3), (0, 1, 2, 3))
SLOWEST_S = 1.0
"""Seconds that the slowest device takes for a unit of training."""
CYCLES = 12
"""Hyperperiods of a plan."""
DRAWN = 2
"""Devices drawn for a cycle."""
ROUNDING = once(1e-9)
"""Rounding errors of thousands of float64 sums of seconds, far below one unit."""


def _devices(powers: tuple[float, ...]) -> gj.devices.Devices:
    # A unit is one sample, forward and backward, and takes three times the seconds of a sample.
    return gj.devices.from_powers(powers, seconds_per_sample=SLOWEST_S / 3, bytes_per_second=np.inf)


def _ends(powers: tuple[float, ...], seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the device and the time of every unit that is completed without waiting."""
    plan = gj.systems.ad_psgd(_devices(powers), len(powers), seconds, model_bytes=1, seed=seed)
    activity = gj.systems.activity(plan)
    return activity.training_node[activity.training_completed], activity.training_end_s[activity.training_completed]


def _hyperperiod(powers: tuple[float, ...]) -> hadfl.Hyperperiod:
    return hadfl.hyperperiod(SLOWEST_S * min(powers) / np.asarray(powers))


def _versions(powers: tuple[float, ...], seed: int) -> Int[np.ndarray, "cycles n"]:
    """Count the units that each device has completed at the end of each hyperperiod."""
    seconds = _hyperperiod(powers).seconds
    node, end = _ends(powers, CYCLES * seconds, seed)
    cycle = np.minimum(end // seconds, CYCLES - 1).astype(int)
    counts = np.zeros((CYCLES, len(powers)), int)
    np.add.at(counts, (cycle, node), 1)
    return np.cumsum(counts, axis=0)


# --- units of training ------------------------------------------------------------------------------------------------


def _gain(seed: int, points: Points, replicas: int) -> Observation:
    """Compute the ratio of units per second without waiting and behind a barrier."""
    del replicas
    gains = []
    for point in points:
        powers = POWERS[int(point)]
        seconds = CYCLES * _hyperperiod(powers).seconds
        behind = gj.systems.allreduce(_devices(powers), CYCLES, local_steps=3, model_bytes=1)
        at_barrier = 3 * CYCLES * len(powers) / behind.round_end_s[-1]
        gains.append(_ends(powers, seconds, seed)[0].size / seconds / at_barrier)
    return Observation(np.asarray([gains]))


def _units(seed: int, points: Points, replicas: int) -> Observation:
    del replicas
    versions = _versions(POWERS[0], seed)
    every = np.diff(versions, axis=0, prepend=0)
    equal_cycles = Assumption(
        "all cycles are equal", bool(np.ptp(every, axis=0).max() == 0), f"units of cycles: {every}"
    )
    return Observation(versions[-1:, [int(p) for p in points]] / CYCLES, (equal_cycles,))


# --- forecasts --------------------------------------------------------------------------------------------------------

FAST = 0
"""The device whose versions are forecast."""


def _forecast_errors(seed: int, points: Points, replicas: int) -> Observation:
    """Subtract from the last cycle's version its forecast from the cycles before."""
    del replicas
    versions = _versions(POWERS[0], seed)[:, FAST].astype(float)
    errors = [versions[-1] - hadfl.brown_forecast(versions[:-1], alpha)[-1] for alpha in points]
    steps = np.diff(versions)
    return Observation(np.asarray([errors]), (Assumption("versions grow linearly", bool(np.ptp(steps) == 0)),))


def _predicted_errors(alphas: Float[np.ndarray, " points"]) -> np.ndarray:
    slope = _hyperperiod(POWERS[0]).units[FAST]
    return np.asarray([hadfl.linear_forecast_error(slope, alpha, CYCLES - 1) for alpha in alphas.tolist()])


# --- draws ------------------------------------------------------------------------------------------------------------


def _law(powers: tuple[float, ...]) -> np.ndarray:
    """Compute the probabilities of selection from the versions of the last cycle."""
    return hadfl.selection_probabilities(CYCLES * np.asarray(_hyperperiod(powers).units, float))


def _log_weights(versions: jax.Array) -> jax.Array:
    """Compute log-weights of a bell curve around the third quartile, one standard deviation wide."""
    return -0.5 * jnp.square((versions - jnp.quantile(versions, 0.75)) / jnp.std(versions))


def _included(powers: tuple[float, ...], seed: int, replicas: int) -> np.ndarray:
    """Return whether each device is drawn, ``(replicas, n)``: the largest Gumbel-perturbed log-weights win."""
    log_weights = _log_weights(jnp.asarray(_versions(powers, seed)[-1], float))

    def draw(key: jax.Array) -> jax.Array:
        _, chosen = jax.lax.top_k(log_weights + jax.random.gumbel(key, log_weights.shape), DRAWN)
        return jnp.zeros(len(powers)).at[chosen].set(1.0)

    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(seed), replicas)))


def _draws(seed: int, points: Points, replicas: int) -> Observation:
    """Use the same draws at every point."""
    included = _included(POWERS[0], seed, replicas)
    return Observation(included[:, [int(p) for p in points]])


def _fastest(seed: int, points: Points, replicas: int) -> Observation:
    columns = [_included(POWERS[int(p)], seed + 7919 * k, replicas)[:, FAST] for k, p in enumerate(points)]
    return Observation(np.stack(columns, axis=1))


def _inclusion_of_fastest(which: Num[np.ndarray, " points"]) -> np.ndarray:
    laws = [hadfl.inclusion_probabilities(_law(POWERS[int(k)]), DRAWN) for k in which]
    return np.asarray([law[FAST] for law in laws])


CLAIMS = (
    Claim(
        "hadfl_compute_bound",
        "If communication is free, training without a barrier does Σp/(K min p) times the units of training with one.",
        f"{SOURCE}; the bound is derived here",
        Axis("powers, by number", (0, 1, 2, 3), (0, 3)),
        "units per second without a barrier / with one",
        predict=lambda which: np.asarray([hadfl.compute_bound(np.asarray(POWERS[int(k)])) for k in which]),
        simulate=_gain,
        sampling=ROUNDING,
        catches=("seconds in proportion to power", "units lost between cycles", "a barrier that waits for the fastest"),
    ),
    Claim(
        "hadfl_units_per_hyperperiod",
        "In one hyperperiod H, the least common multiple of the T_i, device i completes E_i = H/T_i units.",
        f"{SOURCE}; the rounding to fractions is a choice made here",
        DEVICES,
        "units per hyperperiod",
        predict=lambda device: np.asarray(_hyperperiod(POWERS[0]).units, float)[device.astype(int)],
        simulate=_units,
        sampling=ROUNDING,
        catches=("powers of other devices", "seconds in proportion to power", "units lost between cycles"),
    ),
    Claim(
        "hadfl_forecast_of_linear_versions",
        "Brown's forecast of versions that grow by c a cycle is late by c (m + 1)(1 − α)^m, m cycles after the first.",
        f"{SOURCE}; Brown's recursion, solved here",
        Axis("smoothing α", (0.1, 0.3, 0.5, 0.8, 0.95), (0.3, 0.5)),
        "true version − forecast, units",
        predict=_predicted_errors,
        simulate=_forecast_errors,
        sampling=ROUNDING,
        catches=("a forecast for another cycle", "a trend without α/(1 − α)", "units lost between cycles"),
    ),
    Claim(
        "hadfl_devices_in_the_draw",
        "A device is among 2 drawn one by one from p ∝ exp(−z²/2) with the probability of Plackett and Luce's law.",
        f"{SOURCE}; drawing one by one is a choice made here",
        DEVICES,
        "probability to be drawn",
        predict=lambda device: hadfl.inclusion_probabilities(_law(POWERS[0]), DRAWN)[device.astype(int)],
        simulate=_draws,
        sampling=Sampling(20_000, 5_000, independent=False),
        catches=("draws with replacement", "a curve around another quantile"),
    ),
    Claim(
        "hadfl_fastest_device_in_the_draw",
        "How often 2 drawn devices include the fastest depends on all powers: 34 % for (4, 2, 2, 1).",
        f"{SOURCE}; the standard deviation as unit is a choice made here",
        Axis("powers, by number", (0, 1, 3), (0, 1)),
        "probability to be drawn",
        predict=_inclusion_of_fastest,
        simulate=_fastest,
        sampling=Sampling(20_000, 5_000),
        catches=("draws with replacement", "a curve around another quantile", "powers of other devices"),
    ),
)
