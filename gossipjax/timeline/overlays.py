"""Overlays: communication graphs that change from round to round, for :func:`gossipjax.timeline.changing_rounds`.

An overlay is a function from the number of a round to a :class:`~gossipjax.topology.Topology`. Each round is drawn from
a random stream of its own, so that round t is the same however many rounds are planned. A single round may be
disconnected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Int

from gossipjax._base.arguments import callable_, choice, instance, sequence_of, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.lazy import networkx as nx
from gossipjax.timeline._checks import undirected
from gossipjax.timeline._memory import MOST_NODES
from gossipjax.topology import Topology, random_matching, random_matching_of, with_ring
from gossipjax.topology._graph import undirected as undirected_graph
from gossipjax.topology._random import regular_ends

__all__ = ["Overlay", "decentralizepy_regular", "epidemic", "matchings", "regular", "sequence"]

AN_OVERLAY = "make one with gossipjax.timeline.overlays, such as regular(8, 4, seed=0), or pass a topology"
_PER_SEED = 100_000
"""Seeds of one run of DecentralizePy: the round is added to this multiple of the run's seed."""


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Overlay:
    """A communication graph for every round.

    Attributes:
        num_nodes: n, the same in all rounds.
        graph: ``graph(round)`` returns the :class:`~gossipjax.topology.Topology` of round 0, 1, …; the same round has
            the same graph whenever it is asked for.
        name: for reports.

    Raises:
        ValueError: if ``num_nodes`` is not a number of nodes.
        TypeError: if ``graph`` is not a function, or the name is not a string.
    """

    num_nodes: int
    graph: Callable[[int], Topology]
    name: str

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.name, {"nodes": self.num_nodes}

    def __post_init__(self) -> None:
        """Check the fields."""
        whole("num_nodes", self.num_nodes, least=1, most=MOST_NODES)
        callable_("graph", self.graph, "graph(round) -> Topology")
        instance("name", self.name, str, "name the overlay for reports")


@recorded()
def regular(num_nodes: int, degree: int, *, seed: int) -> Overlay:
    """Draw a new random regular graph in every round, asymptotically uniform among all regular graphs.

    >>> overlay = regular(8, 4, seed=0)
    >>> overlay.graph(3)
    Topology(regular(8, 4, seed=0)[3]: 8 nodes, 16 undirected edges)

    Args:
        num_nodes: n.
        degree: neighbours per node and round, at least 1 and less than n; n · degree must be even. A round may be
            disconnected, which is likely for a degree of 1 or 2 only.
        seed: of all rounds.

    Raises:
        ValueError: if no such graph exists.
    """
    n, degree = _regular_sizes(num_nodes, degree)
    seed = checked_seed(seed)
    name = f"regular({n}, {degree}, seed={seed})"
    return Overlay(n, Partial(_regular_round, n, degree, seed, name), name)


def _regular_round(n: int, degree: int, seed: int, name: str, t: int) -> Topology:
    return undirected_graph(n, *regular_ends(n, degree, _stream(seed, t)), f"{name}[{t}]")


@recorded("dhasade2023decentralizepy")
def decentralizepy_regular(num_nodes: int, degree: int, *, seed: int) -> Overlay:
    """Replay the regular graphs of DecentralizePy's dynamic peer sampler, round by round and edge by edge.

    Round t is ``networkx.random_regular_graph(degree, n, seed=100000 * seed + t)`` of the installed NetworkX; other
    versions of it may draw other graphs. A disconnected graph gets the edges of a ring in addition, as there.
    :func:`regular` draws several times faster, and needs no NetworkX.

    Args:
        num_nodes: n.
        degree: neighbours per node and round, at least 1 and less than n; n · degree must be even.
        seed: the ``random_seed`` of DecentralizePy's configuration.

    Raises:
        ValueError: if no such graph exists.

    Reference: Dhasade et al. 2023, "Decentralized Learning Made Easy with DecentralizePy"; its ``PeerSamplerDynamic``.
    """
    n, degree = _regular_sizes(num_nodes, degree)
    seed = checked_seed(seed)
    name = f"decentralizepy_regular({n}, {degree}, seed={seed})"
    return Overlay(n, Partial(_replayed_round, n, degree, seed, name), name)


def _replayed_round(n: int, degree: int, seed: int, name: str, t: int) -> Topology:
    graph = nx.random_regular_graph(degree, n, seed=_PER_SEED * seed + t)
    ends = np.array(graph.edges, np.int64).reshape(-1, 2)
    topology = undirected_graph(n, ends[:, 0], ends[:, 1], f"{name}[{t}]")
    return topology if topology.num_components() == 1 else with_ring(topology)


