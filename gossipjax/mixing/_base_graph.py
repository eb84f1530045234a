"""The Base-(k+1) graph: rounds of few peers that compute the exact average of any number of nodes."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from scipy import sparse

from gossipjax._base.arguments import whole
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.topology._graph import require_nodes

Edges: TypeAlias = dict[tuple[int, int], float]
"""Weights of the undirected edges of a round."""
Nodes: TypeAlias = list[int]


@recorded("takezawa2023basegraph")
def base_graph(num_nodes: int, max_degree: int = 1) -> list[sparse.csr_array]:
    """Build the rounds of the Base-(k+1) graph: at most k peers a round, and the exact average after the last.

    Every matrix is symmetric and doubly stochastic, no node has more than k neighbours in a round, and the product of
    all matrices is J = 1 1ᵀ/n, whatever n is; there are O(log_{k+1} n) of them. ``timeline.rounds`` repeats them.

    If all prime factors of n are at most k + 1, nodes average in groups of q for each factor q. Else the nodes are
    split into parts by the digits of n in base k + 1. Each part averages; each node of a later part exchanges once with
    nodes of every earlier part; and each part averages again. If that is shorter, this is done in blocks of n/p nodes
    first, with p the largest divisor of n that has no prime factor above k + 1, and then across the blocks.

    >>> import functools, operator
    >>> rounds = base_graph(6, 1)
    >>> len(rounds), bool(abs(functools.reduce(operator.matmul, rounds[::-1]).toarray() - 1 / 6).max() < 1e-15)
    (4, True)

    Args:
        num_nodes: n ≥ 1.
        max_degree: k ≥ 1.

    Returns:
        ``(n, n)`` float64 for each round; for n = 1 one round without edges.

    Raises:
        ValueError: if an argument is out of range, or the rounds do not fit into memory.

    Reference: Takezawa et al. 2023, "Beyond exponential graph: communication-efficient topologies for decentralized
    learning via finite-time convergence", algorithms 1 to 3 and theorem 1.
    """
    n = require_nodes(num_nodes)
    k = min(whole("max_degree", max_degree, least=1), max(1, n - 1))  # nobody has more neighbours than others
    length = 2 * math.log(n, k + 1) + 3
    check_memory(f"num_nodes={n}, max_degree={k}: the rounds", 300.0 * n * length, "choose fewer nodes")
    nodes = list(range(n))
    rounds = _simple(nodes, k)
    blocks = math.prod(_factors(n, k)[0])
    if 1 < blocks < n:
        size = n // blocks
        parallel = [_simple(nodes[b * size : (b + 1) * size], k) for b in range(blocks)]
        across = [_hyper_hypercube(nodes[i::size], k) for i in range(size)]
        blockwise = [*_in_parallel(parallel), *_in_parallel(across)]
        rounds = min(rounds, blockwise, key=len)
    return [_matrix(edges, n) for edges in rounds or [{}]]


def _factors(n: int, k: int) -> tuple[list[int], int]:
    """Split off factors from k + 1 downward; return them, ascending, and what is left of n."""
    factors = []
    for q in range(k + 1, 1, -1):
        while n % q == 0:
            factors.append(q)
            n //= q
    return factors[::-1], n


def _hyper_hypercube(nodes: Nodes, k: int) -> list[Edges]:
    """Average in groups of q nodes, for each factor q of their number."""
    rounds, stride = [], 1
    for q in _factors(len(nodes), k)[0]:
        groups: list[Nodes] = []
        for i in range(len(nodes)):
            if i // stride % q == 0:
                groups.append([nodes[i + member * stride] for member in range(q)])
        rounds.append(_grouped(groups))
        stride *= q
    return rounds


def _grouped(groups: list[Nodes]) -> Edges:
    return {(i, j): 1 / len(group) for group in groups for a, i in enumerate(group) for j in group[a + 1 :]}


def _simple(nodes: Nodes, k: int) -> list[Edges]:
    """Build the simple base graph: average in parts, hand over, and average in parts again."""
    if _factors(len(nodes), k)[1] == 1:
        return _hyper_hypercube(nodes, k)
    parts = _parts(nodes, k)
    first = [_hyper_hypercube([node for sub in part for node in sub], k) for part in parts]
    rounds = [_merged([cycle[t % len(cycle)] for cycle in first if cycle]) for t in range(len(first[0]))]
    whole = [len(part[0]) == 1 for part in parts]
    again = [
        first[p] if whole[p] else _in_parallel([_hyper_hypercube(sub, k) for sub in parts[p]])
        for p in range(len(parts))
    ]
    for t in range(1 + len(again[0])):
        edges = _handed_over(parts, t, k) if t + 1 < len(parts) else {}
        for p, cycle in enumerate(again):
            begin = min(p + 1, len(parts) - 1)
            edges |= cycle[(t - begin) % len(cycle)] if t >= begin and cycle else {}
        rounds.append(edges)
    return rounds


def _parts(nodes: Nodes, k: int) -> list[list[Nodes]]:
    """Split nodes by the digits of their number in base k + 1, highest first; a part of digit a has a subparts."""
    parts, begin, size = [], 0, (k + 1) ** int(math.log(len(nodes), k + 1) + 1)
    while size:
        digit = (len(nodes) - begin) // size
        if digit:
            parts.append([nodes[begin + a * size : begin + (a + 1) * size] for a in range(digit)])
            begin += digit * size
        size = size // (k + 1)
    return parts


def _handed_over(parts: list[list[Nodes]], j: int, k: int) -> Edges:
    """Let every node of the later parts average with one node of each subpart of part j."""
    later = [node for part in parts[j + 1 :] for sub in part for node in sub]
    size = sum(map(len, parts[j]))
    weight = size / (len(parts[j]) * (size + len(later)))
    edges = {(taken, node): weight for sub in parts[j] for node, taken in zip(later, sub[-len(later) :], strict=True)}
    unused = [node for sub in parts[j] for node in sub[: -len(later)]]
    return edges | _grouped([unused[at : at + k + 1] for at in range(0, len(unused), k + 1)])


def _in_parallel(many: list[list[Edges]]) -> list[Edges]:
    """Run sequences of rounds of one length at the same time, on disjoint nodes."""
    return [_merged(list(together)) for together in zip(*many, strict=True)]


def _merged(together: list[Edges]) -> Edges:
    return {edge: weight for edges in together for edge, weight in edges.items()}


def _matrix(edges: Edges, n: int) -> sparse.csr_array:
    """Return the symmetric matrix of a round, whose rows are completed to one."""
    i, j = np.array([*edges], np.int64).reshape(-1, 2).T
    weights: Float[np.ndarray, " m"] = np.array([*edges.values()], np.float64)
    W = sparse.csr_array((np.tile(weights, 2), (np.append(i, j), np.append(j, i))), shape=(n, n))
    return sparse.csr_array(W + sparse.diags_array(1 - W.sum(axis=1)))
