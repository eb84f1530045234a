"""Poisson meetings drawn inside the run: a plan of any length costs one number an event, whatever the seed.

Poisson clocks of the nodes superpose to one, so the next event is at a uniform node whatever happened before. The
numbers of events are drawn from the run's key, in blocks; each seed has meetings of its own.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree, UInt

from gossipjax.mixing import PairMixing
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Event, Properties, Timeline

BLOCK = 1024
"""Events whose random words are drawn by one key."""


def _words(key: Key[Array, ""], index: UInt[Array, " T"], count: int) -> UInt[Array, "T count"]:
    """Random words of consecutive events: the same for an event wherever a window begins."""
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


def _meetings(key: Key[Array, ""], static: PyTree, xs: PyTree) -> PyTree:
    """Draw who wakes, whom it meets, and what happens."""
    kinds = "updates_below" in static
    words = _words(key, xs["index"], 3 if kinds else 2)
    n = static["num_nodes"]
    first = scaled(words[:, 0], n)
    if "receivers" in static:
        at = static["offsets"][first]
        second = static["receivers"][at + scaled(words[:, 1], static["degrees"][first])]
    else:
        second = scaled(words[:, 1], n - np.uint32(1))
        second = second + (second >= first).astype(jnp.int32)
    return xs | {"first": first, "second": second} | ({"kind": words[:, 2]} if kinds else {})


def _time(static: PyTree, x: PyTree) -> Array:
    return ((x["index"].astype(jnp.float32) + 1.0) * static["seconds_per_event"])[None]


def _exchange(key: Key[Array, ""], static: PyTree, x: PyTree) -> Event:
    del key
    i, j = x["first"], x["second"]
    mixing = PairMixing(jnp.stack([i, j]), jnp.stack([j, i]), static["weight"], static["keep"])
    return Event(index=x["index"][None], time=_time(static, x), nodes=i[None], mixing=mixing)


def _update_or_push(key: Key[Array, ""], static: PyTree, x: PyTree) -> Event:
    del key
    updates = x["kind"] < static["updates_below"]
    nobody = jnp.int32(NOBODY)
    node, receiver = jnp.where(updates, x["first"], nobody), jnp.where(updates, nobody, x["second"])
    mixing = PairMixing(x["first"][None], receiver[None], static["weight"], static["keep"])
    return Event(index=x["index"][None], time=_time(static, x), nodes=node[None], mixing=mixing)


def _network(peers: Topology | int) -> tuple[int, str, dict[str, Any]]:
    if isinstance(peers, int):
        if peers < 2:
            raise ValueError(f"peers={peers}: a meeting needs at least two nodes")
        return peers, f"{peers} nodes, all peers", {}
    degrees = np.bincount(peers.senders, minlength=peers.num_nodes)
    if silent := np.flatnonzero(degrees == 0).tolist():
        raise ValueError(f"node {silent[0]} of {peers.name} has nobody to send to; give every node an out-neighbour")
    order = np.argsort(peers.senders, kind="stable")
    table = {
        "receivers": peers.receivers[order].astype(np.int32),
        "offsets": (np.cumsum(degrees) - degrees).astype(np.int32),
        "degrees": degrees.astype(np.uint32),
    }
    return peers.num_nodes, peers.name, table


def _timeline(num_events: int, total_rate: float, static: dict[str, Any], event, properties: Properties) -> Timeline:
    if not 1 <= num_events < 1 << 32:
        raise ValueError(f"num_events={num_events}: must lie in 1 … 2³² − 1")
    static |= {"num_nodes": np.uint32(properties.num_nodes), "seconds_per_event": np.float32(1.0 / total_rate)}
    xs = {"index": np.arange(num_events, dtype=np.uint32)}
    return Timeline(xs, jax.tree.map(jnp.asarray, static), event, properties, _meetings)


def _check_rate(name: str, rate: float) -> None:
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"{name}={rate}: events per node and second must be positive and finite")


def drawn_pairs(peers: Topology | int, num_events: int, *, rate: float = 1.0) -> Timeline:
    """Let nodes wake at Poisson times, act, and average with a uniform neighbour, all drawn inside the run.

    ``x_i, x_j ← (x_i + x_j) / 2``. The law of :func:`poisson_pairs`, but event k happens at its mean time
    ``(k + 1) / (n · rate)``, and every seed meets other pairs.

    Args:
        peers: an undirected topology, or n: every other node is a neighbour.
        num_events: T < 2³².
        rate: wake-ups per node and second.

    Raises:
        ValueError: a directed topology, one with a lonely node, non-positive rate.
    """
    _check_rate("rate", rate)
    if isinstance(peers, Topology) and peers.directed:
        raise ValueError(f"{peers.name} is directed; averaging is mutual, so pass an undirected topology")
    n, name, static = _network(peers)
    properties = Properties(
        num_nodes=n,
        num_rows=n,
        name=f"drawn_pairs({name}, rate={rate:g})",
        own_rows=True,
        meetings=True,
        symmetric=True,
        doubly_stochastic=True,
        row_stochastic=True,
        messages="pair: two models an event",
    )
    static |= {"weight": np.full(2, 0.5), "keep": np.full(2, 0.5)}
    return _timeline(num_events, n * rate, static, _exchange, properties)


def drawn_gossip(
    peers: Topology | int, num_events: int, *, update_rate: float, gossip_rate: float, weight: float = 0.5
) -> Timeline:
    """Let nodes update at rate m and push at rate λ, all drawn inside the run: staleness at any scale.

    Each event is an update of a uniform node with probability ``m / (m + λ)``, else a push from it to a uniform
    neighbour, ``x_j ← (1 − a) x_j + a x_i``. The law of :func:`push_gossip` under Poisson clocks, but event k happens
    at its mean time ``(k + 1) / (n (m + λ))``.

    Args:
        peers: a topology, or n: every other node is a peer.
        num_events: T < 2³².
        update_rate: m, updates per node and second; 0: none.
        gossip_rate: λ, pushes per node and second.
        weight: a in (0, 1], the share of the received model.

    Raises:
        ValueError: a rate or weight out of range, a node with nobody to send to.
    """
    _check_rate("gossip_rate", gossip_rate)
    if not (np.isfinite(update_rate) and update_rate >= 0):
        raise ValueError(f"update_rate={update_rate}: updates per node and second must be finite and not negative")
    if not 0.0 < weight <= 1.0:
        raise ValueError(f"weight={weight}: the received model's share must lie in (0, 1]")
    n, name, static = _network(peers)
    share = update_rate / (update_rate + gossip_rate)
    properties = Properties(
        num_nodes=n,
        num_rows=n,
        name=f"drawn_gossip({name}, update_rate={update_rate:g}, gossip_rate={gossip_rate:g}, weight={weight:g})",
        own_rows=True,
        meetings=True,
        row_stochastic=True,
        messages="pair: one model a push",
    )
    static |= {"weight": np.full(1, weight), "keep": np.full(1, 1.0 - weight)}
    static |= {"updates_below": np.uint32(min(round(share * 2**32), 2**32 - 1))}
    return _timeline(num_events, n * (update_rate + gossip_rate), static, _update_or_push, properties)
