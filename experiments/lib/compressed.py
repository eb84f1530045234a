"""Runs of sharing schemes on the tasks of the JWINS paper; each run is stored, so that a long experiment can resume."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib.kept import kept_run as kept_run
from experiments.lib.kept import model_of
from experiments.lib.problems import Problem
from experiments.lib.trivial import noted
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
    topology,
)
from gossipjax._base.binding import Frozen
from gossipjax.observe import meter_summary
from gossipjax.timeline import rounds


class Network(NamedTuple):
    """The graph, the number of rounds, and the links."""

    num_nodes: int
    num_rounds: int
    degree: int = 4
    dynamic: bool = False
    """Whether every round has a new random regular graph (from a cycle of 64)."""
    num_records: int = 20
    num_seeds: int = 1
    bytes_per_second: float = 1.25e6
    """Rate at which a node sends: 10 Mbit/s."""
    seconds_per_sample: float = 0.005
    """Seconds of local training per sample."""
    test_nodes: int | None = 8
    test_samples: int = 1000
    """Largest number of test samples; smaller test sets are used completely."""
    seed: int = 0


def graphs_of(network: Network) -> list[topology.Topology]:
    """Draw one random regular graph for all rounds, or a cycle with one graph per round."""
    n, degree = network.num_nodes, network.degree
    count = min(64, network.num_rounds) if network.dynamic else 1
    return [topology.random_regular(n, degree, seed=network.seed + number, tries=50) for number in range(count)]


def plan_of(network: Network) -> Timeline:
    """Plan rounds with Metropolis weights on one random regular graph, or on a new one in every round."""
    matrices = [mixing.metropolis(graph) for graph in graphs_of(network)]
    return rounds(matrices if network.dynamic else matrices[0], network.num_rounds)


def _replicated(task: Task, num_nodes: Frozen[int], key: Any) -> Any:
    """Start all nodes at the same model; as a module-level function, it lets runs share compiled programs."""
    return replicate(task.init(key), num_nodes.value)


def train(
    problem: Problem,
    sharing: Sharing,
    network: Network,
    *,
    learning_rate: float | None = None,
    only: int | None = None,
    checkpoint: Any = None,
) -> tuple[Protocol, Trajectory]:
    """Train with one sharing scheme over all seeds, or over one of them, ``only``.

    Returns:
        The metered protocol, and records and final states.
    """
    rate = problem.learning_rate if learning_rate is None else learning_rate
    compute = problem.batch_size * problem.local_steps * network.seconds_per_sample
    protocol = metered(
        dpsgd(problem.task, Partial(optax.sgd, rate), local_steps=problem.local_steps, sharing=sharing),
        compute_seconds=compute,
        bytes_per_second=network.bytes_per_second,
        overlap=False,
    )
    few = _samples(problem, network)
    watch = (
        observe.node_metrics(problem.task, nodes=network.test_nodes, samples=few, seed=network.seed),
        observe.consensus_distance(),
        meter_summary(),
    )
    # Of any number of seeds, the first ones are the same.
    keys = jax.random.split(jax.random.key(network.seed), network.num_seeds if only is None else only + 1)
    trajectory = simulate(
        keys[only or 0 :],
        protocol,
        plan_of(network),
        Partial(_replicated, problem.task, Frozen(network.num_nodes)),
        observers=watch,
        record_every=max(1, network.num_rounds // network.num_records),
        checkpoint=checkpoint,
        throw=False,
    )
    return protocol, trajectory


def _samples(problem: Problem, network: Network) -> int | None:
    """Return the number of test samples; None where the test set has no more."""
    return network.test_samples if network.test_samples < len(problem.task.test["inputs"]) else None


def learn(
    problem: Problem,
    sharing: Sharing,
    network: Network,
    *,
    learning_rate: float | None = None,
    only: int | None = None,
    checkpoint: Any = None,
) -> xr.Dataset:
    """Train as :func:`train`, and return the records."""
    _, trajectory = train(problem, sharing, network, learning_rate=learning_rate, only=only, checkpoint=checkpoint)
    kept = [f"test_{problem.metric}", "consensus_distance", "node_bytes_sent", "node_clock", "train_loss", "bytes_sent"]
    records = trajectory.dataset[kept].rename({f"test_{problem.metric}": "score"}).drop_attrs(deep=False)
    params = jax.tree.map(lambda leaf: leaf[0, 0], trajectory.x)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    test = observe.subset(problem.task, _samples(problem, network), seed=network.seed)
    return records.assign_attrs(
        problem=problem.name,
        data=problem.source,
        metric=problem.metric,
        higher_is_better=int(problem.higher_is_better),
        parameters=parameters,
        learning_rate=problem.learning_rate if learning_rate is None else learning_rate,
        local_steps=problem.local_steps,
        batch_size=problem.batch_size,
        diverged=int("diverged" in trajectory.manifest),
        trivial=noted(problem.task, problem.metric, test),
    )


def run_of(
    problem: Problem,
    label: str,
    sharing: Sharing,
    network: Network,
    keep: str | None,
    *,
    learning_rate: float | None = None,
) -> xr.Dataset:
    """Run :func:`learn`, and store the result under the names of problem, model, scheme and network."""
    settings = {
        "problem": problem.name,
        "data": problem.source,
        "scheme": label,
        "network": network._asdict(),
        "model": model_of(problem.task),
        "batch_size": problem.batch_size,
        "local_steps": problem.local_steps,
        "learning_rate": problem.learning_rate if learning_rate is None else learning_rate,
    }

    def make(checkpoint: Any) -> xr.Dataset:
        return learn(problem, sharing, network, learning_rate=learning_rate, checkpoint=checkpoint)

    return kept_run(keep, settings, make, problem.task, sharing)
