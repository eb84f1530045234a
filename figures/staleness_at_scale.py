"""Mean and maximum staleness to ten million nodes for two capacities, beside the exact lines."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import Caption, numbers
from theory import staleness

TITLES = {"1": "λ = 1", "ln n": "λ = ln n"}
EXACT = {"mean": staleness.mean_staleness, "maximum": staleness.max_staleness}
LABELS = {"mean": "mean over nodes", "maximum": "slowest node"}


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a panel for each capacity, and below it the ratio to the exact values."""
    fig, axes = style.figure(2, 2, panel_height=2.1, sharex=True)
    for column, name in enumerate(map(str, dataset.capacity.values)):
        at = dataset.sel(capacity=name)
        for number, key in enumerate(LABELS):
            _levels(axes[0, column], at, key, number, name)
            _ratios(axes[1, column], at, key, number)
        style.title(axes[0, column], TITLES[name])
        axes[0, column].set(xscale="log", ylim=(0, None))
        axes[1, column].set_xlabel("nodes n")
    axes[0, 0].set_ylabel("staleness (updates)")
    axes[1, 0].set_ylabel("measured / exact,\n± 95 %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Mean and maximum staleness against the number of nodes, for constant capacity and for λ = ln n.",
        "none: version counters, no learning",
        numbers(dataset.n.values),
        "one long run per point",
        "95 % intervals of the mean over parts of the run (Student t)",
        "none; lines: exact",
    )


def _intervals(at: xr.Dataset, key: str) -> tuple[np.ndarray, np.ndarray]:
    columns = [values[np.isfinite(values)] for values in at[key].transpose("n", "part").values]
    pairs = np.asarray([mean_and_interval(values) for values in columns])
    return pairs[:, 0], pairs[:, 1]


def _levels(ax: Axes, at: xr.Dataset, key: str, number: int, name: str) -> None:
    mean, half = _intervals(at, key)
    _points(ax, at.n.values, mean, half, number, LABELS[key])
    n = np.unique(np.geomspace(at.n.values.min(), at.n.values.max(), 50).round().astype(int))
    rate = np.log(n) if name == "ln n" else np.ones(n.size)
    line = EXACT[key](n, gossip_rate=rate, update_rate=float(at.update_rate))
    style.theory_line(ax, n, np.asarray(line), None if number else "exact")


def _ratios(ax: Axes, at: xr.Dataset, key: str, number: int) -> None:
    mean, half = _intervals(at, key)
    exact = at[f"exact_{key}"].values
    _points(ax, at.n.values * 1.15 ** (2 * number - 1), mean / exact, half / exact, number, LABELS[key])
    style.theory_line(ax, at.n.values, np.ones(at.n.size))


def _points(ax: Axes, x: np.ndarray, y: np.ndarray, half: np.ndarray, number: int, label: str) -> None:
    look = style.STYLES[number]
    ax.errorbar(
        x,
        y,
        yerr=half,
        color=look.colour,
        marker=look.marker,
        markersize=3.8,
        linestyle="none",
        capsize=2,
        elinewidth=0.9,
        label=label,
        zorder=4,
    )
