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
from gossipjax._engine.loop import models, with_slots
from gossipjax.facts import Properties, check_requires
from gossipjax.mixing._apply import to_dense
from gossipjax.timeline._events import event_of
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
    found = _history(key, bind(protocol), bare(timeline), as_start(x0, timeline), quantity=quantity)
    return jax.device_get(found)


def _stepper(key: Key[Array, ""], protocol: Protocol, timeline: Timeline) -> tuple[Callable, Any]:
    """Return the step of the scan, and the arrays that it scans over."""
    events_key, steps_key = jax.random.fold_in(key, EVENTS), jax.random.fold_in(key, STEPS)
    xs = jax.tree.map(jnp.asarray, timeline.xs)
    xs = xs if timeline.draw is None else timeline.draw(events_key, timeline.shared, xs)

    def step(state: Any, x: Any) -> Any:
        return protocol.step(steps_key, state, event_of(events_key, timeline, x))[0]

    return step, xs


@partial(jax.jit, static_argnames="quantity")
def _history(key, protocol: Protocol, timeline: Timeline, x0: Params, *, quantity) -> History:
    step, xs = _stepper(key, protocol, timeline)
    rows = timeline.properties.num_rows

    def one(state: Any, x: Any) -> tuple[Any, tuple]:
        state = step(state, x)
        versions = None if protocol.versions is None else protocol.versions(state)
        counters = (None, None) if versions is None else (versions.held, versions.own)
        return state, (models(protocol, state, rows), None if quantity is None else quantity(state), *counters)

    state, (found, extra, held, own) = jax.lax.scan(one, protocol.init(key, with_slots(x0, timeline.properties)), xs)
    return History(found, extra, held, own, state)


@jax.jit
def repeated(key, protocol: Protocol, timeline: Timeline, x0: Params, repeats: Array) -> Params:
    """Pass through a timeline several times, and return the models; the number of passes may be traced."""
    step, xs = _stepper(key, protocol, timeline)

    def once(_: Any, state: Any) -> Any:
        return jax.lax.scan(lambda state, x: (step(state, x), None), state, xs)[0]

    state = jax.lax.fori_loop(0, repeats, once, protocol.init(key, with_slots(x0, timeline.properties)))
    return models(protocol, state, timeline.properties.num_rows)


def events(timeline: Timeline, key: Key[Array, ""] | None = None) -> tuple[Event, Any]:
    """Return all events, and the mixing matrices ``(T, rows, rows)`` over models and messages; None without mixing."""
    return jax.device_get(_events(jax.random.key(0) if key is None else key, bare(timeline)))


@jax.jit
def _events(key, timeline: Timeline) -> tuple[Event, Any]:
    facts, stream = timeline.properties, jax.random.fold_in(key, EVENTS)
    xs = jax.tree.map(jnp.asarray, timeline.xs)
    xs = xs if timeline.draw is None else timeline.draw(stream, timeline.shared, xs)

    def write(x: Any) -> tuple[Event, Any]:
        event = event_of(stream, timeline, x)
        rows = facts.num_rows + facts.num_slots
        return event, None if event.mixing is None else to_dense(event.mixing, rows)

    return jax.vmap(write)(xs)
