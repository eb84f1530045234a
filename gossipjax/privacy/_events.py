"""The events of a plan on the host, in float64: what the loop is given, with exact weights."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float64, Key

from gossipjax._base.streams import EVENTS
from gossipjax.facts import Properties
from gossipjax.mixing._forms import DenseMixing, PairMixing, TableMixing
from gossipjax.timeline._events import draw_window, event_of
from gossipjax.types import Event, Timeline

_WINDOW_BYTES = 2**25
_LARGEST_DENOMINATOR = 1000
_ROUNDING = 2.0**-22
"""Four roundings to float32."""


def host_events(timeline: Timeline, key: Key[Array, ""]) -> Iterator[Event]:
    """Yield the events that the engine runs with this key, as NumPy arrays.

    Weights that are stored in float32 are replaced by the fraction ``p/q`` with q ≤ 1000 that they round, such as 1/3,
    and weights of the receiver itself complete the sum of its row to one if the timeline is row stochastic. With
    weights that are off by 1e-8, messages that are equal in exact arithmetic would differ, and the audit would call a
    secret reconstructed that only rounding reveals.
    """
    exact = Exact("row_stochastic" in timeline.properties)
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


class Exact:
    """Replaces weights in float32 by the fractions that they round; remembers those that it has seen."""

    def __init__(self, row_stochastic: bool):
        """Args: whether rows of every mixing sum to one."""
        self.row_stochastic = row_stochastic
        self.seen: dict[float, float] = {}
        self.last: tuple[np.ndarray, np.ndarray] | None = None

    def _value(self, weight: float) -> float:
        if weight not in self.seen:
            near = float(Fraction(weight).limit_denominator(_LARGEST_DENOMINATOR))
            self.seen[weight] = near if abs(near - weight) <= _ROUNDING * abs(weight) else weight
        return self.seen[weight]

    def numbers(self, weights: Any) -> Float64[np.ndarray, "..."]:
        """Return weights in float64, exact where they are fractions."""
        if weights.dtype == np.float64:
            return weights
        distinct, place = np.unique(weights.astype(np.float64), return_inverse=True)
        return np.asarray([self._value(float(w)) for w in distinct])[place].reshape(weights.shape)

    def _completed(self, own: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Let a row sum to one, if that changes its own weight by rounding only."""
        rest = 1.0 - others
        return np.where(np.abs(rest - own) < 1e-6, rest, own) if self.row_stochastic else own

    def mixing(self, mixing: Any) -> Any:
        """Return a mixing with exact weights, as NumPy arrays."""
        replaced: Any = mixing._replace
        if isinstance(mixing, DenseMixing):
            return replaced(W=self._dense(mixing.W))
        exact = self.numbers(mixing.weights)
        if isinstance(mixing, TableMixing):
            return replaced(weights=exact, self_weight=self._own(mixing.self_weight, exact.sum(1)))
        if isinstance(mixing, PairMixing):
            return replaced(weights=exact, keep=self._own(mixing.keep, exact))
        return replaced(weights=exact)

    def _own(self, weights: Any, others: np.ndarray) -> np.ndarray:
        exact = self.numbers(weights)
        return exact if exact is weights else self._completed(exact, others)

    def _dense(self, W: Any) -> np.ndarray:
        """Return exact weights: the same array while the matrix stays the same, so that a fixed plan holds one."""
        if self.last is None or not np.array_equal(W, self.last[0]):
            self.last = np.array(W), self._exact(W)
        return self.last[1]

    def _exact(self, W: Any) -> np.ndarray:
        exact = self.numbers(W)
        if exact is not W:
            own = np.diagonal(exact).copy()
            np.fill_diagonal(exact, 0)
            np.fill_diagonal(exact, self._completed(own, exact.sum(1)))
        return exact
