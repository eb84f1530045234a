"""The events of a protocol on a timeline: what every loop over them is made of, and the pure scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt

from gossipjax._base import counter, outputs
from gossipjax._base.arguments import instance, optional_whole, shown
from gossipjax._base.counter import Counter
from gossipjax._base.local import AXIS, Local, add_up, in_node_order, network_size, real_rows
from gossipjax._base.placement import is_by_rows
from gossipjax._base.rows import finite_rows, num_rows
from gossipjax._base.streams import EVENTS, STEPS
from gossipjax.facts import Properties
from gossipjax.mixing._counting import charge_allreduce, count
from gossipjax.mixing._ledger import departures
from gossipjax.observe._models import Observer, Snapshot
from gossipjax.timeline._events import draw_window, event_of
from gossipjax.types import Event, Info, Params, Planned, Protocol, Timeline, as_timeline

NON_FINITE, LOSS = 1, 2
"""Status bits: a parameter, or the training loss of an acting node, became infinite or NaN."""
NO_NODE = -1
"""Stands for a node that is unknown."""


class Status(NamedTuple):
    """The first bad event: what went wrong (a bit field, 0: nothing), and the number, time and node of the event."""

    bits: Int[Array, ""]
    event: UInt[Array, ""]
    time: Float[Array, ""]
    node: Int[Array, ""]


class Records(NamedTuple):
    """Records of a run; the leading axis of every field counts them."""

    event: UInt[Array, " r"]
    """Source events done."""
    time: Float[Array, " r"]
    """Simulated seconds, in float32; :func:`gossipjax.simulate` records them in float64."""
    bits: Counter
    """Bits sent by the whole network since the run began."""
    messages: Counter
    """Messages sent since the run began."""
    loss: Float[Array, " r"]
    """Sum of the mini-batch losses of the nodes that acted since the last record; NaN if any of them was not finite."""
    steps: Float[Array, " r"]
    """Number of those losses."""
    values: dict[str, Array]
    """What the observers returned."""


class Losses(NamedTuple):
    """Mini-batch losses since the run began. Differences of two records do not depend on the records between them."""

    total: Float[Array, "*r 2"]
    """Sum of the finite losses, and the rounding error of that sum: float32 alone would stop growing in long runs."""
    numbers: UInt[Array, "*r 2"]
    """Number of losses, and number of those that were not finite."""


class Totals(NamedTuple):
    """Records of a part of a run: like :class:`Records`, but losses are sums since the run began."""

    event: UInt[Array, " r"]
    time: Float[Array, " r"]
    bits: Counter
    messages: Counter
    losses: Losses
    values: dict[str, Array]


def no_losses() -> Losses:
    """Start at zero."""
    return Losses(jnp.zeros(2, jnp.float32), jnp.zeros(2, jnp.uint32))


def _add_loss(losses: Losses, loss: Float[Array, " k"], acting: Bool[Array, " k"], local: Any = None) -> Losses:
    """Add the losses of one event, and keep the rounding error of the sum (Knuth's TwoSum)."""
    acting = real_rows(local, acting)
    good = acting & jnp.isfinite(loss)
    new = add_up(local, jnp.sum(jnp.where(good, loss, 0)).astype(jnp.float32))
    old, rest = losses.total
    total = old + new
    kept = total - old
    rest = rest + ((old - (total - kept)) + (new - kept))
    found = jnp.stack([jnp.sum(acting, dtype=jnp.uint32), jnp.sum(acting & ~good, dtype=jnp.uint32)])
    return Losses(jnp.stack([total, rest]), losses.numbers + add_up(local, found))


class Carry(NamedTuple):
    """What a loop carries from event to event."""

    state: Any
    status: Status
    traffic: UInt[Array, "4"]
    """Bits and messages, packed."""
    losses: Losses


def fresh(state: Any, losses: Losses) -> Carry:
    """Return what a loop carries before its first event."""
    zero = jnp.zeros((), jnp.int32)
    status = Status(zero, jnp.zeros((), jnp.uint32), jnp.zeros((), jnp.float32), zero + NO_NODE)
    return Carry(state, status, counter.pack(counter.zero(), counter.zero()), losses)


def with_slots(x0: Params, properties: Properties) -> Params:
    """Append rows of zeros for the messages in flight to stacked start parameters ``(num_rows, ...)``.

    :func:`gossipjax.simulate` does this. If you call :func:`run` yourself, do it before ``protocol.init``.

    Raises:
        TypeError: if ``properties`` are not those of a timeline.
    """
    instance("properties", properties, Properties, "pass timeline.properties")
    if not properties.num_slots:
        return x0

    def extend(leaf: Array) -> Array:
        slots = jnp.zeros((properties.num_slots, *jnp.shape(leaf)[1:]), jnp.result_type(leaf))
        return jnp.concatenate([jnp.asarray(leaf), slots])

    return jax.tree.map(extend, x0)


def models(protocol: Protocol, state: Any, rows: int) -> Params:
    """Return the models that observers see: the model rows, without the rows of messages in flight."""
    return jax.tree.map(lambda leaf: leaf if len(leaf) == rows else leaf[:rows], protocol.model(state))


def _flag(status: Status, bits: Array, index: Array, time: Array, node: Array) -> Status:
    first = (bits != 0) & (status.bits == 0)
    return Status(
        jnp.where(first, bits.astype(jnp.int32), status.bits),
        jnp.where(first, index, status.event),
        jnp.where(first, time.astype(jnp.float32), status.time),
        jnp.where(first, node.astype(jnp.int32), status.node),
    )


def _first_bad(info: Info, event: Event, num_nodes: int) -> tuple[Array, Array, Array, Array] | None:
    """Find the first fault of an event: status bits, number and time of the source event, and the node.

    Returns None if the step reports neither losses nor whether its rows are finite.
    """
    acting = jnp.ones((), bool) if event.nodes is None else event.nodes < num_nodes
    finite, bits = info.finite, jnp.zeros((), jnp.int32)
    lanes = next((a.shape for a in (info.loss, event.nodes, finite) if a is not None), ())
    one_flag = finite is not None and finite.shape != lanes
    if info.loss is not None:
        bits = bits | jnp.where(acting & ~jnp.isfinite(info.loss), LOSS, 0)
    if finite is not None:
        bits = bits | jnp.where(jnp.all(finite) if one_flag else finite | ~acting, 0, NON_FINITE)
    elif info.loss is None:
        return None
    bits = jnp.broadcast_to(bits, lanes or (1,)).astype(jnp.int32)
    if event.nodes is None:
        at = jnp.argmax(bits)
        index, time, node = event.index[0], event.time[0], at
    else:
        at = jnp.argmin(jnp.where(bits != 0, event.index, jnp.uint32(0xFFFFFFFF)))
        index, time, node = event.index[at], event.time[at], event.nodes[at]
    known = len(bits) == 1 if one_flag or not lanes else True
    if event.nodes is None and event.local is not None:
        node = event.local.ids[node]
    return bits[at], index, time, jnp.where(known | (bits[at] >= LOSS), node, NO_NODE)


def _account(carry: Carry, state: Any, info: Info, event: Event, num_nodes: int, rows: int) -> Carry:
    """Add one event's report to the totals."""
    info = charge_allreduce(info, event, network_size(event.local, rows))
    status, traffic, losses = carry.status, carry.traffic, carry.losses
    if (bad := _first_bad(info, event, num_nodes)) is not None:
        status = _flag(status, *bad)
    if info.bits is not None and not _counted_outside(info, event):
        bits, sent = departures(info, event, rows)
        if event.local is not None:
            sent = _of_device(sent, event.local)
        if isinstance(bits, int):
            traffic = _add_total(traffic, bits, sent)
        else:
            traffic = _add_traffic(traffic, jnp.broadcast_to(jnp.asarray(bits, jnp.uint32), sent.shape), sent)
    if info.loss is not None:
        acting = jnp.ones(info.loss.shape, bool) if event.nodes is None else event.nodes < num_nodes
        losses = _add_loss(losses, info.loss, acting, event.local)
    return Carry(state, status, traffic, losses)


def _of_device(sent: UInt[Array, "*m"], local: Local) -> UInt[Array, "*m"]:
    """Return the messages of the nodes of one device; those of an all-reduce are counted for all nodes."""
    if local.valid is None or len(sent) == 1:  # an event without messages, or the only node of a device
        return sent
    own = sent if len(sent) == len(local.ids) else sent[local.ids]
    return real_rows(local, own)


def _add_traffic(traffic: UInt[Array, "4"], bits: UInt[Array, "*m"], sent: UInt[Array, "*m"]) -> UInt[Array, "4"]:
    bits, sent = bits.ravel(), sent.ravel()
    bits_so_far, sent_so_far = counter.unpack(traffic)
    return counter.pack(
        counter.add_products(bits_so_far, bits, sent),
        counter.add_products(sent_so_far, sent, jnp.ones_like(sent)),
    )


def _add_total(traffic: UInt[Array, "4"], bits: int, sent: UInt[Array, " T"]) -> UInt[Array, "4"]:
    """Add messages of one size."""
    bits_so_far, sent_so_far = counter.unpack(traffic)
    now = counter.add_sum(counter.zero(), sent)
    return counter.pack(counter.add_multiple(bits_so_far, now, bits), counter.plus(sent_so_far, now))


def _counted_outside(info: Info, event: Event) -> bool:
    """Whether messages are counted for many events at once.

    Counting them one by one would take most of the time of a loop of tiny events. Counting many at once requires
    messages of constant size. Rounds, whose mixing is large, are counted one by one.
    """
    return isinstance(info.bits, int) and info.messages is None and event.nodes is not None


def _measure(
    carry: Carry, protocol: Protocol, facts: Properties, observers: Sequence[Observer], index, time, local=None
) -> tuple[Status, dict[str, Any]]:
    """Observe the network between two events."""
    x = models(protocol, carry.state, facts.num_rows if local is None else len(local.ids))
    bad = ~finite_rows(x)
    # Mixing spreads bad numbers to all rows: only a single bad row identifies its node.
    one = add_up(local, jnp.sum(real_rows(local, bad), dtype=jnp.int32)) == 1
    known = one & (facts.num_rows == facts.num_nodes)
    first = jnp.argmax(bad) if local is None else local.ids[jnp.argmax(bad)]
    node = jnp.where(known, first, NO_NODE)
    status = _flag(carry.status, jnp.where(jnp.any(bad), NON_FINITE, 0), index - 1, time, node)
    versions, meter = (None if read is None else read(carry.state) for read in (protocol.versions, protocol.meter))
    snapshot = Snapshot(index, time, x, versions, meter, local)
    whole = snapshot
    if local is not None and not all(is_by_rows(observer.measure) for observer in observers):
        whole = snapshot._replace(x=in_node_order(local, x), local=None)
    values: dict[str, Array] = {}
    for observer in observers:
        values |= observer.measure(snapshot if is_by_rows(observer.measure) else whole)
    return status, values


def totals_at(carry: Carry, index: Array, time: Array, values: dict[str, Any], local: Any = None) -> Totals:
    """Return what a record holds."""
    bits, messages = counter.unpack(carry.traffic)
    if local is not None:
        bits, messages = (_over_devices(each) for each in (bits, messages))
    return Totals(index, time, bits, messages, carry.losses, values)


def _over_devices(own: Counter) -> Counter:
    """Add the counters of all devices."""
    each, total = jax.tree.map(lambda word: jax.lax.all_gather(word, AXIS), own), counter.zero()
    for device in range(len(each[0])):
        total = counter.plus(total, jax.tree.map(lambda words, at=device: words[at], each))
    return total


def first_of_devices(status: Status) -> Status:
    """Return the first bad event over all devices: of equal events the gravest fault, of equal faults the first node.

    Args:
        status: of this device.
    """
    each = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, AXIS), status)
    event = jnp.where(each.bits != 0, each.event, jnp.uint32(0xFFFFFFFF))
    first = jnp.lexsort((each.node, -each.bits, event))[0]
    return jax.tree.map(lambda leaf: leaf[first], each)


