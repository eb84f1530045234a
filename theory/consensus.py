"""Exact consensus distance of averaging and of D-PSGD on quadratics, with constant step size.

Node i holds ``f_i(x) = ½ a_i (x − b_i)²`` in every coordinate and sees gradients with noise ``N(0, σ²)``, independent
across nodes, steps and coordinates. H local steps with step size η multiply the distance to b_i by ``g_i = (1 − η
a_i)^H`` and add noise of variance ``η²σ² q_i``, ``q_i = Σ_{j<H} (1 − η a_i)^{2j}``. One round is therefore the affine
map ``x⁺ = M x + c + ξ`` with ``Cov ξ = Q``, G = diag(g), S = diag(q)::

    adapt_then_combine:  M = W G            c = W (I − G) b   Q = η²σ² W S Wᵀ
    combine_then_adapt:  M = W − (I − G)    c = (I − G) b     Q = η²σ² S

All results follow from the mean and covariance of that linear recursion, computed on plain float64 arrays and summed
over coordinates. They are exact unless their docstring says "bound". The consensus distance is ``(1/n) Σ_i ‖x_i −
x̄‖²``, in expectation.

Reference: Lian et al. 2017, arXiv 1705.09056 (the algorithm); the formulas are derived from the lines above.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int, Num

from .arguments import choice, real, reals, square, whole, wholes
from .spectral import contraction_factor

Order = Literal["adapt_then_combine", "combine_then_adapt"]
ORDERS = ("adapt_then_combine", "combine_then_adapt")


class Bias(NamedTuple):
    """Where the noiseless iteration stops, and how far that is from the optimum."""

    fixed_point: Float[np.ndarray, "n d"]
    """Model of each node."""
    optimum: Float[np.ndarray, " d"]
    """Minimiser ``Σ a_i b_i / Σ a_i`` of the mean objective."""
    squared_error: float
    """``(1/n) Σ_i ‖x_i − x*‖²``, the floor that more rounds cannot lower."""
    consensus_distance: float
    """``(1/n) Σ_i ‖x_i − x̄‖²``, the part of the squared error that is disagreement."""


class Path(NamedTuple):
    """``E (1/n) Σ_i ‖x_i − x̄‖²`` and ``E (1/n) Σ_i ‖x_i − x*‖²`` after t = 0 … T rounds."""

    consensus_distance: Float[np.ndarray, " t"]
    squared_error: Float[np.ndarray, " t"]


class _Round(NamedTuple):
    """``x⁺ = matrix @ x + drive + noise``."""

    matrix: np.ndarray
    drive: np.ndarray
    covariance: np.ndarray


def averaging_error(W: Num[np.ndarray, "n n"], x0: Num[np.ndarray, " n *d"], rounds: int) -> Float[np.ndarray, " t"]:
    """Return the exact error ``‖W^t x_0 − 1x̄_0ᵀ‖`` (Frobenius) of synchronous averaging after each of 0 … ``rounds``
    rounds.

    For a doubly stochastic W it is at most ``ρ^t ‖x_0 − 1x̄_0ᵀ‖``, see :func:`theory.spectral.contraction_factor`.

    Args:
        W: mixing matrix whose rows sum to one.
        x0: start values, one row per node.
        rounds: last t.

    Returns:
        One error per t, in the unit of x0.

    Raises:
        ValueError: wrong shapes, a W whose rows do not sum to one, negative rounds.

    Reference: Xiao and Boyd 2004, eq. 3.
    """
    W = _mixing_matrix(W)
    deviation = _columns("x0", x0, len(W))
    deviation = deviation - deviation.mean(axis=0)
    errors = [float(np.linalg.norm(deviation))]
    for _ in range(whole("rounds", rounds, least=0)):
        deviation = W @ deviation
        errors.append(float(np.linalg.norm(deviation)))
    return np.asarray(errors)


def stationary_consensus(
    W: Num[np.ndarray, "n n"],
    targets: Num[np.ndarray, " n *d"],
    *,
    step_size: float,
    noise_std: float,
    curvature: float = 1.0,
    order: Order = "adapt_then_combine",
    local_steps: int = 1,
) -> float:
    """Return the exact stationary consensus distance of D-PSGD for equal curvature and symmetric W, mode by mode.

    Over the n − 1 disagreement eigenpairs ``(w_k, u_k)``, with ``b_k = u_kᵀ b``, and g and q as in the module's
    docstring::

        (1/n) Σ_k [ (A_k (1 − g) b_k / (1 − r_k))² + A_k² η²σ² q / (1 − r_k²) ]

        adapt_then_combine:  A_k = w_k,  r_k = w_k g
        combine_then_adapt:  A_k = 1,    r_k = w_k − (1 − g)

    The first term depends only on the targets, the second only on the noise. Kind: exact.

    Args:
        W: symmetric mixing matrix whose rows sum to one.
        targets: ``b_i``, one row per node.
        step_size: η > 0.
        noise_std: σ ≥ 0 of one gradient coordinate.
        curvature: a ≥ 0, the same for all nodes.
        order: whether nodes mix after the local steps, or in parallel with them.
        local_steps: H ≥ 1 gradient steps before each mixing.

    Returns:
        ``E (1/n) Σ_i ‖x_i − x̄‖²``, squared unit of the targets.

    Raises:
        ValueError: a W that is not symmetric, bad numbers, or an unstable round (naming the eigenvalue).
    """
    modes = _modes(W, targets, step_size, curvature, noise_std, order, local_steps)
    _check_stable(modes.rate, order, step_size)
    bias = modes.drive / (1.0 - modes.rate)[:, None]
    noise = modes.variance / (1.0 - modes.rate**2)
    return float(np.sum(bias**2) + modes.drive.shape[1] * np.sum(noise)) / len(modes.vectors)


def transient_consensus(
    W: Num[np.ndarray, "n n"],
    targets: Num[np.ndarray, " n *d"],
    x0: Num[np.ndarray, " n *d"],
    rounds: Int[np.ndarray, " t"],
    *,
    step_size: float,
    noise_std: float,
    curvature: float = 1.0,
    order: Order = "adapt_then_combine",
    local_steps: int = 1,
) -> Float[np.ndarray, " t"]:
    """Return the exact expected consensus distance of D-PSGD after given numbers of rounds, from a fixed start.

    With ``y_k(0) = u_kᵀ x_0`` and the modes of :func:`stationary_consensus`::

        (1/n) Σ_k [ (r_k^t y_k(0) + A_k (1 − g) b_k (1 − r_k^t)/(1 − r_k))² + A_k² η²σ² q (1 − r_k^{2t})/(1 − r_k²) ]

    Holds for unstable rounds too. Kind: exact.

    Args:
        W: symmetric mixing matrix whose rows sum to one.
        targets: ``b_i``, one row per node.
        x0: start models, one row per node.
        rounds: numbers of rounds t ≥ 0.
        step_size, noise_std, curvature, order, local_steps: as in :func:`stationary_consensus`.

    Raises:
        ValueError: a W that is not symmetric, shapes that differ, bad numbers.
    """
    modes = _modes(W, targets, step_size, curvature, noise_std, order, local_steps)
    n, d = len(modes.vectors), modes.drive.shape[1]
    y0 = modes.vectors.T @ _columns("x0", x0, n, d)
    values = []
    for t in np.atleast_1d(wholes("rounds", rounds, least=0)).tolist():
        mean = (modes.rate**t)[:, None] * y0 + modes.drive * _geometric(modes.rate, t)[:, None]
        noise = modes.variance * _geometric(modes.rate**2, t)
        values.append(float(np.sum(mean**2) + d * np.sum(noise)) / n)
    return np.asarray(values)


def lyapunov_consensus(
    W: Num[np.ndarray, "n n"],
    curvatures: Num[np.ndarray, " n"],
    targets: Num[np.ndarray, " n *d"],
    *,
    step_size: float,
    noise_std: float,
    order: Order = "adapt_then_combine",
    local_steps: int = 1,
) -> float:
    """Return the exact stationary consensus distance of D-PSGD for unequal curvatures and a W that may be directed.

    The mean solves ``m = M m + c``, and the covariance of one coordinate solves the discrete Lyapunov equation ``C = M
    C Mᵀ + Q``. The result is ``(1/n) [ ‖Π m‖² + d tr(Π C Π) ]``, ``Π = I − J``. With equal curvatures the disagreement
    evolves independently of the mean, and only its equations are solved; a mean that never settles (a = 0) is then no
    obstacle. Kind: exact.

    Args:
        W: mixing matrix whose rows sum to one; need not be symmetric.
        curvatures: ``a_i ≥ 0``.
        targets: ``b_i``, one row per node.
        step_size, noise_std, order, local_steps: as in :func:`stationary_consensus`.

    Returns:
        ``E (1/n) Σ_i ‖x_i − x̄‖²``, squared unit of the targets.

    Raises:
        ValueError: bad shapes or numbers, or an unstable round (naming the eigenvalue).
    """
    step = _round(W, curvatures, targets, step_size, noise_std, order, local_steps)
    n, d = step.drive.shape
    basis = _disagreement_basis(n)
    equal = np.ptp(np.asarray(curvatures)) == 0.0
    if equal:
        step = _Round(basis.T @ step.matrix @ basis, basis.T @ step.drive, basis.T @ step.covariance @ basis)
    _check_stable(np.linalg.eigvals(step.matrix), order, step_size)
    mean = np.linalg.solve(np.eye(len(step.matrix)) - step.matrix, step.drive)
    covariance = scipy.linalg.solve_discrete_lyapunov(step.matrix, step.covariance)
    if not equal:
        mean, covariance = basis.T @ mean, basis.T @ covariance @ basis
    return float(np.sum(mean**2) + d * np.trace(covariance)) / n


def expected_path(
    W: Num[np.ndarray, "*period n n"],
    curvatures: Num[np.ndarray, " n"],
    targets: Num[np.ndarray, " n *d"],
    x0: Num[np.ndarray, " n *d"],
    rounds: int,
    *,
    step_size: float,
    noise_std: float,
    order: Order = "adapt_then_combine",
    local_steps: int = 1,
) -> Path:
    """Return the exact expected consensus distance and squared error of D-PSGD after every round.

    Iterates ``m ← M m + c`` and ``C ← M C Mᵀ + Q`` from ``m = x_0``, ``C = 0``; costs ``O(T n³)``. Kind: exact.

    Args:
        W: mixing matrix whose rows sum to one, or ``(period, n, n)`` matrices that are used in turn (a time-varying
            graph).
        curvatures: ``a_i ≥ 0``, not all zero.
        targets: ``b_i``, one row per node.
        x0: start models, one row per node.
        rounds: last t.
        step_size, noise_std, order, local_steps: as in :func:`stationary_consensus`.

    Raises:
        ValueError: bad shapes or numbers.
    """
    matrices = reals("W", W)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    if matrices.ndim != 3:
        raise ValueError(f"W of shape {matrices.shape}: must be (n, n) or (period, n, n)")
    rounds = whole("rounds", rounds, least=0)
    steps = [_round(m, curvatures, targets, step_size, noise_std, order, local_steps) for m in matrices]
    n, d = steps[0].drive.shape
    mean, covariance = _columns("x0", x0, n, d), np.zeros((n, n))
    optimum = _optimum(curvatures, targets)
    values = []
    for t in range(rounds + 1):
        consensus = np.sum((mean - mean.mean(axis=0)) ** 2) + d * (np.trace(covariance) - covariance.sum() / n)
        values.append((consensus / n, (np.sum((mean - optimum) ** 2) + d * np.trace(covariance)) / n))
        step = steps[t % len(steps)]
        mean = step.matrix @ mean + step.drive
        covariance = step.matrix @ covariance @ step.matrix.T + step.covariance
    return Path(*np.asarray(values).T)


def dpsgd_bias(
    W: Num[np.ndarray, "n n"],
    curvatures: Num[np.ndarray, " n"],
    targets: Num[np.ndarray, " n *d"],
    *,
    step_size: float,
    order: Order = "adapt_then_combine",
    local_steps: int = 1,
) -> Bias:
    """Return the fixed point ``x = (I − M)^{-1} c`` of D-PSGD without noise, and its distance from the optimum.

    The distance vanishes as η → 0, and if all targets are equal. Methods that correct the bias (D², gradient tracking)
    reach the optimum itself. Kind: exact.

    Args:
        W: mixing matrix whose rows sum to one.
        curvatures: ``a_i ≥ 0``, not all zero.
        targets: ``b_i``, one row per node.
        step_size, order, local_steps: as in :func:`stationary_consensus`.

    Raises:
        ValueError: bad shapes or numbers, or an unstable round (naming the eigenvalue).
    """
    step = _round(W, curvatures, targets, step_size, 0.0, order, local_steps)
    _check_stable(np.linalg.eigvals(step.matrix), order, step_size)
    n = len(step.matrix)
    optimum = _optimum(curvatures, targets)
    # The unknown is the distance to the optimum, so equal targets give exactly zero.
    shifted = _round(W, curvatures, _columns("targets", targets, n) - optimum, step_size, 0.0, order, local_steps)
    error = np.linalg.solve(np.eye(n) - shifted.matrix, shifted.drive)
    spread = error - error.mean(axis=0)
    return Bias(error + optimum, optimum, float(np.sum(error**2)) / n, float(np.sum(spread**2)) / n)


def consensus_bound(W: Num[np.ndarray, "n n"], *, step_size: float, noise_std: float) -> float:
    """Return the bound ``η²σ²(1 − p)/p``, ``1 − p = ρ²``, on the stationary consensus distance per coordinate.

    For adapt-then-combine with one local step, symmetric W, equal curvature with ``0 ≤ ηa ≤ 2`` and equal targets.
    Kind: upper bound on the exact value of :func:`stationary_consensus`.

    Args:
        W: symmetric mixing matrix whose rows sum to one, ρ < 1.
        step_size: η.
        noise_std: σ of one gradient coordinate.

    Raises:
        ValueError: ρ ≥ 1 (no consensus), or bad numbers.

    Reference: Koloskova et al. 2020, arXiv 2003.10422, the consensus lemma specialised to this case.
    """
    numbers = _numbers(step_size, noise_std, "adapt_then_combine", 1)
    squared = contraction_factor(_symmetric(W)) ** 2
    if squared >= 1.0:
        raise ValueError(f"rho={squared**0.5:.6g}: must be below 1; the graph of W is disconnected or W oscillates")
    return numbers.step_size**2 * numbers.noise_std**2 * squared / (1.0 - squared)


class _Modes(NamedTuple):
    """Disagreement modes: ``y_k⁺ = rate_k y_k + drive_k + N(0, variance_k)``, y = vectorsᵀ x."""

    vectors: np.ndarray
    rate: np.ndarray
    drive: np.ndarray
    variance: np.ndarray


def _modes(W, targets, step_size, curvature, noise_std, order, local_steps) -> _Modes:
    step_size, noise_std, local_steps = _numbers(step_size, noise_std, order, local_steps)
    curvature = real("curvature", curvature, least=0)
    W = _symmetric(W)
    b = _columns("targets", targets, len(W))
    keep, spread = _local(np.array([curvature]), step_size, local_steps)
    basis = _disagreement_basis(len(W))
    w, rotation = np.linalg.eigh(basis.T @ W @ basis)
    vectors = basis @ rotation
    gain, rate = (w, w * keep) if order == "adapt_then_combine" else (np.ones_like(w), w - (1.0 - keep))
    drive = (gain * (1.0 - keep))[:, None] * (vectors.T @ b)
    return _Modes(vectors, rate, drive, gain**2 * step_size**2 * noise_std**2 * spread)


def _round(W, curvatures, targets, step_size, noise_std, order, local_steps) -> _Round:
    step_size, noise_std, local_steps = _numbers(step_size, noise_std, order, local_steps)
    W = _mixing_matrix(W)
    b = _columns("targets", targets, len(W))
    keep, spread = _local(_curvatures(curvatures, len(W)), step_size, local_steps)
    pull, noise = (1.0 - keep)[:, None] * b, step_size**2 * noise_std**2 * spread
    if order == "adapt_then_combine":
        return _Round(W * keep, W @ pull, (W * noise) @ W.T)
    return _Round(W - np.diag(1.0 - keep), pull, np.diag(noise))


def _local(curvatures: np.ndarray, step_size: float, local_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return g = (1 − ηa)^H and q = Σ_{j<H} (1 − ηa)^{2j}; the sum has no singularity at a = 0."""
    factor = 1.0 - step_size * curvatures
    return factor**local_steps, np.sum([factor ** (2 * j) for j in range(local_steps)], axis=0)


