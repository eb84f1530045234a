"""Push-sum without rounds: nodes send half of their mass at ticks of their own clocks."""

from __future__ import annotations

import numpy as np

from gossipjax._base.arguments import real
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.timeline._checks import connected
from gossipjax.timeline._from_events import listed
from gossipjax.timeline.clocks import Clock, Rate, as_clock, optional_clock, require_ticks, schedule
from gossipjax.timeline.flights import (
    DELIVERED,
    IN_FLIGHT,
    Latency,
    assign_slots,
    check_network,
    checked_latency,
    fly,
    interleave,
    traffic,
    uniform_peers,
)
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Timeline


@recorded("kempe2003pushsum", "assran2019sgp")
def directed_push(
    topology: Topology,
    duration: float,
    *,
    compute: Clock | None,
    send: Clock | Rate,
    latency: Latency = None,
    drop: float = 0.0,
    seed: int,
) -> Timeline:
    """Plan local updates and sends of half of a node's mass, on separate clocks, on a directed network.

    At a tick of ``compute`` one node acts. At a tick of ``send``, with j a uniform out-neighbour of i::

        x_i ← x_i / 2        a message carries the other half        on arrival:   x_j ← x_j + message

    The mass ``Σ_i x_i``, messages in flight included, is conserved, unless messages are lost. For
    :func:`~gossipjax.push_sum` and :func:`~gossipjax.sgp`, which divide by a weight that is sent in the same way.
    Without latency a send is one event; with latency its arrival is a second one. Both clocks start in equilibrium.

    Args:
        topology: directed or undirected; every node has an out-neighbour. Nodes reach consensus if it is strongly
            connected.
        duration: simulated seconds.
        compute: clock of the local updates; None: no updates.
        send: clock of the sends, or sends per node and second, scalar or ``(n,)``, of Poisson clocks.
        latency: seconds from sender to receiver: one number, ``(n, n)`` by sender and receiver, or
            ``sampler(rng, size)``; None: 0.
        drop: probability that a message is lost, with its mass.
        seed: of the NumPy generators that draw the plan, one each for updates, sends, targets and the network.

    Raises:
        ValueError: if a node has no out-neighbour, or a setting is out of range.

    Reference: Kempe, Dobra, Gehrke 2003; Assran et al. 2019, arXiv 1811.10792, section 3 (messages in flight).
    """
    n = connected(topology).num_nodes
    compute, send, latency = optional_clock("compute", compute), as_clock("send", send), checked_latency(latency, n)
    check_network(drop, "immediate", None)
    duration, seed = real("duration", duration, above=0, unit="seconds"), checked_seed(seed)
    require_ticks(n, duration, "topology, duration, compute, send", compute, send)
    of_updates, of_sends, of_targets, of_network = np.random.default_rng(seed).spawn(4)
    acts = (np.zeros(0), np.zeros(0, np.int32))
    if compute is not None:
        acts = schedule(compute, n, duration, of_updates)[:2]
    sent, senders = schedule(send, n, duration, of_sends)[:2]
    receivers = uniform_peers(topology, of_targets, senders)
    flights = fly(sent, senders, receivers, duration=duration, rng=of_network, latency=latency, drop=drop)
    direct = latency is None
    arrivals = flights.times[:0] if direct else flights.times
    leave, arrive, act = interleave(sent, arrivals, acts[0])
    xs = _halvings(leave, sent, senders, leave.size + arrive.size + act.size)
    xs["time"][act], xs["nodes"][act, 0] = acts
    if direct:
        to, num_slots = np.where(flights.fates == DELIVERED, receivers, NOBODY), 0
        xs["keep"][leave, 1] = 1.0
    else:
        to, num_slots = _slots(leave, arrive, flights, n)
        xs["keep"][leave, 1] = 0.0
        xs["time"][arrive] = arrivals
        xs["senders"][arrive, 1], xs["receivers"][arrive, 1] = to[flights.delivered], receivers[flights.delivered]
        xs["weights"][arrive, 1] = 1.0
    xs["receivers"][leave, 1] = to
    properties = Properties(
        n,
        n,
        f"directed_push({topology.name})",
        num_slots=num_slots,
        tags={"column_stochastic"},
        traffic=traffic(flights),
        messages="pair: half of a mass",
    )
    return listed(xs, properties)


def _halvings(leave: np.ndarray, sent: np.ndarray, senders: np.ndarray, total: int) -> dict[str, np.ndarray]:
    """Write the sends: the first transfer keeps half; the caller fills in the second, which sends the other half."""
    xs: dict[str, np.ndarray] = {
        "time": np.empty(total),
        "nodes": np.full((total, 1), NOBODY, np.int32),
        "senders": np.full((total, 2), NOBODY, np.int32),
        "receivers": np.full((total, 2), NOBODY, np.int32),
        "weights": np.zeros((total, 2)),
        "keep": np.ones((total, 2)),
        "messages": np.zeros((total, 1), np.uint32),
        "speakers": np.full((total, 1), NOBODY, np.int32),
    }
    xs["time"][leave], xs["messages"][leave, 0], xs["speakers"][leave, 0] = sent, 1, senders
    xs["senders"][leave] = senders[:, None]
    xs["receivers"][leave, 0], xs["keep"][leave, 0] = senders, 0.5
    xs["weights"][leave, 1] = 0.5
    return xs


def _slots(leave: np.ndarray, arrive: np.ndarray, flights, n: int) -> tuple[np.ndarray, int]:
    """Return the row of each message; NOBODY for lost messages."""
    released = np.full(leave.size, np.iinfo(np.int64).max)
    released[flights.delivered] = arrive
    held = (flights.fates == DELIVERED) | (flights.fates == IN_FLIGHT)
    rows = np.full(leave.size, NOBODY, np.int32)
    slots, num_slots = assign_slots(leave[held], released[held])
    rows[held] = n + slots
    return rows, num_slots
