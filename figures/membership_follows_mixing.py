"""How well a loss attack finds training samples, by the spectral gap, without noise and with it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left: mean over nodes, sent and kept models. Right: sent models of private runs, mean and worst node."""
    made, axes = style.figure(1, 2, panel_height=2.6)
    left, right = axes[0]
    for index, model in enumerate(dataset.model.values):
        _line(left, dataset, dataset.auc.sel(model=model).mean("node"), f"{model}: mean of nodes", index)
    _line(right, dataset, dataset.private_auc.max("node"), "sent: worst node", 2)
    _line(right, dataset, dataset.private_auc.mean("node"), "sent: mean of nodes", 0)
    bound = dataset.attrs["bound"]
    ends = dataset.gap.values[[0, -1]]
    style.theory_line(right, ends, np.array([bound, bound]), "bound Φ(μ/√2)")
    for ax, words in ((left, "without noise"), (right, f"private gradients, μ = {dataset.attrs['mu']:.2g}")):
        ax.axhline(0.5, color="0.45", linewidth=0.8, linestyle=":")
        ax.text(0.01, 0.497, "guessing", transform=ax.get_yaxis_transform(), fontsize=6, va="top")
        ax.set(xscale="log", xlabel="spectral gap of the mixing matrix", ylabel="AUC of the loss attack")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        style.title(ax, words)
    style.legend(left)
    style.legend(right, location="upper right")
    highest = max(bound, float(dataset.private_auc.max("node").mean("seed").max()))
    right.set_ylim(0.45, highest + 0.15)  # room for the legend
    _names(left, dataset)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    at = dataset.attrs
    return Caption(
        f"Area under the ROC curve of the loss attack on the {at['shard']} samples of each node, after "
        f"{at['num_rounds']} rounds of D-PSGD with Metropolis weights, by spectral gap; from the left: "
        f"{', '.join(map(str, dataset.graph.values))}. Left: models as they are sent, after the step, and as they are "
        "kept, after mixing. Right: sent models where gradients are clipped and noisy; no attack on samples of a node "
        "has an expected area above the dashed line, nor has the mean of nodes; the worst of them, chosen afterwards, "
        "may. Every seed draws other shards and other held-out samples, the same for all graphs: "
        "much of a band is common to them, and the table compares graphs within seeds.",
        f"digits: {at['data']}",
        numbers([at["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        "none",
    )


def _line(ax: Axes, dataset: xr.Dataset, values: xr.DataArray, label: str, index: int) -> None:
    mean, half = mean_and_interval(values.transpose("seed", "graph").values)
    style.band(
        ax, dataset.gap.values, mean, None if dataset.sizes["seed"] == 1 else half, label=label, style_index=index
    )


def _names(ax: Axes, dataset: xr.Dataset) -> None:
    top = dataset.auc.mean(("node", "seed")).max("model").values
    for gap, name, height in zip(dataset.gap.values, dataset.graph.values, top, strict=True):
        ax.annotate(str(name), (gap, height), (0, 5), textcoords="offset points", fontsize=6, ha="center", va="bottom")
    ax.margins(x=0.14, y=0.2)
