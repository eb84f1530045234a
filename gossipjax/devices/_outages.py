"""Availability with given failures: every device is online, except in the outages that are listed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Num

from gossipjax._base.arguments import reals, whole, wholes
from gossipjax._base.calls import recorded
from gossipjax.devices._availability import Availability
from gossipjax.devices._checks import require

_NEVER_S = float(2**33)
"""272 years: the end of time, for intervals must be finite."""


@recorded()
def outages(
    n: int, nodes: Int[np.ndarray, " m"], begin_s: Num[np.ndarray, " m"], end_s: Num[np.ndarray, " m"]
) -> Availability:
    """Let devices fail at given times, for experiments on failures; nothing repeats.

    >>> from gossipjax import devices
    >>> phones = devices.with_availability(devices.uniform(4), devices.outages(4, [0, 2], [10.0, 5.0], [20.0, np.inf]))
    >>> devices.online(phones, 12.0)
    array([False,  True, False,  True])

    Args:
        n: number of devices, at least 1.
        nodes: ``(m,)`` who fails; a device may fail several times.
        begin_s: ``(m,)`` seconds at which it goes offline, at least 0.
        end_s: ``(m,)`` seconds at which it comes back, later; infinite: never.

    Returns:
        Availability of the n devices, for :func:`gossipjax.devices.with_availability`.

    Raises:
        ValueError: if a device does not exist, or an outage does not end after it begins or overlaps another one of the
            same device.
    """
    n = whole("n", n, least=1)
    nodes = wholes("nodes", nodes, shape=(None,), least=0, most=n - 1, remedy=f"of the {n} devices")
    begin = reals(
        "begin_s", begin_s, shape=nodes.shape, least=0, below=_NEVER_S, unit="seconds", remedy="one per outage"
    )
    end = reals("end_s", end_s, shape=nodes.shape, above=0, infinite=True, unit="seconds", remedy="one per outage")
    for k in np.flatnonzero(end <= begin)[:1]:
        raise ValueError(f"outage {k} of device {nodes[k]}: [{begin[k]:g}, {end[k]:g}) s must end after it begins")
    order = np.lexsort((begin, nodes))
    nodes, begin, end = nodes[order], begin[order], np.minimum(end[order], _NEVER_S)
    overlap = (nodes[1:] == nodes[:-1]) & (begin[1:] < end[:-1])
    require(not overlap.any(), f"outages of device {nodes[:-1][overlap][:1]} overlap: merge them")
    on, off, offsets = [], [], [0]
    for node in range(n):
        mine = nodes == node
        starts, ends = np.append(0.0, end[mine]), np.append(begin[mine], _NEVER_S)
        full = ends > starts
        on.append(starts[full])
        off.append(ends[full])
        offsets.append(offsets[-1] + int(full.sum()))
    return Availability(np.array(offsets), np.concatenate(on), np.concatenate(off), np.full(n, np.inf))
