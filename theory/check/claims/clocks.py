"""Claims on clocks and partners: when nodes update, how often they push, and whom they reach.

Nothing is trained here: all numbers come from the clocks and the timelines.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gossipjax import Timeline
from gossipjax.timeline import clocks, push_gossip, push_rounds
from gossipjax.timeline.flights import rank_in

from ... import queues as exact
from ... import staleness
from ..claim import Assumption, Axis, Claim, Observation, Points, Sampling, each, once, pointwise

NODES, SHIFT, EXTRA = 32, 0.5, 0.75
"""Nodes, and the clock c + Exp(mean e) of their updates, s."""
LAMBDA = 2.0
"""Pushes per node and second."""
CLOCK = clocks.shifted_exponential(SHIFT, EXTRA)
RANDOM, EXACT = Sampling(256, 64), once(0.0)
"""Exact claims compare whole numbers, so they need no tolerance for rounding."""


def push_plans(seed: int, replicas: int, duration: float, n: int = NODES, **settings: Any) -> list[Timeline]:
    """Plan one network with many seeds."""
    chosen: dict[str, Any] = {"compute": CLOCK, "gossip": LAMBDA} | settings
    return [push_gossip(n, duration, seed=seed * 100_003 + k, **chosen) for k in range(replicas)]


def _receivers(seed: int, point: float, replicas: int) -> Observation:
    n, each_replica = int(point), 32
    plan = push_rounds(n, each_replica * replicas, compute=None, pushes="one", seed=seed)
    rows = np.sort(plan.xs["receivers"], axis=1)
    distinct = 1.0 + (np.diff(rows, axis=1) != 0).sum(axis=1)
    complete = Assumption("every node pushes in every round", bool((rows < n).all()))
    return Observation(distinct.reshape(replicas, each_replica).mean(axis=1)[:, None], (complete,))


def _since_update(seed: int, shift: float, replicas: int) -> Observation:
    """Measure the age of the last tick of 64 clocks, at a time by which each has ticked."""
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
    """Count the ticks of 64 clocks before a given time."""
    counts = [
        clocks.ticks(CLOCK, 64, float(time), np.random.default_rng((seed, k)))[0].size / 64 for k in range(replicas)
    ]
    return Observation(np.asarray(counts)[:, None], ())


def _heard(seed: int, point: float, replicas: int) -> Observation:
    """Measure the time at which a node has heard from all others, averaged over nodes."""
    n = int(point)
    duration = exact.hear_from_all(n, LAMBDA) + 25.0 * (n - 1) / LAMBDA
    times, late = [], 0
    for plan in push_plans(seed, replicas, duration, n, compute=None):
        xs = plan.xs
        first = np.full((n, n), np.inf)
        np.fill_diagonal(first, 0.0)
        np.minimum.at(first, (xs["receivers"][:, 0], xs["senders"][:, 0]), xs["time"][:, 0])
        last = first.max(axis=1)
        late += int(np.isinf(last).sum())
        times.append(last[np.isfinite(last)].mean())
    heard = Assumption("all nodes are heard before the run ends", late == 0, f"{late} nodes missed another node")
    return Observation(np.asarray(times)[:, None], (heard,))


def _most_in_window(seed: int, points: Points, replicas: int) -> Observation:
    """Measure the most updates of a node in a window that begins with one of them, in units of c."""
    del replicas
    clock = clocks.shifted_exponential(1.0, 0.05)
    times, nodes = clocks.ticks(clock, 64, 400.0, np.random.default_rng(seed))
    order = np.lexsort((times, nodes))
    # Concatenate the nodes' times, so far apart that no window holds two nodes.
    line = times[order] + 1000.0 * nodes[order]
    ends = np.asarray(points)[:, None] + line
    counts = np.searchsorted(line, ends, side="right") - np.arange(line.size)
    return Observation(counts.max(axis=1).astype(float)[None], ())


def _repeats(seed: int, point: float, replicas: int) -> Observation:
    """Count the pushes of a node up to the first repeated target, averaged over nodes."""
    n = int(point)
    duration = (n + 8.0 * np.sqrt(n)) / LAMBDA
    repeats = [_first_repeats(plan, n) for plan in push_plans(seed, replicas, duration, n, compute=None)]
    short = int(np.isinf(repeats).sum())
    enough = Assumption("every node repeats a target before the run ends", short == 0, f"{short} nodes did not")
    return Observation(np.mean(repeats, axis=1, keepdims=True), (enough,))


def _first_repeats(plan: Timeline, n: int) -> np.ndarray:
    sender, receiver = plan.xs["senders"][:, 0], plan.xs["receivers"][:, 0]
    rank, again = rank_in(sender), rank_in(sender * n + receiver) > 0
    first = np.full(n, np.inf)
    np.minimum.at(first, sender[again], rank[again] + 1.0)
    return first


def _dead_time(seed: int, dead: float, replicas: int) -> Observation:
    """Measure the push rate of nodes that are silent for a time after each push."""
    duration = 20.0
    plans = push_plans(seed, replicas, duration, compute=None, dead_time=float(dead))
    return Observation(np.asarray([[len(plan) / (NODES * duration)] for plan in plans]), ())


CLAIMS = (
    Claim(
        "time_since_update",
        "A node's own last update is (c² + 2ce + 2e²)/(2(c + e)) seconds old on average.",
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
        "updates_in_window",
        "No node makes more than ⌊w/c⌋ + 1 updates in a window of w seconds.",
        "intervals are at least c",
        Axis("window w, in units of c", (0.5, 1.5, 2.5, 5.5, 10.5), (1.5, 5.5)),
        "most updates of any of 64 nodes in 400 c",
        predict=lambda w: staleness.sure_bound(w, 1.0),
        simulate=_most_in_window,
        sampling=EXACT,
        catches=("intervals without their fixed part", "two clocks on one node"),
        kind="upper",
    ),
    Claim(
        "dead_time_rate",
        "Nodes that are silent for g seconds after each push push 1/(g + 1/λ) times per second (λ = 2).",
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
    Claim(
        "round_receivers",
        "If all n nodes push once, n(1 − (1 − 1/(n−1))^{n−1}) of them hear something on average.",
        "balls into bins; no node pushes to itself",
        Axis("nodes n", (4, 32, 256), (4,)),
        "different receivers of a round",
        predict=pointwise(exact.round_receivers),
        simulate=each(_receivers),
        sampling=Sampling(256, 256),
        catches=("pushes to oneself", "partners drawn without replacement"),
    ),
    Claim(
        "hear_from_all",
        "It takes (n−1) H_{n−1}/λ seconds on average until a node has heard directly from every other node.",
        "coupon collector in continuous time (λ = 2)",
        Axis("nodes n", (4, 12, 32), (12,)),
        "mean time, s",
        predict=pointwise(lambda k: exact.hear_from_all(k, LAMBDA)),
        simulate=each(_heard),
        sampling=RANDOM,
        catches=("biased partner choice", "targets drawn without replacement"),
    ),
    Claim(
        "pushes_until_repeat",
        "A node pushes Σ_k Π_{j<k} (1 − j/N) times on average until a target repeats, N = n − 1 (birthdays).",
        "uniform independent targets",
        Axis("nodes n", (3, 8, 32), (8,)),
        "pushes",
        predict=pointwise(exact.pushes_until_repeat),
        simulate=each(_repeats),
        sampling=RANDOM,
        catches=("partners drawn without replacement", "biased partner choice"),
    ),
)
