"""Second moments of systems driven by random linear events: asynchronous gossip SGD on quadratics, exactly.

At the ticks of independent Poisson clocks the state ``z = (x, 1)`` jumps: ``z⁺ = M_e z + noise of covariance Q_e``. The
last entry stays one, which makes affine events linear. For any graph, rates, targets and curvatures, ``Z(t) = E z zᵀ``
then obeys a closed linear equation::

    dZ/dt = Σ_e r_e ( M_e Z M_eᵀ + Q_e − Z )

Node i holds ``f_i(x) = ½ a_i (x − b_i)²`` and sees gradients with noise ``N(0, σ²)``; coordinates do not interact, so
one is enough. Tuples of events are joined with ``+``. Everything here is exact.

Reference: derived here; the events are those of Boyd et al. 2006 (exchange), of Mitra and Ulukus 2024, arXiv 2404.19749
(push and update clocks), and of Lian et al. 2018, arXiv 1710.06952 (gradients taken at an older model).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import scipy.sparse.linalg
from jaxtyping import Float, Num
from scipy import sparse

from .arguments import choice, flag, real, reals, square, whole

Number: TypeAlias = int | float
Vector: TypeAlias = Num[np.ndarray, " n"]
Square: TypeAlias = Num[np.ndarray, "n n"]

_LARGEST = 51


class LinearEvent(NamedTuple):
    """``z⁺ = matrix @ z + noise`` at the ticks of a Poisson clock; the last row of the matrix is (0, …, 0, 1)."""

    rate: float
    matrix: Float[np.ndarray, "d d"]
    covariance: Float[np.ndarray, "d d"]


class ConsensusAndMean(NamedTuple):
    """The two second moments that runs of one coordinate are compared by."""

    consensus: float
    """``E (1/n) Σ_i (x_i − x̄)²``."""
    mean_square: float
    """``E x̄²``."""


def stationary_moments(events: Sequence[LinearEvent]) -> Float[np.ndarray, "d d"]:
    """Solve ``Σ_e r_e (M_e Z M_eᵀ + Q_e − Z) = 0`` for the stationary second moment Z with last entry one.

    With ``M_e = [[A_e, c_e], [0, 1]]`` the mean m solves ``Σ r_e ((A_e − I) m + c_e) = 0``, and ``S = E x xᵀ`` solves::

        (Σ_e r_e (A_e ⊗ A_e − I)) vec S = −vec Σ_e r_e ( A_e m c_eᵀ + c_e mᵀ A_eᵀ + c_e c_eᵀ + Q_e )

    The system is mean-square stable if and only if the adjoint equation with right side −I has a positive definite
    solution, which is checked. Kind: exact. Costs ``O(d⁶)``.

    Args:
        events: at least one event, on a state of at most 51 entries, the last of which is one.

    Returns:
        ``E z zᵀ``, symmetric.

    Raises:
        ValueError: shapes that differ, a last row that is not (0, …, 0, 1), negative rates, or a system that does not
            settle (its steps are too large, or nothing pulls a node to a target).

    Reference: Mitra and Ulukus 2024 (the model); the equation is derived here.
    """
    d = _dimension(events) - 1
    flow = _second_moment_flow([(e.rate, e.matrix[:-1, :-1]) for e in events]).toarray()
    _check_stable(flow, d)
    drift = np.sum([e.rate * (e.matrix - np.eye(d + 1)) for e in events], axis=0)
    mean = np.linalg.solve(-drift[:-1, :-1], drift[:-1, -1])
    source = np.zeros((d, d))
    for event in events:
        constant = event.matrix[:-1, -1]
        pulled = np.outer(event.matrix[:-1, :-1] @ mean, constant)
        source += event.rate * (pulled + pulled.T + np.outer(constant, constant) + event.covariance[:-1, :-1])
    second = np.linalg.solve(flow, -source.ravel()).reshape(d, d)
    second = 0.5 * (second + second.T)
    return np.block([[second, mean[:, None]], [mean[None, :], np.ones((1, 1))]])


def transient_moments(
    events: Sequence[LinearEvent], start: Float[np.ndarray, "d d"], times: Num[np.ndarray, " t"]
) -> Float[np.ndarray, "t d d"]:
    """Compute ``Z(t) = E z(t) z(t)ᵀ`` at given times: ``exp(t Σ_e r_e (M_e ⊗ M_e − I)) vec Z(0)``, with noise.

    The noise enters through the last entry of Z, which is always one. The result holds for unstable systems too. Kind:
    exact.

    Args:
        events: as for :func:`stationary_moments`.
        start: ``Z(0)``, see :func:`initial_moments`.
        times: t ≥ 0, in any order.

    Raises:
        ValueError: shapes that differ, bad events, negative times.
    """
    d = _dimension(events)
    start = reals("start", start, shape=(d, d), remedy="see initial_moments")
    if not np.isclose(start[-1, -1], 1.0, rtol=0, atol=1e-12):
        raise ValueError(f"start has the last entry {start[-1, -1]}: must be 1, see initial_moments")
    times = reals("times", times, shape=(None,), least=0)
    noise = np.sum([event.rate * event.covariance for event in events], axis=0)
    last = sparse.csr_array(([1.0], ([0], [d * d - 1])), shape=(1, d * d))
    flow = _second_moment_flow([(e.rate, e.matrix) for e in events]) + sparse.csr_array(noise.reshape(-1, 1)) @ last
    flow = sparse.csc_array(flow)
    values = [scipy.sparse.linalg.expm_multiply(flow * float(t), start.ravel()) for t in times]
    return np.asarray(values).reshape(-1, d, d)


def initial_moments(x: Num[np.ndarray, " n"]) -> Float[np.ndarray, "d d"]:
    """Return ``z zᵀ`` of a known start, z = (x, 1); with snapshots, x holds the models first and then the snapshots."""
    z = np.append(reals("x", x, shape=(None,)), 1.0)
    return np.outer(z, z)


def consensus_and_mean(Z: Float[np.ndarray, "d d"], n: int) -> ConsensusAndMean:
    """Return ``E (1/n) Σ (x_i − x̄)²`` and ``E x̄²`` of the first n entries of the state. Kind: exact."""
    Z = square("Z", Z, nodes=(2, None))
    n = whole("n", n, least=1, most=len(Z) - 1, remedy="the entries of the state besides the one")
    models = Z[:n, :n]
    of_mean = float(models.sum()) / n**2
    return ConsensusAndMean(float(np.trace(models)) / n - of_mean, of_mean)


def push_events(push_rates: Square, *, weight: Number = 0.5, snapshots: bool = False) -> tuple[LinearEvent, ...]:
    """Build one-way pushes i → j, ``x_j ← (1 − a) x_j + a x_i``, at rate ``push_rates[i, j]``.

    Args:
        push_rates: nonnegative; the diagonal is ignored.
        weight: a in (0, 1].
        snapshots: state (x, snapshot, 1) instead of (x, 1); pushes leave snapshots alone.

    Raises:
        ValueError: a matrix that is not square, negative rates, a weight outside (0, 1].
    """
    rates, weight = _pair_rates("push_rates", push_rates), _weight(weight)
    size = _size(len(rates), snapshots)
    events = []
    for i, j in zip(*np.nonzero(rates), strict=True):
        matrix = np.eye(size)
        matrix[j, j], matrix[j, i] = 1.0 - weight, weight
        events.append(LinearEvent(float(rates[i, j]), matrix, np.zeros((size, size))))
    return tuple(events)


def pairwise_events(rates: Square, *, weight: Number = 0.5, snapshots: bool = False) -> tuple[LinearEvent, ...]:
    """Build exchanges of i and j, ``x_i ← (1 − a) x_i + a x_j`` and the same for j, at rate
    ``rates[i, j] + rates[j, i]``.

    ``a = ½`` is pairwise averaging. If every node starts exchanges at rate λ and chooses partners by the law P, then
    ``rates = λP``. Arguments and errors are those of :func:`push_events`. Reference: Boyd, Ghosh, Prabhakar, Shah 2006.
    """
    rates, weight = _pair_rates("rates", rates), _weight(weight)
    size = _size(len(rates), snapshots)
    total = np.triu(rates + rates.T)
    events = []
    for i, j in zip(*np.nonzero(total), strict=True):
        matrix = np.eye(size)
        matrix[np.ix_([i, j], [i, j])] = [[1.0 - weight, weight], [weight, 1.0 - weight]]
        events.append(LinearEvent(float(total[i, j]), matrix, np.zeros((size, size))))
    return tuple(events)


def gradient_events(
    gradient_rates: Vector,
    curvatures: Vector,
    targets: Vector,
    *,
    step: Number,
    noise_std: Number,
    snapshots: bool = False,
) -> tuple[LinearEvent, ...]:
    """Build gradient steps of node i at rate ``gradient_rates[i]``, with noise ξ ~ N(0, σ²).

    ``x_i ← x_i − η (a_i (x_i − b_i) + ξ)``. With snapshots the gradient is that of the model at the start of the
    interval: ``x_i ← x_i − η (a_i (s_i − b_i) + ξ)``, then ``s_i ← x_i``.

    Args:
        gradient_rates: μ_i ≥ 0; with snapshots μ_i > 0.
        curvatures: a_i ≥ 0.
        targets: b_i.
        step: η > 0.
        noise_std: σ ≥ 0.
        snapshots: state (x, snapshot, 1) instead of (x, 1).

    Raises:
        ValueError: shapes that differ, numbers out of range.
    """
    rates, a, b = _node_values(gradient_rates, curvatures, targets)
    step, noise_std = _step(step, noise_std)
    if flag("snapshots", snapshots) and not (rates > 0).all():
        raise ValueError(f"gradient_rates={rates}: must be positive with snapshots, or a snapshot never moves")
    n, size = len(rates), _size(len(rates), snapshots)
    events = []
    for i in range(n):
        matrix, covariance = np.eye(size), np.zeros((size, size))
        seen, written = (n + i, [i, n + i]) if snapshots else (i, [i])
        row = matrix[i].copy()
        row[seen] -= step * a[i]
        row[-1] += step * a[i] * b[i]
        matrix[written] = row
        covariance[np.ix_(written, written)] = (step * noise_std) ** 2
        events.append(LinearEvent(float(rates[i]), matrix, covariance))
    return tuple(events)


def push_gossip_sgd_events(
    push_rates: Square,
    gradient_rates: Vector,
    curvatures: Vector,
    targets: Vector,
    *,
    step: Number,
    noise_std: Number,
    weight: Number = 0.5,
) -> tuple[LinearEvent, ...]:
    """Build asynchronous push-gossip SGD: :func:`push_events` and :func:`gradient_events` on the state (x, 1).

    Assumes: Poisson update clocks (no shift). Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (the algorithm).
    """
    gradients = gradient_events(gradient_rates, curvatures, targets, step=step, noise_std=noise_std)
    return push_events(push_rates, weight=weight) + gradients


def stale_gradient_events(
    push_rates: Square,
    gradient_rates: Vector,
    curvatures: Vector,
    targets: Vector,
    *,
    step: Number,
    noise_std: Number,
    weight: Number = 0.5,
) -> tuple[LinearEvent, ...]:
    """Build push-gossip SGD with gradients of the model at the start of each interval: state (x, snapshot, 1).

    :func:`push_events` on x, and :func:`gradient_events` with snapshots. Reference: Lian et al. 2018, arXiv 1710.06952
    (gradients of the model before the models of others were averaged in).
    """
    gradients = gradient_events(gradient_rates, curvatures, targets, step=step, noise_std=noise_std, snapshots=True)
    return push_events(push_rates, weight=weight, snapshots=True) + gradients


def complete_graph_moments(
    n: int,
    *,
    push_rate: Number,
    gradient_rate: Number,
    curvature: Number,
    step: Number,
    noise_std: Number,
    weight: Number = 0.5,
) -> ConsensusAndMean:
    """Solve push-gossip SGD on the complete graph with equal curvature and all targets zero: two equations.

    With ``V = Σ (x_i − x̄)²``, ``U = n x̄²``, h = ηa, gradient events at rate nμ, pushes at nλ with weight w::

        gradient:  ΔV = −(2h/n) V + (h²/n)(1 − 1/n)(V + U) + η²σ²(1 − 1/n)
                   ΔU = −(2h/n) U + (h²/n²)(V + U) + η²σ²/n
        push:      ΔV = −V [ 2w(1 − w)/(n − 1) + 2w²/(n(n − 1)) ],      ΔU = 2w² V/(n(n − 1))

    For large n the consensus tends to ``μη²σ²/(μ(2h − h²) + λ/2)`` (w = ½). Kind: exact. Source: derived here.

    Args:
        n: nodes, at least two.
        push_rate, gradient_rate: λ ≥ 0 and μ > 0 per node.
        curvature, step, noise_std, weight: a, η, σ, w.

    Raises:
        ValueError: numbers out of range, or a step that does not settle.
    """
    n, gradient_rate, curvature = _complete(n, gradient_rate, curvature)
    push_rate, weight = real("push_rate", push_rate, least=0), _weight(weight)
    step, noise_std = _step(step, noise_std)
    h, noise = step * curvature, (step * noise_std) ** 2
    mix = 2.0 * weight**2 / (n * (n - 1))
    shrink = 2.0 * weight * (1.0 - weight) / (n - 1) + mix
    to_spread, to_mean = h**2 / n * (1 - 1 / n), h**2 / n**2
    gradient = np.array([[to_spread - 2 * h / n, to_spread], [to_mean, to_mean - 2 * h / n]])
    flow = gradient_rate * gradient + push_rate * np.array([[-shrink, 0.0], [mix, 0.0]])
    if not (np.trace(flow) < 0 < np.linalg.det(flow)):
        raise ValueError(f"step={step}, curvature={curvature}: does not settle; step · curvature must lie in (0, 2)")
    V, U = np.linalg.solve(flow, -gradient_rate * noise * np.array([1 - 1 / n, 1 / n]))
    return ConsensusAndMean(float(V) / n, float(U) / n)


def heterogeneity_factor(
    n: int,
    *,
    gossip_rate: Number,
    gradient_rate: Number,
    curvature: Number,
    step: Number,
    weight: Number = 0.5,
) -> float:
    """Compute κ in ``E x_i − b̄ = κ (b_i − b̄)`` on the complete graph: how far data heterogeneity pulls models apart.

    ``κ = μh/(μh + wλn/(n − 1))``, h = ηa. Assumes: equal curvature and rates, push with weight w (an exchange moves the
    mean of two nodes at once: twice the gossip rate). Kind: exact. Source: derived here.

    Raises:
        ValueError: numbers out of range.
    """
    n, gradient_rate, curvature = _complete(n, gradient_rate, curvature)
    gossip_rate, weight = real("gossip_rate", gossip_rate, least=0), _weight(weight)
    step, _ = _step(step, 0.0)
    pull = gradient_rate * step * curvature
    return pull / (pull + weight * gossip_rate * n / (n - 1))


def averaging_second_moment_rate(
    rates: Square, *, event: Literal["exchange", "push"] = "exchange", weight: Number = 0.5
) -> float:
    """Compute the exponential rate at which ``E V(t)`` of random averaging decays at last, for almost every start.

    Minus the largest real part in the spectrum of ``Σ_e r_e (A_e ⊗ A_e − I)``, ``A_e = BᵀM_eB`` on the disagreement
    space (B an orthonormal basis of it). For exchanges it lies between the rate ``n(1 − λ₂(W̄))`` of the usual bound and
    twice that. Zero if the network is disconnected. Kind: exact (of a limit). Source: derived here; the one-event bound
    is Boyd, Ghosh, Prabhakar, Shah 2006.

    Args:
        rates: as in :func:`push_events` or :func:`pairwise_events`, at most 25 nodes.
        event: what happens at a tick.
        weight: a in (0, 1].

    Raises:
        ValueError: fewer than two or more than 25 nodes, rates or weight out of range, an unknown event.
    """
    choice("event", event, ("exchange", "push"))
    rates = square("rates", rates, least=0, nodes=(2, 25), remedy="use theory.spectral for bounds beyond")
    n = len(rates)
    events = (pairwise_events if event == "exchange" else push_events)(rates, weight=weight)
    basis = np.linalg.svd(np.eye(n) - 1.0 / n)[0][:, : n - 1]
    pieces = [(e.rate, basis.T @ e.matrix[:n, :n] @ basis) for e in events]
    if not pieces:
        return 0.0
    return max(0.0, -float(np.linalg.eigvals(_second_moment_flow(pieces).toarray()).real.max()))


def _second_moment_flow(pieces: list[tuple[float, np.ndarray]]) -> sparse.csr_array:
    """Return ``Σ r (A ⊗ A − I)`` for pairs (r, A)."""
    d = len(pieces[0][1])
    flow = sparse.csr_array((d * d, d * d))
    for rate, matrix in pieces:
        block = sparse.csr_array(matrix)
        flow = flow + rate * sparse.kron(block, block, format="csr")
    return flow - sum(rate for rate, _ in pieces) * sparse.eye_array(d * d, format="csr")


def _check_stable(flow: np.ndarray, d: int) -> None:
    """Reject a system whose second moment does not settle, by the sign of the adjoint solution."""
    message = "the second moment does not settle: lower step · curvature (below 2), or tie every node to a target"
    try:
        adjoint = np.linalg.solve(flow.T, -np.eye(d).ravel()).reshape(d, d)
    except np.linalg.LinAlgError as error:
        raise ValueError(message) from error
    # Beyond 1e12 relaxation times the result would be rounding error.
    settled = np.abs(adjoint).max() * np.abs(flow).max() < 1e12
    if not settled or np.linalg.eigvalsh(0.5 * (adjoint + adjoint.T))[0] <= 0:
        raise ValueError(message)


def _dimension(events: Sequence[LinearEvent]) -> int:
    if not isinstance(events, Sequence) or not all(isinstance(event, LinearEvent) for event in events):
        raise ValueError(f"events={events!r:.60}: must be a sequence of LinearEvent; build them with push_events")
    if not events:
        raise ValueError("events is empty: must hold at least one event")
    d = len(square("matrix of event 0", events[0].matrix))
    if not 2 <= d <= _LARGEST:
        raise ValueError(f"{d} state entries: need 2 to {_LARGEST}; the solve costs O(d⁶)")
    unit = np.eye(d)[-1]
    for k, (rate, matrix, covariance) in enumerate(events):
        for name, array in (("matrix", matrix), ("covariance", covariance)):
            reals(f"{name} of event {k}", array, shape=(d, d))
        if not np.array_equal(matrix[-1], unit) or covariance[-1].any() or covariance[:, -1].any():
            raise ValueError(f"event {k}: the last entry of the state must stay one, without noise")
        real(f"rate of event {k}", rate, least=0)
    return d


def _size(n: int, snapshots: bool) -> int:
    return 2 * n + 1 if flag("snapshots", snapshots) else n + 1


def _pair_rates(name: str, rates: np.ndarray) -> np.ndarray:
    rates = square(name, rates, least=0)
    np.fill_diagonal(rates, 0.0)
    return rates


def _node_values(rates, curvatures, targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rates = reals("gradient_rates", rates, shape=(None,), least=0)
    curvatures = reals("curvatures", curvatures, shape=rates.shape, least=0, remedy="one for each of gradient_rates")
    return rates, curvatures, reals("targets", targets, shape=rates.shape, remedy="one for each of gradient_rates")


def _step(step: Number, noise_std: Number) -> tuple[float, float]:
    remedy = "0 means exact gradients"
    return real("step", step, above=0), real("noise_std", noise_std, least=0, remedy=remedy)


def _weight(weight: Number) -> float:
    return real("weight", weight, above=0, most=1, remedy="½ averages")


def _complete(n: int, gradient_rate: Number, curvature: Number) -> tuple[int, float, float]:
    n = whole("n", n, least=2, remedy="gossip needs two nodes")
    return n, real("gradient_rate", gradient_rate, above=0), real("curvature", curvature, above=0)
