"""Pairwise averaging and local updates on separate clocks: the timeline of AD-PSGD."""

from __future__ import annotations

import dataclasses

import numpy as np

from gossipjax._base.arguments import flag, instance, real
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties, Traffic
from gossipjax.timeline._checks import undirected
from gossipjax.timeline._events import blank
from gossipjax.timeline._from_events import listed
from gossipjax.timeline._push_gossip import Acts, direct_events
from gossipjax.timeline.clocks import A_CLOCK, Clock, Rate, as_clock, require_ticks, schedule
from gossipjax.timeline.flights import (
    Flights,
    Latency,
    Peers,
    assign_slots,
    checked_latency,
    fly,
    interleave,
    num_peers,
    peers_name,
    uniform_peers,
)
from gossipjax.topology import Topology
from gossipjax.types import Timeline


@recorded("lian2018adpsgd")
def pairwise(
    peers: Peers,
    duration: float,
    *,
    compute: Clock,
    communicate: Clock | Rate,
    atomic: bool = True,
    latency: Latency = None,
    seed: int,
) -> Timeline:
    """Plan local updates and pairwise averaging on separate clocks, neither of which waits for the other.

    At a tick of ``compute`` one node acts; a protocol may take its gradient at an older model. At a tick of
    ``communicate`` node i contacts a uniform neighbour j. With ``atomic``, both models become ``(x_i + x_j)/2`` at
    once, which conserves the mean. Otherwise there are three events::

        i sends a copy of x_i;      on its arrival   j replies with a copy of x_j, then  x_j ← (x_j + copy of x_i)/2;
        on the reply's arrival      x_i ← (x_i + copy of x_j)/2

    Both models may have changed since they were copied, so the sum of the pair is not conserved. Both clocks start in
    equilibrium.

    Args:
        peers: an undirected topology, or n: every other node is a neighbour.
        duration: simulated seconds.
        compute: clock of the local updates.
        communicate: clock on which each node starts an averaging, or its Poisson rate per node and second, scalar or
            ``(n,)``.
        atomic: whether both models are averaged in one event.
        latency: seconds of each of the two messages if not ``atomic``: one number, ``(n, n)`` by sender and receiver,
            or ``sampler(rng, size)``.
        seed: of the NumPy generators that draw the plan, one each for updates, meetings, partners and delays.

    Raises:
        ValueError: if the topology is directed, a latency is given with ``atomic`` or missing without it, or a setting
            is out of range.

    Reference: Lian, Zhang, Zhang, Liu 2018, arXiv 1710.06952, algorithm 1 (atomic).
    """
    n = num_peers(peers)
    if isinstance(peers, Topology):
        undirected(peers, "peers")
    instance("compute", compute, Clock, A_CLOCK)
    communicate, latency, atomic = (
        as_clock("communicate", communicate),
        checked_latency(latency, n),
        flag("atomic", atomic),
    )
    duration, seed = real("duration", duration, above=0, unit="seconds"), checked_seed(seed)
    require_ticks(n, duration, "peers, duration, compute, communicate", compute, communicate)
    if atomic == (latency is not None):
        raise ValueError(
            f"atomic={atomic}, latency={latency}: atomic averaging takes no time, the other needs a latency"
        )
    of_updates, of_meetings, of_partners, of_network = np.random.default_rng(seed).spawn(4)
    acts = schedule(compute, n, duration, of_updates)[:2]
    times, first = schedule(communicate, n, duration, of_meetings)[:2]
    second = uniform_peers(peers, of_partners, first)
    facts = Properties(n, n, f"pairwise({peers_name(peers)}, {'atomic' if atomic else 'not atomic'})")
    if atomic:
        return _atomic(acts, times, first, second, facts)
    requests = fly(times, first, second, duration=duration, rng=of_network, latency=latency)
    met = requests.delivered  # in the order of arrival
    replies = fly(requests.times, second[met], first[met], duration=duration, rng=of_network, latency=latency)
    xs, num_slots = _handshakes(acts, times, first, second, requests, replies, n)
    sent, delivered = times.size + met.size, met.size + replies.delivered.size
    balance = Traffic(sent, delivered, in_flight=sent - delivered)
    words = "pair: a request and its reply"
    return listed(xs, dataclasses.replace(facts, num_slots=num_slots, traffic=balance, messages=words))


def _atomic(acts: Acts, times, first, second, facts: Properties) -> Timeline:
    facts = dataclasses.replace(
        facts,
        tags=facts.tags | {"symmetric", "doubly_stochastic"},
        traffic=Traffic(2 * times.size, 2 * times.size),
        messages="pair: two models a meeting",
    )
    ends = np.stack([first, second], axis=1)
    return direct_events(acts, times, ends, ends[:, ::-1], np.ones(times.size, bool), 0.5, facts)


def _handshakes(
    acts: Acts, times, first, second, requests: Flights, replies: Flights, num_nodes: int
) -> tuple[dict[str, np.ndarray], int]:
    """Write requests, their arrivals (at which the reply is sent), arrivals of replies, and local updates.

    Reply k answers the k-th request that arrives.
    """
    ask, answer, end, act = interleave(times, requests.times, replies.times, acts[0])
    total, met = sum(part.size for part in (ask, answer, end, act)), requests.delivered
    asked, answered = np.full(times.size, total), np.full(met.size, total)
    asked[met] = answer
    answered[replies.delivered] = end
    # Requests and replies use the same slots: list all messages in the order of sending.
    sent_at, released_at = np.concatenate([ask, answer]), np.concatenate([asked, answered])
    order = np.argsort(sent_at)
    rows = np.empty(sent_at.size, np.int32)
    slots, num_slots = assign_slots(sent_at[order], released_at[order])
    rows[order] = num_nodes + slots
    request_rows, reply_rows = np.split(rows, [times.size])
    xs = blank(total, 2)
    for at, seconds in ((ask, times), (answer, requests.times), (end, replies.times), (act, acts[0])):
        xs["time"][at] = seconds
    xs["nodes"][act, 0] = acts[1]
    _transfer(xs, ask, 0, first, request_rows, 1.0)
    _transfer(xs, answer, 0, second[met], reply_rows, 1.0)
    _transfer(xs, answer, 1, request_rows[met], second[met], 0.5)
    done = replies.delivered
    _transfer(xs, end, 1, reply_rows[done], first[met[done]], 0.5)
    xs["messages"][ask, 0] = xs["messages"][answer, 0] = 1
    return xs, num_slots


def _transfer(xs: dict[str, np.ndarray], at, lane: int, senders, receivers, weight: float) -> None:
    """Write one transfer into a lane of each of the events ``at``."""
    xs["senders"][at, lane], xs["receivers"][at, lane] = senders, receivers
    xs["weights"][at, lane], xs["keep"][at, lane] = weight, 1.0 - weight
