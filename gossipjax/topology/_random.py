"""Random graphs, each drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

from gossipjax._base.arguments import instance, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.lazy import networkx as nx
from gossipjax.topology._graph import HOW_TO_BUILD, Nodes, Topology, require, require_nodes, require_room, undirected
from gossipjax.topology._sorted import in_sorted, sorted_distinct

_NETWORKX = 500.0
"""Additional bytes per node and per edge while NetworkX builds the graph."""


@recorded()
def random_regular(num_nodes: int, degree: int, *, seed: int, tries: int = 1) -> Topology:
    """Draw a connected graph in which every node has the same degree.

    Stubs are paired at random. Pairs that would make a self-loop or a repeated edge are drawn again, and the few that
    remain are switched with random edges. The draw is asymptotically uniform over regular graphs of a fixed degree.

    Args:
        num_nodes: n.
        degree: neighbours per node, less than n; n · degree must be even.
        seed: seed of the draw.
        tries: maximum number of draws; the first connected graph is returned (its law is conditioned on connectedness).
            With degree 3 or more almost every graph is connected; with degree 2 few are.

    Raises:
        ValueError: if no such graph exists, or no draw is connected.
    """
    num_nodes = require_nodes(num_nodes)
    degree = whole("degree", degree, least=0, most=num_nodes - 1, remedy=f"less than num_nodes={num_nodes}")
    subject = f"num_nodes={num_nodes}, degree={degree}"
    require(num_nodes * degree % 2 == 0, f"{subject}: their product must be even; add a node or change the degree")
    require(degree > 0 or num_nodes == 1, f"{subject}: no node would have an edge; choose a positive degree")
    require(degree > 1 or num_nodes <= 2, f"{subject}: the graph cannot be connected; choose a degree of 2 or more")
    ends = num_nodes * (degree if 2 * degree < num_nodes else num_nodes)
    require_room(f"{subject}: the random regular graph", num_nodes, ends, "choose a smaller degree or fewer nodes")

    def draw(rng: np.random.Generator) -> tuple[Nodes, Nodes]:
        return regular_ends(num_nodes, degree, rng)

    name = f"random_regular({num_nodes}, {degree}"
    return _draw_connected(num_nodes, draw, name, seed, tries, "a degree of at least 3")


def regular_ends(num_nodes: int, degree: int, rng: np.random.Generator) -> tuple[Nodes, Nodes]:
    """Draw a simple regular graph, which may be disconnected; return both ends of each edge."""
    if 2 * degree < num_nodes:
        return np.divmod(_regular_codes(num_nodes, degree, rng), num_nodes)
    absent = _regular_codes(num_nodes, num_nodes - 1 - degree, rng)
    near, far = np.triu_indices(num_nodes, 1)
    present = ~np.isin(near * num_nodes + far, absent)
    return near[present], far[present]


@recorded()
def erdos_renyi(num_nodes: int, probability: float, *, seed: int, tries: int = 1) -> Topology:
    """Draw a graph in which every pair is an edge with the same probability, independently: G(n, p).

    Args:
        num_nodes: n.
        probability: p, in [0, 1].
        seed: seed of the draw.
        tries: maximum number of draws; the first connected graph is returned (its law is conditioned on connectedness).

    Raises:
        ValueError: if an argument is out of range, or no draw is connected, which is likely if p < ln(n)/n.
    """
    num_nodes = require_nodes(num_nodes)
    probability = real("probability", probability, least=0, most=1)
    pairs = num_nodes * (num_nodes - 1) // 2
    # NumPy lists all pairs if it draws more than a twentieth of them.
    listed = 8.0 * pairs if 20 * probability > 0.9 else 0.0
    subject = f"num_nodes={num_nodes}, probability={probability}"
    remedy = "choose a smaller probability or fewer nodes"
    require_room(f"{subject}: the random graph", num_nodes, 2 * probability * pairs, remedy, extra=listed)

    def draw(rng: np.random.Generator) -> tuple[Nodes, Nodes]:
        count = rng.binomial(pairs, probability)
        return _pair_of_code(rng.choice(pairs, count, replace=False, shuffle=False) if count else np.zeros(0, np.int64))

    threshold = np.log(num_nodes) / num_nodes
    name = f"erdos_renyi({num_nodes}, {probability}"
    return _draw_connected(num_nodes, draw, name, seed, tries, f"a probability well above ln(n)/n = {threshold:.3g}")


@recorded("watts1998small")
def watts_strogatz(num_nodes: int, neighbors: int, rewiring: float, *, seed: int, tries: int = 1) -> Topology:
    """Draw a small-world graph: a ring lattice in which each edge is rewired to a random end with some probability.

    Args:
        num_nodes: n.
        neighbors: neighbours of a node in the lattice: even, at least 2, less than n.
        rewiring: probability in [0, 1] that an edge is rewired.
        seed: seed of the draw.
        tries: maximum number of draws; the first connected graph is returned (its law is conditioned on connectedness).

    Raises:
        ValueError: if an argument is out of range, or no draw is connected.

    Reference: Watts, Strogatz (1998), "Collective dynamics of 'small-world' networks".
    """
    num_nodes = require_nodes(num_nodes)
    rule = f"an even number of lattice neighbours, less than num_nodes={num_nodes}"
    neighbors = whole("neighbors", neighbors, least=2, most=num_nodes - 1, remedy=rule)
    require(neighbors % 2 == 0, f"neighbors={neighbors}: must be even; {rule}")
    rewiring = real("rewiring", rewiring, least=0, most=1, remedy="a probability")
    _require_room_of_networkx(f"num_nodes={num_nodes}, neighbors={neighbors}", num_nodes, neighbors // 2)

    def draw(rng: np.random.Generator) -> tuple[Nodes, Nodes]:
        return _ends(nx.watts_strogatz_graph(num_nodes, neighbors, rewiring, seed=int(rng.integers(2**31))))

    name = f"watts_strogatz({num_nodes}, {neighbors}, {rewiring}"
    return _draw_connected(num_nodes, draw, name, seed, tries, "more lattice neighbours or less rewiring")


@recorded("barabasi1999scaling")
def barabasi_albert(num_nodes: int, attachments: int, *, seed: int) -> Topology:
    """Draw a scale-free graph: each new node attaches to earlier nodes in proportion to their degree.

    Args:
        num_nodes: n.
        attachments: edges of each new node, at least 1 and less than n. The graph grows from a star of
            ``attachments + 1`` nodes, so it is always connected.
        seed: seed of the draw.

    Raises:
        ValueError: if an argument is out of range.

    Reference: Barabási, Albert (1999), "Emergence of scaling in random networks".
    """
    num_nodes, seed = require_nodes(num_nodes), checked_seed(seed)
    rule = f"less than num_nodes={num_nodes}"
    attachments = whole("attachments", attachments, least=1, most=num_nodes - 1, remedy=rule)
    _require_room_of_networkx(f"num_nodes={num_nodes}, attachments={attachments}", num_nodes, attachments)
    name = f"barabasi_albert({num_nodes}, {attachments}, seed={seed})"
    state = int(np.random.default_rng(seed).integers(2**31))
    return undirected(num_nodes, *_ends(nx.barabasi_albert_graph(num_nodes, attachments, seed=state)), name)


@recorded()
def random_tree(num_nodes: int, *, seed: int) -> Topology:
    """Draw a tree uniformly among the n^(n − 2) labelled trees on n nodes.

    Args:
        num_nodes: n ≥ 1.
        seed: seed of the draw.
    """
    num_nodes, seed = require_nodes(num_nodes), checked_seed(seed)
    _require_room_of_networkx(f"num_nodes={num_nodes}", num_nodes, 1)
    rng, name = np.random.default_rng(seed), f"random_tree({num_nodes}, seed={seed})"
    if num_nodes == 1:
        return undirected(1, np.zeros(0, np.int64), np.zeros(0, np.int64), name)
    tree = nx.from_prufer_sequence(rng.integers(num_nodes, size=num_nodes - 2).tolist())
    return undirected(num_nodes, *_ends(tree), name)


@recorded()
def random_matching(num_nodes: int, *, seed: int) -> Topology:
    """Draw ⌊n/2⌋ disjoint pairs uniformly. Disconnected by design; if n is odd, one node has no partner."""
    num_nodes, seed = require_nodes(num_nodes), checked_seed(seed)
    require_room(f"num_nodes={num_nodes}: the matching", num_nodes, num_nodes, "choose fewer nodes")
    order = np.random.default_rng(seed).permutation(num_nodes)
    half = num_nodes // 2
    return undirected(num_nodes, order[:half], order[half : 2 * half], f"random_matching({num_nodes}, seed={seed})")


@recorded()
def random_matching_of(topology: Topology, *, seed: int) -> Topology:
    """Draw a maximal matching of a graph: visit the edges in random order and keep those whose two ends are free.

    Disconnected by design; a node whose neighbours are all matched has no partner.
    """
    topology, seed = instance("topology", topology, Topology, HOW_TO_BUILD), checked_seed(seed)
    require(not topology.directed, f"{topology.name} is directed; a matching needs an undirected graph")
    once = topology.senders < topology.receivers
    near, far = topology.senders[once], topology.receivers[once]
    rank = np.random.default_rng(seed).permutation(near.size)
    matched: list[np.ndarray] = []
    # Each pass takes the edges that come first at both ends and removes their neighbours. The result is that of
    # visiting the edges one by one, after about log n passes.
    while near.size:
        first = np.full(topology.num_nodes, rank.max() + 1)
        np.minimum.at(first, near, rank)
        np.minimum.at(first, far, rank)
        chosen = (first[near] == rank) & (first[far] == rank)
        matched.append(np.stack([near[chosen], far[chosen]]))
        busy = np.zeros(topology.num_nodes, bool)
        busy[matched[-1]] = True
        left = ~(busy[near] | busy[far])
        near, far, rank = near[left], far[left], rank[left]
    ends = np.concatenate([np.zeros((2, 0), np.int32), *matched], axis=1)
    return undirected(topology.num_nodes, ends[0], ends[1], f"random_matching_of({topology.name}, seed={seed})")


def _draw_connected(
    num_nodes: int,
    draw: Callable[[np.random.Generator], tuple[Nodes, Nodes]],
    name: str,
    seed: int,
    tries: int,
    remedy: str,
) -> Topology:
    """Draw from one random stream until the graph is connected, so that consecutive seeds share no graph."""
    tries, seed = whole("tries", tries, least=1), checked_seed(seed)
    rng = np.random.default_rng(seed)
    for attempt in range(tries):
        suffix = f", draw {attempt + 1})" if attempt else ")"
        topology = undirected(num_nodes, *draw(rng), f"{name}, seed={seed}{suffix}")
        if (count := topology.num_components()) == 1:
            return topology
    raise ValueError(
        f"{topology.name} has {count} components, and no draw of tries={tries} was connected: choose {remedy}, "
        "another seed, or more tries"
    )


def _require_room_of_networkx(subject: str, num_nodes: int, edges_per_node: int) -> None:
    edges = num_nodes * edges_per_node
    remedy = "choose fewer nodes or edges"
    require_room(f"{subject}: the random graph", num_nodes, 2 * edges, remedy, extra=_NETWORKX * (edges + num_nodes))


def _ends(graph: nx.Graph) -> tuple[Nodes, Nodes]:
    ends = np.array(graph.edges, np.int64).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def _pair_of_code(codes: Nodes) -> tuple[Nodes, Nodes]:
    """Return (i, j), i < j, of the pair with number j (j − 1) / 2 + i."""
    high = ((1 + np.sqrt(1 + 8 * codes.astype(np.float64))) / 2).astype(np.int64)
    high -= high * (high - 1) // 2 > codes
    high += high * (high + 1) // 2 <= codes
    return codes - high * (high - 1) // 2, high


def _regular_codes(num_nodes: int, degree: int, rng: np.random.Generator) -> Nodes:
    """Draw a simple regular graph of degree below n / 2; return i * n + j for each edge with i < j."""
    while True:
        stubs = np.repeat(np.arange(num_nodes), degree)
        rounds: list[Nodes] = []
        while stubs.size:
            rng.shuffle(stubs)
            low, high = np.minimum(stubs[::2], stubs[1::2]), np.maximum(stubs[::2], stubs[1::2])
            new, left = _first_edges(low * num_nodes + high, low == high, rounds)
            if not new.size:
                break
            rounds.append(new)
            stubs = np.stack([low[left], high[left]], axis=1).ravel()
        codes = np.concatenate([np.zeros(0, np.int64), *rounds])
        for pair in stubs.reshape(-1, 2):
            switched = _switch(num_nodes, codes, pair, rng)
            if switched is None:
                break
            codes = switched
        else:
            return codes


def _first_edges(
    codes: Int[np.ndarray, " m"], loops: Bool[np.ndarray, " m"], present: list[Int[np.ndarray, " _"]]
) -> tuple[Int[np.ndarray, " new"], Bool[np.ndarray, " m"]]:
    """Sort the new edges among codes; mark all entries but the first of each: loops, repeated and present edges.

    Args:
        codes: of pairs of nodes.
        loops: which of them are self-loops.
        present: codes of the edges that there are, in sorted arrays.
    """
    distinct, repeated = sorted_distinct(codes)
    there = [distinct[in_sorted(distinct, edges)] for edges in present]
    refused = np.concatenate([codes[loops], *there])
    left = loops.copy()
    # Few of many entries are in doubt: their places are found one by one, and the others need no place.
    doubted = np.flatnonzero(in_sorted(codes, sorted_distinct(np.concatenate([refused, repeated]))[0]))
    values, first = np.unique(codes[doubted], return_index=True)
    refused = sorted_distinct(refused)[0]
    left[doubted] = True
    left[doubted[first[~in_sorted(values, refused)]]] = False
    return distinct[~in_sorted(distinct, refused)], left


def _switch(
    num_nodes: int, codes: Int[np.ndarray, " m"], pair: Int[np.ndarray, " 2"], rng: np.random.Generator
) -> Int[np.ndarray, " m+1"] | None:
    """Replace a random edge (x, y) by (u, x) and (v, y), where u and v cannot be joined; None if no edge allows it."""
    low, high = np.divmod(codes, num_nodes)
    x, y = np.concatenate([low, high]), np.concatenate([high, low])
    near = np.zeros((2, num_nodes), bool)
    for blocked, node in zip(near, pair, strict=True):
        blocked[node] = True
        blocked[y[x == node]] = True
    possible = np.flatnonzero(~near[0][x] & ~near[1][y])
    if not possible.size:
        return None
    edge = rng.choice(possible)
    ends = np.sort([[pair[0], x[edge]], [pair[1], y[edge]]], axis=1)
    return np.concatenate([np.delete(codes, edge % codes.size), ends @ [num_nodes, 1]])
