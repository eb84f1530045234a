"""Deaths in a ring of HADFL, moment by moment; accuracy and pace while devices come and go."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of
from theory.check.policy import interval


def draw(dataset: xr.Dataset) -> Figure:
    """Left: delay of the first ring by the moment of a death. Middle and right: accuracy and cycles by failures."""
    fig, axes = style.figure(1, 3, panel_height=2.8)
    _deaths(axes[0, 0], dataset)
    _by_failures(axes[0, 1], dataset, 100 * dataset.accuracy, "test accuracy at the end (%)")
    _by_failures(axes[0, 2], dataset, dataset.between, "cycles between two means")
    style.title(axes[0, 0], "One member dies")
    style.title(axes[0, 1], f"{dataset.attrs['num_nodes']} devices come and go")
    style.title(axes[0, 2], "Pace of synchronisation")
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Left: delay of a ring in which a member dies, by the time of its death; one mark per member. Lines: the "
        "bound, timeout, handshake, latency and one repeated ring. Middle, right: accuracy of the last mean, and "
        "time between means in units of T_sync, by the mean time for which devices stay; they are away for one cycle. "
        "Only the outline of HADFL is the paper's; the rest is our design.",
        str(dataset.attrs["data"]),
        f"left {numbers([4])}, else {numbers([dataset.attrs['num_nodes']])}",
        f"{seeds_of(dataset)}; left: one plan per death",
        bands(dataset, INTERVAL),
        "none",
    )


def _deaths(ax: Axes, dataset: xr.Dataset) -> None:
    for index, count in enumerate(dataset.members.values):
        at, look = dataset.sel(members=count), style.STYLES[index]
        moment = np.broadcast_to(at.died_s.values[:, None], at.later.shape)
        ax.plot(
            moment.ravel(),
            at.later.values.ravel(),
            linestyle="none",
            marker=look.marker,
            markersize=3,
            color=look.colour,
            label=f"{count} in the ring",
        )
        ax.axhline(float(at.bound), color=look.colour, linewidth=0.9, linestyle="--")
    ax.set(xlabel="time of death after the first fragment (s)", ylabel="delay of the ring (s)")
    ax.set_ylim(top=1.4 * float(dataset.bound.max()))  # room for the legend above the bounds
    style.legend(ax, location="upper right")


def _by_failures(ax: Axes, dataset: xr.Dataset, values: xr.DataArray, label: str) -> None:
    stays = dataset.stays.values
    for index, recovery in enumerate(dataset.recovery.values):
        intervals = [interval(values.sel(recovery=recovery, stays=stay).values) for stay in stays]
        mean, half = (np.array(column) for column in zip(*intervals, strict=True))
        look = style.STYLES[index]
        ax.errorbar(
            np.arange(len(stays)) + 0.08 * index,
            mean,
            np.nan_to_num(half),
            color=look.colour,
            marker=look.marker,
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=f"returns by {recovery}",
        )
    ax.set_xticks(np.arange(len(stays)), ["never fails" if np.isinf(stay) else f"{stay:g}" for stay in stays])
    ax.set(xlabel="mean cycles until a failure", ylabel=label)
    style.legend(ax)
