"""Who holds which samples: the standard partitions of the decentralized-learning literature.

Every function deals out the numbers of samples 0 … N − 1; shards are ragged, never padded, and no remainder is dropped.
Partitions by writer, user or role: :mod:`gossipjax.tasks._groups`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Int, Int32, Integer

from gossipjax._base.arguments import flag, instance, real, sequence_of, shown, whole, wholes
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed, span
from gossipjax._base.memory import check_memory
from gossipjax.tasks._data.labels import class_numbers

if TYPE_CHECKING:  # nothing but plot needs matplotlib, which takes longer to import than the rest of this package
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 2**31 - 1
"""Samples are numbered in 32 bits, as they are inside a training loop."""


@displayed
@dataclasses.dataclass(frozen=True, eq=False, init=False)
class Partition:
    """Shares of a pool of samples, one per node: node i holds ``indices[offsets[i]:offsets[i + 1]]``.

    Nodes may share samples, and a node that lists a sample twice draws it twice as often; the functions of this module
    deal out every sample once (:func:`check_partition` holds that).

    Attributes:
        indices: ``(N_used,)`` numbers of samples, node by node, in this module ascending within a node.
        offsets: ``(num_nodes + 1,)`` where each node's share begins and, last, where the last one ends: from 0 to
            N_used, never decreasing.

    Raises:
        ValueError: an array of another shape or of other numbers, or the first offset that breaks the rule.
    """

    indices: Int32[np.ndarray, " N_used"]
    offsets: Int32[np.ndarray, " n_plus_1"]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return "", {"nodes": self.num_nodes, "samples": len(self.indices), "samples per node": span(self.sizes)}

    def __init__(self, indices: npt.ArrayLike, offsets: npt.ArrayLike):
        samples = wholes("indices", indices, shape=(None,), least=0, most=_MOST, remedy="numbers of samples")
        edges = wholes("offsets", offsets, shape=(None,), least=0, most=_MOST)
        _check_edges(edges, len(samples))
        object.__setattr__(self, "indices", samples.astype(np.int32))
        object.__setattr__(self, "offsets", edges.astype(np.int32))

    @property
    def num_nodes(self) -> int:
        """Number of shares."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Int32[np.ndarray, " n"]:
        """Number of samples of each node."""
        return np.diff(self.offsets)

    def shard(self, node: int) -> Int32[np.ndarray, " m"]:
        """Return the numbers of the samples that a node holds.

        Raises:
            ValueError: there is no such node.
        """
        node = whole("node", node, least=0, most=self.num_nodes - 1, remedy="one of this partition")
        return self.indices[self.offsets[node] : self.offsets[node + 1]]

    def class_counts(self, labels: npt.ArrayLike, num_classes: int) -> Int[np.ndarray, "n C"]:
        """Count the samples of each class at each node.

        Args:
            labels: ``(N,)`` class of every sample of the pool, 0 … num_classes − 1.
            num_classes: number of classes C.

        Returns:
            ``(num_nodes, C)`` counts.

        Raises:
            ValueError: a label is no class number, or there are fewer labels than samples in the pool.
        """
        num_classes = whole("num_classes", num_classes, least=1, most=_MOST)
        classes = class_numbers("labels", labels, num_classes=num_classes)
        check_memory(
            f"a table of {self.num_nodes} nodes by {num_classes} classes",
            8 * self.num_nodes * num_classes,
            "lower num_classes",
        )
        if len(self.indices) and self.indices.max() >= len(classes):
            raise ValueError(
                f"labels: {len(classes)} labels, but the partition names sample {self.indices.max()}; pass the labels "
                "of the pool that was partitioned"
            )
        node = np.repeat(np.arange(self.num_nodes), self.sizes)
        cell = node * num_classes + classes[self.indices].astype(np.int64)
        return np.bincount(cell, minlength=self.num_nodes * num_classes).reshape(self.num_nodes, num_classes)

    def plot(
        self,
        labels: npt.ArrayLike,
        path: str | Path | None = None,
        ax: Axes | None = None,
        *,
        class_names: Sequence[str] = (),
    ) -> Figure:
        """Draw how many samples of each class each node holds.

        Args:
            labels: ``(N,)`` class of every sample of the pool.
            path: where to write the picture; its ending chooses the format. None writes nothing.
            ax: axes to draw in. None makes a figure of its own, with the size of every share above.
            class_names: one word per class, in place of its number.

        Returns:
            The figure, which a notebook shows; that of the axes where these are given.

        Raises:
            TypeError: a path, axes or names of another sort.
            ValueError: labels that are not classes of the whole pool, or a path that cannot be written.
        """
        from matplotlib.axes import Axes

        from gossipjax._base.figure import Figure, check_path, write

        target, names = check_path(path), sequence_of("class_names", class_names, str, "give one word per class")
        if ax is not None:
            instance("ax", ax, Axes, "pass axes of Matplotlib, or None for a figure of its own")
        given = _labels_of_pool(labels, self.indices)
        num_classes = int(given.max()) + 1
        if names and len(names) < num_classes:
            raise ValueError(f"class_names: {len(names)} words for {num_classes} classes; give one per class, or none")
        counts = self.class_counts(given, max(num_classes, len(names))).T
        if ax is None:
            width = float(np.clip(2.6 + 0.07 * self.num_nodes, 5.0, 10.0))
            fresh = Figure(figsize=(width, 1.6 + 0.22 * len(counts)), dpi=160, layout="constrained")
            top, ax = fresh.subplots(2, 1, sharex=True, height_ratios=(1, 3))
            _draw_sizes(top, self.sizes)
        _draw_counts(ax, counts, names)
        figure = _figure_of(ax)
        if target is not None:
            write(figure, target, dpi=200)
        return figure


