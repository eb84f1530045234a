"""What a claim is: a statement that predicts numbers, a simulation that measures them, and its assumptions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Kind = Literal["equality", "upper", "lower", "scaling"]
"""How prediction and truth relate: equal; truth below; truth above; truth grows by the named law."""
Mark = Literal["exact", "asymptotic", "paper", "recalled"]
"""Where the prediction stands: derived and checked twice, known up to a constant, read in the paper, or remembered."""
Points = tuple[float | int, ...]


class Assumption(NamedTuple):
    """One thing that the statement takes for granted, tested on the very run."""

    name: str
    held: bool
    detail: str = ""


class Observation(NamedTuple):
    """What one simulation of a claim found."""

    samples: Float[np.ndarray, "replicas points"]
    """Independent, identically distributed rows, whose mean is the estimate."""
    assumptions: tuple[Assumption, ...] = ()


Simulate = Callable[[int, Points, int], Observation]
"""``simulate(seed, points, replicas)``."""
Predict = Callable[[Float[np.ndarray, " points"]], Any]
"""Points as an array; returns an array of as many, or one number for all."""


class Axis(NamedTuple):
    """Where a claim is checked."""

    name: str
    """What the points are, with unit."""
    points: Points
    quick: Points
    """Fewer of them, for the quick form."""


class Sampling(NamedTuple):
    """How much a claim simulates, and what its numbers must reach."""

    replicas: int
    """Independent runs."""
    quick: int
    """Independent runs of the quick form."""
    tolerance: float | None = None
    """Rounding allowed, relative to the largest prediction. None: runs are random, the standard error decides."""
    precision: float = 0.1
    """Largest standard error, relative to the prediction, at which a claim is decided."""
    independent: bool = True
    """Whether points come from runs of their own; else only the last counts when scores are pooled."""


def once(tolerance: float, *, independent: bool = True) -> Sampling:
    """Simulate once, because nothing is random: the tolerance says how much rounding is allowed."""
    return Sampling(1, 1, tolerance, independent=independent)


class Law(NamedTuple):
    """How a quantity grows."""

    names: tuple[str, ...]
    """Laws of :data:`theory.scaling.LAWS` of which one must be decisively the best; "constant" among them: bounded."""
    exponent: float | None = None
    """Predicted exponent of a power law, if any."""
    slack: float = 0.0
    """How far the exponent at finite sizes may lie from it besides chance, with a reason."""
    precision: float = 0.04
    """How exactly the exponent is to be known: the claim allows exponent ± (slack + precision)."""
    margin: float = 0.02
    """Growth per factor e, relative to the value, below which a quantity counts as bounded."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A theorem that runs.

    Attributes:
        name: one word with underscores.
        statement: the sentence, with its formula.
        source: paper and number of the result, or the derivation.
        axis: where it is checked.
        quantity: what is predicted, with unit.
        predict: values at points; for a scaling law the line that is drawn beside the measured values.
        simulate: runs the engine.
        sampling: how many runs, and what their numbers must reach.
        catches: faults of an engine under which this claim no longer holds.
        kind: how prediction and truth relate.
        law: of a scaling claim, how the quantity grows.
        mark: where the prediction stands.
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
    """Make a prediction at many points from one at a single point, which comes as Python's int or float."""
    return lambda points: np.asarray([one(point) for point in points.tolist()])


def each(one: Callable[[int, float, int], Observation]) -> Simulate:
    """Make a simulation of many points from one of a single point: ``one(seed, point, replicas)``, one column."""

    def simulate(seed: int, points: Points, replicas: int) -> Observation:
        found = [one(seed + 7919 * number, float(point), replicas) for number, point in enumerate(points)]
        samples = np.concatenate([np.reshape(part.samples, (-1, 1)) for part in found], axis=1)
        return Observation(samples, tuple(dict.fromkeys(a for part in found for a in part.assumptions)))

    return simulate


def check_claim(claim: Claim) -> Claim:
    """Return a claim whose parts fit together.

    Raises ValueError otherwise.
    """
    axis, sampling = claim.axis, claim.sampling
    if not axis.points or not axis.quick:
        raise ValueError(f"{claim.name}: give at least one point, quick ones as well")
    if (claim.kind == "scaling") != (claim.law is not None):
        raise ValueError(f"{claim.name}: a scaling claim names its law, others have none")
    if sampling.tolerance is None and min(sampling.replicas, sampling.quick) < 8:
        raise ValueError(f"{claim.name}: {sampling.quick} replicas give no standard error; take at least 8")
    return claim
