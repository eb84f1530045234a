"""What does label skew do to D-PSGD, and do gradient tracking and D² undo it?"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import optax
import scipy.sparse as sp
import xarray as xr
from jax.tree_util import Partial

from experiments.lib import real_data, trivial
from experiments.lib.report import Row, over_seeds
from gossipjax import Task, d2, dpsgd, gradient_tracking, mixing, observe, replicate, simulate, tasks, topology
from gossipjax.timeline import rounds
from theory.check.policy import Verdict, above, decide
from theory.consensus import dpsgd_bias

CLAIM = (
    "on quadratics D-PSGD stalls at a bias set by heterogeneity, gradient tracking and D² do not; "
    "on real data it ends behind them under strong label skew"
)


PARTITIONS = ("Dirichlet 0.1", "Dirichlet 1", "IID")


class Config(NamedTuple):
    """Settings of the part on real data, and of the part on quadratics, whose bias is known exactly."""

    dataset: str = "auto"
    partitions: tuple[str, ...] = PARTITIONS
    """Label skew of the part on real data; at most as many as there are quadratics."""
    num_nodes: int = 16
    learning_rate: float = 0.05
    batch_size: int = 16
    num_rounds: int = 3000
    num_records: int = 60
    num_seeds: int = 5
    test_samples: int | None = 1000
    quadratic_dimension: int = 16
    quadratic_step: float = 0.1
    quadratic_rounds: int = 4000
    seed: int = 0


QUICK = Config(dataset="digits", num_rounds=600, num_records=30, test_samples=None, quadratic_rounds=2000)

SPREADS = (3.0, 1.0, 0.3)
"""Standard deviations of the nodes' own optima in the quadratic part."""


def protocols(task: Task, step: float) -> dict:
    """Return the three algorithms, with plain SGD of a fixed step size."""
    optimizer = Partial(optax.sgd, step)
    return {
        "D-PSGD": dpsgd(task, optimizer),
        "gradient tracking": gradient_tracking(task, optimizer),
        "D²": d2(task, optimizer),
    }


def matrix_of(n: int) -> sp.csr_array:
    """Return lazy Metropolis weights on a ring; D² needs a smallest eigenvalue above −1/3."""
    return mixing.lazy(mixing.metropolis(topology.ring(n)))


def partitions(labels: np.ndarray, config: Config) -> dict[str, tasks.Partition]:
    """Return partitions with label skew from strong to none.

    Raises:
        ValueError: an unknown partition.
    """
    if unknown := [name for name in config.partitions if name not in PARTITIONS]:
        raise ValueError(f"partitions {unknown}: choose among {', '.join(PARTITIONS)}")
    n, seed = config.num_nodes, config.seed
    by_name = {
        "Dirichlet 0.1": tasks.dirichlet(labels, n, alpha=0.1, seed=seed),
        "Dirichlet 1": tasks.dirichlet(labels, n, alpha=1.0, seed=seed),
        "IID": tasks.iid(len(labels), n, seed=seed),
    }
    return {name: by_name[name] for name in config.partitions}


def on_real_data(config: Config, data: tasks.Dataset) -> xr.Dataset:
    """Learn softmax regression on a ring under each partition."""
    n = config.num_nodes
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    timeline = rounds(matrix_of(n), config.num_rounds)
    every = config.num_rounds // config.num_records
    model = tasks.softmax_regression(real_data.inputs_of(data), data.num_classes)
    cells = []
    for shards in partitions(data.train.labels, config).values():
        task = tasks.classification(data, shards, model, batch_size=config.batch_size)
        watch = (observe.consensus_distance(), observe.node_metrics(task, samples=config.test_samples))

        def start(key, task=task):
            return replicate(task.init(key), n)

        runs = [
            simulate(keys, protocol, timeline, start, observers=watch, record_every=every).dataset
            for protocol in protocols(task, config.learning_rate).values()
        ]
        cells.append(xr.concat(runs, "protocol"))
    joined = xr.concat(cells, "partition").drop_attrs(deep=False)
    names = list(protocols(task, config.learning_rate))
    return (
        joined[["consensus_distance", "test_accuracy", "train_loss"]]
        .assign_coords(protocol=names, partition=list(config.partitions))
        .assign_attrs(trivial=trivial.noted(task, "accuracy", observe.subset(task, config.test_samples)))
    )


