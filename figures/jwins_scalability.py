"""Score and bytes per node of full sharing and JWINS against the number of nodes."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from figures.lib import schemes, style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left: final score. Middle: MB sent per node, and the prediction. Right: curves of the largest network."""
    fig, axes = style.figure(1, 3, panel_height=2.7)
    _scores(axes[0, 0], dataset)
    _bytes(axes[0, 1], dataset)
    _curves(axes[0, 2], dataset.isel(nodes=-1))
    schemes.common_legend(fig, axes[0, 2])
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    largest = dataset.isel(nodes=-1)
    return Caption(
        "Final score and bytes by number of nodes, and the score of the largest network against bytes.",
        f"{dataset.attrs['task']}: {np.unique(dataset.data.values)[0]}",
        numbers(dataset.nodes.values),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        f"{schemes.target_in_words(largest)}; dashed: predicted bytes",
    )


def _sizes(ax: Axes, dataset: xr.Dataset) -> None:
    sizes = dataset.nodes.values
    ax.set(xscale="log", xlabel="number of nodes", xlim=(sizes.min() / 1.25, sizes.max() * 1.25))
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.xaxis.set_minor_locator(NullLocator())


def _scores(ax: Axes, dataset: xr.Dataset) -> None:
    for shift, name in zip((0.97, 1.03), dataset.scheme.values, strict=True):
        values = schemes.printed(dataset.sel(scheme=name).isel(record=-1)).transpose("nodes", "seed").values
        schemes.dots(ax, shift * dataset.nodes.values, values, schemes.style_of(str(name)))
    ax.set_ylabel(f"{dataset.attrs['task']}: final {schemes.label(dataset)}")
    _sizes(ax, dataset)
    style.title(ax, schemes.interval_in_words(dataset))


def _bytes(ax: Axes, dataset: xr.Dataset) -> None:
    for name in dataset.scheme.values:
        sent = dataset.node_bytes_sent.sel(scheme=name, statistic="mean").isel(record=-1) / 1e6
        schemes.dots(ax, dataset.nodes.values, sent.transpose("nodes", "seed").values, schemes.style_of(str(name)))
        style.theory_line(ax, dataset.nodes.values, dataset.predicted_megabytes.sel(scheme=name).values)
    ax.set_ylabel("MB sent per node")
    ax.set_ylim(bottom=0)
    ax.text(0.03, 0.03, "dashed: formula", transform=ax.transAxes, va="bottom", fontsize=7)
    _sizes(ax, dataset)
    style.title(ax, f"degree {dataset.attrs['degree']}, {int(np.nanmax(dataset.event.values))} rounds")


def _curves(ax: Axes, at: xr.Dataset) -> None:
    for name in at.scheme.values:
        schemes.curve(ax, at, str(name), schemes.spent(at, str(name), "node_bytes_sent") / 1e6)
    schemes.target_line(ax, at)
    ax.set(ylabel=schemes.label(at), ylim=schemes.limits(at))
    schemes.megabyte_axis(ax)
    style.title(ax, f"{int(at.nodes)} nodes")
