"""AD-PSGD on devices: each device computes gradients at its own speed, and exchanges of models take time."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from gossipjax._base.arguments import real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.devices import Devices
from gossipjax.systems._activity import COMPLETED, UNDER_WAY, Activity
from gossipjax.systems._kernel.bandwidth import capacities
from gossipjax.systems._kernel.machines import Machines, checked_system, train_seconds_of
from gossipjax.systems._plan import Plan, assuming, plan_of_one
from gossipjax.systems._workload import workload
from gossipjax.timeline import clocks, pairwise
from gossipjax.timeline.flights import Peers, num_peers
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Protocol, Timeline


@recorded("lian2018adpsgd")
def ad_psgd(
    devices: Devices | Machines,
    peers: Peers,
    duration_s: int | float,
    *,
    learner: Protocol | None = None,
    model_bytes: int | None = None,
    time_batch: int = 1,
    exchange_s: int | float | None = None,
    seed: int,
) -> Plan:
    """Plan AD-PSGD on devices: a gradient takes node i c_i = 3 b s_i seconds, and averaging goes on in parallel.

    The clocks are those of :func:`gossipjax.timeline.pairwise` with ``atomic=False``. Node i finishes a gradient every
    c_i seconds and as often starts an exchange with a random neighbour: two messages that take ``M / min(u_i, d_j)``
    seconds each. If it could not send its messages and replies at this rate, it starts an exchange only every
    ``2 M / min(u_i, d_i)`` seconds. Phases are random. Transfers do not compete for bandwidth, and all nodes must
    always be online.

    Run :func:`gossipjax.ad_psgd` on ``plan.timeline``.

    Args:
        devices: of n nodes.
        peers: an undirected topology of n nodes, or n: every other node is a neighbour.
        duration_s: simulated seconds.
        learner: the protocol that will run on the plan, instead of ``model_bytes``, which is then read off it.
        model_bytes: M, of one message.
        time_batch: b samples of a gradient.
        exchange_s: seconds between two exchanges started by a node; None: as above.
        seed: of the NumPy generators that draw the plan.

    Raises:
        ValueError: settings out of range, nodes that are offline at times, or no event at all.

    Reference: Lian, Zhang, Zhang, Liu 2018, arXiv 1710.06952, algorithm 1.
    """
    given = checked_system(devices, time_batch=time_batch)
    duration_s, seed = real("duration_s", duration_s, above=0, unit="seconds"), checked_seed(seed)
    if exchange_s is not None:
        exchange_s = real("exchange_s", exchange_s, above=0, unit="seconds", remedy="None: as often as gradients end")
    n = given.seconds_per_sample.size
    load = workload(
        learner,
        model_bytes=model_bytes,
        local_steps=None if learner is not None else 1,
        num_nodes=n,
        made_for="AD-PSGD",
    )
    whole("local_steps", load.local_steps, least=1, most=1, remedy="a gradient at a time, as that of gossipjax.ad_psgd")
    size = load.message_bytes
    if not isinstance(peers, Topology):
        peers = whole("peers", peers, least=2, remedy="pass an undirected topology, or the number of nodes")
    if num_peers(peers) != n:
        raise ValueError(f"peers of {num_peers(peers)} nodes for {n} devices: build both for the same number")
    if not given.online.all() or len(given.transitions(duration_s)[0]):
        raise ValueError("devices: a node is offline at times; leave availability out, or plan gossip_learning")
    compute = train_seconds_of(given, 1, time_batch)
    updates = float((duration_s / compute).sum())
    what = f"duration_s={duration_s:g}: about {updates:.3g} gradients of {n} nodes"
    check_memory(what, 400.0 * updates + 40.0 * n * n, "plan a shorter time, or fewer nodes")
    transfers = transfer_seconds(given, size)
    own = np.diagonal(transfers)
    timeline = pairwise(
        peers,
        duration_s,
        compute=clocks.deterministic(compute),
        communicate=clocks.deterministic(np.maximum(compute, 2 * own) if exchange_s is None else exchange_s),
        atomic=False,
        latency=transfers,
        seed=seed,
    )
    name = f"AD-PSGD: {n} nodes, time_batch={time_batch}, messages of {size:,} bytes, seed={seed}"
    found = _activity(timeline, compute, given.upload_bytes_per_second, size, duration_s)
    return plan_of_one(name, assuming(timeline, load), duration_s, found)


def transfer_seconds(devices: Machines, model_bytes: int) -> Float[np.ndarray, "n n"]:
    """Return ``M / min(u_i, d_j)``, the seconds of a transfer without competition, by sender and receiver."""
    limits = capacities(devices.upload_bytes_per_second, devices.download_bytes_per_second)
    return model_bytes / np.minimum(limits.up[:, None], limits.down[None, :])


def _activity(
    timeline: Timeline, compute: np.ndarray, upload: np.ndarray, model_bytes: int, duration: float
) -> Activity:
    """Derive from the events who trained, sent and averaged; an unfinished gradient counts as a training."""
    xs, n = timeline.xs, timeline.properties.num_nodes
    seconds = np.asarray(xs["time"][:, 0], np.float64)
    acts = np.flatnonzero(xs["nodes"][:, 0] != NOBODY)
    node, end = xs["nodes"][acts, 0], seconds[acts]
    last = np.zeros(n)
    np.maximum.at(last, node, end)
    running = np.arange(n, dtype=np.int32)
    begin = np.concatenate([np.maximum(end - compute[node], 0.0), np.maximum(last, duration - compute)])
    sender, receiver, asked, ended, state = _messages(xs, seconds, n, duration)
    # The receiver is unknown: count the rate that the sender can reach.
    so_far = np.minimum(upload[sender] * (duration - asked), float(model_bytes))
    event, lane = np.nonzero((xs["receivers"] < n) & (xs["senders"] != NOBODY))
    return Activity(
        training_node=np.concatenate([node, running]).astype(np.int32),
        training_start_s=np.minimum(begin, duration),
        training_end_s=np.concatenate([end, np.full(n, duration)]),
        training_completed=np.arange(end.size + n) < end.size,
        sender=sender.astype(np.int32),
        receiver=receiver.astype(np.int32),
        asked_s=asked,
        ended_s=ended,
        sent_bytes=np.where(state == COMPLETED, float(model_bytes), so_far),
        state=state,
        mean_s=seconds[event],
        mean_node=xs["receivers"][event, lane].astype(np.int32),
    )


def _messages(xs, seconds: np.ndarray, n: int, duration: float) -> tuple[np.ndarray, ...]:
    """Pair each write to a slot with the next read of it; a message that nobody reads is still in flight."""
    senders, receivers = xs["senders"], xs["receivers"]
    writes, write_lane = np.nonzero((receivers >= n) & (receivers != NOBODY))
    reads, read_lane = np.nonzero((senders >= n) & (senders != NOBODY))
    slot = np.concatenate([receivers[writes, write_lane], senders[reads, read_lane]])
    event = np.concatenate([writes, reads])
    order = np.lexsort((event, slot))
    is_write = order < writes.size
    follows = np.append(~is_write[1:] & (slot[order][1:] == slot[order][:-1]), False)
    at = np.flatnonzero(is_write)
    write, read, done = order[at], order[np.minimum(at + 1, order.size - 1)], follows[at]
    read = np.where(done, read - writes.size, 0)
    into = receivers[reads[read], read_lane[read]] if reads.size else np.zeros(write.size, np.int32)
    ended = seconds[reads[read]] if reads.size else np.zeros(write.size)
    return (
        senders[writes[write], write_lane[write]],
        np.where(done, into, -1),
        seconds[writes[write]],
        np.where(done, ended, duration),
        np.where(done, COMPLETED, UNDER_WAY).astype(np.int8),
    )
