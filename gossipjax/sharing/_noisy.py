"""Noise on models before they are shared: independent, or drawn by pairs of neighbours so that it sums to zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.calls import recorded
from gossipjax._base.rows import bits_per_row, num_rows
from gossipjax._base.streams import node_keys
from gossipjax.compress._compressor import STREAM
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import EVERYONE, no_state
from gossipjax.sharing._edges import Edges, check_rows_of, edges_of
from gossipjax.topology._graph import Topology, require_undirected
from gossipjax.types import Event, Params, Sharing

_NOISE = STREAM - 4
"""Stream of the noise; no node has this number."""


def _normals(key: Key[Array, ""], like: Params) -> Params:
    """Draw a standard normal number for every number of one model."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def _own_noise(key: Key[Array, ""], x: Params, event: Event) -> Params:
    return jax.vmap(_normals)(node_keys(jax.random.fold_in(key, _NOISE), event, num_rows(x)), x)


def _pair_noise(edges: Edges, key: Key[Array, ""], x: Params, event: Event) -> Params:
    """Add up the noise of each node's edges; both ends draw the same numbers, and one of them takes them negative."""
    base = jax.random.fold_in(jax.random.fold_in(key, _NOISE), event.index[0])

    def of_node(own: Array, model: Params, neighbors: Array, signs: Array) -> Params:
        def add(total: Params, edge: tuple[Array, Array]) -> tuple[Params, None]:
            other, sign = edge
            pair = jax.random.fold_in(jax.random.fold_in(base, jnp.minimum(own, other)), jnp.maximum(own, other))
            noise = _normals(pair, model)
            return jax.tree.map(lambda t, z: t + sign.astype(z.dtype) * z, total, noise), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, model), (neighbors, signs))[0]

    nodes = jnp.arange(num_rows(x), dtype=jnp.int32)
    return jax.vmap(of_node)(nodes, x, edges.neighbors, edges.signs)


def _encode(edges: Edges | None, std: Any, key: Key[Array, ""], state: tuple[()], x_start: Params, x: Params, event):
    del x_start
    if edges is not None:
        check_rows_of(edges.neighbors.shape[0], num_rows(x), "noisy")
    noise = _own_noise(key, x, event) if edges is None else _pair_noise(edges, key, x, event)
    said = jax.tree.map(lambda leaf, z: leaf + jnp.asarray(std).astype(leaf.dtype) * z, x, noise)
    return state, (said, bits_per_row(x))


def _merge(key: Key[Array, ""], state: tuple[()], arrived: tuple[Params, Params, Event]) -> tuple[tuple[()], Params]:
    del key
    _, said, event = arrived
    return state, mix(event.mixing, said)


@recorded("allouah2024decor")
def noisy(std: float | Float[np.ndarray | Array, ""], *, zero_sum: Topology | None = None) -> Sharing:
    """Build full sharing of models with Gaussian noise, fresh in every round, as for differential privacy::

        x_i ← Σ_j W_ij (x_j + σ η_j)
        independent:   η_j ~ N(0, I)
        zero sum:      η_j = Σ_k ξ_jk over the neighbours k of j,     ξ_kj = −ξ_jk ~ N(0, I)

    A node keeps its own noise, too. Independent noise moves the mean by σ η̄, a random walk with variance σ²/n a round.
    Noise of pairs, which both ends draw from a common seed, sums to zero: with a doubly stochastic W the mean is
    conserved, up to rounding; η_j has the variance d_j of its d_j neighbours, so that a message alone hides its model
    as well as independent noise of σ √d_j. A message holds one vector; seeds are not charged.

    Args:
        std: σ ≥ 0, in the unit of the models. A new value does not recompile the run.
        zero_sum: the undirected graph whose neighbours draw noise together; None: independent noise.

    Raises:
        TypeError: if zero_sum is not a topology.
        ValueError: if σ is negative or not finite, or the graph is directed; during a run, if the number of nodes
            differs, or the timeline is not synchronous rounds.

    Reference: Allouah, Koloskova, El Firdoussi, Jaggi, Guerraoui 2024, arXiv 2405.01031 (Decor; recalled), whose noise
        is the sum of both kinds.
    """
    real("std", std, least=0, remedy="in the unit of the models")
    edges = None if zero_sum is None else edges_of(require_undirected(zero_sum, "zero_sum"))
    return Sharing(Partial(no_state), Partial(_encode, edges, std), Partial(_merge), EVERYONE)
