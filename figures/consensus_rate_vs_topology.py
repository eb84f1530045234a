"""Measured disagreement and contraction against the spectral gap."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, numbers, seeds_of, setting

SHOWN = ("path", "ring", "star", "torus", "random 4-regular", "exponential", "random matchings")
"""Graphs whose curves are drawn; all graphs are in the right panel."""


def draw(dataset: xr.Dataset) -> Figure:
    """Left: disagreement against rounds, with the line of slope ln ρ. Right: measured against predicted gap."""
    fig, axes = style.figure(1, 2, panel_height=2.9)
    _curves(axes[0, 0], dataset)
    _gaps(axes[0, 1], dataset)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Left: disagreement against rounds. Right: measured against predicted gap; grey graphs have no curve.",
        "none: averaging of independent normal numbers",
        numbers([setting(dataset, "num_nodes")]),
        seeds_of(dataset),
        f"{INTERVAL}; on the left, of the logarithm",
        "none; dashed: slope ln ρ on the left, measured = predicted on the right",
    )


def _looks(names: list[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of every graph, the same in both panels; grey for graphs without a curve."""
    shown = [name for name in names if name.startswith(SHOWN)]
    looks = {name: (style.STYLES[i].colour, style.STYLES[i].marker) for i, name in enumerate(shown)}
    others = [name for name in names if name not in looks]
    return looks | {name: ("0.55", marker) for name, marker in zip(others, "*<>dh8", strict=False)}


def _curves(ax: Axes, dataset: xr.Dataset) -> None:
    rounds = dataset["round"].values
    names = [str(name) for name in dataset.graph.values if str(name).startswith(SHOWN)]
    for index, name in enumerate(names):
        at = dataset.sel(graph=name)
        logs, half = mean_and_interval(np.log(np.maximum(at.disagreement.values, 1e-12)), axis=1)
        visible = np.exp(logs) > 2e-6
        low, high = np.exp(logs - half), np.exp(logs + half)
        style.band(
            ax,
            rounds[visible],
            np.exp(logs)[visible],
            low=low[visible],
            high=high[visible],
            label=name,
            style_index=index,
        )
        last = int(np.flatnonzero(visible)[-1])
        late = rounds[visible] >= rounds[last] / 5
        line = np.exp(logs[last]) * float(at.predicted_factor) ** (rounds[visible][late] - rounds[last])
        style.theory_line(ax, rounds[visible][late], line)
    ax.set(xscale="symlog", yscale="log", ylim=(1e-6, 3), xlabel="round", ylabel="disagreement ‖x − x̄‖ / ‖x₀ − x̄₀‖")
    ax.set_xlim(0, float(rounds[-1]))
    ax.text(0.04, 0.05, "dashed: slope ln ρ", transform=ax.transAxes, fontsize=7)
    style.title(ax, "Decay of the disagreement")


def _gaps(ax: Axes, dataset: xr.Dataset) -> None:
    gap = 1 - dataset.predicted_factor.values
    mean, half = mean_and_interval(1 - dataset.factor.values, axis=1)
    ends = np.array([0.6 * gap.min(), 1.4])
    style.theory_line(ax, ends, ends, "measured = 1 − ρ, theory")
    looks = _looks([str(name) for name in dataset.graph.values])
    for index, name in enumerate(dataset.graph.values):
        colour, marker = looks[str(name)]
        ax.errorbar(
            gap[index],
            mean[index],
            yerr=half[index],
            color=colour,
            marker=marker,
            linestyle="none",
            markersize=5,
            capsize=2,
            label=str(name),
            zorder=4,
        )
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ax.set(xlabel="spectral gap 1 − ρ (theory)", ylabel="measured 1 − contraction per round")
    style.title(ax, "Contraction of every topology")
    style.legend(ax, location="center left", anchor=(1.02, 0.5))
