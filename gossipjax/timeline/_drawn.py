"""Poisson meetings that are drawn inside the run: a plan holds one number per event and serves all seeds.

Poisson clocks of the nodes superpose to one Poisson clock, so each event happens at a uniform node, independent of the
past. Nodes are drawn from the run's key, in blocks of events; each seed has its own meetings.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, Key, PyTree, UInt

from gossipjax._base.arguments import real, whole
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.mixing._apply import PairMixing
from gossipjax.timeline._checks import share_of, undirected
from gossipjax.timeline._memory import MOST_EVENTS, require_room
from gossipjax.timeline.flights import num_peers
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Event, Timeline

BLOCK = 1024
"""Events whose random words are drawn by one key."""


def _words(key: Key[Array, ""], index: UInt[Array, " T"], count: int) -> UInt[Array, "T count"]:
    """Draw random words for consecutive events; those of an event do not depend on where a window begins."""
    total = index.shape[0]
    first = index[0] // np.uint32(BLOCK)
    blocks = first + jnp.arange(total // BLOCK + 2, dtype=jnp.uint32)
    words = jax.vmap(lambda block: jax.random.bits(jax.random.fold_in(key, block), (BLOCK, count), jnp.uint32))(blocks)
    start = (index[0] - first * np.uint32(BLOCK)).astype(jnp.int32)
    return jax.lax.dynamic_slice_in_dim(words.reshape(-1, count), start, total)


def scaled(words: UInt[Array, " T"], below: UInt[Array, "*T"]) -> Int[Array, " T"]:
    """Turn random words into integers 0 … below − 1: the high word of the 64-bit product, by 16-bit halves.

    Every integer has probability 1/below up to 2⁻³².
    """
    half, sixteen = np.uint32(0xFFFF), np.uint32(16)
    a, b, c, d = words >> sixteen, words & half, below >> sixteen, below & half
    middle = a * d + ((b * d) >> sixteen)
    return (a * c + (middle >> sixteen) + (((middle & half) + b * c) >> sixteen)).astype(jnp.int32)


def _meetings(key: Key[Array, ""], shared: PyTree, xs: PyTree) -> PyTree:
    """Draw who wakes, whom it meets, and what happens."""
    kinds = "updates_below" in shared
    words = _words(key, xs["index"], 3 if kinds else 2)
    n = shared["num_nodes"]
    first = scaled(words[:, 0], n)
    if "receivers" in shared:
        at = shared["offsets"][first]
        second = shared["receivers"][at + scaled(words[:, 1], shared["degrees"][first])]
    else:
        second = scaled(words[:, 1], n - np.uint32(1))
        second = second + (second >= first).astype(jnp.int32)
    return xs | {"first": first, "second": second} | ({"kind": words[:, 2]} if kinds else {})


def mean_times(shared: PyTree, xs: PyTree) -> Float64[np.ndarray, " T"]:
    """Return the mean time of each event, in float64: (k + 1) / events_per_second for event k."""
    return (np.asarray(xs["index"], np.float64) + 1.0) / np.float64(shared["events_per_second"])


def _time(shared: PyTree, x: PyTree) -> Array:
    """The loop's copy of :func:`mean_times`."""
    return ((x["index"].astype(jnp.float32) + 1.0) * shared["seconds_per_event"])[None]


