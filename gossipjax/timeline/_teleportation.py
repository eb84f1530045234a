"""Teleportation: a few models that jump to fresh nodes in every round, and mix among themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.arguments import whole
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.mixing._apply import DenseMixing, TableMixing, messages
from gossipjax.mixing._build import take_mixing
from gossipjax.mixing._stochastic import Matrix
from gossipjax.timeline._checks import matrix_of, seconds_of
from gossipjax.timeline._memory import MOST_EVENTS, MOST_NODES, require_room
from gossipjax.timeline._rounds import planned_mixings, round_ends, rounds
from gossipjax.types import Event, Timeline


def _round(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    nodes = x["nodes"]
    mixing = take_mixing(shared["mixing"], x["index"] % shared["period"])
    index = jnp.broadcast_to(x["index"], nodes.shape)
    ends = (x["index"].astype(jnp.float32) + 1.0) * shared["seconds_per_round"].astype(jnp.float32)
    time = jnp.broadcast_to(ends, nodes.shape)
    slots = shared["slots"]
    return Event(index=index, time=time, nodes=nodes, rows=slots, mixing=mixing, messages=x["messages"], speakers=slots)


@recorded("takezawa2025teleportation")
def teleportation(
    weights: Matrix | Sequence[Matrix],
    num_nodes: int,
    num_rounds: int,
    *,
    seed: int,
    seconds_per_round: float = 1.0,
) -> Timeline:
    """Plan Teleportation: in each round k of n nodes hold the k models, train them, and mix them by a k × k matrix.

    The nodes of a round are drawn uniformly without replacement, in random order; the r-th fetches model r from the
    node that held it in the round before, trains it, and ``y_r ← Σ_s W_rs y_s``. There are k model rows, whatever n is,
    and W is small, so that it may mix well. The protocol is :func:`~gossipjax.random_walk`, whose walks are these
    models; evaluate their average.

    A node sends its model to its neighbours in W, and then to the next node of that model, unless that is itself. Both
    count at the sender; in the last round nobody is next.

    >>> import gossipjax as gj
    >>> plan = gj.timeline.teleportation(gj.mixing.metropolis(gj.topology.ring(4)), 100, 50, seed=0)
    >>> plan.properties.num_nodes, plan.properties.num_rows, "doubly_stochastic" in plan.properties
    (100, 4, True)

    Args:
        weights: mixing matrix ``(k, k)``, or a sequence of them, used in turn; k ≤ n.
        num_nodes: n.
        num_rounds: T ≥ 1.
        seed: of the NumPy generator that draws the nodes.
        seconds_per_round: simulated seconds.

    Raises:
        ValueError: if a number is out of range, rows do not sum to one, or k > n.

    Reference: Takezawa, Stich 2025, arXiv 2501.15259, algorithm 1, in the form of the public simulator of decentralized
        learning by SaCS (EPFL).
    """
    num_rounds = whole("num_rounds", num_rounds, least=1, most=MOST_EVENTS)
    several = isinstance(weights, list | tuple)
    matrices = [matrix_of("weights", each) for each in (weights if several else [weights])]
    plan = rounds(matrices, num_rounds, seconds_per_round=seconds_of(seconds_per_round))
    size, facts = plan.properties.num_rows, plan.properties
    num_nodes = whole("num_nodes", num_nodes, least=size, most=MOST_NODES, remedy=f"one for each of {size} models")
    require_room(num_nodes, 100, "nodes", "num_nodes")
    require_room(len(plan), 24.0 * size + 16.0, "rounds", "num_rounds, weights")
    rng = np.random.default_rng(checked_seed(seed))
    nodes = np.empty((len(plan), size), np.int32)
    for row in nodes:
        row[:] = rng.choice(num_nodes, size, replace=False)
    mixings = cast(DenseMixing | TableMixing, planned_mixings(plan))
    cycle = len(mixings[0])
    sent = np.stack([np.asarray(messages(take_mixing(mixings, t), size)) for t in range(cycle)])
    moves = np.append(nodes[1:] != nodes[:-1], np.zeros((1, size), bool), axis=0)
    xs = plan.xs | {"nodes": nodes, "messages": (sent[plan.xs["index"] % cycle] + moves).astype(np.uint32)}
    shared = {
        "mixing": mixings,
        "period": jnp.uint32(cycle),
        "slots": jnp.arange(size, dtype=jnp.int32),
        "seconds_per_round": plan.shared["seconds_per_round"],
    }
    properties = Properties(
        num_nodes,
        size,
        f"teleportation({size} of {num_nodes}, seed={seed})",
        tags={"walks"} | (facts.tags & {"symmetric", "doubly_stochastic", "row_stochastic", "column_stochastic"}),
        messages=facts.messages,
    )
    return Timeline(xs, shared, _round, properties, seconds=round_ends)
