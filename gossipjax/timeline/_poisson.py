"""Pairwise meetings and one-way pushes under Poisson clocks: every event has its own time."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from gossipjax._base.arguments import real, reals, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.mixing._apply import PairMixing
from gossipjax.timeline._checks import connected, share_of, undirected
from gossipjax.timeline._memory import MOST_EVENTS, require_room
from gossipjax.timeline._moments import written_times
from gossipjax.topology import Topology
from gossipjax.types import Event, Timeline

_EVENT_BYTES = 60
"""Bytes that a meeting takes during planning."""
_REMEDY = ", or let the run draw its events (drawn_pairs, drawn_gossip)"


def _pair(x: PyTree) -> tuple[Array, Array]:
    first, second = x["first"], x["second"]
    return jnp.stack([first, second]), jnp.stack([second, first])


def _seconds(x: PyTree) -> Array:
    """The loop's copy of a time."""
    return x["time"].astype(jnp.float32)


def _node_wakes(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    """Average the node that woke and its partner; the node that woke acts."""
    del key
    senders, receivers = _pair(x)
    mixing = PairMixing(senders, receivers, shared["weight"], shared["keep"])
    return Event(index=x["index"][None], time=_seconds(x)[None], nodes=x["first"][None], mixing=mixing)


def _edge_fires(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    """Average both ends; both act."""
    del key
    senders, receivers = _pair(x)
    mixing = PairMixing(senders, receivers, shared["weight"], shared["keep"])
    index, time = jnp.stack([x["index"]] * 2), jnp.stack([_seconds(x)] * 2)
    return Event(index=index, time=time, nodes=receivers, mixing=mixing)


def _node_pushes(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    """Send the woken node's model one way; the node that woke acts."""
    del key
    mixing = PairMixing(x["first"][None], x["second"][None], shared["weight"], shared["keep"])
    return Event(index=x["index"][None], time=_seconds(x)[None], nodes=x["first"][None], mixing=mixing)


def _arrival_times(rng: np.random.Generator, total_rate: float, num_events: Any, duration: Any):
    """Draw the times of a Poisson process: a number of arrivals, or all before ``duration``."""
    if (num_events is None) == (duration is None):
        raise ValueError("pass exactly one of num_events (count) and duration (simulated seconds)")
    if num_events is None:
        duration = real("duration", duration, above=0, unit="seconds")
        require_room(total_rate * duration, _EVENT_BYTES, "events", "duration, rate", remedy=_REMEDY)
        return np.sort(rng.random(int(rng.poisson(total_rate * duration)))) * duration
    num_events = whole("num_events", num_events, least=1, most=MOST_EVENTS)
    require_room(num_events, _EVENT_BYTES, "events", "num_events", remedy=_REMEDY)
    return np.cumsum(rng.exponential(1.0 / total_rate, num_events))


def _rate(rate: Any) -> float:
    return real("rate", rate, above=0, unit="events per node (or edge) and second")


def _edge_rates(rate: Any, edges: int) -> tuple[float, np.ndarray | None]:
    """Return the sum of the rates of all edges, and their shares of it; None: equal ones."""
    if np.ndim(rate) == 0:
        return edges * _rate(rate), None
    rates = reals("rate", rate, shape=(edges,), least=0, remedy=f"{edges}, one per edge")
    if not (total := float(rates.sum())) > 0:
        raise ValueError("rate: all rates are 0, and nothing would happen; make one positive")
    return total, rates / total


def uniform_neighbors(topology: Topology, rng: np.random.Generator, nodes: np.ndarray) -> np.ndarray:
    """Draw a uniform out-neighbour for each waking node."""
    degrees = np.bincount(topology.senders, minlength=topology.num_nodes)
    silent = np.flatnonzero(degrees == 0)
    if silent.size:
        raise ValueError(f"node {silent[0]} of {topology.name} has no out-neighbour; add an edge from it")
    offsets = np.concatenate([[0], np.cumsum(degrees)[:-1]])
    pick = offsets[nodes] + (rng.random(nodes.size) * degrees[nodes]).astype(np.int64)
    if not topology.directed:  # sorted by receiver, so the out-neighbours of a node are the senders of its stretch
        return topology.senders[pick]
    return topology.receivers[np.argsort(topology.senders, kind="stable")[pick]]


def _timeline(first, second, times, event, shared, properties) -> Timeline:
    xs = {
        "index": np.arange(times.size, dtype=np.uint32),
        "time": times,
        "first": first.astype(np.int32),
        "second": second.astype(np.int32),
    }
    return Timeline(xs, jax.tree.map(jnp.asarray, shared), event, properties, seconds=written_times)


def _halves(entries: int, weight: float = 0.5) -> dict[str, np.ndarray]:
    # In JAX's default float once on the device: weight and keep of other precision than x would not sum to one.
    return {"weight": np.full(entries, weight), "keep": np.full(entries, 1.0 - weight)}


@recorded("boyd2006gossip")
def poisson_pairs(
    topology: Topology,
    num_events: int | None = None,
    *,
    duration: float | None = None,
    rate: float = 1.0,
    seed: int,
) -> Timeline:
    """Plan pairwise averaging under Poisson node clocks: a node wakes, acts, and averages with a uniform neighbour.

    ``x_i, x_j ← (x_i + x_j) / 2`` at the points of a Poisson process of rate n · ``rate``; i is uniform over the nodes
    and j over i's neighbours. The network mean is conserved.

    Args:
        topology: undirected.
        num_events: T; exactly one of this and ``duration``.
        duration: simulated seconds; T is then Poisson(n · rate · duration).
        rate: wake-ups per node and second.
        seed: of the NumPy generator that draws the plan.

    Raises:
        ValueError: if the topology is directed or has no edge, the rate is not positive, or not exactly one of
            num_events and duration is given.

    Reference: Boyd, Ghosh, Prabhakar, Shah, "Randomized Gossip Algorithms", 2006.
    """
    topology, rate, rng = undirected(topology), _rate(rate), np.random.default_rng(checked_seed(seed))
    times = _arrival_times(rng, topology.num_nodes * rate, num_events, duration)
    first = rng.integers(0, topology.num_nodes, times.size, dtype=np.int32)
    second = uniform_neighbors(topology, rng, first)
    properties = _pair_properties(topology, f"poisson_pairs({topology.name}, rate={rate:g}, seed={seed})")
    return _timeline(first, second, times, _node_wakes, _halves(2), properties)


@recorded("boyd2006gossip")
def poisson_edges(
    topology: Topology,
    num_events: int | None = None,
    *,
    duration: float | None = None,
    rate: float | Float[np.ndarray, " edges"] = 1.0,
    seed: int,
) -> Timeline:
    """Plan pairwise averaging under Poisson edge clocks: an edge fires, both ends act, then average.

    Like :func:`poisson_pairs`, but each edge has its own clock: events happen at the sum of all rates, each at an edge
    with probability proportional to its rate.

    Args:
        topology: undirected.
        num_events: T; exactly one of this and ``duration``.
        duration: simulated seconds; T is then Poisson with mean duration · Σ rates.
        rate: firings per second of every edge, or of each: ``(edges,)``, at least 0 and not all 0, in the order of the
            pairs ``topology.senders < topology.receivers``.
        seed: of the NumPy generator that draws the plan.
    """
    topology, rng = undirected(topology), np.random.default_rng(checked_seed(seed))
    once = topology.senders < topology.receivers
    senders, receivers = topology.senders[once], topology.receivers[once]
    total, shares = _edge_rates(rate, senders.size)
    times = _arrival_times(rng, total, num_events, duration)
    if shares is None:
        edge, what = rng.integers(0, senders.size, times.size), f"rate={rate:g}"
    else:
        edge, what = rng.choice(senders.size, times.size, p=shares), f"rates of {senders.size} edges"
    properties = _pair_properties(topology, f"poisson_edges({topology.name}, {what}, seed={seed})")
    return _timeline(senders[edge], receivers[edge], times, _edge_fires, _halves(2), properties)


def _pair_properties(topology: Topology, name: str) -> Properties:
    return Properties(
        num_nodes=topology.num_nodes,
        num_rows=topology.num_nodes,
        name=name,
        tags={"own_rows", "meetings", "symmetric", "doubly_stochastic", "row_stochastic"},
        messages="pair: two models an event",
    )


@recorded()
def poisson_push(
    topology: Topology,
    num_events: int | None = None,
    *,
    duration: float | None = None,
    rate: float = 1.0,
    weight: float = 0.5,
    seed: int,
) -> Timeline:
    """Plan one-way pushes under Poisson node clocks: a node wakes, acts, and sends its model to a uniform neighbour.

    ``x_j ← (1 − a) x_j + a x_i`` with a = ``weight``. The mean is conserved in expectation only.

    Args:
        topology: directed or undirected; node i sends along its out-edges.
        num_events: T; exactly one of this and ``duration``.
        duration: simulated seconds; T is then Poisson(n · rate · duration).
        rate: pushes per node and second.
        weight: a in (0, 1], the share of the received model.
        seed: of the NumPy generator that draws the plan.
    """
    topology, rate, rng = connected(topology), _rate(rate), np.random.default_rng(checked_seed(seed))
    weight = share_of(weight)
    times = _arrival_times(rng, topology.num_nodes * rate, num_events, duration)
    first = rng.integers(0, topology.num_nodes, times.size, dtype=np.int32)
    second = uniform_neighbors(topology, rng, first)
    properties = dataclasses.replace(
        _pair_properties(topology, f"poisson_push({topology.name}, rate={rate:g}, weight={weight:g}, seed={seed})"),
        tags={"own_rows", "meetings", "row_stochastic"},
        messages="pair: one model an event",
    )
    return _timeline(first, second, times, _node_pushes, _halves(1, weight), properties)
