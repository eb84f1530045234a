"""Facts that are computed from the arrays of a plan, whatever its builder states."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool

from gossipjax.facts import Properties

TOLERANCE = 1e-6
"""Largest error of a row sum: plans may hold float32."""


def with_found_facts(properties: Properties, xs: dict[str, Any], shared: dict[str, Any]) -> Properties:
    """Add ``row_stochastic``, ``own_rows`` and ``meetings`` to a plan's properties if its events have these facts.

    Args:
        properties: what the builder states.
        xs: fields of the events, with leading axis T, see :func:`gossipjax.timeline.from_events`.
        shared: fields that all events share, without it.

    Raises:
        ValueError: if a stated fact does not hold; names the first event that breaks it.
    """
    fields = {name: np.asarray(value)[None] for name, value in shared.items()}
    fields |= {name: np.asarray(value) for name, value in xs.items()}
    broken = _broken_rows(fields, properties)
    if broken is not None and "row_stochastic" in properties:
        fact = "doubly_stochastic" if "doubly_stochastic" in properties else "row_stochastic"
        raise ValueError(
            f"{properties.name} states the fact {fact!r}, but weights of event {broken} do not sum to one: correct "
            "the weights, or leave the fact out"
        )
    own = _own_rows(fields, properties)
    if "own_rows" in properties and not own:
        raise ValueError(f"{properties.name} states the fact 'own_rows', but its nodes train rows other than their own")
    special = not properties.tags.isdisjoint(("walks", "mailboxes", "buffered"))
    nodes_are_rows = properties.num_rows == properties.num_nodes
    meetings = nodes_are_rows and not special and _at_most_two(fields, properties)
    return properties.with_facts({"row_stochastic": broken is None, "own_rows": own, "meetings": meetings})


def _rows(properties: Properties) -> int:
    return properties.num_rows + properties.num_slots


def _broken_rows(fields: dict[str, np.ndarray], properties: Properties) -> int | None:
    """Return the first event with a written row whose weights do not sum to one; None: all do."""
    rows = _rows(properties)
    if "members" in fields:
        present = fields["members"] < rows
        weights = np.where(present, fields["weights"], 0)
        if "parts" in fields:  # normalised coordinate by coordinate; a whole model gives every coordinate
            good = ((fields["parts"] < 0) & (weights > 0)).any(axis=-1)
        else:
            good = np.abs(weights.sum(axis=-1) - 1) <= TOLERANCE
        return _first(~np.expand_dims(good, -1) & (fields["targets"] < rows))
    if "senders" in fields:
        bad = ~(np.abs(fields["weights"] + fields["keep"] - 1) <= TOLERANCE)
        if not bad.any():
            return None
        return _first(bad & (fields["receivers"] < rows) & (fields["senders"] < rows))
    return None


def _first(bad: Bool[np.ndarray, "T ..."]) -> int | None:
    events = np.flatnonzero(bad.any(axis=tuple(range(1, bad.ndim))))
    return int(events[0]) if events.size else None


def _own_rows(fields: dict[str, np.ndarray], properties: Properties) -> bool:
    """Whether rows are nodes, and every node trains its own."""
    if properties.num_rows != properties.num_nodes or "walks" in properties:
        return False
    if "rows" not in fields:
        return True
    nobody = fields["nodes"] >= properties.num_nodes
    return bool((nobody | (fields["rows"] == fields["nodes"])).all())


def _at_most_two(fields: dict[str, np.ndarray], properties: Properties) -> bool:
    """Whether every node averages with one received whole model at a time."""
    if "parts" in fields:
        return False
    if "members" not in fields:
        return "senders" in fields
    present = (fields["members"] < _rows(properties)) & (fields["weights"] != 0)
    live = (fields["targets"] < _rows(properties)).any(axis=-1)
    return not ((present.sum(axis=-1) > 2) & live).any()
