"""The section DATASET: which data, how they are split over the nodes, and which model learns them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gossipjax import tasks
from gossipjax._base.arguments import instance
from gossipjax.decentralizepy._ini import Kind, Section, count, flag, positive, seed, word
from gossipjax.tasks import Dataset, Partition, RatingsDataset, TextDataset
from gossipjax.types import Task

DATA_SEED = 1234
"""Of the data, where the file has no random_seed, as in DecentralizePy's class of data sets."""
LEAF = "the JSON files of LEAF are not read here; pass data=, such as gossipjax.tasks.mnist_by_writer()"


class Source(NamedTuple):
    """A dataset class of DecentralizePy."""

    kind: type
    """Of the data that stand for it."""
    load: Callable[[int], Any] | None
    """``load(seed)`` reads the data themselves; None: they must be given."""
    models: dict[str, Callable[[Any], Any]]
    """``model(data)`` by name; empty: the task has a model of its own."""
    loss: str


def _image_shape(data: Dataset) -> tuple[int, int, int]:
    shape = data.train.inputs.shape[1:]
    if len(shape) != 3:
        raise ValueError(f"data: inputs of shape {shape}, but this model learns images; use (height, width, channels)")
    return shape[0], shape[1], shape[2]


def _from_minus_one(data: Dataset) -> Dataset:
    """Scale colours to values from −1 to 1, as DecentralizePy does."""
    return dataclasses.replace(data, mean=(127.5,) * 3, std=(127.5,) * 3)


def _linear(data: Dataset) -> Any:
    return tasks.softmax_regression(int(np.prod(data.train.inputs.shape[1:])), data.num_classes)


SOURCES = {
    "CIFAR10": Source(
        Dataset,
        lambda number: _from_minus_one(tasks.cifar10()),
        {"LeNet": lambda data: tasks.gn_lenet(_image_shape(data), data.num_classes)},
        "CrossEntropyLoss",
    ),
    "Femnist": Source(
        Dataset,
        None,
        {"CNN": lambda data: tasks.femnist_cnn(_image_shape(data), data.num_classes), "LogisticRegression": _linear},
        "CrossEntropyLoss",
    ),
    "Celeba": Source(
        Dataset,
        None,
        {"CNN": lambda data: tasks.celeba_cnn(_image_shape(data), data.num_classes)},
        "CrossEntropyLoss",
    ),
    "Shakespeare": Source(
        TextDataset,
        lambda number: tasks.shakespeare(),
        {"LSTM": lambda data: tasks.lstm(context=data.rule.context)},
        "CrossEntropyLoss",
    ),
    "MovieLens": Source(
        RatingsDataset,
        lambda number: tasks.movielens(seed=number),
        {"MatrixFactorization": lambda data: None},
        "MSELoss",
    ),
}
NO_SOURCE = {
    "Reddit": "neither its data nor its model is here",
    "AmazonReview": "neither its data nor its pretrained models are here",
}
NO_MODEL = {name: "this model is not here" for name in ("ResNet8", "RNET", "BERT", "MobileBERT", "RNN")}

_COMMON = {
    "dataset_package": word(),
    "dataset_class": word(),
    "model_class": word(),
    "train_dir": word(),
    "test_dir": word(),
    "test_batch_size": count(1024),
    "random_seed": seed(DATA_SEED),
    "sizes": word(),
    "only_local": flag(False),
}
UNUSED = {
    "test_batch_size": "a model is tested on the whole test set at once",
    "validation_size": "no validation set is made",
}
_VALIDATION = {"validation_source": word(), "validation_size": Kind(float, "a share of the samples", None)}
_OF_CLASS: dict[str, dict[str, Kind]] = {
    "CIFAR10": _VALIDATION | {"partition_niid": word("simple"), "alpha": positive(100.0), "shards": count(1)},
    "Femnist": _VALIDATION,
    "Celeba": {"images_dir": word()},
    "Shakespeare": {},
    "MovieLens": {},
}


