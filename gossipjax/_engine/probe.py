"""Trace the step of a run once before it begins, for all checks that need to know it.

Only functions of this module are traced, and their arguments are pytrees, so JAX caches the traces: a second run with
another learning rate, seed or start of the same shapes traces nothing.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from gossipjax._base import outputs, placement
from gossipjax._base.binding import Frozen
from gossipjax._engine import loop
from gossipjax.facts import Properties
from gossipjax.timeline._events import event_form, first_event, one_entry
from gossipjax.types import Event, Info, Protocol, Timeline


class Probe(NamedTuple):
    """Shapes and types of everything that one step of a run takes and returns."""

    x0: PyTree[jax.ShapeDtypeStruct]
    """The stacked start, rows of messages in flight included."""
    event: Event
    state: Any
    after: Any
    """The state that the step returns."""
    x: PyTree[jax.ShapeDtypeStruct]
    """The models that observers look at."""
    versions: Any
    meter: Any
    bits: outputs.Bits
    trains: bool
    """Whether the step reports losses."""


def numbers(facts: Properties) -> Properties:
    """Reduce the facts of a timeline to those that programs depend on: its numbers of nodes, rows and slots."""
    return Properties(facts.num_nodes, facts.num_rows, "a run", num_slots=facts.num_slots)


def probe(key: Any, protocol: Protocol, timeline: Timeline, form: PyTree[jax.ShapeDtypeStruct]) -> Probe:
    """Trace one step of a protocol on the first event of a timeline, or on an event of the same form if it is empty.

    Args:
        key: of the run, or its form.
        protocol: whose functions are pytrees, see :func:`gossipjax._base.binding.bind`.
        timeline: who meets whom.
        form: of the stacked start, without rows of messages in flight.

    Raises:
        OverflowError: if messages vary in size and one has more bits than the counter can hold.
    """
    facts = numbers(timeline.properties)
    x0, state, x, versions, meter = _start.eval_shape(facts, key, protocol, form)
    after, info, bits = step_program(key, protocol, timeline, form).out_info
    return Probe(x0, event_form(timeline), state, after, x, versions, meter, bits.value, info.loss is not None)


def step_program(key: Any, protocol: Protocol, timeline: Timeline, form: PyTree[jax.ShapeDtypeStruct]) -> Any:
    """Return the traced program of the first step from the start; its ``jaxpr`` is part of a run's fingerprint."""
    functions = (timeline.event, timeline.draw)
    entry = one_entry(timeline)
    return _step.trace(functions, numbers(timeline.properties), key, protocol, entry, timeline.shared, form)


def key_form(key: Any) -> jax.ShapeDtypeStruct:
    """Return the form of one key of a run."""
    return jax.ShapeDtypeStruct((), key.dtype)


@functools.partial(jax.jit, static_argnums=(0,))
def _start(facts: Properties, key, protocol: Protocol, x0) -> tuple[Any, ...]:
    x0 = loop.with_slots(x0, facts)
    state = protocol.init(key, x0)
    beside = (None if read is None else read(state) for read in (protocol.versions, protocol.meter))
    return x0, state, loop.models(protocol, state, facts.num_rows), *beside


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(
    functions, facts: Properties, key, protocol: Protocol, xs, shared, x0
) -> tuple[Any, Info, Frozen[outputs.Bits]]:
    with placement.using("vmap"):  # the same run on another number of devices is the same run
        event = first_event(key, Timeline(xs, shared, functions[0], facts, functions[1]))
        state = protocol.init(key, loop.with_slots(x0, facts))
        after, info = outputs.step(protocol, key, state, event)
    bits = outputs.bits_of(info)
    # A plain int may be larger than the numbers of a program: it is no output.
    return after, info if bits.constant is None else info._replace(bits=None), Frozen(bits)
