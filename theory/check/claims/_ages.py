"""Runs that measure version age: how many versions the nodes of a network are behind an external source."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import gossipjax as gj
from gossipjax.observe import staleness_matrix
from gossipjax.timeline import version_age

from ... import age as exact
from ..claim import Observation
from ..engine import paced, runs, settled

PAPER = "Yates 2021, arXiv 2102.02893"
MEAN_AGE = "mean version age, versions"
UNIT: dict[str, Any] = {"version_rate": 1.0, "source_rate": 1.0, "gossip_rate": 1.0}
"""λ_e, λ_s and λ: versions, pushes of the source, and pushes of each node, per second."""
BURN_IN, RECORDS = 6, 12
"""In units of the mean age; only a network without gossip needs more, because its ages are nearly exponential."""


class Ages(NamedTuple):
    values: np.ndarray
    """``(replicas, records, nodes)``, versions."""
    assumptions: tuple[Any, ...]

    def observed(self, samples: np.ndarray) -> Observation:
        """Average samples ``(replicas, records, …)`` over records."""
        return Observation(samples.mean(axis=1), self.assumptions)


def ages_of(
    seed: int, peers: Any, replicas: int, mean: float, *, rates: Any = UNIT, burn_in: int = BURN_IN, records=RECORDS
) -> Ages:
    """Record the ages of all nodes after equal numbers of events, about one mean age apart.

    All clocks are Poisson clocks of constant rate, so ages after a given number of events have the same law as ages at
    a given time.
    """
    n = peers if isinstance(peers, int) else peers.num_nodes
    pushes = rates["source_rate"] + float(np.sum(np.broadcast_to(rates["gossip_rate"], n)))
    total = pushes + rates["version_rate"]
    every = int(np.ceil(mean / rates["version_rate"] * total))
    events = every * (burn_in + records)
    duration = (events + 6 * np.sqrt(events) + 100) / total
    plans = [version_age(peers, duration, seed=seed * 100_003 + k, **rates)[:events] for k in range(replicas)]
    protocol = gj.track_versions(gj.gossip_averaging(), [n], num_nodes=n + 1)
    measured = runs(seed, replicas, protocol, plans, np.zeros(n + 1), [staleness_matrix()], every=every)
    ages = measured["staleness_matrix"][:, burn_in:, :n, 0]
    sent = paced(measured["messages"][:, -1], events * pushes / total)
    return Ages(ages, (settled(ages.mean(axis=2)), sent))


def rough_age(graph: str, n: int) -> float:
    """Return a rough mean age at unit rates, which sets the length of a run."""
    known = {"complete": exact.version_age_complete, "ring": exact.version_age_ring}
    if graph in known:
        return known[graph](n, **UNIT)
    return 1.2 * n ** (1 / 3) if graph == "torus" else 1.5 * np.log(n)


def peers_of(graph: str, n: int) -> Any:
    """Return the network without its source; a number means that all nodes are peers."""
    side = round(n**0.5)
    makers = {
        "complete": lambda: n,
        "ring": lambda: gj.topology.ring(n),
        "torus": lambda: gj.topology.torus(side, side),
        "random regular": lambda: gj.topology.random_regular(n, 4, seed=n, tries=20),
    }
    return makers[graph]()
