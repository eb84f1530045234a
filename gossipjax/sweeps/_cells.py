"""Cells of a sweep: what names one, and its file, which holds its records or says why there are none."""

from __future__ import annotations

import ast
import copy
import dis
import functools
import hashlib
import inspect
import json
import pathlib
import time
import traceback
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from gossipjax._base.arguments import shown
from gossipjax._base.functions import codes_in, full_name, is_versioned
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
    """A hash of its source and of what it captured, see :func:`digest_of`."""
    version: str
    x64: bool
    config: dict[str, Any]
    """JSON-able; all that the records depend on, besides code."""

    @property
    def name(self) -> str:
        """Name its file: a hash of all fields."""
        config = {axis: _as_number(value) for axis, value in self.config.items()}
        told = json.dumps(self._replace(config=config)._asdict(), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:20]


def _as_number(value: Any) -> Any:
    """Write numbers that are equal in one way: 1.0 as 1 and -0.0 as 0; True is no number."""
    if isinstance(value, list):
        return [_as_number(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


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
    """Hash the source of a function and of its decorators, and the plain values that these captured or read.

    Plain are strings, numbers, and lists, tuples, sets and dicts of them. Captured values, defaults and constants of
    the module count (:func:`_layer`). What the function calls is not part of it.

    Raises:
        ValueError: if it has no source, such as a function that was typed into a terminal, or is one of several lambdas
            on a line.
    """
    inner = inspect.unwrap(function)
    if not inspect.isfunction(inner) or _source(inner) is None:
        raise ValueError(f"cell={shown(function)}: it has no source file; define it in a module")
    return hashlib.sha256(json.dumps(_layers(function, ())).encode()).hexdigest()[:16]


def _layers(function: Any, above: tuple[int, ...]) -> list[Any]:
    """Write down a function and all that it wraps, from the outermost; ``above`` are ids of what holds it."""
    layers, inner = [function], function
    while (inner := getattr(inner, "__wrapped__", None)) is not None and all(inner is not each for each in layers):
        layers.append(inner)
    above = (*above, *map(id, layers))
    return [_layer(each, above) for each in layers]


def _layer(function: Any, above: tuple[int, ...]) -> list[Any]:
    """Write down a function: its source, its defaults, what it captured, and the constants of its module.

    Constants are strings, numbers, and tuples of them that the function reads and does not assign. Lists and dicts of a
    module are not: they may be caches. A decorator that is an object counts by its class and its attributes, and a
    function without source, such as a check of types that a library generates, by its name.
    """
    if not inspect.isfunction(function):
        held = {name: value for name, value in getattr(function, "__dict__", {}).items() if not name.startswith("__")}
        partial = [function.args, function.keywords] if isinstance(function, functools.partial) else []
        return [full_name(type(function)), _plain([held, *partial], above)]
    if (source := _source(function)) is None:
        return [full_name(function)]
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    captured = {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}  # an empty one equals it
    constants = {name: function.__globals__.get(name) for name in sorted(_read_from_module(code))}
    constants = {name: value for name, value in constants.items() if _is_constant(value)}
    values = [captured, function.__defaults__, function.__kwdefaults__, constants]
    return [source, *(_plain(each, above) for each in values)]


def _source(function: types.FunctionType) -> str | None:
    """Return the source of a function, without what it wraps; of a lambda, without the rest of the line.

    Returns None if there is none.
    """
    code = function.__code__
    try:
        if code.co_name != "<lambda>":
            return inspect.getsource(code)
        source = "".join(inspect.findsource(code)[0])
        nodes = [each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.Lambda)]
    except (OSError, TypeError, SyntaxError):
        return None
    found = [each for each in nodes if each.lineno == code.co_firstlineno]
    if len(found) != 1:
        raise ValueError(
            f"cell={shown(function)}: its line {code.co_firstlineno} has {len(found)} lambdas, so that its source is "
            "not known; give them names with def"
        )
    return ast.get_source_segment(source, found[0])


def _read_from_module(code: types.CodeType) -> set[str]:
    """Return the names that a code, and those inside it, read from the module and do not assign."""
    steps = [step for each in codes_in(code) for step in dis.get_instructions(each)]
    read, assigned = ({step.argval for step in steps if step.opname == f"{how}_GLOBAL"} for how in ("LOAD", "STORE"))
    return {name for name in read - assigned if not name.startswith("__")}


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(map(_is_constant, value))
    return isinstance(value, str | int | float | complex | bytes | np.generic)


def _plain(value: Any, above: tuple[int, ...]) -> Any:
    """Write down a value as JSON: functions by their layers, and of what is neither plain nor a function, nothing."""
    if id(value) in above:
        return "above"
    below = (*above, id(value))
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, complex | bytes):
        return repr(value)
    if isinstance(value, list | tuple):
        return [_plain(each, below) for each in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(each, below) for each in value), key=json.dumps)
    if isinstance(value, dict):
        return sorted(([_plain(name, below), _plain(each, below)] for name, each in value.items()), key=json.dumps)
    if isinstance(value, functools.partial):
        return _plain([value.func, value.args, value.keywords], below)
    if inspect.isclass(value) or inspect.isbuiltin(value):
        return full_name(value)
    if inspect.isfunction(inspect.unwrap(value)):
        return [full_name(value), None if is_versioned(value) else _layers(value, above)]
    return []


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
