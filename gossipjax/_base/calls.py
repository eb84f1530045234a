"""Call records: the arguments of a builder's call, attached to its result.

``@recorded`` puts a :class:`Call` into the ``__dict__`` of the builder's result. The record belongs to that one object:
``dataclasses.replace``, ``_replace``, ``jax.tree.map`` and ``jit`` return new objects without a record, since the
builder did not make them. Equality, hashes and pytree structures ignore the record, so it never causes a recompilation.

A record is hashable and small. It holds the hashes of arrays, with a copy of their values up to :data:`KEPT_BYTES`, and
all other values by their parts (:func:`write_down`). A record says how a value was built, so that a run can be repeated
and cited; :mod:`gossipjax._base.npz` saves the value itself, so that a plan can be loaded without being planned again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import pathlib
import re
import types
from collections.abc import Callable, Hashable, Mapping, Set
from typing import Any, TypeVar

import jax
import numpy as np
import scipy.sparse

from gossipjax._base.functions import by_name, code_hash, codes_in, full_name, is_versioned, look_up
from gossipjax._base.hashing import array_hash, file_hash
from gossipjax._base.lazy import is_instance

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_Writer = Callable[[Any], Hashable]

KEPT_BYTES = 16 << 20
"""Size up to which a record keeps an array's values; of larger arrays it keeps the hash."""
PARTS = ("timeline", "init", "topology")
"""Attributes that are used apart from their object: a plan's timeline, a task's ``init``, the graph of cliques."""
_RECORD, _CITES = "_gossipjax_call", "_gossipjax_cites"


@dataclasses.dataclass(frozen=True)
class Array:
    """An array by its content; ``values`` is a copy, or None above :data:`KEPT_BYTES`."""

    sha256: str
    dtype: str
    shape: tuple[int, ...]
    device: bool
    """Whether it was a JAX array; else a NumPy array."""
    values: Any = dataclasses.field(compare=False, repr=False, default=None)


@dataclasses.dataclass(frozen=True)
class Many:
    """A list, a tuple, a set of names or a dict of other values; ``names`` are the keys of a dict."""

    kind: str
    values: tuple[Hashable, ...]
    names: tuple[Hashable, ...] = ()


@dataclasses.dataclass(frozen=True)
class Function:
    """A function or class that its module defines by name, as ``module:qualname``."""

    name: str
    code: str = dataclasses.field(default="", repr=False)
    """Hash of its bytecode, constants and defaults; empty in :data:`VERSIONED` packages, which have versions."""


@dataclasses.dataclass(frozen=True)
class Closure:
    """A function defined inside another one: the name of its code, captured values, and default arguments."""

    name: str
    captured: tuple[tuple[str, Hashable], ...]
    defaults: tuple[Hashable, ...] = ()
    code: str = dataclasses.field(default="", repr=False)
    """Hash of its bytecode and constants."""
    named_defaults: tuple[tuple[str, Hashable], ...] = ()
    """Default values of keyword-only arguments."""


@dataclasses.dataclass(frozen=True)
class Object:
    """An instance of a NamedTuple, a dataclass or a partial function, by its fields."""

    kind: str
    fields: tuple[tuple[str, Hashable], ...]


