"""How fast are the methods that are exact under heterogeneity, in rounds, bytes and gradients, and as theory says?"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial
from scipy import optimize, special

import gossipjax as gj
from experiments.lib.report import Row, over_seeds
from gossipjax import Task, mixing, observe, simulate, tasks, topology
from gossipjax.results import linear_rate
from gossipjax.timeline import rounds
from theory import exact
from theory.consensus import dpsgd_bias

CLAIM = (
    "exact methods reach the optimum of heterogeneous losses with a constant step, on quadratics at the rate of "
    "their iteration matrix; D-PSGD stalls at its bias"
)


class Config(NamedTuple):
    """Settings."""

    problems: tuple[str, ...] = ("quadratics", "digits, sorted")
    num_nodes: int = 16
    num_rounds: int = 3000
    record_every: int = 2
    dimension: int = 16
    spread: float = 3.0
    """Standard deviation of the nodes' own optima of the quadratics."""
    step: float = 0.3
    penalty: float = 0.02
    """Of the logistic regression."""
    num_seeds: int = 5
    seed: int = 0


QUICK = Config(num_rounds=800, num_seeds=2)
LOCAL_STEPS, NEWTON_STEPS = 3, 4
FLOOR, SKIP = 1e-24, 0.6
"""Squared error, relative to the start, at which a fit ends, a thousand times above what rounding leaves; and the share
of the records before it that are left out. Both were set after a first full run."""
DUAL = 0.5
"""Penalty of the dual methods."""
GRADIENTS = {"LED": LOCAL_STEPS, "K-GT": LOCAL_STEPS, "LT-ADMM": LOCAL_STEPS, "ADMM": NEWTON_STEPS}
"""Gradients of a node in a round, where it is not one."""
PREDICTED = ("exact diffusion", "NIDS", "EXTRA", "ADMM")


def ring(config: Config) -> gj.topology.Topology:
    """Return the graph of all runs."""
    return topology.ring(config.num_nodes)


def matrix_of(config: Config) -> Any:
    """Return its lazy Metropolis weights: LED needs a smallest eigenvalue above −1/3."""
    return mixing.lazy(mixing.metropolis(ring(config)))


def prox(task: Task, node: jax.Array, z: jax.Array, step_size: jax.Array) -> jax.Array:
    """Minimize the loss of a node plus ``‖x − z‖² / (2 s)`` by Newton's method, which is exact on quadratics."""
    key = jax.random.key(0)
    batch = task.batch(key, task.data, node)

    def loss(x: jax.Array) -> jax.Array:
        return task.loss(key, x, batch) + jnp.sum(jnp.square(x - z)) / (2 * step_size)

    def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return x - jnp.linalg.solve(jax.hessian(loss)(x), jax.grad(loss)(x)), None

    return jax.lax.scan(step, z, length=NEWTON_STEPS)[0]


def protocols(task: Task, config: Config) -> dict[str, gj.Protocol]:
    """Return the methods; where a round has several local steps, each is as long as the others' only one."""
    step, graph = config.step, ring(config)
    sgd = Partial(optax.sgd, step)
    return {
        "D-PSGD": gj.dpsgd(task, sgd),
        "gradient tracking": gj.gradient_tracking(task, sgd),
        "EXTRA": gj.extra(task, sgd),
        "exact diffusion": gj.exact_diffusion(task, sgd),
        "NIDS": gj.nids(task, step),
        "DLM": gj.dlm(task, step, penalty=DUAL),
        "ADMM": gj.admm(graph, Partial(prox, task), penalty=DUAL),
        "ProxSkip": gj.prox_skip(task, sgd, probability=0.5),
        "LED": gj.led(task, sgd, local_steps=LOCAL_STEPS),
        "K-GT": gj.k_gt(task, step / LOCAL_STEPS, local_steps=LOCAL_STEPS),
        "LT-ADMM": gj.lt_admm(task, sgd, graph, local_steps=LOCAL_STEPS, penalty=DUAL, beta=0.2),
    }


def curvatures(config: Config) -> np.ndarray:
    """Return the curvature of each node's quadratic."""
    return np.random.default_rng(config.seed).uniform(0.5, 1.5, config.num_nodes)


def targets(config: Config) -> np.ndarray:
    """Return the optimum of each node's quadratic."""
    rng = np.random.default_rng(config.seed + 1)
    return config.spread * rng.standard_normal((config.num_nodes, config.dimension))


