"""Does a loss attack find a node's training samples more easily where the network mixes slowly?

D-PSGD on small shards of digits, with a network large enough to learn them by heart. Attacked is the model that a node
sends, after its step, and the one that it keeps, after mixing; the score is the area under the ROC curve (AUC) of the
loss attack on the node's own shard, ½ for guessing, beside the spectral gap of the mixing matrix. The sent model is
that of ``combine_then_adapt``, whose events end with the step; the kept one is that of ``adapt_then_combine``.

The same with private gradients: all samples of a shard are in every step, each clipped, with noise. Then no attack on
one node's samples has an AUC above Φ(μ/√2), μ = √T/z, and neither has their mean over nodes, up to sampling: by 4
standard errors of such a mean. An attack that beat it would be a bug in one of the two.

Claims and bands were stated before the runs; after a quick one the bound came to be compared with means over nodes,
because 4 standard errors of a single node reach beyond an area of 1. An attack that fails is this attack failing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial
from scipy import stats

from experiments.lib.report import Row, over_seeds
from gossipjax import Task, dpsgd, mixing, observe, privacy, replicate, simulate, tasks, topology
from gossipjax.timeline import rounds
from theory.check.policy import Band, above, decide
from theory.spectral import spectral_gap

CLAIM = "Loss attacks find more where networks mix slowly, more before mixing than after it, and no more than μ allows"
SENT, KEPT = "sent", "after mixing"
ORDERS: dict[str, Any] = {SENT: "combine_then_adapt", KEPT: "adapt_then_combine"}


class Config(NamedTuple):
    """Settings; ``num_nodes`` is a square."""

    num_nodes: int = 16
    shard: int = 40
    hidden: int = 64
    learning_rate: float = 0.5
    num_rounds: int = 100
    clip: float = 1.0
    noise: float = 10.0
    """z of the private runs: standard deviation of the sum's noise, over clip."""
    num_seeds: int = 5
    seed: int = 0


QUICK = Config(num_nodes=9, hidden=16, num_rounds=30, num_seeds=3)


def graphs(n: int) -> dict[str, topology.Topology]:
    """Return the graphs, from the slowest to the fastest."""
    side = round(n**0.5)
    return {
        "path": topology.path(n),
        "ring": topology.ring(n),
        "torus": topology.torus(side, side),
        "complete": topology.complete(n),
    }


def task_of(config: Config) -> tuple[Task, str]:
    """Give every node a small shard of digits at random."""
    count = config.num_nodes * config.shard
    data = tasks.digits()
    shards = tasks.iid(count, config.num_nodes, seed=config.seed)
    model = tasks.mlp(64, (config.hidden,), data.num_classes)
    return tasks.classification(data, shards, model, batch_size=config.shard), data.source


def measure(config: Config, task: Task, plain: Task, matrix: Any, order: Any) -> dict[str, np.ndarray]:
    """Train over all seeds; attack every node's model at the end."""
    protocol = dpsgd(task, Partial(optax.sgd, config.learning_rate), order=order)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    watch = [observe.membership(plain), observe.node_metrics(plain)]
    start = replicate(plain.init(jax.random.key(config.seed)), config.num_nodes)
    plan = rounds(matrix, config.num_rounds)
    run = simulate(keys, protocol, plan, start, observers=watch, record_every=config.num_rounds)
    last = run.dataset.isel(record=-1)
    return {
        "auc": last.membership_auc_by_node.transpose("seed", "node").values,
        "accuracy": last.test_accuracy.sel(statistic="mean").values,
    }


