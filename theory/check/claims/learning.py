"""Claims on D-PSGD and related methods on quadratics, for which every moment is known."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import observe
from gossipjax.tasks import quadratic
from gossipjax.timeline import rounds

from ... import consensus, rates
from ..claim import Axis, Claim, Law, Observation, Points, Sampling, each, once, pointwise
from ..engine import averages, runs, settled

D_PSGD = "Lian et al. 2017, arXiv 1705.09056 (the algorithm); modes of W, derived here"
CONSENSUS = "consensus distance"
STEPS = Axis("step size η", (0.02, 0.05, 0.1, 0.2, 0.4), (0.05, 0.2))
SAMPLING = Sampling(4000, 1000)
STEP, NOISE = 0.1, 1.0
TARGETS = np.array([1.0, -1.0, 0.5, 0.0, 2.0, -0.5, 1.5, -2.0])
CURVATURES = np.array([1.0, 0.5, 2.0, 1.0, 1.0, 0.7, 1.5, 0.8])


def _ring(n: int = 8) -> Any:
    return gj.mixing.metropolis(gj.topology.ring(n))


def copies_of(targets: np.ndarray, copies: int, *, curvature: Any = 1.0, noise: float = NOISE) -> gj.Task:
    """Return a task of coordinates with the same law and independent gradient noise; in rounds each is a replica."""
    n = len(targets)
    curvatures = np.broadcast_to(np.reshape(curvature, (-1, 1)), (n, copies))
    return quadratic(np.repeat(targets[:, None], copies, axis=1), curvature=curvatures, noise_std=noise)


def _models(
    seed: int, protocol: gj.Protocol, W: Any, x0: np.ndarray, every: int, records: int
) -> tuple[np.ndarray, Any]:
    """Record models ``(records, nodes, copies)`` of one run of synchronous rounds."""
    plan = rounds(W, every * records)
    measured = runs(seed, 1, protocol, plan, jnp.asarray(x0), [observe.models()], every=every)["model"][0]
    return measured, averages(plan)


def _spread(models: np.ndarray) -> np.ndarray:
    """Compute the consensus distance ``(1/n) Σ (x_i − x̄)²`` of every copy, ``(records, copies)``."""
    return models.var(axis=-2)


def _stationary(
    seed: int,
    copies: int,
    targets: np.ndarray,
    *,
    step: float = STEP,
    curvature: Any = 1.0,
    W: Any = None,
    **options: Any,
) -> Observation:
    """Average every copy's consensus after 80, 120 and 160 rounds; modes of at most 0.8 forget the start."""
    task = copies_of(targets, copies, curvature=curvature)
    protocol = gj.dpsgd(task, Partial(optax.sgd, step), **options)
    W = _ring() if W is None else W
    models, doubly = _models(seed, protocol, W, np.zeros((len(targets), copies)), 40, 4)
    values = _spread(models[1:]).T
    return Observation(values.mean(axis=1), (doubly, settled(values)))


ZERO = np.zeros(8)


def _predicted(step: float, targets: np.ndarray = ZERO, **options: Any) -> float:
    return consensus.stationary_consensus(_ring().toarray(), targets, step_size=step, noise_std=NOISE, **options)


def _of_steps(order: str) -> Any:
    return lambda steps: np.asarray([_predicted(float(step), order=order) for step in steps])


def _transient(seed: int, points: Points, copies: int) -> Observation:
    start = np.repeat(np.linspace(-1.0, 1.0, 8)[:, None], copies, axis=1)
    protocol = gj.dpsgd(copies_of(ZERO, copies), Partial(optax.sgd, STEP), order="combine_then_adapt")
    models, doubly = _models(seed, protocol, _ring(), start, 1, 40)
    return Observation(_spread(models)[[int(t) - 1 for t in points]].T, (doubly,))


def _growth_of_steps(seed: int, step: float, copies: int) -> Observation:
    return _stationary(seed, copies, ZERO, step=step, curvature=1e-3)


