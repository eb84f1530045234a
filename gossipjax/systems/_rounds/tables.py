"""Who sends to whom in each round, and the mixing weights of receivers: padded tables of neighbours, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Int32
from scipy import sparse

from gossipjax._base.arguments import instance, shown
from gossipjax.mixing._build import from_matrix, stack_mixings
from gossipjax.mixing._stochastic import Matrix
from gossipjax.mixing._weights import uniform
from gossipjax.timeline._checks import checked_weights
from gossipjax.topology import Topology, random_regular

Weights: TypeAlias = Matrix | Topology | Sequence[Matrix] | Sequence[Topology]
"""Mixing matrices; or topologies, whose nodes take the plain mean of their own model and those that they receive."""

_REMEDY = "pass a topology, such as gossipjax.topology.ring(8), a matrix of gossipjax.mixing, or a list of these"


class Tables(NamedTuple):
    """Tables of p rounds, which repeat: the senders of each node, padded with the node itself."""

    neighbors: Int32[np.ndarray, "p n d"]
    weights: Float[np.ndarray, "p n d"] | None
    """None: the mean of the own model and of all that came."""
    self_weight: Float[np.ndarray, "p n"] | None
    matrices: tuple[Matrix, ...]
    """The same as matrices, where there are few."""


def tables_of(weights: Weights, num_nodes: int) -> Tables:
    """Read tables off matrices or topologies.

    Raises:
        ValueError: if there are no tables, the number of nodes differs, or rows do not sum to one.
    """
    given: list[Any] = list(weights) if isinstance(weights, (list, tuple)) else [weights]
    if not given:
        raise ValueError("weights is an empty sequence; pass at least one mixing matrix or topology")
    for entry in given:
        instance("weights", entry, (Topology, np.ndarray, sparse.sparray, sparse.spmatrix), _REMEDY)
        if not isinstance(entry, Topology) and (entry.ndim != 2 or entry.shape[0] != entry.shape[1]):
            raise ValueError(f"weights={shown(entry)}: a mixing matrix must be square, (n, n)")
    plain = [isinstance(entry, Topology) for entry in given]
    if any(plain) and not all(plain):
        raise ValueError(
            "weights mixes topologies and matrices; pass gossipjax.mixing.uniform(topology) for the former"
        )
    sizes = [entry.num_nodes if isinstance(entry, Topology) else entry.shape[0] for entry in given]
    for size in sizes:
        if size != num_nodes:
            raise ValueError(f"weights of {size} nodes for {num_nodes} devices: build both for the same number")
    matrices = tuple(uniform(entry) if isinstance(entry, Topology) else entry for entry in given)
    completed = [checked_weights("weights", matrix, "row") for matrix in matrices]
    stacked: Any = stack_mixings([from_matrix(matrix, form="table") for matrix in completed])
    neighbors = np.asarray(stacked.neighbors, np.int32)
    if all(plain):
        return Tables(neighbors, None, None, matrices)
    return Tables(neighbors, np.asarray(stacked.weights), np.asarray(stacked.self_weight), matrices)


def heard(tables: Tables, r: int) -> Bool[np.ndarray, "n d"]:
    """Return which entries of round r are messages, not padding."""
    neighbors = tables.neighbors[r]
    own = np.arange(len(neighbors), dtype=np.int32)[:, None]
    live = neighbors != own
    return live if tables.weights is None else live & (tables.weights[r] != 0)


def local_tables(num_nodes: int, fanout: int, num_rounds: int, rng: np.random.Generator) -> Tables:
    """Draw EL-Local: in each round every node sends to ``fanout`` uniform others, independently."""
    rounds = [_local_round(num_nodes, fanout, rng) for _ in range(num_rounds)]
    return Tables(_padded(rounds), None, None, ())


def oracle_tables(num_nodes: int, fanout: int, num_rounds: int, rng: np.random.Generator) -> Tables:
    """Draw EL-Oracle: in each round a fresh random regular graph."""
    graphs = (random_regular(num_nodes, fanout, seed=int(rng.integers(2**31)), tries=100) for _ in range(num_rounds))
    neighbors = np.stack([graph.senders.reshape(num_nodes, fanout) for graph in graphs])
    return Tables(neighbors.astype(np.int32), None, None, ())


def _local_round(n: int, fanout: int, rng: np.random.Generator) -> np.ndarray:
    """Collect the senders that chose each node in its row, in increasing order."""
    chosen = np.argpartition(rng.random((n, n - 1), np.float32), fanout - 1, axis=1)[:, :fanout].astype(np.int32)
    own = np.arange(n, dtype=np.int32)[:, None]
    receivers = (chosen + (chosen >= own)).ravel()
    senders = np.repeat(own.ravel(), fanout)
    order = np.argsort(receivers, kind="stable")
    degrees = np.bincount(receivers, minlength=n)
    lane = np.arange(receivers.size) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    table = np.broadcast_to(own, (n, max(1, int(degrees.max())))).copy()
    table[receivers[order], lane] = senders[order]
    return table


def _padded(rounds: list[np.ndarray]) -> Int32[np.ndarray, "p n d"]:
    n, width = len(rounds[0]), max(table.shape[1] for table in rounds)
    own = np.arange(n, dtype=np.int32)[None, :, None]
    whole = np.broadcast_to(own, (len(rounds), n, width)).copy()
    for number, table in enumerate(rounds):
        whole[number, :, : table.shape[1]] = table
    return whole


def with_losses(tables: Tables, r: int, arrived: Bool[np.ndarray, "n d"], keep: bool) -> dict[str, np.ndarray]:
    """Remove messages that did not arrive from a round.

    Args:
        tables: of all rounds.
        r: which.
        arrived: which entries arrived.
        keep: the own model takes the weight of what is missing; else all that is there grows in proportion.

    Returns:
        Fields of a table mixing; without weights, where means are plain.
    """
    neighbors = tables.neighbors[r]
    own = np.arange(len(neighbors), dtype=np.int32)[:, None]
    live = arrived & heard(tables, r)
    if tables.weights is None or tables.self_weight is None:
        return {"neighbors": np.where(live, neighbors, own)}
    lost = (heard(tables, r) & ~live).any(1)
    weights = np.where(live, tables.weights[r], 0.0)
    self_weight = tables.self_weight[r]
    if keep:
        missing = np.where(live, 0.0, tables.weights[r]).sum(1)
        return _table(neighbors, weights, np.where(lost, self_weight + missing, self_weight))
    total = np.where(lost, self_weight + weights.sum(1), 1.0)
    alone = total <= 0  # nothing of positive weight is left: the own model stays as it is
    total = np.where(alone, 1.0, total)
    weights, self_weight = weights / total[:, None], np.where(alone, 1.0, self_weight / total)
    return _table(neighbors, np.where(alone[:, None], 0.0, weights), self_weight)


def _table(neighbors: np.ndarray, weights: np.ndarray, self_weight: np.ndarray) -> dict[str, np.ndarray]:
    return {"neighbors": neighbors, "weights": weights, "self_weight": self_weight}


def requests_of(tables: Tables, r: int) -> tuple[Int[np.ndarray, " x"], Int[np.ndarray, " x"], Int[np.ndarray, " x"]]:
    """List the messages of a round by sender, then receiver: senders, receivers, and the lane of the table."""
    receivers, lanes = np.nonzero(heard(tables, r))
    senders = tables.neighbors[r][receivers, lanes]
    order = np.lexsort((receivers, senders))
    return senders[order], receivers[order].astype(np.int32), lanes[order]
