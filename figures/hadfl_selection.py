"""How often each device is in a ring of HADFL, beside the exact law; and the range of the versions."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import Caption, numbers, seeds_of

TITLES = {"std": "spread 1 sd", "unit": "spread 1 unit"}


def draw(dataset: xr.Dataset) -> Figure:
    """Rows: spreads. Columns: arrays of powers, then the range of the versions."""
    arrays = dataset.array.values
    fig, axes = style.figure(2, len(arrays) + 1, panel_height=2.3)
    for row, spread in zip(axes, dataset.spread.values, strict=True):
        for ax, array in zip(row, arrays, strict=False):
            _frequencies(ax, dataset.sel(spread=spread, array=array))
            style.title(ax, f"{array}, {TITLES[str(spread)]}")
        row[0].set_ylabel("share of rings with this device")
        _ranges(row[-1], dataset.sel(spread=spread))
        style.title(row[-1], f"Versions, {TITLES[str(spread)]}")
    for ax in axes[-1, : len(arrays)]:
        ax.set_xlabel("device, by its power")
    axes[-1, -1].set_xlabel("synchronisation")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower left", ncols=4, fontsize=7, frameon=False, columnspacing=1.2)
    style.legend(axes[-1, -1], location="upper left")
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    cycles = dataset.sizes["cycle"]
    return Caption(
        f"Share of {cycles:,} rings that each device is in: points are seeds, bars means with intervals, dashes "
        "the exact law given the forecasts of each cycle. With a spread of one unit a device is soon in all rings or "
        "in none, and the seed decides between equal devices. Right: the largest version minus the smallest, a line "
        f"for each array and size of the ring. Plans of HADFL: {dataset.attrs['note']}.",
        f"none: planned without learning; {dataset.attrs['data']}",
        numbers([dataset.sizes["device"]]),
        seeds_of(dataset),
        "left, middle: 95 % intervals of the mean over seeds (Student t); right: range over seeds",
        "none; dashes: exact",
    )


def _frequencies(ax: Axes, at: xr.Dataset) -> None:
    counts = at["count"].values.tolist()
    for index, count in enumerate(counts):
        look, one = style.STYLES[index], at.sel(count=count)
        x = np.arange(at.sizes["device"]) + 0.36 * (index - (len(counts) - 1) / 2)
        values = one.frequency.transpose("seed", "device").values
        mean, half = mean_and_interval(values)
        low, high = np.minimum(np.nan_to_num(half), mean), np.minimum(np.nan_to_num(half), 1 - mean)
        ax.bar(x, mean, 0.32, color=look.colour, alpha=0.3, linewidth=0)
        ax.errorbar(
            x, mean, [low, high], fmt="none", ecolor=look.colour, capsize=2, elinewidth=0.9, label=f"$N_p$ = {count}"
        )
        for k, seed in enumerate(values):
            aside = 0.2 * ((k + 0.5) / len(values) - 0.5)
            ax.plot(x + aside, seed, look.marker, color=look.colour, markersize=2.2, alpha=0.8)
        exact = one.exact.transpose("seed", "device").values.mean(0)
        label = "exact law" if index == 0 else "_exact"
        ax.hlines(exact, x - 0.17, x + 0.17, color=style.THEORY, linestyle="--", linewidth=1.1, zorder=4, label=label)
    ax.set_xticks(np.arange(at.sizes["device"]), [f"{power:g}" for power in at.power.values])
    ax.set_ylim(0, 1.04)
    ax.grid(False, axis="x")


def _ranges(ax: Axes, at: xr.Dataset) -> None:
    index = 0
    for array in at.array.values:
        for count in at["count"].values.tolist():
            gap = at.sel(array=array, count=count).gap.transpose("seed", "cycle").values
            # Average over blocks of cycles whose lengths grow by a constant factor, for the logarithmic axis.
            edges = np.unique(np.geomspace(1, gap.shape[1] + 1, 24).astype(int)) - 1
            blocks = np.add.reduceat(gap, edges[:-1], axis=1) / np.diff(edges)
            middle = np.sqrt((edges[:-1] + 1) * edges[1:])
            style.band(
                ax,
                middle,
                blocks.mean(0),
                low=blocks.min(0),
                high=blocks.max(0),
                label=f"{array}, $N_p$ = {count}",
                style_index=index,
            )
            index += 1
    ax.set(xscale="log", yscale="log", ylabel="largest − smallest version")
    for formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
