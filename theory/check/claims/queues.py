"""Claims on inboxes: what happens to planned messages before any model is mixed.

Nothing is trained here: all numbers come from the timelines, from the order of arrivals and updates and the fates of
messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import gossipjax as gj
from gossipjax import Timeline, Traffic
from gossipjax.observe import consensus_distance
from gossipjax.timeline import clocks, pairwise, push_gossip
from gossipjax.timeline.flights import rank_in
from gossipjax.types import NOBODY

from ... import queues as exact
from ..claim import Assumption, Axis, Claim, Observation, Points, Sampling, each, pointwise
from ..engine import paced, runs
from .clocks import CLOCK, EXACT, EXTRA, LAMBDA, NODES, RANDOM, SHIFT, push_plans

UPDATES = 24
"""Updates that are counted, the same number for every node; a fixed time would hold more of the short ones."""


class _Inboxes(NamedTuple):
    counts: np.ndarray
    """Messages read at each update, ``(nodes, updates)``."""
    sent: int
    enough: bool
    """Whether every node has made enough updates."""


def traffic(plan: Timeline) -> Traffic:
    """Return the fates of a plan's messages."""
    counts = plan.properties.traffic
    assert counts is not None, f"{plan.properties.name} does not count its messages"
    return counts


def _inboxes(plan: Timeline, n: int, updates: int = UPDATES) -> _Inboxes:
    """Count what each node reads at its updates, except the first, whose interval began before the run."""
    acting, sender, receiver = (plan.xs[name][:, 0] for name in ("nodes", "senders", "receivers"))
    delivered = (sender >= n) & (receiver < n)
    at = np.flatnonzero((acting < n) | delivered)
    node = np.where(delivered[at], receiver[at], acting[at])
    order = np.argsort(node, kind="stable")
    node, read = node[order], np.cumsum(delivered[at][order])
    ticks = ~delivered[at][order]
    node, read = node[ticks], read[ticks]
    counts = np.diff(read)[np.diff(node) == 0]
    rank = rank_in(node[1:][np.diff(node) == 0])
    owner = node[1:][np.diff(node) == 0]
    table = np.full((n, updates), np.nan)
    table[owner[rank < updates], rank[rank < updates]] = counts[rank < updates]
    sent = int(plan.xs["messages"].sum())
    return _Inboxes(table, sent, not np.isnan(table).any())


def _read(
    seed: int,
    replicas: int,
    of_count: Callable[[np.ndarray], np.ndarray],
    *,
    n: int = NODES,
    rate: float = LAMBDA,
    inbox: str = "queue",
) -> Observation:
    """Average a function of the messages read at an update."""
    # All nodes tick so often by then in all but one plan in 10⁷.
    duration = (SHIFT + EXTRA) * (UPDATES + 2 + 8 * np.sqrt(UPDATES + 2.0))
    inboxes = [_inboxes(plan, n) for plan in push_plans(seed, replicas, duration, n, gossip=rate, inbox=inbox)]
    short = sum(not one.enough for one in inboxes)
    assumptions = (
        Assumption("every node makes the updates that are counted", short == 0, f"not in {short} of {replicas} plans"),
        paced(np.asarray([one.sent for one in inboxes], float), n * duration * rate),
    )
    samples = np.stack([of_count(one.counts).mean(axis=(0, 1)) for one in inboxes])
    return Observation(samples.reshape(replicas, -1), assumptions)


def _arrivals_mean(seed: int, rate: float, replicas: int) -> Observation:
    return _read(seed, replicas, lambda counts: counts, rate=float(rate))


def _arrivals_variance(seed: int, rate: float, replicas: int) -> Observation:
    """Measure squared distances from the known mean."""
    mean = exact.inbox_mean(float(rate), EXTRA, SHIFT)
    return _read(seed, replicas, lambda counts: (counts - mean) ** 2, rate=float(rate))


def _arrivals_pmf(seed: int, points: Points, replicas: int) -> Observation:
    return _read(seed, replicas, lambda counts: counts[..., None] == np.asarray(points))


def _lost(seed: int, capacity: float, replicas: int) -> Observation:
    """Measure the share of all expected pushes that find the inbox full, once every node has read its inbox."""
    begin, duration = SHIFT + 20.0 * EXTRA, 60.0
    lost, known = [], True
    for plan in push_plans(seed, replicas, duration, inbox="queue", capacity=int(capacity)):
        xs = plan.xs
        unread = (xs["messages"][:, 0] == 1) & (xs["receivers"][:, 0] == NOBODY)
        known &= int(unread.sum()) == traffic(plan).overflow
        lost.append(float(np.sum(unread & (xs["time"][:, 0] >= begin))))
    share = np.asarray(lost)[:, None] / (NODES * LAMBDA * (duration - begin))
    return Observation(share, (Assumption("traffic counts every message that is never read", known),))


