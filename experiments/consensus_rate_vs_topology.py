"""How fast does gossip remove a disagreement? Measured contraction per round against the spectral gap."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import xarray as xr
from jax.tree_util import Partial

from experiments.lib.report import Row, over_seeds
from gossipjax import Timeline, gossip_averaging, mixing, observe, simulate, topology
from gossipjax._base.binding import Frozen
from gossipjax.timeline import matching_rounds, rounds
from theory import spectral

CLAIM = "the disagreement shrinks by ρ = ‖W − J‖₂ per round"


class Config(NamedTuple):
    """Settings; ``num_nodes`` is a square and a power of two."""

    num_nodes: int = 256
    dimension: int = 32
    num_rounds: int = 20_000
    num_seeds: int = 10
    seed: int = 0


QUICK = Config(num_nodes=64, dimension=16, num_rounds=3000, num_seeds=5)


def graphs(n: int, seed: int) -> dict[str, topology.Topology]:
    """Return the fixed graphs that are compared, from the slowest to the fastest."""
    side = round(n**0.5)
    return {
        "path": topology.path(n),
        "ring": topology.ring(n),
        "star": topology.star(n),
        "Barabási–Albert, m = 2": topology.barabasi_albert(n, 2, seed=seed),
        f"torus {side} × {side}": topology.torus(side, side),
        "Watts–Strogatz, k = 4, p = 0.3": topology.watts_strogatz(n, 4, 0.3, seed=seed, tries=20),
        "Erdős–Rényi, p = 3 ln n / n": topology.erdos_renyi(n, float(3 * np.log(n) / n), seed=seed, tries=20),
        "random 4-regular": topology.random_regular(n, 4, seed=seed, tries=20),
        "hypercube": topology.hypercube(round(np.log2(n))),
        "exponential": topology.exponential(n),
        "complete": topology.complete(n),
    }


def matrix_of(graph: topology.Topology) -> sp.csr_array:
    """Return Metropolis weights, or equal weights on a directed graph of equal degrees."""
    return mixing.uniform(graph) if graph.directed else mixing.metropolis(graph)


def _start(shape: Frozen[tuple[int, int]], key: Any) -> Any:
    x = jax.random.normal(key, shape.value)
    return x - jnp.mean(x, axis=0, keepdims=True)


def disagreement(timeline: Timeline, config: Config) -> np.ndarray:
    """Simulate, and return ``‖x − x̄‖`` after every round, ``(rounds + 1, seeds)``, from starts of mean zero."""

    # Without facts that differ between graphs, all graphs share one compiled program.
    facts = dataclasses.replace(timeline.properties, name="rounds", min_eigenvalue=None)
    timeline = dataclasses.replace(timeline, properties=facts)
    start = Partial(_start, Frozen((facts.num_rows, config.dimension)))
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    watch = (observe.consensus_distance(),)
    trajectory = simulate(keys, gossip_averaging(), timeline, start, observers=watch, record_every=1)
    n = timeline.properties.num_nodes
    return np.sqrt(n * trajectory["consensus_distance"].values.astype(np.float64))


def measured_factor(norms: np.ndarray) -> np.ndarray:
    """Fit the contraction per round of each seed, ``(seeds,)``, to the last half of the rounds above rounding error.

    Early rounds still contain faster modes, and below 1e-6 of the start only float32 rounding is left. If the second
    mode is close to the first (random graphs), the fit is slightly below ρ, which only later rounds would reach.
    """
    factors = []
    for curve in norms.T:
        usable = int(np.argmax(curve < 1e-6 * curve[0])) or len(curve)
        tail = np.arange(usable // 2, usable)
        if len(tail) < 2:
            factors.append(curve[1] / curve[0])
            continue
        factors.append(float(np.exp(np.polyfit(tail, np.log(curve[tail]), 1)[0])))
    return np.asarray(factors)


def run(config: Config) -> xr.Dataset:
    """Measure every graph, and the random matching, whose mean squared contraction is known exactly."""
    n = config.num_nodes
    measured, predicted, curves = {}, {}, {}
    for name, graph in graphs(n, config.seed).items():
        matrix = matrix_of(graph)
        norms = disagreement(rounds(matrix, config.num_rounds), config)
        measured[name], predicted[name] = measured_factor(norms), spectral.contraction_factor(matrix.toarray())
        curves[name] = norms / norms[0]
    name = "random matchings"
    norms = matching_disagreement(config)
    measured[name] = squared_factor(norms)
    predicted[name] = np.sqrt((n - 2) / (2 * (n - 1)))
    curves[name] = norms / norms[0]
    return _dataset(measured, predicted, curves)


def matching_disagreement(config: Config) -> np.ndarray:
    """Return ``‖x − x̄‖`` under random matchings; each seed has its own, because seeds must be independent."""
    runs = []
    for number in range(config.num_seeds):
        timeline = matching_rounds(config.num_nodes, config.num_rounds, seed=config.seed + number)
        runs.append(disagreement(timeline, config._replace(num_seeds=1, seed=config.seed + number)))
    return np.concatenate(runs, axis=1)


def squared_factor(norms: np.ndarray) -> np.ndarray:
    """Return the root of the mean of ``V(t+1)/V(t)`` over 30 rounds, since E[V(t+1) | x] = f V(t) for every x.

    The number of rounds is fixed, and well above rounding error, because stopping at a level would bias the mean.
    """
    squares = norms[:31] ** 2
    return np.sqrt(np.mean(squares[1:] / squares[:-1], axis=0))


def _dataset(measured: dict, predicted: dict, curves: dict) -> xr.Dataset:
    """Keep at most 400 points of every curve, evenly in time."""
    length = min(len(curve) for curve in curves.values())
    rounds = np.unique(np.geomspace(1, length, 400).astype(int) - 1)
    names = list(measured)
    return xr.Dataset(
        {
            "factor": (("graph", "seed"), np.stack([measured[name] for name in names])),
            "predicted_factor": ("graph", [predicted[name] for name in names]),
            "disagreement": (("graph", "round", "seed"), np.stack([curves[name][rounds] for name in names])),
        },
        {"graph": names, "round": rounds},
    )


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare measured and predicted contraction."""
    rows = []
    for name in dataset.graph.values:
        at = dataset.sel(graph=name)
        source = "√((n−2)/(2n−2))" if "matching" in str(name) else "‖W − J‖₂ (late)"
        rows.append(over_seeds(f"contraction, {name}", at.factor.values, float(at.predicted_factor), source))
    return rows
