"""Gradients at single samples of a finite sum, and the tracking that methods of variance reduction share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key

from gossipjax._base.arguments import instance, real, whole
from gossipjax._base.binding import Frozen
from gossipjax._base.clipping import refuse_private
from gossipjax._base.placement import map_nodes
from gossipjax._base.rows import acting_nodes, all_finite, bits_per_row, num_rows, scale_rows
from gossipjax._base.streams import node_keys
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.tasks import FiniteSum
from gossipjax.types import Event, Info, Params


def as_finite_sum(task: FiniteSum) -> FiniteSum:
    """Check that the argument is a finite sum without private gradients, and return it."""
    known = instance("task", task, FiniteSum, "make one of a task with gossipjax.tasks.finite_sum(task)")
    refuse_private(known.task)
    return known


def check_step_size(step_size: float | Float[np.ndarray | Array, ""]) -> None:
    """Check a step size; traced ones pass."""
    real("step_size", step_size, above=0, remedy="well below 1 / L of every sample's loss")


def check_period(period: int) -> Frozen[int]:
    """Check the number of rounds from one full gradient to the next."""
    return Frozen(whole("period", period, least=1, most=2**31 - 1, remedy="1 takes full gradients in every round"))


def is_due(event: Event, period: Frozen[int]) -> Bool[Array, ""]:
    """Tell whether a full gradient is due, by the number of the round: seeds that run together agree about it."""
    return event.index[0] % jnp.uint32(period.value) == 0


def tracking_needs(task: FiniteSum, local_steps: int | None) -> Requires:
    """Return what tracking needs of a timeline."""
    return Requires(
        {"synchronous", "doubly_stochastic", "own_rows"},
        mixing=True,
        num_nodes=task.task.num_nodes,
        local_steps=local_steps,
        builder="timeline.rounds",
    )


def step_along(event: Event, step_size: Any, x: Params, tracker: Params, change: Params) -> tuple[Params, Params]:
    """Move the trackers by the change of the estimates, ``y ← W y + change``, then the models, ``x ← W x − α y``."""
    tracker = jax.tree.map(jnp.add, mix(event.mixing, tracker), change)
    return tracker, jax.tree.map(jnp.subtract, mix(event.mixing, x), scale_rows(step_size, tracker))


def report(event: Event, x: Params, loss: Float[Array, " k"]) -> Info:
    """Report a round in which every message holds a model and a tracker."""
    return Info(*traffic_fields(event, 2 * bits_per_row(x), num_rows(x)), loss, all_finite(x))


def one_sample(
    key: Key[Array, ""], task: FiniteSum, x: Params, event: Event
) -> tuple[Int[Array, " n"], Float[Array, " n"], Params]:
    """Draw a sample of every node; return its number, and its loss and gradient at the node's model."""
    return map_nodes(Partial(_one_sample, task), *_keys_and_nodes(key, task, event), x)


def _one_sample(task: FiniteSum, key, node, x):
    number, noise = draw_samples(task, 1, key)
    return number[0], *at_samples(task, noise, node, x, number)


def differences(
    key: Key[Array, ""], task: FiniteSum, size: Frozen[int], x: Params, other: Params, event: Event
) -> tuple[Float[Array, " n"], Params]:
    """Draw samples of every node, with replacement; return their loss, and their gradient less that elsewhere."""
    return map_nodes(Partial(_difference, task, size), *_keys_and_nodes(key, task, event), x, other)


def _difference(task: FiniteSum, size: Frozen[int], key, node, x, other):
    numbers, noise = draw_samples(task, size.value, key)
    loss, here = at_samples(task, noise, node, x, numbers)
    return loss, jax.tree.map(jnp.subtract, here, at_samples(task, noise, node, other, numbers)[1])


def _keys_and_nodes(key: Key[Array, ""], task: FiniteSum, event: Event) -> tuple[Key[Array, " n"], Int[Array, " n"]]:
    n = task.task.num_nodes
    return node_keys(key, event, n), acting_nodes(event, n)


def draw_samples(task: FiniteSum, size: int, key: Key[Array, ""]) -> tuple[Int[Array, " b"], Key[Array, ""]]:
    """Draw numbers of samples; return them with a key for their losses."""
    draw, noise = jax.random.split(key)
    return jax.random.randint(draw, (size,), 0, task.num_samples, jnp.int32), noise


def at_samples(task: FiniteSum, key, node, x, numbers) -> tuple[Float[Array, ""], Params]:
    """Take the mean loss of samples of one node, and its gradient."""
    batch = task.sample(task.task.data, node, numbers)
    return jax.value_and_grad(task.task.loss, argnums=1)(key, x, batch)


def full_gradients(key: Key[Array, ""], task: FiniteSum, x: Params, event: Event) -> tuple[Array, Params]:
    """Take the loss and the gradient of every node over all of its samples."""
    return map_nodes(Partial(_full, task), *_keys_and_nodes(key, task, event), x)


def _full(task: FiniteSum, key, node, x):
    return at_samples(task, key, node, x, jnp.arange(task.num_samples, dtype=jnp.int32))


def sample_gradients(key: Key[Array, ""], task: FiniteSum, x: Params) -> Params:
    """Take the gradient at each sample of every node, leaves ``(n, m, ...)``."""
    nodes = jnp.arange(task.task.num_nodes, dtype=jnp.int32)
    return map_nodes(Partial(_each, task, key), nodes, x)


def _each(task: FiniteSum, key, node, x):
    return gradients_at(task, key, node, x, jnp.arange(task.num_samples, dtype=jnp.int32))


def gradients_at(task: FiniteSum, key, node, x, numbers: Int[Array, " b"]) -> Params:
    """Take the gradients at samples of one node, leaves ``(b, ...)``."""

    def one(number: Array) -> Any:
        return at_samples(task, key, node, x, number[None])[1]

    return jax.vmap(one)(numbers)
