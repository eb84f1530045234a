"""Image classification: build a task from a data set, a partition and a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from gossipjax._base.arguments import instance, whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_shards
from gossipjax._base.shards import keep_shards
from gossipjax.tasks._data.arrays import input_array, per_channel
from gossipjax.tasks._data.images import Dataset, Examples
from gossipjax.tasks._data.labels import class_numbers
from gossipjax.tasks._models.model import Model, check_model
from gossipjax.tasks._partition import Partition, check_held
from gossipjax.types import Params, Task


class _Setting(NamedTuple):
    """Compile-time constants."""

    model: Model
    shape: tuple[int, ...]
    """Shape of one input, such as ``(height, width, channels)``."""
    batch_size: int


def _standardize(setting: Frozen[_Setting], inputs: Array, data: dict[str, Array]) -> Float[Array, " b *shape"]:
    """Cast, standardise and reshape flat inputs; with channels as the last axis, XLA's loop would not vectorise."""
    standard = (inputs.astype(jnp.float32) - data["mean"][None]) * data["scale"][None]
    return standard.reshape(inputs.shape[0], *setting.value.shape)


def _shards(setting: Frozen[_Setting], data: dict[str, Array], nodes: Int[np.ndarray, " m"]) -> dict[str, Any]:
    """Keep the samples that some nodes hold, each once."""
    del setting
    places, offsets = keep_shards(data["offsets"], nodes)
    indices = np.asarray(data["indices"])
    samples, own = np.unique(indices[places], return_inverse=True)
    pool = {name: np.asarray(data[name])[samples] for name in ("inputs", "labels")}
    return data | pool | {"indices": own.astype(indices.dtype), "offsets": offsets}


@by_shards(_shards)
def _batch(setting: Frozen[_Setting], key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    """Draw samples of the node's shard uniformly with replacement, in one gather from the shared pool."""
    first, last = data["offsets"][node], data["offsets"][node + 1]
    picks = data["indices"][jax.random.randint(key, (setting.value.batch_size,), first, last)]
    return {"inputs": _standardize(setting, data["inputs"][picks], data), "labels": data["labels"][picks]}


def _loss(setting: Frozen[_Setting], key: Key[Array, ""], params: Params, batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    logits = setting.value.model.apply(params, batch["inputs"])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]))


def _metrics(setting: Frozen[_Setting], params: Params, test: dict[str, Array]) -> dict[str, Array]:
    logits = setting.value.model.apply(params, _standardize(setting, test["inputs"], test))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, test["labels"])
    return {
        "accuracy": jnp.mean((jnp.argmax(logits, -1).astype(jnp.int32) == test["labels"]).astype(jnp.float32)),
        "loss": jnp.mean(loss),
    }


def _init(setting: Frozen[_Setting], key: Key[Array, ""]) -> Params:
    return setting.value.model.init(key)


def _arrays(examples: Examples, what: str, num_classes: int) -> tuple[tuple[int, ...], dict[str, Array]]:
    """Check inputs and labels; return the shape of one input, and the arrays of the task."""
    instance(f"{what} examples", examples, Examples, "build them with Examples(inputs, labels)")
    inputs = input_array(f"{what} inputs", examples.inputs)
    labels = class_numbers(f"{what} labels", examples.labels, num_samples=len(inputs), num_classes=num_classes)
    arrays = {"inputs": jnp.asarray(inputs.reshape(len(inputs), -1)), "labels": jnp.asarray(labels, jnp.int32)}
    return inputs.shape[1:], arrays


def _scale(dataset: Dataset, shape: tuple[int, ...]) -> dict[str, Float[Array, " pixels"]]:
    """Repeat the mean and inverse deviation of each channel for every pixel of a flat input."""

    def per_pixel(values: np.ndarray) -> Float[Array, " pixels"]:
        return jnp.asarray(np.broadcast_to(values.astype(np.float32), shape).ravel())

    mean = per_channel(f"mean of {dataset.name}", dataset.mean, shape)
    std = per_channel(f"std of {dataset.name}", dataset.std, shape, positive=True)
    return {"mean": per_pixel(mean), "scale": per_pixel(1.0 / std)}


@recorded()
def classification(
    dataset: Dataset, partition: Partition, model: Model | tuple[Callable, Callable], *, batch_size: int = 16
) -> Task:
    """Build a classification task: the mean cross-entropy of a model on the shard of each node.

    Images stay in their stored type (uint8) in one pool. The training loop gathers a batch by index, casts it and
    standardises it, ``(pixel − mean) / std`` per channel.

    Args:
        dataset: train and test examples, such as :func:`~gossipjax.tasks.digits` or
            :func:`~gossipjax.tasks.from_arrays`.
        partition: which training samples each node holds; the task has as many nodes.
        model: ``(init, apply)``: any pair of hashable functions ``init(key) -> params`` and ``apply(params, inputs) ->
            logits``, inputs ``(b, height, width, channels)``, logits ``(b, num_classes)``; see
            :mod:`gossipjax.tasks`.
        batch_size: samples drawn per step, uniformly with replacement from the node's shard.

    Returns:
        A task with metrics ``accuracy`` (share in [0, 1]) and ``loss`` (nats).

    Raises:
        ValueError: if an input is not finite, a label is not a class number, a std is 0, the partition does not match
            the data, a shard is empty, or the model has other inputs or another number of outputs.
    """
    instance(
        "dataset", dataset, Dataset, "load one, such as digits(), or build one with from_arrays(x, y, x_test, y_test)"
    )
    batch_size = whole("batch_size", batch_size, least=1, most=2**31 - 1)
    num_classes = whole(f"num_classes of {dataset.name}", dataset.num_classes, least=1)
    shape, train = _arrays(dataset.train, f"{dataset.name}: training", num_classes)
    test_shape, test = _arrays(dataset.test, f"{dataset.name}: test", num_classes)
    if test_shape != shape:
        raise ValueError(f"{dataset.name}: test inputs have shape {test_shape}, but training inputs have {shape}")
    check_held(partition, len(train["labels"]), dataset.name)
    example = jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)
    model = check_model(model, example, num_classes, f"the {num_classes} classes of {dataset.name}")
    scale = _scale(dataset, shape)
    shards = {"indices": partition.indices, "offsets": partition.offsets}
    data = train | {name: jnp.asarray(values, jnp.int32) for name, values in shards.items()} | scale
    setting = Frozen(_Setting(model, shape, batch_size))
    return Task(
        Partial(_init, setting),
        Partial(_batch, setting),
        Partial(_loss, setting),
        Partial(_metrics, setting),
        data,
        test | scale,
        num_nodes=partition.num_nodes,
    )
