"""Throughput of HADFL, relative to data parallelism and FedAvg, against bandwidth, beside the paper's maxima."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import RANGE, Caption, bands, numbers, seeds_of

TOP = 30.0
"""Larger speed-ups are outside the figure."""


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a row per reference and a column per array of powers."""
    arrays, others = dataset.array.values, dataset.system.values
    fig, axes = style.figure(len(others), len(arrays), panel_height=2.3, sharex=True)
    for row, system in zip(axes, others, strict=True):
        for ax, array in zip(row, arrays, strict=True):
            _speedups(ax, dataset.sel(system=system, array=array))
            style.title(ax, f"Over {system}, {array}")
        row[0].set_ylabel("speed-up in samples/s")
    for ax in axes[-1]:
        ax.set_xlabel("bandwidth (MB/s; ∞: free network)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7, frameon=False, columnspacing=1.2)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    maxima = " and ".join(
        f"{value:g} over {name}" for name, value in zip(dataset.system.values, dataset.paper.values, strict=True)
    )
    return Caption(
        "Samples per second of HADFL, divided by those of data parallelism with an all-reduce after every step, "
        "and of decentralized FedAvg with as many local steps as the slowest device makes in a cycle. Steps: of that "
        "device in a cycle. Dashes: the bound Σp/(n min p) of a free network. Dotted: the abstract's maxima, "
        f"{maxima}, which are of time to accuracy, not of throughput, and of arrays, models and networks that we do "
        "not know; where curves are above them, the network may explain them. Plans of HADFL: "
        f"{dataset.attrs['note']}; rings of {dataset.attrs['ring_size']}, batches of {dataset.attrs['batch']}, and an "
        f"assumed {1e3 * dataset.attrs['sample_s']:g} ms per sample on the fastest device.",
        "none: planned without learning; message sizes of "
        + ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in _sizes(dataset)),
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, RANGE),
        "none; lines: bound and the paper's maxima",
    )


def _sizes(dataset: xr.Dataset) -> list[tuple[str, float]]:
    return list(zip(dataset.model.values.tolist(), dataset.model_bytes.values.tolist(), strict=True))


def _speedups(ax: Axes, at: xr.Dataset) -> None:
    finite = np.isfinite(at.bandwidth.values)
    x = at.bandwidth.values / 1e6
    edge = 10 * x[finite].max()  # position of the free network
    x = np.where(finite, x, edge)
    index = 0
    for model in at.model.values:
        for steps in at.steps.values.tolist():
            seeds = at.speedup.sel(model=model, steps=steps).transpose("seed", "bandwidth").values
            label = f"{model}, {steps} steps"
            style.band(
                ax, x, seeds.mean(0), low=seeds.min(0), high=seeds.max(0), label=label, style_index=index, markers=20
            )
            index += 1
    ax.axhline(float(at.bound), color=style.THEORY, linestyle="--", linewidth=1.0, label="bound, free network")
    ax.axhline(float(at.paper), color=style.THEORY, linestyle=":", linewidth=1.2, label="paper's maximum")
    for level, aside in ((float(at.paper), 2), (float(at.bound), -8)):
        ax.annotate(f"{level:g}", (edge, level), (0, aside), textcoords="offset points", fontsize=7, ha="right")
    ax.set(xscale="log", yscale="log", ylim=(1.5, TOP))
    ax.set_yticks([2, 3, 5, 10, 20], ["2", "3", "5", "10", "20"])
    ticks = [10.0**k for k in range(int(np.log10(x.min())), int(np.log10(edge)))]
    names = [f"{tick:g}" if tick < 1e4 else f"$10^{int(np.log10(tick))}$" for tick in ticks]
    ax.set_xticks([*ticks, edge], [*names, "∞"])
    ax.minorticks_off()
