"""Everything that is said in a plan, as linear combinations of contributions: the engine's loop on the host."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, Bool, Float64, Int, Key

from gossipjax._base.memory import check_memory
from gossipjax.facts import Properties
from gossipjax.mixing._forms import PairMixing
from gossipjax.privacy._combinations import FLOATS, RESIDUES, Arithmetic, combination, rounding, sums
from gossipjax.privacy._contributions import Contributions, Hears
from gossipjax.privacy._events import host_events, plain_events
from gossipjax.types import NOBODY, Timeline

_BYTES = 12.0
"""Of a coefficient: in float64, and its residue."""
_STEP = 8 * float(np.finfo(float).eps)
"""Rounding of the coefficients of a step, relative to their sum: of ``β^t``, t times that of β."""
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
    blocks: list[np.ndarray]
    """Contents ``(rows, columns)``: coefficients of the contributions made so far, or their residues."""
    rounding: list[Float64[np.ndarray, " rows"]]
    """Bound on the error of each entry in each row of the blocks; 0 for residues."""
    final: np.ndarray
    """The models ``(n, c)`` at the end."""
    final_rounding: Float64[np.ndarray, " n"]
    links: Bool[np.ndarray, "n n"]
    """Whether the first node receives anything from the second."""

    def rows(self, chosen: Int[np.ndarray, " r"], columns: Int[np.ndarray, " k"]) -> np.ndarray:
        """Return the contents ``(r, k)`` of some entries, in some columns."""
        found = np.zeros((len(chosen), len(columns)), self.final.dtype)
        for place, entry in enumerate(chosen):
            content = self.blocks[self.block[entry]][self.row[entry]]
            there = columns < len(content)
            found[place, there] = content[columns[there]]
        return found

    def errors(self, chosen: Int[np.ndarray, " r"]) -> Float64[np.ndarray, " r"]:
        """Return bounds on the error of each entry of these contents."""
        return np.asarray([self.rounding[self.block[entry]][self.row[entry]] for entry in chosen], float)


class _Recorder:
    """Collects entries; the content of a message in flight stays with the row that holds it."""

    def __init__(self, num_nodes: int, stored: Any):
        self.num_nodes, self.stored = num_nodes, stored
        self.links = np.zeros((num_nodes, num_nodes), bool)
        self.blocks: list[np.ndarray] = []
        self.rounding: list[np.ndarray] = []
        self.entries: list[tuple[int, ...]] = []
        self.in_flight: dict[int, int] = {}

    def _keep(self, contents: np.ndarray, error: np.ndarray) -> int:
        self.blocks.append(contents.astype(self.stored, copy=False))
        self.rounding.append(error)
        return len(self.blocks) - 1

    def transfers(self, t: int, senders: np.ndarray, receivers: np.ndarray, old: np.ndarray, error: np.ndarray) -> None:
        """Record messages that leave, arrive, or both, in one event; all rows are read before one is written."""
        distinct, place = np.unique(senders, return_inverse=True)
        block, n = self._keep(old[distinct], error[distinct]), self.num_nodes
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

    def sums(self, t: int, receivers: np.ndarray, contents: np.ndarray, error: np.ndarray) -> None:
        """Record the sum that each receiver hears."""
        block = self._keep(contents, error)
        for row, receiver in enumerate(receivers.tolist()):
            self.entries.append((t, receiver, receiver, t, block, row))


class _Run:
    """The rows of a run: coefficients of contributions, and bounds on their rounding."""

    def __init__(self, facts: Properties, contributions: Contributions, total: int, arithmetic: Arithmetic):
        n, rows = facts.num_nodes, facts.num_rows + facts.num_slots
        self.contributions, self.arithmetic, self.name = contributions, arithmetic, facts.name
        self.Y, self.error = np.zeros((rows, total), arithmetic.kind), np.zeros(rows)
        self.own: list[list[int]] = [[] for _ in range(n)]
        self.count = 0
        if contributions.of == "start":
            self.Y[:n], self.count = np.eye(n), n

    def number(self, nodes: np.ndarray) -> list[np.ndarray]:
        """Number the columns of the nodes' next steps; return what these add to the rows, in columns of the node."""
        steps, changes = self.contributions.local_steps, []
        for node in nodes.tolist():
            own = self.own[node]
            own += range(self.count, self.count + steps)
            added = np.zeros(len(own), self.arithmetic.kind)
            for count in range(len(own) - steps + 1, len(own) + 1):
                added[:count] = self.arithmetic.added(added[:count], self.arithmetic.steps(self.contributions, count))
            changes.append(added)
            self.count += steps
        return changes

    def step(self, nodes: np.ndarray, changes: list[np.ndarray]) -> None:
        """Add the steps of the nodes to their rows."""
        for node, change in zip(nodes.tolist(), changes, strict=True):
            own = self.own[node]
            self.Y[node, own] = self.arithmetic.added(self.Y[node, own], change)
            if not self.arithmetic.residues:
                size = np.abs(self.Y[node, own]).max() + np.abs(change).sum()
                self.error[node] += _STEP * self.contributions.local_steps * size

    def mix(self, event: HostEvent, t: int, recorder: _Recorder, hears: Hears, fragment: int | None) -> None:
        """Record what is said in an event, and mix."""
        Y, size = self.Y[:, : self.count], len(self.Y)
        if hears == "sums":
            W = sums(event.mixing, size, self.name)
            hearing = np.flatnonzero(W.any(axis=1))
            recorder.sums(t, hearing, self.arithmetic.combined(W[hearing], None, Y), self._rounded(W[hearing], None))
        mixed = combination(event.mixing, size, fragment, self.name, self.arithmetic)
        senders, receivers = mixed.senders, mixed.receivers
        apart = senders != receivers
        if hears == "sums":
            recorder.links[receivers[apart], senders[apart]] = True
        else:
            lost = _unheard(event, senders[apart], size)
            who, to = np.append(senders[apart], lost), np.append(receivers[apart], np.full(len(lost), NOBODY))
            recorder.transfers(t, who, to, Y, self.error)
        error = self._rounded(mixed.weights, mixed.rows)
        Y[mixed.written] = self.arithmetic.combined(mixed.weights, mixed.rows, Y)
        self.error[mixed.written] = error

    def _rounded(self, weights: np.ndarray, rows: Int[np.ndarray, "k d"] | None) -> Float64[np.ndarray, " k"]:
        if self.arithmetic.residues:
            return np.zeros(len(weights))
        return rounding(weights, rows, self.error, self.Y[:, : self.count])


