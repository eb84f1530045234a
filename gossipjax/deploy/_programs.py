"""Project a planned run on its nodes: what each of them does at each of its events, in the order of the plan.

Sends never wait, and every node follows the total order of the plan. So a message that a node waits for is sent in an
earlier event, or in the same one, whose sends all come before its receipts: no set of nodes can wait for each other.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from gossipjax._base.streams import EVENTS
from gossipjax.mixing._forms import DenseMixing, PairMixing, TableMixing
from gossipjax.timeline._events import draw_window, event_of
from gossipjax.types import Event, Timeline


class Send(NamedTuple):
    """One message of a node, which all its receivers get. Nobody receives one that the plan loses or never delivers."""

    message: int
    receivers: tuple[int, ...]


class Receipt(NamedTuple):
    """One message that a node takes in: ``x ← keep x + weight message``; rounds have the weights of their table."""

    message: int
    sender: int
    weight: float = 0.0
    keep: float = 1.0


class Turn(NamedTuple):
    """What a node does at one event: take a snapshot, train, send, then receive."""

    event: int
    begins: bool
    acts: bool
    sends: tuple[Send, ...]
    receipts: tuple[Receipt, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run of n nodes.

    Attributes:
        rounds: whether all nodes act and mix at every event; otherwise events happen at planned times.
        xs: entries of all events, drawn.
        indices: numbers of the source events.
        times: planned seconds of the events.
        turns: of each node, in order.
        has_begin: whether events say when gradients begin.
        unread: messages that the plan counts and never delivers.
    """

    rounds: bool
    xs: PyTree
    indices: np.ndarray
    times: Float[np.ndarray, " T"]
    turns: tuple[tuple[Turn, ...], ...]
    has_begin: bool
    unread: int

    @property
    def messages(self) -> Int[np.ndarray, "n n"]:
        """Messages by sender and receiver."""
        counts = np.zeros((len(self.turns), len(self.turns)), np.int64)
        for sender, turns in enumerate(self.turns):
            for turn in turns:
                for send in turn.sends:
                    counts[sender, list(send.receivers)] += 1
        return counts


def plan_of(key: Key[Array, ""], timeline: Timeline) -> Plan:
    """Write a timeline out on the host and project it.

    Raises:
        ValueError: if the events of the timeline are neither rounds of all nodes nor meetings and pushes.
    """
    facts, key = timeline.properties, jax.random.fold_in(key, EVENTS)
    if facts.packing is not None:
        raise ValueError(f"{facts.name} is packed, and processes follow single events: deploy the timeline before pack")
    xs = draw_window(key, timeline)
    events = jax.device_get(jax.vmap(partial(event_of, key, timeline))(xs))
    _check_form(events, timeline)
    times = events.time[:, 0].astype(np.float64)
    if timeline.seconds is not None:
        times = np.asarray(timeline.seconds(timeline.shared, timeline.xs), np.float64)
    rounds = not isinstance(events.mixing, PairMixing)
    turns, unread = _round_turns(events) if rounds else _event_turns(events, facts.num_nodes)
    return Plan(rounds, jax.device_get(xs), events.index[:, 0], times, turns, events.begin is not None, unread)


def _check_form(events: Event, timeline: Timeline) -> None:
    facts, mixing = timeline.properties, events.mixing
    if events.allreduce is not None:
        raise ValueError(
            f"{facts.name} is an exact mean by all-reduce, whose pieces are no messages between two nodes: deploy "
            "rounds on a sparser graph, such as mixing.metropolis(topology.hypercube(3))"
        )
    in_rounds = isinstance(mixing, DenseMixing | TableMixing) and events.nodes is None
    if not in_rounds and not isinstance(mixing, PairMixing):
        raise ValueError(
            f"{facts.name} has events of {type(mixing).__name__} with planned absences or groups: deploy rounds of all "
            "nodes (timeline.rounds, matching_rounds, systems.synchronous with round_seconds=None), timeline.pairwise "
            "or timeline.push_gossip"
        )
    if "own_rows" not in facts:
        raise ValueError(f"{facts.name} has models that no node owns: deploy a timeline whose nodes train their own")
    if isinstance(timeline.shared, dict) and "lossy" in timeline.shared:
        raise ValueError(
            f"{facts.name} loses messages of rounds, which processes do not send and the report would not count: "
            "deploy it without loss, or timeline.push_gossip(…, drop=…), whose lost messages are sent"
        )
    if events.speakers is not None or (isinstance(mixing, PairMixing) and events.nodes is None):
        raise ValueError(f"{facts.name} names its speakers or acts everywhere: deploy timeline.pairwise or push_gossip")


