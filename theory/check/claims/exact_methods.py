"""Claims on methods that are exact under heterogeneity, on failing rounds, and on noise that sums to zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import observe, timeline, topology

from ... import exact
from ..claim import Axis, Claim, Observation, Points, Sampling, each, once, pointwise
from ..engine import averages, runs, settled
from ._averages import models_of, pieces
from .learning import CURVATURES, TARGETS, copies_of

RING = topology.ring(8)
W = gj.mixing.metropolis(RING)
OPTIMUM = (CURVATURES * TARGETS).sum() / CURVATURES.sum()
RATE = "factor of the error a round"
SPECTRUM = "spectrum of the iteration matrix on quadratics, derived in theory.exact"
DEPTH = 1e-10
"""How far the error falls before its factor is measured: other modes are then small, and rounding is smaller still."""


def _decay(errors: np.ndarray) -> float:
    """Return ``|λ|`` of the slowest mode, or pair of modes, from ``e_{t+2} = c₁ e_{t+1} + c₂ e_t`` at the end."""
    last = errors[-12:]
    past = np.stack([last[1:-1].ravel(), last[:-2].ravel()], axis=1)
    scale = np.abs(past).max()
    c1, c2 = np.linalg.lstsq(past / scale, last[2:].ravel() / scale, rcond=None)[0]
    return float(np.abs(np.roots([1, -c1, -c2])).max())


def _measured(protocol: Callable[[gj.Task, float], gj.Protocol], predicted: Callable[[float], float]) -> Any:
    """Run a method on quadratics until the predicted rate has brought the error down, and measure its factor."""

    def one(seed: int, point: float, replicas: int) -> Observation:
        del replicas
        rounds = int(np.ceil(np.log(DEPTH) / np.log(predicted(point))))
        task, plan = copies_of(TARGETS, 1, curvature=CURVATURES, noise=0.0), timeline.rounds(W, rounds)
        found = runs(seed, 1, protocol(task, point), plan, jnp.zeros((8, 1)), [observe.models()], every=1)["model"][0]
        return Observation(np.asarray([_decay(found[..., 0] - OPTIMUM)]), (averages(plan),))

    return each(one)


def _rate_claim(name: str, words: str, axis: Axis, protocol: Any, predicted: Callable[[float], float]) -> Claim:
    return Claim(
        f"{name}_rate",
        f"{words} converges at the spectral radius of its iteration matrix (ring of 8, unequal a).",
        SPECTRUM,
        axis,
        RATE,
        predict=pointwise(predicted),
        simulate=_measured(protocol, predicted),
        sampling=once(2e-3),  # the next modes, which DEPTH leaves at about 1e-3 of the slowest
        catches=("mixing with W for ½ (I + W)", "a gradient of the wrong round", "a lost correction"),
    )


def _prox(task: gj.Task, node: Any, z: Any, step_size: Any) -> Any:
    a, b = task.data["curvature"][node], task.data["targets"][node]
    return (z + step_size * a * b) / (1 + step_size * a)


STEPS = Axis("step size γ", (0.2, 0.6, 0.7), (0.6,))
RATES = (
    _rate_claim(
        "exact_diffusion",
        "Exact diffusion",
        STEPS,
        lambda task, step: gj.exact_diffusion(task, Partial(optax.sgd, step)),
        lambda step: exact.exact_diffusion_rate(W.toarray(), CURVATURES, step),
    ),
    _rate_claim(
        "nids",
        "NIDS with equal steps",
        STEPS,
        lambda task, step: gj.nids(task, step),
        lambda step: exact.exact_diffusion_rate(W.toarray(), CURVATURES, step),
    ),
    _rate_claim(
        "extra",
        "EXTRA",
        Axis("step size γ", (0.2, 0.6), (0.6,)),
        lambda task, step: gj.extra(task, Partial(optax.sgd, step)),
        lambda step: exact.extra_rate(W.toarray(), CURVATURES, step),
    ),
    _rate_claim(
        "admm",
        "Decentralized ADMM",
        Axis("penalty ρ", (0.2, 0.5, 1.0, 2.0), (0.5,)),
        lambda task, penalty: gj.admm(RING, Partial(_prox, task), penalty=penalty),
        lambda penalty: exact.admm_rate(RING.adjacency().toarray(), CURVATURES, penalty=penalty),
    ),
)

VALUES = np.arange(8.0)


def _relayed(seed: int, points: Points, replicas: int) -> Observation:
    """Measure the distance of all nodes of a path from the exact average, after each number of rounds."""
    del replicas
    path = topology.path(8)
    plan = timeline.rounds(gj.mixing.metropolis(path), 8)
    models = models_of(seed, 1, plan, VALUES[:, None], every=1, protocol=gj.relay_averaging(path))[0]
    errors = np.linalg.norm(models[..., 0] - VALUES.mean(), axis=1)
    return Observation(errors[[int(t) - 1 for t in points]][None], (averages(plan),))


def _within(t: int) -> float:
    """Compute the same from the averages over all nodes within t of each node."""
    near = np.abs(np.subtract.outer(VALUES, VALUES)) <= t
    return float(np.linalg.norm(near @ VALUES / near.sum(1) - VALUES.mean()))


RELAY = Claim(
    "relay_sum_average",
    "After t rounds RelaySum holds the average over all nodes within t: exact from the diameter on (path of 8).",
    "Vogels et al. 2021, arXiv 2110.04175 (the mechanism); counts on a path, derived here",
    Axis("rounds t", (1, 2, 4, 6, 7, 8), (1, 6, 7)),
    "error ‖x − x̄‖",
    predict=pointwise(_within),
    simulate=_relayed,
    sampling=once(1e-13, independent=False),
    catches=("a relay that sends back what it received", "a count that misses a node"),
)

SIX = topology.ring(6)
START = np.arange(6.0) - 2.5
ACTIVE, LOSS = 0.7, 0.2


def _failing(seed: int, points: Points, replicas: int) -> Observation:
    length = 8
    coins = timeline.activity.bernoulli(ACTIVE, seed=seed)
    losses = timeline.losses.independent(LOSS, seed=seed + 1)
    plan = timeline.changing_rounds(SIX, length * replicas, activity=coins, loss=losses)
    models = models_of(seed, replicas, pieces(plan, length), START[:, None], every=1)[..., 0]
    return Observation(models.var(axis=2)[:, [int(t) - 1 for t in points]] * 6)


def _square_path() -> np.ndarray:
    return exact.failing_rounds(SIX.adjacency().toarray(), START, 8, active=ACTIVE, loss=LOSS)


FAILING = Claim(
    "failing_rounds_mean_square",
    "Under Bernoulli activity and loss E Σ(x_i − x̄)² follows E W ⊗ W over all sets and coins (ring of 6).",
    "E W Z Wᵀ given the active set, averaged over the sets: theory.exact.failing_rounds",
    Axis("rounds t", (1, 2, 4, 8), (1, 4)),
    "squared disagreement V",
    predict=lambda t: exact.failing_rounds(SIX.adjacency().toarray(), START, 8, active=ACTIVE, loss=LOSS)[
        t.astype(int)
    ],
    simulate=_failing,
    sampling=Sampling(20_000, 2_000, independent=False),
    catches=(
        "weights of the degrees in the whole graph",
        "a lost weight that leaves its receiver",
        "coins that repeat",
    ),
)


MEAN = 1.0
"""Mean of the start."""


def _noise_floor(zero_sum: bool) -> Callable[[float], float]:
    """Compute Σ_k c_k w_k² / (1 − w_k²) / n with the variance c_k of the noise in each mode: σ², or σ² ℓ_k."""
    w, modes = np.linalg.eigh(W.toarray())
    lifts = np.einsum("ik,ij,jk->k", modes, 2 * np.eye(8) - RING.adjacency().toarray(), modes)
    power = lifts if zero_sum else np.ones(8)
    return lambda std: float(std**2 * np.sum((power * w**2)[:-1] / (1 - w[:-1] ** 2)) / 8)


def _noise(zero_sum: bool, read: Callable[[np.ndarray], np.ndarray]) -> Callable[[int, float, int], np.ndarray]:
    def one(seed: int, std: float, copies: int) -> np.ndarray:
        noise = gj.sharing.decor(RING, 0.0, std) if zero_sum else gj.sharing.noisy(std)
        protocol = gj.gossip_averaging(noise)
        plan, x0 = timeline.rounds(W, 160), jnp.full((8, copies), MEAN)
        return read(runs(seed, 1, protocol, plan, x0, [observe.models()], every=40)["model"][0])

    return one


def _floor(zero_sum: bool) -> Any:
    measure = _noise(zero_sum, lambda models: models[1:].var(axis=1).T)

    def one(seed: int, std: float, copies: int) -> Observation:
        values = measure(seed, std, copies)
        return Observation(values.mean(axis=1), (settled(values),))

    return each(one)


def _drift(seed: int, std: float, copies: int) -> Observation:
    return Observation(_noise(False, lambda models: np.square(models[-1].mean(axis=0) - MEAN))(seed, std, copies))


def _farthest(models: np.ndarray) -> np.ndarray:
    return MEAN + np.abs(models[-1].mean(axis=0) - MEAN).max(keepdims=True)


def _kept(seed: int, std: float, copies: int) -> Observation:
    return Observation(
        _noise(True, lambda models: MEAN + np.abs(models[-1].mean(axis=0) - MEAN).max(keepdims=True))(seed, std, 50)
    )


STDS = Axis("standard deviation σ", (0.1, 1.0), (1.0,))
SAMPLING = Sampling(4000, 1000)
NOISE = (
    *(
        Claim(
            f"noise_floor_{'zero_sum' if zero_sum else 'independent'}",
            f"{words} settles at consensus (1/n) Σ_k {power} w_k²/(1 − w_k²) (ring of 8).",
            "modes of x ← W (x + σ η), derived here",
            STDS,
            "consensus distance",
            predict=pointwise(_noise_floor(zero_sum)),
            simulate=_floor(zero_sum),
            sampling=SAMPLING,
            catches=("noise that repeats", "noise that the sender does not keep", "both ends of an edge with one sign"),
        )
        for zero_sum, words, power in (
            (False, "Averaging with independent noise", "σ²"),
            (True, "Averaging with noise of pairs that sums to zero", "σ² ℓ_k"),
        )
    ),
    Claim(
        "noise_moves_the_mean",
        "Independent noise moves the mean: E (x̄ − x̄₀)² = t σ²/n after t = 160 rounds (ring of 8).",
        "the mean is a random walk, derived here",
        STDS,
        "squared move of the mean",
        predict=pointwise(lambda std: 160 * std**2 / 8),
        simulate=each(_drift),
        sampling=SAMPLING,
        catches=("noise shared by nodes", "noise that repeats"),
    ),
    Claim(
        "zero_sum_noise_keeps_the_mean",
        "Noise of pairs that sums to zero leaves the mean as it is, here 1, after 160 rounds (ring of 8).",
        "Σ_i η_i = 0 and W is doubly stochastic",
        STDS,
        "1 + largest |x̄ − 1|",
        predict=pointwise(lambda std: MEAN),
        simulate=each(_kept),
        sampling=once(1e-13),
        catches=("ends of an edge that draw different numbers",),
    ),
)
CLAIMS = (*RATES, RELAY, FAILING, *NOISE)