def _last(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[-1], tree)


def run(
    key: Key[Array, ""],
    protocol: Protocol,
    timeline: Timeline | Planned,
    state: Any,
    *,
    record_every: int | None = None,
    observers: Sequence[Observer] = (),
) -> tuple[tuple[Any, Status], Records]:
    """Run a protocol over a timeline: ``state_{t+1} = step(key, state_t, event_t)``, t = 0 … T − 1.

    Pure: it can be jitted, vmapped (over keys, states, or numbers bound in the protocol) and differentiated. It does
    not check that its arguments fit together; :func:`gossipjax.simulate` does.

    Args:
        key: of the run. Timelines and protocols draw from streams that depend on this key alone.
        protocol: the step.
        timeline: T events, or a plan that has them.
        state: from ``protocol.init`` or from an earlier part of the same run.
        record_every: events between two records, a divisor of T; None: one record, at the end.
        observers: measured at every record.

    Returns:
        ``((state, status), records)``; records have leading axis ``T / record_every``: none without events.

    Raises:
        ValueError: if T is not a multiple of record_every, or the state lacks the rows of messages in flight.
        TypeError: if an argument is not a protocol, not a timeline, or not a state of this protocol.
    """
    instance("protocol", protocol, Protocol, "build one, such as gossipjax.gossip_averaging()")
    timeline = as_timeline(timeline)
    every = optional_whole("record_every", record_every)
    check_state(protocol, state, timeline.properties)
    (state, status, _), found = scan(
        key, protocol, timeline, state, no_losses(), record_every=every, observers=observers
    )
    since = jax.tree.map(lambda leaf: jnp.diff(leaf, axis=0, prepend=jnp.zeros_like(leaf[:1])), found.losses)
    loss = jnp.where(since.numbers[:, 1] == 0, jnp.sum(since.total, axis=1), jnp.nan)
    return (state, status), Records(*found[:4], loss, since.numbers[:, 0].astype(jnp.float32), found.values)


