"""Runs that spread a rumour by averaging, and count the nodes that have heard it.

From a model that is one at a single node and zero elsewhere, a node's value is positive if and only if it has heard.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax.observe import Observer, Snapshot, Variable

from ..claim import Assumption
from ..engine import runs

SMALLEST = 1e-290
"""Smaller values are close to underflow, which would lose the rumour."""


def _measure(snapshot: Snapshot) -> dict[str, Any]:
    heard = snapshot.x > 0
    return {"informed": jnp.sum(heard), "smallest": jnp.min(jnp.where(heard, snapshot.x, 1.0))}


def informed() -> Observer:
    """Observe the number of nodes that have heard, and the smallest positive value."""
    variables = Variable("informed", "nodes that have heard"), Variable("smallest", "smallest positive value")
    return Observer(Partial(_measure), variables)


INFORMED = (informed(),)


class Spread(NamedTuple):
    counts: np.ndarray
    """Nodes informed after each event or round, ``(replicas, records)``."""
    messages: np.ndarray
    assumptions: tuple[Assumption, ...]

    def first_all(self, n: int) -> np.ndarray:
        """Return the number of the event, counted from one, after which all nodes have heard."""
        return 1.0 + (self.counts < n).sum(axis=1)


def spread(seed: int, n: int, replicas: int, plan: Any) -> Spread:
    """Let node 0 start a rumour, and record after every event."""
    start = np.zeros(n)
    start[0] = 1.0
    records = runs(seed, replicas, gj.gossip_averaging(), plan, start, INFORMED, every=1)
    counts, late = records["informed"], int((records["informed"][:, -1] < n).sum())
    intact = bool((np.diff(counts, axis=1) >= 0).all() and records["smallest"].min() > SMALLEST)
    smallest = f"a value of {records['smallest'].min():.1e}, or a node forgot"
    assumptions = (
        Assumption("all nodes have heard before the run ends", late == 0, f"not in {late} of {len(counts)} runs"),
        Assumption("values are far above the smallest number", intact, smallest),
    )
    return Spread(counts, records["messages"], assumptions)
