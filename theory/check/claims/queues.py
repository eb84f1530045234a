"""Claims on inboxes and clocks: what planned messages meet on their way, before any model is mixed.

Nothing is trained here. The numbers are read off the timelines: the order of arrivals and updates, and the fates of
messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import gossipjax as gj
from gossipjax import Timeline, Traffic
from gossipjax.observe import consensus_distance
from gossipjax.timeline import clocks, pairwise, push_gossip, push_rounds
from gossipjax.timeline.flights import rank_in
from gossipjax.types import NOBODY
from theory import queues as exact
from theory import staleness
from theory.check.claim import Assumption, Axis, Claim, Observation, Points, Sampling, each, once, pointwise
from theory.check.engine import paced, runs

NODES, SHIFT, EXTRA = 32, 0.5, 0.75
"""Nodes, and the clock c + Exp(mean e) of their updates, s."""
LAMBDA = 2.0
"""Pushes per node and second."""
UPDATES = 24
"""Updates of each node that are looked at: as many of each, since a fixed time would hold more short ones."""
CLOCK = clocks.shifted_exponential(SHIFT, EXTRA)
RANDOM, EXACT = Sampling(256, 64), once(0.0)
"""Whole numbers are compared in claims that are exact, so that no rounding need be allowed."""


class _Inboxes(NamedTuple):
    counts: np.ndarray
    """Messages read at each update, ``(nodes, updates)``."""
    sent: int
    enough: bool
    """Whether every node has made that many updates."""


def traffic(plan: Timeline) -> Traffic:
    """Return the fates of a plan's messages."""
    found = plan.properties.traffic
    assert found is not None, f"{plan.properties.name} does not count its messages"
    return found


def _plans(seed: int, replicas: int, duration: float, n: int = NODES, **settings: Any) -> list[Timeline]:
    """Plan one network with many seeds."""
    chosen: dict[str, Any] = {"compute": CLOCK, "gossip": LAMBDA} | settings
    return [push_gossip(n, duration, seed=seed * 100_003 + k, **chosen) for k in range(replicas)]


def _inboxes(plan: Timeline, n: int, updates: int = UPDATES) -> _Inboxes:
    """Count what each node reads at its updates; the first of each, whose interval was under way, is left out."""
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
    # All nodes tick so often by then, but for one plan in 10⁷.
    duration = (SHIFT + EXTRA) * (UPDATES + 2 + 8 * np.sqrt(UPDATES + 2.0))
    found = [_inboxes(plan, n) for plan in _plans(seed, replicas, duration, n, gossip=rate, inbox=inbox)]
    short = sum(not one.enough for one in found)
    assumptions = (
        Assumption("every node makes the updates that are counted", short == 0, f"not in {short} of {replicas} plans"),
        paced(np.asarray([one.sent for one in found], float), n * duration * rate),
    )
    samples = np.stack([of_count(one.counts).mean(axis=(0, 1)) for one in found])
    return Observation(samples.reshape(replicas, -1), assumptions)


def _arrivals_mean(seed: int, rate: float, replicas: int) -> Observation:
    return _read(seed, replicas, lambda counts: counts, rate=float(rate))


def _arrivals_variance(seed: int, rate: float, replicas: int) -> Observation:
    """Squared distances from the known mean."""
    mean = exact.inbox_mean(float(rate), EXTRA, SHIFT)
    return _read(seed, replicas, lambda counts: (counts - mean) ** 2, rate=float(rate))


def _arrivals_pmf(seed: int, points: Points, replicas: int) -> Observation:
    return _read(seed, replicas, lambda counts: counts[..., None] == np.asarray(points))


def _lost(seed: int, capacity: float, replicas: int) -> Observation:
    """Pushes that find the inbox full, as a share of all pushes expected, once every node has read its inbox."""
    begin, duration = SHIFT + 20.0 * EXTRA, 60.0
    lost, known = [], True
    for plan in _plans(seed, replicas, duration, inbox="queue", capacity=int(capacity)):
        xs = plan.xs
        unread = (xs["messages"][:, 0] == 1) & (xs["receivers"][:, 0] == NOBODY)
        known &= int(unread.sum()) == traffic(plan).overflow
        lost.append(float(np.sum(unread & (xs["time"][:, 0] >= begin))))
    share = np.asarray(lost)[:, None] / (NODES * LAMBDA * (duration - begin))
    return Observation(share, (Assumption("traffic counts every message that is never read", known),))


def _lost_share(points: np.ndarray) -> np.ndarray:
    """One minus E min(N, B) / E N."""
    return np.asarray([1.0 - _reads(int(b)) / exact.inbox_mean(LAMBDA, EXTRA, SHIFT) for b in points])


