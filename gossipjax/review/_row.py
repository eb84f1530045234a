"""One row of a review, and the values that rows compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from gossipjax.review._statistics import Comparison, compare

if TYPE_CHECKING:  # functions import xarray when they need it, because it takes 40 MB
    from xarray import Dataset as Records

Verdict: TypeAlias = Literal["pass", "fail", "not applicable"]
TITLES = {
    1: "correct",
    2: "convex rate",
    3: "equal tuning",
    4: "seeds",
    5: "topologies",
    6: "heterogeneity",
    7: "scale",
    8: "costs",
    9: "faults",
    10: "node level",
    11: "security",
    12: "certificate",
}


class Row(NamedTuple):
    """The answer to one question of a reviewer."""

    number: int
    verdict: Verdict
    reason: str
    """In a line, why."""
    details: tuple[str, ...] = ()
    """One line for each number or condition."""

    @property
    def title(self) -> str:
        """Its name in the table."""
        return TITLES[self.number]


def row(number: int, passed: bool, reason: str, details: Any = ()) -> Row:
    """Make a row that was run."""
    return Row(number, "pass" if passed else "fail", reason, tuple(map(str, details)))


def missing(number: int, reason: str, details: Any = ()) -> Row:
    """Make a row that could not be run."""
    return Row(number, "not applicable", reason, tuple(map(str, details)))


def curves(records: Records, level: str) -> Float[np.ndarray, "seeds records"]:
    """Return the accuracy of a level in every record; NaN where models became infinite or NaN.

    The mean, and not one that skips NaN: a node without an accuracy leaves its seed without one.
    """
    by_node = records["accuracy_by_node"].transpose("seed", "record", "node").values.astype(np.float64)
    if level == "average model":
        found = records["average_model_accuracy"].transpose("seed", "record").values.astype(np.float64)
    elif level == "worst decile":
        found = np.sort(by_node, axis=2)[:, :, : max(by_node.shape[2] // 10, 1)].mean(2)  # NaN sorts to the end
        found = np.where(np.isnan(by_node).any(2), np.nan, found)
    else:
        found = by_node.mean(2)
    return np.where(records["finite"].values[:, None], found, np.nan)


def final(records: Records, level: str) -> Float[np.ndarray, " seeds"]:
    """Return the accuracy of each seed in the last record, never the best of all records."""
    return curves(records, level)[:, -1]


def at_equal(ours: Any, theirs: Any, our_cost: Any, their_cost: Any) -> Float[np.ndarray, " seeds"]:
    """Subtract two curves ``(seeds, records)`` at the largest cost that both have reached.

    Costs ``(records,)`` begin with 0 and increase; between records curves are interpolated linearly. A contender
    without costs spends nothing, so it keeps its last value.
    """
    most = min((cost[-1] for cost in (our_cost, their_cost) if cost[-1] > 0), default=0.0)
    return _at(ours, our_cost, most) - _at(theirs, their_cost, most)


def _at(curve: Any, cost: Any, budget: float) -> Float[np.ndarray, " seeds"]:
    if not cost[-1] > budget:
        return curve[:, -1]
    found = np.array([np.interp(budget, cost, each) for each in curve])
    return np.where(np.isnan(curve[:, -1]), np.nan, found)


def listed(comparisons: Mapping[str, Any]) -> dict[str, Comparison]:
    """Compare differences by condition, with one correction for all of them."""
    return {each.name: each for each in compare(comparisons)} if comparisons else {}


def line(where: str, found: Comparison) -> str:
    """Write the gain of one condition."""
    return f"{where}: {found.word}, {found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
