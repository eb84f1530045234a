"""What a device does by itself: units of local training, mergers, warm-up, dying and coming back."""

from __future__ import annotations

import math

from gossipjax.systems._hadfl.coordinator import hear_death, hear_measurement, hear_report, serve_backup
from gossipjax.systems._hadfl.ring import enter, leave
from gossipjax.systems._hadfl.state import (
    CONTROL,
    DROPPED,
    IDLE,
    MERGED,
    OFFLINE,
    TRAINING,
    TRAININGS,
    UNIT,
    WAITING,
    Message,
    Moment,
    Run,
    go_on,
    mark,
    same_life,
    tell,
)
from gossipjax.systems._kernel.loop import cut_all
from gossipjax.systems._kernel.queue import at, cancel
from gossipjax.systems._kernel.record import averages, training_ends, training_starts

PATIENCE = 2
"""A device that waits for a broadcast asks for the backup after so many T_sync; else all might wait for one another."""
ENTERS_EARLY = 1e-9
"""A unit that ends so little before a synchronisation, in multiples of its length, ends at it: times are rounded."""


def proceed(run: Run, node: int) -> None:
    """Enter the ring that is due, wait for the strategy or for a model, or train a unit."""
    device, now = run.devices[node], run.kernel.now
    device.start = None
    if device.needs_model:
        mark(run, node, IDLE)
    elif device.warmup_left:
        _start_unit(run, node)
    elif device.ring is not None and now >= device.ring.sync_s - ENTERS_EARLY * device.unit_s:
        mark(run, node, WAITING)
        enter(run, device.ring, node)
    elif now >= run.coordinator.start_s:
        _start_unit(run, node)
    else:
        mark(run, node, IDLE)


def _start_unit(run: Run, node: int) -> None:
    device, kernel = run.devices[node], run.kernel
    mark(run, node, TRAINING)
    seconds = _seconds_of_unit(run, node)
    entry = at(kernel.queue, kernel.now + seconds, _end_unit, run, node, seconds, rank=TRAININGS)
    device.training = training_starts(kernel.record, kernel.now, node), entry


def _seconds_of_unit(run: Run, node: int) -> float:
    """Draw ``T_i exp(d) exp(σ N − σ²/2)``."""
    device, (jitter, drift) = run.devices[node], (run.settings.speeds.jitter, run.settings.speeds.drift)
    exponent = device.log_speed
    if drift:
        device.log_speed += drift * math.sqrt(device.unit_s / run.settings.slowest_s) * run.speeds.gauss(0.0, 1.0)
    if jitter:
        exponent += jitter * run.speeds.gauss(0.0, 1.0) - jitter**2 / 2
    return device.unit_s * math.exp(exponent)


def _end_unit(run: Run, node: int, seconds: float) -> None:
    """Count the unit, merge what has come, and report."""
    device, kernel, n = run.devices[node], run.kernel, run.settings.num_nodes
    _stop_training(run, node, completed=True)
    device.units += 1
    device.version += 1.0
    number, beta = -1, 0.0
    if device.mailbox is not None:
        number, beta = device.mailbox.mean.number, _merge(run, node, device.mailbox)
    run.moments.append(Moment(kernel.now, UNIT, node, number, beta))
    if device.warmup_left:
        device.warmup_left -= 1
        device.warmup_s += seconds
        if not device.warmup_left:
            measured = device.warmup_s / run.settings.cycle.warmup_units
            tell(run, "measurement", node, n, hear_measurement, node, device.incarnation, measured, device.version)
    else:
        tell(run, "report", node, n, hear_report, node, device.incarnation, device.version)
    go_on(run, node)


def _merge(run: Run, node: int, message: Message) -> float:
    """Take the mean from the mailbox, whose weight is returned."""
    device, beta, mean = run.devices[node], run.settings.merging.beta, message.mean
    if isinstance(beta, str):
        total = mean.version + device.version
        beta = mean.version / total if total > 0 else 0.5
    device.version = max(device.version, float(round((1 - beta) * device.version + beta * mean.version)))
    device.mailbox = None
    run.fates[message.number] = MERGED
    averages(run.kernel.record, run.kernel.now, node)
    return float(beta)


def _stop_training(run: Run, node: int, *, completed: bool) -> None:
    device = run.devices[node]
    if device.training is not None:
        number, entry = device.training
        training_ends(run.kernel.record, run.kernel.now, number, completed)
        cancel(entry)
        device.training = None


def change(run: Run, node: int, joins: bool) -> None:
    """Let a device die or come back."""
    if run.kernel.online[node] != joins:
        run.kernel.online[node] = joins
        (_come if joins else _die)(run, node)


def _die(run: Run, node: int) -> None:
    """Lose the unit under way, the mailbox, the transfers both ways, and the place in the ring."""
    device, kernel = run.devices[node], run.kernel
    device.incarnation += 1
    _stop_training(run, node, completed=False)
    if device.start is not None:
        cancel(device.start)
        device.start = None
    if device.mailbox is not None:
        run.fates[device.mailbox.number] = DROPPED
        device.mailbox = None
    ring, device.ring, device.needs_model = device.ring, None, False
    mark(run, node, OFFLINE)
    cut_all(kernel, node)
    if ring is not None:
        leave(run, ring, node)
    seconds = kernel.now + run.delay(node, run.settings.num_nodes)
    at(kernel.queue, seconds, hear_death, run, node, device.incarnation)


def _come(run: Run, node: int) -> None:
    """Ask for the backup, wait for a broadcast, or begin with the own model, which nobody has averaged yet."""
    device, backup = run.devices[node], run.settings.failures.recovery == "backup"
    device.needs_model = backup or len(run.means) > 1
    if backup:
        _ask_for_backup(run, node, device.incarnation)
    elif device.needs_model:
        seconds = run.kernel.now + PATIENCE * run.coordinator.sync_s
        at(run.kernel.queue, seconds, _ask_for_backup, run, node, device.incarnation, rank=CONTROL)
    go_on(run, node)


def _ask_for_backup(run: Run, node: int, incarnation: int) -> None:
    if same_life(run, node, incarnation) and run.devices[node].needs_model:
        tell(run, "request", node, run.settings.num_nodes, serve_backup, node, incarnation)
