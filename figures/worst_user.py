"""Distance of the worst user from the optimum of all, and the time from which it is near, against size."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

TITLES = {"bias": "bias, max |E x − b̄|", "rms": "root mean square", "largest": "worst at one instant"}


def draw(dataset: xr.Dataset) -> Figure:
    """Top: stationary distance. Bottom: time from which it stays below ε. Dashed: exact. Columns are readings."""
    fig, axes = style.figure(2, len(TITLES), panel_height=2.1, sharex=True)
    for column, (reading, words) in enumerate(TITLES.items()):
        style.title(axes[0, column], words)
        _ends(axes[0, column], dataset, reading)
        _times(axes[1, column], dataset, reading)
        axes[1, column].set_xlabel("users n")
    axes[0, 0].set_ylabel("distance after a long time")
    axes[1, 0].set_ylabel("$T_ε$ (s)")
    _same(axes[0], low=0.0)
    _same(axes[1], low=0.0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=7, frameon=False)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Distance of the worst user from the optimum of all, by three readings, and the time until it stays below ε.",
        f"simulated: quadratics with two optima in {dataset.attrs['dimension']} dimensions, noisy gradients",
        numbers(dataset.n.values),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        f"ε = {dataset.attrs['epsilon']:g}; a cross at the top: not reached",
    )


def _late(at: xr.Dataset, reading: str) -> np.ndarray:
    """Return the stationary distance of one network for each seed, as the table of the experiment has it."""
    late = at.isel(record=np.flatnonzero(at.time.values >= at.attrs["settled"]))
    if reading == "largest":
        return late.largest.mean("record").values
    if reading == "rms":
        return np.sqrt(late.square.mean(["record", "group"]).values)
    sides = late.model.mean("record").transpose("group", "seed").values
    return 0.5 * (sides[0] - sides[1])


def _curve(at: xr.Dataset, reading: str) -> np.ndarray:
    if reading == "bias":
        return np.abs(at.model.mean("seed")).max("group").values
    return np.sqrt(at.square.mean("seed").max("group").values) if reading == "rms" else at.largest.mean("seed").values


def _time(curve: np.ndarray, times: np.ndarray, epsilon: float) -> float:
    above = np.flatnonzero(curve > epsilon)
    last = above[-1] + 1 if above.size else 0
    return float(times[last]) if last < len(times) else np.nan


def _ends(ax: Axes, dataset: xr.Dataset, reading: str) -> None:
    n = dataset.n.values
    for index, setting in enumerate(dataset.setting.values):
        at = dataset.sel(setting=setting)
        mean, half = mean_and_interval(np.array([_late(at.sel(n=size), reading) for size in n]), axis=1)
        style.band(ax, n, mean, np.nan_to_num(half), label=str(setting), style_index=index)
        if reading != "largest":
            style.theory_line(ax, n, at[f"settled_{reading}"].values, None if index else "exact")
    ax.axhline(float(dataset.attrs["epsilon"]), color="0.5", linewidth=0.8, linestyle=":", label="ε")
    ax.set_xscale("log")


def _times(ax: Axes, dataset: xr.Dataset, reading: str) -> None:
    n, times, epsilon = dataset.n.values, dataset.time.values, float(dataset.attrs["epsilon"])
    for index, setting in enumerate(dataset.setting.values):
        at, look = dataset.sel(setting=setting), style.STYLES[index]
        found = np.array([_time(_curve(at.sel(n=size), reading), times, epsilon) for size in n])
        style.band(ax, n, found, label=str(setting), style_index=index)
        missed = n[np.isnan(found)] * 1.06**index
        ax.plot(missed, np.full(len(missed), 0.97), "x", color=look.colour, transform=ax.get_xaxis_transform())
        if reading != "largest":
            exact = np.array([_time(at[f"exact_{reading}"].sel(n=size).values, times, epsilon) for size in n])
            style.theory_line(ax, n, exact)
    ax.set_xscale("log")


def _same(row: np.ndarray, low: float) -> None:
    high = max(ax.get_ylim()[1] for ax in row)
    for ax in row:
        ax.set_ylim(low, high)
