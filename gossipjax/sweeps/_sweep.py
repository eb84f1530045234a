"""The cells of a grid, made where they are missing and joined to one Dataset."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np

from gossipjax._base.arguments import flag, shown, whole
from gossipjax._base.configuration import usable_cores
from gossipjax._base.paths import as_path
from gossipjax._base.progress import progress_bar
from gossipjax.sweeps._cells import (
    ABOUT,
    Cell,
    Failure,
    digest_of,
    failure_path,
    path_of,
    read,
    read_failures,
    read_report,
)
from gossipjax.sweeps._workers import Engine, check_engine, work

if TYPE_CHECKING:  # functions import xarray when they need it, because it takes 40 MB
    from xarray import Dataset

Value: TypeAlias = str | int | float | bool
CELLS = "cells, side by side"
"""A dimension while cells are joined, with a name that no axis can have."""


class SweepFailed(RuntimeError):
    """Some cells of a sweep raised exceptions or lost their process; finished cells are kept."""


def sweep(
    cell: Callable[[dict[str, Any]], Any],
    axes: Mapping[str, Sequence[Value] | np.ndarray],
    folder: str | os.PathLike[str],
    *,
    version: str = "",
    together: Sequence[str] = (),
    engine: Engine = "serial",
    workers: int | None = None,
    retries_after_death: int | None = None,
    progress: bool | None = None,
    throw: bool = True,
) -> Dataset:
    """Run a function for all combinations of values, keep each result in a file, and join the results.

    >>> import tempfile
    >>> import gossipjax as gj, jax, jax.numpy as jnp
    >>> def consensus(config):
    ...     plan = gj.timeline.rounds(gj.mixing.metropolis(getattr(gj.topology, config["graph"])(8)), config["rounds"])
    ...     watch = [gj.observe.consensus_distance()]
    ...     return gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, jnp.arange(8.0), observers=watch,
    ...                        record_at=[config["rounds"]])
    >>> axes = {"graph": ["ring", "complete"], "rounds": [1, 4]}
    >>> table = gj.sweep(consensus, axes, tempfile.mkdtemp())
    >>> dict(table["consensus_distance"].isel(record=-1).sizes)
    {'graph': 2, 'rounds': 2}

    A cell whose file is there is not made again, so the same call goes on where an interrupted one stopped, and a call
    with more values makes the new cells only. The name of a file is a hash of the configuration, the name and source of
    the function and of its decorators, plain values that these captured or have as defaults, constants of their module
    that they read, the version, and whether floats are 64-bit. Plain are strings, numbers, functions, and lists,
    tuples, sets and dicts of them; constants are strings, numbers and tuples. Nothing else is part of it, such as
    functions that the cell calls, arrays and objects that it captured, or lists and dicts of its module: change
    ``version`` when you change them.

    Args:
        cell: ``cell(config)`` returns an :class:`xarray.Dataset` or a :class:`gossipjax.Trajectory`, and depends on
            nothing but its configuration, a dict with a value for each axis. For other processes, define it in a
            module that they can import. A lambda must be the only one on its line.
        axes: the values of each axis: strings, integers, finite floats or bools, all different. 1 and 1.0 are one cell,
            made with the one that came first; True is another.
        folder: where cells are kept; created if its parent exists.
        version: any text; another one makes all cells again.
        together: axes whose values a cell gets as one list and returns as a dimension, for what one compiled call runs
            at once, such as seeds: ``simulate(jax.random.split(key, len(config["seed"])), …)``.
        engine: "serial": in this process, where cells of one shape share their compiled programs; "processes": in
            worker processes of one thread each (Dask, ``pip install "gossipjax[sweep]"``), which share them through
            the cache on disk; or a ``dask.distributed.Client``, or an executor with the interface of
            :class:`concurrent.futures.Executor`, on whatever machines see the folder.
        workers: number of worker processes of "processes"; None: one per core that this process may use.
        retries_after_death: how often "processes" tries a cell again after its process died; None: three times.
            Exceptions are not tried again.
        progress: show a progress bar with the time left; None: only on a terminal.
        throw: raise if a cell failed; False: leave NaN in its place, and raise only if no cell is finished. The
            attribute ``failed`` of the Dataset lists the failed cells as JSON.

    Returns:
        All variables of all cells, with a dimension for each axis, in the order of ``axes`` and of their values.
        Records of different lengths, and variables that a cell lacks, are filled with NaN, which makes integers floats,
        exact up to 2⁵³.

    Raises:
        TypeError: if an argument is of the wrong sort, or the cell cannot be found by other processes.
        ValueError: if the source of the cell is not known, an axis is empty or has equal values, the folder cannot be
            used, or a file in it is damaged.
        ImportError: if worker processes are asked for without Dask.
        SweepFailed: if cells raised exceptions or lost their process; finished ones are kept. The next call tries the
            others again.
    """
    check_engine(engine)
    grid, whole_axes = _axes(axes), _together(together, axes)
    function, at = _function(cell, engine), _folder(folder)
    number, retries = _of_processes(engine, workers, retries_after_death)
    throw = flag("throw", throw)
    progress = progress if progress is None else flag("progress", progress)
    kind = _kind(function, version)
    cells = [kind._replace(config=config) for config in _configs(grid, whole_axes)]
    missing = [one for one in cells if not path_of(one, at).exists()]
    with progress_bar(progress, f"{len(missing)} of {len(cells)} cells", len(missing)) as show:
        if missing:
            lengths = {axis: len(grid[axis]) for axis in whole_axes}
            work(function, missing, lengths, at, engine, number, retries, show)
    failures = [found for one in cells if (found := _failure(one, at)) is not None]
    done = [one for one in cells if path_of(one, at).exists()]
    if failures and (throw or not done):
        raise SweepFailed(_explain(failures, len(cells)))
    return _joined([read(path_of(one, at)) for one in done], grid, whole_axes, failures)


def collect(
    folder: str | os.PathLike[str], cell: Callable[[dict[str, Any]], Any] | None = None, *, version: str = ""
) -> Dataset:
    """Join the finished cells of a sweep, at any time, also while it runs.

    Args:
        folder: the folder of the sweep.
        cell: the function of the sweep: cells of its present source, of ``version`` and of the present width of floats
            are joined. None: all cells, which must be of one function, source, version and width.
        version: as in :func:`sweep`, if the function is given.

    Returns:
        As :func:`sweep`, with NaN where cells are missing; axes have the values that occur, in increasing order.

    Raises:
        ValueError: if there is no finished cell, a file is damaged, or the cells are of different functions, sources or
            versions, or have different axes, or equal labels, such as True and 1.
    """
    at = as_path("folder", folder)
    found = [read(path) for path in sorted(at.glob("[!.]*.nc"))]
    if cell is not None:
        kind = _kind(_function(cell, "serial"), version)
        found = [one for one in found if one[0]._replace(config={}) == kind]
    if not found:
        of_it = "" if cell is None else " of this function's present source and this version"
        raise ValueError(f"folder={str(at)!r}: there is no finished cell{of_it}")
    kinds = {one._replace(config={}).name: one for one, _ in found}
    if len(kinds) > 1 or len({frozenset(one.config) for one, _ in found}) > 1:
        told = "; ".join(f"{one.function}, source {one.code}, version {one.version!r}" for one in kinds.values())
        raise ValueError(
            f"folder={str(at)!r} holds cells of several sweeps ({told}); pass cell= and version= to choose one, "
            "or give each a folder of its own"
        )
    first = found[0][0].config
    whole_axes = [axis for axis, value in first.items() if isinstance(value, list)]
    _check_places(at, [one.config for one, _ in found], [axis for axis in first if axis not in whole_axes])
    grid = {axis: _values_of(axis, [one.config[axis] for one, _ in found]) for axis in first}
    return _joined(found, grid, whole_axes, read_failures(at, found[0][0]))


def _kind(function: Callable[[dict[str, Any]], Any], version: Any) -> Cell:
    """Return what the cells of a sweep have in common: a cell without a configuration."""
    if not isinstance(version, str):
        raise TypeError(f"version={shown(version)}: must be a string, such as '2'")
    x64 = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
    return Cell(f"{function.__module__}.{function.__qualname__}", digest_of(function), version, x64, {})


def _of_processes(engine: Engine, workers: Any, retries: Any) -> tuple[int, int]:
    """Check the settings of worker processes, which other engines have of their own."""
    given = {"workers": workers, "retries_after_death": retries}
    for name, value in given.items():
        if value is not None and not (isinstance(engine, str) and engine == "processes"):
            raise ValueError(
                f'{name}={shown(value)} is for engine="processes"; clients and executors have their own, "serial" none'
            )
    number = usable_cores() if workers is None else whole("workers", workers, least=1)
    return number, 3 if retries is None else whole("retries_after_death", retries, least=0)


def _values_of(axis: str, values: list[Any]) -> list[Any]:
    if isinstance(values[0], list):
        if any(value != values[0] for value in values):
            raise ValueError(f"cells with different lists of {axis!r}: each list is a sweep of its own")
        return values[0]
    kept = list(dict.fromkeys(values))
    return sorted(kept) if len({isinstance(value, str) for value in kept}) == 1 else kept


def _check_places(folder: pathlib.Path, configs: Sequence[dict[str, Any]], axes: Sequence[str]) -> None:
    """Check that no two cells stand at equal labels: True equals 1, and numbers from 2⁵³ on may be equal as well."""
    places: dict[tuple[Any, ...], dict[str, Any]] = {}
    for config in configs:
        other = places.setdefault(tuple(config[axis] for axis in axes), config)
        if axes and other is not config:
            raise ValueError(
                f"folder={str(folder)!r} holds cells with equal labels, {other} and {config}; give bools and numbers "
                "each a folder of their own"
            )


def _axes(axes: Any) -> dict[str, list[Value]]:
    if not isinstance(axes, Mapping) or not axes:
        raise TypeError(f"axes={shown(axes)}: must be a dict of lists, such as {{'rate': [0.1, 0.2]}}")
    return {_name_of(axis): _values(axis, values) for axis, values in axes.items()}


def _name_of(axis: Any) -> str:
    if not isinstance(axis, str) or not axis.isidentifier():
        raise TypeError(f"axes: {shown(axis)} must be a name, such as 'rate'")
    return axis


def _values(axis: str, values: Any) -> list[Value]:
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__") or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"axes: {axis}={shown(values)} must be a list of values; for one value, a list of one")
    plain = [value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value for value in values]
    for value in plain:
        if not isinstance(value, Value) or (isinstance(value, float) and not abs(value) < float("inf")):
            raise TypeError(
                f"axes: {axis} has {shown(value)}, which is no string, integer, finite float or bool; "
                "let the cell make other things from these"
            )
    if not plain or len(set(plain)) < len(plain):  # True equals 1 as a label
        raise ValueError(f"axes: {axis}={shown(plain)} must have one value or more, all different")
    return plain


def _together(together: Any, axes: Mapping[str, Any]) -> list[str]:
    if isinstance(together, str) or not hasattr(together, "__iter__"):
        raise TypeError(f"together={shown(together)}: must be a list of axes, such as ['seed']")
    named = list(together)
    for axis in named:
        if axis not in axes:
            raise ValueError(f"together: {shown(axis)} is no axis; there are {', '.join(map(repr, axes))}")
    return named


def _function(cell: Any, engine: Engine) -> Callable[[dict[str, Any]], Any]:
    if not callable(cell) or not hasattr(cell, "__qualname__"):
        raise TypeError(f"cell={shown(cell)}: must be a function, cell(config)")
    if inspect.ismethod(cell):
        raise TypeError(
            f"cell={cell.__qualname__!r} is a method, and what its object holds does not name a cell; pass a function"
        )
    elsewhere = not (isinstance(engine, str) and engine == "serial")
    if elsewhere and (cell.__module__ == "__main__" or "<" in cell.__qualname__):
        raise TypeError(
            f"cell={cell.__qualname__!r} of {cell.__module__}: other processes must be able to import it; "
            'move it, at the top level, to a module, or use engine="serial"'
        )
    return cell


def _folder(folder: Any) -> pathlib.Path:
    at = as_path("folder", folder).absolute()
    if not at.parent.is_dir() or (at.exists() and not at.is_dir()):
        raise ValueError(f"folder={str(folder)!r}: must be a folder whose parent exists; make {at.parent} first")
    at.mkdir(exist_ok=True)
    return at


def _configs(grid: Mapping[str, list[Value]], whole_axes: Sequence[str]) -> list[dict[str, Any]]:
    choices = [[values] if axis in whole_axes else values for axis, values in grid.items()]
    return [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*choices)]


def _failure(cell: Cell, folder: pathlib.Path) -> Failure | None:
    if path_of(cell, folder).exists():
        return None
    path = failure_path(cell, folder)
    error = read_report(path)["error"] if path.exists() else "it left neither records nor a report"
    return Failure(cell.config, error)


def _explain(failures: Sequence[Failure], total: int) -> str:
    config = ", ".join(f"{axis}={value!r}" for axis, value in failures[0].config.items())
    return (
        f"{len(failures)} of {total} cells failed, first {config}: {failures[0].error}. Run the sweep again to retry "
        "them, or pass throw=False to leave them out"
    )


def _joined(
    found: Sequence[tuple[Cell, Dataset]],
    grid: Mapping[str, list[Value]],
    whole_axes: Sequence[str],
    failures: Sequence[Failure],
) -> Dataset:
    """Put the records of cells side by side, with a dimension for each axis."""
    import pandas
    import xarray

    single = [axis for axis in grid if axis not in whole_axes]
    given = {axis: _labels(grid[axis]) for axis in whole_axes}
    table = xarray.concat(
        _alike([_numbered(records.drop_attrs(deep=False).assign_coords(given)) for _, records in found]),
        CELLS,
        data_vars="all",
        coords="different",
        compat="equals",
        join="outer",
        combine_attrs="drop_conflicts",
    )
    named = set(whole_axes).union(*(records.variables for _, records in found))
    table = table.set_coords({name for _, records in found for name in records.coords} & table.data_vars.keys())
    table = table.drop_vars([dim for dim in table.indexes if dim not in named])
    if single:
        places = [tuple(cell.config[axis] for axis in single) for cell, _ in found]
        at = pandas.MultiIndex.from_tuples(places, names=single)
        table = table.assign_coords(xarray.Coordinates.from_pandas_multiindex(at, CELLS)).unstack(CELLS)
        table = table.reindex({axis: _labels(grid[axis]) for axis in single})
    else:
        table = table.isel({CELLS: 0})
    about = {ABOUT: json.dumps(found[0][0]._replace(config={})._asdict()), "cells": len(found)}
    told = json.dumps([failure._asdict() for failure in failures])
    return table.transpose(*grid, ...).assign_attrs(about | ({"failed": told} if failures else {}))


def _labels(values: list[Value]) -> np.ndarray:
    """Return the values of an axis, as objects where NumPy would make numbers beside strings into strings."""
    mixed = len({(isinstance(value, str), isinstance(value, bool)) for value in values}) > 1
    return np.array(values, object if mixed else None)


def _numbered(records: Dataset) -> Dataset:
    """Number the entries of dimensions without coordinates, so that shorter ones are filled up."""
    return records.assign_coords(
        {dim: range(size) for dim, size in records.sizes.items() if dim not in records.indexes}
    )


def _alike(tables: Sequence[Dataset]) -> list[Dataset]:
    """Give all tables the labels of all dimensions, empty where one lacks them, and other coordinates as variables."""
    lacking = {name for one in tables for name in one.coords if any(name not in other.coords for other in tables)}
    empty = {name: one.variables[name][:0] for one in tables for name in lacking & one.indexes.keys()}
    return [
        one.reset_coords(list(lacking & one.coords.keys() - one.indexes.keys())).assign_coords(
            {name: labels for name, labels in empty.items() if name not in one.variables}
        )
        for one in tables
    ]
