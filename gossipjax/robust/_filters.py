"""Rules that drop one model after another: IOS and FABA."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from gossipjax._base.calls import recorded
from gossipjax.robust._build import rule_of, tolerated_number
from gossipjax.robust._lanes import Context, Lanes, Rule, lanes_of, norms, number_of, spoiled

_Left: TypeAlias = Bool[Array, " k"]


def _drop(lanes: Lanes, left: _Left, center: Float[Array, " P"]) -> _Left:
    """Drop the farthest from a center of what is left; models that are not finite come first."""
    distance = jnp.where(lanes.finite, norms(lanes.others - center[None]), jnp.inf)
    farthest = jnp.argmax(jnp.where(left, distance, -1))
    return left & (jnp.arange(left.size) != farthest)


def _weighted(own: Array, lanes: Lanes, left: _Left) -> Array:
    shares = jnp.where(left, lanes.weights, 0)
    rest = 1 - jnp.sum(lanes.weights)
    return (rest * own + jnp.sum(shares[:, None] * lanes.others, axis=0)) / (rest + jnp.sum(shares))


def _plain(lanes: Lanes, left: _Left) -> tuple[Array, Array]:
    """Return the sum of what is left, and its number."""
    total = jnp.sum(jnp.where(left[:, None], lanes.others, 0), axis=0)
    return total, jnp.sum(left).astype(total.dtype)


def _ios(b: Int[Array, ""], own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    lanes = lanes_of(own, others, weights)
    left = jax.lax.fori_loop(0, b, lambda _, left: _drop(lanes, left, _weighted(own, lanes, left)), lanes.present)
    return spoiled(_weighted(own, lanes, left), jnp.any(left & ~lanes.finite))


def _faba(b: Int[Array, ""], own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    lanes = lanes_of(own, others, weights)

    def once(_: Array, left: _Left) -> _Left:
        total, number = _plain(lanes, left)
        return _drop(lanes, left, total / jnp.maximum(number, 1))

    left = jax.lax.fori_loop(0, b, once, lanes.present)
    total, _ = _plain(lanes, left)
    kept = (number_of(lanes.present) - b).astype(own.dtype)
    return spoiled((total + own) / kept, jnp.any(left & ~lanes.finite))


@recorded("wu2023ios")
def ios(b: int) -> Rule:
    """Build iterative outlier scissor: b times, drop what is farthest from the weighted mean of what is left.

    The node's own model stays. The result is the weighted mean of what is left, its weights divided by their sum.

    Args:
        b: liars among the neighbours; needs b neighbours or more.

    Raises:
        ValueError: if b is negative.

    Reference: Wu, Chen, Ling 2023, arXiv 2206.04568.
    """
    b = tolerated_number(b)
    return rule_of(Partial(_ios, jnp.int32(b)), b + 1, b)


@recorded("xia2019faba")
def faba(b: int) -> Rule:
    """Build FABA: b times, drop what is farthest from the plain mean of the received models that are left.

    The result is ``(Σ left + x) / (k − b + 1)``.

    Args:
        b: liars among the neighbours; needs b neighbours or more.

    Raises:
        ValueError: if b is negative.

    Reference: Xia, Tao, Hao, Li 2019 (FABA), in the decentralized form of arXiv 2206.04568.
    """
    b = tolerated_number(b)
    return rule_of(Partial(_faba, jnp.int32(b)), b + 1, b)
