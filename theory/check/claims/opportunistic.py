"""Claims on messages that carry one version: under every rule bounded staleness needs λ of order n."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import gossipjax as gj
from gossipjax.observe import staleness_by_source

from ... import opportunistic, staleness
from ..claim import Assumption, Axis, Claim, Observation, Sampling, each
from ..engine import paced, planned_runs, settled
from ..one_version import RULES, plan

SOURCE = "Mitra and Ulukus 2024, arXiv 2404.19749 (the order Ω(n)); constant and proof derived here"
STALENESS = "mean staleness, updates"
NODES, CAPACITY = 12, 2.0
"""Network of the claims that compare rules: m(n − 1)/λ is 5.5."""
RULE = Axis("rule, in the order of one_version.RULES", tuple(range(len(RULES))), (2, 4, 5))
WITH_MEMORY = Axis("rule, in the order of one_version.RULES", (2, 3, 4, 5), (2, 5))
SAMPLING = Sampling(96, 32)
RECORDS = 12


def _measured(seed: int, n: int, replicas: int, rule: Any, capacity: float) -> Observation:
    """Record runs of a rule after a burn-in of eight times m(n − 1)/λ, records two such times apart."""
    apart = float(staleness.opportunistic_staleness(n, gossip_rate=capacity, update_rate=1.0, relay=False))
    times = max(apart, 1.0) * (8 + 2 * np.arange(1, RECORDS + 1))

    def planned(k: int) -> gj.Timeline:
        return plan(rule, n, float(times[-1]), update_rate=1.0, capacity=capacity, seed=k)

    protocol = gj.track_versions(gj.gossip_averaging(), num_nodes=n)
    records = planned_runs(seed, replicas, protocol, planned, times, np.zeros(n), [staleness_by_source()])
    flat = records["staleness_of_source"].mean(axis=2)
    return Observation(flat.mean(axis=1), (settled(flat), _within(records["messages"][:, -1], times[-1], n * capacity)))


def _within(messages: np.ndarray, duration: float, rate: float) -> Assumption:
    """Test that the rule keeps the capacity; bursts that follow random updates keep it on average."""
    return paced(messages, rate * duration)._replace(name="nλ messages per unit time")


def _rule(seed: int, number: float, replicas: int) -> Observation:
    return _measured(seed, NODES, replicas, RULES[int(number)], CAPACITY)


def _by_nodes(rule: str) -> Callable[[int, float, int], Observation]:
    return lambda seed, n, replicas: _measured(seed, int(n), replicas, rule, CAPACITY)


def _everywhere(value: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: np.full(points.shape, float(value))


CLAIMS = (
    Claim(
        "one_version_lower_bound",
        "One version per message: mean staleness is at least k − k(k+1)/(2x), x = m(n−1)/λ, k = ⌊x⌋, under any rule.",
        SOURCE,
        RULE,
        STALENESS,
        predict=_everywhere(opportunistic.least_staleness(NODES, gossip_rate=CAPACITY, update_rate=1.0)),
        simulate=each(_rule),
        sampling=SAMPLING,
        catches=("a push carries all versions", "more messages than the capacity"),
        kind="lower",
    ),
    Claim(
        "one_version_bound_is_attained",
        "Sending every x-th update to all others at once attains the bound: at least (m(n−1)/λ − 1)/2, so Ω(n).",
        SOURCE,
        Axis("nodes n", (6, 12, 24), (12,)),
        STALENESS,
        predict=lambda n: opportunistic.least_staleness(n.astype(int), gossip_rate=CAPACITY, update_rate=1.0),
        simulate=each(_by_nodes("every x-th update")),
        sampling=SAMPLING,
        catches=("a push carries all versions", "an update counted twice"),
    ),
    Claim(
        "one_version_in_turn",
        "If each node pushes its own version to the others in turn, staleness is m n/(2λ), not m(n−1)/λ.",
        "age of a renewal process with gaps of n − 1 exponentials",
        Axis("nodes n", (4, 12, 24), (12,)),
        STALENESS,
        predict=lambda n: opportunistic.in_turn_staleness(n.astype(int), gossip_rate=CAPACITY, update_rate=1.0),
        simulate=each(_by_nodes("in turn")),
        sampling=SAMPLING,
        catches=("targets at random", "a push carries all versions"),
    ),
    Claim(
        "one_version_coin",
        "If each update goes at once to each other node with probability λ/(m(n−1)), staleness is m(n−1)/λ − 1.",
        "geometric staleness seen before updates",
        Axis("nodes n", (6, 12, 24), (12,)),
        STALENESS,
        predict=lambda n: opportunistic.coin_staleness(n.astype(int), gossip_rate=CAPACITY, update_rate=1.0),
        simulate=each(_by_nodes("coin")),
        sampling=SAMPLING,
        catches=("a push carries all versions", "a message that precedes its update"),
    ),
    Claim(
        "one_version_memory_helps",
        "m(n−1)/λ is no lower bound: rules that know what they sent, or what is new, stay below it.",
        "derived here, against the reading of the paper's theorem in which m(n−1)/λ is the least",
        WITH_MEMORY,
        STALENESS,
        predict=_everywhere(
            staleness.opportunistic_staleness(NODES, gossip_rate=CAPACITY, update_rate=1.0, relay=False)
        ),
        simulate=each(_rule),
        sampling=SAMPLING,
        catches=("targets at random", "messages that get lost"),
        kind="upper",
    ),
)
