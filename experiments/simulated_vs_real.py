"""Do processes with given compute times and rates keep the simulator's clock, and its order of configurations?

Computation and links are emulated: a process trains, and then sleeps to the end of ``compute_seconds``; its uplink
sleeps to the rate of the model. So the run tests the clock, the order of messages and the models, and says nothing
about how fast hardware or a network is.
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
from gossipjax import Protocol, Task, deploy, dpsgd, metered, mixing, observe, sharing, simulate, tasks, topology
from gossipjax.timeline import rounds
from gossipjax.types import Timeline

CLAIM = "processes that emulate the given compute times and rates keep the simulator's clock within 5 %"


class Config(NamedTuple):
    """Settings. One node computes ``slow_compute`` times as long, and one sends ``slow_uplink`` times as slowly."""

    sharings: tuple[str, ...] = ("full", "random 25 %", "top 25 %")
    graphs: tuple[str, ...] = ("ring", "hypercube")
    num_nodes: int = 8
    num_rounds: int = 10
    num_seeds: int = 3
    hidden: int = 16
    local_steps: int = 5
    learning_rate: float = 0.1
    compute_seconds: float = 0.5
    bytes_per_second: float = 40_000.0
    latency_seconds: float = 0.02
    slow_compute: float = 1.5
    slow_uplink: float = 2.0


QUICK = Config(graphs=("ring", "star"), num_nodes=4, num_rounds=4, num_seeds=1, compute_seconds=0.1)
TOLERANCE = 0.05
"""Relative error of the end of a round."""


def graph_of(name: str, n: int) -> topology.Topology:
    """Return a graph by its name."""
    if name == "hypercube":
        return topology.hypercube(n.bit_length() - 1)
    return topology.ring(n) if name == "ring" else topology.star(n)


def sharing_of(name: str) -> Any:
    """Return a sharing by its name."""
    return {"full": sharing.full(), "random 25 %": sharing.random_subset(0.25), "top 25 %": sharing.top_k(0.25)}[name]


def task_of(config: Config) -> Task:
    """Return digits with an equal share for each node."""
    data = tasks.digits()
    shards = tasks.iid(len(data.train.labels), config.num_nodes, seed=0)
    return tasks.classification(data, shards, tasks.mlp(64, (config.hidden,), 10))


def machines(config: Config) -> dict[str, Any]:
    """Return what each node computes and sends in a second."""
    compute, rate = (
        np.full(config.num_nodes, config.compute_seconds),
        np.full(config.num_nodes, config.bytes_per_second),
    )
    compute[1] *= config.slow_compute
    rate[2] /= config.slow_uplink
    return {"compute_seconds": compute, "bytes_per_second": rate, "latency_seconds": config.latency_seconds}


def simulated_ends(key: Any, protocol: Protocol, plan: Timeline, task: Task, config: Config, overlap: bool) -> Any:
    """Simulate, and return the trajectory and the end of each round."""
    clocked = metered(protocol, **machines(config), overlap=overlap)
    watch = [observe.meter_summary()]
    run = simulate(key, clocked, plan, task, observers=watch, record_every=1, strategy="map")
    return run, run["node_clock"].sel(statistic="max").values[1:]


def one(task: Task, config: Config, share: str, graph: str, seed: int) -> dict[str, Any]:
    """Run one configuration in both worlds."""
    key, plan = jax.random.key(seed), rounds(mixing.metropolis(graph_of(graph, config.num_nodes)), config.num_rounds)
    protocol = dpsgd(
        task, Partial(optax.sgd, config.learning_rate), local_steps=config.local_steps, sharing=sharing_of(share)
    )
    run, simulated = simulated_ends(key, protocol, plan, task, config, True)
    _, without = simulated_ends(key, protocol, plan, task, config, False)
    numbers = machines(config)
    link = deploy.Link(numbers["bytes_per_second"], numbers["latency_seconds"])
    report = deploy.execute(key, protocol, plan, task, link=link, compute_seconds=numbers["compute_seconds"])
    pairs = zip(jax.tree.leaves(report.x), jax.tree.leaves(run.x), strict=True)
    data = report.dataset
    return {
        "real_end_s": data["measured_end_s"].max("node").values,
        "simulated_end_s": simulated,
        "simulated_without_overlap_end_s": without,
        "real_loss": data["train_loss"].mean("node").values,
        "simulated_loss": run["train_loss"].values[1:],
        "difference": max(float(abs(a - b).max()) for a, b in pairs),
        "messages_real": int(data["messages_received"].sum()),
        "messages_simulated": int(run["messages_sent"][-1]),
    }


def run(config: Config) -> xr.Dataset:
    """Run every configuration in both worlds, with every seed, and rank them by the time to a common loss."""
    task, names = task_of(config), [(share, graph) for share in config.sharings for graph in config.graphs]
    found = [[one(task, config, *name, seed) for seed in range(config.num_seeds)] for name in names]
    at = ("configuration", "seed")
    data = xr.Dataset(coords={"configuration": [f"{share}, {graph}" for share, graph in names]})
    for name in found[0][0]:
        values = np.array([[each[name] for each in of_name] for of_name in found])
        units = {"units": "s"} if name.endswith("_s") else {}
        data[name] = ((*at, "round")[: values.ndim], values, units)
    return _ranked(data).assign_attrs(num_nodes=config.num_nodes)


def _ranked(data: xr.Dataset) -> xr.Dataset:
    """Add the time to the loss that every run reaches, its ranks, and Kendall's tau of each seed."""
    target = float(data["simulated_loss"].min("round").max())
    for world in ("real", "simulated"):
        reached = data[f"{world}_loss"] <= target * (1 + 1e-4)  # losses agree up to rounding of float32
        data[f"{world}_target_s"] = data[f"{world}_end_s"].where(reached).min("round").assign_attrs(units="s")
    times = (data[f"{world}_target_s"].values.T for world in ("real", "simulated"))
    tau = [stats.kendalltau(real, simulated).statistic for real, simulated in zip(*times, strict=True)]
    return data.assign(tau=("seed", np.array(tau))).assign_attrs(target=target)


def table(data: xr.Dataset) -> list[Row]:
    """Compare both worlds: times, order, models and messages."""
    ratio = data["real_end_s"] / data["simulated_end_s"]
    rows = [
        over_seeds(
            f"{name}: end of the run, real / simulated", ratio.sel(configuration=name).isel(round=-1), 1.0, "same"
        )
        for name in data["configuration"].values.tolist()
    ]
    within = (abs(ratio - 1) <= TOLERANCE).mean(["configuration", "round"])
    slow = data["simulated_without_overlap_end_s"].isel(round=-1)
    share = (data["real_end_s"].isel(round=-1) / slow).mean("configuration")
    messages = (data["messages_real"] / data["messages_simulated"]).mean("configuration")
    return [
        *rows,
        over_seeds(f"rounds that end within ±{TOLERANCE:.0%}", within, 1.0, "all"),
        over_seeds("Kendall's tau of the times to the target", data["tau"], 1.0, "the same order"),
        over_seeds(
            "largest difference of a parameter", data["difference"].max("configuration"), 0.0, "equal up to rounding"
        ),
        over_seeds("messages, real / simulated", messages, 1.0, "the same"),
        over_seeds("real / simulated without overlap", share, np.nan, "below 1: processes train on while they send"),
    ]
