"""Pictures of tables in benchmarks/results: verdicts beside what claims allow, or measured over predicted values."""

import re
import textwrap
import typing

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.tables import section_of, tables
from gossipjax._base import palette

_NUMBER = r"(-?(?:inf|\d[\d.]*(?:e[-+]?\d+)?))"
_VERDICT = re.compile(
    rf"(reproduced|contradicted|undecided): {_NUMBER}(?: ± {_NUMBER})?, allowed "
    rf"(?:at least {_NUMBER}|above {_NUMBER}|at most {_NUMBER}|{_NUMBER} to {_NUMBER})"
)
LOOKS = {"reproduced": (palette.TEAL, "o"), "undecided": (palette.YELLOW, "D"), "contradicted": (palette.RED, "X")}
_MOST_LABELS = 24
_EDGES = (-1.0, 2.0)
"""Ends of the horizontal axis of verdicts; what lies beyond has an arrow there."""


class Drawn(typing.NamedTuple):
    """A picture, and what it shows."""

    figure: Figure
    words: str


class Verdict(typing.NamedTuple):
    """A row of a table that has been decided; half is NaN without an interval."""

    quantity: str
    word: str
    mean: float
    half: float
    low: float
    high: float


class Ratio(typing.NamedTuple):
    """Measured over predicted value, and half the width of its interval; NaN without one."""

    quantity: str
    value: float
    half: float


def verdicts(lines):
    """Return the verdicts with a band in the rows of all tables in some lines."""
    return [found for table in tables(lines) for row in table[2:] if (found := _verdict(row))]


def _verdict(row):
    found = _VERDICT.search(row)
    if found is None:
        return None
    mean, half, least, above, most, low, high = (np.nan if text is None else float(text) for text in found.groups()[1:])
    low = np.nanmax([-np.inf, least, above, low])
    return Verdict(_cells(row)[0], found[1], mean, half, low, np.nanmin([np.inf, most, high]))


def ratios(lines):
    """Return measured over predicted for all rows that have both, and an error relative to it."""
    return [found for table in tables(lines) for row in table[2:] if (found := _ratio(_cells(table[0]), _cells(row)))]


def _ratio(head, cells):
    named = dict(zip(head, cells, strict=True))
    value, predicted, half = (_number(named.get(name)) for name in ("measured", "predicted", "± 95 %"))
    if not value * predicted > 0:
        return None
    return Ratio(cells[0], value / predicted, abs(half / predicted))


def _cells(row):
    return [cell.strip() for cell in row.strip().strip("|").split(" | ")]


def _number(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return np.nan


def draw(stem, path):
    """Draw the tables of an experiment in a file; None if they have neither verdicts with a band nor predictions."""
    lines = section_of(stem, path)
    if found := verdicts(lines):
        return Drawn(draw_verdicts(found), "95 % intervals over seeds beside what the claim allows")
    if found := ratios(lines):
        return Drawn(draw_ratios(found), "measured over predicted values")
    return None


def draw_verdicts(found):
    """Draw intervals on axes on which the band of each claim goes from 0 to 1, or is open at one end."""
    figure, ax = _rows_of([each.quantity for each in found])
    for y, each in enumerate(found):
        low, high, place = _scaled(each)
        ax.barh(y, high - low, left=low, height=0.8, color=palette.ABSENT, zorder=0)
        colour, marker = LOOKS[each.word]
        middle, *ends = (place(each.mean + sign * np.nan_to_num(each.half)) for sign in (0, -1, 1))
        ax.plot(np.clip(ends, *_EDGES), [y, y], color=colour, linewidth=1.5)
        beyond = "<" if middle < _EDGES[0] else ">" if middle > _EDGES[1] else marker
        ax.plot(np.clip(middle, *_EDGES), y, beyond, color=colour, markersize=4.5, clip_on=False)
    ax.set(xlim=_EDGES, xticks=[0, 1], xticklabels=["least", "most"], xlabel="what the claim allows: grey")
    handles = [Line2D([], [], color=c, marker=m, markersize=4.5, label=word) for word, (c, m) in LOOKS.items()]
    words = {each.word for each in found}
    handles = [handle for handle in handles if handle.get_label() in words]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=6.5, frameon=False)
    return figure


def _scaled(each):
    """Return the ends of the grey bar and the function that places values: the ends of a band are at 0 and 1."""
    low, high = each.low, each.high
    end = low if np.isfinite(low) else high
    away = max(abs(each.mean - end), np.nan_to_num(each.half), 1e-9)
    if np.isfinite(low) and np.isfinite(high):
        unit = high - low if high > low else away
        return 0.0, max((high - low) / unit, 0.02), lambda x: (x - low) / unit
    unit = abs(end) if abs(end) > 1e-9 else away
    if np.isfinite(low):
        return 0.0, _EDGES[1], lambda x: (x - end) / unit
    return _EDGES[0], 1.0, lambda x: 1 + (x - end) / unit


def draw_ratios(found):
    """Draw measured over predicted values, logarithmic if they differ by more than a factor of three."""
    figure, ax = _rows_of([each.quantity for each in found])
    values = np.array([each.value for each in found])
    halves = np.nan_to_num([each.half for each in found])
    ax.axvline(1.0, color=palette.INK, linewidth=0.8, zorder=0)
    ax.errorbar(values, np.arange(len(found)), xerr=halves, fmt="o", color=palette.BLUE, markersize=3, linewidth=1)
    if values.max() > 3 or values.min() < 1 / 3:
        ax.set_xscale("log")
        ax.minorticks_off()
        steps = [step * 10.0**power for power in range(-6, 7) for step in (1, 2, 5)]
        low, high = ax.get_xlim()
        ax.set_xticks([step for step in steps if low <= step <= high])
        ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("measured / predicted")
    return figure


def _rows_of(labels):
    """Return a figure with a row for each label, the first at the top; many rows have no labels."""
    few = len(labels) <= _MOST_LABELS
    texts = [textwrap.fill(label, 38) for label in labels]
    lines = max(text.count("\n") for text in texts) + 1
    height = len(labels) * (0.06 + 0.11 * lines if few else 0.035)
    figure = Figure(figsize=(4.6, 0.8 + max(0.6, height)), dpi=160, layout="constrained")
    ax = figure.subplots()
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_yticks(range(len(labels)) if few else [], texts if few else [])
    if not few:
        ax.set_ylabel(f"{len(labels)} rows of the table", fontsize=6.5)
    ax.tick_params(labelsize=6.5, left=False)
    ax.xaxis.label.set_size(6.5)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return figure, ax
