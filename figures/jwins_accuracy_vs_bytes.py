"""Scores of four sharing schemes against rounds, bytes and seconds, with a row of panels per task."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.lib import schemes, style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Left: score against rounds. Middle: against MB sent per node. Right: against the nodes' clocks."""
    tasks = dataset.task.values
    fig, axes = style.figure(len(tasks), 3, panel_height=2.3 + 0.4 / len(tasks))
    for row, task in zip(axes, tasks, strict=True):
        _row(row, str(task), _part(dataset, str(task)), dataset.attrs["num_nodes"])
    schemes.common_legend(fig, axes[0, 0])
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    parts = [_part(dataset, str(task)) for task in dataset.task.values]
    return Caption(
        "Score of the nodes against rounds, bytes and simulated time, by sharing scheme, with a row per task.",
        "; ".join(f"{part.task.values}: {part.data.values}" for part in parts),
        numbers([dataset.attrs["num_nodes"]]),
        "; ".join(f"{part.task.values}: {seeds_of(part)}" for part in parts),
        "; ".join(f"{part.task.values}: {bands(part, INTERVAL)}" for part in parts),
        "; ".join(f"{part.task.values}: {schemes.target_in_words(part)}" for part in parts),
    )


def _part(dataset: xr.Dataset, task: str) -> xr.Dataset:
    """Select one task, without records and seeds that only other tasks have."""
    at = dataset.sel(task=task)
    return at.dropna("record", how="all", subset=["event"]).dropna("seed", how="all", subset=["node_bytes_sent"])


def _row(row: np.ndarray, task: str, at: xr.Dataset, num_nodes: int) -> None:
    divisor, unit = _clock_unit(float(at.node_clock.max()))
    for name in at.scheme.values:
        schemes.curve(row[0], at, str(name), at.event.values)
        schemes.curve(row[1], at, str(name), schemes.spent(at, str(name), "node_bytes_sent") / 1e6)
        schemes.curve(row[2], at, str(name), schemes.spent(at, str(name), "node_clock") / divisor)
    for ax in row:
        schemes.target_line(ax, at)
        ax.set_ylim(*schemes.limits(at))
    row[0].set(xlabel="round", ylabel=schemes.label(at))
    schemes.megabyte_axis(row[1])
    row[2].set(xlabel=f"simulated time ({unit})")
    style.title(row[0], f"{task}, {num_nodes} nodes")
    style.title(row[1], schemes.interval_in_words(at))
    style.title(row[2], f"links of {8e-6 * float(at.bytes_per_second):g} Mbit/s")


def _clock_unit(longest: float) -> tuple[float, str]:
    for divisor, unit in ((3600.0, "h"), (60.0, "min")):
        if longest > 3 * divisor:
            return divisor, unit
    return 1.0, "s"
