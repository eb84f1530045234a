"""Staleness under push gossip: how many updates of one node another node has not heard of.

Node i updates its model on a clock ``c + Exp(mean 1/μ)`` (rate m, see :func:`update_rate`) and pushes at the ticks of a
Poisson clock of rate λ to a uniform other node. ``S_i^j`` counts i's updates that are not in j's model yet. If gossip
is independent of the update clocks, then at a stationary time ``S_i^j`` is the number of i's updates in the last
``T_ij``, the first-passage time of news from i to j, so ``E S = m E T`` for every stationary update clock. On the
complete graph the k nodes whose news reaches j grow to k + 1 at rate ``r_k = k(n − k)λ/(n − 1)``, and i is equally
likely to be each of the n − 1 nodes that join.

Each docstring gives the statement, its assumptions and its kind: *exact*, *bound* or *asymptotic*. Rates are per unit
time, ``H_k = 1 + … + 1/k``, m is the argument ``update_rate``, λ is ``gossip_rate``; c = 0 means Poisson update clocks.

Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (the model, and bounded staleness from λ of order log n). Formulas
without another source are derived here from these definitions.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats
from jaxtyping import Float, Int, Num

from .age import Bounds, HittingMoments, hitting_moments, mixed_poisson_pmf, set_ages
from .arguments import flag, real, reals, square, whole, wholes

Number: TypeAlias = int | float
Counts: TypeAlias = int | Int[np.ndarray, "..."]
Values: TypeAlias = int | float | Num[np.ndarray, "..."]
Result: TypeAlias = float | Float[np.ndarray, "..."]


def update_rate(mean_extra: Values, shift: Values = 0.0) -> Result:
    """Compute the update rate ``m = 1/(c + mean_extra)`` of the clock ``c + Exp(mean mean_extra)``. Kind: exact."""
    mean_extra, shift = reals("mean_extra", mean_extra, above=0), reals("shift", shift, least=0)
    _fit({"mean_extra": mean_extra, "shift": shift})
    return 1.0 / (shift + mean_extra)[()]


def mean_staleness(n: Counts, *, gossip_rate: Values, update_rate: Values, two_way: bool = False) -> Result:
    """Compute ``E S = m H_{n−1}/λ`` on the complete graph; half of that if contacts go both ways.

    It is bounded in n if and only if λ grows at least like ln n. Assumes: gossip independent of the update clocks; any
    shift c. Kind: exact, also for n above 1e7.

    Args:
        n: nodes, at least two.
        gossip_rate, update_rate: λ and m; arrays are broadcast with n.
        two_way: whether contacts, which nodes start at rate λ, bring both sides the newer versions.

    Raises:
        ValueError: fewer than two nodes, rates that are not positive.
    """
    nodes, gossip_rate, update_rate = _table(n, gossip_rate, update_rate)
    return (update_rate * _harmonic(nodes - 1) / gossip_rate / (2 if flag("two_way", two_way) else 1))[()]


def max_staleness(n: Counts, *, gossip_rate: Values, update_rate: Values) -> Result:
    """Compute ``E max_j S_i^j = 2m (n−1)/n H_{n−1}/λ`` over j; arguments: see :func:`mean_staleness`.

    Staleness is monotone in the delay, so the maximum is that of the slowest node. Assumes: complete graph,
    push, any shift c. Kind: exact.
    """
    nodes = _nodes(n)
    return (2.0 * (nodes - 1) / nodes * mean_staleness(n, gossip_rate=gossip_rate, update_rate=update_rate))[()]


def mean_delay_heterogeneous(rates: Num[np.ndarray, " n"], i: int, j: int) -> float:
    """Compute ``E T_ij`` on the complete graph for unequal push rates λ_1 … λ_n.

    With ``q_u(s) = exp(−λ_u s/(n − 1))``, ``E T_ij = ∫_0^∞ q_i ∫_0^1 Π_{u≠i,j} (q_u + (1 − q_u) z) dz ds``:
    Gauss-Legendre quadrature in z, in which the integrand is a polynomial, and adaptive quadrature in ln s. The rate of
    j does not matter.
    Kind: exact (relative error about 1e-10). ``E S = m_i E T_ij``.

    Args:
        rates: positive push rates.
        i, j: source and receiver, which differ.

    Raises:
        ValueError: rates that are not positive, i = j, or nodes out of range.
    """
    rates = _push_rates(rates)
    n = len(rates)
    i, j = whole("i", i, least=0, most=n - 1), whole("j", j, least=0, most=n - 1)
    if i == j:
        raise ValueError(f"i={i}, j={j}: must be two different nodes")
    others = np.delete(rates, [i, j]) / (n - 1)
    z, weights = scipy.special.roots_legendre(max(1, n // 2))
    missed = 0.5 * (1.0 - z)[:, None]

    def integrand(log_s: float) -> float:
        s = math.exp(log_s)
        inner = np.prod(1.0 + np.expm1(-others * s) * missed, axis=1)
        return s * math.exp(-rates[i] * s / (n - 1)) * 0.5 * float(weights @ inner)

    # Less than 1e-18 of the integral lies outside these limits.
    lower, upper = math.log(1e-19 / rates.max()), math.log(60.0 * (n - 1) / rates[i])
    return scipy.integrate.quad(integrand, lower, upper, epsabs=0.0, epsrel=1e-10, limit=400)[0]


def delay_bounds(rates: Num[np.ndarray, " n"]) -> Bounds:
    """Bound ``E T_ij`` for unequal push rates: ``H_{n−1}/λ_max ≤ E T_ij ≤ H_{n−1}/λ_min``, for all i and j.

    Assumes: complete graph. Kind: two-sided bound. Source: coupling with networks of equal rates λ_max and λ_min.
    """
    rates = _push_rates(rates)
    harmonic = float(_harmonic(len(rates) - 1))
    return Bounds(harmonic / float(rates.max()), harmonic / float(rates.min()))


def delay_moments(n: int, gossip_rate: Number) -> HittingMoments:
    """Compute ``E T`` and ``E T²`` of the delay on the complete graph.

    T is the sum of the first L of independent exponentials of rates r_k, k = 1 … n − 1, where L is uniform on 1 …
    n − 1. As n grows ``λ² Var T → π²/2`` (Janson 1999). Kind: exact, O(n).
    """
    return hitting_moments(*_delay_stages(n, gossip_rate))


def staleness_variance(n: int, *, gossip_rate: Number, update_rate: Number) -> float:
    """Compute ``Var S = m² Var T + m E T``; S is Poisson(mT), mixed over T.

    Assumes: complete graph, c = 0. Kind: exact, O(n).
    """
    update_rate = real("update_rate", update_rate, above=0)
    mean, second = delay_moments(n, gossip_rate)
    return update_rate**2 * (second - mean**2) + update_rate * mean


def staleness_pmf(n: int, *, gossip_rate: Number, update_rate: Number, size: int) -> Float[np.ndarray, " size"]:
    """Compute ``P(S = 0), …, P(S = size − 1)`` on the complete graph.

    From ``E z^S = (1/(n−1)) Σ_l Π_{k≤l} r_k/(r_k + m(1 − z))`` at points of a circle, inverted by FFT. Assumes: c = 0.
    Kind: exact (absolute error about 1e-12), O(n · size).
    """
    update_rate = real("update_rate", update_rate, above=0)
    rates, stops = _delay_stages(n, gossip_rate)
    return mixed_poisson_pmf(rates, stops, update_rate, size)


def window_pmf(*, rate_factor: Number, update_rate: Number, size: int) -> Float[np.ndarray, " size"]:
    """Compute the limit Poisson(m/a) of the staleness law for ``λ = a ln n``, a = rate_factor, as n grows.

    The delay tends to 1/a in probability, so S counts the updates in a window of that length. Assumes: c = 0. Kind:
    asymptotic, with an error of order 1/ln n.
    """
    rate_factor, update_rate = real("rate_factor", rate_factor, above=0), real("update_rate", update_rate, above=0)
    size = whole("size", size, least=1)
    return np.asarray(scipy.stats.poisson.pmf(np.arange(size), update_rate / rate_factor))


def sure_bound(delay: Values, shift: Number) -> Counts:
    """Compute ``⌊T/c⌋ + 1``, which bounds the staleness after a delay T if updates are at least c > 0 apart.

    Kind: bound, for every path.
    """
    shift = real("shift", shift, above=0)
    bound = np.floor(reals("delay", delay, least=0) / shift).astype(np.int64) + 1
    return bound if bound.ndim else int(bound)


def opportunistic_staleness(n: Counts, *, gossip_rate: Values, update_rate: Values, relay: bool) -> Result:
    """Compute the mean staleness of two schemes in which few nodes use the whole capacity nλ.

    relay=True: only the node that updated last transmits, and it sends all it knows: ``m H_{n−1}/λ``, as with uniform
    gossip (c = 0). relay=False: only the newest version in the network is relayed, or none is: ``m (n−1)/λ``, so
    bounded staleness needs λ of order n. Assumes: complete graph, Poisson update clocks (any clock if nothing is
    relayed). Kind: exact. Arguments as :func:`mean_staleness`.
    """
    if flag("relay", relay):
        return mean_staleness(n, gossip_rate=gossip_rate, update_rate=update_rate)
    nodes, gossip_rate, update_rate = _table(n, gossip_rate, update_rate)
    return (update_rate * (nodes - 1) / gossip_rate)[()]


def opportunistic_max_staleness(n: Counts, *, gossip_rate: Values, update_rate: Values, relay: bool) -> Result:
    """Compute the mean of the maximum staleness over nodes, for the schemes of :func:`opportunistic_staleness`.

    By Little's law it is m times the mean time from an update until all nodes know it or a newer one. The time in which
    k informed nodes become k + 1 does not depend on m in either scheme:

    * relay=True: informed nodes push at rate nλ while the last node to update is an informed one, a state that begins
    at rate mk and ends at rate m(n − k). The mean time is ``(n−1)/(λk(n−k))``, as with uniform gossip, and the sum is
    ``2 (n−1)/n H_{n−1}/λ``, :func:`max_staleness`;
    * relay=False: the newest version is that of the source only between its update (rate m) and the next update of
    another node. The mean time is ``(n−1)/(λ(n−k))``, as without relaying, and the sum is ``(n−1) H_{n−1}/λ``.

    Assumes: complete graph, Poisson update clocks. Kind: exact. Arguments as :func:`mean_staleness`.
    """
    if flag("relay", relay):
        return max_staleness(n, gossip_rate=gossip_rate, update_rate=update_rate)
    mean = opportunistic_staleness(n, gossip_rate=gossip_rate, update_rate=update_rate, relay=False)
    return np.multiply(mean, _harmonic(_nodes(n) - 1))[()]


def mean_hops(n: Counts) -> Result:
    """Compute the mean number ``n(H_n − 1)/(n − 1)`` of transmissions that brought j its newest version of i.

    This is the depth of a random node, other than the root, of the random recursive tree; it does not depend on λ.
    Assumes: complete graph, push, and a new version with every push of i. Kind: exact; an upper bound if several pushes
    carry one version, because its first arrival counts, which took fewer transmissions.
    """
    nodes = _nodes(n)
    return (nodes * (_harmonic(nodes) - 1.0) / (nodes - 1))[()]


def ring_delay(n: int, distance: int, gossip_rate: Number) -> float:
    """Compute ``E T`` on the ring, λ/2 to each neighbour: the minimum of Gamma(r, λ/2) and Gamma(n − r, λ/2).

    ``(2/λ) [ r I_½(r + 1, n − r) + (n − r) I_½(n − r + 1, r) ]``, with the regularised incomplete beta function I. It
    is the closed form of ``∫ Q(r, λt/2) Q(n − r, λt/2) dt`` with the regularised upper incomplete gamma function Q.
    Kind: exact.

    Args:
        n: nodes, at least two.
        distance: r, 1 ≤ r ≤ n − 1, in either direction.
        gossip_rate: λ per node.

    Raises:
        ValueError: numbers out of range.
    """
    n, gossip_rate = _one(n), real("gossip_rate", gossip_rate, above=0)
    distance = whole("distance", distance, least=1, most=n - 1)
    near, far = distance, n - distance
    first = near * scipy.special.betainc(near + 1, far, 0.5) + far * scipy.special.betainc(far + 1, near, 0.5)
    return float(2.0 / gossip_rate * first)


def graph_delay(rates: Num[np.ndarray, "n n"], source: int) -> Float[np.ndarray, " n"]:
    """Compute ``E T`` from a source to every node of any graph with at most 16 nodes, by the recursion over sets.

    ``E T_S = (1 + Σ_{u∉S, u≠source} λ_u(S) E T_{S∪{u}}) / Σ_{u∉S} λ_u(S)``, the recursion of
    :func:`theory.age.set_ages`. Kind: exact. Source: Yates 2021, arXiv 2102.02893, theorem 1.

    Args:
        rates: rate at which u pushes to v; the diagonal is ignored.
        source: the node whose updates are followed.

    Returns:
        Mean delays: zero for the source itself, ``inf`` for nodes that its news never reaches.

    Raises:
        ValueError: a matrix that is not square, more than 16 nodes, negative rates, or no such source.
    """
    rates = square("rates", rates, nodes=(2, 16), least=0, remedy="every set of nodes is visited")
    n = len(rates)
    source = whole("source", source, least=0, most=n - 1)
    others = np.delete(np.arange(n), source)
    ages = set_ages(rates[np.ix_(others, others)], rates[source, others], 1.0)
    delays = np.zeros(n)
    delays[others] = ages[1 << np.arange(n - 1)]
    return delays


def flight_time_growth_rate(gossip_rate: Number, flight_time: Number) -> float:
    """Compute the growth rate ``α = W_0(λd)/d`` of ``α = λ exp(−αd)`` if messages take a time d; λ for d = 0.

    The mean delay on the complete graph is ``ln n/α + O(1)``. Kind: asymptotic (exact solution of the growth equation).
    """
    gossip_rate, flight_time = real("gossip_rate", gossip_rate, above=0), real("flight_time", flight_time, least=0)
    if flight_time == 0:
        return float(gossip_rate)
    return float(scipy.special.lambertw(gossip_rate * flight_time).real / flight_time)


def flight_time_staleness(n: Counts, *, gossip_rate: Number, flight_time: Number, update_rate: Number) -> Result:
    """Compute the leading term ``m ln n/α`` of the mean staleness with flight time.

    For fixed d, λ of order log n no longer bounds it. Assumes: complete graph. Kind: asymptotic, error O(1): compare
    its growth with n, not its value.
    """
    update_rate = real("update_rate", update_rate, above=0)
    return (update_rate * np.log(_nodes(n)) / flight_time_growth_rate(gossip_rate, flight_time))[()]


def dead_time_rate(gossip_rate: Number, dead_time: Number) -> float:
    """Compute the push rate ``1/(g + 1/λ)`` of a node that is silent for a time g after each push.

    The mean delay on the complete graph grows like ln n over this rate. Kind: exact rate, asymptotic growth.
    """
    gossip_rate, dead_time = real("gossip_rate", gossip_rate, above=0), real("dead_time", dead_time, least=0)
    return 1.0 / (dead_time + 1.0 / gossip_rate)


def fixed_step_rounds(n: int, *, gossip_rate: Number, step: Number) -> float:
    """Compute the mean number of rounds of length Δ until news of i reaches j, with Poisson(λΔ) pushes per node and
    round.

    Messages carry what the sender knew when the round began, so k → k + Bin(n − k, p_k), p_k = 1 − exp(−λΔk/(n−1))::

        E_k = (1 + (1 − p_k) Σ_{b≥1} Bin(n−1−k, p_k)(b) E_{k+b}) / (1 − (1 − p_k)^{n−k}),      result E_1

    Assumes: complete graph. Kind: exact, O(n²).

    Raises:
        ValueError: fewer than two nodes, numbers that are not positive.
    """
    n, gossip_rate, step = _one(n), real("gossip_rate", gossip_rate, above=0), real("step", step, above=0)
    return _rounds(n, -np.expm1(-gossip_rate * step * np.arange(n) / (n - 1)))


def one_push_rounds(n: int) -> float:
    """Compute the mean number of rounds until news of i reaches j, if every node pushes once per round.

    The chain of :func:`fixed_step_rounds` with ``p_k = k/(n − 1)``. Assumes: complete graph. Kind: exact, O(n²).
    """
    n = _one(n)
    return _rounds(n, np.arange(n) / (n - 1))


def fixed_step_staleness(n: int, *, gossip_rate: Number, step: Number, update_rate: Number) -> float:
    """Compute ``E S = m Δ E_1`` in the rounds of :func:`fixed_step_rounds`, for any shift c. Kind: exact."""
    update_rate, step = real("update_rate", update_rate, above=0), real("step", step, above=0)
    return update_rate * step * fixed_step_rounds(n, gossip_rate=gossip_rate, step=step)


def push_event_factor(n: int, weight: Number = 0.5) -> float:
    """Compute ``E V⁺/V = 1 − 2a(1−a)/(n−1) − 2a²/(n(n−1))`` of one push ``x_j ← (1 − a)x_j + a x_i``.

    ``V = Σ (x_i − x̄)²``, where (i, j) is a random pair of different nodes, and a = weight. Kind: exact, for every x.
    """
    n, weight = _one(n), _weight(weight)
    return 1.0 - 2.0 * weight * (1.0 - weight) / (n - 1) - 2.0 * weight**2 / (n * (n - 1))


def consensus_variance(n: int, weight: Number, V0: Number) -> float:
    """Compute the variance ``(V_0/n) (a/n)/(1 − a + a/n)`` of the value to which push averaging converges.

    The mean is a martingale, so the expected limit is x̄_0. Assumes: complete graph, ``V_0 = Σ (x_i − x̄)²`` at
    the start. For a = ½ it is ``(V_0/n)/(n + 1)``. Kind: exact.
    """
    n, weight, V0 = _one(n), _weight(weight), real("V0", V0, least=0)
    return V0 / n * (weight / n) / (1.0 - weight + weight / n)


def push_decay(n: int, gossip_rate: Number, t: Values, weight: Number = 0.5) -> Result:
    """Compute ``E V(t)/V_0 = exp(−nλ (1 − f) t)``, f of :func:`push_event_factor`: exp(−λt(n+1)/(2(n−1))) for a = ½.

    Assumes: complete graph on which every node pushes at rate λ. Kind: exact.
    """
    n, gossip_rate = _one(n), real("gossip_rate", gossip_rate, above=0)
    return np.exp(-n * gossip_rate * (1.0 - push_event_factor(n, weight)) * reals("t", t, least=0))[()]


class _Stages(NamedTuple):
    """Rates r_k of the stages k = 1 … n − 1 of the delay, and the probability 1/(n − 1) that each is the last."""

    rates: np.ndarray
    stops: np.ndarray


def _delay_stages(n: int, gossip_rate: Number) -> _Stages:
    n, gossip_rate = _one(n), real("gossip_rate", gossip_rate, above=0)
    k = np.arange(1.0, n)
    return _Stages(k * (n - k) * (gossip_rate / (n - 1)), np.full(n - 1, 1.0 / (n - 1)))


def _rounds(n: int, p: np.ndarray) -> float:
    """Solve E_k downwards from k = n − 1; p[k] is the probability that an uninformed node joins k informed ones."""
    rounds = np.zeros(n)
    for k in range(n - 1, 0, -1):
        joined = scipy.stats.binom.pmf(np.arange(1, n - k), n - 1 - k, p[k])
        nobody = -np.expm1(scipy.special.xlog1py(n - k, -p[k]))
        rounds[k] = (1.0 + (1.0 - p[k]) * float(joined @ rounds[k + 1 :])) / nobody
    return float(rounds[1])


def _harmonic(k: Values) -> Result:
    return scipy.special.digamma(np.asarray(k, np.float64) + 1.0) + np.euler_gamma


def _nodes(n: Counts) -> np.ndarray:
    return wholes("n", n, least=2, remedy="staleness is between nodes").astype(np.float64)


def _one(n: int) -> int:
    return whole("n", n, least=2, remedy="staleness is between nodes")


def _table(n: Counts, gossip_rate: Values, update_rate: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    nodes, gossip_rate = _nodes(n), reals("gossip_rate", gossip_rate, above=0)
    update_rate = reals("update_rate", update_rate, above=0)
    _fit({"n": nodes, "gossip_rate": gossip_rate, "update_rate": update_rate})
    return nodes, gossip_rate, update_rate


def _fit(arrays: dict[str, np.ndarray]) -> None:
    try:
        np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError as error:
        shapes = ", ".join(f"{name} of shape {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{shapes}: must broadcast") from error


def _push_rates(rates: np.ndarray) -> np.ndarray:
    rates = reals("rates", rates, shape=(None,), above=0)
    if len(rates) < 2:
        raise ValueError(f"rates of {len(rates)} node: need at least 2 nodes")
    return rates


def _weight(weight: Number) -> float:
    return real("weight", weight, above=0, most=1, remedy="½ averages")
