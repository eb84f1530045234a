"""Which method finds a point with a small gradient first, by how much workers differ and by how far apart they are?

Quadratics with exact noise, the same for all workers. Each worker takes h_i seconds for a gradient on average, with
``Σ 1/h_i = n`` whatever the law, so that all workers together always compute n gradients a second: equal workers, h_i
∝ i^a, or phones drawn from measurements; times are fixed, or exponential. A message takes τ seconds. Time is the
simulated seconds until ``‖∇f‖² ≤ ε`` at the server's model, or at the average model of a network, which theorems bound,
though no node holds it before one exact average more. Independent coordinates average out the noise of one run.

Settings come from theorems: batches S and delays R of max(1, s), s = σ²/ε, and the m that minimises the mean time of a
step times 1 + s/m. Their constants are loose, so each method takes the better of s and s/4 in these formulas, and
the best of one grid of step sizes, on tuning seeds in each cell, and is reported on others. Networks are a torus; a
node of AD-PSGD starts an averaging once per mean time of a gradient and of a message there and back.

The claim and its bands were written down before the first run, from the theorems; nothing is claimed with latency. The
noise ratio, the shares of s, the number of coordinates, how often AD-PSGD averages, and that the average model of a
network counts were chosen after first runs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib.asynchronous import barrier_ends
from experiments.lib.report import Row, over_seeds
from gossipjax import (
    Properties,
    Protocol,
    Task,
    Timeline,
    ad_psgd,
    devices,
    dpsgd,
    fedbuff,
    mixing,
    observe,
    tasks,
    timeline,
    topology,
    with_slots,
)
from gossipjax import run as run_events
from gossipjax.timeline import clocks
from theory import time_complexity
from theory.check.policy import Band, Verdict, above, decide

CLAIM = (
    "Without latency: waiting for all loses a factor of 2 and more if speeds fall as 1/i² or faster, waiting for the "
    "first m of n at most 1 + log n, and among equal workers of fixed speed asynchrony gains nothing"
)
SYNCHRONOUS = ("minibatch", "m-synchronous", "D-PSGD")
ASYNCHRONOUS = ("Rennala", "Ringmaster", "asynchronous SGD", "AD-PSGD")
METHODS = SYNCHRONOUS + ASYNCHRONOUS
WITH_SIZE = ("m-synchronous", "Rennala", "Ringmaster")
PHONES = "phones"
SLOTS = 4
"""Of messages or models, per node."""
LOSS_OF_ALL = Band(low=float(np.log(2.0)))
"""Log of the seconds of minibatch SGD over those of the best asynchronous method, if speeds are ∝ 1/i² or steeper."""
NO_GAIN = Band(high=float(np.log(1.1)))
"""Log of the best time of methods that wait over the best of others, among equal workers; a record is some seconds."""


class Config(NamedTuple):
    """Settings; times are in units of the mean time in which all workers together compute n gradients."""

    num_nodes: int = 16
    exponents: tuple[float, ...] = (0.0, 1.0, 2.0)
    """Exponents a of speeds ∝ i^−a; phones are added."""
    latencies: tuple[float, ...] = (0.0, 1.0, 10.0)
    laws: tuple[str, ...] = ("fixed", "exponential")
    noise_ratio: float = 64.0
    """s = σ²/ε."""
    gradients: int = 2048
    """That a run may use: those that change a model. A target that is reached later counts as not reached."""
    shares: tuple[float, ...] = (1.0, 0.25)
    """Of s, put into the formulas for m, S and R instead of s; the best is taken."""
    dimension: int = 256
    condition: float = 10.0
    share: float = 1e-3
    """ε over ‖∇f‖² at the start."""
    step_sizes: tuple[float, ...] = tuple(2.0**-k for k in range(9))
    """Over 1/L."""
    records: int = 256
    num_tuning: int = 2
    num_seeds: int = 5
    seed: int = 0


QUICK = Config(
    exponents=(2.0,),
    latencies=(0.0, 10.0),
    laws=("fixed",),
    shares=(0.25,),
    step_sizes=tuple(2.0**-k for k in range(0, 9, 2)),
    num_seeds=3,
)


class Cell(NamedTuple):
    """One place in the diagram."""

    law: str
    speeds: str
    latency: float


def seconds_of(speeds: str, n: int, seed: int) -> np.ndarray:
    """Return h, with ``Σ 1/h_i = n``."""
    if speeds == PHONES:
        h = np.asarray(devices.fitted(n, seed).seconds_per_sample, np.float64)
    else:
        h = np.arange(1, n + 1.0) ** float(speeds)
    return h * (1.0 / h).mean()


def clock_of(law: str, h: np.ndarray) -> clocks.Clock:
    """Return the clock of gradients."""
    return clocks.deterministic(h) if law == "fixed" else clocks.poisson(1.0 / h)


def task_of(config: Config) -> tuple[Task, float]:
    """Return the quadratic and ε: curvatures from 1/condition to 1, start at distance 1 in every coordinate."""
    curvature = np.geomspace(1 / config.condition, 1.0, config.dimension)
    epsilon = config.share * float(np.square(curvature).sum())
    std = np.sqrt(config.noise_ratio * epsilon / config.dimension)
    targets = np.zeros((config.num_nodes, config.dimension))
    return tasks.quadratic(targets, curvature=curvature[None], noise_std=std), epsilon


def first_m(h: np.ndarray, cell: Cell, noise_ratio: float) -> int:
    """Return the m with the least mean time of a step times 1 + s/m."""
    rng, exponential = np.random.default_rng(0), cell.law == "exponential"
    drawn = rng.exponential(size=(2000, h.size)) if exponential else np.ones((1, h.size))
    steps = np.sort(h * drawn, axis=1).mean(axis=0) + 2 * cell.latency
    return 1 + int(np.argmin(steps * (1 + noise_ratio / np.arange(1, h.size + 1))))


class Planned(NamedTuple):
    """A plan cut after the last gradient that its run may use, and when each of its events is over."""

    plan: Timeline
    ends: np.ndarray


def plan_of(method: str, config: Config, cell: Cell, share: float, seed: int) -> Planned:
    """Plan one run of as many gradients as it may use; a share of s determines m, S or R."""
    n, total, noise_ratio = config.num_nodes, config.gradients, share * config.noise_ratio
    h = seconds_of(cell.speeds, n, seed)
    clock, latency = clock_of(cell.law, h), cell.latency
    size = max(1, int(np.ceil(noise_ratio)))
    if method in ("D-PSGD", "AD-PSGD"):
        return _network(method, config, cell, h, seed)
    builders: dict[str, tuple[Callable[..., Timeline], dict[str, Any]]] = {
        "minibatch": (timeline.m_synchronous, {"wait_for": n}),
        "m-synchronous": (timeline.m_synchronous, {"wait_for": first_m(h, cell, noise_ratio)}),
        "Rennala": (timeline.rennala, {"batch_size": size, "stop": True}),
        "Ringmaster": (timeline.ringmaster, {"max_delay": size, "stop": True}),
        "asynchronous SGD": (timeline.ringmaster, {"max_delay": None}),
    }
    build, settings = builders[method]
    duration = _guess(method, h, latency, settings, total)
    return _until(total, duration, lambda long: build(n, long, compute=clock, latency=latency, seed=seed, **settings))


def gradients_of(plan: Timeline) -> np.ndarray:
    """Count the gradients up to each event, those of a server's worker or of a node of AD-PSGD."""
    acting = np.asarray(plan.xs["nodes"]) < plan.properties.num_nodes
    return np.cumsum(acting.reshape(len(plan), -1).sum(axis=1))


