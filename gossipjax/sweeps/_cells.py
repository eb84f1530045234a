"""Cells of a sweep: what names one, and its file, which holds its records or says why there are none."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import pathlib
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from gossipjax._base.arguments import shown
from gossipjax._base.paths import replacing
from gossipjax.results import Trajectory
from gossipjax.results._trajectory import environment

if TYPE_CHECKING:  # functions import xarray when they need it, because it takes 40 MB
    from xarray import Dataset

ABOUT = "sweep"
"""The attribute of a file that says which cell it is."""
Function = Callable[[dict[str, Any]], Any]


class Cell(NamedTuple):
    """One run of a sweep, before it is made."""

    function: str
    """Its qualified name."""
    code: str
    """A hash of its source."""
    version: str
    x64: bool
    config: dict[str, Any]
    """JSON-able; all that the records depend on, besides code."""

    @property
    def name(self) -> str:
        """Name its file: a hash of all fields."""
        return hashlib.sha256(json.dumps(self._asdict(), sort_keys=True).encode()).hexdigest()[:20]


class Failure(NamedTuple):
    """Why a cell has no records."""

    config: dict[str, Any]
    error: str


def path_of(cell: Cell, folder: pathlib.Path) -> pathlib.Path:
    """Return the path of a finished cell."""
    return folder / f"{cell.name}.nc"


def failure_path(cell: Cell, folder: pathlib.Path) -> pathlib.Path:
    """Return the path of the report on a failed cell."""
    return folder / f"{cell.name}.error.json"


def digest_of(function: Function) -> str:
    """Hash the source of a function, and the strings and numbers that it captured; what it calls is not part of it.

    Raises:
        ValueError: if it has no source, such as a function that was typed into a terminal.
    """
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise ValueError(f"cell={shown(function)}: it has no source file; define it in a module") from error
    captured = _captured(inspect.unwrap(function))
    return hashlib.sha256((source + (json.dumps(captured) if captured else "")).encode()).hexdigest()[:16]


def _captured(function: Function) -> dict[str, Any]:
    """Return what a function inside another took from there, and its defaults, as far as these are plain values."""
    if not inspect.isfunction(function):
        return {}
    found = {name: one.default for name, one in inspect.signature(function).parameters.items()}
    found |= inspect.getclosurevars(function).nonlocals
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}
    return {name: value for name, value in plain.items() if isinstance(value, str | int | float | bool)}


def make(function: Function, cell: Cell, lengths: Mapping[str, int], folder: pathlib.Path) -> None:
    """Make a cell and write its file, or a report on the exception that it raised; a finished one is left alone."""
    if path_of(cell, folder).exists():
        return
    began = time.monotonic()
    try:
        with jax.enable_x64(cell.x64):  # another process does not inherit the setting, and this one keeps its own
            records = _checked(function(copy.deepcopy(cell.config)), cell, lengths)
            about = cell._asdict() | {"seconds": round(time.monotonic() - began, 3), "environment": environment()}
        _write(records.assign_attrs({ABOUT: json.dumps(about)}), path_of(cell, folder))
    except Exception as error:
        note_failure(cell, folder, f"{type(error).__name__}: {error}", traceback.format_exc())
    else:
        failure_path(cell, folder).unlink(missing_ok=True)


def note_failure(cell: Cell, folder: pathlib.Path, error: str, trace: str = "") -> None:
    """Write a report on a failed cell."""
    with replacing(failure_path(cell, folder)) as temporary:
        temporary.write_text(json.dumps({**cell._asdict(), "error": error, "traceback": trace}, indent=1))


def _write(records: Dataset, target: pathlib.Path) -> None:
    with replacing(target) as temporary:
        records.to_netcdf(temporary, engine="h5netcdf")


def _checked(found: Any, cell: Cell, lengths: Mapping[str, int]) -> Dataset:
    """Return the records of a cell: no other axes of the sweep among its dimensions than those that it got whole."""
    from xarray import Dataset

    records = found.dataset if isinstance(found, Trajectory) else found
    if not isinstance(records, Dataset):
        raise TypeError(
            f"a cell must return an xarray Dataset or a Trajectory, and not {shown(found)}; for numbers: "
            'xarray.Dataset({"accuracy": 0.9})'
        )
    for axis in cell.config:
        if axis in lengths and records.sizes.get(axis) != lengths[axis]:
            raise ValueError(
                f"together={axis!r}: the cell got {lengths[axis]} values at once, so its Dataset must have a dimension "
                f"{axis!r} of this length; it has {dict(records.sizes)}"
            )
        if axis in lengths and axis in records.indexes and not _same(records[axis].values, cell.config[axis]):
            raise ValueError(
                f"together={axis!r}: the Dataset of the cell has other values of {axis!r}, or another order, than the "
                "cell got; return the results in the order of its list"
            )
        if axis not in lengths and axis in records.variables.keys() | records.sizes.keys():
            raise ValueError(
                f"{axis!r} is an axis of the sweep and a name in the Dataset of the cell; rename one of them"
            )
    return records


def _same(found: np.ndarray, given: list[Any]) -> bool:
    """Whether labels are the given ones, in their order; numbers may have been rounded to single precision."""
    expected = np.asarray(given)
    if found.dtype.kind in "iuf" and expected.dtype.kind in "iuf":
        return np.allclose(found, expected, rtol=1e-6, atol=0)
    return found.astype(str).tolist() == expected.astype(str).tolist()


def read(path: pathlib.Path) -> tuple[Cell, Dataset]:
    """Read a finished cell.

    Raises:
        ValueError: if the file is damaged, or none of a sweep.
    """
    import xarray

    try:
        records = xarray.load_dataset(path, engine="h5netcdf")
        about = json.loads(records.attrs[ABOUT])
        return Cell(**{name: about[name] for name in Cell._fields}), records
    except Exception as error:  # h5py raises many kinds of errors for files that are not its own
        raise ValueError(f"{path} is no finished cell of a sweep, or is damaged ({error}); delete it") from error


def read_failures(folder: pathlib.Path, kind: Cell) -> list[Failure]:
    """Read the reports on failed cells of the function, code and version of a cell."""
    reports = [read_report(path) for path in sorted(folder.glob("[!.]*.error.json"))]
    same = kind._replace(config={})
    own = [one for one in reports if Cell(*(one[name] for name in Cell._fields))._replace(config={}) == same]
    return [Failure(report["config"], report["error"]) for report in own]


def read_report(path: pathlib.Path) -> dict[str, Any]:
    """Read the report on a failed cell.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        report = json.loads(path.read_text())
        return {name: report[name] for name in (*Cell._fields, "error")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no report on a failed cell, or is damaged ({error!r}); delete it") from error
