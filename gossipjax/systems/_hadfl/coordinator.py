"""The coordinator: it hears speeds and versions, plans the cycles, draws the members of rings, and keeps a backup."""

from __future__ import annotations

import math

import numpy as np

from gossipjax.systems._hadfl.actions import adopt, go_on, is_with, same_life, send_model, tell
from gossipjax.systems._hadfl.forecast import draw, forecast, hyperperiod, log_weights, observe
from gossipjax.systems._hadfl.state import CycleRecord, Mean, Ring, Run
from gossipjax.systems._hadfl.tables import (
    ABANDONED,
    DROPPED,
    IDLE,
    READ,
    RESTORE,
    SKIPPED,
    STARTS,
    SUPERSEDED,
    SYNC,
    TOO_FEW,
    TRAININGS,
    UNDER_WAY,
)
from gossipjax.systems._kernel.loop import cut_all
from gossipjax.systems._kernel.queue import at


def hear_measurement(run: Run, node: int, life: int, seconds: float, version: float) -> None:
    """Note the seconds of a unit; with those of all living devices the strategy is made."""
    if run.coordinator.works:
        run.coordinator.measured_s[node] = seconds
        hear_report(run, node, life, version)
        _plan_cycles(run)


def hear_report(run: Run, node: int, life: int, version: float) -> None:
    """Note a version, and that the device is alive, unless it is known to have died since."""
    coordinator = run.coordinator
    if coordinator.works and life >= coordinator.lives[node]:
        coordinator.lives[node] = life
        coordinator.versions[node] = version
        coordinator.alive[node] = True


def hear_death(run: Run, node: int, life: int) -> None:
    """Notice that a device no longer answers."""
    coordinator = run.coordinator
    if coordinator.works and life > coordinator.lives[node]:
        coordinator.lives[node] = life
        coordinator.alive[node] = False
        _plan_cycles(run)


def _plan_cycles(run: Run) -> None:
    """Make the strategy once every living device, two of them at least, has measured itself."""
    coordinator, cycle = run.coordinator, run.settings.cycle
    living = [node for node, is_alive in enumerate(coordinator.alive) if is_alive]
    measured = np.array([coordinator.measured_s[node] for node in living])
    if not math.isnan(coordinator.start_s) or len(living) < 2 or np.isnan(measured).any():
        return
    coordinator.hyperperiod_s = hyperperiod(measured, cycle.max_denominator, cycle.max_hyperperiod)
    unit = coordinator.hyperperiod_s if math.isfinite(coordinator.hyperperiod_s) else float(measured.max())
    coordinator.sync_s = cycle.hyperperiods * unit if cycle.sync_s is None else float(cycle.sync_s)
    coordinator.start_s = run.kernel.now + run.settings.lead_s
    for node in living:
        tell(run, "strategy", run.settings.num_nodes, node, None)
    at(run.kernel.queue, coordinator.start_s, _begin, run, rank=STARTS)
    plan_synchronisation(run, coordinator.start_s + coordinator.sync_s)


def _begin(run: Run) -> None:
    """Let all idle devices look what they may do now: those that wait for the strategy begin at one instant."""
    for node, device in enumerate(run.devices):
        if run.kernel.online[node] and device.state == IDLE:
            go_on(run, node)


def plan_synchronisation(run: Run, sync_s: float) -> None:
    """Decide about a synchronisation early enough that its members hear of it in time; if need be, make it later."""
    decided_s = max(run.kernel.now, sync_s - run.settings.lead_s)
    at(run.kernel.queue, decided_s, _decide, run, max(sync_s, decided_s + run.settings.lead_s), rank=SYNC)


