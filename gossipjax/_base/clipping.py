"""Gradients that are clipped and get Gaussian noise: what private tasks and their observers compute."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Key

from gossipjax._base.streams import normals
from gossipjax.types import Params

_NOISE = 2**32 - 9
"""Stream of the noise in the key of a loss; draws of the loss itself fold in nothing, or small numbers."""


class Sampled(NamedTuple):
    """A shard, and which of its samples are in the batch."""

    samples: Any
    """Batches of one sample each, leaves ``(s, 1, ...)``."""
    takes: Bool[Array, " s"]


class Mechanism(NamedTuple):
    """How contributions to a gradient are clipped, and what noise their sum gets."""

    clip: Any
    """C: largest norm of a contribution."""
    noise: Any
    """z: standard deviation of the noise, over C; None: no noise."""
    batch_size: Any = None
    """B, which the sum over samples is divided by; None: the gradient of a batch is one contribution."""


class Contributed(NamedTuple):
    """A gradient before its noise."""

    loss: Float[Array, ""]
    """Mean over the batch."""
    total: Params
    """Sum of the clipped contributions."""
    clipped: Float[Array, ""]
    """Share of the contributions that were longer than C."""


def norm(tree: Params) -> Float[Array, ""]:
    """Return the Euclidean norm over all leaves."""
    kind = jnp.result_type(float)
    squares = [jnp.sum(jnp.square(leaf)).astype(kind) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))


def _shrunk(clip: Any, gradient: Params) -> tuple[Params, Bool[Array, ""]]:
    """Scale a gradient to at most C, and say whether it was longer."""
    length = norm(gradient)
    factor = jnp.minimum(1, jnp.asarray(clip, length.dtype) / length)
    return jax.tree.map(lambda leaf: factor.astype(leaf.dtype) * leaf, gradient), length > clip


def contributed(mechanism: Mechanism, loss: Partial, key: Key[Array, ""], params: Params, batch: Any) -> Contributed:
    """Clip each contribution to a gradient, and add them up."""
    if mechanism.batch_size is None:
        value, gradient = jax.value_and_grad(loss, argnums=1)(key, params, batch)
        total, longer = _shrunk(mechanism.clip, gradient)
        return Contributed(value, total, longer.astype(jnp.result_type(float)))

    def length(sample: Any) -> Array:
        return norm(jax.grad(loss, argnums=1)(key, params, sample))

    # Two passes: gradients of single samples are needed for their norms alone, and are not kept.
    lengths = jax.vmap(length)(batch.samples)
    factors = jnp.minimum(1, jnp.asarray(mechanism.clip, lengths.dtype) / lengths) * batch.takes.astype(lengths.dtype)

    def clipped(params: Params) -> tuple[Array, Array]:
        values = jax.vmap(lambda sample: loss(key, params, sample))(batch.samples)
        return jnp.sum(factors.astype(values.dtype) * values), values

    total, values = jax.grad(clipped, has_aux=True)(params)
    there = jnp.maximum(jnp.sum(batch.takes), 1)
    longer = jnp.sum((lengths > mechanism.clip) & batch.takes).astype(lengths.dtype)
    mean = jnp.sum(values * batch.takes.astype(values.dtype)) / there.astype(values.dtype)
    return Contributed(mean, total, longer / there.astype(lengths.dtype))


def released(mechanism: Mechanism, key: Key[Array, ""], total: Params) -> Params:
    """Add the noise to a sum of contributions, and divide it by the batch size."""
    if mechanism.noise is not None:
        drawn = normals(jax.random.fold_in(key, _NOISE), total)
        std = mechanism.noise * mechanism.clip
        total = jax.tree.map(lambda leaf, z: leaf + jnp.asarray(std, leaf.dtype) * z, total, drawn)
    if mechanism.batch_size is None:
        return total
    return jax.tree.map(lambda leaf: leaf / jnp.asarray(mechanism.batch_size, leaf.dtype), total)


@jax.custom_vjp
def private_loss(
    mechanism: Mechanism, loss: Partial, key: Key[Array, ""], params: Params, batch: Any
) -> Float[Array, ""]:
    """Return the mean loss of a batch; its gradient is clipped and noisy. There are no second derivatives."""
    if mechanism.batch_size is None:
        return loss(key, params, batch)
    values = jax.vmap(lambda sample: loss(key, params, sample))(batch.samples)
    there = jnp.maximum(jnp.sum(batch.takes), 1).astype(values.dtype)
    return jnp.sum(values * batch.takes.astype(values.dtype)) / there


def _forward(mechanism: Mechanism, loss: Partial, key: Any, params: Params, batch: Any) -> tuple[Array, Params]:
    found = contributed(mechanism, loss, key, params, batch)
    return found.loss, released(mechanism, key, found.total)


def _backward(gradient: Params, slope: Array) -> tuple[None, None, None, Params, None]:
    return None, None, None, jax.tree.map(lambda leaf: slope.astype(leaf.dtype) * leaf, gradient), None


private_loss.defvjp(_forward, _backward)


def parts_of(task: Any) -> tuple[Mechanism, Partial] | None:
    """Return what a task does to its gradients, and the loss that these belong to; None if it is not private."""
    return task.loss.args if getattr(task.loss, "func", None) is private_loss else None


def mechanism_of(task: Any) -> Mechanism | None:
    """Return what a task does to its gradients; None if it is not private."""
    parts = parts_of(task)
    return None if parts is None else parts[0]


def refuse_private(task: Any) -> None:
    """Refuse a task whose gradients are private, for methods that compare gradients of one sample.

    Raises:
        ValueError: if they are.
    """
    if mechanism_of(task) is not None:
        raise ValueError(
            "task: its gradients are private, and these methods take differences of two gradients and keep others, so "
            "that noise would cancel; use the task with another protocol, such as dpsgd"
        )
