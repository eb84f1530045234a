"""Plans in one file: arrays as NumPy keeps them, what holds them as JSON, functions and classes by name; no pickle."""

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

from gossipjax._base.arguments import instance, shown, whole
from gossipjax.trajectory import replacing

FORMAT = "gossipjax-2"
LARGEST = 2**30
"""Bytes to which a file may inflate unless told otherwise: some kilobytes can hold a gigabyte of zeros."""
CLASSES = frozenset(
    {
        "gossipjax.forms:DenseMixing",
        "gossipjax.forms:GroupMixing",
        "gossipjax.forms:PairMixing",
        "gossipjax.forms:TableMixing",
        "gossipjax.systems.activity:Activity",
        "gossipjax.systems.activity:SystemPlan",
        "gossipjax.systems.plan:PlexusPlan",
        "gossipjax.types:Packing",
        "gossipjax.types:Properties",
        "gossipjax.types:Timeline",
        "gossipjax.types:Traffic",
    }
)
"""What a file may hold: classes that hold values, of which making one does nothing but check and keep them."""
FUNCTIONS = frozenset(
    {
        "gossipjax.systems.allreduce:_average",
        "gossipjax.systems.round_plans:_event",
        "gossipjax.timeline.drawn:_exchange",
        "gossipjax.timeline.drawn:_meetings",
        "gossipjax.timeline.drawn:_update_or_push",
        "gossipjax.timeline.drawn:mean_times",
        "gossipjax.timeline.moments:written_times",
        "gossipjax.timeline.planned:planned_event",
        "gossipjax.timeline.poisson:_edge_fires",
        "gossipjax.timeline.poisson:_node_pushes",
        "gossipjax.timeline.poisson:_node_wakes",
        "gossipjax.timeline.push_rounds:_event",
        "gossipjax.timeline.rounds:_cyclic_round",
        "gossipjax.timeline.rounds:_fixed_round",
        "gossipjax.timeline.rounds:_matching_round",
        "gossipjax.timeline.rounds:_sampled_round",
        "gossipjax.timeline.rounds:round_ends",
    }
)
"""What a file may have called when its plan is run: the functions of all builders of timelines."""


