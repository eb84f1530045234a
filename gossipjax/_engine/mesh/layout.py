"""Which device of a mesh holds which nodes, and which rows devices must exchange: found on the host, once a run."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from gossipjax._base.arguments import shown, wholes

METIS_IMBALANCE = 1
"""Parts may be larger than the average by this many thousandths: ghosts fill up the smaller ones."""
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """The rows of K devices, m each; see :class:`gossipjax._base.local.Local`."""

    devices: int
    ids: Int[np.ndarray, " Km"]
    valid: Bool[np.ndarray, " Km"]
    position: Int[np.ndarray, " n"]

    @property
    def rows(self) -> int:
        """Rows of a device, ghosts included."""
        return len(self.ids) // self.devices

    @property
    def parts(self) -> Int[np.ndarray, " n"]:
        """Device of each node."""
        return self.position // self.rows


def layout(parts: Int[np.ndarray, " n"], devices: int) -> Layout:
    """Lay out nodes in increasing order on each device, and ghosts of its last node behind them."""
    counts = np.bincount(parts, minlength=devices)
    m, n = int(counts.max()), len(parts)
    order = np.argsort(parts, kind="stable")
    place = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    position = np.empty(n, np.int32)
    position[order] = parts[order] * m + place
    last = order[np.cumsum(counts) - 1]
    ids, valid = np.repeat(last, m).astype(np.int32), np.zeros(devices * m, bool)
    ids[position], valid[position] = np.arange(n, dtype=np.int32), True
    return Layout(devices, ids, valid, position)


def choose_parts(
    parts: Any, num_nodes: int, devices: int, edges: Int[np.ndarray, "e 2"] | None
) -> Int[np.ndarray, " n"]:
    """Return the device of each node.

    Args:
        parts: ``"blocks"``, ``"metis"``, or the device of each node.
        num_nodes: n.
        devices: K.
        edges: receiver and sender of each message of the fixed graphs of a run; None: graphs change.

    Raises:
        ValueError: more devices than nodes, a device without a node, or METIS is not installed or has no graph.
    """
    if devices > num_nodes:
        raise ValueError(
            f"mesh: {devices} devices for {num_nodes} nodes; pass gossipjax.mesh of at most as many devices as nodes"
        )
    if isinstance(parts, str) and parts == "blocks":
        return np.repeat(np.arange(devices), [len(each) for each in np.array_split(np.arange(num_nodes), devices)])
    if isinstance(parts, str) and parts == "metis":
        return _metis(num_nodes, devices, edges)
    if isinstance(parts, str):
        raise ValueError(f"parts={parts!r}: must be 'blocks', 'metis', or the device of each node, ({num_nodes},)")
    remedy = f"the device 0 … {devices - 1} of each of {num_nodes} nodes, or 'blocks' or 'metis'"
    found = wholes("parts", parts, shape=(num_nodes,), least=0, most=devices - 1, remedy=remedy)
    if len(idle := np.setdiff1d(np.arange(devices), found)):
        raise ValueError(
            f"parts={shown(found.tolist())}: device {idle[0]} holds no node; give each device at least one"
        )
    return found


def _metis(num_nodes: int, devices: int, edges: Int[np.ndarray, "e 2"] | None) -> Int[np.ndarray, " n"]:
    if edges is None:
        raise ValueError(
            "parts='metis': cuts a fixed graph, but the graphs of this timeline change; pass parts='blocks', or the "
            "device of each node"
        )
    try:
        import pymetis
    except ImportError as error:
        raise ValueError(
            "parts='metis': needs pymetis; install gossipjax[scale], or pass parts='blocks' or the device of each node"
        ) from error
    if devices == 1:
        return np.zeros(num_nodes, int)
    both = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    starts = np.searchsorted(both[:, 0], np.arange(num_nodes + 1))
    graph = pymetis.CSRAdjacency(starts.tolist(), both[:, 1].tolist())
    options = pymetis.Options(seed=0, ufactor=METIS_IMBALANCE)
    return _without_idle(np.asarray(pymetis.part_graph(devices, graph, options=options)[1]), devices)


def _without_idle(parts: Int[np.ndarray, " n"], devices: int) -> Int[np.ndarray, " n"]:
    """Move the last node of the largest part to each device without one."""
    for device in range(devices):
        counts = np.bincount(parts, minlength=devices)
        if not counts[device]:
            parts[np.flatnonzero(parts == counts.argmax())[-1]] = device
    return parts


@dataclasses.dataclass(frozen=True, eq=False)
class Exchange:
    """The rows that devices send each other in a round, by colours of device pairs.

    Attributes:
        rows: ``(K, s)`` own rows to send, those of each colour in turn.
        pairs: sender and receiver of each transfer of a colour.
        slots: rows that one transfer of a colour moves.
        place: row in which a device finds each node outside that it reads; by device and node.
        bound: distinct rows that must move.
    """

    rows: Int[np.ndarray, "K s"]
    pairs: tuple[tuple[Pair, ...], ...]
    slots: tuple[int, ...]
    place: dict[Pair, int]
    bound: int

    @property
    def moved(self) -> int:
        """Rows that move in a round, padding included."""
        return sum(slots * len(pairs) for slots, pairs in zip(self.slots, self.pairs, strict=True))


def exchange(edges: Int[np.ndarray, "e 2"], where: Layout) -> Exchange:
    """Plan the halo: which rows each device sends to each other one.

    Args:
        edges: receiver and sender of every message.
        where: the rows of each device.
    """
    parts = where.parts
    reader, sender = parts[edges[:, 0]], edges[:, 1]
    cross = reader != parts[sender]
    needed = np.unique(np.stack([parts[sender], reader, sender], axis=1)[cross], axis=0)
    wanted: dict[Pair, list[int]] = {}
    for source, target, node in needed.tolist():
        wanted.setdefault((source, target), []).append(node)
    colours = _colours({pair: len(nodes) for pair, nodes in wanted.items()}, where.devices)
    slots = [max(len(wanted[pair]) for pair in pairs) for pairs in colours]
    rows = np.zeros((where.devices, sum(slots)), np.int32)
    place: dict[Pair, int] = {}
    at = 0
    for pairs, width in zip(colours, slots, strict=True):
        for source, target in pairs:
            nodes = wanted[source, target]
            rows[source, at : at + len(nodes)] = where.position[nodes] % where.rows
            place |= {(target, node): where.rows + at + k for k, node in enumerate(nodes)}
        at += width
    return Exchange(rows, tuple(map(tuple, colours)), tuple(slots), place, len(needed))


def _colours(sizes: dict[Pair, int], devices: int) -> list[list[Pair]]:
    """Colour the pairs of devices so that no two of one colour share a device; both directions have one colour.

    Heaviest first, so that pairs of one colour move about as many rows. Where that takes more colours or moves more
    than the rounds of a tournament, in which all devices meet, those are taken.
    """
    meetings = sorted({(min(pair), max(pair)) for pair in sizes})
    weight = {(a, b): max(sizes.get((a, b), 0), sizes.get((b, a), 0)) for a, b in meetings}
    greedy: list[list[Pair]] = []
    for pair in sorted(meetings, key=lambda pair: -weight[pair]):
        free = (colour for colour in greedy if not any(set(pair) & set(other) for other in colour))
        if (colour := next(free, None)) is None:
            greedy.append([pair])
        else:
            colour.append(pair)
    there = set(meetings)
    tournament = [[pair for pair in colour if pair in there] for colour in _tournament(devices)]
    choices = [greedy, [colour for colour in tournament if colour]]

    def cost(colours: list[list[Pair]]) -> Pair:
        ways = [[pair for a, b in colour for pair in ((a, b), (b, a)) if pair in sizes] for colour in colours]
        return sum(max(map(sizes.__getitem__, pairs)) * len(pairs) for pairs in ways), len(colours)

    best = min(choices, key=cost)
    return [[pair for a, b in colour for pair in ((a, b), (b, a)) if pair in sizes] for colour in best]


def _tournament(devices: int) -> list[list[Pair]]:
    """Return the rounds of the circle method, in which every two devices meet once."""
    players = list(range(devices)) + ([-1] if devices % 2 else [])
    rounds = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        pairs = itertools.islice(zip(players, reversed(players), strict=True), half)
        rounds.append([(min(pair), max(pair)) for pair in pairs if min(pair) >= 0])
        players = [players[0], players[-1], *players[1:-1]]
    return rounds
