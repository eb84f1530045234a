"""The plot of a run: a panel per variable, with labelled bands over nodes and seeds."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator
from scipy import special

from gossipjax._base import palette
from gossipjax._base.arguments import choice, instance
from gossipjax._base.display import headline
from gossipjax._base.figure import Figure
from gossipjax.results._trajectory import configuration

HORIZONTAL = ("event", "round", "time", "bytes_sent")
"""Choices of the horizontal axis; ``round`` only for timelines of synchronous rounds."""

_COUNTERS = ("bytes_sent", "messages_sent", "gradient_calls")
_MOST_PANELS = 6
_LABEL_WIDTH = 32
_LINE, _SEEDS = palette.BLUE, palette.YELLOW
_BYTES = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("PB", 1e15))
_SECONDS = (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86400.0))
_ROUNDING = 1e-6
"""A first value below this fraction of all later ones counts as rounding error of nodes that start equal."""


class _Band(NamedTuple):
    """A shaded region with its label and style."""

    low: Float[np.ndarray, " record"]
    high: Float[np.ndarray, " record"]
    label: str
    colour: str
    opacity: float


class _Curve(NamedTuple):
    """One variable, reduced to a line and its bands."""

    line: Float[np.ndarray, " record"]
    label: str
    bands: tuple[_Band, ...]


class _Axis(NamedTuple):
    """Values along an axis, scaled to readable units, and the label with the units."""

    values: Float[np.ndarray, " record"]
    label: str


def plot_trajectory(dataset: xr.Dataset, *, variables: Sequence[str] | None = None, x: str = "event") -> Figure:
    """Draw one panel per variable of a trajectory.

    Over nodes (dimension ``statistic``): the mean, a dark band from the 10th to the 90th percentile, a light band from
    minimum to maximum. Over seeds: the mean and its 95 % t-interval. Bands over nodes are averaged over seeds.
    Non-negative variables whose mean spans more than two decades get a logarithmic axis. It omits zeros, and a first
    value that is rounding error, such as the consensus distance of nodes that start equal. Accuracies are in per cent.

    Args:
        dataset: the dataset of a :class:`gossipjax.Trajectory`.
        variables: names; None: the training loss and the variables of observers, up to six, or the bytes sent if there
            are no others.
        x: horizontal axis: ``event``, ``time`` or ``bytes_sent`` (averaged over seeds if they differ). If every event
            is a synchronous round, ``event`` is labelled round, and ``round`` is accepted too.

    Returns:
        The figure, which a notebook shows; write it with ``figure.savefig(path)``.

    Raises:
        TypeError: if dataset is not a dataset, or variables are not names.
        ValueError: if a variable or the axis is unknown, or a variable is not one curve per run.
    """
    instance("dataset", dataset, xr.Dataset, "pass trajectory.dataset, or call trajectory.plot()")
    names = _names_to_plot(dataset, variables)
    horizontal = _horizontal(dataset, x)
    columns = 2 if len(names) in (2, 4) else min(3, len(names))
    rows = -(-len(names) // columns)
    width = 4.6 if len(names) == 1 else 3.5 * columns
    figure = Figure(figsize=(width, 2.75 * rows + 0.7), dpi=160, layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for ax, name in zip(axes, names, strict=False):
        _panel(ax, horizontal, _scale(dataset[name]))
    for ax in axes[len(names) :]:
        ax.remove()
    _legend(figure, axes[: len(names)])
    figure.suptitle(textwrap.fill(headline(configuration(dataset)), 90), fontsize=9, color="0.35")
    return figure


def _curves(dataset: xr.Dataset) -> list[str]:
    """Return the variables that are one curve per run; seeds and statistics may add axes."""
    return [
        str(name)
        for name, variable in dataset.data_vars.items()
        if "record" in variable.dims and set(variable.dims) <= {"record", "seed", "statistic"}
    ]


def _names_to_plot(dataset: xr.Dataset, variables: Any) -> list[str]:
    curves = _curves(dataset)
    if not curves:
        raise ValueError("dataset holds no variable over records; pass the dataset of a trajectory")
    if variables is None:
        measured = [name for name in curves if name not in _COUNTERS and bool(dataset[name].notnull().any())]
        measured.sort(key=lambda name: name != "train_loss")
        return measured[:_MOST_PANELS] or [name for name in curves if name in _COUNTERS][:1]
    remedy = f"choose from {sorted(curves)}"
    instance("variables", variables, (str, list, tuple), remedy)
    names = [variables] if isinstance(variables, str) else list(variables)
    for number, name in enumerate(names):
        instance(f"variables[{number}]", name, str, remedy)
        if name not in curves:
            reason = "is not one curve per run" if name in dataset else "is not in this trajectory"
            raise ValueError(f"variable {name!r} {reason}; {remedy}")
    if not names:
        raise ValueError(f"variables is empty; {remedy}, or leave it out")
    return names


def _horizontal(dataset: xr.Dataset, x: Any) -> _Axis:
    rounds = bool(configuration(dataset).get("synchronous"))
    there = [name for name in HORIZONTAL if name in dataset.variables or (name == "round" and rounds)]
    x = choice("x", x, there)
    variable = dataset["event" if x == "round" else x]
    over_seeds = "seed" in variable.dims
    values = (variable.mean("seed") if over_seeds else variable).to_numpy().astype(np.float64)
    if not np.isfinite(values).any():
        raise ValueError(f"x={x!r} has no finite value in this trajectory; choose another of {there}")
    scale, units = _units(values, str(variable.attrs.get("units", "1")))
    name = {"event": "round" if rounds else "event", "time": "simulated time"}.get(x, x.replace("_", " "))
    differs = over_seeds and bool((variable.max("seed") > variable.min("seed")).any())
    name = f"{name}, mean over seeds" if differs else name
    return _Axis(values * scale, _wrap(name, units))


def _scale(variable: xr.DataArray) -> xr.DataArray:
    """Return a variable in readable units: accuracies in per cent, bytes and seconds with a prefix."""
    units = str(variable.attrs.get("units", "1"))
    if str(variable.name).endswith("accuracy") and units == "1":
        factor, units = 100.0, "%"
    else:
        factor, units = _units(variable.to_numpy(), units)
    return (variable.astype(np.float64) * factor).assign_attrs(variable.attrs | {"units": units})


def _units(values: np.ndarray, units: str) -> tuple[float, str]:
    """Return the factor and unit that keep the largest value readable."""
    steps = {"B": _BYTES, "s": _SECONDS}.get(units)
    finite = np.abs(values[np.isfinite(values)])
    if steps is None or finite.size == 0:
        return 1.0, units
    # At least two of the larger unit: "72 s" reads better than "1.2 min".
    fitting = [step for step in steps if finite.max() >= 2.0 * step[1]]
    name, size = fitting[-1] if fitting else steps[0]
    return 1.0 / size, name


def _reduce(variable: xr.DataArray) -> _Curve:
    """Compute the mean and the bands over nodes and seeds."""
    seeds = variable.sizes.get("seed", 1)
    by_seed = variable if "seed" in variable.dims else variable.expand_dims("seed")
    if "statistic" not in variable.dims:
        line, half = _interval(by_seed.transpose("record", "seed").to_numpy())
        return _Curve(line, f"mean of {seeds} seeds" if seeds > 1 else "", _seed_band(line, half, seeds))
    named = {str(name): by_seed.sel(statistic=name) for name in variable["statistic"].to_numpy()}
    line, half = _interval(named["mean"].transpose("record", "seed").to_numpy())
    edges = {name: _interval(values.transpose("record", "seed").to_numpy())[0] for name, values in named.items()}
    over = " (mean of seeds)" if seeds > 1 else ""
    label = f"mean of {seeds} seeds" if seeds > 1 else "mean over nodes"
    bands = (
        _Band(edges["min"], edges["max"], f"minimum to maximum over nodes{over}", _LINE, 0.13),
        _Band(edges["p10"], edges["p90"], f"10th to 90th percentile over nodes{over}", _LINE, 0.27),
    )
    return _Curve(line, label, bands + _seed_band(line, half, seeds))


def _interval(values: Float[np.ndarray, "record seed"]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over seeds and the half-width of its 95 % t-interval, over the seeds that have a value."""
    count = np.sum(np.isfinite(values), axis=1)
    with warnings.catch_warnings():
        # If no seed has a value at a record, such as the training loss at the start, the curve has a gap.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.nanmean(values, axis=1)
        error = np.nanstd(values, axis=1, ddof=1) / np.sqrt(count)
        return mean, special.stdtrit(count - 1, 0.975) * error


