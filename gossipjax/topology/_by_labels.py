"""Graphs that depend on the labels of the nodes' data: D-Cliques, and overlays of similar nodes built by gossip."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from gossipjax._base.arguments import choice, reals, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.memory import check_memory
from gossipjax.topology._graph import Topology, require, undirected

Counts = Num[np.ndarray, "n K"]
"""Samples of each label at each node."""
Between = Literal["ring", "fractal", "small_world", "complete"]


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class DCliques:
    """Cliques of nodes whose data together look like everybody's, and the graph of all edges."""

    topology: Topology
    """Undirected and connected: all edges inside cliques, and those between cliques."""
    cliques: tuple[Int[np.ndarray, " _"], ...]
    """The nodes of each clique, in increasing order."""
    skew: Float[np.ndarray, " cliques"]
    """L1 distance between the shares of the labels in each clique and in the whole network, from 0 to 2."""

    def _facts(self) -> tuple[str, dict[str, Any]]:
        sizes = {"nodes": self.topology.num_nodes, "cliques": len(self.cliques), "edges": self.topology.num_edges}
        return self.topology.name, sizes | {"mean skew": f"{self.skew.mean():.3g}"}


@recorded("bellet2022dcliques")
def d_cliques(
    label_counts: Counts,
    clique_size: int = 30,
    *,
    seed: int,
    swaps: int = 1000,
    between: Between = "small_world",
) -> DCliques:
    """Build D-Cliques: sparse graphs whose neighbourhoods represent the labels of the whole network.

    Nodes are split at random into cliques of at most M nodes. ``swaps`` times, two random cliques are compared: of all
    exchanges of one node each that lower the sum of their skews, a random one is made. Each clique is then a complete
    graph, and pairs of cliques are joined by one edge, each time between the nodes with the fewest such edges so far.
    Use it with :func:`gossipjax.mixing.metropolis`.

    >>> import numpy as np
    >>> labels = np.eye(3, dtype=int)[[0, 0, 1, 1, 2, 2]]  # six nodes with one label each
    >>> d_cliques(labels, 3, seed=0, between="ring").skew.tolist()
    [0.0, 0.0]

    Args:
        label_counts: ``(n, K)`` samples of each label at each node; each node has some.
        clique_size: M ≥ 2.
        seed: of the NumPy generator.
        swaps: comparisons of two cliques, at most 10⁷.
        between: pairs of cliques that are joined. ``"ring"``: consecutive ones; ``"complete"``: all; ``"fractal"``:
            all within groups of M cliques, then of M groups, and so on; ``"small_world"``: those at distances 1, 2, 4,
            … on a ring of cliques.

    Returns:
        The graph, the cliques, and their skews.

    Raises:
        ValueError: if an argument is out of range, or a node has no samples.

    Reference: Bellet, Kermarrec, Lavoie 2022, "D-Cliques: compensating for data heterogeneity with topology in
    decentralized federated learning", algorithm 2 and section 4.3.
    """
    counts, clique_size = counts_of(label_counts), whole("clique_size", clique_size, least=2)
    swaps = whole("swaps", swaps, least=0, most=10**7)
    choice("between", between, _BETWEEN)
    n, rng = len(counts), np.random.default_rng(checked_seed(seed))
    check_memory(f"clique_size={clique_size}: cliques of {n} nodes", 150.0 * n * min(clique_size, n), "make it smaller")
    order = rng.permutation(n)
    cliques = [order[at : at + clique_size] for at in range(0, n, clique_size)]
    everywhere = counts.sum(0) / counts.sum()
    for _ in range(swaps if len(cliques) > 1 else 0):
        a, b = rng.choice(len(cliques), 2, replace=False)
        _swap(cliques[a], cliques[b], counts, everywhere, rng)
    cliques = [np.sort(clique) for clique in cliques]
    name = f"d_cliques({n}, {clique_size}, seed={seed}, {between})"
    skew = np.array([_skews(counts[clique].sum(0), everywhere) for clique in cliques])
    return DCliques(_joined(cliques, n, clique_size, between, name), tuple(cliques), skew)


def _skews(counts: Float[np.ndarray, "*some K"], everywhere: Float[np.ndarray, " K"]) -> Any:
    return np.abs(counts / counts.sum(-1, keepdims=True) - everywhere).sum(-1)


def _swap(
    one: np.ndarray, two: np.ndarray, counts: np.ndarray, everywhere: np.ndarray, rng: np.random.Generator
) -> None:
    """Exchange a random pair of nodes among those pairs that lower the sum of the two skews, if there are any."""
    first, second = counts[one].sum(0), counts[two].sum(0)
    moved = counts[two][None] - counts[one][:, None]
    after = _skews(first + moved, everywhere) + _skews(second - moved, everywhere)
    before = _skews(first, everywhere) + _skews(second, everywhere)
    better = np.argwhere(after < before - 1e-12)  # a change by rounding is none
    if better.size:
        i, j = better[rng.integers(len(better))]
        one[i], two[j] = two[j], one[i]


