"""The only loop: a pure, compiled scan of a protocol over a timeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt

from gossipjax import counter
from gossipjax.counter import Counter
from gossipjax.observe import Observer, Snapshot
from gossipjax.rows import all_finite
from gossipjax.types import Info, Protocol, Timeline

EVENTS, STEPS, STARTS = 0, 1, 2
"""Streams of the run's key: what timelines draw, what protocols draw, and starts that differ by seed."""
NON_FINITE = 1
"""Status bit: a parameter became infinite or NaN."""


_UNROLLED = 8
"""Twice as fast as one event a turn, on a CPU: 2.6 against 1.3 million events a second at 10⁶ nodes."""


class Status(NamedTuple):
    """Errors met so far: a bit field, and the first event (number and time) at which any was set."""

    bits: Int[Array, ""]
    event: UInt[Array, ""]
    time: Float[Array, ""]


class Records(NamedTuple):
    """What a run leaves behind; leading axis: the records."""

    event: UInt[Array, " r"]
    """Source events done."""
    time: Float[Array, " r"]
    """Simulated seconds."""
    bits: Counter
    """Bits sent by the whole network since the run began."""
    messages: Counter
    """Messages sent since the run began."""
    loss: Float[Array, " r"]
    """Sum of the mini-batch losses of the nodes that acted since the last record."""
    steps: Float[Array, " r"]
    """Number of those losses."""
    values: dict[str, Array]
    """What the observers returned."""


class _Carry(NamedTuple):
    state: Any
    status: Status
    traffic: UInt[Array, "4"]
    """Bits and messages, packed."""
    loss: Float[Array, ""]
    steps: Float[Array, ""]


def _fresh(state: Any) -> _Carry:
    status = Status(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.uint32), jnp.zeros((), jnp.float32))
    nothing = jnp.zeros((), jnp.float32)
    return _Carry(state, status, counter.pack(counter.zero(), counter.zero()), nothing, nothing)


def _flag(status: Status, bad: Bool[Array, ""], index: Array, time: Array) -> Status:
    first = bad & (status.bits == 0)
    return Status(
        status.bits | jnp.where(bad, NON_FINITE, 0).astype(jnp.int32),
        jnp.where(first, index, status.event),
        jnp.where(first, time.astype(jnp.float32), status.time),
    )


def _account(carry: _Carry, state: Any, info: Info, index: Array, time: Array) -> _Carry:
    """Add one event's report to the totals."""
    status, traffic, loss, steps = carry.status, carry.traffic, carry.loss, carry.steps
    if info.finite is not None:
        status = _flag(status, ~info.finite, index, time)
    if info.messages is not None:
        bits, sent = counter.unpack(traffic)
        sent = counter.add_products(sent, info.messages, jnp.ones_like(info.messages))
        if info.bits is not None:
            bits = counter.add_products(bits, info.bits, info.messages)
        traffic = counter.pack(bits, sent)
    if info.loss is not None:
        loss = loss + jnp.sum(info.loss).astype(jnp.float32)
        steps = steps + float(info.loss.size)
    return _Carry(state, status, traffic, loss, steps)


def _record(carry: _Carry, protocol: Protocol, observers: Sequence[Observer], index, time) -> tuple[_Carry, Records]:
    """Observe the network between two events."""
    x = protocol.model(carry.state)
    carry = carry._replace(status=_flag(carry.status, ~all_finite(x), index - 1, time))
    snapshot = Snapshot(index, time, x)
    values: dict[str, Array] = {}
    for observer in observers:
        values |= observer.measure(snapshot)
    zero = jnp.zeros((), jnp.float32)
    bits, messages = counter.unpack(carry.traffic)
    records = Records(index, time, bits, messages, carry.loss, carry.steps, values)
    return carry._replace(loss=zero, steps=zero), records


def observe(protocol: Protocol, state: Any, observers: Sequence[Observer], index: Array, time: Array) -> Records:
    """Record a state outside the loop (the start of a run)."""
    return _record(_fresh(state), protocol, observers, index, time)[1]


def _unroll(protocol: Protocol, timeline: Timeline, state: Any, key: Key[Array, ""]) -> int:
    """Events per turn of the loop: narrow events that train nothing cost less than the turn itself."""
    event = jax.eval_shape(timeline.event, key, timeline.static, _last(timeline.xs))
    _, info = jax.eval_shape(lambda state, event: protocol.step(key, state, event), state, event)
    return _UNROLLED if event.nodes is not None and len(event.nodes) <= 2 and info.loss is None else 1


def _last(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[-1], tree)


def run(
    key: Key[Array, ""],
    protocol: Protocol,
    timeline: Timeline,
    state: Any,
    *,
    record_every: int | None = None,
    observers: Sequence[Observer] = (),
) -> tuple[tuple[Any, Status], Records]:
    """Run a protocol over a timeline: ``state_{t+1} = step(key, state_t, event_t)``, t = 0 … T − 1.

    Pure: jit, vmap (over keys, states, or numbers bound in the protocol) and differentiate it. No check is made of the
    arguments; :func:`gossipjax.simulate` makes them all.

    Args:
        key: of the run. Timelines and protocols get streams of it, which depend on nothing else.
        protocol: the step.
        timeline: T events.
        state: from ``protocol.init`` or from an earlier part of the same run.
        record_every: events between two records, a divisor of T; None: one record, at the end.
        observers: measured at every record.

    Returns:
        ``((state, status), records)``; records have leading axis ``T / record_every``.

    Raises:
        ValueError: T is not a multiple of record_every.
    """
    total = len(timeline)
    every = total if record_every is None else record_every
    if every < 1 or total % every:
        raise ValueError(
            f"record_every={record_every} does not divide the {total} events; cut the timeline to a multiple"
        )
    events_key, steps_key = jax.random.fold_in(key, EVENTS), jax.random.fold_in(key, STEPS)

    def one_event(carry: _Carry, x: PyTree) -> tuple[_Carry, None]:
        event = timeline.event(events_key, timeline.static, x)
        state, info = protocol.step(steps_key, carry.state, event)
        return _account(carry, state, info, event.index[0], event.time[0]), None

    def one_record(carry: _Carry, xs: PyTree) -> tuple[_Carry, Records]:
        carry, _ = jax.lax.scan(one_event, carry, xs, unroll=unroll)
        last = timeline.event(events_key, timeline.static, _last(xs))
        return _record(carry, protocol, observers, last.index[-1] + 1, last.time[-1])

    unroll = _unroll(protocol, timeline, state, events_key)
    xs = jax.tree.map(lambda leaf: jnp.reshape(leaf, (total // every, every, *leaf.shape[1:])), timeline.xs)
    carry, records = jax.lax.scan(one_record, _fresh(state), xs)
    return (carry.state, carry.status), records
