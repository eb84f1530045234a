"""What several handlers of HADFL do: change a state, send a message or a model, go on, take a mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gossipjax.systems._hadfl.state import Mean, Moment, Ring, Run
from gossipjax.systems._hadfl.tables import (
    CONTROL,
    COPY,
    EXCHANGING,
    IDLE,
    IN_FLIGHT,
    MESSAGES,
    SEND,
    STARTS,
    SUPERSEDED,
    WAITING,
)
from gossipjax.systems._kernel.loop import transfer
from gossipjax.systems._kernel.queue import at
from gossipjax.systems._kernel.record import averages


def mark(run: Run, node: int, state: int) -> None:
    """Note that a device does something else from now on."""
    device, now = run.devices[node], run.kernel.now
    device.seconds[device.state] += now - device.since_s
    if device.state in (WAITING, EXCHANGING, IDLE) and now > device.since_s:
        run.spans.append((node, device.state, device.since_s, now))
    device.state, device.since_s = state, now


def tell(run: Run, kind: str, sender: int, receiver: int, handler: Callable[..., None] | None, *content: Any) -> None:
    """Send a small message; the handler is called when it arrives, whether or not the receiver is there."""
    run.messages[MESSAGES.index(kind)] += 1
    if handler is not None:
        at(run.kernel.queue, run.kernel.now + run.delay(sender, receiver), handler, run, *content, rank=CONTROL)


def move(run: Run, kind: int, ends: tuple[int, int], size: float, ended: Callable[..., None], *content: Any) -> int:
    """Begin a transfer of some bytes; ``ended(number, completed, run, *content)`` is called at its end."""
    run.kinds.append(kind)
    return transfer(run.kernel, *ends, size, ended, run, *content)


def send_model(run: Run, kind: int, ends: tuple[int, int], ended: Callable[..., None], *content: Any) -> None:
    """Begin the transfer of a whole model, counted by an event; ``content`` follows the number of its fate."""
    fate = len(run.fates)
    run.fates.append(IN_FLIGHT)
    run.moments.append(Moment(run.kernel.now, SEND, ends[0], -1))
    move(run, kind, ends, run.settings.model_bytes, ended, fate, *content)


def go_on(run: Run, node: int) -> None:
    """Let a device decide what to do next, once all that happens at this instant has happened."""
    device = run.devices[node]
    if device.start is None:
        device.start = at(run.kernel.queue, run.kernel.now, run.proceed, run, node, rank=STARTS)


def take(run: Run, node: int, mean: Mean) -> None:
    """Note that a mean is now in a device's model; what waits in its mailbox is older."""
    device = run.devices[node]
    device.mean = mean.number
    averages(run.kernel.record, run.kernel.now, node)
    if device.mailbox is not None:
        run.fates[device.mailbox.fate] = SUPERSEDED
        device.mailbox = None


def adopt(run: Run, node: int, mean: Mean) -> None:
    """Let a device begin again from a mean."""
    device = run.devices[node]
    run.moments.append(Moment(run.kernel.now, COPY, node, mean.number))
    take(run, node, mean)
    device.version, device.needs_model = mean.version, False
    go_on(run, node)


def same_life(run: Run, node: int, life: int) -> bool:
    """Return whether a device is online and has not died since."""
    return run.kernel.online[node] and run.devices[node].life == life


def is_with(run: Run, node: int, ring: Ring) -> bool:
    """Return whether a device is a member of a ring: not left out, online, and not dead since it was chosen."""
    return node in ring.order and same_life(run, node, ring.lives[node])
