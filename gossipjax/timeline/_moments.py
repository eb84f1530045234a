"""When events happen: float64 seconds on the host, whatever the precision of the compiled loop."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float64, Int64, Key, PyTree

from gossipjax._base.arguments import instance, reals
from gossipjax._base.streams import EVENTS
from gossipjax.types import Event, Timeline

TOLERANCE = 1e-12
"""Relative tolerance of a requested time: an event that is later by no more still happens up to then.

A few thousand roundings of float64 (a running sum of 0.1, say), and far below the distance of two of 2³² events."""
_WINDOW = 1 << 20
"""Events that are read off at once."""


def written_times(shared: PyTree, xs: PyTree) -> Float64[np.ndarray, " T"]:
    """Return the times of events that a plan lists in ``xs["time"]``, once per event or once per acting node."""
    del shared
    time = np.asarray(xs["time"], np.float64)
    return time if time.ndim == 1 else time[:, -1]


def event_times(timeline: Timeline, *, key: Key[Array, "*seeds"] | None = None) -> Float64[np.ndarray, " T"]:
    """Return the simulated seconds of every event of a timeline, in float64 on the host.

    Round r = 0, 1, … of fixed length ends at exactly (r + 1) · ``seconds_per_round``. The same whether or not JAX has
    64-bit floats. Only a timeline of one's own without ``seconds`` gives what its events say, in the loop's float32.

    >>> from gossipjax import timeline, topology, mixing
    >>> plan = timeline.rounds(mixing.metropolis(topology.ring(4)), 3, seconds_per_round=0.1)
    >>> timeline.event_times(plan).tolist() == [1 * 0.1, 2 * 0.1, 3 * 0.1]
    True

    Args:
        timeline: T events.
        key: of the run; needed only where the run draws the times, which no builder of this package does.

    Raises:
        ValueError: times that are drawn inside the run, without a key or with several.
    """
    instance("timeline", timeline, Timeline, "build one with gossipjax.timeline, such as rounds(W, 100)")
    if timeline.seconds is not None:
        return np.asarray(timeline.seconds(timeline.shared, timeline.xs), np.float64)
    if timeline.draw is not None and (key is None or key.ndim):
        raise ValueError(
            f"the run draws its own times in {timeline.properties.name}; record by record_at, or pass one key"
        )
    return moments(timeline, key)[1]


def moments(
    timeline: Timeline, key: Key[Array, "*seeds"] | None
) -> tuple[Int64[np.ndarray, " T"], Float64[np.ndarray, " T"]]:
    """Return the number and the time of every event, as the loop sees them; compiled once per kind of timeline."""
    parts = [timeline[at : at + _WINDOW] for at in range(0, len(timeline), _WINDOW)]
    found = [_read_off((part.event, part.draw), _events_key(key), part.xs, part.shared) for part in parts]
    numbers, times = ([np.asarray(pair[side]) for pair in found] for side in (0, 1))
    empty = np.zeros(0)
    return np.concatenate([empty.astype(np.int64), *numbers], dtype=np.int64), np.concatenate([empty, *times])


def before(timeline: Timeline, first: Event | None) -> tuple[int, float]:
    """Return the number and the time at which a timeline begins: 0 and 0, or its first event's in a later window.

    Args:
        timeline: of which the first event is looked at.
        first: that event; None: there is none.
    """
    number = 0 if first is None else int(np.asarray(first.index)[-1])
    if first is None or number == 0:
        return 0, 0.0
    time = np.asarray(first.time)[-1] if timeline.seconds is None else event_times(timeline[:1])[0]
    return number, float(time)


def events_until(times: Float64[np.ndarray, " T"], wanted: Any, name: str = "record_times") -> Int64[np.ndarray, " r"]:
    """Count the events up to each of some seconds, within :data:`TOLERANCE`.

    Seconds given in float32 are compared to the accuracy of float32, since their type rounded them.

    Args:
        times: of the events, not decreasing.
        wanted: increasing seconds, not negative.
        name: of the argument that they come from.

    Raises:
        ValueError: other seconds, or none.
    """
    seconds = reals(name, wanted, shape=(None,), least=0, unit="seconds", remedy="in increasing order")
    if not seconds.size or (np.diff(seconds) <= 0).any():
        raise ValueError(f"{name}={np.asarray(wanted).tolist()[:5]} …: must be increasing seconds, at least one")
    given = np.asarray(wanted).dtype
    rounding = float(jax.numpy.finfo(given).eps) if jax.numpy.issubdtype(given, jax.numpy.floating) else 0.0
    return np.searchsorted(times, seconds * (1.0 + max(TOLERANCE, rounding)), side="right")


def record_numbers(timeline: Timeline, key: Key[Array, "*seeds"], wanted: Any) -> list[int] | None:
    """Turn seconds at which to record into numbers of events; None where there is no event: only the start is left.

    Raises:
        ValueError: seconds that do not increase, or that all lie before the first event; packed events.
    """
    facts = timeline.properties
    if facts.packing is not None:
        raise ValueError(
            f"record_times of {facts.name}, which is packed: its wide events are not in the order of time; pass the "
            "timeline that was packed, and packing='packed'"
        )
    times = event_times(timeline, key=key)
    counts = np.unique(events_until(times, wanted))
    if not times.size:
        return None
    if counts[0] == 0:
        first = np.asarray(wanted).ravel()[0]
        raise ValueError(f"record_times begin at {first:g} s: the first event of {facts.name} is at {times[0]:g} s")
    return counts.tolist()


def _events_key(key: Key[Array, "*seeds"] | None) -> Key[Array, ""]:
    key = jax.random.key(0) if key is None else key
    return jax.random.fold_in(key[0] if key.ndim else key, EVENTS)


def _read_off_call(functions: Any, key: Key[Array, ""], xs: PyTree, shared: PyTree) -> tuple[Array, Array]:
    event, draw = functions
    xs = xs if draw is None else draw(key, shared, xs)

    def of(x: PyTree) -> tuple[Array, Array]:
        made = event(key, shared, x)
        return made.index[-1], made.time[-1]

    return jax.vmap(of)(xs)


_read_off = jax.jit(_read_off_call, static_argnums=(0,))
