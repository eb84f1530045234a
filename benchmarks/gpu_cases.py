"""What :mod:`benchmarks.gpu` measures, a process each: ``python -m benchmarks.gpu_cases NAME [ARGUMENT …]``.

Every function takes its sizes as numbers and returns rows ``{"what", "s", …}``, printed as JSON. Seconds are medians of
five calls after the first, without compilation. ``flops`` and ``bytes`` are those of one call, from which the table
computes shares of the measured peaks.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from benchmarks import events
from benchmarks.memory import peak_memory_bytes
from benchmarks.works import WORKS, setting
from gossipjax._base import placement
from gossipjax._engine import packing
from gossipjax.compress import codes, largest
from gossipjax.compress.transforms import wavelet
from gossipjax.mixing import from_matrix, metropolis, mix
from gossipjax.sharing._masked import Masked, fill_in
from gossipjax.tasks._models import convolution, layers
from gossipjax.topology import random_regular

Row = dict[str, Any]


def steady(call: Callable[[], Any], repeats: int = 5) -> float:
    """Return the median seconds of a call, after a first one that compiles."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def peaks(size: int, floats: int) -> list[Row]:
    """Measure the rates to which all others are compared: matmul in three precisions, and a copy."""
    a, x = jnp.ones((size, size), jnp.float32), jnp.ones(floats, jnp.float32)
    rows: list[Row] = []
    for precision in ("float32", "tensorfloat32", "bfloat16"):
        product = jax.jit(lambda a, precision=precision: jnp.matmul(a, a, precision=precision))
        rows.append({"what": f"matmul {precision}", "s": steady(lambda f=product: f(a)), "flops": 2 * size**3})
    copy = jax.jit(lambda x: x + 1)
    return [*rows, {"what": "copy", "s": steady(lambda: copy(x)), "bytes": 8 * floats}]


def _grouped(x, kernel, pads, stride):
    """Convolve natively; under vmap, this becomes a grouped convolution."""
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


FORMS = {"grouped": _grouped, "patches": convolution.by_patches, "loops": convolution.by_loops}


def rounds(
    name: str, n: int, per_call: int, precision: str = "float32", form: str = "auto", block: int = 0
) -> list[Row]:
    """Measure rounds of a work; ``form`` of the convolution, and ``block``: most nodes in one wide operation."""
    jax.config.update("jax_default_matmul_precision", precision)
    work, key, s = WORKS[name], jax.random.key(0), setting(WORKS[name], n, per_call)
    if form != "auto":
        layers.correlate = FORMS[form]
    if block:  # a node's arguments are its parameters, some keys, and its number
        placement.WIDE_BYTES = block * (4 * sum(leaf.size for leaf in jax.tree.leaves(s.params)) + 200)
    protocol, timeline = placement.replicate_on_devices(s.protocol), s.timeline
    state = jax.jit(lambda p, x: placement.place_rows(p.init(key, gj.replicate(x, n))))(protocol, s.params)
    step = jax.jit(lambda key, p, t, state: gj.run(key, p, t, state), donate_argnums=3)

    def call():
        nonlocal state
        (state, _), _ = step(key, protocol, timeline, state)
        return state

    with placement.using("vmap" if block else "auto"):
        seconds = steady(call) / per_call
    said = [f"{name}, {n} nodes", precision, *([form] * (form != "auto")), *([f"by {block}"] * bool(block))]
    return [{"what": ", ".join(said), "s": seconds, "flops": n * work.flops_per_round, "precision": precision}]


def mixing(n: int, floats: int, form: str) -> list[Row]:
    """Measure one round of mixing on a random 4-regular graph; a table moves six rows for each, if none is cached."""
    W = from_matrix(metropolis(random_regular(n, 4, seed=0, tries=20)), form=form)
    x = jax.random.normal(jax.random.key(0), (n, floats), jnp.float32)
    step = jax.jit(mix)
    return [{"what": f"{form}, {n} x {floats:,}", "s": steady(lambda: step(W, x)), "bytes": 6 * 4 * n * floats}]


