"""Hashes (sha256): of arrays by dtype, shape and values, the same on every machine, and of files."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def contents(array: Any) -> Any:
    """Return the values of an array as little-endian bytes in C order."""
    plain = _little_endian(array)
    return plain.view(np.uint8).data if plain.nbytes else b""


def add_array(digest: Any, array: Any) -> None:
    """Feed the dtype, the shape and the values of an array or number to a running hash of :mod:`hashlib`.

    All hashes of arrays in this package are made here.
    """
    dtype = _little_endian(array).dtype
    # NumPy writes all types that it does not define itself, such as bfloat16, as raw bytes of their size.
    name = dtype.name if dtype.kind == "V" else dtype.str
    digest.update(f"{name}{np.shape(array)}".encode())
    digest.update(contents(array))


def array_hash(array: Any) -> str:
    """Return the hash of one array, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    add_array(digest, array)
    return digest.hexdigest()


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return the hash of the content of a file, 64 hexadecimal digits."""
    with pathlib.Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def named_arrays_hash(arrays: Mapping[str, Any]) -> str:
    """Return the hash of named arrays or numbers, in their order; entries that are None are skipped."""
    digest = hashlib.sha256()
    for name, value in arrays.items():
        if value is not None:
            digest.update(f"{name} ".encode())
            add_array(digest, value)
    return digest.hexdigest()


def _little_endian(array: Any) -> np.ndarray:
    plain = np.asarray(array)
    return np.ascontiguousarray(plain.astype(plain.dtype.newbyteorder("<"), copy=False))
