"""Runs of sharing schemes on the tasks of the JWINS paper, kept one by one so that a long experiment is never lost."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib.kept import kept_run as kept_run
from experiments.lib.kept import model_of
from experiments.lib.problems import Problem
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
    given: Problem,
    said: Sharing,
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
    # Of any number of seeds, the first ones are the same.
    keys = jax.random.split(jax.random.key(network.seed), network.num_seeds if only is None else only + 1)
    trajectory = simulate(
        keys[only or 0 :],
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
    given: Problem,
    said: Sharing,
    network: Network,
    *,
    learning_rate: float | None = None,
    only: int | None = None,
    checkpoint: Any = None,
) -> xr.Dataset:
    """Train as :func:`train`, and return the records."""
    _, trajectory = train(given, said, network, learning_rate=learning_rate, only=only, checkpoint=checkpoint)
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
