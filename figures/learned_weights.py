"""Disagreement against the horizon for which weights were made, and what is left of the gain elsewhere."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

LEAST = 1e-12
"""Errors below are drawn here: they are exact averages up to rounding."""


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a panel of errors for each graph, and one of D-PSGD."""
    panels = dataset.sizes["graph"] + 1
    rows = -(-panels // 3)
    made, axes = style.figure(rows, 3, panel_height=2.2)
    for number, (ax, name) in enumerate(zip(axes.flat, dataset.graph.values, strict=False)):
        _errors(ax, dataset.sel(graph=name), str(name))
        if number == 0:
            style.legend(ax, location="lower left")
    _learning(axes.flat[panels - 1], dataset)
    for ax in axes.flat[panels:]:
        ax.set_axis_off()
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        f"What T rounds leave of independent differences, by T; each learned weight is learned for its T, and errors "
        f"below {LEAST:g} are drawn there. Dashed: the best equal weights, by formula. Last: disagreement and accuracy "
        f"of D-PSGD on the ring, with the weights for T = {dataset.attrs['transfer']}.",
        f"averaging; last panel: {dataset.attrs['data']}, split by Dirichlet",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, f"{INTERVAL}, in the last panel"),
        "none",
    )


def _errors(ax: Axes, at: xr.Dataset, name: str) -> None:
    horizons = at.horizon.values
    for index, method in enumerate(at.weights.values):
        values = np.maximum(at.error.sel(weights=method).values, LEAST)
        known = np.isfinite(values)
        style.band(ax, horizons[known], values[known], label=str(method), style_index=index)
    style.theory_line(ax, horizons, at.predicted.values)
    ax.set(xscale="log", yscale="log", xlabel="rounds T", ylabel="$E_T$", ylim=(LEAST / 3, 3 * float(at.error.max())))
    ax.set_xticks(horizons, [str(each) for each in horizons])
    ax.minorticks_off()
    style.title(ax, name)


def _learning(ax: Axes, dataset: xr.Dataset) -> None:
    for index, method in enumerate(dataset.weights.values):
        at = dataset.sel(weights=method)
        if not np.isfinite(at.accuracy).all():
            continue
        chosen = style.STYLES[index]
        (x, dx), (y, dy) = (mean_and_interval(values.values) for values in (at.distance, 100 * at.accuracy))
        bars = {"xerr": np.nan_to_num(float(dx)), "yerr": np.nan_to_num(float(dy))}
        ax.errorbar(float(x), float(y), marker=chosen.marker, color=chosen.colour, **bars)
    ax.set(xlabel="consensus distance", ylabel="accuracy, %")
    style.title(ax, "D-PSGD on the ring")
