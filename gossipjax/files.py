"""Plans in one file: arrays as NumPy keeps them, what holds them as JSON, functions and classes by name; no pickle."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gossipjax._base.arguments import instance
from gossipjax.trajectory import replacing

FORMAT = "gossipjax-1"
PACKAGE = "gossipjax."


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
    with replacing(target) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, format=np.asarray(FORMAT), structure=np.asarray(structure), **named)
    return target


def load(path: str | os.PathLike[str], kind: type | tuple[type, ...]) -> Any:
    """Read what :func:`save` wrote. Nothing but classes and functions of this package is looked up.

    Args:
        path: of the file.
        kind: what it must hold, such as ``Timeline``, or several of these.

    Raises:
        ValueError: no such file, a damaged one, not one of ours, one of another version of this package, or of another
            kind.
    """
    source = pathlib.Path(instance("path", path, (str, os.PathLike), "pass the name of the file"))
    found = read_npz(source)
    if str(found.get("format")) != FORMAT:
        raise ValueError(f"{source} holds no plan of ours (format {FORMAT!r} expected); plan the run again")
    try:
        value = _read(json.loads(str(found["structure"])), found)
    except (KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise ValueError(f"{source} was saved by another version of gossipjax ({error}); plan the run again") from error
    if not isinstance(value, kind):
        wanted = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{source} holds a {type(value).__name__}, not a {wanted}; load it as that")
    return value


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file, without unpickling anything.

    Raises:
        ValueError: no such file, not a whole .npz file, or one with pickled objects.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}: correct the path, or write the file first")
    try:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no .npz file of plain arrays ({error}): copy or write it again") from error


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
        if _found(name) is thing:
            return name
    raise ValueError(
        f"{name} cannot be kept in a file: only functions and classes that modules of gossipjax define by name can; "
        "keep what the plan was made from, and make it again"
    )


def _found(name: str) -> Any:
    """Look up what a module of ours itself defines."""
    module, _, inside = name.partition(":")
    if not module.startswith(PACKAGE):
        raise KeyError(f"{name} is not of gossipjax")
    thing = getattr(importlib.import_module(module), inside)
    if (getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)) != (module, inside):
        raise KeyError(f"{name} is defined elsewhere")
    return thing


def _class(name: str) -> type:
    """Look up a class that holds values: calling it does nothing but check and keep them."""
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
        case {"tuple": parts}:
            return tuple(_read(each, arrays) for each in parts)
        case {"class": name, "fields": fields}:
            return _class(name)(**{field: _read(each, arrays) for field, each in fields.items()})
        case {"function": name}:
            return _found(name)
        case list():
            return [_read(each, arrays) for each in kept]
    return kept
