"""Test accuracy of three configurations of DecentralizePy, here and in its own code."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

WORLDS = {"gossipjax": "accuracy", "DecentralizePy": "published_accuracy"}


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a panel for each configuration, with a curve for each world."""
    made, axes = style.figure(1, dataset.sizes["configuration"], panel_height=2.7)
    for ax, name in zip(axes[0], dataset.configuration.values, strict=True):
        _curves(ax, dataset.sel(configuration=name))
        style.title(ax, str(name).replace(", ", ",\n"))
    style.legend(axes[0, 0], location="lower right")
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    at = dataset.attrs
    if "published_commit" in at:
        other = f" The code of DecentralizePy is commit {at['published_commit']}, with torch {at['published_torch']}."
    else:
        other = " There are no curves of the code of DecentralizePy for this setting."
    return Caption(
        f"Mean accuracy of the nodes on {at['test_samples']} test images, GN-LeNet; configurations of the tutorials of "
        f"DecentralizePy.{other}",
        at["data"],
        numbers([at["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        "none",
    )


def _curves(ax: Axes, one: xr.Dataset) -> None:
    rounds = np.asarray(one.record.values)
    for index, (label, variable) in enumerate(WORLDS.items()):
        if variable in one:
            mean, half = mean_and_interval(100 * one[variable].mean("node").transpose("seed", "record").values)
            style.band(ax, rounds, mean, half, label=label, style_index=index)
    ax.set(xlabel="round", ylabel="test accuracy (%)")
