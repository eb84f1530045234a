"""Claims on asynchronous push-gossip SGD on quadratics, whose events are all linear."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax.observe import Observer, Variable
from gossipjax.timeline import clocks, drawn_gossip, push_gossip

from ... import moments, users
from ..claim import Axis, Claim, Observation, Points, Sampling, each
from ..engine import planned_runs, runs, settled
from .learning import copies_of

PUSH_SGD = "Mitra and Ulukus 2024, arXiv 2404.19749 (the algorithm); linear event system, derived here"
NODES = Axis("nodes n", (3, 6, 12, 24), (6,))
SAMPLING = Sampling(192, 64)


def _moments_of(snapshot: Any) -> dict[str, Any]:
    mean = jnp.mean(snapshot.x, axis=0, keepdims=True)
    return {
        "V": jnp.mean(jnp.square(snapshot.x - mean)),
        "U": jnp.mean(jnp.square(mean)),
        "first": jnp.mean(snapshot.x[0]),
        "square": jnp.mean(jnp.square(snapshot.x[0])),
    }


BOTH = Observer(
    Partial(_moments_of),
    (
        Variable("V", "consensus distance"),
        Variable("U", "squared mean"),
        Variable("first", "model of node 0"),
        Variable("square", "square of node 0's model"),
    ),
)
COPIES = 16
"""Coordinates that share the meetings of an asynchronous run but not its noise, which makes its mean more precise."""


def _asynchronous(seed: int, n: int, replicas: int, make: Any, name: str, *, targets: Any = None) -> Observation:
    """Average independent runs over time: complete graph, n equal nodes, updates at rate 1, pushes at rate 2."""
    task = copies_of(np.zeros(n) if targets is None else targets, COPIES, noise=0.7)
    every = 16 * n
    burn_in, records = 12, 24
    plan = drawn_gossip(n, every * (burn_in + records), update_rate=1.0, gossip_rate=2.0)
    measured = runs(
        seed, replicas, make(task, Partial(optax.sgd, 0.25)), plan, jnp.zeros((n, COPIES)), [BOTH], every=every
    )
    values = measured[name][:, burn_in:]
    return Observation(values.mean(axis=1), (settled(values),))


def _complete(n: np.ndarray, field: str) -> np.ndarray:
    one = [
        moments.complete_graph_moments(
            int(k), push_rate=2.0, gradient_rate=1.0, curvature=1.0, step=0.25, noise_std=0.7
        )
        for k in n
    ]
    return np.asarray([getattr(pair, field) for pair in one])


RING6 = {
    "rates": np.array([1.0, 2.0, 0.5, 1.0, 1.0, 3.0]),
    "curvatures": np.array([1.0, 0.5, 2.0, 1.0, 1.0, 0.7]),
    "targets": np.array([1.0, -1.0, 0.5, 0.0, 2.0, -0.5]),
}


def _ring6_moments() -> moments.ConsensusAndMean:
    pushes = np.zeros((6, 6))
    graph = gj.topology.ring(6)
    pushes[graph.senders, graph.receivers] = 0.75
    events = moments.push_gossip_sgd_events(
        pushes, RING6["rates"], RING6["curvatures"], RING6["targets"], step=0.15, noise_std=0.8
    )
    return moments.consensus_and_mean(moments.stationary_moments(events), 6)


def _ring6(seed: int, points: Points, replicas: int) -> Observation:
    """Measure a ring whose rates of updates, curvatures and targets differ. Points: 0 consensus, 1 squared mean."""
    task = copies_of(RING6["targets"], COPIES, curvature=RING6["curvatures"], noise=0.8)
    compute, times = clocks.poisson(RING6["rates"]), 50.0 + 6.0 * np.arange(1, 17)

    def plan(k: int) -> gj.Timeline:
        return push_gossip(gj.topology.ring(6), float(times[-1]), compute=compute, gossip=1.5, seed=k)

    protocol = gj.dpsgd(task, Partial(optax.sgd, 0.15))
    records = planned_runs(seed, replicas, protocol, plan, times, jnp.zeros((6, COPIES)), [BOTH])
    both = [records["V"], records["U"]]
    return Observation(np.stack([both[int(p)].mean(axis=1) for p in points], axis=1), (settled(both[0]),))


def _stale_moments(n: np.ndarray) -> np.ndarray:
    values = []
    for k in n.astype(int):
        pushes = np.full((k, k), 2.0 / (k - 1))
        np.fill_diagonal(pushes, 0.0)
        events = moments.stale_gradient_events(pushes, np.ones(k), np.ones(k), np.zeros(k), step=0.25, noise_std=0.7)
        values.append(moments.consensus_and_mean(moments.stationary_moments(events), int(k)).consensus)
    return np.asarray(values)


def _apart(seed: int, n: float, replicas: int, name: str, others: float = 0.0) -> Observation:
    """Measure node 0, whose target is 1, among nodes with another target."""
    targets = np.full(int(n), others)
    targets[0] = 1.0
    return _asynchronous(seed, int(n), replicas, gj.dpsgd, name, targets=targets)


def _distant(seed: int, n: float, replicas: int) -> Observation:
    """Measure ``(x_0 − b̄)²`` of the node whose target differs; the mean target is 0."""
    return _apart(seed, n, replicas, "square", others=-1.0 / (int(n) - 1))


def _distance(n: np.ndarray) -> np.ndarray:
    rates = {"push_rate": 2.0, "gradient_rate": 1.0, "curvature": 1.0, "step": 0.25, "noise_std": 0.7}
    found = []
    for k in n.astype(int):
        sizes, targets = np.array([1, k - 1]), np.array([1.0, -1.0 / (k - 1)])
        found.append(users.stationary_users(sizes, targets, **rates).squared_distance[0])
    return np.asarray(found)


def _pull(n: np.ndarray) -> np.ndarray:
    """``E x_0 = b̄ + κ (b_0 − b̄)`` with b_0 = 1 and all other targets 0."""
    kappa = [
        moments.heterogeneity_factor(int(k), gossip_rate=2.0, gradient_rate=1.0, curvature=1.0, step=0.25) for k in n
    ]
    return 1 / n + np.asarray(kappa) * (1 - 1 / n)


CLAIMS = (
    Claim(
        "push_sgd_consensus_complete_graph",
        "Asynchronous push-gossip SGD on K_n: consensus by two linear equations (λ = 2, η = ¼, σ = 0.7).",
        PUSH_SGD,
        NODES,
        "consensus distance",
        predict=lambda n: _complete(n, "consensus"),
        simulate=each(lambda seed, n, replicas: _asynchronous(seed, int(n), replicas, gj.dpsgd, "V")),
        sampling=SAMPLING,
        catches=("biased partner choice", "gradient noise shared by nodes", "mixing weights swapped"),
    ),
    Claim(
        "push_sgd_mean_complete_graph",
        "Asynchronous push-gossip SGD on K_n: E x̄² from the same equations; pushes move the mean as well.",
        PUSH_SGD,
        NODES,
        "mean squared error of the mean model",
        predict=lambda n: _complete(n, "mean_square"),
        simulate=each(lambda seed, n, replicas: _asynchronous(seed, int(n), replicas, gj.dpsgd, "U")),
        sampling=Sampling(192, 96),
        catches=("biased partner choice", "pushes that conserve the mean"),
    ),
    Claim(
        "push_sgd_heterogeneous_ring",
        "On any graph with any rates, curvatures, targets: Σ r_e (M_e Z M_eᵀ + Q_e − Z) = 0 (ring of 6).",
        PUSH_SGD,
        Axis("0: consensus distance, 1: squared mean", (0, 1), (0, 1)),
        "second moment",
        predict=lambda which: np.asarray(_ring6_moments())[which.astype(int)],
        simulate=_ring6,
        sampling=Sampling(512, 128, independent=False),
        catches=("rates of other nodes", "curvature of another node", "edges off by one neighbour"),
    ),
    Claim(
        "stale_gradients_consensus",
        "Gradients of the model at the start of the interval (AD-PSGD on pushes): moments of (x, snapshot, 1) (K_n).",
        "Lian et al. 2018, arXiv 1710.06952 (the algorithm); linear event system, derived here",
        Axis("nodes n", (3, 5, 8), (5,)),
        "consensus distance",
        predict=_stale_moments,
        simulate=each(lambda seed, n, replicas: _asynchronous(seed, int(n), replicas, gj.ad_psgd, "V")),
        sampling=SAMPLING,
        catches=("stale snapshot used twice", "a fresh gradient where a stale one is due"),
    ),
    Claim(
        "push_sgd_heterogeneity",
        "Targets pull nodes apart by κ = μh/(μh + λn/(2(n−1))): E x_i − b̄ = κ (b_i − b̄) on K_n.",
        PUSH_SGD,
        NODES,
        "mean model of the node whose target differs",
        predict=_pull,
        simulate=each(lambda seed, n, replicas: _apart(seed, n, replicas, "first")),
        sampling=SAMPLING,
        catches=("targets of another node", "mixing weights swapped"),
    ),
    Claim(
        "push_sgd_worst_user",
        "On K_n the mean squared distance of one user from the optimum of all solves six linear equations.",
        PUSH_SGD,
        NODES,
        "mean squared distance of the user whose target differs",
        predict=_distance,
        simulate=each(_distant),
        sampling=SAMPLING,
        catches=("targets of another node", "biased partner choice"),
    ),
)
