"""What a network is asked for: how many rounds its mixing matrix takes to a stated accuracy, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float

from gossipjax._base.arguments import callable_of_one, real, reals, whole
from gossipjax._base.display import displayed
from gossipjax.topology import Topology

SYMMETRIC = 1e-9
"""Largest difference of W from its transpose, and of its rows' sums from one, that rounding may leave."""
STILL = 1e-14
"""Largest change by a whole cycle of rounds, as a share of the largest entry, that is rounding."""


@displayed
class Target(NamedTuple):
    """An accuracy, and the number of rounds to it. Write one of your own for what you have measured."""

    name: str
    rounds: Callable[[Float[np.ndarray, "n n"]], float]
    """``rounds(W)`` of a mixing matrix: whole, at most ``horizon``, or infinity if it is not reached by then."""
    horizon: int
    """Rounds after which a network counts as never getting there."""
    cycle_rounds: Callable[[Float[np.ndarray, "p n n"]], float] | None = None
    """The same of p matrices, one for each round, which repeat; None: networks that change have no score."""
    without: Callable[[int], Target] | None = None
    """``without(node)``, what is asked for if a node is lost; None: lost nodes are not scored."""

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.name, {"horizon": f"{self.horizon:,} rounds"}


def consensus(error: float, *, horizon: int = 10_000) -> Target:
    """Ask for a share of the first disagreement: the least T with ``E_T ≤ error · E_0``.

    ``E_T = E‖x_T − x̄‖²/n`` after T rounds of averaging, ``x ← W x``, from independent start values of equal variance.
    With the eigenvalues λ_k of a symmetric W, one of which is 1::

        E_T / E_0 = Σ_{k ≥ 2} λ_k^{2T} / (n − 1)

    Of matrices that change by round, ``E_T = ‖W_T … W_1 − J‖²_F / n``.

    >>> import gossipjax as gj
    >>> gj.design.consensus(1e-3).rounds(gj.mixing.metropolis(gj.topology.ring(16)).toarray())
    47.0

    Args:
        error: in (0, 1).
        horizon: see :class:`Target`.

    Raises:
        ValueError: if a number is out of range.
    """
    error = real("error", error, above=0, below=1, remedy="a share of the disagreement at the start")
    horizon = whole("horizon", horizon, least=1)
    settings = (error, horizon)
    return Target(
        f"E_T ≤ {error:g} E_0",
        Partial(_rounds_of_consensus, *settings),
        horizon,
        Partial(_cycle_rounds_of_consensus, *settings),
        Partial(_consensus_without, *settings),
    )


def quadratic(
    targets: Float[np.ndarray, " n *d"], *, step: float, start: float, error: float, horizon: int = 10_000
) -> Target:
    """Ask for the optimum of a quadratic: the first T with ``(1/n) Σ_i ‖x_i(T) − b̄‖² ≤ error``.

    Node i has the target b_i, and every round is ``x ← W ((1 − h) x + h b)`` from x = start: D-PSGD without noise,
    whose nodes train before they mix. It stops at some distance, since targets differ: a sparse graph may never get
    there.

    Args:
        targets: b, ``(n,)`` or ``(n, d)``.
        step: h in (0, 1): the share of the way to its own target that a node goes in a round. E steps of size η at the
            curvature a go ``1 − (1 − η a)^E``.
        start: every coordinate of every model.
        error: above 0, in the squared unit of the targets.
        horizon: see :class:`Target`.

    Raises:
        ValueError: if a number is out of range.
    """
    b = reals("targets", targets, remedy="one row for each node")
    if b.ndim not in (1, 2) or not b.size:
        raise ValueError(f"targets of shape {b.shape}: must be (n,) or (n, d), one row for each node")
    b = b.reshape(len(b), -1).astype(np.float64)
    h, start = real("step", step, above=0, below=1), real("start", start)
    error, horizon = real("error", error, above=0), whole("horizon", horizon, least=1)
    name, settings = f"mean ‖x − b̄‖² ≤ {error:g}, h = {h:g}", (b, h, start, error, horizon)
    return Target(
        name,
        Partial(_rounds_of_quadratic, *settings),
        horizon,
        Partial(_cycle_rounds_of_quadratic, *settings),
        Partial(_quadratic_without, *settings),
    )


def checked_matrix(W: Any, graph: Topology, name: str = "weights") -> Float[np.ndarray, "n n"]:
    """Return a symmetric mixing matrix of a graph as a dense array.

    Raises:
        ValueError: if its shape, its rows' sums, its symmetry or its edges are wrong.
    """
    n = graph.num_nodes
    dense = reals(name, W.toarray() if hasattr(W, "toarray") else W, shape=(n, n))
    off = max(np.abs(dense - dense.T).max(), np.abs(dense.sum(1) - 1).max())
    if off > SYMMETRIC:
        raise ValueError(
            f"{name}: W differs from a symmetric matrix with rows of sum one by {off:.3g}: use weights such as "
            "gossipjax.mixing.metropolis"
        )
    other = np.argwhere((dense != 0) & ~np.eye(n, dtype=bool) != (graph.adjacency().toarray() != 0))
    if len(other):
        i, j = other[0].tolist()
        raise ValueError(
            f"{name}: W[{i}, {j}] is {dense[i, j]:g}, and {graph.name} has {'an' if dense[i, j] == 0 else 'no'} edge "
            "there: weights must be on the edges of the graph, and on each of them"
        )
    return dense


