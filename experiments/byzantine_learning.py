"""Which robust rules learn from real data beside liars? Settings of two papers, one with its numbers.

**One label each** (IOS, Wu, Chen and Ling, arXiv 2206.04568, and its code): softmax regression on MNIST; ten honest
nodes with one label each, and two liars, on an Erdős–Rényi graph with edges of probability 0.7; batches of 32, step
0.9/√(t + 1), weight decay 0.01, Metropolis weights. Every rule is told b = 2; without an attack the liars are cut off,
and b is 0. Not theirs: steps (50,000 there), the graph (theirs has another generator), equal start models, and b, which
there is the number of liars around each node. ALIE has z = 1.5, and the sample-duplicating lie is the model of node 0.
Where ``dataset`` is not MNIST, their numbers are of another data set.

**Two worlds** (Gaucher, Dieuleveut, Hendrikx, arXiv 2410.10418, and its code): two cliques of 13 honest nodes, each
tied to 8 of the other; b liars tied to everybody; Dirichlet(1) shards, batches of 64, SGD with momentum 0.9 and step
0.1/(1 + ⌊t/40⌋), as recalled. Their results are plots, without numbers to compare. Not theirs: half of their 200 steps,
softmax regression on images of half the side instead of a small convolutional network, and spectral lies of two fixed
strengths, of which the worst counts, instead of a search; all for their cost. The line of theory is for averaging: a
rule with 2ρb < μ₂ contracts.

Accuracy is the mean over honest nodes. The bands were stated before any run in full: a number of the paper is
reproduced within ``NEAR``; under isolation and Gaussian lies IOS and FABA lose less than ``NEAR``, and under isolation
IOS is 0.2 above means, medians and Krum; in two worlds NNA breaks no later than CS+. Changed after a first quick run on
digits: without an attack the liars are cut off, as in the paper; before, they averaged plainly, and Krum learned from
them. GTS and the weakest spectral lies were left out then, for their cost.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib import real_data, trivial
from experiments.lib.liars import chosen_attack, chosen_rule, honesty, with_liars
from experiments.lib.report import Row, over_seeds
from gossipjax import Task, Timeline, dpsgd, mixing, observe, replicate, robust, sharing, simulate, tasks, topology
from gossipjax.robust import Attack, Rule
from gossipjax.timeline import rounds
from gossipjax.topology import Topology
from theory import robust as theory
from theory.check.policy import Band, above, decide

CLAIM = "Beside two isolating liars of twelve, IOS and FABA learn as plain averaging does alone; medians do not"
HONEST, LIARS = 10, 2
MEAN, MEDIAN, KRUM, TRIMMED = "plain mean", "median", "Krum", "trimmed mean"
SCC, FABA, IOS = "clipped, τ = 0.3", "FABA", "IOS"
NNA, CS_PLUS, HE = "NNA", "CS+", "clipped (He)"
NONE, GAUSS, FLIP, ISOLATION = "none", "Gaussian", "sign flip", "isolation"
DUPLICATE, ALIE, DISSENSUS, EMPIRES, SPECTRAL = "sample-duplicating", "ALIE", "dissensus, ε = 2", "FoE", "spectral"
STRENGTHS = (1.0, 10.0)
"""Lengths of spectral lies."""
PAPER = {
    MEAN: (91.70, 13.63, 20.89, 10.00, 91.53, 91.21),
    MEDIAN: (75.49, 77.92, 66.38, 41.56, 78.74, 82.46),
    KRUM: (19.71, 19.76, 19.16, 19.76, 29.20, 63.79),
    TRIMMED: (91.61, 90.40, 70.97, 54.47, 87.54, 82.56),
    SCC: (91.70, 91.57, 20.89, 83.80, 91.52, 91.21),
    FABA: (91.61, 91.54, 91.55, 91.53, 88.91, 86.87),
    IOS: (91.70, 91.60, 91.61, 91.55, 88.22, 86.61),
}
"""Accuracies in % of the table on the Erdős–Rényi graph with one label a node, in the order of :func:`lies`."""
NEAR = 0.05
"""Difference of accuracies that counts as reproduced."""
BROKEN = 0.1
"""Accuracy lost against the plain mean without lies from which on learning counts as broken."""


class Config(NamedTuple):
    """Settings; those of two worlds have names of their own."""

    dataset: str = "mnist"
    num_rounds: int = 500
    clique: int = 13
    ties: int = 8
    worlds_liars: tuple[int, ...] = (2, 4, 6, 8)
    """Of every honest node; the last is the number of rows of liars."""
    worlds_rounds: int = 100
    pool: int = 2
    """Side of the squares of pixels of which two worlds see the mean."""
    num_seeds: int = 5
    seed: int = 0

    @property
    def num_nodes(self) -> int:
        """Number of nodes with one label each, and liars."""
        return HONEST + LIARS


QUICK = Config("digits", 300, clique=6, ties=4, worlds_liars=(1, 4), worlds_rounds=60, pool=1, num_seeds=3)


# One label each


def graph_of(seed: int) -> Topology:
    """Return the first random graph on which the honest nodes are connected and Krum has enough neighbours."""
    for number in range(seed, seed + 1000):
        graph = topology.erdos_renyi(HONEST + LIARS, 0.7, seed=number)
        try:
            sharing.robust(robust.krum(LIARS), range(HONEST, HONEST + LIARS), robust.echo(), topology=graph)
        except ValueError:
            continue
        return graph
    raise ValueError(f"seed={seed}: no graph among 1000 has enough neighbours at every node; take another seed")


def weights_of(config: Config, there: int) -> np.ndarray:
    """Return the Metropolis weights with the liars, or of the honest nodes alone."""
    A = graph_of(config.seed).adjacency().toarray()
    if there:
        return mixing.metropolis(topology.from_adjacency(A)).toarray()
    W = np.eye(len(A))
    W[:HONEST, :HONEST] = mixing.metropolis(topology.from_adjacency(A[:HONEST, :HONEST])).toarray()
    return W


def rules(b: int = LIARS) -> dict[str, Rule]:
    """Return the rules of the table that are fast enough to compare."""
    return {
        MEAN: robust.gts(0.0),
        MEDIAN: robust.coordinate_median(b),
        KRUM: robust.krum(b),
        TRIMMED: robust.trimmed_mean(b),
        SCC: robust.clipped_gossip(0.3),
        FABA: robust.faba(b),
        IOS: robust.ios(b),
    }


def lies() -> dict[str, Attack]:
    """Return the attacks of the table, in its order."""
    return {
        NONE: honesty(),
        GAUSS: robust.gaussian(),
        FLIP: robust.sign_flip(),
        ISOLATION: robust.isolation(),
        DUPLICATE: robust.echo(0),
        ALIE: robust.alie(),
    }


def task_of(config: Config) -> tuple[Task, tasks.Dataset]:
    """Give each honest node all samples of one label; grey levels go from −1 to 1."""
    data = real_data.load(config.dataset)
    middle = 127.5 if config.dataset != "digits" else 8.0  # half of the largest grey level
    data = dataclasses.replace(data, mean=(middle,), std=(middle,))
    order = np.argsort(data.train.labels, kind="stable")
    sizes = np.bincount(data.train.labels, minlength=HONEST)
    shards = tasks.Partition(order, np.concatenate([[0], np.cumsum(sizes)]))
    model = tasks.softmax_regression(real_data.inputs_of(data), data.num_classes)
    return tasks.classification(data, with_liars(shards, LIARS), model, batch_size=32), data


def _step_size(count: Any) -> Any:
    return 0.9 / jnp.sqrt(count.astype(jnp.float32) + 1)


def decayed() -> optax.GradientTransformation:
    """Build SGD with weight decay 0.01 and the step 0.9/√(t + 1)."""
    return optax.chain(optax.add_decayed_weights(0.01), optax.sgd(_step_size))


# Two worlds


def ties_of(config: Config, b: int) -> np.ndarray:
    """Return the ties of honest nodes, and of the first b of all liars to everybody honest."""
    h, rows = 2 * config.clique, 2 * config.clique + config.worlds_liars[-1]
    A = np.zeros((rows, rows))
    A[:h, :h] = theory.two_worlds(config.clique, config.ties)
    A[:h, h : h + b] = A[h : h + b, :h] = 1
    return A


def worlds(config: Config, b: int) -> np.ndarray:
    """Return the mixing matrix: all ties have one weight."""
    W = weight_of(config) * ties_of(config, b)
    W[np.diag_indices(len(W))] = 1 - W.sum(axis=1)
    return W


def weight_of(config: Config) -> float:
    """Return the weight of every tie."""
    return 1 / (config.clique + config.ties + config.worlds_liars[-1])


def worlds_rules(config: Config, b: int) -> dict[str, Rule]:
    """Return the rules, each told b."""
    beta = b * weight_of(config)
    return {
        MEAN: robust.gts(0.0),
        NNA: robust.nna(b),
        CS_PLUS: robust.cs_plus(beta),
        HE: robust.clipped_gossip(beta=beta),
    }


def worlds_lies(config: Config) -> dict[str, Attack]:
    """Return the attacks; spectral lies of each strength have a name of their own."""
    graph = topology.from_adjacency(ties_of(config, config.worlds_liars[-1]))
    known = {ALIE: robust.alie(), DISSENSUS: robust.dissensus(2.0), EMPIRES: robust.ipm()}
    return known | {f"{SPECTRAL}, {s:g}": robust.spectral(graph, s) for s in STRENGTHS}


def worlds_task(config: Config) -> Task:
    """Split small images by a Dirichlet law over the honest nodes."""
    data = real_data.load(config.dataset)
    train, test = (_pooled(part, config.pool) for part in (data.train, data.test))
    data = dataclasses.replace(data, train=train, test=test)
    h = 2 * config.clique
    shards = with_liars(tasks.dirichlet(train.labels, h, alpha=1.0, seed=config.seed), config.worlds_liars[-1])
    model = tasks.softmax_regression(real_data.inputs_of(data), data.num_classes)
    return tasks.classification(data, shards, model, batch_size=64)


def _pooled(part: tasks.Examples, side: int) -> tasks.Examples:
    """Average squares of pixels, back to whole grey levels."""
    if side == 1:
        return part
    count, height, width, *rest = part.inputs.shape
    squares = part.inputs.reshape(count, height // side, side, width // side, side, *rest)
    return part._replace(inputs=np.rint(squares.mean(axis=(2, 4))).astype(part.inputs.dtype))


def _worlds_step_size(count: Any) -> Any:
    return 0.1 / (1 + (count // 40).astype(jnp.float32))


def with_momentum() -> optax.GradientTransformation:
    """Build SGD on moving averages of gradients, with a step that falls every 40 steps."""
    return optax.chain(optax.ema(0.9, debias=False), optax.sgd(_worlds_step_size))


# Runs


def accuracy(
    config: Config, task: Task, optimizer: Partial, said: sharing.Sharing, plan: Timeline, liars: int
) -> np.ndarray:
    """Train over all seeds; return the mean test accuracy of the honest nodes, each seed's."""
    honest, length = task.num_nodes - liars, len(plan)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    start = Partial(_start, task)
    watch = [observe.node_metrics(task, nodes=range(honest), samples=min(2000, len(task.test["labels"])))]
    run = simulate(keys, dpsgd(task, optimizer, sharing=said), plan, start, observers=watch, record_every=length)
    return run.dataset.test_accuracy.sel(statistic="mean").isel(record=-1).values


