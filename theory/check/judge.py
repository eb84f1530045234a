"""Verdicts on claims, with a stated risk of calling a true claim violated.

Let m be the number of predictions that a run compares (the points of all its claims). Each is tested by Student's t
over its replicas at level ``1 − (1 − 10⁻³)^(1/m)`` (Šidák). If all claims are true, the probability that a run reports
any violation is below 1/1000. Bounds are tested on the side on which they can fail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from .. import scaling
from .claim import Assumption, Claim, Observation, Points

Verdict = Literal["holds", "violated", "assumption not met", "inconclusive"]
FAMILY = 1e-3
"""Probability that a run calls at least one true claim violated."""
GROUPS = 4
"""Parts into which replicas are split for the pooled scores."""
SMALLEST_GROUP = 8
COMPARED = ("constant", "saturating", "logarithm", "power")
"""Laws of growth that are fitted for scaling claims."""


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of one claim. Arrays have one entry per point."""

    claim: Claim
    points: Points
    predicted: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    """Standard errors; 0 if nothing is random."""
    z: np.ndarray
    """(mean − prediction) / error, converted from Student's t to standard normal scores; NaN without errors."""
    scores: np.ndarray
    """Scores of independent parts of an equality, for pooling."""
    verdict: Verdict
    detail: str
    assumptions: tuple[Assumption, ...]
    replicas: int
    seconds: float
    fit: scaling.Comparison | None = None

    @property
    def worst(self) -> int:
        """Index of the point with the strongest evidence against the claim."""
        if np.isfinite(self.z).all():
            sign = {"upper": 1.0, "lower": -1.0}.get(self.claim.kind)
            return int(np.argmax(np.abs(self.z) if sign is None else sign * self.z))
        return int(np.argmax(np.abs(self.mean - self.predicted)))

    @property
    def ratio(self) -> float:
        """Estimate divided by prediction at the worst point: how tight a bound is."""
        predicted = self.predicted[self.worst]
        return float(self.mean[self.worst] / predicted) if predicted else float("nan")


class Pooled(NamedTuple):
    """Check of the standard errors: if they are right, scores of true equalities are standard normal."""

    scores: int
    mean: float
    deviation: float
    largest: float
    normal: bool
    """Whether mean and spread each pass a test at level 10⁻³."""


def level(tests: int) -> float:
    """Compute the level of each of m tests (Šidák) that keeps the risk of any false alarm at :data:`FAMILY`."""
    return -float(np.expm1(np.log1p(-FAMILY) / max(tests, 1)))


def scores_of(samples: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Convert Student's t of each column to a standard normal score; NaN if a column does not vary."""
    replicas = len(samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = samples.std(axis=0, ddof=1) / np.sqrt(replicas)
        t = np.where(error > 0, (samples.mean(axis=0) - predicted) / error, np.nan)
    tail = stats.t.logsf(np.abs(t), replicas - 1)
    return np.sign(t) * -stats.norm.ppf(np.exp(np.maximum(tail, -600.0)))


def judge(claim: Claim, observation: Observation, points: Points, tests: int, seconds: float) -> Result:
    """Compare the observation of a claim with its prediction.

    Args:
        claim: claim with its prediction.
        observation: samples ``(replicas, points)``.
        points: points at which the claim was simulated.
        tests: m, the number of comparisons in this run.
        seconds: duration of the simulation.
    """
    samples = np.asarray(observation.samples, np.float64)
    predicted = np.broadcast_to(np.asarray(claim.predict(np.asarray(points)), np.float64), (len(points),))
    if samples.ndim != 2 or samples.shape[1] != len(points):
        raise ValueError(f"{claim.name}: samples of shape {samples.shape} for {len(points)} points")
    mean, random = samples.mean(axis=0), claim.sampling.tolerance is None
    with np.errstate(invalid="ignore"):  # of infinite samples
        error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples)) if random else np.zeros(len(points))
    z = scores_of(samples, predicted) if random else np.full(len(points), np.nan)
    verdict: Verdict
    fit = None
    if missing := [a for a in observation.assumptions if not a.held]:
        verdict, detail = "assumption not met", f"{missing[0].name}: {missing[0].detail}"
    elif unknown := int(np.isnan(samples).sum()):
        verdict, detail = "inconclusive", f"{unknown} of {samples.size} samples are NaN: they were not measured"
    elif not np.isfinite(samples).all():
        verdict, detail = "violated", "not finite"
    elif claim.kind == "scaling":
        verdict, detail, fit = _of_law(claim, np.asarray(points), mean, error, tests)
    else:
        verdict, detail = _of_values(claim, predicted, mean, error, z, level(tests))
    return Result(
        claim, points, predicted, mean, error, z, _pooled_scores(claim, samples, predicted), verdict, detail,
        observation.assumptions, len(samples), seconds, fit,
    )  # fmt: skip