def _joined(cliques: list[np.ndarray], n: int, size: int, between: str, name: str) -> Topology:
    ends = [pair for clique in cliques for pair in itertools.combinations(clique.tolist(), 2)]
    used = np.zeros(n, np.int64)
    for groups in _BETWEEN[between](len(cliques), size):
        near, far = (np.concatenate([cliques[c] for c in group]) for group in groups)
        i, j = near[np.argmin(used[near])], far[np.argmin(used[far])]
        used[[i, j]] += 1
        ends.append((int(i), int(j)))
    pairs = np.array(ends, np.int64).reshape(-1, 2)
    return undirected(n, pairs[:, 0], pairs[:, 1], name)


def _pairs_in_ring(count: int, size: int) -> list:
    del size
    return [([c], [(c + 1) % count]) for c in range(count if count > 2 else count - 1)]


def _all_pairs(count: int, size: int) -> list:
    del size
    return [([a], [b]) for a, b in itertools.combinations(range(count), 2)]


def _pairs_of_small_world(count: int, size: int) -> list:
    del size
    offsets = [2**s for s in range(count.bit_length()) if 2**s <= count // 2]
    pairs = {tuple(sorted((c, (c + offset) % count))) for c in range(count) for offset in offsets}
    return [([a], [b]) for a, b in sorted(pairs)]


def _fractal_pairs(count: int, size: int) -> list:
    groups, pairs = [[c] for c in range(count)], []
    while len(groups) > 1:
        bundles = [groups[at : at + size] for at in range(0, len(groups), size)]
        pairs += [pair for bundle in bundles for pair in itertools.combinations(bundle, 2)]
        groups = [list(itertools.chain.from_iterable(bundle)) for bundle in bundles]
    return pairs


_BETWEEN = {
    "ring": _pairs_in_ring,
    "fractal": _fractal_pairs,
    "small_world": _pairs_of_small_world,
    "complete": _all_pairs,
}


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class LabelOverlay:
    """An overlay that nodes built by gossip, and what that cost."""

    topology: Topology
    """Undirected: node i and node j are neighbours if one of them chose the other. It may be disconnected."""
    chosen: Int[np.ndarray, "n k"]
    """The nodes that each node chose, the best first."""
    messages_sent: Int[np.ndarray, " n"]
    bytes_sent: Int[np.ndarray, " n"]
    """A message is 4 bytes for each node that it names, and 4 K more if it holds the shares of its labels; a request
    without content has 4 bytes."""

    def _facts(self) -> tuple[str, dict[str, Any]]:
        sizes = {"nodes": self.topology.num_nodes, "edges": self.topology.num_edges}
        return self.topology.name, sizes | {"bytes sent": f"{self.bytes_sent.sum():,}"}


@recorded("dhasade2023decentralizepy")
def label_overlay(
    label_counts: Counts,
    degree: int,
    *,
    num_rounds: int = 60,
    random_peers: int = 4,
    prefer: Literal["similar", "different"] = "similar",
    seed: int,
) -> LabelOverlay:
    """Let nodes find those with the most similar labels by gossip, before any training (a KNN overlay).

    The view of a node is the list of the k best nodes whose label shares it has heard. It starts with k random nodes,
    which exchange shares with it. In each round every node, in order of its number,

    1. sends its own shares and those of its view to a random node of the view, which answers likewise; both choose
       again;
    2. draws ``random_peers`` uniform nodes, asks those whose shares it has not heard, and chooses again.

    The better of two nodes has the larger (``"different"``: smaller) cosine between the label shares; of equals, the
    smaller number. A view never gets worse, and holds the k best of all once the node has heard everybody. At the end,
    each node tells those it chose, and edges go both ways.

    Args:
        label_counts: ``(n, K)`` samples of each label at each node; each node has some.
        degree: k ≥ 1, less than n.
        num_rounds: rounds of gossip, 0 or more; DecentralizePy has 60.
        random_peers: uniform nodes drawn by each node in each round; 0: none.
        prefer: which nodes are best. DecentralizePy's own metric prefers different ones.
        seed: of the NumPy generator.

    Returns:
        The overlay, the choices, and the traffic of each node.

    Raises:
        ValueError: if an argument is out of range, or a node has no samples.

    Reference: the KNN node of DecentralizePy (Dhasade et al. 2023); its asynchronous messages are put in order here.
    """
    counts = counts_of(label_counts)
    choice("prefer", prefer, ("similar", "different"))
    n = len(counts)
    degree = whole("degree", degree, least=1, most=n - 1, remedy=f"less than the {n} nodes of label_counts")
    num_rounds = whole("num_rounds", num_rounds, least=0)
    random_peers = whole("random_peers", random_peers, least=0, most=n)
    check_memory(f"label_counts of {n} nodes: what they have heard", 40.0 * n * n, "build it for fewer nodes")
    rng = np.random.default_rng(checked_seed(seed))
    gossip = _start(counts, degree, prefer == "similar", rng)
    for _, node in itertools.product(range(num_rounds), range(n)):
        _turn(gossip, node, random_peers)
    return _finish(gossip, f"label_overlay({n}, {degree}, seed={seed}, {prefer}, {num_rounds} rounds)")


@dataclasses.dataclass
class _Gossip:
    """The state of all nodes while they build an overlay."""

    degree: int
    num_labels: int
    rng: np.random.Generator
    scores: Float[np.ndarray, "n n"]
    """Smaller is better."""
    heard: Bool[np.ndarray, "n n"]
    """Whose label shares each node knows."""
    views: list[Int[np.ndarray, " k"]]
    messages: Int[np.ndarray, " n"]
    bytes: Int[np.ndarray, " n"]


def _start(counts: Float[np.ndarray, "n K"], degree: int, similar: bool, rng: np.random.Generator) -> _Gossip:
    """Let every node exchange shares with random nodes."""
    n, num_labels = counts.shape
    unit = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    # Rounded, so that nodes with the same shares are equals whatever their numbers of samples.
    scores = np.round(unit @ unit.T, 9) * (-1 if similar else 1)
    sent = np.zeros(n, np.int64)
    gossip = _Gossip(degree, num_labels, rng, scores, np.eye(n, dtype=bool), [], sent, sent.copy())
    for node in range(n):
        others = rng.choice(n - 1, degree, replace=False)
        for other in (others + (others >= node)).tolist():
            _tell(gossip, node, other, [node])
            _tell(gossip, other, node, [other])
    gossip.views = [_best(gossip, node) for node in range(n)]
    return gossip


def _tell(gossip: _Gossip, sender: int, receiver: int, named: Any, shares: bool = True) -> None:
    """Send a message; the receiver knows the shares of the named nodes from then on."""
    gossip.messages[sender] += 1
    gossip.bytes[sender] += max(1, len(named)) * 4 + (4 * gossip.num_labels * len(named) if shares else 0)
    gossip.heard[receiver, named] |= shares


def _best(gossip: _Gossip, node: int) -> Int[np.ndarray, " k"]:
    """Return the best nodes that a node has heard."""
    candidates = np.flatnonzero(gossip.heard[node])
    candidates = candidates[candidates != node]
    order = np.argsort(gossip.scores[node, candidates], kind="stable")
    return candidates[order[: gossip.degree]]


def _turn(gossip: _Gossip, node: int, random_peers: int) -> None:
    """Exchange views with a random node of the view, then ask random nodes."""
    peer = int(gossip.rng.choice(gossip.views[node]))
    _tell(gossip, node, peer, np.append(gossip.views[node], node))
    _tell(gossip, peer, node, np.append(gossip.views[peer], peer))
    gossip.views[peer] = _best(gossip, peer)
    drawn = gossip.rng.choice(len(gossip.heard), random_peers, replace=False)
    for other in drawn[~gossip.heard[node, drawn]].tolist():
        _tell(gossip, node, other, [], shares=False)
        _tell(gossip, other, node, [other])
    gossip.views[node] = _best(gossip, node)


def _finish(gossip: _Gossip, name: str) -> LabelOverlay:
    """Tell the chosen nodes, and build the graph."""
    chosen = np.stack(gossip.views)
    for node, others in enumerate(chosen.tolist()):
        for other in others:
            _tell(gossip, node, other, [node], shares=False)
    near = np.repeat(np.arange(len(chosen)), gossip.degree)
    graph = undirected(len(chosen), near, chosen.ravel(), name)
    return LabelOverlay(graph, chosen, gossip.messages, gossip.bytes)


def counts_of(label_counts: Any) -> Float[np.ndarray, "n K"]:
    """Return the samples of each label at each node.

    Raises:
        ValueError: if they are not such a table, or a node has none.
    """
    counts = reals("label_counts", label_counts, shape=(None, None), least=0, remedy="samples by node and label")
    require(
        len(counts) > 1 and counts.shape[1] > 0, f"label_counts of shape {counts.shape}: needs two nodes, and a label"
    )
    empty = np.flatnonzero(counts.sum(1) == 0)
    require(empty.size == 0, f"label_counts: node {empty[:1].sum()} has no samples; leave it out")
    return counts
