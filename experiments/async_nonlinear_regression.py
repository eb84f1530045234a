"""Asynchronous push-gossip SGD on a network with one hidden layer that learns a sine; each node sees a part of it.

``y = sin x + noise`` on [−π, π]; node i holds samples from only one window of x, so no node can learn the sine alone.
Theory does not predict the loss, and only its ordering is shown. It does predict the staleness, whatever the nodes
learn: the mean is ``m H_{n−1}/λ`` updates for every clock of update rate m, here ``c + Exp(mean 1/μ)`` with c = 0.5 s,
μ = 2/s, m = 1/s.

Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (the algorithm; parameters are chosen here).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from experiments.lib.asynchronous import run_each, seed_keys, settled_mean, z_score
from experiments.lib.report import Row, over_seeds
from gossipjax import Task, dpsgd, observe, replicate, track_versions
from gossipjax._base.binding import Frozen
from gossipjax.timeline import clocks, push_gossip
from theory.staleness import mean_staleness

CLAIM = "staleness is m H(n−1)/λ on a nonlinear problem too; with λ = ln n it is O(1) and nodes agree better"
ONE_DEVICE = True
RATES = {"λ = 1": lambda n: 1.0, "λ = ln n": lambda n: float(np.log(n))}
"""Pushes per node and second."""
NAMES = (("test_error", "test error"), ("consensus_distance", "consensus"))
CLOCK = clocks.shifted_exponential(0.5, 0.5)


class Config(NamedTuple):
    """Settings; staleness is averaged from the time ``settled`` on, and losses are read at the end."""

    nodes: tuple[int, ...] = (10, 100, 1000)
    hidden: int = 16
    samples_per_node: int = 32
    window: float = 0.2
    """Width of a node's window, as a share of [−π, π]."""
    noise_std: float = 0.1
    batch_size: int = 8
    learning_rate: float = 0.1
    duration: float = 200.0
    settled: float = 60.0
    num_records: int = 50
    num_seeds: int = 12
    tracked_sources: int = 50
    evaluated_nodes: int = 50
    seed: int = 0


QUICK = Config(nodes=(10, 100), duration=120.0, num_records=30, num_seeds=6)


def _parts(weights: Float[Array, " p"]) -> tuple[Array, Array, Array, Array]:
    """Return input weights, biases and output weights of the hidden units, and the bias of the output."""
    hidden = (weights.shape[0] - 1) // 3
    inner = weights[:-1].reshape(3, hidden)
    return inner[0], inner[1], inner[2], weights[-1]


def predict(weights: Float[Array, " p"], inputs: Float[Array, " b"]) -> Float[Array, " b"]:
    """Evaluate ``Σ_k v_k tanh(w_k x + b_k) + v_0``; all parameters lie in one vector, which is fast to mix."""
    into, bias, out, offset = _parts(weights)
    return jnp.tanh(inputs[:, None] * into[None] + bias[None]) @ out + offset


def _init(hidden: Frozen[int], key: Key[Array, ""]) -> Float[Array, " p"]:
    into, bias, out = jax.random.normal(key, (3, hidden.value))
    return jnp.concatenate([into, bias, out / np.sqrt(hidden.value), jnp.zeros(1)])


