"""Timelines that list every event on the host, as those of asynchronous planners and packed timelines do."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key

from gossipjax._base.arguments import instance, shown
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.mixing._apply import GroupMixing, PairMixing
from gossipjax.timeline._facts import with_found_facts
from gossipjax.timeline._moments import written_times
from gossipjax.types import NOBODY, Event, Timeline

_PAIRS = ("senders", "receivers", "weights", "keep")
_GROUPS = ("members", "weights", "targets")
_EVENT = ("index", "time", "nodes", "rows", "begin", "messages", "speakers", "sources")
_AXES = {"nodes": 1, "rows": 1, "begin": 1, "messages": 1, "sources": 1, "senders": 1, "receivers": 1, "keep": 1}
_AXES |= {"members": 2, "targets": 2, "parts": 2, "speakers": 1}
"""Number of axes of each field of one event; weights have those of their mixing."""
_LARGEST = {"messages": 2**32 - 1}
_SMALLEST = {"parts": -1}
FIELDS = frozenset({*_EVENT, *_PAIRS, *_GROUPS, "parts"}) - {"index"}
"""Names that ``xs`` and ``shared`` of a planned timeline may hold."""


def planned_event(key: Key[Array, ""], shared: dict[str, Array], x: dict[str, Array]) -> Event:
    """Build one event: each field comes from ``x``, or from ``shared`` if all events share it."""
    del key
    field = shared | x
    mixing: Any = None
    if "members" in field:
        mixing = GroupMixing(field["members"], field["weights"], field["targets"], field.get("parts"))
    elif "senders" in field:
        mixing = PairMixing(*(field[name] for name in _PAIRS))
    given = {name: field[name] for name in _EVENT if name in field}
    return Event(mixing=mixing, **(given | {"time": given["time"].astype(jnp.float32)}))


@recorded()
def from_events(xs: dict[str, Any], properties: Properties, *, shared: dict[str, Any] | None = None) -> Timeline:
    """Build a timeline from a list of T ≥ 0 events, in the order of time.

    The fields of :class:`~gossipjax.Event`, with leading axis T in ``xs``, or without it in ``shared`` if all events
    have the same value:

    * ``time (T,)`` in seconds from 0 on, not decreasing, stored in float64;
    * ``nodes (T, k)``, ``rows (T, k)``, ``begin (T, b)``; a node from ``num_nodes`` on is an unused lane;
    * transfers ``senders, receivers, weights, keep (T, m)``; a receiver past the last row stands for "no transfer"; or
      groups ``members, weights (T, g, s)``, ``targets (T, g, t)`` and maybe ``parts (T, g, s)``;
    * ``messages (T, m)``, and the rows that send them, ``speakers (T, m)``, which sharings need whose messages are not
      whole models; without them, the senders of the transfers, one for each of ``messages``;
    * ``sources (T, m)``.

    Two nodes meet after 1 s and average; after 3 s node 2 trains, and nobody meets.

    >>> import numpy as np
    >>> from gossipjax import Properties, timeline
    >>> nobody = 2**31 - 1
    >>> pair, none = [0, 1], [nobody, nobody]
    >>> events = {"time": [1.0, 3.0], "nodes": [[nobody], [2]]}
    >>> events |= {"senders": [pair, none], "receivers": [pair[::-1], none]}
    >>> halves = {"weights": np.full(2, 0.5), "keep": np.full(2, 0.5)}
    >>> plan = timeline.from_events(events, Properties(3, 3, "by hand", {"doubly_stochastic"}), shared=halves)
    >>> len(plan), "meetings" in plan.properties
    (2, True)

    Args:
        xs: per-event arrays; pass floats in float64, so that weights sum to one in both precisions.
        properties: static facts; ``row_stochastic``, ``own_rows`` and ``meetings`` are computed from the arrays.
        shared: fields that all events share.

    Raises:
        ValueError: if a field is unknown or missing, or lengths or axes differ; if times decrease, an index is out of
            range or given as a mask, a row is written twice, a weight is not finite, or a source is not a node. The
            message names the first such event.
    """
    return listed(xs, properties, shared=shared)


def listed(xs: Any, properties: Any, *, shared: Any = None) -> Timeline:
    """Build the timeline of :func:`from_events` without a record, for builders that are recorded by their arguments.

    A record holds the hashes of the arrays, which take a tenth of the time of planning.
    """
    instance("properties", properties, Properties, "such as Properties(num_nodes=8, num_rows=8, name='my plan')")
    shared = {} if shared is None else instance("shared", shared, dict, "of arrays by field")
    fields, total = _arranged(instance("xs", xs, dict, "of arrays by field"), shared, properties)
    _check_events(fields, properties)
    time = fields.pop("time")
    plan = {name: fields[name] if name in xs else fields[name][0] for name in fields}
    lanes = (total, plan["nodes"].shape[1])
    own, common = ({name: plan[name] for name in plan if (name in xs) is per_event} for per_event in (True, False))
    properties = with_found_facts(properties, own, common)
    for name in {"nodes", "rows"} & plan.keys():
        plan[name] = _without(np.asarray(fields["nodes"]) >= properties.num_nodes, plan[name])
    rows = properties.num_rows + properties.num_slots
    for name in {"begin", "senders", "receivers", "members", "targets", "speakers"} & plan.keys():
        plan[name] = _without(plan[name] >= rows, plan[name])
    plan["index"] = np.ascontiguousarray(np.broadcast_to(np.arange(total, dtype=np.uint32)[:, None], lanes))
    plan["time"] = np.ascontiguousarray(np.broadcast_to(time[:, None], lanes))
    kept = {name: jnp.asarray(plan.pop(name)) for name in shared if name not in {"nodes", "rows"}}
    return Timeline(plan, kept, planned_event, properties, seconds=written_times)


def _without(absent: Bool[np.ndarray, "..."], entries: np.ndarray) -> np.ndarray:
    """Write :data:`NOBODY` where nobody is; most plans have it there already."""
    if absent.shape == entries.shape and (entries[absent] == NOBODY).all():
        return entries
    return np.where(absent, NOBODY, entries).astype(np.int32)


def _arranged(xs: dict, shared: dict, facts: Properties) -> tuple[dict[str, np.ndarray], int]:
    """Return all fields as arrays with an event axis (of length 1 for shared fields), and T."""
    if unknown := sorted(map(str, (xs.keys() | shared.keys()) - FIELDS)):
        raise ValueError(f"a planned event has no field {unknown[0]!r}; choose among {', '.join(sorted(FIELDS))}")
    if twice := sorted(xs.keys() & shared.keys()):
        raise ValueError(f"the field {twice[0]!r} is in xs and in shared: pass it once")
    given = xs.keys() | shared.keys()
    for name in ("time", "nodes"):
        if name not in xs:
            raise ValueError(
                f"xs lacks {name!r}: give time (T,) in seconds, and nodes (T, k), with num_nodes for nobody"
            )
    form = _GROUPS if "members" in given else _PAIRS
    if missing := sorted(set(form) - given) if given & {*_PAIRS, *_GROUPS, "parts"} else []:
        raise ValueError(f"events of {facts.name} mix, but lack {missing[0]!r}: give all of {', '.join(form)}")
    if form is _GROUPS and (extra := sorted(given & {"senders", "receivers", "keep"})):
        raise ValueError(
            f"events of {facts.name} have members and {extra[0]!r}: mix by groups or by transfers, not both"
        )
    fields = {name: _numbers(name, value) for name, value in xs.items()}
    lengths = {name: len(array) if array.ndim else None for name, array in fields.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"the events of {facts.name} have fields of lengths {lengths}; all must be the same")
    fields |= {name: _numbers(name, value)[None] for name, value in shared.items()}
    _check_axes(fields, form, facts)
    return fields, len(fields["time"])


def _numbers(name: str, value: Any) -> np.ndarray:
    """Convert indices to int32, counts to uint32, times and weights to floats; raise ValueError for other values."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if name in ("time", "weights", "keep"):
        if array.dtype.kind not in "iuf":
            raise ValueError(f"{name}={shown(value)}: must be an array of numbers")
        return array.astype(np.float64) if name == "time" or array.dtype.kind != "f" else array
    if array.dtype.kind == "b":
        raise ValueError(
            f"{name}={shown(value)}: is a mask, but must hold indices: np.flatnonzero(mask), filled up with {NOBODY}"
        )
    if array.dtype.kind not in "iu" and array.size:
        raise ValueError(f"{name}={shown(value)}: must be an array of whole numbers")
    least, most = _SMALLEST.get(name, 0), _LARGEST.get(name, NOBODY)
    if array.size and not least <= array.min() <= array.max() <= most:
        _refuse((array < least) | (array > most), array, name, f"must lie in {least} … {most}; {NOBODY} is nobody")
    return array.astype(np.uint32 if name == "messages" else np.int32)