def jwins(n: int, d: int, num_rounds: int) -> list[Row]:
    """Measure rounds of JWINS without training, and their parts on all nodes."""
    run, state = _jwins(n, d, num_rounds)

    def call():
        nonlocal state
        state, _ = run(state)
        return state

    rows: list[Row] = [{"what": f"round, {n} x {d:,}", "s": steady(call) / num_rounds}]
    transform, wire = wavelet(), codes.Wire()
    w = jax.random.normal(jax.random.key(0), (n, transform.size(d)), jnp.float32)
    k = jnp.asarray(np.linspace(0.1, 0.4, n) * w.shape[1], jnp.int32)
    over = placement.map_nodes
    mask = jax.jit(lambda w, k: over(largest, w, k))(w, k)
    mixing = from_matrix(metropolis(random_regular(n, 4, seed=0, tries=20)))
    parts: dict[str, Callable[[], Any]] = {
        "forward": Partial(jax.jit(lambda x: over(transform.forward, x)), w[:, :d]),
        "selection": Partial(jax.jit(lambda w, k: over(largest, w, k)), w, k),
        "bits": Partial(jax.jit(lambda mask: over(lambda row: codes.message_bits(wire, row, 32), mask)), mask),
        "inverse": Partial(jax.jit(lambda w: over(lambda row: transform.inverse(row, d), w)), w),
        "mixing": Partial(jax.jit(lambda w, mask: fill_in(mixing, Masked(w, mask))), w, mask),
        "one streaming pass": Partial(jax.jit(lambda w: 2 * w), w),
    }
    return rows + [{"what": name, "s": steady(part)} for name, part in parts.items()]


def _jwins(n: int, d: int, num_rounds: int) -> tuple[Callable[[Any], Any], Any]:
    scheme, key = gj.sharing.jwins(), jax.random.key(0)
    mixing = from_matrix(metropolis(random_regular(n, 4, seed=0, tries=20)))
    rng = np.random.default_rng(0)
    x, change = rng.standard_normal((n, d), np.float32), 0.01 * rng.standard_normal((n, d), np.float32) ** 3

    def one(carry, number):
        state, x = carry
        event = gj.Event(index=number[None], time=jnp.zeros(1), mixing=mixing)
        state, (sent, bits) = scheme.encode(key, state, x, x + change, event)
        return scheme.merge(key, state, (x + change, sent, event)), bits

    numbers = jnp.arange(num_rounds, dtype=jnp.uint32)
    return jax.jit(lambda carry: jax.lax.scan(one, carry, numbers), donate_argnums=0), (scheme.init(x), jnp.asarray(x))


def _pairs(n: int, count: int) -> Any:
    return gj.timeline.poisson_pairs(random_regular(n, 4, seed=0, tries=5), count, seed=0)


def pairs(n: int, count: int, few: int) -> list[Row]:
    """Measure exchanges of scalars: packing, where the scan of packing runs, packed, and one by one."""
    plan, x0 = _pairs(n, count), np.zeros(n, np.float32)
    gj.pack(plan[:few])
    start = time.perf_counter()
    wide = gj.pack(plan)
    rows: list[Row] = [{"what": f"packing {count:,} events", "s": time.perf_counter() - start, "events": count}]
    touched = jnp.asarray(np.random.default_rng(0).integers(0, n, (few, 2)), jnp.int32)
    floor, last = jnp.zeros(few, jnp.int32), jnp.zeros(n, jnp.int32)
    scan = {"what": "the scan of packing, on the device", "events": few}
    rows.append(scan | {"s": steady(lambda: packing._level_scan(touched, floor, last), 3)})
    for what, timeline, number in (("packed", wide, count), ("one by one", plan[:few], few)):
        speed = events.rate(gj.gossip_averaging(), timeline, x0, events=number)["million_per_s"]
        rows.append({"what": f"{what}, {n:,} nodes", "s": number / speed / 1e6, "events": number})
    return rows


