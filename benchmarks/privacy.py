"""Steps with private gradients beside plain ones, and audits of whole networks."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from benchmarks.memory import peak_memory_bytes
from benchmarks.works import WORKS, model_of, pool, shards


def steps(n: int = 16, repeats: int = 15) -> dict[str, Any]:
    """Measure rounds of W1, an MLP, with private gradients and plain ones in turns, in CPU seconds of one process."""
    work, key = WORKS["W1"], jax.random.key(0)
    plain = gj.tasks.classification(pool(work), shards(n), model_of(work), batch_size=work.batch_size)
    tasks = {
        "clipped samples, noise": gj.privacy.sample_dp(plain, clip=1.0, noise=1.0, batch_size=work.batch_size),
        "clipped samples": gj.privacy.sample_dp(plain, clip=1.0, noise=0.0, batch_size=work.batch_size),
        "clipped steps, noise": gj.privacy.node_dp(plain, clip=1.0, noise=1.0),
    }
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.random_regular(n, 4, seed=0, tries=20)), 10)
    start = gj.replicate(plain.init(key), n)
    run = jax.jit(lambda protocol, state: gj.run(key, protocol, plan, state))

    def spent(pair: Any) -> float:
        begin = time.process_time()
        jax.block_until_ready(run(*pair))
        return time.process_time() - begin

    def program(task: Any) -> Any:
        protocol = gj.dpsgd(task, Partial(optax.sgd, work.learning_rate), local_steps=work.local_steps)
        return protocol, protocol.init(key, start)

    base, found = program(plain), {}
    spent(base)
    for name, task in tasks.items():
        private = program(task)
        spent(private)
        pairs = [(spent(private), spent(base)) for _ in range(repeats)]
        found[name] = {
            "ms": 1e3 * float(np.median([own for own, _ in pairs])) / len(plan),
            "ratio": float(np.median([own / other for own, other in pairs])),
        }
    return found


def audits(n: int = 256) -> dict[str, Any]:
    """Measure audits of all pairs of n nodes that wake up 16 times on average, in CPU seconds of one process."""
    graph = gj.topology.random_regular(n, 4, seed=0, tries=20)
    plan = gj.timeline.poisson_pairs(graph, 16 * n, seed=0)
    found: dict[str, Any] = {}
    for name, what in (("start values", gj.privacy.start_values()), ("steps", gj.privacy.steps())):
        begin = time.process_time()
        audit = gj.audit(plan, what)
        found[name] = {"cpu_s": time.process_time() - begin, "certain": int(audit.certain.sum())}
        known = audit.mu_lower > 0
        found[name]["gap"] = float((audit.mu[known] / audit.mu_lower[known]).max() - 1)
    return found | {"gigabytes": peak_memory_bytes() / 1e9}
