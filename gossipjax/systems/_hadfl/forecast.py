"""The coordinator's arithmetic: hyperperiod, forecast of versions, and the draw of a ring's members."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Smoothing(NamedTuple):
    """State of Brown's double exponential smoothing; NaN for a device that was never observed."""

    first: Float[np.ndarray, " n"]
    second: Float[np.ndarray, " n"]


def start_smoothing(n: int) -> Smoothing:
    """Return the state before the first observation."""
    return Smoothing(np.full(n, np.nan), np.full(n, np.nan))


def observe(state: Smoothing, versions: Float[np.ndarray, " n"], alpha: float) -> Smoothing:
    """Smooth the observed versions: ``s' ← α v + (1 − α) s'``, ``s'' ← α s' + (1 − α) s''``; both start at v.

    Args:
        state: so far.
        versions: of all devices; NaN: not observed, its state stays.
        alpha: α.
    """
    seen, new = ~np.isnan(versions), np.isnan(state.first)
    first = np.where(new, versions, alpha * versions + (1 - alpha) * state.first)
    second = np.where(new, versions, alpha * first + (1 - alpha) * state.second)
    return Smoothing(np.where(seen, first, state.first), np.where(seen, second, state.second))


def forecast(state: Smoothing, alpha: float) -> Float[np.ndarray, " n"]:
    """Return ``v̂ = a + b``, ``a = 2 s' − s''``, ``b = (s' − s'') α/(1 − α)``; NaN where nothing was observed."""
    level = 2 * state.first - state.second
    trend = alpha / (1 - alpha) * (state.first - state.second)
    return level + trend


def log_weights(
    versions: Float[np.ndarray, " k"], quantile: float, scale: Literal["std", "unit"]
) -> Float[np.ndarray, " k"]:
    """Return the logarithms of the probabilities of being drawn first, ``−z²/2`` up to a constant.

    Args:
        versions: forecasts of the devices that may be drawn.
        quantile: of the centre.
        scale: "std": deviations in units of the standard deviation, uniform where it is 0; "unit": as they are.
    """
    deviation = versions - np.quantile(versions, quantile)
    unit = float(np.std(versions)) if scale == "std" else 1.0
    exponent = np.zeros(versions.size) if unit == 0 else -((deviation / unit) ** 2) / 2
    exponent = exponent - exponent.max()
    return exponent - math.log(np.exp(exponent).sum())


def draw(rng: np.random.Generator, logs: Float[np.ndarray, " k"], count: int) -> Int[np.ndarray, " count"]:
    """Draw different entries one after another, each in proportion to the weights that are left.

    The ``count`` largest of ``log w + G`` with G from Gumbel's law, which needs no weight to be above 0 in floats.
    """
    return np.argsort(-(logs + rng.gumbel(size=logs.size)), kind="stable")[:count]


def hyperperiod(seconds: Float[np.ndarray, " k"], max_denominator: int, most: float) -> float:
    """Return the least common multiple of periods, whose ratios to the shortest are rounded to fractions.

    Args:
        seconds: the periods.
        max_denominator: of the fractions.
        most: infinity is returned if it exceeds so many of the longest period: that of many devices is astronomical.
    """
    shortest = float(seconds.min())
    ratios = [Fraction(period / shortest).limit_denominator(max_denominator) for period in seconds.tolist()]
    multiple = Fraction(
        math.lcm(*(ratio.numerator for ratio in ratios)), math.gcd(*(ratio.denominator for ratio in ratios))
    )
    return float(multiple) * shortest if multiple <= Fraction(most) * max(ratios) else math.inf


def whole_units(sync_s: float, seconds: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return ``E_i = ⌊T_sync / T_i⌋``; a quotient within 10⁻⁹ of a whole number is that number."""
    known: Bool[np.ndarray, " n"] = np.isfinite(seconds)
    return np.where(known, np.floor(sync_s / np.where(known, seconds, 1.0) * (1 + 1e-9)), 0).astype(np.int64)
