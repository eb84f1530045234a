"""Claims on random mixing: pairwise meetings and one-way pushes."""

from __future__ import annotations

import dataclasses

import numpy as np

import gossipjax as gj
from gossipjax import Timeline, observe, timeline, topology
from gossipjax.timeline import clocks
from gossipjax.types import NOBODY

from ... import moments, spectral
from ..claim import Assumption, Axis, Claim, Observation, Points, Sampling, each, once
from ..engine import averages, paced, runs, stacked
from . import _pushes
from ._averages import BOYD, DISAGREEMENT, NODES, models_of, moments_at, pieces, spread, starts, timed_models


def _petersen() -> topology.Topology:
    """Return the Petersen graph of ten nodes and degree 3: outer ring, spokes and inner star."""
    i = np.arange(5)
    ends = np.concatenate([i, i, i + 5]), np.concatenate([(i + 1) % 5, i + 5, (i + 2) % 5 + 5])
    senders, receivers = np.concatenate(ends), np.concatenate(ends[::-1])
    return topology.Topology(10, senders, receivers, directed=False, name="petersen")


_GRAPHS = (topology.star(10), topology.ring(10), _petersen(), topology.path(10))


def _one_event(seed: int, graph: float, replicas: int, planner) -> Observation:
    plan = planner(_GRAPHS[int(graph)], replicas, seed=seed)
    models = models_of(seed, replicas, pieces(plan, 1), starts(10))
    return Observation(spread(models[:, -1]), (averages(plan),))


def _one_event_claim(clock: str, planner, words: str) -> Claim:
    def predict(graphs: np.ndarray) -> np.ndarray:
        values = [spectral.pairwise_one_event(_GRAPHS[int(g)].adjacency(), starts(10), clock=clock) for g in graphs]
        return np.asarray(values) / 3

    return Claim(
        f"pairwise_one_event_{clock}_clock",
        f"One pairwise event leaves E V⁺ = xᵀ W̄ x, {words} (10 nodes, three starts).",
        f"{BOYD}: every event is a projection",
        Axis("graph: star, ring, Petersen, path", (0, 1, 2, 3), (0, 3)),
        DISAGREEMENT,
        predict=predict,
        simulate=each(lambda seed, graph, replicas: _one_event(seed, graph, replicas, planner)),
        sampling=Sampling(20_000, 4_000),
        catches=("biased partner choice", "an exchange that works one way"),
    )


