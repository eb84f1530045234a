"""Staleness against size at λ = ln n, with and without a fixed flight time."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import Caption, numbers
from theory import staleness


def draw(dataset: xr.Dataset) -> Figure:
    """Left: levels, with one fitted constant per flight time. Right: growth, without any fit."""
    fig, axes = style.figure(1, 2, panel_height=2.7)
    for index, flight_time in enumerate(dataset.flight_time.values):
        at = dataset.sel(flight_time=flight_time)
        label = "no flight time" if flight_time == 0 else f"flight time d = {flight_time:g}/m"
        _level(axes[0, 0], at, label, index)
        _growth(axes[0, 1], at, label, index)
    n = dataset.n.values
    for ax in axes[0]:
        ax.set(xscale="log", xlabel="nodes n", xlim=(0.8 * n[0], 1.25 * n[-1]))
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("mean staleness (updates)")
    axes[0, 1].set_ylabel(f"growth since n = {n[0]} (updates)")
    style.title(axes[0, 0], "Level at λ = ln n")
    style.title(axes[0, 1], "Growth, without any fit")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    extra, names = axes[0, 1].get_legend_handles_labels()
    once = dict(zip([*labels, *names], [*handles, *extra], strict=True))
    fig.legend(once.values(), once.keys(), loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Mean staleness at λ = ln n, with and without flight time. Left: level. Right: growth since the smallest size.",
        "none: version counters, no learning",
        numbers(dataset.n.values),
        "one long run per point",
        "95 % intervals of the mean over parts of the run (Student t)",
        "none; lines: exact, with a fitted constant (dotted), and asymptotic growth",
    )


def _level(ax: Axes, dataset: xr.Dataset, label: str, index: int) -> None:
    _bars(ax, dataset.n.values, dataset.staleness.values, dataset.interval.values, label, index)
    n, line = _leading(dataset)
    if float(dataset.flight_time) == 0:
        style.theory_line(ax, n, _exact(dataset, n), "exact: m H/λ")
    else:
        fitted = line + float(dataset.fitted_level)
        ax.plot(n, fitted, color="0.35", linestyle=":", linewidth=1.2, label="m ln n/α + C, C fitted", zorder=3)


def _growth(ax: Axes, dataset: xr.Dataset, label: str, index: int) -> None:
    first = dataset.isel(n=0)
    half = np.hypot(dataset.interval.values, float(first.interval))[1:]
    grown = (dataset.staleness - first.staleness).values[1:]
    _bars(ax, dataset.n.values[1:], grown, half, label, index)
    n, line = _leading(dataset)
    if float(dataset.flight_time) == 0:
        line = _exact(dataset, n)
    bare = float(dataset.flight_time) == 0
    style.theory_line(ax, n, line - line[0], "exact: m H/λ" if bare else "asymptotic growth m ln n/α")
    if not bare:
        ax.lines[-1].set_dashes((7, 2, 1.5, 2))


def _bars(ax: Axes, x, y, half, label: str, index: int) -> None:
    look = style.STYLES[index]
    ax.errorbar(
        x,
        y,
        yerr=half,
        color=look.colour,
        marker=look.marker,
        markersize=4,
        linestyle="none",
        capsize=2,
        elinewidth=0.9,
        label=label,
        zorder=4,
    )


def _leading(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading term on a fine grid of sizes that begins at the first."""
    n = np.unique(np.geomspace(dataset.n.values[0], dataset.n.values[-1], 60).round().astype(int))
    m, d = dataset.attrs["update_rate"], float(dataset.flight_time)
    values = [
        staleness.flight_time_staleness(int(size), gossip_rate=float(np.log(size)), flight_time=d, update_rate=m)
        for size in n
    ]
    return n, np.asarray(values, np.float64)


def _exact(dataset: xr.Dataset, n: np.ndarray) -> np.ndarray:
    return np.asarray(staleness.mean_staleness(n, gossip_rate=np.log(n), update_rate=dataset.attrs["update_rate"]))
