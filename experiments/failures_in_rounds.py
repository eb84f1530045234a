"""Which methods stay exact when nodes are absent and messages get lost, and how fast does averaging remain?"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

import gossipjax as gj
from experiments.lib.report import Row, over_seeds
from gossipjax import Task, Timeline, observe, simulate, tasks, topology
from gossipjax.timeline import activity, changing_rounds, losses
from theory import exact
from theory.check.engine import runs

CLAIM = (
    "ADMM stays exact under absences, losses and bursts; gradient tracking runs only where both messages of a pair are "
    "lost together, push-sum only without losses, and D-PSGD always, with its bias"
)


class Config(NamedTuple):
    """Settings."""

    num_nodes: int = 8
    num_rounds: int = 2000
    record_every: int = 10
    dimension: int = 4
    step: float = 0.1
    active: float = 0.7
    loss: float = 0.2
    burst: float = 5.0
    """Mean length of a burst of losses, in rounds."""
    averaging_rounds: int = 12
    replicas: int = 2000
    """Independent runs of averaging."""
    num_seeds: int = 5
    seed: int = 0


QUICK = Config(num_rounds=600, replicas=500, num_seeds=2)
METHODS = ("D-PSGD", "gradient tracking", "SGP", "ADMM", "LT-ADMM")
FAILURES = ("none", "absences", "losses", "losses of pairs", "bursts of pairs")
RUNS = {"gradient tracking": ("none", "losses of pairs", "bursts of pairs"), "SGP": ("none", "absences")}
"""The failures under which a method runs at all, if not under all: elsewhere the law that it rests on is broken."""


def plan_of(config: Config, failure: str, rule: Literal["metropolis", "push"], seed: int) -> Timeline:
    """Plan rounds on a ring with failures."""
    gap = config.burst * (1 - config.loss) / config.loss
    options: dict[str, dict[str, Any]] = {
        "none": {},
        "absences": {"activity": activity.bernoulli(config.active, seed=seed)},
        "losses": {"loss": losses.independent(config.loss, seed=seed)},
        "losses of pairs": {"loss": losses.independent(config.loss, seed=seed, both_ways=True)},
        "bursts of pairs": {"loss": losses.gilbert(gap, config.burst, seed=seed, both_ways=True)},
    }
    return changing_rounds(topology.ring(config.num_nodes), config.num_rounds, weights=rule, **options[failure])


def problem(config: Config) -> Task:
    """Return heterogeneous quadratics."""
    rng = np.random.default_rng(config.seed)
    a, b = rng.uniform(0.5, 1.5, (config.num_nodes, 1)), rng.standard_normal((config.num_nodes, config.dimension))
    return tasks.quadratic(b, curvature=a)


def prox(task: Task, node: jax.Array, z: jax.Array, step_size: jax.Array) -> jax.Array:
    """Minimize the quadratic of a node plus ``‖x − z‖² / (2 s)``."""
    a, b = task.data["curvature"][node], task.data["targets"][node]
    return (z + step_size * a * b) / (1 + step_size * a)


def protocols(config: Config) -> dict[str, gj.Protocol]:
    """Return the methods."""
    task = problem(config)
    sgd, ring = Partial(optax.sgd, config.step), topology.ring(config.num_nodes)
    return {
        "D-PSGD": gj.dpsgd(task, sgd),
        "gradient tracking": gj.gradient_tracking(task, sgd),
        "SGP": gj.sgp(task, sgd),
        "ADMM": gj.admm(ring, Partial(prox, task), penalty=0.5),
        "LT-ADMM": gj.lt_admm(task, sgd, ring, local_steps=2, penalty=0.5, beta=0.1),
    }


def learning(config: Config) -> xr.Dataset:
    """Run every method under every failure that it allows; NaN elsewhere."""
    task = problem(config)
    watch, x0 = [observe.distance_to(task.test["optimum"])], jnp.zeros((config.num_nodes, config.dimension))
    records = config.num_rounds // config.record_every + 1
    error = np.full((len(METHODS), len(FAILURES), config.num_seeds, records), np.nan)
    for m, (name, protocol) in enumerate(protocols(config).items()):
        for f, failure in enumerate(FAILURES):
            if failure not in RUNS.get(name, FAILURES):
                continue
            for s in range(1 if failure == "none" else config.num_seeds):
                plan = plan_of(config, failure, "push" if name == "SGP" else "metropolis", config.seed + s)
                run = simulate(jax.random.key(s), protocol, plan, x0, observers=watch, record_every=config.record_every)
                error[m, f, s] = run["squared_error"].values
            if failure == "none":  # nothing is random
                error[m, f] = error[m, f, 0]
    coordinates = {"protocol": list(METHODS), "failure": list(FAILURES)}
    rounds = ("record", config.record_every * np.arange(records))
    return xr.Dataset(
        {"squared_error": (("protocol", "failure", "seed", "record"), error)}, coordinates | {"learning_round": rounds}
    )


def averaging(config: Config) -> xr.Dataset:
    """Measure the mean square of averaging under absences and losses at once, beside its exact value."""
    ring, length, n = topology.ring(config.num_nodes), config.averaging_rounds, config.num_nodes
    x0, conditions = np.arange(n) - (n - 1) / 2, ((1.0, 0.0), (config.active, 0.0), (config.active, config.loss))
    spreads, known = [], []
    for active, loss in conditions:
        coins, drops = activity.bernoulli(active, seed=config.seed), losses.independent(loss, seed=config.seed + 1)
        plan = changing_rounds(ring, length * config.replicas, activity=coins, loss=drops)
        pieces = [plan[k : k + length] for k in range(0, len(plan), length)]
        start = jnp.asarray(x0[:, None], jnp.result_type(float))
        found = runs(config.seed, len(pieces), gj.gossip_averaging(), pieces, start, [observe.models()], every=1)
        spreads.append(n * found["model"][..., 0].var(axis=2))
        known.append(exact.failing_rounds(ring.adjacency().toarray(), x0, length, active=active, loss=loss)[1:])
    names = [f"active {active:g}, lost {loss:g}" for active, loss in conditions]
    return xr.Dataset(
        {
            "mean_square": (("condition", "replica", "averaging_round"), np.asarray(spreads)),
            "exact_mean_square": (("condition", "averaging_round"), np.asarray(known)),
        },
        {"condition": names, "averaging_round": np.arange(1, length + 1)},
    )


def run(config: Config) -> xr.Dataset:
    """Run both parts, and return one result."""
    return xr.merge([learning(config), averaging(config)]).assign_attrs(num_nodes=config.num_nodes)


def table(dataset: xr.Dataset) -> list[Row]:
    """Report where each method ends, and the mean square of averaging beside its exact value."""
    rows = []
    for name in dataset.protocol.values:
        for failure in dataset.failure.values:
            last = dataset.squared_error.sel(protocol=name, failure=failure).isel(record=-1).values
            if np.isfinite(last).all():
                rows.append(over_seeds(f"squared error, {name}, {failure}", last, np.nan, "after the last round"))
    for condition in dataset.condition.values:
        for t in (1, dataset.sizes["averaging_round"]):
            at = dataset.sel(condition=condition, averaging_round=t)
            known = float(at.exact_mean_square)
            words = "exact second moment"
            name = f"Σ (xᵢ − x̄)² after {t} round{'s' * (t > 1)}, {condition}"
            rows.append(over_seeds(name, at.mean_square.values, known, words))
    return rows