def _lost_share(points: np.ndarray) -> np.ndarray:
    """Compute 1 − E min(N, B) / E N."""
    return np.asarray([1.0 - _reads(int(b)) / exact.inbox_mean(LAMBDA, EXTRA, SHIFT) for b in points])


def _reads(capacity: int) -> float:
    """Compute E min(N, B), the sum of the tail of N up to B."""
    return sum(exact.inbox_overflow(k, LAMBDA, EXTRA, SHIFT) for k in range(capacity))


def _senders(seed: int, point: float, replicas: int) -> Observation:
    return _read(seed, replicas, lambda counts: counts, n=int(point), inbox="newest")


def _fates(seed: int, replicas: int, duration: float, fate: str, **settings: Any) -> Observation:
    """Count the messages of one fate."""
    counts = [traffic(plan) for plan in push_plans(seed, replicas, duration, **settings)]
    sent = paced(np.asarray([one.sent for one in counts], float), NODES * LAMBDA * duration)
    return Observation(np.asarray([getattr(one, fate) for one in counts], float)[:, None], (sent,))


def _deaf(seed: int, shift: float, replicas: int) -> Observation:
    """Measure the share of messages that are lost at nodes that do not listen while they compute."""
    clock, duration = clocks.shifted_exponential(float(shift), EXTRA), 20.0
    lost = _fates(seed, replicas, duration, "dropped", compute=clock, busy_receives=False)
    return lost._replace(samples=lost.samples / (NODES * LAMBDA * duration))


