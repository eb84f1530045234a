"""The geometric median, exactly or smoothed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from gossipjax._base.arguments import flag
from gossipjax._base.calls import recorded
from gossipjax.robust._build import rule_of, tolerated_number
from gossipjax.robust._lanes import Context, Rule, lanes_of, norms, together

_SMOOTHING, _SMOOTHED_STEPS = 0.1, 3
_STEPS = 1000


def _pull(models: Float[Array, "N P"], live: Bool[Array, " N"], center: Float[Array, " P"]) -> tuple[Array, Array]:
    """Return the length of the sum of unit vectors from a center to the models, less the number of models there.

    It is not positive where the center is the median. Also return the sum of the distances.
    """
    apart = models - center[None]
    length = norms(apart)
    away = live & (length > 0)
    unit = jnp.where(away[:, None], apart / jnp.where(away, length, 1)[:, None], 0)
    excess = norms(jnp.sum(unit, axis=0)[None])[0] - jnp.sum(live & (length == 0)).astype(models.dtype)
    return excess, jnp.sum(jnp.where(live, length, 0))


def _step(models: Float[Array, "N P"], live: Bool[Array, " N"], center: Array, smallest: Array) -> Array:
    length = jnp.maximum(norms(models - center[None]), smallest)
    # Relative to the nearest model, since 1 / length may overflow.
    weights = jnp.where(live, jnp.min(jnp.where(live, length, jnp.inf)) / length, 0)
    return jnp.sum(weights[:, None] * models, axis=0) / jnp.sum(weights)


def _farther(
    models: Float[Array, "N P"],
    live: Bool[Array, " N"],
    center: Float[Array, " P"],
    new: Float[Array, " P"],
    unit: Float[Array, "N P"],
    length: Float[Array, " N"],
    here: Float[Array, ""],
) -> Float[Array, " P"]:
    """Go on from a step to the minimum along its line by a step of Newton's method, if that is lower.

    Weiszfeld's steps away from a near model are as short as it is near; across its direction they are of the right
    length at once.
    """
    ahead = new - center
    along = unit @ ahead
    reach = norms(ahead[None])[0]
    slope = here * reach - jnp.sum(along)
    curvature = jnp.sum((jnp.square(reach) - jnp.square(along)) / length)
    far = center + jnp.maximum(jnp.where(curvature > 0, -slope / curvature, 1), 1) * ahead

    def total(place: Array) -> Array:
        return jnp.sum(jnp.where(live, norms(models - place[None]), 0))

    return jnp.where(total(far) < total(new), far, new)


def _exact(own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    """Take a model if it is the optimum, for Weiszfeld's steps crawl towards models; else iterate from the best model.

    No step raises the sum of distances, so that the result is never worse than a model, near which steps are small.

    A step from a place where η models lie goes to the mixture of the place and of Weiszfeld's step without them, with
    the share η / r for the place, where r is the length of the sum of unit vectors to the rest (Vardi and Zhang).
    """
    del context
    models, present, finite = together(own, lanes_of(own, others, weights))
    live = present & finite
    excess, total = (
        jnp.where(live, each, jnp.inf) for each in jax.lax.map(lambda row: _pull(models, live, row), models)
    )
    best = jnp.argmin(jnp.where(excess <= 0, excess, jnp.inf)).astype(jnp.int32)
    tiny = jnp.asarray(jnp.finfo(models.dtype).tiny, models.dtype)
    precision = jnp.asarray(max(1e-12, 4 * float(jnp.finfo(models.dtype).eps)), models.dtype)

    def rounding(center: Array) -> Array:
        return precision * (1 + norms(center[None])[0])

    def goes_on(carry: tuple[Int[Array, ""], Array, Array]) -> Bool[Array, ""]:
        number, center, moved = carry
        return (number < _STEPS) & (moved > rounding(center))

    def once(carry: tuple[Int[Array, ""], Array, Array]) -> tuple[Int[Array, ""], Array, Array]:
        number, center, _ = carry
        length = norms(models - center[None])
        away = live & (length > rounding(center))
        here = jnp.sum(live & ~away).astype(models.dtype)
        unit = jnp.where(away[:, None], (models - center[None]) / jnp.where(away, length, 1)[:, None], 0)
        stays = here / jnp.maximum(norms(jnp.sum(unit, axis=0)[None])[0], tiny)
        stays = jnp.where(here > 0, jnp.minimum(stays, 1), 0)
        new = jnp.where(stays < 1, (1 - stays) * _step(models, away, center, tiny) + stays * center, center)
        new = _farther(models, live, center, new, unit, jnp.where(away, length, jnp.inf), here)
        return number + 1, new, norms((new - center)[None])[0]

    nearest = models[jnp.argmin(total)]
    start = (jnp.zeros((), jnp.int32), nearest, jnp.asarray(jnp.inf, models.dtype))
    _, iterated, _ = jax.lax.while_loop(goes_on, once, start)
    return jnp.where(jnp.any(excess <= 0), models[best], iterated)


def _smoothed(own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    models, present, finite = together(own, lanes_of(own, others, weights))
    center, smallest = jnp.zeros_like(own), jnp.asarray(_SMOOTHING, models.dtype)
    for _ in range(_SMOOTHED_STEPS):
        center = _step(models, present & finite, center, smallest)
    return center


@recorded("pillutla2022rfa", "vardi2000median")
def geometric_median(b: int = 0, *, smoothed: bool = False) -> Rule:
    """Build the geometric median ``argmin_z Σ ‖v − z‖`` over the received models and the node's own.

    Weiszfeld's iteration from the best model, with the steps of Vardi and Zhang from places where models lie, each
    prolonged to the minimum along its line if that is lower, to a relative step of 1e-12 (in single precision, of a few
    roundings); a model that is the optimum itself is found directly. Models that are not finite are left out.

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
