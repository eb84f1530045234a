"""Version age of gossip: how many versions of an external source a node is behind.

A source makes versions at rate ``λ_e`` and delivers its newest one to node i at rate ``λ_0i``. Node u pushes to node j
at rate ``λ_uj``, and the receiver keeps the newer version. All clocks are independent Poisson clocks, and ages are
stationary. On symmetric graphs the source delivers at the total rate ``λ_s`` (``λ_s/n`` to each node), and every node
pushes at the total rate ``λ``, each time to a uniformly random neighbour.

Read backwards in time, the age of a node is the number of versions made during the first passage from that node to the
source: ``X_i ~ Poisson(λ_e T_i)``. Every law here is therefore a law of T, and :mod:`theory.staleness` uses it too.
Each docstring gives the statement, its assumptions, its source and its kind: *exact*, *bound* or *asymptotic*.

Reference: Yates 2021, arXiv 2102.02893 (the model and the recursion over sets); Maranzatto and Michelen 2024, arXiv
2409.12710, and Nasser, Issa, Abou-Faycal 2022, arXiv 2202.01297 (the law of the age).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Num

from .arguments import choice, real, reals, square, whole, wholes

Number: TypeAlias = int | float
Graph = Literal["complete", "ring"]
Inside = Literal["complete", "ring", "none"]

_LARGEST = 16


class HittingMoments(NamedTuple):
    """``E T`` and ``E T²`` of a passage time T."""

    mean: float
    second: float


class Sides(NamedTuple):
    """Mean age of a node on either side of a complete bipartite graph."""

    left: float
    right: float


class Clustered(NamedTuple):
    """Mean age of a cluster head and of a cluster member."""

    head: float
    member: float


class Bounds(NamedTuple):
    """``lower ≤ value ≤ upper``."""

    lower: float
    upper: float


def set_ages(
    rates: Num[np.ndarray, "n n"], source_rates: Num[np.ndarray, " n"], version_rate: Number
) -> Float[np.ndarray, " sets"]:
    """Compute the mean age of the freshest node of every set of nodes, by the recursion over sets.

    With ``v_S = E min_{i∈S} X_i``, ``λ_u(S) = Σ_{j∈S} λ_uj`` and ``λ_0(S) = Σ_{j∈S} λ_0j``, from large sets to small::

        v_S = (λ_e + Σ_{u∉S} λ_u(S) v_{S∪{u}}) / (λ_0(S) + Σ_{u∉S} λ_u(S))

    Kind: exact. Costs ``O(2^n n)``. Source: Yates 2021, theorem 1.

    Args:
        rates: ``λ_uj`` at which u pushes to j; the diagonal is ignored.
        source_rates: ``λ_0j`` at which the source delivers to j.
        version_rate: ``λ_e > 0``.

    Returns:
        ``(2^n,)`` ages; entry s is that of the set ``{i : bit i of s is one}``, ``inf`` where the source never reaches
        the set, ``nan`` for the empty set.

    Raises:
        ValueError: shapes that do not fit, more than 16 nodes, negative rates.
    """
    version_rate = real("version_rate", version_rate, above=0)
    rates, source_rates = _network(rates, source_rates)
    n = len(rates)
    sets = np.arange(2**n)
    size = np.bitwise_count(sets)
    into, delivered = [_subset_sums(row) for row in rates], _subset_sums(source_rates)
    ages = np.full(2**n, np.nan)
    for k in range(n, 0, -1):
        level = sets[size == k]
        gain, inflow = np.full(len(level), float(version_rate)), delivered[level]
        for u in range(n):
            pushed = np.where(level >> u & 1, 0.0, into[u][level])
            joins = pushed > 0
            gain[joins] += pushed[joins] * ages[level[joins] | 1 << u]
            inflow = inflow + pushed
        ages[level] = np.divide(gain, inflow, out=np.full(len(level), np.inf), where=inflow > 0)
    return ages


def version_age(
    rates: Num[np.ndarray, "n n"], source_rates: Num[np.ndarray, " n"], version_rate: Number
) -> Float[np.ndarray, " n"]:
    """Compute the mean version age of every node of any graph with at most 16 nodes.

    These are the ages of the one-element sets of :func:`set_ages`, which has the same arguments and errors. Kind:
    exact. Source: Yates 2021, theorem 1.
    """
    ages = set_ages(rates, source_rates, version_rate)
    return ages[1 << np.arange(len(rates))]


def version_age_of_set(
    rates: Num[np.ndarray, "n n"],
    source_rates: Num[np.ndarray, " n"],
    version_rate: Number,
    members: tuple[int, ...],
) -> float:
    """Compute ``E min_{i∈members} X_i``, the mean age of the freshest of some nodes, by :func:`set_ages`. Kind: exact.

    Raises:
        ValueError: no members, nodes out of range, or an error of :func:`set_ages`.
    """
    ages = set_ages(rates, source_rates, version_rate)
    nodes = wholes("members", members, shape=(None,), least=0, most=len(rates) - 1)
    return float(ages[sum(1 << i for i in set(nodes.tolist()))])


def version_age_complete(n: int, *, version_rate: Number, gossip_rate: Number, source_rate: Number) -> float:
    """Compute the mean version age of a node of the complete graph.

    The age ``v_j`` of the freshest of j nodes obeys, from ``v_n = λ_e/λ_s`` down to the answer ``v_1``::

        v_j = (λ_e + g_j v_{j+1}) / (jλ_s/n + g_j),      g_j = j(n − j)λ/(n − 1)

    For ``λ_s = λ`` it is ``(λ_e/λ)(ln n + γ + o(1))``. Kind: exact, O(n). Source: Yates 2021, theorem 1 by symmetry.

    Args:
        n: nodes, at least one.
        version_rate, gossip_rate, source_rate: λ_e, λ (per node, may be 0) and λ_s (in total), per unit time.

    Raises:
        ValueError: n below one, or rates out of range.
    """
    return _symmetric_age("complete", n, version_rate, gossip_rate, source_rate)


def version_age_ring(n: int, *, version_rate: Number, gossip_rate: Number, source_rate: Number) -> float:
    """Compute the mean version age of a node of the ring, where each node pushes at λ/2 to either side.

    The recursion is that of :func:`version_age_complete` with ``g_j = λ`` for j < n: only the two ends of an arc hear
    from outside. For ``λ_s = λ`` it grows as ``(λ_e/λ) sqrt(πn/2)``. Kind: exact, O(n). Source: Yates 2021.
    """
    return _symmetric_age("ring", n, version_rate, gossip_rate, source_rate)


def version_age_no_gossip(n: int, *, version_rate: Number, source_rate: Number) -> float:
    """Compute the mean version age if nodes hear only the source: ``nλ_e/λ_s``. Kind: exact. Source: Yates 2021."""
    return _symmetric_age("complete", n, version_rate, 0.0, source_rate)


def version_age_complete_bounds(n: int, *, version_rate: Number, gossip_rate: Number) -> Bounds:
    """Bound the age on the complete graph: ``(λ_e/λ)[(n−1)/n H_{n−1} + 1/n] ≤ v_1 ≤ (λ_e/λ) H_n``.

    Assumes: ``λ_s = λ``. Kind: two-sided bound (recalled, and checked against the recursion). Source: Yates 2021.
    """
    n = whole("n", n, least=1)
    version_rate = real("version_rate", version_rate, above=0)
    gossip_rate = real("gossip_rate", gossip_rate, above=0)
    before = float(np.sum(1.0 / np.arange(1, n)))
    unit = version_rate / gossip_rate
    return Bounds(unit * ((n - 1) / n * before + 1 / n), unit * (before + 1 / n))


def version_age_bipartite(
    left: int, right: int, *, version_rate: Number, gossip_rate: Number, source_rate: Number
) -> Sides:
    """Compute the mean version ages on the complete bipartite graph ``K_{L,R}``; the star is ``left=1``.

    With ``v_{a,b}`` the age of the freshest of a left and b right nodes, n = L + R::

        v_{a,b} = (λ_e + p v_{a+1,b} + q v_{a,b+1}) / ((a + b)λ_s/n + p + q),   p = (L−a)bλ/R,   q = (R−b)aλ/L

    Kind: exact, O(LR). Source: Yates 2021, the recursion over sets by symmetry; Maranzatto 2024, arXiv 2401.11580
    (bipartite networks).

    Args:
        left, right: nodes on either side, at least one each.
        version_rate, gossip_rate, source_rate: as in :func:`version_age_complete`.

    Raises:
        ValueError: an empty side, or rates out of range.
    """
    left = whole("left", left, least=1)
    right = whole("right", right, least=1)
    version_rate, gossip_rate, source_rate = _rates(version_rate, gossip_rate, source_rate)
    n = left + right
    ages = np.zeros((left + 2, right + 2))
    for size in range(n, 0, -1):
        a = np.arange(max(0, size - right), min(left, size) + 1)
        b = size - a
        to_right, to_left = (left - a) * b * (gossip_rate / right), (right - b) * a * (gossip_rate / left)
        gain = version_rate + to_right * ages[a + 1, b] + to_left * ages[a, b + 1]
        ages[a, b] = gain / (size * source_rate / n + to_right + to_left)
    return Sides(float(ages[1, 0]), float(ages[0, 1]))


def version_age_clustered(
    clusters: int,
    size: int,
    *,
    version_rate: Number,
    source_rate: Number,
    head_rate: Number,
    gossip_rate: Number,
    inside: Inside = "complete",
) -> Clustered:
    """Compute the mean version ages of M clusters of k members, where each cluster has a head of its own.

    The source feeds each head at ``λ_s/M``, a head feeds each member at ``λ_c/k``, and members gossip at λ inside their
    cluster. The head is a source of rate λ_c for its cluster, delayed by its own age::

        v_head = Mλ_e/λ_s,      v_member = v_head + (age of the cluster's graph with λ_s → λ_c)

    Kind: exact. Source: Buyukates, Bastopcu, Ulukus 2021, arXiv 2109.08669.

    Args:
        clusters, size: M heads, and k members of each.
        version_rate, source_rate, head_rate, gossip_rate: λ_e, λ_s (over all heads), λ_c (per head), λ (per member).
        inside: how the members of one cluster gossip.

    Raises:
        ValueError: counts below one, rates out of range, an unknown graph.
    """
    clusters = whole("clusters", clusters, least=1)
    choice("inside", inside, ("complete", "ring", "none"))
    size = whole("size", size, least=1)
    head_rate = real("head_rate", head_rate, above=0)
    graph: Graph = "ring" if inside == "ring" else "complete"
    gossip_rate = 0.0 if inside == "none" else gossip_rate
    head = version_age_no_gossip(clusters, version_rate=version_rate, source_rate=source_rate)
    return Clustered(head, head + _symmetric_age(graph, size, version_rate, gossip_rate, head_rate))


def version_age_variance(
    n: int, *, version_rate: Number, gossip_rate: Number, source_rate: Number, graph: Graph = "complete"
) -> float:
    """Compute the variance of a node's version age: ``λ_e² Var T + λ_e E T``.

    T passes through sets of size j = 1, 2, … at rates ``r_j = jλ_s/n + g_j`` and ends at size j with probability
    ``jλ_s/(n r_j)``. Kind: exact, O(n). Source: the law in Maranzatto and Michelen 2024, mixed over T.

    Args:
        n, version_rate, gossip_rate, source_rate: as in :func:`version_age_complete`.
        graph: complete, or ring with λ/2 to either side.

    Raises:
        ValueError: n below one, rates out of range, an unknown graph.
    """
    passage = _passage(graph, n, version_rate, gossip_rate, source_rate)
    mean, second = hitting_moments(passage.rates, passage.stops)
    return version_rate**2 * (second - mean**2) + version_rate * mean


def version_age_complete_pmf(
    n: int, *, version_rate: Number, gossip_rate: Number, source_rate: Number, size: int
) -> Float[np.ndarray, " size"]:
    """Compute ``P(X = 0), …, P(X = size − 1)`` of a node's version age on the complete graph.

    From ``E z^X = φ(λ_e(1 − z))``, φ the Laplace transform of the passage time, see :func:`mixed_poisson_pmf`. Kind:
    exact (absolute error about 1e-12). Source: Nasser, Issa, Abou-Faycal 2022.
    """
    passage = _passage("complete", n, version_rate, gossip_rate, source_rate)
    return mixed_poisson_pmf(passage.rates, passage.stops, version_rate, size)


def version_age_ring_pmf(
    n: int, *, version_rate: Number, gossip_rate: Number, source_rate: Number, size: int
) -> Float[np.ndarray, " size"]:
    """Compute the pmf of a node's version age on the ring, as :func:`version_age_complete_pmf`. Kind: exact."""
    passage = _passage("ring", n, version_rate, gossip_rate, source_rate)
    return mixed_poisson_pmf(passage.rates, passage.stops, version_rate, size)


def hitting_moments(rates: Float[np.ndarray, " k"], stops: Float[np.ndarray, " k"]) -> HittingMoments:
    """Compute ``E T`` and ``E T²`` of ``T = E_1 + … + E_J``, where ``E_j ~ Exp(rates_j)`` and ``P(J = j) = stops_j``.

    ``E T² = Σ_j stops_j [ Σ_{k≤j} 1/r_k² + (Σ_{k≤j} 1/r_k)² ]``. Assumes: all independent. Kind: exact.

    Raises:
        ValueError: rates that are not positive, or stops that are not as many probabilities with sum one.
    """
    rates, stops = _stages(rates, stops)
    mean, variance = np.cumsum(1.0 / rates), np.cumsum(1.0 / rates**2)
    return HittingMoments(float(stops @ mean), float(stops @ (variance + mean**2)))


def mixed_poisson_pmf(
    rates: Float[np.ndarray, " k"], stops: Float[np.ndarray, " k"], event_rate: Number, size: int
) -> Float[np.ndarray, " size"]:
    """Compute the pmf of the number of Poisson events of a given rate during the T of :func:`hitting_moments`.

    ``E z^X = Σ_j stops_j Π_{k≤j} r_k/(r_k + event_rate (1 − z))``, at N = 4 size points of the circle ``|z| = ρ``,
    ``ρ^N = 1e-14``, inverted by FFT. Aliasing stays below 1e-14; rounding errors are about ``ρ^{-size} = 3e3`` units in
    the last place. Kind: exact up to that, an absolute error of about 1e-12.

    Raises:
        ValueError: size below one.
    """
    rates, stops = _stages(rates, stops)
    event_rate = real("event_rate", event_rate, least=0)
    size = whole("size", size, least=1)
    points = 4 * size
    radius = 10.0 ** (-14.0 / points)
    s = event_rate * (1.0 - radius * np.exp(-2j * np.pi * np.arange(points // 2 + 1) / points))
    transform = np.zeros_like(s)
    for rate, stop in zip(rates[::-1].tolist(), stops[::-1].tolist(), strict=True):
        transform = (transform + stop) * (rate / (rate + s))
    values = np.fft.irfft(transform, points)[:size] * radius ** -np.arange(size)
    return np.maximum(values, 0.0)


class _Passage(NamedTuple):
    """Stages of the passage to the source: the total rate of each, and the probability that it is the last."""

    rates: np.ndarray
    stops: np.ndarray


def _passage(graph: str, n: int, version_rate: Number, gossip_rate: Number, source_rate: Number) -> _Passage:
    n = whole("n", n, least=1)
    version_rate, gossip_rate, source_rate = _rates(version_rate, gossip_rate, source_rate)
    choice("graph", graph, ("complete", "ring"))
    j = np.arange(1.0, n + 1)
    if graph == "complete":
        gossip = j * (n - j) * (gossip_rate / max(n - 1, 1))
    else:
        gossip = np.where(j < n, float(gossip_rate), 0.0)
    hit = j * (source_rate / n)
    total = hit + gossip
    reached = np.concatenate([[1.0], np.cumprod(gossip[:-1] / total[:-1])])
    return _Passage(total, reached * hit / total)


def _symmetric_age(graph: Graph, n: int, version_rate: Number, gossip_rate: Number, source_rate: Number) -> float:
    passage = _passage(graph, n, version_rate, gossip_rate, source_rate)
    return version_rate * hitting_moments(passage.rates, passage.stops).mean


def _subset_sums(values: np.ndarray) -> np.ndarray:
    """Return the sum of the values over every subset, indexed by bit mask."""
    sums = np.zeros(1)
    for value in values.tolist():
        sums = np.concatenate([sums, sums + value])
    return sums


def _stages(rates: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rates = reals("rates", rates, shape=(None,), above=0)
    return rates, reals("stops", stops, shape=rates.shape, least=0, most=1, remedy="pass one for each of the rates")


def _network(rates: np.ndarray, source_rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    remedy = "the recursion visits every set of nodes, so use a symmetric form or sample beyond that"
    rates = square("rates", rates, least=0, nodes=(1, _LARGEST), remedy=remedy)
    np.fill_diagonal(rates, 0.0)
    return rates, reals("source_rates", source_rates, shape=(len(rates),), least=0)


def _rates(version_rate: Number, gossip_rate: Number, source_rate: Number) -> tuple[float, float, float]:
    return (
        real("version_rate", version_rate, above=0),
        real("gossip_rate", gossip_rate, least=0, remedy="0 means no gossip"),
        real("source_rate", source_rate, above=0),
    )
