"""Random partitions: the standard ones of the decentralized-learning literature.

Every function distributes all samples 0 … N − 1; shards may differ in size, are never padded, and drop no remainder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int, Integer

from gossipjax._base.arguments import flag, real, reals, shown, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.tasks._data.labels import class_numbers
from gossipjax.tasks._partition import MOST, Partition, by_owner


@recorded()
def iid(num_samples: int, num_nodes: int, *, seed: int) -> Partition:
    """Distribute the samples at random, in shards whose sizes differ by at most one.

    Args:
        num_samples: number of samples N; every sample is used once.
        num_nodes: number of nodes n.
        seed: seed of the shuffle.

    Returns:
        The partition; the first N mod n nodes hold one more sample than the others.

    Raises:
        ValueError: if ``num_nodes`` is below 1 or above the number of samples.
    """
    num_samples = whole("num_samples", num_samples, least=1, most=MOST, remedy="such as len(data.train.labels)")
    num_nodes, rng = _check_nodes(num_samples, num_nodes, seed)
    check_memory(f"num_samples={num_samples}", 32 * num_samples, "take fewer samples")
    owner = np.empty(num_samples, np.int64)
    owner[rng.permutation(num_samples)] = np.arange(num_samples) % num_nodes
    return by_owner(owner, num_nodes)


@recorded("mcmahan2017fedavg")
def by_shards(labels: npt.ArrayLike, num_nodes: int, *, shards_per_node: int, seed: int) -> Partition:
    """Sort by label, cut into equal shards, and give every node the same number of random shards.

    A shard may straddle a boundary between classes: with k shards per node, at most n·k + C − 1 pairs (node, class)
    have samples. Samples are first shuffled within each class, so all shards of a class have the same law.

    Args:
        labels: ``(N,)`` class of every sample; every sample is used once.
        num_nodes: number of nodes n.
        shards_per_node: shards k at each node (McMahan: 2). Sizes of shards differ by at most one sample.
        seed: seed of the shuffles.

    Returns:
        The partition.

    Raises:
        ValueError: if there is less than one node or shard, or there are more shards than samples.

    Reference:
        McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
        section 3.
    """
    classes = class_numbers("labels", labels)
    num_nodes, rng = _check_nodes(len(classes), num_nodes, seed)
    shards_per_node = _check_shards(shards_per_node, len(classes), num_nodes)
    total, num_shards = len(classes), num_nodes * shards_per_node
    shard = np.arange(total, dtype=np.int64) * num_shards // total
    owner = np.empty(total, np.int64)
    owner[_sorted_by_label(rng, classes)] = rng.permutation(num_shards)[shard] // shards_per_node
    return by_owner(owner, num_nodes)


@recorded("dhasade2023decentralizepy")
def by_stretches(labels: npt.ArrayLike, num_nodes: int, *, shards_per_node: int, seed: int) -> Partition:
    """Sort by label, and let each node in turn remove stretches of equal size from the remaining list.

    A stretch starts at a uniformly random sample of the remaining list; past the end it goes on at the beginning, so
    that one stretch may hold the last and the first class. Later stretches span the holes that earlier ones left and
    may mix distant classes, so the last nodes are less skewed than the first; :func:`by_shards` instead cuts the whole
    list once. Samples are first shuffled within each class.

    Args:
        labels: ``(N,)`` class of every sample; every sample is used once.
        num_nodes: number of nodes n.
        shards_per_node: stretches k of each node, with ⌊N / (n k)⌋ samples each. The remainder goes to the first
            stretch of every node, one sample each, then to the second, so that sizes of nodes differ by at most one.
        seed: seed of the shuffles and the positions.

    Returns:
        The partition.

    Raises:
        ValueError: if there is less than one node or stretch, or there are more stretches than samples.

    Reference:
        Dhasade, Kermarrec, Pires, Sharma and Vujasinovic, "Decentralized Learning Made Easy with DecentralizePy",
        EuroMLSys 2023 (its k-shard partitions).
    """
    classes = class_numbers("labels", labels)
    num_nodes, rng = _check_nodes(len(classes), num_nodes, seed)
    shards_per_node = _check_shards(shards_per_node, len(classes), num_nodes)
    left = _sorted_by_label(rng, classes)
    shard, owner = np.arange(num_nodes * shards_per_node), np.empty(len(classes), np.int64)
    base, rest = divmod(len(classes), len(shard))
    # The number of a stretch is its rank when the remainder is assigned; nodes take their stretches in turn.
    for number in shard.reshape(shards_per_node, num_nodes).T.ravel():
        size = base + int(number < rest)
        start = int(rng.integers(len(left)))
        stretch = (start + np.arange(size)) % len(left)
        owner[left[stretch]] = number % num_nodes
        left = np.delete(left, stretch)
    return by_owner(owner, num_nodes)


@recorded("hsu2019dirichlet")
def dirichlet(
    labels: npt.ArrayLike,
    num_nodes: int,
    *,
    alpha: float,
    balanced: bool = False,
    minimum: int | None = None,
    seed: int,
) -> Partition:
    """Draw the shares of the nodes in each class from a Dirichlet distribution.

    Each class is split in proportion to p ~ Dirichlet(α, …, α), p in R^n, up to rounding. Hence E[Σ_i p_i²] =
    (α + 1) / (n α + 1), which tends to 1/n as α → ∞ (all nodes have the same mix) and to 1 as α → 0 (each class is at a
    single node). Nodes below the minimum then get random samples, taken one by one from the node that holds the most.
    Nothing is drawn again, so this terminates for every n and α; it makes the smallest nodes slightly less skewed.

    With ``balanced=True``, classes are split one after another, and a node that already holds N / n samples or more
    gets none of the next: its p_i is set to zero and the others are divided by their sum. Sizes of nodes then differ
    less, and a class is on fewer nodes: E[Σ_i p_i²] exceeds the formula above.

    Args:
        labels: ``(N,)`` class of every sample; every sample is used once.
        num_nodes: number of nodes n.
        alpha: concentration α > 0; 0.1 is strongly skewed, 1 moderately.
        balanced: whether nodes with an equal share of all samples get no more, as in DecentralizePy (which draws
            everything again until each node has as many samples as there are classes).
        minimum: minimum number of samples per node; None: the smaller of 10 and N / (2 n).
        seed: seed of the draws.

    Returns:
        The partition.

    Raises:
        ValueError: if α is not positive and finite, or there are too few samples for the minimum.

    Reference:
        Hsu, Qi & Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
        Classification", arXiv 1909.06335, 2019; per class over nodes as in Yurochkin et al., "Bayesian Nonparametric
        Federated Learning of Neural Networks", ICML 2019.
    """
    classes = class_numbers("labels", labels)
    total, balanced = len(classes), flag("balanced", balanced)
    num_nodes, rng = _check_nodes(total, num_nodes, seed)
    alpha = real("alpha", alpha, above=0, most=1e300, remedy="0.1 is strongly skewed; use iid for no skew")
    if minimum is None:
        minimum = max(1, min(10, total // (2 * num_nodes)))
    minimum = whole("minimum", minimum, least=1, most=total // num_nodes, remedy=_shared(total, num_nodes))
    owner, sizes = np.empty(total, np.int64), np.zeros(num_nodes, np.int64)
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        shares = rng.dirichlet(np.full(num_nodes, alpha))
        edges = np.cumsum(_without_full(shares, num_nodes * sizes >= total) if balanced else shares)
        # One random offset for all positions: each count is p_i m rounded down or up, with mean p_i m.
        positions = (np.arange(len(members)) + rng.random()) / len(members)
        chosen = np.minimum(
            np.searchsorted(edges, positions, side="right"), np.flatnonzero(np.diff(edges, prepend=0))[-1]
        )
        owner[members] = chosen
        sizes += np.bincount(chosen, minlength=num_nodes)
    return by_owner(_fill_up(rng, owner, num_nodes, minimum), num_nodes)


def _without_full(shares: Float[np.ndarray, " n"], full: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Give the shares of full nodes to the others, in proportion; equally, where these have none."""
    kept = np.where(full, 0.0, shares)
    return kept / kept.sum() if kept.sum() > 0 else ~full / np.sum(~full)