def _seed_band(line: np.ndarray, half: np.ndarray, seeds: int) -> tuple[_Band, ...]:
    if seeds < 2:
        return ()
    return (_Band(line - half, line + half, f"95 % t-interval of the mean, {seeds} seeds", _SEEDS, 0.45),)


def _panel(ax: Axes, horizontal: _Axis, variable: xr.DataArray) -> None:
    curve = _reduce(variable)
    units = str(variable.attrs["units"])
    there = np.isfinite(curve.line) & np.isfinite(horizontal.values)
    rounding = _is_rounding(np.where(there, curve.line, np.nan))
    logarithmic = units != "%" and _spans_decades(curve.line[there & ~rounding])
    there &= (curve.line > 0) & ~rounding if logarithmic else (curve.line == 0) | ~rounding
    x, line = horizontal.values[there], curve.line[there]
    for band in curve.bands:
        low, high = band.low[there], band.high[there]
        # A symmetric interval may reach below zero, which a logarithmic axis cannot show.
        low = np.maximum(low, line.min() / 10) if logarithmic else low
        ax.fill_between(x, low, high, color=band.colour, alpha=band.opacity, linewidth=0, label=band.label)
    marker = "o" if len(x) <= 30 else ""
    ax.plot(x, line, color=_LINE, linewidth=1.4, marker=marker, markersize=2.8, label=curve.label or "_line")
    ax.set_yscale("log" if logarithmic else "linear")
    if units == "%":
        bottom, top = ax.get_ylim()
        ax.set_ylim(max(bottom, 0.0), min(top, 100.0))
    ax.set_title(_sentence(str(variable.name).replace("_", " ")), fontsize=10, loc="left")
    ax.set_xlabel(horizontal.label, fontsize=9)
    ax.set_ylabel(_wrap(str(variable.attrs.get("long_name", variable.name)), units), fontsize=9)
    _finish(ax, horizontal, logarithmic)


