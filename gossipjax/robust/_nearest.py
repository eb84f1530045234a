"""Rules that average the nearest models."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Int

from gossipjax._base.arguments import instance
from gossipjax._base.calls import recorded
from gossipjax.robust._build import rule_of, tolerated_number
from gossipjax.robust._lanes import (
    Context,
    Rule,
    by_distance,
    lanes_of,
    nearest,
    number_of,
    pair_distances,
    spoiled,
    together,
)


def _nna(b: Int[Array, ""], own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    lanes = lanes_of(own, others, weights)
    kept = number_of(lanes.present) - b
    near = nearest(lanes.order, kept - 1)
    total = own + jnp.sum(jnp.where(near[:, None], lanes.others, 0), axis=0)
    return spoiled(total / kept.astype(own.dtype), jnp.any(near & ~lanes.finite))


def _nnm(b: Int[Array, ""], rule: Rule, own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    lanes = lanes_of(own, others, weights)
    models, present, finite = together(own, lanes)
    distances = pair_distances(models, present & finite)
    kept = jnp.sum(present, dtype=jnp.int32) - b
    chosen = jax.vmap(lambda row: nearest(by_distance(row, present), kept))(distances)
    wrong = jnp.any(chosen & jnp.isinf(distances), axis=1)
    shares = chosen.astype(models.dtype) / kept.astype(models.dtype)
    means = jnp.matmul(shares, models, precision=jax.lax.Precision.HIGHEST)
    means = jnp.where(wrong[:, None], jnp.nan, means)
    return rule.apply(means[0], means[1:], jnp.where(lanes.present, lanes.weights, 0), context)


@recorded("farhadkhani2023monna")
def nna(b: int) -> Rule:
    """Build nearest-neighbour averaging: the mean of the N − b models nearest to the node's own, itself included.

    Args:
        b: liars among the neighbours; needs N > b models.

    Raises:
        ValueError: if b is negative.

    Reference: Farhadkhani et al. 2023, arXiv 2210.06884 (MoNNA).
    """
    b = tolerated_number(b)
    return rule_of(Partial(_nna, jnp.int32(b)), b + 1, b)


@recorded("allouah2023fixing")
def nnm(b: int, rule: Rule) -> Rule:
    """Build nearest-neighbour mixing: replace every model by the mean of its N − b nearest, then apply another rule.

    Args:
        b: liars among the neighbours; needs N > b models.
        rule: what is applied to the means, such as ``trimmed_mean(b)``.

    Raises:
        TypeError: if rule is not a rule.
        ValueError: if b is negative.

    Reference: Allouah et al. 2023, arXiv 2302.01772.
    """
    b = tolerated_number(b)
    instance("rule", rule, Rule, "build one with gossipjax.robust, such as trimmed_mean(1)")
    return rule_of(Partial(_nnm, jnp.int32(b), rule), max(b + 1, int(rule.least)), b)