def checked_target(target: Any) -> Target:
    """Return a target.

    Raises:
        TypeError: if it is none, or its rounds are no function.
        ValueError: if its horizon is no whole number.
    """
    if not isinstance(target, Target):
        raise TypeError(f"target={target!r:.60}: must be a Target, such as gossipjax.design.consensus(1e-3)")
    callable_of_one("target.rounds", target.rounds, "rounds(W) -> number")
    if target.cycle_rounds is not None:
        callable_of_one("target.cycle_rounds", target.cycle_rounds, "cycle_rounds(matrices) -> number")
    if target.without is not None:
        callable_of_one("target.without", target.without, "without(node) -> Target")
    whole("target.horizon", target.horizon, least=1)
    return target


def _rounds_of_consensus(error: float, horizon: int, W: np.ndarray) -> float:
    n = len(W)
    if n == 1:
        return 0.0
    squares = np.square(np.linalg.eigvalsh(W - 1 / n))  # of W, with 0 in place of the eigenvalue 1

    def reached(T: int) -> bool:
        return bool(np.sum(squares**T) <= error * (n - 1))

    if squares.max() > 1 + SYMMETRIC or not reached(horizon):
        return np.inf
    low, high = 0, horizon  # not reached at low, reached at high; the sum decreases in T
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return float(high)


def _rounds_of_quadratic(b: np.ndarray, h: float, start: float, error: float, horizon: int, W: np.ndarray) -> float:
    if len(W) != len(b):
        raise ValueError(f"targets of {len(b)} nodes for a network of {len(W)}: give one row for each node")
    values, vectors = np.linalg.eigh(W)
    rate = (1 - h) * values
    if np.abs(rate).max() >= 1:
        return np.inf
    # Every eigenvector of W has a mode of its own: y_k(t) = stop_k + rate_k^t (y_k(0) − stop_k).
    modes = vectors.T @ b
    stop = (h * values / (1 - rate))[:, None] * modes
    optimum = vectors.T @ np.broadcast_to(b.mean(axis=0), b.shape)
    away, ahead = vectors.T @ np.full(b.shape, start) - stop, stop - optimum
    square, mixed, rest = (np.sum(u * v, axis=1) for u, v in ((away, away), (away, ahead), (ahead, ahead)))
    begin, width = 0, 64
    while begin <= horizon:
        powers = rate ** np.arange(begin, min(begin + width, horizon + 1))[:, None]
        errors = (powers**2 @ square + 2 * powers @ mixed + rest.sum()) / len(W)
        if (errors <= error).any():
            return float(begin + np.argmax(errors <= error))
        begin, width = begin + width, min(2 * width, 2**20 // len(W) + 1)
    return np.inf


def _first(
    matrices: Float[np.ndarray, "p n n"],
    state: Float[np.ndarray, " n d"],
    step: Callable[[np.ndarray, np.ndarray], np.ndarray],
    reached: Callable[[np.ndarray], bool],
    horizon: int,
) -> float:
    """Count rounds until a state is reached, or infinity: at the horizon, or once a whole cycle changes nothing."""
    before = np.full_like(state, np.inf)
    for T in range(horizon + 1):
        if reached(state):
            return float(T)
        if T % len(matrices) == 0:
            if not np.isfinite(state).all() or np.abs(state - before).max() <= STILL * np.abs(state).max():
                return np.inf
            before = state
        state = step(matrices[T % len(matrices)], state)
    return np.inf


def _cycle_rounds_of_consensus(error: float, horizon: int, matrices: np.ndarray) -> float:
    n = matrices.shape[-1]
    if n == 1:
        return 0.0
    start, most = np.eye(n) - 1 / n, error * (n - 1)
    return _first(matrices, start, np.matmul, lambda X: float(np.sum(X**2)) <= most, horizon)


def _cycle_rounds_of_quadratic(
    b: np.ndarray, h: float, start: float, error: float, horizon: int, matrices: np.ndarray
) -> float:
    n = matrices.shape[-1]
    if n != len(b):
        raise ValueError(f"targets of {len(b)} nodes for a network of {n}: give one row for each node")
    mean, x = b.mean(axis=0), np.full(b.shape, start)

    def step(W: np.ndarray, x: np.ndarray) -> np.ndarray:
        return W @ ((1 - h) * x + h * b)

    return _first(matrices, x, step, lambda x: float(np.sum((x - mean) ** 2)) <= error * n, horizon)


def _consensus_without(error: float, horizon: int, node: int) -> Target:
    return consensus(error, horizon=horizon)


def _quadratic_without(b: np.ndarray, h: float, start: float, error: float, horizon: int, node: int) -> Target:
    return quadratic(np.delete(b, node, axis=0), step=h, start=start, error=error, horizon=horizon)
