"""Claims on rumours in rounds: how many rounds it takes until all nodes have heard."""

from __future__ import annotations

from typing import Any

import numpy as np

import gossipjax as gj
from gossipjax import Properties
from gossipjax.timeline import from_events, push_rounds
from gossipjax.timeline.flights import rank_in
from gossipjax.types import NOBODY

from ... import spreading as exact
from ..claim import Axis, Claim, Law, Observation, Points, Sampling, each, once, pointwise
from ..engine import paced
from ._rumours import Spread, spread

ROUNDS = "mean rounds until all have heard"
LONGEST, LONGEST_PULL = 40, 28
"""Rounds of each run: enough for all but one run in 10⁶, for pushes on up to 1024 nodes and for pulls on up to 64."""


def _windows(plan: gj.Timeline, rounds: int) -> list[gj.Timeline]:
    """Cut one long plan, whose rounds are independent, into runs that share one compiled program."""
    return [plan[start : start + rounds] for start in range(0, len(plan), rounds)]


def _pushed(seed: int, n: int, replicas: int) -> Spread:
    plan = push_rounds(n, LONGEST * replicas, compute=None, pushes="one", seed=seed)
    return spread(seed, n, replicas, _windows(plan, LONGEST))


def _push_rounds(seed: int, point: float, replicas: int) -> Observation:
    runs = _pushed(seed, int(point), replicas)
    sent = paced(runs.messages[:, -1], LONGEST * point)
    return Observation(runs.first_all(int(point))[:, None], (*runs.assumptions, sent))


def _push_rounds_pmf(seed: int, points: Points, replicas: int) -> Observation:
    runs = _pushed(seed, 32, replicas)
    return Observation((runs.first_all(32)[:, None] == np.asarray(points)).astype(float), runs.assumptions)


def _largest_growth(seed: int, point: float, replicas: int) -> Observation:
    """Measure the largest ratio of informed nodes after and before a round, in 64 runs."""
    del replicas
    runs = _pushed(seed, int(point), 64)
    before = np.concatenate([np.ones((64, 1)), runs.counts[:, :-1]], axis=1)
    return Observation(np.max(runs.counts / before, keepdims=True), runs.assumptions)


def _fewest_rounds(seed: int, point: float, replicas: int) -> Observation:
    """Measure the smallest number of rounds in 64 runs."""
    del replicas
    runs = _pushed(seed, int(point), 64)
    return Observation(runs.first_all(int(point)).min(keepdims=True)[:, None], runs.assumptions)


def _called(seed: int, n: int, num_rounds: int, protocol: str) -> gj.Timeline:
    """Plan rounds in which every node calls a random other node; a node averages with all nodes that it hears."""
    rng = np.random.default_rng(seed)
    own = np.broadcast_to(np.arange(n), (num_rounds, n))
    called = rng.integers(0, n - 1, (num_rounds, n))
    called = called + (called >= own)
    seconds, nobody = np.arange(1.0, num_rounds + 1), np.full((num_rounds, 1), NOBODY)
    xs = {"time": seconds, "nodes": nobody}
    facts = Properties(n, n, f"{protocol} rounds of {n} nodes")
    if protocol == "pull":
        shared = {"weights": np.full(n, 0.5), "keep": np.full(n, 0.5)}
        return from_events(xs | {"senders": called, "receivers": own}, facts, shared=shared)
    rounds = np.arange(num_rounds)[:, None]
    place = rank_in((rounds * n + called).ravel()).reshape(called.shape)
    members = np.full((num_rounds, n, 3 + int(place.max())), NOBODY)
    members[..., 0], members[..., 1] = own, called
    members[rounds, called, 2 + place] = own
    weights = (members != NOBODY) / (members != NOBODY).sum(axis=2, keepdims=True)
    return from_events(xs | {"members": members, "weights": weights, "targets": own[..., None]}, facts)


def _called_rounds(seed: int, point: float, replicas: int, protocol: str) -> Observation:
    n = int(point)
    plan = _called(seed, n, LONGEST_PULL * replicas, protocol)
    runs = spread(seed, n, replicas, _windows(plan, LONGEST_PULL))
    return Observation(runs.first_all(n)[:, None], runs.assumptions)


def _mean_rounds(protocol: Any) -> Any:
    return lambda n: np.asarray([exact.mean_rounds(int(k), protocol) for k in n])


WINDOW = "Doerr and Künnemann 2014, Tight Analysis of Randomized Rumor Spreading in Complete Graphs (abstract)"


