"""What nodes learn about each other by hops, in rounds and with messages in flight."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """One panel for each graph: μ over its local bound, by hops."""
    made, axes = style.figure(2, 3, panel_height=2.2)
    for number, (ax, name) in enumerate(zip(axes.flat, dataset.graph.values, strict=True)):
        _panel(ax, dataset.share.sel(graph=name), str(name), first=number == 0)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    return Caption(
        "μ of Gaussian differential privacy that one node has against another, over the local bound on what anybody "
        "can learn of all its steps: mean over all pairs at a distance. D-PSGD with noise in every step, in rounds and "
        "with messages in flight, at equal numbers of messages in mean.",
        "none: plans only",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        "none",
    )


def _panel(ax: Axes, share: xr.DataArray, name: str, *, first: bool) -> None:
    for index, mode in enumerate(share["mode"].values):
        mean, half = mean_and_interval(share.sel(mode=mode).transpose("seed", "hops").values)
        there = np.isfinite(mean)
        hops = share.hops.values[there]
        style.band(ax, hops, mean[there], np.nan_to_num(half[there]), label=str(mode), style_index=index)
    ax.set(xlabel="hops", ylabel="μ / local bound", ylim=(0, 1.05))
    ax.set_xticks(share.hops.values)
    style.title(ax, name)
    if first:
        style.legend(ax)
