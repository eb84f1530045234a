"""HADFL on devices: its arguments, the run, and the plan."""

from __future__ import annotations

import random
from functools import partial

import numpy as np

from gossipjax._base.arguments import real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.devices import Devices
from gossipjax.systems._hadfl.actions import go_on, mark
from gossipjax.systems._hadfl.coordinator import fail
from gossipjax.systems._hadfl.forecast import start_smoothing
from gossipjax.systems._hadfl.history import history_of
from gossipjax.systems._hadfl.learning import timeline_of
from gossipjax.systems._hadfl.settings import (
    HADFLCycle,
    HADFLFailures,
    HADFLMerging,
    HADFLSelection,
    HADFLSettings,
    HADFLSpeeds,
    check_groups,
)
from gossipjax.systems._hadfl.state import Coordinator, Device, Run
from gossipjax.systems._hadfl.tables import AVERAGED, CONTROL, IDLE, PRESENCE
from gossipjax.systems._hadfl.units import change, proceed
from gossipjax.systems._kernel.bandwidth import FASTEST, MODELS, Bandwidth, capacities
from gossipjax.systems._kernel.loop import follow_presence, make_kernel
from gossipjax.systems._kernel.loop import run as run_kernel
from gossipjax.systems._kernel.machines import Machines, checked_system, latency_table, train_seconds_of
from gossipjax.systems._kernel.queue import at
from gossipjax.systems._kernel.record import activity_of
from gossipjax.systems._plan import Plan, assuming, plan_of_one
from gossipjax.systems._workload import workload
from gossipjax.types import Protocol

EARLIER = 1e-9
"""Orders arrive so much before a synchronisation, in units of the slowest device: times are rounded."""
MOST_UNITS = 30
"""Times as many units as devices of constant speed train."""
_CYCLE, _SELECTION, _MERGING = HADFLCycle(), HADFLSelection(), HADFLMerging()
_FAILURES, _SPEEDS = HADFLFailures(), HADFLSpeeds()


