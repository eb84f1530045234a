"""What a system must know about the learning before it plans: bytes of a message, and local steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gossipjax._base import outputs, placement
from gossipjax._base.arguments import instance, shown, whole
from gossipjax._base.binding import Frozen, bind
from gossipjax.mixing._forms import PairMixing
from gossipjax.types import Event, Params, Protocol, Task

MOST = 2**53
"""Largest number of bytes or steps: the largest whole number that is exact in float64."""
_STAND_IN = "gossipjax.systems.stand_in(plan)"
_TYPED = "or pass learner=protocol instead of model_bytes and local_steps, which are then read off the protocol"


class Workload(NamedTuple):
    """Assumptions behind a plan's times."""

    message_bytes: int
    """Of the model in one message, without what the system adds to it."""
    local_steps: int
    """Of an acting node."""
    made_for: str
    """The family of protocols, such as "FedAvg"."""


def _meeting() -> Event:
    """Return the form of an event in which a node trains, and sends its model to another."""
    return jax.eval_shape(_meet)


def _meet() -> Event:
    zero, one, half = jnp.zeros(1, jnp.int32), jnp.ones(1, jnp.int32), jnp.full(1, 0.5)
    mixing = PairMixing(zero, one, half, half)
    return Event(jnp.zeros(1, jnp.uint32), jnp.zeros(1, jnp.float32), nodes=zero, mixing=mixing)


def workload(
    learner: Any,
    *,
    model_bytes: Any,
    local_steps: Any,
    num_nodes: int,
    made_for: str,
    example: Callable[[], Event] = _meeting,
) -> Workload:
    """Read the bytes of a message and the number of local steps off a protocol, or take them as they are given.

    The bytes are those of one message that the protocol's step reports, where they never change, for the model of its
    task. The step is traced, not run.

    Args:
        learner: the protocol that will run on the plan; None: the two numbers are given explicitly.
        model_bytes: given bytes of one message; None: those of the learner.
        local_steps: given number of local steps; None: those of the learner.
        num_nodes: n.
        made_for: the family of protocols that the system plans.
        example: returns the form of an event of the system, on which the step is traced.

    Raises:
        ValueError: neither or both are given, a number is out of range, or the learner is of another family, for
            another number of nodes, without a task, without a fixed number of local steps, or with messages whose size
            changes.
        TypeError: a learner that is no protocol.
    """
    if learner is None:
        size = whole("model_bytes", model_bytes, least=1, most=MOST, remedy=_TYPED)
        return Workload(size, whole("local_steps", local_steps, least=1, most=MOST, remedy=_TYPED), made_for)
    instance("learner", learner, Protocol, "pass the protocol that will run, such as gossipjax.dpsgd(task, optimizer)")
    for name, typed in (("model_bytes", model_bytes), ("local_steps", local_steps)):
        if typed is not None:
            raise ValueError(f"{name}={shown(typed)}: the learner has its own; leave {name} out, or the learner")
    _check_family(learner, num_nodes, made_for)
    task = _task_of(learner)
    if not (steps := learner.requires.local_steps):
        why = "it takes no gradients" if steps == 0 else "it does not say how many local steps it takes"
        raise _unreadable(why, "or state Requires(local_steps=...)")
    try:
        bits = _message_bits(learner, task, num_nodes, example())
    except (TypeError, ValueError) as problem:
        raise ValueError(f"learner: does not run on the events of {made_for}: {problem}") from problem
    if bits.num_bytes is None:
        raise _unreadable("the size of its messages changes in the run", f"and run it on {_STAND_IN}")
    if bits.numbered:
        raise _unreadable("it counts its messages itself", "or pass a protocol whose messages the events count")
    return Workload(bits.num_bytes, steps, made_for)


def _message_bits(learner: Protocol, task: Task, num_nodes: int, event: Event) -> outputs.Bits:
    """Trace the step of a learner on one event, and return what it reports about its messages."""
    model = jax.eval_shape(task.init, jax.random.key(0))
    x0 = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((num_nodes, *leaf.shape), leaf.dtype), model)
    return _report.eval_shape(jax.random.key(0), bind(learner), event, x0).value


def _task_of(learner: Protocol) -> Task:
    leaves = jax.tree.leaves(bind(learner), is_leaf=lambda value: isinstance(value, Task))
    task = next((leaf for leaf in leaves if isinstance(leaf, Task)), None)
    if task is None:
        raise _unreadable("no task is bound in it, which would have its model", "or bind one by jax.tree_util.Partial")
    return task


@jax.jit
def _report(key: Key[Array, ""], learner: Protocol, event: Event, x0: Params) -> Frozen[outputs.Bits]:
    with placement.using("vmap"):
        _, info = outputs.step(learner, key, learner.init(key, x0), event)
    return Frozen(outputs.bits_of(info))


def _check_family(learner: Protocol, num_nodes: int, made_for: str) -> None:
    needs = learner.requires
    if needs.made_for not in (None, made_for):
        raise ValueError(f"learner: is a protocol of {needs.made_for}; plan that system, or pass one of {made_for}")
    if needs.num_nodes not in (None, num_nodes):
        raise ValueError(
            f"learner: its task has {needs.num_nodes} shards for {num_nodes} devices; build both for the same number"
        )


def _unreadable(why: str, otherwise: str) -> ValueError:
    return ValueError(f"learner: {why}; give model_bytes and local_steps instead, {otherwise}")
