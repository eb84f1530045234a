"""Timelines whose every event is written out on the host: the form of all asynchronous planners, and of packed ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from gossipjax.mixing import GroupMixing, PairMixing
from gossipjax.timeline.facts import with_found_facts
from gossipjax.types import NOBODY, Event, Properties, Timeline

_PAIRS = ("senders", "receivers", "weights", "keep")
_GROUPS = ("members", "weights", "targets")
_EVENT = ("index", "time", "nodes", "rows", "begin", "messages", "sources")
FIELDS = frozenset({*_EVENT, *_PAIRS, *_GROUPS, "parts"})
"""Names that ``xs`` and ``static`` of a planned timeline may hold."""


def planned_event(key: Key[Array, ""], static: dict[str, Array], x: dict[str, Array]) -> Event:
    """Read one event off the plan: each field is found in ``x``, or in ``static`` if all events share it."""
    del key
    field = static | x
    mixing: Any = None
    if "members" in field:
        mixing = GroupMixing(field["members"], field["weights"], field["targets"], field.get("parts"))
    elif "senders" in field:
        mixing = PairMixing(*(field[name] for name in _PAIRS))
    return Event(mixing=mixing, **{name: field[name] for name in _EVENT if name in field})


def planned(xs: dict[str, np.ndarray], properties: Properties, *, shared: dict[str, Any] | None = None) -> Timeline:
    """Make a timeline of T events in the order in which they happen.

    Fields of an event (see :class:`~gossipjax.types.Event`), per event with leading axis T in ``xs``, or in ``shared``
    without it where all events have the same:

    * ``time (T,)`` seconds, not decreasing; it is given to each acting node;
    * ``nodes (T, k)``, ``rows (T, k)``, ``begin (T, b)``; a node from ``num_nodes`` on stands for nobody;
    * transfers ``senders, receivers, weights, keep (T, m)``; a receiver past the last row stands for "no transfer"; or
      groups ``members, weights (T, g, s)``, ``targets (T, g, t)`` and maybe ``parts (T, g, s)``;
    * ``messages (T, m)`` and ``sources (T, m)``.

    Args:
        xs: per-event arrays; floats in float64 keep weights that sum to one in either precision.
        properties: static facts; ``row_stochastic``, ``own_rows`` and ``meetings`` are read off the arrays.
        shared: fields that all events share.

    Raises:
        ValueError: no event, unknown fields, leading axes that differ, times that decrease, or no acting lanes.
    """
    shared = shared or {}
    if unknown := sorted((xs.keys() | shared.keys()) - FIELDS):
        raise ValueError(f"a planned event has no field {unknown[0]!r}; choose among {', '.join(sorted(FIELDS))}")
    if "nodes" not in xs:
        raise ValueError("a planned timeline says who acts: give nodes (T, k), with num_nodes for nobody")
    time = np.asarray(xs["time"], np.float64)
    lengths = {name: len(array) for name, array in xs.items()}
    if len(set(lengths.values())) != 1 or not time.size:
        raise ValueError(f"the events of {properties.name} have fields of lengths {lengths}; all must be the same, ≥ 1")
    if not np.isfinite(time).all() or (np.diff(time) < 0).any():
        raise ValueError(f"the events of {properties.name} are not in the order of finite times; sort them first")
    properties = with_found_facts(properties, xs, shared)
    lanes = np.shape(xs["nodes"])
    index = np.arange(time.size, dtype=np.uint32)
    plan = {name: _narrow(array) for name, array in xs.items() if name != "time"}
    for name in {"nodes", "rows"} & plan.keys():
        plan[name] = np.where(np.asarray(xs["nodes"]) < properties.num_nodes, plan[name], NOBODY).astype(np.int32)
    plan["index"] = np.ascontiguousarray(np.broadcast_to(index[:, None], lanes))
    plan["time"] = np.ascontiguousarray(np.broadcast_to(time.astype(np.float32)[:, None], lanes))
    return Timeline(plan, jax.tree.map(jnp.asarray, shared), planned_event, properties)


def _narrow(array: PyTree) -> np.ndarray:
    """Indices as int32, counts as uint32, weights as they are."""
    array = np.asarray(array)
    if array.dtype.kind == "u":
        return array.astype(np.uint32)
    return array.astype(np.int32) if array.dtype.kind == "i" else array
