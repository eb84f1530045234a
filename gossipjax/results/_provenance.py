"""Provenance of a run: its call as text for the manifest and as JSON for its file, and its citations."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gossipjax._base import calls
from gossipjax._base.call_json import to_json
from gossipjax._base.call_text import text
from gossipjax._base.calls import Array, Call
from gossipjax._base.functions import look_up
from gossipjax._base.leaves import near

RUN, STOP = "gossipjax:simulate", "stopped_at"


# --- a run as a call --------------------------------------------------------------------------------------------------


def call_record(key: Any, protocol: Any, timeline: Any, x0: Any, **settings: Any) -> Call:
    """Record a call of :func:`gossipjax.simulate` with every argument on which its records depend."""
    named = {"key": key, "protocol": protocol, "timeline": timeline} | settings
    arguments = {name: calls.write_down(value) for name, value in named.items()} | {"x0": _start(x0)}
    return Call(RUN, tuple(arguments.items()))


def stopped_call(call: Call, event: int) -> Call:
    """Add to a run's call the event at whose record its callback stopped it."""
    return dataclasses.replace(call, arguments=(*call.arguments, (STOP, event)))


def describe_call(call: Call) -> dict[str, str]:
    """Describe a call for the manifest: its main arguments as text, and a hash of all arguments."""
    shown = {name: text(value) for name, value in call.arguments if name in ("protocol", "timeline", "x0", "observers")}
    return shown | {"call_sha256": hashlib.sha256(as_json(call).encode()).hexdigest()}


def as_json(record: Any) -> str:
    """Return a record as JSON text, without the arrays that it keeps."""
    return to_json(record)[0]


def _near(leaf: Any) -> Any:
    return np.asarray(leaf) if near(leaf) else leaf


def _first_row(leaf: Any) -> Any:
    return jnp.asarray(np.asarray(leaf)[0]) if near(leaf) and isinstance(leaf, jax.Array) else leaf[0]


def _start(x0: Any) -> Any:
    """Record the start parameters; equal rows are stored as one row and their number."""
    leaves = [] if calls.record_of(x0) is not None else jax.tree.leaves(x0)
    if callable(x0) or not leaves or any(np.ndim(leaf) == 0 for leaf in leaves):
        return calls.write_down(x0)
    rows = np.shape(leaves[0])[0]
    if rows > 1 and all(bool((leaf == leaf[:1]).all()) for leaf in map(_near, leaves)):
        one = calls.write_down(jax.tree.map(_first_row, x0))
        return Call("gossipjax:replicate", (("params", one), ("rows", rows)))
    return calls.write_down(x0)


# --- citations --------------------------------------------------------------------------------------------------------


def cite(record: Any) -> str:
    """Return the BibTeX entries of all that a run used: this package, JAX, protocol, sharing, network, data."""
    keys = dict.fromkeys(["gossipjax", "jax"])
    for each in _inside(record):
        if isinstance(each, Call):
            keys |= dict.fromkeys(calls.citations(look_up(each.function)) or ())
    entries = references()
    return "\n\n".join(entries[key] for key in keys)


def references() -> dict[str, str]:
    """Return all BibTeX entries of the package, by key."""
    source = importlib.resources.files("gossipjax").joinpath("references.bib").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=@)", source.strip())
    return {re.match(r"@\w+{([^,]+),", entry)[1]: entry.strip() for entry in entries}  # type: ignore[index]


def _inside(record: Any) -> Iterator[Any]:
    """Iterate over a record and all records inside it."""
    yield record
    if isinstance(record, tuple):
        for each in record:
            yield from _inside(each)
    elif dataclasses.is_dataclass(record) and not isinstance(record, Array):
        for field in dataclasses.fields(record):
            yield from _inside(getattr(record, field.name))