def _speed_up(seed: int, n: float, copies: int) -> Observation:
    """Measure the squared mean model on a ring, ``(copies,)``: the mean follows SGD with 1/n of the noise."""
    size = int(n)
    protocol = gj.dpsgd(copies_of(np.zeros(size), copies), Partial(optax.sgd, STEP))
    models, doubly = _models(seed, protocol, _ring(size), np.zeros((size, copies)), 50, 3)
    values = np.square(models[1:].mean(axis=1)).T
    return Observation(values.mean(axis=1), (doubly, settled(values)))


def _path_of_mean(seed: int, points: Points, replicas: int) -> Observation:
    """Measure the mean model of noiseless D-PSGD after given numbers of rounds; the graph does not matter."""
    del replicas
    protocol = gj.dpsgd(copies_of(TARGETS, 1, noise=0.0), Partial(optax.sgd, STEP))
    models, doubly = _models(seed, protocol, _ring(), np.zeros((8, 1)), 1, 64)
    return Observation(models[[int(t) - 1 for t in points], :, 0].mean(axis=1)[None], (doubly,))


def _reaches_optimum(protocol: Any) -> Any:
    W = gj.mixing.lazy(_ring())  # D² needs eigenvalues above −1/3

    def simulate(seed: int, points: Points, replicas: int) -> Observation:
        del replicas
        task = copies_of(TARGETS, 1, curvature=CURVATURES, noise=0.0)
        models, doubly = _models(seed, protocol(task, Partial(optax.sgd, STEP)), W, np.zeros((8, 1)), 400, 2)
        return Observation(models[-1, [int(i) for i in points], 0][None], (doubly,))

    return simulate


def _optimum(nodes: np.ndarray) -> np.ndarray:
    return np.full(nodes.shape, (CURVATURES * TARGETS).sum() / CURVATURES.sum())


def _one_peer() -> np.ndarray:
    """Return the three matrices of the one-peer exponential graph of 8 nodes, which are used in turn."""
    return np.stack([gj.mixing.uniform(graph).toarray() for graph in gj.topology.one_peer_exponential(8)])


def _expected_path(t: np.ndarray) -> np.ndarray:
    path = consensus.expected_path(
        _one_peer(), CURVATURES, TARGETS, np.zeros(8), 24, step_size=STEP, noise_std=NOISE, local_steps=2
    )
    return path.consensus_distance[t.astype(int)]


def _changing_graph(seed: int, points: Points, copies: int) -> Observation:
    task = copies_of(TARGETS, copies, curvature=CURVATURES)
    protocol = gj.dpsgd(task, Partial(optax.sgd, STEP), local_steps=2)
    models, doubly = _models(seed, protocol, list(_one_peer()), np.zeros((8, copies)), 1, 24)
    return Observation(_spread(models)[[int(t) - 1 for t in points]].T, (doubly,))


def _rate_numbers(n: int) -> tuple[int, float]:
    """Return the rounds, twice the threshold of the corollary for W = J, and its step size (L = 1)."""
    num_rounds = 2 * int(rates.dpsgd_threshold_order(n, 0.0))
    return num_rounds, rates.dpsgd_step(n, num_rounds, noise_std=NOISE, smoothness=1.0)


def _mean_gradient(seed: int, n: float, copies: int) -> Observation:
    """Measure the squared gradient ``x̄²`` of the mean model on x²/2 from one, averaged over the rounds."""
    size = int(n)
    num_rounds, step = _rate_numbers(size)
    protocol = gj.dpsgd(copies_of(np.zeros(size), copies), Partial(optax.sgd, step), order="combine_then_adapt")
    W = gj.mixing.uniform(gj.topology.complete(size))
    models, doubly = _models(seed, protocol, W, np.ones((size, copies)), 1, num_rounds - 1)
    squares = np.square(models.mean(axis=1)).sum(axis=0) + 1.0
    return Observation(squares / num_rounds, (doubly,))


