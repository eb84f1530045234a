"""Events per second of asynchronous runs, compared with hand-written loops: heapq in Python, and numba.

Rates are the best of several calls, without compile time; planning and packing count only if the name says so.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Int

import gossipjax as gj
from benchmarks.works import W1, pool, shards
from gossipjax import Protocol, Timeline
from gossipjax._base.binding import bind
from gossipjax._base.rows import increase


class Counted(NamedTuple):
    """State of a protocol, and the number of updates of every node."""

    inner: Any
    updates: Int[Array, " n"]


def counted(protocol: Protocol) -> Protocol:
    """Wrap a protocol to count the updates of every node."""
    protocol = bind(protocol)

    def init(key, x0):
        return Counted(protocol.init(key, x0), jnp.zeros(jax.tree.leaves(x0)[0].shape[0], jnp.int32))

    def step(key, state, event):
        inner, info = protocol.step(key, state.inner, event)
        return Counted(inner, increase(state.updates, event.nodes, jnp.ones(event.nodes.shape, jnp.int32))), info

    return bind(Protocol(init, step, lambda state: protocol.model(state.inner)))


def rate(protocol: Protocol, timeline: Timeline, x0: Any, *, events: int | None = None) -> dict[str, float]:
    """Compile and run; return the compile time and the best rate, in million source events per second."""
    count = len(timeline) if events is None else events
    key = jax.random.key(0)
    timeline = jax.tree.map(jnp.asarray, timeline)
    step = jax.jit(lambda key, protocol, timeline, state: gj.run(key, protocol, timeline, state), donate_argnums=3)
    state = jax.jit(protocol.init)(key, gj.with_slots(jax.tree.map(jnp.array, x0), timeline.properties))
    start = time.perf_counter()
    program = step.lower(key, protocol, timeline, state).compile()
    compile_s, best = time.perf_counter() - start, np.inf
    for _ in range(4):
        start = time.perf_counter()
        (state, _), _ = jax.block_until_ready(program(key, protocol, timeline, state))
        best = min(best, time.perf_counter() - start)
    return {"million_per_s": count / best / 1e6, "compile_s": compile_s}


def dynamics(n: int, num_events: int = 1_000_000) -> dict[str, Any]:
    """Measure random pairs with value, version and age stamp of node 0: drawn in the loop, planned, and packed."""
    protocol = counted(gj.track_versions(gj.gossip_averaging(), [0]))
    x0 = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    inside = rate(protocol, gj.timeline.drawn_pairs(n, num_events), x0)
    start = time.perf_counter()
    plan = gj.timeline.poisson_pairs(gj.topology.random_regular(n, 4, seed=0, tries=5), num_events, seed=0)
    planning = time.perf_counter() - start
    planned = rate(protocol, plan, x0)
    gj.pack(plan)
    start = time.perf_counter()
    wide = gj.pack(plan)
    packing = time.perf_counter() - start
    packed = rate(protocol, wide, x0, events=num_events)
    facts = wide.properties.packing
    return {
        "drawn_inside": inside["million_per_s"],
        "planned": planned["million_per_s"],
        "packed": packed["million_per_s"],
        "packed_with_packing": num_events / (num_events / packed["million_per_s"] + 1e6 * packing),
        "pack_million_per_s": num_events / packing / 1e6,
        "graph_and_plan_s": planning,
        "mean_width": facts.mean_width,
        "levels": facts.levels,
        "waste": facts.waste,
        "compile_s": inside["compile_s"],
    }


def drawn_network(n: int, wake_ups: int = 10) -> dict[str, float]:
    """Measure matchings drawn in the run: value, version, and stamp of node 0, from the start to the last record."""
    wall, cpu = time.perf_counter(), time.process_time()
    protocol = gj.track_versions(gj.gossip_averaging(), [0])
    watch = [gj.observe.consensus_distance()]
    plan, key = gj.timeline.drawn_matchings(n, wake_ups), jax.random.key(0)
    x0 = jax.random.normal(key, (n,), jnp.float32)
    run = gj.simulate(key, protocol, plan, x0, observers=watch, record_every=wake_ups)
    left = float(run["consensus_distance"][-1] / run["consensus_distance"][0])
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "left": left}


def heap_loop(n: int, num_events: int = 300_000) -> dict[str, float]:
    """Measure the same in plain Python: a heap of next wake-ups, lists of values, versions and stamps."""
    rng = np.random.default_rng(0)
    value, version, stamp = rng.standard_normal(n).tolist(), [0] * n, [0] * n
    gaps, others = rng.exponential(size=num_events).tolist(), rng.integers(0, n - 1, num_events).tolist()
    queue = [(t, i) for i, t in enumerate(rng.exponential(size=n).tolist())]
    heapq.heapify(queue)
    start = time.perf_counter()
    for k in range(num_events):
        now, i = queue[0]
        j = others[k]
        j += j >= i
        version[i] += 1
        if i == 0:
            stamp[0] = version[0]
        value[i] = value[j] = 0.5 * (value[i] + value[j])
        stamp[i] = stamp[j] = max(stamp[i], stamp[j])
        heapq.heapreplace(queue, (now + gaps[k], i))
    return {"million_per_s": num_events / (time.perf_counter() - start) / 1e6}


def numba_loop(n: int, num_events: int = 3_000_000) -> dict[str, float]:
    """Measure the same in numba: superposed Poisson clocks, random numbers drawn in the loop."""
    import numba

    @numba.njit(cache=False)
    def loop(value, version, stamp, events, seed):
        np.random.seed(seed)  # noqa: NPY002
        for _ in range(events):
            i = np.random.randint(0, value.size)  # noqa: NPY002
            j = np.random.randint(0, value.size - 1)  # noqa: NPY002
            j += j >= i
            version[i] += 1
            if i == 0:
                stamp[0] = version[0]
            mean = 0.5 * (value[i] + value[j])
            value[i] = mean
            value[j] = mean
            newest = max(stamp[i], stamp[j])
            stamp[i] = newest
            stamp[j] = newest

    state = np.random.default_rng(0).standard_normal(n).astype(np.float32), np.zeros(n, np.int32), np.zeros(n, np.int32)
    loop(*state, 1000, 0)
    best = np.inf
    for seed in range(3):
        start = time.perf_counter()
        loop(*state, num_events, seed)
        best = min(best, time.perf_counter() - start)
    return {"million_per_s": num_events / best / 1e6}


def long_rows(kind: str) -> dict[str, float]:
    """Measure events on longer rows with 1,000 nodes: all-pairs counters, 10,000 floats, or a local SGD step."""
    n = 1000
    graph = gj.topology.random_regular(n, 4, seed=0, tries=5)
    if kind == "versions":
        plan = gj.timeline.poisson_pairs(graph, 100_000, seed=0)
        return rate(gj.track_versions(gj.gossip_averaging()), plan, np.zeros(n, np.float32))
    if kind == "version_pushes":
        plan = gj.timeline.poisson_push(graph, 100_000, seed=0)
        return rate(gj.track_versions(gj.gossip_averaging()), plan, np.zeros(n, np.float32))
    if kind == "floats":
        return rate(
            gj.gossip_averaging(), gj.timeline.poisson_pairs(graph, 50_000, seed=0), np.ones((n, 10_000), np.float32)
        )
    protocol, x0 = _sgd(n)
    return rate(protocol, gj.timeline.poisson_pairs(graph, 20_000, seed=0), x0)


def _sgd(n: int) -> tuple[Protocol, Any]:
    """Build SGD on an MLP 784-12-10 with batches of 8; return the protocol and the start."""
    task = gj.tasks.classification(pool(W1), shards(n), gj.tasks.mlp(784, (12,), 10), batch_size=8)
    return gj.dpsgd(task, Partial(optax.sgd, 0.05)), gj.replicate(task.init(jax.random.key(0)), n)


def driver(kind: str) -> dict[str, Any]:
    """Compare the form that simulate picks with both forms, packing included."""
    n, key = 1000, jax.random.key(0)
    graph = gj.topology.random_regular(n, 4, seed=0, tries=5)
    protocol, floats = gj.gossip_averaging(), 0
    if kind == "sgd_784_12_10":
        protocol, x0, count = *_sgd(n), 20_000
    elif kind == "sgd_softmax_64_10":
        data = gj.tasks.digits()
        parts = gj.tasks.iid(len(data.train.labels), n, seed=0)
        task = gj.tasks.classification(data, parts, gj.tasks.softmax_regression(64, 10), batch_size=8)
        protocol, x0, count = gj.dpsgd(task, Partial(optax.sgd, 0.05)), gj.replicate(task.init(key), n), 50_000
    else:
        floats = int(kind.split("_")[1])
        x0, count = np.ones((n, floats), np.float32), max(30_000, min(1_000_000, 100_000_000 // (64 + floats) // 4))
    builder = gj.timeline.poisson_push if kind.startswith("push") else gj.timeline.poisson_pairs
    plan = builder(graph, count, seed=0)

    def seconds(how: str) -> tuple[float, str]:
        best, reason = np.inf, ""
        for _ in range(4):
            start = time.perf_counter()
            run = gj.simulate(key, protocol, plan, x0, record_every=count, packing=how)
            best, reason = min(best, time.perf_counter() - start), run.manifest["configuration"]["packing"]
        return best, reason

    measured: dict[str, tuple[float, str]] = {how: seconds(how) for how in ("sequential", "packed")}
    picked = seconds("auto")[1].split(":")[0]
    best = min(s for s, _ in measured.values())
    return {
        "sequential": count / measured["sequential"][0] / 1e3,
        "packed": count / measured["packed"][0] / 1e3,
        "picked": picked,
        "loss": measured[picked][0] / best - 1.0,
    }


def learning(n: int = 10_000, updates: int = 10) -> dict[str, Any]:
    """Measure asynchronous softmax regression of n nodes on real data: planning, compilation and run."""
    data = gj.tasks.load("fashion_mnist") if _has("fashion_mnist") else gj.tasks.digits()
    inputs = int(np.prod(data.train.inputs.shape[1:]))
    parts = gj.tasks.iid(len(data.train.labels), n, seed=0) if len(data.train.labels) >= n else _shared(data, n)
    task = gj.tasks.classification(data, parts, gj.tasks.softmax_regression(inputs, 10), batch_size=8)
    start = time.perf_counter()
    graph = gj.topology.random_regular(n, 4, seed=0, tries=5)
    plan = gj.timeline.poisson_pairs(graph, updates * n, seed=0)
    planning = time.perf_counter() - start
    protocol, x0 = gj.dpsgd(task, Partial(optax.sgd, 0.1)), gj.replicate(task.init(jax.random.key(0)), n)
    watch = [gj.observe.average_model_metrics(task, samples=min(1000, len(data.test.labels)))]

    def call():
        start = time.perf_counter()
        run = gj.simulate(jax.random.key(0), protocol, plan, x0, observers=watch, record_every=len(plan) // 5)
        return time.perf_counter() - start, float(run["average_model_accuracy"][-1])

    first, _ = call()
    seconds, accuracy = call()
    return {
        "data": data.name,
        "run_s": seconds,
        "plan_s": planning,
        "compile_s": first - seconds,
        "accuracy": accuracy,
        "thousand_per_s": len(plan) / seconds / 1e3,
    }


def _has(name: str) -> bool:
    try:
        gj.tasks.load(name)
    except gj.tasks.DataUnavailable:
        return False
    return True


def _shared(data: Any, n: int) -> gj.tasks.Partition:
    """Build a partition in which nodes share samples, for data sets with fewer samples than nodes."""
    rng = np.random.default_rng(0)
    indices = rng.integers(0, len(data.train.labels), 8 * n).astype(np.int32)
    return gj.tasks.Partition(indices, np.arange(0, 8 * n + 1, 8, dtype=np.int32))


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "dynamics": lambda n: dynamics(int(n)),
    "heap_loop": lambda n: heap_loop(int(n)),
    "numba_loop": lambda n: numba_loop(int(n)),
    "long_rows": long_rows,
    "driver": driver,
}
"""Cases for one CPU device and one thread."""
