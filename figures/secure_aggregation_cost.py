"""Accuracy with secure aggregation, and its bytes beyond messages by degree and dropout."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

EXTRA = ["keys and shares", "recovery"]


def draw(dataset: xr.Dataset) -> Figure:
    """Left: accuracy. Then bytes beyond messages: by degree, by dropout. Right: in percent of plain messages."""
    made, axes = style.figure(2, 2, panel_height=2.4)
    _accuracy(axes[0, 0], dataset)
    lossy = dataset.dropout.values[-1]
    _by_degree(axes[0, 1], dataset, lossy)
    _by_dropout(axes[1, 0], dataset)
    _overhead(axes[1, 1], dataset)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    return Caption(
        f"Mean accuracy of the nodes of a random {dataset.attrs['accuracy_degree']}-regular graph: with plain models, "
        "with masked ones, and with nodes that drop out; masked and plain lie on each other. Then bytes of a "
        "node and round for keys, shares and recovery, by degree and by dropout, and all bytes beyond those of plain "
        f"models of {dataset.attrs['parameters']:,} values; keys of the recovery by seeds as the mean over "
        f"{dataset.attrs['byte_rounds']} rounds. Dashes are formulas.",
        f"{dataset.attrs['task']}: {dataset.attrs['data']}",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        "none",
    )


def _line(ax: Axes, x: np.ndarray, values: xr.DataArray, label: str, index: int) -> None:
    mean, half = mean_and_interval(values.transpose("seed", ...).values)
    style.band(ax, x, mean, np.nan_to_num(half), label=label, style_index=index)


def _accuracy(ax: Axes, dataset: xr.Dataset) -> None:
    shown = [scheme for scheme in dataset.scheme.values if scheme != "fixed point"]
    for index, scheme in enumerate(shown):
        _line(ax, dataset["round"].values, dataset.score.sel(scheme=scheme), str(scheme), index)
    ax.set(xlabel="round", ylabel=dataset.attrs["metric"])
    style.title(ax, f"{dataset.attrs['task']}, {dataset.attrs['num_nodes']} nodes")
    style.legend(ax, location="lower right")


def _by_degree(ax: Axes, dataset: xr.Dataset, dropout: float) -> None:
    at = dataset.sel(dropout=dropout, kind=EXTRA)
    for index, recovery in enumerate(dataset.recovery.values):
        _line(ax, at.degree.values, at.bytes.sel(recovery=recovery).sum("kind"), str(recovery), index)
        label = "formula" if index == 0 else None
        style.theory_line(ax, at.degree.values, at.formula.sel(recovery=recovery).sum("kind").values, label)
    ax.set(xlabel="degree", ylabel="bytes beyond messages", yscale="log")
    style.title(ax, f"Keys, shares and recovery, dropout {dropout:g}")
    style.legend(ax)


def _by_dropout(ax: Axes, dataset: xr.Dataset) -> None:
    degree = int(dataset.degree.values[min(1, dataset.sizes["degree"] - 1)])
    at = dataset.sel(degree=degree, kind="recovery")
    for index, recovery in enumerate(dataset.recovery.values):
        _line(ax, at.dropout.values, at.bytes.sel(recovery=recovery), str(recovery), index)
        label = "formula" if index == 0 else None
        style.theory_line(ax, at.dropout.values, at.formula.sel(recovery=recovery).values, label)
    ax.set(xlabel="probability of a dropout", ylabel="bytes of recovery")
    style.title(ax, f"Recovery, degree {degree}")
    style.legend(ax)


def _overhead(ax: Axes, dataset: xr.Dataset) -> None:
    at = dataset.overhead_percent.sel(dropout=0.0)
    for index, recovery in enumerate(dataset.recovery.values):
        _line(ax, dataset.degree.values, at.sel(recovery=recovery), str(recovery), index)
    ax.set(xlabel="degree", ylabel="more bytes than plain, %", yscale="log")
    style.title(ax, "All bytes, nobody drops out")
    style.legend(ax)
