"""Times of events in float64 on the host, independent of the precision of the compiled loop."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float64, Int64, Key, PyTree

from gossipjax._base.arguments import instance, reals
from gossipjax._base.streams import EVENTS
from gossipjax.types import Event, Timeline

TOLERANCE = 1e-12
"""Relative tolerance of a requested time, which includes events that are later by at most this.

It covers a few thousand float64 roundings (such as a running sum of 0.1), and is far below the distance between two of
2³² events."""
_WINDOW = 1 << 20
"""Number of events whose times are computed at once."""


def written_times(shared: PyTree, xs: PyTree) -> Float64[np.ndarray, " T"]:
    """Return the times in ``xs["time"]``, which has one per event or one per acting node."""
    del shared
    time = np.asarray(xs["time"], np.float64)
    return time if time.ndim == 1 else time[:, -1]


def event_times(timeline: Timeline, *, key: Key[Array, "*seeds"] | None = None) -> Float64[np.ndarray, " T"]:
    """Return the simulated seconds of every event of a timeline, in float64 on the host.

    Round r = 0, 1, … of fixed length ends at exactly (r + 1) · ``seconds_per_round``. The result does not depend on
    whether JAX has 64-bit floats. Your own timelines without ``seconds`` return the times of their events, in the
    loop's float32.

    >>> from gossipjax import timeline, topology, mixing
    >>> plan = timeline.rounds(mixing.metropolis(topology.ring(4)), 3, seconds_per_round=0.1)
    >>> timeline.event_times(plan).tolist() == [1 * 0.1, 2 * 0.1, 3 * 0.1]
    True

    Args:
        timeline: T events.
        key: key of the run; needed only if the timeline draws its times, as no builder of this package does.

    Raises:
        ValueError: if the times are drawn inside the run and key is not one key.
    """
    instance("timeline", timeline, Timeline, "build one with gossipjax.timeline, such as rounds(W, 100)")
    if timeline.seconds is not None:
        return np.asarray(timeline.seconds(timeline.shared, timeline.xs), np.float64)
    if timeline.draw is not None and (key is None or key.ndim):
        raise ValueError(
            f"the times of {timeline.properties.name} are drawn during the run; use record_at, or pass one key"
        )
    return moments(timeline, key)[1]


def moments(
    timeline: Timeline, key: Key[Array, "*seeds"] | None
) -> tuple[Int64[np.ndarray, " T"], Float64[np.ndarray, " T"]]:
    """Return number and time of every event as in the loop; compiled once per kind of timeline."""
    parts = [timeline[at : at + _WINDOW] for at in range(0, len(timeline), _WINDOW)]
    found = [_read_off((part.event, part.draw), _events_key(key), part.xs, part.shared) for part in parts]
    numbers, times = ([np.asarray(pair[side]) for pair in found] for side in (0, 1))
    empty = np.zeros(0)
    return np.concatenate([empty.astype(np.int64), *numbers], dtype=np.int64), np.concatenate([empty, *times])


def before(timeline: Timeline, first: Event | None) -> tuple[int, float]:
    """Return the number and the time before the first event: 0 and 0, or for a later window those of its first event.

    Args:
        timeline: the timeline.
        first: its first event; None: there is none.
    """
    number = 0 if first is None else int(np.asarray(first.index)[-1])
    if first is None or number == 0:
        return 0, 0.0
    time = np.asarray(first.time)[-1] if timeline.seconds is None else event_times(timeline[:1])[0]
    return number, float(time)


def events_until(times: Float64[np.ndarray, " T"], wanted: Any, name: str = "record_times") -> Int64[np.ndarray, " r"]:
    """Count the events up to each requested time, within :data:`TOLERANCE`.

    Requested times in float32 are compared with the accuracy of float32.

    Args:
        times: seconds of the events, not decreasing.
        wanted: requested seconds, increasing and not negative.
        name: argument that holds them, for the message.

    Raises:
        ValueError: if wanted is empty or breaks the rule.
    """
    seconds = reals(name, wanted, shape=(None,), least=0, unit="seconds", remedy="in increasing order")
    if not seconds.size or (np.diff(seconds) <= 0).any():
        raise ValueError(f"{name}={np.asarray(wanted).tolist()[:5]} …: must be increasing seconds, at least one")
    given = np.asarray(wanted).dtype
    rounding = float(jax.numpy.finfo(given).eps) if jax.numpy.issubdtype(given, jax.numpy.floating) else 0.0
    return np.searchsorted(times, seconds * (1.0 + max(TOLERANCE, rounding)), side="right")


def record_numbers(timeline: Timeline, key: Key[Array, "*seeds"], wanted: Any) -> list[int] | None:
    """Convert the seconds at which to record to numbers of events; None if the timeline is empty.

    Raises:
        ValueError: if the seconds do not increase or all lie before the first event, or events are packed.
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
        raise ValueError(
            f"record_times begin at {first:g} s: the first event of {facts.name} is at {times[0]:g} s; begin there or "
            "later, since the start is recorded anyway"
        )
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
