"""Curves of a score over records: runs side by side, targets, and the costs at which curves reach them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float


def side_by_side(parts: Sequence[xr.Dataset], along: xr.DataArray) -> xr.Dataset:
    """Concatenate runs along a new dimension; pad those with fewer records or seeds by NaN."""
    numbered = [
        part.assign_coords({name: np.arange(part.sizes[name]) for name in ("record", "seed") if name in part.dims})
        for part in parts
    ]
    how: dict[str, Any] = {"join": "outer", "data_vars": "all", "coords": "minimal", "compat": "override"}
    joined = xr.concat(numbered, along, combine_attrs="drop_conflicts", **how)
    # Parts that come from files would be written as integers again, which have no NaN.
    return joined.drop_encoding()


def grid_of_runs(
    names: Sequence[Any], dimension: str, seeds: Sequence[int], one: Callable[[Any, int], xr.Dataset]
) -> xr.Dataset:
    """Run ``one(name, seed)`` for all names and seeds; return the runs along ``seed`` and a dimension of names."""
    along = xr.DataArray(np.arange(len(seeds)), dims="seed", name="seed")
    runs = [side_by_side([one(name, seed) for seed in seeds], along) for name in names]
    return side_by_side(runs, xr.DataArray(list(names), dims=dimension, name=dimension))


def held(times: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Evaluate a step function with values ``(k, ...)`` that hold until the next time; NaN before the first."""
    at = np.searchsorted(times, grid, side="right") - 1
    read = np.asarray(values, np.float64)[np.maximum(at, 0)]
    read[at < 0] = np.nan
    return read


def last_known(values: xr.DataArray) -> xr.DataArray:
    """Return the last record of each run over ``record`` that is not NaN."""
    last = values.notnull().cumsum("record").argmax("record")
    return values.isel(record=last)


def good(score: Any, higher_is_better: bool | int) -> Any:
    """Change the sign of a score, if necessary, so that higher is better."""
    return score if higher_is_better else -score


def target_of(start: float, ends: Float[np.ndarray, "..."], share: float, higher_is_better: bool | int = True) -> float:
    """Choose a target that all runs can reach: a share of the way from the start to the worst end.

    Args:
        start: mean score over seeds at the start.
        ends: mean scores over seeds at the end; NaN for a run that diverged.
        share: share of the way.
        higher_is_better: whether higher scores are better.
    """
    worst = float(np.nanmin(ends) if higher_is_better else np.nanmax(ends))
    return start + share * (worst - start)


def reached(target: float, cost: Float[np.ndarray, " record"], score: Float[np.ndarray, " record"]) -> float:
    """Return the cost at which a rising curve first reaches a target, interpolated between records; NaN if never."""
    at = int(np.argmax(score >= target))
    if not score[at] >= target:
        return float("nan")
    if at == 0:
        return float(cost[0])
    part = (target - score[at - 1]) / (score[at] - score[at - 1])
    return float(cost[at - 1] + part * (cost[at] - cost[at - 1]))


def at_cost(spent: float, cost: Float[np.ndarray, " record"], score: Float[np.ndarray, " record"]) -> float:
    """Return the value of a curve at a cost that it has reached, interpolated between records."""
    return float(np.interp(spent, np.asarray(cost, np.float64), np.asarray(score, np.float64)))


def at_target(run: xr.Dataset, target: float, higher_is_better: bool | int) -> dict[str, float]:
    """Return seconds, bytes and training seconds until the score first reaches a target, interpolated, or NaN."""
    score, goal = good(run.score.values, higher_is_better), good(target, higher_is_better)
    return {name: reached(goal, run[name].values, score) for name in ("time", "bytes", "training")}
