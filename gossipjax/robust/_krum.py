"""Krum: the models that lie closest to most others."""

from __future__ import annotations

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from gossipjax._base.arguments import whole
from gossipjax._base.calls import recorded
from gossipjax.robust._build import rule_of, tolerated_number
from gossipjax.robust._lanes import Context, Rule, by_distance, lanes_of, nearest, pair_distances, spoiled, together


def _apply(numbers: tuple[Array, Array], own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    b, m = numbers
    models, present, finite = together(own, lanes_of(own, others, weights))
    squared = jnp.square(pair_distances(models, present & finite))
    squared = jnp.where(jnp.eye(len(models), dtype=bool), jnp.inf, squared)
    place, number = jnp.arange(len(models), dtype=jnp.int32), jnp.sum(present, dtype=jnp.int32)
    closest = jnp.where(place[None] < number - b - 2, jnp.sort(squared, axis=1), 0)
    score = jnp.where(present, jnp.sum(closest, axis=1), jnp.inf)
    best = nearest(by_distance(score, present), m)
    mean = jnp.sum(jnp.where(best[:, None], models, 0), axis=0) / m.astype(models.dtype)
    return spoiled(mean, jnp.any(best & ~jnp.isfinite(score)))


@recorded("blanchard2017krum")
def krum(b: int, *, m: int = 1) -> Rule:
    """Build Krum: take the model with the smallest sum of squared distances to its N − b − 2 nearest others.

    Args:
        b: liars among the neighbours; needs N ≥ 2 b + 3 models, the node's own included.
        m: average the m best models (multi-Krum).

    Raises:
        ValueError: if b is negative, or m < 1.

    Reference: Blanchard, El Mhamdi, Guerraoui, Stainer 2017, arXiv 1703.02757.
    """
    b, m = tolerated_number(b), whole("m", m, least=1)
    return rule_of(Partial(_apply, (jnp.int32(b), jnp.int32(m))), max(2 * b + 3, m), b)
