"""How fast are the methods that are exact under heterogeneity, in rounds, bytes and gradients, and as theory says?"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial
from scipy import optimize, special

import gossipjax as gj
from experiments.lib.report import Row, over_seeds
from gossipjax import Task, compress, mixing, observe, simulate, tasks, topology
from gossipjax.results import linear_rate
from gossipjax.timeline import client_sampling, rounds
from theory import exact
from theory.consensus import dpsgd_bias

CLAIM = (
    "exact methods reach the optimum of heterogeneous losses with a constant step, on quadratics at the rate of "
    "their iteration matrix; D-PSGD stalls at its bias"
)


STEPS = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 1.8)
"""Tried for each exact method; penalties of ADMM, which has no step. No node's loss is more curved than 1.5. A first
full run had the middle six, of which many methods chose the first or the last."""
FLOOR, SKIP = 1e-22, 0.6
"""Squared error, relative to the start, at which a fit ends, a hundred times above what rounding leaves; and the share
of the records before it that are left out. Both were set after full runs: D² on the digits does not get to 1e-24."""
LOCAL_STEPS, NEWTON_STEPS = 3, 4
DUAL, PULL = 0.5, 0.2
"""Penalty of the dual methods, and step of the pull of LT-ADMM."""
COMPRESSED = 0.9
"""γ of C-GT and BEER."""


class Config(NamedTuple):
    """Settings."""

    problems: tuple[str, ...] = ("quadratics", "digits, sorted")
    methods: tuple[str, ...] = ()
    """None: all of them. D-PSGD is always among them."""
    num_nodes: int = 16
    num_rounds: int = 3000
    record_every: int = 1
    dimension: int = 16
    spread: float = 3.0
    """Standard deviation of the nodes' own optima of the quadratics."""
    penalty: float = 0.02
    """Of the logistic regression."""
    num_seeds: int = 5
    seed: int = 0


QUICK = Config(
    methods=("gradient tracking", "EXTRA", "exact diffusion", "DLM", "RelaySGD", "LED", "GT-SAGA", "LEAD"),
    num_rounds=800,
    num_seeds=2,
)


class Problem(NamedTuple):
    """A task, its samples by number, and how many of them a node has."""

    task: Task
    samples: tasks.FiniteSum
    config: Config

    @property
    def m(self) -> int:
        """Samples of a node."""
        return self.samples.num_samples


class Method(NamedTuple):
    """How to build a method for a problem and a step, and its cost."""

    build: Callable[[Problem, float], gj.Protocol]
    gradients: Callable[[int], float] = lambda m: 1
    """Gradients over all m samples that a node takes in a round, on average; each sample's is 1/m of one."""
    where: Literal["ring", "path", "server"] = "ring"
    steps: tuple[float, ...] = STEPS


def ring(config: Config) -> gj.topology.Topology:
    """Return the graph of all runs."""
    return topology.ring(config.num_nodes)


def path(config: Config) -> gj.topology.Topology:
    """Return the ring less one edge, for methods that need a tree."""
    return topology.path(config.num_nodes)


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


def sgd(step: float) -> Partial:
    """Return SGD whose step is an argument of the compiled run."""
    return Partial(optax.sgd, step)