def _decide(run: Run, sync_s: float) -> None:
    """Forecast the versions, draw the members of a ring, and tell them."""
    coordinator, selection = run.coordinator, run.settings.selection
    if not coordinator.works:
        return
    versions = np.where(coordinator.alive, coordinator.versions, np.nan)
    coordinator.smoothing = observe(coordinator.smoothing, versions, selection.alpha)
    forecasts = forecast(coordinator.smoothing, selection.alpha)
    candidates = np.flatnonzero(~np.isnan(versions))
    probabilities = np.zeros(versions.size)
    record = CycleRecord(run.kernel.now, sync_s, versions, forecasts, probabilities, (), UNDER_WAY)
    number = len(run.cycles)
    run.cycles.append(record)
    following_s = sync_s + coordinator.sync_s
    if coordinator.ring is not None or candidates.size < 2:
        record.outcome = TOO_FEW if coordinator.ring is None else SKIPPED
        plan_synchronisation(run, following_s)
        return
    logs = log_weights(forecasts[candidates], selection.quantile, selection.scale)
    probabilities[candidates] = np.exp(logs)
    members = candidates[draw(run.choices, logs, selection.count)]
    record.selected = tuple(sorted(members.tolist()))
    order = run.choices.permutation(members).tolist()
    ring = coordinator.ring = Ring(number, sync_s, order, {node: coordinator.lives[node] for node in order})
    for node in record.selected:
        tell(run, "order", run.settings.num_nodes, node, _hear_order, node, ring)
    at(run.kernel.queue, sync_s, _check_ring, run, ring, rank=STARTS)
    if run.settings.cycle.cadence == "clock":
        plan_synchronisation(run, following_s)


def _hear_order(run: Run, node: int, ring: Ring) -> None:
    """Let a device know that it is in the next ring."""
    if is_with(run, node, ring):
        run.devices[node].ring = ring


def _check_ring(run: Run, ring: Ring) -> None:
    """Give up a ring whose members all died before they heard of it."""
    if not ring.over and not any(is_with(run, node, ring) for node in ring.order):
        end_ring(run, ring, ABANDONED)


def end_ring(run: Run, ring: Ring, outcome: int) -> None:
    """Note that a ring is over; the coordinator hears of it from the first member that lives, else a latency later."""
    record, n = run.cycles[ring.number], run.settings.num_nodes
    ring.over, record.outcome, record.end_s = True, outcome, run.kernel.now
    teller = next((node for node in ring.order if is_with(run, node, ring)), None)
    if teller is None:
        at(run.kernel.queue, run.kernel.now + run.settings.lead_s, _hear_result, run, ring)
    else:
        tell(run, "result", teller, n, _hear_result, ring)


def _hear_result(run: Run, ring: Ring) -> None:
    """Learn that a ring is over, and plan the next where it follows the ring."""
    coordinator = run.coordinator
    coordinator.ring = None
    if coordinator.works and run.settings.cycle.cadence == "after_ring":
        plan_synchronisation(run, run.cycles[ring.number].end_s + coordinator.sync_s)


def fail(run: Run) -> None:
    """Let the coordinator die: nobody synchronises any more; devices that wait for it train alone once they know."""
    n = run.settings.num_nodes
    run.coordinator.works = False
    run.kernel.online[n] = False
    cut_all(run.kernel, n)
    run.alone_s = run.kernel.now + run.settings.lead_s
    at(run.kernel.queue, run.alone_s, _go_alone, run, rank=STARTS)


def _go_alone(run: Run) -> None:
    """Let devices that wait for the coordinator train their own models."""
    for device in run.devices:
        device.needs_model = device.needs_model and device.state != IDLE
    _begin(run)


def serve_backup(run: Run, node: int, life: int) -> None:
    """Send the coordinator's copy of the last mean to a device that asks for it."""
    if run.coordinator.works and same_life(run, node, life):
        mean = run.coordinator.backup
        send_model(run, RESTORE, (run.settings.num_nodes, node), _restored, node, life, mean)


def _restored(number: int, completed: bool, run: Run, fate: int, node: int, life: int, mean: Mean) -> None:
    if not completed:
        run.fates[fate] = DROPPED
        return
    seconds = run.kernel.now + run.delay(run.settings.num_nodes, node)
    at(run.kernel.queue, seconds, _take_backup, run, fate, node, life, mean, rank=TRAININGS)


def _take_backup(run: Run, fate: int, node: int, life: int, mean: Mean) -> None:
    if not same_life(run, node, life):
        run.fates[fate] = DROPPED
    elif not run.devices[node].needs_model:  # a broadcast came first
        run.fates[fate] = SUPERSEDED
    else:
        run.fates[fate] = READ
        adopt(run, node, mean)
