"""How old is a network's knowledge of an external source? Version age against size on four graphs.

There are two methods. The engine runs the network with version counters. If that takes too long, the dual of the age is
sampled: X is Poisson(λ_e T), where T is the first passage from a node to the source along reversed edges with
exponential times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
import scipy.sparse as sp
import xarray as xr
from scipy.sparse.csgraph import dijkstra

from experiments.lib import stationary
from experiments.lib.report import Row
from experiments.lib.store import mean_and_interval
from gossipjax import Timeline, topology
from gossipjax.observe import staleness_by_source
from gossipjax.timeline import version_age
from theory import age, scaling

CLAIM = "version age grows as ln n on complete and random regular graphs, as n^(1/2) on the ring, n^(1/3) on the torus"
ONE_DEVICE = True

GRAPHS = ("complete", "random 4-regular", "torus", "ring")
RATES = {"version_rate": 1.0, "source_rate": 1.0, "gossip_rate": 1.0}


class Config(NamedTuple):
    """Settings; sizes are squares, for the torus."""

    sizes: tuple[int, ...] = (16, 36, 64, 144, 256, 576, 1024)
    num_blocks: int = 400
    passage_sizes: tuple[int, ...] = (1024, 4096, 16_384, 65_536)
    passage_samples: int = 1500
    seed: int = 0


QUICK = Config(sizes=(16, 64, 144, 324), num_blocks=100, passage_sizes=(324, 1024), passage_samples=200)


def graph(name: str, n: int, seed: int) -> topology.Topology | int:
    """Return the network without its source, or n if all nodes are peers."""
    side = round(n**0.5)
    match name:
        case "ring":
            return topology.ring(n)
        case "torus":
            return topology.torus(side, side)
        case "random 4-regular":
            return topology.random_regular(n, 4, seed=seed + n, tries=20)
        case _:
            return n


def exact(name: str, n: int) -> float:
    """Compute the mean version age by the recursion over sizes of sets; NaN if the graph has none."""
    if name == "complete":
        return age.version_age_complete(n, **RATES)
    return age.version_age_ring(n, **RATES) if name == "ring" else np.nan


def rough(name: str, n: int) -> float:
    """Return a rough mean age, which sets the length of the run."""
    return {"torus": n ** (1 / 3), "random 4-regular": 1.5 * np.log(n)}.get(name) or exact(name, n)


def plans(peers: topology.Topology | int, n: int, plan: stationary.Schedule, seed: int) -> Iterator[Timeline]:
    """Plan chunk after chunk; Poisson clocks have no memory, so independent plans form one long run."""
    duration = (plan.chunk + 6 * plan.chunk**0.5 + 100) / (n + 2)
    for number in range(plan.chunks):
        yield version_age(peers, duration, seed=seed + number, **RATES)[: plan.chunk]


def measured(name: str, n: int, config: Config) -> np.ndarray:
    """Measure the mean age over nodes in blocks of four mean ages, ``(blocks,)``; the source is node n."""
    events = rough(name, n) * (n + 2)
    plan = stationary.schedule(n, record=n, memory=4 * events, burn_in=8 * events, units=1)
    plan = plan._replace(blocks=config.num_blocks, sources=1)
    seed = config.seed + 1_000_000 * GRAPHS.index(name) + 10_000 * config.sizes.index(n)
    chunks = plans(graph(name, n, config.seed), n, plan, seed)
    records = stationary.records(jax.random.key(config.seed), chunks, [n], staleness_by_source(), plan.record_every)
    return stationary.blocks(records["staleness_of_source"], plan)[:, 0]


def passages(name: str, n: int, config: Config) -> np.ndarray:
    """Draw independent samples of ``λ_e T``, ``(samples,)``, by Dijkstra's algorithm on reversed edges."""
    peers = graph(name, n, config.seed)
    assert isinstance(peers, topology.Topology)
    rng = np.random.default_rng([config.seed, GRAPHS.index(name), n])
    degrees = np.bincount(peers.senders, minlength=n)
    means = degrees[peers.senders] / RATES["gossip_rate"]
    reverse = sp.csr_array((means, (peers.receivers, peers.senders)), shape=(n, n))
    scale, times = reverse.data.copy(), np.empty(config.passage_samples)
    for sample in range(config.passage_samples):
        reverse.data = rng.exponential(scale)
        from_source, node = rng.exponential(n / RATES["source_rate"], n), int(rng.integers(n))
        # A path within the limit is the shortest, because all nodes beyond are farther than the limit.
        limit = 4 * rough(name, n)
        times[sample] = np.min(dijkstra(reverse, indices=node, limit=limit) + from_source)
        if times[sample] > limit:
            times[sample] = np.min(dijkstra(reverse, indices=node) + from_source)
    return RATES["version_rate"] * times


def fit(n: np.ndarray, mean: np.ndarray, error: np.ndarray) -> scaling.Comparison:
    """Fit ``a + b ln n`` and ``a n^b`` with known standard errors."""
    return scaling.compare(n, mean, error, laws=("logarithm", "power"))


def exponent(comparison: scaling.Comparison) -> tuple[float, float]:
    """Return the exponent b of the power, and the half-width of its 95 % interval."""
    power = comparison.fits[1]
    return power.exponent, float(power.intervals[-1, 1] - power.intervals[-1, 0]) / 2


def log_minus_power(comparison: scaling.Comparison) -> float:
    """Return the AIC of the logarithm minus that of the power; negative if the logarithm fits better."""
    logarithm, power = comparison.fits
    return logarithm.aic - power.aic


