"""The verdict policy of the project: compare an interval over seeds with a band that was stated beforehand.

The interval is ``mean ± t_{0.975, n−1} s/√n`` over n independent seeds; the band holds the values that a claim allows:

- *reproduced*: the whole interval lies in the band;
- *contradicted*: the whole interval lies outside it;
- *undecided*: an end of the band lies in the interval, or a seed has no value;
- *no verdict*: fewer than three seeds.

Noise thus never helps: a wider interval around the same mean can only turn a verdict into *undecided*. :func:`all_of`,
:func:`any_of` and :func:`in_part` combine the statements of a claim, and keep that property.

The claims of :mod:`theory.check.judge` are theorems. They predict one value instead of a band, and are tested against
it with a stated risk of a false alarm; every claim also states how much noise it tolerates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy import stats

Word: TypeAlias = Literal["reproduced", "in part", "contradicted", "undecided", "no verdict"]
CONFIDENCE = 0.95
SEEDS = 3
"""Fewest seeds that allow a verdict."""


class Band(NamedTuple):
    """Values that a claim allows, both ends included."""

    low: float = -np.inf
    high: float = np.inf

    def __str__(self) -> str:
        """Write the band as a condition."""
        if np.isinf(self.low):
            return f"at most {self.high:.3g}"
        if np.isinf(self.high):
            # The bound of `above` is the number before the low end, and the shorter of the two to write.
            before = float(np.nextafter(self.low, -np.inf))
            excluded = len(repr(before)) < len(repr(float(self.low)))
            return f"above {before:.3g}" if excluded else f"at least {self.low:.3g}"
        return f"{self.low:.3g} to {self.high:.3g}"


def around(value: float, share: float) -> Band:
    """Allow a relative deviation from a published value on both sides."""
    return Band(*sorted((value * (1 - share), value * (1 + share))))


def above(value: float) -> Band:
    """Allow all values strictly above the given one."""
    return Band(low=float(np.nextafter(value, np.inf)))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Verdict of the seeds of an experiment on one statement."""

    word: Word
    mean: float
    half: float
    """Half-width of the interval; NaN if there is none."""
    seeds: int
    missing: int
    """Seeds without a value."""
    band: Band

    def __str__(self) -> str:
        """Write the verdict with its reason."""
        if self.word == "no verdict":
            return f"no verdict: {self.seeds} seed{'s' if self.seeds != 1 else ''}, {SEEDS} are needed"
        if self.missing:
            return f"{self.word}: {self.missing} of {self.seeds} seeds have no value"
        interval = f"{self.mean:.3g} ± {self.half:.2g}" if np.isfinite(self.half) else f"{self.mean:.3g}"
        return f"{self.word}: {interval}, allowed {self.band}"


def interval(samples: Float[np.ndarray, " seeds"]) -> tuple[float, float]:
    """Compute the mean over seeds and the half-width of its Student t interval, NaN for a single seed."""
    mean = float(samples.mean())
    if samples.size < 2:
        return mean, float("nan")
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, samples.size - 1)
    return mean, float(quantile * samples.std(ddof=1) / np.sqrt(samples.size))


def place(mean: float, half: float, band: Band) -> Word:
    """Return where an interval lies: in the band, outside it, or across one of its ends."""
    low, high = mean - half, mean + half
    if band.low <= low and high <= band.high:
        return "reproduced"
    return "contradicted" if high < band.low or low > band.high else "undecided"


def decide(samples: Sequence[float] | Float[np.ndarray, "..."], band: Band) -> Verdict:
    """Decide whether the values of independent seeds support a band.

    Args:
        samples: one value per seed. NaN: the seed has no value, and the statement stays undecided. Infinite: the seed
            failed without limit, for example because its run diverged; it can contradict a statement, but never
            supports it.
        band: values that the statement allows.

    Raises:
        ValueError: samples that are not a list of numbers, or a band whose low end is above its high end.
    """
    values = np.asarray(samples, np.float64)
    if values.ndim != 1:
        raise ValueError(f"samples of shape {values.shape}: must be one number per seed")
    if not band.low <= band.high:
        raise ValueError(f"band={tuple(band)}: the low end must not be above the high end")
    seeds, missing = values.size, int(np.isnan(values).sum())
    if seeds < SEEDS:
        known = values[np.isfinite(values)]
        return Verdict("no verdict", float(known.mean()) if known.size else np.nan, np.nan, seeds, missing, band)
    if missing:
        return Verdict("undecided", np.nan, np.nan, seeds, missing, band)
    if np.isinf(values).any():
        up, down = bool(np.isposinf(values).any()), bool(np.isneginf(values).any())
        failed = (up and not down and band.high < np.inf) or (down and not up and band.low > -np.inf)
        mean = np.nan if up and down else np.inf if up else -np.inf
        return Verdict("contradicted" if failed else "undecided", mean, np.nan, seeds, 0, band)
    mean, half = interval(values)
    return Verdict(place(mean, half, band), mean, half, seeds, 0, band)


def all_of(*words: Word) -> Word:
    """Judge a claim that needs every one of its statements."""
    if "no verdict" in words:
        return "no verdict"
    if "contradicted" in words:
        return "contradicted"
    return "reproduced" if all(word == "reproduced" for word in words) else "undecided"


def any_of(*words: Word) -> Word:
    """Judge a claim that needs only one of its statements."""
    if "no verdict" in words:
        return "no verdict"
    if "reproduced" in words:
        return "reproduced"
    return "contradicted" if all(word == "contradicted" for word in words) else "undecided"


def in_part(whole: Word, part: Word) -> Word:
    """Judge a claim that may hold in part: if the whole is contradicted, the part decides.

    The claim then holds "in part" if the part is reproduced, and is contradicted or undecided if the part is. Without
    this rule more noise could contradict a claim that holds in part.
    """
    if whole != "contradicted":
        return whole
    return "in part" if part == "reproduced" else part
