"""An encoder and a decoder of lists of indices, bit by bit: what the counted sizes are held against."""

import struct
from itertools import pairwise

import numpy as np

HEADER = struct.Struct(">QQ")
# No vector has a coordinate of this number: it stands for the list without indices.
EMPTY = 2**64 - 1


def gamma(number):
    """Elias' gamma code of a positive integer: its binary digits, behind one zero less than there are of them."""
    digits = f"{number:b}"
    return "0" * (len(digits) - 1) + digits


def encode(indices):
    """First index and length of the code, 64 bits each; the code of the gaps, filled up to whole bytes."""
    indices = [int(index) for index in indices]
    code = "".join(gamma(after - before) for before, after in pairwise(indices))
    body = np.packbits(np.frombuffer(code.encode(), np.uint8) - ord("0")).tobytes()
    return HEADER.pack(indices[0] if indices else EMPTY, len(code)) + body


def decode(message):
    """The indices of a message."""
    first, length = HEADER.unpack_from(message)
    if first == EMPTY:
        return []
    bits = iter(np.unpackbits(np.frombuffer(message[HEADER.size :], np.uint8))[:length].tolist())
    indices = [first]
    for bit in bits:
        zeros = 0
        while not bit:
            zeros, bit = zeros + 1, next(bits)
        gap = 1
        for _ in range(zeros):
            gap = 2 * gap + next(bits)
        indices.append(indices[-1] + gap)
    return indices
