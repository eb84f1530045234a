"""Accuracy against simulated time of nodes that wait and of nodes that do not, without and with slow devices."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left and middle: accuracy against time, without and with stragglers. Right: seconds to the target."""
    fig, axes = style.figure(1, 3, panel_height=3.0)
    for ax, scenario in zip(axes[0], dataset.scenario.values, strict=False):
        _curves(ax, dataset.sel(scenario=scenario))
        words = dataset.attrs["slow"] if scenario == "stragglers" else "all devices equally fast"
        style.title(ax, words)
    limits = np.array([ax.get_xlim() for ax in axes[0, :2]])
    for ax in axes[0, :2]:
        ax.set_xlim(limits[:, 0].min(), limits[:, 1].max())
    axes[0, 1].tick_params(labelleft=False)
    axes[0, 0].set_ylabel("test accuracy, mean over nodes (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=7, frameon=False)
    _waiting(axes[0, 2], dataset)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    target = f"{100 * dataset.attrs['target']:.1f} % accuracy, a share of the final accuracy of all-reduce SGD"
    return Caption(
        f"Accuracy against simulated time, and seconds to the target; stragglers: {dataset.attrs['slow']}.",
        dataset.attrs["data"],
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        target,
    )


def _curves(ax: Axes, dataset: xr.Dataset) -> None:
    for index, system in enumerate(dataset.system.values):
        at = dataset.sel(system=system).dropna("record")
        time, mean, half = _on_one_clock(at.time.values, 100 * at.test_accuracy.values)
        style.band(ax, time, mean, half, label=str(system), style_index=index, markers=7)
    target = 100 * dataset.attrs["target"]
    ax.axhline(target, color="0.45", linewidth=0.8, linestyle=":")
    ax.text(0.02, target + 0.4, f"target {target:.0f} %", transform=ax.get_yaxis_transform(), fontsize=7, va="bottom")
    ax.set(xscale="log", xlabel="simulated time (s)", ylim=(target - 35, min(100.0, target + 13)))


def _on_one_clock(time: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interpolate every seed's curve at the same times, from the first record after the start on."""
    grid = np.geomspace(time[1].max(), time[-1].min(), 60)
    read = np.stack([np.interp(grid, *pair) for pair in zip(time.T, values.T, strict=True)], axis=1)
    return grid, *mean_and_interval(read, axis=1)


def _waiting(ax: Axes, dataset: xr.Dataset) -> None:
    """Draw dots with intervals, and an open arrow at the end of the run if a seed misses the target."""
    systems = [str(name) for name in dataset.system.values]
    for index, system in enumerate(systems):
        chosen = style.STYLES[index]
        for shift, scenario, filled in zip((-0.14, 0.14), dataset.scenario.values, (False, True), strict=True):
            at = dataset.sel(system=system, scenario=scenario)
            waited, height = at.time_to_target.values, len(systems) - 1 - index - shift
            if np.isnan(waited).any():
                end = float(np.nanmax(at.time.values))
                ax.plot(end, height, marker=">", markersize=5, color=chosen.colour, markerfacecolor="white")
                continue
            mean, half = mean_and_interval(waited)
            ax.errorbar(
                mean,
                height,
                xerr=half,
                color=chosen.colour,
                marker=chosen.marker,
                markersize=5,
                markerfacecolor=chosen.colour if filled else "white",
                capsize=2,
                linewidth=1.0,
            )
    ax.set_yticks(range(len(systems)), systems[::-1])
    ax.set(xscale="log", xlabel="time to target (s)", ylim=(-1.3, len(systems) - 0.5))
    ax.grid(axis="y", visible=False)
    notes = "open: equal devices; filled: stragglers\n▷: a seed misses the target"
    ax.text(0.02, 0.02, notes, transform=ax.transAxes, fontsize=6.5, va="bottom")
    style.title(ax, f"Seconds to {100 * dataset.attrs['target']:.0f} % accuracy")
