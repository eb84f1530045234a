"""Run one measurement in a fresh process, to get its peak memory: ``python -m benchmarks.case NAME [N]``.

Prints one JSON object. Compile time, steady state and peak memory are reported separately.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gossipjax as gj
from benchmarks import events, host, privacy, robust, sharing, systems
from benchmarks.memory import peak_memory_bytes
from benchmarks.works import WORKS, Work, setting
from gossipjax import Protocol, Timeline


def peak_memory_gb() -> float:
    """Return the largest resident set of this process so far, in GB."""
    return peak_memory_bytes() / 1e9


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Return the seconds of each repeat."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return seconds


def compiled(key, protocol: Protocol, timeline: Timeline, state) -> tuple[Any, float]:
    """Compile a run of a whole timeline that donates the state; return the program and the seconds it took."""
    step = jax.jit(lambda key, protocol, timeline, state: gj.run(key, protocol, timeline, state), donate_argnums=3)
    start = time.perf_counter()
    program = step.lower(key, protocol, timeline, state).compile()
    return program, time.perf_counter() - start


def matmul_peak(size: int = 2048, repeats: int = 12) -> dict[str, Any]:
    """Measure the best float32 matmul rate of this machine: the upper bound for training."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    return {"gflops": 2 * size**3 / min(timed(lambda: product(a), repeats)) / 1e9}


def work_rounds(work: Work, n: int) -> dict[str, Any]:
    """Measure rounds of a work in the engine."""
    per_call = max(2, round({"W1": 2048, "W2": 128}[work.name] / n))
    key, s = jax.random.key(0), setting(work, n, per_call)
    protocol, timeline = gj.placement.replicate_on_devices(s.protocol), s.timeline  # as the driver does
    start = jax.jit(lambda protocol, params: gj.placement.place_rows(protocol.init(key, gj.replicate(params, n))))
    state = start(protocol, s.params)
    del s
    program, compile_seconds = compiled(key, protocol, timeline, state)
    seconds = []
    for _ in range(3 if n >= 512 else 9):
        start = time.perf_counter()
        (state, _), _ = jax.block_until_ready(program(key, protocol, timeline, state))
        seconds.append((time.perf_counter() - start) / per_call)
    return _rates(work, n, seconds[1:]) | {"compile_s": compile_seconds}


def whole_run(n: int, num_rounds: int = 100) -> dict[str, Any]:
    """Measure W1 from building the task to the last record, as a user runs it, in one process."""
    wall, cpu = time.perf_counter(), time.process_time()
    given = setting(WORKS["W1"], n, num_rounds)
    watch = [gj.observe.consensus_distance()]
    run = gj.simulate(
        jax.random.key(0), given.protocol, given.timeline, given.task, observers=watch, record_every=num_rounds
    )
    assert np.isfinite(run["train_loss"].values[-1])
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "rounds": num_rounds}


def _rates(work: Work, n: int, seconds: list[float]) -> dict[str, Any]:
    median = float(np.median(seconds))
    return {"ms": 1e3 * median, "best_ms": 1e3 * min(seconds), "gflops": n * work.flops_per_round / median / 1e9}


def python_loop(work: Work, n: int) -> dict[str, Any]:
    """Measure the same work in a naive implementation: a Python loop over nodes, a jitted step, mixing in NumPy."""
    s = setting(work, n, 1)
    data, matrix = s.task.data, gj.mixing.metropolis(gj.topology.random_regular(n, 4, seed=0, tries=20))

    @jax.jit
    def local(key, x, node, data):
        def step(x, key):
            gradient = jax.grad(s.task.loss, argnums=1)(key, x, s.task.batch(key, data, node))
            return jax.tree.map(lambda p, g: p - work.learning_rate * g, x, gradient), None

        return jax.lax.scan(step, x, jax.random.split(key, work.local_steps))[0]

    models = [s.params for _ in range(n)]
    table = [(row.indices, row.data.astype(np.float32)) for row in (matrix[[i]] for i in range(n))]

    def one_round(number: int) -> None:
        key = jax.random.fold_in(jax.random.key(0), number)
        trained = [local(jax.random.fold_in(key, i), models[i], i, data) for i in range(n)]
        leaves = [[np.asarray(leaf) for leaf in jax.tree.leaves(model)] for model in trained]
        form = jax.tree.structure(trained[0])
        for i, (neighbors, weights) in enumerate(table):
            pairs = list(zip(neighbors, weights, strict=True))
            mixed = [sum(w * leaves[j][p] for j, w in pairs) for p in range(len(leaves[0]))]
            models[i] = jax.tree.unflatten(form, mixed)

    one_round(0)
    seconds = []
    for number in range(1, 3 if n >= 512 else 6):
        start = time.perf_counter()
        one_round(number)
        seconds.append(time.perf_counter() - start)
    return _rates(work, n, seconds)


