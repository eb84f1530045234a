"""Random mixing and push-sum: one-round factors, effective neighbours, and the exact factor of any finite lottery.

One round is ``x⁺ = W x`` with a new random matrix W. J = 1 1ᵀ / n and Π = I − J throughout; the "disagreement space" is
the set of x with mean zero. Each docstring gives the statement, its assumptions, its source, and its kind: *exact*,
*bound* or *order*. "Recalled" marks a formula that was not checked against the paper's text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import scipy.linalg
from jaxtyping import Float, Num

from .arguments import flag, pmf, real, reals, square, whole
from .spectral import slem

Number: TypeAlias = int | float


class Contraction(NamedTuple):
    """Range of ``E ‖x⁺ − c‖² / ‖x − x̄‖²`` over x; if both ends agree, the factor is the same for every x."""

    largest: float
    """For the worst x: an upper bound for all x, which is attained."""
    smallest: float
    """Best x."""


def expected_contraction(
    matrices: Sequence[Num[np.ndarray, "n n"]] | Num[np.ndarray, "draws n n"],
    probabilities: Num[np.ndarray, " draws"] | None = None,
    *,
    from_old_mean: bool = False,
) -> Contraction:
    """Compute the exact one-round factor of the squared disagreement for a W drawn from a finite list.

    The factor lies between the extreme eigenvalues, on the disagreement space, of::

        E[Wᵀ Π W]   deviations from the new mean:  ‖x⁺ − x̄⁺‖²
        E[Wᵀ W]     deviations from the old mean:  ‖x⁺ − x̄‖²

    The second needs rows that sum to one or, as in push-sum, an x of mean zero. Both agree for doubly stochastic W.
    Kind: exact for one round; over t independent rounds ``largest^t`` is an upper bound. Source: expand the squares
    (Boyd, Ghosh, Prabhakar, Shah 2006, section II, has the projections).

    Args:
        matrices: the matrices W, at least one, ``n ≥ 2``.
        probabilities: probability of each matrix; they sum to one. None: uniform.
        from_old_mean: whether deviations are measured from the old mean or from the new one.

    Raises:
        ValueError: matrices that are not square and of equal size, or probabilities that do not sum to one.
    """
    from_old_mean = flag("from_old_mean", from_old_mean)
    stack = reals("matrices", matrices, shape=(None, None, None), remedy="one or more square matrices, of one size")
    if stack.shape[1] != stack.shape[2] or stack.shape[1] < 2:
        raise ValueError(f"matrices of shape {stack.shape}: must be square, of at least 2 nodes")
    weights = _probabilities(probabilities, len(stack))
    basis = scipy.linalg.helmert(stack.shape[1]).T
    images = stack @ basis
    if not from_old_mean:
        images = images - images.mean(axis=1, keepdims=True)
    gram = np.einsum("t,tij,tik->jk", weights, images, images, optimize=True)
    eigenvalues = np.linalg.eigvalsh(gram)
    return Contraction(float(eigenvalues[-1]), float(eigenvalues[0]))


def effective_neighbors(W: Num[np.ndarray, "n n"], gamma: Number) -> float:
    """Compute the effective number of neighbours ``n_W(γ)``: the number of nodes that average noise with memory γ.

    This is the stationary variance of ``y ← √γ y + ξ`` over that of ``x ← W(√γ x + ξ)``, averaged over nodes, where ξ
    has unit variance. For symmetric W with eigenvalues λ_i::

        n_W(γ) = (1/(1 − γ)) / ( (1/n) Σ_i λ_i² / (1 − γ λ_i²) )

    For other W it follows from the Lyapunov equation ``C = γ W C Wᵀ + W Wᵀ``. It is 1 for W = I, n for W = J, and
    ``1 / mean λ²`` for γ = 0. Kind: exact. Source: Vogels, Hendrikx, Jaggi 2022, arXiv 2206.03093, section 3 (recalled,
    not checked against the paper's text; agrees with the random walk in the authors' published program).

    Args:
        W: mixing matrix whose rows sum to one, symmetric or not.
        gamma: γ in [0, 1); 1/(1 − γ) is the memory in rounds.

    Raises:
        ValueError: rows that do not sum to one, γ outside [0, 1), a walk that diverges.
    """
    return float(1.0 / (1.0 - _memory(gamma)) / np.mean(_walk_variance(W, gamma)))


def epidemic_factor(n: int, s: int, local: bool) -> float:
    """Compute the one-round factor of Epidemic Learning, in mean, with deviations from the *old* mean.

    ``E Σ(x⁺_i − x̄)² / Σ(x_i − x̄)²``, the same for every x::

        oracle  (1/(s+1)) (1 − s/(n−1))               each node receives from s random others
        local   (1/s) (1 − (1 − s/(n−1))^n) − 1/(n−1)  each sends to s random others and averages 1 + received models

    Kind: exact. Source: de Vos et al. 2023, arXiv 2310.01972, lemmas on the two variants (recalled, not checked
    against the paper's text; derived again and confirmed by enumerating all outcomes).

    Args:
        n: nodes, at least 2.
        s: messages per node, 1 ≤ s ≤ n − 1.
        local: EL-Local if true, else EL-Oracle.

    Raises:
        ValueError: n or s out of range.
    """
    n, s = _messages(n, s)
    local = flag("local", local)
    missed = 1.0 - s / (n - 1)
    return (1.0 - missed**n) / s - 1.0 / (n - 1) if local else missed / (s + 1)


def no_message_probability(n: int, s: int) -> float:
    """Compute the probability ``(1 − s/(n−1))^{n−1}`` that a node hears nothing when each node sends to s random
    others.

    It is about e^{−s}, so s must be about ln n if everybody is to hear something. Kind: exact. Source: the n − 1 others
    choose independently. Arguments and errors are those of :func:`epidemic_factor`.
    """
    n, s = _messages(n, s)
    return (1.0 - s / (n - 1)) ** (n - 1)


def one_peer_shift_factor(n: int, eta: Number) -> float:
    """Compute the factor ``1 − 2η(1 − η) n/(n−1)`` of averaging with a peer at a random common distance.

    ``W = (1 − η) I + η A_u``, where A_u is the cyclic shift by u, and u is uniform in 1 … n − 1. The factor
    ``E ‖x⁺ − x̄‖² / ‖x − x̄‖²`` is the same for every x, and ``(n − 2)/(2(n − 1))`` at η = ½. Kind: exact. Source:
    derived from ``Σ_u A_u = nJ − I``; the graphs are those of Song et al. 2022 (EquiTopo), arXiv 2210.07881.

    Raises:
        ValueError: fewer than two nodes, η outside [0, 1].
    """
    n = whole("n", n, least=2)
    eta = real("eta", eta, least=0, most=1, remedy="it is the weight of the peer; ½ averages both")
    return 1.0 - 2.0 * eta * (1.0 - eta) * n / (n - 1)


def one_peer_exponential_exact(n: int) -> bool:
    """Return whether the one-peer exponential graph averages exactly in τ = ⌈log₂ n⌉ rounds, i.e. n is a power of two.

    Round k averages node i with node i + 2^k mod n, with weights ½. Kind: exact in both directions: the product of the
    rounds gives each node a mean of 2^τ terms from n nodes, whose shares are equal only if n divides 2^τ. Source: Ying
    et al. 2021, arXiv 2110.13363, lemma 1 (recalled, not checked against the paper's text).

    Raises:
        ValueError: no node.
    """
    n = whole("n", n, least=1)
    return n & (n - 1) == 0


def random_regular_lambda2_bound(d: int) -> float:
    """Return ``2√(d−1)``, the asymptotic bound on the second adjacency eigenvalue of a random d-regular graph.

    For every ε > 0, ``max(λ₂, |λ_n|) ≤ 2√(d−1) + ε`` with probability tending to one in n, and no family of graphs does
    better in the limit (Alon, Boppana). Kind: asymptotic; a finite graph may exceed it. Source: Friedman 2008
    (recalled, not checked against the paper's text).

    Raises:
        ValueError: degree below 3.
    """
    d = whole("d", d, least=3)
    return 2.0 * math.sqrt(d - 1)


def push_sum_factor(n: int, self_allowed: bool) -> float:
    """Compute the factor ``E Φ⁺/Φ`` of one round of uniform push-sum: every node keeps half and pushes half.

    With ``Φ = Σ_ij (v_ij − w_i/n)²``, where v_ij is node i's share of value j and ``w_i = Σ_j v_ij``, the factor is the
    same for every state::

        ½ − 1/(4n)                              the target may be oneself
        ½ − 1/(2(n−1)) − (n−2)/(4(n−1)²)        the target is another node

    Kind: exact. Source: derived, and confirmed by enumerating all outcomes. Potential and algorithm: Kempe, Dobra,
    Gehrke 2003, whose factor ``½ − 1/(2n)`` (recalled, not checked against the paper's text) differs from the first
    line.

    Raises:
        ValueError: fewer than two nodes.
    """
    n = whole("n", n, least=2)
    if flag("self_allowed", self_allowed):
        return 0.5 - 1.0 / (4 * n)
    return 0.5 - 1.0 / (2 * (n - 1)) - (n - 2) / (4 * (n - 1) ** 2)


def push_sum_rate(P: Num[np.ndarray, "n n"]) -> float:
    """Compute the rate ``|λ₂(P)|`` at which ratio consensus ``x⁺ = P x``, ``w⁺ = P w``, ``z = x/w`` reaches x̄.

    ``‖z(t) − x̄‖ ~ |λ₂|^t`` up to powers of t. Kind: exact (asymptotic rate). Assumes: nonnegative columns that sum to
    one, and a graph and self-shares that keep every w positive in the limit. A rate of 1 means that there is no
    consensus.
    Source: Perron and Frobenius; Kempe, Dobra, Gehrke 2003 (the algorithm).

    Args:
        P: column-stochastic matrix; ``P_ij`` is the share that j sends to i.

    Raises:
        ValueError: not square, a negative share, or a column that does not sum to one.
    """
    return slem(square("P", P, least=0, sums="columns", remedy="otherwise a weight w may reach zero"))


def push_sum_rate_ring(n: int) -> float:
    """Compute ``|λ₂| = cos(π/n)`` of the directed ring in which every node keeps half and sends half.

    Kind: exact. Source: eigenvalues ``(1 + exp(2πik/n))/2``, of modulus ``|cos(πk/n)|``.

    Raises:
        ValueError: fewer than two nodes.
    """
    n = whole("n", n, least=2)
    return math.cos(math.pi / n)


def _walk_variance(W: np.ndarray, gamma: Number) -> Float[np.ndarray, " n"]:
    """Compute the stationary variance of each node in ``x ← W(√γ x + ξ)``."""
    W = square("W", W, sums="rows")
    symmetric = np.array_equal(W, W.T)
    eigenvalues, vectors = np.linalg.eigh(W) if symmetric else (np.linalg.eigvals(W), None)
    growth = gamma * float(np.max(np.abs(eigenvalues))) ** 2
    if growth >= 1:
        raise ValueError(f"gamma={gamma} times the squared spectral radius of W is {growth:.6g}: must be below 1")
    if vectors is not None:
        return vectors**2 @ (eigenvalues**2 / (1.0 - gamma * eigenvalues**2))
    return np.diag(scipy.linalg.solve_discrete_lyapunov(math.sqrt(gamma) * W, W @ W.T)).copy()


def _probabilities(values: np.ndarray | None, draws: int) -> Float[np.ndarray, " draws"]:
    if values is None:
        return np.full(draws, 1.0 / draws)
    weights = pmf("probabilities", values, size=draws)
    return weights / weights.sum()


def _memory(gamma: Number) -> float:
    return real("gamma", gamma, least=0, below=1, remedy="1/(1 - gamma) is the memory of the walk")


def _messages(n: int, s: int) -> tuple[int, int]:
    n = whole("n", n, least=2)
    return n, whole("s", s, least=1, most=n - 1, remedy="messages need another node to go to")
