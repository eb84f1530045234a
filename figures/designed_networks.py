"""Designs against the best usual networks on states of the devices that the search did not see, and in training."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import Caption, bands, numbers, seeds_of

CLAIMED = 1.2
"""Least median ratio that is claimed."""


def draw(dataset: xr.Dataset) -> Figure:
    """Draw the ratio of every draw on the left, and seconds of training on the right."""
    made, axes = style.figure(1, 2, panel_height=3.2)
    _ratios(axes[0, 0], dataset)
    _training(axes[0, 1], dataset)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Left: seconds of the best usual network over those of the searched one, on a state of the devices that the "
        "search did not see; a dot for each draw, a bar for the mean logarithm. Gains on identical devices are those "
        "of the search itself. Dotted: the least median that is claimed. Right: seconds of training to the target "
        "over those on the searched network, of networks that get there in every draw.",
        "left: exact rounds, planned seconds; right: digits, split by Dirichlet",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, "95 % intervals of the mean logarithm over draws (Student t)"),
        f"{dataset.attrs['target']:.0%} accuracy in training, mean over nodes",
    )


def _ratios(ax: Axes, dataset: xr.Dataset) -> None:
    cases = [str(case) for case in dataset.case.values]
    for index, rival in enumerate(dataset.rival.values):
        for row, case in enumerate(cases):
            values = dataset.ratio.sel(rival=rival, case=case).values
            _strip(ax, row + 0.16 - 0.32 * index, values, index, f"to {rival}" if row == 0 else None)
    same = dataset.gain.isel(devices=-1)
    for goal in same.goal.values:
        cases.append(f"identical, {goal}")
        _strip(ax, len(cases) - 1, same.sel(goal=goal).values, 3, None)
    ax.set_yticks(range(len(cases)), cases, fontsize=6.5)
    for at, dashes in ((1, "-"), (CLAIMED, ":")):
        ax.vlines(at, -0.5, len(cases) - 0.5, color=style.THEORY, linewidth=0.8, linestyle=dashes)
    ax.set(xscale="log", xlabel="seconds, relative to the design", ylim=(len(cases) - 0.4, -1.5))
    _plain(ax, dataset.ratio.values)
    style.legend(ax, location="upper left")
    style.title(ax, "usual networks / designed")


def _strip(ax: Axes, height: float, values: np.ndarray, index: int, label: str | None) -> None:
    chosen = style.STYLES[index]
    heights = height + 0.05 * np.linspace(-1, 1, values.size)
    ax.plot(
        values, heights, chosen.marker, color=chosen.colour, markersize=2.6, alpha=0.6, label=label, linestyle="none"
    )
    mean, half = (float(each) for each in mean_and_interval(np.log(values)))
    low, high = np.exp(mean - np.nan_to_num(half)), np.exp(mean + np.nan_to_num(half))
    ax.plot([low, high], [height, height], color=chosen.colour, linewidth=2.2)
    ax.plot([np.exp(mean)], [height], "|", color=style.THEORY, markersize=9)


def _training(ax: Axes, dataset: xr.Dataset) -> None:
    reached = np.isfinite(dataset.learned_rounds).all("seed")
    seconds = dataset.learned_seconds.isel(network=np.flatnonzero(reached.values))
    own = dataset.learned_seconds.sel(network=dataset.network[-1])
    relative = np.log(seconds / own).transpose("network", "seed")
    order = np.argsort(relative.mean("seed").values)
    for row, at in enumerate(order):
        name = str(relative.network.values[at])
        index = 2 if name == str(dataset.network.values[-1]) else int(bool(dataset.changes.sel(network=name)))
        _strip(ax, row, np.exp(relative.values[at]), index, None)
    ax.set_yticks(range(order.size), relative.network.values[order].tolist(), fontsize=6.5)
    ax.axvline(1, color=style.THEORY, linewidth=0.8)
    ax.set(xscale="log", xlabel="seconds, relative to the design", ylim=(order.size - 0.4, -0.6))
    _plain(ax, np.exp(relative.values))
    style.title(ax, "training on phones")


def _plain(ax: Axes, values: np.ndarray) -> None:
    """Label a logarithmic axis with plain numbers."""
    from matplotlib.ticker import NullFormatter, NullLocator

    low, high = float(np.min(values)), float(np.max(values))
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low / 1.5 <= tick <= high * 1.5]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
