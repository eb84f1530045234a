"""What a device does by itself: units of local training, mergers, warm-up, dying and coming back."""

from __future__ import annotations

import math

from gossipjax.systems._hadfl.actions import go_on, mark, same_life, take, tell
from gossipjax.systems._hadfl.coordinator import hear_death, hear_measurement, hear_report, serve_backup
from gossipjax.systems._hadfl.ring import enter, leave
from gossipjax.systems._hadfl.state import Moment, Run
from gossipjax.systems._hadfl.tables import (
    CONTROL,
    DROPPED,
    IDLE,
    OFFLINE,
    PRESENCE,
    READ,
    TRAINING,
    TRAININGS,
    UNIT,
)
from gossipjax.systems._kernel.loop import cut_all
from gossipjax.systems._kernel.queue import at, cancel
from gossipjax.systems._kernel.record import training_ends, training_starts

PATIENCE = 2
"""A device that waits for a broadcast asks for the backup after so many T_sync; else all might wait for one another."""
ENTERS_EARLY = 1e-9
"""A unit that ends so little before a synchronisation, in multiples of its length, ends at it: times are rounded."""


def proceed(run: Run, node: int) -> None:
    """Enter the ring that is due, wait for the strategy or for a model, or train a unit."""
    device, now = run.devices[node], run.kernel.now
    device.start = None
    if device.announces and not device.needs_model:
        _announce(run, node)
    if device.needs_model:
        mark(run, node, IDLE)
    elif device.warmup_left:
        _start_unit(run, node)
    elif device.ring is not None and now >= device.ring.sync_s - ENTERS_EARLY * device.unit_s:
        enter(run, device.ring, node)
    elif now >= run.coordinator.start_s or now >= run.alone_s:
        _start_unit(run, node)
    else:
        mark(run, node, IDLE)


def _announce(run: Run, node: int) -> None:
    """Tell the coordinator of a device that has come back with a model; one without a measurement will, later."""
    device = run.devices[node]
    device.announces = False
    if not device.warmup_left:
        _report_measurement(run, node)


def _report_measurement(run: Run, node: int) -> None:
    device, n = run.devices[node], run.settings.num_nodes
    seconds = device.warmup_s / run.settings.cycle.warmup_units
    tell(run, "measurement", node, n, hear_measurement, node, device.life, seconds, device.version)


def _start_unit(run: Run, node: int) -> None:
    device, kernel = run.devices[node], run.kernel
    if len(kernel.record.training_node) >= run.settings.most_units:
        raise ValueError(
            f"{run.settings.speeds}: more than {run.settings.most_units:,} units by {kernel.now:g} s, many times what "
            "devices of constant speed train; lower jitter and drift, or plan a shorter time"
        )
    mark(run, node, TRAINING)
    seconds = _seconds_of_unit(run, node)
    entry = at(kernel.queue, kernel.now + seconds, _end_unit, run, node, seconds, rank=TRAININGS)
    device.training = training_starts(kernel.record, kernel.now, node), entry


def _seconds_of_unit(run: Run, node: int) -> float:
    """Draw ``T_i exp(d) exp(σ N − σ²/2)``."""
    device, (jitter, drift) = run.devices[node], (run.settings.speeds.jitter, run.settings.speeds.drift)
    exponent = device.log_seconds
    if jitter:
        exponent += jitter * device.speeds.gauss(0.0, 1.0) - jitter**2 / 2
    seconds = device.unit_s * math.exp(exponent)
    if drift:
        share = math.sqrt(seconds / run.settings.slowest_s)
        device.log_seconds += drift * share * device.speeds.gauss(0.0, 1.0)
    return seconds


def _end_unit(run: Run, node: int, seconds: float) -> None:
    """Count the unit, merge what has come, and report."""
    device, n = run.devices[node], run.settings.num_nodes
    _stop_training(run, node, completed=True)
    device.units += 1
    device.version += 1.0
    number, beta = _merge(run, node)
    run.moments.append(Moment(run.kernel.now, UNIT, node, number, beta))
    if device.warmup_left:
        device.warmup_left -= 1
        device.warmup_s += seconds
        if not device.warmup_left:
            _report_measurement(run, node)
    else:
        tell(run, "report", node, n, hear_report, node, device.life, device.version)
    go_on(run, node)


def _merge(run: Run, node: int) -> tuple[int, float]:
    """Take the mean from the mailbox; return its number and weight, −1 and 0 if there is none."""
    device, beta = run.devices[node], run.settings.merging.beta
    if device.mailbox is None:
        return -1, 0.0
    (mean, fate), device.mailbox = device.mailbox, None
    if isinstance(beta, str):
        total = mean.version + device.version
        beta = mean.version / total if total > 0 else 0.5
    device.version = max(device.version, float(round((1 - beta) * device.version + beta * mean.version)))
    run.fates[fate] = READ
    take(run, node, mean)
    return mean.number, float(beta)


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
    device.life += 1
    _stop_training(run, node, completed=False)
    if device.start is not None:
        cancel(device.start)
        device.start = None
    if device.mailbox is not None:
        run.fates[device.mailbox.fate] = DROPPED
        device.mailbox = None
    ring, device.ring, device.needs_model = device.ring, None, False
    mark(run, node, OFFLINE)
    cut_all(kernel, node)
    if ring is not None:
        leave(run, ring, node)
    seconds = kernel.now + run.delay(node, run.settings.num_nodes)
    at(kernel.queue, seconds, hear_death, run, node, device.life, rank=PRESENCE)  # before reports of the next life


def _come(run: Run, node: int) -> None:
    """Ask for the backup, wait for a broadcast, or begin with the own model, which nobody has averaged yet."""
    device, backup = run.devices[node], run.settings.failures.recovery == "backup"
    device.announces, device.needs_model = True, backup or len(run.means) > 1
    if backup:
        _ask_for_backup(run, node, device.life)
    elif device.needs_model:
        seconds = run.kernel.now + PATIENCE * run.coordinator.sync_s
        at(run.kernel.queue, seconds, _ask_for_backup, run, node, device.life, rank=CONTROL)
    go_on(run, node)


def _ask_for_backup(run: Run, node: int, life: int) -> None:
    if same_life(run, node, life) and run.devices[node].needs_model:
        tell(run, "request", node, run.settings.num_nodes, serve_backup, node, life)
        at(run.kernel.queue, run.kernel.now + run.settings.handshake_s, _give_up, run, node, life, rank=CONTROL)


def _give_up(run: Run, node: int, life: int) -> None:
    """Go on from the own model if the coordinator does not answer."""
    if same_life(run, node, life) and run.devices[node].needs_model and not run.coordinator.works:
        run.devices[node].needs_model = False
        go_on(run, node)
