"""Image classification: a data set, a partition of it, and a model become a task."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gossipjax.tasks.models import Model
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax.static import Static
from gossipjax.tasks.datasets import Dataset, Examples
from gossipjax.tasks.partition import Partition
from gossipjax.types import Params, Task


def _init(model: Static[Model], key: Key[Array, ""]) -> Params:
    return model.value.init(key)


def _standardize(inputs: Array, scale: dict[str, Array]) -> Float[Array, "b h w c"]:
    """Cast pixels to float32 and standardise each channel."""
    channels = (1,) * (inputs.ndim - 1) + (-1,)
    return (inputs.astype(jnp.float32) - scale["mean"].reshape(channels)) / scale["std"].reshape(channels)


def _batch(size: Static[int], key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    """Draw samples of the node's shard uniformly with replacement: one gather from the shared pool."""
    first, last = data["offsets"][node], data["offsets"][node + 1]
    picks = data["indices"][jax.random.randint(key, (size.value,), first, last)]
    return {"inputs": _standardize(data["inputs"][picks], data), "labels": data["labels"][picks]}


def _loss(model: Static[Model], key: Key[Array, ""], params: Params, batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    logits = model.value.apply(params, batch["inputs"])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]))


def _metrics(model: Static[Model], params: Params, test: dict[str, Array]) -> dict[str, Array]:
    logits = model.value.apply(params, _standardize(test["inputs"], test))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, test["labels"])
    return {
        "accuracy": jnp.mean((jnp.argmax(logits, -1) == test["labels"]).astype(jnp.float32)),
        "loss": jnp.mean(loss),
    }


def _arrays(examples: Examples) -> dict[str, Array]:
    return {"inputs": jnp.asarray(examples.inputs), "labels": jnp.asarray(examples.labels, jnp.int32)}


def _check_finite(inputs: np.ndarray, what: str) -> None:
    if np.issubdtype(inputs.dtype, np.floating) and not np.isfinite(inputs).all():
        bad = np.flatnonzero(~np.isfinite(inputs.reshape(len(inputs), -1)).all(1))
        raise ValueError(
            f"{bad.size} {what} inputs hold NaN or infinity, the first is sample {bad[0]}; remove or fix them"
        )


def classification(dataset: Dataset, partition: Partition, model: Model, *, batch_size: int = 16) -> Task:
    """Build a classification task: mean cross-entropy of a model on each node's own shard.

    Images stay in their stored type (uint8) in one pool; a batch is gathered by index, cast and standardised in the
    loop: ``(pixel − mean) / std`` per channel.

    Args:
        dataset: train and test examples.
        partition: which training samples each node holds; its number of nodes is the task's.
        model: ``(init, apply)``: any pair of hashable functions, see :mod:`gossipjax.tasks.models`.
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
    scale = {"mean": jnp.asarray(dataset.mean, jnp.float32), "std": jnp.asarray(dataset.std, jnp.float32)}
    shards = {"indices": partition.indices, "offsets": partition.offsets}
    data = _arrays(dataset.train) | {name: jnp.asarray(values, jnp.int32) for name, values in shards.items()} | scale
    test = _arrays(dataset.test) | scale
    chosen = Static(model)
    return Task(
        Partial(_init, chosen),
        Partial(_batch, Static(batch_size)),
        Partial(_loss, chosen),
        Partial(_metrics, chosen),
        data,
        test,
        num_nodes=partition.num_nodes,
    )
