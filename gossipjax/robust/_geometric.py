"""The geometric median, exactly or smoothed."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from gossipjax._base.arguments import flag
from gossipjax._base.calls import recorded
from gossipjax.robust._build import rule_of, tolerated_number
from gossipjax.robust._lanes import Context, Rule, lanes_of, norms, pair_distances, together

_SMOOTHING, _SMOOTHED_STEPS = 0.1, 3
_STEPS = 1000


def _apart(
    models: Float[Array, "N P"], center: Float[Array, " P"], length: Float[Array, " N"]
) -> tuple[Float[Array, "N P"], Float[Array, " P"], Float[Array, ""]]:
    """Return unit vectors from a center to the models, 0 where a length is infinite; their sum and its length."""
    unit = (models - center[None]) / length[:, None]
    pull = jnp.sum(unit, axis=0)
    return unit, pull, norms(pull[None])[0]


def _smoothed_step(models: Float[Array, "N P"], live: Bool[Array, " N"], center: Array, smallest: Array) -> Array:
    length = jnp.maximum(norms(models - center[None]), smallest)
    # Relative to the nearest model, since 1 / length may overflow.
    weights = jnp.where(live, jnp.min(jnp.where(live, length, jnp.inf)) / length, 0)
    return jnp.sum(weights[:, None] * models, axis=0) / jnp.sum(weights)


def _reach(unit: Array, pull: Array, step: Array, length: Array, here: Array) -> Array:
    """Return how many steps along the pull lead to the minimum on its line, by a step of Newton's method; at least one.

    Weiszfeld's steps away from a near model are as short as it is near; across its direction they are of the right
    length at once.
    """
    ahead = step * pull
    along, reach = unit @ ahead, norms(ahead[None])[0]
    slope = here * reach - jnp.sum(along)
    curvature = jnp.sum((jnp.square(reach) - jnp.square(along)) / length)
    return jnp.maximum(jnp.where(curvature > 0, -slope / curvature, 1), 1)


class _Place(NamedTuple):
    number: Int[Array, ""]
    center: Float[Array, " P"]
    length: Float[Array, " N"]
    """Distances to the models; infinite to those that are left out."""
    moved: Float[Array, ""]


def _exact(own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    """Take the best model if it is the optimum, for Weiszfeld's steps crawl towards models; else iterate from it.

    No step raises the sum of distances, so that the result is never worse than a model, near which steps are small.

    A step from a place where η models lie goes to the mixture of the place and of Weiszfeld's step without them, with
    the share η / r for the place, where r is the length of the sum of unit vectors to the rest (Vardi and Zhang).
    """
    del context
    models, present, finite = together(own, lanes_of(own, others, weights))
    live = present & finite
    lengths = pair_distances(models, live)
    best = jnp.argmin(jnp.where(live, jnp.sum(jnp.where(live[None], lengths, 0), axis=1), jnp.inf)).astype(jnp.int32)
    tiny = jnp.asarray(jnp.finfo(models.dtype).tiny, models.dtype)
    few = 4 * float(jnp.finfo(models.dtype).eps)
    spread = jnp.max(jnp.where(live, lengths[best], 0))

    def rounding(center: Array) -> Array:
        return max(1e-12, few) * spread + few * norms(center[None])[0]

    def measured(center: Array) -> Array:
        return jnp.where(live, norms(models - center[None]), jnp.inf)

    def total(length: Array) -> Array:
        return jnp.sum(jnp.where(live, length, 0))

    def goes_on(place: _Place) -> Bool[Array, ""]:
        return (place.number < _STEPS) & (place.moved > rounding(place.center))

    def once(place: _Place) -> _Place:
        away = live & (place.length > rounding(place.center))
        here = jnp.sum(live & ~away).astype(models.dtype)
        length = jnp.where(away, place.length, jnp.inf)
        unit, pull, strength = _apart(models, place.center, length)
        stays = jnp.where(here > 0, jnp.minimum(here / jnp.maximum(strength, tiny), 1), 0)
        least = jnp.min(length)  # relative to it, since 1 / length may overflow
        step = (1 - stays) * jnp.where(jnp.any(away), least / jnp.maximum(jnp.sum(least / length), tiny), 0)
        near = place.center + step * pull
        far = place.center + _reach(unit, pull, step, length, here) * step * pull
        to_near, to_far = measured(near), measured(far)
        farther = total(to_far) < total(to_near)
        new = jnp.where(farther, far, near)
        moved = norms((new - place.center)[None])[0]
        return _Place(place.number + 1, new, jnp.where(farther, to_far, to_near), moved)

    nearest = models[best]
    there = jnp.sum(live & (lengths[best] == 0)).astype(models.dtype)
    _, _, strength = _apart(models, nearest, jnp.where(live & (lengths[best] > 0), lengths[best], jnp.inf))
    moved = jnp.where(strength <= there, 0, jnp.inf).astype(models.dtype)
    start = _Place(jnp.zeros((), jnp.int32), nearest, jnp.where(live, lengths[best], jnp.inf), moved)
    return jax.lax.while_loop(goes_on, once, start).center


def _smoothed(own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    models, present, finite = together(own, lanes_of(own, others, weights))
    center, smallest = jnp.zeros_like(own), jnp.asarray(_SMOOTHING, models.dtype)
    for _ in range(_SMOOTHED_STEPS):
        center = _smoothed_step(models, present & finite, center, smallest)
    return center


@recorded("pillutla2022rfa", "vardi2000median")
def geometric_median(b: int = 0, *, smoothed: bool = False) -> Rule:
    """Build the geometric median ``argmin_z Σ ‖v − z‖`` over the received models and the node's own.

    Weiszfeld's iteration from the best model, with the steps of Vardi and Zhang from places where models lie, each
    prolonged to the minimum along its line if that is lower, to a step of 1e-12 of the distance between models (in
    single precision, of a few roundings), or of a few roundings of the median; a model that is the optimum itself
    is found directly. Models that are not finite are left out.

    The iteration ends when it converges, so that reverse-mode differentiation (``jax.grad``) fails; with ``smoothed``
    it works.

    Args:
        b: liars among the neighbours; the rule does not use it, but needs N > 2 b models to make sense.
        smoothed: three iterations from 0 with distances of at least 0.1, as RFA has it.

    Raises:
        ValueError: if b is negative.

    Reference: Pillutla, Kakade, Harchaoui 2022, arXiv 1912.13445 (RFA, algorithm 2; its settings recalled); Vardi,
        Zhang 2000 (steps from models).
    """
    b = tolerated_number(b)
    return rule_of(Partial(_smoothed if flag("smoothed", smoothed) else _exact), 2 * b + 1, b)
