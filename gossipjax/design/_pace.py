"""Seconds per round of a network on devices: as planned message by message, and by a formula that is a screen only."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gossipjax._base.arguments import whole
from gossipjax._base.calls import recorded
from gossipjax.devices import Devices
from gossipjax.systems import Machines
from gossipjax.systems._kernel.bandwidth import Bandwidth, capacities
from gossipjax.systems._kernel.exchange import alone_rates
from gossipjax.systems._kernel.machines import checked_system, train_seconds_of
from gossipjax.systems._rounds.barrier import barrier_rounds
from gossipjax.systems._rounds.clocked import Learning
from gossipjax.systems._rounds.tables import Tables
from gossipjax.topology import Topology
from gossipjax.topology._graph import require_undirected


class Site(NamedTuple):
    """Devices, and what a round costs each of them."""

    machines: Machines
    learning: Learning
    samples: int
    """That a node processes in a round."""

    @property
    def num_nodes(self) -> int:
        """Number of nodes n."""
        return self.learning.train_seconds.size


def site_of(devices: Any, model_bytes: Any, local_steps: Any, time_batch: Any, bandwidth: Any) -> Site:
    """Check the arguments that scores share.

    Raises:
        ValueError: if a number is out of range, or the devices are not always online.
        TypeError: if ``devices`` are neither devices nor machines.
    """
    machines = checked_system(devices, time_batch=time_batch, bandwidth=bandwidth)
    if isinstance(devices, Devices) and devices.availability is not None:
        raise ValueError(
            "devices: come and go, and the pace of a few rounds does not tell that of the next; pass "
            "gossipjax.devices.with_availability(devices, None)"
        )
    if not np.all(machines.online):
        raise ValueError("devices: some are offline, and would be waited for; leave them out")
    size = whole("model_bytes", model_bytes, least=1, most=2**53)
    steps = whole("local_steps", local_steps, least=1, most=2**53)
    limits = capacities(machines.upload_bytes_per_second, machines.download_bytes_per_second)
    return Site(
        machines,
        Learning(train_seconds_of(machines, steps, time_batch), float(size), bandwidth, limits),
        steps * time_batch,
    )


def seconds_per_round(
    devices: Devices | Machines,
    graph: Topology,
    *,
    model_bytes: int,
    local_steps: int,
    time_batch: int = 1,
    bandwidth: Bandwidth = "greedy",
    num_rounds: int = 32,
) -> float:
    """Plan rounds behind barriers, as :func:`gossipjax.systems.synchronous` does; return their pace in the long run.

    The mean over the second half of the rounds. Where links are shared it may drift for hundreds of rounds, as nodes
    that are behind and nodes that are ahead come to send at other times: 32 rounds were seen to be off by up to a
    factor of two. Compare with ``num_rounds=1000`` before you rely on seconds.

    Args:
        devices: of n nodes, always online.
        graph: undirected.
        model_bytes: of one message.
        local_steps: E.
        time_batch: b, samples of a step in the training time.
        bandwidth: how it is shared, see :func:`gossipjax.systems.plexus`.
        num_rounds: R ≥ 2 rounds are planned.

    Raises:
        ValueError: if a number is out of range, devices come and go, or the graph is directed or of another size.
    """
    site = site_of(devices, model_bytes, local_steps, time_batch, bandwidth)
    adjacency = adjacency_of(graph, site.num_nodes)
    return pace_of(planned_ends(site, adjacency, whole("num_rounds", num_rounds, least=2)))


@recorded("marfoq2020topology")
def equal_split(
    devices: Devices | Machines,
    graph: Topology,
    *,
    model_bytes: int,
    local_steps: int,
    time_batch: int = 1,
    bandwidth: Bandwidth = "greedy",
) -> float:
    """Estimate the seconds per round by a formula: every node splits its bandwidth equally among its neighbours.

    A model of M bytes goes from j to i in ``τ_ji = max(k_j M/u_j, k_i M/d_i)`` seconds, with the degrees k; unlimited
    bandwidth has k = 1. If node j trains for c_j seconds, a round takes in the long run the largest mean over the
    cycles of the graph of the weights ``c_j + τ_ji`` on its links and c_i on loops. Exact for unlimited bandwidth. For
    shared links it errs to both sides by some tenths, which is good enough to pass over a graph and not to choose one.

    Args:
        devices: as in :func:`seconds_per_round`.
        graph: as in :func:`seconds_per_round`.
        model_bytes: as in :func:`seconds_per_round`.
        local_steps: as in :func:`seconds_per_round`.
        time_batch: as in :func:`seconds_per_round`.
        bandwidth: as in :func:`seconds_per_round`.

    Raises:
        ValueError: as :func:`seconds_per_round`.

    Reference: Marfoq, Xu, Neglia, Vidal 2020, arXiv 2010.12229 (the form of the delays is recalled, not
    looked up); Karp 1978, "A characterization of the minimum cycle mean in a digraph" (recalled).
    """
    site = site_of(devices, model_bytes, local_steps, time_batch, bandwidth)
    return screen(site, adjacency_of(graph, site.num_nodes))


def adjacency_of(graph: Any, num_nodes: int) -> Bool[np.ndarray, "n n"]:
    """Return the adjacency matrix of an undirected graph of so many nodes.

    Raises:
        ValueError: if it is directed or has another number of nodes.
    """
    graph = require_undirected(graph, "graph")
    if graph.num_nodes != num_nodes:
        raise ValueError(f"graph={graph.name} has {graph.num_nodes} nodes for {num_nodes} devices: make them equal")
    adjacency = np.zeros((num_nodes, num_nodes), bool)
    adjacency[graph.receivers, graph.senders] = True
    return adjacency


def planned_ends(site: Site, adjacency: Bool[np.ndarray, "*p n n"], num_rounds: int) -> Float[np.ndarray, " r"]:
    """Plan rounds on a graph, or on a cycle of them; return when the last node ends each round."""
    cycle = adjacency.reshape(-1, *adjacency.shape[-2:])
    n, degrees = cycle.shape[-1], cycle.sum(-1)
    neighbors = np.tile(np.arange(n, dtype=np.int32)[:, None], (len(cycle), 1, max(1, int(degrees.max()))))
    number, receivers, senders = np.nonzero(cycle)
    first = (np.cumsum(degrees) - degrees.ravel()).reshape(degrees.shape)
    neighbors[number, receivers, np.arange(receivers.size) - first[number, receivers]] = senders
    tables = Tables(neighbors, None, None, ())
    return barrier_rounds(tables, site.machines, num_rounds, site.learning).end_s.max(axis=1)


def pace_of(ends: Float[np.ndarray, " r"]) -> float:
    """Return the mean length of the second half of some rounds."""
    half = len(ends) // 2
    return float((ends[-1] - ends[-1 - half]) / half)


def screen(site: Site, adjacency: Bool[np.ndarray, "*p n n"]) -> float:
    """Compute :func:`equal_split` of an adjacency matrix; or of a cycle of them, from the product of their delays.

    Times of rounds are products of the delays in the algebra of max and +, so p rounds are one of the product.
    """
    cycle = adjacency.reshape(-1, *adjacency.shape[-2:])
    D = delays(site, cycle[0])
    for each in cycle[1:]:
        D = (delays(site, each)[:, :, None] + D).max(axis=1)
    return cycle_mean(D) / len(cycle)


def delays(site: Site, adjacency: Bool[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Return seconds from the beginning of a round at j to its end at i, if bandwidth is split equally; else −∞."""
    seconds, size, limits = site.learning.train_seconds, site.learning.message_bytes, site.learning.limits
    receivers, senders = np.nonzero(adjacency)
    if site.learning.bandwidth == "unlimited":
        way = size / alone_rates(senders, receivers, limits)
    else:
        sent, received = adjacency.sum(0), adjacency.sum(1)
        way = size * np.maximum(sent[senders] / limits.up[senders], received[receivers] / limits.down[receivers])
    D = np.full(adjacency.shape, -np.inf)
    D[receivers, senders] = seconds[senders] + way
    np.fill_diagonal(D, seconds)
    return D


def cycle_mean(D: Float[np.ndarray, "n n"]) -> float:
    """Compute the largest mean weight of a cycle; ``D[i, j]`` is the weight of j → i, and every node has a loop.

    Karp 1978: it is ``max_v min_{k < n} (F_n(v) − F_k(v)) / (n − k)``, F_k(v) the heaviest walk of k edges to v.
    """
    n = len(D)
    to, off = np.nonzero(np.isfinite(D))
    weights, starts = D[to, off], np.searchsorted(to, np.arange(n))
    F = np.zeros((n + 1, n))
    for k in range(n):
        F[k + 1] = np.maximum.reduceat(weights + F[k, off], starts)
    return float(((F[n] - F[:n]) / (n - np.arange(n))[:, None]).min(axis=0).max())
