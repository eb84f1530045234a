"""Checks that the parts of this package share."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int

from gossipjax._base.arguments import instance, wholes


def require(condition: bool | np.bool_, message: str) -> None:
    """Raise ``ValueError`` with a message unless a condition holds."""
    if not condition:
        raise ValueError(message)


def frozen(array: np.ndarray) -> np.ndarray:
    """Make an array read-only, and return it."""
    array.setflags(write=False)
    return array


def path_of(path: Any, name: str = "path") -> pathlib.Path:
    """Return a path, given as text or as a path.

    Raises:
        TypeError: something else.
    """
    return pathlib.Path(instance(name, path, (str, os.PathLike), "pass the name of the file"))


def members(name: str, value: Any, num_nodes: int) -> Int[np.ndarray, " k"]:
    """Return the numbers of at least one of n nodes.

    Raises:
        ValueError: none, no whole numbers, or one outside 0..num_nodes - 1.
    """
    nodes = wholes(name, value, shape=(None,), least=0, most=num_nodes - 1, remedy="name devices that exist")
    require(nodes.size > 0, f"{name} is empty: name at least one device")
    return nodes


def require_range(name: str, values: np.ndarray, holds: np.ndarray, rule: str) -> None:
    """Raise ``ValueError`` naming the first entry of an array that breaks a rule."""
    if not holds.all():
        entry = tuple(int(k) for k in np.argwhere(~holds)[0])
        where = entry[0] if len(entry) == 1 else entry
        raise ValueError(f"{name}, entry {where}: {values[entry]:g} {rule}")
