"""Claims: a statement that predicts numbers, a simulation that measures them, and the assumptions of the statement."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Kind = Literal["equality", "upper", "lower", "scaling"]
"""How the truth relates to the prediction: it is equal, at most, at least, or grows by the named law."""
Mark = Literal["exact", "asymptotic", "paper", "recalled"]
"""Status of the prediction: derived and checked twice, known up to a constant, taken from the paper, or recalled."""
Points = tuple[float | int, ...]


class Assumption(NamedTuple):
    """An assumption of the statement, which the same run tests."""

    name: str
    held: bool
    detail: str = ""


class Observation(NamedTuple):
    """Result of one simulation of a claim."""

    samples: Float[np.ndarray, "replicas points"]
    """Independent, identically distributed rows, whose mean is the estimate."""
    assumptions: tuple[Assumption, ...] = ()


Simulate = Callable[[int, Points, int], Observation]
"""``simulate(seed, points, replicas)``."""
Predict = Callable[[Float[np.ndarray, " points"]], Any]
"""Takes the points as an array; returns an array of the same length, or one number for all points."""


class Axis(NamedTuple):
    """Where a claim is checked."""

    name: str
    """Quantity that varies between points, with its unit."""
    points: Points
    quick: Points
    """Fewer points, for the quick form."""


class Sampling(NamedTuple):
    """How much a claim simulates, and how precise its numbers must be."""

    replicas: int
    """Independent runs."""
    quick: int
    """Independent runs of the quick form."""
    tolerance: float | None = None
    """Allowed rounding error, relative to the largest prediction. None: runs are random; the standard error decides."""
    precision: float = 0.1
    """Largest standard error, relative to the prediction, for which a claim gets a verdict."""
    independent: bool = True
    """Whether each point has runs of its own; if not, only the last point counts when scores are pooled."""


def once(tolerance: float, *, independent: bool = True) -> Sampling:
    """Return the sampling of a claim without randomness: one run; ``tolerance`` is the allowed rounding error."""
    return Sampling(1, 1, tolerance, independent=independent)


class Law(NamedTuple):
    """How a quantity grows."""

    names: tuple[str, ...]
    """Laws of :data:`theory.scaling.LAWS`, one of which must fit decisively best; "constant" claims boundedness."""
    exponent: float | None = None
    """Predicted exponent of a power law, if any."""
    slack: float = 0.0
    """How far the exponent at finite sizes may differ from the prediction beyond chance; claims say why."""
    precision: float = 0.04
    """Required precision of the exponent: the claim allows exponent ± (slack + precision)."""
    margin: float = 0.02
    """Growth per factor e, relative to the value, below which a quantity counts as bounded."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """An executable theorem.

    Attributes:
        name: one word with underscores.
        statement: the sentence, with its formula.
        source: paper and number of the result, or the derivation.
        axis: where it is checked.
        quantity: what is predicted, with unit.
        predict: predicts the values at points; for a scaling law, the line in the figure.
        simulate: runs the engine and measures.
        sampling: how many runs, and how precise their numbers must be.
        catches: faults of an engine that would violate this claim.
        kind: how prediction and truth relate.
        law: how the quantity of a scaling claim grows.
        mark: status of the prediction.
    """

    name: str
    statement: str
    source: str
    axis: Axis
    quantity: str
    predict: Predict
    simulate: Simulate
    sampling: Sampling
    catches: tuple[str, ...] = ()
    kind: Kind = "equality"
    law: Law | None = None
    mark: Mark = "exact"

    def size(self, quick: bool) -> tuple[Points, int]:
        """Return the points and the number of replicas of the full or of the quick form."""
        if quick:
            return self.axis.quick, self.sampling.quick
        return self.axis.points, self.sampling.replicas


def pointwise(one: Callable[[Any], float]) -> Predict:
    """Vectorize a prediction ``one(point)`` for a Python int or float."""
    return lambda points: np.asarray([one(point) for point in points.tolist()])


def each(one: Callable[[int, float, int], Observation]) -> Simulate:
    """Vectorize a simulation ``one(seed, point, replicas)``, which returns one column."""

    def simulate(seed: int, points: Points, replicas: int) -> Observation:
        parts = [one(seed + 7919 * number, float(point), replicas) for number, point in enumerate(points)]
        samples = np.concatenate([np.reshape(part.samples, (-1, 1)) for part in parts], axis=1)
        return Observation(samples, tuple(dict.fromkeys(a for part in parts for a in part.assumptions)))

    return simulate


def check_claim(claim: Claim) -> Claim:
    """Return the claim if its parts fit together, else raise ValueError."""
    axis, sampling = claim.axis, claim.sampling
    if not axis.points or not axis.quick:
        raise ValueError(f"{claim.name}: must have at least one point, and one quick point")
    if (claim.kind == "scaling") != (claim.law is not None):
        raise ValueError(f"{claim.name}: a scaling claim must name its law, and other claims must not")
    if sampling.tolerance is None and min(sampling.replicas, sampling.quick) < 8:
        raise ValueError(f"{claim.name}: {sampling.quick} replicas give no standard error; take at least 8")
    return claim
