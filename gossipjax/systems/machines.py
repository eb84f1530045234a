"""What a simulated system needs to know of its machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from gossipjax._base.display import displayed
from gossipjax.devices import Devices, online

TABLE_NODES = 1500
"""Up to this number of nodes delays are written out: 18 MB, and lookups ten times faster."""


@displayed
class Machines(NamedTuple):
    """n nodes as plain arrays and functions; :func:`machines` makes it of :class:`gossipjax.devices.Devices`."""

    seconds_per_sample: Num[np.ndarray, " n"]
    upload_bytes_per_second: Num[np.ndarray, " n"]
    download_bytes_per_second: Num[np.ndarray, " n"]
    latency_seconds: Callable[[Any, Any], Any]
    """``latency_seconds(i, j)`` one-way seconds from i to j, for arrays of nodes of shapes that fit."""
    online: Bool[np.ndarray, " n"]
    """At time 0."""
    transitions: Callable[[float], tuple[Any, Any, Any]]
    """``transitions(until)``: times, nodes and whether they go online, of all changes in 0 < t ≤ until, sorted."""

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return "", {"nodes": self.online.size, "online at the start": int(np.count_nonzero(self.online))}


def machines(devices: Devices) -> Machines:
    """Take what is needed off devices."""
    return Machines(
        devices.seconds_per_sample,
        devices.upload_bytes_per_second,
        devices.download_bytes_per_second,
        devices.latency_seconds,
        online(devices, 0.0),
        devices.transitions,
    )


def always_online(until: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List no transitions: for machines that never come or go."""
    del until
    return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool)


def check_machines(devices: Machines) -> Machines:
    """Check shapes and numbers; return the machines.

    Raises:
        ValueError: fewer than one node, vectors of different lengths, or seconds that are not positive and finite.
    """
    n = devices.seconds_per_sample.size
    fields = ("seconds_per_sample", "upload_bytes_per_second", "download_bytes_per_second", "online")
    for name in fields:
        shape = np.shape(getattr(devices, name))
        if shape != (n,) or n < 1:
            raise ValueError(f"{name} has shape {shape}: give one entry per node, as seconds_per_sample has {n}")
    seconds = np.asarray(devices.seconds_per_sample, np.float64)
    if not (np.isfinite(seconds) & (seconds > 0)).all():
        bad = int(np.argmin(np.isfinite(seconds) & (seconds > 0)))
        raise ValueError(f"seconds_per_sample of node {bad} is {seconds[bad]}: training takes positive, finite time")
    return devices


def delay(devices: Machines) -> Callable[[int, int], float]:
    """Make the function ``delay(i, j)`` of one-way seconds between two nodes.

    Raises:
        ValueError: delays that are negative or not finite.
    """
    n = devices.seconds_per_sample.size
    if n > TABLE_NODES:
        return lambda i, j: float(devices.latency_seconds(i, j))
    table = latency_table(devices, np.arange(n))
    if not (np.isfinite(table) & (table >= 0)).all():
        i, j = np.argwhere(~(np.isfinite(table) & (table >= 0)))[0]
        raise ValueError(f"the delay from node {i} to {j} is {table[i, j]} s: must be finite and not negative")
    rows = list(table)
    return lambda i, j: rows[i].item(j)


def latency_table(devices: Machines, nodes: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k k"]:
    """Write out the one-way seconds between some nodes, by sender and receiver."""
    found = np.asarray(devices.latency_seconds(nodes[:, None], nodes[None, :]), np.float64)
    return np.broadcast_to(found, (nodes.size, nodes.size))
