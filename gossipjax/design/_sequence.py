"""Search for networks that change from round to round: which matrices, in which order, and who has which place."""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from scipy import sparse

from gossipjax._base.arguments import whole
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.memory import check_memory
from gossipjax.design._anneal import Network, Space, anneal, checked_settings
from gossipjax.design._cycles import links_of, standard_sequences
from gossipjax.design._score import (
    Problem,
    Score,
    Weighing,
    allowed,
    problem_of,
    rounds_by_cycle,
    rounds_of_cycle,
    score_of,
)
from gossipjax.design._search import best_first, gain_of, usual_graph_scores, verdict_on
from gossipjax.design._standard import standard_graphs
from gossipjax.design._targets import Target, checked_matrix
from gossipjax.devices import Devices
from gossipjax.mixing import metropolis
from gossipjax.systems import Machines
from gossipjax.systems._kernel.bandwidth import Bandwidth
from gossipjax.topology import Topology

if TYPE_CHECKING:
    from gossipjax._base.figure import Figure


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class SequenceDesign:
    """A network that changes from round to round, for given devices, beside the best of the usual ones.

    Attributes:
        matrices: doubly stochastic, one for each round; they repeat. Run them with :func:`gossipjax.timeline.rounds`.
        score: what they take to the target.
        standard: score of each usual network, changing or fixed, that reaches the target within the limits, best first.
        history: ``(s,)`` seconds of the best network after each step, over all restarts.
        num_planned: networks that were planned.
        problem: what networks were compared on, for :func:`confirm`.
        standard_networks: every usual network by name: a graph, or a list of matrices.
    """

    matrices: list[sparse.csr_array]
    score: Score
    standard: dict[str, Score]
    history: Float64[np.ndarray, " s"]
    num_planned: int
    problem: Problem
    standard_networks: dict[str, Topology | list[sparse.csr_array]]

    @property
    def gain(self) -> float:
        """Seconds of the best usual network over those of this one, on the devices of the search; at least 1."""
        return gain_of(self.score, self.standard)

    def summary(self) -> str:
        """Describe the network in a few lines."""
        peers = links_of(np.stack([W.toarray() for W in self.matrices])).sum(-1)
        lines = [
            f"{len(self.matrices)} rounds that repeat, {peers.min()} to {peers.max()} peers a round: {self.score}",
            f"target: {self.problem.target.name}",
            *verdict_on(self.score, self.standard),
        ]
        return "\n".join(lines)

    def plot(self) -> Figure:
        """Draw the rounds, the usual networks beside them, and the search. ``plot().savefig(path)`` keeps it."""
        from gossipjax.design._picture import picture_of_rounds

        return picture_of_rounds(self)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return f"{len(self.matrices)} rounds that repeat", {
            "seconds": self.score.seconds,
            "rounds to the target": self.score.rounds,
            f"gain over {next(iter(self.standard))}": self.gain,
        }


