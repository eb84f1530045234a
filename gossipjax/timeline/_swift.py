"""SWIFT's clocks and mailboxes: no node waits, and each keeps the newest model of every neighbour."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int
from scipy import sparse

from gossipjax._base.arguments import instance, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.mixing._stochastic import Matrix, check_weights
from gossipjax.timeline._checks import matrix_of, undirected
from gossipjax.timeline._from_events import listed
from gossipjax.timeline.clocks import A_CLOCK, Clock, require_ticks, schedule
from gossipjax.timeline.flights import Latency, assign_slots, checked_latency, delays
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Timeline


@recorded("bornstein2023swift")
def swift_weights(topology: Topology) -> sparse.csr_array:
    """Build SWIFT's coefficients for nodes of equal influence: symmetric, so the expected mixing is doubly stochastic.

    Nodes choose in the order of decreasing degree. A node adopts the weights that neighbours of higher degree have
    chosen, and splits the rest evenly between itself and the other neighbours. Neighbours of equal degree take the
    smaller of their two proposals. Each node keeps what is then missing from a sum of one.

    Args:
        topology: undirected.

    Raises:
        ValueError: if the topology is directed, or the weights that a node adopts sum to more than one.

    Reference: Bornstein et al. 2023, arXiv 2210.14026, section 4 (client-communication selection).
    """
    undirected(topology)
    i, j, degrees = topology.receivers, topology.senders, topology.degrees
    weights = np.zeros(i.size)
    left, open_edges = np.ones(topology.num_nodes), degrees.astype(np.int64).copy()
    for degree in np.unique(degrees)[::-1]:
        proposal = left / (open_edges + 1)
        mine = (degrees[i] == degree) & (degrees[j] <= degree)
        theirs = (degrees[j] == degree) & (degrees[i] < degree)
        equal = mine & (degrees[j] == degree)
        weights[mine] = proposal[i[mine]]
        weights[equal] = np.minimum(proposal[i[equal]], proposal[j[equal]])
        weights[theirs] = proposal[j[theirs]]
        np.subtract.at(left, i[theirs], weights[theirs])
        np.subtract.at(open_edges, i[theirs], 1)
        if (left < 0).any():
            raise ValueError(
                f"node {int(np.argmin(left))} of {topology.name} would get weights above 1 in sum from neighbours of "
                "higher degree; pass weights=metropolis(topology)"
            )
    own = 1.0 - np.bincount(i, weights, topology.num_nodes)
    rows = np.concatenate([i, np.arange(topology.num_nodes)])
    columns = np.concatenate([j, np.arange(topology.num_nodes)])
    matrix = sparse.coo_array((np.concatenate([weights, own]), (rows, columns)), shape=(topology.num_nodes,) * 2)
    return check_weights(matrix.tocsr(), "symmetric")


@recorded("bornstein2023swift")
def swift(
    topology: Topology,
    duration: float,
    *,
    compute: Clock,
    period: int = 1,
    latency: Latency = None,
    weights: Matrix | None = None,
    seed: int,
) -> Timeline:
    """Plan SWIFT: at each tick a node acts, sends its model to all neighbours, and averages its mailboxes.

    ::

        x_i ← w_ii x_i + Σ_j w_ij x̃_j        at every ``period``-th tick of node i

    where x̃_j is the model last sent by j that has reached i; until there is one, node i keeps w_ij. One snapshot of a
    sender serves all its neighbours, and stays until no mailbox holds it. A model that arrives at the time of a tick is
    used at that tick. The mean is conserved in expectation only.

    Args:
        topology: undirected.
        duration: simulated seconds.
        compute: clock of the nodes, in equilibrium at time 0; :func:`~gossipjax.timeline.clocks.slowed` makes
            stragglers.
        period: s ≥ 1; a node averages at every s-th tick.
        latency: seconds from sender to receiver: one number, ``(n, n)`` by sender and receiver, or
            ``sampler(rng, size)``; None: 0.
        weights: ``(n, n)`` with rows that sum to one, on the edges of the topology; None: :func:`swift_weights`.
        seed: of the NumPy generators that draw clocks and latencies.

    Raises:
        ValueError: if the topology is directed, a weight is not on an edge, or a setting is out of range.

    Reference: Bornstein et al. 2023, arXiv 2210.14026, algorithm 1.
    """
    n = undirected(topology).num_nodes
    instance("compute", compute, Clock, A_CLOCK)
    period = whole(
        "period", period, least=1, most=2**62, remedy="a node averages at every period-th tick, counted from 1"
    )
    latency, seed = checked_latency(latency, n), checked_seed(seed)
    duration = real("duration", duration, above=0, unit="seconds")
    room = 150.0 + 24.0 * (1 + int(topology.degrees.max()))
    require_ticks(n, duration, "topology, duration, compute", compute, bytes_each=room)
    W = _on_edges(topology, swift_weights(topology) if weights is None else weights)
    of_ticks, of_network = np.random.default_rng(seed).spawn(2)
    times, nodes = schedule(compute, n, duration, of_ticks)[:2]
    averages = _rank_of_node(nodes) % period == period - 1
    reader, place, sent, edge = _mailboxes(topology, times, nodes, averages, latency, of_network)
    rows, num_slots = _snapshot_rows(sent, reader, times.size, n)
    width = int(place.max(initial=-1)) + 2
    members = np.full((times.size, 2, width), NOBODY, np.int32)
    shares = np.zeros(members.shape)
    members[:, :, 0] = nodes[:, None]
    members[reader, 0, place + 1] = rows[sent]
    if reader.size:  # no entry of a sparse matrix is no empty array
        shares[reader, 0, place + 1] = W[topology.receivers[edge], topology.senders[edge]]
    shares[:, 0, 0] = 1.0 - shares[:, 0, 1:].sum(axis=1)
    shares[:, 1, 0] = 1.0
    xs = {
        "time": times,
        "nodes": nodes[:, None],
        "members": members,
        "weights": shares,
        "targets": np.stack([nodes, rows], axis=1)[:, :, None],
        "messages": topology.degrees[nodes].astype(np.uint32)[:, None],
        "speakers": nodes[:, None],
    }
    facts = Properties(
        n,
        n,
        f"swift({topology.name}, period={period})",
        num_slots=num_slots,
        tags={"mailboxes"},
        messages="group: a node and its mailbox",
        graph=_weighted(topology, W).checksum,
    )
    return listed(xs, facts)


def _weighted(topology: Topology, W: sparse.csr_array) -> Topology:
    """Return the graph of the edges with weight: models of other neighbours are not heard."""
    has = np.ravel(W[topology.receivers, topology.senders]) != 0
    return Topology(topology.num_nodes, topology.senders[has], topology.receivers[has], True, topology.name)


def _on_edges(topology: Topology, weights: Any) -> np.ndarray | sparse.csr_array:
    W = check_weights(matrix_of("weights", weights), "row")
    if W.shape[0] != topology.num_nodes:
        raise ValueError(f"weights of shape {W.shape}: {topology.name} has {topology.num_nodes} nodes")
    off = W - sparse.diags_array(W.diagonal())
    elsewhere = abs(off) - abs(off).multiply(topology.adjacency())
    if elsewhere.count_nonzero():
        raise ValueError(f"weights differ from 0 off the edges of {topology.name}; set these to 0")
    return W.tocsr()


def _rank_of_node(nodes: Int[np.ndarray, " ticks"]) -> Int[np.ndarray, " ticks"]:
    """Count the earlier ticks of the same node for each tick."""
    order = np.argsort(nodes, kind="stable")
    counts = np.bincount(nodes, minlength=1)
    rank = np.empty(nodes.size, np.int64)
    rank[order] = np.arange(nodes.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _mailboxes(topology: Topology, times, nodes, averages, latency: Latency, rng: np.random.Generator):
    """Find, for each edge and averaging tick of its receiver, the sender's newest tick whose model has arrived.

    Returns:
        Four vectors, one entry per model that is read: the tick that reads it, the position of the sender among the
        receiver's neighbours, the tick that sent it, and the edge.
    """
    by_node = np.split(np.argsort(nodes, kind="stable"), np.cumsum(np.bincount(nodes, minlength=topology.num_nodes)))
    first = np.searchsorted(topology.receivers, topology.receivers)
    found = []
    for edge, (i, j) in enumerate(zip(topology.receivers, topology.senders, strict=True)):
        sent, readers = by_node[j], by_node[i][averages[by_node[i]]]
        arrivals = times[sent] + delays(latency, rng, np.full(sent.size, j), np.full(sent.size, i))
        there = np.maximum(np.searchsorted(times, arrivals), sent + 1)
        order = np.argsort(there, kind="stable")
        arrived = np.searchsorted(there[order], readers, side="right")
        newest = np.append(-1, np.maximum.accumulate(order))[arrived]
        newest, readers = newest[newest >= 0], readers[newest >= 0]
        found.append((readers, np.full(readers.size, edge - first[edge]), sent[newest], np.full(readers.size, edge)))
    return tuple(np.concatenate(columns).astype(np.int64) for columns in zip(*found, strict=True))


def _snapshot_rows(sent: np.ndarray, reader: np.ndarray, num_ticks: int, n: int) -> tuple[np.ndarray, int]:
    """Return the row that holds each model until it is last read; NOBODY for models that are never read."""
    last = np.full(num_ticks, -1)
    np.maximum.at(last, sent, reader)
    held = np.flatnonzero(last >= 0)
    slots, num_slots = assign_slots(held, last[held])
    rows = np.full(num_ticks, NOBODY, np.int32)
    rows[held] = n + slots
    return rows, num_slots
