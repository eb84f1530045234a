"""Claims on compressed messages: what compressors lose, and how CHOCO-gossip still reaches consensus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Num

import gossipjax as gj
from gossipjax import Protocol, compress, mixing, timeline, topology
from gossipjax.compress import Compressor, codes
from gossipjax.observe import Observer, Snapshot, Variable, models
from gossipjax.sharing import choco

from ... import compression, spectral
from ..claim import Assumption, Axis, Claim, Observation, Points, Sampling, each, once, pointwise
from ..engine import averages, runs, stacked

KOLOSKOVA = "Koloskova, Stich, Jaggi 2019, arXiv 1902.00340"
LOST, MANY = "share of the squared norm that is lost", Sampling(9000, 2400)
NODES, OMEGA = 6, 0.5
DIMENSION = 16
"""Coordinates of the vectors that are compressed."""
SPIKE = np.eye(NODES)[0] - 1 / NODES
"""A start whose faster modes vanish after few rounds."""
LATE = 12
"""Rounds after which the error shrinks by a constant factor."""


# One round, after which the copies are Q(x)


def _copies(state: Any) -> Any:
    return state.sharing.estimate


def _sent(seed: int, compressor: Compressor, x: Num[np.ndarray, "n d"]) -> tuple[np.ndarray, Assumption]:
    """Return what the neighbours of each node know after one round: Q(x), because copies start at zero."""
    plan = timeline.rounds(mixing.metropolis(_rings(len(x) // NODES)), 1)
    protocol = gj.gossip_averaging(choco(compressor, 1.0))._replace(model=Partial(_copies))
    return runs(seed, 1, protocol, plan, stacked(x), [models()])["model"][0, -1], averages(plan)


def _same(seed: int, replicas: int) -> Float[np.ndarray, "replicas d"]:
    """Return the same vector for all nodes, with entries that all differ."""
    del seed
    return np.tile(np.sin(np.arange(1.0, DIMENSION + 1)) * np.geomspace(3, 0.3, DIMENSION), (replicas, 1))


def _gaussian(seed: int, replicas: int, d: int = DIMENSION) -> Float[np.ndarray, "replicas d"]:
    return np.random.default_rng(seed).standard_normal((replicas, d))


def _loss(build: Callable[[float], Compressor], start: Callable[[int, int], np.ndarray]) -> Any:
    """Measure ``‖Q(x) − x‖² / ‖x‖²`` of the compressor of a point; each node is a replica."""

    def one(seed: int, point: float, replicas: int) -> Observation:
        x = start(seed, replicas)
        sent, doubly = _sent(seed, build(point), x)
        return Observation(((sent - x) ** 2).sum(axis=1) / (x**2).sum(axis=1), (doubly,))

    return each(one)


def _sign_loss(seed: int, d: float, replicas: int) -> Observation:
    return _loss(lambda _: compress.scaled_sign(), lambda s, n: _gaussian(s, n, int(d)))(seed, (d,), replicas)


def _coordinates(compressor: Compressor) -> Any:
    """Return coordinates of Q(x) divided by those of x."""

    def simulate(seed: int, points: Points, replicas: int) -> Observation:
        x, at = _same(seed, replicas), [int(c) for c in points]
        sent, doubly = _sent(seed, compressor, x)
        return Observation(sent[:, at] / x[:, at], (doubly,))

    return simulate


# Many small rings in one network: each is a replica


def _ring() -> Float[np.ndarray, "6 6"]:
    return mixing.metropolis(topology.ring(NODES)).toarray()


def _rings(count: int) -> topology.Topology:
    """Return disjoint rings, so that one wide round runs all replicas."""
    one = topology.ring(NODES)
    shift = NODES * np.arange(count)[:, None]
    senders, receivers = ((side[None] + shift).ravel() for side in (one.senders, one.receivers))
    return topology.Topology(NODES * count, senders, receivers, directed=False, name=f"{count} rings of {NODES}")


def _ring_errors(snapshot: Snapshot) -> dict[str, Array]:
    """Compute ``Σ ‖x_i − x̄‖² + ‖x_i − x̂_i‖²`` of each ring."""
    x, estimate = (jnp.reshape(snapshot.x[name], (-1, NODES, snapshot.x[name][0].size)) for name in ("x", "estimate"))
    away = x - jnp.mean(x, axis=1, keepdims=True)
    return {"error": jnp.sum(jnp.square(away) + jnp.square(x - estimate), axis=(1, 2))}


ERRORS = Observer(Partial(_ring_errors), (Variable("error", "squared error of a ring", dims=("ring",)),))


def _with_copies(state: Any) -> Any:
    return {"x": state.x, "estimate": state.sharing.estimate}


def _choco(compressor: Compressor, gamma: float) -> Protocol:
    return gj.gossip_averaging(choco(compressor, gamma))._replace(model=Partial(_with_copies))


def _errors(
    seed: int, compressor: Compressor, gamma: float, x0: np.ndarray, rounds: int, every: int = 1
) -> tuple[np.ndarray, Assumption]:
    """Record errors ``(records, rings)`` of CHOCO-gossip from the start x0, which holds ring after ring."""
    plan = timeline.rounds(mixing.metropolis(_rings(len(x0) // NODES)), rounds)
    records = runs(seed, 1, _choco(compressor, gamma), plan, stacked(x0), [ERRORS], every=every)
    return records["error"][0], averages(plan)


def _second_moments(gamma: float, rounds: Sequence[int]) -> Float[np.ndarray, " t"]:
    return compression.choco_errors(_ring(), SPIKE, np.asarray(rounds), omega=OMEGA, gamma=gamma)


def _error_path(seed: int, points: Points, replicas: int) -> Observation:
    errors, doubly = _errors(seed, compress.random_gossip(OMEGA), 0.6, np.tile(SPIKE, replicas), LATE)
    return Observation(errors[[int(t) - 1 for t in points]].T, (doubly,))


def _late_factor(seed: int, gamma: float, replicas: int) -> Observation:
    """Estimate the ratio of mean errors one round apart, as a mean of linearised replicas."""
    errors, doubly = _errors(seed, compress.random_gossip(OMEGA), gamma, np.tile(SPIKE, replicas), LATE + 1)
    before, after = errors[-2:]
    ratio = after.mean() / before.mean()
    exact = np.divide(*_second_moments(gamma, (LATE + 1, LATE)))
    off = exact / compression.choco_factor(_ring(), OMEGA, gamma) - 1
    transient = Assumption(
        "the start is forgotten", bool(abs(off) < 1e-3), f"ratio is off by {off:.1e} at round {LATE}"
    )
    return Observation(ratio + (after - ratio * before) / before.mean(), (doubly, transient))


BOUND_ROUNDS = 4096
"""Rounds after which even the published step has brought models together; the bound then promises a half or less."""


def _published(k: int | float, d: int = 8) -> tuple[float, float]:
    """Return the step size and the factor of the theorem, for a compressor that sends k of d coordinates."""
    W = _ring()
    delta, beta = 1 - spectral.contraction_factor(W), float(np.linalg.norm(np.eye(NODES) - W, 2))
    return compression.choco_step(delta, beta, k / d), compression.choco_bound(delta, k / d)


def _published_run(build: Callable[[int], Compressor]) -> Any:
    """Measure errors after many rounds, relative to the mean at the start, with zero copies and Gaussian models."""

    def one(seed: int, k: float, replicas: int) -> Observation:
        x0 = np.random.default_rng(seed).standard_normal((NODES * replicas, 8))
        errors, doubly = _errors(seed, build(int(k)), _published(k)[0], x0, BOUND_ROUNDS, BOUND_ROUNDS)
        at_start = np.square(x0).reshape(replicas, NODES, 8).sum(axis=(1, 2))
        at_start += x0.reshape(replicas, NODES, 8).var(axis=1).sum(axis=1) * NODES
        return Observation(errors[-1] / at_start.mean(), (doubly,))

    return each(one)


def _mean_model(seed: int, points: Points, replicas: int) -> Observation:
    """Measure the mean of a coordinate that starts at one on average, when most of each message is lost."""
    del replicas
    plan = timeline.rounds(_ring(), 64)
    x0 = np.stack([1.0 + SPIKE, np.arange(NODES)], axis=1)
    protocol = gj.gossip_averaging(choco(compress.random_k(1), 0.3))
    values = runs(seed, 1, protocol, plan, stacked(x0), [models()], every=1)["model"][0]
    return Observation(values[[int(t) - 1 for t in points], :, 0].mean(axis=1)[None], (averages(plan),))


def _one_vector(seed: int, points: Points, replicas: int) -> Observation:
    """Measure what top-k loses of one vector, which is deterministic."""
    del replicas
    x = _same(seed, NODES)
    sent = [_sent(seed, compress.top_k(int(k)), x)[0][0] for k in points]
    return Observation(np.asarray([((message - x[0]) ** 2).sum() / (x[0] ** 2).sum() for message in sent])[None])


def _gaps(seed: int, points: Points, replicas: int) -> Observation:
    """Measure the law of gaps between the coordinates that random-k sends; the first gap counts from the start."""
    sent, doubly = _sent(seed, compress.random_k(4), _same(seed, replicas))
    at = np.nonzero(sent)[1].reshape(replicas, 4)
    gaps = np.diff(at, axis=1, prepend=-1)
    return Observation((gaps[..., None] == np.asarray(points)).mean(axis=1), (doubly,))


def _code_length(seed: int, gap: float, replicas: int) -> Observation:
    """Return the bits per gap of nine equally spaced indices, as the engine counts them, without the header."""
    del seed, replicas
    mask = np.zeros(8 * int(gap) + 1, bool)
    mask[:: int(gap)] = True
    return Observation(np.asarray([(float(codes.elias_gamma(jnp.asarray(mask))) - 128) / 8]))


CLAIMS = (
    Claim(
        "choco_error_random_gossip",
        "CHOCO-gossip by all-or-nothing messages: second moments follow a linear map (ring of 6, γ = 0.6).",
        "derived; the algorithm: " + KOLOSKOVA + ", algorithm 1",
        Axis("rounds t", (1, 2, 4, 8, 12), (1, 4, 8)),
        "E Σ ‖x_i − x̄‖² + ‖x_i − x̂_i‖²",
        predict=lambda t: _second_moments(0.6, [int(v) for v in t]),
        simulate=_error_path,
        sampling=Sampling(60_000, 20_000, independent=False),
        catches=("copies that are one round old", "the same coins at every round"),
    ),
    Claim(
        "choco_factor_random_gossip",
        "Its error changes by the spectral radius of that map, above 1 for γ = 1 (ring of 6, ω = 0.5).",
        "derived; the algorithm: " + KOLOSKOVA + ", algorithm 1",
        Axis("consensus step size γ", (0.6, 0.8, 1.0), (0.6,)),
        "factor of the squared error a round",
        predict=pointwise(lambda g: compression.choco_factor(_ring(), OMEGA, g)),
        simulate=each(_late_factor),
        sampling=Sampling(60_000, 20_000),
        catches=("copies that are one round old", "the same coins at every round"),
    ),
    Claim(
        "choco_bound_random_k",
        "With the published γ the error falls at least by 1 − δ²ω/82 a round (ring of 6, random-k, ω = k/8).",
        f"{KOLOSKOVA}, theorem 2",
        Axis("coordinates sent k (of 8)", (1, 2, 4, 8), (2,)),
        f"squared error after {BOUND_ROUNDS} rounds over that at the start",
        predict=pointwise(lambda v: _published(v)[1] ** BOUND_ROUNDS),
        simulate=_published_run(compress.random_k),
        sampling=Sampling(256, 64),
        catches=("a step that pushes models apart", "copies that never change"),
        kind="upper",
        mark="recalled",
    ),
    Claim(
        "choco_bound_top_k",
        "With the published γ the error falls at least by 1 − δ²ω/82 a round (ring of 6, top-k, ω = k/8).",
        f"{KOLOSKOVA}, theorem 2",
        Axis("coordinates sent k (of 8)", (1, 2, 4, 8), (2,)),
        f"squared error after {BOUND_ROUNDS} rounds over that at the start",
        predict=pointwise(lambda v: _published(v)[1] ** BOUND_ROUNDS),
        simulate=_published_run(compress.top_k),
        sampling=Sampling(256, 64),
        catches=("a step that pushes models apart", "copies that never change"),
        kind="upper",
        mark="recalled",
    ),
    Claim(
        "choco_keeps_the_mean",
        "CHOCO-gossip conserves the mean model, whatever compression loses: 1ᵀ(W − I) = 0 (ring of 6).",
        f"{KOLOSKOVA}, section 3",
        Axis("rounds t", (1, 8, 64), (1, 64)),
        "mean model",
        predict=lambda t: np.ones_like(t, dtype=float),
        simulate=_mean_model,
        sampling=once(1e-12),  # rounding errors of 64 rounds in float64
        catches=("neighbours that hold different copies", "mixing that loses mass", "float32 accumulation"),
    ),
    Claim(
        "random_k_loses_its_share",
        "Sending k random coordinates loses E ‖Q(x) − x‖² = (1 − k/d) ‖x‖², for every x (d = 16).",
        "Stich, Cordonnier, Jaggi 2018, arXiv 1809.07599; each coordinate is sent with probability k/d",
        Axis("coordinates sent k", (1, 2, 4, 8, 12), (2, 8)),
        LOST,
        predict=lambda k: 1 - np.asarray([compression.random_k(int(v), DIMENSION) for v in k]),
        simulate=_loss(lambda k: compress.random_k(int(k)), _same),
        sampling=MANY,
        catches=("a coordinate that is never drawn", "values scaled by d/k"),
    ),
    Claim(
        "top_k_loses_at_most_its_share",
        "Sending the k largest coordinates loses ‖Q(x) − x‖² ≤ (1 − k/d) ‖x‖² (Gaussian x, d = 16).",
        "Stich, Cordonnier, Jaggi 2018, arXiv 1809.07599, lemma A.1",
        Axis("coordinates sent k", (1, 2, 4, 8, 12), (2, 8)),
        LOST,
        predict=lambda k: 1 - np.asarray([compression.top_k(int(v), DIMENSION) for v in k]),
        simulate=_loss(lambda k: compress.top_k(int(k)), _gaussian),
        sampling=MANY,
        catches=("the smallest entries sent",),
        kind="upper",
        mark="recalled",
    ),
    Claim(
        "scaled_sign_of_gaussian_vectors",
        "One bit a coordinate keeps ω = (1 + (d − 1) 2/π)/d of a Gaussian vector, 2/π for many coordinates.",
        "derived; the compressor: Karimireddy et al. 2019, arXiv 1901.09847",
        Axis("coordinates d", (2, 4, 16, 64, 256), (4, 16)),
        LOST,
        predict=lambda d: 1 - np.asarray([compression.scaled_sign_gaussian(int(v)) for v in d]),
        simulate=each(_sign_loss),
        sampling=MANY,
        catches=("the Euclidean norm in place of the mean magnitude",),
    ),
    Claim(
        "qsgd_loses_at_most",
        "QSGD over 1 + min(d/s², √d/s) loses at most (1 − ω) ‖x‖², ω = 1/(1 + min(d/s², √d/s)) (d = 16).",
        f"Alistarh et al. 2017, arXiv 1610.02132, lemma 3.1; {KOLOSKOVA}, section 3.5",
        Axis("levels s", (1, 3, 4, 7, 15), (1, 7)),
        LOST,
        predict=lambda s: 1 - np.asarray([compression.qsgd(int(v), DIMENSION) for v in s]),
        simulate=_loss(lambda s: compress.contractive(compress.qsgd(int(s))), _same),
        sampling=MANY,
        catches=("a rescaling that is forgotten",),
        kind="upper",
        mark="recalled",
    ),
    Claim(
        "qsgd_keeps_the_mean",
        "QSGD rounds at random without bias: E Q(x) = x in every coordinate (s = 8, d = 16).",
        "Alistarh et al. 2017, arXiv 1610.02132, lemma 3.1",
        Axis("coordinate", (0, 3, 8, 15), (0, 8)),
        "E Q(x)_c / x_c",
        predict=lambda c: np.ones_like(c, dtype=float),
        simulate=_coordinates(compress.qsgd(8)),
        sampling=Sampling(48_000, 9600, independent=False),
        catches=("rounding to the nearest level",),
        mark="recalled",
    ),
    Claim(
        "top_k_keeps_the_largest",
        "Of one vector top-k keeps the share Σ_{k largest} x_i²/‖x‖² of its squared norm, exactly (d = 16).",
        "definition of the compressor",
        Axis("coordinates sent k", (1, 2, 4, 8, 12), (2, 8)),
        LOST,
        predict=pointwise(lambda k: 1 - compression.kept_energy(_same(0, 1)[0], k)),
        simulate=_one_vector,
        sampling=once(1e-12, independent=False),  # rounding of a sum of squares
        catches=("the smallest entries sent", "float32 accumulation"),
    ),
    Claim(
        "random_k_gaps",
        "Gaps between k random indices of d have P(j) = C(d − j, k − 1)/C(d, k) (k = 4, d = 16).",
        "the gaps of a uniform subset are exchangeable",
        Axis("gap j", (1, 2, 3, 5, 9), (1, 3)),
        "share of gaps",
        predict=lambda j: compression.gap_pmf(4, DIMENSION)[j.astype(int) - 1],
        simulate=_gaps,
        sampling=Sampling(9000, 2400, independent=False),
        catches=("a coordinate that is never drawn", "coordinates drawn in blocks"),
    ),
    Claim(
        "elias_gamma_code_lengths",
        "A gap g costs 2 ⌊log₂ g⌋ + 1 bits in Elias' gamma code, powers of two included.",
        "Elias 1975",
        Axis("gap g", (1, 2, 3, 4, 7, 8, 31, 32, 1000), (1, 4, 7, 8)),
        "bits",
        predict=lambda gaps: compression.elias_gamma_bits(gaps.astype(int)).astype(float),
        simulate=each(_code_length),
        sampling=once(0.0),  # whole numbers
        catches=("a logarithm in floating point", "gaps counted from zero"),
    ),
)
