"""Repeat a run from its record."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.tree_util import Partial

from gossipjax._base import calls, functions
from gossipjax._base.arguments import instance
from gossipjax._base.call_text import text
from gossipjax._base.calls import Array, Attribute, Call, Closure, Function, Many, Object
from gossipjax._base.hashing import array_hash
from gossipjax._base.lazy import networkx as nx
from gossipjax.results._provenance import RUN, STOP, as_json
from gossipjax.results._trajectory import Trajectory, environment, load


def _graph(directed: bool, name: str, nodes: list[Any], ends: np.ndarray, data: list[dict] | None) -> nx.Graph:
    graph = nx.DiGraph(name=name) if directed else nx.Graph(name=name)
    graph.add_nodes_from(nodes)
    several = [{}] * len(ends) if data is None else data
    graph.add_edges_from((nodes[i], nodes[j], each) for (i, j), each in zip(ends.tolist(), several, strict=True))
    return graph


_WAYS: dict[str, Callable[..., Any]] = {
    "builtins:slice": lambda start, stop, step: slice(start, stop, step),
    "scipy.sparse:csr_array": lambda data, indices, indptr, shape: scipy.sparse.csr_array(
        (data, indices, indptr), shape=shape
    ),
    "networkx:graph": _graph,
    "jax.random:wrap_key_data": lambda key_bits_array, impl: jax.random.wrap_key_data(key_bits_array, impl=impl),
}
"""Objects of other packages that a record may name, and how to build them."""


def _package(name: str) -> str:
    return name.partition(":")[0].partition(".")[0]


class _Maker:
    """Rebuilds the objects that records describe, each record once."""

    def __init__(self, given: Sequence[Any]):
        self._made: dict[str, Any] = {}
        self._named = {functions.full_name(each): each for each in given if callable(each)}
        self._arrays = {array_hash(each): each for each in given if isinstance(each, np.ndarray | jax.Array)}

    def make(self, record: Any) -> Any:
        """Rebuild one object.

        Raises:
            ValueError: if it may not be looked up, was not passed in ``given``, or has changed.
        """
        if not dataclasses.is_dataclass(record):
            return record
        name = as_json(record)  # records of 1, 1.0 and True are equal, and what they stand for is not the same
        if name not in self._made:
            self._made[name] = self._make(record)
        return self._made[name]

    def _make(self, record: Any) -> Any:
        ways: dict[type, Callable[[Any], Any]] = {
            Call: self._call,
            Attribute: self._attribute,
            Array: self._array,
            Many: self._many,
            Function: self._function,
            Closure: self._closure,
            Object: self._object,
        }
        if type(record) not in ways:
            raise ValueError(f"{text(record)} cannot be made again: pass what a builder made, or plain values")
        return ways[type(record)](record)

    def _attribute(self, record: Attribute) -> Any:
        if record.name not in calls.PARTS:
            raise ValueError(f"{record.name} is no part of what a builder makes: the file is not one of ours")
        return getattr(self.make(record.of), record.name)

    def _many(self, record: Many) -> Any:
        values = list(map(self.make, record.values))
        if record.kind == "dict":
            return dict(zip(map(self.make, record.names), values, strict=True))
        return {"list": list, "set": frozenset, "tuple": tuple}[record.kind](values)

    def _call(self, record: Call) -> Any:
        if record.function == RUN:
            return simulate_again({name: self.make(value) for name, value in record.arguments})
        builder = functions.look_up(record.function) if _package(record.function) == "gossipjax" else None
        if builder is None or calls.citations(builder) is None:
            raise ValueError(f"{record.function} is no builder of gossipjax: the file is not one of ours")
        arguments = {name: self.make(value) for name, value in record.arguments}
        several = [p.name for p in inspect.signature(builder).parameters.values() if p.kind is p.VAR_POSITIONAL]
        before = [] if not several else [n for n in arguments if n not in several][: list(arguments).index(several[0])]
        positional = [*(arguments.pop(name) for name in before), *(arguments.pop(several[0]) if several else ())]
        result = builder(*positional, **arguments)
        again = calls.record_of(result)
        if record.checksum is not None and isinstance(again, Call) and again.checksum != record.checksum:
            digest = str(again.checksum)[:12]
            raise ValueError(
                f"{text(record)} gives something else here (sha256 {digest}): the files it reads, or the program, have "
                "changed since the run"
            )
        return result

    def _array(self, record: Array) -> Any:
        values = self._arrays.get(record.sha256) if record.values is None else record.values
        if values is None:
            raise ValueError(f"{text(record)} was too large to be kept with the run: pass it in given=[…]")
        return jnp.asarray(values) if record.device else np.asarray(values)

    def _function(self, record: Function) -> Any:
        name = record.name
        if name in self._named:
            return self._given(record)
        if _package(name) in functions.VERSIONED:
            return functions.look_up(name)
        raise ValueError(f"{name} is a function of your own: pass it in given=[{name.rpartition(':')[2]}]")

    def _given(self, record: Function | Closure) -> Any:
        """Return a function from ``given``, if it is the one that was run."""
        function = self._named[record.name]
        if record.code and getattr(calls.write_down(function), "code", "") != record.code:
            raise ValueError(f"{record.name} has another code than in the run: pass the function that was run")
        if isinstance(record, Closure) and as_json(calls.write_down(function)) != as_json(record):
            raise ValueError(
                f"{record.name} captured other values than in the run, {text(calls.write_down(function))} and not "
                f"{text(record)}: pass the function that was run"
            )
        return function

    def _closure(self, record: Closure) -> Any:
        if record.name in self._named:
            return self._given(record)
        if _package(record.name) not in functions.VERSIONED:
            raise ValueError(f"{record.name} is a function of your own: pass it in given=[…]")
        captured = {name: self.make(value) for name, value in record.captured}
        named = {name: self.make(value) for name, value in record.named_defaults}
        return calls.closed(record, captured, tuple(map(self.make, record.defaults)), named)

    def _object(self, record: Object) -> Any:
        fields = {name: self.make(value) for name, value in record.fields}
        if record.kind.endswith((":Partial", ":partial")):
            way = Partial if record.kind.startswith("jax") else functools.partial
            return way(fields["func"], *fields["args"], **fields["keywords"])
        if record.kind in _WAYS:
            return _WAYS[record.kind](**fields)
        kind = self._function(Function(record.kind))
        if not (isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"))):
            raise ValueError(f"{record.kind} is no class of values: the file is not one of ours")
        return kind(**fields)


def repeat(path: str | os.PathLike[str] | Trajectory, *, given: Sequence[Any] = ()) -> Trajectory:
    """Repeat the run that a trajectory records, from its file.

    The builders of the network, the data, the protocol and the observers are called with the same arguments as before,
    and then :func:`gossipjax.simulate` with the same key, start and records. On the same machine with the same versions
    the records are equal bit for bit.

    Args:
        path: of a file that :meth:`Trajectory.save` wrote; or the trajectory.
        given: what the file cannot hold: your own functions and classes, which are matched by name and must have the
            same code as in the run; arrays above 16 MiB, which are matched by hash.

    Raises:
        ValueError: if the file does not exist or has no record of its call, data have changed, something is missing
            from ``given``, or floats have another width than in the run.

    Warns:
        UserWarning: if versions or devices differ from those of the run: records may then differ by rounding.
    """
    trajectory = path if isinstance(path, Trajectory) else load(path)
    record = calls.record_of(trajectory)
    if not isinstance(record, Call):
        raise ValueError("this trajectory has no record of its call: only what simulate returned, or saved, has one")
    instance("given", given, (list, tuple), "pass your functions, classes and arrays in a list")
    _compare(trajectory.manifest)
    made = {name: _Maker(given).make(value) for name, value in record.arguments}
    return simulate_again(made)


def simulate_again(arguments: dict[str, Any]) -> Trajectory:
    """Call :func:`gossipjax.simulate` as before; if a callback stopped the run, stop at the same event."""
    from gossipjax._engine.simulate import simulate

    arguments = dict(arguments)
    event = arguments.pop(STOP, None)
    stop = None if event is None else Partial(_reached, event)
    return simulate(**arguments, callback=stop, throw=False)


def _reached(event: int, record: dict[str, Any]) -> bool:
    return record["event"] >= event


def _compare(then: dict[str, Any]) -> None:
    """Compare the device and the versions of a run with those of this process."""
    now = environment()
    if then["x64"] != now["x64"]:
        raise ValueError(
            f"the run had jax_enable_x64={then['x64']}: call gossipjax.configure(x64={then['x64']}) and repeat it"
        )
    other = [name for name in ("versions", "device", "code") if then[name] != now[name]]
    if other:
        warnings.warn(
            f"the run had another {' and another '.join(other)} ({', '.join(str(then[name]) for name in other)}): "
            "records may differ by rounding",
            stacklevel=3,
        )
