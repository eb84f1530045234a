"""Plexus while devices come and go: online nodes, nodes in views, and the length of rounds over time."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from figures.lib import style
from figures.lib.caption import RANGE, Caption, bands, numbers, seeds_of

TITLES = {"leaves": "Devices leave with notice", "crashes": "Devices leave without notice"}


def draw(dataset: xr.Dataset) -> Figure:
    """Left, middle: online and believed active, first seed. Right: seconds per round, mean and range over seeds."""
    names = [str(name) for name in dataset.network.values if name != "always online"]
    fig, axes = style.figure(1, len(names) + 1, panel_height=2.8)
    for ax, name in zip(axes[0], names, strict=False):
        _views(ax, dataset.sel(network=name).isel(seed=0))
        style.title(ax, TITLES[name])
    top = max(ax.get_ylim()[1] for ax in axes[0, : len(names)])
    for ax in axes[0, : len(names)]:
        ax.set_ylim(0, top)
    axes[0, 0].set_ylabel("nodes")
    style.legend(axes[0, 0], location="lower right")
    _durations(axes[0, -1], dataset)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    longest = longest_of(dataset)
    return Caption(
        "Nodes online and in views; seconds per round: lines are means over intervals of time, marks the longest "
        f"round of an interval. The longest of all: {longest}.",
        f"none: planned without learning; devices: {dataset.attrs['data']}",
        numbers([dataset.attrs["num_nodes"]]),
        f"{seeds_of(dataset)}; left and middle: the first",
        f"left and middle: all views; right: {bands(dataset, RANGE)}",
        "none",
    )


def longest_of(dataset: xr.Dataset, unit: str = " s") -> str:
    """Format the length of the longest round of each network, which the mean over an interval hides."""
    longest = dataset.longest.max(["seed", "hour"])
    return ", ".join(f"{float(longest.sel(network=name)):.0f}{unit} {name}" for name in dataset.network.values)


def _views(ax: Axes, at: xr.Dataset) -> None:
    hours, look = at.hour.values, style.STYLES[1]
    ax.fill_between(
        hours, at.believed_min, at.believed_max, color=look.colour, alpha=0.18, linewidth=0, label="all views"
    )
    style.band(ax, hours, at.believed_mean.values, label="mean view", style_index=1)
    runs = np.isfinite(at.believed_mean.values)
    online = np.where(runs, at.online.values, np.nan)
    ax.step(hours, online, where="mid", color=style.THEORY, linewidth=1.1, label="online")
    if not runs[-1]:
        end = float(hours[runs].max(initial=0.0))
        ax.axvline(end, color=style.THEORY, linewidth=0.8, linestyle=":")
        ax.annotate(
            "stalls", (end, 0.05), (4, 0), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8
        )
    ax.set(xlabel="simulated hours", xlim=(0, float(hours[-1])))


def _durations(ax: Axes, dataset: xr.Dataset) -> None:
    for index, name in enumerate(dataset.network.values):
        seconds = dataset.duration.sel(network=name).transpose("seed", "hour").values
        known = np.isfinite(seconds).any(0)
        seconds, hours = seconds[:, known], dataset.hour.values[known]
        bounds = {"low": np.nanmin(seconds, 0), "high": np.nanmax(seconds, 0)} if len(seconds) > 1 else {}
        style.band(ax, hours, np.nanmean(seconds, 0), **bounds, label=str(name), style_index=index)
        longest = np.nanmax(dataset.longest.sel(network=name).transpose("seed", "hour").values[:, known], 0)
        look = style.STYLES[index]
        ax.plot(hours, longest, linestyle="none", marker=look.marker, markersize=2.5, color=look.colour, alpha=0.55)
    ax.text(
        0.02,
        0.98,
        f"marks: longest rounds, s:\n{longest_of(dataset, '')}",
        transform=ax.transAxes,
        fontsize=6.5,
        va="top",
    )
    ax.set(xlabel="simulated hours", ylabel="seconds per round", yscale="log")
    # Leave room for the text above the longest round.
    ax.set_ylim(top=4 * float(np.nanmax(dataset.longest.values)))
    for axis_formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        axis_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    seeds = dataset.sizes["seed"]
    style.title(ax, f"{dataset.attrs['num_nodes']} devices" + (f", {seeds} seeds" if seeds > 1 else ", one seed"))
    style.legend(ax, location="center left")
