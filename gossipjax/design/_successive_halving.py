"""Successive halving: choose among candidates by runs, few of many at first and many of few at the end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from gossipjax._base.arguments import callable_, flag, real, shown, wholes
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recordable, recorded
from gossipjax._base.progress import progress_bar

T = TypeVar("T")


@recordable
class Halving(NamedTuple):
    """Who won, and all that was measured."""

    winner: str
    seconds: dict[str, Float[np.ndarray, " runs"]]
    """Of each candidate, in the order of its runs; infinite where it did not get there."""
    stages: tuple[tuple[str, ...], ...]
    """The candidates of each stage, best first by the runs of this stage."""

    @property
    def num_runs(self) -> int:
        """All runs; give a baseline as many."""
        return sum(each.size for each in self.seconds.values())


@recorded("jamieson2016halving")
def successive_halving(
    candidates: Mapping[str, T],
    seconds: Callable[[T, int], float],
    *,
    runs: tuple[int, ...] = (1, 2, 5),
    survivors: tuple[int, ...] = (4, 2),
    seed: int,
    progress: bool | None = None,
) -> Halving:
    """Choose among networks, or anything else, by measured seconds to an accuracy: successive halving.

    In stage s every candidate that is left runs ``runs[s]`` times, and the best ``survivors[s]`` go on. A stage has
    seeds of its own, the same for all its candidates, so that comparisons are paired and luck in one stage does not
    count in the next. Candidates are ordered by how many of the stage's runs got there, and then by the mean logarithm
    of their seconds. Sixteen candidates take 16 · 1 + 4 · 2 + 2 · 5 = 34 runs.

    The winner's seconds are those of a choice, and too good. Compare it on new seeds, with a baseline that was chosen
    in the same way from as many runs; :func:`judge` does.

    >>> import gossipjax as gj
    >>> speeds = {"slow": 3.0, "fast": 1.0}
    >>> found = gj.design.successive_halving(speeds, lambda value, seed: value, survivors=(2, 1), seed=0)
    >>> found.winner, found.num_runs
    ('fast', 11)

    Args:
        candidates: by name, two or more.
        seconds: ``seconds(candidate, seed)`` of one run to the accuracy, above 0; infinity if it is never reached.
        runs: of each candidate in each stage.
        survivors: of each stage but the last; where there are not more candidates, all go on.
        seed: from which seeds of runs are drawn.
        progress: show a progress bar; None: only on a terminal.

    Raises:
        TypeError: if the candidates are no mapping from names, or ``seconds`` is no function.
        ValueError: if there is one candidate, a number is out of range, or no run of the last stage gets there; if
            ``seconds`` returns anything but a number above 0, the message has the candidate and the seed.

    Reference: Jamieson, Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization"; the
        stages are ours.
    """
    left, counts, sizes = _checked(candidates, runs, survivors)
    callable_("seconds", seconds, "seconds(candidate, seed)")
    seeds = np.random.SeedSequence(checked_seed(seed)).generate_state(sum(counts)).tolist()
    progress = None if progress is None else flag("progress", progress)
    measured: dict[str, list[float]] = {name: [] for name in left}
    stages: list[tuple[str, ...]] = []
    total = sum(size * count for size, count in zip([len(left), *sizes], counts, strict=True))
    with progress_bar(progress, "runs", total) as show:
        for stage, count in enumerate(counts):
            own, seeds = seeds[:count], seeds[count:]
            for name in left:
                for each in own:
                    measured[name].append(_one(seconds, candidates[name], name, each))
                    show(sum(map(len, measured.values())))
            order = sorted(left, key=lambda name: _rank(measured[name][-count:]))
            stages.append(tuple(order))
            left = order[: sizes[stage]] if stage < len(sizes) else order[:1]
    if not np.isfinite(measured[left[0]][-counts[-1] :]).any():
        raise ValueError("seconds: no run of the last stage gets there; ask for less, or for longer runs")
    return Halving(left[0], {name: np.asarray(each) for name, each in measured.items()}, tuple(stages))


def _checked(candidates: Any, runs: Any, survivors: Any) -> tuple[list[str], list[int], list[int]]:
    if not isinstance(candidates, Mapping):
        raise TypeError(f"candidates={shown(candidates)}: must be a mapping from names to candidates")
    names = list(candidates)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"candidates={shown(names)}: names must be text")
    if len(names) < 2:
        raise ValueError(f"candidates={shown(names)}: must be two or more, to choose among")
    counts = wholes("runs", runs, shape=(None,), least=1).tolist()
    if not counts:
        raise ValueError(f"runs={shown(runs)}: must have a number of runs for each stage, such as (1, 2, 5)")
    sizes = wholes("survivors", survivors, shape=(len(counts) - 1,), least=1, remedy="one for each stage but the last")
    sizes = np.minimum(sizes, len(names)).tolist()
    if any(after > before for before, after in itertools.pairwise(sizes)):
        raise ValueError(f"survivors={shown(survivors)}: must not grow from stage to stage")
    return names, counts, sizes


def _one(seconds: Callable[[Any, int], float], candidate: Any, name: str, seed: int) -> float:
    return float(real(f"seconds of {name} with seed {seed}", seconds(candidate, seed), above=0, infinite=True))


def _rank(seconds: list[float]) -> tuple[int, float]:
    """Order by the runs that never got there, then by the mean logarithm of the others."""
    there = [math.log(each) for each in seconds if each < math.inf]
    return len(seconds) - len(there), sum(there) / max(1, len(there))