CLAIMS = (
    Claim(
        "spreading_push_rounds",
        "The mean number of push rounds on the complete graph follows from the chain of informed nodes.",
        "Markov chain of the number informed, as in Frieze and Grimmett 1985 and Pittel 1987; derived",
        Axis("nodes n", (4, 16, 64, 256), (32,)),
        ROUNDS,
        predict=_mean_rounds("push"),
        simulate=each(_push_rounds),
        sampling=Sampling(512, 192),
        catches=("messages of a round carry what came in it", "pushes that get lost when several arrive at one node"),
    ),
    Claim(
        "spreading_push_rounds_distribution",
        "The whole law of the number of push rounds is that of the chain (complete graph, n = 32).",
        "Markov chain of the number informed; derived",
        Axis("rounds", (7, 8, 9, 10, 12), (8, 9)),
        "share of runs",
        predict=lambda r: exact.rounds_pmf(32, protocol="push", size=64)[r.astype(int)],
        simulate=_push_rounds_pmf,
        sampling=Sampling(4096, 1024, independent=False),
        catches=("messages of a round carry what came in it", "rounds that repeat their targets"),
    ),
    Claim(
        "spreading_pull_rounds",
        "In pull rounds k informed nodes become k + Bin(n − k, k/(n − 1)), which gives the mean number of rounds.",
        "Karp, Schindelhauer, Shenker, Vöcking 2000 (the protocol); derived",
        Axis("nodes n", (4, 8, 24), (16,)),
        ROUNDS,
        predict=_mean_rounds("pull"),
        simulate=each(lambda seed, n, replicas: _called_rounds(seed, n, replicas, "pull")),
        sampling=Sampling(512, 128),
        catches=("transfers of an event that see one another", "senders and receivers swapped"),
    ),
    Claim(
        "spreading_push_pull_rounds",
        "If both ends of a call pass the rumour on, the chain gives the mean number of rounds.",
        "Karp, Schindelhauer, Shenker, Vöcking 2000 (the protocol); derived",
        Axis("nodes n", (4, 8, 24), (16,)),
        ROUNDS,
        predict=_mean_rounds("push-pull"),
        simulate=each(lambda seed, n, replicas: _called_rounds(seed, n, replicas, "push-pull")),
        sampling=Sampling(512, 128),
        catches=("groups of an event that see one another", "members of a group that are left out"),
    ),
    Claim(
        "spreading_push_rounds_at_least",
        "Push rounds on the complete graph take at least ⌊log₂ n⌋ + ln n − 1.116 on average.",
        WINDOW,
        Axis("nodes n", (64, 256), (64,)),
        ROUNDS,
        predict=pointwise(lambda k: exact.push_rounds_window(k).lower),
        simulate=each(_push_rounds),
        sampling=Sampling(512, 192),
        catches=("messages of a round carry what came in it", "a push that reaches more than one node"),
        kind="lower",
        mark="paper",
    ),
    Claim(
        "spreading_push_rounds_at_most",
        "Push rounds on the complete graph take at most ⌈log₂ n⌉ + ln n + 2.765 + o(1) on average.",
        f"{WINDOW}; its o(1) left out",
        Axis("nodes n", (64, 256), (64,)),
        ROUNDS,
        predict=pointwise(lambda k: exact.push_rounds_window(k).upper),
        simulate=each(_push_rounds),
        sampling=Sampling(512, 192),
        catches=("messages that are lost", "pushes that get lost when several arrive at one node"),
        kind="upper",
        mark="paper",
    ),
    Claim(
        "spreading_at_most_doubles",
        "In a push round the number of informed nodes never more than doubles.",
        "each informed node calls one other node",
        Axis("nodes n", (16, 64, 256), (64,)),
        "largest growth of the number informed in one round, 64 runs",
        predict=lambda n: np.full(n.shape, 2.0),
        simulate=each(_largest_growth),
        sampling=once(0.0),
        catches=("messages of a round carry what came in it", "a push that reaches more than one node"),
        kind="upper",
    ),
    Claim(
        "spreading_takes_log2_rounds",
        "No run of push rounds informs all n nodes in fewer than log₂ n rounds.",
        "the number of informed nodes at most doubles in a round",
        Axis("nodes n", (16, 64, 256), (64,)),
        "fewest rounds until all have heard, 64 runs",
        # Rounds are whole numbers; without the ceiling, rounding could put log₂ above one.
        predict=pointwise(lambda k: float((k - 1).bit_length())),
        simulate=each(_fewest_rounds),
        sampling=once(0.0),
        catches=("messages of a round carry what came in it",),
        kind="lower",
    ),
)


GROWTH = Claim(
    "spreading_push_rounds_grow",
    "The push rounds until all have heard grow as log₂ n + ln n.",
    "Frieze and Grimmett 1985; Pittel 1987",
    Axis("nodes n", (16, 64, 256, 1024), (16, 64, 256)),
    ROUNDS,
    predict=pointwise(lambda n: exact.rounds_asymptotic(n, "push")),
    simulate=each(_push_rounds),
    sampling=Sampling(512, 192),
    catches=("messages of a round carry what came in it", "a push that reaches more than one node"),
    kind="scaling",
    law=Law(("logarithm",)),
    mark="asymptotic",
)
