"""Checksums of arrays, with which a report identifies its training data exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def sha256_of(arrays: Mapping[str, Any]) -> str:
    """Return the sha256 of named arrays: names, types, shapes and little-endian contents, in this order.

    Args:
        arrays: arrays or numbers by name; entries that are None are skipped.

    Returns:
        64 hexadecimal digits, the same on every machine.
    """
    digest = hashlib.sha256()
    for name, value in arrays.items():
        if value is None:
            continue
        array = np.asarray(value)
        array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        digest.update(f"{name} {array.dtype.str} {np.shape(value)}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
