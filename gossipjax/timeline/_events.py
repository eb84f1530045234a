"""Events of a timeline, one at a time or a whole window at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from gossipjax.types import Event, Timeline


def first_event(key: Key[Array, ""], timeline: Timeline) -> Event:
    """Make the first event of a timeline, inside or outside a trace; of an empty one, an event of the same form."""
    xs = _blank(timeline.xs) if len(timeline) == 0 else jax.tree.map(lambda leaf: jnp.asarray(leaf[:1]), timeline.xs)
    xs = xs if timeline.draw is None else timeline.draw(key, timeline.shared, xs)
    return timeline.event(key, timeline.shared, jax.tree.map(lambda leaf: leaf[-1], xs))


def _blank(xs: PyTree) -> PyTree:
    """Make one entry of zeros of the form of those of an empty timeline."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.zeros((1, *leaf.shape[1:]), leaf.dtype)), xs)


def draw_window(key: Key[Array, ""], timeline: Timeline) -> PyTree:
    """Take the entries of all events to the device, and draw what is drawn inside the run."""
    xs = jax.tree.map(jnp.asarray, timeline.xs)
    if timeline.draw is None:
        return xs
    if len(timeline) == 0:  # a window of no events has no first number to draw from
        return jax.tree.map(lambda leaf: leaf[:0], timeline.draw(key, timeline.shared, _blank(xs)))
    return timeline.draw(key, timeline.shared, xs)