def _complete(seed: int, points: Points, replicas: int) -> Observation:
    plan = timeline.drawn_pairs(NODES, 48)
    values = spread(models_of(seed, replicas, plan, starts(NODES), every=4))
    return Observation(values[:, [int(k) // 4 - 1 for k in points]], (averages(plan),))


def _until(plan: Timeline, size: int) -> Timeline:
    """Pad a plan with meetings of nobody, so that all plans have the same length."""
    missing = size - len(plan)
    fill = {"first": NOBODY, "second": NOBODY, "index": len(plan) - 1, "time": plan.xs["time"][-1]}
    xs = {name: np.append(v, np.full(missing, fill[name], v.dtype)) for name, v in plan.xs.items()}
    return dataclasses.replace(plan, xs=xs)


def _poisson_time(seed: int, t: float, replicas: int) -> Observation:
    everybody = topology.complete(NODES)
    plans = [timeline.poisson_pairs(everybody, duration=t, rate=2.0, seed=seed * 100_003 + k) for k in range(replicas)]
    longest = max(len(plan) for plan in plans)
    plans = [_until(plan, longest) for plan in plans]
    records = runs(seed, replicas, gj.gossip_averaging(), plans, stacked(starts(NODES)), [observe.models()])
    # A meeting sends a model in each direction.
    messages = paced(records["messages"][:, -1], 2 * NODES * 2.0 * t)
    return Observation(spread(records["model"][:, -1]), (averages(plans[0]), messages))


def _star_meetings() -> np.ndarray:
    """Return rates of meetings on a star: 8 nodes of rate 1.5; node 0 is the hub."""
    rates = np.zeros((8, 8))
    rates[1:, 0], rates[0, 1:] = 1.5, 1.5 / 7
    return rates


def _star(seed: int, points: Points, replicas: int) -> Observation:
    def plan(k: int) -> Timeline:
        silent = clocks.deterministic(1e6)
        return timeline.pairwise(topology.star(8), max(points), compute=silent, communicate=1.5, seed=k)

    models, messages = timed_models(seed, points, replicas, plan, starts(8), 2 * 8 * 1.5)
    return Observation(spread(models), (averages(plan(0)), messages))


def _slow_start(n: int) -> np.ndarray:
    """Return the slowest mode of the ring, of length one."""
    return np.sqrt(2 / n) * np.cos(2 * np.pi * np.arange(n) / n)[:, None]


def _ring_lambda2(n: int) -> float:
    return spectral.pairwise_contraction(topology.ring(n).adjacency())


def _slow(seed: int, points: Points, replicas: int) -> Observation:
    plan = timeline.poisson_pairs(topology.ring(NODES), 96 * replicas, seed=seed)
    values = spread(models_of(seed, replicas, pieces(plan, 96), _slow_start(NODES), every=4))
    return Observation(values[:, [int(k) // 4 - 1 for k in points]], (averages(plan),))


_CROWD = 48
"""Runs in a group; the share of them that has not averaged yet decides the averaging time."""


def _averaging_time(seed: int, epsilon: float, replicas: int, rounded_up: bool) -> Observation:
    """Measure the first event from which at most a share ε of the runs is at or above ε, in units of the bounds."""
    n = 8
    _, last = spectral.averaging_time_bounds(_ring_lambda2(n), epsilon)
    length = 4 * int(np.ceil(1.2 * last / 4))
    plan = timeline.poisson_pairs(topology.ring(n), length * replicas * _CROWD, seed=seed)
    models = models_of(seed, replicas * _CROWD, pieces(plan, length), _slow_start(n), every=4)
    left = np.sqrt(spread(models)).reshape(replicas, _CROWD, -1) >= epsilon
    late = left.mean(axis=1) > epsilon
    done = Assumption("runs are long enough", not late[:, -1].any(), "some runs had not averaged at the end")
    return Observation(4.0 * (late.sum(axis=1) + rounded_up) * 3 / last, (averages(plan), done))


def _averaging_time_claim(kind, factor: float, side: str) -> Claim:
    return Claim(
        f"pairwise_averaging_time_{kind}",
        f"The ε-averaging time is {side} {factor:g} ln(1/ε)/ln(1/λ₂(W̄)) events (ring of 8, slowest mode).",
        f"{BOYD}, theorem 3; time resolved to four events, rounded against the claim",
        Axis("ε", (0.3, 0.1, 0.05), (0.2,)),
        "averaging time over ln(1/ε)/ln(1/λ₂)",
        predict=lambda epsilon: np.full(len(epsilon), factor),
        simulate=each(lambda seed, epsilon, replicas: _averaging_time(seed, epsilon, replicas, kind == "upper")),
        sampling=Sampling(32, 10),
        catches=("two meetings in three that do nothing",)
        if kind == "upper"
        else ("mixing of more than two nodes in an event",),
        kind=kind,
        mark="recalled",
    )


def _mean(seed: int, points: Points, replicas: int) -> Observation:
    """Run models that are far apart and whose mean is one."""
    graph = topology.barabasi_albert(NODES, 2, seed=1)
    plan = timeline.poisson_pairs(graph, int(max(points)), seed=seed)
    x0 = 1.0 + 100.0 * starts(NODES)
    models = models_of(seed, 1, plan, x0, every=10)[0]
    means = models.mean(axis=1)
    farthest = means[np.arange(len(means)), np.abs(means - 1.0).argmax(axis=1)]
    return Observation(farthest[[int(k) // 10 - 1 for k in points]][None], (averages(plan),))


def _late_pairs(seed: int, t: float, replicas: int) -> Observation:
    """Estimate the ratio of mean disagreements half a second apart, as a mean of linearised replicas."""
    times = (float(t), float(t) + 0.5)

    def plan(k: int) -> Timeline:
        silent = clocks.deterministic(1e6)
        return timeline.pairwise(topology.star(8), times[1], compute=silent, communicate=1.5, seed=k)

    models, messages = timed_models(seed, times, replicas, plan, starts(8), 2 * 8 * 1.5)
    before, after = spread(models).T
    ratio = after.mean() / before.mean()
    path = moments_at(moments.pairwise_events(_star_meetings()), starts(8), np.asarray(times), lambda m: m.consensus)
    off = float(path[1] / path[0]) / _late_factor() - 1
    late = Assumption("the start is forgotten", bool(abs(off) < 1e-3), f"the ratio is off by {off:.1e} at {t:g} s")
    return Observation(ratio + (after - ratio * before) / before.mean(), (averages(plan(0)), messages, late))


def _late_factor() -> float:
    return float(np.exp(-0.5 * moments.averaging_second_moment_rate(_star_meetings(), event="exchange")))


CLAIMS = (
    _one_event_claim("node", timeline.poisson_pairs, "W̄ = I − (D − P − Pᵀ)/(2n)"),
    _one_event_claim("edge", timeline.poisson_edges, "W̄ = I − L/(2m)"),
    Claim(
        "pairwise_complete_graph",
        "Pairwise averaging on the complete graph: E V = V₀ ((n − 2)/(n − 1))^k after k events (n = 12).",
        f"{BOYD}, equality on the complete graph",
        Axis("events k", (4, 12, 24, 48), (4, 24)),
        DISAGREEMENT,
        predict=lambda k: spectral.pairwise_contraction(1.0 - np.eye(NODES)) ** k,
        simulate=_complete,
        sampling=Sampling(20_000, 1_500, independent=False),
        catches=("biased partner choice", "meeting oneself", "an exchange that works one way"),
    ),
    Claim(
        "pairwise_poisson_time",
        "With Poisson clocks of rate λ on the complete graph, E V(t) = V₀ exp(−λ t n/(n − 1)) (n = 12, λ = 2).",
        f"{BOYD}; a Poisson number of factors (n − 2)/(n − 1)",
        Axis("time t, s", (0.5, 1.0, 1.5), (0.75,)),
        DISAGREEMENT,
        predict=lambda t: np.exp(-2.0 * t * NODES / (NODES - 1)),
        simulate=each(_poisson_time),
        sampling=Sampling(6_000, 600),
        catches=("clocks of another rate", "a fixed number of events in a fixed time"),
    ),
    Claim(
        "pairwise_star_second_moments",
        "E x xᵀ of pairwise averaging obeys dZ/dt = Σ_e r_e (M_e Z M_eᵀ − Z) on any graph (star of 8, rate 1.5).",
        "theory.moments; the events are Boyd's",
        Axis("time t, s", (0.25, 0.5, 1.0, 2.0), (0.5, 1.0)),
        DISAGREEMENT,
        predict=lambda t: (
            8 * moments_at(moments.pairwise_events(_star_meetings()), starts(8), t, lambda m: m.consensus)
        ),
        simulate=_star,
        sampling=Sampling(8_000, 600, independent=False),
        catches=("clocks of another rate", "biased partner choice", "an exchange that works one way"),
    ),
    Claim(
        "pairwise_lambda2_bound",
        "After k pairwise events E V ≤ λ₂(W̄)^k V₀ from every start (ring of 12, its slowest mode).",
        f"{BOYD}, section II",
        Axis("events k", (4, 24, 48, 96), (24, 48)),
        DISAGREEMENT,
        predict=lambda k: _ring_lambda2(NODES) ** k,
        simulate=_slow,
        sampling=Sampling(8_000, 1_500, independent=False),
        catches=("two meetings in three that do nothing",),
        kind="upper",
    ),
    _averaging_time_claim("upper", 3.0, "at most"),
    _averaging_time_claim("lower", 0.5, "at least"),
    Claim(
        "pairwise_mean_conserved",
        "Pairwise averaging conserves the mean in every run (preferential attachment, n = 12).",
        "each event's matrix is doubly stochastic",
        Axis("events k", (10, 100, 1000, 5000), (10, 1000)),
        "mean model (start: 1; the farthest of three)",
        predict=np.ones_like,
        simulate=_mean,
        # models of size 100 round by 1.4e-14 per event; most events come later, when models are smaller
        sampling=once(1e-12, independent=False),
        catches=("an exchange that works one way", "reading a model that was just overwritten"),
    ),
    *_pushes.CLAIMS,
    Claim(
        "pairwise_second_moment_rate",
        "Eventually E V decays at the spectral abscissa of Σ_e r_e (A_e ⊗ A_e − I), on the disagreement (star of 8).",
        f"derived, theory.moments; the one-event bound is {BOYD}",
        Axis("time t, s", (4.0,), (4.0,)),
        "ratio of disagreements at t + ½ s and t",
        predict=lambda t: np.full(t.shape, _late_factor()),
        simulate=each(_late_pairs),
        sampling=Sampling(8_000, 2_000),
        catches=("clocks of another rate", "an exchange that works one way"),
    ),
)
