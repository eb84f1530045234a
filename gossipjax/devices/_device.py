"""The Devices class: compute speed, bandwidth, latency and availability of every node."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from gossipjax._base.arguments import instance, real, reals, wholes
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed, span
from gossipjax.devices._availability import (
    BUILD_AVAILABILITY,
    Availability,
    Transitions,
    online_at,
    share_online,
    take,
    transitions_until,
)
from gossipjax.devices._checks import freeze, members, require

BUILD_DEVICES = "build them with gossipjax.devices, such as fitted(8, seed=0)"


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Devices:
    """The machines of a network of n nodes, as arrays on the host.

    Attributes:
        seconds_per_sample: ``(n,)`` float64, read-only: inference time of one sample, at least 0. See
            :func:`training_seconds`.
        upload_bytes_per_second: ``(n,)`` float64, read-only, positive; infinite: unlimited.
        download_bytes_per_second: ``(n,)`` float64, read-only, positive; infinite: unlimited.
        city_latency_seconds: ``(c, c)`` float64, read-only: one-way delay from city to city, also within a city.
        city: ``(n,)`` int64, read-only: city of each node, 0..c - 1.
        availability: when each node is online; None: always.
        name: where the devices come from, for reports.
        notes: changes to the source data, such as clipped entries.

    Raises:
        ValueError: if a shape or a number is invalid; the message names the field, the entry and its value.
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
        for field, array in _check_arrays(self).items():
            object.__setattr__(self, field, freeze(array))
        if self.availability is not None:
            instance("availability", self.availability, Availability, f"or None: always online; {BUILD_AVAILABILITY}")
            m, n = self.availability.num_nodes, self.num_nodes
            require(m == n, f"availability of {m} devices for {n} nodes: choose devices with take()")
        instance("name", self.name, str, "say where the devices come from")
        for note in instance("notes", self.notes, tuple, "give a tuple of lines"):
            instance("notes", note, str, "give a tuple of lines")

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
        """Return the one-way delay of each message, from the city of its sender to the city of its receiver.

        Args:
            senders: nodes, of any shape that broadcasts with the receivers.
            receivers: nodes.

        Returns:
            Seconds, of the broadcast shape.

        Raises:
            ValueError: if a node does not exist, or the shapes do not broadcast.
        """
        senders, receivers = (
            _nodes(name, value, self.num_nodes) for name, value in (("senders", senders), ("receivers", receivers))
        )
        try:
            return self.city_latency_seconds[self.city[senders], self.city[receivers]]
        except IndexError as error:
            shapes = f"senders of shape {np.shape(senders)}, receivers of shape {np.shape(receivers)}"
            raise ValueError(f"{shapes}: must broadcast; give equal shapes, or one number") from error

    def transitions(self, until_s: int | float) -> Transitions:
        """Return :func:`transitions` of these devices."""
        return transitions(self, until_s)


def online(devices: Devices, t: int | float) -> Bool[np.ndarray, " n"]:
    """Return which nodes are online at time t.

    Args:
        devices: of n nodes.
        t: seconds, at least 0. An interval includes its start and excludes its end.

    Returns:
        ``(n,)``; all true if the availability is None.

    Raises:
        ValueError: if t is negative or not finite.
    """
    instance("devices", devices, Devices, BUILD_DEVICES)
    t = real("t", t, least=0, unit="seconds", remedy="traces begin at 0")
    if devices.availability is None:
        return np.ones(devices.num_nodes, bool)
    return online_at(devices.availability, t)


def transitions(devices: Devices, until_s: int | float) -> Transitions:
    """List every time in 0 < t <= until_s at which a node goes online or offline.

    The state at 0 is ``online(devices, 0.0)``; the state at t is the state at 0 after all transitions up to t.
    Intervals that touch count as one, also across the end of a period, so the transitions of a node alternate.

    Args:
        devices: of n nodes.
        until_s: seconds, at least 0.

    Returns:
        Times, nodes and directions, sorted by time, then node.

    Raises:
        ValueError: if ``until_s`` is negative or not finite.
    """
    instance("devices", devices, Devices, BUILD_DEVICES)
    until_s = real("until_s", until_s, least=0, unit="seconds", remedy="traces may repeat forever")
    if devices.availability is None:
        return Transitions(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))
    return transitions_until(devices.availability, until_s)