@recorded("takezawa2023basegraph", "ying2021exponential", "song2022equitopo")
def sequence(
    devices: Devices | Machines,
    target: Target,
    *,
    model_bytes: int,
    local_steps: int,
    time_batch: int = 1,
    bandwidth: Bandwidth = "greedy",
    weights: Weighing = metropolis,
    max_degree: int | None = None,
    max_bytes: float | int | None = None,
    max_period: int = 12,
    num_steps: int = 400,
    restarts: int = 2,
    temperature: float = 0.03,
    num_rounds: int = 32,
    seed: int,
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> SequenceDesign:
    """Search for the network, changing from round to round, on which devices reach a target in the fewest seconds.

    The score is that of :func:`score` for a list of matrices. The search begins at the best of
    :func:`standard_sequences` and :func:`standard_graphs` (as a single matrix), each restart at the next, and composes:
    a step lets two nodes trade places, in all rounds or in one, exchanges two rounds, drops one, or puts a round of any
    usual network in place of one or between two. All of these leave matrices doubly stochastic. A round of one network
    seldom continues another exactly, and a finite number of exact rounds is lost by most steps; the score decides.
    Annealing is that of :func:`network`, and what is said there of other devices holds here.

    Args:
        devices: of n nodes, always online.
        target: the accuracy; it must have ``cycle_rounds``, as both of ours do.
        model_bytes: of one message.
        local_steps: E.
        time_batch: b, samples of a step in the training time.
        bandwidth: how it is shared, see :func:`gossipjax.systems.plexus`.
        weights: function of a graph that returns a symmetric mixing matrix, for the fixed usual graphs.
        max_degree: most nodes that a node hears from in a round; None: any number.
        max_bytes: most bytes that all nodes may send until the target; None: any number.
        max_period: most rounds until matrices repeat; a usual network may have more, and is not made longer.
        num_steps: moves of each restart.
        restarts: how often to begin.
        temperature: of the beginning, in logarithms of seconds.
        num_rounds: largest number of rounds to plan for a score, rounded up to whole periods.
        seed: of moves and of the random usual networks.
        progress: show a progress bar; None: only on a terminal.
        checkpoint: as in :func:`network`.

    Raises:
        ValueError: if a number is out of range, devices come and go, the target does not count rounds of networks that
            change, no usual network reaches it within the limits, or the file is that of another search or of more
            restarts.

    Reference: the search is ours; Takezawa et al. 2023, arXiv 2305.11420 (Base-(k+1)); Ying et al. 2021, arXiv
        2110.13363 (one-peer exponential); Song et al. 2022, arXiv 2210.07881 (EquiTopo).
    """
    problem = problem_of(
        devices, target, model_bytes, local_steps, time_batch, bandwidth, weights, num_rounds, max_degree, max_bytes
    )
    rounds_by_cycle(problem.target)  # before any graph is scored
    settings = checked_settings(num_steps, restarts, temperature, seed, progress, checkpoint)
    period = whole("max_period", max_period, least=1)
    n = whole("number of devices", problem.site.num_nodes, least=2, remedy="a network has two nodes or more")
    dense = 8.0 * n * n
    check_memory(f"max_period={period}: that many dense matrices of {n} nodes", dense * period, "lower max_period")
    check_memory(
        f"devices: the estimates of networks of {n} nodes", dense * (period + 300 + n), "design for fewer nodes"
    )
    graphs = standard_graphs(n, seed=settings.seed)
    usual: dict[str, Topology | list[sparse.csr_array]] = {**graphs, **standard_sequences(n, seed=settings.seed)}
    cycles = {name: _cycle(problem, network) for name, network in usual.items()}
    scores = _usual_scores(problem, graphs, cycles)
    starts = [cycles[name] for name in scores]
    pool = [W for cycle in cycles.values() for W in cycle if links_of(W[None]).sum(-1).max() <= problem.most_neighbors]
    moves = (_trade, _trade_once, _reorder, _drop, partial(_replace, pool), partial(_insert, pool, period))
    space = Space(problem, moves, links_of, partial(rounds_of_cycle, problem), _always)
    search = anneal(space, starts, list(scores.values()), settings)
    state = search.state
    matrices = [sparse.csr_array(W) for W in state.best]
    history = np.asarray(search.history, np.float64)
    return SequenceDesign(matrices, state.best_score, scores, history, state.num_planned, problem, usual)


def _cycle(problem: Problem, network: Topology | list[sparse.csr_array]) -> Network:
    if isinstance(network, Topology):
        return checked_matrix(problem.weights(network), network)[None]
    return np.stack([W.toarray() for W in network])


def _usual_scores(problem: Problem, graphs: dict[str, Topology], cycles: dict[str, Network]) -> dict[str, Score]:
    """Score the usual networks within the limits, best first."""
    found = usual_graph_scores(problem, graphs)
    for name in [each for each in cycles if each not in graphs]:
        links, rounds = links_of(cycles[name]), rounds_of_cycle(problem, cycles[name])
        if allowed(problem, links, rounds):
            found[name] = score_of(problem, links, rounds)
    return best_first(problem, found, "network")


def _always(cycle: Network) -> bool:
    return True


def _trade(rng: np.random.Generator, cycle: Network) -> Network:
    """Let two nodes trade places in all rounds."""
    order = _swapped(rng, cycle.shape[-1])
    return cycle[:, order][:, :, order]


def _trade_once(rng: np.random.Generator, cycle: Network) -> Network:
    """Let two nodes trade places in one round."""
    other, number, order = cycle.copy(), rng.integers(len(cycle)), _swapped(rng, cycle.shape[-1])
    other[number] = other[number][np.ix_(order, order)]
    return other


def _swapped(rng: np.random.Generator, n: int) -> np.ndarray:
    order = np.arange(n)
    i, j = rng.choice(n, 2, replace=False)
    order[[i, j]] = j, i
    return order


def _reorder(rng: np.random.Generator, cycle: Network) -> Network | None:
    """Exchange two rounds."""
    return cycle[_swapped(rng, len(cycle))] if len(cycle) > 1 else None


def _drop(rng: np.random.Generator, cycle: Network) -> Network | None:
    return np.delete(cycle, rng.integers(len(cycle)), axis=0) if len(cycle) > 1 else None


def _replace(pool: list[np.ndarray], rng: np.random.Generator, cycle: Network) -> Network:
    other = cycle.copy()
    other[rng.integers(len(cycle))] = pool[rng.integers(len(pool))]
    return other


def _insert(pool: list[np.ndarray], period: int, rng: np.random.Generator, cycle: Network) -> Network | None:
    if len(cycle) >= period:
        return None
    return np.insert(cycle, rng.integers(len(cycle) + 1), pool[rng.integers(len(pool))], axis=0)
