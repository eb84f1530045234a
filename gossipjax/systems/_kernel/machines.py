"""What a simulated system needs to know about its machines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from gossipjax._base.arguments import callable_, choice, instance, real, reals, shown, whole, wholes
from gossipjax._base.calls import recordable, recorded
from gossipjax._base.display import displayed
from gossipjax.devices import Devices, online
from gossipjax.systems._kernel.bandwidth import MODELS

TABLE_NODES = 1500
"""Largest number of nodes whose delays are tabulated: 18 MB, and lookups are ten times faster."""


@displayed
@recordable
class Machines(NamedTuple):
    """n nodes as plain arrays and functions; :func:`machines` makes it of :class:`gossipjax.devices.Devices`."""

    seconds_per_sample: Num[np.ndarray, " n"]
    upload_bytes_per_second: Num[np.ndarray, " n"]
    download_bytes_per_second: Num[np.ndarray, " n"]
    latency_seconds: Callable[[Any, Any], Any]
    """``latency_seconds(i, j)``: one-way seconds from i to j, for arrays of nodes whose shapes broadcast."""
    online: Bool[np.ndarray, " n"]
    """At time 0."""
    transitions: Callable[[float], tuple[Any, Any, Any]]
    """``transitions(until)``: times, nodes, and whether they go online, for all changes in 0 < t ≤ until, sorted."""

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return "", {"nodes": self.online.size, "online at the start": int(np.count_nonzero(self.online))}


@recorded()
def machines(devices: Devices) -> Machines:
    """Extract from devices what a system needs."""
    instance("devices", devices, Devices, _REMEDY)
    return Machines(
        devices.seconds_per_sample,
        devices.upload_bytes_per_second,
        devices.download_bytes_per_second,
        devices.latency_seconds,
        online(devices, 0.0),
        devices.transitions,
    )


@recorded()
def always_online(until: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return no transitions, for machines that are always online."""
    real("until", until, least=0, infinite=True, unit="seconds")
    return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool)


_REMEDY = "make some with gossipjax.devices, such as fitted(8, seed=0)"


def checked_machines(devices: Devices | Machines) -> Machines:
    """Return the machines that a system runs on, with every field checked.

    Raises:
        TypeError: if ``devices`` are neither devices nor machines.
        ValueError: if there are no nodes, vectors differ in length, seconds are not positive and finite, or rates are
            not positive; later, when transitions are requested, if they are not sorted changes of these nodes.
    """
    instance("devices", devices, (Devices, Machines), _REMEDY)
    given = devices if isinstance(devices, Machines) else machines(devices)
    remedy = "one per node; training takes positive, finite time"
    seconds = reals(
        "seconds_per_sample", given.seconds_per_sample, shape=(None,), above=0, unit="seconds", remedy=remedy
    )
    n = seconds.size
    if n < 1:
        raise ValueError("seconds_per_sample is empty: a network needs at least one node")
    for name in ("upload_bytes_per_second", "download_bytes_per_second"):
        rate = getattr(given, name)
        reals(name, rate, shape=(n,), least=1, infinite=True, remedy="one per node; or its transfers never end")
    if np.shape(given.online) != (n,) or np.asarray(given.online).dtype != bool:
        raise ValueError(f"online={shown(given.online)}: must be True or False for each of the {n} nodes")
    callable_("latency_seconds", given.latency_seconds, "latency_seconds(senders, receivers) -> seconds")
    callable_("transitions", given.transitions, "transitions(until) -> times, nodes, whether they go online")
    return given._replace(transitions=partial(_listed, given.transitions, n))


def checked_system(
    devices: Devices | Machines,
    *,
    time_batch: Any,
    bandwidth: Any = "greedy",
    num_rounds: Any = 1,
    round_seconds: Any = None,
) -> Machines:
    """Validate the arguments that all systems share, besides what they learn; return the machines.

    Raises:
        ValueError: if a number is out of range or a word is unknown.
        TypeError: if ``devices`` are neither devices nor machines.
    """
    for name, count in (("num_rounds", num_rounds), ("time_batch", time_batch)):
        whole(name, count, least=1, most=2**53)
    if round_seconds is not None:
        real("round_seconds", round_seconds, above=0, unit="seconds", remedy="None: barriers")
    choice("bandwidth", bandwidth, MODELS)
    return checked_machines(devices)


def _listed(found: Callable[[float], Any], num_nodes: int, until: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the transitions in 0 < t ≤ until, and check what is listed."""
    columns = found(until)
    if not isinstance(columns, tuple | list) or len(columns) != 3:
        raise ValueError(f"transitions({until:g})={shown(columns)}: must be times, nodes, and whether they go online")
    times = reals("times of transitions", columns[0], shape=(None,), above=0, most=until, unit="seconds")
    nodes = wholes("nodes of transitions", columns[1], shape=times.shape, least=0, most=num_nodes - 1)
    joins = np.asarray(columns[2])
    if joins.shape != times.shape or (joins.size and joins.dtype != bool):
        raise ValueError(f"directions of transitions={shown(joins)}: must be True (online) or False, one for each time")
    if (np.diff(times) < 0).any():
        raise ValueError("times of transitions decrease: sort them")
    return times, nodes, joins.astype(bool)


def delay(devices: Machines) -> Callable[[int, int], float]:
    """Make the function ``delay(i, j)`` that returns the one-way seconds between two nodes.

    Raises:
        ValueError: if a delay is negative or not finite; for many nodes, only when that delay is requested.
    """
    n, latency = devices.seconds_per_sample.size, devices.latency_seconds
    if getattr(latency, "__func__", None) is Devices.latency_seconds:
        owner: Devices = latency.__self__  # type: ignore[attr-defined]
        city, between = owner.city.tolist(), owner.city_latency_seconds.tolist()
        return lambda i, j: between[city[i]][city[j]]
    if n > TABLE_NODES:
        return lambda i, j: real("delay", devices.latency_seconds(i, j), least=0, unit="seconds")
    rows = list(latency_table(devices, np.arange(n)))
    return lambda i, j: rows[i].item(j)


def latency_table(devices: Machines, nodes: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k k"]:
    """Return the one-way seconds between some nodes, by sender and receiver.

    Raises:
        ValueError: if a delay is negative or not finite.
    """
    found = reals("delay", devices.latency_seconds(nodes[:, None], nodes[None, :]), least=0, unit="seconds")
    return np.broadcast_to(found, (nodes.size, nodes.size))


def train_seconds_of(devices: Machines, local_steps: int, time_batch: int) -> Float[np.ndarray, " n"]:
    """Compute c_i = 3 E b s_i, the training time of each node; a backward pass costs two forward passes."""
    return 3.0 * local_steps * time_batch * np.asarray(devices.seconds_per_sample, np.float64)
