"""What is reviewed: a module with a protocol, its grid and one claim."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import inspect
import itertools
import math
import os
import pathlib
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gossipjax._base.arguments import callable_, flag, instance, shown
from gossipjax._base.paths import as_path
from gossipjax.devices import Devices

BASELINES = ("dpsgd", "local_sgd", "allreduce_sgd")
WITHOUT = "without"
"""The protocol without its new part, the fourth baseline."""
NETWORKS = ("ring", "torus", "exponential", "one-peer", "base-2", "random regular", "complete")
AXES = ("rounds", "bytes", "seconds", "samples")
LEVELS = ("mean", "worst decile", "average model")
GRAMMAR = (
    'write "better than BASELINE [on NETWORK, …] [at equal AXIS] [for LEVEL]", such as "better than dpsgd on ring, '
    f'torus at equal bytes for worst decile"; baselines: {", ".join((*BASELINES, WITHOUT))}; networks: '
    f"{', '.join(NETWORKS)}; axes: {', '.join(AXES)}; levels: {', '.join(LEVELS)}"
)
_CLAIM = re.compile(r"better than (\w+)(?: on ([\w\- ,]+?))?(?: at equal (\w+))?(?: for ([\w ]+))?")
_KNOWN = (
    "protocol", "GRID", "CLAIM", "WITHOUT", "without", "timeline", "DEVICES", "CONSERVES_MEAN", "PRIVATE", "score",
    "expected_error", "AUTHORS_STEP",
)  # fmt: skip


class Claim(NamedTuple):
    """What is claimed, in the terms of the rows."""

    baseline: str
    networks: tuple[str, ...]
    """Those that it names; none: it is claimed on any."""
    axis: str | None
    """At equal what; None: on every axis."""
    level: str

    def __str__(self) -> str:
        """Write the claim in full."""
        where = f" on {', '.join(self.networks)}" if self.networks else " on most networks"
        axis = self.axis or "rounds, bytes, seconds and samples"
        return f"better than {self.baseline}{where} at equal {axis} for {self.level}"


@dataclasses.dataclass(frozen=True, eq=False)
class Submission:
    """A protocol with what its authors say of it; see :func:`gossipjax.review.run` for the module it is read from."""

    name: str
    path: str
    """Of its file."""
    source: str
    protocol: Callable[..., Any]
    grid: dict[str, tuple[Any, ...]]
    claim: Claim
    without: Callable[..., Any] | None = None
    changed: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of ``protocol`` without its new part, instead of a function."""
    timeline: Callable[..., Any] | None = None
    devices: Devices | None = None
    conserves_mean: bool = True
    private: bool = False
    score: Callable[[Any], Any] | None = None
    expected_error: Callable[..., Any] | None = None
    authors_step: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def trials(self) -> list[dict[str, Any]]:
        """All settings of the grid."""
        return [dict(zip(self.grid, chosen, strict=True)) for chosen in itertools.product(*self.grid.values())]

    @property
    def has_without(self) -> bool:
        """Whether the authors named the new part."""
        return self.without is not None or bool(self.changed)

    @property
    def digest(self) -> str:
        """Hash the source of the module."""
        return hashlib.sha256(self.source.encode()).hexdigest()


def parse_claim(text: Any) -> Claim:
    """Read a claim.

    Raises:
        ValueError: if it is not of the form that the message states.
    """
    found = _CLAIM.fullmatch(" ".join(text.lower().split())) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"CLAIM={shown(text)}: cannot be read; {GRAMMAR}")
    baseline, networks, axis, level = found.groups()
    named = tuple(each.strip() for each in networks.split(",")) if networks is not None else ()
    wrong = [each for each in named if each not in NETWORKS]
    wrong += [baseline] if baseline not in (*BASELINES, WITHOUT) else []
    wrong += [axis] if axis is not None and axis not in AXES else []
    wrong += [level] if level is not None and level not in LEVELS else []
    wrong += [each for at, each in enumerate(named) if each in named[:at]]
    if wrong:
        raise ValueError(f"CLAIM={text!r}: {wrong[0]!r} is not known, or is repeated; {GRAMMAR}")
    return Claim(baseline, named, axis, level or LEVELS[0])


def read(module: str | os.PathLike[str] | types.ModuleType) -> Submission:
    """Read a submission from a file, or a module that has one.

    Raises:
        TypeError: if it is neither.
        ValueError: if the file does not exist or cannot be imported, or a part is missing, misspelt or out of range.
    """
    if not isinstance(module, types.ModuleType):
        module = _imported(as_path("module", module))
    place = getattr(module, "__file__", None)
    if place is None or not pathlib.Path(place).is_file():
        raise ValueError(f"{module.__name__}: has no file, which the archive must keep; write it to one")
    path = pathlib.Path(place).absolute()
    source = path.read_text(encoding="utf-8")
    _check_neighbours(path, source)
    unknown = [n for n in vars(module) if n.isupper() and not n.startswith("_") and n not in _KNOWN and _close(n)]
    if unknown:
        raise ValueError(f"{module.__name__}: {unknown[0]} is not read; a review reads {', '.join(_KNOWN)}")
    for name in ("protocol", "GRID", "CLAIM"):
        if not hasattr(module, name):
            raise ValueError(f"{module.__name__}: has no {name}; a review needs protocol(task, step), GRID and CLAIM")
    grid = _grid(module.GRID)
    _check_signature("protocol", module.protocol, grid)
    changed = _changed(getattr(module, "WITHOUT", {}), module.protocol, grid)
    without = getattr(module, "without", None)
    if without is not None:
        _check_signature("without", without, grid | changed)
    claim = parse_claim(module.CLAIM)
    if claim.baseline == WITHOUT and without is None and not changed:
        raise ValueError("CLAIM: names 'without', but the module has no WITHOUT = {…} and no function without")
    devices = getattr(module, "DEVICES", None)
    return Submission(
        path.stem, str(path), source, module.protocol, grid, claim, without, changed,
        _optional(module, "timeline", ("graph", "num_rounds", "seed")),
        devices if devices is None else instance("DEVICES", devices, Devices, "make some with gossipjax.devices"),
        flag("CONSERVES_MEAN", getattr(module, "CONSERVES_MEAN", True)),
        flag("PRIVATE", getattr(module, "PRIVATE", False)),
        _optional(module, "score", ("accuracy",)),
        _optional(module, "expected_error", ("W", "targets", "step", "noise_std", "num_rounds")),
        _steps(getattr(module, "AUTHORS_STEP", {})),
    )  # fmt: skip


