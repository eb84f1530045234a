"""Counting what an event sends."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, UInt

from gossipjax.mixing import messages
from gossipjax.types import Mixing


def sent(mixing: Mixing, bits: UInt[Array, "..."], rows: int) -> tuple[UInt[Array, " m"], UInt[Array, " m"]]:
    """Pair the size of a message with the number of messages of each sender: the first two fields of ``Info``.

    Args:
        mixing: of the event.
        bits: size of one message, ``()`` or one per sender ``(m,)``.
        rows: number of rows of the stacked model.

    Returns:
        Bits per message and messages, both ``(m,)``.
    """
    count = messages(mixing, rows)
    return jnp.broadcast_to(bits, count.shape), count
