"""Published formulas for what a node of gossip learns about another, to be drawn beside the exact value."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64

from gossipjax._base import matrices
from gossipjax._base.arguments import whole
from gossipjax._base.calls import recorded


def _powers(W: Any, num_rounds: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return the links, the powers W⁰ … W^(T−1), and the squared norms of their rows."""
    matrix = matrices.square("W", W, "pass one of gossipjax.mixing, such as metropolis(topology)", entry="weight")
    dense = np.asarray(matrix.toarray(), np.float64)
    powers = [np.eye(len(dense))]
    for _ in range(whole("num_rounds", num_rounds, least=1) - 1):
        powers.append(dense @ powers[-1])
    links = (dense != 0) & ~np.eye(len(dense), dtype=bool)
    norms = np.stack([np.sum(power**2, axis=1) for power in powers])
    if not norms.all():
        step, node = np.argwhere(norms == 0)[0]
        raise ValueError(
            f"W: row {node} of W^{step} is zero, so that node {node} says nothing; pass rows that sum to 1"
        )
    return links, powers, norms


@recorded("cyffers2022muffliato")
def muffliato(W: Any, num_rounds: int) -> Float64[np.ndarray, "n n"]:
    """Return μ² of Muffliato's formula for averaging with noise at the start, with Δ = σ = 1.

    ``μ²_vu = Σ_{s<T} Σ_{w ∈ N_v} (W^s)_wu² / ‖(W^s)_w‖²`` for observer v and node u: the sum over heard messages of
    what each tells alone. **Not a bound**: messages are correlated. On a path of 4 with Metropolis weights, node 0
    reconstructs the start value of node 3 after three rounds (exact μ² = 1), and the formula gives 1/23.

    Args:
        W: ``(n, n)`` mixing matrix.
        num_rounds: T ≥ 1.

    Raises:
        ValueError: if W is not square, a power of it has a row of zeros, or T < 1.

    Reference: Cyffers, Even, Bellet and Massoulié 2022, arXiv 2206.05091. Here s counts the rounds of mixing before a
    message, so that the first message, which is the noisy start value itself, is s = 0 and counts. The authors' code
    sums from s = 1 and leaves that message out.
    """
    links, powers, norms = _powers(W, num_rounds)
    each = [links @ (power**2 / norm[:, None]) for power, norm in zip(powers, norms, strict=True)]
    return np.sum(each, axis=0)


def fresh_noise(W: Any, num_rounds: int) -> Float64[np.ndarray, "n n"]:
    """Return μ² of the published formula for D-PSGD with noise in every step, with Δ = σ = 1.

    ``μ²_vu = min(T, Σ_{s<T} (T − s) Σ_{w ∈ N_v} (W^s)_wu / ‖(W^s)_w‖²)`` for observer v and node u. It was above the
    exact value wherever it was compared, and is **not a bound** for averaging with noise at the start.

    Args:
        W: ``(n, n)`` mixing matrix.
        num_rounds: T ≥ 1.

    Raises:
        ValueError: if W is not square, a power of it has a row of zeros, or T < 1.

    Reference: theorem 11 of Cyffers, Even, Bellet and Massoulié 2022, as corrected in the code of arXiv 2510.17480.
    """
    links, powers, norms = _powers(W, num_rounds)
    total = np.zeros(links.shape)
    for s, (power, norm) in enumerate(zip(powers, norms, strict=True)):
        total += (num_rounds - s) * (links @ (power / norm[:, None]))
    return np.minimum(total, num_rounds)
