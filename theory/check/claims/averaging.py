"""Claims on averaging: how fast synchronous rounds on fixed and random matrices remove differences."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.linalg import helmert

import gossipjax as gj
from gossipjax import observe, timeline, topology
from gossipjax.mixing import metropolis, uniform

from ... import consensus, mixing, spectral
from ..claim import Assumption, Axis, Claim, Observation, Points, Sampling, each, once, pointwise
from ..engine import averages, runs, stacked
from . import _contraction
from ._averages import BOYD, DISAGREEMENT, NODES, matrix_of, models_of, pieces, random_rounds, spread, starts


def _ring_error(seed: int, points: Points, replicas: int) -> Observation:
    plan = timeline.rounds(metropolis(topology.ring(NODES)), 60)
    models = models_of(seed, 1, plan, starts(NODES), every=1)[0]
    # The norm sums over the three starts; the spread averages over them.
    errors = np.sqrt(3 * spread(models))
    return Observation(errors[[int(t) - 1 for t in points]][None], (averages(plan),))


def _ring_path(t: np.ndarray) -> np.ndarray:
    shift = np.roll(np.eye(NODES), 1, axis=0)
    return consensus.averaging_error((np.eye(NODES) + shift + shift.T) / 3, starts(NODES), 60)[t.astype(int)]


ERROR_PATH = Claim(
    "averaging_error_path",
    "The error of rounds on a fixed W is ‖W^t x₀ − x̄₀‖ (ring of 12, weights 1/3).",
    f"{_contraction.XIAO}, eq. 3",
    Axis("rounds t", (1, 2, 5, 20, 60), (1, 5, 60)),
    "error ‖x − x̄‖",
    predict=_ring_path,
    simulate=_ring_error,
    sampling=once(1e-13, independent=False),  # rounding errors of 60 rounds with three products each
    catches=("a round skipped or done twice", "in-place mixing that reads new values"),
)


def _one_peer(seed: int, n: float, replicas: int) -> Observation:
    graphs = topology.one_peer_exponential(int(n))
    W, doubly = matrix_of(seed, timeline.rounds([uniform(graph) for graph in graphs], len(graphs)))
    return Observation(np.asarray([np.linalg.norm(W - 1.0 / len(W))]), (doubly,))


def _one_peer_deviation(n: int) -> float:
    """Compute the deviation after τ rounds: a node holds the mean of 2^τ consecutive starts, some of them twice."""
    terms = 1 << (n - 1).bit_length()
    shares = np.bincount(np.arange(terms) % n, minlength=n) / terms
    return 0.0 if mixing.one_peer_exponential_exact(n) else float(np.sqrt(n) * np.linalg.norm(shares - 1.0 / n))


def _dimensions(seed: int, points: Points, replicas: int) -> Observation:
    """Average, in round k, the nodes that differ in bit k."""
    n, d = 16, 4
    swaps = [np.eye(n)[np.arange(n) ^ (1 << bit)] for bit in range(d)]
    plan = timeline.rounds([(np.eye(n) + swap) / 2 for swap in swaps], d)
    models = models_of(seed, 1, plan, np.eye(n), every=1)[0]
    squares = np.square(models - 1.0 / n).sum(axis=(1, 2))
    return Observation(squares[[int(t) - 1 for t in points]][None], (averages(plan),))


def _matchings(seed: int, points: Points, replicas: int, n: int) -> Observation:
    length = 8
    plan = timeline.matching_rounds(n, length * replicas, seed=seed)
    values = spread(models_of(seed, replicas, pieces(plan, length), starts(n), every=1))
    return Observation(values[:, [int(t) - 1 for t in points]], (averages(plan),))


def _matching_claim(n: int, factor: float, words: str) -> Claim:
    return Claim(
        f"matching_rounds_{'odd' if n % 2 else 'even'}",
        f"Averaging along a random matching per round: E V = V₀ f^t, f = {words} (n = {n}).",
        "E W on the disagreement space: W is a projection, and all pairs meet with equal probability",
        Axis("rounds t", (1, 2, 4, 8), (1, 4)),
        DISAGREEMENT,
        predict=lambda t: factor**t,
        simulate=lambda seed, points, replicas: _matchings(seed, points, replicas, n),
        sampling=Sampling(20_000, 2_000, independent=False),
        catches=("matchings that favour some pairs", "the same matching again"),
    )


def _drawn_matchings(seed: int, size: float, replicas: int) -> Observation:
    """Measure V⁺/V in consecutive rounds of one run, whose factors are uncorrelated."""
    n = int(size)
    plan, watch = timeline.drawn_matchings(n, replicas + 1), [observe.consensus_distance()]
    x0 = stacked(np.random.default_rng(seed).standard_normal(n))
    left = runs(seed, 1, gj.gossip_averaging(), plan, x0, watch, every=1)["consensus_distance"][0]
    return Observation(left[1:] / left[:-1], (averages(plan),))


def _targets(rng: np.random.Generator, s: int) -> np.ndarray:
    """Let each node choose s different other nodes: ``chosen[i, j]``."""
    order = rng.random((NODES, NODES))
    np.fill_diagonal(order, np.inf)
    chosen = np.zeros((NODES, NODES))
    np.put_along_axis(chosen, np.argsort(order, axis=1)[:, :s], 1.0, axis=1)
    return chosen


def _sent_to_others(seed: int, s: int, replicas: int, local: bool) -> tuple[np.ndarray, Assumption]:
    """Average for one round over the nodes that chose a node, or that it chose; return models ``(replicas, n, 3)``."""
    rng = np.random.default_rng(seed)
    heard = [_targets(rng, s) for _ in range(replicas)]
    heard = [np.eye(NODES) + (chosen.T if local else chosen) for chosen in heard]
    matrices = np.stack([W / W.sum(axis=1, keepdims=True) for W in heard])[:, None]
    models = random_rounds(seed, matrices, starts(NODES))[0][:, -1]
    meetings = np.sum(heard, axis=0) - replicas * np.eye(NODES)
    chance = s / (NODES - 1)
    # Each pair is chosen Bin(replicas, chance) times.
    far = np.abs(meetings[~np.eye(NODES, dtype=bool)] / replicas - chance).max()
    uniform = Assumption(
        "targets are uniform", bool(far < 7 * np.sqrt(chance / replicas)), f"a share is off by {far:.3g}"
    )
    return models, uniform


def _epidemic(seed: int, s: float, replicas: int, local: bool) -> Observation:
    """Sum squared distances from the old mean, which is zero."""
    models, uniform = _sent_to_others(seed, int(s), replicas, local)
    return Observation(np.square(models).sum(axis=1).mean(axis=1), (uniform,))


def _epidemic_claim(local: bool, formula: str, words: str) -> Claim:
    return Claim(
        f"epidemic_learning_{'local' if local else 'oracle'}",
        f"{words}: one round leaves {formula} (n = {NODES}).",
        "de Vos et al. 2023, arXiv 2310.01972, lemmas on the variants; derived again by counting outcomes",
        Axis("messages s of a node and round", (1, 2, 4, 8), (1, 4)),
        "E Σ (x⁺_i − x̄)² (start: 1)",
        predict=pointwise(lambda k: mixing.epidemic_factor(NODES, k, local)),
        simulate=each(lambda seed, s, replicas: _epidemic(seed, s, replicas, local)),
        sampling=Sampling(2_000, 400),
        catches=("a receiver's own model left out" if local else "mixing by the transpose",),
    )


def _shifts(seed: int, eta: float, replicas: int) -> Observation:
    """Measure every distance once; the mean over them is the expectation."""
    own = np.eye(NODES)
    cycle = [(1 - eta) * own + eta * np.roll(own, shift, axis=1) for shift in range(1, NODES)]
    plan = timeline.rounds(cycle, NODES - 1)
    values = spread(models_of(seed, NODES - 1, pieces(plan, 1), starts(NODES))[:, -1])
    return Observation(np.asarray([values.mean()]), (averages(plan),))


def _lottery() -> np.ndarray:
    """Return pushes of unequal weights along the edges of a ring of 6; rows sum to one, columns do not."""
    pushes = np.tile(np.eye(6), (12, 1, 1))
    for k, weight in enumerate(np.linspace(0.2, 0.9, 12)):
        sender, receiver = k % 6, (k + (1 if k < 6 else -1)) % 6
        pushes[k, receiver, receiver], pushes[k, receiver, sender] = 1 - weight, weight
    return pushes


def _extreme_start(worst: bool) -> np.ndarray:
    """Return the eigenvector of E Wᵀ Π W, of mean zero and length one, whose disagreement shrinks least, or most."""
    images = _lottery() @ helmert(6).T
    images -= images.mean(axis=1, keepdims=True)
    vectors = np.linalg.eigh(np.einsum("tij,tik->jk", images, images))[1]
    return (helmert(6).T @ vectors[:, -1 if worst else 0])[:, None]


def _one_draw(seed: int, end: float, replicas: int) -> Observation:
    drawn = np.random.default_rng(seed).integers(0, 12, replicas)
    models, plan = random_rounds(seed, _lottery()[drawn][:, None], _extreme_start(worst=end > 0))
    rows = Assumption("rows sum to one", "row_stochastic" in plan.properties, plan.properties.name)
    return Observation(spread(models[:, -1]), (rows,))


def _unheard(seed: int, s: float, replicas: int) -> Observation:
    """Measure the share of nodes that keep their start in a round in which each node sends to s random others."""
    models, uniform = _sent_to_others(seed, int(s), replicas, local=True)
    return Observation((models == starts(NODES)).all(axis=2).mean(axis=1), (uniform,))


CLAIMS = (
    *_contraction.CLAIMS,
    ERROR_PATH,
    dataclasses.replace(
        ERROR_PATH,
        name="averaging_error_bound",
        statement="On a doubly stochastic W the error is at most ρ^t times its start (ring of 12, weights 1/3).",
        kind="upper",
        predict=lambda t: np.sqrt(3) * spectral.contraction_ring(NODES) ** t,
    ),
    Claim(
        "one_peer_exponential_exact",
        "One pass of the one-peer exponential graph, ⌈log₂ n⌉ rounds, averages exactly iff n is a power of two.",
        "Ying et al. 2021, arXiv 2110.13363, lemma 1; elsewhere the product of the rounds, written out",
        Axis("nodes n", (2, 3, 8, 12, 16, 37, 64), (8, 12)),
        "deviation ‖W_τ ⋯ W_1 − J‖_F",
        predict=pointwise(_one_peer_deviation),
        simulate=each(_one_peer),
        sampling=once(1e-12),  # rounding errors of sums of few halves
        catches=("a round left out or done twice", "hops not taken modulo n"),
    ),
    Claim(
        "hypercube_dimension_exchange",
        "Averaging along one dimension of a hypercube per round: ‖W_t ⋯ W_1 − J‖_F² = n/2^t − 1, 0 for t = log₂ n.",
        "each product is a projection of rank n/2^t",
        Axis("rounds t (n = 16)", (1, 2, 3, 4), (1, 2, 3, 4)),
        "squared deviation from J",
        predict=lambda t: 16 / 2**t - 1,
        simulate=_dimensions,
        sampling=once(1e-13, independent=False),  # powers of ½ are exact in binary; only J is rounded
        catches=("one matrix of a cycle used twice",),
    ),
    _matching_claim(NODES, mixing.one_peer_shift_factor(NODES, 0.5), "(n − 2)/(2(n − 1)) for even n"),
    _matching_claim(NODES - 1, 0.5, "½ for odd n, where one node stays alone"),
    Claim(
        "drawn_matchings_contraction",
        "A matching drawn inside the run leaves E V⁺ = V f: f = (n − 2)/(2(n − 1)) for even n, ½ for odd n.",
        "P(i meets j) = 1/(n − 1) or 1/n, Σ_{i<j} (x_i − x_j)² = n V, and a meeting takes (x_i − x_j)²/2 from V",
        Axis("nodes n", (11, 12, 20_000, 1_000_000, 10_000_000), (11, 20_000)),
        "V⁺/V of one round",
        predict=pointwise(lambda n: 0.5 if n % 2 else (n - 2) / (2 * (n - 1))),
        simulate=each(_drawn_matchings),
        sampling=Sampling(32, 16),
        catches=("matchings that favour some pairs", "nodes that meet twice in a round, or never"),
    ),
    _epidemic_claim(False, "1/(s + 1) (1 − s/(n − 1))", "Averaging with s random others"),
    _epidemic_claim(True, "(1 − (1 − s/(n−1))^n)/s − 1/(n−1)", "Sending to s random others, who average all"),
    Claim(
        "one_peer_random_shift",
        "A peer at a random common distance, weight η: E V⁺/V = 1 − 2η(1 − η) n/(n − 1) (n = 12, all distances).",
        "derived from Σ_u A_u = nJ − I; graphs of Song et al. 2022 (EquiTopo), arXiv 2210.07881",
        Axis("weight η of the peer", (0.1, 0.25, 0.5, 0.9, 1.0), (0.25, 0.5)),
        DISAGREEMENT,
        predict=pointwise(lambda e: mixing.one_peer_shift_factor(NODES, e)),
        simulate=each(_shifts),
        sampling=once(1e-13),  # rounding of one round
        catches=("weight and own share confused", "one matrix of a cycle used twice"),
    ),
    Claim(
        "random_matrix_one_round",
        "One round of a random W leaves E V⁺ between the extreme eigenvalues of E Wᵀ Π W, times V; both are attained.",
        f"expand the square; projections in {BOYD}, section II (pushes on a ring of 6)",
        Axis("start: 0 the eigenvector that shrinks most, 1 least", (0, 1), (0, 1)),
        DISAGREEMENT,
        predict=lambda ends: np.asarray(mixing.expected_contraction(_lottery()))[1 - ends.astype(int)],
        simulate=each(_one_draw),
        sampling=Sampling(20_000, 4_000),
        catches=("mixing by the transpose", "biased partner choice"),
    ),
    Claim(
        "epidemic_learning_unheard",
        "If each sends to s random others, a node hears nothing with probability (1 − s/(n − 1))^(n − 1) (n = 12).",
        "the n − 1 others choose independently; the algorithm: de Vos et al. 2023, arXiv 2310.01972",
        Axis("messages s of a node and round", (1, 2, 4), (1, 2)),
        "share of nodes that keep their model",
        predict=pointwise(lambda s: mixing.no_message_probability(NODES, s)),
        simulate=each(_unheard),
        sampling=Sampling(2_000, 400),
        catches=("mixing by the transpose", "in-place mixing that reads new values"),
    ),
)
