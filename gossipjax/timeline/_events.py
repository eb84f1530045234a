"""Events of a timeline, made one by one or drawn all at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from gossipjax._base.binding import Static
from gossipjax.types import Event, Timeline


def event_of(key: Key[Array, ""], timeline: Timeline, x: PyTree) -> Event:
    """Make one event of its entry in ``xs``, and say which rows are models where others hold messages in flight."""
    event, facts = timeline.event(key, timeline.static, x), timeline.properties
    return event._replace(models=Static(facts.num_rows)) if facts.num_slots else event


def first_event(key: Key[Array, ""], timeline: Timeline) -> Event:
    """Make the first event of a timeline, inside or outside a trace; of an empty one, an event of the same form."""
    xs = _blank(timeline.xs) if len(timeline) == 0 else jax.tree.map(lambda leaf: jnp.asarray(leaf[:1]), timeline.xs)
    xs = xs if timeline.draw is None else timeline.draw(key, timeline.static, xs)
    return event_of(key, timeline, jax.tree.map(lambda leaf: leaf[-1], xs))


def _blank(xs: PyTree) -> PyTree:
    """Make one entry of zeros of the form of those of an empty timeline."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.zeros((1, *leaf.shape[1:]), leaf.dtype)), xs)


def drawn(key: Key[Array, ""], timeline: Timeline) -> PyTree:
    """Take the entries of all events to the device, and draw what is drawn inside the run."""
    xs = jax.tree.map(jnp.asarray, timeline.xs)
    if timeline.draw is None:
        return xs
    if len(timeline) == 0:  # a window of no events has no first number to draw from
        return jax.tree.map(lambda leaf: leaf[:0], timeline.draw(key, timeline.static, _blank(xs)))
    return timeline.draw(key, timeline.static, xs)
