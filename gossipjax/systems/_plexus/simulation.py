"""Run the handlers of Plexus on the kernel: the state before time 0, the run, and its history."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from gossipjax.systems._kernel.bandwidth import FASTEST, MODELS, Bandwidth, Network
from gossipjax.systems._kernel.loop import follow_presence, make_kernel, run
from gossipjax.systems._kernel.machines import Machines, delay
from gossipjax.systems._plexus.counts import make_counts
from gossipjax.systems._plexus.find import TIED, count_in_flight, open_answers
from gossipjax.systems._plexus.handlers import begin_round
from gossipjax.systems._plexus.history import PlexusHistory
from gossipjax.systems._plexus.membership import come_online, go_offline
from gossipjax.systems._plexus.record import PlexusRecord, make_history
from gossipjax.systems._plexus.sampler import Hashing, make_order
from gossipjax.systems._plexus.settings import PlexusSettings
from gossipjax.systems._plexus.state import NEEDS_VIEWS, Simulation
from gossipjax.systems._plexus.views import initial_views


def simulated(make: Callable[[bool], Simulation], devices: Machines, *, differ: bool) -> tuple[PlexusHistory, float]:
    """Run without the views of single nodes unless they may differ; if they turn out to differ, start again with them.

    Args:
        make: of a state before time 0, with views (True) or without.
        devices: who come and go.
        differ: keep views in any case, because they are expected to differ.

    Returns:
        What happened, and the seconds at which it ends.
    """
    sim = make(differ or not devices.online.all())
    _run(sim, devices)
    if sim.views is None and _tied(sim):
        sim = make(False)
        sim.whole_searches = False
        _run(sim, devices)
    if sim.views is None and sim.kernel.stopped == NEEDS_VIEWS:
        sim = make(True)
        _run(sim, devices)
    history, end_s = _history(sim), sim.kernel.now
    # What waits holds the state, which holds it: now all of it is freed without Python's collector of cycles.
    sim.kernel.queue.heap.clear()
    sim.kernel.deliveries.clear()
    return history, end_s


def _tied(sim: Simulation) -> bool:
    """Whether the order of events is unknown because searches were planned as a whole."""
    now, stopped = sim.kernel.now, sim.kernel.stopped
    last = stopped not in ("duration", NEEDS_VIEWS) and any(now in times for times in open_answers(sim))
    return stopped == TIED or last


def _run(sim: Simulation, devices: Machines) -> None:
    """Start the first sample, then carry out events until the run ends."""
    kernel, duration, server = sim.kernel, sim.settings.duration_s, sim.settings.server

    def change(node: int, joins: bool) -> None:
        if node != server:
            (come_online if joins else go_offline)(sim, node)

    def expected(nodes: np.ndarray) -> None:
        if sim.views is None and (nodes != server).any():
            kernel.stopped = NEEDS_VIEWS

    follow_presence(kernel, devices, duration, change, expected=expected)
    for node in _first_sample(sim):
        begin_round(sim, node, 1, -1)
    run(kernel, until=duration)
    if not kernel.stopped:
        kernel.now, kernel.stopped = duration, "duration"


def _network(model: Bandwidth, devices: Machines, server: int | None) -> tuple[Network, list[float]]:
    """Make the network; also return the bandwidth of each node, the smaller of both directions."""
    up, down = (
        np.asarray(side, np.float64).copy()
        for side in (devices.upload_bytes_per_second, devices.download_bytes_per_second)
    )
    if server is not None:
        up[server] = down[server] = FASTEST
    return MODELS[model](up, down), np.minimum(up, down).tolist()


def make_simulation(
    settings: PlexusSettings,
    devices: Machines,
    train_seconds: Float[np.ndarray, " n"],
    model: Bandwidth,
    hashing: Hashing,
    seed: int,
    keeps_views: bool,
) -> Simulation:
    """Set up the state before time 0, with or without the views of single nodes."""
    n = settings.num_nodes
    network, bandwidth = _network(model, devices, settings.server)
    online = np.asarray(devices.online, bool).copy()
    if settings.server is not None:
        online[settings.server] = True
    views = initial_views(online) if keeps_views else None
    return Simulation(
        settings=settings,
        kernel=make_kernel(network, online.tolist()),
        record=PlexusRecord(online=[(0.0, int(online.sum()))]),
        order=make_order(n, seed, hashing),
        views=views,
        counts=None if views is None else make_counts(views),
        rng=random.Random(seed),
        latency=delay(devices),
        train_seconds=train_seconds.tolist(),
        by_bandwidth=lru_cache(maxsize=32)(lambda nodes: sorted(nodes, key=bandwidth.__getitem__, reverse=True)),
        counters=[1] * n,
        train_round=[0] * n,
        jobs=[None] * n,
        done=[False] * n,
        aggregations=defaultdict(dict),
        finished=defaultdict(set),
        pending=defaultdict(dict),
        searches=defaultdict(list),
    )


def _first_sample(sim: Simulation) -> list[int]:
    """Draw from the nodes online those that train in round 1; MoDeST samples them by hash."""
    online = [node for node, is_online in enumerate(sim.kernel.online) if is_online]
    size = min(sim.settings.sample_size, len(online))
    if sim.settings.num_aggregators is not None:
        return [node for node in sim.order(1) if sim.kernel.online[node]][:size]
    return sim.rng.sample(online, size)


def _history(sim: Simulation) -> PlexusHistory:
    """Count what is still in progress, and write the history."""
    in_flight, kernel = count_in_flight(sim), sim.kernel
    return make_history(
        kernel.record,
        sim.record,
        outcome=kernel.stopped,
        report=_report(sim, kernel.stopped, kernel.now),
        end_s=kernel.now,
        under_way=kernel.network.sent(kernel.now),
        in_flight=in_flight,
    )


def _report(sim: Simulation, outcome: str, now: float) -> str:
    """Describe in one line why the run ended, and the final state of the network."""
    last = max((round_ for round_, _ in sim.record.aggregations), default=0)
    if outcome != "stalled":
        return f"{len(sim.record.aggregations):,} means up to round {last:,} in {now:,.1f} s; ended by {outcome}"
    waits = sum(job is not None for job in sim.jobs)
    return (
        f"stalled after round {last:,}: since {sim.idle_since:,.1f} s nobody trained, sent or aggregated for "
        f"{sim.settings.timers.stall_s:g} s; {sum(sim.kernel.online):,} of {sim.settings.num_nodes:,} nodes online, "
        f"{waits:,} waiting"
    )
