"""The learning problems of the experiments: tasks on the available data, and how nodes train on them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments.lib.kept import model_of
from gossipjax import Task, tasks
from gossipjax.tasks import DataUnavailable

STAND_INS = ("scikit-learn digits", "synthetic")
"""How the sources of data begin that need no files."""
Name = Literal["digits", "writers", "cifar10", "movielens", "shakespeare"]


class Problem(NamedTuple):
    """A task and the settings of its training."""

    name: str
    task: Task
    source: str
    metric: str
    """Metric of the test set by which runs are compared."""
    higher_is_better: bool
    learning_rate: float
    batch_size: int
    local_steps: int = 1
    """Local steps between two rounds of JWINS; systems choose their own."""
    momentum: float | None = None

    @property
    def is_stand_in(self) -> bool:
        """Whether the files of its data were not at hand, and others took their place."""
        return self.name != "digits" and self.source.startswith(STAND_INS)

    @property
    def parameters(self) -> int:
        """Number of parameters of the model."""
        shapes = jax.eval_shape(self.task.init, jax.random.key(0))
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))

    @property
    def named(self) -> dict[str, Any]:
        """Settings that identify a run of the problem, besides its data."""
        rates = {"learning_rate": self.learning_rate, "momentum": self.momentum, "batch_size": self.batch_size}
        return rates | {"data": self.source, "model": model_of(self.task)}


def of_jwins(name: Name, num_nodes: int, *, seed: int = 0) -> Problem:
    """Build a task of JWINS' paper with its learning rate, batch size, local steps and non-IID partition.

    If its files are missing, a task uses the embedded default, and ``source`` says so.
    """
    return {
        "digits": _digits,
        "writers": _writers,
        "cifar10": _cifar10,
        "movielens": _movielens,
        "shakespeare": _shakespeare,
    }[name](num_nodes, seed)


def _digits(n: int, seed: int) -> Problem:
    """Build small scans of digits with two labels per node."""
    data = tasks.digits()
    shards = tasks.by_shards(data.train.labels, n, shards_per_node=2, seed=seed)
    task = tasks.classification(data, shards, tasks.mlp(64, (32,), 10), batch_size=8)
    return Problem("digits", task, data.source, "accuracy", True, 0.1, 8, 3)


def _writers(n: int, seed: int) -> Problem:
    """Build handwritten digits by writer, in the role of FEMNIST."""
    try:
        data = tasks.mnist_by_writer()
        assert data.train.writers is not None
        shards = tasks.by_user(data.train.writers, n, seed=seed)
    except DataUnavailable:
        data = tasks.digits()
        shards = tasks.dirichlet(data.train.labels, n, alpha=0.5, seed=seed)
    inputs = int(np.prod(data.train.inputs.shape[1:]))
    task = tasks.classification(data, shards, tasks.mlp(inputs, (128,), data.num_classes), batch_size=16)
    return Problem("writers", task, data.source, "accuracy", True, 0.05, 16, 5)


def _cifar10(n: int, seed: int) -> Problem:
    """Build CIFAR-10 with GN-LeNet; each node has four segments of the list that is sorted by label."""
    try:
        data, model = tasks.cifar10(), tasks.gn_lenet()
    except DataUnavailable:
        data = tasks.digits()
        model = tasks.gn_lenet(data.train.inputs.shape[1:], data.num_classes)
    shards = tasks.by_stretches(data.train.labels, n, shards_per_node=4, seed=seed)
    return Problem(
        "cifar10", tasks.classification(data, shards, model, batch_size=8), data.source, "accuracy", True, 0.01, 8, 3
    )


def _movielens(n: int, seed: int) -> Problem:
    """Build ratings with matrix factorisation of 20 factors; each user belongs to one node.

    The start is ours: the first model predicts the mean of the training ratings. The published one, near 0, lies at a
    saddle point, where all predictions on 96 nodes stay clipped to the lowest rating for hundreds of rounds.
    """
    data = _ratings(seed)
    return Problem("movielens", _factorization(data, n, 16), data.source, "rmse", False, 0.1, 16, 10)


def _factorization(data: Any, n: int, batch_size: int) -> Task:
    mean = float(np.mean(data.train.stars))
    return tasks.matrix_factorization(data, tasks.ratings_by_user(data, n), batch_size=batch_size, initial_rating=mean)


def _shakespeare(n: int, seed: int) -> Problem:
    """Build the prediction of the next character of plays with two layers of LSTM; each role belongs to one node."""
    try:
        data, model = tasks.shakespeare(), tasks.lstm()
    except DataUnavailable:
        data = tasks.synthetic_text(seed=seed)
        model = tasks.lstm(hidden=32, layers=2, context=data.rule.context)
    shards = tasks.by_user(data.train.roles, n, seed=seed)
    task = tasks.next_character(data, shards, model, batch_size=16)
    return Problem("shakespeare", task, data.source, "accuracy", True, 0.1, 16, 10)


def of_plexus(name: Name, n: int, *, seed: int = 0, batch_size: int = 20) -> Problem:
    """Build a task; if files are missing, it uses the embedded digits or random ratings, and ``source`` says so.

    ``"digits"`` small scans, Dirichlet(0.5) label skew; ``"writers"`` handwritten digits, whole writers to each node;
    ``"movielens"`` ratings, users to nodes, from the mean rating on; ``"cifar10"`` with the network of Plexus, split
    evenly at random.
    """
    if name == "movielens":
        ratings = _ratings(seed)
        return Problem(name, _factorization(ratings, n, batch_size), ratings.source, "rmse", False, 0.2, batch_size)
    data = _images(name)
    labels, momentum = data.train.labels, None
    inputs = int(np.prod(data.train.inputs.shape[1:]))
    shards = tasks.dirichlet(labels, n, alpha=0.5, seed=seed)
    if data.name == "cifar10":
        model, rate, momentum = tasks.gn_lenet_plexus(data.train.inputs.shape[1:], data.num_classes), 0.002, 0.9
        shards = tasks.iid(len(labels), n, seed=seed)
    elif name == "writers" and data.train.writers is not None:
        model, rate = tasks.mlp(inputs, (128,), data.num_classes), 0.05
        shards = tasks.by_user(data.train.writers, n, seed=seed)
    else:
        model, rate = tasks.mlp(inputs, (32,), data.num_classes), 0.1
    task = tasks.classification(data, shards, model, batch_size=batch_size)
    return Problem(name, task, data.source, "accuracy", True, rate, batch_size, momentum=momentum)


def _images(name: str) -> tasks.Dataset:
    try:
        return {"digits": tasks.digits, "writers": tasks.mnist_by_writer, "cifar10": tasks.cifar10}[name]()
    except DataUnavailable:
        return tasks.digits()


def _ratings(seed: int) -> Any:
    try:
        return tasks.movielens(seed=seed)
    except DataUnavailable:
        return tasks.synthetic_ratings(seed=seed)
