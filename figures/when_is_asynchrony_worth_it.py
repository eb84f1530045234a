"""Phase diagram: which method is fastest, by heterogeneity of speeds and by latency."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import Caption, numbers, seeds_of
from theory.check.policy import above, decide

SHORT = {"minibatch": "all", "m-synchronous": "first m", "Ringmaster": "Ringm.", "asynchronous SGD": "async"}
LIMIT = 5.0
"""Colours end at factors of 2^±5."""


def draw(dataset: xr.Dataset) -> Figure:
    """One panel for each law of times: colour is the gain of asynchrony, words the fastest method."""
    laws = dataset.law.values
    made, axes = style.figure(1, len(laws), panel_height=3.0)
    panels = np.ravel(axes)
    for ax, law in zip(panels, laws, strict=True):
        image = _panel(ax, dataset.sel(law=law))
        style.title(ax, f"{law} times")
        ax.set_xlabel("exponent a of speeds ∝ 1/i$^a$, or phones")
    panels[0].set_ylabel("latency τ, mean times of a gradient")
    bar = made.colorbar(image, ax=panels.tolist(), shrink=0.9, pad=0.02)
    bar.set_label("seconds, best that waits / best asynchronous", fontsize=7)
    bar.set_ticks([-4, -2, 0, 2, 4], labels=["1/16", "1/4", "1", "4", "16"], fontsize=7)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    words = ", ".join(f"{short}: {name}" for name, short in SHORT.items())
    return Caption(
        "Seconds until ‖∇f‖² ≤ ε, by how unequal the workers' speeds are and how long a message takes, both in units "
        "of the mean time in which n workers compute n gradients. Colour: the best of minibatch, m-synchronous and "
        "D-PSGD over the best of Rennala, Ringmaster, asynchronous SGD and AD-PSGD, each chosen on tuning seeds. Bold: "
        f"the one method that beats all others ({words}). Several names: the fastest on tuning seeds first, then those "
        "that it does not beat. In brackets: whether asynchrony gains or loses is undecided.",
        "quadratics with exact Gaussian noise, the same for all workers; phones: compute times drawn from measurements",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        "decisions by 95 % intervals of paired log ratios (Student t)",
        f"‖∇f‖² = {dataset.attrs['target']:g} of that at the start",
    )


def _panel(ax: Axes, at: xr.Dataset):
    gains = np.zeros((at.sizes["latency"], at.sizes["speeds"]))
    for row in range(at.sizes["latency"]):
        for column in range(at.sizes["speeds"]):
            cell = at.isel(latency=row, speeds=column)
            gained = cell.gain.values
            known = gained[np.isfinite(gained)]
            gains[row, column] = known.mean() / np.log(2) if known.size else 0.0
            decided = decide(gained, above(0.0)).word != "undecided"
            names = str(cell.leaders.values).split(", ")
            short = [SHORT.get(name, name) for name in names]
            words = "\n".join(short if len(short) < 4 else [*short[:2], f"+ {len(short) - 2}"])
            dark = abs(gains[row, column]) > 0.6 * LIMIT
            ax.text(
                column,
                row,
                words if decided else f"({words})",
                ha="center",
                va="center",
                fontsize=5.6,
                fontweight="bold" if len(names) == 1 else "normal",
                linespacing=1.1,
                color="white" if dark else "black",
            )
    image = ax.imshow(gains, origin="lower", aspect="auto", cmap=plt.get_cmap("RdBu_r"), norm=Normalize(-LIMIT, LIMIT))
    ax.set_xticks(range(at.sizes["speeds"]), at.speeds.values)
    ax.set_yticks(range(at.sizes["latency"]), [f"{value:g}" for value in at.latency.values])
    ax.grid(visible=False)
    return image
