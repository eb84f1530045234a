"""Error of the exact methods against rounds; with local steps or skipped rounds also against bytes and gradients."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

EVERY_ROUND = ("D-PSGD", "gradient tracking", "EXTRA", "exact diffusion", "NIDS", "DLM", "ADMM")
LOCAL = ("exact diffusion", "ProxSkip", "LED", "K-GT", "LT-ADMM")
SOLVING = (*LOCAL, "ADMM")
LEAST = 1e-19


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a row for each problem: error against rounds, bytes and gradients."""
    fig, axes = style.figure(dataset.sizes["problem"], 3, panel_height=2.4)
    for row, problem in enumerate(dataset.problem.values):
        at = dataset.sel(problem=problem)
        _rounds(axes[row, 0], at, str(problem))
        _bytes(axes[row, 1], at, str(problem))
        _gradients(axes[row, 2], at, str(problem))
        axes[row, 0].set_ylabel("(1/n) Σ ‖xᵢ − x*‖²")
    style.legend(axes[0, 0], location="lower left")
    style.legend(axes[0, 1], location="lower left")
    style.legend(axes[0, 2], location="lower left")
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Left: squared error against rounds. Middle and right: against bytes and gradients, of methods with local "
        "steps or skipped rounds; a step of Newton's method in ADMM counts as a gradient.",
        f"top: drawn quadratics; bottom: logistic regression of {dataset.attrs['data']}, sorted by digit",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        f"{bands(dataset, INTERVAL)}, of the logarithm",
        "none; dashed at the top left: spectral rates, and the exact bias of D-PSGD",
    )


def _curve(ax: Axes, x: np.ndarray, errors: np.ndarray, label: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    logs, half = mean_and_interval(np.log(np.maximum(errors, LEAST)))
    half = np.nan_to_num(half)
    seen = np.exp(logs) > 2 * LEAST
    middle, low, high = np.exp(logs)[seen], np.exp(logs - half)[seen], np.exp(logs + half)[seen]
    style.band(ax, x[seen], middle, low=low, high=high, label=label, style_index=index)
    return x[seen], middle


def _rounds(ax: Axes, at: xr.Dataset, problem: str) -> None:
    for index, method in enumerate(EVERY_ROUND):
        cell = at.sel(protocol=method)
        rounds, middle = _curve(ax, at.event.values, _of_seeds(cell.squared_error), method, index)
        if problem == "quadratics" and np.isfinite(cell.predicted):
            falling = np.flatnonzero(middle > 1e-16 * middle[0])
            late = rounds[falling[len(falling) // 3 :]]
            line = middle[falling[-1]] * float(cell.predicted) ** (2.0 * (late - late[-1]))
            style.theory_line(ax, late, line)
    if problem == "quadratics":
        style.theory_line(ax, at.event.values[[0, -1]], np.full(2, float(at.bias)))
    ax.set(yscale="log", xscale="symlog", xlabel="round", xlim=(0, float(at.event.values[-1])))
    style.title(ax, f"{problem}: rounds")


def _bytes(ax: Axes, at: xr.Dataset, problem: str) -> None:
    for index, method in enumerate(LOCAL):
        cell = at.sel(protocol=method)
        sent = _of_seeds(cell.bytes_sent).mean(0) / 1e3
        _curve(ax, sent, _of_seeds(cell.squared_error), method, index)
    ax.set(yscale="log", xscale="log", xlabel="kB sent by all nodes")
    style.title(ax, f"{problem}: bytes")


def _gradients(ax: Axes, at: xr.Dataset, problem: str) -> None:
    for index, method in enumerate(SOLVING):
        cell = at.sel(protocol=method)
        _curve(ax, at.event.values * int(cell.gradients), _of_seeds(cell.squared_error), method, index)
    ax.set(yscale="log", xscale="symlog", xlabel="gradients of a node", xlim=(0, None))
    style.title(ax, f"{problem}: gradients")


def _of_seeds(values: xr.DataArray) -> np.ndarray:
    return values.transpose("seed", "record").values if "seed" in values.dims else values.values[None]
