"""Checks of arguments that builders of timelines share."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import scipy.sparse as sp

from gossipjax._base.arguments import instance, real, reals, shown
from gossipjax.mixing._stochastic import Matrix, check_weights
from gossipjax.topology import Topology


def connected(topology: Any, name: str = "topology") -> Topology:
    """Return the topology, after a check that it has an edge.

    Raises TypeError if it is not a topology, ValueError if it has fewer than two nodes or no edge.
    """
    instance(name, topology, Topology, "build one with gossipjax.topology, such as ring(8)")
    if topology.num_nodes < 2 or topology.senders.size == 0:
        raise ValueError(f"{topology.name} has no edge: meetings need at least two connected nodes")
    return topology


def undirected(topology: Any, name: str = "topology") -> Topology:
    """Return the topology, after a check that it is undirected.

    Raises as :func:`connected` does, and ValueError if it is directed.
    """
    if connected(topology, name).directed:
        raise ValueError(
            f"{topology.name} is directed; averaging is mutual, so pass an undirected topology, or use "
            "timeline.directed_push with push_sum or sgp"
        )
    return topology


def share_of(weight: Any) -> float:
    """Return a received model's share in an average, in (0, 1]."""
    return real("weight", weight, above=0, most=1, remedy="the received model's share in the average")


def seconds_of(seconds_per_round: Any) -> float:
    """Return the length of a round."""
    return real("seconds_per_round", seconds_per_round, above=0, unit="seconds")


def matrix_of(name: str, weights: Any) -> Matrix:
    """Return a square matrix of finite numbers; the sums are not checked.

    Raises TypeError if it is not a matrix (such as the topology itself), ValueError if it is not square and finite.
    """
    if isinstance(weights, Topology):
        raise TypeError(f"{name}={weights.name}: must be a mixing matrix; build one with mixing.metropolis")
    if not (sp.issparse(weights) or isinstance(weights, np.ndarray | jax.Array)):
        remedy = "a matrix (n, n) such as mixing.metropolis(topology.ring(8)), or a list of them"
        raise TypeError(f"{name}={shown(weights)}: must be {remedy}, not {type(weights).__name__}")
    if not sp.issparse(weights):
        reals(name, weights, shape=(None, None), remedy="a mixing matrix (n, n)")
        weights = np.asarray(weights)
    if weights.shape[0] != weights.shape[1] or not weights.shape[0]:
        raise ValueError(f"{name} of shape {weights.shape}: must be square, one row and column per node")
    return weights


def checked_weights(name: str, weights: Matrix, kind: str) -> sp.csr_array:
    """Check the sums of a mixing matrix, which may have negative weights; return it in float64.

    Raises ValueError with the name of the argument: see :func:`gossipjax.mixing.check_weights`.
    """
    try:
        return check_weights(weights, kind, allow_negative=True)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
