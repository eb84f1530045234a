"""Staleness, test error and consensus distance of asynchronous push-gossip SGD on a network that learns a sine."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

NAMES = {
    "staleness": "mean staleness (updates)",
    "test_error": "test squared error",
    "consensus_distance": "consensus distance",
}


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a row per quantity and a column per number of nodes: a curve per push rate. Dashed: exact mean staleness."""
    numbers = dataset.nodes.values
    fig, axes = style.figure(len(NAMES), len(numbers), panel_height=1.8, sharex=True)
    for row, quantity in enumerate(NAMES):
        for column, n in enumerate(numbers):
            _panel(axes[row, column], dataset.sel(nodes=n), quantity)
        axes[row, 0].set_ylabel(NAMES[quantity])
        _one_range(axes[row])
    for column, n in enumerate(numbers):
        style.title(axes[0, column], f"n = {int(n)}")
        axes[-1, column].set_xlabel("simulated time (s)")
    style.legend(axes[0, 0], location="upper right")
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Mean staleness, test error and consensus distance against simulated time, by number of nodes and push rate.",
        "simulated: noisy samples of a sine, from a separate window for each node",
        numbers(dataset.nodes.values),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        "none; dashed: exact mean staleness",
    )


def _panel(ax: Axes, dataset: xr.Dataset, quantity: str) -> None:
    time = dataset.time.values
    shown = time > 0 if quantity == "consensus_distance" else time >= 0  # all nodes start from the same model
    for index, rate in enumerate(dataset.rate.values):
        at = dataset.sel(rate=rate)
        mean, half = mean_and_interval(at[quantity].values, axis=1)
        # A band on a logarithmic axis must stay above 0.
        low = mean - half if quantity == "staleness" else np.maximum(mean - half, 0.1 * mean)
        band = {"low": low[shown], "high": (mean + half)[shown]}
        style.band(ax, time[shown], mean[shown], **band, label=str(rate), style_index=index, markers=6)
        if quantity == "staleness":
            late = time[time >= dataset.attrs["settled"]]
            law = np.full(len(late), float(at.predicted_staleness))
            style.theory_line(ax, late, law, "exact, $m H_{n-1} / λ$" if index else None)
    if quantity != "staleness":
        ax.set_yscale("log")


def _one_range(row: np.ndarray) -> None:
    limits = np.array([ax.get_ylim() for ax in row])
    for ax in row:
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
        if ax is not row[0]:
            ax.tick_params(labelleft=False, which="both")
