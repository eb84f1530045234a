"""Errors of HADFL's forecasts: cycle by cycle without variation, then against jitter and against drift."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, RANGE, Caption, bands, numbers, seeds_of

TITLES = {"progress": "Units trained", "versions": "Versions"}
FLOOR = 1e-6
"""Smaller errors are drawn at this value."""


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a row per forecast quantity; columns: no variation; jitter only; drift only."""
    fig, axes = style.figure(dataset.sizes["subject"], 3, panel_height=2.1)
    for row, subject in zip(axes, dataset.subject.values, strict=True):
        at = dataset.sel(subject=subject)
        _curves(row[0], at, exact=subject == "progress")
        style.title(row[0], f"{TITLES[str(subject)]}: no variation")
        _levels(row[1], at.error.sel(drift=0.0), "jitter")
        style.title(row[1], f"{TITLES[str(subject)]}: jitter only")
        _levels(row[2], at.error.sel(jitter=0.0), "drift")
        style.title(row[2], f"{TITLES[str(subject)]}: drift only")
        row[0].set_ylabel("|error| / change per cycle")
    top = max(ax.get_ylim()[1] for ax in axes[:, 1:].ravel())
    for ax in axes[:, 1:].ravel():
        ax.set_ylim(0, top)
    for ax, name in zip(axes[-1], ("synchronisation", "jitter σ of a unit", "drift δ per slow unit"), strict=True):
        ax.set_xlabel(name)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    more, names = axes[0, 1].get_legend_handles_labels()
    fig.legend(
        [*handles, more[-1]], [*labels, names[-1]], loc="outside lower center", ncols=5, fontsize=7, frameon=False
    )
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    start = int(dataset.attrs["start_up"])
    return Caption(
        "Error of the forecast one synchronisation ahead, divided by the change per cycle, of the units that devices "
        "have trained and of their versions, which a ring moves to the mean of its members. Middle, right: mean after "
        f"{start} of {dataset.sizes['cycle']} cycles; 1 is the error of the last value as forecast. Errors below "
        f"{FLOOR:g} are drawn at {FLOOR:g}. Plans of HADFL: {dataset.attrs['note']}.",
        f"none: planned without learning; {dataset.attrs['data']}, rings of {dataset.attrs['ring_size']}",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        f"left: {bands(dataset, RANGE)}; middle, right: {bands(dataset, INTERVAL)}",
        "none; dashes: exact without variation; dotted: the last value as forecast",
    )


def _curves(ax: Axes, at: xr.Dataset, *, exact: bool) -> None:
    cycles = at.cycle.values
    for index, alpha in enumerate(at.alpha.values.tolist()):
        seeds = at.curve.sel(jitter=0.0, drift=0.0, alpha=alpha).transpose("seed", "cycle").values
        low, mean, high = (np.maximum(values, FLOOR) for values in (seeds.min(0), seeds.mean(0), seeds.max(0)))
        style.band(ax, cycles, mean, low=low, high=high, label=f"α = {alpha:g}", style_index=index)
        if exact:
            line = np.where(at.exact.values[index] >= FLOOR, at.exact.values[index], np.nan)
            style.theory_line(ax, cycles, line, None if index else "exact")
    ax.set(yscale="log", ylim=(FLOOR / 2, 20))


def _levels(ax: Axes, error: xr.DataArray, along: str) -> None:
    x = error[along].values
    for index, alpha in enumerate(error.alpha.values.tolist()):
        mean, half = mean_and_interval(error.sel(alpha=alpha).transpose("seed", along).values)
        look, shift = style.STYLES[index], 0.012 * float(x.max()) * (index - 1)
        ax.errorbar(
            x + shift, mean, half, color=look.colour, linestyle=look.line, marker=look.marker, markersize=3.6, capsize=2
        )
    ax.axhline(1.0, color=style.THEORY, linestyle=":", linewidth=1.0, label="nothing changes")
    ax.set_xticks(x)