def _exchange(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    i, j = x["first"], x["second"]
    mixing = PairMixing(jnp.stack([i, j]), jnp.stack([j, i]), shared["weight"], shared["keep"])
    return Event(index=x["index"][None], time=_time(shared, x), nodes=i[None], mixing=mixing)


def _update_or_push(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    updates = x["kind"] < shared["updates_below"]
    nobody = jnp.int32(NOBODY)
    node, receiver = jnp.where(updates, x["first"], nobody), jnp.where(updates, nobody, x["second"])
    mixing = PairMixing(x["first"][None], receiver[None], shared["weight"], shared["keep"])
    return Event(index=x["index"][None], time=_time(shared, x), nodes=node[None], mixing=mixing)


def _network(peers: Any) -> tuple[int, str, dict[str, Any]]:
    n = num_peers(peers)
    if not isinstance(peers, Topology):
        return n, f"{n} nodes, all peers", {}
    degrees = np.bincount(peers.senders, minlength=peers.num_nodes)
    if silent := np.flatnonzero(degrees == 0).tolist():
        raise ValueError(f"node {silent[0]} of {peers.name} has no out-neighbour; add an edge from it")
    order = np.argsort(peers.senders, kind="stable")
    table = {
        "receivers": peers.receivers[order].astype(np.int32),
        "offsets": (np.cumsum(degrees) - degrees).astype(np.int32),
        "degrees": degrees.astype(np.uint32),
    }
    return peers.num_nodes, peers.name, table


def _timeline(num_events: Any, total_rate: float, shared: dict[str, Any], event, properties: Properties) -> Timeline:
    num_events = whole("num_events", num_events, least=1, most=MOST_EVENTS)
    require_room(num_events, 8, "events", "num_events")
    shared |= {"num_nodes": np.uint32(properties.num_nodes), "seconds_per_event": np.float32(1.0 / total_rate)}
    # The loop multiplies in float32, the host divides in float64.
    kept = jax.tree.map(jnp.asarray, shared) | {"events_per_second": np.asarray(total_rate, np.float64)}
    xs = {"index": np.arange(num_events, dtype=np.uint32)}
    return Timeline(xs, kept, event, properties, _meetings, mean_times)


@recorded("boyd2006gossip")
def drawn_pairs(peers: Topology | int, num_events: int, *, rate: float = 1.0) -> Timeline:
    """Plan pairwise averaging drawn inside the run: at Poisson times a node acts and averages with a neighbour.

    ``x_i, x_j ← (x_i + x_j) / 2``. Nodes and neighbours are uniform, as in :func:`poisson_pairs`, but event k happens
    at its mean time ``(k + 1) / (n · rate)``, and every seed draws its own pairs.
    ``simulate(packing="levels")`` runs many of them at once, with the result of this order.

    Args:
        peers: an undirected topology, or n: every other node is a neighbour.
        num_events: T < 2³².
        rate: wake-ups per node and second.

    Raises:
        ValueError: if the topology is directed, a node has no neighbour, or the rate is not positive.
    """
    rate = real("rate", rate, above=0, unit="events per node and second")
    if isinstance(peers, Topology):
        undirected(peers, "peers")
    n, name, shared = _network(peers)
    properties = Properties(
        num_nodes=n,
        num_rows=n,
        name=f"drawn_pairs({name}, rate={rate:g})",
        tags={"own_rows", "meetings", "symmetric", "doubly_stochastic", "row_stochastic"},
        messages="pair: two models an event",
    )
    shared |= {"weight": np.full(2, 0.5), "keep": np.full(2, 0.5)}
    return _timeline(num_events, n * rate, shared, _exchange, properties)


@recorded("boyd2006gossip")
def drawn_gossip(
    peers: Topology | int, num_events: int, *, update_rate: float, gossip_rate: float, weight: float = 0.5
) -> Timeline:
    """Plan updates at rate m and pushes at rate λ, drawn inside the run, for runs of any length.

    Each event is an update of a uniform node with probability ``m / (m + λ)``, else a push from it to a uniform
    neighbour, ``x_j ← (1 − a) x_j + a x_i``. The law of events is that of :func:`push_gossip` under Poisson clocks, but
    event k happens at its mean time ``(k + 1) / (n (m + λ))``.

    Args:
        peers: a topology, or n: every other node is a peer.
        num_events: T < 2³².
        update_rate: m, updates per node and second; 0: none.
        gossip_rate: λ, pushes per node and second.
        weight: a in (0, 1], the share of the received model.

    Raises:
        ValueError: if a rate or weight is out of range, or a node has no out-neighbour.
    """
    gossip_rate = real("gossip_rate", gossip_rate, above=0, unit="pushes per node and second")
    update_rate = real("update_rate", update_rate, least=0, unit="updates per node and second")
    weight = share_of(weight)
    n, name, shared = _network(peers)
    share = update_rate / (update_rate + gossip_rate)
    properties = Properties(
        num_nodes=n,
        num_rows=n,
        name=f"drawn_gossip({name}, update_rate={update_rate:g}, gossip_rate={gossip_rate:g}, weight={weight:g})",
        tags={"own_rows", "meetings", "row_stochastic"},
        messages="pair: one model a push",
    )
    shared |= {"weight": np.full(1, weight), "keep": np.full(1, 1.0 - weight)}
    shared |= {"updates_below": np.uint32(min(round(share * 2**32), 2**32 - 1))}
    return _timeline(num_events, n * (update_rate + gossip_rate), shared, _update_or_push, properties)
