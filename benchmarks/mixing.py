"""Time one round of mixing in dense and table form, to decide where ``from_matrix`` should switch.

Prints milliseconds per round (best of several calls) for networks of different size and degree.
"""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp

from gossipjax.mixing import from_matrix, metropolis, mix
from gossipjax.topology import random_regular

PARAMETERS = 25_000
SIZES = (64, 128, 256, 512, 1024)
SHARES = (0.02, 0.06, 0.125, 0.25, 0.375, 0.5)


def milliseconds(form: str, num_nodes: int, degree: int, repeats: int = 5) -> float:
    mixing = from_matrix(metropolis(random_regular(num_nodes, degree, seed=0)), form=form)
    x = jax.random.normal(jax.random.key(0), (num_nodes, PARAMETERS), jnp.float32)
    step = jax.jit(mix)
    step(mixing, x).block_until_ready()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        step(mixing, x).block_until_ready()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def main() -> None:
    print(f"{jax.devices()[0].device_kind}, {PARAMETERS} parameters per node, ms per round")
    print(f"{'nodes':>6} {'degree':>7} {'share':>6} {'dense':>8} {'table':>8} {'dense/table':>12}")
    for num_nodes in SIZES:
        for degree in sorted({4, *(max(4, round(share * num_nodes)) for share in SHARES)}):
            dense, table = (milliseconds(form, num_nodes, degree) for form in ("dense", "table"))
            share = (degree + 1) / num_nodes
            print(f"{num_nodes:6} {degree:7} {share:6.2f} {dense:8.2f} {table:8.2f} {dense / table:12.2f}", flush=True)


if __name__ == "__main__":
    main()