@dataclasses.dataclass(frozen=True)
class Opaque:
    """A value that can be shown but not rebuilt."""

    text: str


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a builder of this package: its name ``module:qualname`` and all its arguments, defaults included."""

    function: str
    arguments: tuple[tuple[str, Hashable], ...]
    checksum: str | None = None
    """Checksum of the result (data sets, graphs) or of the file that was read: detects that it is a different one."""


@dataclasses.dataclass(frozen=True)
class Attribute:
    """An attribute of the result of a call, such as the timeline of a plan."""

    of: Call
    name: str


def recorded(*cites: str, file: str | None = None) -> Callable[[F], F]:
    """Decorate a builder so that its results carry a :class:`Call`.

    Builders are decorated with this, and classes of results with :func:`gossipjax._base.display.displayed`: nothing
    carries both. They cannot be one, since a builder such as ``ring`` knows its arguments and not how a topology is
    shown, and a topology is displayed the same way whichever builder made it.

    Args:
        *cites: keys in ``references.bib`` of the works to cite if the builder was used.
        file: argument of the builder that is the path of the file that it reads. The checksum of a result that has
            none of its own is that of the file.
    """

    def decorate(builder: F) -> F:
        signature = inspect.signature(builder)

        @functools.wraps(builder)
        def build(*args: Any, **kwargs: Any) -> Any:
            try:
                result = builder(*args, **kwargs)
            except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
                if not _traced(args, kwargs):
                    raise  # in a function that the builder was given and traces itself
                raise TypeError(
                    f"{full_name(build)}: an argument is traced by jax.grad, jit or vmap, and this builder works with "
                    "its value on the host; call it outside of the traced function. Times and partners of a plan have "
                    "no gradient; its weights have one (timeline.with_mixing), and so have mean outcomes with respect "
                    "to the rates of its clocks (learn.rate_gradient)"
                ) from error
            bound = signature.bind(*args, **kwargs)
            if "self" in bound.arguments and record_of(bound.arguments["self"]) is None:
                return result  # a method of an object without a record: the result is recorded by its content
            bound.apply_defaults()
            arguments = tuple((key, write_down(value)) for key, value in bound.arguments.items())
            checksum = getattr(result, "checksum", None)
            if checksum is None and file is not None:
                checksum = file_hash(bound.arguments[file])
            attach(result, Call(full_name(build), arguments, checksum))
            return result

        setattr(build, _CITES, cites)
        return build  # type: ignore[return-value]

    return decorate


def _traced(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs)))


def recordable(cls: type[T]) -> type[T]:
    """Subclass a NamedTuple so that its instances have a ``__dict__``, and can carry a record."""
    inherited = {name: getattr(cls, name) for name in ("__doc__", "__module__", "__qualname__")}
    return type(cls.__name__, (cls,), inherited)


def attach(value: Any, call: Call) -> None:
    """Attach a record to an object, and to its :data:`PARTS` the records of these attributes."""
    if not hasattr(value, "__dict__"):
        return  # an array or a plain tuple, which is recorded by its content
    object.__setattr__(value, _RECORD, call)
    for name in PARTS:
        part = value.__dict__.get(name)
        if part is not None and record_of(part) is None and hasattr(part, "__dict__"):
            part.__dict__[_RECORD] = Attribute(call, name)


def record_of(value: Any) -> Call | Attribute | None:
    """Return the record of a builder's result; None for other values."""
    return getattr(value, "__dict__", {}).get(_RECORD)