def listeners(mixing: Any) -> np.ndarray:
    """Return who hears whom in each round, ``(T, receiver, sender)``."""
    if isinstance(mixing, DenseMixing):
        return np.asarray(mixing.W != 0) & ~np.eye(mixing.W.shape[-1], dtype=bool)
    rounds, n, _ = mixing.neighbors.shape
    heard = np.zeros((rounds, n, n), bool)
    t, i, k = np.nonzero((mixing.weights != 0) & (mixing.neighbors != np.arange(n)[:, None]))
    heard[t, i, mixing.neighbors[t, i, k]] = True
    return heard


def _round_turns(events: Event) -> tuple[tuple[tuple[Turn, ...], ...], int]:
    heard = listeners(events.mixing)
    rounds, n, _ = heard.shape

    def turn(t: int, node: int) -> Turn:
        receivers = tuple(np.flatnonzero(heard[t, :, node]).tolist())
        receipts = tuple(Receipt(t, sender) for sender in np.flatnonzero(heard[t, node]).tolist())
        return Turn(t, False, True, (Send(t, receivers),), receipts)

    return tuple(tuple(turn(t, node) for t in range(rounds)) for node in range(n)), 0


@dataclasses.dataclass
class _Parts:
    """What one node does at one event, while the events are read."""

    begins: bool = False
    acts: bool = False
    sends: list[int] = dataclasses.field(default_factory=list)
    receipts: list[Receipt] = dataclasses.field(default_factory=list)


def _event_turns(events: Event, n: int) -> tuple[tuple[tuple[Turn, ...], ...], int]:
    """Read transfers in order. A message is numbered by its event and lane, and a slot holds the last one put there."""
    parts: list[dict[int, _Parts]] = [{} for _ in range(n)]
    receivers: dict[int, list[int]] = {}
    slots: dict[int, tuple[int, int]] = {}
    for t in range(len(events.index)):
        _read_actors(parts, events, t, n)
        _read_transfers(parts, receivers, slots, events, t, n)
    turns = tuple(
        tuple(
            Turn(t, p.begins, p.acts, tuple(Send(m, tuple(receivers[m])) for m in p.sends), tuple(p.receipts))
            for t, p in of_node.items()
        )
        for of_node in parts
    )
    return turns, sum(not heard for heard in receivers.values())


def _read_actors(parts: list[dict[int, _Parts]], events: Event, t: int, n: int) -> None:
    assert events.nodes is not None
    for node in events.nodes[t].tolist():
        if node < n:
            parts[node].setdefault(t, _Parts()).acts = True
    for node in [] if events.begin is None else events.begin[t].tolist():
        if node < n:
            parts[node].setdefault(t, _Parts()).begins = True


def _read_transfers(parts, receivers: dict[int, list[int]], slots, events: Event, t: int, n: int) -> None:
    """Read sends first: all rows of an event are read before the first is written."""
    lanes = range(events.mixing.senders.shape[1])
    pairs = list(zip(*(events.mixing[k][t].tolist() for k in range(4)), strict=True))
    arrivals = []
    for lane, (sender, receiver, weight, keep) in zip(lanes, pairs, strict=True):
        message = t * len(lanes) + lane
        said = receiver < NOT_A_ROW if events.messages is None else bool(events.messages[t, lane])
        if sender < n and said:
            parts[sender].setdefault(t, _Parts()).sends.append(message)
            receivers[message] = [receiver] if receiver < n else []
        if receiver < n and sender < NOT_A_ROW:
            source = (message, sender) if sender < n else slots.get(sender)
            arrivals.append((receiver, source, weight, keep, sender >= n))
    for receiver, source, weight, keep, from_slot in arrivals:
        heard = receivers.get(-1 if source is None else source[0])
        if source is None or heard is None or (from_slot and receiver in heard):
            raise ValueError(
                f"event {t} delivers a row that holds no message, or delivers one to the same node again: deploy "
                "timeline.pairwise or timeline.push_gossip"
            )
        if from_slot:
            heard.append(receiver)
        parts[receiver].setdefault(t, _Parts()).receipts.append(Receipt(source[0], source[1], weight, keep))
    for lane, (sender, receiver, _, _) in zip(lanes, pairs, strict=True):
        if sender < n <= receiver < NOT_A_ROW:
            slots[receiver] = (t * len(lanes) + lane, sender)


NOT_A_ROW = 2**31 - 1
