"""Hash what a run computes, so that saved pieces of one run are never taken for those of another."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import re
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.tree_util import Partial

from gossipjax._base import functions
from gossipjax._base.describe import describe
from gossipjax._base.hashing import add_array, contents
from gossipjax._engine.probe import probe, step_program
from gossipjax.observe._models import Observer, measure_program
from gossipjax.types import Protocol, Timeline


class Origin(NamedTuple):
    """Everything that determines the numbers of a run except its start and its length."""

    key: Any
    protocol: Protocol
    timeline: Timeline
    observers: tuple[Observer, ...]
    form: Any
    """Shapes of the stacked start, without rows of messages."""


def identity(origin: Origin) -> dict[str, Any]:
    """Return what another part of the same run must share: a few readable entries, and the hash of everything."""
    facts = origin.timeline.properties
    return {
        "key": np.asarray(jax.random.key_data(origin.key)).tolist(),
        "protocol": describe(origin.protocol),
        "num_nodes": facts.num_nodes,
        "num_rows": facts.num_rows,
        "variables": [variable.name for observer in origin.observers for variable in observer.variables],
        "program or data": fingerprint(origin),
    }


def fingerprint(origin: Origin) -> str:
    """Hash the programs of one event and of one record, and all their arrays except the start and the plan.

    Numbers that are compiled in, such as the learning rate of ``optax.sgd(0.1)``, are constants of the program. For a
    function that runs on the host (``jax.pure_callback``), the code and the values that it closes over are hashed.
    """
    _, protocol, timeline, observers, form = origin
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    step = step_program(key, protocol, timeline, form)
    found = _Hash()
    found.program(step.jaxpr)
    found.text(repr(step.out_info[2].value.constant))
    shapes = probe(key, protocol, timeline, form)
    for observer in observers:
        found.program(measure_program(observer, shapes.x, shapes.versions, shapes.meter).jaxpr)
    found.arrays((protocol, timeline.shared, observers))
    if timeline.seconds is not None:
        found.text(f"{timeline.seconds.__module__}.{timeline.seconds.__qualname__}")
    return found.hexdigest()


def of_start(start: Any) -> str:
    """Hash a start: stacked arrays, or the function of a key that makes them."""
    found = _Hash()
    if isinstance(start, Partial):
        found.program(jax.make_jaxpr(lambda start, key: start(key))(start, jax.random.key(0)))
    found.arrays(start)
    return found.hexdigest()


class PlanHash:
    """Hash of the first events of a timeline, extended as the run goes on."""

    def __init__(self, timeline: Timeline):
        """Begin before the first event."""
        self._leaves = jax.tree.leaves(timeline.xs)
        self._hashes = [hashlib.sha256(f"{leaf.dtype}{leaf.shape[1:]}".encode()) for leaf in self._leaves]
        self._done = 0

    def upto(self, done: int) -> str:
        """Return the hash of the first ``done`` events; ``done`` may not decrease from call to call."""
        for leaf, each in zip(self._leaves, self._hashes, strict=True):
            each.update(contents(leaf[self._done : done]))
        self._done = done
        return hashlib.sha256("".join(each.hexdigest() for each in self._hashes).encode()).hexdigest()


class _Hash:
    """A hash of programs, arrays and Python functions that is the same in every process."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._seen: dict[int, Any] = {}
        self.hexdigest = self._digest.hexdigest

    def text(self, words: str) -> None:
        """Add text without the addresses of objects in it."""
        self._digest.update(re.sub("0x[0-9a-f]+", "", words).encode() + b"\n")

    def arrays(self, tree: Any) -> None:
        """Add the leaves of a pytree."""
        for leaf in jax.tree.leaves(tree):
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            add_array(self._digest, leaf)

    def program(self, closed: ClosedJaxpr) -> None:
        """Add a program and all its constants; its text lacks the constants of the functions inside it."""
        self.text(str(closed.jaxpr))
        self._inside(closed)

    def _inside(self, value: Any) -> None:
        """Add what the text of a program does not show."""
        match value:
            case ClosedJaxpr():
                if self._first_time(value):
                    self.arrays(value.consts)
                    self._inside(value.jaxpr)
            case Jaxpr():
                for equation in value.eqns:
                    self.arrays([each.val for each in equation.invars if isinstance(each, Literal)])
                    for name, inside in equation.params.items():
                        self.code(inside) if "callback" in name else self._inside(inside)
            case tuple() | list():
                for each in value:
                    self._inside(each)

    def code(self, value: Any) -> None:
        """Add a Python function: its code, the values it closes over, and the functions and values it names."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return self.text(repr(value))
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self.arrays(value)
        if isinstance(value, types.FunctionType) and functions.is_versioned(value):
            # Only its own code: what it names is of this package too, and checks of its annotations are no part of it.
            return self.text(f"{functions.full_name(value)} {functions.code_hash(inspect.unwrap(value))}")
        if self._first_time(value):
            self.text(f"{type(value).__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}")
            if isinstance(value, types.CodeType):
                self.text(f"{value.co_code.hex()} {value.co_names} {value.co_varnames}")
            for each in _parts(value):
                self.code(each)
        return None

    def _first_time(self, value: Any) -> bool:
        if id(value) in self._seen:
            return False
        self._seen[id(value)] = value  # kept, so that no other object gets its address
        return True


def _parts(value: Any) -> Sequence[Any]:
    """Return the parts of an object that determine what a call of it does."""
    match value:
        case types.CodeType():
            return value.co_consts
        case types.FunctionType():
            return (value.__code__, value.__defaults__, value.__kwdefaults__, *_bound(value))
        case types.MethodType():
            return (value.__func__, value.__self__)
        case functools.partial():
            return (value.func, value.args, value.keywords)
        case tuple() | list():
            return value
        case dict():
            return list(value.items())
        case set() | frozenset():
            return sorted(map(repr, value))
    if not callable(value) or isinstance(value, type):
        return ()
    if dataclasses.is_dataclass(value):
        return (type(value).__call__, [getattr(value, field.name) for field in dataclasses.fields(value)])
    return (type(value).__call__, getattr(value, "__dict__", None))


def _bound(function: types.FunctionType) -> Sequence[Any]:
    """Return the values that a function closes over, and the globals of its own package that its code names."""
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not filled yet: a function that names itself
            continue
    named = [function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__]
    return cells + [each for each in named if not isinstance(each, types.ModuleType) and _is_own(function, each)]


def _is_own(function: types.FunctionType, value: Any) -> bool:
    home = getattr(value, "__module__", None)
    return home is None or str(home).partition(".")[0] == str(function.__module__).partition(".")[0]
