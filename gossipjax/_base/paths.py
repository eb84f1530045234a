"""Paths, and files that are written atomically."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gossipjax._base.arguments import instance
from gossipjax._base.lazy import pooch


def as_path(name: str, value: Any) -> pathlib.Path:
    """Convert a string or a path to a path.

    Raises:
        TypeError: if value is neither.
    """
    return pathlib.Path(instance(name, value, (str, os.PathLike), "such as 'results/run.nc'"))


@contextmanager
def replacing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a temporary path in the target's folder; rename it to the target on success, remove it on failure.

    Raises:
        ValueError: if the target's folder does not exist, or the target is a folder.
    """
    if not target.parent.is_dir():
        raise ValueError(f"no folder {target.parent} to write {target.name} into; make it first")
    if target.is_dir():
        raise ValueError(f"{target} is a folder; pass the path of a file")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # only the owner can read files that mkstemp creates
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Return the folder for downloads and decoded arrays, which may not exist yet. ``GOSSIPJAX_CACHE`` overrides it."""
    value = os.environ.get("GOSSIPJAX_CACHE")
    return Path(value).expanduser() if value else Path(pooch.os_cache("gossipjax"))
