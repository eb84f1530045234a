"""Claim on version age in clusters: a source tells heads, and heads tell the members of their clusters."""

from __future__ import annotations

import numpy as np

import gossipjax as gj
from gossipjax.observe import staleness_matrix
from gossipjax.timeline import clocks, push_gossip

from ... import age as exact
from ..claim import Axis, Claim, Observation, Sampling, each, pointwise
from ..engine import planned_runs, settled
from ._ages import BURN_IN, MEAN_AGE, RECORDS

CLUSTERS, MEMBERS = 3, 5
CLUSTERED: dict[str, float] = {"version_rate": 1.0, "source_rate": 3.0, "head_rate": 2.0, "gossip_rate": 1.5}
INSIDE: tuple[exact.Inside, ...] = ("complete", "ring")


def _clusters(inside: exact.Inside) -> gj.topology.Topology:
    """Connect the source, node 0, to the heads, each head to its members, and the members of each cluster."""
    size = 1 + CLUSTERS + CLUSTERS * MEMBERS
    edges = np.zeros((size, size), bool)
    edges[0, 1 : 1 + CLUSTERS] = True
    graph = gj.topology.ring(MEMBERS) if inside == "ring" else gj.topology.complete(MEMBERS)
    for cluster in range(CLUSTERS):
        first = 1 + CLUSTERS + cluster * MEMBERS
        edges[1 + cluster, first : first + MEMBERS] = True
        edges[first + graph.senders, first + graph.receivers] = True
    senders, receivers = np.nonzero(edges)
    return gj.topology.Topology(size, senders, receivers, directed=True, name=f"clusters, {inside} inside")


def _clustered(seed: int, point: float, replicas: int) -> Observation:
    graph, first = _clusters(INSIDE[int(point)]), 1 + CLUSTERS
    pushes = np.full(graph.num_nodes, CLUSTERED["gossip_rate"])
    pushes[0], pushes[1:first] = CLUSTERED["source_rate"], CLUSTERED["head_rate"]
    versions = np.full(graph.num_nodes, 1e-9)  # a clock needs a rate; the other nodes practically never make a version
    versions[0] = CLUSTERED["version_rate"]
    times = 3.0 * (BURN_IN + np.arange(1, RECORDS + 1))

    def plan(k: int) -> gj.Timeline:
        return push_gossip(graph, float(times[-1]), compute=clocks.poisson(versions), gossip=pushes, seed=k)

    protocol = gj.track_versions(gj.gossip_averaging(), [0], num_nodes=graph.num_nodes)
    records = planned_runs(seed, replicas, protocol, plan, times, np.zeros(graph.num_nodes), [staleness_matrix()])
    ages = records["staleness_matrix"][:, :, first:, 0].mean(axis=2)
    return Observation(ages.mean(axis=1), (settled(ages),))


CLAIMS = (
    Claim(
        "version_age_clustered",
        "In clusters fed by heads a member is v_head + v_member behind, v_head = M λ_e/λ_s (3 clusters of 5).",
        "Buyukates, Bastopcu, Ulukus 2021, arXiv 2109.08669",
        Axis("members: 0 complete graph, 1 ring", (0, 1), (0, 1)),
        MEAN_AGE,
        predict=pointwise(
            lambda which: exact.version_age_clustered(CLUSTERS, MEMBERS, inside=INSIDE[which], **CLUSTERED).member
        ),
        simulate=each(_clustered),
        sampling=Sampling(512, 256),
        catches=("partners drawn uniformly from all nodes", "rates of other nodes"),
    ),
)