def check_state(protocol: Protocol, state: Any, facts: Properties) -> None:
    """Check that a protocol can read its models from a state, and that it has rows for messages in flight.

    Raises:
        TypeError: if it cannot read them.
        ValueError: if the rows are missing.
    """
    try:
        like = jax.eval_shape(protocol.model, state)
        rows = num_rows(like)
    except (AttributeError, TypeError, KeyError, IndexError) as error:
        raise TypeError(
            f"state={shown(state)}: is none of this protocol's; pass protocol.init(key, x0), with "
            "x0 = gossipjax.with_slots(x0, timeline.properties) where messages are in flight"
        ) from error
    if not facts.num_slots or rows != facts.num_rows:
        return
    # The models may be apart from the messages: a state with room for both tells.
    room = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows + facts.num_slots, *leaf.shape[1:]), leaf.dtype), like)
    full = jax.eval_shape(protocol.init, jax.random.key(0), room)
    if [leaf.shape for leaf in jax.tree.leaves(full)] != [jnp.shape(leaf) for leaf in jax.tree.leaves(state)]:
        raise ValueError(
            f"state: has no rows for the {facts.num_slots} messages in flight of this timeline; pass "
            "protocol.init(key, gossipjax.with_slots(x0, timeline.properties))"
        )


class Loop:
    """The functions that loops over the events of one timeline are made of."""

    def __init__(
        self, key: Key[Array, ""], protocol: Protocol, timeline: Timeline, state: Any, observers: Any, place: Any = None
    ):
        self.place = place
        """Of one device of a mesh: its rows and its part of the mixing; None: every row is here."""
        self.local = None if place is None else place.local
        self.events_key, self.steps_key = jax.random.fold_in(key, EVENTS), jax.random.fold_in(key, STEPS)
        self.protocol, self.timeline, self.observers = protocol, timeline, observers
        self.facts = timeline.properties
        self.rows = num_rows(jax.eval_shape(protocol.model, state))
        self.xs = draw_window(self.events_key, timeline)
        self.bits: Any = None
        """Bits of every message, set while a step is traced, if messages are counted for many events at once."""

    def event(self, x: PyTree) -> Event:
        """Build an event."""
        return self.on_device(self.planned(x))

    def on_device(self, event: Event) -> Event:
        """Return an event as this device of a mesh sees it."""
        return event if self.place is None else self.place.of(event)

    def planned(self, x: PyTree) -> Event:
        """Build an event as the timeline plans it, with the nodes of all devices."""
        return event_of(self.events_key, self.timeline, x)

    def step(self, carry: Carry, x: PyTree) -> tuple[Carry, None]:
        """Run the event of an entry."""
        return self.apply(carry, self.event(x)), None

    def apply(self, carry: Carry, event: Event) -> Carry:
        """Run an event."""
        state, info = outputs.step(self.protocol, self.steps_key, carry.state, event)
        self.bits = info.bits if _counted_outside(info, event) else None
        return _account(carry, state, info, event, self.facts.num_nodes, self.rows)

    def sent(self, xs: PyTree) -> UInt[Array, " T"]:
        """Count the messages of each of many events."""

        def of_event(x: PyTree) -> UInt[Array, ""]:
            event = self.event(x)
            sent = count(event, self.rows)
            return jnp.sum(sent if event.local is None else _of_device(sent, event.local), dtype=jnp.uint32)

        return jax.vmap(of_event)(xs)

    def charge(self, carry: Carry, sent: UInt[Array, " T"]) -> Carry:
        """Add messages that are counted for many events at once."""
        return carry._replace(traffic=_add_total(carry.traffic, self.bits, sent))

    def measure(self, carry: Carry, index: Array, time: Array) -> tuple[Status, dict[str, Any]]:
        """Observe the network between two events."""
        return _measure(carry, self.protocol, self.facts, self.observers, index, time, self.local)


