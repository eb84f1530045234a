"""Accuracy of a thousand nodes that send a tenth of their model: against rounds and bytes, and node by node."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from figures.lib import at_scale, style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left: accuracy against rounds. Middle: against bytes. Right: all nodes at the end."""
    made, axes = style.figure(1, 3, panel_height=2.8)
    for index, name in enumerate(map(str, dataset.scheme.values)):
        at = dataset.sel(scheme=name)
        at_scale.curve(axes[0, 0], at, dataset.event.values, "mean_accuracy", name, index)
        at_scale.curve(axes[0, 1], at, at_scale.spent(at), "mean_accuracy", name, index)
    for ax in axes[0, :2]:
        at_scale.trivial_line(ax, dataset)
        ax.set_ylim(0, at_scale.limits(dataset)[1])
    axes[0, 0].set(xlabel="round", ylabel="test accuracy, mean over nodes (%)")
    style.title(axes[0, 0], at_scale.title_of(dataset))
    axes[0, 1].set(xscale="log", xlabel="MB sent per node")
    style.title(axes[0, 1], "The same against bytes")
    at_scale.nodes(axes[0, 2], dataset, "scheme")
    style.title(axes[0, 2], "All nodes at the end")
    at_scale.common_legend(made, axes[0, 0], 5)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    return Caption(
        "Accuracy against rounds and bytes by sharing, and the share of nodes below an accuracy at the end.",
        dataset.attrs["data"],
        numbers([dataset.attrs["num_nodes"]]),
        f"{seeds_of(dataset)}; right: all together",
        bands(dataset, INTERVAL),
        "none; dotted: the predictor that always names the most frequent class",
    )
