"""Search for a network: annealing on the logarithm of the seconds to a target, with the planner in the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64
from scipy import sparse

from gossipjax._base.arguments import flag, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.memory import check_memory
from gossipjax._base.progress import progress_bar
from gossipjax.design._pace import adjacency_of
from gossipjax.design._score import (
    Problem,
    Score,
    Weighing,
    allowed,
    estimate_of,
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
MARGIN = 1.5
"""A move whose estimate is worse by this factor is not planned. Estimates of one machine err by −11 to +12 %, so their
ratio by a quarter at most, and a graph that is really worse by the rest would hardly be taken."""


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
        usual = next(iter(self.standard.values())).seconds
        return 1.0 if usual == self.score.seconds else usual / self.score.seconds

    def summary(self) -> str:
        """Describe the network in a few lines."""
        best, usual = next(iter(self.standard.items()))
        degrees = self.graph.degrees
        verdict = (
            f"no network found beats {best}"
            if self.gain == 1.0
            else f"{self.gain:.3g} times as fast as {best}, on the devices of the search; see gossipjax.design.confirm"
        )
        rows = [f"  {name}: {each}" for name, each in self.standard.items()]
        return "\n".join(
            [
                f"{self.graph.name}, degrees {degrees.min()} to {degrees.max()}: {self.score}",
                f"target: {self.problem.target.name}",
                f"best usual graph: {best}, {usual.seconds:,.4g} s; {verdict}",
                *rows,
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
) -> Design:
    """Search for the undirected network on which given devices reach a target in the fewest seconds.

    The score of a graph is that of :func:`score`: rounds to the target, which are exact, in the time that the planner
    finds for them. Annealing minimizes its logarithm: a step adds, removes or rewires an edge, exchanges the ends of
    two, or lets two nodes trade places; it is kept if the graph stays connected and within the limits, and if the
    score falls, or rises by δ with probability ``exp(−δ / τ)``. τ falls linearly from ``temperature`` to 0. The
    estimate of :func:`equal_split` screens out hopeless moves, and decides nothing else. Restarts begin at the best
    usual graphs in turn, so the result is never worse than these *on the devices of the search*. Whether it is better
    on others is for :func:`confirm` to say.

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
        num_steps: moves of each restart.
        restarts: how often to begin.
        temperature: of the beginning, in logarithms of seconds.
        num_rounds: largest number of rounds to plan for a score, at least 2.
        seed: of moves and of the random usual graphs.
        progress: show a progress bar; None: only on a terminal.

    Raises:
        ValueError: if a number is out of range, devices come and go, or no usual graph reaches the target within the
            limits.

    Reference: annealing and moves are ours; Marfoq, Xu, Neglia, Vidal 2020, arXiv 2010.12229, design for seconds per
    round (the paper's algorithms are not used).
    """
    problem = problem_of(
        devices, target, model_bytes, local_steps, time_batch, bandwidth, weights, num_rounds, max_degree, max_bytes
    )
    steps, restarts = whole("num_steps", num_steps, least=0), whole("restarts", restarts, least=1)
    temperature, seed = real("temperature", temperature, above=0), checked_seed(seed)
    progress = None if progress is None else flag("progress", progress)
    n = whole("number of devices", problem.site.num_nodes, least=2, remedy="a network has two nodes or more")
    check_memory(f"devices: dense matrices of {n} nodes", 100.0 * n * n, "design for fewer nodes")
    usual = standard_graphs(n, seed=seed)
    scores = _usual_scores(problem, usual)
    starts = [adjacency_of(usual[name], n) for name in scores]
    known = {_bits(start): score for start, score in zip(starts, scores.values(), strict=True)}
    search = _Search(problem, np.random.default_rng(seed), known, [], starts[0], next(iter(scores.values())))
    with progress_bar(progress, "moves", restarts * steps) as search.show:
        for number in range(restarts):
            _anneal(search, starts[number % len(starts)], steps, temperature)
    best = next((name for name, start in zip(scores, starts, strict=True) if np.array_equal(start, search.best)), None)
    graph = usual[best] if best else graph_of(search.best, f"designed({n}, seed={seed})")
    history = np.asarray(search.history, np.float64)
    return Design(graph, weights(graph), search.score, scores, history, len(search.known), problem, usual)


def _usual_scores(problem: Problem, usual: dict[str, Topology]) -> dict[str, Score]:
    """Score the usual graphs within the limits, best first."""
    found = {}
    for name, graph in usual.items():
        adjacency = adjacency_of(graph, problem.site.num_nodes)
        rounds = rounds_of(problem, adjacency)
        if allowed(problem, adjacency, rounds):
            found[name] = score_of(problem, adjacency, rounds)
    if not found:
        raise ValueError(
            f"target={problem.target.name}, max_degree={problem.most_neighbors}, max_bytes={problem.most_bytes:g}: no "
            f"usual graph gets there within {problem.target.horizon:,} rounds and these limits; ask for less, or raise "
            "them"
        )
    return dict(sorted(found.items(), key=lambda item: item[1].seconds))


@dataclasses.dataclass
class _Search:
    """State of a search."""

    problem: Problem
    rng: np.random.Generator
    known: dict[bytes, Score]
    """Scores by the bits of adjacency matrices."""
    history: list[float]
    best: Graph
    score: Score
    """Of the best."""
    show: Callable[[int], None] = lambda done: None
    """Moves the progress bar."""


def _anneal(search: _Search, start: Graph, num_steps: int, temperature: float) -> None:
    problem, rng = search.problem, search.rng
    now, rounds = start, rounds_of(problem, start)
    score, estimate = _scored(search, now, rounds), estimate_of(problem, now, rounds)
    for step in range(num_steps):
        other = MOVES[rng.integers(len(MOVES))](rng, now)
        search.history.append(search.score.seconds)
        search.show(len(search.history))
        if other is None or other.sum(1).max() > problem.most_neighbors or not _connected(other):
            continue
        rounds = rounds_of(problem, other)
        if not allowed(problem, other, rounds) or (guess := estimate_of(problem, other, rounds)) > MARGIN * estimate:
            continue
        found = _scored(search, other, rounds)
        rise = np.log(found.seconds) - np.log(score.seconds) if score.seconds > 0 else np.inf
        if rise <= 0 or rng.random() < np.exp(-rise / (temperature * (1 - step / num_steps))):
            now, score, estimate = other, found, guess
        if found.seconds < search.score.seconds:
            search.best, search.score = other, found
        search.history[-1] = search.score.seconds


def _bits(graph: Graph) -> bytes:
    return np.packbits(graph).tobytes()


def _scored(search: _Search, graph: Graph, rounds: float) -> Score:
    key = _bits(graph)
    if key not in search.known:
        search.known[key] = score_of(search.problem, graph, rounds)
    return search.known[key]


def _connected(graph: Graph) -> bool:
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
