"""Sets of integers as sorted arrays; ``numpy.unique`` hashes, which takes ten times as long for millions of codes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int


def sorted_distinct(values: Int[np.ndarray, " m"]) -> tuple[Int[np.ndarray, " d"], Int[np.ndarray, " r"]]:
    """Return the distinct values in increasing order, and the values of all further occurrences."""
    ordered = np.sort(values)
    again = ordered[1:] == ordered[:-1]
    if not again.any():
        return ordered, ordered[:0]
    return ordered[np.append(True, ~again)], ordered[1:][again]


def in_sorted(values: Int[np.ndarray, " m"], ordered: Int[np.ndarray, " k"]) -> Bool[np.ndarray, " m"]:
    """Tell which values are in a sorted array."""
    if not ordered.size:
        return np.zeros(values.shape, bool)
    return ordered[np.minimum(np.searchsorted(ordered, values), ordered.size - 1)] == values
