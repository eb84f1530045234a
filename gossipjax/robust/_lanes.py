"""What a robust rule is given: the models that one node receives, with their weights and distances."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key

from gossipjax._base.calls import recordable


class Context(NamedTuple):
    """What a rule may know of its node besides the models."""

    key: Key[Array, ""]
    """A key of this node and event."""
    node: Int[Array, ""]
    unravel: Any
    """Turns a flat model into parameters."""


@recordable
class Rule(NamedTuple):
    """How a node combines its model x with k received models y. Lanes of weight 0 are absent.

    ``apply(own, others, weights, context) -> own`` works on flat models ``(P,)`` and ``(k, P)``. A model that is not
    finite counts as the farthest; if more of them arrive than the rule tolerates, the result is NaN.
    """

    apply: Partial
    least: Int[Array, ""] | int
    """Fewest models, the node's own included, that the rule can combine."""
    tolerated: Float[Array, ""] | float
    """b, or β for rules that count weights: what the rule assumes of the liars among the neighbours."""
    by: Any
    """What it assumes about, a compile-time constant: ``"number"``, ``"weight"``, or ``"nothing"``."""
    pairs: Any
    """Whether it is defined where only one model arrives, a compile-time constant."""
    num_nodes: Any
    """Nodes of the network that the rule is built for, such as those of a task, or None; a compile-time constant."""


class Lanes(NamedTuple):
    """The received models of one node, made safe to compute with."""

    others: Float[Array, "k P"]
    """Models; those that are absent or not finite are replaced by the node's own."""
    weights: Float[Array, " k"]
    """0 where absent."""
    present: Bool[Array, " k"]
    finite: Bool[Array, " k"]
    """Present and finite."""
    distance: Float[Array, " k"]
    """To the node's own model; infinite where absent or not finite."""
    order: Int[Array, " k"]
    """From the nearest to the farthest, absent ones last; ties by number."""


def lanes_of(own: Float[Array, " P"], others: Float[Array, "k P"], weights: Float[Array, " k"]) -> Lanes:
    """Collect the lanes of a node."""
    present = weights > 0
    finite = present & jnp.all(jnp.isfinite(others), axis=1)
    clean = jnp.where(finite[:, None], others, own[None])
    distance = jnp.where(finite, norms(clean - own[None]), jnp.inf)
    return Lanes(clean, jnp.where(present, weights, 0), present, finite, distance, by_distance(distance, present))


def norms(rows: Float[Array, "k P"]) -> Float[Array, " k"]:
    """Return the Euclidean norm of each row; where it is 0, its derivative is 0 and not NaN."""
    squares = jnp.sum(jnp.square(rows), axis=1)
    return jnp.where(squares == 0, 0, jnp.sqrt(jnp.where(squares == 0, 1, squares)))


def by_distance(distance: Float[Array, " k"], present: Bool[Array, " k"]) -> Int[Array, " k"]:
    """Sort lanes by distance, stably, absent ones last."""
    return jnp.lexsort((distance, ~present)).astype(jnp.int32)


def nearest(order: Int[Array, " k"], number: Int[Array, ""]) -> Bool[Array, " k"]:
    """Mark the first lanes of an order."""
    place = jnp.arange(order.size, dtype=jnp.int32)
    return jnp.zeros(order.size, bool).at[order].set(place < number)


def number_of(present: Bool[Array, " k"]) -> Int[Array, ""]:
    """Count N: the models present, and the node's own."""
    return 1 + jnp.sum(present, dtype=jnp.int32)


def nearest_weight(lanes: Lanes, total: Float[Array, ""]) -> Float[Array, " k"]:
    """Return the weights of the nearest lanes up to a total; that of the last one is split."""
    ordered = lanes.weights[lanes.order]
    before = jnp.cumsum(ordered) - ordered
    return jnp.zeros_like(ordered).at[lanes.order].set(jnp.clip(total - before, 0, ordered))


def spoiled(value: Float[Array, " P"], wrong: Bool[Array, ""]) -> Float[Array, " P"]:
    """Make a result NaN if too many models were not finite."""
    return jnp.where(wrong, jnp.nan, value)


def together(own: Float[Array, " P"], lanes: Lanes) -> tuple[Float[Array, "N P"], Bool[Array, " N"], Bool[Array, " N"]]:
    """Return V, the node's own model in front: models, which of them are present, and which are finite."""
    true = jnp.ones(1, bool)
    models = jnp.concatenate([own[None], lanes.others])
    return models, jnp.concatenate([true, lanes.present]), jnp.concatenate([true, lanes.finite])


def pair_distances(models: Float[Array, "N P"], finite: Bool[Array, " N"]) -> Float[Array, "N N"]:
    """Return all distances, row by row to save memory; infinite to and from what is not finite, and 0 to itself."""
    apart = jax.lax.map(lambda row: norms(models - row[None]), models)
    known = finite[:, None] & finite[None]
    return jnp.where(known, apart, jnp.where(jnp.eye(len(models), dtype=bool), 0, jnp.inf))
