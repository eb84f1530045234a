"""Growth of a quantity with n: fit laws to values with known standard errors, and compare the fits.

Laws, with their parameters::

    constant      level                              v = level
    saturating    level + approach/ln n                 bounded: approaches the level as slowly as a logarithm grows
    logarithm     offset + slope ln n
    power         factor n^exponent
    offset_power  offset + slope (n^exponent − 1)/exponent

The last law includes the logarithm (exponent 0) and the power with any offset, so the interval of its exponent tells
them apart. All fits minimise ``χ² = Σ ((value − law)/error)²`` with the given errors. If χ² exceeds its degrees of
freedom, the law or the errors are wrong, and intervals are widened by √(χ²/degrees of freedom), never narrowed.

Laws with p parameters are compared by ``AIC = χ² + 2p``, which needs no small-sample correction if the errors are
known. ``aicc`` adds ``2p(p + 1)/(N − p − 1)``, meant for unknown errors, and ``bic = χ² + p ln N``. A difference above
10 is called decisive, from 2 to 10 weak, and below 2 undecided.

Reference: Burnham and Anderson 2002, Model Selection and Multimodel Inference, section 2.6 (the grades).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
from jaxtyping import Float, Num

from .arguments import choice, real, reals

LAWS = ("constant", "saturating", "logarithm", "power", "offset_power")
CRITERIA = ("aic", "aicc", "bic")

DECISIVE = 10.0
"""Difference of the criterion beyond which the worse law has practically no support."""
WEAK = 2.0
"""Difference below which two laws cannot be told apart."""
_Z = float(scipy.stats.norm.ppf(0.975))
_EXPONENTS = np.linspace(-6.0, 6.0, 121)


class Fit(NamedTuple):
    """One fitted law."""

    law: str
    names: tuple[str, ...]
    """Of the parameters."""
    parameters: Float[np.ndarray, " p"]
    intervals: Float[np.ndarray, "p 2"]
    """95 % intervals, widened if the law does not fit; infinite if the values do not determine the parameter."""
    covariance: Float[np.ndarray, "p p"]
    """Covariance of the parameters from the given errors, not widened."""
    exponent: float
    """Exponent of a power; NaN for other laws."""
    slope: float
    """Slope of a logarithm: growth per factor e in n; NaN for other laws."""
    chi2: float
    degrees_of_freedom: int
    reduced_chi2: float
    aic: float
    aicc: float
    """Infinite if there is only one point more than parameters."""
    bic: float


class Comparison(NamedTuple):
    """Several laws fitted to the same values, in the order of the call."""

    best: str
    fits: tuple[Fit, ...]
    differences: Float[np.ndarray, " laws"]
    """Criterion minus that of the best law."""
    criterion: str
    verdict: str
    """Which law fits best, by how much, and whether it fits at all."""
    n: Float[np.ndarray, " points"]
    value: Float[np.ndarray, " points"]
    error: Float[np.ndarray, " points"]


def fit(
    n: Num[np.ndarray, " points"], value: Num[np.ndarray, " points"], error: Num[np.ndarray, " points"], law: str
) -> Fit:
    """Fit one law by weighted least squares with known standard errors.

    Linear parameters have a closed solution. The exponent is searched on a grid from −6 to 6, by the profile of χ², and
    then refined by Gauss-Newton steps. Kind: exact for linear laws, intervals included; intervals of laws with an
    exponent are asymptotic, for errors much smaller than the values.

    Args:
        n: positive sizes; a size may repeat.
        value: one per size, any unit.
        error: standard error of each value, positive, in the same unit.
        law: one of :data:`LAWS`.

    Returns:
        The fit, with parameters in the order of its ``names``.

    Raises:
        ValueError: shapes that differ, sizes or errors that are not positive, an unknown law, fewer points than
            parameters + 1, or fewer different sizes than parameters.
    """
    names = _names(law)
    n, value, error = _table(n, value, error)
    _check_enough(n, law, len(names))
    if law == "saturating" and n.min() <= 1:
        raise ValueError(f"n={n.min():g}: the saturating law level + approach/ln n needs sizes above 1")
    parameters = _minimise(law, n, value, error, _start(law, n, value, error))
    predicted, jacobian = _model(law, n, parameters)
    chi2 = float(np.sum(((value - predicted) / error) ** 2))
    free = len(n) - len(names)
    covariance = _covariance(jacobian / error[:, None])
    half = _Z * np.sqrt(np.diag(covariance) * max(1.0, chi2 / free))
    p = len(names)
    return Fit(
        law=law,
        names=names,
        parameters=parameters,
        intervals=np.stack([parameters - half, parameters + half], axis=1),
        covariance=covariance,
        exponent=float(parameters[-1]) if "exponent" in names else math.nan,
        slope=float(parameters[1]) if law == "logarithm" else math.nan,
        chi2=chi2,
        degrees_of_freedom=free,
        reduced_chi2=chi2 / free,
        aic=chi2 + 2 * p,
        aicc=chi2 + 2 * p + (2 * p * (p + 1) / (free - 1) if free > 1 else math.inf),
        bic=chi2 + p * math.log(len(n)),
    )


def compare(
    n: Num[np.ndarray, " points"],
    value: Num[np.ndarray, " points"],
    error: Num[np.ndarray, " points"],
    *,
    laws: Sequence[str] = ("constant", "logarithm", "power"),
    criterion: str = "aic",
) -> Comparison:
    """Fit several laws, and report which of them fits best, by how much, and whether it fits at all.

    Args:
        n, value, error: as in :func:`fit`.
        laws: at least one law. ``offset_power`` includes the others and never loses to them by more than 2 per
            parameter.
        criterion: ``aic``, ``aicc`` or ``bic``, see the module's docstring.

    Raises:
        ValueError: an error of :func:`fit`, no law, a repeated law, or an unknown criterion.
    """
    if isinstance(laws, str) or not isinstance(laws, Sequence) or not laws:
        raise ValueError(f"laws={laws!r}: must be a list of at least one law of {list(LAWS)}")
    laws = [choice("laws", law, LAWS) for law in laws]
    if len(set(laws)) < len(laws):
        raise ValueError(f"laws={tuple(laws)}: must not repeat a law")
    choice("criterion", criterion, CRITERIA)
    fits = tuple(fit(n, value, error, law) for law in laws)
    scores = np.asarray([getattr(one, criterion) for one in fits])
    if not np.isfinite(scores).any():
        raise ValueError("aicc needs at least two points more than parameters: add points, or use criterion='aic'")
    best = fits[int(np.argmin(scores))]
    differences = scores - scores.min()
    verdict = _verdict(best, fits, differences, criterion)
    return Comparison(best.law, fits, differences, criterion, verdict, *_table(n, value, error))


def predict(
    one: Fit, n: Num[np.ndarray, " points"]
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Evaluate a fitted law and the half-width of its 95 % confidence band, widened like the intervals.

    The band is that of the law at each n, ``1.96 √(g C gᵀ)`` where g is the gradient of the law by its parameters. New
    measurements scatter more widely.

    Raises:
        ValueError: sizes that are not positive.
    """
    _instance("one", one, Fit, "fit")
    n = reals("n", n, shape=(None,), above=0)
    values, jacobian = _model(one.law, n, one.parameters)
    if not np.all(np.isfinite(one.covariance)):
        return values, np.full(n.shape, math.inf)
    variance = np.einsum("ij,jk,ik->i", jacobian, one.covariance, jacobian)
    return values, _Z * np.sqrt(np.maximum(variance, 0.0) * max(1.0, one.reduced_chi2))


