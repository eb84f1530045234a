"""Compressed gossip: quality of compressors, CHOCO-gossip's step size and factor, bits of index codes.

A compressor Q has quality ω if ``E ‖Q(x) − x‖² ≤ (1 − ω) ‖x‖²`` for every x; ω = 1 sends everything. d is the number of
coordinates, k the number of those sent. Each docstring gives the statement, its assumptions, its source, and its kind:
*exact*, *upper bound*, *lower bound* or *order*. "Recalled" marks a formula that was not checked against the paper's
text.

Reference: Koloskova, Stich, Jaggi 2019, arXiv 1902.00340 (the definition of ω, CHOCO-gossip).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import scipy.linalg
import scipy.special
from jaxtyping import Float, Int, Num
from scipy.sparse.linalg import LinearOperator, eigs

from .arguments import real, reals, square, whole, wholes

Number: TypeAlias = int | float

_DENSE = 10


# Quality of compressors


def top_k(k: int, d: int) -> float:
    """Return the quality ``ω = k/d`` of sending the k coordinates of largest magnitude.

    Kind: lower bound on the quality, for every x, attained by a constant x; the value for one x is
    :func:`kept_energy`. Source: Stich, Cordonnier, Jaggi 2018, arXiv 1809.07599, lemma A.1 (recalled, not checked
    against the paper's text).

    Raises:
        ValueError: k outside 1 … d.
    """
    k, d = _parts(k, d)
    return k / d


def random_k(k: int, d: int) -> float:
    """Return the quality ``ω = k/d`` of sending k uniformly random coordinates unscaled.

    ``E ‖Q(x) − x‖² = (1 − k/d) ‖x‖²``, with equality for every x. Kind: exact, in mean. Source: each coordinate is
    sent with probability k/d.

    Raises:
        ValueError: k outside 1 … d.
    """
    k, d = _parts(k, d)
    return k / d


def kept_energy(x: Num[np.ndarray, " d"], k: int) -> float:
    """Compute the quality ``Σ_{k largest} x_i² / ‖x‖²`` of top-k on one vector; at least k/d. Kind: exact.

    Raises:
        ValueError: k outside 1 … d, a zero vector.
    """
    squares = np.sort(_vector(x) ** 2)
    k = whole("k", k, least=1, most=len(squares))
    return float(squares[len(squares) - k :].sum() / squares.sum())


def random_gossip(p: Number) -> float:
    """Return the quality ``ω = p`` of sending everything with probability p, else nothing. Kind: exact, in mean, for
    every x.

    Raises:
        ValueError: p outside (0, 1].
    """
    p = real("p", p, above=0, most=1)
    return float(p)


def from_unbiased(variance: Number) -> float:
    """Return the quality ``ω = 1/(1 + v)`` of ``Q(x)/(1 + v)``, where Q is unbiased with ``E ‖Q(x) − x‖² ≤ v ‖x‖²``.

    Kind: lower bound on the quality, exact where the variance is. Source: Koloskova, Stich, Jaggi 2019, section 3.5:
    ``E ‖Q/τ − x‖² = ‖x‖² − (2/τ)‖x‖² + E‖Q‖²/τ²`` with ``E‖Q‖² ≤ τ‖x‖²``.

    Raises:
        ValueError: a negative variance.
    """
    variance = real("variance", variance, least=0, remedy="it is relative to the squared norm")
    return 1.0 / (1.0 + variance)


def qsgd_variance(levels: int, d: int) -> float:
    """Return the bound ``min(d/s², √d/s)`` on ``E ‖Q(x) − x‖² / ‖x‖²`` of QSGD with s levels.

    ``Q(x)_i = ‖x‖ sign(x_i) ξ_i``, where ξ_i is ``|x_i|/‖x‖`` rounded at random to a neighbour on the grid 0, 1/s … 1,
    without changing its mean. Kind: upper bound. Source: Alistarh et al. 2017, arXiv 1610.02132, lemma 3.1 (recalled,
    not checked against the paper's text).

    Args:
        levels: s ≥ 1, levels above zero.
        d: coordinates.

    Raises:
        ValueError: no level, no coordinate.
    """
    levels, d = whole("levels", levels, least=1), whole("d", d, least=1)
    return min(d / levels**2, math.sqrt(d) / levels)


def qsgd(levels: int, d: int) -> float:
    """Return the quality ``ω = 1/(1 + min(d/s², √d/s))`` of QSGD divided by ``1 + min(d/s², √d/s)``.

    Kind: lower bound on the quality. Arguments and errors: see :func:`qsgd_variance`; source: see
    :func:`from_unbiased`.
    """
    return from_unbiased(qsgd_variance(levels, d))


def scaled_sign(x: Num[np.ndarray, " d"]) -> float:
    """Compute the quality ``ω = ‖x‖₁² / (d ‖x‖₂²)`` of ``Q(x) = (‖x‖₁/d) sign(x)`` on one vector, at least 1/d.

    Kind: exact if no coordinate is zero or sign(0) = ±1, else a lower bound. Source: Karimireddy et al. 2019, arXiv
    1901.09847, lemma 8 (recalled, not checked against the paper's text).

    Raises:
        ValueError: a zero vector.
    """
    x = _vector(x)
    return float(np.abs(x).sum() ** 2 / (len(x) * (x @ x)))


def scaled_sign_gaussian(d: int) -> float:
    """Compute the mean ``(1 + (d − 1) 2/π)/d`` of :func:`scaled_sign` over Gaussian x; 2/π for many coordinates.

    Assumes: independent coordinates of mean zero and equal variance. Kind: exact. Source: direction and length are
    independent, so the mean of the ratio is ``E ‖x‖₁² / (d E ‖x‖₂²)``.

    Raises:
        ValueError: no coordinate.
    """
    d = whole("d", d, least=1)
    return (1.0 + (d - 1) * 2.0 / math.pi) / d


# CHOCO-gossip


def choco_step(delta: Number, beta: Number, omega: Number) -> float:
    """Return the published step size ``γ = δ²ω / (16δ + δ² + 4β² + 2δβ² − 8δω)`` of CHOCO-gossip.

    Kind: sufficient for :func:`choco_bound`, and far below the best step size. Source: Koloskova, Stich,
    Jaggi 2019, theorem 2 (recalled, not checked against the paper's text).

    Args:
        delta: spectral gap ``δ = 1 − |λ₂(W)|`` in (0, 1].
        beta: ``β = ‖I − W‖₂`` in [δ, 2].
        omega: quality ω in (0, 1].

    Raises:
        ValueError: numbers out of range.
    """
    delta = real("delta", delta, above=0, most=1)
    omega = real("omega", omega, above=0, most=1)
    beta = real("beta", beta)
    # Rounding may put an eigenvalue slightly past the end of its interval.
    if not delta <= beta + 1e-9 or not beta <= 2 + 1e-9:
        raise ValueError(f"beta={beta}: the norm of I - W lies between delta={delta} and 2")
    return delta**2 * omega / (16 * delta + delta**2 + 4 * beta**2 + 2 * delta * beta**2 - 8 * delta * omega)


def choco_bound(delta: Number, omega: Number) -> float:
    """Return the factor ``1 − δ²ω/82`` per round of ``E Σ ‖x_i − x̄‖² + ‖x_i − x̂_i‖²`` under :func:`choco_step`.

    Kind: upper bound. Assumes: symmetric doubly stochastic W, any compressor of quality ω. Source: Koloskova, Stich,
    Jaggi 2019, theorem 2 (recalled, not checked against the paper's text; holds against :func:`choco_factor`).

    Raises:
        ValueError: numbers out of (0, 1].
    """
    delta = real("delta", delta, above=0, most=1)
    omega = real("omega", omega, above=0, most=1)
    return 1.0 - delta**2 * omega / 82.0


def choco_factor(W: Num[np.ndarray, "n n"], omega: Number, gamma: Number) -> float:
    """Compute the exact factor per round of CHOCO-gossip's squared error, if nodes send everything with probability ω.

    With independent ``b_i`` that are one with probability ω, else zero::

        x̂⁺ = x̂ + b (x − x̂)        x⁺ = x + γ (W − I) x̂⁺

    The factor is the spectral radius of the linear map of the second moments K of ``z = (x − x̄, x̂ − x̄)``. With
    ``M = [[I, 0], [ωI, (1−ω)I]]`` and ``G = [[I, γ(W−I)], [0, I]]``::

        K⁺ = G ( M K Mᵀ + ω(1−ω) [[0, 0], [0, diag E(x − x̂)²]] ) Gᵀ

    ``E Σ ‖x_i − x̄‖² + ‖x_i − x̂_i‖²`` grows or shrinks like the powers of the factor; above one the process diverges
    in mean square.
    Kind: exact (asymptotic rate). Source: derived; the algorithm: Koloskova, Stich, Jaggi 2019, algorithm 1.

    Args:
        W: symmetric doubly stochastic matrix, n ≥ 2. Up to 10 nodes all eigenvalues of the map are computed; beyond,
            Arnoldi iteration is used.
        omega: probability ω in (0, 1].
        gamma: consensus step size γ > 0.

    Raises:
        ValueError: a W that is not symmetric or whose rows do not sum to one, numbers out of range.
    """
    W = _symmetric(W)
    omega = real("omega", omega, above=0, most=1)
    return _choco_factor(W, omega, real("gamma", gamma, above=0))


def choco_errors(
    W: Num[np.ndarray, "n n"], x0: Num[np.ndarray, " n"], rounds: Int[np.ndarray, " t"], *, omega: Number, gamma: Number
) -> Float[np.ndarray, " t"]:
    """Compute ``E Σ ‖x_i − x̄‖² + ‖x_i − x̂_i‖²`` after given numbers of rounds, by the map of :func:`choco_factor`.

    Copies x̂ start at zero; x0 is one number per node, of mean zero. Kind: exact. Source: derived. Other arguments and
    errors are those of :func:`choco_factor`; numbers of rounds are t ≥ 0 in any order.
    """
    W, rounds = _symmetric(W), wholes("rounds", rounds, shape=(None,), least=0)
    n = len(W)
    start, gamma = reals("x0", x0, shape=(n,)), real("gamma", gamma, above=0)
    omega = real("omega", omega, above=0, most=1)
    if abs(start.mean()) > 1e-9 * np.abs(start).max(initial=0.0):
        raise ValueError(f"x0 has the mean {start.mean():.3g}: give {n} numbers of mean zero")
    one, none = np.eye(n), np.zeros((n, n))
    mean = np.block([[one, none], [omega * one, (1 - omega) * one]])
    move = np.block([[one, gamma * (W - one)], [none, one]])
    gap = np.concatenate([one, -one], axis=1)
    K, errors = scipy.linalg.block_diag(np.outer(start, start), none), []
    for _ in range(int(rounds.max(initial=0)) + 1):
        away = K[:n, :n]
        errors.append(np.trace(away) - away.sum() / n + np.trace(gap @ K @ gap.T))
        drawn = np.diag(omega * (1 - omega) * np.diag(gap @ K @ gap.T))
        K = mean @ K @ mean.T
        K[n:, n:] += drawn
        K = move @ K @ move.T
    return np.asarray(errors)[rounds]


# Bits on the wire


def elias_gamma_bits(values: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
    """Compute the length ``2 ⌊log₂ v⌋ + 1`` in bits of the Elias gamma code of each positive integer.

    Integer arithmetic makes powers of two exact. Kind: exact. Source: Elias 1975.

    Raises:
        ValueError: a value below one.
    """
    if not (isinstance(values, np.ndarray) and values.size == 0):
        values = wholes("values", values, least=1, remedy="code gaps, not indices")
    values = np.asarray(values)
    rest, exponent = values.astype(np.uint64), np.zeros(values.shape, np.int64)
    for shift in (32, 16, 8, 4, 2, 1):
        high = rest >> np.uint64(shift)
        exponent += shift * (high > 0)
        rest = np.where(high > 0, high, rest)
    return 2 * exponent + 1


def gap_pmf(k: int, d: int) -> Float[np.ndarray, " gaps"]:
    """Compute the law of a gap between sorted indices of a uniformly random k-subset of 1 … d.

    ``P(gap = j) = C(d−j, k−1)/C(d, k)``, j = 1 … d − k + 1; the first index counts as a gap from 0, and all k gaps have
    this law. Kind: exact (in logarithms). Source: the gaps of a uniform subset are exchangeable.

    Raises:
        ValueError: k outside 1 … d.
    """
    k, d = _parts(k, d)
    # P(gap = j) = P(gap > j − 1) · k / (d − j + 1): the next index is in the set, given that the indices before it are
    # not.
    j = np.arange(1, d - k + 2)
    return np.exp(_log_survival(k, d, d - k)[: len(j)]) * k / (d - j + 1)


def expected_gap_bits(k: int, d: int) -> float:
    """Compute the mean Elias gamma bits of all k gaps of a uniformly random k-subset of d coordinates.

    ``k (1 + 2 Σ_{m≥1} P(gap ≥ 2^m))``, ``P(gap > g) = C(d−g, k)/C(d, k)``, see :func:`gap_pmf`; divide by k for bits
    per index. The first index is coded as a gap from 0. Kind: exact. Source: a tail sum of :func:`elias_gamma_bits`.

    Raises:
        ValueError: k outside 1 … d.
    """
    k, d = _parts(k, d)
    # Beyond 750 d/k the survival is below e^{-750}, zero in float64.
    last = min(d - k, math.ceil(750 * d / k))
    survival = np.exp(_log_survival(k, d, last))
    powers = 2 ** np.arange(1, max(last, 1).bit_length() + 1) - 1
    return k * (1.0 + 2.0 * float(survival[powers[powers <= last]].sum()))


def bernoulli_gap_bits(alpha: Number) -> float:
    """Compute the mean Elias gamma bits per index ``1 + 2 Σ_{m≥1} (1 − α)^(2^m − 1)`` of a random mask.

    Each coordinate is sent with probability α, independently of the others. Gaps are geometric, and the result is the
    limit of :func:`expected_gap_bits` for k = αd, d → ∞. Kind: exact. Source: that of :func:`expected_gap_bits`.

    Raises:
        ValueError: α outside (0, 1].
    """
    alpha = real("alpha", alpha, above=0, most=1)
    # (1 − α)^(2^m − 1) is zero in float64 from 2^m = 750/α on.
    m = np.arange(1, math.ceil(math.log2(750 / alpha)) + 1)
    return 1.0 + 2.0 * float(np.sum((1.0 - alpha) ** (2.0**m - 1.0)))


def golomb_gap_bits(alpha: Number) -> float:
    """Compute the mean Golomb bits per index ``b + 1/(1 − (1 − α)^(2^b))`` of a random mask, at the best whole b.

    Each coordinate is sent with probability α, independently of the others. A gap g takes one bit for each whole 2^b in
    g − 1, one to end them, and b for the rest. The best b is within one of ``log₂(ln 2 / α)``, near which all are
    tried. Kind: exact. Source: a geometric sum.

    Raises:
        ValueError: α outside (0, 1].
    """
    alpha = real("alpha", alpha, above=0, most=1)
    middle = max(0, round(math.log2(math.log(2) / alpha)))
    return min(b + 1.0 / (1.0 - (1.0 - alpha) ** 2.0**b) for b in range(max(0, middle - 2), middle + 3))


def subset_entropy_bits(k: int, d: int) -> float:
    """Compute ``log₂ C(d, k)``: no code for a uniformly random k-subset of d has fewer bits on average.

    Kind: exact entropy, a lower bound for every code. Source: Shannon 1948, source coding.

    Raises:
        ValueError: k outside 1 … d.
    """
    k, d = _parts(k, d)
    return -float(scipy.special.betaln(k + 1, d - k + 1) + math.log(d + 1)) / math.log(2)


def _log_survival(k: int, d: int, last: int) -> Float[np.ndarray, " gaps"]:
    """Compute ``log P(gap > g)``, g = 0 … last: none of the first g coordinates is in the set."""
    # A sum of small terms keeps digits that a difference of log-factorials loses.
    steps = np.log1p(-k / (d - np.arange(last)))
    return np.concatenate([[0.0], np.cumsum(steps)])


def _choco_factor(W: np.ndarray, omega: float, gamma: float) -> float:
    """Compute the spectral radius of the map of second moments, restricted to states whose x has mean zero."""
    n = len(W)
    basis, one, none = scipy.linalg.helmert(n).T, np.eye(n), np.zeros((n, n))
    # The coordinates (basisᵀ x, x̂) leave out the mean of x, which is conserved.
    expand = scipy.linalg.block_diag(basis, one)
    mean = np.block([[one, none], [omega * one, (1 - omega) * one]])
    move = expand.T @ np.block([[one, gamma * (W - one)], [none, one]])
    linear = move @ mean @ expand
    spread = math.sqrt(omega * (1 - omega)) * move[:, n:]
    error = np.concatenate([basis, -one], axis=1)
    return (_dense_radius if n <= _DENSE else _krylov_radius)(linear, spread, error)


def _dense_radius(linear: np.ndarray, spread: np.ndarray, error: np.ndarray) -> float:
    """Compute the spectral radius of ``K ↦ A K Aᵀ + Σ_i s_i s_iᵀ (e_iᵀ K e_i)`` on symmetric K, from its matrix."""
    m = len(linear)
    full = (
        np.kron(linear, linear) + scipy.linalg.khatri_rao(spread, spread) @ scipy.linalg.khatri_rao(error.T, error.T).T
    )
    rows, columns = np.triu_indices(m)
    above, below = full[rows * m + columns][:, rows * m + columns], full[rows * m + columns][:, columns * m + rows]
    return float(np.max(np.abs(np.linalg.eigvals(above + np.where(rows == columns, 0.0, below)))))


def _krylov_radius(linear: np.ndarray, spread: np.ndarray, error: np.ndarray) -> float:
    """Compute the same spectral radius without forming the matrix.

    The map keeps K positive semidefinite. Its spectral radius is therefore an eigenvalue, and powers of the map applied
    to I grow by that factor.
    """
    m = len(linear)

    def apply(K: np.ndarray) -> np.ndarray:
        K = K.reshape(m, m)
        variance = np.einsum("ij,ij->i", error @ K, error)
        return (linear @ K @ linear.T + (spread * variance) @ spread.T).ravel()

    operator = LinearOperator((m * m, m * m), matvec=apply, dtype=np.float64)
    start = np.eye(m).ravel()
    eigenvalues = eigs(operator, k=1, which="LM", v0=start, ncv=40, tol=1e-10, maxiter=5000, return_eigenvectors=False)
    return float(abs(eigenvalues[0]))


def _symmetric(W: np.ndarray) -> np.ndarray:
    return square("W", W, nodes=(2, None), sums="rows", symmetric=True)


def _vector(x: np.ndarray) -> np.ndarray:
    x = reals("x", x, shape=(None,))
    if not np.any(x):
        raise ValueError(f"x={x}: quality is relative to the squared norm, which must be positive")
    return x


def _parts(k: int, d: int) -> tuple[int, int]:
    d = whole("d", d, least=1)
    return whole("k", k, least=1, most=d), d
