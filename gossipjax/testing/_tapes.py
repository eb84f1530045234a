"""Strategies for event tapes, and for timelines of few shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from hypothesis import strategies as st
from jaxtyping import Bool, Float, Int

from gossipjax.facts import Properties, Traffic
from gossipjax.testing._strategies import Draw, connected_graphs, mixing_matrices, same_random_state
from gossipjax.timeline import rounds
from gossipjax.timeline._events import pad
from gossipjax.timeline._from_events import from_events, planned_event
from gossipjax.timeline._push_gossip import direct_events, message_events
from gossipjax.timeline.flights import DELIVERED, DROPPED, IN_FLIGHT, Flights, traffic
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Timeline

SIZES = (2, 3, 8)
"""Numbers of nodes of drawn timelines."""
EVENT_COUNTS = (32, 128, 512, 2048)
"""Numbers of events to which planned timelines are padded."""
SLOT_COUNTS = (0, 16, 64, 256)
"""Numbers of rows for messages in flight to which planned timelines are padded."""
KINDS = ("rounds", "exchanges", "pushes", "flights")
"""Kinds that :func:`timelines` draws by default."""

_GAPS = (0.0, 0.25, 0.5, 1.0)
_DELAYS = (0.0, 0.25, 0.75, 3.0)
_TAPES: dict[str, Any] = {"exchanges": "exchange", "pushes": "push", "flights": "flight"}
_MATRICES: dict[str, Any] = {"rounds": "symmetric", "row_rounds": "row", "column_rounds": "column"}
_LANES = 2
_ACTING = ("index", "time", "nodes", "rows")


class EventTape(NamedTuple):
    """A sequence of entries, each a local update of a node or a push to a peer."""

    num_nodes: int
    times: Float[np.ndarray, " e"]
    """Seconds, not decreasing; ties are allowed."""
    nodes: Int[np.ndarray, " e"]
    """Node that updates or sends."""
    peers: Int[np.ndarray, " e"]
    """Node that receives; :data:`~gossipjax.types.NOBODY` for a local update."""
    delays: Float[np.ndarray, " e"]
    """Flight time of a message in seconds; used by flights only."""
    lost: Bool[np.ndarray, " e"]
    """Whether the message is lost."""


@st.composite
def event_tapes(draw: Draw, topology: Topology, max_events: int = 16, *, losses: bool = True) -> EventTape:
    """Draw local updates of the nodes of a network, and pushes along its edges.

    Entries shrink independently. Times are multiples of a quarter of a second, so that ties occur.

    >>> from gossipjax.topology import ring
    >>> strategy = event_tapes(ring(5)).map(lambda tape: tape_timeline(tape, "flight"))

    Args:
        draw: passed by Hypothesis.
        topology: any; edges go from sender to receiver.
        max_events: largest number of entries; the smallest is one.
        losses: whether messages may be lost.
    """
    n, lost = topology.num_nodes, st.sampled_from([False, False, False, True]) if losses else st.just(False)
    number = st.integers(-n, topology.senders.size - 1)
    entry = st.tuples(number, st.sampled_from(_GAPS), st.sampled_from(_DELAYS), lost)
    drawn = draw(st.lists(entry, min_size=1, max_size=max_events))
    numbers, gaps, delays, losts = (np.asarray(column) for column in zip(*drawn, strict=True))
    senders, receivers = np.append(topology.senders, 0), np.append(topology.receivers, 0)
    update = numbers < 0
    edge = np.where(update, 0, numbers)
    nodes = np.where(update, -1 - numbers, senders[edge]).astype(np.int32)
    peers = np.where(update, NOBODY, receivers[edge]).astype(np.int32)
    return EventTape(n, np.cumsum(gaps), nodes, peers, np.where(update, 0.0, delays), losts & ~update)


def tape_timeline(tape: EventTape, how: Literal["push", "exchange", "flight"], *, weight: float = 0.5) -> Timeline:
    """Build the timeline of a tape, padded to one of few shapes (:func:`pad_timeline`).

    A push i → j at time t means, with a = ``weight``::

        push:       x_j ← (1 − a) x_j + a x_i       at t
        exchange:   the same, and simultaneously  x_i ← (1 − a) x_i + a x_j
        flight:     x_j ← (1 − a) x_j + a x_i(t)    at t + delay; never, if that is a second or more after the tape

    Lost messages mix nothing. ``properties.traffic`` counts all messages by outcome.

    >>> tape = EventTape(2, np.zeros(1), np.array([0]), np.array([1]), np.ones(1), np.zeros(1, bool))
    >>> plan = tape_timeline(tape, "flight")
    >>> len(plan), plan.properties.num_slots, plan.properties.traffic.in_flight
    (32, 16, 1)

    Args:
        tape: entries sorted by time.
        how: effect of a push.
        weight: a in (0, 1].

    Raises:
        ValueError: if ``how`` is unknown, the weight is out of range, or a node does not exist.
    """
    if how not in ("push", "exchange", "flight") or not 0.0 < weight <= 1.0:
        raise ValueError(f"how={how!r}, weight={weight}: choose 'push', 'exchange' or 'flight', a weight in (0, 1]")
    pushed = tape.peers != NOBODY
    named = np.append(tape.nodes, tape.peers[pushed])
    if named.min(initial=0) < 0 or named.max(initial=0) >= tape.num_nodes:
        raise ValueError(
            f"the tape names nodes {named.min()} … {named.max()}: they must lie in 0 … {tape.num_nodes - 1}"
        )
    acts = tape.times[~pushed], tape.nodes[~pushed].astype(np.int32)
    sent, senders, receivers, lost = (field[pushed] for field in (tape.times, tape.nodes, tape.peers, tape.lost))
    facts = Properties(tape.num_nodes, tape.num_nodes, f"hypothesis tape ({how})", messages="pair: one model")
    if how == "flight":
        flights = _flights(sent, tape.delays[pushed], lost, duration=float(tape.times[-1]) + 1.0)
        xs, slots = message_events(acts, sent, senders, receivers, flights, tape.num_nodes, weight)
        facts = dataclasses.replace(facts, num_slots=slots, traffic=traffic(flights))
        return pad_timeline(from_events(xs, facts), num_slots=_bucket(max(slots, 1), SLOT_COUNTS))
    ends, failed = np.stack([senders, receivers], axis=1), int(lost.sum())
    if how == "push":
        facts = dataclasses.replace(facts, traffic=Traffic(lost.size, lost.size - failed, dropped=failed))
        return pad_timeline(direct_events(acts, sent, ends[:, :1], ends[:, 1:], ~lost, weight, facts))
    balance = Traffic(2 * lost.size - failed, 2 * (lost.size - failed), dropped=failed)
    facts = dataclasses.replace(facts, tags=facts.tags | {"symmetric", "doubly_stochastic"}, traffic=balance)
    return pad_timeline(direct_events(acts, sent, ends, ends[:, ::-1], ~lost, weight, facts))


def _flights(sent: np.ndarray, delays: np.ndarray, lost: np.ndarray, duration: float) -> Flights:
    arrivals = sent + delays
    fates = np.where(lost, DROPPED, np.where(arrivals < duration, DELIVERED, IN_FLIGHT)).astype(np.int8)
    delivered = np.flatnonzero(fates == DELIVERED)
    delivered = delivered[np.argsort(arrivals[delivered], kind="stable")]
    return Flights(arrivals, fates, delivered, arrivals[delivered])


def _bucket(count: int, buckets: Sequence[int]) -> int:
    """Round up to the next bucket; past the last one, to the next power of two."""
    return next((size for size in buckets if size >= count), 1 << max(0, count - 1).bit_length())


def pad_timeline(
    timeline: Timeline,
    *,
    num_events: int | None = None,
    acting: int | None = None,
    lanes: int | None = None,
    num_slots: int | None = None,
) -> Timeline:
    """Pad a planned timeline to one of few shapes, with empty events and empty lanes.

    The run does not change. All fields, shared ones included, become arrays per event. If the plan does not state which
    transfers are messages, all are.

    >>> from gossipjax.timeline import push_gossip
    >>> plan = pad_timeline(push_gossip(5, 2.0, compute=None, gossip=1.0, latency=0.1, seed=0))
    >>> len(plan), plan.xs["senders"].shape, plan.properties.num_slots
    (32, (32, 2), 16)

    Args:
        timeline: from :func:`gossipjax.timeline.from_events`, its planners or :func:`gossipjax.pack`.
        num_events: T of the result; None: round up to :data:`EVENT_COUNTS`.
        acting: acting nodes of an event; None: unchanged.
        lanes: transfers (or groups) of an event; None: unchanged, but at least two.
        num_slots: rows for messages in flight; None: round up to :data:`SLOT_COUNTS`.

    Raises:
        ValueError: if the timeline is not planned, or a size is smaller than the timeline's.
    """
    facts, total = timeline.properties, len(timeline)
    if timeline.event is not planned_event:
        raise ValueError(f"{facts.name} is not a planned timeline: only those are lists of events that can be padded")
    xs = _written_out(timeline)
    wide = max((np.shape(xs[name])[1] for name in ("receivers", "targets") if name in xs), default=1)
    shape = {
        "num_events": (total, _bucket(total, EVENT_COUNTS) if num_events is None else num_events),
        "acting": (xs["nodes"].shape[1], xs["nodes"].shape[1] if acting is None else acting),
        "lanes": (wide, max(wide, _LANES) if lanes is None else lanes),
        "num_slots": (facts.num_slots, _bucket(facts.num_slots, SLOT_COUNTS) if num_slots is None else num_slots),
    }
    for what, (has, wanted) in shape.items():
        if wanted < has:
            raise ValueError(f"{what}={wanted}: {facts.name} has {has}; it can be padded to more, not cut")
    events, acting, lanes = (shape[what][1] for what in ("num_events", "acting", "lanes"))
    for name, array in xs.items():
        width = acting if name in _ACTING else array.shape[1] if name == "begin" else max(lanes, array.shape[1])
        xs[name] = pad(name, array, events, width)
    _number(xs, total, shape["acting"][0], packed=facts.packing is not None)
    facts = dataclasses.replace(facts, num_slots=shape["num_slots"][1])
    return Timeline(xs, {}, planned_event, facts)


def _written_out(timeline: Timeline) -> dict[str, Any]:
    """Return per-event arrays of all fields. Absent rows become :data:`NOBODY`, since slots are added."""
    shared = {name: np.broadcast_to(array, (len(timeline), *array.shape)) for name, array in timeline.shared.items()}
    xs = {name: np.asarray(array) for name, array in (shared | dict(timeline.xs)).items()}
    rows = timeline.properties.num_rows + timeline.properties.num_slots
    for name in {"senders", "receivers", "members", "targets", "speakers"} & xs.keys():
        xs[name] = np.where(xs[name] < rows, xs[name], NOBODY).astype(np.int32)
    if "messages" not in xs and "receivers" in xs:
        live = (xs["senders"] < rows) & (xs["receivers"] < rows) & (xs["senders"] != xs["receivers"])
        xs["messages"] = live.astype(np.uint32)
    return xs


def _number(xs: dict[str, Any], total: int, acting: int, packed: bool) -> None:
    """Copy the number and time of the last original lane and event to the added ones, since records read them."""
    for name in ("index", "time"):
        xs[name][:total, acting:] = xs[name][:total, acting - 1 : acting]
        xs[name][total:] = xs[name][total - 1, acting - 1]
    if not packed:
        xs["index"][:] = np.arange(len(xs["index"]), dtype=np.uint32)[:, None]


def timelines(
    kinds: Sequence[str] = KINDS,
    sizes: Sequence[int] = SIZES,
    *,
    num_rounds: int = 8,
    max_events: int = 16,
    losses: bool = True,
) -> st.SearchStrategy[Timeline]:
    """Draw a timeline on a random connected network.

    * ``"rounds"``: a symmetric doubly stochastic W (:func:`mixing_matrices`); every node acts;
    * ``"row_rounds"`` and ``"column_rounds"``: a W on a directed network whose rows or columns sum to one;
    * ``"exchanges"``, ``"pushes"``, ``"flights"``: :func:`tape_timeline` of a drawn tape, which has local updates too.

    Shapes depend only on the kind, the number of nodes and ``max_events``; exchanges and pushes share one shape. Rounds
    and exchanges conserve the mean; ``timeline.properties`` lists the other facts.

    >>> strategy = timelines(("rounds", "exchanges"), sizes=(4,))

    Args:
        kinds: kinds to draw from.
        sizes: numbers of nodes.
        num_rounds: T of rounds.
        max_events: largest number of entries of a tape.
        losses: whether messages may be lost.

    Raises:
        ValueError: if a kind is unknown.
    """
    if unknown := [kind for kind in kinds if kind not in _TAPES | _MATRICES]:
        raise ValueError(f"kinds={unknown[0]!r} is unknown: choose among {', '.join([*_MATRICES, *_TAPES])}")
    return st.one_of([_timelines(kind, n, num_rounds, max_events, losses) for n in sizes for kind in kinds])


@st.composite
def _timelines(draw: Draw, kind: str, n: int, num_rounds: int, max_events: int, losses: bool) -> Timeline:
    if kind in _MATRICES:
        W: Any = draw(mixing_matrices(_MATRICES[kind], n, n))
        with same_random_state():
            return rounds(W, num_rounds, stochastic="column" if kind == "column_rounds" else "row", form="dense")
    tape = draw(event_tapes(draw(connected_graphs(n, n)), max_events, losses=losses))
    with same_random_state():
        plan = tape_timeline(tape, _TAPES[kind])
        # Room for any tape with that many entries: each may be a send and a delivery.
        if kind == "flights":
            slots = _bucket(max_events, SLOT_COUNTS)
            return pad_timeline(plan, num_events=_bucket(2 * max_events, EVENT_COUNTS), num_slots=slots)
        return pad_timeline(plan, num_events=_bucket(max_events, EVENT_COUNTS))
