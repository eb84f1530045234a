"""Search for a network: annealing on the logarithm of the seconds to a target, with the planner in the loop."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64
from scipy import sparse

from gossipjax._base.arguments import whole
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.memory import check_memory
from gossipjax.design._anneal import Space, anneal, checked_settings
from gossipjax.design._pace import adjacency_of
from gossipjax.design._score import (
    Problem,
    Score,
    Weighing,
    allowed,
    graph_of,
    problem_of,
    rounds_of,
    score_of,
)
from gossipjax.design._standard import standard_graphs
from gossipjax.design._targets import Target
from gossipjax.devices import Devices
from gossipjax.mixing import metropolis
from gossipjax.systems import Machines
from gossipjax.systems._kernel.bandwidth import Bandwidth
from gossipjax.topology import Topology

if TYPE_CHECKING:
    from gossipjax._base.figure import Figure

Graph = Bool[np.ndarray, "n n"]


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """A network for given devices, beside the best of the usual ones.

    Attributes:
        graph: the network found.
        weights: its mixing matrix.
        score: what it takes to the target.
        standard: score of each usual graph that reaches the target within the limits, best first.
        history: ``(s,)`` seconds of the best network after each step, over all restarts.
        num_planned: networks that were planned.
        problem: what networks were compared on, for :func:`confirm`.
        standard_graphs: every usual graph by name.
    """

    graph: Topology
    weights: sparse.csr_array | np.ndarray
    score: Score
    standard: dict[str, Score]
    history: Float64[np.ndarray, " s"]
    num_planned: int
    problem: Problem
    standard_graphs: dict[str, Topology]

    @property
    def gain(self) -> float:
        """Seconds of the best usual graph over those of this one, on the devices of the search; at least 1."""
        return gain_of(self.score, self.standard)

    def summary(self) -> str:
        """Describe the network in a few lines."""
        degrees = self.graph.degrees
        return "\n".join(
            [
                f"{self.graph.name}, degrees {degrees.min()} to {degrees.max()}: {self.score}",
                f"target: {self.problem.target.name}",
                *verdict_on(self.score, self.standard),
            ]
        )

    def plot(self) -> Figure:
        """Draw the network, the usual graphs beside it, and the search. ``plot().savefig(path)`` keeps it."""
        from gossipjax.design._picture import picture

        return picture(self)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        best = next(iter(self.standard))
        return self.graph.name, {
            "edges": self.graph.num_edges,
            "seconds": self.score.seconds,
            "rounds": int(self.score.rounds),
            f"gain over {best}": self.gain,
        }


@recorded("marfoq2020topology")
def network(
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
    num_steps: int = 400,
    restarts: int = 2,
    temperature: float = 0.03,
    num_rounds: int = 32,
    seed: int,
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Design:
    """Search for the undirected network on which given devices reach a target in the fewest seconds.

    The score of a graph is that of :func:`score`: rounds to the target, which are exact, in the time that the planner
    finds for them. Annealing minimizes its logarithm: a step adds, removes or rewires an edge, exchanges the ends of
    two, or lets two nodes trade places; it is kept if the graph stays connected and within the limits, and if the
    score falls, or rises by δ with probability ``exp(−δ / τ)``. τ falls linearly from ``temperature`` to 0. The
    estimate of :func:`equal_split` screens out hopeless moves, and decides nothing else. Scores are remembered, the
    newest 131,072. Restarts begin at the best usual graphs in turn, so the result is never worse than these *on the
    devices of the search*. Whether it is better on others is for :func:`confirm` to say.

    Args:
        devices: of n nodes, always online.
        target: the accuracy. A network that is best for one accuracy is not for another.
        model_bytes: of one message.
        local_steps: E.
        time_batch: b, samples of a step in the training time.
        bandwidth: how it is shared, see :func:`gossipjax.systems.plexus`.
        weights: function of a graph that returns a symmetric mixing matrix; also that of the usual graphs.
        max_degree: most neighbours of a node; None: any number.
        max_bytes: most bytes that all nodes may send until the target; None: any number.
        num_steps: moves of each restart; 1,000 to 6,000 for networks of tens of nodes.
        restarts: how often to begin.
        temperature: of the beginning, in logarithms of seconds.
        num_rounds: largest number of rounds to plan for a score, at least 2.
        seed: of moves and of the random usual graphs.
        progress: show a progress bar; None: only on a terminal.
        checkpoint: path of an .npz file in which the search is kept, every 30 s and when it ends or is interrupted; the
            same call continues from it, with the same result as without a break. More restarts continue as well, fewer
            are refused. Arguments are compared by value, functions by their code and by the scores of the usual graphs.

    Raises:
        ValueError: if a number is out of range, devices come and go, no usual graph reaches the target within the
            limits, or the file is that of another search or of more restarts.

    Reference: annealing and moves are ours; Marfoq, Xu, Neglia, Vidal 2020, arXiv 2010.12229, design for seconds per
    round (the paper's algorithms are not used).
    """
    problem = problem_of(
        devices, target, model_bytes, local_steps, time_batch, bandwidth, weights, num_rounds, max_degree, max_bytes
    )
    settings = checked_settings(num_steps, restarts, temperature, seed, progress, checkpoint)
    n = whole("number of devices", problem.site.num_nodes, least=2, remedy="a network has two nodes or more")
    check_memory(f"devices: dense matrices of {n} nodes", 100.0 * n * n, "design for fewer nodes")
    usual = standard_graphs(n, seed=settings.seed)
    scores = best_first(problem, usual_graph_scores(problem, usual), "graph")
    starts = [adjacency_of(usual[name], n) for name in scores]
    space = Space(problem, MOVES, lambda graph: graph, partial(rounds_of, problem), connected)
    search = anneal(space, starts, list(scores.values()), settings)
    found, score, planned = search.state.best, search.state.best_score, search.state.num_planned
    best = next((name for name, start in zip(scores, starts, strict=True) if np.array_equal(start, found)), None)
    graph = usual[best] if best else graph_of(found, f"designed({n}, seed={settings.seed})")
    history = np.asarray(search.history, np.float64)
    return Design(graph, weights(graph), score, scores, history, planned, problem, usual)


def gain_of(score: Score, standard: dict[str, Score]) -> float:
    """Return the seconds of the best usual network over those of a design; 1 if it is this network."""
    usual = next(iter(standard.values())).seconds
    return 1.0 if usual == score.seconds else usual / score.seconds


def verdict_on(score: Score, standard: dict[str, Score]) -> list[str]:
    """Say how a design compares with the usual networks, and list these."""
    best, usual = next(iter(standard.items()))
    gain = gain_of(score, standard)
    verdict = (
        f"no network found beats {best}"
        if gain == 1.0
        else f"{gain:.3g} times as fast as {best}, on the devices of the search; see gossipjax.design.confirm"
    )
    rows = [f"  {name}: {each}" for name, each in standard.items()]
    return [f"best usual network: {best}, {usual.seconds:,.4g} s; {verdict}", *rows]


def usual_graph_scores(problem: Problem, usual: dict[str, Topology]) -> dict[str, Score]:
    """Score the usual graphs within the limits."""
    found = {}
    for name, graph in usual.items():
        adjacency = adjacency_of(graph, problem.site.num_nodes)
        rounds = rounds_of(problem, adjacency)
        if allowed(problem, adjacency, rounds):
            found[name] = score_of(problem, adjacency, rounds)
    return found


def best_first(problem: Problem, found: dict[str, Score], kind: str) -> dict[str, Score]:
    """Sort the scores of the usual networks; those with equal seconds stay in order.

    Raises:
        ValueError: if there are none.
    """
    if not found:
        raise ValueError(
            f"target={problem.target.name}, max_degree={problem.most_neighbors}, max_bytes={problem.most_bytes:g}: no "
            f"usual {kind} gets there within {problem.target.horizon:,} rounds and these limits; ask for less, or "
            "raise them"
        )
    return dict(sorted(found.items(), key=lambda item: item[1].seconds))


def connected(graph: Graph) -> bool:
    """Tell whether all nodes of an undirected graph are reached from the first."""
    reached, new = np.zeros(len(graph), bool), np.zeros(len(graph), bool)
    new[0] = True
    while new.any():
        reached |= new
        new = graph[new].any(axis=0) & ~reached
    return bool(reached.all())


def _pairs(graph: Graph, *, joined: bool) -> np.ndarray:
    """List the pairs i < j that are joined by an edge, or are not."""
    return np.argwhere(np.triu(graph if joined else ~graph, 1))


def _with(graph: Graph, changes: list[tuple[Any, Any, bool]]) -> Graph:
    other = graph.copy()
    for i, j, edge in changes:
        other[i, j] = other[j, i] = edge
    return other


def _add(rng: np.random.Generator, graph: Graph) -> Graph | None:
    pairs = _pairs(graph, joined=False)
    return _with(graph, [(*pairs[rng.integers(len(pairs))], True)]) if len(pairs) else None


def _remove(rng: np.random.Generator, graph: Graph) -> Graph | None:
    pairs = _pairs(graph, joined=True)
    return _with(graph, [(*pairs[rng.integers(len(pairs))], False)])


def _rewire(rng: np.random.Generator, graph: Graph) -> Graph | None:
    """Move one end of an edge to another node."""
    pairs = _pairs(graph, joined=True)
    kept, moved = rng.permutation(pairs[rng.integers(len(pairs))])
    free = np.flatnonzero(~graph[kept])
    free = free[free != kept]
    return _with(graph, [(kept, moved, False), (kept, rng.choice(free), True)]) if free.size else None


def _exchange(rng: np.random.Generator, graph: Graph) -> Graph | None:
    """Replace edges (a, b) and (c, d) by (a, d) and (c, b); degrees stay."""
    pairs = _pairs(graph, joined=True)
    if len(pairs) < 2:
        return None
    first, second = rng.choice(len(pairs), 2, replace=False)
    (a, b), (c, d) = rng.permutation(pairs[first]), rng.permutation(pairs[second])
    if len({a, b, c, d}) < 4 or graph[a, d] or graph[c, b]:
        return None
    return _with(graph, [(a, b, False), (c, d, False), (a, d, True), (c, b, True)])


def _trade(rng: np.random.Generator, graph: Graph) -> Graph | None:
    """Let two nodes trade places; the graph stays the same up to numbers."""
    order = np.arange(len(graph))
    i, j = rng.choice(len(graph), 2, replace=False)
    order[[i, j]] = j, i
    return graph[np.ix_(order, order)]


MOVES: tuple[Callable[[np.random.Generator, Graph], Graph | None], ...] = (_add, _remove, _rewire, _exchange, _trade)
"""Each returns another graph, or None if there is none of its kind."""
