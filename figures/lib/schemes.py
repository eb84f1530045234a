"""Code that figures of sharing schemes share: a style per scheme, printed scores, and curves with bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.lib.store import mean_and_interval
from figures.lib import style

_ORDER = ("JWINS", "full sharing", "random sampling", "top-k")


def style_of(name: str) -> int:
    """Return the index of the style that a scheme has in all figures."""
    return _ORDER.index(name)


def is_accuracy(at: xr.Dataset) -> bool:
    """Return whether scores are accuracies rather than errors."""
    return metric(at) == "accuracy"


def metric(at: xr.Dataset) -> str:
    """Return the metric of a dataset that has only one."""
    (name,) = np.unique(at.metric.values)
    return str(name)


def label(at: xr.Dataset) -> str:
    """Return the label of the vertical axis of scores."""
    return "test accuracy (%)" if is_accuracy(at) else f"test {metric(at).upper()}"


def printed(at: xr.Dataset) -> xr.DataArray:
    """Return mean scores over nodes in the form in which they are printed: accuracies in %."""
    return (100.0 if is_accuracy(at) else 1.0) * at.score.sel(statistic="mean")


def interval_in_words(at: xr.Dataset) -> str:
    """Describe bands and bars."""
    count = at.sizes["seed"]
    return "one seed" if count == 1 else f"mean and 95 % interval, {count} seeds"


def curve(ax: Axes, at: xr.Dataset, name: str, x: np.ndarray, *, text: str | None = None) -> None:
    """Draw the mean score of a scheme over seeds, with its interval, from the first record after the start on."""
    values = printed(at).sel(scheme=name).transpose("record", "seed").values
    mean, half = mean_and_interval(values, axis=1)
    band = None if at.sizes["seed"] == 1 else half[1:]
    style.band(ax, x[1:], mean[1:], band, label=text or name, style_index=style_of(name), markers=7)


def _level(at: xr.Dataset) -> float:
    return (100.0 if is_accuracy(at) else 1.0) * float(at.target)


def target_in_words(at: xr.Dataset) -> str:
    """Describe the target, which is 95 % of the gain of full sharing."""
    unit = " % accuracy" if is_accuracy(at) else f" {metric(at)}"
    return f"{_level(at):.4g}{unit}, 95 % of the gain of full sharing"


def target_line(ax: Axes, at: xr.Dataset) -> None:
    """Draw the target."""
    level = _level(at)
    ax.axhline(level, color="0.45", linewidth=0.8, linestyle=":")
    ax.text(
        0.01, level, f"target {level:.3g}", transform=ax.get_yaxis_transform(), fontsize=6, color="0.35", va="bottom"
    )


def limits(at: xr.Dataset) -> tuple[float, float]:
    """Choose the range of scores of all curves, from the first record after the start on."""
    mean = printed(at).mean("seed").isel(record=slice(1, None))
    low, high = float(mean.min()), float(mean.max())
    return low - 0.06 * (high - low), high + 0.1 * (high - low)


def megabyte_axis(ax: Axes) -> None:
    """Format a horizontal axis of bytes: logarithmic, with plain numbers that do not overlap."""
    ax.set(xscale="log", xlabel="MB sent per node")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def spent(at: xr.Dataset, name: str, variable: str) -> np.ndarray:
    """Return bytes or seconds of a scheme at each record, averaged over nodes and seeds."""
    return at[variable].sel(scheme=name, statistic="mean").mean("seed").values


def common_legend(fig: Figure, ax: Axes) -> None:
    """Put the legend of one panel below all panels."""
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=7, frameon=False)


def dots(ax: Axes, x: Any, values: np.ndarray, index: int, *, filled: bool = True, text: str | None = None) -> None:
    """Draw means of ``(points, seeds)`` with 95 % bars; one seed has no bars."""
    mean, half = mean_and_interval(values, axis=1)
    chosen = style.STYLES[index]
    ax.errorbar(
        x,
        mean,
        yerr=None if values.shape[1] == 1 else half,
        color=chosen.colour,
        linestyle="none",
        marker=chosen.marker,
        markersize=4.5,
        markerfacecolor=chosen.colour if filled else "white",
        capsize=2,
        linewidth=1.0,
        label=text,
    )
