"""Validation of arguments: every error states the argument, the value, the rule and, if there is one, the remedy.

A number that breaks a rule raises ``ValueError``; an object of the wrong type raises ``TypeError``. Each function
returns the normalised value, so that builders write ``num_nodes = whole("num_nodes", num_nodes, least=1)``.
"""

from __future__ import annotations

import inspect
import numbers
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int

T = TypeVar("T")
Number: TypeAlias = int | float


def whole(name: str, value: Any, *, least: int | None = None, most: int | None = None, remedy: str = "") -> int:
    """Return a whole number as an ``int``. Accepts Python's and NumPy's integers, but no bool and no float, even 2.0.

    Args:
        name: name of the argument.
        value: its value.
        least: smallest legal value; None: no bound.
        most: largest legal value; None: no bound.
        remedy: what to pass instead, as the end of the message.

    Raises:
        ValueError: if the value is not an integer, or is out of bounds.
    """
    number = _index(value)
    if number is None or (least is not None and number < least) or (most is not None and number > most):
        raise ValueError(f"{name}={shown(value)}: must be a whole number{_range(least, most)}{_ending(remedy)}")
    return number


def optional_whole(name: str, value: Any, **bounds: Any) -> int | None:
    """Return None for None, and otherwise the result of :func:`whole`."""
    return None if value is None else whole(name, value, **bounds)


def seed(value: Any, name: str = "seed") -> int:
    """Return the seed of a NumPy generator: a whole number, not negative. None is illegal: runs would not repeat."""
    return whole(name, value, least=0, remedy="such as 0; the same seed gives the same result")


def real(
    name: str,
    value: Any,
    *,
    above: Number | None = None,
    least: Number | None = None,
    below: Number | None = None,
    most: Number | None = None,
    unit: str = "",
    infinite: bool = False,
    remedy: str = "",
) -> Any:
    """Return a real number as a ``float``; traced numbers pass unchecked, because their value is not known yet.

    Args:
        name: name of the argument.
        value: Python's, NumPy's or JAX's number, of shape ``()``.
        above: exclusive lower bound.
        least: inclusive lower bound.
        below: exclusive upper bound.
        most: inclusive upper bound.
        unit: unit of the number, such as ``"seconds"``, for the message.
        infinite: whether infinity is legal.
        remedy: what to pass instead, as the end of the message.

    Raises:
        ValueError: if the value is not a number, NaN, infinite (unless that is legal), or out of bounds.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    array = _numbers(value)
    rule = f"must be a {'' if infinite else 'finite '}number{_of(unit)}{_interval(above, least, below, most)}"
    if array is None or array.shape != () or not bool(_legal(array, above, least, below, most, infinite)):
        raise ValueError(f"{name}={shown(value)}: {rule}{_ending(remedy)}")
    return float(array)


def reals(
    name: str,
    value: Any,
    *,
    shape: tuple[Any, ...] | None = None,
    above: Number | None = None,
    least: Number | None = None,
    below: Number | None = None,
    most: Number | None = None,
    unit: str = "",
    infinite: bool = False,
    remedy: str = "",
) -> Float[np.ndarray, "..."]:
    """Return numbers as a float64 array, each within the bounds of :func:`real`.

    Args:
        name: name of the argument.
        value: array-like of real numbers.
        shape: required shape, where None is any length; None: any shape.
        above: exclusive lower bound.
        least: inclusive lower bound.
        below: exclusive upper bound.
        most: inclusive upper bound.
        unit: unit of the numbers, for the message.
        infinite: whether infinity is legal.
        remedy: what to pass instead, as the end of the message.

    Raises:
        ValueError: if the value does not hold numbers, has another shape, or an entry breaks a rule; the message gives
            the index of the first.
    """
    array = _numbers(value)
    rule = f"{'' if infinite else 'finite '}numbers{_of(unit)}{_interval(above, least, below, most)}"
    if array is None:
        raise ValueError(f"{name}={shown(value)}: must be {rule}{_ending(remedy)}")
    _check_shape(name, array.shape, shape, rule, remedy)
    # Many numbers are legal if the least and the largest are, which takes no arrays in between; NaN is both.
    ends = np.array([array.min(), array.max()]) if array.size else array
    if not np.all(_legal(ends, above, least, below, most, infinite)):
        legal = _legal(array, above, least, below, most, infinite)
        raise ValueError(f"{_entry(name, array, legal)}: must be {rule}{_ending(remedy)}")
    return array


def wholes(
    name: str,
    value: Any,
    *,
    shape: tuple[Any, ...] | None = None,
    least: int | None = None,
    most: int | None = None,
    remedy: str = "",
) -> Int[np.ndarray, "..."]:
    """Return whole numbers as an int64 array, each within bounds. Float arrays are rejected even if entries are whole.

    Raises:
        ValueError: if the value does not hold integers, has another shape, or an entry is out of bounds; the message
            gives the index of the first.
    """
    rule = f"whole numbers{_range(least, most)}"
    array = _array(value)
    if array is None or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise ValueError(f"{name}={shown(value)}: must be {rule}{_ending(remedy)}")
    _check_shape(name, array.shape, shape, rule, remedy)
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if array.size and not ((least is None or low >= least) and (most is None or high <= most)):
        legal = np.ones(array.shape, bool)
        legal &= True if least is None else array >= least
        legal &= True if most is None else array <= most
        raise ValueError(f"{_entry(name, array, legal)}: must be {rule}{_ending(remedy)}")
    return array.astype(np.int64)


def flag(name: str, value: Any) -> bool:
    """Return True or False; reject strings and numbers, which Python would convert to True."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={shown(value)}: must be True or False")
    return bool(value)


