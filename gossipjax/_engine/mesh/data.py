"""Training samples lie on the devices whose nodes read them; what all nodes read is copied to every device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from gossipjax._base.describe import describe
from gossipjax._base.local import AXIS
from gossipjax._base.placement import is_by_rows, shards_of
from gossipjax._engine.mesh.layout import Layout
from gossipjax._engine.mesh.parts import check_padding, checked, narrow, padded, size
from gossipjax.tasks import FiniteSum
from gossipjax.types import Task

Put = Callable[[P, Any], Any]
"""Give the devices an array: ``put(P(AXIS), leaf)`` a part each, ``put(P(), leaf)`` all of it."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OwnPart:
    """An array of which each device has its own part: padded to one length, one after another."""

    array: Any


def specs(tree: PyTree) -> PyTree[P]:
    """Return how the arrays of a tree lie on the devices."""
    return jax.tree.map(lambda leaf: P(AXIS) if isinstance(leaf, OwnPart) else P(), tree, is_leaf=_is_own)


def on_device(tree: PyTree) -> PyTree:
    """Return what a device holds of a tree."""
    return jax.tree.map(lambda leaf: leaf.array if isinstance(leaf, OwnPart) else leaf, tree, is_leaf=_is_own)


def _is_own(leaf: Any) -> bool:
    return isinstance(leaf, OwnPart)


class Spreading:
    """Copies and cuts the arrays of a run; equal arrays, such as a test set of two observers, are copied once."""

    def __init__(self, where: Layout, put: Put):
        self.put, self.copies, self.cuts, self.counted = put, {}, {}, set()  # type: ignore[var-annotated]
        held = where.ids.reshape(where.devices, -1)
        real = where.valid.reshape(where.devices, -1)
        self.nodes = [ids[each] for ids, each in zip(held, real, strict=True)]
        self.rows = held
        self.own, self.padding, self.copied = [0] * where.devices, 0, 0

    @property
    def report(self) -> dict[str, Any]:
        """Return the bytes of training samples: of each device, padding of all of them, and what each holds beside."""
        return {"data": self.own, "data_padding": self.padding, "data_copied": self.copied}

    def spread(self, tree: PyTree, *, own_nodes: bool = True) -> PyTree:
        """Copy the arrays of a tree to every device, and cut the samples of the tasks in it.

        Args:
            tree: whatever holds arrays, such as a protocol.
            own_nodes: whether it reads only the samples of the nodes whose rows it has.
        """

        def one(value: Any) -> Any:
            if isinstance(value, FiniteSum):
                apart = own_nodes and is_by_rows(value.sample)
                task, sample = self._task(value.task, apart), self._copied(value.sample)
                return dataclasses.replace(value, task=task, sample=sample)
            return self._task(value, own_nodes) if isinstance(value, Task) else self._copied(value)

        return jax.tree.map(one, tree, is_leaf=lambda value: isinstance(value, Task | FiniteSum))

    def _copied(self, tree: PyTree) -> PyTree:
        return jax.tree.map(self._copy, tree)

    def _copy(self, leaf: Any) -> Any:
        if not hasattr(leaf, "dtype"):
            return leaf
        if id(leaf) not in self.copies:
            self.copies[id(leaf)] = leaf, self.put(P(), leaf)  # the leaf is kept, so that its id is not another's
        return self.copies[id(leaf)][1]

    def _task(self, task: Task, apart: bool) -> Task:
        rest = self._copied(dataclasses.replace(task, data=None))
        shards = shards_of(task.batch) if apart else None
        how = () if shards is None else (shards.func, shards.args, shards.keywords)
        leaves, structure = jax.tree.flatten((task.data, how[1:]))
        name = (*map(id, how[:1]), structure, *map(id, leaves))
        if name not in self.cuts:
            data = self._all(task.data) if shards is None else self._cut(task, shards)
            self.cuts[name] = leaves, data  # the leaves are kept, so that their ids are not those of others
        return dataclasses.replace(rest, data=self.cuts[name][1])

    def _all(self, data: PyTree) -> PyTree:
        return jax.tree.map(self._counted, data)

    def _counted(self, leaf: Any) -> Any:
        """Copy an array of samples, and count its bytes once."""
        if hasattr(leaf, "dtype") and id(leaf) not in self.counted:
            self.counted.add(id(leaf))
            self.copied += size(leaf)
        return self._copy(leaf)

    def _cut(self, task: Task, shards: Callable[[PyTree, Any], PyTree]) -> PyTree:
        """Give each device the samples of its nodes, and a copy of every array that is returned as it is."""
        whole = set(map(id, jax.tree.leaves(task.data)))
        parts = checked(describe(task.batch), [shards(task.data, nodes) for nodes in self.nodes], whole)
        check_padding(task, parts, self.rows)

        def one(*leaves: Any) -> Any:
            if whole.issuperset(map(id, leaves)):
                return self._counted(leaves[0])
            return OwnPart(self.put(P(AXIS), self._joined([narrow(leaf) for leaf in leaves])))

        return jax.tree.map(one, *parts)

    def _joined(self, parts: list[np.ndarray]) -> np.ndarray:
        for device, part in enumerate(parts):
            self.own[device] += part.nbytes
        joined = np.concatenate([padded(part, max(map(len, parts))) for part in parts])
        self.padding += joined.nbytes - sum(part.nbytes for part in parts)
        return joined
