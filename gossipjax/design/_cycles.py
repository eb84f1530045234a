"""Networks that change from round to round: cycles of mixing matrices, and those that everybody uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse

from gossipjax._base.arguments import optional_whole, shown, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax.mixing import base_graph, check_weights, equi_dynamic, uniform
from gossipjax.topology import one_peer_exponential

DRAWN_ROUNDS = 24
"""Length of the cycles that are drawn at random."""
MOST_PEERS = 4
"""Largest k of the Base-(k+1) graphs among the usual sequences."""
_REMEDY = "pass a list of mixing matrices, one for each round, such as gossipjax.mixing.base_graph(8)"


def standard_sequences(
    num_nodes: int, *, max_degree: int | None = None, seed: int
) -> dict[str, list[sparse.csr_array]]:
    """Build the usual networks that change from round to round, by name; those that n does not allow are left out.

    The one-peer exponential graph if n is a power of two, since only then it averages exactly; Base-2 to Base-5, which
    are exact for any n; and 24 random rounds of OD-EquiDyn and OU-EquiDyn. All matrices are doubly stochastic.

    >>> import gossipjax as gj
    >>> {name: len(cycle) for name, cycle in gj.design.standard_sequences(8, seed=0).items()}
    {'one-peer exponential': 3, 'Base-2': 3, 'Base-4': 2, 'OD-EquiDyn': 24, 'OU-EquiDyn': 24}

    Args:
        num_nodes: n ≥ 2.
        max_degree: most nodes that a node hears from in a round; None: any number.
        seed: of the random rounds.

    Raises:
        ValueError: if a number is out of range.
    """
    n, seed = whole("num_nodes", num_nodes, least=2), checked_seed(seed)
    most = optional_whole("max_degree", max_degree, least=1)
    found: dict[str, list[sparse.csr_array]] = {}
    if n & (n - 1) == 0:
        found["one-peer exponential"] = [uniform(graph) for graph in one_peer_exponential(n)]
    found |= {f"Base-{k + 1}": base_graph(n, k) for k in range(1, min(n - 1, MOST_PEERS) + 1)}
    found["OD-EquiDyn"] = equi_dynamic(n, DRAWN_ROUNDS, seed=seed)
    found["OU-EquiDyn"] = equi_dynamic(n, DRAWN_ROUNDS, seed=seed, directed=False)
    names: dict[bytes, str] = {}
    for name, cycle in found.items():
        if most is None or max(_most_peers(W) for W in cycle) <= most:
            names.setdefault(b"".join(map(_content, cycle)), name)
    return {name: found[name] for name in names.values()}


def _most_peers(W: sparse.csr_array) -> int:
    receivers, senders = W.nonzero()
    return int(np.bincount(receivers[receivers != senders], minlength=1).max())


def _content(W: sparse.csr_array) -> bytes:
    """Return bytes that equal matrices share."""
    W = W.copy()
    W.eliminate_zeros()
    W.sort_indices()
    return b"".join(
        np.asarray(part, kind).tobytes() for part, kind in ((W.indptr, int), (W.indices, int), (W.data, float))
    )


def checked_cycle(matrices: Any, num_nodes: int) -> Float[np.ndarray, "p n n"]:
    """Return the dense matrices of a cycle.

    Raises:
        TypeError: if they are no list.
        ValueError: if there are none, or one is not doubly stochastic or of another size.
    """
    if not isinstance(matrices, Sequence) or isinstance(matrices, str):
        raise TypeError(f"graph={shown(matrices)}: must be a topology, or {_REMEDY.removeprefix('pass ')}")
    if not matrices:
        raise ValueError(f"graph is an empty list; {_REMEDY}")
    checked = [check_weights(W, "doubly", allow_negative=True) for W in matrices]
    for number, W in enumerate(checked):
        if W.shape[0] != num_nodes:
            raise ValueError(f"graph[{number}] is of {W.shape[0]} nodes for {num_nodes} devices: make them equal")
    return np.stack([W.toarray() for W in checked])


def links_of(cycle: Float[np.ndarray, "p n n"]) -> Bool[np.ndarray, "p n n"]:
    """Tell who hears from whom in each round."""
    return (cycle != 0) & ~np.eye(cycle.shape[-1], dtype=bool)
