"""Availability with given failures: every device is online, except in the outages that are listed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Num

from gossipjax._base.arguments import reals, wholes
from gossipjax._base.calls import recorded
from gossipjax.devices._availability import Availability
from gossipjax.devices._checks import require
from gossipjax.devices._sessions import nodes_of

_NEVER_S = float(2**33)
"""272 years: the end of time, for intervals must be finite."""


@recorded()
def outages(
    n: int, nodes: Int[np.ndarray, " m"], begin_s: Num[np.ndarray, " m"], end_s: Num[np.ndarray, " m"]
) -> Availability:
    """Let devices fail at given times, for experiments on failures; nothing repeats.

    >>> import numpy as np
    >>> from gossipjax import devices
    >>> lost = devices.outages(4, np.array([0, 2]), np.array([10.0, 5.0]), np.array([20.0, np.inf]))
    >>> phones = devices.with_availability(devices.uniform(4), lost)
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
    n = nodes_of(n)
    nodes = wholes("nodes", nodes, shape=(None,), least=0, most=n - 1, remedy=f"of the {n} devices")
    begin = reals("begin_s", begin_s, shape=(None,), least=0, below=_NEVER_S, unit="seconds")
    end = reals("end_s", end_s, shape=(None,), above=0, infinite=True, unit="seconds")
    require(
        nodes.size == begin.size == end.size,
        f"{nodes.size} nodes, {begin.size} of begin_s, {end.size} of end_s: give one of each for every outage",
    )
    for k in np.flatnonzero(end <= begin)[:1]:
        raise ValueError(
            f"begin_s[{k}]={begin[k]:g}, end_s[{k}]={end[k]:g}: the outage of device {nodes[k]} must end after it "
            "begins"
        )
    order = np.lexsort((begin, nodes))
    nodes, begin, end = nodes[order], begin[order], np.minimum(end[order], _NEVER_S)
    overlap = (nodes[1:] == nodes[:-1]) & (begin[1:] < end[:-1])
    require(
        not overlap.any(),
        f"nodes, begin_s, end_s: outages of device {nodes[:-1][overlap][:1]} overlap; merge them into one",
    )
    # Device i has a stretch online before each of its outages, and one after the last.
    first = np.arange(nodes.size) + nodes
    on, off = np.zeros(nodes.size + n), np.full(nodes.size + n, _NEVER_S)
    off[first], on[first + 1] = begin, end
    owner = np.repeat(np.arange(n), np.bincount(nodes, minlength=n) + 1)
    lasts = off > on
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner[lasts], minlength=n))])
    return Availability(offsets, on[lasts], off[lasts], np.full(n, np.inf))
