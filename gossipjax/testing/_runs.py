"""Runs for properties: the outcome of every event, in one compiled function that depends on shapes only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from gossipjax._base.binding import bind
from gossipjax._base.streams import EVENTS, STEPS
from gossipjax._engine import stretches
from gossipjax._engine.chunks import Piece
from gossipjax._engine.loop import models, no_losses, scan, with_slots
from gossipjax._engine.stretches import Cuts, advance
from gossipjax.facts import Properties, check_requires
from gossipjax.mixing._apply import to_dense
from gossipjax.observe._models import Observer, Snapshot
from gossipjax.timeline._events import draw_window, event_of
from gossipjax.types import Event, Params, Protocol, Timeline

Arrays: TypeAlias = PyTree[Array | np.ndarray]
"""Parameters as JAX or NumPy arrays."""


class History(NamedTuple):
    """Outcome of each of the T events of a run, as NumPy arrays, and the final state."""

    models: PyTree
    """Models that observers see, leaves ``(T, num_rows, ...)``."""
    quantity: PyTree
    """Values of ``quantity(state)``, leaves ``(T, ...)``; None without ``quantity``."""
    held: Any
    """Version counters ``(T, rows, s)``; None if the protocol tracks none."""
    own: Any
    """Each source's own version ``(T, s)``; None if the protocol tracks none."""
    state: Any


def bare(timeline: Timeline) -> Timeline:
    """Drop the properties that do not affect the program, so that timelines that differ in them share one program."""
    facts = timeline.properties
    kept = Properties(facts.num_nodes, facts.num_rows, name="", num_slots=facts.num_slots)
    return dataclasses.replace(timeline, properties=kept)


def as_start(x0: Arrays, timeline: Timeline) -> Params:
    """Put stacked start parameters on the device; raise ValueError unless each leaf has the timeline's rows."""
    rows = timeline.properties.num_rows
    for leaf in jax.tree.leaves(x0):
        if np.ndim(leaf) < 1 or np.shape(leaf)[0] != rows:
            raise ValueError(f"a leaf of x0 has shape {np.shape(leaf)}: it needs the {rows} model rows in front")
    return jax.tree.map(jnp.asarray, x0)


def history(
    protocol: Protocol,
    timeline: Timeline,
    x0: Arrays,
    *,
    key: Key[Array, ""] | None = None,
    quantity: Callable[[Any], PyTree] | None = None,
) -> History:
    """Run a protocol over a short timeline and record the outcome of every event.

    The numbers are those of :func:`gossipjax.simulate` with the same key. Memory grows with T × rows: for tests only.

    >>> from gossipjax import gossip_averaging, timeline, topology, mixing
    >>> run = history(gossip_averaging(), timeline.rounds(mixing.averaging(2), 3), np.array([[0.0], [1.0]]))
    >>> run.models.shape, float(run.models[0, 0, 0])
    ((3, 2, 1), 0.5)

    Args:
        protocol: a protocol; module-level functions (or a ``Partial`` of one) are compiled once for all examples.
        timeline: T events.
        x0: stacked start parameters, leaves ``(num_rows, ...)``, without rows for messages.
        key: of the run; None: always the same.
        quantity: module-level function of the state, recorded with the models.

    Raises:
        ValueError: if the timeline does not meet the protocol's requirements, or x0 has a wrong number of rows.
    """
    check_requires(protocol.requires, timeline.properties)
    key = jax.random.key(0) if key is None else key
    total = len(timeline)
    every_one = Piece(0, total, np.arange(1, total + 1))
    cuts = stretches.cuts(every_one.stops, every_one, total, (0, 0.0))
    found = _history(key, bind(protocol), bare(timeline), as_start(x0, timeline), cuts, quantity=quantity)
    return jax.device_get(found)


def _begin(key: Key[Array, ""], protocol: Protocol, timeline: Timeline, x0: Params) -> Any:
    return protocol.init(jax.random.fold_in(key, STEPS), with_slots(x0, timeline.properties))


@partial(jax.jit, static_argnames="quantity")
def _history(key, protocol: Protocol, timeline: Timeline, x0: Params, cuts: Cuts, *, quantity) -> History:
    def read(state: Any) -> dict[str, Any]:
        versions = None if protocol.versions is None else protocol.versions(state)
        held, own = (None, None) if versions is None else (versions.held, versions.own)
        return {"quantity": None if quantity is None else quantity(state), "held": held, "own": own}

    # The meter is what an observer sees of the state besides the models.
    seen, state = protocol._replace(meter=read), _begin(key, protocol, timeline, x0)
    (state, _, _), records = advance(key, seen, timeline, state, no_losses(), cuts, observers=(Observer(_outcome, ()),))
    return History(**records.values, state=state)


def _outcome(snapshot: Snapshot) -> dict[str, Any]:
    return {"models": snapshot.x, **snapshot.meter}


@jax.jit
def repeated(key, protocol: Protocol, timeline: Timeline, x0: Params, repeats: Array) -> Params:
    """Pass through a timeline several times, and return the models; the number of passes may be traced."""

    def once(_: Any, state: Any) -> Any:
        return scan(key, protocol, timeline, state, no_losses())[0][0]

    state = jax.lax.fori_loop(0, repeats, once, _begin(key, protocol, timeline, x0))
    return models(protocol, state, timeline.properties.num_rows)


def events(timeline: Timeline, key: Key[Array, ""] | None = None) -> tuple[Event, Any]:
    """Return all events, and the mixing matrices ``(T, rows, rows)`` over models and messages; None without mixing."""
    return jax.device_get(_events(jax.random.key(0) if key is None else key, bare(timeline)))


@jax.jit
def _events(key, timeline: Timeline) -> tuple[Event, Any]:
    facts, stream = timeline.properties, jax.random.fold_in(key, EVENTS)

    def write(x: Any) -> tuple[Event, Any]:
        event = event_of(stream, timeline, x)
        rows = facts.num_rows + facts.num_slots
        return event, None if event.mixing is None else to_dense(event.mixing, rows)

    return jax.vmap(write)(draw_window(stream, timeline))
