"""ZIP-DL: every neighbour is sent a model with other noise, which sums to zero over the neighbours."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key

from gossipjax._base.arguments import flag, real
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.clipping import normals
from gossipjax._base.local import network_size
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import bits_per_row, num_rows
from gossipjax.compress._compressor import STREAM
from gossipjax.facts import FIXED_GRAPH
from gossipjax.mixing._counting import no_state
from gossipjax.sharing._edges import (
    Edges,
    check_rows_of,
    edge_weights,
    edges_of,
    over_reverse,
    own_edges,
    self_weights,
)
from gossipjax.topology._graph import Topology, require_undirected
from gossipjax.types import Event, Params, Sharing

_NOISE = STREAM - 10
"""Stream of the noise; no node has this number."""


def _over(factors: Float[Array, "n s"], leaf: Float[Array, "n s *shape"]) -> Array:
    """Multiply each message by its factor."""
    return factors.astype(leaf.dtype).reshape(factors.shape + (1,) * (leaf.ndim - 2)) * leaf


def _with_own(lanes: Float[Array, "n s"], own: Float[Array, " n"]) -> Float[Array, "n t"]:
    return jnp.concatenate([lanes, own[:, None]], axis=1)


def _noise(
    key: Key[Array, ""], event: Event, there: Bool[Array, "n t"], factors: Float[Array, "n t"], x: Params
) -> Any:
    """Draw the noise of each node for each of its receivers: the last one is the node itself."""
    base = jax.random.fold_in(jax.random.fold_in(key, _NOISE), event.index[0])

    def of_node(node: Int[Array, ""], model: Params) -> Params:
        own = jax.random.fold_in(base, node)
        lanes = jnp.arange(there.shape[1], dtype=jnp.int32)
        return jax.vmap(lambda lane: normals(jax.random.fold_in(own, lane), model))(lanes)

    def centred(leaf: Array) -> Array:
        kept = _over(there.astype(leaf.dtype), leaf)
        m = jnp.sum(there, axis=1).astype(leaf.dtype).reshape((-1, 1) + (1,) * (leaf.ndim - 2))
        unit = jnp.sqrt(m / (m - 1)) * (kept - jnp.sum(kept, axis=1, keepdims=True) / m)
        return _over(jnp.where(there, factors, 0), unit)

    nodes = jnp.arange(num_rows(x), dtype=jnp.int32) if event.local is None else event.local.ids
    return jax.tree.map(centred, jax.vmap(of_node)(nodes, x))


@by_rows
def _encode(
    edges: Edges,
    std: Any,
    own: Frozen[bool],
    key: Key[Array, ""],
    state: tuple[()],
    x_start: Params,
    x: Params,
    event: Event,
):
    del x_start
    check_rows_of(edges.neighbors.shape[0], network_size(event.local, num_rows(x)), "zip_dl")
    edges = own_edges(edges, event.local)
    received = edge_weights(event.mixing, edges, "zip_dl", event.local)
    weights = _with_own(over_reverse(event, edges, received), self_weights(event.mixing, event.local))
    there = jnp.concatenate([edges.present, jnp.full((len(weights), 1), own.value)], axis=1)
    mean = jnp.sum(jnp.where(there, weights, 0), axis=1) / jnp.sum(there, axis=1).astype(weights.dtype)
    noise = _noise(key, event, there, mean[:, None] / jnp.where(there, weights, 1), x)

    def said(leaf: Array, z: Array) -> Array:
        return leaf[:, None] + jnp.asarray(std).astype(leaf.dtype) * z

    return state, (jax.tree.map(said, x, noise), bits_per_row(x))


@by_rows
def _merge(
    edges: Edges, key: Key[Array, ""], state: tuple[()], arrived: tuple[Params, Params, Event]
) -> tuple[tuple[()], Params]:
    del key
    _, said, event = arrived
    edges, local = own_edges(edges, event.local), event.local
    weights = _with_own(edge_weights(event.mixing, edges, "zip_dl", local), self_weights(event.mixing, local))

    def merged(messages: Array) -> Array:
        heard = over_reverse(event, edges, messages[:, :-1])
        return jnp.sum(_over(weights, jnp.concatenate([heard, messages[:, -1:]], axis=1)), axis=1)

    return state, jax.tree.map(merged, said)


@recorded("biswas2025zipdl")
def zip_dl(topology: Topology, std: float | Float[np.ndarray | Array, ""], *, own: bool = False) -> Sharing:
    """Build the noise of ZIP-DL: each neighbour is sent other noise, and what a node sends in a round sums to zero::

        x_i ← W_ii x_i + Σ_j W_ij (x_j + σ n_ji)                       with n_ii at W_ii x_i, if a node keeps a part
        n_jk = √(m/(m−1)) (g_jk − Σ_l g_jl / m) · w̄_j / W_kj            g ~ N(0, I), m receivers, w̄_j: mean of W_kj

    ``Σ_k W_kj n_jk = 0``, so that the mean is conserved up to rounding, with a doubly stochastic W, and nodes need not
    agree on anything. With equal weights a message has noise of σ; else one with a small weight has more. c receivers
    that collude learn ``μ² = (Δ/σ)² c (m−1)/(m−c)`` of a model that moves by Δ, with equal weights: all m neighbours
    together learn it exactly, unless the node keeps a part. That is not the loss of a run: what a node hears in later
    rounds holds more, which no audit here counts.

    A message holds one vector. A round holds all messages at once: 4 bytes per parameter and directed edge.

    Args:
        topology: the undirected graph of the mixing matrix, which must have a weight on every edge and no others.
        std: σ ≥ 0, in the unit of the models. A new value does not recompile the run.
        own: whether a node keeps one of the m parts itself: then m is its degree plus 1, and W_jj must not be 0.

    Raises:
        TypeError: if topology is not a topology.
        ValueError: if σ is negative or not finite, the graph is directed, or noise has fewer than two receivers; during
            a run, if the number of nodes differs, or the timeline is not synchronous rounds on one fixed symmetric
            doubly stochastic matrix.
        Diverged: during a run, if edges differ from the topology.

    Reference: Biswas et al. 2025, arXiv 2403.11795 (noise that sums to zero in one round; weights on irregular graphs
        are ours).
    """
    real("std", std, least=0, remedy="in the unit of the models")
    keeps = flag("own", own)
    degrees = require_undirected(topology).in_degrees
    few = np.flatnonzero(degrees + keeps < 2)
    if few.size:
        nodes = ", ".join(map(str, few[:5].tolist())) + (", …" if few.size > 5 else "")
        raise ValueError(
            f"topology={topology.name}: node(s) {nodes} have fewer than two receivers, so that noise which sums to "
            "zero is zero; use a graph of higher degree, or own=True for nodes with one neighbour"
        )
    edges = edges_of(topology)
    return Sharing(Partial(no_state), Partial(_encode, edges, std, Frozen(keeps)), Partial(_merge, edges), FIXED_GRAPH)
