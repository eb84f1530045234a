"""Claims on seconds: what servers of single gradients wait for, under fixed, random and drawn speeds of the workers."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import observe, timeline
from gossipjax.timeline import clocks

from ... import time_complexity
from ..claim import Axis, Claim, Observation, Sampling, Simulate, each, once, pointwise
from ..engine import runs

TYURIN = "Tyurin and Richtárik 2024, arXiv 2405.16218"
RINGMASTER = "Maranjyan, Tyurin and Richtárik 2025, arXiv 2501.16168"
FEW = np.array([1.0, 2.0, 4.0])
DRAWS = 100
WORKERS = 8
STEP, STD = 0.25, 2.0
TARGETS = np.array([4.0, 0.0, -2.0])


def _ends(plan: gj.Timeline, size: int) -> np.ndarray:
    """Return the seconds at which batches of equal size are complete."""
    return np.asarray(timeline.event_times(plan))[1:][size - 1 :: size]


def _collected(count: int, compute: np.ndarray, reach: np.ndarray) -> float:
    # Beyond the bound of 3 t*, so that a plan that violates it is measured.
    horizon = 5 * time_complexity.equilibrium_time(count, compute, reach)
    clock = clocks.deterministic(compute)
    plan = timeline.rennala(
        len(compute), horizon, compute=clock, batch_size=count, stop=True, latency=reach / 2, seed=0
    )
    return float(_ends(plan, count)[0])


def _collect(seed: int, count: float, replicas: int) -> Observation:
    del seed, replicas
    return Observation(np.array([_collected(int(count), FEW, np.zeros(3))]))


def _ratio(count: int, compute: np.ndarray, reach: np.ndarray) -> float:
    return _collected(count, compute, reach) / time_complexity.equilibrium_time(count, compute, reach)


def _ratios(seed: int, n: int, ways: bool) -> np.ndarray:
    """Return times of collecting in units of t*: the worst case, then draws of h (log-normal) and τ (exponential)."""
    rng = np.random.default_rng(seed)
    found = [_ratio(n + 1, np.ones(n), np.full(n, 1 + 1 / n) * ways)]
    for _ in range(DRAWS):
        count, compute, reach = int(rng.integers(1, 40)), rng.lognormal(0.0, 1.5, n), rng.exponential(size=n)
        found.append(_ratio(count, compute, reach * ways))
    return np.array(found)


def _slowest(ways: bool) -> Simulate:
    return each(lambda seed, n, replicas: Observation(np.array([_ratios(seed, int(n), ways).max()])))


def _fastest(seed: int, n: float, replicas: int) -> Observation:
    del replicas
    return Observation(np.array([min(_ratios(seed, int(n), ways).min() for ways in (False, True))]))


def _updates(seed: int, delay: float, replicas: int) -> Observation:
    """Return the longest time of R consecutive updates over its bound, of both variants and many draws."""
    del replicas
    rng, largest, limit = np.random.default_rng(seed), 0.0, int(delay)
    for number in range(DRAWS):
        compute = rng.lognormal(0.0, 1.5, int(rng.integers(2, 20)))
        bound = time_complexity.updates_time(limit, compute)
        clock, stop = clocks.deterministic(compute), bool(number % 2)
        plan = timeline.ringmaster(len(compute), 4 * bound, compute=clock, max_delay=limit, stop=stop, seed=0)
        moments = np.asarray(timeline.event_times(plan))
        largest = max(largest, float((moments[limit:] - moments[:-limit]).max() / bound))
    return Observation(np.array([largest]))


# Random times


def _first(seed: int, m: float, replicas: int) -> Observation:
    m = int(m)
    horizon = 1.5 * replicas * time_complexity.exponential_step(WORKERS, m) + 50.0
    plan = timeline.m_synchronous(WORKERS, horizon, compute=clocks.poisson(1.0), wait_for=m, seed=seed)
    return Observation(np.diff(_ends(plan, m))[:replicas])


def _pace(seed: int, n: float, replicas: int) -> Observation:
    """Return the seconds between updates if the first gradient counts and the others are stopped."""
    n = int(n)
    plan = timeline.ringmaster(
        n, 1.5 * replicas / n + 50.0, compute=clocks.poisson(1.0), max_delay=1, stop=True, seed=seed
    )
    return Observation(np.diff(np.asarray(timeline.event_times(plan)))[:replicas])


# Models


def _noise(seed: int, size: float, replicas: int) -> Observation:
    """Return squares of the server's model around the optimum, in equilibrium, of independent coordinates."""
    size, steps = int(size), 40
    plan = timeline.rennala(3, 60.0 * size + 60, compute=clocks.poisson(1.0), batch_size=size, stop=True, seed=seed)
    task = gj.tasks.quadratic(np.zeros((3, replicas)), noise_std=STD)
    start = np.zeros((1, replicas))
    path = runs(seed, 1, _sgd(task), plan[: 1 + steps * size], jnp.asarray(start), [observe.models()])["model"]
    return Observation(np.square(path.ravel()[-replicas:]))


def _noise_of(size: int | float) -> float:
    return STEP * STD**2 / (size * (2 - STEP))


def _sgd(task: gj.Task) -> gj.Protocol:
    return gj.fedbuff(task, Partial(optax.sgd, STEP))


