"""Nodes that join: how many are online, and how many are believed active, over time."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import Caption, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a panel per system with the views of the first seed, and the rounds until joins are known over all seeds."""
    systems = [str(name) for name in dataset.system.values]
    fig, axes = style.figure(1, len(systems) + 1, panel_height=2.6)
    for ax, system in zip(axes[0], systems, strict=False):
        _views(ax, dataset.sel(system=system).isel(seed=0), dataset.attrs)
        style.title(ax, f"{system}, first seed")
    axes[0, 0].set_ylabel("nodes")
    style.legend(axes[0, 0], location="lower right")
    _delays(axes[0, -1], dataset)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Nodes online and believed active while nodes join, and rounds until half of the nodes know of a join.",
        f"none: planned without learning; devices: {dataset.attrs['data']}",
        numbers([dataset.attrs["num_nodes"]]),
        f"{seeds_of(dataset)} of {dataset.attrs['num_joins']} joins; left and middle: the first",
        "left and middle: all views; right: none, a share of all joins",
        "none; dashed: the derived number of rounds",
    )


def _views(ax: Axes, at: xr.Dataset, attrs: dict) -> None:
    minutes, look = at.minute.values, style.STYLES[1]
    started = attrs["num_nodes"] - attrs["num_joins"]
    ax.fill_between(
        minutes,
        at.believed_min,
        at.believed_max,
        step="post",
        color=look.colour,
        alpha=0.2,
        linewidth=0,
        label="all views",
    )
    ax.step(minutes, at.believed_mean.values, where="post", color=look.colour, linewidth=1.3, label="mean view")
    ax.step(minutes, at.online.values, where="post", color=style.THEORY, linewidth=1.0, linestyle="--", label="online")
    ax.set(xlabel="simulated minutes", ylim=(started - 4, attrs["num_nodes"] + 1), xlim=(0, 2 * attrs["num_joins"]))


def _delays(ax: Axes, dataset: xr.Dataset) -> None:
    for index, system in enumerate(dataset.system.values):
        rounds = dataset.rounds_until_known.sel(system=system).values.ravel()
        rounds = np.sort(rounds[np.isfinite(rounds)])
        if rounds.size:
            share = 100 * np.arange(1, rounds.size + 1) / dataset.rounds_until_known.sel(system=system).size
            look = style.STYLES[index]
            ax.step(rounds, share, where="post", color=look.colour, linestyle=look.line, label=str(system))
    if np.isfinite(expected := float(dataset.attrs["expected_rounds"])):
        style.theory_line(ax, np.full(2, expected), np.array([0.0, 100.0]), label="derived")
    ax.set(xlabel="rounds since a node joined", ylabel="joins known to half of the nodes (%)", ylim=(0, 103))
    ax.set_xlim(left=0)
    style.title(ax, f"{dataset.sizes['seed']} seeds of {dataset.attrs['num_joins']} joins")
    style.legend(ax, location="center left")
