"""Accuracy of Plexus against hours, bytes and training hours, by sample size."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from figures.lib import style
from figures.lib.caption import RANGE, Caption, bands, numbers, seeds_of
from figures.lib.plexus_curves import on_one_axis

AXES = (("time", 3600.0, "simulated hours"), ("bytes", 2.0**30, "GiB sent"), ("training", 3600.0, "training hours"))


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a panel per cost; bands are the range over seeds."""
    fig, axes = style.figure(1, 3, panel_height=2.7, sharey=True)
    for ax, (name, unit, label) in zip(axes[0], AXES, strict=True):
        _panel(ax, dataset, name, unit)
        ax.set(xscale="log", xlabel=label)
        ax.xaxis.set_minor_formatter(NullFormatter())
    percent = dataset.attrs["metric"] == "accuracy"
    axes[0, 0].set_ylabel("test accuracy of the global model (%)" if percent else "test RMSE of the global model")
    size = dataset.attrs["model_bytes"] / 1e6
    style.title(axes[0, 0], f"{dataset.attrs['num_nodes']} nodes, {dataset.attrs['problem']}")
    style.title(axes[0, 1], f"messages of {size:.3g} MB")
    seeds = dataset.sizes["seed"]
    style.title(axes[0, 2], "one seed" if seeds == 1 else f"mean and range of {seeds} seeds")
    style.legend(axes[0, 0], location="lower right")
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Score of the global model against hours, bytes and training hours, by sample size.",
        f"{dataset.attrs['problem']}: {dataset.attrs['data']}; devices: {dataset.attrs['devices']}",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, RANGE),
        "not drawn; the table has costs to 95 % of the gain of the weakest sample size",
    )


def _panel(ax: Axes, dataset: xr.Dataset, name: str, unit: float) -> None:
    scale = 100.0 if dataset.attrs["metric"] == "accuracy" else 1.0
    for index, size in enumerate(dataset.sample_size.values.tolist()):
        at = dataset.sel(sample_size=size)
        x, mean, low, high = on_one_axis(at[name].values / unit, scale * at.score.values)
        style.band(ax, x, mean, low=low, high=high, label=f"s = {size}", style_index=index, markers=6)