def million_nodes(events_per_node: int = 10, n: int = 1_000_000) -> dict[str, Any]:
    """Measure pairwise averaging on a random 4-regular graph with scalar state: plan, then run with one thread."""
    start = time.perf_counter()
    graph = gj.topology.random_regular(n, 4, seed=0, tries=5)
    graph_seconds, start = time.perf_counter() - start, time.perf_counter()
    timeline = gj.timeline.poisson_pairs(graph, events_per_node * n, seed=0)
    plan_seconds = time.perf_counter() - start
    x0 = jnp.asarray(np.random.default_rng(0).standard_normal(n), jnp.float32)
    key, watch = jax.random.key(0), [gj.observe.consensus_distance()]
    gj.simulate(key, gj.gossip_averaging(), timeline[: 1 << 20], x0, observers=watch, record_every=1 << 20)
    start = time.perf_counter()
    run = gj.simulate(key, gj.gossip_averaging(), timeline, x0, observers=watch, record_every=1 << 20)
    seconds = time.perf_counter() - start
    return {
        "graph_s": graph_seconds,
        "plan_s": plan_seconds,
        "run_s": seconds,
        "events_per_s": events_per_node * n / seconds,
        "variance_left": float(run["consensus_distance"][-1] / run["consensus_distance"][0]),
    }


def seeds(kind: str, num_seeds: int = 8) -> dict[str, Any]:
    """Compare a batch of seeds in one call with as many single calls, both without compilation."""
    protocol, timeline, x0 = _seed_setting(kind)
    keys = jax.random.split(jax.random.key(0), num_seeds)

    def together():
        return gj.simulate(keys, protocol, timeline, x0, record_every=len(timeline)).x

    def apart():
        return [gj.simulate(key, protocol, timeline, x0, record_every=len(timeline)).x for key in keys]

    jax.block_until_ready(together()), jax.block_until_ready(apart())
    pairs = [(timed(together, 1)[0], timed(apart, 1)[0]) for _ in range(5)]
    ratio = float(np.median([a / b for a, b in pairs]))
    return {"together_s": float(np.median([a for a, _ in pairs])), "ratio": ratio}


def _seed_setting(kind: str):
    if kind in WORKS:
        s = setting(WORKS[kind], 8 if kind == "W2" else 64, 4 if kind == "W2" else 40)
        return s.protocol, s.timeline, gj.replicate(s.params, s.task.num_nodes)
    if kind == "scalar":
        graph = gj.topology.random_regular(1024, 4, seed=0)
        timeline = gj.timeline.poisson_pairs(graph, 100_000, seed=0)
        return gj.gossip_averaging(), timeline, jnp.arange(1024, dtype=jnp.float32)
    if kind == "softmax":
        data = gj.tasks.digits()
        task = gj.tasks.classification(
            data, gj.tasks.iid(len(data.train.labels), 64, seed=0), gj.tasks.softmax_regression(64, 10)
        )
        timeline = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.random_regular(64, 4, seed=0)), 300)
        return gj.dpsgd(task, optax.sgd(0.1)), timeline, gj.replicate(task.init(jax.random.key(0)), 64)
    raise ValueError(f"kind={kind!r}: must be W1, W2, scalar or softmax")


def memory_of_length(num_events: int) -> dict[str, Any]:
    """Measure the peak memory of a run of many rounds, which must not grow with their number."""
    matrix = gj.mixing.metropolis(gj.topology.random_regular(64, 4, seed=0))
    x0 = jnp.zeros((64, 100), jnp.float32).at[0].set(1.0)
    before = peak_memory_gb()
    gj.simulate(jax.random.key(0), gj.gossip_averaging(), gj.timeline.rounds(matrix, num_events), x0)
    return {"before_gb": before}


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "matmul_peak": matmul_peak,
    "million_nodes": million_nodes,
    "memory_of_length": lambda count: memory_of_length(int(count)),
    "whole_run": lambda n: whole_run(int(n)),
    "learning": events.learning,
    "drawn_network": lambda n: events.drawn_network(int(n)),
    "sharing": sharing.measure,
    "robust_rounds": lambda n, *names: robust.rounds(int(n), *names),
    "robust_sweep": robust.sweep,
    "private_steps": privacy.steps,
    "audits": privacy.audits,
    "planning": systems.planning,
    "sampled": lambda n: systems.learning(int(n)),
}
CASES |= events.CASES | host.CASES
CASES |= {name: lambda n, work=work: work_rounds(work, int(n)) for name, work in WORKS.items()}
CASES |= {f"loop_{name}": lambda n, work=work: python_loop(work, int(n)) for name, work in WORKS.items()}
CASES |= {f"seeds_{kind}": lambda kind=kind: seeds(kind) for kind in (*WORKS, "softmax", "scalar")}


def main(words: list[str]) -> dict[str, Any]:
    """Run one case by name; return its measurements and the peak memory of the process."""
    name, *rest = words
    if name not in CASES:
        raise ValueError(f"unknown case {name!r}; choose among {', '.join(CASES)}")
    one_thread = name in ("million_nodes", "seeds_scalar", "planning") or name in events.CASES | host.CASES
    gj.configure(host_devices=1, intra_op_threads=1) if one_thread else gj.configure()
    return CASES[name](*rest) | {"peak_gb": peak_memory_gb()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
