"""Asynchronous push-gossip SGD on linear regression: loss and consensus over time, and their exact stationary values.

The regression has a fixed orthogonal design at every node, ``A_iᵀA_i/m = I``, and new responses ``A_i x_i* + ε`` at
every step. The gradient is therefore ``x − x_i* + σ ξ`` with standard normal ξ. Users have different data: of one half
of them the solution is ``x* + s``, of the other ``x* − s``, in every coordinate. Hessian and noise are isotropic, and
coordinates do not interact, so the exact law of users on the complete graph (:mod:`theory.users`) holds in each of
them; loss and consensus distance are sums over coordinates. The law is exact for Poisson update clocks (c = 0). For
clocks with a fixed part no exact law is known; they are shown at the same update rate m = 1/s, ``c + Exp(mean 1/μ)``
with c = 0.5 s and μ = 2/s. (If 1/μ were the mean of the whole interval, this clock would be a metronome.)

Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (the algorithm; parameters are chosen here).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib.asynchronous import run_each, seed_keys, settled_mean, z_score
from experiments.lib.report import Row
from experiments.lib.store import mean_and_interval
from gossipjax import Task, dpsgd, observe, replicate, tasks
from gossipjax.timeline import clocks, push_gossip
from theory.users import stationary_users

CLAIM = "push-gossip SGD settles at the values of the exact law; λ = ln n makes consensus tighter as n grows"
ONE_DEVICE = True
RATES = {"λ = 1": lambda n: 1.0, "λ = ln n": lambda n: float(np.log(n))}
"""Pushes per node and second."""
CLOCKS = {"c = 0": clocks.poisson(1.0), "c = 0.5 s": clocks.shifted_exponential(0.5, 0.5)}
"""Clocks of the local updates, all with one update per second on average."""
QUANTITIES = ("excess_loss", "consensus_distance")


class Config(NamedTuple):
    """Settings; averages start at the time ``settled``, long after the start is forgotten."""

    nodes: tuple[int, ...] = (10, 100, 1000)
    dimension: int = 10
    spread: float = 0.5
    """s: how far the solutions of the users are from x*; 0: all users have the same."""
    step_size: float = 0.2
    noise_std: float = 1.0
    duration: float = 120.0
    settled: float = 40.0
    num_records: int = 60
    num_seeds: int = 24
    seed: int = 0


QUICK = Config(nodes=(10, 100), duration=100.0, num_records=50, num_seeds=8)


def halves(n: int) -> np.ndarray:
    """Return the sizes of the two halves of the users."""
    return np.array([n - n // 2, n // 2])


def task_of(n: int, config: Config) -> Task:
    """Build a task whose halves of users have the solutions x* ± s, where x* = (1, …, 1); models start at 0."""
    sides = np.repeat([config.spread, -config.spread], halves(n))
    return tasks.quadratic(1.0 + np.outer(sides, np.ones(config.dimension)), noise_std=config.noise_std)


def predicted(n: int, rate: float, config: Config) -> tuple[float, float]:
    """Predict the stationary excess loss of a node and the consensus distance for c = 0.

    The loss is that of all users' data: ``E f(x_i) − f(x̄*) = ½ E ‖x_i − x̄*‖²``, x̄* the mean solution.
    """
    law = stationary_users(
        halves(n),
        np.array([config.spread, -config.spread]),
        push_rate=rate,
        gradient_rate=1.0,
        curvature=1.0,
        step=config.step_size,
        noise_std=config.noise_std,
    )
    squares = float(np.average(law.squared_distance, weights=halves(n)))
    return 0.5 * config.dimension * squares, config.dimension * float(law.consensus)


def record_times(config: Config) -> np.ndarray:
    """Return the times of the records after the start."""
    return np.linspace(0.0, config.duration, config.num_records + 1)[1:]


def one_setting(n: int, rate: float, config: Config) -> xr.Dataset:
    """Run all seeds of one network and push rate with both clocks; plans of equal shape share one compiled program."""
    task = task_of(n, config)
    seeds = range(config.seed, config.seed + config.num_seeds)
    plans = [
        push_gossip(n, config.duration, compute=clock, gossip=rate, seed=seed)
        for clock in CLOCKS.values()
        for seed in seeds
    ]
    watch = (observe.distance_to(task.test["optimum"]), observe.consensus_distance())
    protocol = dpsgd(task, Partial(optax.sgd, config.step_size))
    start = replicate(task.init(jax.random.key(0)), n)
    keys = seed_keys(config.seed, config.num_seeds) * len(CLOCKS)
    records = run_each(protocol, plans, record_times(config), start, watch, keys)
    records = records.rename(seed="run").coarsen(run=config.num_seeds).construct(run=("clock", "seed"))
    return xr.Dataset({"excess_loss": 0.5 * records.squared_error, "consensus_distance": records.consensus_distance})


def run(config: Config) -> xr.Dataset:
    """Run every number of nodes at both push rates and with both clocks."""
    by_nodes = [xr.concat([one_setting(n, rate(n), config) for rate in RATES.values()], "rate") for n in config.nodes]
    laws = np.array([[predicted(n, rate(n), config) for rate in RATES.values()] for n in config.nodes])
    coordinates = {
        "nodes": list(config.nodes),
        "rate": list(RATES),
        "clock": list(CLOCKS),
        "time": ("record", np.append(0.0, record_times(config))),
    }
    joined = xr.concat(by_nodes, "nodes").assign_coords(coordinates)
    joined["predicted_excess_loss"] = (("nodes", "rate"), laws[..., 0])
    joined["predicted_consensus_distance"] = (("nodes", "rate"), laws[..., 1])
    return joined.assign_attrs(settled=config.settled, dimension=config.dimension)


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare time averages of the settled network with the exact law, if there is one."""
    rows, names = [], {"excess_loss": "excess loss", "consensus_distance": "consensus"}
    for quantity in QUANTITIES:
        for cell in dataset.stack(cell=("nodes", "rate", "clock"), create_index=False).transpose("cell", ...).cell:
            rows.append(_row(dataset, quantity, names[quantity], cell))
    return rows


def _row(dataset: xr.Dataset, quantity: str, name: str, cell: xr.DataArray) -> Row:
    n, rate, clock = int(cell.nodes), str(cell.rate.values), str(cell.clock.values)
    at = dataset.sel(nodes=n, rate=rate, clock=clock)
    values = settled_mean(at[quantity].values, at.time.values, dataset.attrs["settled"])
    mean, half = mean_and_interval(values)
    label = f"{name}, n = {n}, {rate}, {clock}"
    if clock != "c = 0":
        return Row(label, float(mean), float(half), np.nan, "no exact law for c > 0")
    law = float(at[f"predicted_{quantity}"])
    return Row(label, float(mean), float(half), law, f"exact, z = {z_score(values, law):+.1f}")
