"""Rumour spreading: how long until everybody has heard, in synchronous rounds and in continuous time.

One node knows a rumour at the start. In a synchronous round all nodes call uniformly random other nodes at the same
time: in "push" the informed nodes tell those they call, in "pull" the uninformed nodes ask those they call, and in
"push-pull" both happen. A node that hears the rumour passes it on from the next round on. In continuous time every node
calls a uniformly random neighbour at the ticks of its own Poisson clock of rate λ; "two-way" is push-pull.

Each docstring gives the statement, its assumptions, its source and its kind: *exact*, *bound* or *asymptotic*, and
"recalled" if it was not checked against the source's text. ``H_k = 1 + … + 1/k``; n is the number of nodes.

Reference: Frieze and Grimmett 1985 and Pittel 1987 (push); Karp, Schindelhauer, Shenker, Vöcking 2000 (push-pull).
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Float, Num

from .age import Bounds
from .arguments import choice, flag, real, square, whole

Number: TypeAlias = int | float
Protocol = Literal["push", "pull", "push-pull"]
Graph = Literal["complete", "ring", "star"]
Start = Literal["hub", "leaf"]

_LARGEST_CHAIN = 12
_LARGEST_CUT = 16
_NEGLIGIBLE = 1e-16


def rounds_pmf(n: int, *, protocol: Protocol, size: int | None = None) -> Float[np.ndarray, " size"]:
    """Compute ``P(R = 0), P(R = 1), …`` of the number R of synchronous rounds on the complete graph.

    The number k of informed nodes is a Markov chain. Push: the k calls are taken one after another, and each finds a
    new node with probability ``(n − m)/(n − 1)``, where m nodes are informed by then. Pull:
    ``k → k + Bin(n − k, k/(n − 1))``. Push-pull: first the binomial step, then the calls of the k nodes that were
    informed *before* it, because the calls of one round are independent.
    Kind: exact, up to rounding; O(n³), about a second for n = 1000. Source: derived here from the definition.

    Args:
        n: nodes, at least one.
        protocol: who passes the rumour on in a call.
        size: length of the result; by default the tail that is cut off has a mass below 1e-16.

    Returns:
        Probabilities of 0, 1, … rounds; they sum to less than one if ``size`` cuts off a tail.

    Raises:
        ValueError: no nodes, an unknown protocol, a size below one.
    """
    step = _transitions(n, protocol)
    if size is not None:
        size = whole("size", size, least=1, remedy="leave it out to get the whole law")
    law = np.zeros(n - 1)
    law[:1] = 1.0
    pmf = [1.0 if n == 1 else 0.0]
    while len(pmf) < size if size is not None else law.sum() > _NEGLIGIBLE:
        after = law @ step
        law = after[:-1]
        pmf.append(float(after[-1]))
    return np.array(pmf)


def mean_rounds(n: int, protocol: Protocol) -> float:
    """Compute the mean number of synchronous rounds on the complete graph.

    ``E_k = (1 + Σ_{m>k} P_km E_m)/Σ_{m>k} P_km``, ``E_n = 0``, where P is the chain of :func:`rounds_pmf`; the result
    is E_1.
    Kind: exact, O(n³). Source: derived here.

    Raises:
        ValueError: no nodes, or an unknown protocol.
    """
    step = _transitions(n, protocol)
    rounds = np.zeros(n)
    for k in range(n - 2, -1, -1):
        gain = step[k, k + 1 :]
        rounds[k] = (1.0 + gain @ rounds[k + 1 :]) / gain.sum()
    return float(rounds[0])


def rounds_asymptotic(n: int, protocol: Protocol) -> float:
    """Compute the leading terms of the mean number of rounds on the complete graph.

    push ``log_2 n + ln n``, pull ``log_2 n + log_2 ln n``, push-pull ``log_3 n + log_2 ln n``. Source: push Frieze and
    Grimmett 1985, Pittel 1987; pull and push-pull Karp et al. 2000, Doerr and Kostrygin 2017, recalled, not checked
    against the papers' text. Kind: asymptotic, error O(1).

    Raises:
        ValueError: fewer than three nodes (ln ln n), or an unknown protocol.
    """
    choice("protocol", protocol, get_args(Protocol))
    n = whole("n", n, least=3)
    if protocol == "push":
        return math.log2(n) + math.log(n)
    return math.log(n, 2 if protocol == "pull" else 3) + math.log2(math.log(n))


def push_rounds_window(n: int) -> Bounds:
    """Bound the mean number of push rounds: ``⌊log_2 n⌋ + ln n − 1.116 ≤ E R ≤ ⌈log_2 n⌉ + ln n + 2.765 + o(1)``.

    The o(1) is left out. Assumes: complete graph. Source: Doerr and Künnemann 2014, "Tight Analysis of Randomized Rumor
    Spreading in Complete Graphs" (abstract). Kind: two-sided bound, its upper side
    asymptotic.

    Raises:
        ValueError: fewer than two nodes.
    """
    n = whole("n", n, least=2)
    below, above = n.bit_length() - 1, (n - 1).bit_length()
    return Bounds(below + math.log(n) - 1.116, above + math.log(n) + 2.765)


def asynchronous_time(
    n: int, *, graph: Graph, gossip_rate: Number, two_way: bool = False, start: Start = "hub"
) -> float:
    """Compute the mean time until all n nodes are informed, if every node calls a random neighbour at rate λ.

    ========  ======================================  =============================================
    graph     push                                    two-way
    ========  ======================================  =============================================
    complete  ``2 (n−1)/n H_{n−1}/λ``                 half of it
    ring      ``(n−1)/λ``                             half of it
    star      hub: ``(n−1) H_{n−1}/λ``                hub: ``(n−1)/n H_{n−1}/λ``
    star      leaf: ``(1 + (n−1) H_{n−2})/λ``         leaf: ``(n−1)/n (1 + H_{n−2})/λ``
    ========  ======================================  =============================================

    The number k of informed nodes grows at ``k(n − k)λ/(n − 1)`` on the complete graph and at λ on the ring; on the
    star each leaf hears from the informed hub at ``λ/(n − 1)`` (push), and also asks it at λ (two-way). Kind: exact.
    Source: derived here from these rates.

    Args:
        n: nodes, at least two.
        graph: for any other small graph see :func:`asynchronous_time_graph`.
        gossip_rate: λ, calls per node and unit time.
        two_way: whether the called node also passes the rumour on.
        start: where the rumour starts; it matters only on the star.

    Raises:
        ValueError: fewer than two nodes, a rate that is not positive, an unknown graph or start.
    """
    n = whole("n", n, least=2)
    gossip_rate = real("gossip_rate", gossip_rate, above=0)
    choice("graph", graph, get_args(Graph))
    choice("start", start, get_args(Start))
    two_way = flag("two_way", two_way)
    if graph == "star":
        rounds = _star_time(n, two_way, start)
    else:
        rounds = (2.0 * (n - 1) / n * _harmonic(n - 1) if graph == "complete" else n - 1.0) / (2 if two_way else 1)
    return rounds / gossip_rate


def asynchronous_time_graph(rates: Num[np.ndarray, "n n"], start: int = 0) -> float:
    """Compute the mean time until all nodes are informed on any graph with at most 12 nodes, set by set.

    With ``λ_v(S) = Σ_{u∈S} λ_uv``, from large sets to small::

        E_S = (1 + Σ_{v∉S} λ_v(S) E_{S∪{v}}) / Σ_{v∉S} λ_v(S),      E_all = 0, result E_{start}

    Assumes: Poisson clocks. Kind: exact, O(2^n n). Source: derived here from the forward chain of informed sets.

    Args:
        rates: rate at which u tells v; the diagonal is ignored. For two-way contacts add the transpose, or use
            :func:`contact_rates`.
        start: the node that knows the rumour.

    Returns:
        Mean time, ``inf`` if some node is never reached.

    Raises:
        ValueError: a matrix that is not square, more than 12 nodes, negative rates, no such node.
    """
    rates = _matrix("rates", rates, _LARGEST_CHAIN)
    n = len(rates)
    start = whole("start", start, least=0, most=n - 1)
    np.fill_diagonal(rates, 0.0)
    bits = 1 << np.arange(n)
    inflow = _members(n) @ rates
    times = np.zeros(1 << n)
    for informed in range((1 << n) - 2, 0, -1):
        if informed >> start & 1:
            heard = np.where(informed & bits, 0.0, inflow[informed])
            reached = heard > 0
            gain = heard[reached] @ times[informed | bits[reached]]
            times[informed] = (1.0 + gain) / heard.sum() if reached.any() else math.inf
    return float(times[1 << start])


def contact_rates(
    adjacency: Num[np.ndarray, "n n"], gossip_rate: Number, *, two_way: bool = False
) -> Float[np.ndarray, "n n"]:
    """Compute the rates ``λ_uv = λ A_uv/Σ_w A_uw`` at which u tells v; two-way: ``λ_uv + λ_vu``.

    Kind: exact (the definition of uniform calls).

    Raises:
        ValueError: a matrix that is not square, negative entries, a node without neighbours, a rate not positive.
    """
    gossip_rate = real("gossip_rate", gossip_rate, above=0)
    two_way, adjacency = flag("two_way", two_way), _graph(adjacency, None)
    rates = gossip_rate * adjacency / adjacency.sum(axis=1, keepdims=True)
    return rates + rates.T if two_way else rates


def conductance(adjacency: Num[np.ndarray, "n n"]) -> float:
    """Compute the conductance ``φ = min_S cut(S, V∖S)/vol(S)`` over sets of at most half the volume, set by set.

    ``vol(S) = Σ_{i∈S} Σ_j A_ij``. Assumes: symmetric A without self-loops, at most 16 nodes. Kind: exact, O(2^n n).

    Raises:
        ValueError: a matrix that is not square or symmetric, fewer than 2 or more than 16 nodes, negative entries, a
            node without neighbours.
    """
    adjacency = _graph(adjacency, _LARGEST_CUT)
    if not np.allclose(adjacency, adjacency.T, rtol=1e-12, atol=0.0):
        raise ValueError("adjacency is not symmetric: conductance is defined here for undirected graphs")
    members = _members(len(adjacency))[1:-1]
    volume = members @ adjacency.sum(axis=1)
    cut = np.einsum("sj,sj->s", members @ adjacency, 1.0 - members)
    # Sets of exactly half the volume are common, and sums in different orders differ by rounding.
    small = volume <= 0.5 * adjacency.sum() * (1.0 + 1e-12)
    return float(np.min(cut[small] / volume[small]))


def conductance_complete(n: int) -> float:
    """Compute ``φ = ⌈n/2⌉/(n − 1)`` of the complete graph, attained by every set of ⌊n/2⌋ nodes. Kind: exact."""
    n = whole("n", n, least=2)
    return (n + 1) // 2 / (n - 1)


def conductance_ring(n: int) -> float:
    """Compute ``φ = 1/⌊n/2⌋`` of the ring, attained by ⌊n/2⌋ consecutive nodes. Kind: exact."""
    n = whole("n", n, least=2)
    return 1.0 / (n // 2)


def conductance_bound(n: int, phi: Number, constant: Number) -> float:
    """Compute ``C ln n/φ``, the order of the push-pull rounds on every graph of conductance φ.

    For some C, push-pull ends within this time with high probability. The caller chooses C, because the constant of the
    source is not known to us. Source: Giakkoupis 2011, "Tight bounds for rumor spreading in graphs of a given
    conductance" (abstract; theorem recalled, not checked against the paper's text). Kind: upper bound, order only.

    Raises:
        ValueError: fewer than two nodes, φ outside (0, 1], a constant that is not positive.
    """
    n = whole("n", n, least=2)
    constant = real("constant", constant, above=0)
    phi = real("phi", phi, above=0, most=1, remedy="zero means a disconnected graph, which has no bound")
    return constant * math.log(n) / phi


def _transitions(n: int, protocol: str) -> np.ndarray:
    """Return P[k − 1, m − 1] from k = 1 … n − 1 informed nodes to m = 1 … n after one round."""
    choice("protocol", protocol, get_args(Protocol))
    n = whole("n", n, least=1)
    if protocol == "push":
        return _push(np.eye(n - 1, n))
    k, m = np.arange(1, n)[:, None], np.arange(1, n + 1)[None, :]
    pulled = np.triu(scipy.stats.binom.pmf(m - k, n - k, k / max(n - 1, 1))) if n > 1 else np.zeros((0, 1))
    return pulled if protocol == "pull" else _push(pulled)


def _push(law: np.ndarray) -> np.ndarray:
    """Let the k nodes of row k call one after another; law[k − 1] is the law of m = 1 … n informed nodes."""
    n = law.shape[1]
    hit = (n - np.arange(1.0, n + 1)) / max(n - 1, 1)
    for call in range(n - 1):
        # Rows with more than ``call`` informed nodes have a call left, and none of their mass is at fewer nodes.
        block = law[call:, call:]
        reached = block * hit[call:]
        block -= reached
        block[:, 1:] += reached[:, :-1]
    return law


def _star_time(n: int, two_way: bool, start: str) -> float:
    """Return the mean time in units of 1/λ: the remaining leaves hear one by one, after the hub has heard."""
    hub_hears, leaf_hears = (n / (n - 1), n / (n - 1)) if two_way else (1.0, 1.0 / (n - 1))
    if start == "hub":
        return _harmonic(n - 1) / leaf_hears
    return 1.0 / hub_hears + _harmonic(n - 2) / leaf_hears


def _members(n: int) -> np.ndarray:
    """Return the indicator vectors of all sets, row S for bit mask S."""
    return (np.arange(1 << n)[:, None] >> np.arange(n) & 1).astype(np.float64)


def _harmonic(k: int) -> float:
    return float(scipy.special.digamma(k + 1.0) + np.euler_gamma)


def _graph(adjacency: np.ndarray, largest: int | None) -> np.ndarray:
    adjacency = _matrix("adjacency", adjacency, largest)
    np.fill_diagonal(adjacency, 0.0)
    if not (adjacency.sum(axis=1) > 0).all():
        raise ValueError("adjacency has a node without neighbours, which can call nobody; leave it out")
    return adjacency


def _matrix(name: str, matrix: np.ndarray, largest: int | None) -> np.ndarray:
    remedy = "" if largest is None else "every set of nodes is visited"
    return square(name, matrix, least=0, nodes=(2, largest), remedy=remedy)
