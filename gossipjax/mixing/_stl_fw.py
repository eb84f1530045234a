"""STL-FW: sparse mixing matrices whose neighbourhoods have the labels of everybody, by Frank-Wolfe."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Num
from scipy import sparse

from gossipjax._base.arguments import real, whole
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.topology._by_labels import counts_of


@recorded("lebars2023stlfw")
def stl_fw(label_counts: Num[np.ndarray, "n K"], max_degree: int, *, penalty: float = 0.1) -> sparse.csr_array:
    """Learn a sparse mixing matrix from labels by Frank-Wolfe (STL-FW): a step adds at most one neighbour to a node.

    Π holds the label shares of each node, and every row of Π̄ is their mean over the nodes, however many samples they
    have. From W = I, l steps lower::

        g(W) = (‖WΠ − Π̄‖²_F + λ ‖W − J‖²_F) / n

    over doubly stochastic W: the bias that label skew causes, and the variance that mixing leaves. A step goes from W
    towards the permutation matrix P of least inner product with the gradient, ``W ← W + γ (P − W)``, with the best γ.
    So W has at most l neighbours a node in each direction, is doubly stochastic, and is not symmetric. A step takes up
    to O(n³) operations.

    >>> import numpy as np, gossipjax as gj
    >>> labels = np.eye(2)[[0, 0, 1, 1]]  # four nodes with one label each
    >>> W = gj.mixing.stl_fw(labels, 1).toarray()
    >>> (W @ labels).tolist()
    [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]

    Args:
        label_counts: ``(n, K)`` samples of each label at each node; each node has some.
        max_degree: l ≥ 1, the number of steps. Fewer are made if none lowers g any more.
        penalty: λ > 0: a larger one asks for more mixing, whatever the labels.

    Returns:
        ``(n, n)`` float64, in compressed rows.

    Raises:
        ValueError: if an argument is out of range, or a node has no samples.

    Reference: Le Bars, Bellet, Tommasi, Lavoie, Kermarrec 2023, "Refined convergence and topology learning for
    decentralized SGD with heterogeneous data", arXiv 2204.04452.
    """
    counts = counts_of(label_counts)
    n, steps = len(counts), whole("max_degree", max_degree, least=1)
    penalty = real("penalty", penalty, above=0)
    check_memory(f"label_counts of {n} nodes: the weights", 48.0 * n * n, "learn them for fewer nodes")
    shares = counts / counts.sum(1, keepdims=True)
    W, everybody = np.eye(n), shares.mean(0)
    for _ in range(steps):
        toward, length = _step(W, shares, everybody, penalty)
        if length <= 0:
            break
        W = W + length * (toward - W)
    return sparse.csr_array(W)


def _step(W: np.ndarray, shares: np.ndarray, everybody: np.ndarray, penalty: float) -> tuple[Any, float]:
    """Return the permutation matrix to go to, and how far: the exact minimum of a parabola, within [0, 1]."""
    from scipy import optimize  # slow to import

    n = len(W)
    off, rest = W @ shares - everybody, W - 1 / n
    rows, columns = optimize.linear_sum_assignment(off @ shares.T + penalty * rest)
    P: Float[np.ndarray, "n n"] = np.zeros((n, n))
    P[rows, columns] = 1.0
    change = P - W
    moved = change @ shares
    curved = np.sum(moved**2) + penalty * np.sum(change**2)
    if curved == 0:
        return P, 0.0
    return P, float(np.clip(-(np.sum(off * moved) + penalty * np.sum(rest * change)) / curved, 0, 1))
