"""Learning while nodes crash: accuracy, rounds, nodes online and believed active, and settings that survive."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lib import style
from figures.lib.caption import RANGE, Caption, bands, numbers, seeds, seeds_of


def draw(dataset: xr.Dataset) -> Figure:
    """Upper row: score, and rounds, against time. Lower row: nodes online and believed active; runs that survive."""
    fig, axes = style.figure(2, 2, panel_height=2.3)
    _score(axes[0, 0], dataset)
    _rounds(axes[0, 1], dataset)
    _nodes(axes[1, 0], dataset)
    _survival(axes[1, 1], dataset)
    for ax in axes.ravel()[:3]:
        ax.set_xlim(0, float(dataset.minute[-1]))
        _shade(ax, dataset)
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Score, rounds, nodes believed active, and settings that survive, while nodes crash (grey).",
        f"{dataset.attrs['problem']}: {dataset.attrs['data']}; devices: {dataset.attrs['devices']}",
        numbers([dataset.attrs["num_nodes"]]),
        f"{seeds_of(dataset)}; survival: {seeds(dataset.sizes['trial'])} per setting",
        f"{bands(dataset, RANGE)}; lower left: means",
        "none",
    )


def _shade(ax: Axes, dataset: xr.Dataset) -> None:
    """Shade the time while nodes crash."""
    online = dataset.online.sel(scenario="crashes").mean("seed").values
    last = float(dataset.minute[int(np.nanargmin(online))])
    ax.axvspan(dataset.attrs["first_crash_s"] / 60, last, color="0.93", zorder=0)


def _score(ax: Axes, dataset: xr.Dataset) -> None:
    percent = dataset.attrs["metric"] == "accuracy"
    scale = 100.0 if percent else 1.0
    for index, name in enumerate(dataset.scenario.values):
        at = dataset[["time", "score"]].sel(scenario=name).dropna("record", how="any")
        minutes = np.nanmean(at.time.transpose("seed", "record").values, axis=0) / 60
        score = scale * at.score.transpose("seed", "record").values
        bounds = {"low": np.nanmin(score, 0), "high": np.nanmax(score, 0)} if len(score) > 1 else {}
        style.band(ax, minutes, np.nanmean(score, 0), **bounds, label=str(name), style_index=index)
    ax.set(xlabel="simulated minutes", ylabel="test accuracy (%)" if percent else "test RMSE")
    seeds = dataset.sizes["seed"]
    words = "one seed" if seeds == 1 else f"mean and range of {seeds} seeds"
    style.title(ax, f"{dataset.attrs['problem']}, {words}; grey: nodes crash")
    style.legend(ax, location="lower right")


def _rounds(ax: Axes, dataset: xr.Dataset) -> None:
    for index, name in enumerate(dataset.scenario.values):
        done = dataset.rounds.sel(scenario=name).transpose("seed", "minute").values
        bounds = {"low": done.min(0), "high": done.max(0)} if len(done) > 1 else {}
        style.band(ax, dataset.minute.values, done.mean(0), **bounds, label=str(name), style_index=index)
    ax.set(xlabel="simulated minutes", ylabel="rounds done")
    fraction = 100 * dataset.attrs["success_fraction"]
    style.title(ax, f"{dataset.attrs['num_aggregators']} aggregators, {fraction:.0f} % of models")


def _nodes(ax: Axes, dataset: xr.Dataset) -> None:
    at = dataset.sel(scenario="crashes").mean("seed")
    ax.step(dataset.minute.values, at.online.values, where="post", color=style.THEORY, linewidth=1.0, label="online")
    style.band(ax, dataset.minute.values, at.believed.values, label="believed active (median)", style_index=1)
    ax.set(xlabel="simulated minutes", ylabel="nodes", ylim=(0, None))
    style.title(ax, "Nodes that survivors believe active")
    style.legend(ax, location="upper right")


def _survival(ax: Axes, dataset: xr.Dataset) -> None:
    share = dataset.alive.mean("trial").transpose("aggregators", "fraction").values
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
    for (i, j), value in np.ndenumerate(share):
        colour = "white" if value > 0.6 else "black"
        ax.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    ax.set_xticks(range(dataset.sizes["fraction"]), [f"{100 * f:.0f}" for f in dataset.fraction.values])
    names = [f"{count} aggr." if count else "Plexus" for count in dataset.aggregators.values.tolist()]
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("models that a mean waits for (% of the sample)")
    ax.grid(visible=False)
    style.title(ax, f"Runs that survive the crashes (%), {dataset.sizes['trial']} each")
