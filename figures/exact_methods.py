"""Error of the exact methods, family by family, against rounds, bytes and gradients."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from figures.lib.caption import INTERVAL, Caption, bands, numbers, seeds_of

INEXACT = "D-PSGD"
TRACKING = (INEXACT, "gradient tracking", "NEXT", "Aug-DGM")
CORRECTED = ("EXTRA", "exact diffusion", "NIDS", "D²", "SimpleGT", "Wang–Elia")
DUALS = ("DLM", "ADMM", "ATG", "RelaySGD")
COMPRESSED = ("exact diffusion", "LEAD", "C-GT", "BEER")
LOCAL = ("ProxSkip", "LED", "K-GT", "LT-ADMM", "DiNNO", "SCAFFOLD", "FedDyn")
SAMPLED = ("exact diffusion", "GT-SAGA", "GT-SVRG", "GT-SARAH", "GT-VR", "LT-ADMM-VR")
LEAST = 1e-25


def draw(dataset: xr.Dataset) -> Figure:
    """Draw six panels for each problem: three families against rounds, two against bytes, one against gradients."""
    fig, axes = style.figure(2 * dataset.sizes["problem"], 3, panel_height=2.4)
    for row, problem in enumerate(dataset.problem.values):
        at = dataset.sel(problem=problem)
        upper, lower = axes[2 * row], axes[2 * row + 1]
        _rounds(upper[0], at, TRACKING, "tracking")
        _rounds(upper[1], at, CORRECTED, "corrections")
        _rounds(upper[2], at, DUALS, "dual, relays")
        _bytes(lower[0], at, COMPRESSED, "compressed")
        _bytes(lower[1], at, LOCAL, "local steps")
        # A node of the quadratics has one sample.
        methods, family = (LOCAL, "local steps") if problem == "quadratics" else (SAMPLED, "samples")
        _gradients(lower[2], at, methods, family)
        for ax in (upper[0], lower[0]):
            ax.set_ylabel("(1/n) Σ ‖xᵢ − x*‖²")
    for ax in axes.ravel():
        if ax.lines:
            style.legend(ax, location="lower left")
        else:
            ax.axis("off")
    return fig


def caption(dataset: xr.Dataset) -> Caption:
    """Describe the figure."""
    return Caption(
        "Squared error of each family, with the best of ten steps. Upper rows: against rounds. Lower rows: against "
        "bytes, and gradients over all samples of a node. Servers reach all clients in every round.",
        f"upper half: drawn quadratics; lower half: logistic regression of {dataset.attrs['data']}, sorted by digit",
        numbers([dataset.attrs["num_nodes"]]),
        seeds_of(dataset),
        f"{bands(dataset, INTERVAL)}, of the logarithm",
        "none; dashed on quadratics: spectral rates, and the exact bias of D-PSGD",
    )


def _curve(ax: Axes, x: np.ndarray, cell: xr.Dataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    errors = _of_seeds(cell.squared_error)
    logs, half = mean_and_interval(np.log(np.maximum(errors, LEAST)))
    half = np.nan_to_num(half)
    seen = np.exp(logs) > 2 * LEAST
    middle, low, high = np.exp(logs)[seen], np.exp(logs - half)[seen], np.exp(logs + half)[seen]
    style.band(ax, x[seen], middle, low=low, high=high, label=str(cell.protocol.values), style_index=index)
    return x[seen], middle


def _cells(at: xr.Dataset, methods: tuple[str, ...]) -> list[xr.Dataset]:
    return [at.sel(protocol=method) for method in methods if method in at.protocol.values]


def _rounds(ax: Axes, at: xr.Dataset, methods: tuple[str, ...], family: str) -> None:
    for index, cell in enumerate(_cells(at, methods)):
        rounds, middle = _curve(ax, at.event.values, cell, index)
        if np.isfinite(cell.predicted):
            falling = np.flatnonzero(middle > 1e-20 * middle[0])
            late = rounds[falling[len(falling) // 3 :]]
            line = middle[falling[-1]] * float(cell.predicted) ** (2.0 * (late - late[-1]))
            style.theory_line(ax, late, line)
        if str(cell.protocol.values) == INEXACT and np.isfinite(at.bias):
            style.theory_line(ax, at.event.values[[0, -1]], np.full(2, float(at.bias)))
    ax.set(yscale="log", xscale="symlog", xlabel="round", xlim=(0, float(at.event.values[-1])))
    style.title(ax, f"{at.problem.values}: {family}")


def _bytes(ax: Axes, at: xr.Dataset, methods: tuple[str, ...], family: str) -> None:
    for index, cell in enumerate(_cells(at, methods)):
        _curve(ax, _of_seeds(cell.bytes_sent).mean(0) / 1e3, cell, index)
    ax.set(yscale="log", xscale="log", xlabel="kB sent by all nodes")
    style.title(ax, f"{at.problem.values}: {family}")


def _gradients(ax: Axes, at: xr.Dataset, methods: tuple[str, ...], family: str) -> None:
    for index, cell in enumerate(_cells(at, methods)):
        _curve(ax, at.event.values * float(cell.gradients), cell, index)
    ax.set(yscale="log", xscale="symlog", xlabel="gradients of a node", xlim=(0, None))
    style.title(ax, f"{at.problem.values}: {family}")


def _of_seeds(values: xr.DataArray) -> np.ndarray:
    return values.transpose("seed", "record").values if "seed" in values.dims else values.values[None]