@recorded("devos2023epidemic")
def epidemic(num_nodes: int, fanout: int, *, seed: int, variant: Literal["oracle", "local"] = "local") -> Overlay:
    """Draw the recipients of Epidemic Learning anew in every round.

    EL-Local: every node sends to s uniform others, so that a node receives Binomial(n − 1, s/(n − 1)) models.
    EL-Oracle: neighbours in a random s-regular graph, as :func:`regular`. Both average with ``weights="uniform"``; one
    such round multiplies the expected squared distance to the old mean by ``theory.mixing.epidemic_factor``.
    :func:`gossipjax.systems.epidemic` plans Epidemic Learning on devices, with draws of its own (its regular graphs are
    connected).

    Args:
        num_nodes: n ≥ 2.
        fanout: s, at least 1 and less than n; for the oracle, n · s must be even.
        seed: of all rounds.
        variant: which.

    Raises:
        ValueError: if an argument is out of range.

    Reference: de Vos et al. 2023, "Epidemic Learning: boosting decentralized learning with randomized communication".
    """
    if choice("variant", variant, ("oracle", "local")) == "oracle":
        n, fanout = _regular_sizes(num_nodes, fanout, "fanout")
    else:
        n = whole("num_nodes", num_nodes, least=2, most=MOST_NODES)
        fanout = whole("fanout", fanout, least=1, most=n - 1, remedy=f"among the others of {n} nodes")
    seed = checked_seed(seed)
    name = f"epidemic({n}, {fanout}, seed={seed}, {variant})"
    draw = _regular_round if variant == "oracle" else _local_round
    return Overlay(n, Partial(draw, n, fanout, seed, name), name)


def _local_round(n: int, fanout: int, seed: int, name: str, t: int) -> Topology:
    others = _distinct(n, fanout, _stream(seed, t))
    own = np.arange(n)[:, None]
    receivers = (others + (others >= own)).ravel()
    return Topology(n, np.repeat(own.ravel(), fanout), receivers, directed=True, name=f"{name}[{t}]")


def _distinct(n: int, count: int, rng: np.random.Generator) -> Int[np.ndarray, "n count"]:
    """Draw ``count`` distinct numbers below n − 1 for each of n nodes."""
    if count**2 > n:  # a draw would often have to be repeated
        return np.argpartition(rng.random((n, n - 1), np.float32), count - 1, axis=1)[:, :count]
    numbers, again = np.zeros((n, count), np.int64), np.arange(n)
    while again.size:
        numbers[again] = rng.integers(0, n - 1, (again.size, count))
        ordered = np.sort(numbers[again], axis=1)
        again = again[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)]
    return numbers


@recorded()
def matchings(peers: Topology | int, *, seed: int) -> Overlay:
    """Draw a new random matching in every round.

    Args:
        peers: n: ⌊n/2⌋ uniform disjoint pairs of all nodes; or an undirected topology: a maximal matching of its edges,
            visited in random order.
        seed: of all rounds.

    Raises:
        ValueError: if the topology is directed, or has no edge.
    """
    seed = checked_seed(seed)
    if isinstance(peers, Topology):
        n, name = undirected(peers, "peers").num_nodes, f"matchings({peers.name}, seed={seed})"
    else:
        n = whole("peers", peers, least=1, most=MOST_NODES, remedy="n nodes, or a topology such as topology.ring(8)")
        name = f"matchings({n}, seed={seed})"
    return Overlay(n, Partial(_matching_round, peers, seed), name)


def _matching_round(peers: Topology | int, seed: int, t: int) -> Topology:
    word = int(_stream(seed, t).integers(2**62))
    return random_matching_of(peers, seed=word) if isinstance(peers, Topology) else random_matching(peers, seed=word)


@recorded()
def sequence(graphs: Sequence[Topology]) -> Overlay:
    """Use given graphs in turn: round t has ``graphs[t mod len(graphs)]``.

    :func:`gossipjax.topology.read_graphs` reads such a sequence from files.

    Args:
        graphs: topologies of the same nodes.

    Raises:
        ValueError: if there is no graph, or the graphs differ in their numbers of nodes.
        TypeError: if an entry is not a topology.
    """
    return _in_turn("graphs", graphs)


def _in_turn(argument: str, graphs: Any) -> Overlay:
    graphs = sequence_of(argument, graphs, Topology, "build them with gossipjax.topology, or read_graphs(files)")
    sizes = sorted({graph.num_nodes for graph in graphs})
    if len(sizes) != 1:
        raise ValueError(f"{argument}: {len(graphs)} graphs of {sizes} nodes; pass at least one, all of the same nodes")
    name = f"sequence of {len(graphs)} graphs, from {graphs[0].name}" if len(graphs) > 1 else graphs[0].name
    return Overlay(sizes[0], Partial(_listed_round, graphs), name)


def _listed_round(graphs: tuple[Topology, ...], t: int) -> Topology:
    return graphs[t % len(graphs)]


def as_overlay(name: str, value: Any) -> Overlay:
    """Return an overlay; a topology is the same in every round, and a list of topologies is used in turn."""
    if isinstance(value, Overlay):
        return value
    if isinstance(value, Topology | list | tuple):
        return _in_turn(name, [value] if isinstance(value, Topology) else value)
    return instance(name, value, Overlay, AN_OVERLAY)


def _stream(seed: int, t: int) -> np.random.Generator:
    return np.random.default_rng([seed, t])


def _regular_sizes(num_nodes: Any, degree: Any, name: str = "degree") -> tuple[int, int]:
    n = whole("num_nodes", num_nodes, least=2, most=MOST_NODES)
    degree = whole(name, degree, least=1, most=n - 1, remedy=f"less than num_nodes={n}")
    if n * degree % 2:
        raise ValueError(f"num_nodes={n}, {name}={degree}: their product must be even; add a node or change {name}")
    return n, degree
