"""Random streams of a run's key and of the nodes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gossipjax._base.rows import acting_nodes
from gossipjax.types import Event, Params

EVENTS, STEPS, STARTS = 0, 1, 2
"""Streams of the run's key: draws of timelines, draws of protocols, and starts that differ by seed."""


def node_keys(key: Key[Array, ""], event: Event, num_nodes: int) -> Key[Array, " k"]:
    """Derive one key per acting node: ``fold_in(fold_in(key, node), index of the source event)``.

    The stream depends on nothing else, so adding nodes, packing, chunking and recording do not change it.
    """
    nodes = acting_nodes(event, num_nodes)
    index = jnp.broadcast_to(event.index, nodes.shape)
    return jax.vmap(lambda node, number: jax.random.fold_in(jax.random.fold_in(key, node), number))(nodes, index)


def normals(key: Key[Array, ""], like: Params) -> Params:
    """Draw a standard normal number for every number of one model."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)
