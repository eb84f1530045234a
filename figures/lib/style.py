"""The style of the paper's figures: sizes, colours that work with colour blindness and in grey print, bands, files.

Matplotlib's global settings are changed only while one of these functions runs.
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gossipjax._base import palette
from theory.output import replacing

WIDTHS = {"single": 3.35, "double": 6.9}
"""Widths of one and of two columns, inches."""
PANEL_HEIGHT = 2.2
"""Height of a row of panels, inches."""
THEORY = palette.INK
"""Colour of exact results."""


class Style(NamedTuple):
    """Colour, dashes and marker of a series; any one of them distinguishes it."""

    colour: str
    line: str | tuple[int, tuple[float, ...]]
    marker: str


STYLES = (
    Style(palette.BLUE, "-", "o"),
    Style(palette.RED, (0, (5, 1.5)), "s"),
    Style(palette.YELLOW, (0, (6, 1.5, 1.2, 1.5)), "^"),
    Style(palette.TEAL, (0, (1.5, 1.2)), "D"),
    Style(palette.WINE, (0, (8, 2)), "v"),
    Style(palette.SKY, (0, (3, 1.2)), "P"),
    Style(palette.OLIVE, (0, (3, 1.2, 1, 1.2, 1, 1.2)), "X"),
)
"""Series styles in order of use."""

_SETTINGS: Any = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.6,
    "mathtext.fontset": "dejavusans",
    # Type 42 keeps text in PDF files as text; some venues reject type 3.
    "pdf.fonttype": 42,
}


def figure(
    rows: int = 1,
    columns: int = 1,
    *,
    width: Literal["single", "double"] = "double",
    panel_height: float = PANEL_HEIGHT,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, np.ndarray]:
    """Make a figure of rows × columns panels in the paper's style.

    Args:
        rows: of panels.
        columns: of panels.
        width: one or two text columns.
        panel_height: inches per row.
        sharex: whether all panels share one horizontal range.
        sharey: whether all panels share one vertical range.

    Returns:
        The figure and its axes as a ``(rows, columns)`` array.

    Raises:
        ValueError: an unknown width.
    """
    if width not in WIDTHS:
        raise ValueError(f"width={width!r}: must be one of {list(WIDTHS)}")
    with matplotlib.rc_context(_SETTINGS):
        fig = Figure(figsize=(WIDTHS[width], panel_height * rows), layout="constrained")
        return fig, fig.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)


def band(
    ax: Axes,
    x: Num[np.ndarray, " points"],
    mean: Num[np.ndarray, " points"],
    half_width: Num[np.ndarray, " points"] | None = None,
    *,
    low: Num[np.ndarray, " points"] | None = None,
    high: Num[np.ndarray, " points"] | None = None,
    label: str,
    style_index: int,
    markers: int = 9,
) -> None:
    """Draw a mean line, with markers thinned to a readable number, and the band around it.

    Args:
        ax: where.
        x: horizontal values.
        mean: of each.
        half_width: of a symmetric band, such as a t-interval.
        low: lower edge of the band, instead.
        high: upper edge.
        label: for the legend.
        style_index: which of :data:`STYLES`.
        markers: about how many along the line.

    Raises:
        ValueError: both kinds of band, half of one, or an unknown style.
    """
    if half_width is not None and (low is not None or high is not None):
        raise ValueError("half_width and low/high describe the same band; give one of them")
    if (low is None) != (high is None):
        raise ValueError("a band needs both low and high, or half_width")
    if not 0 <= style_index < len(STYLES):
        raise ValueError(f"style_index={style_index}: must lie in 0 … {len(STYLES) - 1}")
    chosen = STYLES[style_index]
    if half_width is not None:
        low, high = mean - half_width, mean + half_width
    if low is not None and high is not None:
        ax.fill_between(x, low, high, color=chosen.colour, alpha=0.22, linewidth=0)
    every = max(1, -(-len(x) // markers))
    # Styles start at different points, so that markers of neighbouring curves do not hide each other.
    start = (style_index * every) // len(STYLES)
    ax.plot(
        x,
        mean,
        color=chosen.colour,
        linestyle=chosen.line,
        linewidth=_SETTINGS["lines.linewidth"],
        marker=chosen.marker,
        markersize=_SETTINGS["lines.markersize"],
        markevery=(start, every),
        label=label,
    )


def theory_line(
    ax: Axes, x: Num[np.ndarray, " points"], y: Num[np.ndarray, " points"], label: str | None = None
) -> None:
    """Draw an exact result: dashed, nearly black, above the simulation it predicts.

    Args:
        ax: where.
        x: horizontal values.
        y: predicted values.
        label: for the legend; None: no entry.
    """
    ax.plot(x, y, color=THEORY, linestyle="--", linewidth=1.0, label=label or "_theory", zorder=3)


def title(ax: Axes, text: str) -> None:
    """Put a title above a panel, at the left, in the paper's size.

    Args:
        ax: where.
        text: what the panel shows.
    """
    with matplotlib.rc_context(_SETTINGS):
        ax.set_title(text)


def legend(
    ax: Axes,
    *,
    title: str | None = None,
    columns: int = 1,
    location: Any = "best",
    anchor: tuple[float, float] | None = None,
) -> None:
    """Put a legend into a panel, in the paper's style.

    Args:
        ax: where.
        title: above the entries.
        columns: of entries.
        location: as matplotlib names it.
        anchor: where in the panel's own coordinates that corner lies, such as (1.02, 0.5) for beside it; None: inside.
    """
    size = _SETTINGS["legend.fontsize"]
    with matplotlib.rc_context(_SETTINGS):
        ax.legend(title=title, ncols=columns, loc=location, bbox_to_anchor=anchor, title_fontsize=size)


def save(fig: Figure, stem: str, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Write ``stem.png`` (200 dpi) and ``stem.pdf``; a failure leaves earlier files whole.

    Args:
        fig: the figure.
        stem: the claim's name, in lower case with underscores, which experiment, result and label carry too.
        folder: target folder; created if it is missing.

    Returns:
        Path of the PNG file.

    Raises:
        ValueError: a stem of another form.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stem):
        raise ValueError(
            f"stem={stem!r}: must be lower-case words joined by underscores, such as 'staleness_vs_capacity'"
        )
    target = pathlib.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    # Without date and version, the same numbers give the same bytes.
    metadata = {
        "png": {"Title": stem, "Software": None},
        "pdf": {"Title": stem, "CreationDate": None, "Producer": None},
    }
    with matplotlib.rc_context(_SETTINGS):
        for suffix, notes in metadata.items():
            with replacing(target / f"{stem}.{suffix}") as temporary:
                fig.savefig(temporary, format=suffix, dpi=200, metadata=notes)
    return target / f"{stem}.png"
