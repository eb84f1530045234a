"""Runs of sharing schemes on the tasks of the JWINS paper, kept one by one so that a long experiment is never lost."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib.kept import kept_run as kept_run
from experiments.lib.kept import model_of
from gossipjax import (
    Protocol,
    Sharing,
    Task,
    Timeline,
    Trajectory,
    dpsgd,
    metered,
    mixing,
    observe,
    replicate,
    simulate,
    tasks,
    topology,
)
from gossipjax._base.binding import Frozen
from gossipjax.observe import meter_summary
from gossipjax.timeline import rounds

Name = Literal["digits", "writers", "cifar10", "movielens", "shakespeare"]


class Problem(NamedTuple):
    """A task, and how its nodes train between two rounds."""

    name: str
    task: Task
    source: str
    metric: str
    """Of the test set, by which schemes are compared."""
    higher_is_better: bool
    learning_rate: float
    batch_size: int
    local_steps: int


class Network(NamedTuple):
    """Who talks to whom, for how long, and over which links."""

    num_nodes: int
    num_rounds: int
    degree: int = 4
    dynamic: bool = False
    """A fresh random regular graph in every round (a cycle of 64 of them)."""
    num_records: int = 20
    num_seeds: int = 1
    bytes_per_second: float = 1.25e6
    """At which a node sends: 10 Mbit/s."""
    seconds_per_sample: float = 0.005
    """Of local training."""
    test_nodes: int | None = 8
    test_samples: int = 1000
    """At most; smaller test sets are taken whole."""
    seed: int = 0


def problem(name: Name, num_nodes: int, *, seed: int = 0) -> Problem:
    """Build one of the paper's tasks with its learning rate, batch size and local steps, dealt to nodes non-IID.

    Where its files are not at hand, a task takes the embedded default, and ``source`` says so.
    """
    return {
        "digits": _digits,
        "writers": _writers,
        "cifar10": _cifar10,
        "movielens": _movielens,
        "shakespeare": _shakespeare,
    }[name](num_nodes, seed)


def _digits(n: int, seed: int) -> Problem:
    """Small scans of digits, two labels a node."""
    data = tasks.digits()
    shards = tasks.by_shards(data.train.labels, n, shards_per_node=2, seed=seed)
    task = tasks.classification(data, shards, tasks.mlp(64, (32,), 10), batch_size=8)
    return Problem("digits", task, data.source, "accuracy", True, 0.1, 8, 3)


def _writers(n: int, seed: int) -> Problem:
    """Handwritten digits by writer, in the role of FEMNIST."""
    try:
        data = tasks.mnist_by_writer()
        assert data.train.writers is not None
        shards = tasks.by_user(data.train.writers, n, seed=seed)
    except tasks.DataUnavailable:
        data = tasks.digits()
        shards = tasks.dirichlet(data.train.labels, n, alpha=0.5, seed=seed)
    inputs = int(np.prod(data.train.inputs.shape[1:]))
    task = tasks.classification(data, shards, tasks.mlp(inputs, (128,), data.num_classes), batch_size=16)
    return Problem("writers", task, data.source, "accuracy", True, 0.05, 16, 5)


def _cifar10(n: int, seed: int) -> Problem:
    """CIFAR-10, four stretches of the list sorted by label a node, GN-LeNet."""
    try:
        data, model = tasks.cifar10(), tasks.gn_lenet()
    except tasks.DataUnavailable:
        data = tasks.digits()
        model = tasks.gn_lenet(data.train.inputs.shape[1:], data.num_classes)
    shards = tasks.by_stretches(data.train.labels, n, shards_per_node=4, seed=seed)
    return Problem(
        "cifar10", tasks.classification(data, shards, model, batch_size=8), data.source, "accuracy", True, 0.01, 8, 3
    )


def _movielens(n: int, seed: int) -> Problem:
    """Ratings, users dealt to nodes, matrix factorisation of 20 factors.

    The learning rate is ours. With the 0.1 of the paper's configuration no prediction on 96 nodes leaves the lowest
    rating, to which it is clipped, in hundreds of rounds: the factors start near a saddle point; 1.0 diverges.
    """
    try:
        data = tasks.movielens(seed=seed)
    except tasks.DataUnavailable:
        data = tasks.synthetic_ratings(seed=seed)
    task = tasks.matrix_factorization(data, tasks.ratings_by_user(data, n), batch_size=16)
    return Problem("movielens", task, data.source, "rmse", False, 0.5, 16, 10)


def _shakespeare(n: int, seed: int) -> Problem:
    """The next character of plays, roles dealt to nodes, two layers of LSTM."""
    try:
        data, model = tasks.shakespeare(), tasks.lstm()
    except tasks.DataUnavailable:
        data = tasks.synthetic_text(seed=seed)
        model = tasks.lstm(hidden=32, layers=2, context=data.rule.context)
    shards = tasks.by_user(data.train.roles, n, seed=seed)
    task = tasks.next_character(data, shards, model, batch_size=16)
    return Problem("shakespeare", task, data.source, "accuracy", True, 0.1, 16, 10)


def graphs_of(network: Network) -> list[topology.Topology]:
    """Draw the random regular graph of all rounds, or the cycle of them, one a round."""
    n, degree = network.num_nodes, network.degree
    count = min(64, network.num_rounds) if network.dynamic else 1
    return [topology.random_regular(n, degree, seed=network.seed + number, tries=50) for number in range(count)]


def plan_of(network: Network) -> Timeline:
    """Plan rounds on a random regular graph with Metropolis weights, or on a fresh one every round."""
    matrices = [mixing.metropolis(graph) for graph in graphs_of(network)]
    return rounds(matrices if network.dynamic else matrices[0], network.num_rounds)


def _replicated(task: Task, num_nodes: Frozen[int], key: Any) -> Any:
    """Start all nodes at one model; a function of the module, so that runs of one problem share what is compiled."""
    return replicate(task.init(key), num_nodes.value)


def train(
    given: Problem, said: Sharing, network: Network, *, learning_rate: float | None = None, checkpoint: Any = None
) -> tuple[Protocol, Trajectory]:
    """Train with one sharing scheme over all seeds; return the metered protocol, and records and final states."""
    rate = given.learning_rate if learning_rate is None else learning_rate
    compute = given.batch_size * given.local_steps * network.seconds_per_sample
    protocol = metered(
        dpsgd(given.task, Partial(optax.sgd, rate), local_steps=given.local_steps, sharing=said),
        compute_seconds=compute,
        bytes_per_second=network.bytes_per_second,
    )
    available = len(given.task.test["inputs"])
    few = network.test_samples if network.test_samples < available else None
    watch = (
        observe.node_metrics(given.task, nodes=network.test_nodes, samples=few, seed=network.seed),
        observe.consensus_distance(),
        meter_summary(),
    )
    trajectory = simulate(
        jax.random.split(jax.random.key(network.seed), network.num_seeds),
        protocol,
        plan_of(network),
        Partial(_replicated, given.task, Frozen(network.num_nodes)),
        observers=watch,
        record_every=max(1, network.num_rounds // network.num_records),
        checkpoint=checkpoint,
        throw=False,
    )
    return protocol, trajectory


def learn(
    given: Problem, said: Sharing, network: Network, *, learning_rate: float | None = None, checkpoint: Any = None
) -> xr.Dataset:
    """Train with one sharing scheme over all seeds, and return its records."""
    _, trajectory = train(given, said, network, learning_rate=learning_rate, checkpoint=checkpoint)
    kept = [f"test_{given.metric}", "consensus_distance", "node_bytes_sent", "node_clock", "train_loss", "bytes_sent"]
    found = trajectory.dataset[kept].rename({f"test_{given.metric}": "score"}).drop_attrs(deep=False)
    params = jax.tree.map(lambda leaf: leaf[0, 0], trajectory.x)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return found.assign_attrs(
        problem=given.name,
        data=given.source,
        metric=given.metric,
        higher_is_better=int(given.higher_is_better),
        parameters=parameters,
        learning_rate=given.learning_rate if learning_rate is None else learning_rate,
        local_steps=given.local_steps,
        batch_size=given.batch_size,
        diverged=int("diverged" in trajectory.manifest),
    )


def run_of(
    given: Problem, label: str, said: Sharing, network: Network, keep: str | None, *, learning_rate: float | None = None
) -> xr.Dataset:
    """:func:`learn`, kept under the names of problem, model, scheme and network."""
    settings = {
        "problem": given.name,
        "data": given.source,
        "scheme": label,
        "network": network._asdict(),
        "model": model_of(given.task),
        "batch_size": given.batch_size,
        "local_steps": given.local_steps,
        "learning_rate": given.learning_rate if learning_rate is None else learning_rate,
    }

    def make(checkpoint: Any) -> xr.Dataset:
        return learn(given, said, network, learning_rate=learning_rate, checkpoint=checkpoint)

    return kept_run(keep, settings, make, given.task, said)


def expected_share(cut_offs: tuple[float, ...], cap: float = 0.5) -> float:
    """Mean bits of a JWINS message over those of the model, by the mean length of Elias gamma at random positions."""
    spent = []
    for alpha in cut_offs:
        if alpha >= cap:
            spent.append(1.0)
            continue
        j = np.arange(1, 40)
        index = 1 + 2 * np.sum((1 - alpha) ** (2.0**j - 1))
        spent.append(alpha * (32 + index) / 32)
    return float(np.mean(spent))
