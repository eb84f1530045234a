"""What the machines of a network can do: compute, send, receive, be far away, be offline."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from gossipjax._base.display import displayed, span
from gossipjax.devices.availability import (
    Availability,
    Transitions,
    check_members,
    online_at,
    share_online,
    take,
    transitions_until,
)
from gossipjax.devices.checks import frozen_numbers, frozen_whole, require, require_range


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Devices:
    """The machines of a network of n nodes, as arrays on the host.

    Attributes:
        seconds_per_sample: ``(n,)`` float64, read-only: inference of one sample; 0: no time. See
            :func:`training_seconds`.
        upload_bytes_per_second: ``(n,)`` float64, read-only, positive; infinite: unlimited.
        download_bytes_per_second: ``(n,)`` float64, read-only, likewise.
        city_latency_seconds: ``(c, c)`` float64, read-only: one-way delay from city to city, also within a city.
        city: ``(n,)`` int64, read-only: city of each node, 0..c - 1.
        availability: when each is online; None: always.
        name: where the devices come from, for reports.
        notes: what was changed in the source, such as entries that were clipped.

    Raises:
        ValueError: naming the field, the entry and its value, where a shape or a number does not fit.
    """

    seconds_per_sample: np.ndarray
    upload_bytes_per_second: np.ndarray
    download_bytes_per_second: np.ndarray
    city_latency_seconds: np.ndarray
    city: np.ndarray
    availability: Availability | None = None
    name: str = "devices"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every field and keep read-only copies."""
        for field in ("seconds_per_sample", "upload_bytes_per_second", "download_bytes_per_second"):
            object.__setattr__(self, field, frozen_numbers(field, getattr(self, field), 1))
        object.__setattr__(self, "city_latency_seconds", frozen_numbers("latency", self.city_latency_seconds, 2))
        object.__setattr__(self, "city", frozen_whole("city", self.city))
        _check_shapes(self)
        _check_values(self)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        speeds = {
            "compute": span(1e3 * self.seconds_per_sample, "ms a sample"),
            "upload": span(self.upload_bytes_per_second / 1e6, "MB/s"),
            "download": span(self.download_bytes_per_second / 1e6, "MB/s"),
        }
        cities = np.unique(self.city).size
        sizes = {"nodes": self.num_nodes, "cities": cities if cities > 1 else None}
        return self.name, sizes | speeds | {"online": "always" if self.availability is None else "by a trace"}

    @property
    def num_nodes(self) -> int:
        """Number of nodes n."""
        return self.seconds_per_sample.size

    def latency_seconds(
        self, senders: Int[np.ndarray, "..."] | int, receivers: Int[np.ndarray, "..."] | int
    ) -> Float[np.ndarray, "..."] | float:
        """Return the one-way delay of each message: that between the cities of its ends, or within their common city.

        Args:
            senders: nodes, of any shape that broadcasts with that of the receivers.
            receivers: nodes.

        Returns:
            Seconds, of the common shape.
        """
        return self.city_latency_seconds[self.city[senders], self.city[receivers]]

    def transitions(self, until_s: int | float) -> Transitions:
        """Return :func:`transitions` of these devices."""
        return transitions(self, until_s)


def online(devices: Devices, t: int | float) -> Bool[np.ndarray, " n"]:
    """Tell which nodes are online at time t.

    Args:
        devices: of n nodes.
        t: seconds, at least 0. An interval includes its begin and not its end.

    Returns:
        ``(n,)``; all true where availability is None.

    Raises:
        ValueError: a negative or infinite time.
    """
    require(0 <= t < np.inf, f"t={t}: a time must be finite seconds, at least 0; traces begin at 0")
    if devices.availability is None:
        return np.ones(devices.num_nodes, bool)
    return online_at(devices.availability, t)


def transitions(devices: Devices, until_s: int | float) -> Transitions:
    """List every time in 0 < t <= until_s at which a node goes online or offline.

    The state at 0 is ``online(devices, 0.0)``; changed by all transitions up to t it is the state at t. Intervals that
    touch, also across the border of a period, are one: each node's transitions alternate.

    Args:
        devices: of n nodes.
        until_s: seconds, at least 0.

    Returns:
        Times, nodes and directions, sorted by time, then node.

    Raises:
        ValueError: a negative or infinite time.
    """
    require(0 <= until_s < np.inf, f"until_s={until_s}: must be finite seconds, at least 0: traces may repeat for ever")
    if devices.availability is None:
        return Transitions(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))
    return transitions_until(devices.availability, until_s)