def _start(task: Task, key: jax.Array) -> Any:
    return replicate(task.init(key), task.num_nodes)


def labels_part(config: Config) -> xr.DataArray:
    """Run every rule beside every attack where each node has one label."""
    task, _ = task_of(config)
    liars = np.arange(HONEST, HONEST + LIARS)

    def cell(rule: str, lie: str) -> np.ndarray:
        there = 0 if lie == NONE else LIARS
        attack = chosen_attack(lies(), lie, liars, HONEST + LIARS)
        said = sharing.robust(chosen_rule(rules(there), rule), liars.tolist(), attack)
        plan = rounds(weights_of(config, there), config.num_rounds)
        return accuracy(config, task, Partial(decayed), said, plan, LIARS)

    found = [[cell(rule, lie) for lie in lies()] for rule in rules()]
    axes = {"rule": list(rules()), "attack": list(lies())}
    return xr.DataArray(np.array(found), axes, dims=("rule", "attack", "seed"))


def worlds_part(config: Config) -> xr.Dataset:
    """Run every rule beside every attack and number of liars in two worlds, and plain averaging without liars."""
    task, most = worlds_task(config), config.worlds_liars[-1]
    liars, told = np.arange(2 * config.clique, 2 * config.clique + most), worlds_lies(config)

    def cell(rule: str, lie: str, b: int) -> np.ndarray:
        attack = chosen_attack(told, lie, liars, task.num_nodes)
        said = sharing.robust(chosen_rule(worlds_rules(config, b), rule), liars.tolist(), attack)
        plan = rounds(worlds(config, b), config.worlds_rounds)
        return accuracy(config, task, Partial(with_momentum), said, plan, most)

    names = list(worlds_rules(config, 1))
    found = [[[cell(rule, lie, b) for b in config.worlds_liars] for lie in told] for rule in names]
    return xr.Dataset(
        {
            "worlds_accuracy": (("worlds_rule", "worlds_attack", "liars", "seed"), np.array(found)),
            "worlds_alone": ("seed", cell(MEAN, ALIE, 0)),
        },
        {"worlds_rule": names, "worlds_attack": list(told), "liars": list(config.worlds_liars)},
    )