def preferred(log_minus_power: float) -> str:
    """Return whether a logarithm or a power fits better, if AIC(a + b ln n) − AIC(a n^b) is decisive.

    Kind: exact (the rule). With larger errors the difference shrinks and becomes undecided.
    """
    log_minus_power = real("log_minus_power", log_minus_power)
    if not abs(log_minus_power) > DECISIVE:
        return "undecided"
    return "ln n fits better" if log_minus_power < 0 else "a n^b fits better"


def describe(one: Fit) -> str:
    """Describe a law in one line, with the 95 % interval of its last parameter: slope b, exponent c or level a."""
    _instance("one", one, Fit, "fit")
    form, symbol = {
        "constant": ("a", "a"),
        "saturating": ("a + b/ln n", "b"),
        "logarithm": ("a + b ln n", "b"),
        "power": ("a n^c", "c"),
        "offset_power": ("a + b (n^c - 1)/c", "c"),
    }[one.law]
    # The last parameter determines how fast the law grows.
    half = (one.intervals[-1, 1] - one.intervals[-1, 0]) / 2
    return f"{form}: {symbol} = {one.parameters[-1]:.3g} ± {half:.2g}"


def plot(
    comparison: Comparison,
    ax: Any = None,
    *,
    xlabel: str = "nodes n",
    ylabel: str = "value",
    label: str = "measured",
    colour: str = "#004488",
) -> Any:
    """Draw the values with 95 % error bars, every law's line, and the confidence band of the best.

    The horizontal axis is logarithmic. The best law is solid and has the band; the others have different dashes, so
    that the legend works in grey.

    Args:
        comparison: result of :func:`compare`.
        ax: matplotlib axes to draw into; None: those of a new figure.
        xlabel, ylabel, label: labels of the axes and of the points.
        colour: colour of the points and of the best law.

    Returns:
        The axes; ``ax.figure`` is the figure.
    """
    _instance("comparison", comparison, Comparison, "compare")
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(4.6, 3.4), dpi=160, layout="constrained").subplots()
    grid = np.geomspace(comparison.n.min(), comparison.n.max(), 200)
    dashes = iter(((0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.2, 1.5))))
    for one, difference in zip(comparison.fits, comparison.differences, strict=True):
        line, half = predict(one, grid)
        text = f"{describe(one)}; Δ{comparison.criterion.upper()} {difference:.1f}"
        if one.law == comparison.best:
            if np.all(np.isfinite(half)):
                ax.fill_between(grid, line - half, line + half, color=colour, alpha=0.2, linewidth=0, zorder=1)
            ax.plot(grid, line, color=colour, linestyle="-", linewidth=1.6, label=text, zorder=3)
        else:
            ax.plot(grid, line, color="0.35", linestyle=next(dashes), linewidth=1.2, label=text, zorder=2)
    marks: dict[str, Any] = {"marker": "o", "markersize": 4, "linestyle": "none", "capsize": 2, "elinewidth": 0.9}
    bars = _Z * comparison.error
    ax.errorbar(comparison.n, comparison.value, yerr=bars, color=colour, label=f"{label}, 95 %", zorder=4, **marks)
    ax.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    ax.legend(frameon=False, fontsize=7)
    return ax


