"""Structural equality of functions, by code and captured values.

``optax.sgd(0.1)`` returns new functions at every call, which Python compares as unequal. Here they are equal, because
the same code captured equal values, so that one compiled program serves both.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from gossipjax._base.hashing import array_hash

_NUMBERS = (bool, int, float, complex)


class Same:
    """An object compared by identity. The reference keeps it alive, so that its ``id`` is not reused."""

    def __init__(self, value: Any):
        """Wrap any object."""
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Return whether both wrap the same object."""
        return isinstance(other, Same) and other.value is self.value

    def __hash__(self) -> int:
        """Hash the identity."""
        return id(self.value)


def closure_key(value: Any) -> Hashable:
    """Return a hashable key; two values with equal keys compute the same.

    Numbers, strings and arrays are compared by type and value; tuples, partial functions and frozen dataclasses by
    their parts; functions inside other functions by their code, defaults, captured values, and the globals that the
    code names. Functions and classes that can be imported by name, lists, dicts and unknown types are compared by
    identity, or by their own ``__eq__``. Lists and dicts captured by optax's functions, or inside a frozen dataclass
    that is hashed by its contents, are compared by their parts, since nobody mutates them.

    >>> import optax
    >>> slow, again, fast = (closure_key(optax.sgd(rate)) for rate in (0.1, 0.1, 0.2))
    >>> slow == again, slow == fast
    (True, False)

    Args:
        value: any value, such as a function, an optax transformation or a setting.
    """
    return _key(value, _Walk((), False))


class _Walk(NamedTuple):
    """Position of the recursion inside a value."""

    above: tuple[int, ...]
    """Identities of the enclosing values."""
    unchanging: bool
    """Whether lists and dicts at this position are never mutated."""


def _key(value: Any, walk: _Walk) -> Hashable:
    if isinstance(value, _NUMBERS):
        return type(value), repr(value)  # nan equals nan, and 0.0 is not −0.0
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _array_key(value)
    if id(value) in walk.above:  # a function that captures itself
        return "cycle", len(walk.above) - walk.above.index(id(value))
    walk = walk._replace(above=(*walk.above, id(value)))
    match value:
        case types.FunctionType():
            return Same(value) if _is_importable(value) else _function_key(value, walk)
        case types.MethodType():
            return "method", _keys((value.__func__, value.__self__), walk)
        case functools.partial():  # jax's Partial is one too
            return type(value), _keys((value.func, *value.args), walk), _named_keys(value.keywords, walk)
        case tuple():
            return type(value), _keys(value, walk)
    return _object_key(value, walk)


def _object_key(value: Any, walk: _Walk) -> Hashable:
    if walk.unchanging and isinstance(value, list):
        return list, _keys(value, walk)
    if walk.unchanging and isinstance(value, dict):
        return dict, _named_keys({repr(name): each for name, each in value.items()}, walk)
    if (parts := _fields(value)) and type(value).__dataclass_params__.frozen:
        # What is hashed by its contents does not change, nor do lists inside it, such as those of a graph of flax.
        return type(value), _named_keys(parts, walk._replace(unchanging=walk.unchanging or _is_hashable(value)))
    plain = type(value).__hash__ in (None, object.__hash__)
    return Same(value) if plain else (type(value), value)


def _is_hashable(value: Any) -> bool:
    """Return whether a value is hashed by its contents, which then do not change."""
    if type(value).__hash__ is object.__hash__:
        return False
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass; an empty dict for other values."""
    if isinstance(value, type) or not dataclasses.is_dataclass(value):
        return {}
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _keys(values: Iterable[Any], walk: _Walk) -> Hashable:
    return tuple(_key(each, walk) for each in values)


def _named_keys(values: dict[str, Any], walk: _Walk) -> Hashable:
    return tuple((name, _key(values[name], walk)) for name in sorted(values))


def _array_key(array: Any) -> Hashable:
    if isinstance(array, jax.core.Tracer) or array.dtype == object:
        return Same(array)
    if isinstance(array, jax.Array) and jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return "key", str(array.dtype), _array_key(np.asarray(jax.random.key_data(array)))
    weak = bool(getattr(array, "weak_type", False))
    return type(array), str(array.dtype), weak, array_hash(array)


def _function_key(function: types.FunctionType, walk: _Walk) -> Hashable:
    code, known = function.__code__, function.__globals__
    walk = walk._replace(unchanging=(function.__module__ or "").split(".")[0] == "optax")
    attributes = {name: value for name, value in vars(function).items() if name != "__wrapped__"}
    return (
        code,
        Same(known),
        _keys(function.__defaults__ or (), walk),
        _named_keys(function.__kwdefaults__ or {}, walk),
        _named_keys(_captured(function), walk),
        _named_keys({name: known[name] for name in _names(code) if name in known}, walk),
        _named_keys(attributes, walk),
    )


def _names(code: types.CodeType) -> set[str]:
    """Return the names that code, and the functions inside it, may look up in the globals."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def _captured(function: types.FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            found[name] = _EMPTY
    return found


_EMPTY = object()
"""Placeholder for a captured variable that is not assigned yet."""


def _is_importable(function: Any) -> bool:
    """Return whether the function can be imported by name; then no other function has the same code."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for name in getattr(function, "__qualname__", "<locals>").split("."):
        found = getattr(found, name, None)
    return found is function
