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


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "staleness": lambda n: staleness(int(n)),
    "graph": lambda n: graph(int(n)),
}
"""Cases for one CPU device and one thread."""
