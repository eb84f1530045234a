"""Duration of a round of Plexus by sample size, for two laws of the training time, beside the published means."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import Caption, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left, middle: histograms by sample size, a panel per law. Right: share of rounds that take longer."""
    batches = dataset.time_batch.values.tolist()
    fig, axes = style.figure(1, len(batches) + 1, panel_height=2.8)
    edges = np.linspace(0.0, float(np.nanquantile(dataset.duration.values, 0.999)), 45)
    for ax, batch in zip(axes[0], batches, strict=False):
        _histograms(ax, dataset.sel(time_batch=batch), edges)
        style.title(ax, _law(batch))
    top = max(ax.get_ylim()[1] for ax in axes[0, : len(batches)])
    for ax in axes[0, : len(batches)]:
        ax.set_ylim(0, top)
    axes[0, 0].set_ylabel("share of rounds in 1 s (%)")
    style.legend(axes[0, 0], location="upper right")
    _tails(axes[0, -1], dataset)
    fig.suptitle(
        f"{dataset.attrs['num_nodes']} nodes, {dataset.attrs['parameters']:,} parameters, {dataset.attrs['data']}, "
        f"{dataset.sizes['seed']} seeds; dashed: the paper's means for samples of "
        + " and ".join(map(str, np.atleast_1d(dataset.attrs["paper_sizes"]))),
        fontsize=7.5,
        x=0.01,
        ha="left",
    )
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Duration of a round of Plexus by sample size, for two laws of the training time.",
        f"none: planned without learning; devices: {dataset.attrs['data']}",
        numbers([dataset.attrs["num_nodes"]]),
        f"{seeds_of(dataset)}, with all their rounds pooled",
        "none: histograms and shares of all rounds",
        "none; dashed: the paper's means, star: its share of slow rounds",
    )


def _law(batch: int) -> str:
    return "Training time by steps" if batch == 1 else f"By samples, batches of {batch}"


def _seconds(at: xr.Dataset) -> np.ndarray:
    seconds = at.duration.values.ravel()
    return seconds[np.isfinite(seconds)]


def _histograms(ax: Axes, dataset: xr.Dataset, edges: np.ndarray) -> None:
    for index, size in enumerate(dataset.sample_size.values.tolist()):
        look, seconds = style.STYLES[index], _seconds(dataset.sel(sample_size=size))
        shares, _ = np.histogram(seconds, edges)
        per_second = 100 * shares / seconds.size / np.diff(edges)
        ax.stairs(per_second, edges, color=look.colour, linestyle=look.line, label=f"s = {size}", linewidth=1.3)
        mean = float(seconds.mean())
        ax.plot(mean, 0.0, marker="^", color=look.colour, markersize=6, clip_on=False, zorder=4)
    for paper in np.atleast_1d(dataset.attrs["paper_means"]):
        ax.axvline(paper, color=style.THEORY, linestyle="--", linewidth=0.8)
    ax.set(xlabel="seconds per round (▲: mean)", xlim=(0, edges[-1]), ylim=(0, None))


def _tails(ax: Axes, dataset: xr.Dataset) -> None:
    for index, size in enumerate(dataset.sample_size.values.tolist()):
        for batch in dataset.time_batch.values.tolist():
            seconds = np.sort(_seconds(dataset.sel(sample_size=size, time_batch=batch)))
            above = 100 * (1 - np.arange(seconds.size) / seconds.size)
            first = batch == dataset.time_batch.values[0]
            ax.plot(seconds, above, color=style.STYLES[index].colour, linestyle="-" if first else ":", linewidth=1.2)
    point = dataset.attrs["slow_s"], 100 * dataset.attrs["paper_slow_share"]
    ax.plot(*point, marker="*", color=style.THEORY, markersize=7, linestyle="none")
    words = f"paper, s = {dataset.attrs['paper_slow_size']}"
    ax.annotate(words, point, (-4, -9), textcoords="offset points", fontsize=6.5, ha="right")
    ax.set(yscale="log", xlabel="seconds", ylabel="rounds that take longer (%)", xlim=(0, None))
    if dataset.sizes["time_batch"] > 1:
        ax.text(
            0.98,
            0.98,
            "solid: by steps\ndotted: by samples",
            transform=ax.transAxes,
            fontsize=6.5,
            va="top",
            ha="right",
        )
    style.title(ax, "Slow rounds")