def _reads(capacity: int) -> float:
    """E min(N, B), the sum of the tail of N up to B."""
    return sum(exact.inbox_overflow(k, LAMBDA, EXTRA, SHIFT) for k in range(capacity))


def _senders(seed: int, point: float, replicas: int) -> Observation:
    return _read(seed, replicas, lambda counts: counts, n=int(point), inbox="newest")


def _receivers(seed: int, point: float, replicas: int) -> Observation:
    n, each_replica = int(point), 32
    plan = push_rounds(n, each_replica * replicas, compute=None, pushes="one", seed=seed)
    rows = np.sort(plan.xs["receivers"], axis=1)
    distinct = 1.0 + (np.diff(rows, axis=1) != 0).sum(axis=1)
    complete = Assumption("every node pushes in every round", bool((rows < n).all()))
    return Observation(distinct.reshape(replicas, each_replica).mean(axis=1)[:, None], (complete,))


def _since_update(seed: int, shift: float, replicas: int) -> Observation:
    """Age of the last tick of 64 clocks at a time by which they have ticked."""
    clock = clocks.shifted_exponential(float(shift), EXTRA)
    now = float(shift) + 25.0 * EXTRA
    ages, ticked = np.empty((replicas, 64)), True
    for k in range(replicas):
        times, nodes = clocks.ticks(clock, 64, now, np.random.default_rng((seed, k)))
        last = np.full(64, -np.inf)
        np.maximum.at(last, nodes, times)
        ages[k], ticked = now - last, ticked and bool(np.isfinite(last).all())
    return Observation(ages.mean(axis=1)[:, None], (Assumption("every clock has ticked", ticked),))


def _in_equilibrium(seed: int, time: float, replicas: int) -> Observation:
    """Ticks of 64 clocks before a given time."""
    counts = [
        clocks.ticks(CLOCK, 64, float(time), np.random.default_rng((seed, k)))[0].size / 64 for k in range(replicas)
    ]
    return Observation(np.asarray(counts)[:, None], ())


def _heard(seed: int, point: float, replicas: int) -> Observation:
    """The time at which a node has heard from the last of the others, mean over the nodes."""
    n = int(point)
    duration = exact.hear_from_all(n, LAMBDA) + 25.0 * (n - 1) / LAMBDA
    found, late = [], 0
    for plan in _plans(seed, replicas, duration, n, compute=None):
        xs = plan.xs
        first = np.full((n, n), np.inf)
        np.fill_diagonal(first, 0.0)
        np.minimum.at(first, (xs["receivers"][:, 0], xs["senders"][:, 0]), xs["time"][:, 0])
        last = first.max(axis=1)
        late += int(np.isinf(last).sum())
        found.append(last[np.isfinite(last)].mean())
    heard = Assumption("everybody is heard before the run ends", late == 0, f"{late} nodes missed somebody")
    return Observation(np.asarray(found)[:, None], (heard,))


def _fates(seed: int, replicas: int, duration: float, fate: str, **settings: Any) -> Observation:
    """Count the messages of one fate."""
    found = [traffic(plan) for plan in _plans(seed, replicas, duration, **settings)]
    sent = paced(np.asarray([one.sent for one in found], float), NODES * LAMBDA * duration)
    return Observation(np.asarray([getattr(one, fate) for one in found], float)[:, None], (sent,))


def _deaf(seed: int, shift: float, replicas: int) -> Observation:
    """Share of messages that reach nodes which do not listen while they compute."""
    clock, duration = clocks.shifted_exponential(float(shift), EXTRA), 20.0
    found = _fates(seed, replicas, duration, "dropped", compute=clock, busy_receives=False)
    return found._replace(samples=found.samples / (NODES * LAMBDA * duration))


