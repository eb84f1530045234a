"""Seconds to a stated accuracy: rounds to it, times what a round takes on the devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gossipjax._base.arguments import callable_of_one, optional_whole, real, shown, whole
from gossipjax.design._cycles import checked_cycle, links_of
from gossipjax.design._pace import Site, adjacency_of, pace_of, planned_ends, screen, site_of
from gossipjax.design._targets import Target, checked_matrix, checked_target
from gossipjax.devices import Devices
from gossipjax.mixing import metropolis
from gossipjax.mixing._stochastic import Matrix
from gossipjax.systems import Machines
from gossipjax.systems._kernel.bandwidth import Bandwidth
from gossipjax.topology import Topology
from gossipjax.topology._graph import undirected

Weighing = Callable[[Topology], Any]
"""``weights(graph)`` returns a symmetric mixing matrix, as :func:`gossipjax.mixing.metropolis` does."""


class Score(NamedTuple):
    """What a network takes to the target."""

    rounds: float
    """To the target; infinite if it is never reached."""
    seconds_per_round: float
    """As planned: the mean over all rounds to the target, or of the last ones planned if there are more."""
    seconds: float
    """To the target."""
    bytes: float
    """Sent by all nodes until then."""

    def __repr__(self) -> str:
        per_round = f"{self.seconds_per_round:.4g} s a round"
        if not np.isfinite(self.rounds):
            return f"Score(never reached, {per_round})"
        return f"Score({self.seconds:,.4g} s: {self.rounds:,.0f} rounds, {per_round}, {self.bytes / 1e6:,.4g} MB)"


@dataclasses.dataclass(frozen=True)
class Problem:
    """What networks are compared on."""

    site: Site
    target: Target
    weights: Weighing
    num_rounds: int
    most_neighbors: int
    most_bytes: float


def score(
    devices: Devices | Machines,
    target: Target,
    graph: Topology | Sequence[Matrix],
    *,
    model_bytes: int,
    local_steps: int,
    time_batch: int = 1,
    bandwidth: Bandwidth = "greedy",
    weights: Weighing = metropolis,
    num_rounds: int = 32,
) -> Score:
    """Compute what a network takes to a target on devices: rounds exactly, their seconds by the planner.

    The seconds are the end of the last round in the plan of :func:`gossipjax.systems.synchronous` with barriers. If the
    target takes more than ``num_rounds``, further rounds take the mean of the second half of those planned;
    see :func:`seconds_per_round` for how far that may be off.

    >>> import gossipjax as gj
    >>> machines = gj.devices.uniform(8)
    >>> gj.design.score(
    ...     machines, gj.design.consensus(0.01), gj.topology.ring(8), model_bytes=1_000_000, local_steps=10
    ... ).rounds
    8.0

    Args:
        devices: of n nodes, always online.
        target: the accuracy.
        graph: undirected; or a list of doubly stochastic matrices, one for each round, which repeat.
        model_bytes: of one message.
        local_steps: E.
        time_batch: b, samples of a step in the training time.
        bandwidth: how it is shared, see :func:`gossipjax.systems.plexus`.
        weights: function of a graph that returns a symmetric mixing matrix; a list of matrices has its own.
        num_rounds: largest number of rounds to plan, at least 2; of p matrices that repeat, rounded up to whole cycles.

    Raises:
        ValueError: if a number is out of range, devices come and go, or graph or weights do not fit.
    """
    problem = problem_of(devices, target, model_bytes, local_steps, time_batch, bandwidth, weights, num_rounds)
    if not isinstance(graph, Topology):
        cycle = checked_cycle(graph, problem.site.num_nodes)
        return score_of(problem, links_of(cycle), rounds_of_cycle(problem, cycle))
    return score_of(problem, adjacency_of(graph, problem.site.num_nodes))


def problem_of(
    devices: Any,
    target: Any,
    model_bytes: Any,
    local_steps: Any,
    time_batch: Any,
    bandwidth: Any,
    weights: Any,
    num_rounds: Any,
    max_degree: Any = None,
    max_bytes: Any = None,
) -> Problem:
    """Check the arguments that scores share."""
    site = site_of(devices, model_bytes, local_steps, time_batch, bandwidth)
    degree = optional_whole("max_degree", max_degree, least=1)
    limit = np.inf if max_bytes is None else real("max_bytes", max_bytes, above=0)
    return Problem(
        site,
        checked_target(target),
        callable_of_one("weights", weights, "weights(graph) -> mixing matrix"),
        whole("num_rounds", num_rounds, least=2),
        site.num_nodes - 1 if degree is None else min(degree, site.num_nodes - 1),
        limit,
    )


def rounds_of(problem: Problem, adjacency: Bool[np.ndarray, "n n"]) -> float:
    """Compute the rounds to the target, or infinity."""
    n = len(adjacency)
    graph = graph_of(adjacency, f"graph of {n} nodes")
    return _whole_rounds(problem, problem.target.rounds(checked_matrix(problem.weights(graph), graph)))


def rounds_of_cycle(problem: Problem, cycle: Float[np.ndarray, "p n n"]) -> float:
    """Compute the rounds to the target of matrices that repeat, or infinity."""
    return _whole_rounds(problem, rounds_by_cycle(problem.target)(cycle))


def rounds_by_cycle(target: Target) -> Callable[[Float[np.ndarray, "p n n"]], float]:
    """Return how a target counts the rounds of matrices that repeat.

    Raises:
        ValueError: if it does not.
    """
    if target.cycle_rounds is None:
        raise ValueError(
            f"target={target.name}: has no cycle_rounds, so networks that change from round to round have no "
            "score; give it one, or pass a fixed graph"
        )
    return target.cycle_rounds


def _whole_rounds(problem: Problem, found: Any) -> float:
    try:
        rounds = float(found)
    except (TypeError, ValueError):
        rounds = np.nan
    if rounds > problem.target.horizon:
        rounds = np.inf
    if np.isnan(rounds) or rounds < 0 or (np.isfinite(rounds) and not rounds.is_integer()):
        raise ValueError(
            f"target={problem.target.name}: rounds(W) is {shown(found)}; must be a whole number from 0 on, or infinite"
        )
    return rounds


def allowed(problem: Problem, adjacency: Bool[np.ndarray, "*p n n"], rounds: float) -> bool:
    """Tell whether a network reaches the target, with no more neighbours in a round and bytes than it may have."""
    few = adjacency.sum(-1).max() <= problem.most_neighbors
    return bool(np.isfinite(rounds) and few and _sent(problem, adjacency, rounds) <= problem.most_bytes)


def _sent(problem: Problem, adjacency: Bool[np.ndarray, "*p n n"], rounds: float) -> float:
    """Count the bytes of some rounds."""
    messages = adjacency.reshape(-1, adjacency.shape[-1] ** 2).sum(1)
    if not np.isfinite(rounds):
        return np.inf
    cycles, rest = divmod(int(rounds), len(messages))
    return float((cycles * messages.sum() + messages[:rest].sum()) * problem.site.learning.message_bytes)


def score_of(problem: Problem, adjacency: Bool[np.ndarray, "*p n n"], rounds: float | None = None) -> Score:
    """Score a network, or a cycle of them whose rounds are known."""
    rounds = rounds_of(problem, adjacency) if rounds is None else rounds
    twice = 2 * (len(adjacency) if adjacency.ndim == 3 else 1)
    if rounds == 0:
        return Score(0.0, pace_of(planned_ends(problem.site, adjacency, twice)), 0.0, 0.0)
    # The second half of the rounds that are planned is whole cycles.
    most = problem.num_rounds if twice == 2 else -(-problem.num_rounds // twice) * twice
    ends = planned_ends(problem.site, adjacency, int(min(rounds, most)))
    sent = _sent(problem, adjacency, rounds)
    if rounds == len(ends):
        return Score(rounds, float(ends[-1]) / rounds, float(ends[-1]), float(sent))
    pace = pace_of(ends)
    return Score(rounds, pace, float(ends[-1]) + (rounds - len(ends)) * pace, float(sent))


def estimate_of(problem: Problem, adjacency: Bool[np.ndarray, "*p n n"], rounds: float) -> float:
    """Estimate the seconds to the target without a plan."""
    return rounds * screen(problem.site, adjacency)


def graph_of(adjacency: Bool[np.ndarray, "n n"], name: str) -> Topology:
    """Build the graph of a symmetric adjacency matrix."""
    near, far = np.nonzero(np.triu(adjacency))
    return undirected(len(adjacency), near, far, name)
