"""Shatter's rounds: virtual nodes, each with one fragment of a model, meet on a fresh random regular graph."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.arguments import whole
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.timeline._checks import seconds_of
from gossipjax.timeline._from_events import planned_event
from gossipjax.timeline._memory import MOST_EVENTS, MOST_NODES, require_room
from gossipjax.timeline._moments import written_times
from gossipjax.types import Timeline

_BLOCK = 1 << 22
"""Ends of edges drawn at once."""


@recorded("biswas2024shatter")
def shatter(
    num_nodes: int,
    num_rounds: int,
    *,
    virtual_nodes: int,
    degree: int,
    seed: int,
    seconds_per_round: float = 1.0,
) -> Timeline:
    """Plan Shatter: every node acts, then each of its virtual nodes sends one fragment of its model to random others.

    Each of the n nodes has k virtual nodes; virtual node c holds fragment c. In every round, all n k virtual nodes form
    a new random r-regular graph. Each sends its fragment to its r neighbours, which forward it to their nodes. Then,
    coordinate by coordinate::

        x_i[c] ← (x_i[c] + Σ y[c]) / (1 + number of them)

    over the received fragments y with coordinate c, with repetition, since two virtual nodes of one node may receive
    from the same third. Virtual nodes do not know to which nodes the others belong: a fragment that reaches its own
    node counts like any other, so the node's own coordinate then has twice the weight. Averaging is one-way, except for
    k = 1: the mean is conserved in expectation only. A message is one fragment; each node sends r k of them a round, r
    models' worth for every k.

    >>> from gossipjax import timeline
    >>> plan = timeline.shatter(6, 10, virtual_nodes=4, degree=3, seed=0)
    >>> plan.xs["members"].shape  # a node and the senders of what it received
    (10, 6, 13)

    Args:
        num_nodes: n; any node can send to any other.
        num_rounds: T ≥ 1; the plan holds 2 T n (1 + r k) int32.
        virtual_nodes: k ≥ 1 per node, the number of fragments in :func:`~gossipjax.sharing.fragments`.
        degree: r, from 1 to n k − 1; n k r must be even.
        seed: of the NumPy generator that draws the graphs, nearly uniformly if r is much smaller than n k.
        seconds_per_round: simulated seconds.

    Raises:
        ValueError: if a setting is out of range, or n k r is odd.

    Reference: Biswas et al. 2024, arXiv 2404.09536 (Shatter). With k = 1 it averages over fresh random regular graphs,
    as EL-Oracle of Epidemic Learning does: de Vos et al. 2023, arXiv 2310.01972.
    """
    _check(num_nodes, num_rounds, virtual_nodes, degree)
    seconds_per_round, rng = seconds_of(seconds_per_round), np.random.default_rng(checked_seed(seed))
    heard = _heard(num_rounds, num_nodes * virtual_nodes, degree, rng)
    xs = _events(heard.reshape(num_rounds, num_nodes, virtual_nodes * degree), virtual_nodes, seconds_per_round)
    sent = virtual_nodes * degree
    alone = virtual_nodes == 1
    properties = Properties(
        num_nodes,
        num_nodes,
        f"shatter(n={num_nodes}, {virtual_nodes} virtual nodes each, degree={degree}, seed={seed}, "
        f"seconds_per_round={seconds_per_round:g})",
        {"synchronous", "own_rows", "row_stochastic"} | ({"symmetric", "doubly_stochastic"} if alone else set()),
        num_fragments=virtual_nodes,
        messages=f"group: a node and the {sent} fragments it received",
    )
    return Timeline(xs, _shared(num_nodes, sent), planned_event, properties, seconds=written_times)


def _events(heard: Int[np.ndarray, "t n s"], virtual_nodes: int, seconds_per_round: float) -> dict[str, np.ndarray]:
    """List for each node itself, then the senders and numbers of the fragments that it receives."""
    rounds, nodes, _ = heard.shape
    own = np.broadcast_to(np.arange(nodes, dtype=np.int32)[:, None], (rounds, nodes, 1))
    index = np.arange(rounds, dtype=np.uint32)[:, None]
    return {
        "index": index,
        "time": (index + 1.0) * seconds_per_round,
        "members": np.concatenate([own, heard // virtual_nodes], axis=2),
        "parts": np.concatenate([np.full_like(own, -1), heard % virtual_nodes], axis=2),
    }


def _shared(nodes: int, sent: int) -> dict[str, Array]:
    """Return the fields that all rounds share; each node sends as many fragments as it receives."""
    return {
        # Equal, and of sum 1, so that a sharing of whole models averages too.
        "weights": jnp.full((nodes, 1 + sent), 1 / (1 + sent)),
        "targets": jnp.arange(nodes, dtype=jnp.int32)[:, None],
        "messages": jnp.full(nodes, sent, jnp.uint32),
    }


def _check(num_nodes: Any, num_rounds: Any, virtual_nodes: Any, degree: Any) -> None:
    whole("num_rounds", num_rounds, least=1, most=MOST_EVENTS)
    total = whole("num_nodes", num_nodes, least=1) * whole("virtual_nodes", virtual_nodes, least=1)
    if total > MOST_NODES:
        raise ValueError(f"num_nodes={num_nodes}, virtual_nodes={virtual_nodes}: at most {MOST_NODES} virtual nodes")
    if total < 2:
        raise ValueError(
            f"num_nodes={num_nodes}, virtual_nodes={virtual_nodes}: a single virtual node has no neighbours; add nodes"
        )
    whole("degree", degree, least=1, most=total - 1, remedy=f"of the {total} virtual nodes")
    if total * degree % 2:
        raise ValueError(
            f"{total} virtual nodes of degree {degree}: their product must be even; add a node or change the degree"
        )
    require_room(num_rounds, 40.0 * total * degree, "rounds", "num_rounds, num_nodes, virtual_nodes, degree")


def _heard(rounds: int, nodes: int, degree: int, rng: np.random.Generator) -> Int[np.ndarray, "rounds nodes degree"]:
    """Draw regular graphs, and list the neighbours of each node."""
    block = max(1, _BLOCK // (nodes * degree))
    counts = [min(block, rounds - first) for first in range(0, rounds, block)]
    dense = 2 * degree >= nodes
    draw = _dense_neighbors if dense else _sparse_neighbors
    return np.concatenate([draw(count, nodes, degree, rng) for count in counts])


def _dense_neighbors(count: int, nodes: int, degree: int, rng: np.random.Generator) -> Int[np.ndarray, "t n r"]:
    """Draw the complement, whose degree is below half the nodes."""
    linked = np.broadcast_to(~np.eye(nodes, dtype=bool), (count, nodes, nodes)).copy()
    absent = nodes - 1 - degree
    if absent:
        others = _sparse_neighbors(count, nodes, absent, rng)
        np.put_along_axis(linked, others, False, axis=2)
    return np.nonzero(linked)[2].astype(np.int32).reshape(count, nodes, degree)


def _sparse_neighbors(count: int, nodes: int, degree: int, rng: np.random.Generator) -> Int[np.ndarray, "t n r"]:
    edges = _regular_graphs(count, nodes, degree, rng)
    ends = edges.reshape(count, -1)
    partners = edges[:, :, ::-1].reshape(count, -1)
    order = np.argsort(ends, axis=1, kind="stable")
    return np.take_along_axis(partners, order, axis=1).reshape(count, nodes, degree)


def _regular_graphs(count: int, nodes: int, degree: int, rng: np.random.Generator) -> Int[np.ndarray, "t m 2"]:
    """Draw simple graphs: pair stubs at random, then repair loops and double edges.

    Each step pairs the bad edges of a graph and as many random edges anew, and is undone if there are more bad edges
    than before, until none is left.
    """
    stubs = np.repeat(np.arange(nodes, dtype=np.int32), degree)
    edges = rng.permuted(np.broadcast_to(stubs, (count, stubs.size)), axis=1).reshape(count, -1, 2)
    bad = _bad(edges, nodes)
    while (broken := np.flatnonzero(bad.any(axis=1))).size:
        tried = _paired_anew(edges[broken], bad[broken], rng)
        still = _bad(tried, nodes)
        better = still.sum(axis=1) <= bad[broken].sum(axis=1)
        edges[broken[better]], bad[broken[better]] = tried[better], still[better]
    return edges


def _bad(edges: Int[np.ndarray, "t m 2"], nodes: int) -> Bool[np.ndarray, "t m"]:
    """Mark loops, and all but one of equal edges."""
    low, high = edges.min(axis=2).astype(np.int64), edges.max(axis=2)
    codes = low * nodes + high
    order = np.argsort(codes, axis=1, kind="stable")
    ordered = np.take_along_axis(codes, order, axis=1)
    repeated = np.zeros(codes.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeated | (low == high)


def _paired_anew(
    edges: Int[np.ndarray, "t m 2"], bad: Bool[np.ndarray, "t m"], rng: np.random.Generator
) -> Int[np.ndarray, "t m 2"]:
    """Shuffle the ends of the bad edges of each graph and of as many random edges."""
    chosen = bad | (rng.random(bad.shape) < bad.mean(axis=1, keepdims=True))
    graph, edge = np.nonzero(chosen)
    graphs = np.repeat(graph, 2)
    order = np.lexsort((rng.random(graphs.size), graphs))
    mended = edges.copy()
    mended[graph, edge] = edges[graph, edge].reshape(-1)[order].reshape(-1, 2)
    return mended
