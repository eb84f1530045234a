"""A picture of a design: the network, the usual graphs beside it, and the search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gossipjax._base import palette

if TYPE_CHECKING:  # functions import Matplotlib when they draw, because it is slow to import
    from matplotlib.axes import Axes

    from gossipjax._base.figure import Figure
    from gossipjax.design._search import Design


def picture(design: Design) -> Figure:
    """Draw the network on a circle, seconds of all graphs, and the best seconds by step."""
    from gossipjax._base.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    network, scores, history = figure.subplots(1, 3, width_ratios=(1, 1.2, 1.2))
    _network(network, design)
    _scores(scores, design)
    history.plot(np.arange(1, design.history.size + 1), design.history, color=palette.BLUE)
    history.set(xlabel="step, over all restarts", ylabel="seconds of the best", title="search")
    return figure


def _network(axes: Axes, design: Design) -> None:
    """Place nodes by upload on a circle, the slowest first; the area of a node is its upload."""
    n, upload = design.graph.num_nodes, np.asarray(design.problem.site.learning.limits.up)
    angle = np.empty(n)
    angle[np.argsort(upload, kind="stable")] = 2 * np.pi * np.arange(n) / n
    x, y = np.cos(angle), np.sin(angle)
    once = design.graph.senders < design.graph.receivers
    ends = np.stack([design.graph.senders[once], design.graph.receivers[once]])
    axes.plot(x[ends], y[ends], color=palette.paler(palette.INK, 0.6), linewidth=0.8, zorder=1)
    axes.scatter(x, y, s=20 + 180 * upload / upload.max(), color=palette.BLUE, zorder=2)
    for node in range(n):
        axes.annotate(str(node), (1.15 * x[node], 1.15 * y[node]), ha="center", va="center", fontsize=8)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.margins(0.1)
    axes.set_title("network; area: upload")


def _scores(axes: Axes, design: Design) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    names = ["designed", *design.standard]
    scores = [design.score, *design.standard.values()]
    colours = [palette.RED, *[palette.SKY] * len(design.standard)]
    axes.scatter([score.seconds for score in scores], names, c=colours, s=60)
    axes.grid(axis="y", color=palette.paler(palette.INK, 0.8), linewidth=0.8)
    axes.set_axisbelow(True)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())  # within a power of ten, all labels would overlap
    axes.set(xlabel="seconds to the target", title=design.problem.target.name)
