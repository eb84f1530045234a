"""Attackers that train honestly on wrong labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Int, Key

from gossipjax._base.arguments import instance, whole, wholes
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
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
        ValueError: if an attacker is not one of its nodes, C < 2, or batches have no labels.
    """
    instance("task", task, Task, "build one with gossipjax.tasks.classification")
    remedy = f"nodes of the task, 0 … {task.num_nodes - 1}"
    nodes = wholes("attackers", attackers, shape=(None,), least=0, most=task.num_nodes - 1, remedy=remedy)
    classes = jnp.int32(whole("num_classes", num_classes, least=2))
    drawn = jax.eval_shape(task.batch, jax.random.key(0), task.data, jnp.int32(0))
    if not isinstance(drawn, dict) or "labels" not in drawn:
        raise ValueError("task: its batches have no 'labels' that could be flipped; use a task of classification")
    flips = jnp.zeros(task.num_nodes, bool).at[jnp.asarray(nodes, jnp.int32)].set(True)
    return dataclasses.replace(task, batch=Partial(_batch, task.batch, flips, classes))