def training_seconds(devices: Devices, samples: Num[np.ndarray, " n"] | int | float) -> Float[np.ndarray, " n"]:
    """Return how long each node trains: 3 * samples * seconds_per_sample (a backward pass costs two forward passes).

    Args:
        devices: of n nodes.
        samples: samples that each node processes (local steps times batch size), one number or ``(n,)``.

    Returns:
        ``(n,)`` seconds.

    Raises:
        ValueError: if ``samples`` is negative, not finite, or not one number per node.

    Reference:
        Lai et al., "FedScale: Benchmarking Model and System Performance of Federated Learning at Scale", ICML 2022
        (the simulator's completion time: three times the inference time).
    """
    n = instance("devices", devices, Devices, BUILD_DEVICES).num_nodes
    samples = reals("samples", samples, least=0, remedy="one number, or one per node")
    require(samples.shape in ((), (n,)), f"samples of shape {samples.shape}: give one number, or one per node, ({n},)")
    return 3.0 * samples * devices.seconds_per_sample


@recorded()
def with_availability(devices: Devices, availability: Availability | None) -> Devices:
    """Return the same devices with another availability.

    Args:
        devices: of n nodes.
        availability: of n nodes (see :func:`take`); None: always online.

    Raises:
        ValueError: if the numbers of nodes differ.
    """
    instance("devices", devices, Devices, BUILD_DEVICES)
    return dataclasses.replace(devices, availability=availability)


@recorded()
def subset(devices: Devices, nodes: Int[np.ndarray, " k"]) -> Devices:
    """Return the devices of some nodes; node i of the result is node ``nodes[i]`` and keeps its city.

    Args:
        devices: of n nodes.
        nodes: ``(k,)`` at least one number in 0..n - 1; repetition is allowed.

    Raises:
        ValueError: if ``nodes`` is empty or names a node that does not exist.
    """
    nodes = members("nodes", nodes, instance("devices", devices, Devices, BUILD_DEVICES).num_nodes)
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
    """Describe devices in a few lines: the 5th, 50th and 95th percentile of each quantity, and the notes.

    Latency is between two nodes drawn with replacement.
    """
    instance("devices", devices, Devices, BUILD_DEVICES)
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
    """Format the 5th, 50th and 95th percentile; "inverted_cdf" picks entries, so infinities are allowed."""
    percentiles = np.percentile(values, [5, 50, 95], method="inverted_cdf", weights=weights)
    return " / ".join(f"{value:.4g}" for value in percentiles)


def _check_arrays(devices: Devices) -> dict[str, np.ndarray]:
    """Check the arrays of all fields and return them."""
    seconds = reals("seconds_per_sample", devices.seconds_per_sample, shape=(None,), least=0, unit="seconds")
    require(seconds.size > 0, "seconds_per_sample is empty: a network needs at least one node")
    arrays = {"seconds_per_sample": seconds}
    for field in ("upload_bytes_per_second", "download_bytes_per_second"):
        remedy = "one per node; infinite: unlimited; leave out a node that cannot communicate"
        arrays[field] = reals(
            field, getattr(devices, field), shape=(seconds.size,), above=0, infinite=True, remedy=remedy
        )
    delay = reals("city_latency_seconds", devices.city_latency_seconds, shape=(None, None), least=0, unit="seconds")
    require(
        delay.shape[0] == delay.shape[1] > 0,
        f"city_latency_seconds of shape {delay.shape}: give (c, c), one row per city",
    )
    remedy = f"the city of each node, one of the {len(delay)} rows of the latency"
    city = wholes("city", devices.city, shape=(seconds.size,), least=0, most=len(delay) - 1, remedy=remedy)
    return arrays | {"city_latency_seconds": delay, "city": city}


def _nodes(name: str, value: Any, num_nodes: int) -> Any:
    """Check node numbers; fast for a single int, because simulations ask for one node at a time."""
    if type(value) is int and 0 <= value < num_nodes:
        return value
    return wholes(name, value, least=0, most=num_nodes - 1, remedy="name nodes that exist")
