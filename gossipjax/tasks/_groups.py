"""Partitions that keep together what belongs together: by writer, user or role.

A group is all samples of one person. Every function takes the number of each sample's group, any integers; groups are
whole at one node, and small ones are dropped on request.
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
    """Keep together what belongs together: all samples of one writer, user or role are at one node.

    Args:
        groups: ``(N,)`` number of the writer of every sample; any integers.
        num_nodes: None gives one node to each writer, in ascending order of their numbers. A smaller number gives
            several writers to a node, the largest first and each to the node with the fewest samples so far, so that
            sizes are as equal as whole writers allow (ties at random).
        minimum: writers with fewer samples are dropped, and with them their samples.
        seed: seed for the ties; without effect where every writer has a node.

    Returns:
        The partition; it uses every sample once, but for those of dropped writers.

    Raises:
        ValueError: no writer is left, or there are more nodes than writers left.

    Reference:
        Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097, 2018.
    """
    group, counts, kept = _groups(groups, minimum)
    num_nodes = _nodes(len(kept) if num_nodes is None else num_nodes, len(kept), minimum)
    rng = np.random.default_rng(checked_seed(seed))
    node_of_group = np.full(len(counts), -1, np.int64)
    every_one = num_nodes == len(kept)
    node_of_group[kept] = np.arange(num_nodes) if every_one else _balance(rng, counts[kept], num_nodes)
    return by_owner(node_of_group[group], num_nodes)


@recorded("dhasade2023decentralizepy")
def by_user(groups: npt.ArrayLike, num_nodes: int, *, minimum: int = 1, seed: int | None) -> Partition:
    """Give every node the same number of users, however much data each of them has.

    The list of U users is cut into n stretches of ⌊U / n⌋ users, the first U mod n of them one longer. Sizes are as
    unequal as people are; :func:`natural` evens them out.

    Args:
        groups: ``(N,)`` number of the user of every sample; any integers.
        num_nodes: number of nodes n.
        minimum: users with fewer samples are dropped, and with them their samples.
        seed: seed of a shuffle of the list, as LEAF's sets are dealt; None keeps it in ascending order of the users'
            numbers, as MovieLens is dealt.

    Returns:
        The partition; it uses every sample once, but for those of dropped users.

    Raises:
        ValueError: fewer than one node, or more nodes than users left.

    Reference:
        Dhasade, Kermarrec, Pires, Sharma and Vujasinovic, "Decentralized Learning Made Easy with DecentralizePy",
        EuroMLSys 2023.
    """
    group, counts, kept = _groups(groups, minimum)
    num_nodes = _nodes(num_nodes, len(kept), minimum)
    if seed is not None:
        kept = np.random.default_rng(checked_seed(seed)).permutation(kept)
    users = np.bincount(np.arange(len(kept)) % num_nodes, minlength=num_nodes)
    node_of_group = np.full(len(counts), -1, np.int64)
    node_of_group[kept] = np.repeat(np.arange(num_nodes), users)
    return by_owner(node_of_group[group], num_nodes)


def _groups(groups: Any, minimum: Any) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " g"], Int[np.ndarray, " kept"]]:
    """Number the groups from 0: the group of every sample, the sizes of all groups, and those that are kept."""
    remedy = "np.unique(groups, return_inverse=True)[1] numbers any other names"
    groups, minimum = wholes("groups", groups, shape=(None,), remedy=remedy), whole("minimum", minimum, least=1)
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts >= minimum)
    if not len(kept):
        raise ValueError(
            f"minimum={minimum}: none of the {len(counts)} groups has as many samples, the largest has "
            f"{counts.max(initial=0)}; lower it"
        )
    return group, counts, kept


def _nodes(num_nodes: Any, num_groups: int, minimum: int) -> int:
    remedy = (
        f"there are {num_groups} groups of at least minimum={minimum} samples: take fewer nodes or a smaller minimum"
    )
    return whole("num_nodes", num_nodes, least=1, most=num_groups, remedy=remedy)


def _balance(rng: np.random.Generator, counts: Int[np.ndarray, " g"], num_nodes: int) -> Int[np.ndarray, " g"]:
    """Give the largest group left to the node with the fewest samples, until none is left."""
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
