"""Mean and maximum staleness against size for three capacities and four schemes, beside the exact lines."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import Caption, numbers

LABELS = {
    "uniform": "uniform push gossip",
    "everything": "last updater pushes all",
    "newest": "newest version only",
    "none": "own version only, no relay",
}
SIZES = {"uniform": 3.2, "everything": 6.5, "newest": 3.2, "none": 6.5}
"""If two schemes have the same law, small filled markers lie inside large open ones."""
TITLES = {"1": "λ = 1", "ln n": "λ = ln n", "n": "λ = n"}


def draw(dataset: xr.Dataset) -> Figure:
    """Draw rows of the mean, the maximum over nodes, and the ratio to the exact mean; columns are capacities."""
    fig, axes = style.figure(3, 3, panel_height=1.85, sharex=True)
    for column, name in enumerate(dataset.line_capacity.values):
        at = dataset.isel(case=np.flatnonzero(dataset.capacity.values == name))
        for row, key in enumerate(("mean", "maximum")):
            _levels(axes[row, column], at.sel(line_capacity=name), key)
        _ratios(axes[2, column], at)
        style.title(axes[0, column], TITLES[str(name)])
    axes[0, 0].set_ylabel("mean staleness\n(updates)")
    axes[1, 0].set_ylabel("maximum staleness\n(updates)")
    axes[2, 0].set_ylabel("measured / exact mean,\n± 95 %")
    axes[2, 1].set_xlabel("nodes n")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=7, frameon=False, columnspacing=1.2)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Mean and maximum staleness against the number of nodes, for three capacities and four schemes.",
        "none: version counters, no learning",
        numbers(np.unique(dataset.n.values)),
        "one long run per point",
        "95 % intervals of the mean over parts of the run (Student t)",
        "none; lines: exact",
    )


def _points(ax: Axes, scheme: str, x: np.ndarray, y: np.ndarray, half: np.ndarray, size: float) -> None:
    look, large = style.STYLES[list(LABELS).index(scheme)], SIZES[scheme] > 5
    ax.errorbar(
        x,
        y,
        yerr=half,
        color=look.colour,
        marker=look.marker,
        markerfacecolor="none" if large else look.colour,
        markersize=size,
        linestyle="none",
        capsize=2,
        elinewidth=0.8,
        label=LABELS[scheme],
        zorder=4,
    )


def _levels(ax: Axes, dataset: xr.Dataset, key: str) -> None:
    for number, scheme in enumerate(LABELS):
        at = dataset.isel(case=np.flatnonzero(dataset.scheme.values == scheme))
        _points(ax, scheme, at.n.values, at[key].values, at[f"{key}_interval"].values, SIZES[scheme])
        if scheme in ("uniform", "newest"):  # the other two have the same lines
            line = dataset[f"line_{key}"].sel(line_scheme=scheme).values
            style.theory_line(ax, dataset.line_n.values, line, None if number else "exact")
    ax.set(xscale="log", yscale="log", xlim=(5, 2e6))
    ax.minorticks_off()


def _ratios(ax: Axes, dataset: xr.Dataset) -> None:
    style.theory_line(ax, np.array([5, 2e6]), np.ones(2))
    for shift, scheme in enumerate(LABELS):
        at = dataset.isel(case=np.flatnonzero(dataset.scheme.values == scheme))
        exact = at.exact_mean.values
        # Shift points so that bars do not hide each other.
        x = at.n.values * 1.25 ** (shift - 1.5)
        _points(ax, scheme, x, at["mean"].values / exact, at.mean_interval.values / exact, 3.2)
    ax.set(xscale="log", xlim=(5, 2e6), ylim=(0.75, 1.25))
    ax.minorticks_off()
