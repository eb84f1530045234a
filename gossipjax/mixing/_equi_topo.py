"""EquiTopo: random shifts whose consensus rate does not depend on the number of nodes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from scipy import sparse

from gossipjax._base.arguments import flag, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.topology._graph import require_nodes

_ADVICE = "choose fewer of them, or fewer nodes"


@recorded("song2022equitopo")
def equi_static(num_nodes: int, num_shifts: int, *, seed: int, directed: bool = True) -> sparse.csr_array:
    """Build a D-EquiStatic or U-EquiStatic matrix: the mean of M random shifts of the nodes.

    ``W = (1/M) Σ_m A_{u_m}`` with ``A_u = I/n + (n − 1)/n P_u``, where P_u passes the model of node i to node i + u
    modulo n, and u_1, …, u_M are drawn uniformly from 1 … n − 1, with replacement. The undirected form is (W + Wᵀ)/2.
    Doubly stochastic; each node sends to at most M others (undirected: 2 M). With probability at least 1 − p,
    ``‖W − J‖ ≤ ρ`` for ``M ≥ 8 ln(2n/p)/(3ρ²)``, so that M grows with ln n for a given ρ.

    Args:
        num_nodes: n ≥ 2.
        num_shifts: M ≥ 1.
        seed: of the NumPy generator.
        directed: D-EquiStatic; else U-EquiStatic, which is symmetric.

    Returns:
        ``(n, n)`` float64.

    Raises:
        ValueError: if an argument is out of range.

    Reference: Song et al. 2022, "Communication-efficient topologies for decentralized learning with O(1) consensus
    rate", arXiv 2210.07881.
    """
    n, M = _sizes(num_nodes), whole("num_shifts", num_shifts, least=1)
    directed = flag("directed", directed)
    check_memory(f"num_nodes={n}, num_shifts={M}: the weights", 100.0 * n * M, _ADVICE)
    return _mean_of_shifts(n, np.random.default_rng(checked_seed(seed)).integers(1, n, M), directed)


def _mean_of_shifts(n: int, shifts: Int[np.ndarray, " M"], directed: bool) -> sparse.csr_array:
    nodes, share = np.arange(n), (n - 1) / n / shifts.size
    receivers = (nodes + shifts[:, None]).ravel() % n
    W = sparse.csr_array((np.full(receivers.size, share), (receivers, np.tile(nodes, shifts.size))), shape=(n, n))
    W = sparse.csr_array(W + sparse.eye_array(n) / n)
    return W if directed else sparse.csr_array((W + W.T) / 2)


@recorded("song2022equitopo")
def equi_dynamic(
    num_nodes: int, num_rounds: int, *, seed: int, eta: float = 0.5, directed: bool = True
) -> list[sparse.csr_array]:
    """Draw rounds of OD-EquiDyn or OU-EquiDyn: each node hears from one random peer at a common distance.

    ``W = (1 − η) I + η (I/n + (n − 1)/n P)``. Directed: P passes the model of node i to node i + u modulo n, u uniform
    in 1 … n − 1 in each round. Then, for every x, ``E ‖x⁺ − x̄‖² = (1 − 2η + 2η² (n − 1)/n) ‖x − x̄‖²``, which is below
    ½ for η = ½, whatever n is: ``theory.mixing.one_peer_shift_factor(n, η (n − 1)/n)``. Undirected: from a random node
    on, each node that is free is paired with the node u further if that is free as well; P exchanges the models of
    pairs, and the others keep theirs. Doubly stochastic, and the undirected form is symmetric.

    Args:
        num_nodes: n ≥ 2.
        num_rounds: matrices to draw, for ``timeline.rounds``.
        seed: of the NumPy generator.
        eta: η in (0, 1].
        directed: OD-EquiDyn; else OU-EquiDyn.

    Returns:
        ``(n, n)`` float64 for each round.

    Raises:
        ValueError: if an argument is out of range.

    Reference: Song et al. 2022, as for :func:`equi_static`.
    """
    n, num_rounds = _sizes(num_nodes), whole("num_rounds", num_rounds, least=1)
    eta, directed = real("eta", eta, above=0, most=1), flag("directed", directed)
    check_memory(f"num_nodes={n}, num_rounds={num_rounds}: the weights", 60.0 * n * num_rounds, _ADVICE)
    rng = np.random.default_rng(checked_seed(seed))
    draw = _shift if directed else _matching
    return [_one_peer(draw(n, rng), eta) for _ in range(num_rounds)]


def _one_peer(source: Int[np.ndarray, " n"], eta: float) -> sparse.csr_array:
    """Return the matrix in which node i hears from ``source[i]``."""
    n = source.size
    P = sparse.csr_array((np.ones(n), (np.arange(n), source)), shape=(n, n))
    return sparse.csr_array((1 - eta * (n - 1) / n) * sparse.eye_array(n) + eta * (n - 1) / n * P)


def _shift(n: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    return (np.arange(n) - rng.integers(1, n)) % n


def _matching(n: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    return _paired(n, int(rng.integers(1, n)), int(rng.integers(n)))


def _paired(n: int, u: int, start: int) -> Int[np.ndarray, " n"]:
    """Pair each node, from ``start`` on, with the node u further if both are free; others are their own partners."""
    partner = np.arange(n)
    for i in (start + np.arange(n)) % n:
        j = (i + u) % n
        if partner[i] == i and partner[j] == j:
            partner[i], partner[j] = j, i
    return partner


def _sizes(num_nodes: int) -> int:
    n = require_nodes(num_nodes)
    if n < 2:
        raise ValueError(f"num_nodes={n}: a shift needs at least two nodes")
    return n