def _until(total: int, duration: float, build: Callable[[float], Timeline]) -> Planned:
    """Plan longer and longer until there are enough gradients, and cut after the last of them."""
    while (counts := gradients_of(plan := build(duration)))[-1] < total:
        duration *= 1.5
    plan = plan[: 1 + int(np.searchsorted(counts, total))]
    return Planned(plan, np.asarray(timeline.event_times(plan)))


def _guess(method: str, h: np.ndarray, latency: float, settings: dict[str, Any], total: int) -> float:
    """Return about how many seconds so many gradients take."""
    if "wait_for" in settings:
        m = settings["wait_for"]
        return 1.2 * total / m * (np.sort(h)[m - 1] + 2 * latency)
    if method == "Rennala":
        return 1.2 * total / settings["batch_size"] * (settings["batch_size"] / h.size + h.min() + 2 * latency)
    return 1.2 * total / float((1 / (h + 2 * latency)).sum())


def _network(method: str, config: Config, cell: Cell, h: np.ndarray, seed: int) -> Planned:
    n, total = config.num_nodes, config.gradients
    side = int(np.sqrt(n))
    graph = topology.torus(side, n // side)
    if method == "D-PSGD":
        rounds = total // n
        rng = np.random.default_rng(seed)
        steps = h * (rng.exponential(size=(rounds, n)) if cell.law == "exponential" else np.ones((rounds, n)))
        ends = barrier_ends([graph], steps, latency=cell.latency).max(axis=1)
        plan = timeline.rounds(mixing.metropolis(graph), rounds)
        return Planned(plan, ends)
    waits = {"atomic": True} if cell.latency == 0 else {"atomic": False, "latency": cell.latency}
    rate = 1 / (1 + 2 * cell.latency)
    duration, clock = 1.2 * total / n + 4 * cell.latency, clock_of(cell.law, h)
    build = functools.partial(timeline.pairwise, graph, compute=clock, communicate=rate, seed=seed, **waits)
    return _until(total, duration, build)


def protocol_of(method: str, task: Task, step: Any) -> Protocol:
    """Return the protocol with a step size."""
    build = {"D-PSGD": dpsgd, "AD-PSGD": ad_psgd}.get(method, fedbuff)
    return build(task, Partial(optax.sgd, step))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _norms(form: Any, method: str, every: int, task: Task, shared: Any, xs: Any, steps: Any, keys: Any) -> Any:
    """Return ‖∇f‖² of ``(seeds, step sizes, records)``."""
    event, draw, facts = form
    curvature = task.data["curvature"][0]
    x0 = with_slots(jnp.ones((facts.num_rows, curvature.size), curvature.dtype), facts)

    def one(key: Any, xs: Any, step: Any) -> Any:
        protocol, plan = protocol_of(method, task, step), Timeline(xs, shared, event, facts, draw)
        start = protocol.init(key, x0)
        _, records = run_events(key, protocol, plan, start, record_every=every, observers=[observe.models()])
        return jnp.square(curvature[None] * records.values["model"].mean(axis=1)).sum(axis=-1)

    def of_seed(arguments: Any) -> Any:
        key, xs = arguments
        return jax.vmap(lambda step: one(key, xs, step))(steps)

    return jax.lax.map(of_seed, (keys, xs))


def times_of(method: str, config: Config, cell: Cell, share: float = 1.0) -> np.ndarray:
    """Return seconds until the target ``(seeds, step sizes)``, tuning seeds first; infinite if it is not reached."""
    count = config.num_tuning + config.num_seeds
    planned = [plan_of(method, config, cell, share, config.seed + number) for number in range(count)]
    first, facts = planned[0].plan, planned[0].plan.properties
    length = _common_length([len(plan.ends) for plan in planned], config.gradients)
    each = max(length // config.records, 1)
    length = -(-length // each) * each
    slots = max(plan.plan.properties.num_slots for plan in planned)
    # Equal numbers of slots are one program; these are seldom too few.
    most = max(slots, SLOTS * config.num_nodes if slots > 2 else slots)
    facts = Properties(facts.num_nodes, facts.num_rows, method, num_slots=most, tags=facts.tags)
    # Events after the budget take forever, so it does not matter which they are.
    xs = jax.tree.map(
        lambda *leaves: jnp.asarray(np.stack([_extended(leaf, length) for leaf in leaves])),
        *(plan.plan.xs for plan in planned),
    )
    task, epsilon = task_of(config)
    keys, steps = jax.random.split(jax.random.key(config.seed), count), jnp.asarray(config.step_sizes)
    form = (first.event, first.draw, facts)
    norms = np.asarray(_norms(form, method, each, task, first.shared, xs, steps, keys))
    found = np.full(norms.shape[:2], np.inf)
    for number, plan in enumerate(planned):
        ends = np.append(plan.ends, np.full(length - len(plan.ends), np.inf))
        at = np.minimum(np.arange(1, norms.shape[2] + 1) * each, length) - 1
        below = norms[number] <= epsilon
        found[number] = np.where(below.any(axis=1), ends[at][below.argmax(axis=1)], np.inf)
    return found


def _common_length(lengths: Sequence[int], total: int) -> int:
    """Return the number of events of one program; if seeds differ, one of few, so that cells share programs."""
    most, quarter = max(lengths), max(total // 4, 1)
    return most if min(lengths) == most else -(-most // quarter) * quarter


def _extended(leaf: np.ndarray, length: int) -> np.ndarray:
    return np.pad(leaf, [(0, length - len(leaf))] + [(0, 0)] * (np.ndim(leaf) - 1), mode="edge")


class Tuned(NamedTuple):
    """The best setting of a method, by its mean time on tuning seeds."""

    tuning: float
    seconds: np.ndarray
    """On the other seeds."""
    step_size: float
    share: float


def tuned(method: str, config: Config, cell: Cell) -> Tuned:
    """Choose step size and share of s on tuning seeds."""
    found = []
    for share in config.shares if method in WITH_SIZE else (1.0,):
        times = times_of(method, config, cell, share)
        means = times[: config.num_tuning].mean(axis=0)
        best = int(np.argmin(means))
        seconds = times[config.num_tuning :, best]
        found.append(Tuned(float(means[best]), seconds, config.step_sizes[best], share))
    return min(found, key=lambda one: one.tuning)


def run(config: Config) -> xr.Dataset:
    """Fill the diagram."""
    speeds = [f"{power:g}" for power in config.exponents] + [PHONES]
    axes = ("law", "speeds", "latency", "method")
    coordinates = {"law": list(config.laws), "speeds": speeds, "latency": list(config.latencies)}
    grid = [Cell(*place) for place in itertools.product(config.laws, speeds, config.latencies)]
    best = [[tuned(method, config, cell) for method in METHODS] for cell in grid]
    shape = (len(config.laws), len(speeds), len(config.latencies), len(METHODS))

    def stacked(field: str) -> np.ndarray:
        values = np.array([[getattr(one, field) for one in row] for row in best])
        return values.reshape(*shape, *values.shape[2:])

    found = xr.Dataset(
        {name: (axes, stacked(name)) for name in ("tuning", "step_size", "share")}
        | {"seconds": ((*axes, "seed"), stacked("seconds"))},
        coordinates | {"method": list(METHODS)},
        {"num_nodes": config.num_nodes, "noise_ratio": config.noise_ratio, "target": config.share},
    )
    here = [cell for cell, _ in cells(found)]
    found["gain"] = (*axes[:-1], "seed"), np.reshape([gain(cell) for cell in here], (*shape[:-1], config.num_seeds))
    found["leaders"] = axes[:-1], np.reshape([leaders(cell) for cell in here], shape[:-1])
    return found


def best_of(cell: xr.Dataset, methods: Sequence[str]) -> str:
    """Return the method that was fastest on the tuning seeds."""
    return str(min(methods, key=lambda method: float(cell.tuning.sel({"method": method}))))


def log_ratio(cell: xr.Dataset, one: str, other: str) -> np.ndarray:
    """Return log(seconds of one / seconds of the other) for each seed; NaN if neither got there."""
    with np.errstate(invalid="ignore"):
        return np.log(cell.seconds.sel({"method": one}).values) - np.log(cell.seconds.sel({"method": other}).values)


def gain(cell: xr.Dataset) -> np.ndarray:
    """Return the log of what the best asynchronous method gains on the best that waits, for each seed."""
    return log_ratio(cell, best_of(cell, SYNCHRONOUS), best_of(cell, ASYNCHRONOUS))


def leaders(cell: xr.Dataset) -> str:
    """Return the method that was fastest on tuning seeds, and those that it does not beat by an interval above 0."""
    best = best_of(cell, METHODS)
    against = {other: decide(log_ratio(cell, other, best), above(0.0)) for other in METHODS if other != best}
    beaten = {other for other, verdict in against.items() if verdict.word == "reproduced" or _alone(verdict)}
    return ", ".join([best, *(other for other in against if other not in beaten)])


def _alone(verdict: Verdict) -> bool:
    """Return whether only the faster of two methods got there, with every seed."""
    return verdict.missing == 0 and bool(np.isposinf(verdict.mean))


def table(dataset: xr.Dataset) -> list[Row]:
    """Claims first, then gains of asynchrony beside what the theorems say of servers without latency."""
    rows, n = [], int(dataset.attrs["num_nodes"])
    for cell, name in cells(dataset):
        speeds, latency = str(cell.speeds.values), float(cell.latency)
        power = np.nan if speeds == PHONES else float(speeds)
        equal = latency == 0 and power == 0 and cell.law == "fixed"
        rows.append(_row(f"waiting / asynchronous, {name}", gain(cell), NO_GAIN if equal else None))
        if latency > 0:
            continue
        h, s = seconds_of(speeds, n, 0), float(dataset.attrs["noise_ratio"])
        rennala = time_complexity.rennala_time(s, h)
        for method, expected, band in (
            ("minibatch", time_complexity.minibatch_time(s, h), LOSS_OF_ALL if power >= 2 else None),
            ("m-synchronous", time_complexity.m_synchronous_time(s, h)[0], Band(high=float(np.log(1 + np.log(n))))),
        ):
            ratio = log_ratio(cell, method, best_of(cell, ASYNCHRONOUS))
            known = expected / rennala if cell.law == "fixed" else np.nan
            rows.append(_row(f"{method} / best asynchronous, {name}", ratio, band, known))
    return rows


def cells(dataset: xr.Dataset) -> list[tuple[xr.Dataset, str]]:
    """Return all cells with names, in the order of the axes."""
    found = []
    for law, speeds, latency in itertools.product(*(dataset[name].values for name in ("law", "speeds", "latency"))):
        words = PHONES if speeds == PHONES else f"a = {speeds}"
        cell = dataset.sel(law=law, speeds=speeds, latency=latency)
        found.append((cell, f"{law}, {words}, τ = {latency:g}"))
    return found


def _row(quantity: str, logs: np.ndarray, band: Band | None, predicted: float = np.nan) -> Row:
    """Write the mean ratio over the seeds with which both methods got there, and count the others."""
    known = logs[np.isfinite(logs)]
    words = "measured" if band is None else f"log of the ratio: {decide(logs, band)}"
    missing = {
        "without the first method": np.isposinf(logs),
        "without the second": np.isneginf(logs),
        "without both": np.isnan(logs),
    }
    if known.size < logs.size:
        never = (f"{int(seeds.sum())} {name}" for name, seeds in missing.items() if seeds.any())
        words += f"; {logs.size - known.size} of {logs.size} seeds are not in the mean: " + ", ".join(never)
    return over_seeds(quantity, np.exp(known), predicted, words)