def _under_way(seed: int, latency: float, replicas: int) -> Observation:
    """Count the messages in flight when the plan ends; flight times are exponential."""

    def seconds(rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.exponential(latency, size)

    return _fates(seed, replicas, 25.0 * float(latency), "in_flight", compute=CLOCK, latency=seconds)


def _jitter(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.exponential(0.4, size)


def _network(number: float, seed: int) -> Timeline:
    """Plan one of several networks, which together lose messages in every possible way."""
    gossip: dict[str, Any] = {"compute": CLOCK, "gossip": LAMBDA, "seed": seed}
    plans: tuple[Callable[[], Timeline], ...] = (
        lambda: push_gossip(16, 12.0, latency=0.3, **gossip),
        lambda: push_gossip(16, 12.0, latency=_jitter, drop=0.2, **gossip),
        lambda: push_gossip(16, 12.0, inbox="queue", capacity=2, **gossip),
        lambda: push_gossip(16, 12.0, inbox="newest", latency=_jitter, **gossip),
        lambda: push_gossip(16, 12.0, inbox="queue", capacity=1, drop=0.1, busy_receives=False, **gossip),
        lambda: pairwise(16, 12.0, compute=CLOCK, communicate=LAMBDA, atomic=False, latency=0.2, seed=seed),
    )
    return plans[int(number)]()


def _balance(seed: int, number: float, replicas: int) -> Observation:
    """Subtract all fates from the messages sent; sent and delivered messages are counted in the events."""
    del replicas
    plan = _network(number, seed)
    facts, n = traffic(plan), plan.properties.num_nodes
    delivered = int(np.sum((plan.xs["senders"] >= n) & (plan.xs["receivers"] < n)))
    left = int(plan.xs["messages"].sum()) - delivered
    left -= facts.dropped + facts.overflow + facts.superseded + facts.in_flight
    return Observation(np.full((1, 1), float(left)), ())


def _counted(seed: int, number: float, replicas: int) -> Observation:
    """Subtract the planned messages from those that the engine counts while it runs."""
    del replicas
    plan = _network(number, seed)
    start = np.random.default_rng(seed).standard_normal(plan.properties.num_nodes)
    records = runs(seed, 1, gj.gossip_averaging(), plan, start, [consensus_distance()])
    closer = bool(records["consensus_distance"][0, -1] < start.var())
    mixed = Assumption("messages reach the models", closer, "the nodes are as far apart as at the start")
    return Observation(records["messages"][:, -1:] - traffic(plan).sent, (mixed,))


NETWORKS = Axis(
    "network (0 late, 1 lossy, 2 small inboxes, 3 newest, 4 deaf and lossy, 5 handshakes)",
    (0, 1, 2, 3, 4, 5),
    (1, 2, 3, 4, 5),
)


def _overfull(seed: int, wanted: float, replicas: int) -> Observation:
    """Measure the share of updates at which more messages have come than the recommended inbox holds."""
    capacity = exact.inbox_capacity(float(wanted), LAMBDA, EXTRA, SHIFT)
    return _read(seed, replicas, lambda counts: (counts > capacity).astype(float))


CLAIMS = (
    Claim(
        "inbox_mean",
        "During one local update, c + Exp(e) seconds, λ(c + e) messages arrive on average.",
        "Poisson arrivals, independent of the receiver's clock",
        Axis("rate λ, pushes per node and second", (0.5, 2.0, 8.0), (2.0,)),
        "messages read at an update",
        predict=pointwise(lambda r: exact.inbox_mean(r, EXTRA, SHIFT)),
        simulate=each(_arrivals_mean),
        sampling=RANDOM,
        catches=("a queue that keeps the newest only", "a capacity that nobody asked for"),
    ),
    Claim(
        "inbox_variance",
        "The number of messages during one local update has variance λ(c + e) + (λe)², more than Poisson's.",
        "law of total variance",
        Axis("rate λ, pushes per node and second", (0.5, 2.0, 8.0), (2.0,)),
        "variance of the messages read at an update",
        predict=pointwise(lambda r: exact.inbox_variance(r, EXTRA, SHIFT)),
        simulate=each(_arrivals_variance),
        sampling=RANDOM,
        catches=("biased partner choice", "intervals of the update clock without their random part"),
    ),
    Claim(
        "inbox_distribution",
        "The number of messages during one update is a Poisson(λc) plus a geometric variable (λ = 2).",
        "arrivals during the fixed and during the exponential part",
        Axis("messages k", (0, 1, 2, 4, 8), (0, 3)),
        "share of updates",
        predict=lambda k: exact.inbox_pmf(LAMBDA, EXTRA, SHIFT, size=32)[k.astype(int)],
        simulate=_arrivals_pmf,
        sampling=Sampling(256, 64, independent=False),
        catches=("intervals of the update clock without their fixed part",),
    ),
    Claim(
        "inbox_overflow",
        "A share 1 − E min(N, B)/E N of all messages overflows an inbox of capacity B (λ = 2).",
        "messages that arrive while B are waiting; stationary",
        Axis("capacity B, messages", (1, 2, 4, 8), (2,)),
        "share of messages",
        predict=_lost_share,
        simulate=each(_lost),
        sampling=RANDOM,
        catches=("a capacity that is off by one", "a newer message that replaces one waiting"),
    ),
    Claim(
        "inbox_distinct_senders",
        "An update reads one message each of (n−1)(1 − e^{−sc}/(1 + se)) senders on average, s = λ/(n−1).",
        "thinned Poisson arrivals (λ = 2)",
        Axis("nodes n", (3, 8, 32), (8,)),
        "messages read at an update",
        predict=pointwise(lambda k: exact.distinct_senders(k, gossip_rate=LAMBDA, mean_extra=EXTRA, shift=SHIFT)),
        simulate=each(_senders),
        sampling=RANDOM,
        catches=("older messages of a sender read as well", "messages of different senders that replace each other"),
    ),
    Claim(
        "busy_nodes_drop",
        "Nodes that do not listen while they compute lose the share c/(c + e) of their messages.",
        "Poisson arrivals see time averages",
        Axis("fixed part c of the update clock, s", (0.1, 0.5, 2.0), (0.5,)),
        "share of messages",
        predict=lambda c: c / (c + EXTRA),
        simulate=each(_deaf),
        sampling=RANDOM,
        catches=("nodes that are deaf in the random part as well", "nodes that hear while they compute"),
    ),
    Claim(
        "messages_in_flight",
        "Little's law: nλ E[latency] messages are in flight on average (n = 32, λ = 2).",
        "Little's law; exponential latency",
        Axis("mean latency, s", (0.1, 0.5, 2.0), (0.5,)),
        "messages in flight",
        predict=lambda latency: NODES * LAMBDA * latency,
        simulate=each(_under_way),
        sampling=RANDOM,
        catches=("messages that arrive when they are sent", "a latency drawn once for all messages"),
    ),
    Claim(
        "messages_conserved",
        "Sent = delivered + dropped + overflow + superseded + in flight, as counted from the events.",
        "every message has exactly one fate",
        NETWORKS,
        "messages sent less all fates",
        predict=np.zeros_like,
        simulate=each(_balance),
        sampling=EXACT,
        catches=("a message delivered twice", "a lost message that is delivered", "messages that are forgotten"),
    ),
    Claim(
        "messages_counted",
        "While it runs, the engine counts exactly the messages that the plan has sent.",
        "both count the same events",
        NETWORKS._replace(quick=(4,)),
        "messages counted less messages planned",
        predict=np.zeros_like,
        simulate=each(_counted),
        sampling=EXACT,
        catches=("deliveries counted as messages", "lost messages that are not counted"),
    ),
    Claim(
        "inbox_capacity",
        "An inbox of the recommended capacity overflows at no more than the stated share of updates (λ = 2).",
        "quantile of the law of the messages during one update",
        Axis("allowed share", (0.3, 0.1, 0.03), (0.1,)),
        "share of updates at which more messages have come",
        predict=lambda wanted: wanted,
        simulate=each(_overfull),
        sampling=RANDOM,
        catches=("a capacity that is off by one", "intervals of the update clock without their random part"),
        kind="upper",
    ),
)
