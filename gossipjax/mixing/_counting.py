"""Functions that many sharings use: message counts of an event, and the state of a stateless sharing."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Int, UInt

from gossipjax._base.local import network_size
from gossipjax.facts import Requires
from gossipjax.mixing._apply import messages
from gossipjax.mixing._forms import DenseMixing, PairMixing, TableMixing, live_receivers
from gossipjax.mixing._placed_forms import PlacedDense, PlacedTable
from gossipjax.types import NOBODY, Event, Info, Params

EVERYONE = Requires({"synchronous"}, mixing=True, builder="timeline.rounds")
"""Requirement of synchronous rounds, in which every node sends."""


def no_state(x0: Params) -> tuple[()]:
    """Return the state of a sharing that keeps nothing from one event to the next."""
    del x0
    return ()


def ring_bits(bits: int, num_nodes: int) -> int:
    """Return the bits that each of n nodes sends in a ring all-reduce: ``2 (n − 1)/n`` of a model's bits, rounded.

    In each of 2 (n − 1) steps every node passes an n-th of the model to the next node: first sums, then means.

    Reference: Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations.
    """
    return (4 * (num_nodes - 1) * bits + num_nodes) // (2 * num_nodes)


def charge_allreduce(info: Info, event: Event, num_nodes: int) -> Info:
    """Charge every node :func:`ring_bits` if the event is an all-reduce of whole models.

    Only messages of one constant size, such as whole models, can be summed on their way. All other messages go to
    n − 1 nodes each, and ``info`` stays as it is.

    Args:
        info: the report of the step.
        event: the event of that step.
        num_nodes: n.

    Returns:
        The report, with ``allreduce=()`` if it was charged so.
    """
    if event.allreduce is None or not isinstance(info.bits, int) or info.messages is not None:
        return info
    return info._replace(bits=ring_bits(info.bits, num_nodes), messages=jnp.ones(num_nodes, jnp.uint32), allreduce=())


def count(event: Event, rows: int) -> UInt[Array, " m"]:
    """Count the messages of each sender of an event: those that the timeline states, else those of its mixing.

    In an all-reduce each node sends n − 1 messages if they cannot be summed on their way: see :func:`charge_allreduce`.

    Args:
        event: one event.
        rows: number of rows of the stacked model, slots included.
    """
    if event.messages is not None:
        return event.messages
    if event.allreduce is not None:
        return jnp.full(rows, network_size(event.local, rows) - 1, jnp.uint32)
    return jnp.zeros((1,), jnp.uint32) if event.mixing is None else messages(event.mixing, rows)


def speakers(event: Event, rows: int) -> Int[Array, " m"] | None:
    """Return the rows that say something in an event, one for each entry of :func:`count`; None: all, in order.

    Args:
        event: one event.
        rows: number of rows of the stacked model, slots included.

    Returns:
        Rows; :data:`~gossipjax.types.NOBODY` in lanes without a message.

    Raises:
        ValueError: an event that does not say who sends its messages.
    """
    mixing, given, said = event.mixing, event.messages, event.speakers
    if event.nodes is None:
        return None
    if said is None and isinstance(mixing, PairMixing) and (given is None or given.shape == mixing.senders.shape):
        happens = live_receivers(mixing, rows) < rows if given is None else True
        said = jnp.where(happens, mixing.senders, NOBODY)
    if said is None and isinstance(mixing, DenseMixing | TableMixing | PlacedDense | PlacedTable):
        said = jnp.arange(rows, dtype=jnp.int32)
    if said is not None:
        return said if given is None else jnp.where(given > 0, said, NOBODY)
    raise ValueError(
        f"an event of {type(mixing).__name__} does not say who sends its messages, which a sharing of anything but "
        "models must know: give timeline.from_events the field speakers, or share full models"
    )


def traffic_fields(
    event: Event, bits: int | UInt[Array, "..."], rows: int
) -> tuple[int | UInt[Array, "*m"], UInt[Array, "*m"] | None]:
    """Return the size of a message and the number of messages of each sender: the first two fields of ``Info``.

    Args:
        event: one event.
        bits: size of one message: an int if it never changes (the engine then counts outside its loop), else ``()``,
            one per sender ``(m,)``, or one per message ``(m, s)``, where the first entries of a sender are its
            messages and the others are padding.
        rows: number of rows of the stacked model, slots included.

    Returns:
        Bits per message, and the number of messages; None if the engine counts them. For sizes ``(m, s)`` each entry
        counts one message, or none.

    Raises:
        ValueError: if sizes differ by sender, and the event does not count its messages by sender.
    """
    if isinstance(bits, int):
        return bits, None
    messages_sent = count(event, rows)
    if jnp.ndim(bits) == 2 and len(bits) == len(messages_sent):
        lanes = jnp.arange(bits.shape[1], dtype=jnp.uint32)[None]
        return bits, (lanes < messages_sent[:, None]).astype(jnp.uint32)
    if jnp.shape(bits) not in ((), messages_sent.shape):
        raise ValueError(
            f"sizes of messages of {jnp.shape(bits)[0]} nodes do not belong to the {messages_sent.shape[0]} messages "
            f"that {type(event.mixing).__name__} counts: give one for each of gossipjax.mixing.speakers(event, rows)"
        )
    return jnp.broadcast_to(bits, messages_sent.shape), messages_sent
