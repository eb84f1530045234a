"""DivShare's clocks and uplinks: a node queues its fragments for random nodes, and sends them while time allows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gossipjax._base.arguments import instance, real, reals, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.timeline._from_events import listed
from gossipjax.timeline._memory import MOST_NODES, require_room
from gossipjax.timeline.clocks import A_CLOCK, Clock, Rate, Ticks, expected_ticks, per_node, schedule
from gossipjax.timeline.flights import (
    Flights,
    Latency,
    assign_slots,
    check_network,
    checked_latency,
    delays,
    fly,
    traffic,
)
from gossipjax.types import NOBODY, Timeline

_BLOCK = 1 << 22
"""Random numbers drawn at once."""


class _Sent(NamedTuple):
    """Fragments that left their sender, in that order."""

    times: Float[np.ndarray, " m"]
    ticks: Int[np.ndarray, " m"]
    """Number of the sender's tick at which each was cut."""
    fragments: Int[np.ndarray, " m"]
    receivers: Int[np.ndarray, " m"]


@recorded("biswas2025divshare")
def divshare(
    num_nodes: int,
    duration: float,
    *,
    compute: Clock,
    num_fragments: int,
    recipients: int,
    uplink_messages_per_second: Rate,
    latency: Latency = None,
    drop: float = 0.0,
    seed: int,
) -> Timeline:
    """Plan DivShare: at each tick a node has trained, queues its fragments, and averages those that it received.

    At a tick of node i its model is cut into fragments, and each fragment is queued for ``recipients`` random other
    nodes, all in random order. The uplink sends u messages a second, one after another, until the node's next tick,
    which discards the rest of the queue and a message that is sent in part. Then, coordinate by coordinate::

        x_i[c] ← (x_i[c] + Σ y[c]) / (1 + number of them)

    over the fragments y with coordinate c that have arrived since the last tick (of each sender and fragment, the
    newest). Fragments are cut after training and before this average. Averaging is one-way, so the mean is conserved in
    expectation only.

    Args:
        num_nodes: n; any node can send to any other.
        duration: simulated seconds.
        compute: clock of the rounds of local steps, in equilibrium at time 0.
        num_fragments: F ≥ 1 = 1/Ω, as in the protocol.
        recipients: J, from 1 to n − 1, of each fragment.
        uplink_messages_per_second: u, fragments a second, a number or ``(n,)``: bandwidth / size of a fragment.
        latency: seconds from the end of the uplink to the receiver: a number, ``(n, n)``, or ``sampler(rng, size)``;
            None: 0.
        drop: probability that a fragment is lost.
        seed: of the NumPy generators that draw clocks, recipients and the network.

    Raises:
        ValueError: if a setting is out of range.

    Reference: Biswas et al. 2025, arXiv 2410.12918, algorithms 1 and 2.
    """
    num_nodes, num_fragments = (
        whole("num_nodes", num_nodes, least=2, most=MOST_NODES),
        whole("num_fragments", num_fragments, least=1, most=MOST_NODES),
    )
    recipients = whole("recipients", recipients, least=1, most=num_nodes - 1, remedy="of the other nodes")
    duration, seed = real("duration", duration, above=0, unit="seconds"), checked_seed(seed)
    instance("compute", compute, Clock, A_CLOCK)
    latency = checked_latency(latency, num_nodes)
    check_network(drop, "immediate", None)
    reals("uplink_messages_per_second", uplink_messages_per_second, above=0, unit="messages per second")
    speed = per_node(uplink_messages_per_second, num_nodes, "uplink_messages_per_second")
    _check_memory(expected_ticks(compute, num_nodes, duration, "compute"), duration, speed, num_fragments, recipients)
    of_ticks, of_recipients, of_network = np.random.default_rng(seed).spawn(3)
    ticks = schedule(compute, num_nodes, duration, of_ticks)
    until = next_ticks(ticks, duration)
    sent = _transmit(ticks, until, speed, num_fragments, recipients, of_recipients)
    senders = ticks.nodes[sent.ticks]
    flights = fly(
        sent.times,
        senders * np.int32(num_fragments) + sent.fragments,
        sent.receivers,
        duration=duration,
        rng=of_network,
        latency=lambda rng, size: delays(latency, rng, senders, sent.receivers),
        drop=drop,
        inbox="newest",
        ticks=ticks,
    )
    xs, num_slots = _events(ticks, sent, flights, num_nodes)
    properties = Properties(
        num_nodes,
        num_nodes,
        f"divshare(n={num_nodes}, {num_fragments} fragments to {recipients} each)",
        num_slots=num_slots,
        tags={"mailboxes"},
        traffic=traffic(flights),
        num_fragments=num_fragments,
        messages="group: a node and the fragments it received",
    )
    return listed(xs, properties)


