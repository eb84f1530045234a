"""Availability: the intervals in which devices are online; each device repeats with a period."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from gossipjax._base.arguments import instance, real, reals, wholes
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed, span
from gossipjax._base.memory import check_memory
from gossipjax.devices._checks import freeze, members, require

BUILD_AVAILABILITY = "build one with gossipjax.devices, such as charging(8, seed=0)"

_LONGEST_S = 2**33
"""Whole seconds, 272 years: sums over half a billion devices stay exact."""


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Availability:
    """Intervals in which each device is online: [on_s, off_s) in ragged form.

    Device i is online at time t iff on_s[j] <= (t mod period_s[i]) < off_s[j] where offsets[i] <= j < offsets[i + 1].
    A device without intervals is never online. Whole seconds and multiples of a power of two are exact; other times
    may be rounded at the end of a period.

    Attributes:
        offsets: ``(n + 1,)`` int64, read-only: intervals offsets[i] to offsets[i + 1] − 1 belong to device i.
        on_s: ``(m,)`` float64 seconds, read-only: start of each interval, at least 0.
        off_s: ``(m,)`` float64 seconds, read-only: end of each interval, at most the period. The intervals of a device
            are sorted and disjoint; they may touch.
        period_s: ``(n,)`` float64 seconds, read-only; infinite: the intervals do not repeat.

    Raises:
        ValueError: if one of these rules is broken; the message names the device, the interval and its values.
    """

    offsets: np.ndarray
    on_s: np.ndarray
    off_s: np.ndarray
    period_s: np.ndarray

    def __post_init__(self) -> None:
        """Check the shapes and every interval."""
        for name in ("on_s", "off_s", "period_s"):
            numbers = reals(name, getattr(self, name), shape=(None,), infinite=True, unit="seconds")
            object.__setattr__(self, name, freeze(numbers))
        object.__setattr__(self, "offsets", freeze(wholes("offsets", self.offsets, shape=(None,))))
        _check_offsets(self.offsets, self.on_s, self.off_s, self.period_s)
        _check_intervals(self)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        period = span(self.period_s / 3600, "h")
        return "", {"devices": self.num_nodes, "intervals": self.on_s.size, "period": period}

    @property
    def num_nodes(self) -> int:
        """Number of devices n."""
        return self.period_s.size

    @property
    def nodes(self) -> Int[np.ndarray, " m"]:
        """Device of each interval."""
        return np.repeat(np.arange(self.num_nodes), np.diff(self.offsets))


class Transitions(NamedTuple):
    """Devices that go online or offline, sorted by time, then node."""

    times_s: Float[np.ndarray, " k"]
    """Seconds."""
    nodes: Int[np.ndarray, " k"]
    """Which device."""
    goes_online: Bool[np.ndarray, " k"]
    """True: it goes online; false: it goes offline."""


def online_at(availability: Availability, t: int | float) -> Bool[np.ndarray, " n"]:
    """Return which devices are online at time t; a device is offline at the end of its interval.

    Args:
        availability: of n devices.
        t: seconds, at least 0.

    Returns:
        ``(n,)``.

    Raises:
        ValueError: if t is negative or not finite.
    """
    t = real("t", t, least=0, unit="seconds", remedy="traces begin at 0")
    nodes = availability.nodes
    phase = np.fmod(t, availability.period_s)[nodes]
    inside = (availability.on_s <= phase) & (phase < availability.off_s)
    online = np.zeros(availability.num_nodes, bool)
    online[nodes[inside]] = True
    return online


def transitions_until(availability: Availability, until_s: int | float) -> Transitions:
    """List every change of state in 0 < t <= until_s.

    Intervals that touch count as one, also across the end of a period, so the transitions of a node alternate. The
    state at t is the state at 0 after all transitions up to t.

    Args:
        availability: of n devices.
        until_s: seconds, at least 0.

    Returns:
        The transitions of all nodes, sorted by time, then node.

    Raises:
        ValueError: if ``until_s`` is negative or not finite, or the transitions do not fit into memory.
    """
    until_s = real("until_s", until_s, least=0, unit="seconds", remedy="traces may repeat forever")
    edge, node, goes_online = _edges(availability)
    period = availability.period_s[node]
    turns = np.where(np.isinf(period), 0, np.floor(until_s / period)) + 1
    check_memory(f"until_s={until_s:g}: a list of {turns.sum():.3g} changes", 100 * turns.sum(), "give an earlier time")
    repeats = turns.astype(np.int64)
    which = np.repeat(np.arange(edge.size), repeats)
    turn = np.arange(which.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    shift = np.where(np.isinf(period), 0.0, period)  # 0 times infinity is NaN
    times = edge[which] + turn * shift[which]
    inside = (times > 0) & (times <= until_s)
    times, which = times[inside], which[inside]
    order = np.lexsort((node[which], times))
    which = which[order]
    return Transitions(times[order], node[which], goes_online[which])


def take(availability: Availability, devices: Int[np.ndarray, " k"]) -> Availability:
    """Return the availability of k nodes; node i behaves as device ``devices[i]``.

    Args:
        availability: of n devices.
        devices: ``(k,)`` numbers in 0..n - 1; repetition is allowed.

    Returns:
        Availability of k nodes.

    Raises:
        ValueError: if ``devices`` is empty or names a device that does not exist.
    """
    instance("availability", availability, Availability, BUILD_AVAILABILITY)
    devices = members("devices", devices, availability.num_nodes)
    counts = np.diff(availability.offsets)[devices]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    place = np.arange(offsets[-1]) + np.repeat(availability.offsets[:-1][devices] - offsets[:-1], counts)
    return Availability(offsets, availability.on_s[place], availability.off_s[place], availability.period_s[devices])


@recorded()
def from_sessions(
    nodes: Int[np.ndarray, " m"],
    begin_s: Int[np.ndarray, " m"],
    length_s: Int[np.ndarray, " m"],
    period_s: Int[np.ndarray, " n"],
) -> Availability:
    """Wrap sessions around the period of their device and merge sessions that overlap or touch.

    Args:
        nodes: ``(m,)`` device of each session, in any order.
        begin_s: ``(m,)`` seconds, taken modulo the period.
        length_s: ``(m,)`` seconds, not negative. A session as long as the period or longer means always online;
            sessions of length 0 are dropped.
        period_s: ``(n,)`` whole seconds.

    Returns:
        Sorted disjoint intervals.

    Raises:
        ValueError: if there is no device, a device does not exist, a length is negative, a period is not positive, or
            a number is not whole.
    """
    period_s = wholes("period_s", period_s, shape=(None,), least=1, most=_LONGEST_S, remedy="in whole seconds")
    require(period_s.size > 0, "period_s is empty: availability needs at least one device")
    nodes = wholes("nodes", nodes, shape=(None,), least=0, most=period_s.size - 1, remedy="a period for each device")
    as_many = "as many as nodes"
    begin_s = wholes("begin_s", begin_s, shape=nodes.shape, least=-_LONGEST_S, most=_LONGEST_S, remedy=as_many)
    length_s = wholes("length_s", length_s, shape=nodes.shape, least=0, most=_LONGEST_S, remedy=as_many)
    period = period_s[nodes]
    begin = begin_s % period
    end = begin + np.minimum(length_s, period)
    wraps = end > period
    nodes = np.concatenate([nodes, nodes[wraps]])
    begin = np.concatenate([begin, np.zeros(int(wraps.sum()), begin.dtype)])
    end = np.concatenate([np.minimum(end, period), (end - period)[wraps]])
    nonempty = end > begin
    return _merge_sessions(nodes[nonempty], begin[nonempty], end[nonempty], period_s)


def _merge_sessions(nodes: np.ndarray, begin: np.ndarray, end: np.ndarray, period_s: np.ndarray) -> Availability:
    """Merge overlapping whole-second intervals; a shift of more than a period per node separates the nodes exactly."""
    shift = nodes.astype(np.int64) * (int(period_s.max()) + 1)
    order = np.argsort(begin + shift, kind="stable")
    begin, end = (begin + shift)[order], np.maximum.accumulate((end + shift)[order])
    first = np.append(True, begin[1:] > end[:-1])[: begin.size]
    last = np.append(first[1:], True)[: begin.size]
    owner, shift = nodes[order][first], shift[order][first]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=period_s.size))])
    return Availability(offsets, begin[first] - shift, end[last] - shift, period_s)


def _edges(availability: Availability) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the changes of state within one period: seconds, node, whether it goes online.

    Whether intervals touch is decided here, before any arithmetic, because period * k + off and period * (k + 1) + on
    may round differently.
    """
    nodes, on, off = availability.nodes, availability.on_s, availability.off_s
    before = np.arange(on.size) - 1
    filled = np.diff(availability.offsets) > 0
    first, last = availability.offsets[:-1][filled], availability.offsets[1:][filled] - 1
    before[first] = last
    touches = on == off[before]
    touches[first] = (on[first] == 0) & (off[last] == availability.period_s[filled])
    stays = np.zeros(on.size, bool)
    stays[before] = touches
    seconds = np.concatenate([on[~touches], off[~stays]])
    node = np.concatenate([nodes[~touches], nodes[~stays]])
    return seconds, node, np.arange(seconds.size) < on.size - touches.sum()


