"""Mean staleness against size if a message carries one version, for six rules, the bound of all rules, and gossip."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

OUTSIDE = "all versions"
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a panel per capacity. Shaded: what no rule with one version per message can reach."""
    fig, axes = style.figure(1, dataset.sizes["capacity"], panel_height=2.8)
    for column, name in enumerate(dataset.capacity.values):
        ax = axes[0, column]
        _panel(ax, dataset.sel(capacity=name))
        style.title(ax, str(name))
        ax.set_xlabel("nodes n")
    axes[0, 0].set_ylabel("mean staleness (updates)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7, frameon=False, columnspacing=1.2)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Mean staleness against the number of nodes: six rules with one version per message, and gossip.",
        "none: version counters, no learning",
        numbers(dataset.n.values),
        seeds_of(dataset),
        f"{bands(dataset, INTERVAL)}; shaded: below the bound of every rule with one version per message",
        "none; lines: exact, where known",
    )


def _panel(ax: Axes, dataset: xr.Dataset) -> None:
    n = dataset.n.values.astype(float)
    ax.fill_between(n, 1e-3, dataset.bound.values, color="0.88", linewidth=0, label="below the bound")
    count = dataset.sizes["scheme"]
    for index, scheme in enumerate(dataset.scheme.values):
        at, look = dataset.sel(scheme=scheme), style.STYLES[index]
        mean, half = mean_and_interval(at.staleness.transpose("n", "seed").values, axis=1)
        x = n * 1.03 ** (index - (count - 1) / 2)  # so that bars do not hide each other
        points: Any = {"color": look.colour, "marker": look.marker, "linestyle": "none", "markersize": 4.0}
        label = f"{scheme} (outside)" if scheme == OUTSIDE else str(scheme)
        ax.errorbar(x, mean, yerr=np.nan_to_num(half), label=label, elinewidth=0.8, capsize=2, **points)
        if np.isfinite(at.exact.values).all():
            style.theory_line(ax, n, at.exact.values, None if index else "exact")
    ticks = [tick for tick in TICKS if dataset.staleness.min() / 2 < tick < 2 * dataset.staleness.max()]
    ax.set(xscale="log", yscale="log", xticks=n, xticklabels=[f"{size:g}" for size in n])
    ax.set(yticks=ticks, yticklabels=[f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(0.7 * float(min(dataset.staleness.min(), dataset.bound.min())), None)
