"""Bits per position by cut-off and code, during training, and the share of positions in all bytes."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import Caption, numbers
from theory.compression import bernoulli_gap_bits

HEADER = 128


def draw(dataset: xr.Dataset) -> Figure:
    """Left: bits per position at each cut-off. Middle: during training. Right: share of all bytes, by code."""
    fig, axes = style.figure(1, 3, panel_height=2.7)
    _by_cut_off(axes[0, 0], dataset)
    _through_training(axes[0, 1], dataset)
    _parts(axes[0, 2], dataset)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Bits per position at each cut-off and during training, and the share of positions in all bytes.",
        f"{dataset.attrs['task']}: {dataset.attrs['data']}",
        numbers([dataset.attrs["num_nodes"]]),
        f"1 seed of training; {dataset.attrs['num_masks']} random masks per cut-off",
        "none: one seed",
        "none; dashed: closed form for random positions",
    )


def _by_cut_off(ax: Axes, dataset: xr.Dataset) -> None:
    alpha = np.geomspace(0.07, 0.5, 80)
    entropy = -(alpha * np.log2(alpha) + (1 - alpha) * np.log2(1 - alpha)) / alpha
    style.theory_line(ax, alpha, np.array([bernoulli_gap_bits(float(a)) for a in alpha]), "Elias, closed form")
    ax.plot(alpha, entropy, color="0.5", linewidth=1.0, linestyle=":", label="entropy bound, random")
    ax.plot(alpha, 1 / alpha, color="0.5", linewidth=1.0, linestyle="-.")
    ax.plot(alpha, np.full(len(alpha), 32.0), color="0.5", linewidth=1.0)
    ax.text(0.095, 11.3, "bitmap", fontsize=7)
    ax.text(0.075, 33.5, "int32", fontsize=7)
    gaps = dataset.positions - 1
    for index, (name, bits) in enumerate(
        {
            "Elias, random": dataset.simulated_bits.mean("mask"),
            "Elias, trained": dataset.node_index_bits.mean("node"),
        }.items()
    ):
        look = style.STYLES[index]
        ax.plot(
            dataset.cut_off, bits / gaps, color=look.colour, marker=look.marker, markersize=4, linestyle="", label=name
        )
    ax.set(xscale="log", yscale="log", xlabel="cut-off α", ylabel="bits per position", ylim=(1.7, 42))
    ax.set_xticks([0.1, 0.2, 0.3, 0.4], ["0.1", "0.2", "0.3", "0.4"])
    ax.set_yticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
    ax.minorticks_off()
    style.title(ax, "One message")
    style.legend(ax, location="upper right", anchor=(1.03, 0.93))


def _through_training(ax: Axes, dataset: xr.Dataset) -> None:
    """Draw bits per gap of the messages between two records, relative to random positions."""
    gaps = (dataset.index_bits - HEADER * dataset.messages.sum("cut_off")).diff("record").values
    law = (dataset.expected_bits.sel(code="Elias gamma") * dataset.messages).sum("cut_off").diff("record").values
    x = dataset["round"].values[1:]
    style.band(ax, x, gaps / law, label="trained", style_index=1)
    style.theory_line(ax, x, np.ones(len(x)), "at random")
    ax.set(xlabel="round", ylabel="Elias bits over those of\npositions at random")
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0.9), max(high, 1.02))
    style.title(ax, f"{dataset.attrs['num_nodes']} nodes, {dataset.attrs['task']}, one seed")
    style.legend(ax)


def _parts(ax: Axes, dataset: xr.Dataset) -> None:
    messages, values = dataset.messages.isel(record=-1), float(dataset.value_bits.isel(record=-1))
    random = {str(code): float((dataset.expected_bits.sel(code=code) * messages).sum()) for code in dataset.code.values}
    header = HEADER * float(messages.sum())
    bars = [
        ("int32", random["int32"], "0.75"),
        ("bitmap", random["bitmap"], "0.75"),
        ("Elias, random", random["Elias gamma"] + header, style.STYLES[0].colour),
        ("Elias, trained", float(dataset.index_bits.isel(record=-1)), style.STYLES[1].colour),
        ("entropy bound", random["entropy bound"], "0.75"),
    ]
    for height, (_, bits, colour) in enumerate(reversed(bars)):
        percent = 100 * bits / (bits + values)
        ax.barh(height, percent, color=colour, height=0.7)
        ax.text(percent + 0.6, height, f"{percent:.1f}", va="center", fontsize=7)
    ax.set_yticks(range(len(bars)), [bar[0] for bar in reversed(bars)])
    ax.set(xlabel="positions, % of all bytes sent", xlim=(0, 43))
    ax.grid(axis="y", visible=False)
    style.title(ax, "The whole run")
