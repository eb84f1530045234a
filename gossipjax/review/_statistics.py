"""Paired comparisons over seeds: Student intervals, Holm's correction, and the seeds that a claim needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gossipjax._base.arguments import real, shown
from gossipjax._base.lazy import stats

LEVEL = 0.05
"""Probability at most that one call of :func:`compare` calls any difference better or worse, if none is real.

A review makes such a call in many rows, and each has this risk of its own.
"""
POWER = 0.8
FEWEST = 5
"""Fewest paired seeds that a claim may rest on."""
_MOST_SEEDS = 10_000


class Comparison(NamedTuple):
    """Paired differences of the protocol to one other."""

    name: str
    mean: float
    """Of the differences; positive: the protocol is better."""
    low: float
    """Lower end of the 95 % Student interval of the mean."""
    high: float
    p: float
    """Two-sided, by Student's t, after Holm's correction for all comparisons that were made together."""
    seeds: int
    seeds_needed: int | None
    """For 80 % power, if the effect that was seen were the true one, and without Holm's correction.

    It is no result of a plan: an effect that was seen is uncertain, and too large where it was significant. None: no
    effect, no spread, or more than 10,000.
    """

    @property
    def word(self) -> str:
        """Whether the protocol is better, worse, or there is no difference that these seeds show."""
        if not np.isfinite(self.mean):
            return "no value"
        if not self.p < LEVEL or self.mean == 0:
            return "no difference"
        return "better" if self.mean > 0 else "worse"

    @property
    def verdict(self) -> str:
        """The word with the name of the other."""
        joins = {"no difference": "to", "no value": "to compare with"}
        return f"{self.word} {joins.get(self.word, 'than')} {self.name}"

    def __str__(self) -> str:
        """Write the difference with its interval."""
        if self.word == "no value":
            return self.verdict
        needed = f", {self.seeds_needed} seeds needed" if self.seeds_needed else ""
        numbers = f"{self.mean:+.3g} ({self.low:+.3g} to {self.high:+.3g}), P = {self.p:.2g}"
        return f"{self.verdict}: {numbers}{needed}"


def compare(differences: Mapping[str, Any]) -> list[Comparison]:
    """Compare paired differences with zero, by a rule that is fixed before the numbers are seen.

    The interval of each mean is ``m ± t_{0.975, k−1} s/√k``. P-values are Student's, two-sided, and are corrected for
    the number of comparisons by Holm's method: with them sorted, ``p_(i) ← max_{j ≤ i} min(1, (m − j + 1) p_(j))``.
    If no difference is real, the probability that any is called one is at most 0.05 in this call; other calls add
    theirs. Differences that are equal in all k seeds have no spread, so Student's t is infinite and P = 0, which rests
    on the normal law alone: an exact test of signs gives 2^(1−k) at least, 0.06 for five seeds.

    >>> import numpy as np, gossipjax as gj
    >>> gains = {"dpsgd": np.array([0.02, 0.03, 0.025, 0.03, 0.02]), "local_sgd": np.array([0.0, 0.0, 0.0, 0.0, 0.1])}
    >>> [each.word for each in gj.review.compare(gains)]  # the second gain is one of a single seed
    ['better', 'no difference']

    Args:
        differences: for each baseline the values of the protocol minus those of the baseline, one for each of k ≥ 2
            seeds. A NaN or an infinite value: the seed has no value, and nothing is said of that baseline.

    Raises:
        ValueError: if there is no baseline, or less than two seeds.

    Reference: Holm 1979 (recalled).
    """
    if not isinstance(differences, Mapping) or not differences:
        raise ValueError(f"differences={shown(differences)}: must be arrays by the name of a baseline, at least one")
    arrays = {str(name): _seeds(name, values) for name, values in differences.items()}
    raw = {name: _p_value(values) for name, values in arrays.items()}
    return [
        _comparison(name, values, adjusted)
        for (name, values), adjusted in zip(arrays.items(), holm(list(raw.values())), strict=True)
    ]


def holm(p_values: list[float]) -> list[float]:
    """Correct p-values for their number; NaN stays NaN and counts."""
    order = sorted(range(len(p_values)), key=lambda i: (math.isnan(p_values[i]), p_values[i]))
    found, before = [math.nan] * len(p_values), 0.0
    for place, i in enumerate(order):
        if not math.isnan(p_values[i]):
            before = max(before, min(1.0, (len(p_values) - place) * p_values[i]))
            found[i] = before
    return found


def seeds_needed(effect: float | int, *, level: float = LEVEL, power: float = POWER) -> int | None:
    """Compute the smallest number of paired seeds at which a t test finds an effect.

    With k seeds the statistic has the noncentral t law of k − 1 degrees of freedom and noncentrality ``effect · √k``;
    the test is two-sided.

    >>> import gossipjax as gj
    >>> [gj.review.seeds_needed(effect) for effect in (0.5, 1.0, 2.0)]
    [34, 10, 5]

    Args:
        effect: mean of the differences over their standard deviation.
        level: of the test, in (0, 1).
        power: probability of finding the effect, in (0, 1).

    Returns:
        The number, at least 2; None for more than 10,000.

    Raises:
        ValueError: if a number is out of range.
    """
    size = abs(real("effect", effect, infinite=True))
    level, power = real("level", level, above=0, below=1), real("power", power, above=0, below=1)
    if math.isinf(size):
        return 2
    low, high = 1, 2
    while _power(size, high, level) < power:
        if high == _MOST_SEEDS:
            return None
        low, high = high, min(2 * high, _MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(size, middle, level) >= power else (middle, high)
    return high


def interval(values: Float[np.ndarray, " k"]) -> tuple[float, float, float]:
    """Compute the mean of k ≥ 2 values and the ends of its 95 % Student interval."""
    mean = float(values.mean())
    half = float(stats.t.ppf(1 - LEVEL / 2, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size))
    return mean, mean - half, mean + half


def _seeds(name: Any, values: Any) -> Float[np.ndarray, " k"]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size < 2:
        raise ValueError(
            f"differences[{name!r}]: has shape {array.shape}; give one number for each of two seeds or more"
        )
    return array


def _p_value(values: Float[np.ndarray, " k"]) -> float:
    if not np.isfinite(values).all():
        return math.nan
    error = values.std(ddof=1) / math.sqrt(values.size)
    if error <= 1e-12 * np.abs(values).max():  # equal values: rounding of their mean is no spread
        return 1.0 if not values.any() else 0.0
    return float(2 * stats.t.sf(abs(values.mean()) / error, values.size - 1))


def _comparison(name: str, values: Float[np.ndarray, " k"], p: float) -> Comparison:
    if math.isnan(p):
        return Comparison(name, math.nan, math.nan, math.nan, math.nan, values.size, None)
    mean, low, high = interval(values)
    spread = float(values.std(ddof=1))
    none = mean == 0 or spread <= 1e-12 * abs(mean)  # rounding of equal values is no spread
    needed = None if none else seeds_needed(mean / spread)
    return Comparison(name, mean, low, high, p, values.size, needed)


def _power(effect: float, seeds: int, level: float) -> float:
    far = stats.t.isf(level / 2, seeds - 1)
    shift = effect * math.sqrt(seeds)
    # The other tail adds less than level / 2, and nothing where the noncentral law is computed well.
    return float(stats.nct.sf(far, seeds - 1, shift))