def versions(n: int, count: int, sources: int) -> list[Row]:
    """Measure exchanges with version counters of some sources (0: of all nodes), with and without a record."""
    tracked = gj.track_versions(gj.gossip_averaging(), list(range(sources)) if sources else None)
    plan, x0, key = _pairs(n, count), np.zeros(n, np.float32), jax.random.key(0)
    rows = []
    for what, watch in (("counters", []), ("and a summary", [gj.observe.staleness_summary()])):
        call = Partial(gj.simulate, key, tracked, plan, x0, observers=watch, record_every=count)
        row = {"what": f"{what}, {sources or n} sources, {n:,} nodes, packing included", "events": count}
        rows.append(row | {"s": steady(lambda call=call: call().x, 3)})
    return rows


def _example(num_rounds: int) -> tuple[Any, Any, Any]:
    """The README's example: 64 nodes, an MLP 64-32-10 on digits."""
    data = gj.tasks.digits()
    shards = gj.tasks.dirichlet(data.train.labels, 64, alpha=0.5, seed=0)
    task = gj.tasks.classification(data, shards, gj.tasks.mlp(64, (32,), 10))
    timeline = gj.timeline.rounds(metropolis(random_regular(64, 4, seed=0)), num_rounds)
    return gj.dpsgd(task, Partial(optax.sgd, 0.1)), timeline, task


def seeds(num_rounds: int, *counts: int) -> list[Row]:
    """Measure the README's example with several seeds in one call."""
    rows = []
    for count in counts:
        keys = jax.random.split(jax.random.key(0), count)
        call = Partial(gj.simulate, keys, *_example(num_rounds), record_every=num_rounds)
        rows.append({"what": f"{count} seeds, {num_rounds} rounds", "s": steady(lambda call=call: call().x, 3)})
    return rows


def gap(num_rounds: int, records: int) -> list[Row]:
    """Measure what the host adds to each record: the same records by one call, and by one call for each."""
    one = Partial(gj.simulate, jax.random.key(0), *_example(num_rounds), record_every=num_rounds // records)
    whole = steady(lambda: one().x, 3)
    cut = steady(lambda: one(callback=lambda record: None).x, 3)
    rows = [{"what": f"{records} records in one call", "s": whole}, {"what": "a call for each record", "s": cut}]
    return [*rows, {"what": "the host's part of a record", "s": (cut - whole) / records}]


def equal(folder: str) -> list[Row]:
    """Write the results of rounds, JWINS and packed events; or, if a file is there, compare with them."""
    jax.config.update("jax_default_matmul_precision", "float32")
    key, s = jax.random.key(0), setting(WORKS["W1"], 16, 3)
    x = gj.simulate(key, s.protocol, s.timeline, s.task).x
    run, state = _jwins(8, 5000, 3)
    (_, models), bits = run(state)
    plan = _pairs(1000, 20_000)
    gossip = gj.simulate(key, gj.gossip_averaging(), plan, np.arange(1000, dtype=np.float32), packing="packed").x
    found = {
        "W1": np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(x)]),
        "JWINS": np.asarray(models),
        "bits of JWINS": np.asarray(bits, np.float64),
        "packed exchanges": np.asarray(gossip),
    }
    path = Path(folder) / "cpu.npz"
    if not path.exists():
        np.savez(path, **found)
        return []
    there = np.load(path)
    worst = {name: np.abs(values - there[name]).max() / np.abs(there[name]).max() for name, values in found.items()}
    return [{"what": f"{name}: largest difference from the CPU", "error": float(e)} for name, e in worst.items()]


CASES: dict[str, Callable[..., list[Row]]] = {
    case.__name__: case for case in (peaks, rounds, mixing, jwins, pairs, versions, seeds, gap, equal)
}


def peak_bytes() -> int:
    """Return the peak memory of the device, or of this process where the device does not tell."""
    found = jax.local_devices()[0].memory_stats() or {}
    return int(found.get("peak_bytes_in_use", peak_memory_bytes()))


def main(words: list[str]) -> dict[str, Any]:
    """Run one case; return its rows, the device, and the peak memory."""
    name, *rest = words
    gj.configure()
    rows = CASES[name](*(int(word) if word.isdecimal() else word for word in rest))
    device = jax.devices()[0]
    return {"rows": rows, "peak_bytes": peak_bytes(), "device": device.device_kind, "backend": device.platform}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
