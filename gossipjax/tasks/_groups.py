"""Partitions by group: by writer, user or role.

A group is the set of all samples of one person. Every function takes the group of each sample, as any integer, assigns
each group to one node, and can drop small groups.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Int

from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.arguments import whole, wholes
from gossipjax._base.calls import recorded
from gossipjax.tasks._partition import Partition, by_owner


@recorded("caldas2018leaf")
def natural(groups: npt.ArrayLike, num_nodes: int | None = None, *, minimum: int = 1, seed: int = 0) -> Partition:
    """Assign all samples of a writer, user or role to one node.

    Args:
        groups: ``(N,)`` number of the writer of every sample; any integers.
        num_nodes: None: one node per writer, in ascending order of the writers' numbers. A smaller number puts several
            writers at a node: writers are assigned by decreasing size to the node with the fewest samples so far, to
            balance the sizes (ties at random).
        minimum: drop writers with fewer samples.
        seed: seed for the ties; no effect if every writer has its own node.

    Returns:
        The partition; it uses every sample once, except those of dropped writers.

    Raises:
        ValueError: if no writer remains, or ``num_nodes`` exceeds the number of remaining writers.

    Reference:
        Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097, 2018.
    """
    group, counts, large = _groups(groups, minimum)
    num_nodes = _nodes(len(large) if num_nodes is None else num_nodes, len(large), minimum)
    rng = np.random.default_rng(checked_seed(seed))
    node_of_group = np.full(len(counts), -1, np.int64)
    one_each = num_nodes == len(large)
    node_of_group[large] = np.arange(num_nodes) if one_each else _balance(rng, counts[large], num_nodes)
    return by_owner(node_of_group[group], num_nodes)


@recorded("dhasade2023decentralizepy")
def by_user(groups: npt.ArrayLike, num_nodes: int, *, minimum: int = 1, seed: int | None) -> Partition:
    """Assign the same number of users to every node, whatever the number of their samples.

    The list of U users is cut into n runs of ⌊U / n⌋ users; the first U mod n runs have one more. The numbers of
    samples per node can differ widely; :func:`natural` balances them.

    Args:
        groups: ``(N,)`` number of the user of every sample; any integers.
        num_nodes: number of nodes n.
        minimum: drop users with fewer samples.
        seed: seed of a shuffle of the list, as for the data sets of LEAF; None: ascending order of the users' numbers,
            as for MovieLens.

    Returns:
        The partition; it uses every sample once, except those of dropped users.

    Raises:
        ValueError: if ``num_nodes`` is below 1 or above the number of remaining users.

    Reference:
        Dhasade, Kermarrec, Pires, Sharma and Vujasinovic, "Decentralized Learning Made Easy with DecentralizePy",
        EuroMLSys 2023.
    """
    group, counts, large = _groups(groups, minimum)
    num_nodes = _nodes(num_nodes, len(large), minimum)
    if seed is not None:
        large = np.random.default_rng(checked_seed(seed)).permutation(large)
    users = np.bincount(np.arange(len(large)) % num_nodes, minlength=num_nodes)
    node_of_group = np.full(len(counts), -1, np.int64)
    node_of_group[large] = np.repeat(np.arange(num_nodes), users)
    return by_owner(node_of_group[group], num_nodes)


def _groups(groups: Any, minimum: Any) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " g"], Int[np.ndarray, " kept"]]:
    """Number the groups from 0; return the group of every sample, all group sizes, and the groups to keep."""
    remedy = "np.unique(groups, return_inverse=True)[1] numbers any other names"
    groups, minimum = wholes("groups", groups, shape=(None,), remedy=remedy), whole("minimum", minimum, least=1)
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    large = np.flatnonzero(counts >= minimum)
    if not len(large):
        raise ValueError(
            f"minimum={minimum}: none of the {len(counts)} groups has that many samples, the largest has "
            f"{counts.max(initial=0)}; lower it"
        )
    return group, counts, large


def _nodes(num_nodes: Any, num_groups: int, minimum: int) -> int:
    remedy = (
        f"there are {num_groups} groups of at least minimum={minimum} samples: take fewer nodes or a smaller minimum"
    )
    return whole("num_nodes", num_nodes, least=1, most=num_groups, remedy=remedy)


def _balance(rng: np.random.Generator, counts: Int[np.ndarray, " g"], num_nodes: int) -> Int[np.ndarray, " g"]:
    """Assign groups by decreasing size, each to the node with the fewest samples so far."""
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order], kind="stable")]
    nodes = [(0, int(tie), node) for node, tie in enumerate(rng.permutation(num_nodes))]
    heapq.heapify(nodes)
    owner = np.empty(len(counts), np.int64)
    for group in order:
        load, tie, node = nodes[0]
        owner[group] = node
        heapq.heapreplace(nodes, (load + int(counts[group]), tie, node))
    return owner