def _is_rounding(line: np.ndarray) -> np.ndarray:
    """Mark the first value if it is so far below all later ones that it is zero up to rounding."""
    marked = np.zeros(line.size, bool)
    later = line[1:][np.isfinite(line[1:])]
    marked[:1] = later.size > 0 and 0 <= line[0] < _ROUNDING * later.min()
    return marked


def _spans_decades(line: np.ndarray) -> bool:
    positive = line[line > 0]
    return bool(positive.size and np.all(line >= 0) and positive.max() > 100.0 * positive.min())


def _finish(ax: Axes, horizontal: _Axis, logarithmic: bool) -> None:
    ax.tick_params(labelsize=8)
    ax.grid(True, which="major", color="0.88", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    # Give all panels the same horizontal range: some variables, such as the training loss, lack the first record.
    ax.update_datalim(np.column_stack([horizontal.values[np.isfinite(horizontal.values)]] * 2), updatey=False)
    ax.autoscale_view(scaley=False)
    largest = np.nanmax(np.abs(horizontal.values), initial=0.0)
    if largest >= 1e4:
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    elif horizontal.label in ("event", "round"):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if not logarithmic:
        ax.ticklabel_format(axis="y", useMathText=True, scilimits=(-3, 4))
        ax.yaxis.get_offset_text().set_fontsize(8)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Put one legend for all panels below them."""
    entries = [entry for ax in axes for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    by_label = {label: handle for handle, label in reversed(entries)}
    if by_label:
        labels = sorted(by_label, key=lambda label: not isinstance(by_label[label], Line2D))
        columns = 2 if figure.get_figwidth() > 6 else 1
        handles = [by_label[label] for label in labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _wrap(name: str, units: str) -> str:
    """Wrap a label to the panel's width, in as few lines as possible, of about equal length."""
    text = name if units in ("1", "") else f"{name} ({units})"
    fewest = len(textwrap.wrap(text, _LABEL_WIDTH))
    widths = range(len(text) // max(fewest, 1), _LABEL_WIDTH + 1)
    return next((textwrap.fill(text, w) for w in widths if w > 0 and len(textwrap.wrap(text, w)) == fewest), text)
