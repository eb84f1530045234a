"""Inboxes, birthdays and clocks: how many messages pile up while nodes are busy, and how old they are.

A local update takes ``X = c + Exp(mean e)``: the argument ``shift`` is c, ``mean_extra`` is e, as in
:func:`theory.staleness.update_rate`. Messages reach a node as a Poisson process of rate λ, independent of its updates;
on the complete graph, where n nodes push at rate λ to uniform others, every node receives at rate λ.

Each docstring gives the statement, its assumptions, its source and its kind: *exact*, *bound* or *asymptotic*, and
"recalled" if it was not checked against the source's text. ``H_k = 1 + … + 1/k``. A formula without a source is
classical, or derived here from these definitions.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import scipy.signal
import scipy.special
import scipy.stats
from jaxtyping import Float

from .arguments import real, whole

Number: TypeAlias = int | float


def inbox_mean(arrival_rate: Number, mean_extra: Number, shift: Number = 0.0) -> float:
    """Compute the mean number ``λ(c + e)`` of messages that arrive during one local update. Kind: exact.

    Args:
        arrival_rate: λ, messages per unit time.
        mean_extra, shift: e and c, units of time.

    Raises:
        ValueError: an arrival rate or mean that is not positive, a negative shift.
    """
    arrival_rate, mean_extra, shift = _update("arrival_rate", arrival_rate, mean_extra, shift)
    return arrival_rate * (shift + mean_extra)


def inbox_variance(arrival_rate: Number, mean_extra: Number, shift: Number = 0.0) -> float:
    """Compute the variance ``λ(c + e) + (λe)²`` of the messages during one local update. Kind: exact. Arguments: see
    :func:`inbox_mean`.
    """
    arrival_rate, mean_extra, shift = _update("arrival_rate", arrival_rate, mean_extra, shift)
    return arrival_rate * (shift + mean_extra) + (arrival_rate * mean_extra) ** 2


def inbox_pmf(
    arrival_rate: Number, mean_extra: Number, shift: Number = 0.0, *, size: int
) -> Float[np.ndarray, " size"]:
    """Compute ``P(N = 0), …, P(N = size − 1)`` of the messages N during one local update.

    N is a Poisson(λc) plus an independent geometric variable, ``P(b) = g(1 − g)^b`` with ``g = 1/(1 + λe)``, hence
    ``p_k = (1 − g) p_{k−1} + g e^{−λc}(λc)^k/k!``. Kind: exact.

    Raises:
        ValueError: a size below one, or an error of :func:`inbox_mean`.
    """
    arrival_rate, mean_extra, shift = _update("arrival_rate", arrival_rate, mean_extra, shift)
    size = whole("size", size, least=1)
    g = 1.0 / (1.0 + arrival_rate * mean_extra)
    during_shift = scipy.stats.poisson.pmf(np.arange(size), arrival_rate * shift)
    return scipy.signal.lfilter([g], [1.0, g - 1.0], during_shift)


def inbox_overflow(capacity: int, arrival_rate: Number, mean_extra: Number, shift: Number = 0.0) -> float:
    """Compute the probability that more than B = capacity messages arrive during one local update.

    ``P(N > B) = P(A > B) + Σ_{a≤B} P(A = a)(1 − g)^{B−a+1}``, A ~ Poisson(λc), g as in :func:`inbox_pmf`: a sum of
    positive terms, so that tiny probabilities keep their digits. Kind: exact.

    Raises:
        ValueError: a negative capacity, or an error of :func:`inbox_mean`.
    """
    arrival_rate, mean_extra, shift = _update("arrival_rate", arrival_rate, mean_extra, shift)
    capacity = whole("capacity", capacity, least=0)
    a = np.arange(capacity + 1)
    log_miss = -math.log1p(1.0 / (arrival_rate * mean_extra))
    during_shift = scipy.stats.poisson.logpmf(a, arrival_rate * shift)
    later = np.exp(during_shift + (capacity - a + 1) * log_miss).sum()
    return float(scipy.stats.poisson.sf(capacity, arrival_rate * shift) + later)


def inbox_capacity(overflow: Number, arrival_rate: Number, mean_extra: Number, shift: Number = 0.0) -> int:
    """Find the smallest capacity B whose :func:`inbox_overflow` is at most a given probability per local update.

    Kind: exact.

    Raises:
        ValueError: a probability outside (0, 1), or an error of :func:`inbox_mean`.
    """
    arrival_rate, mean_extra, shift = _update("arrival_rate", arrival_rate, mean_extra, shift)
    overflow = real("overflow", overflow, above=0, below=1, remedy="every finite inbox overflows at times")
    below, enough = -1, 1
    while inbox_overflow(enough, arrival_rate, mean_extra, shift) > overflow:
        below, enough = enough, 2 * enough
    while enough - below > 1:
        middle = (below + enough) // 2
        if inbox_overflow(middle, arrival_rate, mean_extra, shift) > overflow:
            below = middle
        else:
            enough = middle
    return enough


def distinct_senders(n: int, *, gossip_rate: Number, mean_extra: Number, shift: Number = 0.0) -> float:
    """Compute the mean number of different senders ``(n − 1)(1 − e^{−sc}/(1 + se))``, ``s = λ/(n − 1)``, in one update.

    Assumes: complete graph, every node pushing at rate λ. Kind: exact.

    Raises:
        ValueError: fewer than two nodes, and as :func:`inbox_mean`.
    """
    n = whole("n", n, least=2)
    gossip_rate, mean_extra, shift = _update("gossip_rate", gossip_rate, mean_extra, shift)
    s = gossip_rate / (n - 1)
    return -(n - 1) * math.expm1(-s * shift - math.log1p(s * mean_extra))


def round_receivers(n: int) -> float:
    """Compute the mean number of receivers ``n(1 − (1 − 1/(n−1))^{n−1})`` when every node pushes once, all at the same
    time.

    It tends to (1 − 1/e)n, so about 36.8 % of the nodes hear nothing in a round. Assumes: complete graph. Kind: exact.

    Raises:
        ValueError: fewer than two nodes.
    """
    n = whole("n", n, least=2)
    return float(-n * np.expm1(scipy.special.xlog1py(n - 1, -1.0 / (n - 1))))


def hear_from_all(n: int, gossip_rate: Number) -> float:
    """Compute the mean time ``(n − 1)H_{n−1}/λ`` until a node has heard directly from every other node.

    Assumes: complete graph, every node pushing at rate λ (the coupon collector in continuous time). Kind: exact.

    Raises:
        ValueError: fewer than two nodes, or a rate that is not positive.
    """
    n = whole("n", n, least=2)
    gossip_rate = real("gossip_rate", gossip_rate, above=0)
    return float((n - 1) * (scipy.special.digamma(float(n)) + np.euler_gamma) / gossip_rate)


def pushes_until_repeat(n: int) -> float:
    """Compute the mean number of pushes of one node until it repeats a target, the last push included (birthday
    problem).

    With N = n − 1 targets: ``Σ_{k=0}^N Π_{j<k} (1 − j/N)``. Assumes: uniform independent targets. Kind: exact, O(√n).

    Raises:
        ValueError: fewer than two nodes.
    """
    n = whole("n", n, least=2)
    targets = n - 1
    # Terms fall like exp(−k²/2N): beyond ten √N they are below 1e-21.
    j = np.arange(min(targets, 10 * math.isqrt(targets) + 20))
    return float(1.0 + np.exp(np.cumsum(np.log1p(-j / targets))).sum())


def renewal_age(mean: Number, second_moment: Number) -> float:
    """Compute the mean time ``E X²/(2 E X)`` since the last tick of a stationary clock with intervals X.

    Assumes: i.i.d. intervals, observed at a time that is independent of them. Kind: exact.

    Raises:
        ValueError: a mean that is not positive, or a second moment below the square of the mean, which is impossible.
    """
    mean = real("mean", mean, above=0)
    second_moment = real("second_moment", second_moment)
    # The moments of a constant may differ by rounding.
    if not mean**2 * (1.0 - 1e-12) <= second_moment < math.inf:
        raise ValueError(f"second_moment={second_moment}: must be at least the square of mean={mean}, {mean**2}")
    return second_moment / (2.0 * mean)


def time_since_update(mean_extra: Number, shift: Number = 0.0) -> float:
    """Compute the mean time ``(c² + 2ce + 2e²)/(2(c + e))`` since a node's own last update.

    :func:`renewal_age` of the clock c + Exp(mean e). Kind: exact.

    Raises:
        ValueError: a mean that is not positive, or a negative shift.
    """
    _, mean_extra, shift = _update("rate", 1.0, mean_extra, shift)
    return renewal_age(shift + mean_extra, shift**2 + 2.0 * shift * mean_extra + 2.0 * mean_extra**2)


def _update(name: str, rate: Number, mean_extra: Number, shift: Number) -> tuple[float, float, float]:
    return (
        real(name, rate, above=0),
        real("mean_extra", mean_extra, above=0),
        real("shift", shift, least=0, remedy="0 means exponential update times"),
    )
