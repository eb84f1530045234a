"""Functions and classes: the names under which files store them, and hashes of their code."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

VERSIONED = ("gossipjax", "optax")
"""Packages whose functions a record stores by name; every manifest has their versions."""


def look_up(name: str) -> Any:
    """Return the function or class that a module defines under ``module:qualname``.

    Raises:
        ValueError: if there is none, or the module only imports it.
    """
    module, _, inside = name.partition(":")
    try:
        thing = functools.reduce(getattr, inside.split("."), importlib.import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} is not to be found ({error})") from error
    if name not in (full_name(thing), _defined_as(thing)):
        raise ValueError(f"{name} is not defined there, but is {full_name(thing)}")
    return thing


def full_name(thing: Any) -> str:
    """Return the ``module:qualname`` of a function or class; if a public package exports it, the module is the package.

    Files store these names, so that they stay readable if a private module moves.
    """
    module, _, inside = _defined_as(thing).partition(":")
    package = module.partition("._")[0]
    if package != module and package in sys.modules:
        with contextlib.suppress(AttributeError):
            if functools.reduce(getattr, inside.split("."), sys.modules[package]) is thing:
                return f"{package}:{inside}"
    return f"{module}:{inside}"


def _defined_as(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def is_versioned(thing: Any) -> bool:
    """Return whether a package in :data:`VERSIONED` defines a function or class by name."""
    return full_name(thing).partition(":")[0].partition(".")[0] in VERSIONED and by_name(thing)


def by_name(thing: Any) -> bool:
    """Return whether a function or class can be looked up by its name."""
    with contextlib.suppress(ValueError):
        return look_up(full_name(thing)) is thing
    return False


def code_hash(function: types.FunctionType) -> str:
    """Hash a function's bytecode and constants, and those of the functions inside it."""
    digest = hashlib.sha256()
    for code in codes_in(function.__code__):
        constants = [constant for constant in code.co_consts if not isinstance(constant, types.CodeType)]
        digest.update(code.co_code + repr((list(map(_ordered, constants)), code.co_names)).encode())
    return digest.hexdigest()


def _ordered(constant: Any) -> Any:
    """Sort the entries of sets, whose order differs between processes."""
    if isinstance(constant, frozenset):
        return "frozenset", sorted(repr(_ordered(each)) for each in constant)
    return tuple(map(_ordered, constant)) if isinstance(constant, tuple) else constant


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    """Iterate over a function's code and that of all functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_in(constant)
