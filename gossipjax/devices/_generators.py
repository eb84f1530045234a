"""Generate devices without files: identical ones, ones of relative powers, and phones drawn from fitted laws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Num

from gossipjax._base.arguments import choice, real, reals
from gossipjax._base.calls import recorded
from gossipjax.devices import _laws, _sessions
from gossipjax.devices._checks import require
from gossipjax.devices._device import Devices
from gossipjax.devices._sessions import generators, nodes_of


@recorded()
def uniform(
    n: int,
    *,
    seconds_per_sample: int | float = 0.041,
    bytes_per_second: int | float = 780_800.0,
    latency_seconds: int | float = 0.0,
) -> Devices:
    """Build n identical devices that are always online.

    Args:
        n: number of nodes, at least 1.
        seconds_per_sample: inference time; the default is the median phone of :func:`fitted`.
        bytes_per_second: in each direction; the default is the median of :func:`fitted`; infinite: unlimited.
        latency_seconds: one-way delay of any message.

    Raises:
        ValueError: if a number is out of range.
    """
    n = nodes_of(n)
    seconds = np.full(n, real("seconds_per_sample", seconds_per_sample, least=0, unit="seconds"))
    return _in_one_city(seconds, bytes_per_second, latency_seconds, f"uniform({n})")


@recorded("cao2021hadfl")
def from_powers(
    powers: Num[np.ndarray, " n"] | Sequence[int | float],
    *,
    seconds_per_sample: int | float = 0.041,
    bytes_per_second: int | float = 780_800.0,
    latency_seconds: int | float = 0.0,
) -> Devices:
    """Build devices of relative computing powers that are always online and equal in all else.

    Device i takes ``seconds_per_sample · min(p)/p_i`` for a sample: the slowest takes ``seconds_per_sample``, and one
    of twice its power half as long. Powers are ratios: (4, 2, 2, 1) and (8, 4, 4, 2) are the same devices.

    >>> import gossipjax as gj
    >>> gj.devices.from_powers((4, 2, 2, 1), seconds_per_sample=1.0).seconds_per_sample.tolist()
    [0.25, 0.5, 0.5, 1.0]

    Args:
        powers: ``(n,)``, at least one; positive, a larger number is a faster device.
        seconds_per_sample: inference time of the slowest device; the default is the median phone of :func:`fitted`.
        bytes_per_second: in each direction; the default is the median of :func:`fitted`; infinite: unlimited.
        latency_seconds: one-way delay of any message.

    Raises:
        ValueError: if there is no power, a power is not positive and finite, or a number is out of range.

    Reference:
        Cao et al., "HADFL: Heterogeneity-aware Decentralized Federated Learning Framework", DAC 2021, which is reported
        to describe its devices by such arrays.
    """
    remedy = "one relative speed per device, such as (4, 2, 2, 1); leave out a device that does not train"
    powers = reals("powers", powers, shape=(None,), above=0, remedy=remedy)
    require(powers.size > 0, "powers is empty: a network needs at least one node")
    slowest = real("seconds_per_sample", seconds_per_sample, least=0, unit="seconds")
    name = f"from_powers({', '.join(f'{power:g}' for power in powers[:8])}{', …' if powers.size > 8 else ''})"
    return _in_one_city(slowest * (powers.min() / powers), bytes_per_second, latency_seconds, name)


def _in_one_city(
    seconds: Float[np.ndarray, " n"], bytes_per_second: int | float, latency_seconds: int | float, name: str
) -> Devices:
    """Give devices equal bandwidth and latency."""
    rate = real("bytes_per_second", bytes_per_second, above=0, infinite=True, remedy="infinite: unlimited")
    delay = np.full((1, 1), real("latency_seconds", latency_seconds, least=0, unit="seconds"))
    rates = np.full(seconds.size, rate)
    return Devices(seconds, rates, rates, delay, np.zeros(seconds.size, np.int64), name=name)


@recorded("lai2022fedscale", "dhasade2025plexus")
def fitted(n: int, seed: int, *, availability: Literal["charging", "strict"] | None = None) -> Devices:
    """Draw n phones in 227 cities from laws that were fitted to measurements; no file is needed.

    Compute: one of 139 equally likely phone models (72 distinct values). Bandwidth: drawn by inverse transform
    sampling from 33 quantiles, log-linear between them; the same in both directions and independent of compute.
    Latency: city k is a point x_k on a plane, normal about the centre of one of six regions, and has an access delay
    h_k; the delay between two cities is |x_k - x_l| + h_k + h_l (a Vivaldi coordinate with height; distance in ms).
    Node i is in city i mod 227; each seed draws new cities.

    Compute has exactly the law of the trace. Bandwidth is within 0.02 in Kolmogorov distance and within 9 % in every
    quantile (median error 0.8 %). Latency between cities, over 150 seeds, is within 0.07 in Kolmogorov distance (0.035
    on average); its mean is 71.0 ms with a standard deviation of 1.6 ms, and the measured mean is 71.2 ms. The model
    omits asymmetry (4 % of the pairs differ by over a tenth) and the shortest delays (first percentile 6.5 ms, measured
    4.4 ms).

    Args:
        n: number of nodes, at least 1.
        seed: of all draws, not negative; the device of a node does not change when n grows.
        availability: None: always online; else drawn by :func:`gossipjax.devices.charging` or
            :func:`gossipjax.devices.strict`.

    Raises:
        ValueError: if n is below 1, the seed is negative, or the availability is unknown.

    Reference:
        Lai et al., "FedScale", ICML 2022 (phones); Dhasade et al., "Practical Federated Learning without a Server",
        EuroMLSys 2025 (delays between cities); Dabek et al., "Vivaldi: A Decentralized Network Coordinate System",
        SIGCOMM 2004 (coordinates with height).
    """
    if availability is not None:
        choice("availability", availability, ("charging", "strict"))
    of_compute, of_bandwidth, of_cities = generators(n, seed, "fitted", 3)
    models = np.repeat(_laws.COMPUTE_MS, _laws.COMPUTE_WEIGHTS)
    seconds = models[of_compute.integers(0, models.size, n)] / 1e3
    probabilities, kbps = _laws.BANDWIDTH_KBPS
    rate = rate_of(np.exp(np.interp(of_bandwidth.random(n), probabilities, np.log(kbps))))
    delay = _city_delays(of_cities)
    intervals = None
    if availability is not None:
        intervals = _sessions.charging(n, seed) if availability == "charging" else _sessions.strict(n, seed)
    city = np.arange(n) % len(delay)
    return Devices(seconds, rate, rate, delay, city, intervals, name=f"fitted({n}, seed {seed})")


def rate_of(kbps: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Convert kbit/s as Plexus does: floor(kbps) * 1024 / 8."""
    return np.floor(kbps) * 1024.0 / 8.0


def _city_delays(rng: np.random.Generator) -> Float[np.ndarray, "c c"]:
    """Draw seconds from city to city. Regions are shuffled so that the first nodes cover all of them."""
    region = rng.permutation(np.repeat(np.arange(len(_laws.REGION_CITIES)), _laws.REGION_CITIES))
    spread = np.array(_laws.REGION_SPREAD_MS)[region, None]
    place = np.array(_laws.REGION_CENTRE_MS)[region] + spread * rng.standard_normal((region.size, 2))
    access = np.interp(rng.random(region.size), *_laws.ACCESS_MS)
    distance = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
    delay = distance + (access[:, None] + access[None])
    np.fill_diagonal(delay, _laws.WITHIN_CITY_MS)
    return delay / 1e3
