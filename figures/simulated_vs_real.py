"""Measured beside simulated times of the same runs, and the order in which both put their configurations."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left: end of each round, measured over simulated. Right: seconds to the target in both worlds."""
    made, axes = style.figure(1, 2, panel_height=2.9)
    _ratios(axes[0, 0], dataset)
    _order(axes[0, 1], dataset)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    return Caption(
        "End of each round on processes over that of the simulation, and seconds to the target in both worlds.",
        "digits, equal shares, D-PSGD; one process per node, links and computation emulated in real time",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        f"a training loss of {dataset.attrs['target']:.3g}, which every configuration reaches",
    )


def _each(dataset: xr.Dataset):
    for index, name in enumerate(dataset["configuration"].values.tolist()):
        yield index, name, dataset.sel(configuration=name)


def _ratios(ax: Axes, dataset: xr.Dataset) -> None:
    for index, name, at in _each(dataset):
        ratio = (at["real_end_s"] / at["simulated_end_s"]).transpose("seed", "round")
        mean, half = mean_and_interval(ratio.values)
        style.band(ax, np.arange(1, len(mean) + 1), mean, half, label=name, style_index=index)
    rounds = np.array([1, dataset.sizes["round"]])
    for bound in (0.95, 1.0, 1.05):
        style.theory_line(ax, rounds, np.full(2, bound))
    ax.set(xlabel="round", ylabel="end of the round, measured / simulated")
    style.title(ax, "Dashed: equal, and ±5 %")


def _order(ax: Axes, dataset: xr.Dataset) -> None:
    for index, name, at in _each(dataset):
        x, y = at["simulated_target_s"].values, at["real_target_s"].values
        chosen = style.STYLES[index]
        ax.plot(x, y, color=chosen.colour, marker=chosen.marker, linestyle="none", markersize=5, label=name)
    ends = np.array([0.0, float(dataset["real_target_s"].max()) * 1.05])
    style.theory_line(ax, ends, ends)
    ax.set(xlabel="seconds to the target, simulated", ylabel="measured")
    style.title(ax, f"Kendall's tau {float(dataset['tau'].mean()):.2f}")
    style.legend(ax)
