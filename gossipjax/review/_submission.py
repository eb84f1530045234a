"""What is reviewed: a module with a protocol, its grid and one claim."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import itertools
import json
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
    source: str
    protocol: Callable[..., Any]
    grid: dict[str, tuple[float, ...]]
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
    def trials(self) -> list[dict[str, float]]:
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
    found = _CLAIM.fullmatch(" ".join(text.split())) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"CLAIM={shown(text)}: cannot be read; {GRAMMAR}")
    baseline, networks, axis, level = found.groups()
    named = tuple(each.strip() for each in (networks or "").split(",") if each.strip())
    wrong = [each for each in named if each not in NETWORKS]
    wrong += [baseline] if baseline not in (*BASELINES, WITHOUT) else []
    wrong += [axis] if axis is not None and axis not in AXES else []
    wrong += [level] if level is not None and level not in LEVELS else []
    if wrong:
        raise ValueError(f"CLAIM={text!r}: {wrong[0]!r} is not known; {GRAMMAR}")
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
    source = pathlib.Path(place).read_text(encoding="utf-8") if place else ""
    unknown = [n for n in vars(module) if n.isupper() and not n.startswith("_") and n not in _KNOWN and _close(n)]
    if unknown:
        raise ValueError(f"{module.__name__}: {unknown[0]} is not read; a review reads {', '.join(_KNOWN)}")
    for name in ("protocol", "GRID", "CLAIM"):
        if not hasattr(module, name):
            raise ValueError(f"{module.__name__}: has no {name}; a review needs protocol(task, step), GRID and CLAIM")
    grid = _grid(module.GRID)
    _check_signature("protocol", module.protocol, grid)
    without = _optional(module, "without", "without(task, step, **settings) -> protocol")
    changed = dict(instance("WITHOUT", getattr(module, "WITHOUT", {}), Mapping, "such as {'momentum': 0.0}"))
    claim = parse_claim(module.CLAIM)
    if claim.baseline == WITHOUT and without is None and not changed:
        raise ValueError("CLAIM: names 'without', but the module has no WITHOUT = {…} and no function without")
    devices = getattr(module, "DEVICES", None)
    return Submission(
        module.__name__, source, module.protocol, grid, claim, without, changed,
        _optional(module, "timeline", "timeline(graph, num_rounds, seed) -> timeline"),
        devices if devices is None else instance("DEVICES", devices, Devices, "make some with gossipjax.devices"),
        flag("CONSERVES_MEAN", getattr(module, "CONSERVES_MEAN", True)),
        flag("PRIVATE", getattr(module, "PRIVATE", False)),
        _optional(module, "score", "score(accuracy) -> number"),
        _optional(module, "expected_error", "expected_error(W, targets, step, noise_std, num_rounds) -> number"),
        _steps(getattr(module, "AUTHORS_STEP", {})),
    )  # fmt: skip


def _imported(path: pathlib.Path) -> types.ModuleType:
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"module={str(path)!r}: must be a Python file that exists, such as my_protocol.py")
    spec = importlib.util.spec_from_file_location(path.stem, path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    beside = str(path.absolute().parent)
    sys.path.insert(0, beside)  # the module may import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(beside)
    return module


def _grid(grid: Any) -> dict[str, tuple[float, ...]]:
    remedy = 'a dict of lists of numbers with a "step", such as {"step": [0.03, 0.1, 0.3]}'
    instance("GRID", grid, Mapping, remedy)
    if "step" not in grid:
        raise ValueError(f"GRID={shown(grid)}: has no step sizes; pass {remedy}")
    found: dict[str, tuple[float, ...]] = {}
    for name, values in grid.items():
        listed = list(values) if isinstance(values, list | tuple | np.ndarray) else []
        if not listed or len(set(listed)) < len(listed):
            raise ValueError(f"GRID[{name!r}]={shown(values)}: must be different values, at least one; pass {remedy}")
        try:
            json.dumps(listed)
        except TypeError as error:
            raise ValueError(f"GRID[{name!r}]={shown(values)}: must be numbers, strings or bools") from error
        found[str(name)] = tuple(listed)
    if not all(isinstance(step, int | float) and not isinstance(step, bool) and step > 0 for step in found["step"]):
        raise ValueError(f"GRID['step']={shown(found['step'])}: must be positive numbers")
    return {"step": found["step"], **{name: values for name, values in found.items() if name != "step"}}


def _steps(steps: Any) -> dict[str, float]:
    found = dict(instance("AUTHORS_STEP", steps, Mapping, "such as {'dpsgd': 0.1}"))
    for name, step in found.items():
        if name not in BASELINES or isinstance(step, bool) or not isinstance(step, int | float) or not step > 0:
            raise ValueError(
                f"AUTHORS_STEP[{name!r}]={shown(step)}: must be the positive step of {', '.join(BASELINES)}"
            )
    return found


def _optional(module: types.ModuleType, name: str, signature: str) -> Callable[..., Any] | None:
    found = getattr(module, name, None)
    return None if found is None else callable_(name, found, signature)


def _check_signature(name: str, function: Any, grid: Mapping[str, Any]) -> None:
    callable_(name, function, "protocol(task, step, **settings) -> protocol")
    try:
        inspect.signature(function).bind(None, **{setting: None for setting in grid})
    except TypeError as error:
        raise ValueError(f"{name}: cannot be called as {name}(task, {', '.join(grid)}): {error}") from error


def _close(name: str) -> bool:
    """Whether a constant looks like one that a review reads, but is not."""
    import difflib

    return bool(difflib.get_close_matches(name, [known for known in _KNOWN if known.isupper()], cutoff=0.8))