def training_seconds(devices: Devices, samples: Num[np.ndarray, " n"] | int | float) -> Float[np.ndarray, " n"]:
    """Compute how long each node trains: 3 * samples * seconds_per_sample, a backward pass being two forward passes.

    Args:
        devices: of n nodes.
        samples: samples that each node goes through (local steps times batch size), one number or ``(n,)``.

    Returns:
        ``(n,)`` seconds.

    Raises:
        ValueError: numbers of samples that are negative, not finite, or not one per node.

    Reference:
        Lai et al., "FedScale: Benchmarking Model and System Performance of Federated Learning at Scale", ICML 2022
        (the simulator's completion time: three times the inference time).
    """
    samples = np.asarray(samples, np.float64)
    require(
        samples.shape in ((), (devices.num_nodes,)),
        f"samples of shape {samples.shape}: give one number, or one for each of the {devices.num_nodes} nodes",
    )
    given = np.atleast_1d(samples)
    require_range("samples", given, np.isfinite(given) & (given >= 0), "must be finite and not negative")
    return 3.0 * samples * devices.seconds_per_sample


def with_availability(devices: Devices, availability: Availability | None) -> Devices:
    """Return the same devices, online at other times.

    Args:
        devices: of n nodes.
        availability: of n nodes (see :func:`take`); None: always online.

    Raises:
        ValueError: another number of nodes.
    """
    return dataclasses.replace(devices, availability=availability)


def subset(devices: Devices, nodes: Int[np.ndarray, " k"]) -> Devices:
    """Return the devices of some nodes; node i of the result is node ``nodes[i]``. The cities stay.

    Args:
        devices: of n nodes.
        nodes: ``(k,)`` at least one number in 0..n - 1; repetition is allowed.

    Raises:
        ValueError: no node, or one that does not exist.
    """
    nodes = np.asarray(nodes)
    check_members(nodes, devices.num_nodes)
    return dataclasses.replace(
        devices,
        seconds_per_sample=devices.seconds_per_sample[nodes],
        upload_bytes_per_second=devices.upload_bytes_per_second[nodes],
        download_bytes_per_second=devices.download_bytes_per_second[nodes],
        city=devices.city[nodes],
        availability=None if devices.availability is None else take(devices.availability, nodes),
        name=f"{nodes.size} of {devices.name}",
    )


def summary(devices: Devices) -> str:
    """Describe devices in a few lines: 5th, 50th and 95th percentile of everything, and the notes.

    Latency is that between two nodes drawn with replacement.
    """
    share = None if devices.availability is None else share_online(devices.availability)
    cities, counts = np.unique(devices.city, return_counts=True)
    between = devices.city_latency_seconds[np.ix_(cities, cities)].ravel()
    weights = np.multiply.outer(counts, counts).ravel()
    lines = (
        f"{devices.name}: {devices.num_nodes} nodes in {cities.size} cities; percentiles 5 / 50 / 95",
        f"  compute   {_three(1e3 * devices.seconds_per_sample)} ms a sample",
        f"  upload    {_three(devices.upload_bytes_per_second / 1e6)} MB/s",
        f"  download  {_three(devices.download_bytes_per_second / 1e6)} MB/s",
        f"  latency   {_three(1e3 * between, weights)} ms one way",
        "  online    always" if share is None else f"  online    {_three(100 * share)} % of the time",
        *(f"  note: {note}" for note in devices.notes),
    )
    return "\n".join(lines)


def _three(values: np.ndarray, weights: np.ndarray | None = None) -> str:
    """Write the 5th, 50th and 95th percentile; "inverted_cdf" picks entries, so that infinities do no harm."""
    given = np.percentile(values, [5, 50, 95], method="inverted_cdf", weights=weights)
    return " / ".join(f"{value:.4g}" for value in given)


def _check_shapes(devices: Devices) -> None:
    n = devices.num_nodes
    require(n > 0, "seconds_per_sample is empty: a network needs at least one node")
    for field in ("upload_bytes_per_second", "download_bytes_per_second", "city"):
        size = getattr(devices, field).size
        require(size == n, f"{field} has {size} entries for {n} nodes: give one per node")
    rows, columns = devices.city_latency_seconds.shape
    require(rows == columns and rows > 0, f"latency of shape ({rows}, {columns}): give (c, c), one row per city")
    availability = devices.availability
    require(
        availability is None or availability.num_nodes == n,
        f"availability of {availability and availability.num_nodes} devices for {n} nodes: choose devices with take()",
    )


def _check_values(devices: Devices) -> None:
    seconds, cities = devices.seconds_per_sample, len(devices.city_latency_seconds)
    require_range(
        "seconds_per_sample", seconds, np.isfinite(seconds) & (seconds >= 0), "must be finite seconds, at least 0"
    )
    for field in ("upload_bytes_per_second", "download_bytes_per_second"):
        rate = getattr(devices, field)
        require_range(field, rate, rate > 0, "must be positive; leave out a node that cannot communicate")
    delay = devices.city_latency_seconds
    require_range("latency", delay, np.isfinite(delay) & (delay >= 0), "must be finite seconds, at least 0")
    city = devices.city
    require_range("city", city, (city >= 0) & (city < cities), f"must lie in 0..{cities - 1}, the rows of the latency")
