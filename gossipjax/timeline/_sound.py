"""Consistency checks of timelines that are read from files."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np

from gossipjax._base.arguments import instance, whole
from gossipjax.facts import Properties
from gossipjax.mixing._apply import DenseMixing, TableMixing
from gossipjax.timeline._events import event_form
from gossipjax.types import NOBODY, Timeline

_NODES = frozenset({"nodes", "sources", "first", "second", "partner", "own", "self"})
"""Fields of the builders' timelines whose entries are nodes."""
_ROWS = frozenset({"rows", "begin", "senders", "receivers", "members", "targets", "speakers", "slots", "neighbors"})
"""Fields whose entries are rows of models or messages."""
_LINKS = frozenset({"links"})
"""Fields whose entries are rows, or rows plus their number where a message is lost."""


def check_loaded(timeline: Timeline, path: str | os.PathLike[str]) -> Timeline:
    """Check a timeline as :func:`check_sound` does; the error names the file from which it was read.

    Raises:
        ValueError: if the timeline contradicts itself.
    """
    try:
        return check_sound(timeline)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds a timeline that contradicts itself: {error}; plan the run again") from error


def check_sound(timeline: Timeline) -> Timeline:
    """Return the timeline, after a check that its arrays fit its facts and each other.

    Raises:
        ValueError: if the arrays have other numbers of nodes or rows than the facts, or differ in length; if an entry
            is not finite, times decrease, or no event can be built from the arrays.
    """
    facts = instance("properties", timeline.properties, Properties, "plan the run again")
    whole("num_nodes", facts.num_nodes, least=1)
    whole("num_rows", facts.num_rows, least=1)
    whole("num_slots", facts.num_slots, least=0)
    for path, leaf in jax.tree_util.tree_leaves_with_path((timeline.xs, timeline.shared)):
        _check_leaf(jax.tree_util.keystr(path[-1:], simple=True), np.asarray(leaf), facts)
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(timeline.xs)}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(f"the arrays of its events have lengths {sorted(lengths)}, which must be one")
    try:
        event = event_form(timeline)
        times = None if timeline.seconds is None else timeline.seconds(timeline.shared, timeline.xs)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"no event can be made of its arrays ({type(error).__name__}: {error})") from error
    _check_form(event, facts)
    if times is not None and facts.packing is None and (np.diff(times) < 0).any():
        raise ValueError(f"event {1 + int(np.argmax(np.diff(times) < 0))} is earlier than the one before")
    return timeline


def _check_leaf(name: str, leaf: np.ndarray, facts: Properties) -> None:
    if leaf.dtype.kind not in "iufb":
        raise ValueError(f"{name} is of type {leaf.dtype}, and must hold numbers")
    if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    limit = facts.num_nodes if name in _NODES else facts.num_rows + facts.num_slots if name in _ROWS else None
    limit = 2 * facts.num_rows if name in _LINKS else limit
    if limit is None:
        return
    wrong = (leaf < 0) | ((leaf >= limit) & (leaf != NOBODY))
    if leaf.dtype.kind not in "iu" or wrong.any():
        found = leaf[wrong][0] if wrong.any() else leaf.dtype
        what = "nodes" if name in _NODES else "rows"
        raise ValueError(f"{name} names {found} among {limit} {what}, which must be 0 … {limit - 1} or nobody")


def _check_form(event: Any, facts: Properties) -> None:
    """Compare the shapes of an event with the numbers of nodes and rows."""
    if event.nodes is None and facts.num_nodes != facts.num_rows:
        raise ValueError(f"every node acts, but there are {facts.num_nodes} nodes and {facts.num_rows} rows")
    rows = facts.num_rows
    mixing = event.mixing
    if isinstance(mixing, DenseMixing):
        rows = mixing.W.shape[0] if mixing.W.shape[0] == mixing.W.shape[1] else 0
    elif isinstance(mixing, TableMixing):
        rows = mixing.neighbors.shape[0]
    elif event.nodes is None and mixing is not None:
        rows = mixing.targets.size if hasattr(mixing, "targets") else rows
    if rows != facts.num_rows:
        raise ValueError(f"its mixing is for {rows} rows, its facts name {facts.num_rows}")
