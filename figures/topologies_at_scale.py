"""Accuracy of a thousand nodes on seven networks: against rounds and bytes, node by node, and in theory's order."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import at_scale, style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Top: mean over nodes against rounds and bytes. Bottom: all nodes at the end; the end against disagreement."""
    made, axes = style.figure(2, 2, panel_height=2.5)
    for index, name in enumerate(map(str, dataset.topology.values)):
        at = dataset.sel(topology=name)
        at_scale.curve(axes[0, 0], at, dataset.event.values, "mean_accuracy", name, index)
        at_scale.curve(axes[0, 1], at, at_scale.spent(at), "mean_accuracy", name, index)
    axes[0, 0].set(xlabel="round", ylabel="test accuracy, mean over nodes (%)", ylim=at_scale.limits(dataset))
    axes[0, 1].set(xscale="log", xlabel="MB sent per node", ylim=at_scale.limits(dataset))
    style.title(axes[0, 0], at_scale.title_of(dataset))
    style.title(axes[0, 1], "The same against bytes")
    at_scale.nodes(axes[1, 0], dataset, "topology")
    style.title(axes[1, 0], "All nodes at the end")
    _against_theory(axes[1, 1], dataset)
    at_scale.common_legend(made, axes[0, 0], 4)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    return Caption(
        "Top: accuracy against rounds and bytes. Bottom: the share of nodes below an accuracy at the end; filled: mean "
        "over nodes, open: mean of the worst tenth, against the disagreement that the matrices leave.",
        dataset.attrs["data"],
        numbers([dataset.attrs["num_nodes"]]),
        f"{seeds_of(dataset)}; bottom left: all together",
        bands(dataset, INTERVAL),
        "none",
    )


def _against_theory(ax: Axes, dataset: xr.Dataset) -> None:
    """Filled: mean over nodes; open: the worst tenth. The complete graph leaves nothing: it is a line."""
    for index, name in enumerate(map(str, dataset.topology.values)):
        at = dataset.sel(topology=name).isel(record=-1)
        x = float(at.disagreement.mean())
        if x > 1e-9:
            at_scale.dots(ax, x, 100 * at.mean_accuracy.values, index)
            at_scale.dots(ax, x, 100 * at.worst_decile.values, index, filled=False)
        else:
            level = 100 * float(at.mean_accuracy.mean())
            ax.axhline(level, color=style.STYLES[index].colour, linewidth=1.0, linestyle=style.STYLES[index].line)
            ax.text(0.99, level, name, transform=ax.get_yaxis_transform(), fontsize=6, ha="right", va="bottom")
    ax.set(xscale="log", xlabel="disagreement that the matrices leave", ylabel="test accuracy at the end (%)")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.06 * (high - low))
    ax.text(0.03, 0.03, "filled: mean; open: worst tenth", transform=ax.transAxes, fontsize=7, va="bottom")
    style.title(ax, "The end against theory's order")
    ax.set_xlim(*_wider(np.asarray(ax.get_xlim())))


def _wider(limits: np.ndarray) -> tuple[float, float]:
    return float(limits[0] / 1.3), float(limits[1] * 1.3)
