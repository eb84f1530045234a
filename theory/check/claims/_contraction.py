"""Claims on spectral gaps: how much disagreement remains after one round on a fixed matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gossipjax import timeline, topology
from gossipjax.mixing import best_constant, metropolis, uniform

from ... import mixing, spectral
from ..claim import Axis, Claim, Observation, Points, Sampling, each, once, pointwise
from ..engine import averages
from ._averages import matrix_of, models_of, pieces

XIAO = "Xiao and Boyd 2004"


def _contraction(name: str, statement: str, points: Points, quick: Points, weights_of, factor, axis: str, fault: str):
    """Claim the spectral gap of a family of graphs, by singular values of the matrix that the engine applies."""

    def one(seed: int, point: float, replicas: int) -> Observation:
        W, doubly = matrix_of(seed, timeline.rounds(weights_of(int(point)), 1))
        return Observation(np.asarray([1.0 - np.linalg.norm(W - 1.0 / len(W), 2)]), (doubly,))

    return Claim(
        name,
        statement,
        f"{XIAO}; eigenvalues of the graph",
        Axis(axis, points, quick),
        "spectral gap 1 − ρ",
        predict=pointwise(lambda v: 1.0 - factor(v)),
        simulate=each(one),
        sampling=once(1e-10),  # rounding of n products, times the condition number of the gap
        catches=(fault, "one neighbour read twice, another not at all"),
    )


_EXTREMES: tuple[tuple[str, Callable, float, float], ...] = (
    ("ring", topology.ring, 2 - 2 * np.cos(np.pi / 8), 4.0),
    ("path", topology.path, 2 - 2 * np.cos(np.pi / 16), 2 + 2 * np.cos(np.pi / 16)),
    ("star", topology.star, 1.0, 16.0),
    ("hypercube", lambda n: topology.hypercube(n.bit_length() - 1), 2.0, 8.0),
)
"""Graphs of 16 nodes with the smallest positive and the largest eigenvalue of their Laplacians."""


def _regular(seed: int, degree: float, replicas: int) -> Observation:
    n, d = 64, int(degree)
    graphs = [topology.random_regular(n, d, seed=seed * 100_003 + k) for k in range(replicas)]
    plan = timeline.rounds([uniform(graph) for graph in graphs], replicas, form="dense")
    W = models_of(seed, replicas, pieces(plan, 1), np.eye(n))[:, -1]
    adjacency = (d + 1) * (W - 1.0 / n) - (1.0 - 1.0 / n) * np.eye(n) + (1.0 - np.eye(n)) / n
    return Observation(np.asarray([np.linalg.norm(A, 2) for A in adjacency]), (averages(plan),))


CLAIMS = (
    _contraction(
        "contraction_ring",
        "Ring with weights 1/3: ρ = ‖W − J‖ = max_k |1 + 2 cos(2πk/n)|/3.",
        (4, 5, 16, 65, 256),
        (5, 16),
        lambda n: metropolis(topology.ring(n)),
        spectral.contraction_ring,
        "nodes n",
        "Metropolis weights without the own share",
    ),
    _contraction(
        "contraction_path",
        "Path with Metropolis weights: ρ = (1 + 2 cos(π/n))/3.",
        (3, 16, 65, 256),
        (16,),
        lambda n: metropolis(topology.path(n)),
        spectral.contraction_path,
        "nodes n",
        "weights of the ends off",
    ),
    _contraction(
        "contraction_torus",
        "Torus of k × (k + 1) nodes, weights 1/5: ρ = max |1 + 2 cos(2πp/k) + 2 cos(2πq/(k + 1))|/5.",
        (3, 4, 7, 15),
        (4,),
        lambda k: metropolis(topology.torus(k, k + 1)),
        lambda k: spectral.contraction_torus(k, k + 1),
        "side k",
        "a torus that does not wrap around",
    ),
    _contraction(
        "contraction_hypercube",
        "Hypercube with weights 1/(d + 1): ρ = (d − 1)/(d + 1).",
        (2, 4, 6, 8),
        (4,),
        lambda d: metropolis(topology.hypercube(d)),
        spectral.contraction_hypercube,
        "dimension d",
        "a bit of the hypercube left out",
    ),
    _contraction(
        "contraction_star",
        "Star with Metropolis weights 1/n: ρ = 1 − 1/n.",
        (3, 16, 65, 256),
        (16,),
        lambda n: metropolis(topology.star(n)),
        spectral.contraction_star,
        "nodes n",
        "weights by the own degree only",
    ),
    _contraction(
        "contraction_complete",
        "Complete graph with weights 1/n: W = J, one round averages exactly.",
        (2, 16, 65),
        (16,),
        lambda n: metropolis(topology.complete(n)),
        spectral.contraction_complete,
        "nodes n",
        "an edge missing",
    ),
    _contraction(
        "contraction_exponential",
        "Static exponential graph: ρ is the largest FFT modulus of its row; 1 − 2/(1 + ⌈log₂ n⌉) for even n.",
        (6, 16, 37, 64, 250),
        (16, 37),
        lambda n: uniform(topology.exponential(n)),
        spectral.contraction_exponential,
        "nodes n",
        "a hop of the exponential graph left out",
    ),
    _contraction(
        "contraction_best_constant",
        "Best constant edge weight, 16 nodes: ρ = (ℓ_n − ℓ₂)/(ℓ_n + ℓ₂), Laplacian eigenvalues ℓ.",
        (0, 1, 2, 3),
        (0, 1, 2, 3),
        lambda g: best_constant(_EXTREMES[g][1](16)),
        lambda g: (_EXTREMES[g][3] - _EXTREMES[g][2]) / (_EXTREMES[g][3] + _EXTREMES[g][2]),
        "graph: ring, path, star, hypercube",
        "weights other than 2/(ℓ₂ + ℓ_n)",
    ),
    Claim(
        "contraction_random_regular",
        "Random d-regular graphs are nearly Ramanujan: max(λ₂, |λ_n|) of the adjacency ≤ 2√(d − 1) + o(1).",
        "Friedman 2008; 64 nodes, mean over graphs",
        Axis("degree d", (3, 4, 6, 8), (4,)),
        "second largest modulus of an adjacency eigenvalue",
        predict=pointwise(mixing.random_regular_lambda2_bound),
        simulate=each(_regular),
        sampling=Sampling(64, 16),
        catches=("graphs that are not random",),
        kind="upper",
        mark="recalled",
    ),
)