@recorded("bornstein2023swift")
def label_skew(labels: npt.ArrayLike, num_nodes: int, *, degree: float, seed: int) -> Partition:
    """Assign a share of every node's data sorted by class, and the rest at random.

    A random share d of the pool is sorted by label and assigned in contiguous stretches, from node 0 on; the rest is
    assigned at random. With d = 0 this is :func:`iid`; with d = 1 most nodes hold one class. Nodes with similar numbers
    hold similar classes, which on a ring is the hardest placement.

    Args:
        labels: ``(N,)`` class of every sample; every sample is used once.
        num_nodes: number of nodes n; their sizes differ by at most one sample.
        degree: share d in [0, 1] of each node's data that is sorted, rounded to whole samples.
        seed: seed of the shuffles.

    Returns:
        The partition.

    Raises:
        ValueError: if ``degree`` is outside [0, 1], or ``num_nodes`` is below 1 or above the number of samples.

    Reference:
        Bornstein, Rabbani, Wang, Bedi & Huang, "SWIFT: Rapid Decentralized Federated Learning via Wait-Free Model
        Communication", ICLR 2023 ("degree of non-IIDness").
    """
    classes = class_numbers("labels", labels)
    total = len(classes)
    num_nodes, rng = _check_nodes(total, num_nodes, seed)
    degree = real("degree", degree, least=0, most=1, remedy="0 is IID, 1 is sorted by label")
    sizes = np.bincount(np.arange(total) % num_nodes)
    quotas = np.floor(degree * sizes + 0.5).astype(np.int64)
    chosen, rest = np.split(rng.permutation(total), [quotas.sum()])
    owner = np.empty(total, np.int64)
    owner[chosen[np.argsort(classes[chosen], kind="stable")]] = np.repeat(np.arange(num_nodes), quotas)
    owner[rest] = np.repeat(np.arange(num_nodes), sizes - quotas)
    return by_owner(owner, num_nodes)


