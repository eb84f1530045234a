"""What each node believes about the others: a join-semilattice, merged whenever a model arrives.

Of every node, a view holds the last round in which it was active, and its counter of joins and leaves with the status
JOIN or LEAVE. The two merge independently, each to the larger; counter and status are one number, ``2 counter + (status
is LEAVE)``, so that merging is an elementwise maximum: associative, commutative and idempotent.

Reference: de Vos et al. 2024, arXiv 2302.13837; Shapiro et al. 2011, Conflict-free replicated data types, section 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64


class View(NamedTuple):
    """The view of one node, or a copy of it in transit."""

    last_active: Int32[np.ndarray, " n"]
    """Rounds; -1: never yet."""
    status: Int32[np.ndarray, " n"]
    """2 counter + (1 if LEAVE)."""


class Views(NamedTuple):
    """The views of all nodes, by holder."""

    last_active: Int32[np.ndarray, "n n"]
    status: Int32[np.ndarray, "n n"]
    latest: list[int]
    """The latest round in which a node is known active, by holder."""
    counts: Counts


class Counts(NamedTuple):
    """How many nodes each node believes active, cached between calls because most views do not change."""

    active: Int64[np.ndarray, " n"]
    since: Int64[np.ndarray, " n"]
    """The first round that counted as active."""
    oldest: Int64[np.ndarray, " n"]
    """The first last round of those counted: from a later one on fewer count."""
    changed: Bool[np.ndarray, " n"]


def initial_views(online: Bool[np.ndarray, " n"]) -> Views:
    """Give all nodes the same view: nobody was active yet, and nodes offline have left."""
    n = online.size
    status = np.broadcast_to(np.where(online, 0, 1).astype(np.int32), (n, n)).copy()
    zero = np.zeros(n, np.int64)
    counts = Counts(zero, zero.copy(), zero.copy(), np.ones(n, bool))
    return Views(np.full((n, n), -1, np.int32), status, [-1] * n, counts)


def merged(a: View, b: View) -> View:
    """Merge two views: the elementwise maximum of rounds and of counters."""
    return View(np.maximum(a.last_active, b.last_active), np.maximum(a.status, b.status))


def copy_of(views: Views, i: int) -> View:
    """Copy the view of node i, to be sent."""
    return View(views.last_active[i].copy(), views.status[i].copy())


def take_in(views: Views, i: int, view: View) -> None:
    """Merge a view that arrived into that of node i."""
    np.maximum(views.last_active[i], view.last_active, out=views.last_active[i])
    np.maximum(views.status[i], view.status, out=views.status[i])
    views.latest[i] = max(views.latest[i], int(view.last_active.max()))
    views.counts.changed[i] = True


def note_active(views: Views, i: int, j: int, round_: int) -> None:
    """Node i learns that j was active in a round."""
    if views.last_active[i, j] < round_:
        views.last_active[i, j] = round_
        views.latest[i] = max(views.latest[i], round_)
        views.counts.changed[i] = True


def note_status(views: Views, i: int, j: int, status: int) -> None:
    """Node i learns j's counter and status."""
    if views.status[i, j] < status:
        views.status[i, j] = status
        views.counts.changed[i] = True


def force_left(views: Views, i: int, j: int, round_: int) -> None:
    """Node i marks j as gone, whatever it knew: the only write that is not monotone. A larger counter repairs it."""
    views.last_active[i, j], views.status[i, j] = round_, 1
    views.latest[i] = int(views.last_active[i].max())
    views.counts.changed[i] = True


def believed_active(views: Views, i: int, round_: int, window: int | None) -> Bool[np.ndarray, " n"]:
    """Nodes that i considers candidates of a round: those active within the window that have not left, and itself."""
    active = views.status[i] & 1 == 0
    if window is not None and round_ > 0:
        active &= views.last_active[i] >= round_ - window
    active[i] = True
    return active


def active_counts(views: Views, online: Bool[np.ndarray, " n"], round_: int, window: int | None) -> tuple[float, ...]:
    """Min, mean, median and max over the nodes online of how many nodes each believes active; zeros if none is."""
    if not online.any():
        return 0.0, 0.0, 0.0, 0.0
    counts = _active(views, online, round_ - window if window is not None and round_ > 0 else -1)[online]
    return float(counts.min()), float(counts.mean()), float(np.median(counts)), float(counts.max())


def _active(views: Views, online: Bool[np.ndarray, " n"], first: int) -> Int64[np.ndarray, " n"]:
    """Count again where a view has changed since the last time, or other rounds count; offline nodes are left out."""
    kept = views.counts
    stale = np.flatnonzero(online & (kept.changed | (first > kept.oldest) | (first < kept.since)))
    if stale.size:
        last = views.last_active[stale]
        counted = (views.status[stale] & 1 == 0) & (last >= first)
        kept.active[stale], kept.since[stale] = counted.sum(1), first
        kept.oldest[stale] = np.where(counted, last, np.iinfo(np.int32).max).min(1)
        kept.changed[stale] = False
    return kept.active
