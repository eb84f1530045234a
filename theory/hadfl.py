"""HADFL: forecast of versions, selection by probability, local steps of a hyperperiod, and the cost of a ring.

K devices train at different speeds. In every aggregation cycle a coordinator forecasts the progress of each device and
draws some of them, which average their models around a ring.

Source: Cao, Lian, Liu, Zhu and Ji, "HADFL: Heterogeneity-aware Decentralized Federated Learning Framework", DAC 2021,
arXiv 2111.08274. Only the abstract and a summary were available, not the full text. Each docstring therefore says where
its rule comes from: *reported* of the paper and consistent with the abstract, but not read in the paper; *recalled*,
which may be wrong; or *our choice*, where a simulation needs a rule and the paper's is unknown. Consequences that
follow from a rule by arithmetic are *exact*.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from .arguments import choice, pmf, real, reals, whole

Number: TypeAlias = int | float
_COUNTS = 2**53
"""Versions are counts, and beyond this number float64 cannot represent every integer."""
_FEW = 12
"""Largest number of devices whose subsets are all enumerated."""


class Hyperperiod(NamedTuple):
    """The shortest time in which every device completes a whole number of units."""

    seconds: float
    """Length of the hyperperiod."""
    units: tuple[int, ...]
    """Units that each device completes in that time."""


def brown_forecast(
    versions: Float[np.ndarray, " cycles"], alpha: Number, horizon: Number = 1
) -> Float[np.ndarray, " cycles"]:
    """Forecast a device's version after each observation, by double exponential smoothing.

    Start with ``s₁ = s₂ = v_1`` at the first observation. Then, for every v_j::

        s₁ ← α v_j + (1 − α) s₁        a = 2 s₁ − s₂
        s₂ ← α s₁ + (1 − α) s₂         b = α/(1 − α) (s₁ − s₂)        v̂_{j+h} = a + b h

    The trend is computed as α times ``s₁ − s₂`` before the update, the same number without a division by 1 − α.

    Source: Brown's method is reported of the paper; its equations, those of textbooks, are recalled; the start is our
    choice. Kind: exact.

    Args:
        versions: v_1, v_2, …, ``(cycles,)``, at most 2^53 in size.
        alpha: α in (0, 1); the closer to 1, the more the last observation counts.
        horizon: h ≥ 0, cycles ahead.

    Returns:
        ``(cycles,)``: entry j is the forecast of cycle j + h from the observations up to j.

    Raises:
        ValueError: no versions, or a number out of range.
    """
    versions = _versions(versions)
    alpha = real("alpha", alpha, above=0, below=1, remedy="alpha=1 would use only the last two versions")
    horizon = real("horizon", horizon, least=0)
    once = twice = versions[0]
    forecasts = np.empty_like(versions)
    for j, version in enumerate(versions):
        once = alpha * version + (1.0 - alpha) * once
        trend = alpha * (once - twice)
        twice = alpha * once + (1.0 - alpha) * twice
        forecasts[j] = 2.0 * once - twice + trend * horizon
    return forecasts


def linear_forecast_error(slope: Number, alpha: Number, cycles: int, horizon: Number = 1) -> float:
    """Compute the error ``c q^m (h + m (q + α h))`` of :func:`brown_forecast` on versions that grow by c a cycle.

    Here ``q = 1 − α`` and m = cycles − 1 is the number of observations after the first; the error is the true version
    minus the forecast. It vanishes for every α, but only as fast as (1 − α)^m: for h = 1 it is ``c (m + 1) q^m``, which
    after 200 cycles is below 10⁻¹² c only if α is above 0.153.

    Source: the recursion of :func:`brown_forecast`, solved here. Kind: exact.

    Args:
        slope: c, versions per cycle.
        alpha: α in (0, 1).
        cycles: observations so far, at least 1.
        horizon: h ≥ 0, cycles ahead.

    Raises:
        ValueError: a number out of range.
    """
    slope, alpha = real("slope", slope), real("alpha", alpha, above=0, below=1)
    m, h = whole("cycles", cycles, least=1) - 1, real("horizon", horizon, least=0)
    q = 1.0 - alpha
    return slope * math.exp(m * math.log1p(-alpha)) * (h + m * (q + alpha * h))


def selection_probabilities(
    versions: Float[np.ndarray, " n"], quantile: Number = 0.75, spread: Literal["std", "unit"] = "std"
) -> Float[np.ndarray, " n"]:
    """Compute the probability with which each device is drawn first: ``p_i ∝ exp(−z_i²/2)``, ``z_i = (v_i − Q)/s``.

    Q is a quantile of the versions (linear interpolation between order statistics). With ``spread="std"``, s is the
    population standard deviation, so p depends neither on the unit nor on the origin of the versions. With
    ``spread="unit"``, s = 1; cumulative versions drift apart, and soon only the devices nearest to Q are drawn. Devices
    of equal version are equally likely.

    The weights are normalised as logarithms, so that at least one of them does not underflow.

    >>> selection_probabilities(np.array([4.0, 2.0, 2.0, 1.0])).round(4).tolist()
    [0.1505, 0.3495, 0.3495, 0.1505]

    Source: a bell curve around a quartile is reported of the paper; the third quartile and s = 1 are recalled; the
    standard deviation is our choice. Kind: exact.

    Args:
        versions: v, forecast versions ``(n,)``, at most 2^53 in size.
        quantile: quantile of the versions at which the curve is centred, in [0, 1].
        spread: ``"std"`` or ``"unit"``.

    Returns:
        p, ``(n,)`` with sum 1. Far from Q an entry may underflow to 0 under ``"unit"``.

    Raises:
        ValueError: no versions, or an argument out of range.
    """
    versions = _versions(versions)
    quantile = real("quantile", quantile, least=0, most=1)
    spread = choice("spread", spread, ("std", "unit"))  # type: ignore[assignment]
    # Subtract first, and scale before squaring, because the squares could under- or overflow.
    excess = versions - versions.min()
    if spread == "std" and (reach := excess.max()) > 0:
        excess = excess / reach
        excess = excess / excess.std()
    z = excess - np.quantile(excess, quantile)
    log_weights = -0.5 * z**2
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def inclusion_probabilities(
    p: Float[np.ndarray, " n"], count: int, *, method: Literal["auto", "enumeration", "quadrature"] = "auto"
) -> Float[np.ndarray, " n"]:
    """Compute the probability that each device is among ``count`` drawn one after another without replacement.

    Each draw picks a remaining device with probability proportional to p (Plackett and Luce). Two methods give the same
    number:

    * enumeration: ``P(S) = Σ_{i∈S} P(S∖i) p_i/(1 − p(S∖i))`` over the 2ⁿ subsets S, summed over the S of ``count``;
    * quadrature: device i rings at E_i ~ Exp(p_i), and the first ``count`` to ring are chosen, hence
      ``π_i = ∫ p_i e^{−p_i t} P(fewer than count of the others have rung by t) dt``, a Poisson-binomial law inside
      an integral. The trapezoidal rule in log t is exact to rounding, about 1e-13.

    Source: the abstract says that N_p devices are drawn by their probabilities; drawing them one after another, without
    replacement, is our choice. Kind: exact.

    Args:
        p: ``(n,)`` with sum 1; a device with p = 0 is never drawn.
        count: number of devices drawn, at most the number of those with p > 0.
        method: ``"auto"`` enumerates up to 12 devices, and integrates beyond.

    Returns:
        π, ``(n,)`` with sum ``count``.

    Raises:
        ValueError: probabilities that do not sum to one, an unknown method, or a count above the number of devices with
            p > 0.
    """
    p = pmf("p", p)
    likely = p > 0
    positive = p[likely] / p.sum()
    count = whole("count", count, least=1, most=positive.size, remedy="pass at most the number of devices with p > 0")
    method = choice("method", method, ("auto", "enumeration", "quadrature"))  # type: ignore[assignment]
    if method == "enumeration" and positive.size > 20:
        raise ValueError(f"method='enumeration' of {positive.size} devices: at most 20; choose method='quadrature'")
    inclusion = np.zeros(p.size)
    if method == "enumeration" or (method == "auto" and positive.size <= _FEW):
        inclusion[likely] = _enumerated(positive, count)
    else:
        inclusion[likely] = _integrated(positive, count)
    return inclusion


def _enumerated(p: Float[np.ndarray, " n"], count: int) -> Float[np.ndarray, " n"]:
    """Visit all subsets, as bit masks in increasing order: every subset comes before those that contain it."""
    n = p.size
    inclusion, first = np.zeros(n), np.zeros(2**n)
    first[0] = 1.0
    for chosen in range(2**n):
        size = chosen.bit_count()
        if size > count:
            continue
        rest = [i for i in range(n) if not chosen >> i & 1]
        if size == count:
            inclusion[[i for i in range(n) if chosen >> i & 1]] += first[chosen]
            continue
        # The complement is summed, not subtracted from one, so that small probabilities keep their digits.
        remaining = p[rest].sum()
        for i in rest:
            first[chosen | 1 << i] += first[chosen] * p[i] / remaining
    return inclusion


def _integrated(p: Float[np.ndarray, " n"], count: int) -> Float[np.ndarray, " n"]:
    """Integrate over s = log t, from before the fastest clock rings to after the slowest clock has rung."""
    n = p.size
    # The tails that are cut off are below e^−40. The step size follows from the width 1/√n in s over which the number
    # of rings rises to count.
    low, high = -40.0 - math.log(p.max()), math.log(40.0) - math.log(p.min())
    step = 0.2 / math.sqrt(n)
    # The expected rings of each clock; beyond e^50 it has rung for certain.
    rings = np.exp(np.minimum(np.add.outer(np.log(p), np.arange(low, high + step, step)), 50.0))
    silent, rung = np.exp(-rings), -np.expm1(-rings)
    inclusion = np.empty(n)
    for i in range(n):
        law = np.zeros((count, rings.shape[1]))  # law[k]: k of the others have rung
        law[0] = 1.0
        for j in range(n):
            if j != i:
                law[1:] = law[1:] * silent[j] + law[:-1] * rung[j]
                law[0] *= silent[j]
        inclusion[i] = step * np.sum(rings[i] * silent[i] * law.sum(axis=0))
    return inclusion


def hyperperiod(periods: Float[np.ndarray, " n"], max_denominator: int = 8) -> Hyperperiod:
    """Compute the time ``H = lcm(T_i)`` in which every device completes a whole number ``E_i = H/T_i`` of units.

    Measured times have no common multiple. They are therefore divided by the shortest and rounded to the nearest
    fractions with small denominators. H is exact for these fractions, and E_i T_i differs from H by the relative
    rounding error, at most 1/(2 max_denominator).

    >>> hyperperiod(np.array([2.5, 5.0, 5.0, 10.0]))  # powers (4, 2, 2, 1)
    Hyperperiod(seconds=10.0, units=(4, 2, 2, 1))

    Source: the least common multiple and E_i are reported of the paper; the paper's rounding is unknown, and the
    fractions are our choice. Kind: exact.

    Args:
        periods: T, seconds that each device takes for a unit, ``(n,)``, positive.
        max_denominator: largest denominator of a fraction, at least 1. Larger values follow the times more closely, and
            make H longer.

    Raises:
        ValueError: no periods, a number out of range, or an H beyond float64.
    """
    periods = reals("periods", periods, shape=(None,), above=0)
    max_denominator = whole("max_denominator", max_denominator, least=1)
    exact = [Fraction(float(period)) for period in periods]
    fastest = min(exact)
    ratios = [(period / fastest).limit_denominator(max_denominator) for period in exact]
    # lcm(a/b, c/d) = lcm(a, c)/gcd(b, d) for fractions in lowest terms.
    multiple = Fraction(math.lcm(*(r.numerator for r in ratios)), math.gcd(*(r.denominator for r in ratios)))
    try:
        seconds = float(multiple * fastest)
    except OverflowError as error:
        raise ValueError(
            f"the common multiple of {len(ratios)} periods exceeds float64: lower max_denominator={max_denominator}"
        ) from error
    return Hyperperiod(seconds, tuple(int(multiple / ratio) for ratio in ratios))


def compute_bound(powers: Float[np.ndarray, " n"]) -> float:
    """Compute the largest speed-up from removing the barrier: ``Σ p_i/(K min p)``.

    With equal local steps and a barrier, all K devices work at the pace of the slowest: K min p units per second.
    Without waiting they do Σ p, and no schedule does more. If communication takes no time, this ratio is the largest
    gain in units of training per second: 2.25 for powers (4, 2, 2, 1) and 2 for (3, 3, 1, 1). The abstract claims
    speed-ups of up to 3.15 and 4.68. Any excess over the bound must come from communication, for which a barrier waits
    as well, or from reaching the same accuracy in fewer units.

    Source: derived here. Kind: exact; a bound on any schedule, where communication takes no time.

    Args:
        powers: p, relative speeds ``(n,)``, positive.

    Raises:
        ValueError: no powers, or one that is not positive.
    """
    powers = reals("powers", powers, shape=(None,), above=0)
    return float(np.mean(powers / powers.min()))


def ring_seconds(members: int, model_bytes: Number, bytes_per_second: Number, latency_s: Number) -> float:
    """Compute the time ``2(M − 1)(L + S/(M B))`` in which M devices average a model around a ring.

    M − 1 steps of scatter and M − 1 of gather each send S/M bytes over all links in parallel. A ring of one member
    takes no time.

    Source: a ring of scatter and gather is reported of the paper; its time is that of ring all-reduce (Patarasuk and
    Yuan 2009). Kind: exact for equal full-duplex links.

    Args:
        members: M, at least 1.
        model_bytes: S ≥ 0.
        bytes_per_second: B > 0, of each link.
        latency_s: L ≥ 0, seconds, one way.

    Raises:
        ValueError: a number out of range.
    """
    members = whole("members", members, least=1)
    model_bytes, latency_s = real("model_bytes", model_bytes, least=0), real("latency_s", latency_s, least=0)
    bytes_per_second = real("bytes_per_second", bytes_per_second, above=0)
    return 2.0 * (members - 1) * (latency_s + model_bytes / (members * bytes_per_second))


def cycle_seconds_bound(
    members: int,
    deaths: int,
    *,
    model_bytes: Number,
    bytes_per_second: Number,
    latency_s: Number,
    timeout_s: Number,
    handshake_s: Number,
    wait_s: Number = 0.0,
) -> float:
    """Bound the time of one partial synchronisation in which k of M ring members die.

    With R(m) the :func:`ring_seconds` of m members::

        wait + Σ_{j=0}^{k} R(M − j) + k (timeout + handshake + L)

    The first attempt has M members, and each death leaves one fewer for the next attempt. A failed attempt runs for
    less than its R before data stop. The downstream neighbour then waits for the timeout and for the answer to its
    handshake, a message of latency L closes the gap in the ring, and the ring starts again. Deaths that are noticed at
    the same time cost less. If one member is left, R(1) = 0 and the cycle is abandoned. Time starts when every member
    knows the order of the ring, and ends when the survivors hold the mean.

    Source: the timeout, the handshake and skipping dead members are reported of the paper; repeating the whole ring is
    our choice. Kind: upper bound.

    Args:
        members: M, at least 1.
        deaths: k, at most M − 1.
        model_bytes: S ≥ 0.
        bytes_per_second: B > 0, of each link.
        latency_s: L ≥ 0, seconds, one way.
        timeout_s: seconds without data after which a member suspects the one upstream.
        handshake_s: seconds that this member waits for an answer.
        wait_s: longest time that a member takes to finish its current unit, seconds.

    Raises:
        ValueError: a number out of range.
    """
    members = whole("members", members, least=1)
    deaths = whole("deaths", deaths, least=0, most=members - 1, remedy="one member survives")
    timeout_s, handshake_s = real("timeout_s", timeout_s, least=0), real("handshake_s", handshake_s, least=0)
    wait_s, latency_s = real("wait_s", wait_s, least=0), real("latency_s", latency_s, least=0)
    rings = sum(ring_seconds(members - j, model_bytes, bytes_per_second, latency_s) for j in range(deaths + 1))
    return wait_s + rings + deaths * (timeout_s + handshake_s + latency_s)


def merge_weights(
    versions: Float[np.ndarray, " n"], ring_version: Number, rule: Literal["half", "version"] = "half"
) -> Float[np.ndarray, " n"]:
    """Compute the weight β with which a device outside the ring merges the ring's mean: ``x_k ← (1 − β) x_k + β x̄``.

    ``"half"``: β = 1/2. ``"version"``: ``β = v̄/(v̄ + v_k)``, so that the model with more progress counts more; 1/2 if
    neither has made any.

    Source: merging the broadcast mean is reported of the paper; both rules are our choice, because the paper's weights
    are unknown. Kind: exact.

    Args:
        versions: v_k ≥ 0 of the receivers, ``(n,)``.
        ring_version: v̄ ≥ 0, version of the mean.
        rule: ``"half"`` or ``"version"``.

    Returns:
        β, ``(n,)``.

    Raises:
        ValueError: no versions, or an argument out of range.
    """
    versions = reals("versions", versions, shape=(None,), least=0, most=_COUNTS)
    ring_version = real("ring_version", ring_version, least=0, most=_COUNTS)
    rule = choice("rule", rule, ("half", "version"))  # type: ignore[assignment]
    both = versions + ring_version
    weights = np.full(versions.size, 0.5)
    if rule == "version":
        np.divide(ring_version, both, out=weights, where=both > 0)
    return weights


def _versions(versions: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return reals("versions", versions, shape=(None,), least=-_COUNTS, most=_COUNTS)