@recorded("cao2021hadfl")
def hadfl(
    devices: Devices | Machines,
    duration_s: int | float,
    *,
    learner: Protocol | None = None,
    model_bytes: int | None = None,
    local_steps: int | None = None,
    time_batch: int = 1,
    cycle: HADFLCycle = _CYCLE,
    selection: HADFLSelection = _SELECTION,
    merging: HADFLMerging = _MERGING,
    failures: HADFLFailures = _FAILURES,
    speeds: HADFLSpeeds = _SPEEDS,
    bandwidth: Bandwidth = "greedy",
    coordinator_at: int = 0,
    coordinator_fails_s: int | float | None = None,
    seed: int,
) -> Plan:
    """Plan HADFL: devices train at their own speeds, and every T_sync a few of them average in a ring.

    A unit is E local steps, ``T_i = 3 E b s_i`` seconds on device i (s_i a sample). The cycle:

    1. *Warm-up*: each device trains a unit; the coordinator learns T_i and fixes the hyperperiod HE and
       ``T_sync = m HE``, in which device i completes ``E_i = T_sync / T_i`` units (:class:`HADFLCycle`).
    2. *Training*: units follow one another without waiting; a device's version counts them.
    3. *Selection*: the coordinator forecasts all versions and draws N_p devices, preferably near a quantile of them
       (:class:`HADFLSelection`).
    4. *Ring*: at the end of the unit that is under way, a member begins to pass fragments of S/N_p bytes to the next,
       2 (N_p − 1) times: sums, then means. All get ``x̄ = Σ_i x_i / N_p``, and train on.
    5. *Broadcast*: one member sends x̄ to the devices outside the ring, one after another. Nobody waits for it: a
       receiver merges it when its unit ends, unless it has a newer mean (:class:`HADFLMerging`). Another member, if one
       lives, sends the coordinator a backup.
    6. *Failures*: who waits too long for its neighbour in the ring asks whether it lives, and leaves it out if it does
       not; the ring starts again with fewer members, and gives up with one (:class:`HADFLFailures`). A device that goes
       offline loses its unit, and begins again from a mean. If it had passed on all its fragments, the mean holds the
       model that it had.

    The steps are those of the paper as its abstract and secondary sources tell them. Its text was not at hand: all
    formulas, the five groups of options and their defaults are our design.

    Small messages take the latency, models their bytes over the bandwidth and then the latency. The coordinator is a
    machine beside device ``coordinator_at`` whose own bandwidth is unlimited; in ``activity`` it is node n. Idealised:
    the coordinator notices a death one latency later, without a message; so do devices if it fails itself. A ring ends
    for all its members at the instant at which the last of them has all fragments. A ring that starts again does so for
    all at once, when the farthest has heard.

    Run :func:`gossipjax.hadfl` with E local steps on the plan; row n of its models is the last mean, whose accuracy
    :func:`gossipjax.observe.model_metrics` measures. ``messages_sent`` counts whole models; fragments of rings that
    started anew or were abandoned are in ``total_bytes`` and ``activity`` only.

    >>> from gossipjax import devices, systems
    >>> four = devices.from_powers((4, 2, 2, 1), seconds_per_sample=0.04, bytes_per_second=1e6)
    >>> plan = systems.hadfl(four, 60.0, model_bytes=4000, local_steps=5, seed=0)
    >>> plan.history.units_per_cycle.tolist()
    [4, 2, 2, 1]

    Args:
        devices: of n ≥ 2 nodes.
        duration_s: simulated seconds.
        learner: the protocol that will run on the plan, instead of ``local_steps`` and ``model_bytes``, which are then
            read off it; see :func:`gossipjax.systems.plexus`.
        model_bytes: S, of one model.
        local_steps: E, of one unit.
        time_batch: b, samples of a step in the training time.
        cycle: when to synchronise.
        selection: who does.
        merging: what a device makes of a broadcast.
        failures: timeouts and recovery.
        speeds: jitter and drift of the units.
        bandwidth: how it is shared, see :func:`gossipjax.systems.plexus`.
        coordinator_at: the device whose latencies the coordinator has.
        coordinator_fails_s: seconds; None: never. Afterwards nobody synchronises; devices train alone, and those that
            come back go on from their own model.
        seed: of members, ring orders, broadcasts, and speeds.

    Raises:
        ValueError: settings out of range, one device, or a handshake that is shorter than a round trip.
        TypeError: groups of another sort.

    Reference: Cao, Lian, Liu, Zhu, Ji 2021, arXiv 2111.08274.
    """
    given = checked_system(devices, time_batch=time_batch, bandwidth=bandwidth)
    n = given.seconds_per_sample.size
    load = workload(learner, model_bytes=model_bytes, local_steps=local_steps, num_nodes=n, made_for="HADFL")
    if n < 2:
        raise ValueError(f"devices of {n} node: HADFL needs two, for a ring")
    duration_s = real("duration_s", duration_s, above=0, unit="seconds")
    check_groups(n, cycle, selection, merging, failures, speeds)
    coordinator_at, seed = whole("coordinator_at", coordinator_at, least=0, most=n - 1), checked_seed(seed)
    if coordinator_fails_s is not None:
        real("coordinator_fails_s", coordinator_fails_s, above=0, unit="seconds", remedy="None: it does not")
    unit_s = train_seconds_of(given, load.local_steps, time_batch)
    with np.errstate(over="ignore"):
        expected = float((duration_s / unit_s).sum())
    what = f"duration_s={duration_s:g}: about {expected:.3g} units of {n} devices"
    check_memory(what, 1500.0 * expected + 24.0 * n * n, "plan a shorter time, or more local steps in a unit")
    cycles = duration_s / max(float(unit_s.max()) if cycle.sync_s is None else cycle.sync_s, EARLIER * unit_s.max())
    what = f"duration_s={duration_s:g}, sync_s={cycle.sync_s}: about {cycles:.3g} synchronisations of {n} devices"
    check_memory(what, cycles * (40.0 * n + 600.0), "plan a shorter time, or synchronise less often")
    delays = _delays(given, coordinator_at)
    groups = (cycle, selection, merging, failures, speeds)
    limits = (coordinator_fails_s, int(MOST_UNITS * expected) + 1000)
    settings = _settings(given, delays, float(load.message_bytes), float(unit_s.max()), groups, limits)
    run = _make(settings, given, delays, unit_s.tolist(), bandwidth, seed)
    last = float(np.nextafter(duration_s, 0.0))  # what happens at the very end does not count
    follow_presence(run.kernel, given, last, partial(change, run), rank=PRESENCE)
    run_kernel(run.kernel, until=last)
    run.kernel.now = duration_s
    for node, device in enumerate(run.devices):
        mark(run, node, device.state)
    name = _name(settings, bandwidth, seed)
    timeline = assuming(timeline_of(run, name), load)
    ends = np.array([record.end_s for record in run.cycles if record.outcome == AVERAGED], np.float64)
    found = activity_of(run.kernel.record, duration_s, run.kernel.network.sent(duration_s))
    return plan_of_one(name, timeline, duration_s, found, round_end_s=ends, history=history_of(run))


