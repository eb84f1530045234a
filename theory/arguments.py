"""Validation of arguments: every error names the argument, the value, the rule and, where there is one, the remedy.

Formulas import neither JAX nor the engine, so they have their own checks, with the same messages as
``gossipjax._base.arguments``. Each check returns the value in plain form, ``n = whole("n", n, least=2)``, or raises
``ValueError``.

The bounds ``above`` and ``below`` are exclusive, ``least`` and ``most`` inclusive; None means no bound. ``shape`` is
the required shape of an array: None allows any shape, and None as an entry allows any length above zero. ``remedy``
ends the message and says what to pass instead.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int

Number: TypeAlias = int | float
Shape: TypeAlias = tuple[int | None, ...] | None
_SUMS_TO_ONE = 1e-6
"""Loose enough for float32 matrices, and far below the error of a forgotten normalisation."""


def whole(name: str, value: Any, *, least: int | None = None, most: int | None = None, remedy: str = "") -> int:
    """Return a whole number as an ``int``: not a bool, not a float, not even 2.0."""
    number = None
    if not isinstance(value, bool | np.bool_) and getattr(value, "shape", ()) == ():
        try:
            number = operator.index(value)
        except TypeError:
            number = None
    if number is None or (least is not None and number < least) or (most is not None and number > most):
        raise ValueError(f"{name}={_shown(value)}: must be a whole number{_range(least, most)}{_ending(remedy)}")
    return number


def wholes(
    name: str, value: Any, *, least: int, most: int | None = None, shape: Shape = None, remedy: str = ""
) -> Int[np.ndarray, "..."]:
    """Return whole numbers as an int64 array; arrays of floats are refused."""
    rule = f"whole numbers{_range(least, most)}"
    array = _array(name, value, rule, remedy, kinds="iu")
    _check(name, array, shape, (array >= least) & (True if most is None else array <= most), rule, remedy)
    return array.astype(np.int64)


def real(
    name: str,
    value: Any,
    *,
    above: Number | None = None,
    least: Number | None = None,
    below: Number | None = None,
    most: Number | None = None,
    remedy: str = "",
) -> float:
    """Return a finite real number, or an array of shape ``()``, as a ``float``."""
    rule = f"a finite number{_interval(above, least, below, most)}"
    array = _array(name, value, rule, remedy)
    if array.shape != () or not bool(_legal(array, above, least, below, most)):
        raise ValueError(f"{name}={_shown(value)}: must be {rule}{_ending(remedy)}")
    return float(array)


def reals(
    name: str,
    value: Any,
    *,
    shape: Shape = None,
    above: Number | None = None,
    least: Number | None = None,
    most: Number | None = None,
    remedy: str = "",
) -> Float[np.ndarray, "..."]:
    """Return finite real numbers, at least one, as a float64 array."""
    rule = f"finite numbers{_interval(above, least, None, most)}"
    array = _array(name, value, rule, remedy)
    _check(name, array, shape, _legal(array, above, least, None, most), rule, remedy)
    return array.astype(np.float64)


def square(
    name: str,
    value: Any,
    *,
    least: Number | None = None,
    nodes: tuple[int, int | None] = (1, None),
    sums: str = "",
    symmetric: bool = False,
    remedy: str = "",
) -> Float[np.ndarray, "n n"]:
    """Return a square matrix of finite numbers as float64.

    Args:
        name: of the argument.
        value: array-like.
        least: smallest legal entry.
        nodes: fewest and most rows.
        sums: which lines must sum to one: ``"rows"``, ``"columns"``, ``"rows and columns"``, or ``""`` for none.
        symmetric: whether it must equal its transpose.
        remedy: what to pass instead.
    """
    rule = f"a square matrix of {_count(*nodes)} nodes"
    array = _array(name, value, rule, remedy)
    n = array.shape[0] if array.ndim else 0
    if array.shape != (n, n) or n < nodes[0] or (nodes[1] is not None and n > nodes[1]):
        raise ValueError(f"{name} of shape {array.shape}: must be {rule}{_ending(remedy)}")
    array = reals(name, array, least=least, remedy=remedy)
    for axis, lines in ((1, "row"), (0, "column")):
        if f"{lines}s" in sums and (worst := float(np.abs(array.sum(axis=axis) - 1).max())) > _SUMS_TO_ONE:
            raise ValueError(
                f"the sum of a {lines} of {name} is off by {worst:.3g}: must be one; normalise each {lines}"
            )
    if symmetric and (gap := float(np.abs(array - array.T).max())) > _SUMS_TO_ONE:
        raise ValueError(f"{name} differs from its transpose by {gap:.3g}: must be symmetric{_ending(remedy)}")
    return array


def pmf(name: str, value: Any, *, size: int | None = None) -> Float[np.ndarray, " values"]:
    """Return ``size`` probabilities, which must sum to one, as a float64 array."""
    array = reals(name, value, shape=(size,), least=0)
    if abs(array.sum() - 1.0) > _SUMS_TO_ONE:
        raise ValueError(f"{name} sums to {array.sum():.6g}: must be probabilities that sum to one")
    return array


def flag(name: str, value: Any) -> bool:
    """Return True or False; words and numbers are refused, although Python would accept them as true."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={_shown(value)}: must be True or False")
    return bool(value)


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """Return one of a few words."""
    options = tuple(options)
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}={_shown(value)}: must be one of {', '.join(map(repr, options))}")
    return value


def _array(name: str, value: Any, rule: str, remedy: str, kinds: str = "iuf") -> np.ndarray:
    array = None
    if value is not None and not isinstance(value, str | bytes | dict):
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):
            array = None
    if array is None or array.dtype.kind not in kinds or array.size == 0:
        raise ValueError(f"{name}={_shown(value)}: must be {rule}{_ending(remedy)}")
    return array


def _legal(array, above, least, below, most) -> Any:
    legal = np.isfinite(array) & (True if above is None else array > above)
    legal &= True if least is None else array >= least
    return legal & (True if below is None else array < below) & (True if most is None else array <= most)


def _check(name: str, array: np.ndarray, shape: Shape, legal: Any, rule: str, remedy: str) -> None:
    """Raise ValueError for a wrong shape, or for the first entry that breaks the rule."""
    size = array.shape
    if shape is not None and (
        len(size) != len(shape) or any(b is not None and a != b for a, b in zip(size, shape, strict=True))
    ):
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{name} of shape {size}: must be {rule} of shape {wanted}{_ending(remedy)}")
    if np.all(legal):
        return
    at = tuple(int(i) for i in np.argwhere(~legal)[0]) if array.ndim else ()
    index = f"[{', '.join(map(str, at))}]" if at else ""
    raise ValueError(f"{name}{index}={array[at]:g}: must be {rule}{_ending(remedy)}")


def _shown(value: Any, length: int = 60) -> str:
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"{type(value).__name__} of shape {value.shape}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a broken repr must not hide the message
        text = f"<{type(value).__name__}>"
    return text if len(text) <= length else text[: length - 2] + " …"


def _count(least: int, most: int | None) -> str:
    return f"at least {least}" if most is None else f"{least} to {most}"


def _range(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f" in {least} … {most}"
    return f" of at least {least}" if least is not None else "" if most is None else f" of at most {most}"


def _interval(above: Number | None, least: Number | None, below: Number | None, most: Number | None) -> str:
    lower = f"above {above:g}" if above is not None else f"at least {least:g}" if least is not None else ""
    upper = f"below {below:g}" if below is not None else f"at most {most:g}" if most is not None else ""
    both = " and ".join(part for part in (lower, upper) if part)
    return f", {both}" if both else ""


def _ending(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""