def run(config: Config) -> xr.Dataset:
    """Attack all graphs and both models without noise, and sent models with noise."""
    task, source = task_of(config)
    private = privacy.sample_dp(task, clip=config.clip, noise=config.noise, batch_size=config.shard)
    promise = privacy.guarantee(private, config.num_rounds, 1e-5)
    chosen = {name: mixing.metropolis(graph) for name, graph in graphs(config.num_nodes).items()}
    found = [[measure(config, task, task, W, order) for order in ORDERS.values()] for W in chosen.values()]
    noisy = [measure(config, private, task, W, ORDERS[SENT]) for W in chosen.values()]

    def stacked(quantity: str) -> np.ndarray:
        return np.array([[cell[quantity] for cell in row] for row in found])

    return xr.Dataset(
        {
            "auc": (("graph", "model", "seed", "node"), stacked("auc")),
            "accuracy": (("graph", "model", "seed"), stacked("accuracy")),
            "private_auc": (("graph", "seed", "node"), np.array([cell["auc"] for cell in noisy])),
            "private_accuracy": (("graph", "seed"), np.array([cell["accuracy"] for cell in noisy])),
            "gap": ("graph", [spectral_gap(W.toarray()) for W in chosen.values()]),
        },
        {"graph": list(chosen), "model": list(ORDERS)},
        {
            "num_nodes": config.num_nodes,
            "num_rounds": config.num_rounds,
            "shard": config.shard,
            "data": source,
            "mu": promise.mu,
            "bound": float(privacy.auc(promise.mu)),
            # Of a mean over nodes: of ranks without ties, if members and others have one law.
            "standard_error": float(np.sqrt((2 * config.shard + 1) / (12 * config.shard**2 * config.num_nodes))),
        },
    )


def table(dataset: xr.Dataset) -> list[Row]:
    """AUC by graph, its rank correlation with the gap, sent over kept models, and the bound of private runs."""
    mean = dataset.auc.mean("node")
    rows = [
        over_seeds(
            f"AUC, {model} models, {name}, gap {float(dataset.gap.sel(graph=name)):.3g}", at.values, 0.5, "guessing"
        )
        for model in dataset.model.values
        for name in dataset.graph.values
        for at in [mean.sel(graph=name, model=model)]
    ]
    for model in dataset.model.values:
        ranks = _correlation(dataset.gap.values, mean.sel(model=model).transpose("seed", "graph").values)
        words = str(decide(ranks, Band(-1, -0.5)))
        rows.append(over_seeds(f"rank correlation of AUC and gap, {model} models", ranks, source=words))
        slow = (mean.sel(model=model).isel(graph=0) - mean.sel(model=model).isel(graph=-1)).values
        first, last = dataset.graph.values[[0, -1]]
        words = str(decide(slow, above(0.0)))
        rows.append(over_seeds(f"AUC on {first} − {last}, {model} models", slow, source=words))
    more = (mean.sel(model=SENT) - mean.sel(model=KEPT)).mean("graph").values
    rows.append(over_seeds(f"AUC of {SENT} models − {KEPT}, all graphs", more, source=str(decide(more, above(0.0)))))
    return rows + _private(dataset)


def _correlation(gap: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation of each seed; 0 where all scores are the same."""
    return np.nan_to_num([stats.spearmanr(gap, row).statistic for row in scores])


def _private(dataset: xr.Dataset) -> list[Row]:
    rows = []
    limit = dataset.attrs["bound"] + 4 * dataset.attrs["standard_error"]
    for name in dataset.graph.values:
        at = dataset.private_auc.sel(graph=name)
        mean = at.mean("node").values
        words = f"Φ(μ/√2): bound; with 4 standard errors: {decide(mean, Band(0, limit))}"
        rows.append(over_seeds(f"AUC with noise, mean of nodes, {name}", mean, dataset.attrs["bound"], words))
        rows.append(over_seeds(f"AUC with noise, worst node, {name}", at.max("node").values, source="measured"))
    for name, values in (("without", dataset.accuracy.sel(model=KEPT)), ("with", dataset.private_accuracy)):
        rows.append(over_seeds(f"accuracy {name} noise, all graphs", values.mean("graph").values, source="measured"))
    return rows
