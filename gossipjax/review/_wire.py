"""How few bits the messages of a round can have, whatever a protocol says that they have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gossipjax._base.rows import replicate
from gossipjax._engine.loop import run, with_slots
from gossipjax._engine.simulate import simulate
from gossipjax.mixing import lazy, metropolis
from gossipjax.review._samples import inner_programs
from gossipjax.tasks import quadratic
from gossipjax.timeline import rounds
from gossipjax.topology import ring
from gossipjax.types import Protocol, Task, Timeline

NODES, DIMENSION, WARM = 8, 40, 2
_ROUNDING = 1e-4
"""Singular values below this share of the largest are rounding errors of float32."""


class Wire(NamedTuple):
    """Bits of the first rounds of a probe, all messages together."""

    reported: float
    least: float
    """No code can use fewer, if values are sent as the floats that they are."""
    indices: float
    """The part of ``least`` that says which coordinates a message holds."""
    known: bool
    """Whether there is a bound: none where all values are rounded, or nothing is sent."""

    @property
    def believable(self) -> bool:
        """Whether the report may be true; a quarter of the bits of indices is forgiven, because codes vary."""
        return self.reported >= self.least - self.indices / 4 - 1e-6 * self.least


def least_bits(build: Callable[[Task], Protocol]) -> Wire:
    """Bound the bits of a round from below, by what a node's model depends on, and compare with the report.

    Eight nodes on a ring have quadratic losses with targets b of 40 coordinates, and start at one model, so that
    whatever node i knows of b_j after a round was sent in it. The rank of ``∂x_i/∂b_j`` is the number of values that
    went from j to i at least. If these are some coordinates of the model, and other targets select others, then their
    numbers went along: ``log₂ C(40, k)`` bits for k of them. If every model depends on every target, the messages may
    have been added on their way: then all together are ``2 (n − 1)`` models at least, those of an all-reduce.

    Raises:
        ValueError: if the protocol does not run in rounds on a fixed graph.

    Reference: Patarasuk and Yuan 2009 (least traffic of an all-reduce; recalled).
    """
    timeline = rounds(lazy(metropolis(ring(NODES))), WARM, form="dense")
    rng = np.random.default_rng(0)
    one, two = (quadratic(rng.standard_normal((NODES, DIMENSION)), dtype="float32") for _ in range(2))
    start = jnp.asarray(rng.standard_normal(DIMENSION), jnp.float32)
    for events in range(1, WARM + 1):
        dependence = _dependence(build, one, timeline[:events], start)
        blocks, again = (np.asarray(dependence(each.data["targets"]), np.float64) for each in (one, two))
        if np.any(_others(blocks)):
            break
    reported = simulate(
        jax.random.key(0), build(one), timeline[:events], replicate(start, NODES), record_at=[events], throw=False
    )["bytes_sent"]
    least, indices = _bits(blocks, again, _width(build, one, timeline))
    return Wire(8 * float(reported[-1]), least, indices, least > 0)


def _dependence(build: Any, task: Task, timeline: Timeline, start: Any) -> Callable[[Any], Any]:
    """Return the derivative ``(n, d, n, d)`` of all models after the events with respect to all targets."""
    key = jax.random.key(0)

    def models(targets: Any) -> Any:
        own = dataclasses.replace(task, data=task.data | {"targets": targets})
        protocol = build(own)
        state = protocol.init(key, with_slots(replicate(start, NODES), timeline.properties))
        return protocol.model(run(key, protocol, timeline, state)[0][0])[:NODES]

    return jax.jit(jax.jacfwd(models))


def _others(blocks: Float[np.ndarray, "n d n d"]) -> Float[np.ndarray, "n d n d"]:
    """Set the dependence of a node on its own target to zero."""
    found = blocks.copy()
    found[np.arange(NODES), :, np.arange(NODES), :] = 0
    return found


def _bits(blocks: Any, again: Any, width: int) -> tuple[float, float]:
    """Return the least bits of all messages, and those of them that name coordinates."""
    scale = np.abs(blocks).max(initial=0.0)
    ranks = np.array([[_rank(blocks[i, :, j], scale) if i != j else 0 for j in range(NODES)] for i in range(NODES)])
    near = (np.abs(np.subtract.outer(np.arange(NODES), np.arange(NODES))) % (NODES - 2)) == 1
    if np.all(ranks[~near] == 0):
        indices = sum(
            math.log2(math.comb(DIMENSION, int(ranks[i, j])))
            for i, j in np.argwhere(near)
            if _is_selection(blocks[i, :, j], scale) and _chooses(blocks[i, :, j], again[i, :, j], scale)
        )
        return width * float(ranks.sum()) + indices, float(indices)
    if np.all(ranks + DIMENSION * np.eye(NODES) == DIMENSION):
        return width * 2.0 * (NODES - 1) * DIMENSION, 0.0
    apart = _others(blocks)
    received = sum(_rank(apart[i].reshape(DIMENSION, -1), scale) for i in range(NODES))
    sent = sum(_rank(apart[:, :, j].reshape(-1, DIMENSION), scale) for j in range(NODES))
    return width * float(max(received, sent)), 0.0


def _rank(block: Float[np.ndarray, "a b"], scale: float) -> int:
    return int(np.linalg.matrix_rank(block, tol=_ROUNDING * scale)) if scale else 0


def _support(block: Any, scale: float) -> Any:
    return np.abs(np.diag(block)) > _ROUNDING * scale


def _is_selection(block: Any, scale: float) -> bool:
    """Whether a message holds some, but not all, coordinates of a model as they are."""
    away = np.abs(block - np.diag(np.diag(block))).max()
    return bool(away <= _ROUNDING * scale and 0 < _support(block, scale).sum() < DIMENSION)


def _chooses(block: Any, again: Any, scale: float) -> bool:
    """Whether other data select other coordinates, which receivers cannot know then."""
    return bool(np.any(_support(block, scale) != _support(again, scale)))


def _width(build: Any, task: Task, timeline: Timeline) -> int:
    """Return the bits of the narrowest floats in the program of a round."""
    protocol, key = build(task), jax.random.key(0)
    start = jnp.zeros((NODES, DIMENSION), jnp.float32)
    program = jax.make_jaxpr(lambda x: run(key, protocol, timeline[:1], protocol.init(key, x))[0][0])(start)
    return min(8 * each.itemsize for each in _floats(program.jaxpr))


def _floats(jaxpr: Any) -> set[np.dtype]:
    dtypes = {np.dtype(out.aval.dtype) for e in jaxpr.eqns for out in e.outvars if _is_float(out.aval)}
    return dtypes.union(*(_floats(inner) for e in jaxpr.eqns for inner in inner_programs(e.params)))


def _is_float(aval: Any) -> bool:
    return hasattr(aval, "dtype") and jnp.issubdtype(aval.dtype, jnp.floating)
