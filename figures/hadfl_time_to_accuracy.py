"""HADFL and its baselines: accuracy against time and bytes, and what the speed-ups are made of."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.hadfl_time_to_accuracy import MAXIMUM, rates_of, spent, target
from experiments.lib.hadfl_runs import HADFL
from figures.lib import style
from figures.lib.caption import INTERVAL, RANGE, Caption, bands, numbers, seeds_of
from figures.lib.plexus_curves import on_one_axis
from theory.check.policy import interval

COSTS = (("time", 1.0, "simulated seconds"), ("bytes", 2.0**30, "GiB sent"))
FACTORS = ("time", "samples a second", "samples needed")


def draw(dataset: xr.Dataset) -> Figure:
    """One row per array of powers: accuracy against seconds and GiB; the speed-up of HADFL, and its two factors."""
    made, axes = style.figure(dataset.sizes["powers"], 3, panel_height=2.6)
    for row, powers in zip(axes, dataset.powers.values, strict=True):
        at = dataset.sel(powers=powers)
        for ax, name, unit, label in zip(
            row, ("time", "bytes"), (1.0, 2.0**30), ("simulated seconds", "GiB sent"), strict=False
        ):
            _curves(ax, at, name, unit)
            ax.axhline(100 * target(at), color="0.45", linewidth=0.8, linestyle=":")
            ax.set(xlabel=label, xscale="linear" if name == "time" else "log", ylim=_range(at))
        row[0].set_ylabel("test accuracy (%)")
        _factors(row[2], at)
        style.title(row[0], f"powers {powers}")
        style.title(row[1], f"messages of {dataset.attrs['model_bytes'] / 1e6:.3g} MB")
        style.title(row[2], "HADFL over …")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    return made


def caption(dataset: xr.Dataset) -> Caption:
    """Say what the picture is made of."""
    goals = ", ".join(f"{target(dataset.sel(powers=powers)):.4g} for {powers}" for powers in dataset.powers.values)
    return Caption(
        "Accuracy of the global model against simulated seconds and bytes; how many times sooner HADFL reaches the "
        "target, its samples a second over the other's, and the other's samples until the target over its own: the "
        "first is the product of the others, about. Crosses: the paper's maxima, of the time to the best accuracy with "
        "ResNet-18 and VGG-16. Dashes: what computing alone allows against a barrier. Devices and network are ours.",
        f"{dataset.attrs['data']}, {dataset.attrs['bytes_per_second'] / 1e6:g} MB/s",
        f"{numbers([dataset.attrs['num_nodes']])}, N_p = {dataset.attrs['members']}",
        seeds_of(dataset),
        f"curves: {bands(dataset, RANGE)}; bars: {bands(dataset, INTERVAL)}",
        f"{goals}: 95 % of the best that all schemes of the paper reach (dotted)",
    )


def _range(at: xr.Dataset) -> tuple[float, float]:
    """From a little below the lowest accuracy in the second half of the run to a little above the highest."""
    half = at.score.isel(record=slice(at.sizes["record"] // 6, None))
    low, high = 100 * float(half.min()), 100 * float(at.score.max())
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _curves(ax: Axes, at: xr.Dataset, name: str, unit: float) -> None:
    for index, scheme in enumerate(at.scheme.values):
        run = at.sel(scheme=scheme)
        costs, scores = (run[field].transpose("seed", "record").values for field in (name, "score"))
        x, mean, low, high = on_one_axis(costs / unit, 100 * scores)
        bounds = {"low": low, "high": high} if len(scores) > 1 else {}
        style.band(ax, x, mean, **bounds, label=str(scheme), style_index=index, markers=5)


def _factors(ax: Axes, at: xr.Dataset) -> None:
    goal, others = target(at), [str(name) for name in at.scheme.values if name in MAXIMUM]
    own, own_rate = spent(at, HADFL, goal), rates_of(at, HADFL)
    for index, name in enumerate(others):
        other = spent(at, name, goal)
        ratios = (other["time"] / own["time"], own_rate / rates_of(at, name), other["samples"] / own["samples"])
        for k, values in enumerate(ratios):
            look, (mean, half) = style.STYLES[k], interval(values)
            known = np.isfinite(mean)
            place = index + 0.25 * (k - 1)
            ax.bar(place, mean if known else 0.0, 0.22, color=look.colour, label=FACTORS[k] if index == 0 else None)
            if known and np.isfinite(half):
                ax.errorbar(place, mean, half, color=style.THEORY, linewidth=0.9, capsize=2)
        ax.plot(index - 0.25, MAXIMUM[name], "x", color=style.THEORY, markersize=5)
    ax.axhline(1.0, color="0.45", linewidth=0.8)
    ax.axhline(float(at.bound), color=style.THEORY, linewidth=0.9, linestyle="--")
    ax.set_xticks(range(len(others)), [name.replace(" ", "\n", 1) for name in others])
    ax.set(ylabel="ratio", ylim=(0, 1.5 * max(MAXIMUM.values())))
    style.legend(ax, location="upper left")
