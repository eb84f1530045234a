"""Generate availability fitted to measured phones: on a charger, or idle, charging and on WiFi."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.arguments import whole
from gossipjax._base.calls import recorded
from gossipjax._base.lazy import special
from gossipjax._base.memory import check_memory
from gossipjax.devices import _laws
from gossipjax.devices._availability import Availability, from_sessions

DAY_S = 86_400


@recorded("yang2021heterogeneity")
def charging(n: int, seed: int) -> Availability:
    """Draw the hours in which n phones are on a charger, with a period of four days.

    Time 0 is hour 0 of FedScale's trace, when the fewest phones are on a charger; the peak is about 6.5 h later.

    The total online hours H of a phone are drawn from quantiles. The phone has 4 + Poisson(6.4) sessions; their centres
    follow a density over the day, and their lengths are lognormal (sigma 1.25), scaled to the total H. Overlapping
    sessions are merged. The share online by time of day and the hours per phone are fitted to FedScale's trace; the law
    of the session lengths and the independence of days are assumptions.

    Args:
        n: number of devices, at least 1.
        seed: of all draws; a device does not change when n grows.

    Returns:
        Availability in whole seconds. Marginals: the share online by time of day is within 0.6 points (root mean square
        over 48 half hours, at 20,000 devices); hours per device (published hours scaled to their mean of 19.5 h) are
        within 0.02 in Kolmogorov distance.

    Raises:
        ValueError: if n is below 1, or the seed is negative.

    Reference:
        Lai et al., "FedScale: Benchmarking Model and System Performance of Federated Learning at Scale", ICML 2022
        (the trace and its definition); Yang et al., "Characterizing Impacts of Heterogeneity in Federated Learning
        upon Large-Scale Smartphone Data", WWW 2021 (the log behind it).
    """
    of_total, of_count, *of_sessions = generators(n, seed, "charging", 4)
    hours = np.interp(of_total.random(n), *_laws.CHARGING_HOURS)
    counts = 4 + of_count.poisson(6.4, n)
    return _sessions(hours / 96, counts, 4, 1.25, _laws.CHARGING_CENTRES, of_sessions)


@recorded("lai2022fedscale")
def strict(n: int, seed: int) -> Availability:
    """Draw when n phones are idle, on a charger and on WiFi, with a period of six days that starts at midnight.

    A phone never qualifies with probability 0.29. For the others, the share of time and the number of sessions follow
    quantiles of the trace, coupled by a Gaussian copula with correlation 0.59. The session lengths of a phone are
    lognormal (sigma 2.0), scaled to its share, and the centres follow a density over the day. Gaps of less than a
    minute in the log do not end a session.

    Args:
        n: number of devices, at least 1.
        seed: of all draws; a device does not change when n grows.

    Returns:
        Availability in whole seconds. Marginals of phones that qualify, in Kolmogorov distance from the 710 measured
        phones, at 20,000 devices: online share within 0.03, sessions per day within 0.05.

    Raises:
        ValueError: if n is below 1, or the seed is negative.

    Reference:
        Yang et al., "Characterizing Impacts of Heterogeneity in Federated Learning upon Large-Scale Smartphone Data",
        WWW 2021 (public sample of 1,000 phones); Zhang et al., "FLHetBench: Benchmarking Device and State
        Heterogeneity in Federated Learning", CVPR 2024 (the intervals).
    """
    of_absent, of_pair, *of_sessions = generators(n, seed, "strict", 4)
    absent = of_absent.random(n) < _laws.STRICT_NEVER
    first, other = of_pair.standard_normal((n, 2)).T
    second = 0.59 * first + np.sqrt(1 - 0.59**2) * other
    share = np.interp(special.ndtr(first), *_laws.STRICT_SHARE)
    daily = np.exp(np.interp(special.ndtr(second), _laws.STRICT_DAILY[0], np.log(_laws.STRICT_DAILY[1])))
    counts = np.where(absent, 0, np.maximum(1, np.rint(6 * daily))).astype(np.int64)
    return _sessions(share, counts, 6, 2.0, _laws.STRICT_CENTRES, of_sessions)


def generators(n: int, seed: int, purpose: str, count: int) -> list[np.random.Generator]:
    """Build independent random streams for one purpose; devices draw from each stream in order.

    Device i draws after devices 0..i - 1, so it does not change when devices are added.

    Raises:
        ValueError: if n is below 1 or too large for memory, or the seed is invalid.
    """
    nodes_of(n)
    seed = checked_seed(seed)
    salt = int.from_bytes(purpose.encode(), "little")
    return [np.random.default_rng(child) for child in np.random.SeedSequence([seed, salt]).spawn(count)]


def nodes_of(n: int) -> int:
    """Check the number of devices, and that they fit into memory.

    Raises:
        ValueError: if n is below 1 or too large for memory.
    """
    n = whole("n", n, least=1, remedy="a network needs at least one device")
    check_memory(f"n={n}: so many devices", 400 * n, "take fewer")
    return n


def _sessions(
    share: Float[np.ndarray, " n"],
    counts: Int[np.ndarray, " n"],
    days: int,
    sigma: float,
    centres: tuple[int, ...],
    streams: list[np.random.Generator],
) -> Availability:
    """Place ``counts`` sessions per device whose lengths add up to a share of the period."""
    of_length, of_centre = streams
    period, total = days * DAY_S, int(counts.sum())
    check_memory(f"n={counts.size}: {total} sessions", 200 * total, "take fewer devices")
    nodes = np.repeat(np.arange(counts.size), counts)
    size = np.exp(sigma * of_length.standard_normal(nodes.size))
    sums = np.bincount(nodes, size, counts.size)
    length = np.maximum(1, np.rint(size / sums[nodes] * share[nodes] * period)).astype(np.int64)
    density = np.concatenate([[0.0], np.cumsum(centres)]) / sum(centres)
    day, within = np.divmod(of_centre.random(nodes.size) * days, 1)
    time_of_day = np.interp(within, density, np.linspace(0, DAY_S, density.size))
    begin = np.rint(day * DAY_S + time_of_day).astype(np.int64) - length // 2
    return from_sessions(nodes, begin, length, np.full(counts.size, period))
