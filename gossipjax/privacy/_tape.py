"""Everything that is said in a plan, as linear combinations of contributions: the engine's loop on the host."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, Bool, Float64, Int, Key

from gossipjax._base.memory import check_memory
from gossipjax.mixing._forms import DenseMixing, PairMixing, TableMixing
from gossipjax.privacy._contributions import Contributions, Hears
from gossipjax.privacy._events import host_events, plain_events
from gossipjax.types import NOBODY, Timeline

HostEvent: TypeAlias = Any
"""An event with NumPy arrays in the place of JAX arrays."""


class Tape(NamedTuple):
    """All messages of a plan, for one class of coordinates."""

    node: Int[np.ndarray, " c"]
    """The node of each contribution."""
    made: Int[np.ndarray, " c"]
    """The event in which it was made; −1: at the start."""
    event: Int[np.ndarray, " m"]
    """The event of each entry: that of its delivery, or of its sending if it is not delivered."""
    sender: Int[np.ndarray, " m"]
    """The node that sent it; of a sum, the receiver."""
    receiver: Int[np.ndarray, " m"]
    """The node that hears it; :data:`~gossipjax.types.NOBODY` for messages that are lost or on their way."""
    sent: Int[np.ndarray, " m"]
    """The event in which it was sent."""
    block: Int[np.ndarray, " m"]
    row: Int[np.ndarray, " m"]
    """The row of :attr:`blocks` with the content."""
    blocks: list[Float64[np.ndarray, "rows columns"]]
    """Contents: coefficients of the contributions made so far."""
    final: Float64[np.ndarray, "n c"]
    """The models at the end."""
    links: Bool[np.ndarray, "n n"]
    """Whether the first node receives anything from the second."""

    def rows(self, chosen: Int[np.ndarray, " r"], columns: Int[np.ndarray, " k"]) -> Float64[np.ndarray, "r k"]:
        """Return the contents of some entries, in some columns."""
        found = np.zeros((len(chosen), len(columns)))
        for place, entry in enumerate(chosen):
            content = self.blocks[self.block[entry]][self.row[entry]]
            there = columns < len(content)
            found[place, there] = content[columns[there]]
        return found


class _Recorder:
    """Collects entries; the content of a message in flight stays with the row that holds it."""

    def __init__(self, num_nodes: int):
        self.num_nodes = num_nodes
        self.links = np.zeros((num_nodes, num_nodes), bool)
        self.blocks: list[np.ndarray] = []
        self.entries: list[tuple[int, ...]] = []
        self.in_flight: dict[int, int] = {}

    def transfers(self, t: int, senders: np.ndarray, receivers: np.ndarray, old: np.ndarray) -> None:
        """Record messages that leave, arrive, or both, in one event; all rows are read before one is written."""
        distinct, place = np.unique(senders, return_inverse=True)
        self.blocks.append(old[distinct])
        block, n = len(self.blocks) - 1, self.num_nodes
        listed = list(zip(senders.tolist(), receivers.tolist(), place.tolist(), strict=True))
        for sender, receiver, _ in listed:
            if sender >= n and sender in self.in_flight and receiver < n:
                self._deliver(self.in_flight[sender], t, receiver)
        for sender, receiver, row in listed:
            if sender < n:
                if n <= receiver < NOBODY:
                    self.in_flight[receiver] = len(self.entries)
                to = receiver if receiver < n else NOBODY
                self.links[min(receiver, n - 1), sender] |= receiver < n
                self.entries.append((t, sender, to, t, block, row))

    def _deliver(self, entry: int, t: int, receiver: int) -> None:
        _, sender, before, sent, block, row = self.entries[entry]
        self.links[receiver, sender] = True
        if before == NOBODY:
            self.entries[entry] = (t, sender, receiver, sent, block, row)
        else:  # read once more
            self.entries.append((t, sender, receiver, sent, block, row))

    def sums(self, t: int, receivers: np.ndarray, contents: np.ndarray) -> None:
        """Record the sum that each receiver hears."""
        self.blocks.append(contents)
        for row, receiver in enumerate(receivers.tolist()):
            self.entries.append((t, receiver, receiver, t, len(self.blocks) - 1, row))


def write_tape(
    timeline: Timeline,
    contributions: Contributions,
    hears: Hears,
    key: Key[Array, ""],
    fragment: int | None = None,
) -> Tape:
    """Run the plan on the identity: rows of models are coefficients of the contributions.

    Args:
        timeline: of nodes that train their own rows.
        contributions: what is a column.
        hears: whether receivers hear messages, or only the weighted sum of each round.
        key: of the run.
        fragment: the class of coordinates, where messages name fragments; None: whole models.

    Raises:
        ValueError: events that the audit cannot read, or a tape that does not fit into memory.
    """
    facts = timeline.properties
    n, rows = facts.num_nodes, facts.num_rows + facts.num_slots
    acting, saying = [], []
    for event in plain_events(timeline, key):
        acting.append(_acting(event, n, facts.name) if contributions.of == "steps" else _NONE)
        saying.append(_rows_that_speak(event, rows))
    total = n if contributions.of == "start" else contributions.local_steps * sum(map(len, acting))
    _check_size(saying, acting, contributions, total, rows, facts.name)
    node, made = _columns(contributions, acting, n)
    Y = np.zeros((rows, total))
    if contributions.of == "start":
        Y[:n] = np.eye(n)
    own: list[list[int]] = [[] for _ in range(n)]
    recorder, count = _Recorder(n), n if contributions.of == "start" else 0
    for t, (event, nodes) in enumerate(zip(host_events(timeline, key), acting, strict=True)):
        changes = [
            _change(contributions, own[node], count + k * contributions.local_steps) for k, node in enumerate(nodes)
        ]
        count += contributions.local_steps * len(nodes)
        if contributions.order == "adapt_then_combine":
            _add(Y, nodes, own, changes)
        if event.mixing is not None:
            _mix(Y[:, :count], event, t, recorder, hears, fragment, facts.name)
        if contributions.order == "combine_then_adapt":
            _add(Y, nodes, own, changes)
    entries = np.asarray(recorder.entries, np.int64).reshape(-1, 6).T
    said = dict(zip(("event", "sender", "receiver", "sent", "block", "row"), entries, strict=True))
    return Tape(node, made, **said, blocks=recorder.blocks, final=Y[:n], links=recorder.links)


def contributions_made(
    timeline: Timeline, contributions: Contributions, key: Key[Array, ""]
) -> tuple[Int[np.ndarray, " c"], Int[np.ndarray, " c"]]:
    """Return the node of each contribution, and the event in which it is made, without running the plan."""
    n, name = timeline.properties.num_nodes, timeline.properties.name
    if contributions.of == "start":
        return _columns(contributions, [], n)
    return _columns(contributions, [_acting(event, n, name) for event in plain_events(timeline, key)], n)


_NONE = np.zeros(0, np.int64)


def _acting(event: HostEvent, n: int, name: str) -> Int[np.ndarray, " k"]:
    if event.nodes is None:
        return np.arange(n)
    live = event.nodes < n
    if event.rows is not None and np.any(event.rows[live] != event.nodes[live]):
        raise ValueError(f"{name} lets nodes train rows other than their own: an audit needs the fact own_rows")
    return event.nodes[live].astype(np.int64)


def _columns(contributions: Contributions, acting: list, n: int) -> tuple[np.ndarray, np.ndarray]:
    if contributions.of == "start":
        return np.arange(n), np.full(n, -1)
    nodes = np.concatenate([_NONE, *(np.repeat(each, contributions.local_steps) for each in acting)])
    sizes = [contributions.local_steps * len(each) for each in acting]
    return nodes, np.repeat(np.arange(len(acting)), sizes)


def _rows_that_speak(event: HostEvent, rows: int) -> int:
    if event.mixing is None:
        return 0
    return len(np.unique(event.mixing.senders)) if isinstance(event.mixing, PairMixing) else rows


def _check_size(
    saying: list[int], acting: list, contributions: Contributions, total: int, rows: int, name: str
) -> None:
    """Estimate the memory of the contents, and refuse what does not fit."""
    count, size = total if contributions.of == "start" else 0, 8.0 * rows * total
    for said, nodes in zip(saying, acting, strict=True):
        count += contributions.local_steps * len(nodes)
        size += 8.0 * said * count
    check_memory(
        f"{name}: an audit of {total:,} contributions in {len(saying):,} events",
        size,
        "audit a shorter part of the plan, such as plan[:100], or start values instead of steps",
    )


def _change(contributions: Contributions, own: list[int], first: int) -> Float64[np.ndarray, " s"]:
    """Number the columns of a node's next steps, and return what these add to its row, in all of its columns."""
    own += range(first, first + contributions.local_steps)
    added = np.zeros(len(own))
    for count in range(len(own) - contributions.local_steps + 1, len(own) + 1):
        added[:count] += contributions.weights(count)
    return added


