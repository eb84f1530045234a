"""How far liars move the honest mean, by rule, attack and number, beside the lines of theory."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from figures.lib import style
from figures.lib.caption import Caption, bands, numbers, seeds_of
from theory import robust

LOW, HIGH = 1e-4, 10.0
"""Ends of the colours; 1: as far off as at the start."""
SUMS = {"CS+": "cs_plus", "GTS": "gts"}
"""Robust sums by their names in theory."""


def draw(dataset: xr.Dataset) -> Figure:
    """One panel for each attack: rules by liars, the colour the error of the end."""
    made, axes = style.figure(2, 3, panel_height=2.3, sharex=True, sharey=True)
    images = [_panel(ax, dataset, str(attack)) for ax, attack in zip(axes.flat, dataset.attack.values, strict=True)]
    for ax in axes[-1]:
        ax.set_xlabel("liars at every node, b")
    bar = made.colorbar(images[0], ax=axes, extend="both", fraction=0.04, pad=0.01)
    bar.set_label("error / variance of the start", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    at = dataset.attrs
    return Caption(
        f"Two cliques of honest nodes whose means differ, each node tied to {at['ties']} of the other clique and to b "
        f"liars. Mean squared distance to the mean of the start after {at['num_rounds']} rounds, over the variance of "
        "the start, as the geometric mean over seeds; values beyond the ends have the colour of the end. Dashed: "
        "2b = μ₂, from where no rule can tell the other clique from liars. White frames: theory promises that the "
        "honest variance shrinks, 2ρb < μ₂; the error also holds how far lies move the honest mean.",
        "none: averaging of normal values",
        numbers([at["num_nodes"]]) + " honest",
        seeds_of(dataset),
        bands(dataset, "none: colours"),
        "none",
    )


def _panel(ax: Axes, dataset: xr.Dataset, attack: str) -> AxesImage:
    error = dataset.error.sel(attack=attack).transpose("rule", "liars", "seed").values
    middle = np.exp(np.log(np.clip(np.nan_to_num(error, nan=HIGH), LOW / 10, 10 * HIGH)).mean(axis=-1))
    image = ax.imshow(middle, norm=LogNorm(LOW, HIGH), cmap="cividis", aspect="auto")
    liars, rules = dataset.liars.values, dataset.rule.values
    ax.set_xticks(np.arange(len(liars)), liars)
    ax.set_yticks(np.arange(len(rules)), rules)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    wall = np.interp(dataset.attrs["mu_2"] / 2, liars, np.arange(len(liars))) - 0.5
    ax.axvline(wall, color="white", linewidth=2.4)
    ax.axvline(wall, color=style.THEORY, linewidth=1.2, linestyle="--")
    for rule, name in SUMS.items():
        promised = [robust.contraction(name, int(b), dataset.attrs["mu_2"], dataset.attrs["weight"]) for b in liars]
        held = sum(factor < 1 - 1e-9 for factor in promised)  # not at 2ρb = μ₂, but for rounding
        if rule in rules and held:
            row = list(rules).index(rule)
            ax.add_patch(Rectangle((-0.46, row - 0.44), held - 0.06, 0.88, fill=False, ec="white", lw=1.2))
    style.title(ax, attack)
    return image
