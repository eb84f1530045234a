"""Plans in one .npz file: NumPy arrays, their containers as JSON, functions and classes by name; no pickle.

A file holds the values themselves, and reading it calls no function: whatever cannot be rebuilt from its parts is
refused when it is saved. :mod:`gossipjax._base.calls` records how a value was built instead: never refuses, and keeps
large arrays as hashes only. So plans are saved here, and the call of a run is saved there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import json
import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gossipjax._base.arguments import instance, whole
from gossipjax._base.calls import field_names
from gossipjax._base.hashing import add_array
from gossipjax._base.paths import replacing

FORMAT = "gossipjax-1"
PACKAGE = "gossipjax."
FUNCTIONS = frozenset(
    f"{PACKAGE}{name}"
    for name in (
        "systems._rounds.allreduce:_average",
        "systems._rounds.plans:_event",
        "timeline._changing_rounds:_metropolis_round",
        "timeline._changing_rounds:_push_round",
        "timeline._changing_rounds:_uniform_round",
        "timeline._drawn:_exchange",
        "timeline._drawn:_meetings",
        "timeline._drawn:_update_or_push",
        "timeline._drawn:mean_times",
        "timeline._drawn_matchings:_matching",
        "timeline._moments:written_times",
        "timeline._from_events:planned_event",
        "timeline._poisson:_edge_fires",
        "timeline._poisson:_node_pushes",
        "timeline._poisson:_node_wakes",
        "timeline._push_rounds:_event",
        "timeline._rounds:_cyclic_round",
        "timeline._rounds:_fixed_round",
        "timeline._rounds:_matching_round",
        "timeline._rounds:_sampled_round",
        "timeline._rounds:round_ends",
        "timeline._teleportation:_round",
    )
)
"""The only functions that a file may name, since a run calls them."""
MOST_BYTES = 1 << 30
"""Decompressed size that is always accepted; larger files must meet :data:`MOST_SHRUNK` or the caller's limit."""
MOST_SHRUNK = 64
"""Largest accepted compression ratio of larger files: a plan's times are random numbers, which hardly compress."""


