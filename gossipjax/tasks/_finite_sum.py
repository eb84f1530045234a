"""Learning problems whose samples can be asked for by number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Int, PyTree

from gossipjax._base.arguments import shown, whole
from gossipjax._base.binding import as_partial, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.clipping import refuse_private
from gossipjax._base.display import displayed
from gossipjax._base.placement import by_rows
from gossipjax.tasks._problems import classification, regression
from gossipjax.types import Task

_SAMPLE = "sample(data, node, numbers) -> batch"


@jax.tree_util.register_dataclass
@displayed
@dataclasses.dataclass(frozen=True)
class FiniteSum:
    """A task in which node i has m samples, its loss ``f_i`` is the mean of theirs, and each can be asked for.

    Attributes:
        task: the learning problem; its loss is the mean over the batch.
        sample: ``sample(data, node, numbers) -> batch`` of the samples with these numbers ``(b,)``, in 0 … m − 1, of
            one node's shard.
        num_samples: m, the same at every node.
    """

    task: Task
    sample: Callable[[PyTree, Int[Array, ""], Int[Array, " b"]], PyTree]
    num_samples: int = dataclasses.field(metadata={"static": True})

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.task._facts()[0], {"nodes": self.task.num_nodes, "samples each": self.num_samples}


@recorded()
def finite_sum(
    task: Task,
    *,
    sample: Callable[[PyTree, Int[Array, ""], Int[Array, " b"]], PyTree] | None = None,
    num_samples: int | None = None,
) -> FiniteSum:
    """Make the samples of a task available by number, for methods that return to single samples.

    These are :func:`~gossipjax.gt_saga`, :func:`~gossipjax.gt_svrg`, :func:`~gossipjax.gt_sarah`,
    :func:`~gossipjax.gt_vr` and :func:`~gossipjax.lt_admm_vr`. What the task itself draws, such as its batch size,
    plays no role for them.

    >>> from gossipjax.tasks import finite_sum, linear_regression
    >>> finite_sum(linear_regression(4, samples_per_node=10, dimension=2)).num_samples
    10

    Args:
        task: :func:`~gossipjax.tasks.linear_regression`, :func:`~gossipjax.tasks.logistic_regression`,
            :func:`~gossipjax.tasks.classification` with shards of one size, or with the next two any task whose loss is
            the mean over its batch.
        sample: ``sample(data, node, numbers) -> batch``; ``Partial`` keeps its arrays as arguments.
        num_samples: m ≥ 1, of every node.

    Raises:
        TypeError: if task or sample has the wrong type.
        ValueError: if only one of sample and num_samples is given, neither is for a task whose samples are not known,
            shards differ in size, m < 1, or the gradients of the task are private.
    """
    task = as_task(task)
    refuse_private(task)
    if (sample is None) != (num_samples is None):
        raise ValueError(f"sample={shown(sample)}, num_samples={shown(num_samples)}: give both, or neither")
    if sample is None:
        return _known(task)
    count = whole("num_samples", num_samples, least=1, most=2**31 - 1, remedy="samples of every node")
    return FiniteSum(task, as_partial("sample", sample, _SAMPLE), count)


def _known(task: Task) -> FiniteSum:
    """Look into a task of ours."""
    drawn = task.batch
    if isinstance(drawn, Partial) and drawn.func is regression._batch:
        return FiniteSum(task, Partial(_rows), task.data["features"].shape[1])
    if isinstance(drawn, Partial) and drawn.func is classification._batch:
        sizes = np.diff(np.asarray(task.data["offsets"]))
        if (sizes != sizes[0]).any():
            raise ValueError(
                f"task with shards of {sizes.min()} … {sizes.max()} samples: all must have the same number; "
                "partition as many samples as the nodes divide evenly, for example with iid"
            )
        return FiniteSum(task, Partial(_examples, *drawn.args), int(sizes[0]))
    raise ValueError(
        f"task={shown(task)}: its samples are not known by number; give {_SAMPLE} and num_samples, or take a "
        "linear_regression, logistic_regression or classification"
    )


@by_rows
def _rows(data: dict[str, Any], node: Array, numbers: Int[Array, " b"]) -> dict[str, Array]:
    """Take rows of a node's matrix of features."""
    chosen = {name: data[name][node][numbers] for name in ("features", "responses")}
    return chosen | {"penalty": data["penalty"]}


@by_rows
def _examples(setting: Any, data: dict[str, Array], node: Array, numbers: Int[Array, " b"]) -> dict[str, Array]:
    """Take images of a node's shard of the pool."""
    picks = data["indices"][data["offsets"][node] + numbers]
    return {
        "inputs": classification._standardize(setting, data["inputs"][picks], data),
        "labels": data["labels"][picks],
    }
