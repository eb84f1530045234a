"""Curves of a score against its cost, on one axis over seeds."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float

POINTS = 60
Curve: TypeAlias = Float[np.ndarray, " points"]


def on_one_axis(
    costs: Float[np.ndarray, "seeds records"], scores: Float[np.ndarray, "seeds records"]
) -> tuple[Curve, Curve, Curve, Curve]:
    """Interpolate every seed's curve at the same costs, up to the end of the shortest; return mean, least and largest.

    Args:
        costs: costs, not decreasing along a seed's records; NaN after the end of a shorter run.
        scores: scores at the same records.

    Returns:
        Costs, evenly spaced in their logarithm from the largest first positive cost on, and scores over seeds.
    """
    curves = [(x[ok], y[ok]) for x, y in zip(costs, scores, strict=True) for ok in [np.isfinite(x) & np.isfinite(y)]]
    first = max(float(x[x > 0].min()) for x, _ in curves)
    last = min(float(x.max()) for x, _ in curves)
    grid = np.geomspace(min(first, last), last, POINTS)
    read = np.stack([np.interp(grid, x, y) for x, y in curves])
    return grid, read.mean(0), read.min(0), read.max(0)
