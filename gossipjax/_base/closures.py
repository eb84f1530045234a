"""Equality and description of functions by what they are made of: code and captured values.

``optax.sgd(0.1)`` returns new functions at every call, and Python calls two of them unequal. Here they are equal, since
the same code captured equal values, so that one compiled program serves both.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

_NUMBERS = (bool, int, float, complex)
_FEW = 8
"""Entries up to which arrays are written out."""


class Same:
    """An object that equals itself only. It is kept alive, so that no other object can take its place in memory."""

    def __init__(self, value: Any):
        """Wrap any object."""
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Whether both wrap one and the same object."""
        return isinstance(other, Same) and other.value is self.value

    def __hash__(self) -> int:
        """Hash the identity."""
        return id(self.value)


def closure_key(value: Any) -> Hashable:
    """Return a hashable key: equal keys mean that two values compute the same.

    Numbers, strings and arrays go by type and value; tuples, partial functions and frozen dataclasses by their parts;
    functions made inside other functions by their code, defaults, captured values, and the globals that the code names.
    Functions and classes that can be imported by name, lists, dicts and everything unknown go by identity, or by an
    equality of their own; but lists and dicts that optax's functions captured go by their parts: optax changes none.

    >>> import optax
    >>> slow, again, fast = (closure_key(optax.sgd(rate)) for rate in (0.1, 0.1, 0.2))
    >>> slow == again, slow == fast
    (True, False)

    Args:
        value: a function, an optax transformation, a setting.
    """
    return _key(value, _Walk((), False))


class _Walk(NamedTuple):
    """Where in a value the walk is."""

    above: tuple[int, ...]
    """Identities of what encloses it."""
    unchanging: bool
    """Whether lists and dicts here are never changed."""


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
        return type(value), _named_keys(parts, walk)
    plain = type(value).__hash__ in (None, object.__hash__)
    return Same(value) if plain else (type(value), value)


def _fields(value: Any) -> dict[str, Any]:
    """Return the parts of a dataclass; of anything else, none."""
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
    contents = np.ascontiguousarray(array).tobytes()
    return type(array), str(array.dtype), weak, array.shape, hashlib.sha256(contents).digest()


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
    """Names that some code, and the functions inside it, may look up among the globals."""
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
"""Stands for the content of a variable that has none yet."""


def _is_importable(function: Any) -> bool:
    """Whether a name leads to this very function: then no other was made by the same code."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for name in getattr(function, "__qualname__", "<locals>").split("."):
        found = getattr(found, name, None)
    return found is function


def describe_closure(value: Any) -> Any:
    """Describe a function or an optimizer by what it captured: nested dicts, lists, numbers and strings, fit for JSON.

    A function becomes ``{qualified name: {captured name: value}}``, or its name alone where it captured nothing; a
    partial function ``{name: {argument: value}}``; an array its numbers, or type, shape and checksum where it is large.

    >>> import jax, optax
    >>> describe_closure(jax.tree_util.Partial(optax.sgd, 0.1))
    {'sgd': {'learning_rate': 0.1}}
    >>> str(describe_closure(optax.sgd(0.1))).count("'step_size': -0.1")
    1

    Args:
        value: a function, an optax transformation, a setting.
    """
    return _describe(value, ())


def _describe(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _describe_array(value)
    if id(value) in above:
        return f"({_name(value)} again)"
    above = (*above, id(value))
    match value:
        case functools.partial():
            return _describe_partial(value, above)
        case types.FunctionType():
            return _with_parts(value.__qualname__, {} if _is_importable(value) else _settings(value), above)
        case tuple() if hasattr(value, "_asdict"):
            return _describe_named(value, above)
        case tuple() | list() | set() | frozenset():
            return [_describe(each, above) for each in value]
        case dict():
            return {str(name): _describe(each, above) for name, each in value.items()}
    parts = _fields(value)
    # A wrapper of one value says nothing of its own.
    return _describe(parts["value"], above) if list(parts) == ["value"] else _with_parts(_name(value), parts, above)


def _settings(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function captured, and its defaults where they are set."""
    captured = {name: value for name, value in _captured(function).items() if value is not _EMPTY}
    given = inspect.signature(function, follow_wrapped=False).parameters.values()
    defaults = {
        each.name: each.default for each in given if each.default is not each.empty and each.default is not None
    }
    return captured | defaults


def _with_parts(name: str, parts: dict[str, Any], above: tuple[int, ...]) -> Any:
    return {name: {part: _describe(each, above) for part, each in parts.items()}} if parts else name


def _describe_named(value: Any, above: tuple[int, ...]) -> Any:
    """Describe a NamedTuple; of one that holds functions only, such as an optax transformation, those that say more."""
    parts = value._asdict()
    if not all(isinstance(each, types.FunctionType) for each in parts.values()):
        return _with_parts(type(value).__name__, parts, above)
    described = [_describe(each, above) for each in parts.values()]
    telling = [each for each in described if isinstance(each, dict) and _has_numbers(each)]
    if not telling:
        return described[-1]
    return functools.reduce(lambda a, b: {**a, **b}, telling)


def _has_numbers(described: Any) -> bool:
    """Whether anything but names of functions is said."""
    if isinstance(described, dict):
        return any(map(_has_numbers, described.values()))
    if isinstance(described, list):
        return any(map(_has_numbers, described))
    return isinstance(described, bool | int | float)


def _describe_partial(value: functools.partial, above: tuple[int, ...]) -> Any:
    """Name the arguments where the function's signature tells their names."""
    from gossipjax.static import called, called_with, constant  # here, because that module is built on this one

    if value.func is constant:
        return _describe(value.args[0], above)
    if value.func in (called, called_with):
        value = functools.partial(value.args[0].value, *value.args[1:], **value.keywords)
    if not (value.args or value.keywords):
        return _describe(value.func, above)
    try:
        given = dict(inspect.signature(value.func).bind_partial(*value.args, **value.keywords).arguments)
    except (TypeError, ValueError):
        given = {f"argument {number}": each for number, each in enumerate(value.args)} | value.keywords
    return _with_parts(_name(value.func), given, above)


def _describe_array(array: Any) -> Any:
    if isinstance(array, jax.Array) and jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return {str(array.dtype): _describe_array(jax.random.key_data(array))}
    if isinstance(array, jax.core.Tracer) or array.dtype.kind not in "biuf":
        return f"array {array.dtype}{list(array.shape)}"
    if array.size <= _FEW:
        return np.asarray(array).tolist()
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"array {array.dtype}{list(array.shape)} sha256:{digest[:16]}"


def _name(value: Any) -> str:
    return getattr(value, "__qualname__", None) or type(value).__name__
