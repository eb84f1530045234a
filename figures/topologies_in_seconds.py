"""Seconds of every network over those of the best one, on three kinds of devices."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import Caption, numbers, seeds_of

MOST = 20.0
"""Slowness at which the colour is darkest."""
COLOURS = LinearSegmentedColormap.from_list("slowness", ["#ffffff", style.STYLES[0].colour])


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a table for each kind of devices; networks are sorted by their mean logarithm over all cases."""
    ratio = (dataset.seconds / dataset.seconds.min("network")).median("seed")
    known = np.log(ratio.where(np.isfinite(ratio), 2 * MOST))
    order = known.mean([dim for dim in known.dims if dim != "network"]).argsort().values
    made, axes = style.figure(1, dataset.sizes["kind"], panel_height=0.5 + 0.15 * order.size, sharey=True)
    for number, (ax, kind) in enumerate(zip(axes[0], dataset.kind.values, strict=True)):
        at = ratio.isel(network=order).sel(kind=kind).transpose("network", "goal", "level")
        _panel(ax, at, dataset.error.transpose("goal", "level"), str(kind), first=number == 0)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Seconds to an accuracy over those of the best network of the same draw, median over draws; the best first in "
        "the mean over all cases. ∞: not reached in most draws. Left columns: share of the disagreement at the "
        "start that averaging leaves. Right columns: mean ‖x − b̄‖² of a quadratic with one label a node.",
        "none: exact rounds, planned seconds; a draw has its own devices, random networks and labels",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        "none: medians",
        "columns: "
        + "; ".join(
            f"{goal} " + ", ".join(f"{error:g}" for error in dataset.error.sel(goal=goal).values)
            for goal in dataset.goal.values
        ),
    )


def _panel(ax: Axes, ratio: xr.DataArray, errors: xr.DataArray, name: str, *, first: bool) -> None:
    values = ratio.values.reshape(ratio.sizes["network"], -1)
    shade = np.log(np.minimum(values, MOST)) / np.log(MOST)
    ax.imshow(shade, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
    for row, cells in enumerate(values):
        for column, value in enumerate(cells):
            words = f"{value:.1f}" if value < 9.95 else f"{value:.0f}" if np.isfinite(value) else "∞"
            ink = "white" if shade[row, column] > 0.6 else "black"
            weight = "bold" if value < 1.005 else "normal"
            ax.text(column, row, words, ha="center", va="center", fontsize=5.5, color=ink, fontweight=weight)
    ax.set_xticks(range(values.shape[1]), [f"{error:g}" for error in errors.values.ravel()], fontsize=6)
    ax.set_xlabel(" | ".join(map(str, errors.goal.values)))
    ax.set_yticks(range(len(values)), ratio.network.values.tolist(), fontsize=6)
    ax.axvline(errors.sizes["level"] - 0.5, color=style.THEORY, linewidth=0.8)
    ax.tick_params(length=0)
    ax.grid(False)
    style.title(ax, name)
    if first:
        ax.set_ylabel("")
