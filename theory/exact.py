"""Linear rates of methods that are exact under heterogeneity, on quadratics: spectra of their iteration matrices.

Node i has the loss ``a_i (x − b_i)² / 2``; coordinates are independent, so a node's model is one number. Deviations
from the fixed point follow ``s ← M s``, and the rate is the largest ``|λ|`` of M among the modes that a run on a
connected graph can excite. Of an adjacency matrix only what is not 0 counts.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from .arguments import Number, choice, real, reals, square, whole

_KEPT = 1e-7
"""Eigenvalues this close to 1 belong to what an iteration conserves."""
_ROUNDING = 1e-12
"""Rounding errors of an eigenvalue on the unit circle."""
_ORDERS = {
    "combine_then_adapt": (False, False),
    "next": (False, True),
    "aug_dgm": (True, True),
    "adapt_then_combine": (True, True),
}
"""Whether gradients are mixed before trackers take them, and steps before models take them."""


def rate(M: Num[np.ndarray, "d d"], conserved: int) -> float:
    """Return the largest ``|λ|`` of a matrix besides a number of eigenvalues that are 1.

    Args:
        M: iteration matrix.
        conserved: how many eigenvalues are 1, one for each conserved quantity that the start fixes.

    Raises:
        ValueError: if fewer eigenvalues are 1.
    """
    M = square("M", M)
    conserved = whole("conserved", conserved, least=0, most=len(M) - 1)
    eigenvalues = np.linalg.eigvals(M)
    ones = np.abs(eigenvalues - 1) < _KEPT
    if ones.sum() < conserved:
        raise ValueError(f"conserved={conserved}: M has {ones.sum()} eigenvalues that are 1; count what it conserves")
    rest = np.delete(eigenvalues, np.flatnonzero(ones)[:conserved])
    return float(np.abs(rest).max())


def admm_rate(
    adjacency: Num[np.ndarray, "n n"], curvatures: Num[np.ndarray, " n"], *, penalty: Number, relaxation: Number = 0.5
) -> float:
    """Return the linear rate of the models of decentralized ADMM, relaxed, on quadratics.

    A mode of :func:`admm_matrix` that no model sees has ``Σ_j z_ij = 0`` and ``Σ_j z_ji = 0`` at every node, and
    ``z⁺ = (1 − α) z_ij − α z_ji``; such modes do not count. The rate is 1 where some models never settle: without any
    curvature, and for α = 1 on some graphs with nodes of curvature 0.

    Raises:
        ValueError: as :func:`admm_matrix`.
    """
    M = admm_matrix(adjacency, curvatures, penalty=penalty, relaxation=relaxation)
    i, j = np.nonzero(adjacency)
    node = np.arange(len(adjacency))[:, None]
    _, sizes, seen = np.linalg.svd(np.concatenate([node == i, node == j]).astype(float), full_matrices=False)
    seen = seen[sizes > _KEPT]
    found = float(np.abs(np.linalg.eigvals(seen @ M @ seen.T)).max())
    return 1.0 if abs(found - 1) < _ROUNDING else found


def exact_diffusion_rate(W: Num[np.ndarray, "n n"], curvatures: Num[np.ndarray, " n"], step_size: Number) -> float:
    """Return the linear rate of exact diffusion, and of NIDS with equal steps, on quadratics; of D² with ``2 W − I``.

    Raises:
        ValueError: as :func:`exact_diffusion_matrix`.
    """
    return rate(exact_diffusion_matrix(W, curvatures, step_size), 1)


def extra_rate(W: Num[np.ndarray, "n n"], curvatures: Num[np.ndarray, " n"], step_size: Number) -> float:
    """Return the linear rate of EXTRA on quadratics.

    Raises:
        ValueError: as :func:`extra_matrix`.
    """
    return rate(extra_matrix(W, curvatures, step_size), 1)


def gradient_tracking_rate(
    W: Num[np.ndarray, "n n"],
    curvatures: Num[np.ndarray, " n"],
    step_size: Number,
    *,
    order: str = "combine_then_adapt",
) -> float:
    """Return the linear rate of gradient tracking on quadratics.

    Raises:
        ValueError: as :func:`gradient_tracking_matrix`.
    """
    return rate(gradient_tracking_matrix(W, curvatures, step_size, order=order), 1)


def simple_gt_rate(W: Num[np.ndarray, "n n"], curvatures: Num[np.ndarray, " n"], step_size: Number) -> float:
    """Return the linear rate of SimpleGT on quadratics.

    ``s⁺ = s + (W − I) x``, ``x⁺ = x + s⁺ − γ a (x − b)``; Σs is conserved.

    Raises:
        ValueError: if W is not symmetric with rows that sum to one, or a number is out of range.
    """
    W, a, step = _problem(W, curvatures, step_size)
    eye = np.eye(len(W))
    return rate(np.block([[W - np.diag(step * a), eye], [W - eye, eye]]), 1)


def wang_elia_rate(W: Num[np.ndarray, "n n"], curvatures: Num[np.ndarray, " n"], step_size: Number) -> float:
    """Return the linear rate of the Wang–Elia algorithm on quadratics.

    With ``K = ½ (I − W)``: ``x⁺ = x − K (x + z) − γ a (x − b)``, ``z⁺ = z + K x``; Σz is conserved.

    Raises:
        ValueError: if W is not symmetric with rows that sum to one, or a number is out of range.
    """
    W, a, step = _problem(W, curvatures, step_size)
    eye = np.eye(len(W))
    K = (eye - W) / 2
    return rate(np.block([[eye - K - np.diag(step * a), -K], [K, eye]]), 1)


def dlm_rate(
    adjacency: Num[np.ndarray, "n n"], curvatures: Num[np.ndarray, " n"], step_size: Number, *, penalty: Number
) -> float:
    """Return the linear rate of DLM on quadratics.

    With the Laplacian L: ``x⁺ = x − μ (a (x − b) + ρ L x + y)``, ``y⁺ = y + ρ L x⁺``; Σy is conserved.

    Raises:
        ValueError: if the graph is not undirected, or a number is out of range.
    """
    A = _graph(adjacency)
    a, step = reals("curvatures", curvatures, shape=(len(A),), least=0), real("step_size", step_size, above=0)
    eye, pull = np.eye(len(A)), real("penalty", penalty, above=0) * (np.diag(A.sum(1)) - A)
    move = eye - step * (np.diag(a) + pull)
    return rate(np.block([[move, -step * eye], [pull @ move, eye - step * pull]]), 1)


def gradient_tracking_matrix(
    W: Num[np.ndarray, "n n"],
    curvatures: Num[np.ndarray, " n"],
    step_size: Number,
    *,
    order: str = "combine_then_adapt",
) -> Float[np.ndarray, "d d"]:
    """Return M of gradient tracking for the models, trackers and last models (x, y, x'), ``(3n, 3n)``.

    ``y⁺ = W y + a (x − x')`` or ``W (y + a (x − x'))``, ``x⁺ = W x − γ y⁺`` or ``W (x − γ y⁺)``, in the order that
    :func:`gossipjax.gradient_tracking` names; ``Σ (y − a x')`` is conserved.

    Raises:
        ValueError: if W is not symmetric with rows that sum to one, a number is out of range, or the order is none of
            the four.
    """
    W, a, step = _problem(W, curvatures, step_size)
    order = choice("order", order, _ORDERS)
    n = len(W)
    eye, zero = np.eye(n), np.zeros((n, n))
    tell, adapt = (W if mixed else eye for mixed in _ORDERS[order])
    tracker = np.hstack([tell * a, W, -tell * a])
    model = np.hstack([W, zero, zero]) - step * adapt @ tracker
    return np.vstack([model, tracker, np.hstack([eye, zero, zero])])


def exact_diffusion_matrix(
    W: Num[np.ndarray, "n n"], curvatures: Num[np.ndarray, " n"], step_size: Number
) -> Float[np.ndarray, "d d"]:
    """Return M of exact diffusion for the models and corrections (x, c), ``(2n, 2n)``; Σc is conserved.

    ``z = x − γ a (x − b) + c``, ``x⁺ = ½ (I + W) z``, ``c⁺ = x⁺ − x + γ a (x − b)``. NIDS with equal steps is the same
    after its first round.

    Raises:
        ValueError: if W is not symmetric with rows that sum to one, or a number is out of range.
    """
    W, a, step = _problem(W, curvatures, step_size)
    half, adapt = (np.eye(len(W)) + W) / 2, np.diag(1 - step * a)
    return np.block([[half @ adapt, half], [half @ adapt - adapt, half]])


def extra_matrix(
    W: Num[np.ndarray, "n n"], curvatures: Num[np.ndarray, " n"], step_size: Number
) -> Float[np.ndarray, "d d"]:
    """Return M of EXTRA for the models of two rounds (x_{t+1}, x_t), ``(2n, 2n)``; one quantity is conserved.

    ``x_{t+2} = (I + W) x_{t+1} − ½ (I + W) x_t − γ a (x_{t+1} − x_t)``; it conserves
    ``1ᵀ (x_{t+1} − x_t + γ a x_t)``, which the first round makes ``γ Σ a b``.

    Raises:
        ValueError: if W is not symmetric with rows that sum to one, or a number is out of range.
    """
    W, a, step = _problem(W, curvatures, step_size)
    n = len(W)
    eye, slope = np.eye(n), np.diag(step * a)
    return np.block([[eye + W - slope, slope - (eye + W) / 2], [eye, np.zeros((n, n))]])


def admm_matrix(
    adjacency: Num[np.ndarray, "n n"], curvatures: Num[np.ndarray, " n"], *, penalty: Number, relaxation: Number = 0.5
) -> Float[np.ndarray, "m m"]:
    """Return M of decentralized ADMM for the z_ij of the directed edges (i, j), in the order of ``np.nonzero``.

    ``x_i = Σ_j z_ij / (ρ d_i + a_i)`` up to a constant, ``z_ij⁺ = (1 − α) z_ij − α (z_ji − 2 ρ x_j)``.

    Raises:
        ValueError: if the graph is not undirected, or a number is out of range.
    """
    A = _graph(adjacency)
    a = reals("curvatures", curvatures, shape=(len(A),), least=0, remedy="one per node")
    rho, alpha = real("penalty", penalty, above=0), real("relaxation", relaxation, above=0, most=1)
    i, j = np.nonzero(A)
    place = {edge: k for k, edge in enumerate(zip(i.tolist(), j.tolist(), strict=True))}
    reverse = np.eye(len(i))[[place[edge] for edge in zip(j.tolist(), i.tolist(), strict=True)]]
    solve = (np.arange(len(A))[:, None] == i) / (rho * A.sum(1) + a)[:, None]
    return (1 - alpha) * np.eye(len(i)) - alpha * reverse + 2 * alpha * rho * solve[j]


def failing_rounds(
    adjacency: Num[np.ndarray, "n n"], x: Num[np.ndarray, " n"], rounds: int, *, active: Number, loss: Number
) -> Float[np.ndarray, " t"]:
    """Return ``E Σ_i (x_i − x̄)²`` after 0, 1, … rounds of averaging with absent nodes and lost messages.

    In each round every node is active with a probability of its own coin; active neighbours mix with Metropolis weights
    ``1/(1 + max(d_i, d_j))`` of the degrees among active nodes, and each message is lost independently, its weight
    staying with the receiver. With the active set S given, ``W = I + Σ_e ξ_e B_e`` with one independent coin for each
    message, so that ``E W Z Wᵀ`` is exact; it is averaged over all 2^n sets, hence n ≤ 12.

    Raises:
        ValueError: if the graph is not undirected or has more than 12 nodes, or a number is out of range.
    """
    A = square("adjacency", adjacency, symmetric=True)
    n = len(A)
    if n > 12 or A.diagonal().any():
        raise ValueError(f"adjacency: {n} nodes; must be at most 12, and none its own neighbour: all 2^n sets count")
    x = reals("x", x, shape=(n,), remedy="one per node")
    rounds = whole("rounds", rounds, least=0)
    p, arrives = real("active", active, least=0, most=1), 1 - real("loss", loss, least=0, most=1)
    flow = np.zeros((n * n, n * n))
    for number in range(2**n):
        present = (number >> np.arange(n)) % 2
        chance = p ** present.sum() * (1 - p) ** (n - present.sum())
        flow += chance * _mean_square_flow(A * np.outer(present, present), arrives)
    Z, found = np.outer(x, x), []
    for _ in range(rounds + 1):
        found.append(np.trace(Z) - Z.sum() / n)
        Z = (flow @ Z.ravel()).reshape(n, n)
    return np.asarray(found)


def _mean_square_flow(A: np.ndarray, arrives: float) -> Float[np.ndarray, "m m"]:
    """Return E W ⊗ W of the rounds on a graph whose messages arrive with a given probability."""
    n, degrees = len(A), (A != 0).sum(1)
    i, j = np.nonzero(A)
    pulls = np.zeros((len(i), n, n))
    k = np.arange(len(i))
    pulls[k, i, j] = 1 / (1 + np.maximum(degrees[i], degrees[j]))
    pulls[k, i, i] = -pulls[k, i, j]
    mean = np.eye(n) + arrives * pulls.sum(0)
    spread = np.einsum("eab,ecd->acbd", pulls, pulls).reshape(n * n, n * n)
    return np.kron(mean, mean) + arrives * (1 - arrives) * spread


def _graph(adjacency) -> np.ndarray:
    A = square("adjacency", adjacency, symmetric=True)
    if A.diagonal().any() or not A.any(1).all():
        raise ValueError("adjacency: every node needs a neighbour, and none is its own")
    return (A != 0).astype(float)


def _problem(W, curvatures, step_size) -> tuple[np.ndarray, np.ndarray, float]:
    W = square("W", W, sums="rows", symmetric=True)
    return W, reals("curvatures", curvatures, shape=(len(W),), least=0), real("step_size", step_size, above=0)
