"""The coordinator: it hears speeds and versions, plans the cycles, draws the members of rings, and keeps a backup."""

from __future__ import annotations

import math

import numpy as np

from gossipjax.systems._hadfl.forecast import draw, forecast, hyperperiod, log_weights, observe
from gossipjax.systems._hadfl.state import (
    ABANDONED,
    DROPPED,
    IDLE,
    MERGED,
    RESTORE,
    SKIPPED,
    STARTS,
    SUPERSEDED,
    SYNC,
    TOO_FEW,
    TRAININGS,
    UNDER_WAY,
    Mean,
    Ring,
    Row,
    Run,
    adopt,
    go_on,
    same_life,
    send_mean,
    tell,
)
from gossipjax.systems._kernel.loop import cut_all
from gossipjax.systems._kernel.queue import at


def hear_measurement(run: Run, node: int, incarnation: int, seconds: float, version: float) -> None:
    """Note the seconds of a unit; with those of all living devices the strategy is made."""
    if run.coordinator.works:
        run.coordinator.measured_s[node] = seconds
        hear_report(run, node, incarnation, version)
        _plan_cycles(run)


def hear_report(run: Run, node: int, incarnation: int, version: float) -> None:
    """Note a version, and that the device is alive, unless it is known to have died since."""
    coordinator = run.coordinator
    if coordinator.works and incarnation >= coordinator.incarnations[node]:
        coordinator.versions[node] = version
        coordinator.alive[node] = True


def hear_death(run: Run, node: int, incarnation: int) -> None:
    """Notice that a device no longer answers."""
    coordinator = run.coordinator
    if coordinator.works:
        coordinator.incarnations[node] = incarnation
        coordinator.alive[node] = False
        _plan_cycles(run)


def _plan_cycles(run: Run) -> None:
    """Make the strategy once every living device, two of them at least, has measured itself."""
    coordinator, cycle = run.coordinator, run.settings.cycle
    living = [node for node, is_alive in enumerate(coordinator.alive) if is_alive]
    measured = np.array([coordinator.measured_s[node] for node in living])
    if not math.isnan(coordinator.start_s) or len(living) < 2 or np.isnan(measured).any():
        return
    coordinator.hyperperiod_s = hyperperiod(measured, cycle.max_denominator)
    slowest = float(measured.max())
    unit = coordinator.hyperperiod_s if coordinator.hyperperiod_s <= cycle.longest * slowest * (1 + 1e-9) else slowest
    coordinator.sync_s = cycle.hyperperiods * unit if cycle.sync_s is None else float(cycle.sync_s)
    coordinator.start_s = run.kernel.now + run.settings.lead_s
    for node in living:
        tell(run, "strategy", run.settings.num_nodes, node, _nothing)
    at(run.kernel.queue, coordinator.start_s, _begin_cycles, run, rank=STARTS)
    plan_synchronisation(run, coordinator.start_s + coordinator.sync_s)


def _nothing(run: Run) -> None:
    """Do nothing now: the strategy says when to begin."""


def _begin_cycles(run: Run) -> None:
    """Let all devices that wait for it begin to train, at one instant."""
    for node, device in enumerate(run.devices):
        if run.kernel.online[node] and device.state == IDLE:
            go_on(run, node)


def plan_synchronisation(run: Run, sync_s: float) -> None:
    """Decide about a synchronisation early enough that its members hear of it in time."""
    seconds = max(run.kernel.now, sync_s - run.settings.lead_s)
    at(run.kernel.queue, seconds, _decide, run, sync_s, rank=SYNC)


def _decide(run: Run, sync_s: float) -> None:
    """Forecast the versions, draw the members of a ring, and tell them."""
    coordinator, selection = run.coordinator, run.settings.selection
    if not coordinator.works:
        return
    versions = np.where(coordinator.alive, coordinator.versions, np.nan)
    coordinator.smoothing = observe(coordinator.smoothing, versions, selection.alpha)
    predicted = forecast(coordinator.smoothing, selection.alpha)
    candidates = np.flatnonzero(~np.isnan(versions))
    probabilities = np.zeros(versions.size)
    row = Row(run.kernel.now, sync_s, versions, predicted, probabilities, (), UNDER_WAY)
    number = len(run.rows)
    run.rows.append(row)
    if coordinator.ring is not None or candidates.size < 2:
        row.outcome = TOO_FEW if coordinator.ring is None else SKIPPED
        plan_synchronisation(run, sync_s + coordinator.sync_s)
        return
    logs = log_weights(predicted[candidates], selection.quantile, selection.spread)
    probabilities[candidates] = np.exp(logs)
    members = candidates[draw(run.choices, logs, selection.count)]
    row.selected = tuple(sorted(members.tolist()))
    ring = Ring(number, sync_s, run.choices.permutation(members).tolist())
    coordinator.ring = ring
    for node in row.selected:
        tell(run, "order", run.settings.num_nodes, node, _hear_order, node, ring)
    heard_s = max(sync_s, run.kernel.now + run.settings.lead_s)
    at(run.kernel.queue, heard_s, _check_ring, run, ring, rank=STARTS)
    if run.settings.cycle.cadence == "clock":
        plan_synchronisation(run, sync_s + coordinator.sync_s)


def _hear_order(run: Run, node: int, ring: Ring) -> None:
    """Let a device know that it is in the next ring, unless it has just come back without a model."""
    device = run.devices[node]
    if run.kernel.online[node] and not device.needs_model and not ring.over:
        device.ring = ring


def _check_ring(run: Run, ring: Ring) -> None:
    """Give up a ring of which nobody has remained when it should begin."""
    if not ring.over and not any(run.devices[node].ring is ring for node in ring.order):
        ring.over = True
        run.rows[ring.number].end_s = run.kernel.now
        hear_result(run, ring, ABANDONED)


def hear_result(run: Run, ring: Ring, outcome: int) -> None:
    """Note that a ring is over."""
    coordinator, row = run.coordinator, run.rows[ring.number]
    row.outcome = outcome
    coordinator.ring = None
    if coordinator.works and run.settings.cycle.cadence == "after_ring":
        plan_synchronisation(run, row.end_s + coordinator.sync_s)


def fail(run: Run) -> None:
    """Let the coordinator die: nobody synchronises any more."""
    run.coordinator.works = False
    run.kernel.online[run.settings.num_nodes] = False
    cut_all(run.kernel, run.settings.num_nodes)


def serve_backup(run: Run, node: int, incarnation: int) -> None:
    """Send the coordinator's copy of the last mean to a device that asks for it."""
    if run.coordinator.works and same_life(run, node, incarnation):
        mean = run.coordinator.backup
        send_mean(run, RESTORE, run.settings.num_nodes, node, _restored, node, incarnation, mean)


def _restored(number: int, completed: bool, run: Run, fate: int, node: int, incarnation: int, mean: Mean) -> None:
    if not completed:
        run.fates[fate] = DROPPED
        return
    seconds = run.kernel.now + run.delay(run.settings.num_nodes, node)
    at(run.kernel.queue, seconds, _take_backup, run, fate, node, incarnation, mean, rank=TRAININGS)


def _take_backup(run: Run, fate: int, node: int, incarnation: int, mean: Mean) -> None:
    if not same_life(run, node, incarnation):
        run.fates[fate] = DROPPED
    elif not run.devices[node].needs_model:  # a broadcast came first
        run.fates[fate] = SUPERSEDED
    else:
        run.fates[fate] = MERGED
        adopt(run, node, mean)