def _delays(devices: Machines, coordinator_at: int) -> list[np.ndarray]:
    """Write out the one-way seconds between all nodes; the last row and column are the coordinator's."""
    n = devices.seconds_per_sample.size
    table = np.zeros((n + 1, n + 1))
    table[:n, :n] = latency_table(devices, np.arange(n))
    table[n, :n], table[:n, n] = table[coordinator_at, :n], table[:n, coordinator_at]
    return list(table)


def _settings(devices: Machines, delays, model_bytes: float, slowest_s: float, groups, limits) -> HADFLSettings:
    """Fill in the times that are not given.

    Raises:
        ValueError: a handshake that is shorter than a round trip.
    """
    cycle, selection, merging, failures, speeds = groups
    coordinator_fails_s, most_units = limits
    n = devices.seconds_per_sample.size
    between = np.array(delays)[:n, :n]
    rates = np.minimum(devices.upload_bytes_per_second, devices.download_bytes_per_second)
    step = model_bytes / selection.count / float(np.min(rates)) + float(between.max())
    trip = float((between + between.T).max())
    if failures.handshake_s is not None and failures.handshake_s <= trip:
        raise ValueError(
            f"failures.handshake_s={failures.handshake_s:g}: the longest round trip takes {trip:g} s, and a living "
            "device would be left out; wait longer"
        )
    if failures.timeout_s is not None and failures.timeout_s < 1e-6 * slowest_s:
        raise ValueError(
            f"failures.timeout_s={failures.timeout_s:g}: less than a millionth of a unit of the slowest device, "
            f"{slowest_s:g} s, in which a neighbour would be asked again and again; wait longer"
        )
    handshake = max(2 * trip, step) if failures.handshake_s is None else float(failures.handshake_s)
    return HADFLSettings(
        num_nodes=n,
        model_bytes=model_bytes,
        slowest_s=slowest_s,
        cycle=cycle,
        selection=selection,
        merging=merging,
        failures=failures,
        speeds=speeds,
        timeout_s=slowest_s + 2 * step if failures.timeout_s is None else float(failures.timeout_s),
        handshake_s=handshake,
        lead_s=float(max(delays[n].max(), np.array(delays)[:, n].max())) + EARLIER * slowest_s,
        coordinator_fails_s=coordinator_fails_s,
        most_units=most_units,
    )


def _make(settings: HADFLSettings, devices: Machines, delays, unit_s: list[float], bandwidth: Bandwidth, seed: int):
    """Set up the state at time 0, with what happens first."""
    n = settings.num_nodes
    limits = capacities(devices.upload_bytes_per_second, devices.download_bytes_per_second)
    up, down = (np.append(rates, FASTEST) for rates in limits)
    online = devices.online.tolist()
    kernel = make_kernel(MODELS[bandwidth](up, down), [*online, True])
    nan = float("nan")
    coordinator = Coordinator(start_smoothing(n), list(online), [nan] * n, [nan] * n, [0] * n)
    of_choices, *of_speeds = np.random.SeedSequence(seed).spawn(1 + n)
    streams = (random.Random(int(sequence.generate_state(1, np.uint64)[0])) for sequence in of_speeds)
    made = [
        Device(seconds, stream, settings.cycle.warmup_units) for seconds, stream in zip(unit_s, streams, strict=True)
    ]
    choices = np.random.default_rng(of_choices)
    run = Run(settings, kernel, lambda i, j: delays[i].item(j), made, coordinator, choices, proceed)
    for node, is_online in enumerate(online):
        if is_online:
            mark(run, node, IDLE)
            go_on(run, node)
    if settings.coordinator_fails_s is not None:
        at(kernel.queue, float(settings.coordinator_fails_s), fail, run, rank=CONTROL)
    return run


def _name(settings: HADFLSettings, bandwidth: str, seed: int) -> str:
    """Describe a plan: the system and its settings."""
    chosen = settings.selection
    return (
        f"HADFL: {chosen.count} of {settings.num_nodes}, alpha={chosen.alpha:g}, quantile={chosen.quantile:g}, "
        f"scale {chosen.scale}, beta={settings.merging.beta}, {settings.cycle.cadence}, {bandwidth} transfers of "
        f"{int(settings.model_bytes):,} bytes, seed={seed}"
    )
