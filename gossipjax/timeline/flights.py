"""Messages in flight: latencies, losses, inboxes of the receivers, and the rows that hold the messages.

A message in flight is a row of the stacked models. Planners know the future, so only messages that will be read, or are
in flight when the plan ends, take a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from gossipjax._base.arguments import choice, instance, real, reals, shown, whole, wholes
from gossipjax.facts import Traffic
from gossipjax.timeline._checks import connected
from gossipjax.timeline._memory import MOST_NODES
from gossipjax.timeline._poisson import uniform_neighbors
from gossipjax.timeline.clocks import Ticks, order_of_times
from gossipjax.topology import Topology

__all__ = [
    "DELIVERED",
    "DROPPED",
    "IN_FLIGHT",
    "OVERFLOW",
    "SUPERSEDED",
    "Flights",
    "Inbox",
    "Latency",
    "Peers",
    "fly",
    "traffic",
]

Latency: TypeAlias = (
    int | float | Num[np.ndarray, "n n"] | Callable[[np.random.Generator, int], Float[np.ndarray, " m"]] | None
)
"""Seconds from sender to receiver: None (0), a number, ``(n, n)`` by sender and receiver, or ``sampler(rng, size)``."""
Inbox: TypeAlias = Literal["immediate", "newest", "queue"]
Peers: TypeAlias = Topology | int
"""Receivers: the out-neighbours in a topology; or n: all other nodes, without a list of edges."""

DELIVERED, DROPPED, OVERFLOW, SUPERSEDED, IN_FLIGHT = range(5)
"""Fates of messages: the fields of :class:`gossipjax.Traffic`."""


class Flights(NamedTuple):
    """Arrivals and fates of m messages, numbered in the order of sending."""

    arrivals: Float[np.ndarray, " m"]
    """Seconds at which each message reaches its receiver, or would if it were not lost."""
    fates: Int[np.ndarray, " m"]
    """:data:`DELIVERED`, :data:`DROPPED`, :data:`OVERFLOW`, :data:`SUPERSEDED` or :data:`IN_FLIGHT`."""
    delivered: Int[np.ndarray, " d"]
    """Numbers of the delivered messages, in the order in which they are mixed in."""
    times: Float[np.ndarray, " d"]
    """Seconds at which each is mixed in: on arrival, or at the receiver's next tick."""


def num_peers(peers: Any) -> int:
    """Return the number of nodes n.

    Raises ValueError if there are fewer than two nodes, or no edge.
    """
    if isinstance(peers, Topology):
        return connected(peers).num_nodes
    return whole(
        "peers",
        peers,
        least=2,
        most=MOST_NODES,
        remedy="n nodes that are all peers, or a topology such as topology.ring(8)",
    )


def peers_name(peers: Peers) -> str:
    """Return the name of the network, for reports."""
    return peers.name if isinstance(peers, Topology) else f"complete({num_peers(peers)})"


