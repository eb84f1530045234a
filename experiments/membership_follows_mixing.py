"""Does a loss attack find a node's training samples more easily where the network mixes slowly?

D-PSGD on small shards of digits, with a network large enough to learn them by heart. Attacked is the model that a node
sends, after its step, and the one that it keeps, after mixing; the score is the area under the ROC curve (AUC) of the
loss attack on the node's own shard, ½ for guessing, beside the spectral gap of the mixing matrix. The sent model is
that of ``combine_then_adapt``, whose events end with the step; the kept one is that of ``adapt_then_combine``.

The same with private gradients: all samples of a shard are in every step, each clipped, with noise. Then no attack on
one node's samples has an expected AUC above Φ(μ/√2), μ = √T/z, and neither has their mean over nodes. An attack that
beat it would be a bug in one of the two. Every seed draws anew which digits are trained on and which are held out, so
that the interval over seeds contains the error of sampling, however much the nodes of one seed have in common.

Claims and bands were stated before the runs, but for the bound. After a quick run it came to be compared with means
over nodes, because the 4 standard errors that were allowed of a single node reach beyond an area of 1. After more runs
these 4 standard errors, which took nodes for independent although they share held-out samples and have nearly equal
models, gave way to the interval over seeds; all seeds had the same shards before. An attack that fails is this attack
failing.
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


def task_of(config: Config, seed: int) -> Task:
    """Give every node a small shard, drawn for this seed from half of the digits; the other half is held out."""
    data = tasks.digits(test_share=0.5, seed=seed)
    shards = tasks.iid(config.num_nodes * config.shard, config.num_nodes, seed=seed)
    model = tasks.mlp(64, (config.hidden,), data.num_classes)
    return tasks.classification(data, shards, model, batch_size=config.shard)


def private_of(config: Config, task: Task) -> Task:
    """Return the task with clipped and noisy gradients."""
    return privacy.sample_dp(task, clip=config.clip, noise=config.noise, batch_size=config.shard)


def measure(config: Config, task: Task, plain: Task, matrix: Any, order: Any, seed: int) -> dict[str, np.ndarray]:
    """Train once; attack every node's model at the end."""
    protocol = dpsgd(task, Partial(optax.sgd, config.learning_rate), order=order)
    watch = [observe.membership(plain, seed=seed), observe.node_metrics(plain)]
    key = jax.random.key(seed)
    start = replicate(plain.init(key), config.num_nodes)
    plan = rounds(matrix, config.num_rounds)
    last = simulate(key, protocol, plan, start, observers=watch, record_every=config.num_rounds).dataset.isel(record=-1)
    return {
        "auc": last.membership_auc_by_node.values,
        "accuracy": last.test_accuracy.sel(statistic="mean").values,
    }


def run(config: Config) -> xr.Dataset:
    """Attack all graphs and both models without noise, and sent models with noise."""
    drawn = {seed: task_of(config, seed) for seed in range(config.seed, config.seed + config.num_seeds)}
    private = {seed: private_of(config, task) for seed, task in drawn.items()}
    promise = privacy.guarantee(private[config.seed], config.num_rounds, 1e-5)
    chosen = {name: mixing.metropolis(graph) for name, graph in graphs(config.num_nodes).items()}
    found = [
        [[measure(config, task, task, W, order, seed) for seed, task in drawn.items()] for order in ORDERS.values()]
        for W in chosen.values()
    ]
    noisy = [
        [measure(config, private[seed], task, W, ORDERS[SENT], seed) for seed, task in drawn.items()]
        for W in chosen.values()
    ]

    def stacked(quantity: str) -> np.ndarray:
        return np.array([[[cell[quantity] for cell in cells] for cells in row] for row in found])

    def noisily(quantity: str) -> np.ndarray:
        return np.array([[cell[quantity] for cell in cells] for cells in noisy])

    return xr.Dataset(
        {
            "auc": (("graph", "model", "seed", "node"), stacked("auc")),
            "accuracy": (("graph", "model", "seed"), stacked("accuracy")),
            "private_auc": (("graph", "seed", "node"), noisily("auc")),
            "private_accuracy": (("graph", "seed"), noisily("accuracy")),
            "gap": ("graph", [spectral_gap(W.toarray()) for W in chosen.values()]),
        },
        {"graph": list(chosen), "model": list(ORDERS)},
        {
            "num_nodes": config.num_nodes,
            "num_rounds": config.num_rounds,
            "shard": config.shard,
            "data": "scikit-learn digits, of which each seed holds out another half",
            "mu": promise.mu,
            "bound": float(privacy.auc(promise.mu)),
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
    bound = dataset.attrs["bound"]
    for name in dataset.graph.values:
        at = dataset.private_auc.sel(graph=name)
        mean = at.mean("node").values
        words = f"Φ(μ/√2): bound; {decide(mean, Band(0, bound))}"
        rows.append(over_seeds(f"AUC with noise, mean of nodes, {name}", mean, bound, words))
        rows.append(over_seeds(f"AUC with noise, worst node, {name}", at.max("node").values, source="measured"))
    for name, values in (("without", dataset.accuracy.sel(model=KEPT)), ("with", dataset.private_accuracy)):
        rows.append(over_seeds(f"accuracy {name} noise, all graphs", values.mean("graph").values, source="measured"))
    return rows
