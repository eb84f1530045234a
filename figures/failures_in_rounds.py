"""Error of learning under failures in rounds, and mean square of averaging beside its exact value."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, numbers, seeds

SHOWN = ("none", "absences", "losses", "losses of pairs", "bursts of pairs")
LEAST = 1e-13


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a panel for each failure, and one of averaging."""
    fig, axes = style.figure(2, 3, panel_height=2.2)
    for ax, failure in zip(axes.flat, SHOWN, strict=False):
        _learning(ax, dataset.sel(failure=failure), failure)
    for row in axes:
        row[0].set_ylabel("(1/n) Σ ‖xᵢ − x*‖²")
    style.legend(axes[0, 0], location="lower left")
    _averaging(axes[1, 2], dataset)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Squared error on quadratics under failures in rounds; a method that refuses a failure is missing. Last panel: "
        "mean square of averaging.",
        "drawn quadratics without noise; averaging of given numbers",
        numbers([dataset.attrs["num_nodes"]]),
        seeds(dataset.sizes["seed"]),
        f"{INTERVAL}, of the logarithm; in the last panel over independent runs",
        "none; dashed in the last panel: the exact second moment",
    )


def _learning(ax: Axes, at: xr.Dataset, failure: str) -> None:
    rounds = at.learning_round.values
    for index, name in enumerate(at.protocol.values):
        errors = at.squared_error.sel(protocol=name).transpose("seed", "record").values
        if np.isfinite(errors).all():
            logs, half = mean_and_interval(np.log(np.maximum(errors, LEAST)))
            half = np.nan_to_num(half)
            low, high = np.exp(logs - half), np.exp(logs + half)
            style.band(ax, rounds, np.exp(logs), low=low, high=high, label=str(name), style_index=index)
    ax.set(yscale="log", xscale="symlog", xlabel="round", ylim=(LEAST, 10), xlim=(0, None))
    style.title(ax, f"failures: {failure}")


def _averaging(ax: Axes, dataset: xr.Dataset) -> None:
    rounds = dataset.averaging_round.values
    for index, condition in enumerate(dataset.condition.values):
        at = dataset.sel(condition=condition)
        mean, half = mean_and_interval(at.mean_square.transpose("replica", "averaging_round").values)
        style.band(ax, rounds, mean, half, label=str(condition), style_index=index)
        style.theory_line(ax, rounds, at.exact_mean_square.values)
    ax.set(yscale="log", xlabel="round", ylabel="Σ (xᵢ − x̄)²")
    style.title(ax, "averaging; dashed: exact")
    style.legend(ax, location="lower left")
