"""Version age against size on four graphs: powers are straight in the left panel, logarithms in the right."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import Caption, numbers
from theory import age, scaling

RATES = {"version_rate": 1.0, "source_rate": 1.0, "gossip_rate": 1.0}
EXACT = {"complete": age.version_age_complete, "ring": age.version_age_ring}


def draw(dataset: xr.Dataset) -> Figure:
    """Left: all graphs, both axes logarithmic. Right: the two graphs of logarithmic growth, linear in age."""
    fig, axes = style.figure(1, 2, panel_height=2.9)
    names = [str(name) for name in dataset.graph.values]
    for name in names:
        _series(axes[0, 0], dataset, name, names.index(name))
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set(yscale="log")
    ticks = [tick for tick in (3, 5, 10, 20, 50, 100, 200, 500) if tick < high]
    axes[0, 0].set_yticks(ticks, [str(tick) for tick in ticks])
    axes[0, 0].set_ylim(max(low, 2.5), 1.15 * high)
    axes[0, 0].yaxis.set_minor_locator(NullLocator())
    style.title(axes[0, 0], "Powers of n are straight")
    for name in ("complete", "random 4-regular"):
        _series(axes[0, 1], dataset, name, names.index(name))
    style.title(axes[0, 1], "Logarithms of n are straight")
    largest = float(max(dataset.n.max(), dataset.passage_n.max()))
    for ax in axes[0]:
        ax.set(xscale="log", xlabel="nodes n", xlim=(12, 1.4 * largest))
    axes[0, 0].set_ylabel("version age (versions)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    fig.legend(once.values(), once.keys(), loc="outside lower center", ncols=2, fontsize=7, frameon=False)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Version age against the number of nodes on four graphs; open marks: first passage, not the engine.",
        "none: version counters, no learning",
        f"{numbers(dataset.n.values)}; first passage: {numbers(dataset.passage_n.values)}",
        f"one long run per point, in {dataset.sizes['block']} parts; {dataset.sizes['sample']} first passages",
        "95 % intervals of the mean over parts of the run or over passages (Student t)",
        "none; dashed: exact recursion",
    )


def _series(ax: Axes, dataset: xr.Dataset, name: str, index: int) -> None:
    at, look = dataset.sel(graph=name), style.STYLES[index]
    mean, half = mean_and_interval(at.age.values, axis=1)
    b, interval = float(at.exponent), float(at.exponent_interval)
    label = f"{name}: b = {b:.3f} ± {interval:.3f}; AIC: {scaling.preferred(float(at.log_minus_power))}"
    marks: dict[str, Any] = {
        "color": look.colour,
        "marker": look.marker,
        "linestyle": "none",
        "capsize": 2,
        "elinewidth": 0.9,
    }
    ax.errorbar(dataset.n.values, mean, yerr=half, markersize=3.8, label=label, zorder=4, **marks)
    if name in EXACT:
        largest = int(max(dataset.n.max(), dataset.passage_n.max()))
        n = np.unique(np.geomspace(16, largest, 40).astype(int))
        style.theory_line(ax, n, np.asarray([EXACT[name](int(size), **RATES) for size in n]), "exact recursion")
    else:
        mean, half = mean_and_interval(dataset.passage_age.sel(sampled_graph=name).values, axis=1)
        open_marks = marks | {"markerfacecolor": "none"}
        ax.errorbar(
            dataset.passage_n.values,
            mean,
            yerr=half,
            markersize=6.5,
            zorder=3,
            label=f"{name}: first passage, not the engine",
            **open_marks,
        )
