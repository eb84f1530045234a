"""Power laws fitted to runs, for what no formula knows, with intervals that are calibrated on other runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from gossipjax._base.arguments import callable_, flag, instance, optional_whole, real, reals, shown
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.lazy import stats
from gossipjax.predict._forecast import Check, Prediction

MOST_EXTRA = 1e-9
"""Share by which rounding may put a setting beyond the range of the runs."""
CERTAIN = 0.99
"""Probability with which a law whose intervals are right passes the test of its count, and that of all groups."""
NEWTON_STEPS, LONGEST_STEP = 100, 1.0
"""Of the logistic fit; a longer step is cut."""


class Coverage(NamedTuple):
    """How many new runs the intervals of a law hold, and how many they should.

    With m runs for calibration and k = ``⌈(m + 1) c⌉``, the share that intervals cover is Beta(k, m + 1 − k) over
    calibrations, so the count of N new runs is beta-binomial: wider than the binomial of the nominal share. So is that
    of a group whose errors are distributed as those of all runs.
    """

    covered: int
    """Of the runs that reached."""
    total: int
    """Runs that reached."""
    least: int
    """Least count that is accepted; with the most it has 99 % of the beta-binomial law."""
    most: int
    """Largest count that is accepted. Outcomes that take few values may exceed it, for ties count as covered."""
    groups: dict[Any, tuple[int, int, int]]
    """Of each group: covered, total, and the least count that is accepted. Its own beta-binomial law has at most 1 %,
    divided by the number of groups, below that. Empty without labels.
    """

    @property
    def accepted(self) -> bool:
        """Whether the count is between the ends, and no group is covered too seldom.

        A right law passes with probability 0.99 at least; with two groups or more 0.98, as these are judged as well.
        """
        enough = all(covered >= least for covered, _, least in self.groups.values())
        return self.least <= self.covered <= self.most and (enough or len(self.groups) < 2)


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class PowerLaw:
    """``y = C Π_k z_k^{b_k}``, fitted to runs, with a calibrated interval.

    Attributes:
        name: what is predicted.
        unit: of it.
        log_constant: ln C; C itself may be too large for a number where settings have a narrow range.
        exponents: b_k of each setting.
        ranges: smallest and largest value of each setting in the runs.
        coverage: c, nominal share of new runs that lie in their interval.
        factor: the interval of a prediction y is ``y / factor`` to ``y · factor``.
        trivial_factor: that of the median of the fitted runs (with the same ``baseline_groups``) as a prediction.
        num_fitted: runs that reached and were fitted.
        num_calibrated: runs that reached and were used for the interval.
        reached_share: share of all runs that reached.
    """

    name: str
    unit: str
    log_constant: float
    exponents: dict[str, float]
    ranges: dict[str, tuple[float, float]]
    coverage: float
    factor: float
    trivial_factor: float
    num_fitted: int
    num_calibrated: int
    reached_share: float
    _chance: Float[np.ndarray, " d"] = dataclasses.field(repr=False)
    _run: Callable[[dict[str, float], int], float] | None = dataclasses.field(repr=False)

    @property
    def constant(self) -> float:
        """C."""
        return _exp(self.log_constant)

    def probability(self, settings: Mapping[str, float]) -> float:
        """Return the probability that a run reaches, by a logistic fit to the same settings; 1 if all runs did.

        Args:
            settings: a number for each setting.

        Raises:
            ValueError: as :meth:`predict`.
        """
        if self.reached_share == 1:
            return 1.0
        return float(_logistic(np.append(1.0, _logs(self._checked(settings))) @ self._chance))

    def predict(self, settings: Mapping[str, float], *, check: bool = False, seed: int = 0) -> Prediction:
        """Predict a run, and run it beside on request.

        Args:
            settings: a number for each setting.
            check: whether to run as well; the law must have been given ``run``.
            seed: of this run.

        Raises:
            ValueError: if a setting is missing, unknown, or outside the range of the runs: a power law says nothing
                there; or if there is nothing to run.
        """
        given, check, seed = self._checked(settings), flag("check", check), checked_seed(seed)
        logarithm = self.log_constant + sum(b * math.log(given[name]) for name, b in self.exponents.items())
        value, low, high = (_exp(logarithm + shift * math.log(self.factor)) for shift in (0, -1, 1))
        found = None
        if check:
            if self._run is None:
                raise ValueError(
                    "check=True: the law was made from numbers alone; give run to gossipjax.predict.power_law"
                )
            found = Check(_outcome(self._run, given, seed), 0.0, f"one run with seed {seed}")
        chance = self.probability(given)
        words = f"a run drawn as the {self.num_fitted} of the fit and the {self.num_calibrated} of the interval, which "
        words += f"holds {self.coverage:.0%} of such runs"
        if self.reached_share < 1:
            words += f"; if it gets there at all, which has probability {chance:.2g} by a logistic fit"
        return Prediction(self.name, value, low, high, self.unit, "fitted", f"{self}; split conformal", words, found)

    def test(
        self,
        settings: Mapping[str, Num[np.ndarray, " _"]],
        outcome: Num[np.ndarray, " r"],
        *,
        groups: Any = None,
    ) -> Coverage:
        """Count how many new runs lie in their intervals.

        Args:
            settings: of the new runs, which were neither fitted nor used for the interval.
            outcome: of the new runs; those that never reached, ∞, are left out.
            groups: label of the group of each run, each judged by itself if there are several; None: no groups.

        Raises:
            ValueError: as :meth:`predict`, or if lengths differ.
        """
        table, y = _table(settings, outcome)
        _same_names(self.exponents, table)
        for name, column in table.items():
            self._inside(name, column)
        labels = None if groups is None else np.asarray(groups)
        if labels is not None and labels.shape != y.shape:
            raise ValueError(f"groups of shape {labels.shape}: give one label for each of {y.size} runs")
        if labels is not None and (labels.dtype.kind not in "biufU" or (labels != labels).any()):
            raise ValueError(f"groups={shown(groups)}: labels must be all numbers or all strings, and none of them NaN")
        there = np.isfinite(y)
        center = self.log_constant + _matrix(self.exponents, table) @ np.array(list(self.exponents.values()))
        inside = (np.abs(np.log(y[there]) - center[there]) <= math.log(self.factor) + MOST_EXTRA).astype(bool)
        total = int(there.sum())
        ends = self._count(total, (1 - CERTAIN) / 2), self._count(total, (1 + CERTAIN) / 2)
        return Coverage(int(inside.sum()), total, *ends, {} if labels is None else self._groups(labels[there], inside))

    def _count(self, total: int, probability: float) -> int:
        """Return a quantile of the number of new runs that are covered."""
        return int(stats.betabinom(total, *_beta(self.num_calibrated, self.coverage)).ppf(probability))

    def _groups(self, labels: np.ndarray, inside: Bool[np.ndarray, " r"]) -> dict[Any, tuple[int, int, int]]:
        names, totals = np.unique(labels, return_counts=True)
        return {
            name.item(): (int(inside[labels == name].sum()), total, self._count(total, (1 - CERTAIN) / len(names)))
            for name, total in zip(names, totals.tolist(), strict=True)
        }

    def summary(self) -> str:
        """Say the law, its interval, and whether it is better than a median."""
        beats = self.factor < self.trivial_factor
        compared = "the median of the runs alone" if beats else "which is no better than the median of the runs:"
        lines = [
            f"{self.name} = {self} {self.unit}",
            f"{self.coverage:.0%} of new runs within a factor of {self.factor:.3g}; "
            f"{compared} {self.trivial_factor:.3g}",
            *(f"  {name} from {low:.4g} to {high:.4g}" for name, (low, high) in self.ranges.items()),
            f"{self.reached_share:.0%} of the runs got there",
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return " ".join([f"{self.constant:.4g}", *(f"· {name}^{b:.3g}" for name, b in self.exponents.items())])

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return f"{self.name} = {self}", {"factor": self.factor, "of a median": self.trivial_factor}

    def _checked(self, settings: Any) -> dict[str, float]:
        if not isinstance(settings, Mapping):
            raise TypeError(f"settings={shown(settings)}: must be a mapping from names to numbers")
        _same_names(self.exponents, settings)
        given = {name: real(f"settings[{name!r}]", settings[name], above=0) for name in self.exponents}
        for name, value in given.items():
            self._inside(name, np.array([value]))
        return {name: float(value) for name, value in given.items()}

    def _inside(self, name: str, column: Float[np.ndarray, " r"]) -> None:
        low, high = self.ranges[name]
        outside = (column < low * (1 - MOST_EXTRA)) | (column > high * (1 + MOST_EXTRA))
        if outside.any():
            raise ValueError(
                f"{name}={column[outside][0]:g}: the runs of this law have {low:g} to {high:g}, and it says nothing "
                "outside; make runs there"
            )


@recorded("lei2018distribution", "papadopoulos2002inductive")
def power_law(
    settings: Mapping[str, Num[np.ndarray, " _"]],
    outcome: Num[np.ndarray, " m"],
    *,
    name: str = "rounds_to_accuracy",
    unit: str = "rounds",
    coverage: float = 0.9,
    num_calibrated: int | None = None,
    ridge: float = 1e-3,
    baseline_groups: str | None = None,
    run: Callable[[dict[str, float], int], float] | None = None,
    seed: int,
) -> PowerLaw:
    """Fit a power law to runs, to predict what no formula knows: rounds of training to an accuracy, for example.

    Some of the runs, at random, give the exponents of ``y = C Π_k z_k^{b_k}`` by ridge regression of the logarithms,
    on standardized logarithms of the settings. The other m give the interval, by split conformal prediction: with
    k = ``⌈(m + 1) c⌉``, the k-th smallest of their errors ``|ln y − ln ŷ|`` is the logarithm of the factor. If a new
    run is drawn as these were, its interval holds it with probability ``k/(m + 1) ≥ c``, whether the law is true or
    not; if it is not, the interval is wide. :meth:`PowerLaw.test` counts on new runs. An interval says nothing about
    a query of another kind: another task, other devices, settings outside of the range, which are refused.

    >>> import numpy as np, gossipjax as gj
    >>> rng = np.random.default_rng(0)
    >>> n = rng.uniform(8, 64, 200)
    >>> law = gj.predict.power_law({"n": n}, 3 * n**0.5 * np.exp(0.1 * rng.normal(size=200)), seed=0)
    >>> print(law.predict({"n": 16.0}))
    rounds_to_accuracy: 11.856, 10.109 to 13.904 rounds (fitted)

    Args:
        settings: z, positive numbers of each run, by name. Take something that has a scale, such as the relaxation
            time ``1/(1 − ρ)`` of a graph instead of ρ.
        outcome: y > 0 of each run; infinite where it never got there. These runs tell the probability of that, and are
            left out of law and interval, which are about the others.
        name: of the outcome.
        unit: of the outcome.
        coverage: c.
        num_calibrated: how many of the runs are for the interval; None: half of them.
        ridge: weight of the squared exponents, as a share of the number of runs.
        baseline_groups: a setting with few values. The median, with which the law is compared, is then that of the runs
            with the same value.
        run: ``run(settings, seed)`` makes a new run and returns its outcome, for ``predict(check=True)``.
        seed: of the choice of runs for the interval.

    Raises:
        ValueError: if lengths differ, a number is not positive, or there are too few runs for the interval, which takes
            ``c/(1 − c)`` at least, or for the exponents.

    Reference: split conformal prediction: Papadopoulos et al. 2002 (recalled); Lei, G'Sell, Rinaldo, Tibshirani,
        Wasserman 2018, "Distribution-free predictive inference for regression", theorem 2 (recalled). The count in
        :class:`Coverage` follows from exchangeability.
    """
    table, y = _table(settings, outcome)
    name, unit = instance("name", name, str, "of the outcome"), instance("unit", unit, str, "of the outcome")
    c, penalty = float(real("coverage", coverage, above=0, below=1)), float(real("ridge", ridge, least=0))
    chosen = optional_whole("num_calibrated", num_calibrated, least=1, most=y.size - 1)
    if baseline_groups is not None and not (isinstance(baseline_groups, str) and baseline_groups in table):
        raise ValueError(f"baseline_groups={shown(baseline_groups)}: must be a setting, one of {', '.join(table)}")
    if run is not None:
        callable_("run", run, "run(settings, seed) -> outcome")
    order = np.random.default_rng(checked_seed(seed)).permutation(y.size)
    there, held = np.isfinite(y), np.zeros(y.size, bool)
    held[order[: y.size // 2 if chosen is None else chosen]] = True
    fitted, kept = there & ~held, there & held
    _enough(int(fitted.sum()), int(kept.sum()), len(table), c)
    logs, Z = np.log(np.where(there, y, 1.0)), _matrix(table, table)
    slopes, constant = _ridge(Z[fitted], logs[fitted], penalty)
    quantile = _quantile(np.abs(logs[kept] - constant - Z[kept] @ slopes), c)
    median = _medians(table.get(baseline_groups) if baseline_groups else None, logs, fitted)
    return PowerLaw(
        name,
        unit,
        constant,
        dict(zip(table, slopes.tolist(), strict=True)),
        {key: (float(column.min()), float(column.max())) for key, column in table.items()},
        c,
        math.exp(quantile),
        math.exp(_quantile(np.abs(logs - median)[kept], c)),
        int(fitted.sum()),
        int(kept.sum()),
        float(there.mean()),
        _chances(Z, there, penalty),
        run,
    )


def _table(settings: Any, outcome: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Check settings and outcomes of runs."""
    if not isinstance(settings, Mapping) or not settings or not all(isinstance(name, str) for name in settings):
        raise TypeError(f"settings={shown(settings)}: must be a mapping from names to one number for each run")
    y = reals("outcome", outcome, shape=(None,), above=0, infinite=True)
    if not y.size:
        raise ValueError("outcome: there are no runs; give two or more")
    return {
        name: reals(f"settings[{name!r}]", column, shape=(y.size,), above=0, remedy="one for each run")
        for name, column in settings.items()
    }, y