def _own_data(seed: int, fair: float, replicas: int) -> Observation:
    """Return where workers of unequal speed with own optima end, without noise."""
    del replicas
    build = timeline.malenia if fair else timeline.rennala
    plan = build(3, 1000.0, compute=clocks.deterministic(FEW), batch_size=7 if not fair else 3, stop=True, seed=0)
    path = runs(seed, 1, _sgd(gj.tasks.quadratic(TARGETS[:, None])), plan, jnp.ones((1, 1)), [observe.models()])
    return Observation(np.array([path["model"].ravel()[-1]]))


def _end(fair: int | float) -> float:
    """Return the mean of all optima, or the mean over gradients: 4, 2 and 1 of the workers in 4 s."""
    return float(TARGETS.mean() if fair else np.array([4.0, 2.0, 1.0]) @ TARGETS / 7)


EXACT = once(1e-9)
RANDOM = Sampling(20_000, 4_000)
CLAIMS = (
    Claim(
        "rennala_collects",
        "Workers of 1, 2 and 4 s have S gradients when the S-th smallest of r h_i is reached: 1, 2, 4 s for 1, 3, 7.",
        TYURIN,
        Axis("gradients S", (1, 3, 7, 20, 100), (1, 3, 7)),
        "seconds",
        predict=pointwise(lambda count: time_complexity.collection_time(int(count), FEW)),
        simulate=each(_collect),
        sampling=EXACT,
        catches=("gradients of an older model that count", "workers that wait between gradients"),
    ),
    Claim(
        "collecting_takes_twice_equilibrium",
        "Without ways, collecting S gradients takes at most 2 t*, whatever the speeds of the workers.",
        "⌊2y⌋ ≥ y for y ≥ 1; " + TYURIN,
        Axis("workers n", (2, 10, 40, 100), (10,)),
        "longest time of the worst case and 100 draws, in units of t*",
        predict=lambda n: np.full(n.shape, 2.0),
        simulate=_slowest(ways=False),
        sampling=EXACT,
        catches=("workers that wait between gradients",),
        kind="upper",
    ),
    Claim(
        "collecting_with_ways_takes_thrice",
        "Collecting S gradients takes at most 3 t*, whatever the speeds and ways of the workers.",
        "⌊2y⌋ ≥ y for y ≥ 1; " + TYURIN,
        Axis("workers n", (2, 10, 40, 100), (10,)),
        "longest time of the worst case and 100 draws, in units of t*",
        predict=lambda n: np.full(n.shape, 3.0),
        simulate=_slowest(ways=True),
        sampling=EXACT,
        catches=("a latency that is paid for every gradient",),
        kind="upper",
    ),
    Claim(
        "collecting_takes_equilibrium",
        "Collecting S gradients takes at least the equilibrium time t*.",
        TYURIN,
        Axis("workers n", (2, 10, 40), (10,)),
        "shortest time of the worst cases and 200 draws, in units of t*",
        predict=lambda n: np.full(n.shape, 1.0),
        simulate=each(_fastest),
        sampling=EXACT,
        catches=("a gradient that counts twice", "a latency that is not paid"),
        kind="lower",
    ),
    Claim(
        "ringmaster_lemma",
        "R consecutive updates of Ringmaster take at most 2 min_m (1 + R/m)/mean(1/h), with and without stops.",
        RINGMASTER,
        Axis("delay R", (1, 4, 16, 64), (4,)),
        "longest time of 100 draws, in units of the bound",
        predict=lambda delay: np.full(delay.shape, 1.0),
        simulate=each(_updates),
        sampling=EXACT,
        catches=("workers whose gradient was ignored and who do not begin anew",),
        kind="upper",
    ),
    Claim(
        "first_m_of_exponentials",
        "If gradients take exponential times, the first m of 8 workers are done after H_8 − H_{8−m} on average.",
        "order statistics of exponential times",
        Axis("m", (1, 2, 4, 8), (2, 8)),
        "seconds a step, in mean times of a gradient",
        predict=pointwise(lambda m: time_complexity.exponential_step(WORKERS, int(m))),
        simulate=each(_first),
        sampling=RANDOM,
        catches=("a worker that counts twice in a step", "gradients that go on after a step"),
    ),
    Claim(
        "stopping_loses_nothing",
        "If gradients take exponential times, stopping n − 1 of n at every update loses none: n updates a mean time.",
        "memorylessness",
        Axis("workers n", (2, 8, 32), (8,)),
        "seconds between updates",
        predict=lambda n: 1.0 / n,
        simulate=each(_pace),
        sampling=RANDOM,
        catches=("stopped gradients that are still waited for",),
    ),
    Claim(
        "batches_divide_noise",
        "Rennala with SGD of step γ on x²/2 settles at E x² = γσ²/(S(2 − γ)).",
        "a fixed point of the second moment",
        Axis("gradients S", (1, 4, 16), (4,)),
        "mean square around the optimum",
        predict=pointwise(_noise_of),
        simulate=each(_noise),
        sampling=RANDOM,
        catches=("gradients of a batch at different models", "a sum instead of a mean", "one noise for a batch"),
    ),
    Claim(
        "own_data_needs_all_workers",
        "If workers differ in data, Malenia ends at the optimum of the mean, and Rennala at a mean weighted by speed.",
        "fixed points; " + TYURIN,
        Axis("0: Rennala, 1: Malenia", (0, 1), (0, 1)),
        "limit of the model",
        predict=pointwise(_end),
        simulate=each(_own_data),
        sampling=EXACT,
        catches=("weights by gradients instead of workers",),
    ),
)