def _check_offsets(offsets: np.ndarray, on: np.ndarray, off: np.ndarray, period: np.ndarray) -> None:
    require(on.shape == off.shape, f"{on.size} values of on_s and {off.size} of off_s: give one of each per interval")
    require(period.size > 0, "period_s is empty: availability needs at least one device")
    require(
        offsets.size == period.size + 1,
        f"offsets has {offsets.size} entries for {period.size} devices: give one more than devices",
    )
    falls = np.flatnonzero(np.diff(offsets) < 0)
    require(falls.size == 0, f"offsets decrease after entry {falls[:1]}: list the intervals device by device")
    require(
        offsets[0] == 0 and offsets[-1] == on.size,
        f"offsets run from {offsets[0]} to {offsets[-1]}: they must run from 0 to the {on.size} intervals",
    )


def _check_intervals(availability: Availability) -> None:
    nodes, on, off, period = availability.nodes, availability.on_s, availability.off_s, availability.period_s
    bad = np.flatnonzero(~(period > 0))
    require(bad.size == 0, f"device {bad[:1]}: period_s {period[bad[:1]]} must be positive (infinite: no repetition)")
    own = period[nodes]
    follows = np.append(False, nodes[1:] == nodes[:-1])[: on.size]
    previous = np.where(follows, np.roll(off, 1), -np.inf)
    rules: tuple[tuple[Bool[np.ndarray, " m"], str], ...] = (
        (np.isfinite(on) & np.isfinite(off), "must have finite times: drop it, or end it at the end of the trace"),
        (on >= 0, "begins before 0: shift the trace so that it begins at 0"),
        (off > on, "must end after it begins: drop empty intervals, swap reversed ends"),
        (off <= own, "ends beyond the period: split it there, or make the period longer"),
        (on >= previous, "begins before the previous one ends: sort the intervals and merge overlapping ones"),
    )
    for holds, text in rules:
        if not holds.all():
            j = int(np.argmin(holds))
            device, number = int(nodes[j]), int(j - availability.offsets[nodes[j]])
            raise ValueError(f"device {device}, interval {number}: [{on[j]:.15g}, {off[j]:.15g}) s {text}")


def share_online(availability: Availability) -> Float[np.ndarray, " n"]:
    """Return the share of its period for which each device is online; 0 if the period is infinite."""
    instance("availability", availability, Availability, BUILD_AVAILABILITY)
    return _total(availability) / availability.period_s


def _total(availability: Availability) -> Num[np.ndarray, " n"]:
    lengths = availability.off_s - availability.on_s
    return np.bincount(availability.nodes, lengths, availability.num_nodes)
