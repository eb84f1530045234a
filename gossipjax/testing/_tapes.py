"""Event tapes and timelines of few shapes: what happened, drawn freely, and the plans made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from hypothesis import strategies as st
from jaxtyping import Bool, Float, Int

from gossipjax.testing._strategies import Draw, connected_graphs, mixing_matrices, same_random_state
from gossipjax.timeline import rounds
from gossipjax.timeline._events import pad
from gossipjax.timeline._from_events import from_events, planned_event
from gossipjax.timeline._push_gossip import direct_events, message_events
from gossipjax.timeline.flights import DELIVERED, DROPPED, IN_FLIGHT, Flights, traffic
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Properties, Timeline, Traffic

SIZES = (2, 3, 8)
"""Numbers of nodes that timelines are drawn for."""
EVENT_COUNTS = (32, 128, 512, 2048)
"""Numbers of events to which planned timelines are padded."""
SLOT_COUNTS = (0, 16, 64, 256)
"""Numbers of rows for messages in flight to which planned timelines are padded."""
KINDS = ("rounds", "exchanges", "pushes", "flights")
"""What :func:`timelines` draws unless told otherwise."""

_GAPS = (0.0, 0.25, 0.5, 1.0)
_DELAYS = (0.0, 0.25, 0.75, 3.0)
_TAPES: dict[str, Any] = {"exchanges": "exchange", "pushes": "push", "flights": "flight"}
_MATRICES: dict[str, Any] = {"rounds": "symmetric", "row_rounds": "row", "column_rounds": "column"}
_LANES = 2
_ACTING = ("index", "time", "nodes", "rows")


class EventTape(NamedTuple):
    """What happened, in order: entry e is a local update of a node, or its push to a peer."""

    num_nodes: int
    times: Float[np.ndarray, " e"]
    """Seconds, not decreasing; several entries may share one."""
    nodes: Int[np.ndarray, " e"]
    """Who updates, or sends."""
    peers: Int[np.ndarray, " e"]
    """Who is sent to; :data:`~gossipjax.types.NOBODY`: a local update."""
    delays: Float[np.ndarray, " e"]
    """Seconds that a message is on its way; read by flights only."""
    lost: Bool[np.ndarray, " e"]
    """Whether a message never arrives."""


@st.composite
def event_tapes(draw: Draw, topology: Topology, max_events: int = 16, *, losses: bool = True) -> EventTape:
    """Draw local updates of the nodes, and pushes along the edges, of a network.

    Entries shrink away one by one. Times are multiples of a quarter of a second, so that ties occur.

    >>> from gossipjax.topology import ring
    >>> strategy = event_tapes(ring(5)).map(lambda tape: tape_timeline(tape, "flight"))

    Args:
        draw: given by Hypothesis.
        topology: any; edges go from sender to receiver.
        max_events: most entries, at least one.
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
    """Make the timeline of a tape, padded to few shapes (:func:`pad_timeline`).

    A push i → j at time t means, with a = ``weight``::

        push:       x_j ← (1 − a) x_j + a x_i       at t
        exchange:   and at once  x_i ← (1 − a) x_i + a x_j
        flight:     x_j ← (1 − a) x_j + a x_i(t)    at t + delay, or never, if that is a second or more after the tape

    What is lost mixes nothing. The properties' ``traffic`` says what became of all messages.

    >>> tape = EventTape(2, np.zeros(1), np.array([0]), np.array([1]), np.ones(1), np.zeros(1, bool))
    >>> plan = tape_timeline(tape, "flight")
    >>> len(plan), plan.properties.num_slots, plan.properties.traffic.in_flight
    (32, 16, 1)

    Args:
        tape: in the order of time.
        how: what a push does.
        weight: a in (0, 1].

    Raises:
        ValueError: an unknown ``how``, a weight out of range, nodes that do not exist.
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
    facts = dataclasses.replace(facts, symmetric=True, doubly_stochastic=True, traffic=balance)
    return pad_timeline(direct_events(acts, sent, ends, ends[:, ::-1], ~lost, weight, facts))


def _flights(sent: np.ndarray, delays: np.ndarray, lost: np.ndarray, duration: float) -> Flights:
    arrivals = sent + delays
    fates = np.where(lost, DROPPED, np.where(arrivals < duration, DELIVERED, IN_FLIGHT)).astype(np.int8)
    delivered = np.flatnonzero(fates == DELIVERED)
    delivered = delivered[np.argsort(arrivals[delivered], kind="stable")]
    return Flights(arrivals, fates, delivered, arrivals[delivered])


def _bucket(count: int, buckets: Sequence[int]) -> int:
    """The next of some numbers, or else the next power of two."""
    return next((size for size in buckets if size >= count), 1 << max(0, count - 1).bit_length())


def pad_timeline(
    timeline: Timeline,
    *,
    num_events: int | None = None,
    acting: int | None = None,
    lanes: int | None = None,
    num_slots: int | None = None,
) -> Timeline:
    """Pad a planned timeline to one of few shapes, by events in which nothing happens and lanes of nobody.

    The run is the same. Weights and all else become arrays per event, whether or not all events shared them; where the
    plan does not say which transfers are messages, every one is.

    >>> from gossipjax.timeline import push_gossip
    >>> plan = pad_timeline(push_gossip(5, 2.0, compute=None, gossip=1.0, latency=0.1, seed=0))
    >>> len(plan), plan.xs["senders"].shape, plan.properties.num_slots
    (32, (32, 2), 16)

    Args:
        timeline: from :func:`gossipjax.timeline.from_events`, its planners or :func:`gossipjax.pack`.
        num_events: T of the result; None: the next of :data:`EVENT_COUNTS`.
        acting: acting nodes of an event; None: as they are.
        lanes: transfers (or groups) of an event; None: at least two.
        num_slots: rows for messages in flight; None: the next of :data:`SLOT_COUNTS`.

    Raises:
        ValueError: a timeline that is not planned, or fewer events, lanes or slots than it has.
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
    """Per-event arrays of all fields; indices past the end are :data:`NOBODY`, for more slots would catch them."""
    shared = {name: np.broadcast_to(array, (len(timeline), *array.shape)) for name, array in timeline.shared.items()}
    xs = {name: np.asarray(array) for name, array in (shared | dict(timeline.xs)).items()}
    rows = timeline.properties.num_rows + timeline.properties.num_slots
    for name in {"senders", "receivers", "members", "targets"} & xs.keys():
        xs[name] = np.where(xs[name] < rows, xs[name], NOBODY).astype(np.int32)
    if "messages" not in xs and "receivers" in xs:
        live = (xs["senders"] < rows) & (xs["receivers"] < rows) & (xs["senders"] != xs["receivers"])
        xs["messages"] = live.astype(np.uint32)
    return xs


def _number(xs: dict[str, Any], total: int, acting: int, packed: bool) -> None:
    """Give the lanes that were added, and the events, the number and time of the last before them: records read it."""
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
    * ``"exchanges"``, ``"pushes"``, ``"flights"``: :func:`tape_timeline` of a drawn tape, with local updates between.

    Shapes depend on the kind, the number of nodes and ``max_events`` only; exchanges and pushes share one. Rounds and
    exchanges conserve the mean; ``timeline.properties`` says what else holds.

    >>> strategy = timelines(("rounds", "exchanges"), sizes=(4,))

    Args:
        kinds: which of these.
        sizes: numbers of nodes.
        num_rounds: T of rounds.
        max_events: most entries of a tape.
        losses: whether messages may be lost.

    Raises:
        ValueError: an unknown kind.
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
        # As much room as any tape of that many entries may need: each may be sent, then delivered.
        if kind == "flights":
            slots = _bucket(max_events, SLOT_COUNTS)
            return pad_timeline(plan, num_events=_bucket(2 * max_events, EVENT_COUNTS), num_slots=slots)
        return pad_timeline(plan, num_events=_bucket(max_events, EVENT_COUNTS))