def _instance(name: str, value: Any, kind: type, maker: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}={value!r:.60}: must be a {kind.__name__}, which {maker} returns")


def _names(law: str) -> tuple[str, ...]:
    match choice("law", law, LAWS):
        case "constant":
            return ("level",)
        case "saturating":
            return ("level", "approach")
        case "logarithm":
            return ("offset", "slope")
        case "power":
            return ("factor", "exponent")
        case _:
            return ("offset", "slope", "exponent")


def _model(law: str, n: np.ndarray, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate a law and its derivatives with respect to the parameters, one row per size."""
    logs, one = np.log(n), np.ones_like(n)
    match law:
        case "constant":
            columns = [one]
        case "saturating":
            columns = [one, 1 / logs]
        case "logarithm":
            columns = [one, logs]
        case "power":
            power = n ** parameters[1]
            return parameters[0] * power, np.stack([power, parameters[0] * power * logs], axis=1)
        case _:
            shape, slope = _box_cox(logs, parameters[2])
            jacobian = np.stack([one, shape, parameters[1] * slope], axis=1)
            return parameters[0] + parameters[1] * shape, jacobian
    jacobian = np.stack(columns, axis=1)
    return jacobian @ parameters, jacobian


def _box_cox(logs: np.ndarray, exponent: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate ``(n^c − 1)/c`` and its derivative with respect to c, smoothly through c = 0."""
    u = exponent * logs
    # Below 1e-3 the error of the series is below 1e-13, less than the rounding error of the quotients.
    small = np.abs(u) < 1e-3
    safe = np.where(small, 1.0, u)
    shape = np.where(small, 1 + u / 2 + u**2 / 6 + u**3 / 24, np.expm1(safe) / safe)
    slope = np.where(small, 0.5 + u / 3 + u**2 / 8 + u**3 / 30, (safe * np.exp(safe) - np.expm1(safe)) / safe**2)
    return logs * shape, logs**2 * slope


def _start(law: str, n: np.ndarray, value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return the start of the Gauss-Newton steps, the best exponent on the profile of χ²; linear laws need none."""
    if law not in ("power", "offset_power"):
        return np.zeros(len(_names(law)))

    def profile(exponents: np.ndarray) -> np.ndarray:
        return _profile(law, n, value, error, exponents)

    best = int(np.argmin(profile(_EXPONENTS)))
    ends = _EXPONENTS[max(best - 1, 0)], _EXPONENTS[min(best + 1, len(_EXPONENTS) - 1)]
    minimum = scipy.optimize.minimize_scalar(
        lambda c: float(profile(np.asarray([c]))[0]), bounds=ends, method="bounded", options={"xatol": 1e-4}
    )
    _, jacobian = _model(law, n, np.asarray([1.0, minimum.x] if law == "power" else [0.0, 1.0, minimum.x]))
    linear = _solve(jacobian[:, :-1] / error[:, None], value / error)
    return np.append(linear, minimum.x)


def _profile(law: str, n: np.ndarray, value: np.ndarray, error: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Compute, for each exponent, the smallest χ² over the linear parameters."""
    # Sizes relative to their mean keep high powers finite and do not change χ².
    logs = np.log(n) - np.log(n).mean()
    weights = 1.0 / error**2
    if law == "power":
        shape, target = np.exp(exponents[:, None] * logs), value
    else:
        shape = _box_cox(logs, exponents[:, None])[0]
        shape = shape - (shape @ weights)[:, None] / weights.sum()
        target = value - value @ weights / weights.sum()
    return np.sum(weights * target**2) - (shape @ (weights * target)) ** 2 / (shape**2 @ weights)


def _minimise(law: str, n: np.ndarray, value: np.ndarray, error: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Take Gauss-Newton steps, halving those that do not lower χ², until no step lowers it."""
    parameters = start

    def chi2_at(candidate: np.ndarray) -> float:
        return float(np.sum(((value - _model(law, n, candidate)[0]) / error) ** 2))

    chi2 = chi2_at(parameters)
    for _ in range(50):
        predicted, jacobian = _model(law, n, parameters)
        step = _solve(jacobian / error[:, None], (value - predicted) / error)
        candidates = (parameters + step / 2**k for k in range(8))
        # A step to a far exponent would overflow.
        allowed = (c for c in candidates if "exponent" not in _names(law) or abs(c[-1]) < 2 * _EXPONENTS[-1])
        better = next((c for c in allowed if chi2_at(c) < chi2), None)
        if better is None:
            return parameters
        parameters, previous, chi2 = better, chi2, chi2_at(better)
        if previous - chi2 < 1e-12 * chi2:
            return parameters
    return parameters


def _solve(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve least squares after scaling the columns to equal length."""
    lengths = np.linalg.norm(matrix, axis=0)
    lengths = np.where(lengths > 0, lengths, 1.0)
    return np.linalg.lstsq(matrix / lengths, target, rcond=None)[0] / lengths


def _covariance(weighted: np.ndarray) -> Float[np.ndarray, "p p"]:
    """Invert JᵀJ; entries are infinite if a parameter is not determined."""
    lengths = np.linalg.norm(weighted, axis=0)
    undetermined = np.full((weighted.shape[1],) * 2, math.inf)
    if not np.all(lengths > 0):
        return undetermined
    _, singular, rotation = np.linalg.svd(weighted / lengths, full_matrices=False)
    if singular[-1] < 1e-9 * singular[0]:
        return undetermined
    return (rotation.T / singular**2) @ rotation / np.outer(lengths, lengths)


def _verdict(best: Fit, fits: Sequence[Fit], differences: np.ndarray, criterion: str) -> str:
    p_value = float(scipy.stats.chi2.sf(best.chi2, best.degrees_of_freedom))
    text = f"{best.law} fits best ({describe(best)})"
    rest = sorted((float(d), one.law) for d, one in zip(differences, fits, strict=True) if one is not best)
    for gap, law in rest:
        grade = "decisive" if gap > DECISIVE else "weak" if gap >= WEAK else "undecided"
        text += f", {criterion.upper()} {gap:.1f} below {law} ({grade})"
    text += f"; chi2 {best.chi2:.3g} on {best.degrees_of_freedom} degrees of freedom"
    return text + (f", which rejects the law itself (p = {p_value:.1g})" if p_value < 1e-3 else "")


def _table(n: np.ndarray, value: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = reals("n", n, shape=(None,), above=0)
    value = reals("value", value, shape=n.shape, remedy="pass one per size; omit sizes without a measurement")
    return n, value, reals("error", error, shape=n.shape, above=0, remedy="one per size")


def _check_enough(n: np.ndarray, law: str, parameters: int) -> None:
    if len(n) < parameters + 1:
        raise ValueError(
            f"{len(n)} points for the {parameters} parameters of law {law!r}: need at least {parameters + 1}"
        )
    if len(np.unique(n)) < parameters:
        raise ValueError(f"{len(np.unique(n))} different sizes for law {law!r}: need at least {parameters}")