def save(value: Any, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write a timeline, or a plan that has one, to one .npz file.

    A temporary file comes first, so that a failure keeps an earlier file intact.

    Args:
        value: a dataclass or NamedTuple of this package. Its fields may also hold arrays, numbers, strings, lists,
            tuples, dicts with string keys, and functions of this package's modules.
        path: path that ends in .npz, in an existing folder.

    Returns:
        The path.

    Raises:
        ValueError: if the path does not end in .npz, the folder does not exist, or a part cannot be saved, such as a
            function from outside this package.
        OSError: if the file cannot be written; no partial file remains.
    """
    target = pathlib.Path(instance("path", path, (str, os.PathLike), "pass the name of the file"))
    if target.suffix != ".npz":
        raise ValueError(f"path={target.name}: a plan is written to an .npz file; change the suffix")
    arrays: list[np.ndarray] = []
    structure = json.dumps(_written(value, arrays))
    named: dict[str, Any] = {f"array_{number}": array for number, array in enumerate(arrays)}
    named["checksum"] = np.asarray(_checksum(structure, arrays))
    with replacing(target) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, format=np.asarray(FORMAT), structure=np.asarray(structure), **named)
    return target


def load(path: str | os.PathLike[str], kind: type | tuple[type, ...], *, max_bytes: int | None = None) -> Any:
    """Read a file that :func:`save` wrote. The caller checks that the parts of the value fit each other.

    Only value classes of this package and the functions in :data:`FUNCTIONS` are looked up by name.

    Args:
        path: path of the file.
        kind: expected class of the value, such as ``Timeline``, or a tuple of classes.
        max_bytes: largest decompressed size; None: the limits of :func:`read_npz`.

    Raises:
        ValueError: if the file does not exist, is damaged or changed, has another format, comes from another version of
            this package, holds another class, or exceeds the size limit.
    """
    source = pathlib.Path(instance("path", path, (str, os.PathLike), "pass the name of the file"))
    found = read_npz(source, max_bytes)
    if str(found.get("format")) != FORMAT:
        raise ValueError(f"{source} holds no plan of ours (format {FORMAT!r} expected); plan the run again")
    try:
        value = _read(json.loads(str(found["structure"])), found)
    except (KeyError, TypeError, ValueError, AttributeError, ImportError, RecursionError) as error:
        raise ValueError(f"{source} was saved by another version of gossipjax ({error}); plan the run again") from error
    if not isinstance(value, kind):
        wanted = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{source} holds a {type(value).__name__}, not a {wanted}; load it as that")
    arrays = [found[name] for name in sorted(found.keys() - _NOT_ARRAYS, key=lambda name: int(name.split("_")[1]))]
    if "checksum" in found and str(found["checksum"]) != _checksum(str(found["structure"]), arrays):
        raise ValueError(f"{source} was changed after it was saved, or by another version of gossipjax; plan it again")
    return value


_NOT_ARRAYS = {"format", "structure", "checksum"}


def _checksum(structure: str, arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256(structure.encode())
    for array in arrays:
        add_array(digest, array)
    return digest.hexdigest()


def read_npz(path: pathlib.Path, max_bytes: int | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file without pickle, after a check of their sizes.

    Args:
        path: path of the file.
        max_bytes: largest decompressed size; None: the larger of :data:`MOST_BYTES` and :data:`MOST_SHRUNK` times the
            size of the file.

    Raises:
        ValueError: if the file does not exist, is not a complete .npz file, has pickled objects, or is too large.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}: correct the path, or write the file first")
    try:
        _check_inflated(path, max_bytes)
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no .npz file of plain arrays ({error}): copy or write it again") from error


def _check_inflated(path: pathlib.Path, max_bytes: int | None) -> None:
    """Reject an archive that would fill the memory. The sizes in its directory bound what is read of its entries."""
    if not zipfile.is_zipfile(path):
        return  # np.load reports what it is
    size = path.stat().st_size
    most = max(MOST_BYTES, MOST_SHRUNK * size) if max_bytes is None else whole("max_bytes", max_bytes, least=0)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        inflated = sum(entry.file_size for entry in entries)
        if inflated > most:
            raise ValueError(
                f"its {size:,} bytes inflate to {inflated:,}, more than {most:,}; pass max_bytes if it is yours"
            )
        for entry in entries:
            with archive.open(entry) as stream:
                _check_header(entry, stream)


def _check_header(entry: zipfile.ZipInfo, stream: Any) -> None:
    """Reject an array whose header claims more numbers than its entry holds."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(stream)
    if not kind.hasobject and math.prod(shape) * kind.itemsize > entry.file_size:
        raise ValueError(f"{entry.filename} claims the shape {shape} and has {entry.file_size:,} bytes")


def _written(value: Any, arrays: list[np.ndarray]) -> Any:
    """Convert a value to JSON, and append its arrays to the list."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            return value.item()
        case np.ndarray() | jax.Array():
            arrays.append(_plain(value))
            return {"array": len(arrays) - 1, "device": isinstance(value, jax.Array)}
        case list():
            return [_written(each, arrays) for each in value]
        case dict() if all(isinstance(name, str) for name in value):
            return {"dict": [[name, _written(each, arrays)] for name, each in value.items()]}
        case frozenset() if all(isinstance(each, str) for each in value):
            return {"names": sorted(value)}
        case tuple() if type(value) is tuple:
            return {"tuple": [_written(each, arrays) for each in value]}
    if not isinstance(value, type) and (fields := field_names(value)) is not None:
        kept = {name: _written(getattr(value, name), arrays) for name in fields}
        return {"class": _name(type(value)), "fields": kept}
    if callable(value):
        return {"function": _name(value)}
    raise ValueError(f"{value!r}, a {type(value).__name__}, cannot be kept in a file: keep what it was made from")


def _plain(value: Any) -> np.ndarray:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise ValueError("a random key inside a plan cannot be kept: keep the number that it was made from")
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise ValueError(f"an array of {array.dtype} cannot be kept: turn it into numbers")
    return array


def _name(thing: Callable[..., Any]) -> str:
    """Return the name by which a class or function of this package can be looked up."""
    name = f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', repr(thing))}"
    with contextlib.suppress(KeyError, ImportError, AttributeError):
        if _found(name) is thing:
            return name
    raise ValueError(
        f"{name} cannot be kept in a file: only functions and classes that modules of gossipjax define by name can; "
        "keep what the plan was made from, and make it again"
    )


def _found(name: str) -> Any:
    """Look up a class or function that a module of this package defines."""
    module, _, inside = name.partition(":")
    if not module.startswith(PACKAGE):
        raise KeyError(f"{name} is not of gossipjax")
    thing = getattr(importlib.import_module(module), inside)
    if not isinstance(thing, type) and name not in FUNCTIONS:
        raise KeyError(f"{name} is no function of a timeline")
    if (getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)) != (module, inside):
        raise KeyError(f"{name} is defined elsewhere")
    return thing


def _class(name: str) -> type:
    """Look up a value class, whose constructor only checks and stores its fields."""
    kind = _found(name)
    if not (isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"))):
        raise KeyError(f"{name} is no dataclass or NamedTuple")
    return kind


def _read(kept: Any, arrays: dict[str, np.ndarray]) -> Any:
    match kept:
        case {"array": number, "device": device}:
            array = arrays[f"array_{number}"]
            return jax.numpy.asarray(array) if device else array
        case {"dict": pairs}:
            return {name: _read(each, arrays) for name, each in pairs}
        case {"names": names}:
            return frozenset(names)
        case {"tuple": parts}:
            return tuple(_read(each, arrays) for each in parts)
        case {"class": name, "fields": fields}:
            return _class(name)(**{field: _read(each, arrays) for field, each in fields.items()})
        case {"function": str(name)}:
            function = _found(name)
            if isinstance(function, type):
                raise KeyError(f"{name} is a class, no function")
            return function
        case list():
            return [_read(each, arrays) for each in kept]
    return kept
