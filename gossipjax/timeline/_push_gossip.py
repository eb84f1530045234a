"""Push gossip and local updates on separate clocks, with or without latency."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from gossipjax._base.arguments import flag, real
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties, Traffic
from gossipjax.timeline._checks import share_of
from gossipjax.timeline._events import blank
from gossipjax.timeline._from_events import listed
from gossipjax.timeline.clocks import (
    Clock,
    Rate,
    Seconds,
    as_clock,
    delayed,
    number_per_node,
    optional_clock,
    per_node,
    require_ticks,
    schedule,
)
from gossipjax.timeline.flights import (
    DELIVERED,
    IN_FLIGHT,
    Flights,
    Inbox,
    Latency,
    Peers,
    assign_slots,
    check_network,
    checked_latency,
    fly,
    interleave,
    num_peers,
    peers_name,
    traffic,
    uniform_peers,
)
from gossipjax.types import NOBODY, Timeline

Acts: TypeAlias = tuple[Float[np.ndarray, " ticks"], Int[np.ndarray, " ticks"]]
NO_ACTS = np.zeros(0), np.zeros(0, np.int32)


@recorded("mitra2024timely")
def push_gossip(
    peers: Peers,
    duration: float,
    *,
    compute: Clock | None,
    gossip: Clock | Rate,
    weight: float = 0.5,
    two_way: bool = False,
    latency: Latency = None,
    drop: float = 0.0,
    inbox: Inbox = "immediate",
    capacity: int | None = None,
    busy_receives: bool = True,
    dead_time: Seconds = 0.0,
    seed: int,
) -> Timeline:
    """Plan local updates and pushes without synchronisation: each node has one clock for each.

    At a tick of ``compute`` one node acts. At a tick of ``gossip`` node i sends its model to a uniform peer j::

        x_j ← (1 − a) x_j + a x_i               and, two_way,   x_i ← (1 − a) x_i + a x_j   at once

    Without latency and inbox, a push is one event. Otherwise it is two: the sender's model is copied to a row of
    messages, and later delivered, so a message holds the model as it was when sent. Pushes conserve the mean in
    expectation only, two-way exchanges always. Both clocks start in equilibrium. Planning 10⁷ events takes seconds.

    >>> from gossipjax.timeline import clocks, push_gossip
    >>> plan = push_gossip(100, 50.0, compute=clocks.shifted_exponential(0.5, 0.5), gossip=2.0, latency=0.1, seed=0)
    >>> facts = plan.properties.traffic
    >>> facts.sent == facts.delivered + facts.in_flight
    True

    Args:
        peers: a topology (directed or not), or n: every other node is a peer.
        duration: simulated seconds.
        compute: clock of the local updates; None: pushes only.
        gossip: clock of the pushes, or pushes per node and second, scalar or ``(n,)``, of Poisson clocks.
        weight: a in (0, 1], the share of the received model.
        two_way: whether both nodes average; needs messages without latency.
        latency: seconds on the way: one number, ``(n, n)`` by sender and receiver, or ``sampler(rng, size)``; None: a
            push takes no time.
        drop: probability that a message is lost; an exchange then fails as a whole.
        inbox: "immediate", or messages wait and are delivered just before the receiver's next compute tick: "newest"
            (one of each sender) or "queue"; see :func:`~gossipjax.timeline.flights.fly`.
        capacity: of the queue; None: unlimited.
        busy_receives: whether nodes receive messages while they compute, that is in the fixed part of each interval of
            ``compute`` (the whole interval of a deterministic clock). Otherwise these messages are dropped; an exchange
            needs two nodes that can receive.
        dead_time: seconds added to each interval of ``gossip``.
        seed: of the NumPy generators that draw the plan, one each for updates, pushes, targets and the network.

    Raises:
        ValueError: if a setting is out of range, or settings contradict each other.

    Reference: Mitra and Ulukus 2024, arXiv 2404.19749.
    """
    n = num_peers(peers)
    dead = number_per_node("dead_time", dead_time, "seconds", zero=True)[()]
    compute, gossip = optional_clock("compute", compute), delayed(as_clock("gossip", gossip), dead)
    latency, weight = checked_latency(latency, n), share_of(weight)
    duration, seed = real("duration", duration, above=0, unit="seconds"), checked_seed(seed)
    require_ticks(n, duration, "peers, duration, compute, gossip", compute, gossip)
    instantaneous = latency is None and inbox == "immediate"
    _check(compute, two_way, instantaneous, drop, inbox, capacity, busy_receives)
    of_updates, of_pushes, of_targets, of_network = np.random.default_rng(seed).spawn(4)
    updates = None if compute is None else schedule(compute, n, duration, of_updates)
    sent, senders = schedule(gossip, n, duration, of_pushes)[:2]
    receivers = uniform_peers(peers, of_targets, senders)
    deaf = None if busy_receives or compute is None else per_node(compute.shift, n, "shift")
    flights = fly(
        sent,
        senders,
        receivers,
        duration=duration,
        rng=of_network,
        latency=latency,
        drop=drop,
        inbox=inbox,
        capacity=capacity,
        ticks=updates,
        busy=deaf,
    )
    acts = NO_ACTS if updates is None else (updates.times, updates.nodes)
    name = f"push_gossip({peers_name(peers)}, {'two-way, ' if two_way else ''}weight={weight:g})"
    facts = Properties(n, n, name, traffic=traffic(flights), messages="pair: one model")
    if not instantaneous:
        xs, num_slots = message_events(acts, sent, senders, receivers, flights, n, weight)
        return listed(xs, dataclasses.replace(facts, num_slots=num_slots))
    done = flights.fates == DELIVERED
    if not two_way:
        return direct_events(acts, sent, senders[:, None], receivers[:, None], done, weight, facts)
    if deaf is not None:
        back = fly(sent, receivers, senders, duration=duration, rng=of_network, ticks=updates, busy=deaf)
        done &= back.fates == DELIVERED
    ends = np.stack([senders, receivers], axis=1)
    return direct_events(acts, sent, ends, ends[:, ::-1], done, weight, _mutual(facts, done))


def message_events(
    acts: Acts,
    sent: Float[np.ndarray, " m"],
    senders: Int[np.ndarray, " m"],
    receivers: Int[np.ndarray, " m"],
    flights: Flights,
    num_nodes: int,
    weight: float,
) -> tuple[dict[str, np.ndarray], int]:
    """Write local updates, sends and deliveries in order of time; at equal times deliveries come first, updates last.

    A send copies the sender's row to the row of the message, and a delivery mixes this row into the receiver's.
    Messages that are never read are counted when they are sent, but not copied.

    Args:
        acts: times of the local updates, in order, and their nodes.
        sent: seconds, not decreasing.
        senders: ``(m,)``.
        receivers: ``(m,)``.
        flights: arrivals and fates of the messages.
        num_nodes: n, also the number of model rows.
        weight: weight of a delivered model.

    Returns:
        Per-event arrays of :func:`~gossipjax.timeline.from_events`, and the number of rows for messages.
    """
    times, nodes = acts
    leave, arrive, act = interleave(sent, flights.times, times)
    total = leave.size + arrive.size + act.size
    released = np.full(sent.size, total)
    released[flights.delivered] = arrive
    held = (flights.fates == DELIVERED) | (flights.fates == IN_FLIGHT)
    slots, num_slots = assign_slots(leave[held], released[held])
    rows = np.full(sent.size, NOBODY, np.int32)
    rows[held] = num_nodes + slots
    xs = blank(total, 1)
    for at, seconds in ((leave, sent), (arrive, flights.times), (act, times)):
        xs["time"][at] = seconds
    xs["nodes"][act, 0] = nodes
    xs["messages"][leave, 0] = 1
    xs["senders"][leave, 0], xs["receivers"][leave, 0] = senders, rows
    xs["senders"][arrive, 0], xs["receivers"][arrive, 0] = rows[flights.delivered], receivers[flights.delivered]
    xs["weights"][leave, 0], xs["keep"][leave, 0] = 1.0, 0.0
    xs["weights"][arrive, 0], xs["keep"][arrive, 0] = weight, 1.0 - weight
    return xs, num_slots


def direct_events(
    acts: Acts,
    times: Float[np.ndarray, " m"],
    senders: Int[np.ndarray, "m lanes"],
    receivers: Int[np.ndarray, "m lanes"],
    done: Bool[np.ndarray, " m"],
    weight: float,
    properties: Properties,
) -> Timeline:
    """Build a timeline of local updates and transfers, one event each.

    Args:
        acts: times of the local updates, in order, and their nodes.
        times: of the transfers, seconds, not decreasing.
        senders: rows, one per transfer of an event.
        receivers: as many, distinct in each event.
        done: whether each transfer happens; if not, its first message is sent and lost.
        weight: a; receivers keep 1 − a.
        properties: of the timeline.
    """
    give, act = interleave(times, acts[0])
    lanes, every = senders.shape[1], bool(done.all())
    # If every transfer happens, each is a message.
    unused = {"weights", "keep", "messages"} if every else {"weights", "keep"}
    xs = blank(give.size + act.size, lanes, leave_out=unused)
    xs["time"][give], xs["time"][act] = times, acts[0]
    xs["nodes"][act, 0] = acts[1]
    xs["senders"][give] = senders if every else np.where(done[:, None], senders, NOBODY)
    xs["senders"][give, 0] = senders[:, 0]
    xs["receivers"][give] = receivers if every else np.where(done[:, None], receivers, NOBODY)
    if not every:
        xs["messages"][give] = done[:, None]
        xs["messages"][give, 0] = 1
    shared = {"weights": np.full(lanes, weight), "keep": np.full(lanes, 1.0 - weight)}
    return listed(xs, properties, shared=shared)


def _mutual(facts: Properties, done: np.ndarray) -> Properties:
    """Return the facts of exchanges; one that fails counts as one message, which is dropped."""
    failed = int(np.count_nonzero(~done))
    return dataclasses.replace(
        facts,
        tags=facts.tags | {"symmetric", "doubly_stochastic"},
        traffic=Traffic(2 * done.size - failed, 2 * (done.size - failed), dropped=failed),
        messages="pair: two models an exchange",
    )


def _check(compute, two_way, instantaneous, drop, inbox, capacity, busy_receives) -> None:
    check_network(drop, inbox, capacity)
    two_way, busy_receives = flag("two_way", two_way), flag("busy_receives", busy_receives)
    if two_way and not instantaneous:
        raise ValueError(
            "two_way exchanges are instantaneous: leave latency and inbox out, or use pairwise(atomic=False)"
        )
    if compute is None and not (busy_receives and inbox == "immediate"):
        raise ValueError(f"inbox={inbox!r}, busy_receives={busy_receives}: pass compute, on whose ticks they depend")
    if not busy_receives and compute is not None and compute.unit is not None:
        raise ValueError(f"busy_receives=False: {compute.name} does not say how long a node computes; see Clock.shift")
