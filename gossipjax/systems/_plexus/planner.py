"""Plan Plexus (federated learning without a server), MoDeST, and a baseline with a server, event by event."""

from __future__ import annotations

from functools import partial

import numpy as np

from gossipjax._base.arguments import choice
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.devices import Devices
from gossipjax.systems._kernel.bandwidth import Bandwidth
from gossipjax.systems._kernel.loop import seldom_collected
from gossipjax.systems._kernel.machines import Machines, checked_system, latency_table, train_seconds_of
from gossipjax.systems._plan import Plan, assuming, plan_of_one
from gossipjax.systems._plexus import sizes
from gossipjax.systems._plexus.learning import timeline_of
from gossipjax.systems._plexus.sampler import Hashing
from gossipjax.systems._plexus.settings import (
    Aggregators,
    Membership,
    PlexusSettings,
    Threshold,
    Timers,
    check_groups,
    check_sample,
    checked_end,
    models_needed,
)
from gossipjax.systems._plexus.simulation import make_simulation, simulated
from gossipjax.systems._workload import workload
from gossipjax.types import Protocol

CITIES = 227
"""The server is chosen among the first so many nodes."""
LOCAL_STEPS = 5
"""Of the paper's experiments."""
_MEMBERSHIP, _TIMERS = Membership(), Timers()


@recorded("dhasade2025plexus")
def plexus(
    devices: Devices | Machines,
    *,
    num_rounds: int | None = None,
    duration_s: int | float | None = None,
    learner: Protocol | None = None,
    model_bytes: int | None = None,
    seed: int,
    sample_size: int = 13,
    success_fraction: int | float = 0.8,
    threshold: Threshold = "floor",
    local_steps: int | None = None,
    time_batch: int = 1,
    bandwidth: Bandwidth = "greedy",
    aggregators: Aggregators = "next",
    min_models: int = 3,
    membership: Membership = _MEMBERSHIP,
    timers: Timers = _TIMERS,
    hashing: Hashing = "mix",
    overhead_bytes: int = sizes.SERIALISED_MODEL,
) -> Plan:
    """Plan a run of Plexus: a discrete-event simulation of every message, transfer, training and mean.

    In round k a sample of s nodes trains from one model θ_k for 3 E b c_i seconds each (c_i seconds per sample). Each
    looks for an aggregator, the member of the next sample with the largest bandwidth that answers a ping, and sends its
    model there. With ``⌊s φ⌋`` models the aggregator takes ``θ_{k+1} = Σ_j θ_j / m`` and sends it to the next sample.
    Control messages take the latency, model messages their bytes over the bandwidth. Sent messages = delivered + lost +
    in flight, by type.

    >>> from gossipjax import devices, systems
    >>> plan = systems.plexus(devices.uniform(50), num_rounds=20, model_bytes=340_000, seed=0)
    >>> len(plan.timeline), plan.timeline.properties.num_slots
    (21, 10)

    One event of ``plan.timeline`` is a mean. Run :func:`gossipjax.fedavg` on the plan, with its number of local steps
    and a model of its size; others are refused. ``plan.history`` has the rounds, the fates of trainings, the
    messages by type, and the views.

    Args:
        devices: of n nodes. Those online at time 0 are known to all.
        num_rounds: ends the run when the mean of that round is taken. Give this, or duration_s, or both.
        duration_s: ends the run after so many seconds.
        learner: the protocol that will run on the plan, instead of ``model_bytes`` and ``local_steps``: the bytes of a
            message with its task's model and its number of local steps are read off. ``time_batch`` is not, because
            devices state the seconds of a sample or of a batch.
        model_bytes: 4P, P parameters in float32.
        seed: of the hash identities and of what is drawn.
        sample_size: s.
        success_fraction: φ in (0, 1].
        threshold: how s φ is rounded to a number of models, at least 1.
        local_steps: E; None: 5, or those of the learner. (MoDeST goes once through the local data.)
        time_batch: b, samples of a step in the training time: 1, or the batch size.
        bandwidth: how it is shared: "greedy", whoever comes first takes all that sender and receiver have left (of
            transfers that end at the same instant, the one created first ends first);
            "fair", max-min fairly among all transfers at any time; "unlimited", each as if it were alone.
        aggregators: who takes the mean of the trainings of round k. "next", "current": a member of sample k + 1, or of
            k. "server", the baseline: the node of least median latency among the first 227, with unlimited bandwidth,
            never offline. A number, MoDeST: every model goes to so many aggregators, the first live ones of the next
            sample's order; each takes a mean; no acknowledgements, no timeout, the first round is sampled by hash.
        min_models: the fewest models that an aggregation whose time is up is completed with.
        membership: how nodes leave, and how they know of one another.
        timers: of pings, aggregations and stalls.
        hashing: of the sampler.
        overhead_bytes: what serialising a model adds.

    Raises:
        ValueError: settings out of range, or devices that do not fit.
        TypeError: groups of another sort.

    Reference: Dhasade et al. 2025, arXiv 2503.05509, algorithms 1 and 2; de Vos et al. 2023, arXiv 2302.13837 v1.
    """
    given = checked_system(devices, time_batch=time_batch, bandwidth=bandwidth)
    n = given.seconds_per_sample.size
    if learner is None and local_steps is None:
        local_steps = LOCAL_STEPS
    load = workload(learner, model_bytes=model_bytes, local_steps=local_steps, num_nodes=n, made_for="FedAvg")
    rounds, seconds = checked_end(num_rounds, duration_s)
    check_sample(n, sample_size, success_fraction, threshold, min_models)
    check_groups(n, aggregators, membership, timers)
    choice("hashing", hashing, ("mix", "md5"))
    seed = checked_seed(seed)
    if not given.online.any():
        raise ValueError("online: no node is at time 0; begin the traces when some are")
    settings = PlexusSettings(
        num_nodes=n,
        num_rounds=rounds,
        duration_s=seconds,
        sample_size=sample_size,
        needed=models_needed(sample_size, success_fraction, threshold),
        min_models=min_models,
        message_bytes=sizes.model_message_bytes(load.message_bytes, n, overhead_bytes=overhead_bytes),
        next_aggregator=aggregators != "current",
        server=median_server(given) if aggregators == "server" else None,
        num_aggregators=None if isinstance(aggregators, str) else aggregators,
        membership=membership,
        timers=timers,
    )
    train_seconds = train_seconds_of(given, load.local_steps, time_batch)
    _check_size(settings, given, train_seconds)
    make = partial(make_simulation, settings, given, train_seconds, bandwidth, hashing, seed)
    window = membership.activity_window
    differ = membership.views == "always" or (window is not None and window <= rounds < np.inf)
    rule = f"{settings.needed} models ({threshold} of {success_fraction:g})"
    name = _name(settings, rule, f"{bandwidth} transfers", f"time_batch={time_batch}", f"seed={seed}")
    with seldom_collected():  # the lists of a long run are not garbage
        history, end_s = simulated(make, given, differ=differ)
        timeline = assuming(timeline_of(history, name, n), load)
    activity, round_end_s = history.activity(), history.round_end_s()
    return plan_of_one(name, timeline, end_s, activity, round_end_s=round_end_s, history=history)


