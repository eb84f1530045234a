"""Charge the messages of an event to those who send and receive them: one set of rules, for every place that counts.

Four places know something about traffic. They are views of one thing, and tests hold them against each other:

* ``Info`` of a step: the size of a message of each sender. :func:`departures` combines it with the event to count
  the messages that leave; every other count is a sum of these.
* The loop adds up the whole network's, ``bytes_sent`` and ``messages_sent`` of every run: two numbers, since a count
  for each node would slow down loops of tiny events.
* :func:`gossipjax.metered` keeps a :class:`~gossipjax.types.Ledger` of every node by :func:`enter`, and sums up to the
  same. It is a wrapper because it costs time and an entry per row, and because rows must be nodes for it.
* A plan of :mod:`gossipjax.systems` knows every transfer in its ``activities``, with what a message carries besides the
  model, and with the bytes of transfers that were cut, which a loop never sees.
  :func:`gossipjax.systems.node_traffic` sums them up to a ledger. ``Properties.traffic`` counts messages by their fate.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt

from gossipjax._base import counter
from gossipjax._base.counter import Counter
from gossipjax.mixing._counting import charge_allreduce, count, speakers
from gossipjax.mixing._forms import DenseMixing, GroupMixing, Mixing, PairMixing, TableMixing, live_receivers
from gossipjax.types import Event, Info, Ledger


class Book(NamedTuple):
    """The ledger of a run and what is needed to carry it on; bits, ``(num_rows + num_slots,)`` each."""

    ledger: Ledger
    """64-bit counters; rows of messages in flight stay at 0."""
    said: UInt[Array, " rows"]
    """Size of the message that lies in each row of messages in flight."""


def start_book(rows: int) -> Book:
    """Return an empty book for all rows, those of messages in flight included."""
    return Book(Ledger(counter.zeros((rows,)), counter.zeros((rows,))), jnp.zeros(rows, jnp.uint32))


def departures(info: Info, event: Event, rows: int) -> tuple[int | UInt[Array, "*m"], UInt[Array, "*m"]]:
    """Return the bits of a message and the number of messages of each sender that leave in an event.

    Args:
        info: the report of the step, after :func:`~gossipjax.mixing._counting.charge_allreduce`; its bits are known.
        event: the event of that step.
        rows: number of rows of the stacked model, slots included.
    """
    assert info.bits is not None
    return info.bits, count(event, rows) if info.messages is None else info.messages


def enter(book: Book, info: Info, event: Event) -> Book:
    """Charge the messages of one event: those that leave to their senders, those that arrive to their receivers.

    Args:
        book: of the events before.
        info: the report of the step, with bits.
        event: the event of that step.

    Raises:
        ValueError: an event that does not say who sends its messages.
    """
    (sent, received), rows = book.ledger, book.said.size
    info = charge_allreduce(info, event, rows)
    size, number = departures(info, event, rows)
    who = _senders(event, rows, len(number))
    bits = jnp.broadcast_to(jnp.asarray(size, jnp.uint32), number.shape)
    for lane in range(1 if bits.ndim == 1 else bits.shape[1]):
        column = (bits, number) if bits.ndim == 1 else (bits[:, lane], number[:, lane])
        sent = counter.add_products_at(sent, who, *column)
    if info.allreduce is not None:  # every node passes on as much as it is passed
        return book._replace(ledger=Ledger(sent, counter.add_products_at(received, who, bits, number)))
    if event.mixing is None:
        return book._replace(ledger=Ledger(sent, received))
    if bits.ndim == 2:
        return book._replace(ledger=Ledger(sent, _arrive_apart(received, event.mixing, bits * number)))
    models = rows if event.models is None else event.models.value
    said = jnp.where(jnp.arange(rows) < models, 0, book.said)
    said = said.at[jnp.where(number > 0, who, rows)].set(bits, mode="drop")
    bits = jnp.where(number > 0, bits, 0)
    received, said = _arrive(received, said, bits, event, models)
    return Book(Ledger(sent, received), said)


def _senders(event: Event, rows: int, lanes: int) -> Int[Array, " m"]:
    """Return the row of each sender."""
    who = speakers(event, rows)
    if who is not None:
        return who
    if lanes != rows:
        raise ValueError(
            f"an event of {type(event.mixing).__name__} counts {lanes} senders of {rows} rows: it does not say who "
            "sends; give timeline.from_events the field speakers"
        )
    return jnp.arange(rows, dtype=jnp.int32)


def _arrive(
    received: Counter, said: UInt[Array, " rows"], bits: UInt[Array, " m"], event: Event, models: int
) -> tuple[Counter, UInt[Array, " rows"]]:
    """Let each receiver take what its senders said: into its account, or into the row of a message in flight."""
    mixing = event.mixing
    if isinstance(mixing, DenseMixing):
        live = (mixing.W != 0) & ~jnp.eye(len(mixing.W), dtype=bool)
        size = jnp.where(live, said[None], 0)
        return _add_columns(received, size), said
    if isinstance(mixing, TableMixing):
        size = jnp.where(_live(mixing), said[mixing.neighbors], 0)
        return _add_columns(received, size), said
    sources, targets = _transfers(mixing, said.size)
    size = said.at[sources].get(mode="fill", fill_value=0)
    if isinstance(mixing, PairMixing) and event.speakers is None and bits.shape == sources.shape:
        size = jnp.where(sources < models, bits, size)  # a node may say two things in one event
    received = counter.add_products_at(received, jnp.where(targets < models, targets, said.size), size, _ones(size))
    leaves = (targets >= models) & (sources < models)  # what a node received before it speaks has no size of its own
    return received, said.at[jnp.where(leaves, targets, said.size)].set(size, mode="drop")


def _transfers(mixing: PairMixing | GroupMixing, rows: int) -> tuple[Int[Array, " k"], Int[Array, " k"]]:
    """List the sender and the receiver of each transfer; a receiver past the end: there is none."""
    if isinstance(mixing, PairMixing):
        sources, targets = mixing.senders, live_receivers(mixing, rows)
        return sources, jnp.where(sources != targets, targets, rows)
    (g, s), t = mixing.members.shape, mixing.targets.shape[1]
    sources = jnp.broadcast_to(mixing.members[:, None], (g, t, s))
    targets = jnp.broadcast_to(mixing.targets[:, :, None], (g, t, s))
    if mixing.parts is None:
        whole = jnp.ones((), bool)
    else:  # a node may send itself a fragment
        whole = (mixing.parts < 0)[:, None]
    live = (mixing.weights != 0)[:, None] & ((sources != targets) | ~whole) & (sources < rows)
    return sources.ravel(), jnp.where(live, targets, rows).ravel()


def _arrive_apart(received: Counter, mixing: Mixing, bits: UInt[Array, "n s"]) -> Counter:
    """Let each receiver take what was said to it alone; a sender's messages go to its receivers in increasing order."""
    n = len(bits)
    if isinstance(mixing, TableMixing):
        live, senders = _live(mixing), mixing.neighbors
    elif isinstance(mixing, DenseMixing):
        live, senders = (
            (mixing.W != 0) & ~jnp.eye(n, dtype=bool),
            jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (n, n)),
        )
    else:
        raise ValueError(
            f"a {type(mixing).__name__} is not a round of all nodes, in which each says more than one thing"
        )
    sender = jnp.where(live, senders, n).ravel()
    receiver = jnp.repeat(jnp.arange(n, dtype=jnp.int32), senders.shape[1])
    order = jnp.lexsort((receiver, sender))
    first = jnp.searchsorted(sender[order], sender[order], side="left").astype(jnp.int32)
    lane = jnp.arange(order.size, dtype=jnp.int32) - first
    size = bits.at[sender[order], lane].get(mode="fill", fill_value=0)
    return counter.add_products_at(received, receiver[order], size, _ones(size))


def _live(mixing: TableMixing) -> Bool[Array, "n d"]:
    own = jnp.arange(len(mixing.neighbors), dtype=mixing.neighbors.dtype)[:, None]
    return (mixing.weights != 0) & (mixing.neighbors != own)


def _add_columns(received: Counter, sizes: UInt[Array, "n d"]) -> Counter:
    def add(total: Counter, size: UInt[Array, " n"]) -> tuple[Counter, None]:
        return counter.plus(total, Counter(jnp.zeros_like(size), size)), None

    return jax.lax.scan(add, received, sizes.T)[0]


def _ones(like: UInt[Array, " k"]) -> UInt[Array, " k"]:
    return jnp.ones_like(like)
