"""Plexus, federated learning without a server, planned event by event; MoDeST; and the baseline with a server."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from gossipjax._base.arguments import choice, flag, optional_whole, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.devices import Devices
from gossipjax.systems._kernel import bandwidth
from gossipjax.systems._kernel.machines import Machines, checked_machines, delay, latency_table
from gossipjax.systems._kernel.queue import at, make_queue, next_time, pop, waiting
from gossipjax.systems._plexus import sizes
from gossipjax.systems._plexus.handlers import begin_round
from gossipjax.systems._plexus.membership import come_online, go_offline
from gossipjax.systems._plexus.plan import PlexusPlan
from gossipjax.systems._plexus.record import Log, make_plan
from gossipjax.systems._plexus.sampler import Hashing, make_order
from gossipjax.systems._plexus.state import NEEDS_VIEWS, Settings, Simulation, arrive, finish_transfer
from gossipjax.systems._plexus.views import initial_views

CITIES = 227
"""The server is chosen among the first so many nodes."""
DAY = 86_400.0

Transfers = Literal["greedy", "fair", "unlimited"]


@recorded("dhasade2025plexus")
def plexus(
    devices: Devices | Machines,
    *,
    num_rounds: int | None = None,
    duration_s: int | float | None = None,
    model_bytes: int,
    seed: int,
    sample_size: int = 13,
    success_fraction: int | float = 0.8,
    threshold: Literal["floor", "ceil"] = "floor",
    local_steps: int = 5,
    time_batch: int = 1,
    transfers: Transfers = "greedy",
    aggregator_from: Literal["next", "current"] = "next",
    fixed_aggregator: bool = False,
    num_aggregators: int | None = None,
    departures: Literal["graceful", "crash"] = "graceful",
    activity_window: int | None = 1000,
    hashing: Hashing = "mix",
    overhead_bytes: int = sizes.SERIALISED_MODEL,
    resend_s: int | float = 1.0,
    ping_timeout_s: int | float = 5.0,
    aggregation_timeout_s: int | float = 300.0,
    min_models: int = 3,
    stall_s: int | float = 600.0,
    views: Literal["auto", "always"] = "auto",
) -> PlexusPlan:
    """Plan a run of Plexus: a discrete-event simulation of every message, transfer, training and mean.

    In round k a sample of s nodes trains from one model θ_k for 3 E b c_i seconds each (c_i seconds per sample). Each
    looks for an aggregator, the member of the next sample with the largest bandwidth that answers a ping, and sends its
    model there. With ``⌊s φ⌋`` models the aggregator takes ``θ_{k+1} = Σ_j θ_j / m`` and sends it to the next sample.
    Control messages take the latency, model messages their bytes over the bandwidth. Sent messages = delivered + lost +
    in flight, by type.

    >>> from gossipjax import devices, systems
    >>> plan = systems.plexus(devices.uniform(50), num_rounds=20, model_bytes=340_000, seed=0)
    >>> learning = systems.timeline(plan)
    >>> len(learning), learning.properties.num_slots
    (21, 10)

    Args:
        devices: of n nodes. Those online at time 0 are known to all.
        num_rounds: ends the run when the mean of that round is taken. Give this, or duration_s, or both.
        duration_s: ends the run after so many seconds.
        model_bytes: 4P, P parameters in float32.
        seed: of the hash identities and of what is drawn.
        sample_size: s.
        success_fraction: φ in (0, 1].
        threshold: how s φ is rounded to a number of models, at least 1.
        local_steps: E. (MoDeST goes once through the local data.)
        time_batch: b, samples of a step in the training time: 1, or the batch size.
        transfers: how bandwidth is shared, see :mod:`gossipjax.systems._kernel.bandwidth`.
        aggregator_from: the aggregator of the trainings of round k is of sample k + 1 ("next") or k.
        fixed_aggregator: the baseline with a server: the node of least median latency among the first 227, with
            unlimited bandwidth, never offline, always aggregates.
        num_aggregators: MoDeST: every model goes to so many aggregators, the first live ones of the next sample's
            order; each takes a mean; no acknowledgements, no timeout, the first round is sampled by hash. None: Plexus.
        departures: what going offline means: a graceful leave, or a crash, the same without any message.
        activity_window: D rounds; nodes not known active since are no candidates. None: all that have not left are.
        hashing: of the sampler.
        overhead_bytes: what serialising a model adds.
        resend_s: an unanswered ping is sent again after so long.
        ping_timeout_s: and given up after so long.
        aggregation_timeout_s: an aggregation is completed with fewer models, or dropped, after so long.
        min_models: the fewest models that an aggregation is then completed with.
        stall_s: the run ends, and says so, when for so long nobody trains, sends or aggregates.
        views: "always" keeps the views of all nodes even where they cannot differ; the events are the same.

    Raises:
        ValueError: settings out of range, or devices that do not fit.

    Reference: Dhasade et al. 2025, arXiv 2503.05509, algorithms 1 and 2; de Vos et al. 2023, arXiv 2302.13837 v1.
    """
    given = checked_machines(devices)
    n = given.seconds_per_sample.size
    rounds, seconds = _check_end(num_rounds, duration_s)
    _check_sample(n, sample_size, success_fraction, given)
    seed = _check_settings(local_steps, time_batch, activity_window, min_models, seed)
    _check_timers(resend_s, ping_timeout_s, aggregation_timeout_s, stall_s)
    choices = (threshold, transfers, aggregator_from, departures, hashing, views)
    _check_choices(choices, fixed_aggregator, optional_whole("num_aggregators", num_aggregators, least=1, most=n))
    settings = Settings(
        num_nodes=n,
        num_rounds=rounds,
        duration_s=seconds,
        sample_size=sample_size,
        needed=models_needed(sample_size, success_fraction, threshold),
        message_bytes=sizes.model_message_bytes(model_bytes, n, overhead_bytes=overhead_bytes),
        next_aggregator=aggregator_from == "next",
        server=median_server(given) if fixed_aggregator else None,
        num_aggregators=num_aggregators,
        activity_window=activity_window,
        graceful=departures == "graceful",
        resend_s=float(resend_s),
        ping_timeout_s=float(ping_timeout_s),
        aggregation_timeout_s=float(aggregation_timeout_s),
        min_models=min_models,
        stall_s=float(stall_s),
    )
    train_seconds = 3.0 * local_steps * time_batch * np.asarray(given.seconds_per_sample, np.float64)
    _check_log(settings, given, train_seconds)
    name = _name(settings, transfers, threshold, success_fraction, time_batch, aggregator_from, departures, seed)
    make = partial(_make, settings, given, train_seconds, transfers, hashing, seed)
    plan = _plan(_simulated(make, given, views == "always" or not given.online.all()), name)
    return dataclasses.replace(plan, model_bytes=int(model_bytes), local_steps=int(local_steps))


def _simulated(make: Callable[[bool], Simulation], given: Machines, keeps_views: bool) -> Simulation:
    """Run without the views of single nodes, unless they may differ; start again with them where they turn out to."""
    sim = make(keeps_views)
    _run(sim, given)
    if sim.outcome == NEEDS_VIEWS and not keeps_views:
        return _simulated(make, given, True)
    return sim


def models_needed(
    sample_size: int, success_fraction: int | float, threshold: Literal["floor", "ceil"] = "floor"
) -> int:
    """Compute how many models make a mean: s φ rounded down or up, at least 1; 0.9 · 10 is 9 either way."""
    product = round(sample_size * success_fraction, 9)
    return max(1, math.floor(product) if threshold == "floor" else math.ceil(product))


def median_server(devices: Machines) -> int:
    """Find the node of least median latency to all, itself included, among the first 227."""
    nodes = np.arange(min(CITIES, devices.seconds_per_sample.size))
    return int(np.argmin(np.median(latency_table(devices, nodes), axis=1)))


def _check_end(num_rounds, duration_s) -> tuple[float, float]:
    """Return both ends, infinite where there is none."""
    if num_rounds is None and duration_s is None:
        raise ValueError("neither num_rounds nor duration_s is given; say when the run ends")
    remedy = "or None, with the other end given"
    rounds = math.inf if num_rounds is None else float(whole("num_rounds", num_rounds, least=1, remedy=remedy))
    seconds = math.inf if duration_s is None else real("duration_s", duration_s, above=0, unit="seconds", remedy=remedy)
    return rounds, seconds


def _check_sample(n: int, sample_size, success_fraction, devices: Machines) -> None:
    """Check the sample against the network."""
    whole("sample_size", sample_size, least=1, most=n, remedy=f"a sample of the {n} nodes")
    real("success_fraction", success_fraction, above=0, most=1, remedy="a share of the sample")
    if not devices.online.any():
        raise ValueError("online: no node is at time 0; begin the traces when some are")


def _check_settings(local_steps, time_batch, activity_window, min_models, seed) -> int:
    for name, count in (("local_steps", local_steps), ("time_batch", time_batch), ("min_models", min_models)):
        whole(name, count, least=1)
    optional_whole("activity_window", activity_window, least=1)
    return checked_seed(seed)


def _check_timers(resend_s, ping_timeout_s, aggregation_timeout_s, stall_s) -> None:
    timers = {"resend_s": resend_s, "ping_timeout_s": ping_timeout_s}
    timers |= {"aggregation_timeout_s": aggregation_timeout_s, "stall_s": stall_s}
    for name, seconds in timers.items():
        real(name, seconds, above=0, unit="seconds")
    if resend_s >= ping_timeout_s:
        raise ValueError(f"resend_s={resend_s}, ping_timeout_s={ping_timeout_s}: a ping is sent again, then given up")


_CHOICES = {
    "threshold": ("floor", "ceil"),
    "transfers": ("greedy", "fair", "unlimited"),
    "aggregator_from": ("next", "current"),
    "departures": ("graceful", "crash"),
    "hashing": ("mix", "md5"),
    "views": ("auto", "always"),
}


def _check_choices(given: tuple[str, ...], fixed_aggregator: bool, num_aggregators: int | None) -> None:
    for word, (name, allowed) in zip(given, _CHOICES.items(), strict=True):
        choice(name, word, allowed)
    flag("fixed_aggregator", fixed_aggregator)
    if num_aggregators is not None and (fixed_aggregator or "current" in given):
        raise ValueError(
            "MoDeST's aggregators are the first of the next sample's order: with num_aggregators leave out "
            "fixed_aggregator, and aggregator_from as it is"
        )
    if fixed_aggregator and "current" in given:
        raise ValueError("a server aggregates for every sample: with fixed_aggregator leave aggregator_from as it is")


def _name(
    settings: Settings, sharing, threshold, success_fraction, time_batch, aggregator_from, departures, seed
) -> str:
    if settings.server is not None:
        system = f"server at node {settings.server}"
    elif settings.num_aggregators is not None:
        system = f"modest, {settings.num_aggregators} aggregators"
    else:
        system = f"plexus, aggregator of the {aggregator_from} sample"
    return (
        f"{system}: {settings.sample_size} of {settings.num_nodes}, {settings.needed} models "
        f"({threshold} of {success_fraction:g}), {sharing} transfers of {settings.message_bytes:,} bytes, "
        f"time_batch={time_batch}, window={settings.activity_window}, {departures} departures, seed={seed}"
    )


def _network(sharing: Transfers, devices: Machines, server: int | None) -> tuple[bandwidth.Network, list[float]]:
    """Make the network; also return the bandwidth of each node, the smaller of both directions."""
    up, down = (
        np.asarray(side, np.float64).copy()
        for side in (devices.upload_bytes_per_second, devices.download_bytes_per_second)
    )
    if server is not None:
        up[server] = down[server] = bandwidth.FASTEST
    models = {"greedy": bandwidth.greedy, "fair": bandwidth.fair, "unlimited": bandwidth.unlimited}
    return models[sharing](up, down), np.minimum(up, down).tolist()


def _make(
    settings: Settings, devices: Machines, train_seconds, sharing: Transfers, hashing: Hashing, seed, keeps_views: bool
) -> Simulation:
    """Set up the state before time 0."""
    n = settings.num_nodes
    if keeps_views:
        what = f"devices: the views that each of {n} nodes has of all"
        check_memory(what, 8.0 * n * n, "take fewer nodes, or nodes that are always online")
    network, bandwidth = _network(sharing, devices, settings.server)
    online = np.asarray(devices.online, bool).copy()
    if settings.server is not None:
        online[settings.server] = True
    return Simulation(
        settings=settings,
        queue=make_queue(),
        network=network,
        order=make_order(n, seed, hashing),
        views=initial_views(online) if keeps_views else None,
        rng=random.Random(seed),
        latency=delay(devices),
        train_seconds=train_seconds.tolist(),
        bandwidth=bandwidth,
        online=online.tolist(),
        log=Log(online=[(0.0, int(online.sum()))]),
        counters=[1] * n,
        train_round=[0] * n,
        tasks=[None] * n,
        done=[False] * n,
        aggregations=[{} for _ in range(n)],
        finished=[set() for _ in range(n)],
        pending=[{} for _ in range(n)],
        searches=[[] for _ in range(n)],
        deliveries={},
        moving=[set() for _ in range(n)],
    )


def _run(sim: Simulation, devices: Machines) -> None:
    """Start the first sample, then let things happen in the order of time until an end is reached."""
    settings, queue, network = sim.settings, sim.queue, sim.network
    _plan_transitions(sim, devices, 0.0, min(DAY, settings.duration_s))
    for node in _first_sample(sim):
        begin_round(sim, node, 1, -1)
    while not sim.outcome:
        event, completion = next_time(queue), network.next_time()
        seconds = completion if completion <= event else event
        if sim.busy == 0 and seconds > sim.idle_since + settings.stall_s:
            sim.now, sim.outcome = min(sim.idle_since + settings.stall_s, settings.duration_s), "stalled"
            if sim.now == settings.duration_s:
                sim.outcome = "duration"
        elif seconds > settings.duration_s:
            sim.now, sim.outcome = settings.duration_s, "duration"
        elif completion <= event:
            sim.now = completion
            finish_transfer(sim)
        else:
            sim.now = event
            handler, arguments = pop(queue)
            handler(*arguments)


def _check_log(settings: Settings, devices: Machines, train_seconds) -> None:
    """Estimate what is written down: two messages and a training of each member of each sample."""
    rates = np.minimum(devices.upload_bytes_per_second, devices.download_bytes_per_second)
    typical = float(np.median(train_seconds) + settings.message_bytes / np.median(rates))
    rounds = min(settings.num_rounds, settings.duration_s / typical)
    what = f"num_rounds={settings.num_rounds:g}, duration_s={settings.duration_s:g}: about {rounds:.3g} rounds"
    check_memory(what, 1000.0 * rounds * settings.sample_size, "plan fewer rounds, or a shorter time")


def _first_sample(sim: Simulation) -> list[int]:
    """Draw those who train in round 1 of the nodes online; MoDeST takes the sample by hash."""
    online = [node for node, is_online in enumerate(sim.online) if is_online]
    size = min(sim.settings.sample_size, len(online))
    if sim.settings.num_aggregators is not None:
        return [node for node in sim.order(1) if sim.online[node]][:size]
    return sim.rng.sample(online, size)


def _plan_transitions(sim: Simulation, devices: Machines, begin: float, end: float) -> None:
    """Plan who comes and goes in begin < t ≤ end, and then the same for as long again."""
    times, nodes, joins = devices.transitions(end)
    known = [
        (float(seconds), int(node), bool(joining))
        for seconds, node, joining in zip(times, nodes, joins, strict=True)
        if seconds > begin and node != sim.settings.server
    ]
    if known and sim.views is None:
        sim.outcome = NEEDS_VIEWS
        return
    for seconds, node, joining in known:
        at(sim.queue, seconds, come_online if joining else go_offline, sim, node)
    if end < sim.settings.duration_s:
        at(sim.queue, end, _plan_transitions, sim, devices, end, min(2 * end, sim.settings.duration_s))


def _plan(sim: Simulation, name: str) -> PlexusPlan:
    """Count what is still under way, and write the plan."""
    in_flight = [0] * len(sizes.KINDS)
    for _, _, handler, arguments in waiting(sim.queue):
        if handler is arrive:
            in_flight[arguments[1]] += 1
    return make_plan(
        sim.log,
        num_nodes=sim.settings.num_nodes,
        name=name,
        outcome=sim.outcome,
        report=_report(sim),
        end_s=sim.now,
        under_way=sim.network.sent(sim.now),
        in_flight=in_flight,
    )


def _report(sim: Simulation) -> str:
    """Say in one line why the run ended, and how the network was left."""
    last = max((round_ for _, _, round_, _ in sim.log.aggregations), default=0)
    if sim.outcome != "stalled":
        return f"{len(sim.log.aggregations):,} means up to round {last:,} in {sim.now:,.1f} s; ended by {sim.outcome}"
    waits = sum(task is not None for task in sim.tasks)
    return (
        f"stalled after round {last:,}: since {sim.idle_since:,.1f} s nobody trained, sent or aggregated for "
        f"{sim.settings.stall_s:g} s; {sum(sim.online):,} of {sim.settings.num_nodes:,} nodes online, {waits:,} waiting"
    )
