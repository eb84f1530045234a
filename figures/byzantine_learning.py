"""Accuracies by rule and attack beside those of a paper, and by the number of liars in two worlds."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left: the table of one label each. Right: the worst lies, by the number of liars."""
    made, axes = style.figure(1, 2, panel_height=3.0)
    _table(axes[0, 0], dataset)
    _worlds(axes[0, 1], dataset)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    at = dataset.attrs
    same = "the same data set" if at["same_data"] else "MNIST, which is another data set"
    return Caption(
        f"Mean test accuracy of honest nodes in %. Left: one label at each of {at['honest']} honest nodes, "
        f"{at['lying']} liars, {at['num_rounds']} steps; in brackets the numbers of arXiv 2206.04568 after 50,000 "
        f"steps on {same}. Right: two cliques of {at['worlds_nodes'] // 2} honest nodes, each tied to {at['ties']} of "
        f"the other and to b liars, after {at['worlds_rounds']} steps under the attack that harms each rule most. "
        "Dashed: plain averaging without liars, and 2b = μ₂, from where no rule can tell the other clique "
        "from liars; dotted: the majority class.",
        at["data"],
        f"{numbers([at['honest'] + at['lying']])}; two worlds: {at['worlds_nodes']} honest",
        seeds_of(dataset),
        bands(dataset, f"{INTERVAL}; none on the left"),
        "none",
    )


def _table(ax: Axes, dataset: xr.Dataset) -> None:
    values = 100 * dataset.accuracy.mean("seed").transpose("rule", "attack").values
    ax.imshow(values, vmin=0, vmax=100, cmap="cividis", aspect="auto")
    paper, attacks = 100 * dataset.paper.transpose("rule", "attack").values, list(map(str, dataset.attack.values))
    for row in range(dataset.sizes["rule"]):
        for column, theirs in enumerate(paper[row]):
            ink = "white" if values[row, column] < 55 else "black"
            words = f"{values[row, column]:.0f} ({theirs:.0f})"
            ax.text(column, row, words, fontsize=6, ha="center", va="center", color=ink)
    ax.set_xticks(np.arange(len(attacks)), attacks, rotation=30, ha="right", fontsize=7)
    ax.set_yticks(np.arange(dataset.sizes["rule"]), dataset.rule.values)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    style.title(ax, "one label each: ours (paper), %")


def _worlds(ax: Axes, dataset: xr.Dataset) -> None:
    liars, worst = dataset.liars.values, dataset.worlds_accuracy.min("worlds_attack")
    for index, rule in enumerate(dataset.worlds_rule.values):
        mean, half = mean_and_interval(100 * worst.sel(worlds_rule=rule).transpose("seed", "liars").values)
        width = None if dataset.sizes["seed"] == 1 else half
        style.band(ax, liars, mean, width, label=str(rule), style_index=index)
    alone = 100 * float(dataset.worlds_alone.mean())
    style.theory_line(ax, liars[[0, -1]], np.array([alone, alone]))
    ax.axvline(dataset.attrs["mu_2"] / 2, color=style.THEORY, linewidth=1.0, linestyle="--")
    ax.axhline(100 * dataset.attrs["floor"], color="0.45", linewidth=0.8, linestyle=":")
    ax.set(xlabel="liars at every node, b", ylabel="test accuracy (%)", ylim=(0, 100))
    ax.set_xticks(liars)
    style.title(ax, "two worlds, worst attack")
    style.legend(ax, location="center left")