def _check_memory(ticks: float, duration: float, speed: np.ndarray, num_fragments: int, recipients: int) -> None:
    """Estimate the number of messages: those queued at ticks, or those that the uplinks can send, if fewer."""
    names = "num_nodes, duration, compute, num_fragments, recipients, uplink_messages_per_second"
    messages = min(ticks * num_fragments * recipients, duration * float(speed.sum()))
    require_room(ticks + messages, 150, "ticks and messages", names, num_nodes=speed.size)


def next_ticks(ticks: Ticks, duration: float) -> Float[np.ndarray, " ticks"]:
    """Return the time of the same node's next tick; the duration after its last."""
    order = np.argsort(ticks.nodes, kind="stable")
    nodes, times = ticks.nodes[order], ticks.times[order]
    following = np.append(np.where(nodes[1:] == nodes[:-1], times[1:], duration), duration)
    until = np.empty(order.size)
    until[order] = following
    return until


def _transmit(ticks: Ticks, until, speed, num_fragments: int, recipients: int, rng: np.random.Generator) -> _Sent:
    """Draw the recipients and the queue of every tick, and list the messages that the uplinks send."""
    n, queue = speed.size, num_fragments * recipients
    sends = np.minimum(np.floor((until - ticks.times) * speed[ticks.nodes]), queue).astype(np.int64)
    found = []
    block = max(1, _BLOCK // (num_fragments * (n - 1)))
    for first in range(0, ticks.times.size, block):
        here = np.arange(first, min(first + block, ticks.times.size))
        chances = rng.random((here.size, num_fragments, n - 1))
        others = np.argpartition(chances, recipients - 1, axis=2)[:, :, :recipients].reshape(here.size, queue)
        order = rng.permuted(np.broadcast_to(np.arange(queue), (here.size, queue)), axis=1)
        of_tick, place = np.nonzero(np.arange(queue) < sends[here, None])
        tick, pair = here[of_tick], order[of_tick, place]
        other = others[of_tick, pair]
        node = ticks.nodes[tick]
        times = ticks.times[tick] + (place + 1) / speed[node]
        found.append((times, tick, pair // recipients, other + (other >= node)))
    nothing = (np.zeros(0), *(np.zeros(0, np.int64) for _ in range(3)))
    times, tick, fragment, receiver = (np.concatenate(columns) for columns in zip(nothing, *found, strict=True))
    order = np.argsort(times, kind="stable")
    return _Sent(times[order], tick[order], fragment[order].astype(np.int32), receiver[order].astype(np.int32))


def _events(ticks: Ticks, sent: _Sent, flights: Flights, n: int) -> tuple[dict[str, np.ndarray], int]:
    """Write one event per tick: train, keep a copy for later receivers, average with the fragments received."""
    total, read = ticks.times.size, flights.delivered
    reader = _tick_at(ticks, sent.receivers[read], flights.times)
    order = np.argsort(reader, kind="stable")
    read, reader = read[order], reader[order]
    counts = np.bincount(reader, minlength=total)
    place = np.arange(read.size) - (np.cumsum(counts) - counts)[reader]
    last = np.full(total, -1)
    np.maximum.at(last, sent.ticks[read], reader)
    held = np.flatnonzero(last >= 0)
    slots, num_slots = assign_slots(held, last[held])
    rows = np.full(total, NOBODY, np.int32)
    rows[held] = n + slots
    shape = (total, 2, int(counts.max(initial=0)) + 1)
    members, parts, weights = np.full(shape, NOBODY, np.int32), np.full(shape, -1, np.int32), np.zeros(shape)
    members[:, :, 0], weights[:, :, 0] = ticks.nodes[:, None], 1.0
    members[reader, 0, place + 1] = rows[sent.ticks[read]]
    parts[reader, 0, place + 1] = sent.fragments[read]
    weights[reader, 0, place + 1] = 1.0
    xs = {
        "time": ticks.times,
        "nodes": ticks.nodes[:, None],
        "members": members,
        "weights": weights,
        "parts": parts,
        "targets": np.stack([ticks.nodes, rows], axis=1)[:, :, None],
        "messages": np.bincount(sent.ticks, minlength=total).astype(np.uint32)[:, None],
        "speakers": ticks.nodes[:, None],
    }
    return xs, num_slots


def _tick_at(ticks: Ticks, nodes: Int[np.ndarray, " m"], times: Float[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """Return the number of each node's tick at the given time."""
    order = np.lexsort((ticks.times, ticks.nodes))
    counts = np.bincount(ticks.nodes, minlength=int(nodes.max(initial=-1)) + 1)
    at = np.empty(times.size, np.int64)
    by_receiver = np.argsort(nodes, kind="stable")
    begins, ends = np.cumsum(counts) - counts, np.cumsum(counts)
    bounds = np.searchsorted(nodes[by_receiver], np.arange(counts.size + 1))
    for node in range(counts.size):
        mine = by_receiver[bounds[node] : bounds[node + 1]]
        own = order[begins[node] : ends[node]]
        at[mine] = own[np.searchsorted(ticks.times[own], times[mine])]
    return at
