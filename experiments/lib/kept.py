"""Storage of finished runs, so that a long experiment can resume; their names identify the code, data and settings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import xarray as xr

import experiments
import gossipjax
import theory
from experiments.lib import store
from gossipjax._base.call_json import to_json
from gossipjax._base.calls import write_down
from gossipjax._base.hashing import array_hash
from gossipjax.results._trajectory import environment
from theory.output import check_folder

FOLDERS = tuple(pathlib.Path(path or "").parent for path in (gossipjax.__file__, theory.__file__, experiments.__file__))
"""Packages whose code determines a run."""


def digest_of_code(folders: tuple[pathlib.Path, ...] = FOLDERS) -> str:
    """Compute a checksum of the names and contents of all source files in some folders."""
    checksum = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            checksum.update(f"{folder.name}/{path.relative_to(folder)}\n".encode())
            checksum.update(hashlib.sha256(path.read_bytes()).digest())
    return checksum.hexdigest()[:16]


CODE = digest_of_code()
"""Checksum of the code when this process started, because that code makes its runs."""


def digest(*things: Any) -> str:
    """Compute a checksum of tasks, devices, sharings and other trees: of how they were built, and of all their arrays.

    The call record of an object, or of its parts, distinguishes settings that no array shows, such as a batch size. The
    arrays distinguish results of the same call on different files.

    Raises:
        TypeError: a part that has neither a record nor parts, and cannot be distinguished from others.
    """
    checksum = hashlib.sha256()
    for thing in things:
        text, _ = to_json(write_down(thing))
        json.loads(text, object_hook=_refuse_opaque)
        for part in (text, json.dumps(list(_hashes(thing)))):
            checksum.update(f"{len(part)}:{part}".encode())
    return checksum.hexdigest()[:16]


def _refuse_opaque(part: dict[str, Any]) -> dict[str, Any]:
    if "Opaque" in part:
        raise TypeError(
            f"a stored run depends on {part['Opaque']['text']!r}, which cannot be told from others of its kind: "
            "pass arrays, numbers, functions, dataclasses or NamedTuples, or keep=None to keep nothing"
        )
    return part


def _hashes(thing: Any) -> Iterator[str]:
    """Hash all arrays of a tree, including those inside dataclasses."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for field in dataclasses.fields(thing):
            yield from _hashes(getattr(thing, field.name))
        return
    for leaf in jax.tree.leaves(thing):
        if isinstance(leaf, np.ndarray | jax.Array | np.generic):
            values: Any = leaf
            is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            yield array_hash(jax.random.key_data(values) if is_key else values)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            yield from _hashes(leaf)


def model_of(task: Any) -> dict[str, str]:
    """Describe the arrays of a task's model, with shapes and types."""
    shapes = jax.tree_util.tree_leaves_with_path(jax.eval_shape(task.init, jax.random.key(0)))
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in shapes}


def kept_run(
    keep: str | None, settings: dict[str, Any], make: Callable[[Any], xr.Dataset], *made_of: Any
) -> xr.Dataset:
    """Return the stored run with the same settings, contents, code, versions and kind of device, or make and store it.

    Args:
        keep: folder of finished runs, and of checkpoints of the current one; None: nothing is stored.
        settings: JSON-able values that identify the run.
        make: ``make(checkpoint)`` makes the run, and resumes from the folder ``checkpoint`` if it exists.
        made_of: tasks, devices, sharings and other trees that also identify the run, by :func:`digest`.

    Returns:
        The records. If the stored file is damaged, or belongs to another run, the run is made again.

    Raises:
        ValueError: the folder cannot be written to, or the run's file exists as a folder.
        TypeError: see :func:`digest`.
    """
    if keep is None:
        return make(None)
    here = environment()
    # The number of devices is no part of it: it changes results by rounding only.
    machine = {"versions": here["versions"], "x64": here["x64"], "device_kind": jax.devices()[0].device_kind}
    made_by = {"code": CODE, "contents": digest(*made_of)} | machine
    named = json.loads(json.dumps(settings | made_by))
    name = hash_of(named)
    folder = pathlib.Path(keep)
    if (found := kept_file(name, named, folder)) is not None:
        return found
    check_folder("keep", folder, store.path_of(name, folder).name)
    checkpoint = folder / f"{name}.checkpoint"
    return keep_file(name, make(checkpoint), {"configuration": named}, folder, checkpoint)


def hash_of(settings: dict[str, Any]) -> str:
    """Name JSON-able settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def kept_file(name: str, settings: dict[str, Any], folder: pathlib.Path) -> xr.Dataset | None:
    """Read a finished run of these settings; None if there is none, or a damaged one, or one of other settings."""
    if not store.path_of(name, folder).is_file():
        return None
    try:
        found = store.load(name, folder)
        known = "checksum" in found.attrs and store.manifest_of(found)["configuration"] == settings
    except (ValueError, KeyError, TypeError):  # damaged, or a manifest that is none
        return None
    return found if known else None


def keep_file(
    name: str, made: xr.Dataset, manifest: dict[str, Any], folder: pathlib.Path, checkpoint: pathlib.Path
) -> xr.Dataset:
    """Store a finished run, and drop the checkpoints from which it could have been resumed."""
    store.save(name, made, manifest, folder)
    shutil.rmtree(checkpoint, ignore_errors=True)
    return store.load(name, folder)
