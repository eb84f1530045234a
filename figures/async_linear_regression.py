"""Loss and consensus distance of asynchronous push-gossip SGD on linear regression, with exact stationary values."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

NAMES = {"excess_loss": "excess loss of a node", "consensus_distance": "consensus distance"}


def draw(dataset: xr.Dataset) -> Figure:
    """Top: excess loss, a panel per number of nodes. Bottom: consensus distance. Dashed: exact, for c = 0."""
    columns = dataset.sizes["nodes"]
    fig, axes = style.figure(2, columns, panel_height=2.2, sharex=True, sharey=False)
    for row, quantity in enumerate(NAMES):
        for column, n in enumerate(dataset.nodes.values):
            _panel(axes[row, column], dataset.sel(nodes=n), quantity)
        axes[row, 0].set_ylabel(NAMES[quantity])
        _one_range(axes[row], lowest=None if quantity == "excess_loss" else 0.0)
    for column, n in enumerate(dataset.nodes.values):
        style.title(axes[0, column], f"n = {int(n)}")
        axes[1, column].set_xlabel("simulated time (s)")
    style.legend(axes[0, -1], location="upper right")
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Excess loss and consensus distance against simulated time, by number of nodes, push rate and clock.",
        f"simulated: quadratics with two optima in {dataset.attrs['dimension']} dimensions, noisy gradients",
        numbers(dataset.nodes.values),
        seeds_of(dataset),
        bands(dataset, INTERVAL),
        "none; dashed: exact stationary value for c = 0",
    )


def _panel(ax: Axes, dataset: xr.Dataset, quantity: str) -> None:
    time = dataset.time.values
    index = 0
    for rate in dataset.rate.values:
        for clock in dataset.clock.values:
            at = dataset.sel(rate=rate, clock=clock)
            mean, half = mean_and_interval(at[quantity].values, axis=1)
            shown = mean > 0  # all nodes start from the same model
            style.band(
                ax,
                time[shown],
                mean[shown],
                low=np.maximum(mean - half, 1e-3 * mean)[shown],
                high=(mean + half)[shown],
                label=f"{rate}, {clock}",
                style_index=index,
                markers=5,
            )
            index += 1
        settled = time[time >= dataset.attrs["settled"]]
        law = float(dataset.sel(rate=rate)[f"predicted_{quantity}"])
        label = "exact, c = 0" if rate == dataset.rate.values[-1] else None
        style.theory_line(ax, settled, np.full(len(settled), law), label)
    if quantity == "excess_loss":
        ax.set_yscale("log")


def _one_range(row: np.ndarray, lowest: float | None) -> None:
    limits = np.array([ax.get_ylim() for ax in row])
    for ax in row:
        ax.set_ylim(limits[:, 0].min() if lowest is None else lowest, limits[:, 1].max())
        if ax is not row[0]:
            ax.tick_params(labelleft=False, which="both")