def run(config: Config) -> xr.Dataset:
    """Run the engine on all graphs, and the dual on the two without a recursion; fit both laws of growth."""
    sampled = ("random 4-regular", "torus")
    ages = np.stack([[measured(name, n, config) for n in config.sizes] for name in GRAPHS])
    dual = np.stack([[passages(name, n, config) for n in config.passage_sizes] for name in sampled])
    n = np.asarray(config.sizes, np.float64)
    error = ages.std(axis=2, ddof=1) / np.sqrt(ages.shape[2])
    fits = [fit(n, ages[g].mean(axis=1), error[g]) for g in range(len(GRAPHS))]
    lines = np.asarray([[exact(name, size) for size in config.sizes] for name in GRAPHS])
    of_exact = [exponent(fit(n, lines[g], error[g]))[0] if np.isfinite(lines[g]).all() else np.nan for g in range(4)]
    both = [_both(config, ages[GRAPHS.index(name)], dual[k]) for k, name in enumerate(sampled)]
    versions = {"units": "versions"}
    return xr.Dataset(
        {
            "age": (("graph", "n", "block"), ages, versions),
            "exact_age": (("graph", "n"), lines, versions),
            "passage_age": (("sampled_graph", "passage_n", "sample"), dual, versions),
            "exponent": ("graph", [exponent(one)[0] for one in fits]),
            "exponent_interval": ("graph", [exponent(one)[1] for one in fits]),
            "exponent_of_exact": ("graph", of_exact),
            "log_minus_power": ("graph", [log_minus_power(one) for one in fits]),
            "wide_exponent": ("sampled_graph", [exponent(one)[0] for one in both]),
            "wide_exponent_interval": ("sampled_graph", [exponent(one)[1] for one in both]),
            "wide_log_minus_power": ("sampled_graph", [log_minus_power(one) for one in both]),
        },
        {
            "graph": list(GRAPHS),
            "n": ("n", list(config.sizes), {"units": "nodes"}),
            "sampled_graph": list(sampled),
            "passage_n": ("passage_n", list(config.passage_sizes), {"units": "nodes"}),
        },
    )


def _both(config: Config, ages: np.ndarray, dual: np.ndarray) -> scaling.Comparison:
    """Fit the sizes of the engine and the larger sizes of the dual together."""
    parts = [(n, ages[k]) for k, n in enumerate(config.sizes)]
    parts += [(n, dual[k]) for k, n in enumerate(config.passage_sizes) if n > max(config.sizes)]
    mean = np.asarray([values.mean() for _, values in parts])
    error = np.asarray([values.std(ddof=1) / np.sqrt(values.size) for _, values in parts])
    return fit(np.asarray([n for n, _ in parts], np.float64), mean, error)


ORDERS = {"complete": np.nan, "random 4-regular": np.nan, "torus": 1 / 3, "ring": 1 / 2}
"""Exponents as n grows; NaN: the age grows as ln n."""


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare ages and exponents with those of the recursions, and the two laws of growth with each other."""
    rows = []
    for name in GRAPHS:
        at = dataset.sel(graph=name)
        mean, half = mean_and_interval(at.age.values, axis=1)
        source = "exact recursion" if np.isfinite(at.exact_age).all() else "engine; no closed form"
        for k, n in enumerate(dataset.n.values):
            rows.append(Row(f"age, {name}, n = {n:,}", float(mean[k]), float(half[k]), float(at.exact_age[k]), source))
    for name in dataset.sampled_graph.values:
        at = dataset.sel(sampled_graph=name)
        mean, half = mean_and_interval(at.passage_age.values, axis=1)
        for k, n in enumerate(dataset.passage_n.values):
            again = dataset.age.sel(graph=name, n=n).mean() if n in dataset.n.values else np.nan
            source = "engine" if np.isfinite(again) else "dual; no closed form"
            rows.append(Row(f"first passage, {name}, n = {n:,}", float(mean[k]), float(half[k]), float(again), source))
    return rows + _growth(dataset)


def _growth(dataset: xr.Dataset) -> list[Row]:
    """Report exponents and model selection; the prediction for complete graphs and rings is a fit to exact ages."""
    rows = []
    for name in GRAPHS:
        at = dataset.sel(graph=name)
        known = np.isfinite(float(at.exponent_of_exact))
        predicted = float(at.exponent_of_exact) if known else ORDERS[name]
        source = "same fit to the exact ages" if known else "order as n → ∞" if name == "torus" else "none: ln n"
        rows.append(Row(f"exponent b, {name}", float(at.exponent), float(at.exponent_interval), predicted, source))
        label = f"AIC(a + b ln n) − AIC(a n^b), {name}"
        rows.append(Row(label, float(at.log_minus_power), np.nan, np.nan, scaling.preferred(float(at.log_minus_power))))
    for name in dataset.sampled_graph.values:
        at = dataset.sel(sampled_graph=name)
        label = f"exponent b, {name}, with first passage"
        source = "order as n → ∞" if name == "torus" else "none: ln n"
        rows.append(Row(label, float(at.wide_exponent), float(at.wide_exponent_interval), ORDERS[str(name)], source))
        difference = float(at.wide_log_minus_power)
        label = f"AIC difference, {name}, with first passage"
        rows.append(Row(label, difference, np.nan, np.nan, scaling.preferred(difference)))
    return rows
