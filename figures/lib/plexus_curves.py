"""Curves of a score against what it costs, read on one axis over seeds."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float

POINTS = 60
Curve: TypeAlias = Float[np.ndarray, " points"]


def on_one_axis(
    costs: Float[np.ndarray, "seeds records"], scores: Float[np.ndarray, "seeds records"]
) -> tuple[Curve, Curve, Curve, Curve]:
    """Read every seed's curve at the same costs, up to where the shortest ends; return them, mean, least and largest.

    Args:
        costs: not decreasing along a seed's records; where a shorter run has ended, NaN.
        scores: at the same records.

    Returns:
        Costs, spaced evenly in their logarithm from the largest first positive cost on; scores over seeds.
    """
    kept = [(x[ok], y[ok]) for x, y in zip(costs, scores, strict=True) for ok in [np.isfinite(x) & np.isfinite(y)]]
    first = max(float(x[x > 0].min()) for x, _ in kept)
    last = min(float(x.max()) for x, _ in kept)
    grid = np.geomspace(min(first, last), last, POINTS)
    read = np.stack([np.interp(grid, x, y) for x, y in kept])
    return grid, read.mean(0), read.min(0), read.max(0)
