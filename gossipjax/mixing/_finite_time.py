"""Matrices of one graph whose product is the exact average."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import sparse

from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.mixing._build import _float_type
from gossipjax.mixing._weights import _complete_rows, _undirected
from gossipjax.topology import Topology

MOST_ERROR = 1e-2
"""Largest error of the average, as a share of the start, that is accepted."""
SAME = 1e-9
"""Eigenvalues that differ by less than this share of the largest are one, computed twice."""


@recorded("sandryhaila2014finite")
def finite_time(topology: Topology, *, dtype: jax.typing.DTypeLike | None = None) -> list[sparse.csr_array]:
    """Build the shortest cycle of matrices ``I − s_k L`` of a graph whose product is the exact average.

    ``s_k = 1/λ_k``, one for each distinct positive eigenvalue of the Laplacian L: ``Π_k (1 − λ/λ_k)`` is 0 for each of
    them and 1 for λ = 0. A complete graph needs one round, a hypercube one for each dimension, a ring of n nodes ⌊n/2⌋,
    and a graph whose eigenvalues are all different n − 1.

    Any order gives the average in exact arithmetic. Rounding errors differ by orders of magnitude; these matrices are
    in Leja order, in which partial products stay small. What remains in any order is about
    ``ε max_j Π_{k≠j} |1 − λ_j/λ_k|`` for numbers of relative precision ε. It is harmless on rings, tori and random
    regular graphs, and enormous where one eigenvalue lies far above the others, as in trees with a hub: such graphs are
    refused.

    >>> import numpy as np, gossipjax as gj
    >>> matrices = gj.mixing.finite_time(gj.topology.hypercube(4))
    >>> len(matrices), np.allclose(np.linalg.multi_dot([W.toarray() for W in matrices]), 1 / 16)
    (4, True)

    Args:
        topology: undirected and connected. Takes O(n³).
        dtype: of the models that will be mixed; None: JAX's default floating-point type.

    Returns:
        ``(n, n)`` float64 each: symmetric, rows sum to one, weights may be negative.

    Raises:
        ValueError: if the graph is directed or disconnected, its eigenvalues do not fit into memory, or rounding would
            leave more than :data:`MOST_ERROR` of the start.

    Reference: Sandryhaila, Kar, Moura 2014, "Finite-time distributed consensus through graph filters" (recalled).
    """
    topology = _undirected(topology, "finite_time")
    if (count := topology.num_components()) > 1:
        raise ValueError(
            f"{topology.name} has {count} components: no weights average over them; add edges between them"
        )
    n = topology.num_nodes
    if n == 1:
        return [_complete_rows(topology, np.zeros(0))]
    check_memory(f"topology={topology.name}: the eigenvalues of a dense matrix", 24.0 * n * n, "use best_constant")
    L = np.diag(topology.degrees.astype(np.float64)) - topology.adjacency().toarray()
    order = leja(_distinct(L))
    precision = float(jnp.finfo(_float_type(dtype)).eps)
    with np.errstate(divide="ignore"):
        logs = np.log(np.abs(1 - order[:, None] / order))
    np.fill_diagonal(logs, 0.0)
    left = float(np.log(precision) + logs.sum(axis=1).max())
    if left > np.log(MOST_ERROR):
        raise ValueError(
            f"topology={topology.name}: its eigenvalues lie so far apart that rounding would leave errors of about "
            f"10^{left / np.log(10):.0f} times the start with a precision of {precision:.2g}; use mixing.fastest or "
            "learn.fit, a more regular graph, or models in float64 (dtype)"
        )
    return [_complete_rows(topology, np.full(topology.senders.size, 1 / each)) for each in order]


def _distinct(L: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " k"]:
    """Return the distinct positive eigenvalues of a Laplacian, in increasing order."""
    found = np.linalg.eigvalsh(L)[1:]
    return found[np.append(True, np.diff(found) > SAME * found[-1])]


def leja(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Order numbers: the largest first, then always the one with the largest product of distances to those chosen."""
    left, chosen = list(values), [float(max(values))]
    left.remove(chosen[0])
    logs = np.zeros(len(left))
    while left:
        logs += np.log(np.abs(np.asarray(left) - chosen[-1]))
        at = int(np.argmax(logs))
        chosen.append(float(left.pop(at)))
        logs = np.delete(logs, at)
    return np.asarray(chosen)