def check_liars(config: Config) -> None:
    """Refuse numbers of liars of which none has the row of the table at the largest b below μ₂/2.

    Raises:
        ValueError: none is below.
    """
    half = spectrum_of(config) / 2
    if min(config.worlds_liars) >= half:
        raise ValueError(f"worlds_liars={config.worlds_liars}: none is below μ₂/2 = {half:g}; add a smaller number")


def spectrum_of(config: Config) -> float:
    """Return μ₂ of the Laplacian of the honest nodes of two worlds."""
    A = ties_of(config, 0)[: 2 * config.clique, : 2 * config.clique]
    mu_2, _ = theory.spectrum(np.diag(A.sum(axis=1)) - A)
    return mu_2


def run(config: Config) -> xr.Dataset:
    """Run both settings."""
    check_liars(config)
    return joined(config, labels_part(config), worlds_part(config))


def joined(config: Config, labels: xr.DataArray, both_worlds: xr.Dataset) -> xr.Dataset:
    """Put both settings into one dataset, with the numbers of the paper."""
    task, data = task_of(config)
    paper = ("rule", "attack"), np.array([PAPER[rule] for rule in labels.rule.values]) / 100
    return both_worlds.assign(accuracy=labels, paper=paper).assign_attrs(
        data=data.source,
        same_data=int(config.dataset == "mnist"),
        honest=HONEST,
        lying=LIARS,
        num_rounds=config.num_rounds,
        worlds_nodes=2 * config.clique,
        worlds_rounds=config.worlds_rounds,
        ties=config.ties,
        mu_2=spectrum_of(config),
        trivial=trivial.noted(task, "accuracy"),
        floor=trivial.floor_of(trivial.predictors(task, "accuracy"), True),
    )


