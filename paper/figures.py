"""Draw the figures of the paper from committed tables."""

from __future__ import annotations

import pathlib
import re

import numpy as np
from matplotlib.figure import Figure

from benchmarks.tables import RESULTS, section, tables
from paper.numbers import Place, cells_of, newest
from paper.spec import CAPACITY, STALENESS

BUILD = pathlib.Path(__file__).parent / "build"
LABELS = {"1": r"$\lambda = 1$", "ln n": r"$\lambda = \ln n$", "n": r"$\lambda = n$"}


def staleness_points(results: pathlib.Path = RESULTS) -> dict[str, np.ndarray]:
    """Return n, measured, half-width and prediction by capacity, ``(points, 4)`` each.

    Raises:
        ValueError: the table is missing, stale, or has fewer than three sizes for a capacity.
    """
    newest(Place(STALENESS, CAPACITY, ""), results)
    lines = section((results / STALENESS).read_text(encoding="utf-8"), CAPACITY)
    found: dict[str, list[list[float]]] = {name: [] for name in LABELS}
    for line in (line for table in tables(lines) for line in table[2:]):
        quantity, *numbers = cells_of(line)
        if named := re.fullmatch(r"mean, uniform, λ = (.+), n = ([\d,]+)", quantity):
            found[named[1]].append([float(text.replace(",", "")) for text in (named[2], *numbers[:3])])
    short = [name for name, points in found.items() if len(points) < 3]
    if short:
        raise ValueError(f"missing: {STALENESS}, {CAPACITY}: too few sizes for λ = {', '.join(short)}")
    return {name: np.array(points) for name, points in found.items()}


def draw_staleness(results: pathlib.Path = RESULTS) -> Figure:
    """Draw staleness over the number of nodes."""
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    ax = figure.subplots()
    for (name, points), marker in zip(staleness_points(results).items(), "osD", strict=True):
        n, measured, half, exact = points.T
        (line,) = ax.plot(n, exact, linewidth=0.9)
        ax.errorbar(n, measured, yerr=half, fmt=marker, markersize=3.5, color=line.get_color(), label=LABELS[name])
    ax.set(xscale="log", yscale="log", xlabel="nodes $n$", ylabel="mean staleness (updates)")
    ax.legend(frameon=False, fontsize=8)
    return figure


DRAWN = {"staleness.pdf": draw_staleness}


def write(folder: pathlib.Path = BUILD) -> list[pathlib.Path]:
    """Write all figures as PDF, without a date, so that equal tables give equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWN.items():
        draw().savefig(folder / name, metadata={"CreationDate": None})
    return [folder / name for name in DRAWN]