def _check_axes(fields: dict[str, np.ndarray], form: tuple[str, ...], facts: Properties) -> None:
    axes = _AXES | {"time": 0, "weights": 2 if form is _GROUPS else 1}
    for name, array in fields.items():
        if array.ndim != 1 + axes[name]:
            raise ValueError(
                f"{name} of {facts.name} has {array.ndim} axes: it needs {1 + axes[name]}, that of the events included"
            )
    alike = [("rows", "nodes"), ("keep", "receivers"), ("senders", "receivers"), ("parts", "members")]
    alike += [("speakers", "messages")]
    alike += [("weights", "members" if form is _GROUPS else "receivers"), ("sources", "receivers")]
    for name, other in alike:
        if name in fields and (other not in fields or fields[name].shape[1:] != fields[other].shape[1:]):
            raise ValueError(f"{name} of {facts.name} must have the shape of {other}, one entry for each")
    if "targets" in fields and fields["targets"].shape[1] != fields["members"].shape[1]:
        raise ValueError(f"targets of {facts.name} must be those of as many groups as members")


def _check_events(fields: dict[str, np.ndarray], facts: Properties) -> None:
    """Check the rules of an event, and name the first event that breaks one."""
    time, rows = fields["time"], facts.num_rows + facts.num_slots
    _refuse(~(np.isfinite(time) & (time >= 0)), time, "time", "seconds must be finite and not negative")
    _refuse(
        np.append(False, time[1:] < time[:-1])[: len(time)],
        time,
        "time",
        "is earlier than the event before; sort the events",
    )
    for name in {"weights", "keep"} & fields.keys():
        _refuse(~np.isfinite(fields[name]), fields[name], name, "must be a finite number")
    acting = fields["nodes"] < facts.num_nodes
    trained = fields.get("rows", fields["nodes"])
    if "rows" in fields:
        _refuse(acting & (trained >= rows), trained, "rows", f"is not one of the {rows} rows")
    _refuse(_repeated(trained, acting), trained, "rows" if "rows" in fields else "nodes", "acts twice in one event")
    if "receivers" in fields:
        live = (fields["senders"] < rows) & (fields["receivers"] < rows)
        _refuse(_repeated(fields["receivers"], live), fields["receivers"], "receivers", "receives twice in one event")
        if "sources" in fields:
            source = fields["sources"]
            wrong = live & (source >= facts.num_nodes) & (source != NOBODY)
            _refuse(wrong, source, "sources", f"must be a node, 0 … {facts.num_nodes - 1}, whose version is carried")
    if "members" in fields:
        absent = (fields["members"] >= rows) & (fields["weights"] != 0)
        _refuse(absent, fields["members"], "members", "is nobody, and must have weight 0")
        targets = fields["targets"]
        targets = targets.reshape(len(targets), targets.shape[1] * targets.shape[2])
        _refuse(_repeated(targets, targets < rows), targets, "targets", "takes two results in one event")
    if "parts" in fields and facts.num_fragments is not None:
        wrong = fields["parts"] >= facts.num_fragments
        _refuse(wrong, fields["parts"], "parts", f"must be one of {facts.num_fragments} fragments, or -1 for the model")


def _repeated(entries: np.ndarray, live: Bool[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Mark live entries that occur a second time in an event."""
    if entries.shape[-1] < 2:
        return np.zeros(entries.shape, bool)
    found = np.where(live, entries, -1 - np.arange(entries.shape[-1]))
    order = np.argsort(found, axis=-1, kind="stable")
    ordered = np.take_along_axis(found, order, axis=-1)
    again = np.zeros(found.shape, bool)
    np.put_along_axis(again, order[..., 1:], ordered[..., 1:] == ordered[..., :-1], axis=-1)
    return again


def _refuse(wrong: np.ndarray, values: np.ndarray, name: str, rule: str) -> None:
    """Raise ValueError with the number of the first event that breaks a rule."""
    wrong = np.asarray(wrong)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        value = np.broadcast_to(values, wrong.shape)[at]
        raise ValueError(f"event {at[0] if at else 0}: {name}={value:g} {rule}")