def scan(
    key: Key[Array, ""],
    protocol: Protocol,
    timeline: Timeline,
    state: Any,
    losses: Losses,
    *,
    record_every: int | None = None,
    observers: Sequence[Observer] = (),
) -> tuple[tuple[Any, Status, Losses], Totals]:
    """Run as :func:`run` does, and add to the losses of the parts of the run before it."""
    total = len(timeline)
    every = max(total, 1) if record_every is None else record_every
    if every < 1 or total % every:
        raise ValueError(
            f"record_every={record_every} does not divide the {total} events; cut the timeline to a multiple"
        )
    loop = Loop(key, protocol, timeline, state, observers)

    def one_record(carry: Carry, xs: PyTree) -> tuple[Carry, Totals]:
        carry = jax.lax.scan(loop.step, carry, xs)[0]
        if loop.bits is not None:
            carry = loop.charge(carry, loop.sent(xs))
        last = loop.planned(_last(xs))
        index, time = last.index[-1] + 1, last.time[-1]
        status, values = loop.measure(carry, index, time)
        carry = carry._replace(status=status)
        return carry, totals_at(carry, index, time, values)

    xs = jax.tree.map(lambda leaf: jnp.reshape(leaf, (total // every, every, *leaf.shape[1:])), loop.xs)
    carry, records = jax.lax.scan(one_record, fresh(state, losses), xs)
    return (carry.state, carry.status, carry.losses), records
