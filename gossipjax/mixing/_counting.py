"""What sharings have in common: counting what an event sends, and remembering nothing."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Int, UInt

from gossipjax.mixing._apply import messages
from gossipjax.mixing._forms import DenseMixing, PairMixing, TableMixing, live_receivers
from gossipjax.types import NOBODY, Event, Info, Params, Requires

EVERYONE = Requires(synchronous=True, mixing=True, builder="timeline.rounds")
"""Synchronous rounds, in which every node has something to say."""


def no_state(x0: Params) -> tuple[()]:
    """Start a sharing that remembers nothing from one event to the next."""
    del x0
    return ()


def ring_bits(bits: int, num_nodes: int) -> int:
    """Bits that each of n nodes sends in a ring all-reduce: ``2 (n − 1)/n`` of those of a model, to the nearest one.

    In 2 (n − 1) steps every node passes an n-th of the model to the next: first sums, then means.

    Reference: Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations.
    """
    return (4 * (num_nodes - 1) * bits + num_nodes) // (2 * num_nodes)


def charged(info: Info, event: Event, num_nodes: int) -> Info:
    """Charge whole models in an event that is an all-reduce as the ring does, once a node: :func:`ring_bits`.

    Only messages of one size for all, such as whole models, can be summed on their way. Others go to all n − 1 others,
    as at every other event.

    Args:
        info: what the step reports.
        event: what happened.
        num_nodes: n.
    """
    if event.allreduce is None or not isinstance(info.bits, int) or info.messages is not None:
        return info
    return info._replace(bits=ring_bits(info.bits, num_nodes), messages=jnp.ones(num_nodes, jnp.uint32))


def count(event: Event, rows: int) -> UInt[Array, " m"]:
    """Count the models that leave each sender of an event: as the timeline says, else by the form of its mixing.

    In an all-reduce these are messages that cannot be summed on their way, n − 1 of each node: see :func:`charged`.

    Args:
        event: one event.
        rows: number of rows of the stacked model, slots included.
    """
    if event.messages is not None:
        return event.messages
    if event.allreduce is not None:
        return jnp.full(rows, rows - 1, jnp.uint32)
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
    if said is None and isinstance(mixing, DenseMixing | TableMixing):
        said = jnp.arange(rows, dtype=jnp.int32)
    if said is not None:
        return said if given is None else jnp.where(given > 0, said, NOBODY)
    raise ValueError(
        f"an event of {type(mixing).__name__} does not say who sends its messages, which a sharing of anything but "
        "models must know: give planned(...) the field speakers, or share full models"
    )


def sent(
    event: Event, bits: int | UInt[Array, "..."], rows: int
) -> tuple[int | UInt[Array, " m"], UInt[Array, " m"] | None]:
    """Pair the size of a message with the number of messages of each sender: the first two fields of ``Info``.

    Args:
        event: one event.
        bits: size of one message: an int if it never changes, which leaves the counting to the engine, outside its
            loop; else ``()`` or one per sender ``(m,)``.
        rows: number of rows of the stacked model, slots included.

    Returns:
        Bits per message and messages.

    Raises:
        ValueError: sizes that differ by sender, in an event that does not count its messages by sender.
    """
    if isinstance(bits, int):
        return bits, None
    messages_sent = count(event, rows)
    if jnp.shape(bits) not in ((), messages_sent.shape):
        raise ValueError(
            f"sizes of messages of {jnp.shape(bits)[0]} nodes do not belong to the {messages_sent.shape[0]} messages "
            f"that {type(event.mixing).__name__} counts: give one for each of mixing.speakers(event, rows)"
        )
    return jnp.broadcast_to(bits, messages_sent.shape), messages_sent
