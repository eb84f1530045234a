"""The state of a simulated run of HADFL: devices, the coordinator, the ring under way, and what is written down."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gossipjax.systems._hadfl.forecast import Smoothing
from gossipjax.systems._hadfl.settings import HADFLSettings
from gossipjax.systems._hadfl.tables import MESSAGES, OFFLINE, STATES
from gossipjax.systems._kernel.loop import Kernel


class Mean(NamedTuple):
    """The model that a ring leaves; number 0 is the initial model."""

    number: int
    version: float


INITIAL = Mean(0, 0.0)


class Letter(NamedTuple):
    """A mean that waits in a mailbox."""

    mean: Mean
    fate: int
    """Number of its fate."""


class Moment(NamedTuple):
    """One event of the learning."""

    seconds: float
    kind: int
    node: int
    """Who trains, receives a copy, dies, or sends; -1: the ring."""
    number: int
    """Of the mean that is read, or written by a ring; of the model that is kept; -1: none."""
    beta: float = 0.0
    """Weight of the mean in a merger."""


class Member(NamedTuple):
    """A model in the mean of a ring."""

    node: int
    kept: int
    """Number of its model that was kept when it died; -1: it is alive, and its model is its row."""


@dataclasses.dataclass(slots=True, eq=False)
class Ring:
    """A synchronisation under way."""

    number: int
    """Of the cycle, from 0 on."""
    sync_s: float
    order: list[int]
    """Members; each sends to the next."""
    lives: dict[int, int]
    """How often each member had died when it was chosen; one that has died since is none any more."""
    attempt: int = 0
    open: bool = True
    """False between the loss of a member and the new start."""
    entered: set[int] = dataclasses.field(default_factory=set)
    received: dict[int, int] = dataclasses.field(default_factory=dict)
    sent: dict[int, int] = dataclasses.field(default_factory=dict)
    sending: dict[int, int] = dataclasses.field(default_factory=dict)
    """Numbers of the transfers under way."""
    timers: dict[int, list[Any]] = dataclasses.field(default_factory=dict)
    """Entry of each member's timeout, or of the end of its handshake."""
    kept: dict[int, tuple[int, float]] = dataclasses.field(default_factory=dict)
    """Of members that died in the ring: number and version of the model that they had."""
    over: bool = False

    @property
    def num_steps(self) -> int:
        """Fragments that each member sends and receives: 2 (M − 1)."""
        return 2 * (len(self.order) - 1)


@dataclasses.dataclass(slots=True, eq=False)
class Device:
    """A device while it is simulated."""

    unit_s: float
    speeds: random.Random
    """Stream of its jitter and drift."""
    warmup_left: int
    state: int = OFFLINE
    since_s: float = 0.0
    log_seconds: float = 0.0
    """Drift of its units."""
    version: float = 0.0
    mean: int = 0
    """Number of the last mean that is in its model."""
    units: int = 0
    warmup_s: float = 0.0
    """Seconds of its warm-up so far."""
    life: int = 0
    """How often it has died."""
    training: tuple[int, list[Any]] | None = None
    """Number of its training in the record, and the entry of its end."""
    start: list[Any] | None = None
    """Entry of what it does after a unit, a ring or a restoration."""
    mailbox: Letter | None = None
    needs_model: bool = False
    """It has come back, and has no model that it may train."""
    announces: bool = False
    """It has come back, and the coordinator does not know."""
    ring: Ring | None = None
    """The ring that it has been ordered into."""
    seconds: list[float] = dataclasses.field(default_factory=lambda: [0.0] * len(STATES))
    """Spent in each state."""


@dataclasses.dataclass(slots=True, eq=False)
class Coordinator:
    """What the coordinator knows. It has no model but its backup, and never sees a gradient."""

    smoothing: Smoothing
    alive: list[bool]
    measured_s: list[float]
    """Seconds of a unit; NaN: not known."""
    versions: list[float]
    """Last report; NaN: none."""
    lives: list[int]
    """How often each device has died, as far as it knows."""
    works: bool = True
    start_s: float = float("nan")
    """When the first cycle begins; NaN: the strategy is not made."""
    hyperperiod_s: float = float("nan")
    sync_s: float = float("nan")
    """T_sync."""
    ring: Ring | None = None
    backup: Mean = INITIAL


@dataclasses.dataclass(slots=True, eq=False)
class CycleRecord:
    """One synchronisation, for the history."""

    decided_s: float
    sync_s: float
    versions: np.ndarray
    forecasts: np.ndarray
    probabilities: np.ndarray
    selected: tuple[int, ...]
    outcome: int
    end_s: float = float("nan")
    survivors: tuple[int, ...] = ()
    """Whose models are averaged."""
    handshakes: int = 0
    bypassed: int = 0
    broadcaster: int = -1


@dataclasses.dataclass(slots=True, eq=False)
class Run:
    """Everything."""

    settings: HADFLSettings
    kernel: Kernel
    delay: Callable[[int, int], float]
    """Seconds between two nodes; node n is the coordinator."""
    devices: list[Device]
    coordinator: Coordinator
    choices: np.random.Generator
    proceed: Callable[[Run, int], None]
    """What a device does next, after a unit, a ring or a restoration: those modules stand below that of devices."""
    alone_s: float = float("inf")
    """When devices know that the coordinator has failed."""
    means: list[Mean] = dataclasses.field(default_factory=lambda: [INITIAL])
    num_kept: int = 0
    """Models that were kept when members of a ring died."""
    moments: list[Moment] = dataclasses.field(default_factory=list)
    members: dict[int, tuple[list[Member], list[int]]] = dataclasses.field(default_factory=dict)
    """By number of the mean: the models that it is made of, and who takes it."""
    fates: list[int] = dataclasses.field(default_factory=list)
    """Of broadcasts, backups and restorations."""
    cycles: list[CycleRecord] = dataclasses.field(default_factory=list)
    kinds: list[int] = dataclasses.field(default_factory=list)
    """Of transfers."""
    spans: list[tuple[int, int, float, float]] = dataclasses.field(default_factory=list)
    """Node, state, begin and end of whatever is neither training nor offline."""
    messages: list[int] = dataclasses.field(default_factory=lambda: [0] * len(MESSAGES))
