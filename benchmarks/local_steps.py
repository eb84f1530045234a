"""Measure the speed of local training by strategy: ``python -m benchmarks.local_steps [NODES ...]``.

The works are the two standard set-ups of DecentralizePy: W1, an MLP 784-32-10, batch 16, 5 SGD steps per round; W2,
GN-LeNet (89,834 parameters) on 32x32x3, batch 8, 3 SGD steps per round. A multiply-add counts as 2 floating-point
operations, forward and backward, without the input gradient of the first layer. The peak is the best rate of a large
float32 matmul on all cores. Mixing and drawing batches are not included.

One core of an AMD Zen 5 (AVX-512, matmul peak 217 GFLOP/s), JAX 0.10.2, 2026, measured in CPU time and interleaved with
the matmul, because the machine was shared: W1, 64 nodes, 43 GFLOP/s by map (20 % of peak), 20 by vmap (9 %); W2 143
GFLOP/s (66 %). On two cores, where load reduced matmul to 191-218 GFLOP/s: W1 19-23 %, W2 (8 nodes) 53-68 % of it.
Cost of W2 per step and node with other forms of max-pool, in ms on that core (current form: 3.5):

=====================================================================  ====
max-pool that gives every tied entry the whole gradient (wrong)        3.45
max-pool that gives the first tied entry all, by int8 places           4.6
max-pool that gives the first tied entry all, by masks                 4.1
max-pool forward by four strided slices                                7.0
=====================================================================  ====

The source of the layers in ``gossipjax.tasks`` has the table for convolutions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gossipjax import configure, placement
from gossipjax.tasks import Model, gn_lenet, mlp

NODES = (8, 64, 256)


class Work(NamedTuple):
    """A model and its rounds of local SGD."""

    name: str
    model: Model
    image: tuple[int, int, int]
    batch: int
    steps: int
    rate: float
    flop: float
    """Floating-point operations of one node in one round."""
    most_nodes_vmap: int
    """Skip vmap for more nodes, where it is too slow."""


def works() -> tuple[Work, ...]:
    perceptron = Work("W1 MLP 784-32-10", mlp(784, (32,), 10), (28, 28, 1), 16, 5, 0.05, 80 * 0.1019e6, 256)
    lenet = Work("W2 GN-LeNet", gn_lenet(), (32, 32, 3), 8, 3, 0.01, 24 * 68.9e6, 8)
    return perceptron, lenet


def best_seconds(run: Callable[[], Any], patience: float, at_least: int = 2) -> tuple[float, float]:
    """Time repeated calls for ``patience`` seconds; return the minimum and the median."""
    jax.block_until_ready(run())
    seconds: list[float] = []
    while sum(seconds) < patience or len(seconds) < at_least:
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return min(seconds), sorted(seconds)[len(seconds) // 2]


def matmul_peak() -> float:
    """Return the best FLOP/s of float32 matmuls on all cores."""
    rates = []
    for side in (1024, 2048):
        a = jnp.ones((side, side), jnp.float32)
        rates.append(2 * side**3 / best_seconds(lambda a=a: _matmul(a), 0.7)[0])
    return max(rates)


_matmul = jax.jit(lambda a: a @ a)


def _loss(work: Work, params, images, labels):
    logits = work.model.apply(params, images)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _one_node(work: Work, params, images, labels):
    def step(params, batch):
        grad = jax.grad(partial(_loss, work))(params, *batch)
        return jax.tree.map(lambda p, g: p - work.rate * g, params, grad), None

    return jax.lax.scan(step, params, (images, labels))[0]


@partial(jax.jit, static_argnums=0)
def local_round(work: Work, x, images, labels):
    """Run one round of local steps of all nodes on batches ``(nodes, steps, batch, ...)``."""
    return placement.map_nodes(partial(_one_node, work), x, images, labels)


def measure(work: Work, nodes: int, strategy: placement.Strategy, patience: float = 1.0) -> tuple[float, float]:
    """Return the minimum and the median seconds of a round."""
    key = jax.random.key(0)
    x = jax.vmap(work.model.init)(jax.random.split(key, nodes))
    images = jax.random.normal(key, (nodes, work.steps, work.batch, *work.image), jnp.float32)
    labels = jax.random.randint(key, (nodes, work.steps, work.batch), 0, 10)
    with placement.using(strategy):
        # The first round places the arrays on the devices as the strategy requires.
        x = local_round(work, x, images, labels)
        if strategy == "shard":
            images, labels = jax.device_put((images, labels), jax.tree.leaves(x)[0].sharding)
        return best_seconds(lambda: local_round(work, x, images, labels), patience)


def main(nodes: tuple[int, ...] = NODES) -> None:
    configure()
    peak = matmul_peak()
    print(f"float32 matmul peak {peak / 1e9:.0f} GFLOP/s, {jax.local_device_count()} {jax.default_backend()} device(s)")
    print(
        f"{'work':18s} {'nodes':>5s} {'spread':>6s} {'best ms':>9s} {'median ms':>9s} {'GFLOP/s':>8s} {'of peak':>8s}"
    )
    for work in works():
        for count in nodes:
            for strategy in ("vmap", "map", "shard"):
                if strategy == "vmap" and count > work.most_nodes_vmap:
                    continue
                best, median = measure(work, count, strategy)
                rate = count * work.flop / best
                print(
                    f"{work.name:18s} {count:5d} {strategy:>6s} {best * 1e3:9.2f} {median * 1e3:9.2f} "
                    f"{rate / 1e9:8.1f} {rate / peak:8.1%}"
                )


if __name__ == "__main__":
    main(tuple(int(text) for text in sys.argv[1:]) or NODES)
