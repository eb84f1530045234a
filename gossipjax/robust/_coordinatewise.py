"""Rules that sort every coordinate: the median, and trimmed means."""

from __future__ import annotations

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from gossipjax._base.arguments import flag
from gossipjax._base.calls import recorded
from gossipjax.robust._build import rule_of, tolerated_number
from gossipjax.robust._lanes import Context, Lanes, Rule, lanes_of, number_of, spoiled, together
from gossipjax.robust._sorting import sort_rows


def _sorted(models: Float[Array, "N P"], present: Bool[Array, " N"], finite: Bool[Array, " N"]) -> Float[Array, "N P"]:
    """Sort each coordinate; models that are not finite come last, then absent ones."""
    return sort_rows(jnp.where((present & finite)[:, None], models, jnp.inf))


def _median(own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    models, present, finite = together(own, lanes_of(own, others, weights))
    ordered, number = _sorted(models, present, finite), jnp.sum(present, dtype=jnp.int32)
    low, high = ordered[(number - 1) // 2], ordered[number // 2]
    return spoiled((low + high) / 2, ~jnp.all(jnp.isfinite(high)))


def _middle(ordered: Float[Array, "N P"], first: Int[Array, ""], last: Int[Array, ""]) -> Float[Array, " P"]:
    """Sum the places first … last − 1 of every coordinate."""
    place = jnp.arange(len(ordered), dtype=jnp.int32)[:, None]
    return jnp.sum(jnp.where((place >= first) & (place < last), ordered, 0), axis=0)


def _trimmed(b: Int[Array, ""], own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    lanes = lanes_of(own, others, weights)
    number = number_of(lanes.present)
    mean = _middle(_sorted(*together(own, lanes)), b, number - b) / (number - 2 * b).astype(own.dtype)
    return spoiled(mean, _too_many(lanes, b))


def _bridge(b: Int[Array, ""], own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    lanes = lanes_of(own, others, weights)
    k = number_of(lanes.present) - 1
    kept = _middle(_sorted(lanes.others, lanes.present, lanes.finite), b, k - b)
    return spoiled((kept + own) / (k - 2 * b + 1).astype(own.dtype), _too_many(lanes, b))


def _too_many(lanes: Lanes, b: Int[Array, ""]) -> Bool[Array, ""]:
    return jnp.sum(lanes.present & ~lanes.finite, dtype=jnp.int32) > b


@recorded("yin2018byzantine")
def coordinate_median(b: int = 0) -> Rule:
    """Build the median of each coordinate over the received models and the node's own.

    Of an even number of values, the mean of the two in the middle.

    Args:
        b: liars among the neighbours; the rule does not use it, but needs N > 2 b models to make sense.

    Raises:
        ValueError: if b is negative.

    Reference: Yin, Chen, Ramchandran, Bartlett 2018, arXiv 1803.01498.
    """
    b = tolerated_number(b)
    return rule_of(Partial(_median), 2 * b + 1, b)


@recorded("yin2018byzantine", "fang2022bridge")
def trimmed_mean(b: int, *, bridge: bool = False) -> Rule:
    """Build the trimmed mean: of each coordinate, leave out the b largest and the b smallest values, average the rest.

    Args:
        b: liars among the neighbours; needs N > 2 b models, the node's own included.
        bridge: trim only what is received, and always keep the node's own: ``(Σ kept + x) / (k − 2b + 1)`` (BRIDGE-T).

    Raises:
        ValueError: if b is negative.

    Reference: Yin et al. 2018; Fang, Yang, Bajwa 2022, arXiv 1908.08098 (BRIDGE).
    """
    b = tolerated_number(b)
    return rule_of(Partial(_bridge if flag("bridge", bridge) else _trimmed, jnp.int32(b)), 2 * b + 1, b)
