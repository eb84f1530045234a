"""The table that every experiment prints: measured and predicted values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.lib.store import mean_and_interval


class Row(NamedTuple):
    """One comparison."""

    quantity: str
    measured: float
    interval: float
    """Half-width of the 95 % confidence interval of the measured value; NaN if there is none."""
    predicted: float
    """NaN if theory does not predict it."""
    source: str
    """Source of the prediction, or meaning of the measured number."""


def over_seeds(quantity: str, values: Any, predicted: float = np.nan, source: str = "") -> Row:
    """Return the row of the mean of independent values, with its interval; without any value both are NaN."""
    values = np.asarray(values, np.float64)
    if not values.size:
        return Row(quantity, np.nan, np.nan, predicted, source)
    mean, half = mean_and_interval(values)
    return Row(quantity, float(mean), float(half), predicted, source)


def show(title: str, rows: Sequence[Row], console: Console) -> None:
    """Print the table of one experiment."""
    table = Table(title=title, title_justify="left")
    for name in ("quantity", "measured", "± 95 %", "predicted"):
        table.add_column(name, justify="left" if name == "quantity" else "right", no_wrap=True)
    table.add_column("source")
    for row in rows:
        numbers = (_number(row.measured), _number(row.interval), _number(row.predicted))
        table.add_row(row.quantity, *numbers, row.source)
    console.print(table)


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4g}"