def _geometric(ratio: np.ndarray, terms: int) -> np.ndarray:
    """Return Σ_{j<terms} ratio^j, also for ratio = 1."""
    one = ratio == 1.0
    return np.where(one, terms, (1.0 - ratio**terms) / np.where(one, 1.0, 1.0 - ratio))


def _disagreement_basis(n: int) -> np.ndarray:
    """Return n − 1 orthonormal columns orthogonal to the vector of ones, also for disconnected graphs (w = 1)."""
    return scipy.linalg.helmert(n).T if n > 1 else np.zeros((1, 0))


def _optimum(curvatures, targets) -> np.ndarray:
    a = reals("curvatures", curvatures, shape=(None,), least=0)
    if not np.sum(a) > 0:
        raise ValueError(f"curvatures sum to {np.sum(a)}: at least one must be positive, or there is no optimum")
    return (a / np.sum(a)) @ _columns("targets", targets, len(a))


def _mixing_matrix(W) -> np.ndarray:
    return square("W", W, sums="rows")


def _symmetric(W) -> np.ndarray:
    return square("W", W, sums="rows", symmetric=True, remedy="use lyapunov_consensus")


def _columns(name: str, values, n: int, d: int | None = None) -> np.ndarray:
    array = reals(name, values, remedy="one row per node of W")
    columns = array[:, None] if array.ndim == 1 else array
    if columns.ndim != 2 or columns.shape != (n, columns.shape[1] if d is None else d):
        raise ValueError(f"{name} has shape {array.shape}: must be ({n},) or ({n}, {d or 'd'}), one row per node of W")
    return columns


