"""Construction of events: one event, the form of an event, the events of a window, and empty events."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from gossipjax._base.binding import Frozen
from gossipjax._base.streams import EVENTS
from gossipjax.facts import Properties
from gossipjax.types import NOBODY, Event, Timeline

_BARE = Properties(0, 0, "")
"""Facts for events, which do not depend on the facts of their timeline."""


def event_of(key: Key[Array, ""], timeline: Timeline, x: PyTree) -> Event:
    """Build one event from its entry in ``xs``; if there are messages in flight, add the number of model rows."""
    event, facts = timeline.event(key, timeline.shared, x), timeline.properties
    return event._replace(models=Frozen(facts.num_rows)) if facts.num_slots else event


EMPTY: dict[str, float] = {
    "index": 0,
    "time": 0.0,
    **dict.fromkeys(
        ("nodes", "rows", "begin", "senders", "receivers", "members", "targets", "speakers", "sources"), NOBODY
    ),
    "parts": NOBODY,
    "weights": 0.0,
    "keep": 1.0,
    "messages": 0,
}
"""Values of the fields of an empty event, and of unused lanes."""


def blank(total: int, lanes: int, *, leave_out: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Return the fields of empty events: no node acts, and all ``lanes`` transfers are unused.

    Their times are not set.
    """
    fields: dict[str, tuple[int, Any]] = {
        "nodes": (1, np.int32),
        "senders": (lanes, np.int32),
        "receivers": (lanes, np.int32),
    }
    fields |= {"weights": (lanes, np.float64), "keep": (lanes, np.float64), "messages": (lanes, np.uint32)}
    made = fields.keys() - leave_out
    events = {
        name: np.full((total, width), EMPTY[name], kind) for name, (width, kind) in fields.items() if name in made
    }
    return {"time": np.empty(total)} | events


def pad(name: str, array: np.ndarray, num_events: int, width: int | None = None) -> np.ndarray:
    """Pad a field ``(T, k, ...)`` with empty events and unused lanes."""
    lanes = array.shape[1:2] if width is None else (width,)
    room = np.full((num_events, *lanes, *array.shape[2:]), EMPTY[name], array.dtype)
    room[tuple(slice(length) for length in array.shape[:2])] = array
    return room


def first_event(key: Key[Array, ""], timeline: Timeline) -> Event:
    """Build the first event of a timeline, also inside a trace; for an empty timeline, an event of the same form."""
    xs = _zeros(timeline.xs) if len(timeline) == 0 else jax.tree.map(lambda leaf: jnp.asarray(leaf[:1]), timeline.xs)
    xs = xs if timeline.draw is None else timeline.draw(key, timeline.shared, xs)
    return event_of(key, timeline, jax.tree.map(lambda leaf: leaf[-1], xs))


def one_entry(timeline: Timeline) -> PyTree[jax.ShapeDtypeStruct]:
    """Return the shapes and dtypes of ``xs`` for a timeline of one event."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), timeline.xs)


def event_form(timeline: Timeline) -> Event:
    """Return the shapes and types of an event; traced once for all timelines of one form."""
    functions = (timeline.event, timeline.draw)
    return _first.eval_shape(functions, jax.random.key(0), timeline.shared, one_entry(timeline))


def first_of_run(timeline: Timeline, key: Key[Array, ""]) -> Event:
    """Build the first event of the run with this key; compiled once for all timelines of one form."""
    first = jax.tree.map(lambda leaf: leaf[:1], timeline.xs)
    return _first((timeline.event, timeline.draw), key, timeline.shared, first)


@functools.partial(jax.jit, static_argnums=(0,))
def _first(functions: Any, key: Key[Array, ""], shared: PyTree, xs: PyTree) -> Event:
    timeline = Timeline(xs, shared, functions[0], _BARE, functions[1])
    return first_event(jax.random.fold_in(key, EVENTS), timeline)


def _zeros(xs: PyTree) -> PyTree:
    """Return one entry of zeros, for an empty timeline."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.zeros((1, *leaf.shape[1:]), leaf.dtype)), xs)


def draw_window(key: Key[Array, ""], timeline: Timeline) -> PyTree:
    """Move the entries of all events to the device, and make the random draws of the timeline."""
    xs = jax.tree.map(jnp.asarray, timeline.xs)
    if timeline.draw is None:
        return xs
    if len(timeline) == 0:  # a window of no events has no first number to draw from
        return jax.tree.map(lambda leaf: leaf[:0], timeline.draw(key, timeline.shared, _zeros(xs)))
    return timeline.draw(key, timeline.shared, xs)
