"""Messages on the wire: a fixed header and the raw bytes of the leaves of a model. Nothing from a socket is unpickled.

Numbers are little-endian. The header has the token of the run, by which a node knows its peers' messages from those of
strangers, the sender, the number of the message, the time at which it may be read, and the length of its body. The body
of a message of whole models is the bytes of the leaves, one after another; that of a message with a mask is the bits of
the mask, followed by the entries under it, leaf by leaf.
"""

from __future__ import annotations

import hmac
import math
import struct
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

_HEADER = struct.Struct("<4s16sIQdQ")
MAGIC = b"gjd1"
TOKEN_BYTES = 16
HELLO = 2**64 - 1
"""Number of the message that a node sends to each of its receivers before the run: the connection then stands."""


class Header(NamedTuple):
    """The head of a message."""

    sender: int
    message: int
    due: float
    """Simulated seconds from the start at which it has arrived."""
    length: int


def write_header(token: bytes, header: Header) -> bytes:
    """Return the bytes of a header."""
    return _HEADER.pack(MAGIC, token, *header)


def read_header(token: bytes, frames: list[bytes]) -> Header | None:
    """Return the header of a message of this run, or None for anything else."""
    if len(frames) != 2 or len(frames[0]) != _HEADER.size:
        return None
    magic, found, *fields = _HEADER.unpack(frames[0])
    header = Header(*fields)
    if magic != MAGIC or not hmac.compare_digest(found, token) or header.length != len(frames[1]):
        return None
    return header


class Codec(NamedTuple):
    """The form of the messages of a run.

    Attributes:
        shapes: of the leaves of one model.
        dtypes: of the leaves.
        masked: whether messages hold the entries under a mask only, one bit for each entry of the model.
    """

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype[Any], ...]
    masked: bool

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each leaf."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def most_bytes(self) -> int:
        """Size of the longest body."""
        whole = sum(size * kind.itemsize for size, kind in zip(self.sizes, self.dtypes, strict=True))
        return whole + (-(-sum(self.sizes) // 8) if self.masked else 0)


def encode_body(codec: Codec, leaves: list[np.ndarray], mask: Bool[np.ndarray, " d"] | None) -> bytes:
    """Write one model, or the entries of it under the mask."""
    if mask is None:
        return b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)
    parts, start = [np.packbits(mask).tobytes()], 0
    for leaf, size in zip(leaves, codec.sizes, strict=True):
        parts.append(leaf.reshape(-1)[mask[start : start + size]].tobytes())
        start += size
    return b"".join(parts)


def decode_body(codec: Codec, body: bytes) -> tuple[list[np.ndarray], Bool[np.ndarray, " d"] | None]:
    """Read one model; entries that are not under the mask are 0.

    Raises:
        ValueError: if the body does not have the length that the codec, or its mask, asks for.
    """
    mask, at = None, 0
    if codec.masked:
        at = -(-sum(codec.sizes) // 8)
        if len(body) < at:
            raise ValueError(f"a message of {len(body)} bytes is shorter than its mask of {at}")
        mask = np.unpackbits(np.frombuffer(body, np.uint8, at), count=sum(codec.sizes)).astype(bool)
    leaves, start = [], 0
    for shape, kind, size in zip(codec.shapes, codec.dtypes, codec.sizes, strict=True):
        chosen = np.ones(size, bool) if mask is None else mask[start : start + size]
        count = int(np.count_nonzero(chosen))
        if at + count * kind.itemsize > len(body):
            raise ValueError(f"a message of {len(body)} bytes ends before its {size} entries")
        leaf = np.zeros(size, kind)
        leaf[chosen] = np.frombuffer(body, kind, count, at)
        leaves.append(leaf.reshape(shape))
        at, start = at + count * kind.itemsize, start + size
    if at != len(body):
        raise ValueError(f"a message of {len(body)} bytes goes on after its {at} bytes")
    return leaves, mask
