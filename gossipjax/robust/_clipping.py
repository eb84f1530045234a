"""Rules that clip, or leave out, the differences that are too long."""

from __future__ import annotations

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from gossipjax._base.arguments import flag, real
from gossipjax._base.calls import recorded
from gossipjax.robust._build import rule_of, tolerated_weight
from gossipjax.robust._lanes import Context, Lanes, Rule, lanes_of, nearest_weight, spoiled

_ROUNDING = 1e-6
"""Relative error of sums of weights in single precision."""


def _clip(own: Array, lanes: Lanes, tau: Float[Array, ""]) -> Array:
    """Return ``x + Σ w_j (y_j − x) min(1, τ/‖y_j − x‖)``; models that are not finite say nothing."""
    length = jnp.where(lanes.finite & (lanes.distance > 0), lanes.distance, 1)
    factor = jnp.where(lanes.finite, jnp.minimum(1, tau / length), 0)
    return own + jnp.sum((lanes.weights * factor)[:, None] * (lanes.others - own[None]), axis=0)


def _fixed(tau: Array, own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    return _clip(own, lanes_of(own, others, weights), tau.astype(own.dtype))


def _he(beta: Array, own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    lanes, beta = lanes_of(own, others, weights), beta.astype(own.dtype)
    near = nearest_weight(lanes, jnp.sum(lanes.weights) - beta)
    squared = jnp.where(near > 0, near * jnp.square(lanes.distance), 0)
    tau = jnp.sqrt(jnp.sum(squared) / jnp.where(beta > 0, beta, 1))
    tau = jnp.where(beta > 0, tau, jnp.inf)
    return spoiled(_clip(own, lanes, tau), jnp.any((near > _ROUNDING) & ~lanes.finite))


def _cs_plus(beta: Array, released: Array, own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    lanes, beta = lanes_of(own, others, weights), beta.astype(own.dtype)
    order = jnp.flip(lanes.order)  # absent lanes weigh nothing
    beyond, distance = jnp.cumsum(lanes.weights[order]), lanes.distance[order]
    reached = (beyond >= 2 * beta * (1 - _ROUNDING)) & lanes.present[order]
    first = jnp.argmax(reached)
    tau = jnp.where(jnp.any(reached), distance[first], 0)
    following = jnp.append(jnp.where(lanes.present[order], distance, 0), 0)[first + 1]
    below = jnp.where(jnp.any(reached) & jnp.isfinite(following), following, 0)
    tau = jnp.where(released & (beta > 0), below, tau)
    return spoiled(_clip(own, lanes, tau), jnp.isinf(tau) & jnp.any(lanes.present))


def _gts(beta: Array, own: Array, others: Array, weights: Array, context: Context | None) -> Array:
    del context
    lanes = lanes_of(own, others, weights)
    near = nearest_weight(lanes, jnp.sum(lanes.weights) - beta.astype(own.dtype))
    moved = own + jnp.sum(near[:, None] * (lanes.others - own[None]), axis=0)
    return spoiled(moved, jnp.any((near > _ROUNDING) & ~lanes.finite))


@recorded("he2022byzantine")
def clipped_gossip(tau: float | None = None, *, beta: float | None = None) -> Rule:
    """Build ClippedGossip, also called self-centered clipping: clip every difference to one's own model.

    ``x ← x + Σ_j w_j (y_j − x) min(1, τ/‖y_j − x‖)``. With ``beta``, τ is He's choice ``τ² = Σ_near w_j ‖y_j − x‖²/β``
    over the nearest neighbours of total weight ``Σ w − β``, of which the last is split.

    Args:
        tau: τ ≥ 0, fixed; the only rule that is also defined where a node hears one model at a time.
        beta: β in [0, 1), the weight of the liars among the neighbours. Exactly one of the two.

    Raises:
        ValueError: neither or both, or a number out of range.

    Reference: He, Karimireddy, Jaggi 2022, arXiv 2202.01545.
    """
    if (tau is None) == (beta is None):
        raise ValueError(f"tau={tau}, beta={beta}: give exactly one, a fixed τ or the weight of the liars")
    if tau is not None:
        limit = real("tau", tau, least=0, infinite=True)
        return rule_of(Partial(_fixed, jnp.asarray(limit)), 1, 0.0, "nothing", pairs=True)
    weight = tolerated_weight(beta)
    return rule_of(Partial(_he, jnp.asarray(weight)), 1, weight, "weight")


@recorded("gaucher2025robust")
def cs_plus(beta: float, *, released: bool = False) -> Rule:
    """Build CS+, the clipped sum of F-RG: ``τ = max {t : Σ of w_j with ‖y_j − x‖ ≥ t is at least 2β}``.

    It is a (b, 2)-robust sum, so averaging converges wherever ``4 b < μ₂`` for the honest graph (theory.robust).

    Args:
        beta: β in [0, 1), the weight of the liars among the neighbours. If 2β is more than all weight, τ = 0.
        released: take the next distance in the sorted list, which may be equal, as the public code does.

    Raises:
        ValueError: if beta is out of range.

    Reference: Gaucher, Dieuleveut, Hendrikx 2025, arXiv 2410.10418 (recalled; the next smaller distance from its code).
    """
    weight = tolerated_weight(beta)
    return rule_of(Partial(_cs_plus, jnp.asarray(weight), jnp.asarray(flag("released", released))), 1, weight, "weight")


@recorded("gaucher2025robust")
def gts(beta: float) -> Rule:
    """Build the geometrically trimmed sum of GTS-RG: leave out the farthest weight β, the last of them in part.

    ``x ← x + Σ_near w_j (y_j − x)``. A (b, 4)-robust sum.

    Args:
        beta: β in [0, 1), the weight of the liars among the neighbours.

    Raises:
        ValueError: if beta is out of range.

    Reference: Gaucher, Dieuleveut, Hendrikx 2025, arXiv 2410.10418 (recalled).
    """
    weight = tolerated_weight(beta)
    return rule_of(Partial(_gts, jnp.asarray(weight)), 1, weight, "weight")
