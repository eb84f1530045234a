"""CPU seconds of what happens beside the events: building graphs, planning, packing, and records of staleness."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gossipjax as gj


def cpu_seconds(call: Callable[[], Any], repeats: int = 9) -> float:
    """Return the fewest CPU seconds of several calls, after one that compiles."""
    jax.block_until_ready(call())
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        jax.block_until_ready(call())
        best = min(best, time.process_time() - start)
    return best


def staleness(n: int, sources: int = 8) -> dict[str, float]:
    """Measure one record of staleness_summary, and one pass over the counters that it reads."""
    protocol = gj.track_versions(gj.gossip_averaging(), list(range(sources)))
    x = jnp.zeros(n, jnp.float32)
    state = protocol.init(jax.random.key(0), x)
    held = 60 - np.minimum(60, np.random.default_rng(0).geometric(0.05, (n, sources)))
    versions = protocol.versions(state)._replace(
        held=jnp.asarray(held, jnp.int32), own=jnp.full(sources, 60, jnp.int32)
    )
    observer = gj.observe.staleness_summary()
    snapshot = gj.observe.Snapshot(jnp.uint32(0), jnp.zeros(()), x, versions)
    record = jax.jit(lambda snapshot: observer.measure(snapshot))
    one_pass = jax.jit(lambda snapshot: jnp.sum(snapshot.versions.held))
    return {
        "record_s": cpu_seconds(lambda: record(snapshot)),
        "pass_s": cpu_seconds(lambda: one_pass(snapshot)),
    }


def graph(n: int) -> dict[str, float]:
    """Measure drawing a random 4-regular graph."""
    return {"graph_s": cpu_seconds(lambda: gj.topology.random_regular(n, 4, seed=0, tries=5).senders)}


def plexus(n: int, window: int = 1000, num_rounds: int = 300) -> dict[str, float]:
    """Measure planning with Plexus for devices that are always online, in messages per CPU second.

    With a window of fewer than ``num_rounds`` rounds, nodes fall out of it, and their views differ.
    """
    phones, membership = gj.devices.fitted(n, seed=0), gj.systems.Membership(activity_window=window)

    def plan() -> gj.systems.Plan:
        return gj.systems.plexus(phones, num_rounds=num_rounds, model_bytes=4 * 85_354, seed=0, membership=membership)

    messages = int(plan().history.messages_sent.sum())
    return {"messages": messages, "thousand_per_s": messages / cpu_seconds(lambda: plan().end_s) / 1e3}


def events(n: int, num_events: int = 1_000_000) -> dict[str, float]:
    """Measure planning pushes with and without latency, and packing them and random pairs, in events per CPU second."""
    graph = gj.topology.random_regular(n, 4, seed=0, tries=5)
    clock, seconds = gj.timeline.clocks.shifted_exponential(0.5, 0.5), num_events / n / 2

    def push(latency: float | None) -> gj.Timeline:
        return gj.timeline.push_gossip(graph, seconds, compute=clock, gossip=1.0, latency=latency, seed=0)

    pairs = gj.timeline.poisson_pairs(graph, num_events, seed=0)
    return {
        "push": len(push(None)) / cpu_seconds(lambda: push(None).xs["time"]) / 1e6,
        "push_latency": len(push(0.1)) / cpu_seconds(lambda: push(0.1).xs["time"]) / 1e6,
        "pack_pairs": num_events / cpu_seconds(lambda: gj.pack(pairs).xs) / 1e6,
    }


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "staleness": lambda n: staleness(int(n)),
    "graph": lambda n: graph(int(n)),
    "plexus": lambda n: plexus(int(n)),
    "plexus_window": lambda n: plexus(int(n), window=100),
    "events": lambda n: events(int(n)),
}
"""Cases for one CPU device and one thread."""
