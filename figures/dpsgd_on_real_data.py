"""Accuracy of D-PSGD against rounds and bytes, and its consensus distance, by topology."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left: accuracy against rounds. Middle: against bytes per node. Right: consensus distance and its estimate."""
    fig, axes = style.figure(1, 3, panel_height=2.7)
    _accuracy(axes[0, 0], dataset)
    _bytes(axes[0, 1], dataset)
    _consensus(axes[0, 2], dataset)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Accuracy of the nodes against rounds and bytes, and consensus distance, by topology.",
        f"{dataset.attrs['data']}, label skew by Dirichlet(0.5)",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        "none; dashed: predicted bytes, and the consensus distance estimated without curvature",
    )


def _each(dataset: xr.Dataset):
    for index, name in enumerate(dataset.topology.values):
        yield index, str(name), dataset.sel(topology=name)


def _accuracy(ax: Axes, dataset: xr.Dataset) -> None:
    for index, name, at in _each(dataset):
        mean, half = mean_and_interval(at.test_accuracy.sel(statistic="mean").values, axis=1)
        style.band(ax, at.event.values, 100 * mean, 100 * half, label=name, style_index=index)
    ax.set(xlabel="round", ylabel="test accuracy, mean over nodes (%)", ylim=_percent_range(dataset))
    style.title(ax, f"{dataset.attrs['num_nodes']} nodes, non-IID")
    style.legend(ax, location="lower right")


def _percent_range(dataset: xr.Dataset) -> tuple[float, float]:
    final = 100 * dataset.test_accuracy.sel(statistic="mean").isel(record=-1).values
    return float(final.min()) - 25, float(final.max()) + 3


def _bytes(ax: Axes, dataset: xr.Dataset) -> None:
    n = dataset.attrs["num_nodes"]
    for index, name, at in _each(dataset):
        mean, half = mean_and_interval(at.test_accuracy.sel(statistic="mean").values, axis=1)
        sent = at.bytes_sent.isel(seed=0).values / n / 1e6
        style.band(ax, sent[1:], 100 * mean[1:], 100 * half[1:], label=name, style_index=index)
        end = float(at.predicted_bytes_per_round) * float(at.event[-1]) / n / 1e6
        ax.axvline(end, color=style.THEORY, linestyle="--", linewidth=0.8, label="_theory")
    ax.set(xscale="log", xlabel="MB sent per node", ylim=_percent_range(dataset))
    ax.text(0.03, 0.97, "dashed: predicted total", transform=ax.transAxes, va="top", fontsize=7)
    style.title(ax, "Accuracy against bytes")


def _consensus(ax: Axes, dataset: xr.Dataset) -> None:
    for index, name, at in _each(dataset):
        if name == "all-reduce":
            continue
        mean, half = mean_and_interval(at.consensus_distance.values[1:], axis=1)
        rounds = at.event.values[1:]
        style.band(ax, rounds, mean, half, label=name, style_index=index)
        tail = rounds[-(len(rounds) // 3) :]
        estimate = np.full(len(tail), float(at.predicted_consensus_distance.mean()))
        style.theory_line(ax, tail, estimate)
    ax.text(0.03, 0.03, "dashed: estimate without curvature", transform=ax.transAxes, va="bottom", fontsize=7)
    ax.set(yscale="log", xlabel="round", ylabel="consensus distance")
    ax.set_ylim(bottom=ax.get_ylim()[0] / 3)
    style.title(ax, "Consensus distance")