def write_tape(
    timeline: Timeline,
    contributions: Contributions,
    hears: Hears,
    key: Key[Array, ""],
    fragment: int | None = None,
    *,
    residues: bool = False,
) -> Tape:
    """Run the plan on the identity: rows of models are coefficients of the contributions.

    Args:
        timeline: of nodes that train their own rows.
        contributions: what is a column.
        hears: whether receivers hear messages, or only the weighted sum of each round.
        key: of the run.
        fragment: the class of coordinates, where messages name fragments; None: whole models.
        residues: give coefficients modulo the prime of :mod:`~gossipjax.privacy._residues`, not in float64.

    Raises:
        ValueError: events that the audit cannot read, or a tape that does not fit into memory.
    """
    facts = timeline.properties
    arithmetic = RESIDUES if residues else FLOATS
    n, rows = facts.num_nodes, facts.num_rows + facts.num_slots
    acting, saying = [], []
    for event in plain_events(timeline, key):
        acting.append(_acting(event, n, facts.name) if contributions.of == "steps" else _NONE)
        saying.append(_rows_that_speak(event, rows))
    total = n if contributions.of == "start" else contributions.local_steps * sum(map(len, acting))
    _check_size(saying, acting, contributions, total, rows, facts.name)
    node, made = _columns(contributions, acting, n)
    run, recorder = _Run(facts, contributions, total, arithmetic), _Recorder(n, arithmetic.stored)
    for t, (event, nodes) in enumerate(zip(host_events(timeline, key, residues), acting, strict=True)):
        changes = run.number(nodes)
        if contributions.order == "adapt_then_combine":
            run.step(nodes, changes)
        if event.mixing is not None:
            run.mix(event, t, recorder, hears, fragment)
        if contributions.order == "combine_then_adapt":
            run.step(nodes, changes)
    entries = np.asarray(recorder.entries, np.int64).reshape(-1, 6).T
    said: Any = dict(zip(("event", "sender", "receiver", "sent", "block", "row"), entries, strict=True))
    said |= {"blocks": recorder.blocks, "rounding": recorder.rounding, "links": recorder.links}
    return Tape(node, made, **said, final=run.Y[:n].astype(arithmetic.stored), final_rounding=run.error[:n])


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
    count, size = total if contributions.of == "start" else 0, _BYTES * rows * total
    for said, nodes in zip(saying, acting, strict=True):
        count += contributions.local_steps * len(nodes)
        size += _BYTES * said * count
    check_memory(
        f"{name}: an audit of {total:,} contributions in {len(saying):,} events",
        size,
        "audit a shorter part of the plan, such as plan[:100], or start values instead of steps",
    )


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
