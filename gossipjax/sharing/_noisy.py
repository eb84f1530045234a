"""Noise on models before they are shared: of nodes, and of pairs of neighbours, which sums to zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.calls import recorded
from gossipjax._base.local import network_size
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import bits_per_row, num_rows
from gossipjax._base.streams import node_keys, normals
from gossipjax.compress._compressor import STREAM
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import EVERYONE, no_state
from gossipjax.sharing._edges import Edges, check_rows_of, own_edges, own_nodes
from gossipjax.types import Event, Params, Sharing

_NOISE = STREAM - 4
"""Stream of the noise; no node has this number."""


def _own_noise(key: Key[Array, ""], x: Params, event: Event) -> Params:
    return jax.vmap(normals)(node_keys(jax.random.fold_in(key, _NOISE), event, num_rows(x)), x)


def _pair_noise(edges: Edges, key: Key[Array, ""], x: Params, event: Event) -> Params:
    """Add up the noise of each node's edges; both ends draw the same numbers, and one of them takes them negative."""
    base = jax.random.fold_in(jax.random.fold_in(key, _NOISE), event.index[0])

    def of_node(own: Array, model: Params, neighbors: Array, signs: Array) -> Params:
        def add(total: Params, edge: tuple[Array, Array]) -> tuple[Params, None]:
            other, sign = edge
            pair = jax.random.fold_in(jax.random.fold_in(base, jnp.minimum(own, other)), jnp.maximum(own, other))
            noise = normals(pair, model)
            return jax.tree.map(lambda t, z: t + sign.astype(z.dtype) * z, total, noise), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, model), (neighbors, signs))[0]

    own = own_edges(edges, event.local)
    return jax.vmap(of_node)(own_nodes(edges, event.local), x, own.neighbors, own.signs)


@by_rows
def encode(
    edges: Edges | None,
    std: Any,
    pair_std: Any,
    key: Key[Array, ""],
    state: tuple[()],
    x_start: Params,
    x: Params,
    event: Event,
) -> tuple[tuple[()], tuple[Params, int]]:
    """Say models with noise of nodes and, if there are edges, noise of pairs."""
    del x_start
    said = _add(x, std, _own_noise(key, x, event))
    if edges is not None:
        check_rows_of(edges.neighbors.shape[0], network_size(event.local, num_rows(x)), "decor")
        said = _add(said, pair_std, _pair_noise(edges, key, x, event))
    return state, (said, bits_per_row(x))


def _add(x: Params, std: Any, noise: Params) -> Params:
    return jax.tree.map(lambda leaf, z: leaf + jnp.asarray(std).astype(leaf.dtype) * z, x, noise)


@by_rows
def merge(key: Key[Array, ""], state: tuple[()], arrived: tuple[Params, Params, Event]) -> tuple[tuple[()], Params]:
    """Mix what was said; a node hears its own noise, too."""
    del key
    _, said, event = arrived
    return state, mix(event.mixing, said)


@recorded("xiao2007deviation")
def noisy(std: float | Float[np.ndarray | Array, ""]) -> Sharing:
    """Build full sharing of models with independent Gaussian noise, fresh in every round::

        x_i ← Σ_j W_ij (x_j + σ z_j)        z_j ~ N(0, I)

    Xiao, Boyd & Kim add the noise to the average; here the messages hold it, and a node keeps its own. With a doubly
    stochastic W the mean moves by σ z̄, a random walk with variance σ²/n a round. Noise that cancels in the mean is that
    of :func:`decor` and :func:`zip_dl`. A message holds one vector.

    Args:
        std: σ ≥ 0, in the unit of the models. A new value does not recompile the run.

    Raises:
        ValueError: if σ is negative or not finite; during a run, if the timeline is not synchronous rounds.
    """
    real("std", std, least=0, remedy="in the unit of the models")
    return Sharing(Partial(no_state), Partial(encode, None, std, 0.0), Partial(merge), EVERYONE)
