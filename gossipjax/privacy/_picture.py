"""A picture of an audit: who learns how much about whom, by distance and over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gossipjax._base import palette

if TYPE_CHECKING:  # functions import Matplotlib when they draw, because it is slow to import
    from matplotlib.axes import Axes

    from gossipjax._base.figure import Figure
    from gossipjax.privacy._report import Audit

_LABELS = 24
"""Number of observers up to which each has its name at the axis."""


def picture(audit: Audit) -> Figure:
    """Draw the matrix of μ, μ by hop distance, and μ over the prefixes of the plan."""
    from gossipjax._base.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    matrix, distance, time = figure.subplots(1, 3)
    _matrix(figure, matrix, audit)
    _by_distance(distance, audit)
    _over_time(time, audit)
    return figure


def _matrix(figure: Figure, axes: Axes, audit: Audit) -> None:
    import matplotlib

    colours = matplotlib.colormaps["cividis"].with_extremes(bad=palette.ABSENT)
    image = axes.imshow(audit.mu, vmin=0, cmap=colours, aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=axes, label="μ")
    if len(audit.observers) <= _LABELS:
        axes.set_yticks(range(len(audit.observers)), audit.observers)
    known_at, known = np.nonzero(audit.reconstructed)
    if len(known) <= _LABELS**2:
        axes.plot(known, known_at, ".", color=palette.RED, markersize=3, label="reconstructed")
    axes.set(xlabel="node", ylabel="observer", title="who learns about whom (dot: reconstructed)")


def _distances(audit: Audit) -> np.ndarray:
    some = np.isfinite(audit.hops) & ~np.isnan(audit.mu)
    return np.unique(audit.hops[some])


def _by_distance(axes: Axes, audit: Audit) -> None:
    hops = _distances(audit)
    if not len(hops):
        axes.text(0.5, 0.5, "no distances on a wire", ha="center", transform=axes.transAxes)
    groups = [audit.mu[(audit.hops == each) & ~np.isnan(audit.mu)] for each in hops]
    if groups:
        axes.plot(hops, [group.max() for group in groups], "o-", color=palette.RED, label="largest")
        axes.plot(hops, [group.mean() for group in groups], "s-", color=palette.BLUE, label="mean")
        axes.axhline(audit.local.max(), color=palette.INK, linestyle=":", label="local bound")
        axes.legend()
    axes.set(xlabel="hops", ylabel="μ", ylim=(0, None), title="by distance")


def _over_time(axes: Axes, audit: Audit) -> None:
    colours = iter(palette.SERIES)
    for each, colour in zip(_distances(audit), colours, strict=False):
        chosen = (audit.hops == each) & ~np.isnan(audit.mu)
        means = [after[chosen].mean() for after in audit.mu_after]
        axes.plot(audit.prefixes, means, ".-", color=colour, label=f"{each:.0f} hops")
    if axes.lines:
        axes.legend()
    axes.set(xlabel="events", ylabel="mean μ", ylim=(0, None), title="over the plan")
