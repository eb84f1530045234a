"""Accuracy of robust rules by the age of what lies in inboxes, and by the number of liars."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """One column for each attack: above by age beside the most liars, below by liars with the oldest inboxes."""
    made, axes = style.figure(2, dataset.sizes["attack"], panel_height=2.2, sharey=True)
    for column, attack in enumerate(map(str, dataset.attack.values)):
        at = dataset.sel(attack=attack)
        above, below = axes[:, column]
        _by_age(above, at)
        _by_liars(below, at)
        style.title(above, f"{attack}, b = {int(dataset.liars.values[-1])}")
        style.title(below, f"{attack}, age {float(dataset.age.mean('seed')[-1]):.1f}")
    for ax in axes[:, 0]:
        ax.set_ylabel("test accuracy (%)")
    style.legend(axes[0, 0], location="lower left")
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    at = dataset.attrs
    return Caption(
        f"Mean test accuracy of honest nodes of a random {at['degree']}-regular graph after {at['ticks']} ticks of "
        "each node of SWIFT, whose nodes combine the newest models that have arrived. Above: by the mean age of these, "
        "in steps that their sender has taken since, beside the most liars. Below: by the number of liars with the "
        "longest flight times. Dashed: plain averaging without liars; dotted: the majority class.",
        f"digits: {at['data']}",
        numbers([at["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        "none",
    )


def _by_age(ax: Axes, at: xr.Dataset) -> None:
    ages = at.age.mean("seed").values
    _lines(ax, at.accuracy.isel(liars=-1).transpose("rule", "seed", "latency"), ages)
    style.theory_line(ax, ages, 100 * at.alone.mean("seed").values)
    _finish(ax, at, "age in inboxes (steps of the sender)")


def _by_liars(ax: Axes, at: xr.Dataset) -> None:
    liars = at.liars.values
    _lines(ax, at.accuracy.isel(latency=-1).transpose("rule", "seed", "liars"), liars)
    alone = 100 * float(at.alone.isel(latency=-1).mean())
    style.theory_line(ax, liars[[0, -1]], np.array([alone, alone]))
    ax.set_xticks(liars)
    _finish(ax, at, "liars, b")


def _lines(ax: Axes, accuracy: xr.DataArray, x: np.ndarray) -> None:
    for index, rule in enumerate(accuracy.rule.values):
        mean, half = mean_and_interval(100 * accuracy.sel(rule=rule).values)
        style.band(ax, x, mean, None if accuracy.sizes["seed"] == 1 else half, label=str(rule), style_index=index)


def _finish(ax: Axes, at: xr.Dataset, label: str) -> None:
    ax.axhline(100 * at.attrs["floor"], color="0.45", linewidth=0.8, linestyle=":")
    ax.set(xlabel=label, ylim=(0, 100))
