"""The events of a plan on the host: what the loop is given, with exact weights, in float64 or modulo a prime."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int64, Key

from gossipjax._base.streams import EVENTS
from gossipjax.facts import Properties
from gossipjax.mixing._forms import DenseMixing, PairMixing, TableMixing
from gossipjax.privacy._residues import PRIME, residue
from gossipjax.timeline._events import draw_window, event_of
from gossipjax.types import Event, Timeline

_WINDOW_BYTES = 2**25
_FRACTIONS = {4: (1000, 2.0**-22), 8: (10**6, 2.0**-50)}
"""By bytes of a weight: largest denominator of a fraction that replaces it, and how near it is: four roundings."""
_ROW = 1e-6
"""Distance from one of sums that are one, but for rounding."""


def host_events(timeline: Timeline, key: Key[Array, ""], residues: bool = False) -> Iterator[Event]:
    """Yield the events that the engine runs with this key, as NumPy arrays.

    Weights are replaced by a fraction that is as near as rounding, such as 1/3: of float32 with a denominator up to
    1000, of float64 up to 10⁶. Weights that are near one by chance are replaced, too; others stay. Weights of the
    receiver itself complete the sum of its row to one if the timeline is row stochastic. With weights that are off by
    1e-8, messages that are equal in exact arithmetic would differ, and the audit would call a secret reconstructed that
    only rounding reveals.

    Args:
        timeline: the plan.
        key: of the run.
        residues: give the fractions modulo the prime of :mod:`~gossipjax.privacy._residues`, instead of float64.
    """
    kind = ResidueWeights if residues else FractionWeights
    exact = kind("row_stochastic" in timeline.properties)
    for event in plain_events(timeline, key):
        yield event if event.mixing is None else event._replace(mixing=exact.mixing(event.mixing))


def plain_events(timeline: Timeline, key: Key[Array, ""]) -> Iterator[Event]:
    """Yield the same events with weights as they are stored; only a window of them is in memory."""
    stream, total = jax.random.fold_in(key, EVENTS), len(timeline)
    if not total:
        return
    width = max(1, int(_WINDOW_BYTES // _bytes_of_event(timeline, stream)))
    for start in range(0, total, width):
        xs = jax.tree.map(lambda leaf, start=start: leaf[start : start + width], timeline.xs)
        window = jax.device_get(_events(stream, xs, timeline.shared, _functions(timeline)))
        for t in range(min(width, total - start)):
            yield jax.tree.map(lambda leaf, t=t: leaf[t], window)


def _functions(timeline: Timeline) -> Any:
    facts = timeline.properties
    return timeline.event, timeline.draw, Properties(facts.num_nodes, facts.num_rows, "", num_slots=facts.num_slots)


@functools.partial(jax.jit, static_argnums=3)
def _events(stream: Key[Array, ""], xs: Any, shared: Any, functions: Any) -> Event:
    event, draw, facts = functions
    timeline = Timeline(xs, shared, event, facts, draw)
    return jax.vmap(functools.partial(event_of, stream, timeline))(draw_window(stream, timeline))


def _bytes_of_event(timeline: Timeline, stream: Key[Array, ""]) -> float:
    one = jax.tree.map(lambda leaf: np.asarray(leaf[:1]), timeline.xs)
    form = jax.eval_shape(lambda: _events(stream, one, timeline.shared, _functions(timeline)))
    return max(1.0, float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(form))))


def fraction_of(weight: float, size: int = 8) -> Fraction:
    """Return a fraction as near as rounding to a weight of 4 or 8 bytes, or the weight itself if there is none."""
    most, rounding = _FRACTIONS.get(size, _FRACTIONS[4])
    exact = Fraction(weight)
    near = exact.limit_denominator(most)
    return near if abs(near - exact) <= rounding * abs(exact) else exact


class FractionWeights:
    """Replaces weights by the fractions that they round, in float64; remembers those that it has seen."""

    def __init__(self, row_stochastic: bool):
        """Args: whether rows of every mixing sum to one."""
        self.row_stochastic = row_stochastic
        self.seen: dict[tuple[float, int], Any] = {}
        self.last: tuple[np.ndarray, np.ndarray] | None = None

    def value(self, weight: float, size: int) -> Any:
        """Return one weight of ``size`` bytes."""
        return float(fraction_of(weight, size))

    def numbers(self, weights: Any) -> np.ndarray:
        """Return weights, exact where they are fractions."""
        size = weights.dtype.itemsize
        distinct, place = np.unique(np.asarray(weights, np.float64), return_inverse=True)
        for weight in distinct.tolist():
            if (weight, size) not in self.seen:
                self.seen[weight, size] = self.value(weight, size)
        return np.asarray([self.seen[weight, size] for weight in distinct.tolist()])[place].reshape(weights.shape)

    def rest(self, others: np.ndarray) -> np.ndarray:
        """Return what other weights leave of one."""
        return 1.0 - others.sum(axis=-1)

    def mixing(self, mixing: Any) -> Any:
        """Return a mixing with exact weights, as NumPy arrays."""
        replaced: Any = mixing._replace
        if isinstance(mixing, DenseMixing):
            return replaced(W=self._dense(mixing.W))
        exact = self.numbers(mixing.weights)
        if isinstance(mixing, TableMixing):
            return replaced(weights=exact, self_weight=self._own(mixing.self_weight, mixing.weights, exact))
        if isinstance(mixing, PairMixing):
            return replaced(weights=exact, keep=self._own(mixing.keep, mixing.weights[:, None], exact[:, None]))
        return replaced(weights=exact)

    def _own(self, own: Any, others: Any, exact: np.ndarray) -> np.ndarray:
        """Let a row sum to one, if that changes its own weight by rounding only."""
        kept = self.numbers(own)
        if not self.row_stochastic:
            return kept
        left = 1.0 - np.asarray(others, np.float64).sum(axis=-1)
        return np.where(np.abs(left - own) < _ROW, self.rest(exact), kept)

    def _dense(self, W: Any) -> np.ndarray:
        """Return exact weights: the same array while the matrix stays the same, so that a fixed plan holds one."""
        if self.last is None or not np.array_equal(W, self.last[0]):
            self.last = np.array(W), self._matrix(np.array(W))
        return self.last[1]

    def _matrix(self, W: np.ndarray) -> np.ndarray:
        own = np.diagonal(W).copy()
        np.fill_diagonal(W, 0)
        exact = self.numbers(W)
        np.fill_diagonal(exact, self._own(own, W, exact))
        return exact


class ResidueWeights(FractionWeights):
    """Gives the fractions modulo a prime."""

    def value(self, weight: float, size: int) -> int:
        """Return one weight of ``size`` bytes, as a residue."""
        return residue(fraction_of(weight, size))

    def rest(self, others: Int64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """Return what other weights leave of one, as a residue."""
        return (1 - others.sum(axis=-1)) % PRIME
