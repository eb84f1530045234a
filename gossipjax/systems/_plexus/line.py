"""A line of shared views, each above the one before: what most nodes believe is written down once, not once per node.

Version v of the line holds an entry for every node: the last round in which it was active, and its counter with its
status. A version differs from the one before in a few entries, which are all that is stored, so that memory grows with
what happened and not with the square of the nodes.
"""

from __future__ import annotations

import dataclasses
from array import array
from bisect import bisect_right
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int32

Entry: TypeAlias = tuple[int, int]
"""Last round of activity, -1 for never; 2 counter + (1 if LEAVE)."""
Apart: TypeAlias = dict[int, Entry]
"""Entries, by node, that differ from those of a version."""


@dataclasses.dataclass(slots=True, eq=False)
class Line:
    """The versions; those that were taken back keep what they added, by version, with the version below them."""

    gone: Bool[np.ndarray, " n"]
    """Who has left in version 0; nobody was active then."""
    head: list[Entry]
    """Entries of the newest version."""
    changed: list[int]
    """The version in which each of them began."""
    versions: list[int] = dataclasses.field(default_factory=lambda: [0])
    """Numbers of the versions in the line, which increase."""
    ends: list[int] = dataclasses.field(default_factory=lambda: [0])
    """How many changes each version includes."""
    nodes: array[int] = dataclasses.field(default_factory=lambda: array("i"))
    """Of each change; the next two columns are its entry."""
    rounds: array[int] = dataclasses.field(default_factory=lambda: array("i"))
    statuses: array[int] = dataclasses.field(default_factory=lambda: array("i"))
    since: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    """By node: the versions in which its entry changed, after 0; the entries are in ``values``."""
    values: dict[int, list[Entry]] = dataclasses.field(default_factory=dict)
    taken_back: dict[int, tuple[int, Apart]] = dataclasses.field(default_factory=dict)
    count: int = 1
    """The number of the next version."""


def make_line(online: Bool[np.ndarray, " n"]) -> Line:
    """Begin with version 0: nobody was active yet, and nodes offline have left."""
    return Line(~online, [(-1, 0) if is_online else (-1, 1) for is_online in online.tolist()], [0] * online.size)


def _first_entry(line: Line, node: int) -> Entry:
    return -1, int(line.gone[node])


def shared_entry(line: Line, version: int, node: int) -> Entry:
    """Return the entry of a node in a version of the line."""
    if line.changed[node] <= version:
        return line.head[node]
    k = bisect_right(line.since[node], version)
    return line.values[node][k - 1] if k else _first_entry(line, node)


def next_version(line: Line, node: int, version: int) -> int | None:
    """Return the version that ends the entry which a node has since a version; None: it is in the newest."""
    since = line.since.get(node, [])
    k = bisect_right(since, version)
    return since[k] if k < len(since) else None


def begins_at(line: Line, node: int, version: int) -> bool:
    """Say whether the entry of a node changed in a version of the line; version 0 counts."""
    since = line.since.get(node, [])
    k = bisect_right(since, version)
    return version == 0 or (k > 0 and since[k - 1] == version)


def extend(line: Line, changes: Apart) -> int:
    """Add a version with some entries above those of the newest; return its number."""
    version, line.count = line.count, line.count + 1
    for node, entry in changes.items():
        line.nodes.append(node)
        line.rounds.append(entry[0])
        line.statuses.append(entry[1])
        line.since.setdefault(node, []).append(version)
        line.values.setdefault(node, []).append(entry)
        line.head[node], line.changed[node] = entry, version
    line.versions.append(version)
    line.ends.append(len(line.nodes))
    return version


def changes_after(line: Line, version: int) -> int:
    """Count the changes in the line after a version of it."""
    return line.ends[-1] - line.ends[bisect_right(line.versions, version) - 1]


def take_back(line: Line, version: int) -> None:
    """Take all versions after one out of the line. Views that are based on them are to be settled."""
    while line.versions[-1] > version:
        last = line.versions.pop()
        line.ends.pop()
        changes = {}
        while len(line.nodes) > line.ends[-1]:
            node = line.nodes.pop()
            changes[node] = line.rounds.pop(), line.statuses.pop()
            line.since[node].pop()
            line.values[node].pop()
            line.head[node], line.changed[node] = _first_entry(line, node), 0
            if line.since[node]:
                line.head[node], line.changed[node] = line.values[node][-1], line.since[node][-1]
        line.taken_back[last] = line.versions[-1], changes


def settled(line: Line, version: int, apart: Apart) -> tuple[int, Apart]:
    """Base a view on a version that is in the line."""
    while version in line.taken_back:
        version, changes = line.taken_back[version]
        apart = changes | apart
    return version, apart


def dense(line: Line, version: int, apart: Apart) -> tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
    """Write a view out as arrays: rounds and statuses of all nodes."""
    statuses = np.array(line.gone, np.int32)
    rounds = np.full_like(statuses, -1)
    end = line.ends[bisect_right(line.versions, version) - 1]
    nodes = np.array(line.nodes[:end], np.int64)  # of one node, the last change stays
    rounds[nodes] = line.rounds[:end]
    statuses[nodes] = line.statuses[:end]
    for node, (round_, status) in apart.items():
        rounds[node], statuses[node] = round_, status
    return rounds, statuses
