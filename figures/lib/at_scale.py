"""What figures of large networks have in common: curves of the mean over nodes, of the worst tenth, and ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style


def curve(ax: Axes, at: xr.Dataset, x: np.ndarray, variable: str, name: str, index: int) -> None:
    """Draw accuracies in %, mean over seeds with its interval, from the first record after the start on."""
    values = 100 * at[variable].transpose("record", "seed").values
    mean, half = mean_and_interval(values, axis=1)
    band = None if at.sizes["seed"] == 1 else half[1:]
    style.band(ax, x[1:], mean[1:], band, label=name, style_index=index, markers=7)


def spent(at: xr.Dataset) -> np.ndarray:
    """Return the megabytes that a node has sent at each record, mean over nodes and seeds."""
    return at.mean_megabytes.transpose("record", "seed").values.mean(1)


def trivial_line(ax: Axes, dataset: xr.Dataset) -> None:
    """Draw the accuracy of the predictor that always names the most frequent class."""
    level = 100 * float(dataset.attrs["trivial"])
    ax.axhline(level, color="0.45", linewidth=0.8, linestyle=":", label="_trivial")
    ax.text(
        0.99, level, "trivial", transform=ax.get_yaxis_transform(), fontsize=6, color="0.35", ha="right", va="bottom"
    )


def nodes(ax: Axes, dataset: xr.Dataset, dimension: str) -> None:
    """Draw the distribution of the nodes' accuracies at the end, all seeds together: the share of nodes below each."""
    for index, name in enumerate(dataset[dimension].values):
        ends = 100 * np.sort(dataset.accuracy_by_node.sel({dimension: name}).isel(record=-1).values, axis=None)
        share = 100 * np.arange(1, ends.size + 1) / ends.size
        chosen = style.STYLES[index]
        ax.plot(ends, share, color=chosen.colour, linestyle=chosen.line, linewidth=1.3, label=f"_{name}")
    ax.axhline(10, color="0.45", linewidth=0.8, linestyle=":")
    ax.text(0.01, 10, "worst tenth", transform=ax.get_yaxis_transform(), fontsize=6, color="0.35", va="bottom")
    ax.set(xlabel="test accuracy of a node (%)", ylabel="nodes below (%)", ylim=(0, 100))


def dots(ax: Axes, x: Any, values: np.ndarray, index: int, *, filled: bool = True) -> None:
    """Draw a mean over seeds with its bar of 95 %; without a bar for one seed."""
    mean, half = mean_and_interval(values)
    chosen = style.STYLES[index]
    ax.errorbar(
        x,
        mean,
        yerr=None if values.size == 1 else half,
        color=chosen.colour,
        linestyle="none",
        marker=chosen.marker,
        markersize=5,
        markerfacecolor=chosen.colour if filled else "white",
        capsize=2,
        linewidth=1.0,
        label="_end",
    )


def limits(dataset: xr.Dataset, variable: str = "mean_accuracy") -> tuple[float, float]:
    """Choose a range of accuracies that shows all curves from the first record after the start on."""
    mean = 100 * dataset[variable].mean("seed").isel(record=slice(1, None))
    low, high = float(mean.min()), float(mean.max())
    return low - 0.06 * (high - low), high + 0.08 * (high - low)


def title_of(dataset: xr.Dataset) -> str:
    """Say how large the network is."""
    return f"{dataset.attrs['num_nodes']:,} nodes, {dataset.attrs['parameters']:,} parameters"


def common_legend(made: Figure, ax: Axes, columns: int) -> None:
    """Put the entries of one panel below all of them."""
    handles, labels = ax.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)
