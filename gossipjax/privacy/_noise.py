"""Noise on contributions: independent, or shared by pairs of nodes so that it cancels in the mean."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Int

from gossipjax._base.arguments import flag, real
from gossipjax._base.display import displayed
from gossipjax.topology import Topology
from gossipjax.topology._graph import require_undirected


@displayed
@dataclasses.dataclass(frozen=True)
class PairwiseNoise:
    """Noise that neighbours share with opposite signs, and a part of their own."""

    topology: Topology
    sigma: float
    """Standard deviation of the independent part, in every coordinate."""
    sigma_pair: float
    """Standard deviation of what one pair shares."""
    fresh: bool
    """Whether every step has new noise of the pairs."""

    def _facts(self) -> tuple[str, dict[str, Any]]:
        sizes = {"σ": f"{self.sigma:g}", "σ of a pair": f"{self.sigma_pair:g}"}
        return "pairwise noise", sizes | {"fresh": self.fresh}


def pairwise_noise(topology: Topology, std: float, pair_std: float, *, fresh: bool = True) -> PairwiseNoise:
    """Describe the noise of DECOR: node i adds ``z_i + Σ_j v_ij`` to a step, where neighbours have ``v_ji = −v_ij``.

    The sum over all nodes is that of the z alone. Per step, an eavesdropper gains ``μ² = Δ² max_i (Σ⁻¹)_ii`` with
    ``Σ = σ² I + σ_p² L``, L the Laplacian. If the same v_ij serve in every step (``fresh=False``), they cancel in
    differences of messages: over T ≥ 2 steps the exact μ² is ``T Δ²/σ²``, as without any noise of the pairs.

    >>> import gossipjax as gj
    >>> gj.privacy.pairwise_noise(gj.topology.ring(4), 1.0, 1.0).fresh
    True

    Args:
        topology: undirected; both ends of an edge know its noise.
        std: σ > 0.
        pair_std: σ_p of v_ij, at least 0.
        fresh: whether v_ij is drawn anew for every step.

    Raises:
        TypeError: if topology is not a topology.
        ValueError: if it is directed, or a number is out of range.

    Reference: Allouah, Koloskova, El Firdoussi, Jaggi, Guerraoui 2024, arXiv 2405.01031.
    """
    require_undirected(topology)
    own = real("std", std, above=0, remedy="without noise of its own, the mean of all nodes is not protected")
    return PairwiseNoise(topology, own, real("pair_std", pair_std, least=0), flag("fresh", fresh))


class Factor(NamedTuple):
    """``noise of the contributions = F z`` with z of independent standard normals."""

    F: sp.csc_array
    owners: Int[np.ndarray, "z 2"]
    """The nodes that know each entry of z; −1 where there is no second one."""

    def unknown_to(self, nodes: tuple[int, ...]) -> Bool[np.ndarray, " z"]:
        """Return which entries of z none of the nodes knows."""
        return np.logical_not(np.any(np.isin(self.owners, nodes), axis=1))


def factor_of(noise: PairwiseNoise, node: Int[np.ndarray, " c"], number: Int[np.ndarray, " c"]) -> Factor:
    """Write the noise of all contributions as a matrix.

    Args:
        noise: of pairs.
        node: of each contribution.
        number: of the step among those of its node.
    """
    count, n = len(node), noise.topology.num_nodes
    steps = int(number.max(initial=0)) + 1
    period = steps if noise.fresh else 1
    up = noise.topology.senders < noise.topology.receivers
    ends = np.stack([noise.topology.senders[up], noise.topology.receivers[up]], axis=1).astype(np.int64)
    column = np.full((steps, n), -1)
    column[number, node] = np.arange(count)
    rows, columns, values = [np.arange(count)], [np.arange(count)], [np.full(count, noise.sigma)]
    for step in range(steps):
        for side, sign in ((0, 1.0), (1, -1.0)):
            place = column[step, ends[:, side]]
            there = place >= 0
            rows.append(place[there])
            columns.append(count + (step % period) * len(ends) + np.flatnonzero(there))
            values.append(np.full(int(there.sum()), sign * noise.sigma_pair))
    shape = (count, count + period * len(ends))
    F = sp.csc_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)
    own = np.stack([node, np.full(count, -1)], axis=1)
    return Factor(F, np.concatenate([own, np.tile(ends, (period, 1))]))