def on_quadratics(config: Config) -> xr.Dataset:
    """Run noiseless quadratics on the same ring, with curvatures and optima that differ between nodes."""
    n, d = config.num_nodes, config.quadratic_dimension
    matrix = matrix_of(n)
    timeline = rounds(matrix, config.quadratic_rounds)
    rng = np.random.default_rng(config.seed)
    curvature, shape = rng.uniform(0.5, 1.5, (n, 1)), rng.standard_normal((n, d))
    errors, biases = [], []
    for spread in SPREADS:
        task = tasks.quadratic(spread * shape, curvature=curvature)
        watch = (observe.distance_to(task.test["optimum"]),)
        x0 = replicate(task.init(jax.random.key(0)), n)
        errors.append(
            [
                simulate(jax.random.key(config.seed), protocol, timeline, x0, observers=watch, record_every=10)[
                    "squared_error"
                ].values
                for protocol in protocols(task, config.quadratic_step).values()
            ]
        )
        bias = dpsgd_bias(matrix.toarray(), curvature[:, 0], spread * shape, step_size=config.quadratic_step)
        biases.append(bias.squared_error)
    length = np.shape(errors)[-1]
    return xr.Dataset(
        {
            "quadratic_error": (("spread", "protocol", "quadratic_record"), np.asarray(errors)),
            "predicted_bias": ("spread", biases),
        },
        {"spread": list(SPREADS), "quadratic_round": ("quadratic_record", 10 * np.arange(length))},
    )


def run(config: Config) -> xr.Dataset:
    """Run both parts, and return one result."""
    data = real_data.load(config.dataset)
    joined = xr.merge([on_real_data(config, data), on_quadratics(config)])
    return joined.assign_attrs(data=data.source, num_nodes=config.num_nodes)


def gained(dataset: xr.Dataset, partition: str, protocol: str) -> np.ndarray:
    """Return the lead over D-PSGD in points of final accuracy, seed by seed; both share start and batches."""
    at = dataset.test_accuracy.sel(partition=partition, statistic="mean").isel(record=-1)
    return 100 * (at.sel(protocol=protocol) - at.sel(protocol="D-PSGD")).values.astype(np.float64)


def is_ahead(dataset: xr.Dataset, partition: str, protocol: str) -> Verdict:
    """Judge whether removing the bias shows in the accuracy on real data."""
    return decide(gained(dataset, partition, protocol), above(0.0))


def table(dataset: xr.Dataset) -> list[Row]:
    """Report the final accuracy under each skew; compare the bias on quadratics with its exact value."""
    rows = []
    for partition in dataset.partition.values:
        for protocol in dataset.protocol.values:
            at = dataset.sel(partition=partition, protocol=protocol, statistic="mean")
            words, last = "mean over nodes", at.test_accuracy.isel(record=-1).values
            if protocol != "D-PSGD":
                judged = trivial.gated(is_ahead(dataset, partition, protocol), last, trivial.stored(dataset), True)
                words += f"; points ahead of D-PSGD: {judged}"
            rows.append(over_seeds(f"accuracy, {protocol}, {partition}", last, np.nan, words))
    rows += trivial.rows("accuracy, ", trivial.stored(dataset), True)
    for spread in dataset.spread.values:
        for protocol in dataset.protocol.values:
            at = dataset.sel(spread=spread, protocol=protocol)
            final = float(at.quadratic_error.isel(quadratic_record=-1))
            known = float(at.predicted_bias) if protocol == "D-PSGD" else 0.0
            source = "exact fixed point" if protocol == "D-PSGD" else "no bias; float32 rounding"
            rows.append(Row(f"squared error, {protocol}, spread {spread:g}", final, np.nan, known, source))
    return rows
