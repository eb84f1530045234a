"""Sizes of Plexus' messages in bytes, field by field.

A control message is a signed datagram: prefix 22, type 1, public key 2 + 74, the fields, signature 64; integers take 8
bytes, booleans 1. A model message carries the float32 parameters, the sender's view, a JSON header, and what
serialising a model adds.

Reference: Dhasade et al. 2025, arXiv 2503.05509; packing of the public code, sacs-epfl/plexus.
"""

from __future__ import annotations

from gossipjax._base.arguments import whole

ENVELOPE = 22 + 1 + 2 + 74 + 64
"""Bytes of a signed datagram without fields."""
VIEW_ENTRY = 88
"""Bytes of one node in a serialised view."""
MODEL_HEADER = 66
"""Bytes of the JSON text before a model."""
SERIALISED_MODEL = 2000
"""Bytes that serialising a model adds to its parameters: 1 to 3 kB, by the number of layers."""

KINDS = ("ping", "pong", "join", "leave", "agg_ack", "trained", "aggregated")
"""Types of messages. The last two carry models."""
PING, PONG, JOIN, LEAVE, AGG_ACK, TRAINED, AGGREGATED = range(len(KINDS))
BYTES = {
    PING: ENVELOPE + 3 * 8,
    PONG: ENVELOPE + 3 * 8,
    JOIN: ENVELOPE + 2 * 8 + 8 + 8,
    LEAVE: ENVELOPE + 2 * 8 + 8 + 8,
    AGG_ACK: ENVELOPE + 8 + 1,
}
"""Bytes of a control message. Round, counter and nonce; round, counter, status and Lamport time; round and success."""


def model_message_bytes(model_bytes: int, num_nodes: int, *, overhead_bytes: int = SERIALISED_MODEL) -> int:
    """Size of a message with a model and a view: ``4P + overhead + 88 n + 66``.

    Args:
        model_bytes: 4P, P parameters in float32.
        num_nodes: n entries of the view.
        overhead_bytes: what serialising the model adds.

    Raises:
        ValueError: no bytes, no nodes or a negative overhead.
    """
    whole("model_bytes", model_bytes, least=1, remedy="4 for each parameter in float32")
    whole("num_nodes", num_nodes, least=1)
    whole("overhead_bytes", overhead_bytes, least=0)
    return model_bytes + overhead_bytes + VIEW_ENTRY * num_nodes + MODEL_HEADER
