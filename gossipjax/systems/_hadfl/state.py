"""The state of a simulated run of HADFL: devices, the coordinator, the ring under way, and what is written down."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gossipjax.systems._hadfl.forecast import Smoothing
from gossipjax.systems._hadfl.settings import HADFLSettings
from gossipjax.systems._kernel.loop import Kernel, transfer
from gossipjax.systems._kernel.queue import at
from gossipjax.systems._kernel.record import averages

TRAININGS, PRESENCE, CONTROL, SYNC, STARTS = range(5)
"""What comes first at equal times, after transfers that are complete."""

STATES = ("training", "waiting for the ring", "in the ring", "idle", "offline")
"""What a device does: trains; has come to a ring that others have not; exchanges fragments; waits for the strategy or
for a model; is not there."""
TRAINING, WAITING, EXCHANGING, IDLE, OFFLINE = range(len(STATES))

OUTCOMES = ("averaged", "abandoned", "skipped", "too few", "under way")
"""What became of a synchronisation: its ring took a mean; it fell apart; another ring was under way; fewer than two
devices were known to be alive; it had not ended with the plan."""
AVERAGED, ABANDONED, SKIPPED, TOO_FEW, UNDER_WAY = range(len(OUTCOMES))

MESSAGES = ("measurement", "strategy", "report", "order", "handshake", "answer", "restart", "request", "result")
"""Small messages, which take the latency only: seconds of a unit, to the coordinator; strategy, from it; version, to
it; who is in the ring, from it; the question whether a neighbour lives, and its answer; the news that a ring starts
again; the request of a device that comes back; the end of a ring, to the coordinator."""

KINDS = ("fragment", "broadcast", "backup", "restore")
"""Transfers: a fragment in the ring; a mean to a device outside it; a mean to the coordinator, and back."""
FRAGMENT, BROADCAST, BACKUP, RESTORE = range(len(KINDS))

IN_FLIGHT, MERGED, DROPPED, SUPERSEDED = range(4)
"""What became of a model message: not read by the end; read; cut, or its receiver died; a newer mean came first."""

UNIT, RING, COPY, SEND = range(4)
"""Kinds of events of the learning."""


class Mean(NamedTuple):
    """The model that a ring leaves; number 0 is the initial model."""

    number: int
    version: float


INITIAL = Mean(0, 0.0)


class Message(NamedTuple):
    """A mean that waits in a mailbox."""

    mean: Mean
    number: int
    """Of its fate."""


class Moment(NamedTuple):
    """One event of the learning."""

    seconds: float
    kind: int
    node: int
    """Who trains, receives a copy, or sends; -1: the ring."""
    mean: int
    """Number of the mean that is read, or written by a ring; -1: none."""
    beta: float
    """Weight of the mean in a merger."""


@dataclasses.dataclass(slots=True, eq=False)
class Ring:
    """A synchronisation under way."""

    number: int
    """Of the cycle, from 0 on."""
    sync_s: float
    order: list[int]
    """Members; each sends to the next."""
    attempt: int = 0
    open: bool = True
    """False between the loss of a member and the new start."""
    entered: set[int] = dataclasses.field(default_factory=set)
    received: dict[int, int] = dataclasses.field(default_factory=dict)
    sent: dict[int, int] = dataclasses.field(default_factory=dict)
    sending: dict[int, int | None] = dataclasses.field(default_factory=dict)
    """Number of the transfer under way."""
    timers: dict[int, list[Any]] = dataclasses.field(default_factory=dict)
    """Entry of each member's timeout, or of the end of its handshake."""
    over: bool = False

    @property
    def num_steps(self) -> int:
        """Fragments that each member sends and receives: 2 (M − 1)."""
        return 2 * (len(self.order) - 1)


@dataclasses.dataclass(slots=True, eq=False)
class Device:
    """A device while it is simulated."""

    unit_s: float
    warmup_left: int
    state: int = OFFLINE
    since_s: float = 0.0
    log_speed: float = 0.0
    version: float = 0.0
    units: int = 0
    warmup_s: float = 0.0
    """Seconds of its warm-up so far."""
    incarnation: int = 0
    """How often it has died."""
    training: tuple[int, list[Any]] | None = None
    """Number of its training in the record, and the entry of its end."""
    start: list[Any] | None = None
    """Entry of what it does after a unit, a ring or a restoration."""
    mailbox: Message | None = None
    needs_model: bool = False
    """It has come back, and has no model that it may train."""
    ring: Ring | None = None
    """The ring that it is in, or has been ordered into."""
    seconds: list[float] = dataclasses.field(default_factory=lambda: [0.0] * len(STATES))
    """Spent in each of :data:`STATES`."""


