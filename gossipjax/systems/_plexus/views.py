"""What each node believes about the others: a join-semilattice, merged whenever a model arrives.

Of every node, a view holds the last round in which it was active, and its counter of joins and leaves with the status
JOIN or LEAVE. The two merge independently, each to the larger; counter and status are one number, ``2 counter + (status
is LEAVE)``, so that merging is an elementwise maximum: associative, commutative and idempotent.

A view is stored as a version of the line of shared views (:mod:`gossipjax.systems._plexus.line`) and the few entries in
which it differs. Of two versions the newer one is the maximum, so merging looks at those entries alone.

Reference: de Vos et al. 2024, arXiv 2302.13837; Shapiro et al. 2011, Conflict-free replicated data types, section 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from gossipjax.systems._plexus.line import (
    Apart,
    Entry,
    Line,
    changes_after,
    dense,
    extend,
    make_line,
    settled,
    shared_entry,
    take_back,
)
from gossipjax.systems._plexus.sampler import Order


class View(NamedTuple):
    """The view of a node at some time, for a message; its entries must not be changed."""

    version: int
    apart: Apart
    latest: int


@dataclasses.dataclass(slots=True, eq=False)
class Views:
    """The views of all nodes, by holder."""

    line: Line
    version: list[int]
    apart: list[Apart]
    sent: list[bool]
    """Whether ``apart`` is in a message, too, and must be copied before it changes."""
    latest: list[int]
    """The latest round in which a node is known active."""
    newest: Int64[np.ndarray, " n"]
    """By node: the latest round in which anybody has held it active. No view holds a later one, now or before."""
    changed: set[int]
    """Holders whose whole views changed since somebody counted, or who came or went."""
    written: list[tuple[int, Entry, Entry]] = dataclasses.field(default_factory=list)
    """Single entries that changed since then: holder, before, after."""


def initial_views(online: Bool[np.ndarray, " n"]) -> Views:
    """Give all nodes the same view: nobody was active yet, and nodes offline have left."""
    n = online.size
    return Views(make_line(online), [0] * n, [{} for _ in range(n)], [False] * n, [-1] * n, np.full(n, -1), set())


def entry(views: Views, i: int, j: int) -> Entry:
    """What node i holds of j."""
    apart = views.apart[i].get(j)
    return shared_entry(views.line, views.version[i], j) if apart is None else apart


def copy_of(views: Views, i: int) -> View:
    """Copy the view of node i, to be sent."""
    views.sent[i] = True
    return View(views.version[i], views.apart[i], views.latest[i])


def note(views: Views, i: int, j: int, round_: int, status: int = 0) -> None:
    """Node i learns that j was active in a round, and j's counter and status."""
    line, version = views.line, views.version[i]
    shared = line.head[j] if line.changed[j] <= version else shared_entry(line, version, j)
    before = views.apart[i].get(j, shared)
    last, old = before
    if last >= round_ and old >= status:
        return
    _write(views, i, j, before, (round_ if round_ > last else last, status if status > old else old), shared)
    if round_ > views.latest[i]:
        views.latest[i] = round_


def force_left(views: Views, i: int, j: int, round_: int) -> None:
    """Node i marks j as gone, whatever it knew: the only write that is not monotone. A larger counter repairs it."""
    before = entry(views, i, j)
    _write(views, i, j, before, (round_, 1), shared_entry(views.line, views.version[i], j))
    if before[0] < views.latest[i]:
        views.latest[i] = max(views.latest[i], round_)
    else:
        views.latest[i] = int(dense(views.line, views.version[i], views.apart[i])[0].max())


def _write(views: Views, i: int, j: int, before: Entry, new: Entry, shared: Entry) -> None:
    if views.sent[i]:
        views.apart[i], views.sent[i] = views.apart[i].copy(), False
    if new == shared:
        views.apart[i].pop(j, None)
    else:
        views.apart[i][j] = new
    views.written.append((i, before, new))
    if new[0] > views.newest[j]:
        views.newest[j] = new[0]


def take_in(views: Views, i: int, view: View) -> None:
    """Merge a view that arrived into that of node i."""
    line, mine = views.line, (views.version[i], views.apart[i])
    theirs = settled(line, view.version, view.apart)
    (version, apart), older = (theirs, mine) if theirs[0] >= mine[0] else (mine, theirs)
    views.version[i], views.apart[i] = version, _joined(line, version, apart, *older)
    views.sent[i] = False
    views.latest[i] = max(views.latest[i], view.latest)
    views.changed.add(i)


