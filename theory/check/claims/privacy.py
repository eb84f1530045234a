"""Claims on noise for privacy: the best attack on a run has the area that exact μ predicts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from scipy.special import ndtr

import gossipjax as gj
from gossipjax import observe, privacy, sharing, timeline, topology

from ... import privacy as formulas
from ..claim import Axis, Claim, Observation, Sampling, each, pointwise
from ..engine import runs

RING, PATH, FIVE = topology.ring(4), topology.path(4), topology.complete(5)
AREA = "area under the ROC curve of the best attack"
SAMPLING = Sampling(20_000, 4_000)
CLIP, NOISE = 0.5, 4.0
NOTHING = 1e-30
"""A curvature that pulls at nothing."""


def _area(mu_squared: float) -> float:
    return float(ndtr(np.sqrt(mu_squared / 2)))


def _wins(absent: np.ndarray, there: np.ndarray) -> Observation:
    """Compare the scores of independent runs in which a node contributes nothing, and in which it contributes Δ."""
    return Observation((there > absent).astype(np.float64))


# Steps


def _steps_area(steps: int) -> float:
    return _area(steps / NOISE**2)


def _scores(seed: int, pull: float, steps: int, replicas: int) -> np.ndarray:
    """Return how far a node has moved after steps towards a target that pulls more than the clip, or not at all."""
    plain = gj.tasks.quadratic(np.full((2, 1), 1e6), curvature=np.full((2, 1), pull))
    task = privacy.node_dp(plain, clip=CLIP, noise=NOISE)
    protocol = gj.dpsgd(task, Partial(optax.sgd, 1.0))
    plan = timeline.rounds(np.eye(2), steps)
    return runs(seed, replicas, protocol, plan, jnp.zeros((2, 1)), [observe.models()])["model"][:, -1, 0, 0]


def _steps(seed: int, steps: float, replicas: int) -> Observation:
    return _wins(_scores(seed, NOTHING, int(steps), replicas), _scores(seed + 1, 1.0, int(steps), replicas))


# Noise of pairs


def _moves(seed: int, pair_std: float, rounds: int, replicas: int) -> np.ndarray:
    """Return what an eavesdropper sees of each round: messages less those of the round before, ``(rounds, 4, k)``."""
    protocol = gj.gossip_averaging(sharing.decor(RING, 1.0, pair_std))
    plan, x0 = timeline.rounds(np.eye(4), rounds), jnp.zeros((4, replicas))
    model = runs(seed, 1, protocol, plan, x0, [observe.models()], every=1)["model"][0]
    return np.diff(model, axis=0, prepend=0)


def _decor(seed: int, pair_std: float, rounds: int, replicas: int) -> Observation:
    laplacian = 2 * np.eye(4) - RING.adjacency().toarray()
    best = np.linalg.inv(np.eye(4) + pair_std**2 * laplacian)[0]
    noise = np.einsum("tik,i->k", _moves(seed, pair_std, rounds, 2 * replicas), best)
    return _wins(noise[:replicas], noise[replicas:] + rounds * best[0])


def _decor_area(pair_std: float, rounds: int) -> float:
    return _area(formulas.pairwise_mu_squared(RING.adjacency().toarray(), 1.0, pair_std, rounds)[0])


# Noise of receivers


def _receivers(seed: int, colluders: float, replicas: int) -> Observation:
    """The best score of receivers with equal weights is the sum of what they hear."""
    said, plan = sharing.zip_dl(FIVE, 1.0), timeline.rounds(gj.mixing.metropolis(FIVE), 1)
    event = plan.event(jax.random.key(seed), plan.shared, jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), plan.xs))
    x = jnp.zeros((5, 2 * replicas))
    heard = np.asarray(jax.jit(said.encode)(jax.random.key(seed), (), x, x, event)[1][0])[0, : int(colluders)].sum(
        axis=0
    )
    return _wins(heard[:replicas], heard[replicas:] + colluders)


# Noise at the start


def _start(seed: int, std: float, replicas: int) -> Observation:
    """Let node 0 solve for the start of node 3 from the three models of node 1 that it hears."""
    W = gj.mixing.metropolis(PATH)
    noise = std * np.random.default_rng(seed).standard_normal((4, 2 * replicas))
    plan = timeline.rounds(W, 2)
    found = runs(seed, 1, gj.gossip_averaging(), plan, jnp.asarray(noise), [observe.models()], every=1)["model"][0]
    heard = np.stack([noise[1], *found[:, 1]])  # a model is sent before its round is mixed
    rows = np.stack([np.linalg.matrix_power(W.toarray(), t)[1] for t in range(3)])
    solved = np.linalg.solve(rows[:, 1:], heard - rows[:, :1] * noise[:1])[2]
    return _wins(solved[:replicas], solved[replicas:] + 1)


STEPS = Axis("steps T", (1, 4, 16, 64), (4, 16))
STDS = Axis("standard deviation of the noise of a pair", (0.0, 1.0, 3.0), (1.0,))
CLAIMS = (
    Claim(
        "private_steps_area",
        "T clipped steps with noise z: the best test of whether a node took them has the area Φ(√T/(z√2)).",
        "√T/z-Gaussian differential privacy is reached by equal steps: Dong, Roth and Su 2022, corollary 1",
        STEPS,
        AREA,
        predict=pointwise(_steps_area),
        simulate=each(_steps),
        sampling=SAMPLING,
        catches=("noise that repeats in steps or nodes", "noise that is not a multiple of the clip", "a lost clip"),
    ),
    Claim(
        "decor_area",
        "DECOR: an eavesdropper's best test of one step of a node has the area Φ(μ/√2), μ² = (Σ⁻¹)_ii (ring of 4).",
        "the covariance of what is sent: theory.privacy.pairwise_mu_squared",
        STDS,
        AREA,
        predict=pointwise(lambda std: _decor_area(std, 1)),
        simulate=each(lambda seed, std, replicas: _decor(seed, std, 1, replicas)),
        sampling=SAMPLING,
        catches=("both ends of an edge with one sign", "noise of pairs that is weighted by W", "noise of another size"),
    ),
    Claim(
        "decor_area_in_rounds",
        "DECOR, fresh in every round: the best test of T equal steps has the area Φ(√T μ/√2) (ring of 4, σ = σ_p).",
        "fresh noise adds up: theory.privacy.pairwise_mu_squared",
        Axis("rounds T", (1, 2, 4, 8), (4,)),
        AREA,
        predict=pointwise(lambda rounds: _decor_area(1.0, int(rounds))),
        simulate=each(lambda seed, rounds, replicas: _decor(seed, 1.0, int(rounds), replicas)),
        sampling=SAMPLING,
        catches=("noise that is drawn once and reused",),
    ),
    Claim(
        "zip_dl_area",
        "ZIP-DL: c of d = 4 receivers that collude have a best test of area Φ(μ/√2), μ² = 3c/(4 − c).",
        "the covariance of c of the d: theory.privacy.zero_sum_mu_squared",
        Axis("receivers that collude, c", (1, 2, 3), (1, 3)),
        AREA,
        predict=pointwise(lambda c: _area(formulas.zero_sum_mu_squared(4, int(c)))),
        simulate=each(_receivers),
        sampling=SAMPLING,
        catches=(
            "noise that does not sum to zero",
            "independent noise for each receiver",
            "one noise for all receivers",
        ),
    ),
    Claim(
        "noise_once_is_no_sum_of_messages",
        "Noise once, path of 4: by 3 rounds node 0 tests node 3 with μ = 1/σ, where a published sum says √(1/23)/σ.",
        "node 0 solves for the start of node 3; marginal losses of correlated messages do not add",
        Axis("standard deviation σ", (0.5, 1.0, 2.0), (1.0,)),
        AREA,
        predict=pointwise(lambda std: _area(1 / std**2)),
        simulate=each(_start),
        sampling=SAMPLING,
        catches=("messages of another time than that of their sending",),
    ),
)
