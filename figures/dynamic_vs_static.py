"""Accuracy on a static random graph, on a fresh one in every round, and on the complete graph."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import at_scale, style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left: mean over nodes and worst tenth against rounds. Middle: consensus distance. Right: all nodes at the end."""
    made, axes = style.figure(1, 3, panel_height=2.8)
    for index, name in enumerate(map(str, dataset.graph.values)):
        at = dataset.sel(graph=name)
        at_scale.curve(axes[0, 0], at, dataset.event.values, "mean_accuracy", name, index)
        _worst(axes[0, 0], at, dataset.event.values, index)
        _consensus(axes[0, 1], at, dataset.event.values, name, index)
    low = at_scale.limits(dataset, "worst_decile")[0]
    axes[0, 0].set(xlabel="round", ylabel="test accuracy (%)", ylim=(low, at_scale.limits(dataset)[1]))
    axes[0, 0].text(0.97, 0.03, "thin: worst tenth", transform=axes[0, 0].transAxes, fontsize=7, ha="right")
    style.title(axes[0, 0], at_scale.title_of(dataset))
    axes[0, 1].set(yscale="log", xlabel="round", ylabel="consensus distance")
    style.title(axes[0, 1], "How far nodes lie apart")
    at_scale.nodes(axes[0, 2], dataset, "graph")
    style.title(axes[0, 2], "All nodes at the end")
    axes[0, 2].text(0.04, 0.8, _gap(dataset), transform=axes[0, 2].transAxes, fontsize=7, va="top")
    at_scale.common_legend(made, axes[0, 0], 3)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    return Caption(
        "Accuracy against rounds, mean over the nodes and mean of their worst tenth; consensus distance, which is zero "
        "on the complete graph; the share of nodes below an accuracy at the end.",
        dataset.attrs["data"],
        numbers([dataset.attrs["num_nodes"]]),
        f"{seeds_of(dataset)}; right: all together",
        bands(dataset, INTERVAL),
        "none",
    )


def _worst(ax: Axes, at: xr.Dataset, rounds: np.ndarray, index: int) -> None:
    chosen, values = style.STYLES[index], 100 * at.worst_decile.mean("seed").values
    ax.plot(rounds[1:], values[1:], color=chosen.colour, linestyle=chosen.line, linewidth=0.7, label="_worst")


def _consensus(ax: Axes, at: xr.Dataset, rounds: np.ndarray, name: str, index: int) -> None:
    mean, half = mean_and_interval(at.consensus_distance.transpose("record", "seed").values, axis=1)
    # Equal models differ by rounding only: the complete graph has no place on a logarithmic axis.
    if mean[1:].min() > 1e-6:
        style.band(ax, rounds[1:], mean[1:], half[1:], label=name, style_index=index, markers=7)


def _gap(dataset: xr.Dataset) -> str:
    """Say how far the fresh graphs end from the complete one."""
    ends = 100 * dataset.mean_accuracy.isel(record=-1)
    gap = (ends.sel(graph="fresh 4-regular") - ends.sel(graph="complete")).transpose("seed").values
    mean, half = mean_and_interval(gap)
    interval = "" if np.isnan(half) else f" ± {float(half):.1f}"
    return "fresh − complete:\n" + f"{float(mean):+.1f}{interval} points".replace("-", "−")