@recorded("li2022niid")
def label_quantity(labels: npt.ArrayLike, num_nodes: int, *, classes_per_node: int, seed: int) -> Partition:
    """Give every node the same number of classes, and divide each class equally among the nodes that have it.

    Quantity-based label imbalance. The first class of node i is the class number i mod C; the others are drawn at
    random, different for one node, and from the classes that no node has yet as long as there are any. The samples of a
    class are shuffled, and sizes of its shards differ by at most one. A class may be at many nodes, so sizes of nodes
    differ.

    The published code draws all further classes from all; with fewer nodes than classes some classes are then used
    nowhere. Here every sample is used.

    Args:
        labels: ``(N,)`` class of every sample; every sample is used once. C is the number of different labels.
        num_nodes: number of nodes n.
        classes_per_node: classes k of each node, C / n ≤ k ≤ C; 1 is strongly skewed, C is not skewed.
        seed: seed of the draws.

    Returns:
        The partition; every node has samples of exactly k classes.

    Raises:
        ValueError: if k is out of range, or a class has fewer samples than nodes that have it.

    Reference:
        Li, Diao, Chen & He, "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022, "#C = k".
    """
    classes = class_numbers("labels", labels)
    num_nodes, rng = _check_nodes(len(classes), num_nodes, seed)
    kinds, kind = np.unique(classes, return_inverse=True)
    per_node = whole(
        "classes_per_node",
        classes_per_node,
        least=-(-len(kinds) // num_nodes),
        most=len(kinds),
        remedy=f"{num_nodes} nodes share {len(kinds)} classes: choose it in this range, or take more nodes",
    )
    has = _classes_of_nodes(rng, num_nodes, len(kinds), per_node)
    owner = np.empty(len(classes), np.int64)
    for number, label in enumerate(kinds):
        members, nodes = rng.permutation(np.flatnonzero(kind == number)), np.flatnonzero(has[:, number])
        if len(members) < len(nodes):
            raise ValueError(
                f"class {label} has {len(members)} samples, and {len(nodes)} nodes would have it: each needs one; take "
                "fewer nodes, fewer classes per node, or more data"
            )
        owner[members] = nodes[np.arange(len(members)) * len(nodes) // len(members)]
    return by_owner(owner, num_nodes)


def _classes_of_nodes(rng: np.random.Generator, num_nodes: int, num_classes: int, k: int) -> Bool[np.ndarray, "n C"]:
    """Draw k classes for every node, such that each class is at some node: those of the smallest numbers."""
    check_memory(
        f"a table of {num_nodes} nodes by {num_classes} classes", 24 * num_nodes * num_classes, "take fewer nodes"
    )
    numbers, nodes = rng.random((num_nodes, num_classes)), np.arange(num_nodes)
    unused = rng.permutation(np.arange(min(num_nodes, num_classes), num_classes))
    numbers[np.arange(len(unused)) % num_nodes, unused] = -1
    numbers[nodes, nodes % num_classes] = -1
    has = np.zeros((num_nodes, num_classes), bool)
    has[nodes[:, None], np.argsort(numbers, axis=1)[:, :k]] = True
    return has


@recorded()
def by_shares(num_samples: int, shares: npt.ArrayLike, *, seed: int) -> Partition:
    """Distribute the samples at random, in shards of given relative sizes.

    The size of node i is ``N p_i / Σ_j p_j`` rounded down, or up where the remainder of all is largest, so that all
    samples are used. ``by_shares(N, [0.6, 0.3, 0.1], seed=0)`` has three nodes;
    ``by_shares(N, np.arange(1, n + 1) ** -1.5, seed=0)`` has sizes after a power law.

    Args:
        num_samples: number of samples N; every sample is used once.
        shares: ``(n,)`` positive relative sizes p of the nodes; their sum does not matter.
        seed: seed of the shuffle.

    Returns:
        The partition.

    Raises:
        ValueError: if a share is not positive and finite, or so small that its node gets no sample, or if there are no
            shares, or more than samples.
    """
    num_samples = whole("num_samples", num_samples, least=1, most=MOST, remedy="such as len(data.train.labels)")
    weights = reals("shares", shares, shape=(None,), above=0, most=1e300, remedy="relative sizes of the nodes")
    if not 1 <= len(weights) <= num_samples:
        raise ValueError(
            f"shares={shown(shares)}: {len(weights)} shares, must be 1 … {num_samples}, as many as there are samples; "
            "give one share per node"
        )
    rng, sizes = np.random.default_rng(checked_seed(seed)), _rounded_sizes(num_samples, weights)
    if np.any(sizes == 0):
        node = int(np.argmin(sizes))
        raise ValueError(
            f"shares[{node}]={weights[node]:g}: node {node} would get none of the {num_samples} samples; give it a "
            "larger share, or leave it out"
        )
    return _of_sizes(rng, sizes)


@recorded("li2022niid")
def quantity_skew(
    num_samples: int, num_nodes: int, *, alpha: float, minimum: int | None = None, seed: int
) -> Partition:
    """Distribute the samples at random, in shards whose relative sizes are drawn from a Dirichlet distribution.

    Quantity skew: p ~ Dirichlet(α, …, α), p in R^n, and sizes as in :func:`by_shares`; all nodes have the same mix of
    classes, up to chance. ``E[Σ_i p_i²] = (α + 1) / (n α + 1)``. Nodes below the minimum then get samples, taken one by
    one from the node that has the most; the published code draws again until all have 10.

    Args:
        num_samples: number of samples N; every sample is used once.
        num_nodes: number of nodes n.
        alpha: concentration α > 0; small: few nodes hold most samples, large: equal sizes.
        minimum: minimum number of samples per node; None: the smaller of 10 and N / (2 n).
        seed: seed of the draws.

    Returns:
        The partition.

    Raises:
        ValueError: if α is not positive and finite, or there are too few samples for the minimum.

    Reference:
        Li, Diao, Chen & He, "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022, "q ~ Dir(β)".
    """
    total = whole("num_samples", num_samples, least=1, most=MOST, remedy="such as len(data.train.labels)")
    num_nodes, rng = _check_nodes(total, num_nodes, seed)
    alpha = real("alpha", alpha, above=0, most=1e300, remedy="small for sizes that differ; use iid for equal ones")
    if minimum is None:
        minimum = max(1, min(10, total // (2 * num_nodes)))
    minimum = whole("minimum", minimum, least=1, most=total // num_nodes, remedy=_shared(total, num_nodes))
    sizes = _rounded_sizes(total, rng.dirichlet(np.full(num_nodes, alpha)))
    missing = np.maximum(minimum - sizes, 0)
    return _of_sizes(rng, sizes + missing - _take_from_richest(sizes, int(missing.sum())))


def _rounded_sizes(total: int, weights: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Round ``total · weights / Σ weights`` to whole numbers of the same sum, by the largest remainders."""
    exact = total * (weights / weights.max()) / np.sum(weights / weights.max())
    sizes = np.floor(exact).astype(np.int64)
    order = np.argsort(sizes - exact, kind="stable")  # the largest remainder first, of equal ones the first node
    sizes[order[: total - sizes.sum()]] += 1
    return sizes


def _of_sizes(rng: np.random.Generator, sizes: Int[np.ndarray, " n"]) -> Partition:
    """Distribute all samples at random in shards of these sizes."""
    check_memory(f"num_samples={sizes.sum()}", 32 * int(sizes.sum()), "take fewer samples")
    return by_owner(rng.permutation(np.repeat(np.arange(len(sizes)), sizes)), len(sizes))


def _check_nodes(num_samples: int, num_nodes: Any, seed: Any) -> tuple[int, np.random.Generator]:
    """Check the arguments that all partitions share; return the number of nodes and a random generator."""
    remedy = f"each node needs at least one of the {num_samples} samples: take fewer nodes or more data"
    return whole("num_nodes", num_nodes, least=1, most=num_samples, remedy=remedy), np.random.default_rng(
        checked_seed(seed)
    )


def _check_shards(shards_per_node: Any, num_samples: int, num_nodes: int) -> int:
    """Reject shards without a sample and nodes without a shard."""
    most = num_samples // num_nodes
    return whole("shards_per_node", shards_per_node, least=1, most=most, remedy=_shared(num_samples, num_nodes))


def _shared(num_samples: int, num_nodes: int) -> str:
    return f"{num_nodes} nodes share {num_samples} samples: choose it in this range, or take fewer nodes"


def _sorted_by_label(rng: np.random.Generator, labels: Integer[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Return the samples in ascending order of labels, shuffled within each class."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def _fill_up(
    rng: np.random.Generator, owner: Int[np.ndarray, " N"], num_nodes: int, minimum: int
) -> Int[np.ndarray, " N"]:
    """Move random samples from the largest nodes to those below the minimum; needs num_nodes · minimum ≤ N."""
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
    """Return how many samples each node gives if they are taken one by one from the node that holds the most."""
    low, high = -1, int(sizes.max())  # samples above a level: more than the amount at low, at most that at high
    while high - low > 1:
        level = (low + high) // 2
        low, high = (low, level) if np.maximum(sizes - level, 0).sum() <= amount else (level, high)
    gives = np.maximum(sizes - high, 0)
    gives[np.flatnonzero(sizes >= high)[: amount - gives.sum()]] += 1
    return gives
