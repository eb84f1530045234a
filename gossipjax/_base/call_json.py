"""Serialisation of call records: JSON, and the arrays that the record keeps."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from gossipjax._base.calls import Array, Attribute, Call, Closure, Function, Many, Object, Opaque

_KINDS = {cls.__name__: cls for cls in (Array, Attribute, Call, Closure, Function, Many, Object, Opaque)}
_DAMAGED = "the record of the call is damaged ({}): run it again from its program"


def pack(record: Any) -> UInt8[np.ndarray, " bytes"]:
    """Serialise a record as the bytes of an .npz file: JSON, and the arrays that the record keeps."""
    text, arrays = to_json(record)
    parts: dict[str, Any] = {
        f"array_{number}": np.frombuffer(array.tobytes(), np.uint8) for number, array in enumerate(arrays)
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, record=np.frombuffer(text.encode(), np.uint8), **parts)
    return np.frombuffer(stream.getvalue(), np.uint8)


def unpack(packed: UInt8[np.ndarray, " bytes"]) -> Any:
    """Read a record that :func:`pack` wrote.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        with np.load(io.BytesIO(packed.tobytes()), allow_pickle=False) as parts:
            arrays = [parts[f"array_{number}"] for number in range(len(parts.files) - 1)]
            return from_json(parts["record"].tobytes().decode(), arrays)
    except (KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(_DAMAGED.format(error)) from error


def to_json(record: Any) -> tuple[str, list[np.ndarray]]:
    """Serialise a record as JSON, and return the arrays that it keeps as a list."""
    arrays: list[np.ndarray] = []

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        if not dataclasses.is_dataclass(value):
            return value
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, Array) and value.values is not None:
            arrays.append(value.values)
            fields["values"] = len(arrays) - 1
        return {type(value).__name__: {name: plain(each) for name, each in fields.items()}}

    return json.dumps(plain(record)), arrays


def from_json(source: str, arrays: Sequence[np.ndarray]) -> Any:
    """Read a record that :func:`to_json` wrote.

    Raises:
        ValueError: if source is not such JSON.
    """

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(read, value))
        if not isinstance(value, dict):
            return value
        ((kind, fields),) = value.items()
        made = _KINDS[kind](**{name: read(each) for name, each in fields.items()})
        if isinstance(made, Array) and made.values is not None:
            values = np.frombuffer(arrays[made.values].tobytes(), jnp.dtype(made.dtype)).reshape(made.shape)
            return dataclasses.replace(made, values=values)
        return made

    try:
        return read(json.loads(source))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(_DAMAGED.format(error)) from error