def _add(Y: np.ndarray, nodes: np.ndarray, own: list[list[int]], changes: list[np.ndarray]) -> None:
    for node, change in zip(nodes.tolist(), changes, strict=True):
        Y[node, own[node]] += change


def _mix(
    Y: np.ndarray, event: HostEvent, t: int, recorder: _Recorder, hears: Hears, fragment: int | None, name: str
) -> None:
    """Record what is said in an event, and mix."""
    if hears == "sums":
        W = _off_diagonal(event.mixing, len(Y), name)
        hearing = np.flatnonzero(W.any(axis=1))
        recorder.sums(t, hearing, W[hearing] @ Y)
    senders, receivers, written, new = _mixed(Y, event.mixing, fragment, name)
    apart = senders != receivers
    if hears == "sums":
        recorder.links[receivers[apart], senders[apart]] = True
    else:
        lost = _unheard(event, senders[apart], len(Y))
        who, to = np.append(senders[apart], lost), np.append(receivers[apart], np.full(len(lost), NOBODY))
        recorder.transfers(t, who, to, Y)
    Y[written] = new


_Mixed = tuple[np.ndarray, np.ndarray, Any, np.ndarray]
"""Senders and receivers of the transfers, rows that are written, and what is written."""


def _mixed(Y: np.ndarray, mixing: HostEvent, fragment: int | None, name: str) -> _Mixed:
    if isinstance(mixing, DenseMixing):
        return _from_matrix(Y, mixing.W)
    if isinstance(mixing, TableMixing):
        return _from_table(Y, mixing)
    if isinstance(mixing, PairMixing):
        return _from_pairs(Y, mixing)
    return _averaged(Y, mixing, fragment, name)


