"""Next-character prediction: build a task from windows of text, a partition and a model."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from gossipjax._base.arguments import instance, whole, wholes
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_shards
from gossipjax._base.shards import keep_shards
from gossipjax.tasks._data.text import NUM_SYMBOLS, TextDataset, Windows, check_rule
from gossipjax.tasks._models.model import Model, check_model
from gossipjax.tasks._partition import Partition, check_held
from gossipjax.types import Params, Task

_BLOCK = 256
"""Test windows per block: the activations of an LSTM at all positions of a block are in memory at once."""


class _Setting(NamedTuple):
    """Compile-time constants."""

    model: Model
    context: int
    batch_size: int


def _gather(setting: Frozen[_Setting], codes: Array, starts: Array) -> tuple[Int[Array, "b context"], Int[Array, " b"]]:
    """Read windows from the pool; return contexts and next characters."""
    places = starts[:, None] + jnp.arange(setting.value.context + 1, dtype=starts.dtype)[None]
    window = codes[places].astype(jnp.int32)
    return window[:, :-1], window[:, -1]


def _shards(setting: Frozen[_Setting], data: dict[str, Array], nodes: Int[np.ndarray, " m"]) -> dict[str, Any]:
    """Keep the windows of some nodes, and the characters in any of them."""
    places, offsets = keep_shards(data["offsets"], nodes)
    starts, codes = np.asarray(data["starts"]), np.asarray(data["codes"])
    first = starts[places]
    ends = np.zeros(len(codes) + 1, np.int64)
    np.add.at(ends, first, 1)
    np.add.at(ends, first + setting.value.context + 1, -1)
    inside = np.cumsum(ends[:-1]) > 0
    moved = (np.cumsum(inside) - 1)[first].astype(starts.dtype)
    return {"codes": codes[inside], "starts": moved, "offsets": offsets}


@by_shards(_shards)
def _batch(setting: Frozen[_Setting], key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    """Draw windows of the node's roles uniformly with replacement; the windows of a node are contiguous."""
    picks = jax.random.randint(key, (setting.value.batch_size,), data["offsets"][node], data["offsets"][node + 1])
    inputs, labels = _gather(setting, data["codes"], data["starts"][picks])
    return {"inputs": inputs, "labels": labels}


def _loss(setting: Frozen[_Setting], key: Key[Array, ""], params: Params, batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    logits = setting.value.model.apply(params, batch["inputs"])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]))


def _metrics(setting: Frozen[_Setting], params: Params, test: dict[str, Array]) -> dict[str, Array]:
    def totals(windows: tuple[Array, Array]) -> dict[str, Array]:
        starts, labels = windows[0], windows[1].astype(jnp.int32)
        logits = setting.value.model.apply(params, _gather(setting, test["codes"], starts)[0])
        hits = (jnp.argmax(logits, -1).astype(jnp.int32) == labels).astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return {"accuracy": jnp.sum(hits), "loss": jnp.sum(loss)}

    windows = test["inputs"], test["labels"]
    total = windows[0].shape[0]
    whole = total // _BLOCK * _BLOCK
    sums = []
    if whole:
        blocks = jax.tree.map(lambda a: a[:whole].reshape(-1, _BLOCK), windows)
        sums.append(jax.tree.map(lambda a: jnp.sum(a, axis=0), jax.lax.map(totals, blocks)))
    if whole < total:
        sums.append(totals(jax.tree.map(lambda a: a[whole:], windows)))
    return jax.tree.map(lambda *parts: sum(parts[1:], start=parts[0]) / total, *sums)


def _init(setting: Frozen[_Setting], key: Key[Array, ""]) -> Params:
    return setting.value.model.init(key)


@recorded("caldas2018leaf")
def next_character(dataset: TextDataset, partition: Partition, model: Model, *, batch_size: int = 16) -> Task:
    """Build next-character prediction: the mean cross-entropy of a model on the roles of each node.

    Characters stay bytes in one pool, and each node has a list of positions in it; the training loop reads the windows.

    Args:
        dataset: texts, cut into windows.
        partition: which training windows each node holds, such as ``by_user(dataset.train.roles, num_nodes, seed=0)``.
        model: ``(init, apply)``: ``apply(params, inputs) -> logits``, inputs ``(b, context)`` codes, logits
            ``(b, 92)``; such as :func:`gossipjax.tasks.lstm`.
        batch_size: windows drawn per step, uniformly with replacement from the node's shard.

    Returns:
        A task with metrics ``accuracy`` (share in [0, 1]) and ``loss`` (nats per character) over the test windows of
        all roles.

    Raises:
        ValueError: if batch_size < 1, a window lies outside the text, the partition does not match the data, a node has
            no window, or the model has other inputs or outputs.

    Reference:
        Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097, 2018; as trained in Dhasade et al.,
        "Get More for Less in Decentralized Learning Systems" (JWINS), ICDCS 2023.
    """
    instance("dataset", dataset, TextDataset, "such as synthetic_text() or text_by_role(texts, name=…, source=…)")
    batch_size = whole("batch_size", batch_size, least=1, most=2**31 - 1)
    check_rule(dataset.rule)
    context = dataset.rule.context
    known = wholes(f"codes of {dataset.name}", dataset.codes, shape=(None,), least=0, most=NUM_SYMBOLS - 1)
    train_starts, test_starts = (
        _check_starts(part, f"{dataset.name}: {what} starts", len(known) - context - 1)
        for part, what in ((dataset.train, "training"), (dataset.test, "test"))
    )
    check_held(partition, len(train_starts), dataset.name)
    example = jax.ShapeDtypeStruct((batch_size, context), jnp.int32)
    model = check_model(model, example, NUM_SYMBOLS, f"the {NUM_SYMBOLS} symbols")
    codes = jnp.asarray(known, jnp.uint8)
    setting = Frozen(_Setting(model, context, batch_size))
    offsets, starts = partition.offsets, train_starts[partition.indices]
    places = {"starts": jnp.asarray(starts, jnp.int32), "offsets": jnp.asarray(offsets, jnp.int32)}
    labels = jnp.asarray(known[test_starts + context], jnp.uint8)
    return Task(
        Partial(_init, setting),
        Partial(_batch, setting),
        Partial(_loss, setting),
        Partial(_metrics, setting),
        {"codes": codes} | places,
        {"codes": codes, "inputs": jnp.asarray(test_starts, jnp.int32), "labels": labels},
        num_nodes=partition.num_nodes,
    )


def _check_starts(windows: Windows, name: str, last: int) -> Int[np.ndarray, " N"]:
    """Reject windows that reach beyond the text, where a gather would repeat its last character."""
    instance(name, windows, Windows, "build them with Windows(starts, roles)")
    starts = wholes(name, windows.starts, shape=(None,), least=0, most=last, remedy="windows must lie in the text")
    if not len(starts):
        raise ValueError(f"{name}: there is no window; take longer texts or a shorter context")
    return starts