def _same_names(known: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if set(known) != set(given):
        raise ValueError(f"settings={shown(list(given))}: the law has {', '.join(known)}; give a number for each")


def _enough(fitted: int, kept: int, settings: int, c: float) -> None:
    least = math.ceil(c / (1 - c) - 1e-9)
    if kept < least:
        raise ValueError(
            f"outcome: {kept} runs that got there are left for the interval, and coverage={c:g} takes {least} or more; "
            "make more runs"
        )
    if fitted < settings + 2:
        raise ValueError(
            f"outcome: {fitted} runs that got there are left for the fit of {settings} exponents, which takes "
            f"{settings + 2} or more; make more runs, or lower num_calibrated"
        )


def _matrix(names: Mapping[str, Any], table: Mapping[str, np.ndarray]) -> Float[np.ndarray, "m k"]:
    return np.log(np.stack([table[name] for name in names], axis=1))


def _logs(settings: Mapping[str, float]) -> Float[np.ndarray, " k"]:
    return np.log(np.array(list(settings.values())))


def _scaled(Z: Float[np.ndarray, "m k"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardize columns; one that does not vary stays 0."""
    middle, spread = Z.mean(0), Z.std(0)
    spread = np.where(spread > 1e-12 * (1 + np.abs(middle)), spread, np.inf)
    return (Z - middle) / spread, middle, spread


def _ridge(Z: np.ndarray, y: np.ndarray, penalty: float) -> tuple[Float[np.ndarray, " k"], float]:
    """Return slopes and constant that minimize ``mean (y − a − Z b)² + penalty ‖b‖²`` in standard units."""
    U, middle, spread = _scaled(Z)
    gram = U.T @ U / len(U) + penalty * np.eye(U.shape[1])
    slopes = np.linalg.lstsq(gram, U.T @ (y - y.mean()) / len(U), rcond=None)[0] / spread
    return slopes, float(y.mean() - middle @ slopes)


def _beta(m: int, c: float) -> tuple[int, int]:
    """Return the parameters of the law of the share that is covered."""
    k = math.ceil((m + 1) * c - 1e-9)
    return k, m + 1 - k


def _quantile(errors: Float[np.ndarray, " m"], c: float) -> float:
    return float(np.sort(errors)[_beta(errors.size, c)[0] - 1])


def _medians(column: np.ndarray | None, logs: np.ndarray, fitted: Bool[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Return for each run the median of the fitted runs with the same value, or of all if none has it."""
    median = np.full(logs.size, np.median(logs[fitted]))
    for value in [] if column is None else np.unique(column[fitted]):
        median[column == value] = np.median(logs[fitted & (column == value)])
    return median


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def _chances(Z: np.ndarray, there: Bool[np.ndarray, " m"], penalty: float) -> Float[np.ndarray, " d"]:
    """Return constant and slopes of ``P(reached) = 1/(1 + exp(−a − Z b))``, by Newton steps with the same ridge."""
    U, middle, spread = _scaled(Z)
    if there.all():
        return np.zeros(1 + Z.shape[1])
    U = np.column_stack([np.ones(len(U)), U])
    weights, cost = np.zeros(U.shape[1]), max(penalty, 1e-6) * np.append(1e-3, np.ones(Z.shape[1]))
    for _ in range(NEWTON_STEPS):
        p = _logistic(U @ weights)
        slope = U.T @ (p - there) / len(U) + cost * weights
        step = np.linalg.solve(U.T @ (U * (p * (1 - p))[:, None]) / len(U) + np.diag(cost), slope)
        weights = weights - step * (LONGEST_STEP / max(LONGEST_STEP, float(np.linalg.norm(step))))
    slopes = weights[1:] / spread
    return np.append(weights[0] - middle @ slopes, slopes)


def _outcome(run: Callable[[dict[str, float], int], float], settings: dict[str, float], seed: int) -> float:
    return float(real(f"run({settings}, {seed})", run(settings, seed), above=0, infinite=True))
