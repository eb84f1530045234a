"""How many nodes each node believes active, counted again only where a view or the window changed something."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from gossipjax.systems._plexus.line import Entry, Line, begins_at, next_version, shared_entry
from gossipjax.systems._plexus.views import Views, first_round


@dataclasses.dataclass(slots=True, eq=False)
class Counts:
    """What was counted last. A holder counts as many as its version of the line does, and what its own entries add."""

    first: int
    """The first round that counts as active."""
    of_version: Int64[np.ndarray, " capacity"]
    known: int
    """Versions counted."""
    version: Int64[np.ndarray, " n"]
    """Of the holders' views, when they were counted; the next two rows belong to them."""
    added: Int64[np.ndarray, " n"]
    counted: np.ndarray
    """Whether a holder is among those counted: it is online."""
    tally: Counter[int]
    """How many holders believe so many active."""
    near: defaultdict[int, set[int]]
    """By round: holders with an entry of their own that counts up to this first round, and no longer. Rounds that
    ``first`` has passed stay: averages of rounds may end out of order, so that it goes back."""
    staying: int
    """How many have not left in version 0, and count in round -1."""
    changed_nodes: defaultdict[int, list[tuple[int, int]]]
    """By round: nodes whose entry in the line is of this round, and the versions, after 0, in which it began."""


def make_counts(views: Views) -> Counts:
    """Begin with version 0 of the line, where all that have not left count."""
    n, online = len(views.version), ~views.line.gone
    of_version, staying = np.zeros(64, np.int64), int(np.count_nonzero(online))
    of_version[0] = staying
    zeros, tally = np.zeros(n, np.int64), Counter({staying: staying} if staying else {})
    return Counts(-1, of_version, 1, zeros, zeros.copy(), online, tally, defaultdict(set), staying, defaultdict(list))


def active_counts(
    views: Views, counts: Counts, online: Sequence[bool], round_: int, window: int | None
) -> tuple[float, ...]:
    """Min, mean, median and max over the nodes online of how many nodes each believes active; zeros if none is.

    Nodes that came or went since the last call must be in ``views.changed``.
    """
    _count_versions(views, counts)
    moved = _move(views, counts, first_round(round_, window))
    for i in views.changed:
        _count(views, counts, i, online[i])
    for i, before, after in views.written:
        if counts.counted[i] and i not in views.changed:
            _count_entry(counts, i, before, after)
    views.changed.clear()
    views.written.clear()
    if moved:
        found = np.bincount((counts.of_version[counts.version] + counts.added)[counts.counted])
        values = np.flatnonzero(found)
        counts.tally = Counter(dict(zip(values.tolist(), found[values].tolist(), strict=True)))
    return _summary(counts.tally)


def _counts_as_active(entry: Entry, first: int) -> bool:
    return not entry[1] & 1 and entry[0] >= first


def _count_versions(views: Views, counts: Counts) -> None:
    """Count in the versions that were added to the line."""
    line = views.line
    if line.count > counts.of_version.size:
        counts.of_version = np.concatenate([counts.of_version, np.zeros(line.count, np.int64)])
    at = len(line.versions)
    while line.versions[at - 1] >= counts.known:
        at -= 1
    for k in range(at, len(line.versions)):
        version, below = line.versions[k], line.versions[k - 1]
        change = 0
        for node in line.nodes[line.ends[k - 1] : line.ends[k]]:
            new = shared_entry(line, version, node)
            old = shared_entry(line, below, node)
            change += _counts_as_active(new, counts.first) - _counts_as_active(old, counts.first)
            if not new[1] & 1:
                counts.changed_nodes[new[0]].append((node, version))
        counts.of_version[version] = counts.of_version[below] + change
    counts.known = line.count


def _move(views: Views, counts: Counts, first: int) -> bool:
    """Count from another first round on; return whether the count of any version changed."""
    begin, end = sorted((counts.first, first))
    sign = 1 if first < counts.first else -1
    counts.first = first
    line, steps = views.line, None
    if begin < 0 <= end:
        steps = _first_version(views.line, counts, sign)
    for round_ in range(begin, end):
        views.changed.update(counts.near.get(round_, ()))
        for node, version in counts.changed_nodes.get(round_, ()):
            if not begins_at(line, node, version):
                continue  # it was taken back
            if steps is None:
                steps = np.zeros(counts.of_version.size + 1, np.int64)
            steps[version] += sign
            until = next_version(line, node, version)
            steps[-1 if until is None else until] -= sign
    if steps is None:
        return False
    counts.of_version += np.cumsum(steps[:-1])
    return True


def _first_version(line: Line, counts: Counts, sign: int) -> Int64[np.ndarray, " capacity1"]:
    """Return what changes at each version where the entries of version 0 begin or cease to count."""
    steps = np.zeros(counts.of_version.size + 1, np.int64)
    steps[0] = sign * counts.staying
    for node, since in line.since.items():
        if since and not line.gone[node]:
            steps[since[0]] -= sign
    return steps


def _count(views: Views, counts: Counts, i: int, is_online: bool) -> None:
    """Count again what holder i believes."""
    if counts.counted[i]:
        _tally(counts, i, -1)
    counts.counted[i] = is_online
    if not is_online:
        return
    line, version, added = views.line, views.version[i], 0
    for node, own in views.apart[i].items():
        shared = line.head[node] if line.changed[node] <= version else shared_entry(line, version, node)
        added += _change(counts, i, shared, own)
    counts.version[i], counts.added[i] = version, added
    _tally(counts, i, 1)


def _count_entry(counts: Counts, i: int, before: Entry, after: Entry) -> None:
    """Count one entry of holder i as it is instead of as it was."""
    if change := _change(counts, i, before, after):
        _tally(counts, i, -1)
        counts.added[i] += change
        _tally(counts, i, 1)


def _change(counts: Counts, i: int, before: Entry, after: Entry) -> int:
    """By how much the count of holder i changes with one of its entries."""
    change = 0
    if not before[1] & 1:
        counts.near[before[0]].add(i)
        change -= before[0] >= counts.first
    if not after[1] & 1:
        counts.near[after[0]].add(i)
        change += after[0] >= counts.first
    return change


def _tally(counts: Counts, i: int, change: int) -> None:
    value = int(counts.of_version[counts.version[i]] + counts.added[i])
    counts.tally[value] += change
    if not counts.tally[value]:
        del counts.tally[value]


def _summary(tally: Counter[int]) -> tuple[float, ...]:
    values = sorted(tally)
    total = sum(tally.values())
    if not total:
        return 0.0, 0.0, 0.0, 0.0
    mean = sum(value * number for value, number in tally.items()) / total
    middle = (_at_rank(tally, values, (total - 1) // 2) + _at_rank(tally, values, total // 2)) / 2
    return float(values[0]), mean, middle, float(values[-1])


def _at_rank(tally: Counter[int], values: list[int], rank: int) -> int:
    """Return the entry of this rank of all that were tallied, from 0."""
    for value in values:
        rank -= tally[value]
        if rank < 0:
            return value
    raise AssertionError(rank)
