"""The networks, the splits of data and the faults of a review."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from gossipjax import mixing, topology
from gossipjax.timeline import activity, changing_rounds, losses, rounds
from gossipjax.topology import Topology
from gossipjax.types import Timeline

FAULTS = ("20 % loss", "churn", "stragglers × 10", "one crash")
_GRAPHS = ("ring", "torus", "random regular", "complete")
"""Those that are undirected and stay as they are."""


def graph(network: str, num_nodes: int, seed: int) -> Topology | None:
    """Return the graph of a network that has one undirected graph; None for the others."""
    if network not in _GRAPHS:
        return None
    if network == "torus":
        rows = max(r for r in range(1, int(num_nodes**0.5) + 1) if num_nodes % r == 0)
        return topology.torus(rows, num_nodes // rows)
    if network == "random regular":
        return topology.random_regular(num_nodes, 4, seed=seed)
    return {"ring": topology.ring, "complete": topology.complete}[network](num_nodes)


def matrices(network: str, num_nodes: int, seed: int) -> list[sparse.csr_array]:
    """Return the mixing matrices of a network, which are used in turn."""
    fixed = graph(network, num_nodes, seed)
    if fixed is not None:
        return [mixing.metropolis(fixed)]
    if network == "exponential":
        return [mixing.uniform(topology.exponential(num_nodes))]
    if network == "one-peer":
        return [mixing.uniform(each) for each in topology.one_peer_exponential(num_nodes)]
    return mixing.base_graph(num_nodes)


def plan(network: str, num_nodes: int, num_rounds: int, fault: str, seed: int) -> Timeline:
    """Plan the rounds of a network, with a fault or without.

    All networks whose matrix is fixed share one compiled program, and so do those that change.
    """
    if not fault:
        cycle = matrices(network, num_nodes, seed)
        return rounds(cycle[0] if len(cycle) == 1 else cycle, num_rounds, form="dense")
    fixed = graph(network, num_nodes, seed)
    assert fixed is not None
    return changing_rounds(fixed, num_rounds, **_fault(fault, num_nodes, num_rounds, seed))


def _fault(fault: str, n: int, num_rounds: int, seed: int) -> dict[str, Any]:
    if fault == "20 % loss":
        return {"loss": losses.independent(0.2, seed=seed)}
    if fault == "churn":
        return {"activity": activity.markov(8.0, 2.0, seed=seed)}
    active = np.ones((num_rounds, n), bool)
    if fault == "one crash":
        active[num_rounds // 2 :, 0] = False
    else:
        slow = max(n // 5, 1)
        active[:, :slow] = (np.arange(num_rounds) % 10 == 0)[:, None]
    return {"activity": activity.listed(active)}
