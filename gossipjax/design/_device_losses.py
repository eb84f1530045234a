"""What is left of a design when a device is lost: every network is scored again without each of its nodes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from gossipjax._base.arguments import instance
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax.design._cycles import links_of
from gossipjax.design._pace import Site, adjacency_of
from gossipjax.design._score import Problem, graph_of, rounds_of, rounds_of_cycle, score_of
from gossipjax.design._search import Design, connected
from gossipjax.design._sequence import SequenceDesign
from gossipjax.design._targets import SYMMETRIC, checked_matrix, checked_target
from gossipjax.systems._kernel.machines import always_online
from gossipjax.topology import Topology

if TYPE_CHECKING:
    from pandas import DataFrame

DESIGNED = "designed"


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class DeviceLosses:
    """Seconds to the target without each of the devices.

    Attributes:
        with_all: seconds of each network with all devices; the design is the first, then the usual ones, best first.
        seconds: ``(n,)`` of each network, without the node of this number; infinite: it does not get there, or a
            fixed graph falls apart.
    """

    with_all: dict[str, float]
    seconds: dict[str, Float[np.ndarray, " n"]]

    @property
    def ratios(self) -> Float[np.ndarray, " n"]:
        """Seconds of the best usual network without each node over those of the design; above 1: the design is faster.

        NaN where nothing gets there.
        """
        usual = np.min([each for name, each in self.seconds.items() if name != DESIGNED], axis=0)
        with np.errstate(invalid="ignore"):  # ∞/∞
            return usual / self.seconds[DESIGNED]

    def summary(self) -> str:
        """Say in a line for each network how much the loss of one device costs, and whose loss ends it."""
        ratios = self.ratios
        tied = np.isclose(ratios, 1, rtol=1e-9, atol=0)  # plans of one network differ by rounding
        ahead = np.sum((ratios > 1) & ~tied)
        best = f"the design is faster than the best usual network after {ahead} of {ratios.size} losses"
        best += f", and as fast after {tied.sum()}" if tied.any() else ""
        return "\n".join([best, *(f"  {name}: {self._line(name)}" for name in self.with_all)])

    def table(self) -> DataFrame:
        """Return seconds by lost node (rows) and network (columns)."""
        import pandas as pd

        return pd.DataFrame(self.seconds).rename_axis(index="lost node")

    def _line(self, name: str) -> str:
        seconds = self.seconds[name]
        there = seconds[np.isfinite(seconds)]
        ended = np.flatnonzero(np.isinf(seconds)).tolist()
        words = f"{self.with_all[name]:,.4g} s with all"
        if there.size:
            words += f", {np.median(there):,.4g} s in the median without one, {there.max():,.4g} s at worst"
        return words + (f"; never without {', '.join(map(str, ended))}" if ended else "")

    def _facts(self) -> tuple[str, dict[str, Any]]:
        seconds = self.seconds[DESIGNED]
        return self._line(DESIGNED), {"nodes": seconds.size}


@recorded("meyer1989complementation")
def device_losses(result: Design | SequenceDesign) -> DeviceLosses:
    """Score a design and the usual networks again without each of the devices: what if one of them dies?

    The others go on without it, from the start. A fixed graph loses the node and its edges, and mixing weights are
    those of the graph that is left; one that is left in parts counts as never getting there. Matrices that change from
    round to round are replaced by their stochastic complements, ``W_jk + W_ji W_ik / (1 − W_ii)`` for the lost node i:
    what i relayed is sent directly. They stay doubly stochastic, a pair whose other node is lost pauses, and the mean
    of a group is that of those who are left; a node may then have more peers in a round than ``max_degree``. The target
    is that of n − 1 nodes.

    Args:
        result: of :func:`network` or :func:`sequence`, for three devices or more.

    Raises:
        TypeError: if it is no design.
        ValueError: if there are two devices, or the target does not say what to ask for without a node.

    Reference: Meyer 1989, "Stochastic complementation, uncoupling Markov chains, and the theory of nearly reducible
        systems" (recalled).
    """
    instance("result", result, (Design, SequenceDesign), "of gossipjax.design.network or sequence")
    problem = result.problem
    n = problem.site.num_nodes
    if n < 3:
        raise ValueError(f"result: has {n} devices, and one alone has nothing to agree on; design for three or more")
    smaller = [_without(problem, node) for node in range(n)]
    networks = {name: _graph_if_fixed(problem, network) for name, network in contenders(result).items()}
    with_all = {DESIGNED: result.score.seconds} | {name: score.seconds for name, score in result.standard.items()}
    seconds = {
        name: np.array([_seconds(each, networks[name], node) for node, each in enumerate(smaller)]) for name in with_all
    }
    return DeviceLosses(with_all, seconds)


def contenders(result: Design | SequenceDesign) -> dict[str, Topology | list[sparse.csr_array]]:
    """Return the networks of a design: its own, and the usual ones that reach the target."""
    if isinstance(result, Design):
        return {DESIGNED: result.graph, **{name: result.standard_graphs[name] for name in result.standard}}
    return {DESIGNED: result.matrices, **{name: result.standard_networks[name] for name in result.standard}}


def complement(cycle: Float[np.ndarray, "p n n"], node: int) -> Float[np.ndarray, "p m m"]:
    """Remove a node from doubly stochastic matrices."""
    left = np.delete(np.delete(cycle, node, axis=1), node, axis=2)
    to, come = np.delete(cycle[:, :, node], node, axis=1), np.delete(cycle[:, node], node, axis=1)
    rest = 1 - cycle[:, node, node]
    busy = np.abs(rest) > np.finfo(float).eps
    return left + np.where(busy, 1 / np.where(busy, rest, 1), 0)[:, None, None] * to[:, :, None] * come[:, None, :]


def _without(problem: Problem, node: int) -> Problem:
    site, target = problem.site, problem.target
    if target.without is None:
        raise ValueError(
            f"target={target.name}: has no without(node), so lost devices have no score; give it one that returns the "
            "target of the others"
        )
    smaller = checked_target(target.without(node))
    fields: dict[str, Any] = {name: np.delete(getattr(site.machines, name), node) for name in _BY_NODE}
    machines = site.machines._replace(**fields, transitions=always_online)
    learning = site.learning
    limits = type(learning.limits)(*(np.delete(each, node) for each in learning.limits))
    learning = learning._replace(train_seconds=np.delete(learning.train_seconds, node), limits=limits)
    return dataclasses.replace(problem, site=Site(machines, learning, site.samples), target=smaller)


_BY_NODE = ("seconds_per_sample", "upload_bytes_per_second", "download_bytes_per_second", "online")


def _graph_if_fixed(problem: Problem, network: Topology | list[sparse.csr_array]) -> Any:
    """Return the graph of a sequence of one matrix that has the weights of its graph: it loses edges, as graphs do."""
    if isinstance(network, Topology) or len(network) > 1:
        return network
    W = network[0].toarray()
    if np.abs(W - W.T).max() > SYMMETRIC:
        return network
    graph = graph_of(links_of(W[None])[0], "the only round")
    return graph if np.abs(checked_matrix(problem.weights(graph), graph) - W).max() <= SYMMETRIC else network


def _seconds(problem: Problem, network: Topology | list[sparse.csr_array], node: int) -> float:
    if isinstance(network, Topology):
        adjacency = adjacency_of(network, network.num_nodes)
        left = np.delete(np.delete(adjacency, node, axis=0), node, axis=1)
        return score_of(problem, left, rounds_of(problem, left)).seconds if connected(left) else np.inf
    cycle = complement(np.stack([W.toarray() for W in network]), node)
    return score_of(problem, links_of(cycle), rounds_of_cycle(problem, cycle)).seconds