# Tables


def table(dataset: xr.Dataset) -> list[Row]:
    """Accuracies beside those of the paper, the order of rules, and the numbers of liars that break each rule."""
    return [
        *trivial.rows("accuracy, ", trivial.stored(dataset), True),
        *_beside_the_paper(dataset),
        *_orders(dataset),
        *_breaking(dataset),
    ]


def without_lies(dataset: xr.Dataset) -> np.ndarray:
    """Return the accuracy of plain averaging without lies, by seed."""
    return dataset.accuracy.sel(rule=MEAN, attack=NONE).values


def _gated(dataset: xr.Dataset, words: Any) -> str:
    """Verdicts count only if averaging without lies has learned."""
    return trivial.gated(words, without_lies(dataset), trivial.stored(dataset), True)


def _beside_the_paper(dataset: xr.Dataset) -> list[Row]:
    rows = []
    for rule in map(str, dataset.rule.values):
        for lie in map(str, dataset.attack.values):
            both = dataset.sel(rule=rule, attack=lie)
            at, theirs = both.accuracy.values, float(both.paper)
            words = "another data set"
            if dataset.attrs["same_data"]:
                words = f"50,000 steps; {_gated(dataset, decide(at, Band(theirs - NEAR, theirs + NEAR)))}"
            rows.append(over_seeds(f"accuracy, one label each, {rule}, {lie}", at, theirs, words))
    return rows


