"""HADFL on 4 to 256 phones: speed between its two bounds, length of a cycle, what devices do, and bytes."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

LABELS = {"two": "$N_p$ = 2", "a quarter": "$N_p$ = n/4"}


def draw(dataset: xr.Dataset) -> Figure:
    """Draw units per second; T_sync between means; time not in training; models sent per device and mean."""
    fig, axes = style.figure(2, 2, panel_height=2.2)
    (speed, cycle), (time, cost) = axes
    _speeds(speed, dataset)
    _lines(cycle, dataset, dataset.cycle_s / dataset.sync_s)
    style.theory_line(cycle, dataset.n.values, np.ones(dataset.sizes["n"]), "one mean per $T_{sync}$")
    cycle.set(ylabel="$T_{sync}$ between means", ylim=(0, None))
    style.title(cycle, "Length of a cycle")
    _times(time, dataset)
    _lines(cost, dataset, dataset.bytes / dataset.attrs["model_bytes"])
    for k, ring in enumerate(dataset.ring.values):
        formula = dataset.bytes_formula.sel(ring=ring).transpose("seed", "n").values[0] / dataset.attrs["model_bytes"]
        style.theory_line(cost, dataset.n.values, formula, None if k else "formula")
    cost.set(ylabel="models sent per device and mean", ylim=(0, None))
    style.title(cost, "Bytes")
    for ax in (speed, cycle, cost):
        ax.set(xscale="log", xlabel="devices n")
        ax.set_xticks(dataset.n.values, [f"{n}" for n in dataset.n.values])
        ax.minorticks_off()
    style.legend(speed, location="center", columns=2)
    style.legend(cycle, location="lower left")
    style.legend(cost, location="lower right")
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "HADFL on more and more devices, with rings of two and of a quarter of the devices. Units trained per second, "
        "divided by the sum of all speeds; time between two means, in T_sync; what devices do after the warm-up when "
        "they do not train, means over seeds; models sent per device and mean, without the broadcasts that the end "
        f"of a plan cuts off. Plans of HADFL: {dataset.attrs['note']}.",
        f"none: planned without learning; devices: {dataset.attrs['data']}",
        numbers(dataset.n.values),
        f"{seeds_of(dataset)}, each with different devices",
        bands(dataset, INTERVAL),
        "none; dashes: exact",
    )


def _lines(ax: Axes, dataset: xr.Dataset, values: xr.DataArray) -> None:
    for index, ring in enumerate(dataset.ring.values):
        mean, half = mean_and_interval(values.sel(ring=ring).transpose("seed", "n").values)
        look = style.STYLES[index]
        ax.errorbar(
            dataset.n.values * 1.04 ** (2 * index - 1),
            mean,
            half,
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=3.6,
            capsize=2,
            label=LABELS[str(ring)],
        )


def _speeds(ax: Axes, dataset: xr.Dataset) -> None:
    _lines(ax, dataset, dataset.rate / dataset.full_rate)
    barrier = (dataset.barrier_rate / dataset.full_rate).isel(ring=0).transpose("seed", "n").values.mean(0)
    style.theory_line(ax, dataset.n.values, np.ones(dataset.sizes["n"]), "no waiting")
    ax.plot(
        dataset.n.values, barrier, color=style.THEORY, linestyle=":", linewidth=1.2, label="barrier on a free network"
    )
    ax.set(ylabel="share of the sum of all speeds", ylim=(0, 1.05))
    style.title(ax, "Speed of training")


def _times(ax: Axes, dataset: xr.Dataset) -> None:
    x = np.arange(dataset.sizes["n"])
    pauses = dataset.share.drop_sel(state="training")
    states = [str(state) for state in pauses.state.values if pauses.sel(state=state).any()]
    for k, ring in enumerate(dataset.ring.values):
        bottom = np.zeros(x.size)
        for index, state in enumerate(states):
            share = 100 * pauses.sel(ring=ring, state=state).transpose("seed", "n").values.mean(0)
            colour, label = style.STYLES[index + 2].colour, f"_{state}" if k else state
            ax.bar(x + 0.4 * k - 0.2, share, 0.36, bottom, color=colour, label=label, linewidth=0)
            bottom += share
        for place, top in zip(x, bottom, strict=True):
            where = (place + 0.4 * k - 0.2, top)
            ax.annotate(
                LABELS[str(ring)].split("= ")[1], where, (0, 2), textcoords="offset points", fontsize=6.5, ha="center"
            )
    ax.set_xticks(x, [f"{n}" for n in dataset.n.values])
    ax.set(xlabel="devices n (above bars: $N_p$)", ylabel="time not in training (%)")
    ax.set_ylim(0, 1.15 * ax.get_ylim()[1])
    ax.grid(False, axis="x")
    style.title(ax, "What devices do when they do not train")
    style.legend(ax, location="upper left")