class Problem(NamedTuple):
    """What a section DATASET says, with the batches of TRAIN_PARAMS."""

    task: Task
    shard_sizes: np.ndarray
    loss: str
    notes: tuple[str, ...]


def problem_of(section: Section, num_nodes: int, batch_size: int, data: Any) -> Problem:
    """Build the task of a section DATASET.

    Args:
        section: of the file.
        num_nodes: of the graph.
        batch_size: of TRAIN_PARAMS.
        data: stands for the data set; None: it is loaded.

    Raises:
        ValueError: a class, key or value that is not known or has no counterpart here, or data that must be given.
        TypeError: data of the wrong sort.
    """
    name = section.choose("dataset_class", SOURCES, NO_SOURCE)
    source = SOURCES[name]
    model = source.models[section.choose("model_class", source.models, NO_MODEL)]
    given = section.take(_COMMON | _OF_CLASS[name])
    if given["sizes"]:
        section.refuse("sizes", "shares of unequal size are not supported; leave it empty")
    if given["only_local"]:
        section.refuse("only_local", "there are no machines here; use False")
    notes = _validation(section, given) + section.unused(UNUSED)
    if data is None:
        if source.load is None:
            section.refuse("dataset_class", LEAF)
        data = source.load(given["random_seed"])
    instance("data", data, source.kind, f"the data that stand for {name}")
    shards = _shards(section, given, data, num_nodes)
    notes += (
        "batches are drawn with replacement from a node's shard; DecentralizePy takes the first of a shuffled one",
    )
    return Problem(_task(data, shards, model(data), batch_size), np.diff(shards.offsets), source.loss, notes)


def _validation(section: Section, given: dict[str, Any]) -> tuple[str, ...]:
    where = given.get("validation_source")
    if where == "Test":
        return ("the test set is whole: no validation set is taken out of it",)
    if where:
        section.refuse("validation_source", "no validation set is taken out of the training set here; use Test")
    return ()


def _shards(section: Section, given: dict[str, Any], data: Any, n: int) -> Partition:
    if isinstance(data, RatingsDataset):
        return tasks.ratings_by_user(data, n)
    if isinstance(data, TextDataset):
        return tasks.by_user(data.train.roles, n, seed=given["random_seed"])
    if "partition_niid" in given:
        return _split(section, given, data.train.labels, n)
    if data.train.writers is None:
        raise ValueError("data: has no writers, by which this data set is split; use Examples(inputs, labels, writers)")
    return tasks.by_user(data.train.writers, n, seed=given["random_seed"])


def _split(section: Section, given: dict[str, Any], labels: np.ndarray, n: int) -> Partition:
    number = given["random_seed"]
    ways: dict[str, Callable[[], Partition]] = {
        "False": lambda: tasks.iid(len(labels), n, seed=number),
        "iid": lambda: tasks.iid(len(labels), n, seed=number),
        "simple": lambda: _in_order(len(labels), n),
        "kshard": lambda: tasks.by_stretches(labels, n, shards_per_node=given["shards"], seed=number),
        "True": lambda: tasks.by_stretches(labels, n, shards_per_node=given["shards"], seed=number),
        "dirichlet": lambda: tasks.dirichlet(labels, n, alpha=given["alpha"], balanced=True, seed=number),
    }
    return ways[section.choose("partition_niid", ways, {}, given["partition_niid"])]()


def _in_order(count: int, n: int) -> Partition:
    """Cut the list of samples as it stands into n stretches whose lengths differ by at most one."""
    offsets = np.round(np.linspace(0, count, n + 1)).astype(np.int32)
    return Partition(np.arange(count, dtype=np.int32), offsets)


def _task(data: Any, shards: Partition, model: Any, batch_size: int) -> Task:
    if isinstance(data, RatingsDataset):
        return tasks.matrix_factorization(data, shards, batch_size=batch_size)
    if isinstance(data, TextDataset):
        return tasks.next_character(data, shards, model, batch_size=batch_size)
    return tasks.classification(data, shards, model, batch_size=batch_size)
