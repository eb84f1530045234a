"""A picture of a design: the network, the usual graphs beside it, and the search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gossipjax._base import palette

if TYPE_CHECKING:  # functions import Matplotlib when they draw, because it is slow to import
    from matplotlib.axes import Axes

    from gossipjax._base.figure import Figure
    from gossipjax.design._search import Design
    from gossipjax.design._sequence import SequenceDesign


ROUND_COLOURS = 7
"""Rounds that have a colour of their own; later ones share the last."""


def picture(design: Design) -> Figure:
    """Draw the network on a circle, seconds of all graphs, and the best seconds by step."""
    once = design.graph.senders < design.graph.receivers
    ends = np.stack([design.graph.senders[once], design.graph.receivers[once]])
    return _picture(design, [ends], [palette.paler(palette.INK, 0.6)], "network; area: upload")


def picture_of_rounds(design: SequenceDesign) -> Figure:
    """Draw the same of a network that changes; links have the colour of their first round."""
    rounds = [np.stack(np.nonzero(W.toarray())) for W in design.matrices]
    ends = [each[:, each[0] != each[1]] for each in rounds]
    colours = [palette.SERIES[min(number, ROUND_COLOURS - 1)] for number in range(len(ends))]
    return _picture(design, ends[::-1], colours[::-1], "rounds by colour; area: upload")


def _picture(design: Design | SequenceDesign, ends: list[np.ndarray], colours: list[str], title: str) -> Figure:
    from gossipjax._base.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    network, scores, history = figure.subplots(1, 3, width_ratios=(1, 1.2, 1.2))
    _network(network, np.asarray(design.problem.site.learning.limits.up), ends, colours)
    network.set_title(title)
    _scores(scores, design)
    history.plot(np.arange(1, design.history.size + 1), design.history, color=palette.BLUE)
    history.set(xlabel="step, over all restarts", ylabel="seconds of the best", title="search")
    return figure


def _network(axes: Axes, upload: np.ndarray, ends: list[np.ndarray], colours: list[str]) -> None:
    """Place nodes by upload on a circle, the slowest first; the area of a node is its upload."""
    n = upload.size
    angle = np.empty(n)
    angle[np.argsort(upload, kind="stable")] = 2 * np.pi * np.arange(n) / n
    x, y = np.cos(angle), np.sin(angle)
    for pairs, colour in zip(ends, colours, strict=True):
        axes.plot(x[pairs], y[pairs], color=colour, linewidth=0.8, zorder=1)
    axes.scatter(x, y, s=20 + 180 * upload / upload.max(), color=palette.BLUE, zorder=2)
    for node in range(n):
        axes.annotate(str(node), (1.15 * x[node], 1.15 * y[node]), ha="center", va="center", fontsize=8)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.margins(0.1)


def _scores(axes: Axes, design: Design | SequenceDesign) -> None:
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