def choice(name: str, value: Any, options: Iterable[Any]) -> str:
    """Return one of a few strings.

    Raises:
        ValueError: if the value is not among the options.
    """
    options = tuple(options)
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}={shown(value)}: must be one of {', '.join(map(repr, options))}")
    return value


def instance(name: str, value: Any, kinds: type[T] | tuple[Any, ...], remedy: str) -> T:
    """Return an object that is an instance of a class.

    Args:
        name: name of the argument.
        value: its value.
        kinds: class, or tuple of classes of which one must match.
        remedy: how to make one, such as ``"build one with gossipjax.topology, such as ring(8)"``.

    Raises:
        TypeError: if the value is not an instance.
    """
    if not isinstance(value, kinds):
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name}={shown(value)}: must be {_a(wanted)}, not {_a(type(value).__name__)}{_ending(remedy)}")
    return value


def callable_(name: str, value: Any, signature: str) -> Callable[..., Any]:
    """Return a callable.

    Args:
        name: name of the argument.
        value: its value.
        signature: expected signature, for the message, such as ``"schedule(step) -> learning rate"``.

    Raises:
        TypeError: if the value is not callable.
    """
    if not callable(value):
        raise TypeError(f"{name}={shown(value)}: must be a function {signature}, not {_a(type(value).__name__)}")
    return value


def callable_of_one(name: str, value: Any, signature: str) -> Callable[[Any], Any]:
    """Return a function that can be called with one argument.

    Raises:
        TypeError: something that cannot be called, or not so.
    """
    function = callable_(name, value, signature)
    try:
        parameters = inspect.signature(function)
    except ValueError:  # some functions of C do not say
        return function
    try:
        parameters.bind(None)
    except TypeError as error:
        raise TypeError(f"{name}={shown(value)}: must be a function {signature} of one argument ({error})") from error
    return function


def sequence_of(name: str, value: Any, kind: type[T], remedy: str) -> tuple[T, ...]:
    """Return a tuple of objects of one class; reject a single object, which is not a list.

    Raises:
        TypeError: if the value is not a list or tuple, or an entry has another type; the message gives its index.
    """
    # Observers, protocols, … are NamedTuples, and therefore sequences.
    if isinstance(value, kind) or isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(
            f"{name}={shown(value)}: must be a list of {kind.__name__}, not {_a(type(value).__name__)}{_ending(remedy)}"
        )
    for number, each in enumerate(value):
        instance(f"{name}[{number}]", each, kind, remedy)
    return tuple(value)


def shown(value: Any, length: int = 60) -> str:
    """Return the repr of a value for an error message, cut to a readable length."""
    if isinstance(value, np.ndarray | jax.Array) and value.size > 8:
        return f"{type(value).__name__} of shape {value.shape}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a broken repr must not hide the message
        text = f"<{type(value).__name__}>"
    return text if len(text) <= length else text[: length - 2] + " …"


def _index(value: Any) -> int | None:
    if isinstance(value, bool | np.bool_) or (isinstance(value, np.ndarray | jax.Array) and value.ndim):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _array(value: Any) -> np.ndarray | None:
    # NumPy would also convert objects that are not array-like, such as a graph, which iterates over its nodes.
    if isinstance(value, str | bytes) or not (
        isinstance(value, Sequence | numbers.Number) or hasattr(value, "__array__")
    ):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind in "iuf" or array.size == 0 else None


def _numbers(value: Any) -> np.ndarray | None:
    array = _array(value)
    return None if array is None else array.astype(np.float64)


def _legal(array, above, least, below, most, infinite) -> Any:
    legal = ~np.isnan(array) if infinite else np.isfinite(array)
    legal = legal & (True if above is None else array > above) & (True if least is None else array >= least)
    return legal & (True if below is None else array < below) & (True if most is None else array <= most)


def _check_shape(name: str, found: tuple[Any, ...], shape: tuple[Any, ...] | None, rule: str, remedy: str):
    if shape is None:
        return
    if len(found) != len(shape) or any(b is not None and a != b for a, b in zip(found, shape, strict=True)):
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{name} of shape {found}: must be {rule} of shape {wanted}{_ending(remedy)}")


def _entry(name: str, array: np.ndarray, legal: Any) -> str:
    """Name the first entry that breaks a rule."""
    if array.ndim == 0:
        return f"{name}={array[()]:g}"
    at = tuple(int(i) for i in np.argwhere(~legal)[0])
    return f"{name}[{', '.join(map(str, at))}]={array[at]:g}"


def _range(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f" in {least} … {most}"
    return f" of at least {least}" if least is not None else "" if most is None else f" of at most {most}"


def _interval(above: Number | None, least: Number | None, below: Number | None, most: Number | None) -> str:
    lower = f"above {above:g}" if above is not None else f"at least {least:g}" if least is not None else ""
    upper = f"below {below:g}" if below is not None else f"at most {most:g}" if most is not None else ""
    both = " and ".join(part for part in (lower, upper) if part)
    return f", {both}" if both else ""


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


def _of(unit: str) -> str:
    return f" of {unit}" if unit else ""


def _ending(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""
