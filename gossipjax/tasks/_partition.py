"""Partitions: which node holds which of the samples 0 … N − 1, in shards of any sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Int, Int32

from gossipjax._base.arguments import flag, instance, sequence_of, shown, whole, wholes
from gossipjax._base.display import displayed, span
from gossipjax._base.memory import check_memory
from gossipjax.tasks._data.labels import class_numbers

if TYPE_CHECKING:  # only plot needs matplotlib, which is slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 2**31 - 1
"""Sample numbers are int32, as in the training loop."""


@displayed
@dataclasses.dataclass(frozen=True, eq=False, init=False)
class Partition:
    """Shards of a pool of samples, one per node: node i holds ``indices[offsets[i]:offsets[i + 1]]``.

    Nodes may share samples, and a node that lists a sample twice draws it twice as often. The functions of
    :mod:`gossipjax.tasks` use every sample at most once.

    Attributes:
        indices: ``(N_used,)`` sample numbers, node by node; the functions of :mod:`gossipjax.tasks` sort them within a
            node.
        offsets: ``(num_nodes + 1,)`` non-decreasing, from 0 to N_used: start of each shard, and end of the last.

    Raises:
        ValueError: if a shape or a number is invalid; the message names the first offset that breaks a rule.
    """

    indices: Int32[np.ndarray, " N_used"]
    offsets: Int32[np.ndarray, " n_plus_1"]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return "", {"nodes": self.num_nodes, "samples": len(self.indices), "samples per node": span(self.sizes)}

    def __init__(self, indices: npt.ArrayLike, offsets: npt.ArrayLike):
        samples = wholes("indices", indices, shape=(None,), least=0, most=MOST, remedy="numbers of samples")
        edges = wholes("offsets", offsets, shape=(None,), least=0, most=MOST)
        _check_edges(edges, len(samples))
        object.__setattr__(self, "indices", samples.astype(np.int32))
        object.__setattr__(self, "offsets", edges.astype(np.int32))

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Int32[np.ndarray, " n"]:
        """Number of samples of each node."""
        return np.diff(self.offsets)

    def shard(self, node: int) -> Int32[np.ndarray, " m"]:
        """Return the numbers of the samples that a node holds.

        Raises:
            ValueError: if the node does not exist.
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
            ValueError: if a label is not a class number, or there are fewer labels than samples in the pool.
        """
        num_classes = whole("num_classes", num_classes, least=1, most=MOST)
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
        """Plot the number of samples of each class at each node.

        Args:
            labels: ``(N,)`` class of every sample of the pool.
            path: file to write; the suffix chooses the format. None: write no file.
            ax: axes to draw in. None: draw a new figure, with the size of every shard above.
            class_names: one word per class, instead of its number.

        Returns:
            The new figure, or the figure of the axes; a notebook displays it.

        Raises:
            TypeError: if ``path``, ``ax`` or ``class_names`` has the wrong type.
            ValueError: if the labels are not classes of the whole pool, or the path cannot be written.
        """
        from matplotlib.axes import Axes

        from gossipjax._base.figure import Figure, check_path, write

        target, names = check_path(path), sequence_of("class_names", class_names, str, "give one word per class")
        if ax is not None:
            instance("ax", ax, Axes, "pass Matplotlib axes, or None for a new figure")
        classes = _labels_of_pool(labels, self.indices)
        num_classes = int(classes.max()) + 1
        if names and len(names) < num_classes:
            raise ValueError(f"class_names: {len(names)} words for {num_classes} classes; give one per class, or none")
        counts = self.class_counts(classes, max(num_classes, len(names))).T
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


def check_partition(partition: Partition, num_samples: int, *, complete: bool = True) -> None:
    """Check that every sample is used exactly once and no node is empty.

    Args:
        partition: what to check.
        num_samples: number of samples N of the pool.
        complete: whether some node must hold every sample; False for a partition that drops samples.

    Raises:
        ValueError: if a rule is broken; the message names the first one.
    """
    check_held(partition, num_samples, "this pool")
    complete = flag("complete", complete)
    held = np.bincount(partition.indices, minlength=num_samples)
    if held.max() > 1:
        raise ValueError(f"sample {held.argmax()} is held {held.max()} times, but must be held once")
    if complete and held.min() < 1:
        raise ValueError(
            f"{int(np.sum(held == 0))} samples belong to no node, the first is sample {held.argmin()}: assign them, or "
            "pass complete=False if the partition drops samples on purpose"
        )


def check_held(partition: Any, num_samples: int, name: str) -> None:
    """Check that a task can use a partition: all samples are in the pool, and every node holds at least one.

    Args:
        partition: what to check.
        num_samples: number of samples of the pool.
        name: of the data set, for the message.

    Raises:
        ValueError: if a rule is broken; the message names the first one.
    """
    instance(
        "partition", partition, Partition, "build one with gossipjax.tasks, such as iid(num_samples, num_nodes, seed=0)"
    )
    num_samples = whole("num_samples", num_samples, least=1, most=MOST)
    if partition.indices.size and (last := partition.indices.max()) >= num_samples:
        raise ValueError(
            f"the partition names sample {last}, beyond the {num_samples} of {name}; partition this data set"
        )
    empty = np.flatnonzero(partition.sizes == 0)
    if empty.size:
        raise ValueError(f"node {empty[0]} holds no sample; take fewer nodes, so that each holds at least one")


# --- parts ------------------------------------------------------------------------------------------------------------


def _check_edges(offsets: Int[np.ndarray, " n_plus_1"], num_indices: int) -> None:
    """Reject offsets that do not cut the indices into shards."""
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


def by_owner(owner: Int[np.ndarray, " N"], num_nodes: int) -> Partition:
    """Build a partition from the node of each sample.

    Args:
        owner: ``(N,)`` node that holds each sample; −1 drops it.
        num_nodes: number of nodes.

    Returns:
        The partition, with samples in ascending order within a node.

    Raises:
        ValueError: if an owner is not a node.
    """
    num_nodes = whole("num_nodes", num_nodes, least=1, most=MOST)
    owner = wholes("owner", owner, shape=(None,), least=-1, most=num_nodes - 1, remedy="-1 drops a sample")
    order = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
    sizes = np.bincount(owner[order], minlength=num_nodes)
    return Partition(order.astype(np.int32), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))


# --- plot -------------------------------------------------------------------------------------------------------------


def _labels_of_pool(labels: Any, held: Int32[np.ndarray, " N_used"]) -> Int[np.ndarray, " N"]:
    """Check that every sample of the partition has a class."""
    classes = class_numbers("labels", labels)
    needed = int(held.max(initial=-1)) + 1
    if classes.size < max(needed, 1):
        raise ValueError(f"labels of {classes.size} samples: the partition has at least {needed}; give one label each")
    return classes


def _figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def _draw_counts(ax: Axes, counts: Int[np.ndarray, "C n"], class_names: tuple[str, ...]) -> None:
    """Draw the class × node counts as a heat map; zero counts stay white."""
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
    """Draw the size of every shard."""
    ax.bar(np.arange(len(sizes)), sizes, width=0.8 if len(sizes) <= 128 else 1.0, color="0.5")
    ax.set(ylabel="samples\nper node", ylim=(0, None))
    ax.tick_params(labelbottom=False, bottom=False, length=2)
    ax.spines[["top", "right"]].set_visible(False)
