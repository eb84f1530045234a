"""HADFL and its baselines: accuracy against time and bytes, and the components of the speed-ups."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import INTERVAL, RANGE, Caption, bands, numbers, seeds_of
from figures.lib.plexus_curves import on_one_axis
from theory.check.policy import interval

COSTS = (("time", 1.0, "simulated seconds"), ("bytes", 2.0**30, "GiB sent"))
FACTORS = ("time", "samples per second", "samples needed")


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a row per array of powers: accuracy against seconds and GiB; the speed-up of HADFL and its two factors."""
    fig, axes = style.figure(dataset.sizes["powers"], 3, panel_height=2.6)
    for row, powers in zip(axes, dataset.powers.values, strict=True):
        at = dataset.sel(powers=powers)
        for ax, name, unit, label in zip(
            row, ("time", "bytes"), (1.0, 2.0**30), ("simulated seconds", "GiB sent"), strict=False
        ):
            _curves(ax, at, name, unit)
            ax.axhline(100 * float(at.target), color="0.45", linewidth=0.8, linestyle=":")
            ax.set(xlabel=label, xscale="linear" if name == "time" else "log", ylim=_range(at))
        row[0].set_ylabel("test accuracy (%)")
        _factors(row[2], at, _maxima(dataset))
        style.title(row[0], f"powers {powers}")
        style.title(row[1], f"messages of {dataset.attrs['model_bytes'] / 1e6:.3g} MB")
        style.title(row[2], "HADFL over …")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    goals = ", ".join(
        f"{float(dataset.target.sel(powers=powers)):.4g} for {powers}" for powers in dataset.powers.values
    )
    return Caption(
        "Accuracy of the global model against simulated seconds and bytes. Bars: how many times sooner HADFL reaches "
        "the target, the ratio of samples per second, and the inverse ratio of samples until the target; the first is "
        "about the product of the others. Crosses: the paper's maxima, reported of the time to the best accuracy with "
        "ResNet-18 and VGG-16. Dashes: bound on the ratio of samples per second against a barrier, if communication "
        "is free. Devices, network, N_p and β are our choice.",
        f"{dataset.attrs['data']}, {dataset.attrs['bytes_per_second'] / 1e6:g} MB/s",
        f"{numbers([dataset.attrs['num_nodes']])}, N_p = {dataset.attrs['members']}",
        seeds_of(dataset),
        f"curves: {bands(dataset, RANGE)}; bars: {bands(dataset, INTERVAL)}",
        f"{goals}: 95 % of the best accuracy that all schemes of the paper reach (dotted)",
    )


def _maxima(dataset: xr.Dataset) -> dict[str, float]:
    """Return the paper's maxima; a file stores a list of one entry as that entry."""
    names, values = (np.atleast_1d(dataset.attrs[name]) for name in ("compared", "maxima"))
    return dict(zip(names.tolist(), values.tolist(), strict=True))


def _range(at: xr.Dataset) -> tuple[float, float]:
    """Return limits around all accuracies after a sixth of the time."""
    later = at.score.where(at.time >= at.time.max() / 6)
    low, high = 100 * float(later.min()), 100 * float(at.score.max())
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _curves(ax: Axes, at: xr.Dataset, name: str, unit: float) -> None:
    for index, scheme in enumerate(at.scheme.values):
        run = at.sel(scheme=scheme)
        costs, scores = (run[field].transpose("seed", "record").values for field in (name, "score"))
        x, mean, low, high = on_one_axis(costs / unit, 100 * scores)
        bounds = {"low": low, "high": high} if len(scores) > 1 else {}
        style.band(ax, x, mean, **bounds, label=str(scheme), style_index=index, markers=5)


def _factors(ax: Axes, at: xr.Dataset, maxima: dict[str, float]) -> None:
    """Draw the ratio of times and its factors, with the bound on the first factor."""
    top = 1.0
    for index, (name, claimed) in enumerate(maxima.items()):
        ratios = (at.time_ratio, at.rate_ratio, at.samples_ratio)
        for k, values in enumerate(ratios):
            look, (mean, half) = style.STYLES[k], interval(values.sel(scheme=name).values)
            place = index + 0.25 * (k - 1)
            if np.isfinite(mean):
                ax.bar(place, mean, 0.22, color=look.colour, label=FACTORS[k] if index == 0 else None)
                top = max(top, mean)
                if np.isfinite(half):
                    ax.errorbar(place, mean, half, color=style.THEORY, linewidth=0.9, capsize=2)
            else:
                ax.annotate("missed", (place, 0.1), rotation=90, ha="center", fontsize=7)
        ax.plot(index - 0.25, claimed, "x", color=style.THEORY, markersize=5)
        if index == 0:  # the bound is on samples per second, against a barrier
            ax.hlines(float(at.bound), -0.13, 0.13, color=style.THEORY, linewidth=1.2, linestyle="--")
    ax.axhline(1.0, color="0.45", linewidth=0.8)
    ax.set_xticks(range(len(maxima)), [name.replace(" ", "\n", 1) for name in maxima])
    ax.set(ylabel="ratio", ylim=(0, 1.4 * max(top, *maxima.values())))
    style.legend(ax, location="upper left")
