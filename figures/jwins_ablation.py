"""Score of JWINS and of its variants against bytes, and at equal rounds and bytes with intervals."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, RANGE, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """A row for each task. Left: against bytes. Middle: against time. Right: at equal rounds and at equal bytes."""
    fig, axes = style.figure(dataset.sizes["task"], 3, panel_height=2.8)
    for row, task in zip(axes, dataset.task.values, strict=True):
        at = dataset.sel(task=task).dropna("record", how="all", subset=["score"])
        _curves(row[0], at, "megabytes", "MB sent per node")
        _curves(row[1], at, "clock", "simulated time (s)")
        _ends(row[2], at)
        row[0].set_ylabel(f"{_name(at)}, mean over nodes")
        style.title(row[0], f"{task}, {dataset.attrs['num_nodes']} nodes")
        number = at.sizes["seed"]
        style.title(row[1], "one seed" if number == 1 else f"bands: range over {number} seeds")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=7, frameon=False)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    tasks = [dataset.sel(task=task) for task in dataset.task.values]
    return Caption(
        "Score against bytes and time, and the difference from JWINS if one part is replaced.",
        "; ".join(f"{at.task.values}: {at.data.values}" for at in tasks),
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        bands(dataset, f"curves: {RANGE}; bars on the right: {INTERVAL}"),
        "none; dashed: no difference",
    )


def _name(at: xr.Dataset) -> str:
    return f"test {at.metric.values!s}{' (%)' if int(at.sign) > 0 else ''}"


def _scaled(at: xr.Dataset, values: np.ndarray) -> np.ndarray:
    return 100 * values if int(at.sign) > 0 else values


def _curves(ax: Axes, at: xr.Dataset, cost: str, label: str) -> None:
    for index, name in enumerate(at.variant.values):
        one = at.sel(variant=name)
        scores = _scaled(one, one.score.transpose("record", "seed").values)
        x, low, high = one[cost].mean("seed").values, scores.min(axis=1), scores.max(axis=1)
        style.band(ax, x, scores.mean(axis=1), low=low, high=high, label=str(name), style_index=index)
    ends = _scaled(at, at.score.isel(record=-1).values)
    spread = max(float(np.ptp(ends)), 0.02 * abs(float(ends.mean())))
    low, high = float(ends.min()) - 3 * spread, float(ends.max()) + spread
    ax.set(xlabel=label, ylim=(low, high) if int(at.sign) > 0 else (float(ends.min()) - spread, high + 2 * spread))


def _ends(ax: Axes, at: xr.Dataset) -> None:
    """Draw differences from JWINS, seed by seed with intervals, at equal rounds and at equal bytes."""
    names = [str(name) for name in at.variant.values]
    for index, name in enumerate(names[1:], start=1):
        look, height = style.STYLES[index], len(names) - 1 - index
        for shift, scores in ((0.13, at.score.isel(record=-1)), (-0.13, at.score_at_equal)):
            difference = _scaled(at, (scores.sel(variant=name) - scores.isel(variant=0)).values)
            mean, half = mean_and_interval(difference)
            ax.errorbar(
                mean,
                height + shift,
                xerr=None if np.isnan(half) else half,
                color=look.colour,
                marker=look.marker,
                markersize=4.5,
                markerfacecolor=look.colour if shift > 0 else "white",
                capsize=2,
                linewidth=1.0,
            )
    ax.axvline(0, color=style.THEORY, linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(names) - 1), names[:0:-1])
    ax.set(xlabel=f"difference from {names[0]}{' (points)' if int(at.sign) > 0 else ''}", ylim=(-1.5, len(names) - 1.5))
    ax.grid(axis="y", visible=False)
    error = "± 95 % over seeds" if at.sizes["seed"] > 1 else "one seed: no intervals"
    ax.text(0.02, 0.02, f"filled: equal rounds\nopen: equal bytes\n{error}", transform=ax.transAxes, fontsize=6.5)
    better = "→" if int(at.sign) > 0 else "←"
    style.title(ax, f"One part replaced (better {better})")
