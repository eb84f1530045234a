"""Claims on late gradients: a fixed delay, as in FedBuff with clients in turn, and bounded staleness in gossip."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import observe
from gossipjax.tasks import quadratic
from gossipjax.timeline import clocks

from ... import delay
from ..additive import Plan, exchange_every, gated_gossip, sums_of_updates
from ..claim import Assumption, Axis, Claim, Observation, Points, Sampling, each, once, pointwise
from ..engine import runs, settled

LATE = 5
"""Delay τ, in steps."""
FACTOR = "factor per step"


def _path(
    seed: int, step: float, late: int, length: int, every: int, *, copies: int = 1, noise: float = 0.0
) -> np.ndarray:
    """Record models of the server ``(records, copies)`` on x²/2 from 1; the plan's learning rate is h.

    τ + 1 clients of equal speed take turns; each applies the gradient that it began τ steps before.
    """
    task = quadratic(np.zeros((late + 1, copies)), noise_std=noise)
    plan = gj.timeline.fedbuff(
        late + 1,
        float(-(-length // (late + 1)) + 2),
        concurrency=late + 1,
        train_time=clocks.deterministic(1.0),
        buffer_size=1,
        staleness_power=0.0,
        seed=seed,
    )
    plan = plan[: late + 1 + length]  # the first τ + 1 events only fetch the model
    protocol = gj.fedbuff(task, Partial(optax.sgd, step))
    path = runs(seed, 1, protocol, plan, np.ones((1, copies)), [observe.models()], every=1)["model"][0]
    return path.reshape(len(plan), copies)[late + 1 :][every - 1 :: every]


def _factor(path: np.ndarray, window: int) -> float:
    """Estimate the growth per step from the energies of two distant windows."""
    energy = np.square(path[:, 0])
    early, late = energy[window : 2 * window].sum(), energy[-window:].sum()
    return float((late / early) ** (0.5 / (len(energy) - 2 * window)))


def _growth(seed: int, points: Points, replicas: int) -> Observation:
    del replicas
    threshold = delay.stability_threshold(LATE)
    factors = [_factor(_path(seed, share * threshold, LATE, 6000, 1), 1000) for share in points]
    return Observation(np.asarray([factors]), (_turns(seed),))


def _turns(seed: int) -> Assumption:
    """Test that each return uses the model of τ returns before: on a quadratic, x_1 … x_{τ+1} fall by h x_0 each."""
    path = _path(seed, 0.1, LATE, LATE + 2, 1)[:, 0]
    expected = np.append(1 - 0.1 * np.arange(1, LATE + 2), 1 - 0.1 * (LATE + 1) - 0.1 * 0.9)
    gap = float(np.abs(path - expected).max())
    return Assumption("every gradient is τ steps old", gap < 1e-12, f"off by {gap:.1e}")


def _variance(seed: int, late: float, copies: int) -> Observation:
    """Measure squared models of many coordinates with independent noise, from step 400 on."""
    tau = int(late)
    path = _path(seed, 0.2, tau, 600, 100, copies=copies, noise=1.0)[3:]
    values = np.square(path).T
    return Observation(values.mean(axis=1), (settled(values),))


def _growth_near_best(seed: int, points: Points, replicas: int) -> Observation:
    del replicas
    steps = [share * delay.best_step(LATE) for share in points]
    factors = [_factor(_path(seed, step, LATE, 300, 1), 50) for step in steps]
    return Observation(np.asarray([factors]), (_turns(seed),))


USERS, RECORDS, EVENTS = 8, 40, 2400
"""Users of the claims on bounded staleness, and records and events of each run."""


def _paces(seed: int, plans: list[Plan], step: float) -> np.ndarray:
    """Run plans from 1 towards 0; estimate the factor per update of every user from two distant windows."""
    timelines, every = [plan.timeline for plan in plans], EVENTS // RECORDS
    start, watch = jnp.ones(USERS), [observe.models()]
    records = runs(seed, len(plans), sums_of_updates(step), timelines, start, watch, every=every)
    largest = np.abs(records["model"]).max(axis=(2, 3))
    shrunk = largest[:, -10:].max(axis=1) / largest[:, :10].max(axis=1)
    updates = np.asarray([plan.updates for plan in plans])
    return shrunk ** (USERS * RECORDS / (updates * (RECORDS - 10)))


def _plans(seed: int, replicas: int, bound: int | None) -> list[Plan]:
    return [gated_gossip(USERS, EVENTS, gossip_rate=1.0, bound=bound, seed=seed + k) for k in range(replicas)]


def _gated(seed: int, bound: float, replicas: int) -> Observation:
    """Run gossip with staleness of at most B, at 0.99 of the step that this allows."""
    plans = _plans(seed, replicas, int(bound))
    most = max(plan.staleness for plan in plans)
    bounded = Assumption("staleness is bounded", most <= bound, f"it reaches {most}")
    step = 0.99 * delay.bounded_staleness_step(USERS, int(bound))
    return Observation(_paces(seed, plans, step), (bounded,))


def _free(seed: int, step: float, replicas: int) -> Observation:
    """Run gossip with Poisson clocks, in which staleness has no bound."""
    plans = _plans(seed, replicas, None)
    least = min(plan.staleness for plan in plans)
    beyond = step > 4 * delay.bounded_staleness_step(USERS, least)
    assumption = Assumption("the step is four times the allowed one", beyond, f"staleness reaches {least} only")
    return Observation(_paces(seed, plans, step), (assumption,))


def _exchanges(seed: int, share: float, replicas: int) -> Observation:
    """Measure the factor of the model from one exchange to the next."""
    del replicas
    step, plan = share * delay.exchange_threshold(USERS, LATE), exchange_every(USERS, LATE, 2)
    every = len(plan.timeline) // 2
    start, watch = jnp.ones(USERS), [observe.models()]
    path = runs(seed, 1, sums_of_updates(step), plan.timeline, start, watch, every=every)["model"].reshape(2, USERS)
    return Observation(np.abs(path[1:, :1] / path[:1, :1]))


CLAIMS = (
    Claim(
        "delayed_gradient_factor",
        "x_{t+1} = x_t − h x_{t−τ} shrinks or grows by the largest root of z^{τ+1} − z^τ + h (τ = 5).",
        "characteristic polynomial of the delay line",
        Axis("step h over the threshold 2 sin(π/(2(2τ+1)))", (0.7, 0.8, 0.98, 1.0, 1.02, 1.1), (0.98, 1.02)),
        FACTOR,
        predict=pointwise(lambda s: delay.linear_factor(s * delay.stability_threshold(LATE), LATE)),
        simulate=_growth,
        sampling=once(2e-4),  # windows of 1000 steps, 4000 apart, do not hold whole numbers of oscillations
        catches=("a gradient one step younger", "stale snapshot used twice"),
    ),
    Claim(
        "delayed_gradient_below_threshold",
        "Gradients delayed by τ = 5 steps converge for h = 0.98 · 2 sin(π/(2(2τ+1))): the factor is below 1.",
        "stability of the delay line; bounded delays: Koloskova, Stich, Jaggi 2022, arXiv 2206.08307",
        Axis("step h over the threshold", (0.7, 0.9, 0.98), (0.98,)),
        FACTOR,
        predict=np.ones_like,
        simulate=_growth,
        sampling=once(0.0),
        catches=("a gradient one step older",),
        kind="upper",
    ),
    Claim(
        "delayed_gradient_above_threshold",
        "Gradients delayed by τ = 5 steps diverge for h = 1.02 · 2 sin(π/(2(2τ+1))): the factor is above 1.",
        "stability of the delay line",
        Axis("step h over the threshold", (1.02, 1.1, 1.3), (1.02,)),
        FACTOR,
        predict=np.ones_like,
        simulate=_growth,
        sampling=once(0.0),
        catches=("a gradient one step younger",),
        kind="lower",
    ),
    Claim(
        "delayed_gradient_variance",
        "Delayed SGD settles at the variance of Lyapunov's equation on the delay line (h = 0.2, σ = 1).",
        "discrete Lyapunov equation; for τ = 1: (1 + h)/(h (1 − h)(2 + h)) times the noise",
        Axis("delay τ, steps", (0, 1, 3, 5), (3,)),
        "E x²",
        predict=pointwise(lambda t: delay.stationary_variance(0.2, t, noise_std=0.2)),
        simulate=each(_variance),
        sampling=Sampling(8000, 2000),
        catches=("a gradient one step younger", "the same noise at every step", "gradient noise shared by clients"),
    ),
    Claim(
        "delayed_gradient_no_step_is_faster",
        "With τ = 5 no step shrinks x by more than τ/(τ + 1) a step; h = τ^τ/(τ + 1)^(τ + 1) comes closest.",
        "double root of z^{τ+1} − z^τ + h",
        Axis("step h over the best", (0.25, 0.9, 1.0, 1.1, 2.0), (0.9, 1.0, 1.1)),
        FACTOR,
        predict=lambda share: np.full(share.shape, delay.best_linear_factor(LATE)),
        simulate=_growth_near_best,
        sampling=once(0.0),
        catches=("a gradient one step younger",),
        kind="lower",
    ),
    Claim(
        "bounded_staleness_suffices",
        "Gossip of updates converges in every order if staleness is at most B and h B(n−1)/n < ½ (n = 8, 0.99 of it).",
        "Mitra and Ulukus 2024, arXiv 2404.19749 (the criterion); condition and proof derived here",
        Axis("bound B, updates", (1, 2, 4, 8), (2, 8)),
        "factor per update of every user",
        predict=np.ones_like,
        simulate=each(_gated),
        sampling=Sampling(32, 8),
        catches=("staleness without a bound", "a step that is too long"),
        kind="upper",
    ),
    Claim(
        "bounded_staleness_is_not_necessary",
        "Gossip of updates under Poisson clocks converges, though staleness has no bound (n = 8, λ = 1).",
        "derived here; Mitra and Ulukus 2024, arXiv 2404.19749, call bounded staleness sufficient",
        Axis("step h", (0.3, 0.5, 0.8), (0.5,)),
        "factor per update of every user",
        predict=np.ones_like,
        simulate=each(_free),
        sampling=Sampling(32, 8),
        catches=("pushes that get lost",),
        kind="upper",
    ),
    Claim(
        "bounded_staleness_can_diverge",
        "If users learn alone for B = 5 steps, the model has the factor 1 − n(1 − (1 − h/n)^B): −1 at h ≈ 2/B (n = 8).",
        "derived here: all updates of a user between exchanges are at the same missing updates of the others",
        Axis("step h over n(1 − (1 − 2/n)^{1/B})", (0.25, 0.75, 0.98, 1.02), (0.98, 1.02)),
        "size of the factor per exchange",
        predict=pointwise(lambda s: abs(delay.exchange_factor(s * delay.exchange_threshold(USERS, LATE), USERS, LATE))),
        simulate=each(_exchanges),
        sampling=once(1e-12),  # 80 additions in float64
        catches=("pushes that get lost", "an update counted twice"),
    ),
)
