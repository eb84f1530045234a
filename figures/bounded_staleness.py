"""Rate of convergence against the step, relative to the one that a bound on staleness allows, in three schemes."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of, setting


def draw(dataset: xr.Dataset) -> Figure:
    """Draw a panel per scheme. Shaded: steps at which the criterion promises convergence. Above 0: divergence."""
    fig, axes = style.figure(1, dataset.sizes["scheme"], panel_height=2.6, sharey=True)
    for column, scheme in enumerate(dataset.scheme.values):
        _panel(axes[0, column], dataset.sel(scheme=scheme), exact=str(scheme).startswith("exchange"))
        style.title(axes[0, column], str(scheme))
        axes[0, column].set_xlabel("step over n/(2B(n − 1))")
    axes[0, 0].set_ylabel("ln(factor per sweep) / h")
    axes[0, 0].set_ylim(-1.6, 0.6)
    style.legend(axes[0, 0], location="upper left", columns=2)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Growth of the error per update of every user, over the step: −1 without staleness, above 0 it diverges.",
        "simulated: x²/2 without noise; a model is the mean of the users' updates that it has heard of",
        numbers([setting(dataset, "num_nodes")]),
        seeds_of(dataset),
        f"{bands(dataset, INTERVAL)}; shaded: convergence is promised",
        "none; dashed: exact",
    )


def _panel(ax: Axes, dataset: xr.Dataset, *, exact: bool) -> None:
    share = dataset.share.values
    ax.axvspan(share.min() / 1.3, 1.0, color="0.92")
    ax.axhline(0.0, color="0.4", linewidth=0.8)
    for index, bound in enumerate(dataset.bound.values):
        values = dataset.rate.sel(bound=bound).transpose("share", "seed").values
        if np.isnan(values).any():
            continue
        mean, half = mean_and_interval(values, axis=1)
        most = float(dataset.staleness.sel(bound=bound).max())
        label = f"B = {bound}" if most == bound else f"B = {most:g}, reached"
        style.band(ax, share, mean, np.nan_to_num(half), label=label, style_index=index)
        if exact:
            style.theory_line(ax, share, dataset.exchange_rate.sel(bound=bound).values, None if index else "exact")
    ax.set_xscale("log")
    ax.set_xlim(share.min() / 1.3, share.max() * 1.3)