def _imported(path: pathlib.Path) -> types.ModuleType:
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"module={str(path)!r}: must be a Python file that exists, such as my_protocol.py")
    name = f"_reviewed_{path.stem}"  # not the name of another module
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.modules[name] = sys.modules.get(name), module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        hint = "; a review reads one file, and none beside it" if isinstance(error, ImportError) else ""
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}{hint}") from error
    return module


def _check_neighbours(path: pathlib.Path, source: str) -> None:
    """Refuse imports of modules beside the file: the archive would lack them, and their changes would not be seen."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = ["." * node.level if node.level else str(node.module)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith(".") or _is_beside(name.split(".")[0], path.parent):
                raise ValueError(f"{path}: imports {name}, which is beside it; put all of the protocol in one file")


def _is_beside(top: str, folder: pathlib.Path) -> bool:
    if top == __name__.split(".")[0]:
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    return any(pathlib.Path(place) in (folder / f"{top}.py", folder / top, folder) or
               pathlib.Path(place).parent == folder / top for place in places if place)  # fmt: skip


def _grid(grid: Any) -> dict[str, tuple[Any, ...]]:
    remedy = 'a dict of lists of numbers with a "step", such as {"step": [0.03, 0.1, 0.3]}'
    instance("GRID", grid, Mapping, remedy)
    if "step" not in grid:
        raise ValueError(f"GRID={shown(grid)}: has no step sizes; pass {remedy}")
    found = {str(name): _values(str(name), values, remedy) for name, values in grid.items()}
    if not all(_is_step(step) for step in found["step"]):
        raise ValueError(f"GRID['step']={shown(found['step'])}: must be positive numbers, and finite")
    return {"step": found["step"], **{name: values for name, values in found.items() if name != "step"}}


def _values(name: str, values: Any, remedy: str) -> tuple[Any, ...]:
    """Return the values of a setting as Python's own numbers, strings or bools."""
    given = values.tolist() if isinstance(values, np.ndarray) else values
    listed = [_plain(each) for each in given] if isinstance(given, list | tuple) else []
    for each in listed:
        if not isinstance(each, str | int | float) or (isinstance(each, float) and not math.isfinite(each)):
            raise ValueError(
                f"GRID[{name!r}]: {shown(each)} must be a finite number, a string or a bool; pass {remedy}"
            )
    if not listed or len(set(listed)) < len(listed):
        raise ValueError(f"GRID[{name!r}]={shown(values)}: must be different values, at least one; pass {remedy}")
    return tuple(listed)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _is_step(step: Any) -> bool:
    return isinstance(step, int | float) and not isinstance(step, bool) and math.isfinite(step) and step > 0


def _changed(changed: Any, protocol: Callable[..., Any], grid: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings without the new part: those of the protocol, by name."""
    found = dict(instance("WITHOUT", changed, Mapping, "such as {'momentum': 0.0}"))
    parameters = list(inspect.signature(protocol).parameters)[2:]
    known = [name for name in dict.fromkeys([*grid, *parameters]) if name != "step"]
    for name, value in found.items():
        if name not in known:
            raise ValueError(
                f"WITHOUT: {shown(name)} is no setting of protocol; settings: {', '.join(known) or 'none'}"
            )
        found[name] = _values(name, [value], "one value for each setting")[0]
    return found


def _steps(steps: Any) -> dict[str, float]:
    found = dict(instance("AUTHORS_STEP", steps, Mapping, "such as {'dpsgd': 0.1}"))
    for name, value in found.items():
        step = found[name] = _plain(value)
        if name not in BASELINES or not _is_step(step):
            raise ValueError(
                f"AUTHORS_STEP[{name!r}]={shown(step)}: must be the positive step of {', '.join(BASELINES)}"
            )
    return found


def _optional(module: types.ModuleType, name: str, arguments: tuple[str, ...]) -> Callable[..., Any] | None:
    found = getattr(module, name, None)
    if found is not None:
        _check_call(name, found, arguments, {})
    return found


def _check_signature(name: str, function: Any, settings: Mapping[str, Any]) -> None:
    _check_call(name, function, ("task", "step"), {each: None for each in settings if each != "step"})


def _check_call(name: str, function: Any, arguments: tuple[str, ...], settings: dict[str, Any]) -> None:
    """Check that a function can be called as a review does."""
    call = f"{name}({', '.join([*arguments, *settings])})"
    callable_(name, function, call)
    try:
        inspect.signature(function).bind(*arguments, **settings)
    except TypeError as error:
        raise ValueError(f"{name}: cannot be called as {call}: {error}") from error


def _close(name: str) -> bool:
    """Whether a constant looks like one that a review reads, but is not."""
    import difflib

    return bool(difflib.get_close_matches(name, [known for known in _KNOWN if known.isupper()], cutoff=0.8))
