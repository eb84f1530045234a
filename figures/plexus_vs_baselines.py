"""Accuracy of Plexus, federated learning and decentralized baselines against hours, bytes and training hours."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from figures.lib import style
from figures.lib.caption import RANGE, Caption, bands, numbers, seeds_of
from figures.lib.plexus_curves import on_one_axis

AXES = (("time", 3600.0, "simulated hours"), ("bytes", 2.0**30, "GiB sent"), ("training", 3600.0, "training hours"))


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a row per task and a panel per cost; bands are the range over seeds, dotted lines the target."""
    tasks = dataset.task.values.tolist()
    fig, axes = style.figure(len(tasks), 3, panel_height=2.5)
    for row, task in zip(axes, tasks, strict=True):
        at = _seeds_run(dataset.sel(task=task))
        for ax, (name, unit, label) in zip(row, AXES, strict=True):
            _panel(ax, at, name, unit)
            ax.axhline(_target(at, dataset.attrs["target_of"]), color="0.45", linewidth=0.8, linestyle=":")
            ax.set(xlabel=label, xscale="linear" if name == "time" else "log", ylim=_range(at))
            ax.xaxis.set_minor_formatter(NullFormatter())
        _words(row, at, str(task))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=7, frameon=False)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    tasks = [_seeds_run(dataset.sel(task=task)) for task in dataset.task.values]
    targets = [_target(at, dataset.attrs["target_of"]) for at in tasks]
    return Caption(
        "Score against hours, bytes and training hours of Plexus, a server and decentralized baselines.",
        "; ".join(f"{at.task.values}: {at.data.item()}, devices: {at.devices.item()}" for at in tasks),
        "; ".join(f"{at.task.values}: {numbers([int(at.num_nodes)])}" for at in tasks),
        "; ".join(f"{at.task.values}: {seeds_of(at)}" for at in tasks),
        "; ".join(f"{at.task.values}: {bands(at, RANGE)}" for at in tasks),
        "; ".join(f"{at.task.values}: {target:.4g}" for at, target in zip(tasks, targets, strict=True))
        + ", the best score of the best baseline (dotted)",
    )


def _seeds_run(at: xr.Dataset) -> xr.Dataset:
    """Remove seeds that only other tasks have."""
    return at.isel(seed=at.score.notnull().any(["system", "record"]).values)


def _words(row: np.ndarray, at: xr.Dataset, task: str) -> None:
    percent = at.metric.item() == "accuracy"
    row[0].set_ylabel("test accuracy (%)" if percent else "test RMSE")
    seeds = at.sizes["seed"]
    style.title(row[0], f"{task}, {int(at.num_nodes)} nodes")
    style.title(row[1], f"models of {float(at.model_bytes) / 1e6:.3g} MB")
    style.title(row[2], "one seed" if seeds == 1 else f"mean and range of {seeds} seeds")


def _scale(at: xr.Dataset) -> float:
    return 100.0 if at.metric.item() == "accuracy" else 1.0


def _range(at: xr.Dataset) -> tuple[float, float]:
    """Return limits around all scores after the first record, the start."""
    score = _scale(at) * at.score.isel(record=slice(1, None)).values
    worst, best = float(np.nanmin(score)), float(np.nanmax(score))
    margin = 0.03 * max(best - worst, 1e-3 * abs(best))
    return worst - margin, best + margin


def _panel(ax: Axes, at: xr.Dataset, name: str, unit: float) -> None:
    for index, system in enumerate(at.system.values):
        run = at.sel(system=system)
        costs, scores = (run[field].transpose("seed", "record").values for field in (name, "score"))
        x, mean, low, high = on_one_axis(costs / unit, _scale(at) * scores)
        bounds = {"low": low, "high": high} if len(scores) > 1 else {}
        style.band(ax, x, mean, **bounds, label=str(system), style_index=index, markers=5)


def _target(at: xr.Dataset, names: list[str]) -> float:
    """Return the best score of the systems that set the target, averaged over seeds."""
    others = [name for name in at.system.values if name in names]
    score = _scale(at) * at.score.sel(system=others)
    if int(at.higher_is_better):
        return float(score.max("record").mean("seed").max())
    return float(score.min("record").mean("seed").min())