def _name(settings: PlexusSettings, rule: str, bandwidth: str, batch: str, seed: str) -> str:
    """Describe a plan: the system and its settings."""
    sample, membership = f"{settings.sample_size} of {settings.num_nodes}", settings.membership
    return (
        f"{_system(settings)}: {sample}, {rule}, {bandwidth} of {settings.message_bytes:,} bytes, {batch}, "
        f"window={membership.activity_window}, {membership.departures} departures, {seed}"
    )


def _system(settings: PlexusSettings) -> str:
    if settings.server is not None:
        return f"server at node {settings.server}"
    if settings.num_aggregators is not None:
        return f"modest, {settings.num_aggregators} aggregators"
    return f"plexus, aggregator of the {'next' if settings.next_aggregator else 'current'} sample"


def median_server(devices: Machines) -> int:
    """Find the node of least median latency to all, itself included, among the first 227."""
    nodes = np.arange(min(CITIES, devices.seconds_per_sample.size))
    return int(np.argmin(np.median(latency_table(devices, nodes), axis=1)))


def _check_size(settings: PlexusSettings, devices: Machines, train_seconds: np.ndarray) -> None:
    """Estimate what is written down: two messages and a training of each member of each sample."""
    rates = np.minimum(devices.upload_bytes_per_second, devices.download_bytes_per_second)
    typical = float(np.median(train_seconds) + settings.message_bytes / np.median(rates))
    rounds = min(settings.num_rounds, settings.duration_s / typical)
    what = f"num_rounds={settings.num_rounds:g}, duration_s={settings.duration_s:g}: about {rounds:.3g} rounds"
    check_memory(what, 1000.0 * rounds * settings.sample_size, "plan fewer rounds, or a shorter time")
