"""Scores of sharing schemes on a fixed graph and on a new one in every round."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import schemes, style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left and middle: scores by round on either graph. Right: final scores side by side, and CHOCO's answer."""
    fig, axes = style.figure(1, 3, panel_height=2.9)
    ranges = [schemes.limits(dataset.isel(graph=number)) for number in range(2)]
    limits = min(low for low, _ in ranges), max(high for _, high in ranges)
    for ax, graph in zip(axes[0], dataset.graph.values, strict=False):
        for name in dataset.scheme.values:
            schemes.curve(ax, dataset.sel(graph=graph), str(name), dataset.event.sel(graph=graph).values)
        ax.set(xlabel="round", ylim=limits)
        style.title(ax, f"{graph[0].upper()}{graph[1:]}, degree {dataset.attrs['degree']}")
    axes[0, 0].set_ylabel(f"{dataset.attrs['task']}: {schemes.label(dataset)}")
    axes[0, 1].tick_params(labelleft=False)
    _ends(axes[0, 2], dataset)
    schemes.common_legend(fig, axes[0, 0])
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    targets = [f"{graph}: {schemes.target_in_words(dataset.sel(graph=graph))}" for graph in dataset.graph.values]
    return Caption(
        "Score by round on a fixed graph and on a new one in every round, and final scores.",
        f"{dataset.attrs['task']}: {np.unique(dataset.data.values)[0]}",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        f"not drawn; {'; '.join(targets)}",
    )


def _ends(ax: Axes, dataset: xr.Dataset) -> None:
    """Draw final scores: open markers for the fixed graph, filled ones for a new graph in every round."""
    names = [str(name) for name in dataset.scheme.values]
    for shift, graph in ((-0.12, 0), (0.12, 1)):
        values = schemes.printed(dataset.isel(graph=graph, record=-1)).transpose("scheme", "seed").values
        for place, name in enumerate(names):
            schemes.dots(ax, [place + shift], values[[place]], schemes.style_of(name), filled=graph == 1)
    ax.set_xticks(np.arange(len(names)), [name.replace(" ", "\n") for name in names])
    ax.set_xlim(-0.5, len(names) - 0.5)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.75 * (high - low), high)
    ax.grid(axis="x", visible=False)
    answer = "refuses" if dataset.attrs["refusal"] else "runs"
    notes = f"open: fixed; filled: fresh\n{schemes.interval_in_words(dataset)}\nCHOCO on fresh graphs: {answer}"
    ax.text(0.03, 0.03, notes, transform=ax.transAxes, fontsize=6.5, va="bottom")
    style.title(ax, f"At the end, {dataset.attrs['num_nodes']} nodes")
