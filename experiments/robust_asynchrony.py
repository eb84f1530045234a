"""What do robust rules keep of their accuracy where inboxes hold old models?

SWIFT's nodes never wait: at each tick of its own clock a node trains, sends its model to all neighbours, and combines
its own with the newest that has arrived from each. With flight times these are old, and rules of rounds are applied to
them as they are: they call models far that are old, and near that are lies. Every rule is told the number b of liars,
all of whom may be neighbours of one node, and their weight. Lies are made where messages arrive, from the models that
the victim holds then, which is more than a liar knows who must send them before.

The age of an entry of an inbox is the number of steps that its sender has taken since; on Poisson clocks its mean is
the flight time, in mean ticks. No theorem covers what rules do with it.
Bands were stated before any run: beside the most liars each rule keeps more accuracy than plain averaging, at every
age, under lies that break averaging (sign flip and dissensus); the rest is measured. Every seed draws another plan,
other batches and other lies; the graph and the shards are the same. Nodes whose inbox does not hold enough models for
their rule yet keep their own.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib import trivial
from experiments.lib.liars import chosen_attack, chosen_rule
from experiments.lib.report import Row, over_seeds
from gossipjax import Task, Timeline, mixing, observe, replicate, robust, sharing, simulate, swift, tasks, topology
from gossipjax.robust import Attack, Rule
from gossipjax.timeline import clocks
from gossipjax.timeline import swift as swift_plan
from theory.check.policy import above, decide

CLAIM = "Robust rules on inboxes of old models keep more accuracy beside liars than plain averaging, at every age"
MEAN, ALIE, FLIP, DISSENSUS = "plain mean", "ALIE", "sign flip", "dissensus, ε = 2"
BREAKING = (FLIP, DISSENSUS)
"""Lies that the claim is about; ALIE hides among honest models and does little to averages."""


class Config(NamedTuple):
    """Settings; times are in mean ticks."""

    num_nodes: int = 16
    degree: int = 8
    latencies: tuple[float, ...] = (0.0, 1.0, 3.0, 9.0)
    liars: tuple[int, ...] = (1, 2, 3)
    ticks: int = 60
    """Of each node, on average."""
    learning_rate: float = 0.2
    batch_size: int = 16
    alpha: float = 1.0
    """Of the Dirichlet law by which labels are spread over nodes."""
    num_seeds: int = 5
    seed: int = 0


QUICK = Config(num_nodes=12, degree=6, latencies=(0.0, 3.0), liars=(1, 2), ticks=25, num_seeds=3)


def rules(config: Config, b: int) -> dict[str, Rule]:
    """Return the rules, each told b, or the weight of b liars."""
    beta = b / (config.degree + 1)
    return {
        MEAN: robust.gts(0.0),
        "trimmed mean": robust.trimmed_mean(b),
        "NNA": robust.nna(b),
        "IOS": robust.ios(b),
        "GTS": robust.gts(beta),
        "CS+": robust.cs_plus(beta),
        "clipped (He)": robust.clipped_gossip(beta=beta),
    }


def lies() -> dict[str, Attack]:
    """Return the attacks."""
    return {ALIE: robust.alie(), FLIP: robust.sign_flip(), DISSENSUS: robust.dissensus(2.0)}


def graph_of(config: Config) -> topology.Topology:
    """Return the graph, the same for all seeds."""
    return topology.random_regular(config.num_nodes, config.degree, seed=config.seed, tries=100)


def task_of(config: Config) -> tuple[Task, str]:
    """Spread digits over the nodes."""
    data = tasks.digits()
    shards = tasks.dirichlet(data.train.labels, config.num_nodes, alpha=config.alpha, seed=config.seed)
    model = tasks.softmax_regression(64, data.num_classes)
    return tasks.classification(data, shards, model, batch_size=config.batch_size), data.source


# Plans


def plan_of(config: Config, latency: float, seed: int) -> Timeline:
    """Plan the ticks of one seed, and cut them to the mean number of ticks."""
    graph, number = graph_of(config), config.num_nodes * config.ticks
    flight = latency if latency > 0 else None
    plan = swift_plan(
        graph,
        1.3 * config.ticks + 10.0,
        compute=clocks.poisson(1.0),
        latency=flight,
        weights=mixing.metropolis(graph),
        seed=seed,
    )
    return plan[:number]


def with_room(plan: Timeline, slots: int) -> Timeline:
    """Give a plan more rows for messages than it needs, so that plans of all seeds run one program."""
    return dataclasses.replace(plan, properties=dataclasses.replace(plan.properties, num_slots=slots))


def mean_age(plan: Timeline, num_nodes: int) -> float:
    """Return the mean age of what is read, in steps of the sender, over the second half of a plan."""
    xs = plan.xs
    nodes, members, weights = xs["nodes"][:, 0], xs["members"][:, 0], xs["weights"][:, 0]
    rows = xs["targets"][:, 1, 0]
    held: dict[int, tuple[int, int]] = {}
    steps, ages = np.zeros(num_nodes, int), []
    for tick, node in enumerate(nodes):
        if 2 * tick >= len(nodes):
            read = members[tick, 1:][weights[tick, 1:] > 0]
            ages += [steps[held[row][0]] - held[row][1] for row in read.tolist()]
        steps[node] += 1
        held[int(rows[tick])] = int(node), int(steps[node])
    return float(np.mean(ages))


# Runs


def accuracy(config: Config, task: Task, plan: Timeline, rule: str, lie: str | None, b: int, seed: int) -> float:
    """Train once; return the mean test accuracy of the honest nodes at the end."""
    liars = np.arange(b)
    graph = graph_of(config)
    attack = None if lie is None else chosen_attack(lies(), lie, liars, config.num_nodes)
    said = sharing.robust(chosen_rule(rules(config, b), rule), liars.tolist(), attack, topology=graph)
    protocol = swift(task, Partial(optax.sgd, config.learning_rate), sharing=said)
    key = jax.random.key(seed)
    watch = [observe.node_metrics(task, nodes=range(b, config.num_nodes))]
    start = replicate(task.init(key), config.num_nodes)
    words: Any = {"observers": watch, "record_every": len(plan), "packing": "sequential"}
    run = simulate(key, protocol, plan, start, **words)
    return float(run.dataset.test_accuracy.sel(statistic="mean").isel(record=-1))


def run(config: Config) -> xr.Dataset:
    """Run all rules, attacks, numbers of liars, latencies and seeds; plain averaging also without liars."""
    task, source = task_of(config)
    seeds = range(config.seed, config.seed + config.num_seeds)
    plans = [[plan_of(config, latency, seed) for seed in seeds] for latency in config.latencies]
    slots = max(plan.properties.num_slots for row in plans for plan in row)
    ages = [[mean_age(plan, config.num_nodes) for plan in row] for row in plans]
    plans = [[with_room(plan, slots) for plan in row] for row in plans]
    names, told = list(rules(config, 1)), list(lies())

    def over_plans(rule: str, lie: str | None, b: int) -> list[list[float]]:
        pairs = [zip(row, seeds, strict=True) for row in plans]
        return [[accuracy(config, task, plan, rule, lie, b, seed) for plan, seed in row] for row in pairs]

    found = [[[over_plans(rule, lie, b) for b in config.liars] for lie in told] for rule in names]
    return xr.Dataset(
        {
            "accuracy": (("rule", "attack", "liars", "latency", "seed"), np.array(found)),
            "alone": (("latency", "seed"), np.array(over_plans(MEAN, None, 0))),
            "age": (("latency", "seed"), np.array(ages)),
        },
        {"rule": names, "attack": told, "liars": list(config.liars), "latency": list(config.latencies)},
        {
            "num_nodes": config.num_nodes,
            "degree": config.degree,
            "ticks": config.ticks,
            "data": source,
            "trivial": trivial.noted(task, "accuracy"),
            "floor": trivial.floor_of(trivial.predictors(task, "accuracy"), True),
        },
    )


def table(dataset: xr.Dataset) -> list[Row]:
    """Ages, plain averaging without liars, and what each rule keeps beside the most liars."""
    known = trivial.stored(dataset)
    rows = trivial.rows("accuracy, ", known, True)
    most = int(dataset.liars.values[-1])
    for latency in dataset.latency.values:
        at = dataset.sel(latency=latency, liars=most)
        words = "expected: the sender's ticks during a flight are Poisson"
        rows.append(over_seeds(f"age in inboxes, latency {latency:g}", at.age.values, float(latency), words))
        words = f"measured; {trivial.learned(at.alone.values, known, True)}: has learned"
        rows.append(over_seeds(f"accuracy, {MEAN}, no liars, latency {latency:g}", at.alone.values, source=words))
        for lie in map(str, dataset.attack.values):
            rows += _beside_averaging(dataset, at.sel(attack=lie), f"{lie}, b = {most}, latency {latency:g}", lie)
    return rows + _cost_of_age(dataset, most)


def _beside_averaging(dataset: xr.Dataset, at: xr.Dataset, label: str, lie: str) -> list[Row]:
    plain = at.accuracy.sel(rule=MEAN).values
    rows = [over_seeds(f"accuracy, {MEAN}, {label}", plain, source="measured")]
    for rule in map(str, dataset.rule.values[1:]):
        more = at.accuracy.sel(rule=rule).values - plain
        words = "measured"
        if lie in BREAKING:
            words = trivial.gated(decide(more, above(0.0)), at.alone.values, trivial.stored(dataset), True)
        rows.append(over_seeds(f"accuracy, {rule} − {MEAN}, {label}", more, source=words))
    return rows


def _cost_of_age(dataset: xr.Dataset, most: int) -> list[Row]:
    """Measure what the oldest inboxes cost each rule beside the freshest, worst attack."""
    rows = []
    for rule in map(str, dataset.rule.values):
        worst = dataset.accuracy.sel(rule=rule, liars=most).min("attack")
        lost = (worst.isel(latency=0) - worst.isel(latency=-1)).values
        rows.append(over_seeds(f"accuracy lost with age, {rule}, worst lies, b = {most}", lost, source="measured"))
    return rows
