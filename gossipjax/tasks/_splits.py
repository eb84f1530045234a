"""Partitions drawn at random: the standard ones of the decentralized-learning literature.

Every function deals out the numbers of samples 0 … N − 1; shards are ragged, never padded, and no remainder is dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Int, Integer

from gossipjax._base.arguments import real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.tasks._data.labels import class_numbers
from gossipjax.tasks._partition import MOST, Partition, by_owner


@recorded()
def iid(num_samples: int, num_nodes: int, *, seed: int) -> Partition:
    """Deal the samples out at random, in shares whose sizes differ by at most one.

    Args:
        num_samples: number of samples N; every one is used once.
        num_nodes: number of nodes n.
        seed: seed of the shuffle.

    Returns:
        The partition; the first N mod n nodes hold one sample more.

    Raises:
        ValueError: fewer than one node, or more nodes than samples.
    """
    num_samples = whole("num_samples", num_samples, least=1, most=MOST, remedy="such as len(data.train.labels)")
    num_nodes, rng = _checked(num_samples, num_nodes, seed)
    check_memory(f"num_samples={num_samples}", 32 * num_samples, "take fewer samples")
    owner = np.empty(num_samples, np.int64)
    owner[rng.permutation(num_samples)] = np.arange(num_samples) % num_nodes
    return by_owner(owner, num_nodes)


@recorded("mcmahan2017fedavg")
def by_shards(labels: npt.ArrayLike, num_nodes: int, *, shards_per_node: int, seed: int) -> Partition:
    """Sort by label, cut into equal shards, and give every node the same number of random shards.

    A shard may straddle a boundary between classes: with k shards per node, nodes and classes meet in at most
    n·k + C − 1 pairs. Within a class the samples are shuffled first, so that shards of one class are alike.

    Args:
        labels: ``(N,)`` class of every sample; every sample is used once.
        num_nodes: number of nodes n.
        shards_per_node: shards k at each node (McMahan: 2). Sizes of shards differ by at most one sample.
        seed: seed of the shuffles.

    Returns:
        The partition.

    Raises:
        ValueError: fewer than one node or shard, or more shards than samples.

    Reference:
        McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
        section 3.
    """
    classes = class_numbers("labels", labels)
    num_nodes, rng = _checked(len(classes), num_nodes, seed)
    shards_per_node = _checked_shards(shards_per_node, len(classes), num_nodes)
    total, num_shards = len(classes), num_nodes * shards_per_node
    shard = np.arange(total, dtype=np.int64) * num_shards // total
    owner = np.empty(total, np.int64)
    owner[_sorted_by_label(rng, classes)] = rng.permutation(num_shards)[shard] // shards_per_node
    return by_owner(owner, num_nodes)


@recorded("dhasade2023decentralizepy")
def by_stretches(labels: npt.ArrayLike, num_nodes: int, *, shards_per_node: int, seed: int) -> Partition:
    """Sort by label, and let every node in turn take stretches of equal size out of what is left.

    A stretch begins at a uniformly random place of the remaining list and is removed from it. So later stretches reach
    over the holes of earlier ones and may mix distant classes, where :func:`by_shards` cuts the whole list once: the
    last nodes are less skewed than the first. Within a class the samples are shuffled first.

    Args:
        labels: ``(N,)`` class of every sample; every sample is used once.
        num_nodes: number of nodes n.
        shards_per_node: stretches k that each node takes, of ⌊N / (n k)⌋ samples; the remainder is dealt as one sample
            more for the first stretch of every node, then the second, so that sizes of nodes differ by at most one.
        seed: seed of the shuffles and the places.

    Returns:
        The partition.

    Raises:
        ValueError: fewer than one node or stretch, or more stretches than samples.

    Reference:
        Dhasade, Kermarrec, Pires, Sharma and Vujasinovic, "Decentralized Learning Made Easy with DecentralizePy",
        EuroMLSys 2023 (its k-shard partitions).
    """
    classes = class_numbers("labels", labels)
    num_nodes, rng = _checked(len(classes), num_nodes, seed)
    shards_per_node = _checked_shards(shards_per_node, len(classes), num_nodes)
    left = _sorted_by_label(rng, classes)
    shard, owner = np.arange(num_nodes * shards_per_node), np.empty(len(classes), np.int64)
    base, rest = divmod(len(classes), len(shard))
    # The number of a stretch is its rank in the dealing of the remainder; nodes take theirs one node after another.
    for number in shard.reshape(shards_per_node, num_nodes).T.ravel():
        size = base + int(number < rest)
        start = int(rng.integers(0, len(left) - size + 1))
        owner[left[start : start + size]] = number % num_nodes
        left = np.concatenate([left[:start], left[start + size :]])
    return by_owner(owner, num_nodes)


@recorded("hsu2019dirichlet")
def dirichlet(
    labels: npt.ArrayLike, num_nodes: int, *, alpha: float, minimum: int | None = None, seed: int
) -> Partition:
    """Draw, class by class, the shares of the nodes from a Dirichlet distribution.

    A class is cut in proportion to p ~ Dirichlet(α, …, α), p in R^n, up to rounding. So E[Σ_i p_i²] = (α + 1) / (n α +
    1): one over n as α → ∞ (every node holds the same mix), one as α → 0 (every class at a single node). Nodes that end
    below the minimum are then filled up with random samples taken one by one from whichever node is the richest;
    nothing is drawn again, so this ends for every n and α. The poorest nodes are a little less skewed for it.

    Args:
        labels: ``(N,)`` class of every sample; every sample is used once.
        num_nodes: number of nodes n.
        alpha: concentration α > 0; 0.1 is strongly skewed, 1 moderately.
        minimum: samples that every node holds at least; None: 10, or N / (2 n) where that is smaller.
        seed: seed of the draws.

    Returns:
        The partition.

    Raises:
        ValueError: α is not positive and finite, or the nodes cannot all have the minimum.

    Reference:
        Hsu, Qi & Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
        Classification", arXiv 1909.06335, 2019; per class over nodes as in Yurochkin et al., "Bayesian Nonparametric
        Federated Learning of Neural Networks", ICML 2019.
    """
    classes = class_numbers("labels", labels)
    total = len(classes)
    num_nodes, rng = _checked(total, num_nodes, seed)
    alpha = real("alpha", alpha, above=0, most=1e300, remedy="0.1 is strongly skewed; use iid for no skew")
    if minimum is None:
        minimum = max(1, min(10, total // (2 * num_nodes)))
    minimum = whole("minimum", minimum, least=1, most=total // num_nodes, remedy=_shared(total, num_nodes))
    owner = np.empty(total, np.int64)
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        edges = np.cumsum(rng.dirichlet(np.full(num_nodes, alpha)))
        # One random offset for all positions: counts are p_i m rounded down or up, and p_i m on average.
        positions = (np.arange(len(members)) + rng.random()) / len(members)
        owner[members] = np.minimum(np.searchsorted(edges, positions, side="right"), num_nodes - 1)
    return by_owner(_fill_up(rng, owner, num_nodes, minimum), num_nodes)


@recorded("bornstein2023swift")
def label_skew(labels: npt.ArrayLike, num_nodes: int, *, degree: float, seed: int) -> Partition:
    """Fill a share of every node's data class by class, and the rest at random.

    A random share d of the pool is sorted by label and dealt in contiguous stretches, node 0 first; the rest is dealt
    at random. So d = 0 is :func:`iid`, and at d = 1 most nodes hold one class. Nodes with close numbers hold close
    classes: on a ring that is the hardest placement.

    Args:
        labels: ``(N,)`` class of every sample; every sample is used once.
        num_nodes: number of nodes n; their sizes differ by at most one sample.
        degree: share d in [0, 1] of each node's data that is sorted, rounded to whole samples.
        seed: seed of the shuffles.

    Returns:
        The partition.

    Raises:
        ValueError: ``degree`` is outside [0, 1], fewer than one node, or more nodes than samples.

    Reference:
        Bornstein, Rabbani, Wang, Bedi & Huang, "SWIFT: Rapid Decentralized Federated Learning via Wait-Free Model
        Communication", ICLR 2023 ("degree of non-IIDness").
    """
    classes = class_numbers("labels", labels)
    total = len(classes)
    num_nodes, rng = _checked(total, num_nodes, seed)
    degree = real("degree", degree, least=0, most=1, remedy="0 is IID, 1 is sorted by label")
    sizes = np.bincount(np.arange(total) % num_nodes)
    quotas = np.floor(degree * sizes + 0.5).astype(np.int64)
    chosen, rest = np.split(rng.permutation(total), [quotas.sum()])
    owner = np.empty(total, np.int64)
    owner[chosen[np.argsort(classes[chosen], kind="stable")]] = np.repeat(np.arange(num_nodes), quotas)
    owner[rest] = np.repeat(np.arange(num_nodes), sizes - quotas)
    return by_owner(owner, num_nodes)


def _checked(num_samples: int, num_nodes: Any, seed: Any) -> tuple[int, np.random.Generator]:
    """Check what every partition takes; return the number of nodes and the generator of the draws."""
    remedy = f"the {num_samples} samples are dealt out, and every node holds one: take fewer nodes or more data"
    return whole("num_nodes", num_nodes, least=1, most=num_samples, remedy=remedy), np.random.default_rng(
        checked_seed(seed)
    )


def _checked_shards(shards_per_node: Any, num_samples: int, num_nodes: int) -> int:
    """Refuse shards without a sample, and nodes without a shard."""
    most = num_samples // num_nodes
    return whole("shards_per_node", shards_per_node, least=1, most=most, remedy=_shared(num_samples, num_nodes))


def _shared(num_samples: int, num_nodes: int) -> str:
    return f"{num_nodes} nodes share {num_samples} samples: choose it there, or take fewer nodes"


def _sorted_by_label(rng: np.random.Generator, labels: Integer[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Return the samples in ascending order of labels, shuffled within each class."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def _fill_up(
    rng: np.random.Generator, owner: Int[np.ndarray, " N"], num_nodes: int, minimum: int
) -> Int[np.ndarray, " N"]:
    """Move random samples from the richest nodes to those below the minimum; needs num_nodes · minimum ≤ N."""
    sizes = np.bincount(owner, minlength=num_nodes)
    missing = np.maximum(minimum - sizes, 0)
    gives = _take_from_richest(sizes, int(missing.sum()))
    order = rng.permutation(len(owner))
    order = order[np.argsort(owner[order], kind="stable")]  # node by node, in random order within each
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    moved = order[rank < np.repeat(gives, sizes)]
    filled = owner.copy()
    filled[rng.permutation(moved)] = np.repeat(np.arange(num_nodes), missing)
    return filled


def _take_from_richest(sizes: Int[np.ndarray, " n"], amount: int) -> Int[np.ndarray, " n"]:
    """Count what each node gives when samples are taken, one at a time, from whichever node then holds the most."""
    low, high = -1, int(sizes.max())  # taking all above a level: more than the amount at low, no more at high
    while high - low > 1:
        level = (low + high) // 2
        low, high = (low, level) if np.maximum(sizes - level, 0).sum() <= amount else (level, high)
    gives = np.maximum(sizes - high, 0)
    gives[np.flatnonzero(sizes >= high)[: amount - gives.sum()]] += 1
    return gives