# --- partitions -------------------------------------------------------------------------------------------------------


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
    num_samples = whole("num_samples", num_samples, least=1, most=_MOST, remedy="such as len(data.train.labels)")
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


def check_partition(partition: Partition, num_samples: int, *, complete: bool = True) -> None:
    """Check that no sample is held twice, that no node is empty, and that no sample is left over.

    Args:
        partition: what to check.
        num_samples: number of samples N of the pool.
        complete: whether every sample must be held by some node; False for a partition that drops samples.

    Raises:
        ValueError: the first of these rules that is broken.
    """
    check_held(partition, num_samples, "this pool")
    complete = flag("complete", complete)
    held = np.bincount(partition.indices, minlength=num_samples)
    if held.max() > 1:
        raise ValueError(f"sample {held.argmax()} is held {held.max()} times, but must be held once")
    if complete and held.min() < 1:
        raise ValueError(
            f"{int(np.sum(held == 0))} samples, the first of them {held.argmin()}, are held by no node: deal them out, "
            "or say complete=False where samples are dropped on purpose"
        )


def check_held(partition: Any, num_samples: int, name: str) -> None:
    """Check what a task needs of a partition: samples of this pool alone, and at least one at every node.

    Args:
        partition: what to check.
        num_samples: number of samples of the pool.
        name: of the data set, for the message.

    Raises:
        ValueError: the first of these rules that is broken.
    """
    instance(
        "partition", partition, Partition, "make one with gossipjax.tasks, such as iid(num_samples, num_nodes, seed=0)"
    )
    num_samples = whole("num_samples", num_samples, least=1, most=_MOST)
    if partition.indices.size and (last := partition.indices.max()) >= num_samples:
        raise ValueError(
            f"the partition names sample {last}, beyond the {num_samples} of {name}; partition this data set"
        )
    empty = np.flatnonzero(partition.sizes == 0)
    if empty.size:
        raise ValueError(f"node {empty[0]} holds no sample; take fewer nodes, so that each holds at least one")


# --- parts ------------------------------------------------------------------------------------------------------------


def _check_edges(offsets: Int[np.ndarray, " n_plus_1"], num_indices: int) -> None:
    """Refuse offsets that do not cut the indices into shares."""
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != num_indices:
        raise ValueError(
            f"offsets={shown(offsets.tolist())}: must run from 0 to the number of indices {num_indices}; node i holds "
            "indices[offsets[i]:offsets[i + 1]]"
        )
    if np.any(falls := np.diff(offsets) < 0):
        at = int(np.argmax(falls))
        raise ValueError(
            f"offsets[{at + 1}]={offsets[at + 1]} after offsets[{at}]={offsets[at]}: offsets must not decrease; "
            f"node {at} holds indices[offsets[{at}]:offsets[{at + 1}]]"
        )


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


def by_owner(owner: Int[np.ndarray, " N"], num_nodes: int) -> Partition:
    """Gather the samples of each node.

    Args:
        owner: ``(N,)`` node that holds each sample; −1 drops it.
        num_nodes: number of nodes.

    Returns:
        The partition, samples in ascending order within a node.

    Raises:
        ValueError: an owner that is no node.
    """
    num_nodes = whole("num_nodes", num_nodes, least=1, most=_MOST)
    owner = wholes("owner", owner, shape=(None,), least=-1, most=num_nodes - 1, remedy="-1 drops a sample")
    order = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
    sizes = np.bincount(owner[order], minlength=num_nodes)
    return Partition(order.astype(np.int32), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))


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


# --- picture ----------------------------------------------------------------------------------------------------------


def _labels_of_pool(labels: Any, held: Int32[np.ndarray, " N_used"]) -> Int[np.ndarray, " N"]:
    """Check that every sample that a node holds has a class."""
    given = class_numbers("labels", labels)
    needed = int(held.max(initial=-1)) + 1
    if given.size < max(needed, 1):
        raise ValueError(f"labels of {given.size} samples: the partition is of {needed} or more; give one for each")
    return given


def _figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def _draw_counts(ax: Axes, counts: Int[np.ndarray, "C n"], class_names: tuple[str, ...]) -> None:
    """Draw the class × node counts as a map; what a node lacks altogether stays white."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.ticker import MaxNLocator

    shades = ListedColormap(colormaps["Blues"](np.linspace(0.15, 1.0, 256)))  # one sample must differ from none
    edges = [np.arange(size + 1) - 0.5 for size in counts.shape[::-1]]
    line = 0.5 if counts.shape[1] <= 128 else 0.0
    present = np.ma.masked_equal(counts, 0)
    cells = ax.pcolormesh(*edges, present, cmap=shades, vmin=0, edgecolors="white", linewidth=line, rasterized=not line)
    names = class_names or tuple(str(k) for k in range(len(counts)))
    step = -(-len(names) // 26)
    ax.set_yticks(range(0, len(names), step), names[::step])
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.tick_params(length=2)
    ax.set(xlabel="node", ylabel="class")
    _figure_of(ax).colorbar(cells, ax=ax, label="samples", pad=0.02)


def _draw_sizes(ax: Axes, sizes: Int32[np.ndarray, " n"]) -> None:
    """Draw the size of every share."""
    ax.bar(np.arange(len(sizes)), sizes, width=0.8 if len(sizes) <= 128 else 1.0, color="0.5")
    ax.set(ylabel="samples\nper node", ylim=(0, None))
    ax.tick_params(labelbottom=False, bottom=False, length=2)
    ax.spines[["top", "right"]].set_visible(False)
