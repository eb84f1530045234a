"""D-PSGD, gradient tracking and D² under label skew, and the exact bias of D-PSGD on quadratics."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Top: accuracy on real data, a panel per partition. Bottom: error on quadratics, a panel per spread."""
    fig, axes = style.figure(2, 3, panel_height=2.2)
    for column, partition in enumerate(dataset.partition.values):
        _accuracy(axes[0, column], dataset.sel(partition=partition), str(partition))
    axes[0, 0].set_ylabel("test accuracy (%)")
    words = f"Real data: {dataset.attrs['data']}; beside D-PSGD: points to the best of the others, ± 95 %"
    fig.suptitle(words, fontsize=7.5, x=0.01, ha="left")
    shown = dataset.sizes["partition"]
    style.legend(axes[0, shown - 1], location="lower right")
    for ax in axes[0, shown:]:
        ax.set_visible(False)
    for column, spread in enumerate(dataset.spread.values):
        _error(axes[1, column], dataset.sel(spread=spread), float(spread), first=column == 0)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Top: test accuracy by label skew. Bottom: squared error on quadratics by the spread of the nodes' optima.",
        f"top: {dataset.attrs['data']}; bottom: drawn quadratics without noise, one run each",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        f"top: {bands(dataset, INTERVAL)}; bottom: none, nothing is random",
        "none; dashed at the bottom: the exact bias of D-PSGD",
    )


def _accuracy(ax: Axes, dataset: xr.Dataset, partition: str) -> None:
    lowest = 100.0
    for index, protocol in enumerate(dataset.protocol.values):
        values = dataset.test_accuracy.sel(protocol=protocol, statistic="mean").values
        mean, half = mean_and_interval(values, axis=1)
        style.band(ax, dataset.event.values, 100 * mean, 100 * half, label=str(protocol), style_index=index)
        lowest = min(lowest, 100 * float(mean[-1]))
    ax.set(xlabel="round", ylim=(lowest - 15, 100))
    style.title(ax, f"{partition}: D-PSGD {_gap(dataset)}")


def _gap(dataset: xr.Dataset) -> str:
    """Describe by how many points D-PSGD ends behind the best of the others, or ahead of all, with the interval."""
    ends = 100 * dataset.test_accuracy.sel(statistic="mean").isel(record=-1)
    others = ends.drop_sel(protocol="D-PSGD")
    best = others.isel(protocol=int(others.mean("seed").argmax("protocol")))
    mean, half = mean_and_interval((ends.sel(protocol="D-PSGD") - best).values)
    interval = "" if np.isnan(half) else f" ± {float(half):.1f}"
    return f"{float(mean):+.1f}{interval}".replace("-", "−")


def _error(ax: Axes, dataset: xr.Dataset, spread: float, *, first: bool) -> None:
    rounds = dataset.quadratic_round.values
    for index, protocol in enumerate(dataset.protocol.values):
        style.band(
            ax, rounds, dataset.quadratic_error.sel(protocol=protocol).values, label="_simulated", style_index=index
        )
    bias = float(dataset.predicted_bias)
    style.theory_line(ax, rounds[[0, -1]], np.full(2, bias), "exact bias of D-PSGD")
    ax.set(yscale="log", xlabel="round", ylim=(1e-10 * bias, 1e3 * bias))
    style.title(ax, f"quadratics, spread {spread:g}")
    if first:
        ax.set_ylabel("(1/n) Σ ‖xᵢ − x*‖²")
        style.legend(ax, location="upper right")
