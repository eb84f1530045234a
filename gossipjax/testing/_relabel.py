"""Relabelling of nodes: the same network, timeline, problem and models in another order."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree

from gossipjax.mixing._apply import DenseMixing, TableMixing
from gossipjax.timeline._changing_rounds import EVENTS as _CHANGING
from gossipjax.timeline._from_events import planned_event
from gossipjax.timeline._poisson import _edge_fires, _node_pushes, _node_wakes
from gossipjax.timeline._rounds import _cyclic_round, _fixed_round, _matching_round
from gossipjax.types import Task, Timeline

_NODES = ("nodes", "rows", "begin", "senders", "receivers", "members", "targets", "speakers", "sources")


def _checked(permutation: Any, num_nodes: int) -> Int[np.ndarray, " n"]:
    permutation = np.asarray(permutation)
    if not np.array_equal(np.sort(permutation), np.arange(num_nodes)):
        raise ValueError(
            f"permutation of shape {permutation.shape}: name each of the {num_nodes} nodes once, from 0 on"
        )
    return permutation.astype(np.int32)


def relabel_rows(x: PyTree, permutation: Int[np.ndarray, " n"]) -> PyTree:
    """Move row i to row ``permutation[i]`` in all leaves ``(n, ...)``.

    >>> relabel_rows(np.array([10, 11, 12]), np.array([2, 0, 1])).tolist()
    [11, 12, 10]
    """
    order = np.argsort(permutation)
    return jax.tree.map(lambda leaf: leaf[order], x)


def relabel_task(task: Task, permutation: Int[np.ndarray, " n"]) -> Task:
    """Move the shard of node i to node ``permutation[i]``.

    Raises:
        ValueError: if a leaf of the data is neither a scalar nor has one entry per node, such as a pool of samples into
            which shards point.
    """
    new = _checked(permutation, task.num_nodes)
    for path, leaf in jax.tree_util.tree_leaves_with_path(task.data):
        if leaf.ndim and leaf.shape[0] != task.num_nodes:
            raise ValueError(
                f"data{jax.tree_util.keystr(path)} has shape {leaf.shape}, not one entry for each of {task.num_nodes} "
                "nodes: build the task anew with its shards in the other order"
            )
    shards = jax.tree.map(lambda leaf: relabel_rows(leaf, new) if leaf.ndim else leaf, task.data)
    return dataclasses.replace(task, data=shards)


def relabel_timeline(timeline: Timeline, permutation: Int[np.ndarray, " n"]) -> Timeline:
    """Rename node i to ``permutation[i]`` in every event; messages in flight keep their rows.

    Supported: rounds on matrices (fixed or a cycle, dense or tables), matching rounds, changing rounds, Poisson pairs,
    edges and pushes, and planned timelines, packed or not. Model rows must be the nodes.

    >>> from gossipjax import topology, timeline
    >>> plan = timeline.poisson_push(topology.path(2), 3, seed=0)
    >>> bool((relabel_timeline(plan, np.array([1, 0])).xs["first"] == 1 - plan.xs["first"]).all())
    True

    Raises:
        ValueError: if permutation is not a permutation of the nodes, or the timeline is not supported.
    """
    facts, xs, shared = timeline.properties, timeline.xs, timeline.shared
    new = _checked(permutation, facts.num_nodes)
    if timeline.draw is None and facts.num_rows == facts.num_nodes:
        if timeline.event is planned_event:
            named = [{n: _renamed(a, new) if n in _NODES else a for n, a in part.items()} for part in (xs, shared)]
            return dataclasses.replace(timeline, xs=named[0], shared=named[1])
        if timeline.event in (_fixed_round, _cyclic_round):
            mixing = _renamed_mixing(shared["mixing"], new)
            return dataclasses.replace(timeline, shared=shared | {"mixing": mixing})
        if timeline.event is _matching_round:
            partner = new[np.asarray(xs["partner"])[:, np.argsort(new)]]
            return dataclasses.replace(timeline, xs=xs | {"partner": partner})
        if timeline.event in _CHANGING.values():
            return dataclasses.replace(timeline, xs=_renamed_rounds(xs, new))
        if timeline.event in (_node_wakes, _edge_fires, _node_pushes):
            return dataclasses.replace(timeline, xs=xs | {name: new[xs[name]] for name in ("first", "second")})
    raise ValueError(
        f"{facts.name} cannot be relabelled: supported are rounds, matching_rounds, changing_rounds, poisson_pairs, "
        "poisson_edges, poisson_push and planned timelines, with one model row per node and nothing drawn inside the "
        "run; build it anew with the other names and compare the runs by history"
    )


def _renamed(array: Any, new: Int[np.ndarray, " n"]) -> Any:
    """Rename nodes; slots and NOBODY keep their numbers."""
    array = np.asarray(array)
    return np.where(array < len(new), new[np.minimum(array, len(new) - 1)], array)


def _renamed_rounds(xs: dict[str, Any], new: Int[np.ndarray, " n"]) -> dict[str, Any]:
    """Rename nodes in tables of links, whose entries are nodes, or nodes plus n where a message is lost."""
    links, order, n = np.asarray(xs["links"]), np.argsort(new), len(new)
    renamed = {"links": (new[links % n] + links // n * n)[:, order].astype(links.dtype)}
    renamed |= {"nodes": _renamed(xs["nodes"], new)} if "nodes" in xs else {}
    return xs | renamed | ({"joins": np.asarray(xs["joins"])[:, order]} if "joins" in xs else {})


def _renamed_mixing(mixing: Any, new: Int[np.ndarray, " n"]) -> Any:
    """Reorder the last axes: (n, n) of a matrix, or (n, d) and (n,) of a table."""
    order = np.argsort(new)
    if isinstance(mixing, DenseMixing):
        return DenseMixing(jnp.asarray(np.asarray(mixing.W)[..., order[:, None], order]))
    assert isinstance(mixing, TableMixing)
    neighbors, weights, own = (np.asarray(array) for array in mixing)
    renamed = new[neighbors[..., order, :]], weights[..., order, :], own[..., order]
    return TableMixing(*(jnp.asarray(array) for array in renamed))
