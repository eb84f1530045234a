"""Attackers that train honestly on wrong labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Int, Key

from gossipjax._base.arguments import instance, whole
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax.robust._check import check_share, checked_attackers
from gossipjax.types import Task


@by_rows
def _batch(
    batch: Partial, flips: Bool[Array, " n"], classes: Int[Array, ""], key: Key[Array, ""], data: Any, node: Any
) -> dict[str, Array]:
    drawn = batch(key, data, node)
    labels = drawn["labels"]
    return drawn | {"labels": jnp.where(flips[node], classes.astype(labels.dtype) - 1 - labels, labels)}


@recorded("wu2023ios")
def flip_labels(task: Task, attackers: Sequence[int], num_classes: int) -> Task:
    """Let attackers train on flipped labels, ``y ← C − 1 − y``; they send what they have learned.

    Args:
        task: whose batches have ``"labels"``, such as those of :func:`gossipjax.tasks.classification`.
        attackers: nodes.
        num_classes: C ≥ 2.

    Returns:
        The task; held-out data stay as they are.

    Raises:
        TypeError: if task is not a task.
        ValueError: if attackers are not distinct nodes, if there are none, or if they are half of all nodes or more;
            if C is below 2, or not above the largest label; if batches have no labels.
    """
    instance("task", task, Task, "build one with gossipjax.tasks.classification")
    nodes = checked_attackers(attackers)
    check_share(nodes, task.num_nodes)
    if not len(nodes):
        raise ValueError("attackers=[]: must name at least one node, or leave the task as it is")
    classes = whole("num_classes", num_classes, least=2)
    drawn = jax.eval_shape(task.batch, jax.random.key(0), task.data, jnp.int32(0))
    if not isinstance(drawn, dict) or "labels" not in drawn:
        raise ValueError("task: its batches have no 'labels' that could be flipped; use a task of classification")
    if isinstance(task.data, dict) and "labels" in task.data:
        largest = int(np.max(np.asarray(task.data["labels"]), initial=0))
        if largest >= classes:
            raise ValueError(f"num_classes={classes}: the data have the label {largest}; pass the number of classes")
    flips = jnp.zeros(task.num_nodes, bool).at[jnp.asarray(nodes, jnp.int32)].set(True)
    return dataclasses.replace(task, batch=Partial(_batch, task.batch, flips, jnp.int32(classes)))
