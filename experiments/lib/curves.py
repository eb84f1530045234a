"""Curves of a score over records: runs side by side, targets, and what was spent when a curve reaches one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float


def side_by_side(parts: Sequence[xr.Dataset], along: xr.DataArray) -> xr.Dataset:
    """Put runs along a new dimension; where one has fewer records or seeds, NaN fills up."""
    numbered = [
        part.assign_coords({name: np.arange(part.sizes[name]) for name in ("record", "seed") if name in part.dims})
        for part in parts
    ]
    how: dict[str, Any] = {"join": "outer", "data_vars": "all", "coords": "minimal", "compat": "override"}
    joined = xr.concat(numbered, along, combine_attrs="drop_conflicts", **how)
    # Parts that were read from files would be written as integers again, which have no NaN.
    return joined.drop_encoding()


def grid_of_runs(
    names: Sequence[Any], dimension: str, seeds: Sequence[int], one: Callable[[Any, int], xr.Dataset]
) -> xr.Dataset:
    """Run ``one(name, seed)`` for all of both; put the runs side by side along ``seed`` and a dimension of names."""
    along = xr.DataArray(np.arange(len(seeds)), dims="seed", name="seed")
    runs = [side_by_side([one(name, seed) for seed in seeds], along) for name in names]
    return side_by_side(runs, xr.DataArray(list(names), dims=dimension, name=dimension))


def held(times: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Read a quantity that holds from each time to the next, ``(k, ...)``; NaN before the first."""
    at = np.searchsorted(times, grid, side="right") - 1
    read = np.asarray(values, np.float64)[np.maximum(at, 0)]
    read[at < 0] = np.nan
    return read


def last_known(values: xr.DataArray) -> xr.DataArray:
    """Take the last record that a run has, over ``record``."""
    last = values.notnull().cumsum("record").argmax("record")
    return values.isel(record=last)


def good(score: Any, higher_is_better: bool | int) -> Any:
    """Turn a score so that more is better."""
    return score if higher_is_better else -score


def target_of(start: float, ends: Float[np.ndarray, "..."], share: float, higher_is_better: bool | int = True) -> float:
    """Choose a target that all can reach: a share of the way from the start to the worst of the ends.

    Args:
        start: score, mean over seeds.
        ends: scores, means over seeds; NaN where a run diverged.
        share: of the way.
        higher_is_better: whether scores rise.
    """
    worst = float(np.nanmin(ends) if higher_is_better else np.nanmax(ends))
    return start + share * (worst - start)


def reached(target: float, cost: Float[np.ndarray, " record"], score: Float[np.ndarray, " record"]) -> float:
    """Find the cost at which a rising curve first reaches a target, between records by interpolation; NaN if never."""
    at = int(np.argmax(score >= target))
    if not score[at] >= target:
        return float("nan")
    if at == 0:
        return float(cost[0])
    part = (target - score[at - 1]) / (score[at] - score[at - 1])
    return float(cost[at - 1] + part * (cost[at] - cost[at - 1]))


def at_cost(spent: float, cost: Float[np.ndarray, " record"], score: Float[np.ndarray, " record"]) -> float:
    """Read a curve at a cost that it has reached, between records by interpolation."""
    return float(np.interp(spent, np.asarray(cost, np.float64), np.asarray(score, np.float64)))


def at_target(run: xr.Dataset, target: float, higher_is_better: bool | int) -> dict[str, float]:
    """Seconds, bytes and training seconds until the score first reaches a target, linear between records, or NaN."""
    score, goal = good(run.score.values, higher_is_better), good(target, higher_is_better)
    return {name: reached(goal, run[name].values, score) for name in ("time", "bytes", "training")}