CLAIMS = (
    Claim(
        "dpsgd_consensus_combine_then_adapt",
        "x ← Wx − ηg settles at consensus (1/n) Σ_k η²σ²/(1 − (w_k − h)²) (ring of 8, a = σ = 1, h = ηa).",
        D_PSGD,
        STEPS,
        CONSENSUS,
        predict=_of_steps("combine_then_adapt"),
        simulate=each(
            lambda seed, step, copies: _stationary(seed, copies, ZERO, step=step, order="combine_then_adapt")
        ),
        sampling=SAMPLING,
        catches=(
            "the other order of mixing and step",
            "gradient noise shared by nodes",
        ),
    ),
    Claim(
        "dpsgd_consensus_adapt_then_combine",
        "x ← W(x − ηg) settles at consensus (1/n) Σ_k w_k² η²σ²/(1 − w_k²(1−h)²) (ring of 8, a = σ = 1).",
        D_PSGD,
        STEPS,
        CONSENSUS,
        predict=_of_steps("adapt_then_combine"),
        simulate=each(lambda seed, step, copies: _stationary(seed, copies, ZERO, step=step)),
        sampling=SAMPLING,
        catches=(
            "the other order of mixing and step",
            "gradient noise shared by nodes",
        ),
    ),
    Claim(
        "dpsgd_consensus_local_steps",
        "With H local steps between mixings and unequal targets consensus is a modal sum (ring of 8, η = 0.1).",
        D_PSGD,
        Axis("local steps H", (1, 2, 4, 8), (1, 4)),
        CONSENSUS,
        predict=pointwise(lambda h: _predicted(STEP, TARGETS, local_steps=h)),
        simulate=each(lambda seed, H, copies: _stationary(seed, copies, TARGETS, local_steps=int(H))),
        sampling=SAMPLING,
        catches=("a local step too many", "weights off by one neighbour"),
    ),
    Claim(
        "dpsgd_consensus_unequal_curvatures",
        "With unequal curvatures the covariance solves C = M C Mᵀ + Q, M = W(I − ηH) (ring of 8).",
        D_PSGD,
        Axis("step size η", (0.05, 0.1, 0.2), (0.1,)),
        CONSENSUS,
        predict=pointwise(
            lambda s: consensus.lyapunov_consensus(_ring().toarray(), CURVATURES, TARGETS, step_size=s, noise_std=NOISE)
        ),
        simulate=each(lambda seed, step, copies: _stationary(seed, copies, TARGETS, step=step, curvature=CURVATURES)),
        sampling=SAMPLING,
        catches=("curvature of another node",),
    ),
    Claim(
        "dpsgd_transient",
        "From any start consensus follows Σ_k r_k^2t y_k² plus noise (1 − r_k^2t)/(1 − r_k²) (ring of 8).",
        D_PSGD,
        Axis("rounds t", (1, 2, 4, 8, 16, 32), (1, 4, 16)),
        CONSENSUS,
        predict=lambda t: consensus.transient_consensus(
            _ring().toarray(),
            ZERO,
            np.linspace(-1.0, 1.0, 8),
            t.astype(int),
            step_size=STEP,
            noise_std=NOISE,
            order="combine_then_adapt",
        ),
        simulate=_transient,
        sampling=Sampling(8000, 2000, independent=False),
        catches=("a round too many", "the same noise at every round"),
    ),
    Claim(
        "dpsgd_consensus_bound",
        "Consensus ≤ η²σ²(1 − p)/p with 1 − p = ρ², adapt-then-combine, equal targets.",
        "Koloskova et al. 2020, arXiv 2003.10422, in the form that the modal sum proves",
        STEPS,
        CONSENSUS,
        predict=pointwise(lambda s: consensus.consensus_bound(_ring().toarray(), step_size=s, noise_std=NOISE)),
        simulate=each(lambda seed, step, copies: _stationary(seed, copies, ZERO, step=step)),
        sampling=SAMPLING,
        catches=("no mixing at all",),
        kind="upper",
    ),
    Claim(
        "dpsgd_consensus_grows_as_step_squared",
        "For small curvature consensus is proportional to η² (ring of 8, a = 0.001).",
        "Koloskova et al. 2020, arXiv 2003.10422 (consensus lemma), order only",
        Axis("step size η", (0.01, 0.02, 0.05, 0.1, 0.2, 0.5), (0.01, 0.05, 0.2, 0.5)),
        CONSENSUS,
        predict=pointwise(lambda s: _predicted(s, curvature=1e-3)),
        simulate=each(_growth_of_steps),
        sampling=SAMPLING,
        catches=("step size not applied to the noise",),
        kind="scaling",
        law=Law(("power",), exponent=2.0, slack=1e-3),  # w²(1 − 0.001 η)² moves the exponent by less
    ),
    Claim(
        "dpsgd_linear_speed_up",
        "The mean model's error is that of SGD with 1/n of the noise: E x̄² ∝ 1/n (rings, η = 0.1).",
        "Lian et al. 2017, arXiv 1705.09056 (linear speed-up); exact for equal curvatures",
        Axis("nodes n", (4, 8, 16, 32, 64), (4, 16, 64)),
        "mean squared error of the mean model",
        predict=lambda n: STEP**2 * NOISE**2 / (1 - (1 - STEP) ** 2) / n,
        simulate=each(_speed_up),
        sampling=Sampling(8000, 4000),
        catches=("gradient noise shared by nodes",),
        kind="scaling",
        law=Law(("power",), exponent=-1.0),
    ),
    Claim(
        "dpsgd_mean_follows_gradient_descent",
        "With equal curvatures the mean model follows gradient descent on the mean objective, exactly.",
        "Lian et al. 2017, arXiv 1705.09056; doubly stochastic mixing keeps the mean",
        Axis("rounds t", (1, 4, 16, 64), (1, 16)),
        "mean model",
        predict=lambda t: TARGETS.mean() * (1 - (1 - STEP) ** t),
        simulate=_path_of_mean,
        sampling=once(1e-12),  # 64 rounds of float64 rounding
        catches=("mixing that loses mass", "float32 accumulation"),
    ),
    Claim(
        "gradient_tracking_reaches_the_optimum",
        "Gradient tracking brings every node to the optimum of the sum, even if the nodes differ.",
        "Nedić, Olshevsky, Shi 2017 (DIGing); Qu and Li 2018",
        Axis("node", (0, 3, 7), (0, 7)),
        "model",
        predict=_optimum,
        simulate=_reaches_optimum(gj.gradient_tracking),
        sampling=once(1e-9),  # 800 rounds contract the start by far more than float64 resolves
        catches=("a stale gradient in the correction", "float32 accumulation"),
    ),
    Claim(
        "d2_reaches_the_optimum",
        "D² brings every node to the optimum of the sum: heterogeneity leaves no bias.",
        "Tang et al. 2018, arXiv 1803.07068",
        Axis("node", (0, 3, 7), (0, 7)),
        "model",
        predict=_optimum,
        simulate=_reaches_optimum(gj.d2),
        sampling=once(1e-9),  # as above
        catches=("a stale gradient in the correction", "float32 accumulation"),
    ),
    Claim(
        "dpsgd_expected_path_changing_graph",
        "Consensus after t rounds follows from m ← M_t m + c and C ← M_t C M_tᵀ + Q (one-peer graphs, 2 local steps).",
        D_PSGD,
        Axis("rounds t", (1, 2, 3, 8, 24), (1, 3, 24)),
        CONSENSUS,
        predict=_expected_path,
        simulate=_changing_graph,
        sampling=Sampling(8000, 2000, independent=False),
        catches=("one matrix of a cycle used twice", "a local step too many", "curvature of another node"),
    ),
    Claim(
        "dpsgd_rate_bound",
        "D-PSGD: mean squared gradient over K rounds ≤ 8 gap L/K + (8 gap + 4L) σ/√(Kn) for η = 1/(2L + σ √(K/n)).",
        "Lian et al. 2017, arXiv 1705.09056, corollary 2",
        Axis("nodes n (complete graph, K = 2n⁵)", (2, 3, 4), (2, 4)),
        "mean squared gradient of the mean model",
        predict=pointwise(lambda n: rates.dpsgd_rate(n, _rate_numbers(n)[0], gap=0.5, noise_std=NOISE, smoothness=1.0)),
        simulate=each(_mean_gradient),
        sampling=Sampling(512, 128),
        catches=("a step uphill",),
        kind="upper",
        mark="recalled",
    ),
)
