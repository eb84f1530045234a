"""Quantiles and densities of the generators, fitted to published traces of phones and cities.

A pair of tuples is an inverse distribution function: probabilities, and the corresponding values.

Sources. Compute and bandwidth: the marginals of FedScale's device trace (Lai et al., "FedScale: Benchmarking Model and
System Performance of Federated Learning at Scale", ICML 2022; AI Benchmark for compute, MobiPerf over WiFi for
bandwidth), read off plots that its maintainers published. Latency: WonderNetwork's pings between 227 cities, as
published with Plexus (Dhasade et al., "Practical Federated Learning without a Server", EuroMLSys 2025). Charging:
FedScale's behaviour trace, also read off published plots. Strict: the 1,000 public phones of FLASH (Yang et al.,
"Characterizing Impacts of Heterogeneity in Federated Learning upon Large-Scale Smartphone Data", WWW 2021), as
FLHetBench (Zhang et al., CVPR 2024) cuts them into intervals.
"""

from __future__ import annotations

from typing import TypeAlias

Quantiles: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Probabilities from 0 to 1, and the corresponding values; both are non-decreasing."""

# fmt: off
COMPUTE_MS: tuple[int, ...] = (
    15, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 38, 39, 40, 41, 42, 43, 44, 46, 49, 50, 51, 54, 55,
    56, 61, 64, 72, 74, 75, 82, 96, 117, 118, 134, 136, 137, 138, 140, 143, 144, 145, 146, 148, 149, 150, 153, 154, 155,
    156, 159, 160, 162, 168, 172, 173, 174, 175, 176, 179, 183, 189, 190, 191, 192, 193, 199,
)
"""Inference time of a MobileNet-class model, in milliseconds per sample."""
COMPUTE_WEIGHTS: tuple[int, ...] = (
    3, 3, 4, 2, 5, 4, 9, 9, 4, 2, 7, 5, 1, 2, 4, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 1, 1, 1, 2, 1, 1, 1, 3, 1, 2, 1, 4, 1,
    3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 2, 2, 1,
)
"""Number of phone models, of 139 equally likely ones, with each inference time."""

BANDWIDTH_KBPS: Quantiles = (
    (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75,
     0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.994, 0.998, 1.0),
    (1025, 1080, 1130, 1260, 1550, 1720, 1840, 2070, 2340, 2920, 3650, 4330, 4830, 5250, 6100, 7120, 8520, 9740, 11800,
     13940, 19560, 26660, 32340, 36230, 46740, 51230, 61820, 69680, 84300, 97120, 116390, 132780, 199690),
)
"""Kilobits per second of a phone on WiFi; interpolate the logarithm linearly."""

REGION_CITIES: tuple[int, ...] = (100, 76, 22, 10, 10, 9)
"""Number of cities in each region, 227 in all."""
REGION_CENTRE_MS: tuple[tuple[float, float], ...] = (
    (1.2, 27.0), (-22.0, -24.6), (80.1, -16.0), (-79.3, -20.1), (46.7, -92.6), (13.1, 71.2),
)
"""Centre of each region on a map whose distances are one-way delays in milliseconds."""
REGION_SPREAD_MS: tuple[float, ...] = (4.8, 9.9, 19.7, 13.5, 20.6, 31.8)
"""Standard deviation of the cities of a region along each axis, in milliseconds."""
ACCESS_MS: Quantiles = (
    (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0),
    (0.0, 0.0, 0.7, 1.3, 2.6, 3.3, 4.8, 6.8, 8.7, 14.6, 26.3, 39.0),
)
"""Access delay of a city in milliseconds, added at both ends (the height of a Vivaldi coordinate)."""
WITHIN_CITY_MS = 0.02
"""One-way delay within a city in milliseconds: the measured median."""

CHARGING_HOURS: Quantiles = (
    (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
    (0.0, 0.4, 2.1, 4.2, 7.7, 10.8, 14.0, 17.8, 22.3, 27.7, 34.9, 47.2, 57.4, 95.0, 96.0),
)
"""Hours on a charger in 96 h, before overlapping sessions are merged."""
CHARGING_CENTRES: tuple[int, ...] = (
    78, 84, 85, 90, 95, 102, 105, 112, 114, 118, 120, 122, 125, 124, 123, 124, 124, 123, 118, 116, 112, 111, 108, 104,
    103, 103, 101, 99, 96, 96, 96, 96, 97, 94, 94, 97, 97, 97, 97, 97, 94, 93, 90, 84, 79, 69, 53, 38,
)
"""Relative density of session centres in each half hour of the trace's day."""

STRICT_NEVER = 0.29
"""Share of phones that are never idle, charging and on WiFi together."""
STRICT_SHARE: Quantiles = (
    (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
    (0.0, 0.0002, 0.0013, 0.008, 0.0184, 0.0364, 0.0555, 0.0827, 0.1174, 0.1657, 0.2833, 0.3666, 0.5686, 0.8),
)
"""Share of time for which a phone qualifies, before overlapping sessions are merged."""
STRICT_DAILY: Quantiles = (
    (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
    (0.1, 0.27, 0.38, 0.83, 1.0, 1.9, 2.41, 3.39, 4.8, 5.63, 8.96, 9.57, 18.08, 30.0),
)
"""Sessions per day before they are merged; interpolate the logarithm linearly."""
STRICT_CENTRES: tuple[int, ...] = (
    111, 133, 162, 172, 174, 173, 144, 121, 108, 91, 69, 53, 65, 51, 57, 64, 82, 82, 123, 71, 47, 55, 90, 105,
)
"""Relative density of session centres in each hour of the log's clock."""
# fmt: on
