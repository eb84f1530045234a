"""Robust gossip: how far rules let honest nodes move, when averaging converges, and when nothing can.

A rule is a (b, ρ)-robust sum if ``‖F(z) − Σ_H w_j z_j‖² ≤ ρ b Σ_H w_j ‖z_j‖²`` for all lies of weight b, where H are
the honest neighbours and z_j = x_j − x. Weights are those of the unit Laplacian of the honest graph.

Reference: the constants are proved in the notes of this project: clipping errs by at most ``Σ_H w (‖z‖ − τ)₊ + b τ``.
The rules are those of Gaucher, Dieuleveut, Hendrikx 2025, arXiv 2410.10418, and of He, Karimireddy, Jaggi 2022.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from .arguments import choice, real, square, whole

Number: TypeAlias = int | float
Sum: TypeAlias = Literal["cs_plus", "gts", "oracle"]
Rule: TypeAlias = Literal["cs_plus", "released", "gts", "nna", "he", "trimmed", "median"]
_RHO = {"cs_plus": 2.0, "gts": 4.0, "oracle": 1.0}
_RULES = ("cs_plus", "released", "gts", "nna", "he", "trimmed", "median")


def robustness(rule: str) -> float:
    """Give ρ of a robust sum: 2 for CS+, 4 for GTS, 1 for clipping at the oracle's ``τ = ½ √(Σ_H w ‖z‖²/b)``.

    Kind: bound. Source: the triangle inequality, term by term; GTS reaches 4.
    """
    return _RHO[choice("rule", rule, tuple(_RHO))]


def contraction(rule: str, b: Number, mu_2: Number, eta: Number) -> float:
    """Give the factor ``1 − η (μ₂ − 2 ρ b)`` by which ``Σ ‖x_i − x̄‖²`` over honest nodes shrinks in a round, at most.

    For ``x_i ← x_i + η F_i`` with η ≤ 1/μ_max. Below 1 the rule is robust; from 1 on it says nothing.

    Kind: bound. Source: completing the square in the pseudoinverse of the Laplacian.
    """
    b, mu_2 = real("b", b, least=0), real("mu_2", mu_2, above=0)
    return 1 - real("eta", eta, above=0) * (mu_2 - 2 * robustness(rule) * b)


def spectrum(laplacian) -> tuple[float, float]:
    """Give μ₂ and μ_max, the second smallest and the largest eigenvalue of a Laplacian.

    Kind: exact. Source: definition.
    """
    L = square("laplacian", laplacian, nodes=(2, None), symmetric=True)
    values = np.linalg.eigvalsh(L)
    return float(values[1]), float(values[-1])


def two_worlds(m: int, k: int) -> np.ndarray:
    """Give the adjacency of two cliques of m nodes, each node tied to k of the other clique.

    ``μ₂ = min(2 k, m + k − |sin(π k/m) / sin(π/m)|)``. With k liars at every node that repeat its own value, a node
    cannot tell the other clique from liars: no rule that tolerates b = k lets it move, and 2 k ≥ μ₂.

    Kind: exact. Source: construction; node i of the first clique is tied to i, i + 1, …, i + k − 1 of the second.
    """
    m = whole("m", m, least=2)
    k = whole("k", k, least=1, most=m)
    A = np.zeros((2 * m, 2 * m))
    A[:m, :m] = A[m:, m:] = 1 - np.eye(m)
    for step in range(k):
        i = np.arange(m)
        A[i, m + (i + step) % m] = A[m + (i + step) % m, i] = 1
    return A


def first_move(rule: str, m: int, k: int, b: int) -> float:
    """Give the first move of a node of the first clique of :func:`two_worlds`, where cliques hold 0 and 1.

    b liars send every node its own value; weights are ``1/(m + k + b)``. With S = m + k + b: CS+ ``k/S`` if 2 b ≤ k,
    else 0; with the next smaller distance, if 2 b < k; GTS ``(k − b)/S``; nearest neighbours and IOS
    ``(k − b)/(m + k)``; He's threshold ``k min(1, √((k − b)/b))/S``; trimmed mean ``(k − b)/(m + k − b)``; medians 0.

    Kind: exact. Source: counted.
    """
    choice("rule", rule, _RULES)
    m, k = whole("m", m, least=2), whole("k", k, least=1)
    b = whole("b", b, least=1, most=k, remedy="with more liars than ties the sums have other forms")
    total = m + k + b
    return {
        "cs_plus": k / total if 2 * b <= k else 0.0,
        "released": k / total if 2 * b < k else 0.0,
        "gts": (k - b) / total,
        "nna": (k - b) / (m + k),
        "he": k * min(1.0, float(np.sqrt((k - b) / b))) / total,
        "trimmed": (k - b) / (m + k - b),
        "median": 0.0,
    }[rule]