def citations(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Return the keys that a builder cites; None if it is not a recorded builder."""
    return getattr(function, _CITES, None)


def write_down(value: Any, above: tuple[int, ...] = ()) -> Hashable:
    """Return a value's record, or else describe the value by its parts. Never fails; unknown types become Opaque.

    Args:
        value: anything.
        above: identities of the enclosing values.
    """
    if (record := record_of(value)) is not None:
        return record
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return _of_array(value)
    if id(value) in above:
        return Opaque("itself")
    inside = functools.partial(write_down, above=(*above, id(value)))
    if _is_names(value) or (isinstance(value, list | tuple | Mapping) and not hasattr(value, "_fields")):
        return _many(value, inside)
    if isinstance(value, functools.partial):
        return _partial(value, inside)
    if scipy.sparse.issparse(value):
        return _sparse(value)
    if isinstance(value, type | types.FunctionType) or (callable(value) and by_name(value)):
        return _function(value, inside)
    return _object(value, inside)


def closed(
    record: Closure, captured: Mapping[str, Any], defaults: tuple[Any, ...], named_defaults: dict[str, Any]
) -> types.FunctionType:
    """Rebuild a closure from the code inside the function that contains it.

    Raises:
        ValueError: if the module no longer has this code, or the code has changed.
    """
    module, _, inside = record.name.partition(":")
    outer = inspect.unwrap(look_up(f"{module}:{inside.partition('.<locals>')[0]}"))
    for code in codes_in(outer.__code__):
        if code.co_qualname == inside and set(code.co_freevars) == set(captured):
            cells = tuple(types.CellType(captured[name]) for name in code.co_freevars)
            made = types.FunctionType(code, outer.__globals__, code.co_name, defaults or None, cells)
            made.__qualname__, made.__kwdefaults__ = code.co_qualname, named_defaults or None
            if code_hash(made) == record.code:
                return made
    raise ValueError(f"{record.name} is not as it was in the run: install the version that the file names")


def _is_names(value: Any) -> bool:
    return isinstance(value, Set) and all(isinstance(each, str) for each in value)


def _many(value: Any, inside: _Writer) -> Many:
    if isinstance(value, Mapping):
        return Many("dict", tuple(map(inside, value.values())), tuple(map(inside, value)))
    if isinstance(value, Set):
        return Many("set", tuple(sorted(value)))
    return Many("list" if isinstance(value, list) else "tuple", tuple(map(inside, value)))


def _of_array(value: Any) -> Hashable:
    if isinstance(value, jax.core.Tracer):
        return Opaque("a traced number")
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return _key(value)
    return _array(value, device=isinstance(value, jax.Array))


def _array(value: Any, *, device: bool) -> Hashable:
    plain = np.asarray(value)
    if plain.dtype.hasobject:
        return Opaque(f"array of {plain.dtype}")
    kept = plain.copy() if plain.nbytes <= KEPT_BYTES else None
    return Array(array_hash(plain), str(plain.dtype), plain.shape, device, kept)


def _key(value: Any) -> Hashable:
    data = _array(np.asarray(jax.random.key_data(value)), device=True)
    return Object("jax.random:wrap_key_data", (("key_bits_array", data), ("impl", str(jax.random.key_impl(value)))))


def _sparse(value: Any) -> Hashable:
    rows = value.tocsr()
    parts = (("data", rows.data), ("indices", rows.indices), ("indptr", rows.indptr), ("shape", tuple(rows.shape)))
    return Object("scipy.sparse:csr_array", tuple((name, write_down(part)) for name, part in parts))


def _graph(value: Any, inside: _Writer) -> Hashable:
    """Record a NetworkX graph: its nodes in order, and its edges by the positions of their ends."""
    place = {node: number for number, node in enumerate(value)}
    nodes = [node.item() if isinstance(node, np.generic) else node for node in value]
    ends = np.array([(place[u], place[v]) for u, v in value.edges], np.int32).reshape(-1, 2)
    data = [each for _, _, each in value.edges(data=True)]
    named = {"directed": value.is_directed(), "name": str(value.name), "nodes": nodes, "ends": ends}
    named["data"] = data if any(data) else None
    return Object("networkx:graph", tuple((name, inside(part)) for name, part in named.items()))


def _partial(value: functools.partial, inside: _Writer) -> Hashable:
    fields = [(name, inside(getattr(value, name))) for name in ("func", "args", "keywords")]
    kind = "functools:partial" if type(value) is functools.partial else "jax.tree_util:Partial"
    return Object(kind, tuple(fields))


def _function(value: Any, inside: _Writer) -> Hashable:
    plain, name = isinstance(value, types.FunctionType), full_name(value)
    if by_name(value):
        return Function(name, _own_hash(value, inside) if plain and not is_versioned(value) else "")
    if not plain:
        return Opaque(name)
    names, cells = value.__code__.co_freevars, value.__closure__ or ()
    captured = tuple((name, _cell(cell, inside)) for name, cell in zip(names, cells, strict=True))
    defaults, named = _defaults(value, inside)
    return Closure(name, captured, defaults, code_hash(value), named)


def _defaults(function: types.FunctionType, inside: _Writer) -> tuple[tuple[Hashable, ...], tuple[Any, ...]]:
    named = (function.__kwdefaults__ or {}).items()
    return tuple(map(inside, function.__defaults__ or ())), tuple((name, inside(value)) for name, value in named)


def _own_hash(function: types.FunctionType, inside: _Writer) -> str:
    return hashlib.sha256(f"{code_hash(function)} {_defaults(function, inside)}".encode()).hexdigest()


def _cell(cell: types.CellType, inside: _Writer) -> Hashable:
    try:
        return inside(cell.cell_contents)
    except ValueError:
        return Opaque("not yet bound")


def _object(value: Any, inside: _Writer) -> Hashable:
    """Record a dataclass, a NamedTuple or a slice by its fields, or a NetworkX graph."""
    if is_instance(value, "networkx", "Graph") and not value.is_multigraph():
        return _graph(value, inside)
    names = ["start", "stop", "step"] if isinstance(value, slice) else field_names(value)
    if names is None:
        return Opaque(_readable(value))
    return Object(full_name(type(value)), tuple((name, inside(getattr(value, name))) for name in names))


def field_names(value: Any) -> list[str] | None:
    """Return the names of the fields from which a dataclass or NamedTuple is made; None for other values."""
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value) if field.init]
    return list(value._fields) if isinstance(value, tuple) and hasattr(value, "_fields") else None


def _readable(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    try:
        # Addresses differ between processes.
        return re.sub(" at 0x[0-9a-f]+", "", f"{type(value).__name__} {value!r}")[:200]
    except Exception:  # a broken repr must not stop a run
        return type(value).__name__
