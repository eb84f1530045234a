"""What sharings have in common: counting what an event sends, and remembering nothing."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, UInt

from gossipjax.mixing import messages
from gossipjax.types import Event, Params, Requires

EVERYONE = Requires(synchronous=True, mixing=True, builder="timeline.rounds")
"""Synchronous rounds, in which every node has something to say."""


def no_state(x0: Params) -> tuple[()]:
    """Start a sharing that remembers nothing from one event to the next."""
    del x0
    return ()


def count(event: Event, rows: int) -> UInt[Array, " m"]:
    """Count the models that leave each sender of an event: as the timeline says, else by the form of its mixing.

    Args:
        event: one event.
        rows: number of rows of the stacked model, slots included.
    """
    if event.messages is not None:
        return event.messages
    return jnp.zeros((1,), jnp.uint32) if event.mixing is None else messages(event.mixing, rows)


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
            f"sizes of messages of {jnp.shape(bits)[0]} nodes do not belong to the {messages_sent.shape[0]} transfers "
            f"that {type(event.mixing).__name__} counts: use timeline.rounds, where every node counts its own"
        )
    return jnp.broadcast_to(bits, messages_sent.shape), messages_sent
