"""Argument checks shared by the modules of this package."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int

from gossipjax._base.arguments import instance, wholes


def require(condition: bool | np.bool_, message: str) -> None:
    """Raise ``ValueError(message)`` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def freeze(array: np.ndarray) -> np.ndarray:
    """Make an array read-only, and return it."""
    array.setflags(write=False)
    return array


def path_of(path: Any, name: str = "path") -> pathlib.Path:
    """Convert a str or path-like object to a path.

    Raises:
        TypeError: for any other type.
    """
    return pathlib.Path(instance(name, path, (str, os.PathLike), "pass the name of the file"))


def members(name: str, value: Any, num_nodes: int) -> Int[np.ndarray, " k"]:
    """Return a non-empty vector of node numbers.

    Raises:
        ValueError: if it is empty, holds other than whole numbers, or leaves 0..num_nodes - 1.
    """
    nodes = wholes(name, value, shape=(None,), least=0, most=num_nodes - 1, remedy="name devices that exist")
    require(nodes.size > 0, f"{name} is empty: name at least one device")
    return nodes


def require_range(name: str, values: np.ndarray, holds: np.ndarray, rule: str) -> None:
    """Raise ``ValueError`` if an entry of an array breaks a rule, and name the first such entry."""
    if not holds.all():
        entry = tuple(int(k) for k in np.argwhere(~holds)[0])
        where = entry[0] if len(entry) == 1 else entry
        raise ValueError(f"{name}, entry {where}: {values[entry]:g} {rule}")
