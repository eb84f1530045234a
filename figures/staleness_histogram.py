"""Histograms of staleness at λ = a ln n, a panel per size, beside the exact law and its limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import Caption, numbers


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a panel per size: measured shares with 95 % intervals, exact law dashed, Poisson limit dotted."""
    sizes, a = dataset.n.values, float(dataset.attrs["rate_factor"])
    factor = "" if a == 1 else f"{a:g} "
    fig, axes = style.figure(1, len(sizes), panel_height=2.5, sharey=True)
    for ax, n in zip(axes[0], sizes, strict=True):
        _panel(ax, dataset.sel(n=n), dataset.limit_share.values)
        style.title(ax, f"n = {n:,}, λ = {factor}ln n")
    axes[0, 0].set_ylabel("share of pairs (holder, source)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    order = np.argsort([not label.startswith("measured") for label in labels], kind="stable")
    fig.legend(
        [handles[k] for k in order],
        [labels[k] for k in order],
        loc="outside lower center",
        ncols=3,
        fontsize=7,
        frameon=False,
    )
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Share of the pairs of nodes at each staleness.",
        "none: version counters, no learning",
        numbers(dataset.n.values),
        f"one long run per size, in {dataset.sizes['block']} parts",
        "95 % intervals of the mean over the parts (Student t)",
        "none; dashed: exact law, dotted: its limit",
    )


def _panel(ax: Axes, dataset: xr.Dataset, limit: np.ndarray) -> None:
    updates = dataset.updates.values
    mean, half = mean_and_interval(dataset.share.values)
    look = style.STYLES[0]
    error: dict[str, Any] = {"elinewidth": 0.9, "capsize": 2.2, "ecolor": "black"}
    ax.bar(updates, mean, yerr=half, width=0.75, color=look.colour, alpha=0.4, error_kw=error, label="measured, ± 95 %")
    ax.plot(updates, limit, color="0.45", linestyle=":", marker="D", markersize=3.4, linewidth=1.0, markerfacecolor="w")
    ax.lines[-1].set_label("limit: Poisson(m/a)")
    style.theory_line(ax, updates, dataset.exact_share.values, "exact law")
    ax.set(xlabel="staleness (updates)", xticks=updates)
    ax.set_xticklabels([*map(str, updates[:-1]), f"≥{updates[-1]}"])
    ax.grid(visible=False, axis="x")