def uniform_peers(peers: Peers, rng: np.random.Generator, nodes: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """Draw a uniform out-neighbour for each of ``nodes``, or one of the other n − 1 nodes.

    Raises ValueError if a node of a topology has no out-neighbour.
    """
    instance("rng", rng, np.random.Generator, "make one with numpy.random.default_rng(0)")
    nodes = wholes("nodes", nodes, shape=(None,), least=0, most=num_peers(peers) - 1)
    if isinstance(peers, Topology):
        return uniform_neighbors(peers, rng, nodes)
    other = rng.integers(0, peers - 1, nodes.size, dtype=np.int32)
    return (other + (other >= nodes)).astype(np.int32)


def checked_latency(latency: Any, num_nodes: int) -> Latency:
    """Return the latency, after a check that it fits n nodes; the results of a sampler are checked when it is called.

    Raises ValueError if a delay is negative or not finite, or the shape is neither ``()`` nor ``(n, n)``.
    """
    if latency is None or callable(latency):
        return latency
    remedy = "one number, (n, n) by sender and receiver, or sampler(rng, size)"
    seconds = reals("latency", latency, least=0, unit="seconds", remedy=remedy)
    if seconds.shape not in ((), (num_nodes, num_nodes)):
        raise ValueError(f"latency of shape {seconds.shape} for {num_nodes} nodes: pass {remedy}")
    return seconds if seconds.ndim else float(seconds)


def delays(
    latency: Latency, rng: np.random.Generator, senders: Int[np.ndarray, " m"], receivers: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Draw the seconds that each message takes; None: 0.

    Raises ValueError if a delay is negative or not finite, or a matrix is not ``(n, n)``.
    """
    instance("rng", rng, np.random.Generator, "make one with numpy.random.default_rng(0)")
    senders = wholes("senders", senders, shape=(None,), least=0)
    receivers = wholes("receivers", receivers, shape=senders.shape, least=0)
    size = senders.size
    if callable(latency):
        name = "what the sampler latency(rng, size) returns"
        return reals(name, latency(rng, size), shape=(size,), least=0, unit="seconds")
    given = latency if isinstance(latency, np.ndarray) else reals("latency", 0.0 if latency is None else latency)
    if given.ndim == 2:
        last = max(senders.max(initial=-1), receivers.max(initial=-1))
        if given.shape[0] != given.shape[1] or last >= len(given):
            raise ValueError(f"latency of shape {given.shape}: pass (n, n) seconds, by sender and receiver")
        given = given[senders, receivers]
    elif given.ndim:
        raise ValueError(f"latency of shape {given.shape}: pass one number, or (n, n) seconds by sender and receiver")
    return reals("latency", np.broadcast_to(given, senders.shape), least=0, unit="seconds")


def check_network(drop: Any, inbox: Any, capacity: Any) -> None:
    """Check the settings of :func:`fly`.

    Raises ValueError if drop is outside [0, 1], the inbox is unknown, or another inbox than a queue has a capacity.
    """
    real("drop", drop, least=0, most=1, remedy="the probability that a message is lost")
    choice("inbox", inbox, ("immediate", "newest", "queue"))
    if capacity is not None:
        whole("capacity", capacity, least=1, remedy="of a queue, or None: unlimited")
        if inbox != "queue":
            raise ValueError(f"capacity={shown(capacity)} of inbox {inbox!r}: only a queue has one; leave it out")


def fly(
    sent: Float[np.ndarray, " m"],
    senders: Int[np.ndarray, " m"],
    receivers: Int[np.ndarray, " m"],
    *,
    duration: float,
    rng: np.random.Generator,
    latency: Latency = None,
    drop: float = 0.0,
    inbox: Inbox = "immediate",
    capacity: int | None = None,
    ticks: Ticks | None = None,
    busy: Float[np.ndarray, " n"] | None = None,
) -> Flights:
    """Compute the arrivals and fates of messages.

    A message is lost with probability ``drop``, and if it arrives while the receiver is busy. The inbox decides about
    the others:

    * ``"immediate"``: they are mixed in on arrival;
    * ``"newest"``: they wait for the receiver's next tick; of several messages from one sender, the one sent last
      replaces the others;
    * ``"queue"``: they wait for the next tick and are read in the order of arrival; a message is lost if ``capacity``
      messages wait already.

    A message that arrives at the time of a tick is read at that tick. Takes a few sorts and no loop.

    Args:
        sent: seconds, not decreasing.
        senders: ``(m,)``.
        receivers: ``(m,)``.
        duration: seconds; messages that would be mixed in later are in flight.
        rng: generator that draws losses, then delays.
        latency: seconds from sender to receiver.
        drop: probability of a loss.
        inbox: rule of the receivers, as above.
        capacity: largest length of a queue; None: unlimited.
        ticks: ticks of the receivers, needed by "newest", "queue" and ``busy``.
        busy: seconds after each tick in which a node cannot receive, ``(n,)``; None: it always can.

    Raises:
        ValueError: if settings contradict each other, or ticks are needed and missing.
    """
    check_network(drop, inbox, capacity)
    sent = reals("sent", sent, shape=(None,), unit="seconds")
    senders, receivers = (
        wholes(name, each, shape=sent.shape, least=0) for name, each in (("senders", senders), ("receivers", receivers))
    )
    duration = real("duration", duration, above=0, unit="seconds")
    instance("rng", rng, np.random.Generator, "make one with numpy.random.default_rng(0)")
    if ticks is None and (inbox != "immediate" or busy is not None):
        raise ValueError(f"inbox {inbox!r} (busy: {busy is not None}) needs the ticks of the receivers; pass ticks")
    lost = rng.random(sent.size) < drop if drop else np.zeros(sent.size, bool)
    arrivals = sent + delays(latency, rng, senders, receivers)
    fates = np.where(lost, DROPPED, IN_FLIGHT).astype(np.int8)
    if inbox == "immediate" and busy is None:
        fates[~lost & (arrivals < duration)] = DELIVERED
        return _in_order(arrivals, fates, arrivals)
    assert ticks is not None
    order = np.argsort(arrivals, kind="stable")
    following = np.empty(sent.size, np.int64)
    following[order], previous = _around(ticks, receivers[order], arrivals[order])
    if busy is not None:
        deaf = _is_busy(ticks, busy, receivers[order], arrivals[order], previous)
        fates[order[deaf & (arrivals[order] < duration)]] = DROPPED
    if inbox == "immediate":
        fates[(fates == IN_FLIGHT) & (arrivals < duration)] = DELIVERED
        return _in_order(arrivals, fates, arrivals)
    order = order[(fates[order] == IN_FLIGHT) & (arrivals[order] < duration)]
    _take_in(fates, order, senders, following, inbox, capacity, ticks.times.size)
    reading = np.append(ticks.times, np.inf)[np.minimum(following, ticks.times.size)]
    rank = np.empty(sent.size, np.int64)
    rank[order] = np.arange(order.size)
    return _in_order(arrivals, fates, reading, rank)


def traffic(flights: Flights) -> Traffic:
    """Count the fates of messages."""
    instance("flights", flights, Flights, "follow messages with fly")
    return Traffic(flights.fates.size, *(int(count) for count in np.bincount(flights.fates, minlength=5)))


def interleave(*times: Float[np.ndarray, " _"]) -> list[Int[np.ndarray, " _"]]:
    """Merge several sorted streams of events; at equal times the earlier stream comes first.

    Returns:
        For each stream, the positions of its events in the merged order.
    """
    times = tuple(reals("times", stream, shape=(None,), unit="seconds") for stream in times)
    order = np.argsort(np.concatenate([np.zeros(0), *times]), kind="stable")
    positions = np.empty(order.size, np.int64)
    positions[order] = np.arange(order.size)
    return np.split(positions, np.cumsum([stream.size for stream in times])[:-1])


def rank_in(groups: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """Count the earlier entries of the same group for each entry."""
    groups = wholes("groups", groups, shape=(None,))
    order = np.argsort(groups, kind="stable")
    begins = np.append(True, np.diff(groups[order]) != 0)[: groups.size]
    first = np.maximum.accumulate(np.where(begins, np.arange(groups.size), 0))
    rank = np.empty(groups.size, np.int64)
    rank[order] = np.arange(groups.size) - first
    return rank


def assign_slots(
    sent_at: Int[np.ndarray, " m"], released_at: Int[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " m"], int]:
    """Assign each message a slot that no other message holds at the same time, with as few slots as possible.

    Let S be the largest number of messages that are in use at once. Message m ≥ S takes the slot of the message that is
    released as number m − S. That message is free in time, since at least m + 1 − S messages are released before
    message m is sent; and no two messages take the same one.

    Args:
        sent_at: positions of the messages in the order of events, not decreasing.
        released_at: position of the last event that reads each message, not before it is sent. The slot is free for
            messages that are sent at a later position.

    Returns:
        Slots ``(m,)`` from 0 on, and their number S.

    Raises:
        ValueError: if messages are not in order, or one is released before it is sent.
    """
    sent_at = wholes("sent_at", sent_at, shape=(None,))
    released_at = wholes("released_at", released_at, shape=sent_at.shape)
    if (np.diff(sent_at) < 0).any():
        raise ValueError("messages must be listed in the order of sending: sort them by sent_at")
    if (released_at < sent_at).any():
        late = int(np.argmax(released_at < sent_at))
        raise ValueError(
            f"message {late} is released at position {released_at[late]}, before it is sent at {sent_at[late]}"
        )
    if not sent_at.size:
        return np.zeros(0, np.int32), 0
    release_order = np.argsort(released_at, kind="stable")
    so_far = np.searchsorted(sent_at, sent_at, side="right")
    gone = np.searchsorted(released_at[release_order], sent_at, side="left")
    num_slots = int(np.max(so_far - gone))
    heir = np.arange(sent_at.size, dtype=np.int32)
    heir[num_slots:] = release_order[: sent_at.size - num_slots]
    while (heir >= num_slots).any():  # each turn doubles the length of the jumps
        heir = heir[heir]
    return heir, num_slots


def _around(ticks: Ticks, nodes: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the tick of each node at or after a time, and the one before; the times are sorted.

    Returns:
        Numbers of ticks; the total number of ticks plus the node if there is none.
    """
    count = ticks.times.size
    of_query, of_tick = interleave(times, ticks.times)
    total = count + times.size
    keys = ticks.nodes.astype(np.int64) * total + of_tick
    by_node = np.argsort(keys, kind="stable")
    place = np.searchsorted(keys[by_node], nodes.astype(np.int64) * total + of_query)
    padded, owner = np.append(by_node, 0), np.append(ticks.nodes[by_node], -1)
    following = np.where(owner[place] == nodes, padded[place], count + nodes)
    previous = np.where(owner[place - 1] == nodes, padded[place - 1], count + nodes)
    return following, previous


def _is_busy(
    ticks: Ticks, busy: np.ndarray, nodes: np.ndarray, times: np.ndarray, previous: np.ndarray
) -> Bool[np.ndarray, " m"]:
    """Mark the nodes that compute at the given times."""
    until = ticks.busy_until[nodes]
    begun = previous < ticks.times.size
    until[begun] = ticks.times[previous[begun]] + busy[nodes[begun]]
    return times < until


def _take_in(
    fates: np.ndarray,
    order: np.ndarray,
    senders: np.ndarray,
    following: np.ndarray,
    inbox: Inbox,
    capacity: int | None,
    num_ticks: int,
) -> None:
    """Write the fates of the messages that reach inboxes, in the order of arrival."""
    tick = following[order]
    fates[order[tick < num_ticks]] = DELIVERED
    if inbox == "queue":
        if capacity is not None:
            fates[order[rank_in(tick) >= capacity]] = OVERFLOW
        return
    # Those that wait together, the latest sent first.
    latest = np.sort(order)[::-1]
    waiting = following[latest] * (int(senders.max(initial=0)) + 1) + senders[latest]
    fates[latest[rank_in(waiting) > 0]] = SUPERSEDED


def _in_order(arrivals: np.ndarray, fates: np.ndarray, times: np.ndarray, rank: Any = None) -> Flights:
    """List the delivered messages by time, then rank, which is their number if None."""
    delivered = np.flatnonzero(fates == DELIVERED)
    if rank is not None:
        delivered = delivered[np.argsort(rank[delivered], kind="stable")]
    seconds = times[delivered]
    if (seconds[1:] < seconds[:-1]).any():
        delivered = delivered[order_of_times(seconds)]
    return Flights(arrivals, fates, delivered, times[delivered])
