"""Image classification: a data set, a partition of it, and a model become a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax.static import Static
from gossipjax.tasks.datasets import Dataset, Examples
from gossipjax.tasks.models import Model
from gossipjax.tasks.partition import Partition
from gossipjax.types import Params, Task


class _Setting(NamedTuple):
    """What is compiled in."""

    model: Model
    shape: tuple[int, ...]
    """Of one input, such as ``(height, width, channels)``."""
    batch_size: int


def _standardize(setting: Static[_Setting], inputs: Array, data: dict[str, Array]) -> Float[Array, "b *shape"]:
    """Cast, standardise and shape inputs. They are stored flat: with channels last XLA's loop would not vectorise."""
    standard = (inputs.astype(jnp.float32) - data["mean"][None]) * data["scale"][None]
    return standard.reshape(inputs.shape[0], *setting.value.shape)


def _batch(setting: Static[_Setting], key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    """Draw samples of the node's shard uniformly with replacement: one gather from the shared pool."""
    first, last = data["offsets"][node], data["offsets"][node + 1]
    picks = data["indices"][jax.random.randint(key, (setting.value.batch_size,), first, last)]
    return {"inputs": _standardize(setting, data["inputs"][picks], data), "labels": data["labels"][picks]}


def _loss(setting: Static[_Setting], key: Key[Array, ""], params: Params, batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    logits = setting.value.model.apply(params, batch["inputs"])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]))


def _metrics(setting: Static[_Setting], params: Params, test: dict[str, Array]) -> dict[str, Array]:
    logits = setting.value.model.apply(params, _standardize(setting, test["inputs"], test))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, test["labels"])
    return {
        "accuracy": jnp.mean((jnp.argmax(logits, -1).astype(jnp.int32) == test["labels"]).astype(jnp.float32)),
        "loss": jnp.mean(loss),
    }


def _init(setting: Static[_Setting], key: Key[Array, ""]) -> Params:
    return setting.value.model.init(key)


def _arrays(examples: Examples) -> dict[str, Array]:
    flat = examples.inputs.reshape(len(examples.inputs), -1)
    return {"inputs": jnp.asarray(flat), "labels": jnp.asarray(examples.labels, jnp.int32)}


def _per_pixel(values: Sequence[float], shape: tuple[int, ...]) -> Float[Array, " pixels"]:
    """Repeat one number per channel over the pixels of a flat input."""
    return jnp.asarray(np.broadcast_to(np.asarray(values, np.float32), shape).ravel())


def _check_finite(inputs: np.ndarray, what: str) -> None:
    if np.issubdtype(inputs.dtype, np.floating) and not np.isfinite(inputs).all():
        bad = np.flatnonzero(~np.isfinite(inputs.reshape(len(inputs), -1)).all(1))
        raise ValueError(
            f"{bad.size} {what} inputs hold NaN or infinity, the first is sample {bad[0]}; remove or fix them"
        )


def classification(
    dataset: Dataset, partition: Partition, model: Model | tuple[Callable, Callable], *, batch_size: int = 16
) -> Task:
    """Build a classification task: mean cross-entropy of a model on each node's own shard.

    Images stay in their stored type (uint8) in one pool; a batch is gathered by index, cast and standardised in the
    loop: ``(pixel − mean) / std`` per channel.

    Args:
        dataset: train and test examples.
        partition: which training samples each node holds; its number of nodes is the task's.
        model: ``(init, apply)``: any pair of hashable functions ``init(key) -> params`` and ``apply(params, inputs) ->
            logits``, inputs ``(b, height, width, channels)``; see :mod:`gossipjax.tasks.models`.
        batch_size: samples drawn per step, uniformly with replacement from the node's shard.

    Returns:
        A task with metrics ``accuracy`` (share in [0, 1]) and ``loss`` (nats).

    Raises:
        ValueError: batch_size < 1, NaN in the inputs, a partition of other data, an empty shard.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    samples = len(dataset.train.labels)
    if partition.indices.size and not 0 <= partition.indices.min() <= partition.indices.max() < samples:
        raise ValueError(f"the partition names samples beyond the {samples} of {dataset.name}; partition this data set")
    empty = np.flatnonzero(partition.sizes == 0)
    if empty.size:
        raise ValueError(f"node {empty[0]} holds no sample; partition with a minimum of at least 1 per node")
    _check_finite(dataset.train.inputs, "training")
    _check_finite(dataset.test.inputs, "test")
    shape = dataset.train.inputs.shape[1:]
    inverse = [1.0 / deviation for deviation in dataset.std]
    scale = {"mean": _per_pixel(dataset.mean, shape), "scale": _per_pixel(inverse, shape)}
    shards = {"indices": partition.indices, "offsets": partition.offsets}
    data = _arrays(dataset.train) | {name: jnp.asarray(values, jnp.int32) for name, values in shards.items()} | scale
    setting = Static(_Setting(Model(*model), shape, batch_size))
    return Task(
        Partial(_init, setting),
        Partial(_batch, setting),
        Partial(_loss, setting),
        Partial(_metrics, setting),
        data,
        _arrays(dataset.test) | scale,
        num_nodes=partition.num_nodes,
    )