def _under_way(seed: int, latency: float, replicas: int) -> Observation:
    """Messages in flight when the plan ends, each on its way for an exponential time."""

    def seconds(rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.exponential(latency, size)

    return _fates(seed, replicas, 25.0 * float(latency), "in_flight", compute=CLOCK, latency=seconds)


def _jitter(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.exponential(0.4, size)


def _network(number: float, seed: int) -> Timeline:
    """Networks that lose messages in every way there is."""
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
    """Messages sent, as the events say, less all fates; those delivered are counted in the events as well."""
    del replicas
    plan = _network(number, seed)
    facts, n = traffic(plan), plan.properties.num_nodes
    delivered = int(np.sum((plan.xs["senders"] >= n) & (plan.xs["receivers"] < n)))
    left = int(plan.xs["messages"].sum()) - delivered
    left -= facts.dropped + facts.overflow + facts.superseded + facts.in_flight
    return Observation(np.full((1, 1), float(left)), ())


def _counted(seed: int, number: float, replicas: int) -> Observation:
    """Messages that the engine counts while it runs, less those planned."""
    del replicas
    plan = _network(number, seed)
    start = np.random.default_rng(seed).standard_normal(plan.properties.num_nodes)
    found = runs(seed, 1, gj.gossip_averaging(), plan, start, [consensus_distance()])
    closer = bool(found["consensus_distance"][0, -1] < start.var())
    mixed = Assumption("messages reach the models", closer, "the nodes are as far apart as at the start")
    return Observation(found["messages"][:, -1:] - traffic(plan).sent, (mixed,))


def _most_in_window(seed: int, points: Points, replicas: int) -> Observation:
    """The most updates that any node makes in a window, in units of c, that begins with one of them."""
    del replicas
    clock = clocks.shifted_exponential(1.0, 0.05)
    times, nodes = clocks.ticks(clock, 64, 400.0, np.random.default_rng(seed))
    order = np.lexsort((times, nodes))
    # Nodes one after the other, so far apart that no window holds two.
    line = times[order] + 1000.0 * nodes[order]
    ends = np.asarray(points)[:, None] + line
    counts = np.searchsorted(line, ends, side="right") - np.arange(line.size)
    return Observation(counts.max(axis=1).astype(float)[None], ())


NETWORKS = Axis(
    "network (0 late, 1 lossy, 2 small inboxes, 3 newest, 4 deaf and lossy, 5 handshakes)",
    (0, 1, 2, 3, 4, 5),
    (1, 2, 3, 4, 5),
)


def _overfull(seed: int, wanted: float, replicas: int) -> Observation:
    """Share of updates at which more messages have come than the inbox that theory recommends would hold."""
    capacity = exact.inbox_capacity(float(wanted), LAMBDA, EXTRA, SHIFT)
    return _read(seed, replicas, lambda counts: (counts > capacity).astype(float))


def _repeats(seed: int, point: float, replicas: int) -> Observation:
    """Pushes of a node up to the first to a target that it had before, mean over the nodes."""
    n = int(point)
    duration = (n + 8.0 * np.sqrt(n)) / LAMBDA
    found = [_first_repeats(plan, n) for plan in _plans(seed, replicas, duration, n, compute=None)]
    short = int(np.isinf(found).sum())
    enough = Assumption("every node pushes until a target comes again", short == 0, f"{short} nodes did not")
    return Observation(np.mean(found, axis=1, keepdims=True), (enough,))


def _first_repeats(plan: Timeline, n: int) -> np.ndarray:
    sender, receiver = plan.xs["senders"][:, 0], plan.xs["receivers"][:, 0]
    rank, again = rank_in(sender), rank_in(sender * n + receiver) > 0
    first = np.full(n, np.inf)
    np.minimum.at(first, sender[again], rank[again] + 1.0)
    return first


def _dead_time(seed: int, dead: float, replicas: int) -> Observation:
    """Pushes per node and second of nodes that are silent for a time after each."""
    duration = 20.0
    plans = _plans(seed, replicas, duration, compute=None, dead_time=float(dead))
    return Observation(np.asarray([[len(plan) / (NODES * duration)] for plan in plans]), ())


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
        "The messages during one local update have variance λ(c + e) + (λe)²: more than Poisson's.",
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
        "The messages during one update are a Poisson(λc) plus a geometric variable (λ = 2).",
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
        "messages that come while B are waiting; stationary",
        Axis("capacity B, messages", (1, 2, 4, 8), (2,)),
        "share of messages",
        predict=_lost_share,
        simulate=each(_lost),
        sampling=RANDOM,
        catches=("a capacity that is off by one", "a newer message that replaces one waiting"),
    ),
    Claim(
        "inbox_distinct_senders",
        "Of (n−1)(1 − e^{−sc}/(1 + se)) different senders, s = λ/(n−1), one message each is read at an update.",
        "thinned Poisson arrivals (λ = 2)",
        Axis("nodes n", (3, 8, 32), (8,)),
        "messages read at an update",
        predict=pointwise(lambda k: exact.distinct_senders(k, gossip_rate=LAMBDA, mean_extra=EXTRA, shift=SHIFT)),
        simulate=each(_senders),
        sampling=RANDOM,
        catches=("older messages of a sender read as well", "messages of different senders that replace each other"),
    ),
    Claim(
        "round_receivers",
        "Where all n nodes push once, n(1 − (1 − 1/(n−1))^{n−1}) of them hear something.",
        "balls into bins, each leaving out its own",
        Axis("nodes n", (4, 32, 256), (4,)),
        "different receivers of a round",
        predict=pointwise(exact.round_receivers),
        simulate=each(_receivers),
        sampling=Sampling(256, 256),
        catches=("pushes to oneself", "partners drawn without replacement"),
    ),
    Claim(
        "time_since_update",
        "A node's last own update is (c² + 2ce + 2e²)/(2(c + e)) seconds old on average.",
        "renewal theory: E X²/(2 E X)",
        Axis("fixed part c of the update clock, s", (0.0, 0.5, 2.0), (0.5,)),
        "mean time since the last update, s",
        predict=pointwise(lambda shift: exact.time_since_update(EXTRA, shift)),
        simulate=each(_since_update),
        sampling=RANDOM,
        catches=("intervals of another law", "a fixed part that is added to some intervals only"),
    ),
    Claim(
        "clocks_in_equilibrium",
        "A stationary clock ticks t/(c + e) times before t on average, however short t is.",
        "renewal theory: the stationary start",
        Axis("time t, s", (0.25, 1.0, 4.0), (1.0,)),
        "ticks of a clock",
        predict=lambda t: t / (SHIFT + EXTRA),
        simulate=each(_in_equilibrium),
        sampling=RANDOM,
        catches=("clocks started at zero instead of in equilibrium", "a first interval drawn like the others"),
    ),
    Claim(
        "hear_from_all",
        "It takes (n−1) H_{n−1}/λ seconds on average until a node has heard each other directly.",
        "coupon collector in continuous time (λ = 2)",
        Axis("nodes n", (4, 12, 32), (12,)),
        "mean time, s",
        predict=pointwise(lambda k: exact.hear_from_all(k, LAMBDA)),
        simulate=each(_heard),
        sampling=RANDOM,
        catches=("biased partner choice", "targets drawn without replacement"),
    ),
    Claim(
        "updates_in_window",
        "No node makes more than ⌊w/c⌋ + 1 updates in a window of w seconds.",
        "intervals are at least c; sure",
        Axis("window w, in units of c", (0.5, 1.5, 2.5, 5.5, 10.5), (1.5, 5.5)),
        "most updates of any of 64 nodes in 400 c",
        predict=lambda w: staleness.sure_bound(w, 1.0),
        simulate=_most_in_window,
        sampling=EXACT,
        catches=("intervals without their fixed part", "two clocks on one node"),
        kind="upper",
    ),
    Claim(
        "busy_nodes_drop",
        "Nodes that do not listen while they compute lose a share c/(c + e) of their messages.",
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
        "Little's law: nλ E[latency] messages are on their way at any time (n = 32, λ = 2).",
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
        "every message has one fate; sure",
        NETWORKS,
        "messages sent less all fates",
        predict=np.zeros_like,
        simulate=each(_balance),
        sampling=EXACT,
        catches=("a message delivered twice", "a lost message that is delivered", "messages that are forgotten"),
    ),
    Claim(
        "messages_counted",
        "The engine counts as many messages while it runs as the plan says were sent.",
        "both count the same events; sure",
        NETWORKS._replace(quick=(4,)),
        "messages counted less messages planned",
        predict=np.zeros_like,
        simulate=each(_counted),
        sampling=EXACT,
        catches=("deliveries counted as messages", "lost messages that are not counted"),
    ),
    Claim(
        "inbox_capacity",
        "An inbox of the recommended capacity is too small at no more than the stated share of the updates (λ = 2).",
        "quantile of the law of the messages during one update",
        Axis("share that is allowed", (0.3, 0.1, 0.03), (0.1,)),
        "share of updates at which more messages have come",
        predict=lambda wanted: wanted,
        simulate=each(_overfull),
        sampling=RANDOM,
        catches=("a capacity that is off by one", "intervals of the update clock without their random part"),
        kind="upper",
    ),
    Claim(
        "pushes_until_repeat",
        "A node pushes Σ_k Π_{j<k} (1 − j/N) times until a target comes again, N = n − 1 (birthdays).",
        "uniform independent targets",
        Axis("nodes n", (3, 8, 32), (8,)),
        "pushes",
        predict=pointwise(exact.pushes_until_repeat),
        simulate=each(_repeats),
        sampling=RANDOM,
        catches=("partners drawn without replacement", "biased partner choice"),
    ),
    Claim(
        "dead_time_rate",
        "Nodes that are silent for g seconds after each push push 1/(g + 1/λ) times a second (λ = 2).",
        "renewal theory: the reciprocal of the mean interval",
        Axis("dead time g, s", (0.0, 0.25, 1.0), (0.25,)),
        "pushes per node and second",
        predict=pointwise(lambda g: staleness.dead_time_rate(LAMBDA, g)),
        simulate=each(_dead_time),
        sampling=RANDOM,
        catches=(
            "a dead time that is added to some intervals only",
            "clocks started at zero instead of in equilibrium",
        ),
    ),
)