def save(value: Any, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write a timeline, or a plan that has one, into one .npz file.

    It is written under a temporary name first, so that a failure leaves an earlier file whole.

    Args:
        value: a dataclass or NamedTuple of this package; inside it also arrays, numbers, text, lists, tuples, dicts
            with text as keys, and functions of this package's modules.
        path: ends in .npz; its folder exists.

    Returns:
        The path.

    Raises:
        ValueError: the name does not end in .npz, the folder does not exist, or something inside cannot be kept, such
            as a function that is not of this package: keep what it is made from, and build it again.
        OSError: the file cannot be written; nothing is left behind.
    """
    target = pathlib.Path(instance("path", path, (str, os.PathLike), "pass the name of the file"))
    if target.suffix != ".npz":
        raise ValueError(f"a plan is written to an .npz file, not to {target.name}; change the suffix")
    arrays: list[np.ndarray] = []
    structure = json.dumps(_written(value, arrays))
    named: dict[str, Any] = {f"array_{number}": array for number, array in enumerate(arrays)}
    seal = np.asarray(_digest(structure, arrays))
    with replacing(target) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, format=np.asarray(FORMAT), structure=np.asarray(structure), digest=seal, **named)
    return target


def _digest(structure: str, arrays: list[np.ndarray]) -> str:
    """Sum up all that a file holds, so that what was changed afterwards is noticed."""
    found = hashlib.sha256(structure.encode())
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return found.hexdigest()


def load(path: str | os.PathLike[str], kind: type | tuple[Any, ...], *, largest_bytes: int = LARGEST) -> Any:
    """Read what :func:`save` wrote. Only :data:`CLASSES` are made and :data:`FUNCTIONS` looked up.

    Args:
        path: of the file.
        kind: what it must hold, such as ``Timeline``, or several of these.
        largest_bytes: to which it may inflate.

    Raises:
        ValueError: no such file, a damaged one, one that inflates to more, not one of ours, one of another version of
            this package or changed since it was saved, or of another kind.
    """
    source = pathlib.Path(instance("path", path, (str, os.PathLike), "pass the name of the file"))
    found = read_npz(source, largest_bytes)
    if str(found.get("format")) != FORMAT:
        raise ValueError(f"{source} holds no plan of ours (format {FORMAT!r} expected); plan the run again")
    try:
        structure = str(found["structure"])
        value = _read(json.loads(structure), found)
        arrays = [found[f"array_{number}"] for number in range(sum(name.startswith("array_") for name in found))]
        if str(found.get("digest")) != _digest(structure, arrays):
            raise ValueError("its contents were changed since")
    except RecursionError as error:
        raise ValueError(f"{source} is nested too deeply to be a plan of gossipjax; plan the run again") from error
    except (KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise ValueError(f"{source} was saved by another version of gossipjax ({error}); plan the run again") from error
    if not isinstance(value, kind):
        wanted = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{source} holds a {type(value).__name__}, not a {wanted}; load it as that")
    return value


def read_npz(path: pathlib.Path, largest_bytes: int = LARGEST) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file, without unpickling anything.

    Args:
        path: of the file.
        largest_bytes: to which it may inflate.

    Raises:
        ValueError: no such file, not a whole .npz file, one with pickled objects, or one that inflates to more.
    """
    whole("largest_bytes", largest_bytes, least=1)
    if not path.is_file():
        raise ValueError(f"no file {path}: correct the path, or write the file first")
    _check_total(path, largest_bytes)
    try:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            assert archive.zip is not None  # until it is closed
            _check_headers(archive.zip)
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no .npz file of plain arrays ({error}): copy or write it again") from error


def _check_total(path: pathlib.Path, largest_bytes: int) -> None:
    """Refuse an archive that inflates too much, before it does."""
    total = 0
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:  # said when it is read
        total = sum(member.file_size for member in archive.infolist())
    if total > largest_bytes:
        raise ValueError(
            f"{path} of {path.stat().st_size:,} bytes inflates to {total:,}, more than "
            f"largest_bytes={largest_bytes:,}; pass a larger number if you trust it"
        )


def _check_headers(archive: zipfile.ZipFile) -> None:
    """Compare what arrays say that they take with what is there, before any is read."""
    for member in archive.infolist():
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = header[version](stream) if version in header else ((), None, np.dtype(object))
            if dtype.hasobject or math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"{member.filename} says {dtype} of shape {shape}, and has {member.file_size:,} bytes")


def _written(value: Any, arrays: list[np.ndarray]) -> Any:
    """Write a value as JSON, and put its arrays into the list."""
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
        case tuple() if type(value) is tuple:
            return {"tuple": [_written(each, arrays) for each in value]}
    if not isinstance(value, type) and (fields := _fields(value)) is not None:
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


def _fields(value: Any) -> list[str] | None:
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value) if field.init]
    return list(value._fields) if isinstance(value, tuple) and hasattr(value, "_fields") else None


def _name(thing: Callable[..., Any]) -> str:
    """Name a class or function of a module of ours, by which it is found again."""
    name = f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', repr(thing))}"
    with contextlib.suppress(KeyError, ImportError, AttributeError):
        if _found(name, CLASSES | FUNCTIONS) is thing:
            return name
    raise ValueError(
        f"{name} cannot be kept in a file: only what builders of gossipjax define by name can; keep what the plan was "
        "made from, and make it again"
    )


def _found(name: Any, known: frozenset[str]) -> Any:
    """Look up a name that is on a list."""
    if name not in known:
        raise KeyError(f"{shown(name)} is not what a file of gossipjax holds")
    module, _, inside = name.partition(":")
    return getattr(importlib.import_module(module), inside)


def _read(kept: Any, arrays: dict[str, np.ndarray]) -> Any:
    match kept:
        case {"array": number, "device": device}:
            array = arrays[f"array_{number}"]
            return jax.numpy.asarray(array) if device else array
        case {"dict": pairs}:
            return {name: _read(each, arrays) for name, each in pairs}
        case {"tuple": parts}:
            return tuple(_read(each, arrays) for each in parts)
        case {"class": name, "fields": fields}:
            return _found(name, CLASSES)(**{field: _read(each, arrays) for field, each in fields.items()})
        case {"function": name}:
            return _found(name, FUNCTIONS)
        case list():
            return [_read(each, arrays) for each in kept]
    return kept