def digits_by_class(config: Config) -> Task:
    """Tell even from odd digits by logistic regression, with the images sorted by digit: a node sees one or two.

    Pixels are scaled so that no node's loss is more curved than 1, besides the penalty.
    """
    data = tasks.digits().train
    order, n = np.argsort(data.labels, kind="stable"), config.num_nodes
    m = len(order) // n
    images = np.asarray(data.inputs, np.float64).reshape(len(order), -1)[order[: n * m]].reshape(n, m, -1)
    largest = max(np.linalg.eigvalsh(a.T @ a / (4 * m))[-1] for a in images)
    images /= np.sqrt(largest)
    labels = np.where(np.asarray(data.labels)[order[: n * m]] % 2 == 0, 1.0, -1.0).reshape(n, m)
    like = tasks.logistic_regression(n, m, images.shape[2], penalty=config.penalty)
    best = _minimum(images.reshape(n * m, -1), labels.ravel(), config.penalty)
    given = {"features": jnp.asarray(images), "responses": jnp.asarray(labels), "penalty": like.data["penalty"]}
    given = {name: leaf.astype(like.data[name].dtype) for name, leaf in given.items()}
    return dataclasses.replace(like, data=given, test=given | {"optimum": jnp.asarray(best, given["features"].dtype)})


def _minimum(features: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    def slope(x: np.ndarray) -> np.ndarray:
        return penalty * x - features.T @ (labels * special.expit(-labels * (features @ x))) / len(labels)

    def bend(x: np.ndarray) -> np.ndarray:
        share = special.expit(features @ x)
        curved = (features * (share * (1 - share))[:, None]).T @ features / len(labels)
        return curved + penalty * np.eye(len(x))

    return optimize.root(slope, np.zeros(features.shape[1]), jac=bend, tol=1e-14).x


def problems(config: Config) -> dict[str, Task]:
    """Return the problems of a configuration."""
    quadratics = tasks.quadratic(targets(config), curvature=curvatures(config)[:, None])
    build = {"quadratics": lambda: quadratics, "digits, sorted": lambda: digits_by_class(config)}
    return {name: build[name]() for name in config.problems}


def predictions(config: Config) -> dict[str, float]:
    """Return the factors of the error a round on the quadratics, from the spectra of the iterations."""
    W, a, step = matrix_of(config).toarray(), curvatures(config), config.step
    diffusion = exact.exact_diffusion_rate(W, a, step)
    admm = exact.admm_rate(ring(config).adjacency().toarray(), a, penalty=DUAL)
    return {"exact diffusion": diffusion, "NIDS": diffusion, "EXTRA": exact.extra_rate(W, a, step), "ADMM": admm}


def run(config: Config) -> xr.Dataset:
    """Run all methods on both problems from random starts, one for each seed, in float64.

    In float32 rounding errors gather in dual variables and corrections: errors of 1e-3 that grow with the rounds.
    """
    with jax.enable_x64(True):
        return _run(config)


def _run(config: Config) -> xr.Dataset:
    timeline = rounds(matrix_of(config), config.num_rounds)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    cells = []
    for task in problems(config).values():
        watch = [observe.distance_to(task.test["optimum"])]
        shape = (config.num_nodes, task.test["optimum"].shape[0])

        def start(key, shape=shape):
            return jax.random.normal(key, shape)

        found = [
            simulate(keys, protocol, timeline, start, observers=watch, record_every=config.record_every).dataset
            for protocol in protocols(task, config).values()
        ]
        cells.append(xr.concat([each[["squared_error", "bytes_sent"]] for each in found], "protocol"))
    names = list(protocols(task, config))
    predicted = predictions(config)
    joined = xr.concat(cells, "problem").drop_attrs(deep=False)
    joined = joined.assign_coords(problem=list(config.problems), protocol=names)
    bias = dpsgd_bias(matrix_of(config).toarray(), curvatures(config), targets(config), step_size=config.step)
    return joined.assign(
        gradients=("protocol", [GRADIENTS.get(name, 1) for name in names]),
        predicted=("protocol", [predicted.get(name, np.nan) for name in names]),
        bias=float(bias.squared_error),
    ).assign_attrs(data=tasks.digits().source, num_nodes=config.num_nodes)


def fitted(dataset: xr.Dataset, problem: str, method: str) -> Any:
    """Fit the factor of the squared error a round, where the slowest mode has had time to be alone."""
    curve = dataset.squared_error.sel(problem=problem, protocol=method)
    return linear_rate(curve, skip=SKIP, floor=FLOOR * float(curve.isel(record=0).mean()))


def table(dataset: xr.Dataset) -> list[Row]:
    """Report the factors of the error beside the spectral ones, and where D-PSGD ends."""
    rows = []
    for problem in dataset.problem.values:
        last = dataset.squared_error.sel(problem=problem, protocol="D-PSGD").isel(record=-1).values
        known, source = (float(dataset.bias), "exact bias") if problem == "quadratics" else (np.nan, "at the end")
        rows.append(over_seeds(f"squared error, D-PSGD, {problem}", last, known, source))
        for method in dataset.protocol.values[1:]:
            fit = fitted(dataset, problem, method)
            spectral = float(dataset.predicted.sel(protocol=method)) if problem == "quadratics" else np.nan
            taken = int(dataset.gradients.sel(protocol=method))
            words = f"fit over rounds; {taken} gradient{'s' * (taken > 1)} a round"
            half = float(np.sqrt(fit.high) - np.sqrt(fit.low)) / 2
            rows.append(Row(f"factor a round, {method}, {problem}", float(np.sqrt(fit.rate)), half, spectral, words))
    return rows
