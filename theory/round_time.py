"""Seconds per round of a synchronous network whose nodes wait for their neighbours' models only.

With c_j the seconds that node j computes, and τ_ji those of a model's way from j to i, node i ends round t at::

    e_i(t) = max(e_i(t−1) + c_i, max_{j → i} (e_j(t−1) + c_j + τ_ji))

which is linear in the max-plus algebra: ``e(t) = D ⊗ e(t−1)``, D_ij = c_j + τ_ji, D_ii = c_i. In the long run a round
takes the largest mean of D over the cycles of the graph, whatever the start: a slow link costs half of itself if it is
answered by a fast one.

Reference: Baccelli, Cohen, Olsder, Quadrat 1992, "Synchronization and Linearity"; Marfoq, Xu, Neglia, Vidal 2020,
arXiv 2010.12229 (for federated learning).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from .arguments import reals, whole


def delays(compute: Num[np.ndarray, " n"], transfer: Num[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Build D from seconds of computation and of transfers; −∞ where there is no link.

    Kind: exact, by definition.

    Args:
        compute: c, ``(n,)``.
        transfer: τ, ``(n, n)``: ``transfer[i, j]`` seconds from j to i; infinity where there is no link. The
            diagonal is not used.

    Raises:
        ValueError: numbers that are negative, or shapes that do not match.
    """
    c = reals("compute", compute, least=0, shape=(None,))
    try:
        way = np.asarray(transfer, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"transfer={str(transfer)[:40]}: must be an (n, n) array of seconds") from error
    if way.shape != (c.size, c.size):
        raise ValueError(f"transfer of shape {way.shape}: must be (n, n) for the n = {c.size} of compute")
    if not (way >= 0).all():
        raise ValueError("transfer: must be seconds, 0 or more, and infinity where there is no link")
    D = np.where(np.isfinite(way), c + np.where(np.isfinite(way), way, 0.0), -np.inf)
    np.fill_diagonal(D, c)
    return D


def seconds_per_round(compute: Num[np.ndarray, " n"], transfer: Num[np.ndarray, "n n"]) -> float:
    """Compute the long-run seconds per round: the largest cycle mean of D, by Karp's algorithm.

    With F_k(v) the heaviest walk of k edges that ends in v, from anywhere::

        max_v min_{k < n} (F_n(v) − F_k(v)) / (n − k)

    Assumes: transfers do not slow each other down. Kind: exact, O(n³).

    Args:
        compute, transfer: as in :func:`delays`.

    Raises:
        ValueError: as :func:`delays`.

    Reference: Karp 1978, "A characterization of the minimum cycle mean in a digraph".
    """
    D = delays(compute, transfer)
    n = len(D)
    heaviest = [np.zeros(n)]
    for _ in range(n):
        heaviest.append((D + heaviest[-1][None]).max(axis=1))
    F = np.asarray(heaviest)
    # Every walk may start anywhere, as from an extra node with links of weight 0 to all others.
    means = (F[n] - F[:n]) / (n - np.arange(n))[:, None]
    return float(means.min(axis=0).max())


def round_ends(
    compute: Num[np.ndarray, " n"], transfer: Num[np.ndarray, "n n"], num_rounds: int
) -> Float[np.ndarray, "T n"]:
    """Compute when each node ends each round, from all ready at time 0. Kind: exact. Arguments: see :func:`delays`."""
    D, num_rounds = delays(compute, transfer), whole("num_rounds", num_rounds, least=1)
    ends = [D.max(axis=1)]
    for _ in range(num_rounds - 1):
        ends.append((D + ends[-1][None]).max(axis=1))
    return np.asarray(ends)
