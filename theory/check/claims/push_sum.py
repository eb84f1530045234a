"""Claims on push-sum, which averages by sending shares of its mass."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import Timeline, timeline, topology
from gossipjax.mixing import column_stochastic
from gossipjax.types import NOBODY

from ... import mixing
from ..claim import Assumption, Axis, Claim, Observation, Points, Sampling, each, once, pointwise
from ._averages import NODES, models_of, random_rounds
from ._pushes import growth

KEMPE = "Kempe, Dobra, Gehrke 2003"


def _masses(state):
    return state.x, state.w


def _mass_of() -> gj.Protocol:
    """Build push-sum that shows its numerators and weights."""
    return gj.push_sum()._replace(model=Partial(_masses))


def _conserves(plan: Timeline) -> Assumption:
    return Assumption("mixing is column stochastic", "column_stochastic" in plan.properties, plan.properties.name)


def _in_flight(plan: Timeline) -> np.ndarray:
    """Find the rows of messages that were sent but not delivered when the plan ends."""
    n, sent, taken = plan.properties.num_nodes, plan.xs["receivers"][:, 1], plan.xs["senders"][:, 1]
    last = np.full((2, n + plan.properties.num_slots), -1)
    for rows, at in ((sent, last[0]), (taken, last[1])):
        events = np.flatnonzero((rows >= n) & (rows < NOBODY))
        np.maximum.at(at, rows[events], events)
    return np.flatnonzero(last[0] > last[1])


def _mass(seed: int, latency: float, replicas: int) -> Observation:
    plan = timeline.directed_push(
        topology.exponential(NODES), 20.0, compute=None, send=1.0, latency=latency or None, seed=seed
    )
    facts, flying = plan.properties, _in_flight(plan)
    assert facts.traffic is not None
    total = NODES + facts.num_slots
    # Rows of messages are recorded as well.
    plan = dataclasses.replace(plan, properties=dataclasses.replace(facts, num_rows=total, num_slots=0))
    positive = np.zeros((total, 3))
    positive[:NODES] = 1.0 + np.random.default_rng(seed).random((NODES, 3))
    rows = models_of(seed, 1, plan, positive, protocol=_mass_of())[0, -1]
    ratio = rows[[*range(NODES), *flying]].sum(axis=0) / np.append(positive.sum(axis=0), NODES)
    counted = Assumption(
        "messages in flight are those of the plan",
        facts.traffic.in_flight == len(flying),
        f"{len(flying)} rows, {facts.traffic.in_flight} messages",
    )
    return Observation(np.asarray([ratio[np.abs(ratio - 1.0).argmax()]]), (_conserves(plan), counted))


def _limit(seed: int, latency: float, replicas: int) -> Observation:
    plan = timeline.directed_push(
        topology.exponential(NODES), 120.0, compute=None, send=1.0, latency=latency or None, seed=seed
    )
    positive = 1.0 + np.random.default_rng(seed).random((NODES, 3))
    z = models_of(seed, 1, plan, positive, protocol=gj.push_sum())[0, -1] / positive.mean(axis=0)
    return Observation(z.ravel()[[np.abs(z - 1.0).argmax()]], (_conserves(plan),))


def _ratio_errors(seed: int, P, num_rounds: int) -> tuple[np.ndarray, Timeline]:
    """Return ‖z(t) − x̄‖ of push-sum in rounds, from a spike that is not at a hub: symmetry would hide slow modes."""
    plan = timeline.rounds(P, num_rounds, stochastic="column")
    spike = np.zeros((len(plan.shared["mixing"][0]), 1))
    spike[-1] = 1.0
    z = models_of(seed, 1, plan, spike, every=1, protocol=gj.push_sum())[0]
    return np.linalg.norm(z - spike.mean(), axis=(1, 2)), plan


def _ring_rate(seed: int, n: float, replicas: int) -> Observation:
    size = int(n)
    P = (np.eye(size) + np.roll(np.eye(size), 1, axis=0)) / 2
    errors, plan = _ratio_errors(seed, P, size * size)
    return Observation(errors[[-1]] / errors[[-2]], (_conserves(plan),))


_GRAPHS = (topology.path(NODES), topology.star(NODES), topology.barabasi_albert(NODES, 2, seed=1))
_ROUNDS = 900


def _shares(graph: gj.topology.Topology) -> np.ndarray:
    """Compute P = (A + I) (D + I)⁻¹."""
    P = graph.adjacency().toarray() + np.eye(graph.num_nodes)
    return P / P.sum(axis=0)


def _uneven_rate(seed: int, graph: float, replicas: int) -> Observation:
    """Measure when errors are about 1e-10 of their start: weights have settled, and rounding does not matter yet."""
    chosen = _GRAPHS[int(graph)]
    errors, plan = _ratio_errors(seed, column_stochastic(chosen), _ROUNDS)
    at = int(np.searchsorted(-errors, -1e-10))
    late = Assumption("the error has become small", at < _ROUNDS, f"it is {errors[-1]:.2g}")
    at = min(at, _ROUNDS - 1)
    return Observation(errors[[at]] / errors[[at - 1]], (_conserves(plan), late))


def _uniform_shares(rng: np.random.Generator, n: int, self_allowed: bool) -> np.ndarray:
    """Draw one round: every node keeps half and pushes half to a random target."""
    own = np.arange(n)
    target = rng.integers(0, n, n) if self_allowed else (own + rng.integers(1, n, n)) % n
    P = np.eye(n) / 2
    np.add.at(P, (target, own), 0.5)
    return P


def _potential(seed: int, points: Points, replicas: int, self_allowed: bool) -> Observation:
    n, length = 8, int(max(points))
    rng = np.random.default_rng(seed)
    matrices = np.stack([_uniform_shares(rng, n, self_allowed) for _ in range(length * replicas)])
    matrices = matrices.reshape(replicas, length, n, n)
    rows, plan = random_rounds(seed, matrices, np.eye(n), stochastic="column", protocol=_mass_of())
    shares, w = rows[..., :n], rows[..., n:]
    worst = float(np.abs(shares.sum(axis=-1, keepdims=True) - w).max())
    own = Assumption("weights are the sums of the shares", worst < 1e-12, f"off by {worst:.2g}")
    potential = np.square(shares - w / n).sum(axis=(2, 3)) / (n - 1)
    return Observation(potential[:, [int(t) - 1 for t in points]], (_conserves(plan), own))


def _potential_claim(self_allowed: bool, formula: str, words: str) -> Claim:
    return Claim(
        f"push_sum_potential_{'any_target' if self_allowed else 'other_target'}",
        f"Uniform push-sum, {words}: E Φ_t = Φ₀ ({formula})^t (n = 8).",
        f"derived, confirmed by enumerating outcomes; potential of {KEMPE}",
        Axis("rounds t", (1, 2, 4), (1, 2)),
        "potential Φ = Σ_ij (v_ij − w_i/n)² over its start",
        predict=lambda t: mixing.push_sum_factor(8, self_allowed) ** t,
        simulate=lambda seed, points, replicas: _potential(seed, points, replicas, self_allowed),
        sampling=Sampling(1_600, 400, independent=False),
        catches=("weights that do not travel", "mixing by the transpose"),
    )


def _within(seed: int, rate: float, replicas: int) -> Observation:
    plan = timeline.directed_push(topology.exponential(NODES), 30.0, compute=None, send=rate, seed=seed)
    positive = 1.0 + np.random.default_rng(seed).random((NODES, 3))
    z = models_of(seed, 1, plan, positive, every=1, protocol=gj.push_sum())[0]
    return Observation(np.asarray([growth(np.concatenate([positive[None], z]))]), (_conserves(plan),))


CLAIMS = (
    Claim(
        "push_sum_mass_conserved",
        "Push-sum conserves Σx and Σw, messages in flight included (exponential graph of 12, 20 s).",
        f"{KEMPE}, mass conservation",
        Axis("latency, s", (0.0, 0.2, 1.0, 5.0), (0.0, 1.0)),
        "mass at the end over mass at the start (the farthest of four)",
        predict=np.ones_like,
        simulate=each(_mass),
        sampling=once(1e-13),  # rounding errors of a few hundred sums of positive terms; halving is exact
        catches=("a message delivered twice or never", "a row of messages taken again before its delivery"),
    ),
    Claim(
        "push_sum_finds_the_mean",
        "Push-sum tends to the mean of the start on directed graphs, with or without delays (after 120 s).",
        f"{KEMPE}; weights travel with the numerators",
        Axis("latency, s", (0.0, 0.2, 1.0), (0.2,)),
        "x/w over the mean of the start (the farthest)",
        predict=np.ones_like,
        simulate=each(_limit),
        sampling=once(1e-9),  # remaining differences after 120 sends of each node
        catches=("weights that do not travel", "a message that carries a later model than its sender had"),
    ),
    Claim(
        "push_sum_directed_ring",
        "Push-sum on the directed ring, half kept, half sent on: the error shrinks by cos(π/n) per round.",
        "eigenvalues (1 + exp(2πik/n))/2",
        Axis("nodes n", (4, 12, 20), (12,)),
        "ratio of errors, rounds n² and n² − 1",
        predict=pointwise(mixing.push_sum_rate_ring),
        simulate=each(_ring_rate),
        sampling=once(1e-10),  # the second mode is (cos(2π/n)/cos(π/n))^(2n²) < e^(−3π²) of the first
        catches=("shares passed on to both sides",),
    ),
    Claim(
        "push_sum_rate",
        "Push-sum on a fixed P: the error of x/w eventually shrinks by |λ₂(P)| per round, from almost every start.",
        f"Perron and Frobenius; {KEMPE} (the algorithm)",
        Axis("graph of 12: path, star, preferential attachment", (0, 1, 2), (0, 2)),
        "ratio of errors of consecutive rounds",
        predict=pointwise(lambda g: mixing.push_sum_rate(_shares(_GRAPHS[g]))),
        simulate=each(_uneven_rate),
        sampling=once(1e-4),  # the third mode, and products of two modes, when the error is 1e-10
        catches=("weights that do not travel", "mixing by the transpose"),
    ),
    _potential_claim(True, "½ − 1/(4n)", "targets uniform over all"),
    _potential_claim(False, "½ − 1/(2(n − 1)) − (n − 2)/(4(n − 1)²)", "oneself excluded"),
    Claim(
        "push_sum_stays_within",
        "No send raises the largest x/w or lowers the smallest: the receiver's ratio is a convex combination.",
        "x_j/w_j averages ratios by the weights that arrive",
        Axis("sends per node and second", (1.0, 2.0), (1.0,)),
        "largest growth of an extreme in one event",
        predict=np.ones_like,
        simulate=each(_within),
        sampling=once(1e-14),  # a sum and a quotient
        catches=("weights that do not travel",),
        kind="upper",
    ),
)
