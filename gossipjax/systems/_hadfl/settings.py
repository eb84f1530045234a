"""The options of HADFL in groups, checked, and the settings that its handlers read.

Much of the paper is known in outline only. Options and their defaults are our design, and so is what is no option: a
ring that loses a member starts anew; members are drawn without replacement, and stand in random order; one random
member broadcasts, to one device after another; another one, if there is one, sends the backup; smoothing starts at the
first version.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

from gossipjax._base.arguments import choice, instance, real, whole


@dataclasses.dataclass(frozen=True)
class HADFLCycle:
    """When HADFL synchronises: every ``T_sync = m · HE`` seconds.

    The hyperperiod HE is the least common multiple of the measured seconds of a unit of all devices, after their ratios
    to the fastest are rounded to fractions. In T_sync device i completes ``E_i = T_sync / T_i`` units.

    Attributes:
        hyperperiods: m ≥ 1.
        sync_s: T_sync in seconds; None: m hyperperiods.
        max_denominator: of the fractions.
        max_hyperperiod: the largest one, in units of the slowest device. A longer one is replaced by one unit of the
            slowest device, and ``E_i = ⌊T_sync / T_i⌋``.
        cadence: "clock": synchronisations at multiples of T_sync, one that falls into a ring is left out;
            "after_ring": T_sync after the end of the last ring.
        warmup_units: units that a device trains before the first cycle, to measure its speed.

    Raises:
        ValueError: a number out of range, or an unknown word.
    """

    hyperperiods: int = 1
    sync_s: int | float | None = None
    max_denominator: int = 8
    max_hyperperiod: int | float = 4.0
    cadence: Literal["clock", "after_ring"] = "clock"
    warmup_units: int = 1

    def __post_init__(self) -> None:
        """Check numbers and words."""
        for name in ("hyperperiods", "max_denominator", "warmup_units"):
            whole(name, getattr(self, name), least=1)
        if self.sync_s is not None:
            real("sync_s", self.sync_s, above=0, unit="seconds", remedy="None: from the measured speeds")
            if self.hyperperiods != 1:
                raise ValueError(
                    f"sync_s={self.sync_s:g}, hyperperiods={self.hyperperiods}: both set T_sync; give one of them"
                )
        real("max_hyperperiod", self.max_hyperperiod, least=1, remedy="units of the slowest device")
        choice("cadence", self.cadence, ("clock", "after_ring"))


@dataclasses.dataclass(frozen=True)
class HADFLSelection:
    """Who synchronises: N_p devices, drawn one after another with weights ``exp(−z_i²/2)``.

    v̂_i is the forecast of a device's version one T_sync after the last report (Brown's double exponential smoothing), Q
    a quantile of all forecasts. ``z_i = (v̂_i − Q)/sd(v̂)`` with scale "std", which no change of units changes, or
    ``z_i = v̂_i − Q`` with "unit", under which versions that grow without end leave only the nearest device.

    Attributes:
        count: N_p ≥ 2; fewer if fewer are alive.
        alpha: smoothing factor α in (0, 1).
        quantile: of the centre Q, linearly interpolated.
        scale: "std" or "unit".

    Raises:
        ValueError: a number out of range, or an unknown word.
    """

    count: int = 2
    alpha: int | float = 0.5
    quantile: int | float = 0.75
    scale: Literal["std", "unit"] = "std"

    def __post_init__(self) -> None:
        """Check numbers and words."""
        whole("count", self.count, least=2, remedy="a ring needs two devices")
        real("alpha", self.alpha, above=0, below=1)
        real("quantile", self.quantile, least=0, most=1)
        choice("scale", self.scale, ("std", "unit"))


@dataclasses.dataclass(frozen=True)
class HADFLMerging:
    """What a device makes of a model that was broadcast: ``x_k ← (1 − β) x_k + β x̄``, at the end of its unit.

    Its version becomes ``max(v_k, round((1 − β) v_k + β v̄))``.

    Attributes:
        beta: β in (0, 1], or "version": ``β = v̄/(v̄ + v_k)``, 1/2 where both are 0.
        ring_version: v̄, the version of a ring's mean: "mean" or "max" of its members'.

    Raises:
        ValueError: a number out of range, or an unknown word.
    """

    beta: int | float | Literal["version"] = 0.5
    ring_version: Literal["mean", "max"] = "mean"

    def __post_init__(self) -> None:
        """Check numbers and words."""
        if isinstance(self.beta, str):
            choice("beta", self.beta, ("version",))
        else:
            real("beta", self.beta, above=0, most=1, remedy="the weight of the broadcast model, or 'version'")
        choice("ring_version", self.ring_version, ("mean", "max"))


@dataclasses.dataclass(frozen=True)
class HADFLFailures:
    """What happens when a device dies.

    A ring member that has waited ``timeout_s`` for its upstream neighbour asks whether it lives. Without an answer for
    ``handshake_s`` the ring leaves the neighbour out and starts again.

    Attributes:
        timeout_s: None: a unit of the slowest device, and twice what the slowest fragment takes on an idle network.
        handshake_s: longer than the longest round trip, so that a living device is never left out; None: twice that, or
            what the slowest fragment takes if that is more.
        recovery: what a device that comes back does. "backup": it pulls the coordinator's copy of the last mean, or of
            the initial model; "broadcast": it waits for the next mean, and asks for the backup after two T_sync; before
            the first ring it goes on from its own model. Without an answer it goes on from its own model, too.

    Raises:
        ValueError: a time that is not positive, or an unknown word.
    """

    timeout_s: int | float | None = None
    handshake_s: int | float | None = None
    recovery: Literal["backup", "broadcast"] = "backup"

    def __post_init__(self) -> None:
        """Check times and words."""
        for name in ("timeout_s", "handshake_s"):
            if (seconds := getattr(self, name)) is not None:
                real(name, seconds, above=0, unit="seconds")
        choice("recovery", self.recovery, ("backup", "broadcast"))


@dataclasses.dataclass(frozen=True)
class HADFLSpeeds:
    """How the seconds of a unit vary: ``T_i · exp(d_k) · exp(σ N − σ²/2)`` for unit k, N standard normal.

    They belong to the machines, but only HADFL forecasts them. Each device draws from a stream of its own.

    Attributes:
        jitter: σ in [0, 5]; the second factor has mean one and is drawn for every unit.
        drift: δ in [0, 5]; the logarithm of the seconds is a random walk with standard deviation δ in the time of one
            unit of the slowest device, ``d_{k+1} = d_k + δ √(seconds of unit k / T_slowest) N``.

    Raises:
        ValueError: a number out of range.
    """

    jitter: int | float = 0.0
    drift: int | float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        real("jitter", self.jitter, least=0, most=5, remedy="a standard deviation of logarithms")
        real("drift", self.drift, least=0, most=5, remedy="a standard deviation of logarithms")


class HADFLSettings(NamedTuple):
    """What the handlers read; see :func:`gossipjax.systems.hadfl`."""

    num_nodes: int
    model_bytes: float
    slowest_s: float
    """Seconds of a unit of the slowest device, without jitter."""
    cycle: HADFLCycle
    selection: HADFLSelection
    merging: HADFLMerging
    failures: HADFLFailures
    speeds: HADFLSpeeds
    timeout_s: float
    handshake_s: float
    lead_s: float
    """How long before a synchronisation its members are chosen: the longest delay between coordinator and device, and
    a little more."""
    coordinator_fails_s: float | None
    most_units: int
    """Of all devices; a plan of more is refused while it is made."""


def check_groups(n: int, cycle: Any, selection: Any, merging: Any, failures: Any, speeds: Any) -> None:
    """Check the sorts of the groups, which have checked themselves.

    Raises:
        TypeError: another sort.
        ValueError: more members than devices.
    """
    groups = {
        "cycle": HADFLCycle,
        "selection": HADFLSelection,
        "merging": HADFLMerging,
        "failures": HADFLFailures,
        "speeds": HADFLSpeeds,
    }
    values = (cycle, selection, merging, failures, speeds)
    for (name, kind), value in zip(groups.items(), values, strict=True):
        instance(name, value, kind, f"such as gossipjax.systems.{kind.__name__}()")
    whole("selection.count", selection.count, least=2, most=n, remedy=f"a ring of some of the {n} devices")