def _of_values(claim: Claim, predicted, mean, error, z, alpha: float) -> tuple[Verdict, str]:
    side = {"equality": 0, "upper": 1, "lower": -1}[claim.kind]
    if claim.sampling.tolerance is not None:
        gap, room = mean - predicted, claim.sampling.tolerance * float(np.abs(predicted).max(initial=1e-300))
        wrong = float((np.abs(gap) if side == 0 else side * gap).max())
        return ("violated" if wrong > room else "holds"), f"off by {wrong:.1e}, allowed {room:.1e}"
    if np.isnan(z).any():
        return "inconclusive", "replicas do not vary"
    far = float(stats.norm.isf(alpha / 2 if side == 0 else alpha))
    loudest = float((np.abs(z) if side == 0 else side * z).max())
    if loudest > far:
        return "violated", f"|z| = {loudest:.1f} > {far:.1f}" if side == 0 else f"z = {side * loudest:.1f}"
    relative = float(np.max(error / np.maximum(np.abs(predicted), 1e-300)))
    if relative > claim.sampling.precision:
        return (
            "inconclusive",
            f"standard error {relative:.0%} of the prediction, allowed {claim.sampling.precision:.0%}",
        )
    return (
        "holds",
        f"|z| ≤ {loudest:.1f} < {far:.1f}" if side == 0 else f"z = {side * loudest:.1f}, limit {side * far:.1f}",
    )


def _of_law(claim: Claim, n, mean, error, tests: int) -> tuple[Verdict, str, scaling.Comparison]:
    """Judge a scaling claim: find the law that fits best, and compare its exponent with the prediction.

    A claim of boundedness (law "constant") depends on the slope b of ``a + b ln n``. It is violated if b is
    significantly above 0, and holds if the upper end of the 95 % interval of b is below the margin, a share of the mean
    value. Any other claim holds if its law leads all others by more than 10 in the criterion, and is violated if
    another law leads it by more than chance explains at the level of one test.

    A predicted exponent allows the band exponent ± (slack + precision). The claim is violated if the fitted exponent
    lies significantly outside the band, and holds only if its whole 95 % interval lies inside. Noise around the same
    values can thus never turn one verdict into the other.
    """
    wanted = claim.law
    assert wanted is not None
    laws = [law for law in COMPARED if law != "saturating" or n.min() > 1]
    comparison = scaling.compare(n, mean, error, laws=laws)
    fits = {fit.law: (fit, difference) for fit, difference in zip(comparison.fits, comparison.differences, strict=True)}
    if "constant" in wanted.names:
        return *_bounded(wanted.margin, fits["logarithm"][0], float(np.mean(mean)), level(tests)), comparison
    own = min((law for law in laws if law in wanted.names), key=lambda law: fits[law][1])
    rival = min((law for law in laws if law not in wanted.names), key=lambda law: fits[law][1])
    ahead, fitted = float(fits[rival][1] - fits[own][1]), fits[own][0]
    detail = f"{scaling.describe(fitted)}; {rival} {abs(ahead):.0f} {'behind' if ahead > 0 else 'ahead'}"
    # A rival has at most one parameter more than the own law.
    if -ahead > float(stats.chi2.isf(level(tests), 1)) + 2:
        return "violated", detail, comparison
    if wanted.exponent is not None and np.isfinite(fitted.exponent):
        room = wanted.slack + wanted.precision
        gap = abs(fitted.exponent - wanted.exponent) - room
        allowed = f"{detail}; predicted exponent {wanted.exponent:.3g} ± {room:.2g}"
        if gap > stats.norm.isf(level(tests) / 2) * _last_error(fitted):
            return "violated", allowed, comparison
        if not np.abs(fitted.intervals[-1] - wanted.exponent).max() <= room:
            return "inconclusive", allowed, comparison
    return ("holds" if ahead > scaling.DECISIVE else "inconclusive"), detail, comparison


def _bounded(margin: float, fit: scaling.Fit, value: float, alpha: float) -> tuple[Verdict, str]:
    error = _last_error(fit)
    most = (fit.slope + stats.norm.ppf(0.975) * error) / value
    detail = f"{scaling.describe(fit)}: grows at most {max(most, 0.0):.1%} per factor e"
    if fit.slope > stats.norm.isf(alpha) * error:
        return "violated", detail
    return ("holds" if most < margin else "inconclusive"), detail


def _last_error(fit: scaling.Fit) -> float:
    """Standard error of the growth parameter, widened if the law does not fit."""
    return float((fit.intervals[-1, 1] - fit.intervals[-1, 0]) / (2 * stats.norm.ppf(0.975)))


def _pooled_scores(claim: Claim, samples: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Scores of equal parts of the replicas, at points with independent runs."""
    parts = min(GROUPS, len(samples) // SMALLEST_GROUP)
    if claim.kind != "equality" or claim.sampling.tolerance is not None or parts < 1:
        return np.zeros(0)
    columns = slice(None) if claim.sampling.independent else slice(-1, None)
    scores = [scores_of(part[:, columns], predicted[columns]) for part in np.array_split(samples, parts)]
    return np.concatenate(scores)


def pool(results: Sequence[Result]) -> Pooled:
    """Test that the scores of all equalities have mean 0 and spread 1, as they must if standard errors are right."""
    scores = np.concatenate([result.scores for result in results] or [np.zeros(0)])
    scores = scores[np.isfinite(scores)]
    count = scores.size
    if count < 2:
        return Pooled(count, float("nan"), float("nan"), float("nan"), True)
    mean, variance = float(scores.mean()), float(scores.var(ddof=1))
    of_mean = 2 * stats.norm.sf(abs(mean) * np.sqrt(count))
    chi2 = variance * (count - 1)
    of_spread = 2 * min(stats.chi2.cdf(chi2, count - 1), stats.chi2.sf(chi2, count - 1))
    largest = float(np.abs(scores).max())
    return Pooled(count, mean, float(np.sqrt(variance)), largest, bool(min(of_mean, of_spread) > FAMILY))
