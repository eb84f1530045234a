"""Predictions: a number with its interval, where it comes from, what it assumes, and what a simulation says to it."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gossipjax._base.arguments import choice
from gossipjax._base.display import displayed

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_Z = 4.0
"""Largest score at which a simulation agrees with an exact prediction.

If it is right, a larger one has P = 6e-5 for normal means, and 4e-4 for Student's t of 32 runs.
"""
ROUNDING = 1e-5
"""Largest relative difference of a number without sampling error, of runs in float32."""


@displayed
@dataclasses.dataclass(frozen=True)
class Check:
    """What a simulation measured.

    Attributes:
        measured: the mean over its runs.
        standard_error: of the mean; 0: the number has no sampling error.
        what: the simulation, in words.
    """

    measured: float
    standard_error: float
    what: str

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.what, {"measured": self.measured, "±": self.standard_error or None}


@displayed
@dataclasses.dataclass(frozen=True)
class Prediction:
    """A number that a formula, the planner or a fit to runs gives.

    Attributes:
        name: what it is.
        value: the number; of a bound, its upper end, or its lower end if there is no upper one.
        low: lower end; that of an exact number is the number.
        high: upper end.
        unit: of the three.
        origin: "exact": a formula that holds as it stands; "planned": the planner's, message by message; "bound": the
            truth lies between low and high; "fitted": a law fitted to runs, whose interval holds a stated share of new
            ones.
        place: of the formula, or the function that plans.
        assumptions: in words.
        check: what a simulation measured; None: it was not asked for.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    origin: str
    place: str
    assumptions: str
    check: Check | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown origin, and a value outside of its interval."""
        choice("origin", self.origin, ("exact", "planned", "bound", "fitted"))
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.name}={self.value}: must be between low={self.low} and high={self.high}")

    @property
    def z(self) -> float:
        """Distance of what was measured from the interval in standard errors; NaN without a check or sampling error."""
        if self.check is None or not self.check.standard_error:
            return math.nan
        measured = self.check.measured
        beyond = min(measured - self.low, 0.0) + max(measured - self.high, 0.0)
        return beyond / self.check.standard_error

    @property
    def ratio(self) -> float:
        """What was measured, divided by the value; NaN without a check."""
        if self.check is None:
            return math.nan
        return self.check.measured / self.value if self.value else math.nan

    @property
    def agrees(self) -> bool:
        """Whether the simulation agrees: ``|z| < 4``, or for a number without sampling error equal up to rounding.

        A fitted interval is expected to miss some runs: it covers the stated share.

        Raises:
            ValueError: if nothing was simulated.
        """
        if self.check is None:
            raise ValueError(f"{self.name} was not checked; predict again with check=True")
        if self.check.standard_error:
            return abs(self.z) < MOST_Z
        if math.isinf(self.check.measured):
            return self.high == self.check.measured
        slack = ROUNDING * max(abs(self.low), abs(self.check.measured))
        return self.low - slack <= self.check.measured <= self.high + slack

    def __str__(self) -> str:
        ends = f"{self.low:.5g} to {self.high:.5g}"
        number = f"{self.value:.5g}" if self.low == self.high else ends
        number = f"{self.value:.5g}, {ends}" if self.origin == "fitted" else number
        line = f"{self.name}: {number} {self.unit} ({self.origin})"
        if self.check is None:
            return line
        score = f"z = {self.z:.2f}" if self.check.standard_error else f"ratio {self.ratio:.6g}"
        return f"{line}; simulated {self.check.measured:.5g}, {score}"

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return str(self), {}


@displayed
@dataclasses.dataclass(frozen=True)
class Forecast:
    """Predictions of one network, by name: ``forecast["consensus_distance"]``."""

    network: str
    predictions: tuple[Prediction, ...]

    def __getitem__(self, name: str) -> Prediction:
        """Return a prediction.

        Raises:
            KeyError: if there is none of this name; the message lists those that there are.
        """
        for each in self.predictions:
            if each.name == name:
                return each
        raise KeyError(f"{name!r} is not predicted here; there are {', '.join(each.name for each in self.predictions)}")

    def summary(self) -> str:
        """Say every prediction in a line, and what it assumes in the next."""
        lines = [line for each in self.predictions for line in (f"  {each}", f"      {each.assumptions}; {each.place}")]
        return "\n".join([self.network, *lines])

    def table(self) -> DataFrame:
        """Return one row for each prediction."""
        import pandas as pd

        rows = [
            dataclasses.asdict(each) | {"check": each.check and each.check.measured, "z": each.z, "ratio": each.ratio}
            for each in self.predictions
        ]
        return pd.DataFrame(rows).set_index("name")

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.network, {each.name: each.value for each in self.predictions}


def exact(
    name: str, value: float, unit: str, place: str, assumptions: str, check: Check | None, origin: str = "exact"
) -> Prediction:
    """Make a prediction without an interval."""
    return Prediction(name, float(value), float(value), float(value), unit, origin, place, assumptions, check)


def mean_of(values: Any, what: str, extra: float = 0.0) -> Check:
    """Average the runs of a simulation; ``extra`` is a further standard error."""
    values = np.asarray(values, np.float64)
    return Check(float(values.mean()), math.hypot(values.std(ddof=1) / math.sqrt(values.size), extra), what)
