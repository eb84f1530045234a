"""Finished runs, kept one by one so that a long experiment is never lost, under names that say what made them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr

import experiments
import gossipjax
import theory
from experiments.lib import store

FOLDERS = tuple(pathlib.Path(path or "").parent for path in (gossipjax.__file__, theory.__file__, experiments.__file__))
"""Packages whose code makes a run."""


def digest_of_code(folders: tuple[pathlib.Path, ...] = FOLDERS) -> str:
    """Compute a checksum of the names and the contents of all source files in some folders."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{folder.name}/{path.relative_to(folder)}\n".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


CODE = digest_of_code()
"""Of the code as it was when this process began, for that is the code that makes its runs."""


def digest(*things: Any) -> str:
    """Compute a checksum of all arrays, numbers and functions' names in tasks, devices and other trees."""
    found = hashlib.sha256()
    for thing in things:
        _feed(found, thing)
    return found.hexdigest()[:16]


def _feed(found: Any, thing: Any) -> None:
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for field in dataclasses.fields(thing):
            found.update(field.name.encode())
            _feed(found, getattr(thing, field.name))
        return
    for leaf in jax.tree.leaves(thing):
        if isinstance(leaf, np.ndarray | jax.Array | np.generic):
            array = np.ascontiguousarray(leaf)
            found.update(f"{array.dtype}{array.shape}".encode())
            found.update(array.tobytes())
        elif dataclasses.is_dataclass(leaf):
            _feed(found, leaf)
        elif callable(leaf):
            found.update(f"{leaf.__module__}.{getattr(leaf, '__qualname__', type(leaf).__name__)}".encode())
        else:
            found.update(repr(leaf).encode())


def model_of(task: Any) -> dict[str, str]:
    """Name the arrays of a task's model, with their shapes and types."""
    shapes = jax.tree_util.tree_leaves_with_path(jax.eval_shape(task.init, jax.random.key(0)))
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in shapes}


def kept_run(
    keep: str | None, settings: dict[str, Any], make: Callable[[Any], xr.Dataset], *made_of: Any
) -> xr.Dataset:
    """Return a run that was made before with the same settings, contents and code, or make it and keep it.

    Args:
        keep: folder of finished runs and of checkpoints of the one under way; None: nothing is kept.
        settings: JSON-able, name the run.
        make: ``make(checkpoint)``: makes it, resuming from the folder ``checkpoint`` if it is there.
        made_of: tasks, devices and other trees of arrays whose contents name the run, too.

    Returns:
        The records. A kept file that is damaged, or of another run, is made again.
    """
    if keep is None:
        return make(None)
    named = json.loads(json.dumps(settings | {"code": CODE, "contents": digest(*made_of)}))
    name = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
    folder = pathlib.Path(keep)
    if (found := _found(name, named, folder)) is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{name}.checkpoint"
    store.save(name, make(checkpoint), {"configuration": named}, folder)
    shutil.rmtree(checkpoint, ignore_errors=True)
    return store.load(name, folder)


def _found(name: str, named: dict[str, Any], folder: pathlib.Path) -> xr.Dataset | None:
    if not store.path_of(name, folder).is_file():
        return None
    try:
        found = store.load(name, folder)
        return found if store.manifest_of(found)["configuration"] == named else None
    except (ValueError, KeyError):
        return None
