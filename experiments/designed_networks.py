"""Is a network that was searched for given devices faster than the usual ones, on states that the search did not see?

On each draw, twelve of them: new devices and new labels; a search on these devices; then all networks, the searched one
too, are compared on another state of the same devices, whose speeds and bandwidths have changed by some 30 %. The best
usual network is chosen for that state, with hindsight, so it is tuned to it, and the design is not. A claim takes the
rule of :func:`gossipjax.design.judge`: 10 wins of 12, a median ratio of 1.2, an interval above 1. Accuracies that are
never reached count with the seconds of the whole horizon. Control: on identical devices there is nothing to find.

In training, D-PSGD on digits that differ from node to node runs on the design for the quadratic and on the usual
networks, with the seconds of a model of 4 MB. It was not searched for.

Claim and bands were written before the first run. Seen before: a search on one draw of phones, and
``topologies_in_seconds``, by which networks that change from round to round are faster than fixed ones.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

import gossipjax as gj
from experiments.lib.in_seconds import (
    EDGE,
    GOALS,
    PHONES,
    START,
    Load,
    changing_networks,
    devices_of,
    fixed_networks,
    labels_of,
    pace_of,
    round_ends,
    rounds_to,
    seconds_of,
)
from experiments.lib.report import Row, over_seeds
from gossipjax import design, tasks
from theory.check.policy import Band, above, decide

CLAIM = (
    "a network searched for phones or edge devices is faster than every usual fixed graph on states of them that the "
    "search did not see, also in training, and slower than usual networks that change; on identical devices it gains "
    "nothing"
)
KINDS = (PHONES, EDGE)
IDENTICAL = "identical devices"
DESIGNED = "designed"
NOISE = 1.1
"""Largest gain on identical devices that still counts as none."""
RIVALS = FIXED, CHANGING = "the best fixed graph", "the best changing network"
TRAINING = "phones, training"


class Config(NamedTuple):
    """Settings."""

    num_nodes: int = 16
    num_labels: int = 8
    load: Load = Load()
    errors: tuple[float, float] = (0.01, 0.1)
    """Share of the disagreement that is left; mean ‖x − b̄‖² of the quadratic."""
    step: float = 0.05
    horizon: int = 2000
    planned: int = 16
    num_steps: int = 160
    """Of a search."""
    spread: float = 0.3
    """Of the logarithms of speeds and bandwidths, from the state of the search to that of the comparison."""
    alpha: float = 0.1
    """Of the digits at the nodes."""
    learning_rate: float = 0.1
    accuracy: float = 0.85
    learning_rounds: int = 150
    num_seeds: int = 12
    seed: int = 100


QUICK = Config(num_steps=30, learning_rounds=40, num_seeds=3)


def goals(labels: np.ndarray, config: Config) -> dict[str, design.Target]:
    """Return the targets of the searches."""
    consensus, quadratic = config.errors
    return {
        GOALS[0]: design.consensus(consensus, horizon=config.horizon),
        GOALS[1]: design.quadratic(labels, step=config.step, start=START, error=quadratic, horizon=config.horizon),
    }


def search(devices: gj.devices.Devices, target: design.Target, config: Config, seed: int) -> design.Design:
    """Search for a network."""
    options = {"num_steps": config.num_steps, "restarts": 1, "num_rounds": config.planned, **config.load._asdict()}
    return design.network(devices, target, seed=seed, **options)


def learned_rounds(matrices: list[Any], config: Config, seed: int) -> float:
    """Return the rounds of D-PSGD until the mean accuracy over nodes is the stated one; infinite if it never is."""
    data, n = tasks.digits(), config.num_nodes
    shards = tasks.dirichlet(data.train.labels, n, alpha=config.alpha, seed=seed)
    model = tasks.softmax_regression(64, data.num_classes)
    task = tasks.classification(data, shards, model, batch_size=config.load.time_batch)
    protocol = gj.dpsgd(task, Partial(optax.sgd, config.learning_rate), local_steps=config.load.local_steps)
    weights = matrices if len(matrices) > 1 else matrices[0]
    plan = gj.timeline.rounds(weights, config.learning_rounds, form="dense")
    watch = [gj.observe.node_metrics(task)]
    run = gj.simulate(jax.random.key(seed), protocol, plan, task, observers=watch, record_every=1, progress=False)
    reached = np.flatnonzero(run["test_accuracy"].sel(statistic="mean").values >= config.accuracy)
    return float(reached[0]) if reached.size else np.inf


class Draw(NamedTuple):
    """What one draw says of one kind of devices."""

    seconds: np.ndarray
    """``(goals, networks)`` in the state of the comparison, those of the horizon where an accuracy is not reached."""
    gains: np.ndarray
    """``(goals,)`` in the state of the search, over the best fixed graph."""
    found: list[design.Design]
    ends: list[np.ndarray]
    """Of rounds of every usual network, in the state of the comparison."""
    held: gj.devices.Devices


def compare(devices: gj.devices.Devices, labels: np.ndarray, usual: dict, config: Config, seed: int) -> Draw:
    """Search in one state of devices, and compare in another."""
    (held,) = design.redrawn(devices, 1, spread=config.spread, seed=seed)
    found = [search(devices, target, config, seed) for target in goals(labels, config).values()]
    names = [*usual.values(), *([each.weights] for each in found)]
    errors = np.array(config.errors)[:, None]
    needed = [rounds_to(errors, each, labels, config.step, config.horizon)[:, 0] for each in names]
    ends = [round_ends(held, each, config.planned, config.load) for each in names]
    costs = np.array([cost_of(*each, config.horizon) for each in zip(needed, ends, strict=True)]).T
    k = len(usual)
    own = np.array([costs[goal, k + goal] for goal in range(len(found))])
    return Draw(np.column_stack([costs[:, :k], own]), np.array([each.gain for each in found]), found, ends, held)


def cost_of(rounds: np.ndarray, ends: np.ndarray, horizon: int) -> np.ndarray:
    """Return the seconds of rounds, and those of the whole horizon where there are infinitely many."""
    return np.minimum(seconds_of(rounds, ends), horizon * pace_of(ends))


def run(config: Config) -> xr.Dataset:
    """Search, compare and learn on every draw."""
    n, seeds = config.num_nodes, [config.seed + number for number in range(config.num_seeds)]
    seconds, gains, learned, learned_seconds, checks = [], [], [], [], []
    for seed in seeds:
        labels = labels_of(n, config.num_labels, seed)
        fixed, changing = fixed_networks(n, seed), changing_networks(n)
        draws = [compare(devices_of(kind, n, seed), labels, fixed | changing, config, seed) for kind in KINDS]
        same = [search(gj.devices.uniform(n), target, config, seed) for target in goals(labels, config).values()]
        seconds.append([draw.seconds for draw in draws])
        gains.append([*(draw.gains for draw in draws), [each.gain for each in same]])
        phones = draws[0]
        networks = [*(fixed | changing).values(), [phones.found[1].weights]]
        ends = [*phones.ends[: len(networks) - 1], phones.ends[-1]]
        rounds = [learned_rounds(each, config, seed) for each in networks]
        learned.append(rounds)
        costs = [cost_of(np.array(t), each, config.learning_rounds) for t, each in zip(rounds, ends, strict=True)]
        learned_seconds.append(costs)
        checks.append(_check(phones, labels, config, seed))
    names = [*fixed, *changing, DESIGNED]
    found = xr.Dataset(
        {
            "seconds": (("seed", "kind", "goal", "network"), np.array(seconds)),
            "gain": (("seed", "devices", "goal"), np.array(gains)),
            "learned_rounds": (("seed", "network"), np.array(learned)),
            "learned_seconds": (("seed", "network"), np.array(learned_seconds)),
            "changes": ("network", [name in changing for name in names]),
            "checks": (("seed", "side"), np.array(checks)),
        },
        {"kind": list(KINDS), "goal": list(GOALS), "network": names, "devices": [*KINDS, IDENTICAL]},
        {"num_nodes": n, "target": config.accuracy},
    )
    cases = {f"{kind}, {goal}": found.seconds.sel(kind=kind, goal=goal) for kind in KINDS for goal in GOALS}
    cases[TRAINING] = found.learned_seconds
    ratios = [[ratio(each, found.changes, rival) for each in cases.values()] for rival in RIVALS]
    labelled = xr.DataArray(ratios, dims=("rival", "case", "seed"), coords={"rival": list(RIVALS), "case": list(cases)})
    return found.assign(ratio=labelled)


def _check(draw: Draw, labels: np.ndarray, config: Config, seed: int) -> tuple[float, float]:
    """Return the seconds of the design for consensus on the devices of its search: computed here, and by the search."""
    errors = np.array(config.errors)[:, None]
    matrices = [draw.found[0].weights]
    needed = rounds_to(errors, matrices, labels, config.step, config.horizon)[0, 0]
    devices = devices_of(PHONES, config.num_nodes, seed)
    ends = round_ends(devices, matrices, int(min(needed, config.planned)), config.load)
    return float(seconds_of(np.array(needed), ends)), draw.found[0].score.seconds


def ratio(seconds: xr.DataArray, changes: xr.DataArray, rival: str) -> np.ndarray:
    """Return the seconds of the best rival of each draw over those of the design, draw by draw."""
    usual = changes.network != DESIGNED
    among = seconds.where(usual & (changes == (rival == CHANGING)))
    return (among.min("network") / seconds.sel(network=DESIGNED)).values


def chosen_by_score(dataset: xr.Dataset) -> np.ndarray:
    """Return seconds of training of the fixed graph that is the best for the quadratic, over those of the design."""
    scores = dataset.seconds.sel(kind=PHONES, goal="quadratic")
    fixed = scores.where(~dataset.changes & (dataset.network != DESIGNED))
    own = dataset.learned_seconds.isel(network=fixed.argmin("network"))
    return (own / dataset.learned_seconds.sel(network=DESIGNED)).values


def table(dataset: xr.Dataset) -> list[Row]:
    """The verdicts on every kind and goal, on training and on identical devices; gains of the search, best networks."""
    rows = [
        _judged(f"{case}: seconds of {rival} / designed", dataset.ratio.sel(rival=rival, case=case).values, rival)
        for rival in RIVALS
        for case in dataset.case.values
    ]
    what = f"{TRAINING}: seconds of the fixed graph with the best score / designed"
    rows.append(_judged(what, chosen_by_score(dataset), FIXED))
    for goal in GOALS:
        values = dataset.gain.sel(devices=IDENTICAL, goal=goal).values
        words = str(decide(values, Band(1, NOISE)))
        rows.append(over_seeds(f"{IDENTICAL}, {goal}: gain in the state of the search", values, 1.0, words))
    for kind in KINDS:
        for goal in GOALS:
            values = dataset.gain.sel(devices=kind, goal=goal).values
            rows.append(over_seeds(f"{kind}, {goal}: gain in the state of the search", values, source="measured"))
    for name in map(str, dataset.network.values):
        rounds = dataset.learned_rounds.sel(network=name).values
        if np.isfinite(rounds).all():
            rows.append(over_seeds(f"training: rounds, {name}", rounds, source="measured"))
    learned = dataset.learned_seconds
    best = Counter(str(dataset.network.values[index]) for index in learned.argmin("network").values)
    words = ", ".join(f"{name} ({count})" for name, count in best.most_common())
    rows.append(over_seeds("training: seconds of the fastest network", learned.min("network").values, source=words))
    found, known = dataset.checks.transpose("side", "seed").values
    source = "the score of the search; seconds computed apart over it"
    return [*rows, over_seeds("seconds of a design, computed apart / by the search", found / known, 1.0, source)]


def _judged(what: str, ratios: np.ndarray, rival: str) -> Row:
    """Return the row of a comparison: the claim is that designs beat fixed graphs and lose to changing networks."""
    words = decide(np.log(ratios), above(0.0) if rival == FIXED else Band(high=0.0))
    rule = design.judge(ratios, np.ones_like(ratios)).summary()
    return over_seeds(what, ratios, source=f"logarithm: {words}; rule: {rule}")
