"""Devices without files: equal ones, and ones drawn from laws that were fitted to measured phones."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

from gossipjax._base.arguments import choice, real
from gossipjax._base.calls import recorded
from gossipjax.devices import _laws, _sessions
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
    """Make n equal devices that are always online.

    Args:
        n: number of nodes, at least 1.
        seconds_per_sample: the default is the median phone of :func:`fitted`.
        bytes_per_second: in each direction; the default is the median of :func:`fitted`, infinite is unlimited.
        latency_seconds: one-way delay of any message.

    Raises:
        ValueError: no node, or a number that no device can have.
    """
    n = nodes_of(n)
    rate = real("bytes_per_second", bytes_per_second, above=0, infinite=True, remedy="infinite: unlimited")
    delay = np.full((1, 1), real("latency_seconds", latency_seconds, least=0, unit="seconds"))
    seconds = np.full(n, real("seconds_per_sample", seconds_per_sample, least=0, unit="seconds"))
    rates = np.full(n, rate)
    return Devices(seconds, rates, rates, delay, np.zeros(n, np.int64), name=f"uniform({n})")


@recorded("lai2022fedscale", "dhasade2025plexus")
def fitted(n: int, seed: int, *, availability: Literal["charging", "strict"] | None = None) -> Devices:
    """Draw n phones in 227 cities from laws that were fitted to measured ones; no file is needed.

    Compute: one of 139 equally likely phone models (72 distinct values). Bandwidth, the same in both directions and
    independent of compute: the inverse of a distribution function with 33 quantiles, log-linear between them.
    Latency: city k is a point x_k on a plane, normal about the centre of one of six regions, and has an access delay
    h_k; the delay between two cities is |x_k - x_l| + h_k + h_l (a Vivaldi coordinate with height; distance in ms).
    Node i is in city i mod 227; the cities are redrawn with each seed.

    Compute agrees exactly in law with the trace; bandwidth within 0.02 in Kolmogorov's distance, and 9 % in every
    quantile (median error 0.8 %). Latency between cities, over 150 seeds: within 0.07 in Kolmogorov's distance (on
    average 0.035), its mean 71.0 ms with a standard deviation of 1.6 against 71.2 measured. Left out are asymmetry
    (4 % of the pairs differ by over a tenth) and the shortest delays (first percentile 6.5 ms against 4.4).

    Args:
        n: number of nodes, at least 1.
        seed: of all draws, not negative; a node's device stays what it is when n grows.
        availability: None: always online; else drawn by :func:`gossipjax.devices.charging` or
            :func:`gossipjax.devices.strict`.

    Raises:
        ValueError: no node, a negative seed, or an unknown availability.

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
    """Draw seconds from city to city. Regions are shuffled so that the first nodes are spread over all of them."""
    region = rng.permutation(np.repeat(np.arange(len(_laws.REGION_CITIES)), _laws.REGION_CITIES))
    spread = np.array(_laws.REGION_SPREAD_MS)[region, None]
    place = np.array(_laws.REGION_CENTRE_MS)[region] + spread * rng.standard_normal((region.size, 2))
    access = np.interp(rng.random(region.size), *_laws.ACCESS_MS)
    apart = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
    delay = apart + (access[:, None] + access[None])
    np.fill_diagonal(delay, _laws.WITHIN_CITY_MS)
    return delay / 1e3