def _orders(dataset: xr.Dataset) -> list[Row]:
    """IOS stays near averaging without lies where means, medians and Krum fail."""
    rows, best = [], without_lies(dataset)
    for lie in (GAUSS, ISOLATION):
        for rule in (IOS, FABA):
            lost = best - dataset.accuracy.sel(rule=rule, attack=lie).values
            words = _gated(dataset, decide(lost, Band(high=NEAR)))
            rows.append(over_seeds(f"accuracy lost, one label each, {rule}, {lie}", lost, source=words))
    for rule in (MEAN, MEDIAN, TRIMMED, KRUM):
        more = (dataset.accuracy.sel(rule=IOS) - dataset.accuracy.sel(rule=rule)).sel(attack=ISOLATION).values
        words = _gated(dataset, decide(more, above(0.2)))
        rows.append(over_seeds(f"accuracy of {IOS} − {rule}, one label each, {ISOLATION}", more, source=words))
    return rows


def breakdown(dataset: xr.Dataset, rule: str) -> np.ndarray:
    """Return the least number of liars that breaks a rule by any attack, by seed; one more than tried if none does."""
    lost = dataset.worlds_alone - dataset.worlds_accuracy.sel(worlds_rule=rule).min("worlds_attack")
    broken = (lost.transpose("seed", "liars").values > BROKEN) | ~np.isfinite(lost.transpose("seed", "liars").values)
    numbers = dataset.liars.values
    return np.where(broken.any(axis=1), numbers[broken.argmax(axis=1)], numbers[-1] + 1).astype(float)


def _breaking(dataset: xr.Dataset) -> list[Row]:
    most = int(dataset.liars.values[-1]) + 1
    rows = []
    for rule in map(str, dataset.worlds_rule.values):
        words = f"{most}: by none that were tried"
        rows.append(over_seeds(f"liars that break {rule}, two worlds", breakdown(dataset, rule), source=words))
    more = breakdown(dataset, CS_PLUS) - breakdown(dataset, NNA)
    words = _gated(dataset, decide(more, Band(low=0.0)))
    rows.append(over_seeds(f"liars that {CS_PLUS} stands − {NNA}, two worlds", more, source=words))
    last = dataset.sel(liars=dataset.liars.values[dataset.liars.values * 2 < dataset.mu_2].max())
    for rule in map(str, dataset.worlds_rule.values):
        at = last.worlds_accuracy.sel(worlds_rule=rule).min("worlds_attack").values
        name = f"accuracy, two worlds, {rule}, worst lies, b = {int(last.liars)}"
        rows.append(over_seeds(name, at, source="measured; their plots have no numbers"))
    return rows
