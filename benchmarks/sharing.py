"""Rounds of JWINS in the engine, without training, compared with an equivalent loop in NumPy and PyWavelets."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pywt

import gossipjax as gj
from benchmarks.works import WORKS, Work, setting
from gossipjax import Event, Sharing, sharing
from gossipjax.mixing import from_matrix
from gossipjax.sharing._jwins import CUT_OFFS

ROUNDS = 6
"""Rounds per call; one call allocates memory once."""
SCHEMES: dict[str, Callable[[], Sharing]] = {
    "full": sharing.full,
    "random": lambda: sharing.random_subset(0.1),
    "top_k": lambda: sharing.top_k(0.1),
    "choco": lambda: sharing.choco(gj.compress.top_k(share=0.1), 0.1),
    "jwins": sharing.jwins,
}


def _spent(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Return the median wall and CPU milliseconds of a call."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"ms": 1e3 * float(np.median(walls)), "cpu_ms": 1e3 * float(np.median(cpus))}


def alone(n: int = 96, parameters: int = 89_834, repeats: int = 5) -> dict[str, Any]:
    """Measure a round of JWINS without training; model changes are drawn in advance. The loop has two threads."""
    matrix = gj.mixing.metropolis(gj.topology.random_regular(n, 4, seed=0, tries=20))
    rng = np.random.default_rng(0)
    x0 = rng.standard_normal((n, parameters), dtype=np.float32)
    change = 0.01 * rng.standard_normal((n, parameters), dtype=np.float32) ** 3
    scheme, mixing, key = sharing.jwins(), from_matrix(matrix), jax.random.key(0)

    def one_round(carry, number):
        state, x, moved = carry
        event = Event(index=number[None], time=jnp.zeros(1), mixing=mixing)
        state, (payload, bits) = scheme.encode(key, state, x, x + moved, event)
        state, x = scheme.merge(key, state, (x + moved, payload, event))
        return (state, x, moved), bits

    place, numbers = gj.placement.place_rows, jnp.arange(ROUNDS, dtype=jnp.uint32)
    carry = jax.jit(lambda x, change: (place(scheme.init(x)), place(x), place(change)))(x0, change)
    rounds = jax.jit(lambda carry: jax.lax.scan(one_round, carry, numbers), donate_argnums=0)
    start = time.perf_counter()
    program = rounds.lower(carry).compile()
    compile_seconds = time.perf_counter() - start

    def ours():
        nonlocal carry
        carry, bits = program(carry)
        return bits

    def by_loop():
        loop.one_round(change)

    ours()
    with ThreadPoolExecutor(2) as pool:
        loop = Loop(x0, matrix, pool)
        loop.one_round(change)
        engine, hand = _spent(ours, repeats), _spent(by_loop, repeats)
        engine = {name: value / ROUNDS for name, value in engine.items()}
    return engine | {"loop_ms": hand["ms"], "loop_cpu_ms": hand["cpu_ms"], "compile_s": compile_seconds}


class Loop:
    """The same round in NumPy and PyWavelets, node by node."""

    def __init__(self, x: np.ndarray, matrix: Any, pool: ThreadPoolExecutor) -> None:
        """Start with zero scores."""
        self.x, self.pool, self.rng = x.copy(), pool, np.random.default_rng(0)
        rows = (matrix[[i]] for i in range(len(x)))
        self.table = [(row.indices, row.data.astype(np.float32)) for row in rows]
        self.lengths = [part.size for part in pywt.wavedec(x[0], "sym2", "symmetric", 4)]
        self.scores = np.zeros((len(x), sum(self.lengths)), np.float32)
        self.before = np.stack([self._forward(row) for row in x])

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return np.concatenate(pywt.wavedec(x, "sym2", "symmetric", 4))

    def _say(self, i: int) -> None:
        """Transform the model of a node, choose coefficients, and count the bits of its message."""
        self.w[i] = self._forward(self.x[i])
        score = np.abs(self.scores[i] + self.w[i] - self.before[i])
        share, c = CUT_OFFS[self.drawn[i]], score.size
        if share >= 0.5:
            self.chosen[i], self.bits[i] = np.arange(c), 32 * c
        else:
            k = round(share * c)
            chosen = np.sort(np.argpartition(score, c - k)[c - k :])
            gaps = np.diff(chosen)
            self.chosen[i] = chosen
            self.bits[i] = 32 * k + 8 * -(-int(128 + (2 * np.frexp(gaps)[1] - 1).sum()) // 8)
        self.scores[i, self.chosen[i]] = 0

    def _hear(self, i: int) -> None:
        """Average the model of a node with its messages, and accumulate the change into its scores."""
        own, mixed = self.w[i], self.w[i].copy()
        for j, weight in zip(*self.table[i], strict=True):
            if j != i:
                at = self.chosen[j]
                mixed[at] += weight * (self.w[j, at] - own[at])
        parts = np.split(mixed, np.cumsum(self.lengths)[:-1])
        self.x[i] = pywt.waverec(parts, "sym2", "symmetric")[: self.x.shape[1]]
        after = self._forward(self.x[i])
        self.scores[i] += after - self.before[i]
        self.after[i] = after

    def one_round(self, change: np.ndarray) -> None:
        """Run one round of all nodes."""
        n = len(self.x)
        self.x += change
        self.w, self.after = np.empty_like(self.before), np.empty_like(self.before)
        self.drawn = self.rng.integers(0, len(CUT_OFFS), n)
        self.chosen, self.bits = [np.empty(0, int)] * n, np.zeros(n, np.int64)
        for work in (self._say, self._hear):
            list(self.pool.map(work, range(n)))
        self.before = self.after


def trained(work: Work, n: int, scheme: str) -> dict[str, Any]:
    """Measure whole rounds of a work with a sharing scheme, local training included."""
    per_call = max(2, round({"W1": 2048, "W2": 96}[work.name] / n))
    key, s = jax.random.key(0), setting(work, n, per_call)
    protocol = gj.dpsgd(s.task, optax.sgd(work.learning_rate), local_steps=work.local_steps, sharing=SCHEMES[scheme]())
    protocol, timeline = gj.placement.replicate_on_devices(protocol), s.timeline
    start = jax.jit(lambda protocol, params: gj.placement.place_rows(protocol.init(key, gj.replicate(params, n))))
    state = start(protocol, s.params)
    step = jax.jit(lambda key, protocol, timeline, state: gj.run(key, protocol, timeline, state), donate_argnums=3)
    begun = time.perf_counter()
    program = step.lower(key, protocol, timeline, state).compile()
    compile_seconds, walls, cpus = time.perf_counter() - begun, [], []
    for _ in range(8):
        wall, cpu = time.perf_counter(), time.process_time()
        (state, _), _ = jax.block_until_ready(program(key, protocol, timeline, state))
        walls.append((time.perf_counter() - wall) / per_call)
        cpus.append((time.process_time() - cpu) / per_call)
    ms = {"ms": 1e3 * float(np.median(walls[1:])), "cpu_ms": 1e3 * float(np.median(cpus[1:]))}
    return ms | {"compile_s": compile_seconds}


def secure(name: str, n: int, repeats: int = 15) -> dict[str, Any]:
    """Compare rounds with secure aggregation with plain ones, in turns in one process, local training included."""
    work = WORKS[name]
    per_call = max(2, round({"W1": 2048, "W2": 64}[name] / n))
    key, s = jax.random.key(0), setting(work, n, per_call)
    graph = gj.topology.random_regular(n, 4, seed=0, tries=20)  # that of the setting
    schemes = {
        "plain": sharing.full(),
        "seeds": sharing.secure_aggregation(graph),
        "shares": sharing.secure_aggregation(graph, recovery="shares"),
        "fixed_point": sharing.secure_aggregation(graph, masks=False),
    }
    programs = {scheme: _program(work, n, key, s, said) for scheme, said in schemes.items()}
    for call in programs.values():
        call()
    spent = {scheme: np.empty((repeats, 2)) for scheme in programs}
    for number in range(repeats):
        for scheme, call in programs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            spent[scheme][number] = (time.perf_counter() - wall) / per_call, (time.process_time() - cpu) / per_call
    # CPU seconds vary less than those of the clock where other processes run.
    walls, cpus = ({scheme: seconds[:, k] for scheme, seconds in spent.items()} for k in (0, 1))
    ratios = {scheme: wall / walls["plain"] for scheme, wall in walls.items() if scheme != "plain"}
    ratios |= {f"{scheme}_cpu": cpu / cpus["plain"] for scheme, cpu in cpus.items() if scheme != "plain"}
    found = {f"{scheme}_ratio": float(np.median(ratio)) for scheme, ratio in ratios.items()}
    found |= {
        f"{scheme}_ratio_quartiles": np.quantile(ratio, (0.25, 0.75)).tolist() for scheme, ratio in ratios.items()
    }
    return found | {f"{scheme}_ms": 1e3 * float(np.median(wall)) for scheme, wall in walls.items()}


def _program(work: Work, n: int, key: Any, s: Any, said: Sharing) -> Callable[[], None]:
    """Compile some rounds of a work; every call goes on where the last one ended."""
    protocol = gj.dpsgd(s.task, optax.sgd(work.learning_rate), local_steps=work.local_steps, sharing=said)
    protocol, timeline = gj.placement.replicate_on_devices(protocol), s.timeline
    start = jax.jit(lambda protocol, params: gj.placement.place_rows(protocol.init(key, gj.replicate(params, n))))
    state = start(protocol, s.params)
    step = jax.jit(lambda key, protocol, timeline, state: gj.run(key, protocol, timeline, state), donate_argnums=3)
    program = step.lower(key, protocol, timeline, state).compile()

    def call() -> None:
        nonlocal state
        (state, _), _ = jax.block_until_ready(program(key, protocol, timeline, state))

    return call


def measure(kind: str, *rest: str) -> dict[str, Any]:
    """Run ``alone N PARAMETERS``, ``secure W1|W2 N``, or ``W1|W2 N SCHEME``."""
    if kind == "secure":
        return secure(rest[0], int(rest[1]))
    if kind == "alone":
        return alone(*map(int, rest))
    return trained(WORKS[kind], int(rest[0]), rest[1])
