"""What cannot run on a mesh yet, refused by name before any work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.tree_util import Partial

from gossipjax._base.describe import describe
from gossipjax._base.placement import is_by_rows
from gossipjax._engine.probe import Probe
from gossipjax.facts import Properties
from gossipjax.mixing._forms import DenseMixing, PairMixing, TableMixing
from gossipjax.types import Event, Protocol, Sharing, Task, Timeline

_ELSE = "leave mesh= out, and run it on one device"


def check_placeable(protocol: Protocol, timeline: Timeline, found: Probe, strategy: str) -> None:
    """Check that a run can be spread over a mesh.

    Raises:
        ValueError: a timeline, a protocol, a sharing or a strategy that cannot.
    """
    if strategy == "shard":
        raise ValueError("strategy='shard': mesh= spreads the nodes over devices already; pass 'vmap', 'map' or 'auto'")
    _check_timeline(timeline, found.event)
    _check_functions(protocol, in_rounds=not isinstance(found.event.mixing, PairMixing))
    _check_state(protocol, found.state, timeline.properties)


def _check_timeline(timeline: Timeline, event: Event) -> None:
    facts, form = timeline.properties, type(event.mixing).__name__
    single = isinstance(event.mixing, PairMixing)
    if facts.num_rows != facts.num_nodes or event.rows is not None or "own_rows" not in facts:
        raise ValueError(f"mesh: only nodes lie on devices, and the model rows of {facts.name} are not nodes; {_ELSE}")
    if event.mixing is not None and not single and not isinstance(event.mixing, DenseMixing | TableMixing):
        raise ValueError(
            f"mesh: {facts.name} mixes by {form}, which is not planned for devices yet: pass rounds of all nodes, such "
            f"as those of timeline.rounds or timeline.changing_rounds, or meetings of pairs, or {_ELSE}"
        )
    if single and event.nodes is None:
        raise ValueError(f"mesh: every node of {facts.name} acts in an event of few transfers; {_ELSE}")
    alone = event.nodes is not None and event.mixing is None
    if not single and (alone or event.begin is not None or facts.num_slots):
        raise ValueError(f"mesh: {facts.name} names single nodes in events that are no transfers; {_ELSE}")


def _check_functions(protocol: Protocol, *, in_rounds: bool) -> None:
    """Check that the functions of a protocol and its sharing know other rows only by their mixing."""
    for kind, name, function, whole in _functions(protocol):
        called = describe(whole).removeprefix("_").replace("._encode()", "")  # robust, not _robust._encode()
        if not in_rounds and is_by_rows(function, in_rounds=True) and not is_by_rows(function):
            raise ValueError(
                f"mesh: the {kind} {called} is written for rounds, where rows lie on several devices: pass "
                f"rounds of all nodes, such as those of timeline.rounds, or {_ELSE}"
            )
        if not is_by_rows(function, in_rounds=True):
            raise ValueError(
                f"mesh: the {kind} {called} is not written for rows that lie on several devices (its {name} "
                "is not marked gossipjax.placement.by_rows, whose text says when that is right); "
                f"take another {kind}, or {_ELSE}"
            )
    for name in ("versions", "meter"):
        if getattr(protocol, name) is not None:
            wrapper = {"versions": "track_versions", "meter": "metered"}[name]
            raise ValueError(f"mesh: {wrapper} keeps what every node knows of all others, on one device; {_ELSE}")


def _functions(protocol: Protocol) -> Iterator[tuple[str, str, Any, Any]]:
    yield "protocol", "step", protocol.step, protocol
    for sharing in _sharings(protocol.step):
        yield "sharing", "encode", sharing.encode, sharing
        yield "sharing", "merge", sharing.merge, sharing


def _sharings(value: Any) -> Iterator[Sharing]:
    """Iterate over the sharings that a function binds, and those inside them."""
    parts: Sequence[Any] = ()
    if isinstance(value, Sharing):
        yield value
        parts = value[:3]
    elif isinstance(value, Partial):
        parts = (*value.args, *value.keywords.values())
    elif isinstance(value, Protocol):
        parts = (value.step,)
    elif isinstance(value, tuple | list) and not isinstance(value, Task):
        parts = value
    for part in parts:
        yield from _sharings(part)


def _check_state(protocol: Protocol, state: Any, facts: Properties) -> None:
    rows = {(facts.num_nodes,), (facts.num_rows + facts.num_slots,)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.shape[:1] not in rows:
            raise ValueError(
                f"mesh: the state of {describe(protocol)} holds {jax.tree_util.keystr(path)} of shape {leaf.shape}, "
                f"which has no row for each of the {facts.num_nodes} nodes; {_ELSE}"
            )