INEXACT = "D-PSGD"
METHODS = {
    INEXACT: Method(lambda p, step: gj.dpsgd(p.task, sgd(step)), steps=(0.1,)),
    "gradient tracking": Method(lambda p, step: gj.gradient_tracking(p.task, sgd(step))),
    "NEXT": Method(lambda p, step: gj.gradient_tracking(p.task, sgd(step), order="next")),
    "Aug-DGM": Method(lambda p, step: gj.gradient_tracking(p.task, sgd(step), order="aug_dgm")),
    "EXTRA": Method(lambda p, step: gj.extra(p.task, sgd(step))),
    "exact diffusion": Method(lambda p, step: gj.exact_diffusion(p.task, sgd(step))),
    "NIDS": Method(lambda p, step: gj.nids(p.task, step)),
    "D²": Method(lambda p, step: gj.d2(p.task, sgd(step))),
    "SimpleGT": Method(lambda p, step: gj.simple_gt(p.task, sgd(step))),
    "Wang–Elia": Method(lambda p, step: gj.wang_elia(p.task, sgd(step))),
    "DLM": Method(lambda p, step: gj.dlm(p.task, step, penalty=DUAL)),
    "ADMM": Method(
        lambda p, penalty: gj.admm(ring(p.config), Partial(prox, p.task), penalty=penalty), lambda m: NEWTON_STEPS
    ),
    "ATG": Method(lambda p, step: gj.admm_tracking(p.task, step, ring(p.config), gamma=0.3, penalty=DUAL)),
    "RelaySGD": Method(lambda p, step: gj.relay_sgd(p.task, sgd(step), path(p.config)), where="path"),
    "ProxSkip": Method(lambda p, step: gj.prox_skip(p.task, sgd(step), probability=0.5)),
    "LED": Method(lambda p, step: gj.led(p.task, sgd(step), local_steps=LOCAL_STEPS), lambda m: LOCAL_STEPS),
    "K-GT": Method(lambda p, step: gj.k_gt(p.task, step, local_steps=LOCAL_STEPS), lambda m: LOCAL_STEPS),
    "LT-ADMM": Method(
        lambda p, step: gj.lt_admm(p.task, sgd(step), ring(p.config), local_steps=LOCAL_STEPS, penalty=DUAL, beta=PULL),
        lambda m: LOCAL_STEPS,
    ),
    "DiNNO": Method(
        lambda p, step: gj.dinno(p.task, sgd(step), local_steps=LOCAL_STEPS, penalty=DUAL), lambda m: LOCAL_STEPS
    ),
    "SCAFFOLD": Method(
        lambda p, step: gj.scaffold(p.task, step, local_steps=LOCAL_STEPS), lambda m: LOCAL_STEPS, "server"
    ),
    "FedDyn": Method(
        lambda p, step: gj.feddyn(p.task, sgd(step), local_steps=LOCAL_STEPS, alpha=DUAL),
        lambda m: LOCAL_STEPS,
        "server",
    ),
    "GT-SAGA": Method(lambda p, step: gj.gt_saga(p.samples, step), lambda m: 1 / m),
    "GT-SVRG": Method(lambda p, step: gj.gt_svrg(p.samples, step, period=p.m), lambda m: 3 / m),
    "GT-SARAH": Method(lambda p, step: gj.gt_sarah(p.samples, step, period=p.m), lambda m: (3 - 2 / m) / m),
    "GT-VR": Method(lambda p, step: gj.gt_vr(p.samples, step, snapshot_probability=1 / p.m), lambda m: 3 / m),
    "LT-ADMM-VR": Method(
        lambda p, step: gj.lt_admm_vr(
            p.samples, step, ring(p.config), local_steps=LOCAL_STEPS, penalty=DUAL, beta=PULL, keep_table=True
        ),
        lambda m: 2 * LOCAL_STEPS / m,
    ),
    "LEAD": Method(lambda p, step: gj.lead(p.task, step, compress.natural())),
    "C-GT": Method(lambda p, step: gj.c_gt(p.task, step, compress.natural(), COMPRESSED, alpha=1.0)),
    "BEER": Method(lambda p, step: gj.beer(p.task, sgd(step), compress.natural(), COMPRESSED)),
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


def problem_of(name: str, config: Config) -> Problem:
    """Build a problem. A quadratic is its node's only sample, so that methods which sample take its gradient."""
    if name == "quadratics":
        task = tasks.quadratic(targets(config), curvature=curvatures(config)[:, None])
        only = tasks.finite_sum(task, sample=Partial(_only_sample, task.batch), num_samples=1)
        return Problem(task, only, config)
    task = digits_by_class(config)
    return Problem(task, tasks.finite_sum(task), config)


def _only_sample(batch: Any, data: Any, node: jax.Array, numbers: jax.Array) -> Any:
    del numbers
    return batch(jax.random.key(0), data, node)


def methods(config: Config) -> list[str]:
    """Return the names of the methods, in the order of :data:`METHODS`."""
    return [name for name in METHODS if not config.methods or name in config.methods or name == INEXACT]


def prediction(method: str, step: float, config: Config) -> float:
    """Return the factor of the error a round on the quadratics, from the spectrum of the iteration; NaN: not known."""
    W, a, edges = matrix_of(config).toarray(), curvatures(config), ring(config).adjacency().toarray()
    known = {
        "gradient tracking": lambda: exact.gradient_tracking_rate(W, a, step),
        "NEXT": lambda: exact.gradient_tracking_rate(W, a, step, order="next"),
        "Aug-DGM": lambda: exact.gradient_tracking_rate(W, a, step, order="aug_dgm"),
        "EXTRA": lambda: exact.extra_rate(W, a, step),
        "exact diffusion": lambda: exact.exact_diffusion_rate(W, a, step),
        "NIDS": lambda: exact.exact_diffusion_rate(W, a, step),
        "D²": lambda: exact.exact_diffusion_rate(2 * W - np.eye(len(W)), a, step),
        "SimpleGT": lambda: exact.simple_gt_rate(W, a, step),
        "Wang–Elia": lambda: exact.wang_elia_rate(W, a, step),
        "DLM": lambda: exact.dlm_rate(edges, a, step, penalty=DUAL),
        "ADMM": lambda: exact.admm_rate(edges, a, penalty=step),
    }
    # With one sample a node, methods that sample track its gradient.
    known |= {"GT-SAGA": known["Aug-DGM"], "GT-VR": known["Aug-DGM"]}
    known |= {"GT-SVRG": known["gradient tracking"], "GT-SARAH": known["gradient tracking"]}
    return known[method]() if method in known else np.nan


def run(config: Config) -> xr.Dataset:
    """Run all methods on both problems from random starts, one for each seed, in float64, with their best steps.

    In float32 rounding errors gather in dual variables and corrections: errors of 1e-3 that grow with the rounds.
    """
    with jax.enable_x64(True):
        cells = [_on_problem(name, config) for name in config.problems]
    joined = xr.concat(cells, "problem").assign_coords(problem=list(config.problems), protocol=methods(config))
    return joined.assign_attrs(data=tasks.digits().source, num_nodes=config.num_nodes)


def _on_problem(name: str, config: Config) -> xr.Dataset:
    problem = problem_of(name, config)
    timelines = {
        "ring": rounds(matrix_of(config), config.num_rounds),
        "path": rounds(mixing.metropolis(path(config)), config.num_rounds),
        "server": client_sampling(config.num_nodes, config.num_nodes, config.num_rounds, seed=config.seed),
    }
    found = []
    for method in methods(config):
        step, cell = _with_best_step(METHODS[method], problem, timelines)
        spectral = prediction(method, step, config) if name == "quadratics" else np.nan
        gradients = float(METHODS[method].gradients(problem.m))
        found.append(cell.assign(step=step, gradients=gradients, predicted=spectral))
    joined = xr.concat(found, "protocol").drop_attrs(deep=False)
    bias = _bias(float(joined.step[0]), config) if name == "quadratics" else np.nan
    return joined.assign(bias=bias)


def _bias(step: float, config: Config) -> float:
    """Return the squared error at which D-PSGD stops, the first of the methods, on the quadratics."""
    W = matrix_of(config).toarray()
    return float(dpsgd_bias(W, curvatures(config), targets(config), step_size=step).squared_error)


def _with_best_step(method: Method, problem: Problem, timelines: dict[str, gj.Timeline]) -> tuple[float, xr.Dataset]:
    """Choose the step whose error falls below where fits end first, or else ends lowest, from other starts; run it."""
    config, optimum = problem.config, problem.task.test["optimum"]
    key, other = jax.random.split(jax.random.key(config.seed))

    def trajectory(key: jax.Array, step: float) -> xr.Dataset:
        keys = jax.random.split(key, config.num_seeds)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", gj.Diverging)
            return simulate(
                keys,
                method.build(problem, step),
                timelines[method.where],
                lambda key: jax.random.normal(key, (config.num_nodes, *optimum.shape)),
                observers=[observe.distance_to(optimum)],
                record_every=config.record_every,
                throw=False,
            ).dataset[["squared_error", "bytes_sent"]]

    tried = [_speed(trajectory(other, step).squared_error) for step in method.steps]
    best = method.steps[tried.index(min(tried))]
    return best, trajectory(key, best)


def _speed(errors: xr.DataArray) -> tuple[int, float]:
    """Order steps by the first record at which the fit would end, and, where none is, by the last error."""
    relative = np.nan_to_num((errors / errors.isel(record=0)).mean("seed").values, nan=np.inf)
    there = np.flatnonzero(relative < FLOOR)
    return int(there[0]) if there.size else len(relative), float(relative[-1])


def fitted(dataset: xr.Dataset, problem: str, method: str) -> Any:
    """Fit the factor of the squared error a round, where the slowest mode has had time to be alone."""
    curve = dataset.squared_error.sel(problem=problem, protocol=method)
    floor = FLOOR * float(curve.isel(record=0).mean())
    kept = (1 - SKIP) * int((curve > floor).all("seed").cumprod("record").sum())
    return linear_rate(curve, skip=SKIP, floor=floor, blocks=max(2, min(5, int(kept) // 2 - 1)))


def table(dataset: xr.Dataset) -> list[Row]:
    """Report the factors of the error beside the spectral ones, and where D-PSGD ends."""
    rows = []
    for problem in dataset.problem.values:
        at = dataset.sel(problem=problem, protocol=INEXACT)
        last, known = at.squared_error.isel(record=-1).values, float(at.bias)
        words = f"{'exact bias' if np.isfinite(known) else 'at the end'}; {cost_of(at)}"
        rows.append(over_seeds(f"squared error, D-PSGD, {problem}", last, known, words))
        for method in dataset.protocol.values[1:]:
            fit, at = fitted(dataset, problem, method), dataset.sel(problem=problem, protocol=method)
            half = float(np.sqrt(fit.high) - np.sqrt(fit.low)) / 2
            name = f"factor a round, {method}, {problem}"
            rows.append(Row(name, float(np.sqrt(fit.rate)), half, float(at.predicted), cost_of(at)))
    return rows


def cost_of(at: xr.Dataset) -> str:
    """Say the step of a method, and what a round takes of a node."""
    kilobytes = float(at.bytes_sent.isel(record=-1).mean() / at.event[-1] / at.attrs["num_nodes"] / 1e3)
    name = "penalty" if str(at.protocol.values) == "ADMM" else "step"
    taken = float(at.gradients)
    return f"{name} {float(at.step):g}; {taken:.3g} gradient{'s' * (taken != 1)}, {kilobytes:.2g} kB a round"
