"""Score of JWINS and CHOCO-SGD at low budgets against bytes and time, and the grids of their tuning."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures.lib import style
from figures.lib.caption import RANGE, Caption, bands, numbers, seeds_of

REFERENCE = 2


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a row per budget: score against bytes, score against time, and the grids of both schemes."""
    fig, axes = style.figure(dataset.sizes["budget"], 4, panel_height=2.5)
    for row, budget in zip(axes, dataset.budget.values, strict=True):
        at = dataset.sel(budget=budget)
        _curves(row[0], at, "megabytes", "MB sent per node")
        _curves(row[1], at, "clock", "simulated time (s)")
        row[0].set_ylabel(f"test {at.attrs['metric']}{' (%)' if at.attrs['sign'] > 0 else ''}")
        style.title(row[0], f"budget {budget:.0%}, {dataset.attrs['num_nodes']} nodes")
        number = at.sizes["seed"]
        style.title(row[1], "one seed" if number == 1 else f"range of {number} seeds")
        lowest, highest = _range(at)
        for ax, scheme in zip(row[2:], at.scheme.values, strict=True):
            _grid(ax, at.sel(scheme=scheme), str(scheme), lowest, highest)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    targets = [(budget, dataset.sel(budget=budget)) for budget in dataset.budget.values]
    words = [f"{float(_shown(at, at.target.values)):.4g} at a budget of {budget:.0%}" for budget, at in targets]
    share = f"{dataset.attrs['target_share']:.0%} of the weaker scheme's gain"
    return Caption(
        "Score against bytes and simulated time, and the grids of the tuning, with a row per budget.",
        f"{dataset.attrs['task']}: {dataset.attrs['data']}",
        numbers([dataset.attrs["num_nodes"]]),
        f"{seeds_of(dataset)}; the grids: 1 seed",
        bands(dataset, RANGE),
        f"{', '.join(words)} ({dataset.attrs['metric']}): {share}",
    )


def _shown(at: xr.Dataset, score: np.ndarray) -> np.ndarray:
    """Undo the change of sign that makes higher better, and convert shares to per cent."""
    return 100 * score if at.attrs["sign"] > 0 else -score


def _curves(ax: Axes, at: xr.Dataset, cost: str, label: str) -> None:
    for index, scheme in enumerate(at.scheme.values):
        one = at.sel(scheme=scheme)
        _one_curve(ax, at, one[cost], one.score, str(scheme), index)
    _one_curve(ax, at, at[f"full_{cost}"], at.full_score, "full sharing", REFERENCE)
    target = float(_shown(at, at.target.values))
    ax.axhline(target, color="0.45", linewidth=0.8, linestyle=":", label="_target")
    ax.text(0.99, target, f"target {target:.3g}", transform=ax.get_yaxis_transform(), fontsize=6, ha="right", va="top")
    ends = float(at[cost].isel(record=-1).max())
    # Full sharing continues to the right; it is shown up to twice the end of the others.
    ax.set(xlabel=label, xlim=(0, 2.0 * ends if cost == "megabytes" else None), ylim=_limits(at))


def _limits(at: xr.Dataset) -> tuple[float, float]:
    """Return limits around all scores after the first twentieth of the run, in which all rise steeply."""
    later = slice(at.sizes["record"] // 20, None)
    shown = [_shown(at, score.isel(record=later).values).ravel() for score in (at.score, at.full_score)]
    least, most = (float(edge(np.concatenate(shown))) for edge in (np.nanmin, np.nanmax))
    margin = 0.04 * (most - least)
    return least - margin, most + margin


def _one_curve(ax: Axes, at: xr.Dataset, cost: xr.DataArray, score: xr.DataArray, name: str, index: int) -> None:
    shown = _shown(at, score.transpose("record", "seed").values)
    x, low, high = cost.transpose("record", "seed").values.mean(axis=1), shown.min(axis=1), shown.max(axis=1)
    style.band(ax, x, shown.mean(axis=1), low=low, high=high, label=name, style_index=index)


def _range(at: xr.Dataset) -> tuple[float, float]:
    """Return a common colour scale for the grids of both schemes, from the lowest score to the highest."""
    values = _shown(at, at.grid_score.values)
    values = values[np.isfinite(values)]
    return float(values.min()), float(values.max())


def _grid(ax: Axes, at: xr.Dataset, scheme: str, lowest: float, highest: float) -> None:
    """Draw final scores of the tuning, darker for better; a frame marks the best that did not collapse later (†)."""
    shown = _shown(at, at.grid_score.transpose("setting", "rate").values)
    finite = np.isfinite(shown)
    colours = "Blues" if at.attrs["sign"] > 0 else "Blues_r"
    ax.imshow(np.where(finite, shown, np.nan), cmap=colours, vmin=lowest, vmax=highest, aspect="auto", origin="lower")
    middle, passed = (lowest + highest) / 2, int(at.passed_over)
    ranks = np.argsort(np.argsort(np.where(finite, -at.attrs["sign"] * shown, np.inf), axis=None, kind="stable"))
    for row, column in np.ndindex(*shown.shape):
        dark = (shown[row, column] > middle) == (at.attrs["sign"] > 0)
        words = f"{shown[row, column]:.3g}" if finite[row, column] else "div."
        words += " †" if ranks.reshape(shown.shape)[row, column] < passed else ""
        colour = "white" if dark and finite[row, column] else "black"
        ax.text(column, row, words, ha="center", va="center", fontsize=7, color=colour)
    row = int(np.argmin(np.abs(at.setting_value.values - float(at.chosen_setting))))
    column = int(np.argmin(np.abs(at.rate_value.values - float(at.chosen_rate))))
    ax.add_patch(_frame(row, column))
    ax.set_xticks(range(shown.shape[1]), [f"{rate:g}" for rate in at.rate_value.values])
    ax.set_yticks(range(shown.shape[0]), [f"{setting:g}" for setting in at.setting_value.values])
    ax.set(xlabel="learning rate", ylabel="γ" if scheme == "CHOCO-SGD" else "bytes in whole models")
    ax.grid(visible=False)
    style.title(ax, f"{scheme} († collapsed)" if passed else f"{scheme}, tuning")


def _frame(row: int, column: int) -> Rectangle:
    colour = style.STYLES[1].colour
    return Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=colour, linewidth=1.6)
