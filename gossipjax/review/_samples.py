"""How many batches a protocol really draws in a round, counted in its own program, whatever it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from gossipjax._base import placement
from gossipjax._base.rows import replicate
from gossipjax._engine.loop import run, with_slots
from gossipjax.types import Protocol, Task, Timeline

_MARK = "gossipjax_review_batch"


def _mark(batch: Partial, key: Any, data: Any, node: Any) -> Any:
    return batch(key, data, node)


_mark.__name__ = _mark.__qualname__ = _MARK
_marked = jax.jit(_mark)


def _drawn(batch: Partial, key: Any, data: Any, node: Any) -> Any:
    return _marked(batch, key, data, node)


def batches_per_event(build: Callable[[Task], Protocol], task: Task, timeline: Timeline) -> float:
    """Count the batches that all nodes together draw in the first event of a timeline.

    The program of one event is read, and not run: calls of ``task.batch`` times the lengths of the loops around them.
    Of the branches of a condition the larger one counts; a loop of unknown length counts once. Data that a protocol
    reads without ``task.batch`` are not seen, nor a batch that is used twice.

    Args:
        build: makes the protocol of a task.
        task: the learning problem.
        timeline: at least one event.
    """
    protocol = build(dataclasses.replace(task, batch=Partial(_drawn, task.batch)))
    key = jax.random.key(0)
    start = replicate(task.init(key), timeline.properties.num_rows)

    def begin(key: Any, start: Any) -> Any:
        return protocol.init(key, with_slots(start, timeline.properties))

    def one(key: Any, start: Any) -> Any:
        return run(key, protocol, timeline[:1], begin(key, start))[0][0]

    single = jax.eval_shape(task.batch, key, task.data, np.int32(0))
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(single))
    with placement.using("vmap"):  # the program of one device holds only its own nodes
        drawn = [_elements(jax.make_jaxpr(each)(key, start).jaxpr) for each in (one, begin)]
    return (drawn[0] - drawn[1]) / max(size, 1)


def _elements(jaxpr: Any) -> float:
    """Count the numbers in all marked batches of a program."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.params.get("name") == _MARK:
            total += sum(float(np.prod(out.aval.shape)) for out in equation.outvars)
            continue
        parts = [_elements(inner) for inner in inner_programs(equation.params)]
        if equation.primitive.name == "cond":
            total += max(parts, default=0.0)
        else:
            total += sum(parts) * equation.params.get("length", 1 if parts else 0)
    return total


def inner_programs(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the programs that an equation calls, such as the body of a loop, among its parameters."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(each, "jaxpr", each)
            if hasattr(inner, "eqns"):
                yield inner