def _batch(size: Frozen[int], key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    picks = jax.random.randint(key, (size.value,), 0, data["inputs"].shape[1])
    return {name: data[name][node][picks] for name in ("inputs", "responses")}


def _loss(key: Key[Array, ""], weights: Array, batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    return 0.5 * jnp.mean(jnp.square(predict(weights, batch["inputs"]) - batch["responses"]))


def _metrics(weights: Array, test: dict[str, Array]) -> dict[str, Array]:
    return {"squared_error": jnp.mean(jnp.square(predict(weights, test["inputs"]) - test["responses"]))}


def task_of(n: int, config: Config) -> Task:
    """Sample the sine in a separate window for each node; windows are evenly spread around the circle."""
    rng = np.random.default_rng(config.seed)
    centres = 2 * np.pi * rng.permutation(n) / n - np.pi
    offsets = config.window * rng.uniform(-np.pi, np.pi, (n, config.samples_per_node))
    inputs = np.mod(centres[:, None] + offsets + np.pi, 2 * np.pi) - np.pi
    responses = np.sin(inputs) + config.noise_std * rng.standard_normal(inputs.shape)
    grid = np.linspace(-np.pi, np.pi, 101)
    data = {"inputs": jnp.asarray(inputs, float), "responses": jnp.asarray(responses, float)}
    test = {"inputs": jnp.asarray(grid, float), "responses": jnp.asarray(np.sin(grid), float)}
    functions = Partial(_init, Frozen(config.hidden)), Partial(_batch, Frozen(config.batch_size))
    return Task(*functions, Partial(_loss), Partial(_metrics), data, test, num_nodes=n)


def record_times(config: Config) -> np.ndarray:
    """Return the times of the records after the start."""
    return np.linspace(0.0, config.duration, config.num_records + 1)[1:]


def one_setting(n: int, rate: float, config: Config) -> xr.Dataset:
    """Run all seeds of one network and push rate."""
    task = task_of(n, config)
    seeds = range(config.seed, config.seed + config.num_seeds)
    plans = [push_gossip(n, config.duration, compute=CLOCK, gossip=rate, seed=seed) for seed in seeds]
    watch = (
        observe.node_metrics(task, nodes=min(n, config.evaluated_nodes)),
        observe.consensus_distance(),
        observe.staleness_summary(),
    )
    sources = min(n, config.tracked_sources)
    protocol = track_versions(dpsgd(task, Partial(optax.sgd, config.learning_rate)), sources, num_nodes=n)

    def start(key):
        return replicate(task.init(key), n)

    records = run_each(protocol, plans, record_times(config), start, watch, seed_keys(config.seed, config.num_seeds))
    mean = records.sel(statistic="mean", drop=True)
    return xr.Dataset(
        {
            "test_error": mean.test_squared_error,
            "consensus_distance": records.consensus_distance,
            "staleness": mean.staleness,
        }
    )


def run(config: Config) -> xr.Dataset:
    """Run every number of nodes at both push rates."""
    by_nodes = [xr.concat([one_setting(n, rate(n), config) for rate in RATES.values()], "rate") for n in config.nodes]
    laws = [
        [mean_staleness(n, gossip_rate=rate(n), update_rate=clocks.rate(CLOCK)) for rate in RATES.values()]
        for n in config.nodes
    ]
    coordinates = {
        "nodes": list(config.nodes),
        "rate": list(RATES),
        "time": ("record", np.append(0.0, record_times(config))),
    }
    joined = xr.concat(by_nodes, "nodes").assign_coords(coordinates)
    joined["predicted_staleness"] = (("nodes", "rate"), np.asarray(laws))
    return joined.assign_attrs(settled=config.settled, evaluated=config.evaluated_nodes)


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare staleness with its exact mean; report error and consensus distance, which have no prediction."""
    cells = [(int(n), str(rate)) for n in dataset.nodes.values for rate in dataset.rate.values]
    rows = []
    for n, rate in cells:
        at = dataset.sel(nodes=n, rate=rate)
        values = settled_mean(at.staleness.values, at.time.values, dataset.attrs["settled"])
        law = float(at.predicted_staleness)
        source = f"exact m H(n−1)/λ, z = {z_score(values, law):+.1f}"
        rows.append(over_seeds(f"staleness, n = {n}, {rate}", values, law, source))
    for quantity, name in NAMES:
        for n, rate in cells:
            at = dataset.sel(nodes=n, rate=rate)
            end = float(at.time[-1])
            rows.append(
                over_seeds(
                    f"{name}, n = {n}, {rate}",
                    settled_mean(at[quantity].values, at.time.values, 0.8 * end),
                    np.nan,
                    "no theory; last fifth",
                )
            )
    return rows + [_ratio(dataset, quantity, name, int(n)) for n in dataset.nodes.values for quantity, name in NAMES]


def _ratio(dataset: xr.Dataset, quantity: str, name: str, n: int) -> Row:
    """Compare the two push rates seed by seed; both start from the same model."""
    at = dataset.sel(nodes=n)
    slow, fast = (
        settled_mean(at[quantity].sel(rate=rate).values, at.time.values, 0.8 * float(at.time[-1])) for rate in RATES
    )
    return over_seeds(f"{name} at λ = 1 over ln n, n = {n}", slow / fast, np.nan, "no theory; ordering only")