@dataclasses.dataclass(slots=True, eq=False)
class Coordinator:
    """What the coordinator knows. It has no model but its backup, and never sees a gradient."""

    smoothing: Smoothing
    alive: list[bool]
    measured_s: list[float]
    """Seconds of a unit; NaN: not known."""
    versions: list[float]
    """Last report; NaN: none."""
    incarnations: list[int]
    """Of each device, as far as it knows."""
    works: bool = True
    start_s: float = float("nan")
    """When the first cycle begins; NaN: the strategy is not made."""
    hyperperiod_s: float = float("nan")
    sync_s: float = float("nan")
    """T_sync."""
    ring: Ring | None = None
    backup: Mean = INITIAL


@dataclasses.dataclass(slots=True, eq=False)
class Row:
    """One synchronisation, for the history."""

    decided_s: float
    sync_s: float
    versions: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    selected: tuple[int, ...]
    outcome: int
    end_s: float = float("nan")
    survivors: tuple[int, ...] = ()
    """Members whose models are averaged."""
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
    speeds: random.Random
    choices: np.random.Generator
    proceed: Callable[[Run, int], None]
    """What a device does after a unit, a ring, or a restoration."""
    means: list[Mean] = dataclasses.field(default_factory=lambda: [INITIAL])
    moments: list[Moment] = dataclasses.field(default_factory=list)
    members: dict[int, tuple[list[int], list[int]]] = dataclasses.field(default_factory=dict)
    """By number of the mean: whose models it is made of, and who takes it."""
    fates: list[int] = dataclasses.field(default_factory=list)
    """Of broadcasts, backups and restorations."""
    rows: list[Row] = dataclasses.field(default_factory=list)
    kinds: list[int] = dataclasses.field(default_factory=list)
    """Of transfers."""
    spans: list[tuple[int, int, float, float]] = dataclasses.field(default_factory=list)
    """Node, state, begin and end of whatever is neither training nor offline."""
    messages: list[int] = dataclasses.field(default_factory=lambda: [0] * len(MESSAGES))


def mark(run: Run, node: int, state: int) -> None:
    """Note that a device does something else from now on."""
    device, now = run.devices[node], run.kernel.now
    device.seconds[device.state] += now - device.since_s
    if device.state in (WAITING, EXCHANGING, IDLE) and now > device.since_s:
        run.spans.append((node, device.state, device.since_s, now))
    device.state, device.since_s = state, now


def tell(run: Run, kind: str, sender: int, receiver: int, handler: Callable[..., None], *content: Any) -> None:
    """Send a small message; the handler is called when it arrives, whether or not the receiver is there."""
    run.messages[MESSAGES.index(kind)] += 1
    at(run.kernel.queue, run.kernel.now + run.delay(sender, receiver), handler, run, *content, rank=CONTROL)


def move(run: Run, kind: int, ends: tuple[int, int], size: float, ended: Callable[..., None], *content: Any) -> int:
    """Begin a transfer of some bytes; ``ended(number, completed, run, *content)`` is called at its end."""
    run.kinds.append(kind)
    return transfer(run.kernel, *ends, size, ended, run, *content)


def send_mean(run: Run, kind: int, sender: int, receiver: int, ended: Callable[..., None], *content: Any) -> int:
    """Begin the transfer of a whole model, with an event that counts it; return the number of its fate."""
    fate = len(run.fates)
    run.fates.append(IN_FLIGHT)
    run.moments.append(Moment(run.kernel.now, SEND, sender, -1, 0.0))
    move(run, kind, (sender, receiver), run.settings.model_bytes, ended, fate, *content)
    return fate


def go_on(run: Run, node: int) -> None:
    """Let a device decide what to do next, once all that happens at this instant has happened."""
    device = run.devices[node]
    if device.start is None:
        device.start = at(run.kernel.queue, run.kernel.now, run.proceed, run, node, rank=STARTS)


def adopt(run: Run, node: int, mean: Mean) -> None:
    """Let a device begin again from a mean."""
    run.moments.append(Moment(run.kernel.now, COPY, node, mean.number, 1.0))
    averages(run.kernel.record, run.kernel.now, node)
    device = run.devices[node]
    device.version, device.needs_model = mean.version, False
    go_on(run, node)


def same_life(run: Run, node: int, incarnation: int) -> bool:
    """Return whether a device is online and has not died since."""
    return run.kernel.online[node] and run.devices[node].incarnation == incarnation


def is_with(run: Run, node: int, ring: Ring) -> bool:
    """Return whether a device is online and has not forgotten the ring."""
    return run.kernel.online[node] and run.devices[node].ring is ring
