"""Accuracy by exact ε, for mechanisms of privacy, against an eavesdropper and against one curious node."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

TITLES = {"eavesdropper": "hears every message", "one node": "one curious node, worst pair"}


def draw(dataset: xr.Dataset) -> Figure:
    """One row for each data set, one column for each adversary."""
    made, axes = style.figure(dataset.sizes["data"], 2, panel_height=2.6, sharey=True)
    for row, name in zip(axes, dataset.data.values, strict=True):
        for ax, (adversary, words) in zip(row, TITLES.items(), strict=True):
            _panel(ax, dataset.sel(data=name), adversary)
            style.title(ax, f"{name}: {words}")
        row[0].set_ylabel("test accuracy (%)")
    style.legend(axes[0, 1], location="center right")
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    at = dataset.attrs
    names = [str(name) for name in dataset.data.values]
    units = "; ".join(f"{name}, {dataset.unit.sel(data=name).item()}" for name in names)
    sources = "; ".join(f"{name}: {dataset.source.sel(data=name).item()}" for name in names)
    return Caption(
        f"Mean test accuracy of the nodes of a random {at['degree']}-regular graph after {at['num_rounds']} rounds of "
        f"D-PSGD, by ε at δ = {at['delta']:g}. Unit: {units}; relation: what it contributes counts as 0 in all steps; "
        "ε is exact, that of ZIP-DL an upper bound. Left: the adversary hears all messages; right: it is one honest "
        "but curious node. Dashed: clipped gradients without noise, ε = ∞; dotted: the majority class.",
        sources,
        numbers(dataset.num_nodes.values.tolist()),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        "none",
    )


def _panel(ax: Axes, dataset: xr.Dataset, adversary: str) -> None:
    names = list(dict.fromkeys(dataset.mechanism.values.tolist()))
    epsilon = dataset.epsilon.values
    for index in np.flatnonzero(dataset.adversary.values == adversary):
        mean, half = mean_and_interval(100 * dataset.accuracy.isel(case=index).transpose("seed", "epsilon").values)
        name = str(dataset.mechanism.values[index])
        width = None if dataset.sizes["seed"] == 1 else half
        style.band(ax, epsilon, mean, width, label=name.replace("σ_p", r"$\sigma_p$"), style_index=names.index(name))
    best = 100 * float(dataset.without.mean())
    style.theory_line(ax, epsilon[[0, -1]], np.array([best, best]))
    floor = 100 * float(dataset.floor)
    ax.axhline(floor, color="0.45", linewidth=0.8, linestyle=":")
    ax.text(0.99, best, "without noise", transform=ax.get_yaxis_transform(), fontsize=6, ha="right", va="bottom")
    ax.text(0.99, floor, "majority class", transform=ax.get_yaxis_transform(), fontsize=6, ha="right", va="top")
    ax.set(xscale="log", xlabel="ε", ylim=(0, 100))
    ax.set_xticks(epsilon)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
