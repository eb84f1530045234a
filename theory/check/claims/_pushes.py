"""Claims on one-way pushes: how they mix models, and how far they move the mean."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats

from gossipjax import Timeline, timeline, topology

from ... import moments, staleness
from ..claim import Assumption, Axis, Claim, Observation, Points, Sampling, each, once, pointwise
from ..engine import SURE
from ._averages import DISAGREEMENT, NODES, models_of, moments_at, pieces, spread, starts, timed_models


def _push(seed: int, weight: float, replicas: int) -> Observation:
    plan = timeline.poisson_push(topology.complete(NODES), replicas, weight=weight, seed=seed)
    pairs = np.bincount(plan.xs["first"] * NODES + plan.xs["second"], minlength=NODES**2).reshape(NODES, NODES)
    p = float(stats.chisquare(pairs[~np.eye(NODES, dtype=bool)]).pvalue)
    uniform = Assumption("pairs are uniform", p > SURE, f"p = {p:.1e}")
    return Observation(spread(models_of(seed, replicas, pieces(plan, 1), starts(NODES))[:, -1]), (uniform,))


def _decay(seed: int, points: Points, replicas: int) -> Observation:
    def plan(k: int) -> Timeline:
        return timeline.push_gossip(NODES, max(points), compute=None, gossip=2.0, seed=k)

    models, messages = timed_models(seed, points, replicas, plan, starts(NODES), 2.0 * NODES)
    return Observation(spread(models), (messages,))


RATES = np.array([0.4, 1.0, 1.6, 2.2, 2.8, 3.4])
"""Pushes per second of nodes that differ."""


def _unequal_events():
    rates = np.zeros((6, 6))
    i = np.arange(6)
    rates[i, (i + 1) % 6] = rates[i, (i - 1) % 6] = RATES / 2
    return moments.push_events(rates, weight=0.3)


def _unequal(seed: int, points: Points, replicas: int, read) -> Observation:
    ring = topology.ring(6)

    def plan(k: int) -> Timeline:
        return timeline.push_gossip(ring, max(points), compute=None, gossip=RATES, weight=0.3, seed=k)

    models, messages = timed_models(seed, points, replicas, plan, starts(6), float(RATES.sum()))
    return Observation(read(models), (messages,))


PUSH_RING = Claim(
    "push_unequal_rates_disagreement",
    "Pushes of 0.3 at unequal rates: E V solves dZ/dt = Σ_e r_e (M_e Z M_eᵀ − Z) (ring of 6).",
    "theory.moments; pushes as in Mitra and Ulukus 2024, arXiv 2404.19749",
    Axis("time t, s", (0.5, 1.0, 2.0), (1.0, 2.0)),
    DISAGREEMENT,
    predict=lambda t: 6 * moments_at(_unequal_events(), starts(6), t, lambda m: m.consensus),
    simulate=lambda seed, points, replicas: _unequal(seed, points, replicas, spread),
    sampling=Sampling(8_000, 1_000, independent=False),
    catches=("rates of other nodes", "sender and receiver confused"),
)


def _settled_value(seed: int, weight: float, replicas: int) -> Observation:
    plan = timeline.drawn_gossip(NODES, 600, update_rate=0.0, gossip_rate=1.0, weight=weight)
    models = models_of(seed, replicas, plan, starts(NODES))[:, -1]
    values, left = models.mean(axis=1), float(spread(models).max())
    p = float(stats.ttest_1samp(values[:, 2], 0.0).pvalue)
    return Observation(
        np.square(values).mean(axis=1),
        (
            Assumption("all nodes have settled", left < 1e-6, f"squared disagreement {left:.2g}"),
            Assumption("the mean stays where it is on average", p > SURE, f"p = {p:.1e}"),
        ),
    )


def growth(models: np.ndarray) -> float:
    """Return the largest growth of the maximum, or shrinking of the minimum, between consecutive records."""
    high, low = models.max(axis=-2), models.min(axis=-2)
    return float(max((high[1:] / high[:-1]).max(), (low[:-1] / low[1:]).max()))


def _convex(seed: int, weight: float, replicas: int) -> Observation:
    plan = timeline.poisson_push(topology.ring(NODES), 400, weight=weight, seed=seed)
    positive = 1.0 + np.random.default_rng(seed).random((NODES, 3))
    models = models_of(seed, 1, plan, positive, every=1)[0]
    return Observation(np.asarray([growth(np.concatenate([positive[None], models]))]))


CLAIMS = (
    Claim(
        "push_one_event",
        "A push x_j ← (1 − a)x_j + a x_i among all: E V⁺/V = 1 − 2a(1 − a)/(n − 1) − 2a²/(n(n − 1)) (n = 12).",
        "mean over all pairs, theory.staleness.push_event_factor",
        Axis("weight a", (0.1, 0.3, 0.5, 0.9), (0.3, 0.8)),
        DISAGREEMENT,
        predict=pointwise(lambda w: staleness.push_event_factor(NODES, w)),
        simulate=each(_push),
        sampling=Sampling(20_000, 4_000),
        catches=("weight and own share confused", "a push that moves its sender too"),
    ),
    Claim(
        "push_decay",
        "Pushes of half at rate λ among all: E V(t) = V₀ exp(−λt(n + 1)/(2(n − 1))) (n = 12, λ = 2).",
        "a Poisson number of push events, theory.staleness.push_decay",
        Axis("time t, s", (0.5, 1.0, 2.0), (0.5, 1.5)),
        DISAGREEMENT,
        predict=lambda t: staleness.push_decay(NODES, 2.0, t),
        simulate=_decay,
        sampling=Sampling(6_000, 600, independent=False),
        catches=("clocks of another rate", "a push that moves its sender too"),
    ),
    PUSH_RING,
    dataclasses.replace(
        PUSH_RING,
        name="push_unequal_rates_mean",
        statement="Pushes at unequal rates move the mean: E x̄² solves the same equation (ring of 6, weight 0.3).",
        quantity="squared mean x̄² (start: 0)",
        predict=lambda t: moments_at(_unequal_events(), starts(6), t, lambda m: m.mean_square),
        simulate=lambda seed, points, replicas: _unequal(
            seed, points, replicas, lambda models: np.square(models.mean(axis=2)).mean(axis=2)
        ),
    ),
    Claim(
        "push_consensus_variance",
        "Pushes among all settle on a value of variance (V₀/n)(a/n)/(1 − a + a/n) about the mean (n = 12).",
        "the mean is a martingale, theory.staleness.consensus_variance",
        Axis("weight a", (0.3, 0.5, 0.8), (0.5,)),
        "variance of the settled value (V₀ = 1)",
        predict=pointwise(lambda w: staleness.consensus_variance(NODES, w, 1.0)),
        simulate=each(_settled_value),
        sampling=Sampling(8_000, 1_500),
        catches=("a push that moves its sender too", "weight and own share confused"),
    ),
    Claim(
        "push_stays_within",
        "No push raises the largest model or lowers the smallest: averages are convex (ring of 12).",
        "row-stochastic, nonnegative weights",
        Axis("weight a", (0.3, 0.5, 1.0), (0.3, 0.5)),
        "largest growth of an extreme in one event",
        predict=np.ones_like,
        simulate=each(_convex),
        sampling=once(1e-14),  # two products and a sum
        catches=("weights that do not sum to one",),
        kind="upper",
    ),
)