def _joined(line: Line, version: int, apart: Apart, older: int, others: Apart) -> Apart:
    """Merge a view of an older version into one: the entries in which the result differs from the newer version."""
    head, changed, joined = line.head, line.changed, {}
    for node, own in apart.items():
        other = others.get(node)
        if other is None:
            other = head[node] if changed[node] <= older else shared_entry(line, older, node)
        new = own if own[0] >= other[0] and own[1] >= other[1] else (max(own[0], other[0]), max(own[1], other[1]))
        if new != (head[node] if changed[node] <= version else shared_entry(line, version, node)):
            joined[node] = new
    for node, other in others.items():
        if node not in apart:
            own = head[node] if changed[node] <= version else shared_entry(line, version, node)
            if other[0] > own[0] or other[1] > own[1]:
                joined[node] = max(own[0], other[0]), max(own[1], other[1])
    return joined


def publish(views: Views, i: int) -> None:
    """Make what node i holds the newest version of the line, because it is about to tell many.

    A view that misses something of the newest version cannot follow it. If it holds far more that is new than it
    misses, the versions that it misses are taken back: whoever was to spread them has not.
    """
    line, apart, head = views.line, views.apart[i], views.line.head
    if views.version[i] != line.versions[-1]:
        if len(apart) < FORK + 2 * changes_after(line, views.version[i]):
            return
        _branch(views, views.version[i])
    above = {j: new for j, new in apart.items() if new[0] >= head[j][0] and new[1] >= head[j][1]}
    if above:
        views.version[i] = extend(line, above)
        views.apart[i], views.sent[i] = {j: new for j, new in apart.items() if j not in above}, False
        views.changed.add(i)


FORK = 16
"""Fewer entries than these are not worth a branch."""


def _branch(views: Views, version: int) -> None:
    """Let the line go on from one of its versions, and base on it the views that had gone further."""
    take_back(views.line, version)
    for holder, held in enumerate(views.version):
        if held > version:
            views.version[holder], views.apart[holder] = settled(views.line, held, views.apart[holder])
            views.sent[holder] = False
            views.changed.add(holder)


def first_round(round_: int, window: int | None) -> int:
    """The first round in which a candidate of a round may have been active last; -1: all that have not left."""
    return max(round_ - window, -1) if window is not None and round_ > 0 else -1


def believed_active(views: Views, i: int, round_: int, window: int | None, nodes: Sequence[int]) -> Iterator[int]:
    """Yield the candidates of a round among nodes, by what i holds now: active in the window and not gone, or i."""
    first = first_round(round_, window)
    some = nodes if first < 0 else _held_active(views, i, first, nodes)
    return _active_in(views.line, i, first, copy_of(views, i), some)


PLAIN = 16
"""The first nodes of an order, which are read as they are: where most are active, nobody reads further."""


def _held_active(views: Views, i: int, first: int, nodes: Sequence[int]) -> Iterator[int]:
    """Yield those of the nodes that anybody has held active since a round, and i: in large networks few of many."""
    yield from nodes[:PLAIN]
    at, size = PLAIN, 128
    while True:
        block = nodes.block(at, at + size) if isinstance(nodes, Order) else np.asarray(nodes[at : at + size], np.int64)
        yield from block[(views.newest[block] >= first) | (block == i)].tolist()
        if block.size < size:
            return
        at, size = at + size, 4 * size


def _active_in(line: Line, i: int, first: int, view: View, nodes: Iterable[int]) -> Iterator[int]:
    """Yield those of the nodes that a view of node i counts as active, even if its version is taken back meanwhile."""
    head, changed, taken_back = line.head, line.changed, line.taken_back
    version, apart, _ = view
    for j in nodes:
        if taken_back and version in taken_back:
            last, status = _entry_in(line, view, j)
        elif j in apart:
            last, status = apart[j]
        else:
            last, status = head[j] if changed[j] <= version else shared_entry(line, version, j)
        if (last >= first and not status & 1) or j == i:
            yield j


def _entry_in(line: Line, view: View, j: int) -> Entry:
    version, apart = settled(line, view.version, view.apart)
    return apart[j] if j in apart else shared_entry(line, version, j)


def active_nodes(views: Views, i: int, round_: int, window: int | None) -> Int64[np.ndarray, " m"]:
    """List all whom :func:`believed_active` holds active, in their order."""
    last, status = dense(views.line, views.version[i], views.apart[i])
    active = (status & 1 == 0) & (last >= first_round(round_, window))
    active[i] = True
    return np.flatnonzero(active)
