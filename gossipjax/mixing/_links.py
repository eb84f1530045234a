"""The links of a mixing, whatever their weights: sums and differences over neighbours, as dual methods take them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gossipjax._base.rows import scale_rows
from gossipjax.mixing._apply import mix
from gossipjax.mixing._forms import DenseMixing, Mixing, TableMixing
from gossipjax.mixing._placed_forms import PlacedDense, PlacedTable
from gossipjax.types import Params


def link_sum(mixing: Mixing | PlacedTable | PlacedDense, x: Params) -> tuple[Params, Float[Array, " n"]]:
    """Return ``Σ_j x_j`` over the nodes j that give node i a message of non-zero weight, and their number.

    Raises:
        ValueError: if the mixing is not dense and no table.
    """
    match mixing:
        case DenseMixing(W=W):
            links = (W != 0) & ~jnp.eye(W.shape[0], dtype=bool)
            unweighted: Any = DenseMixing(links.astype(W.dtype))
            degrees = jnp.sum(links, axis=1)
        case TableMixing(neighbors=neighbors, weights=weights):
            links = (weights != 0) & (neighbors != jnp.arange(neighbors.shape[0], dtype=neighbors.dtype)[:, None])
            unweighted = TableMixing(
                neighbors, links.astype(weights.dtype), jnp.zeros(neighbors.shape[0], weights.dtype)
            )
            degrees = jnp.sum(links, axis=1)
        case PlacedDense(W=W, ids=ids):
            links = (W != 0) & (jnp.arange(W.shape[1], dtype=ids.dtype) != ids[:, None])
            unweighted = mixing._replace(W=links.astype(W.dtype))
            degrees = jnp.sum(links, axis=1)
        case PlacedTable(neighbors=neighbors, weights=weights, own=own):
            links = (weights != 0) & (neighbors != own[:, None])
            nothing = jnp.zeros_like(mixing.self_weight)
            unweighted = mixing._replace(weights=links.astype(weights.dtype), self_weight=nothing)
            degrees = jnp.sum(links, axis=1)
        case _:
            raise ValueError(
                f"{type(mixing).__name__} has no links of all nodes: use rounds on a matrix, timeline.rounds"
            )
    return mix(unweighted, x), degrees.astype(jnp.result_type(float))


def laplacian(mixing: Mixing | PlacedTable | PlacedDense, x: Params) -> Params:
    """Return ``Σ_j (x_i − x_j)`` over the same nodes j; raises as :func:`link_sum`."""
    total, degrees = link_sum(mixing, x)
    return jax.tree.map(jnp.subtract, scale_rows(degrees, x), total)