def _curvatures(values, n: int) -> np.ndarray:
    return reals("curvatures", values, shape=(n,), least=0, remedy="one per node")


class _Numbers(NamedTuple):
    step_size: float
    noise_std: float
    local_steps: int


def _numbers(step_size: float, noise_std: float, order: str, local_steps: int) -> _Numbers:
    choice("order", order, ORDERS)
    return _Numbers(
        real("step_size", step_size, above=0),
        real("noise_std", noise_std, least=0, remedy="0 means exact gradients"),
        whole("local_steps", local_steps, least=1),
    )


def _check_stable(eigenvalues: np.ndarray, order: str, step_size: float) -> None:
    """Reject a round whose largest eigenvalue lies on or outside the unit circle."""
    if len(eigenvalues) == 0:
        return
    worst = eigenvalues[np.argmax(np.abs(eigenvalues))]
    if abs(worst) < 1.0 - 1e-12:
        return
    value = f"{worst.real:.6g}" if abs(np.imag(worst)) < 1e-12 else f"{worst:.6g}"
    remedy = {
        "adapt_then_combine": "lower step_size · curvature (to below 2), or connect the graph",
        "combine_then_adapt": "lower step_size · curvature (below 1 + smallest eigenvalue of W), or use a lazy W",
    }[order]
    raise ValueError(f"step_size={step_size} is unstable: one round has the eigenvalue {value}, not below 1; {remedy}")