def _from_matrix(Y: np.ndarray, W: Any) -> _Mixed:
    receivers, senders = np.nonzero(W)
    return senders, receivers, slice(None), W @ Y


def _from_pairs(Y: np.ndarray, mixing: Any) -> _Mixed:
    there = (mixing.senders < len(Y)) & (mixing.receivers < len(Y))
    senders, receivers = mixing.senders[there], mixing.receivers[there]
    new = mixing.keep[there, None] * Y[receivers] + mixing.weights[there, None] * Y[senders]
    return senders, receivers, receivers, new


def _from_table(Y: np.ndarray, mixing: Any) -> _Mixed:
    receivers, lanes = np.nonzero(mixing.weights)
    new = mixing.self_weight[:, None] * Y
    for neighbors, weights in zip(mixing.neighbors.T, mixing.weights.T, strict=True):
        new += weights[:, None] * Y[neighbors]
    return mixing.neighbors[receivers, lanes], receivers, slice(None), new


def _averaged(Y: np.ndarray, mixing: Any, fragment: int | None, name: str) -> _Mixed:
    """Average the members that send this class of coordinates; the only target of a group is who averages."""
    there = mixing.targets < len(Y)
    if np.any(there.sum(axis=1) > 1):
        raise ValueError(
            f"{name} has groups of which several rows take the average, and does not say who computes it and so hears "
            "all members: an audit needs groups with one target"
        )
    share = np.where(mixing.members < len(Y), mixing.weights, 0.0)
    if mixing.parts is not None:
        share = np.where((mixing.parts == fragment) | (mixing.parts < 0), share, 0.0)
        total = share.sum(axis=1, keepdims=True)
        share = share / np.where(total == 0, 1, total)
    groups = np.flatnonzero(there.any(axis=1))
    targets = np.where(there, mixing.targets, 0).sum(axis=1)[groups]
    share, members = share[groups], np.minimum(mixing.members[groups], len(Y) - 1)
    g, lanes = np.nonzero(share)
    return members[g, lanes], targets[g], targets, np.einsum("gs,gsc->gc", share, Y[members])


def _off_diagonal(mixing: Any, n: int, name: str) -> Float64[np.ndarray, "n n"]:
    W = np.zeros((n, n))
    if isinstance(mixing, TableMixing):
        np.add.at(W, (np.arange(n)[:, None], mixing.neighbors), mixing.weights)
    elif isinstance(mixing, DenseMixing):
        W += mixing.W
    else:
        raise ValueError(
            f"hears='sums' on {name}: an event of {type(mixing).__name__} has no sum over a neighbourhood; secure sums "
            "need rounds, such as timeline.rounds"
        )
    np.fill_diagonal(W, 0)
    return W


def _unheard(event: HostEvent, heard: np.ndarray, rows: int) -> Int[np.ndarray, " k"]:
    """Return the senders of messages that the plan counts and that reach nobody, once for each sender."""
    counts, speakers = event.messages, event.speakers
    if counts is not None and speakers is None:
        same = isinstance(event.mixing, PairMixing) and counts.shape == event.mixing.senders.shape
        speakers = event.mixing.senders if same else np.arange(rows) if counts.shape == (rows,) else None
    if counts is None or speakers is None:
        return _NONE
    live = speakers < rows
    said = np.bincount(speakers[live], counts[live], minlength=rows)
    return np.flatnonzero(said > np.bincount(heard, minlength=rows))
