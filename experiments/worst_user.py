"""How far from the optimum of all is the worst user, and from when on, as the network grows and users' data differ?

Asynchronous push-gossip SGD on quadratics. Half of the users have the optimum b̄ + s, half b̄ − s, and all start at the
same model. "The worst user" has three readings, with three answers to how much gossip it needs:

* *bias*: the largest ``|E x_i − b̄|``. It settles at κs, ``κ = μh/(μh + λn/(2(n−1)))``: bounded for every λ, and
  vanishing as n grows if and only if λ grows without bound, however slowly;
* *root mean square*: the largest ``√E (x_i − b̄)²``, with the noise of gradients and of meetings. Constant λ bounds it,
  too. Both are exact at all times (:mod:`theory.users`), so the time ``T_ε(n)`` from which they stay below ε is, too;
* *worst at one instant*: ``E max_i |x_i − b̄|``. The user who has heard nobody for longest has heard nobody for
  ``H_n/λ``, and trains alone meanwhile. So constant λ lets it drift to its own optimum as n grows; it needs λ =
  Ω(log n). That is enough if updates are at least c > 0 apart. Poisson clocks (c = 0) leave about ``ln n/ln ln n``
  updates to the unluckiest user in a bounded time, so that its distance still grows, slowly.

Models have several coordinates with the same targets, and distances are root mean squares over coordinates.

Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (convergence of individual user models in finite time; parameters are
chosen here).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array, Bool

from experiments.lib.asynchronous import run_each, seed_keys, settled_mean, z_score
from experiments.lib.report import Row, over_seeds
from experiments.lib.store import mean_and_interval
from gossipjax import dpsgd, replicate, tasks
from gossipjax.observe import Observer, Snapshot, Variable
from gossipjax.timeline import clocks, push_gossip
from theory.users import longest_silence, stationary_users, users_at

CLAIM = "each user gets near the optimum of all with constant λ; the one that is worst at an instant needs λ = Ω(log n)"
ONE_DEVICE = True
POISSON, SHIFTED = clocks.poisson(1.0), clocks.shifted_exponential(0.5, 0.5)
SETTINGS = {
    "λ = 1": (lambda n: 1.0, POISSON),
    "λ = √ln n": (lambda n: float(np.sqrt(np.log(n))), POISSON),
    "λ = ln n": (lambda n: float(np.log(n)), POISSON),
    "λ = ln n, c = 0.5 s": (lambda n: float(np.log(n)), SHIFTED),
}
"""Pushes per user and second, and the clock of the updates, one per second on average."""
READINGS = {
    "bias": "bias of the worst user",
    "rms": "root mean square of the worst user",
    "largest": "worst at one instant",
}
EXACT = ("bias", "rms")


class Config(NamedTuple):
    """Settings; stationary values are averages from the time ``settled`` on."""

    sizes: tuple[int, ...] = (10, 32, 100, 316, 1000, 3162)
    dimension: int = 10
    spread: float = 1.0
    """s; b̄ is 0."""
    start: float = 2.0
    step_size: float = 0.2
    noise_std: float = 0.5
    epsilon: float = 0.7
    duration: float = 60.0
    settled: float = 30.0
    num_records: int = 60
    num_seeds: int = 8
    seed: int = 0


QUICK = Config(sizes=(10, 100, 1000), duration=30.0, settled=15.0, num_records=30, num_seeds=3)


def _measure(first: Bool[Array, " n"], snapshot: Snapshot) -> dict[str, Array]:
    squares = jnp.mean(jnp.square(snapshot.x), axis=1)
    groups = jnp.stack([first, ~first]).astype(squares.dtype)
    share = groups / jnp.sum(groups, axis=1, keepdims=True)
    return {
        "model": share @ jnp.mean(snapshot.x, axis=1),
        "square": share @ squares,
        "largest": jnp.sqrt(jnp.max(squares)),
    }


def distances(n: int) -> Observer:
    """Measure mean model and mean square of both halves, over users and coordinates, and the largest distance."""
    variables = (
        Variable("model", "mean model of a half of the users", dims=("group",)),
        Variable("square", "mean squared distance of a half of the users", dims=("group",)),
        Variable("largest", "largest distance of a user"),
    )
    return Observer(Partial(_measure, jnp.arange(n, dtype=jnp.int32) < n - n // 2), variables)


def _law(n: int, rate: float, config: Config) -> dict[str, Any]:
    return {
        "sizes": np.array([n - n // 2, n // 2]),
        "targets": np.array([config.spread, -config.spread]) - config.spread * (n % 2) / n,
        "push_rate": rate,
        "gradient_rate": 1.0,
        "curvature": 1.0,
        "step": config.step_size,
        "noise_std": config.noise_std,
    }


def worst(moments: Any) -> dict[str, np.ndarray]:
    """Return bias and root mean square of the worse half, by :class:`theory.users.Users`."""
    return {"bias": np.abs(moments.bias).max(-1), "rms": np.sqrt(moments.squared_distance.max(-1))}


def time_to(curve: np.ndarray, times: np.ndarray, epsilon: float) -> float:
    """Return the first time from which a curve stays at most ε; infinite if its end is above."""
    above = np.flatnonzero(curve > epsilon)
    if not above.size:
        return float(times[0])
    return float(times[above[-1] + 1]) if above[-1] + 1 < len(times) else np.inf


def record_times(config: Config) -> np.ndarray:
    """Return the times of the records after the start."""
    return np.linspace(0.0, config.duration, config.num_records + 1)[1:]


def one_setting(n: int, rate: float, clock: clocks.Clock, config: Config) -> xr.Dataset:
    """Run all seeds of one network, push rate and clock, and compute the curves that are exact for Poisson clocks."""
    law = _law(n, rate, config)
    each = np.repeat(law["targets"], law["sizes"])
    task = tasks.quadratic(np.outer(each, np.ones(config.dimension)), noise_std=config.noise_std)
    seeds = range(config.seed, config.seed + config.num_seeds)
    plans = [push_gossip(n, config.duration, compute=clock, gossip=rate, seed=seed) for seed in seeds]
    start = replicate(jnp.full(config.dimension, config.start), n)
    protocol = dpsgd(task, Partial(optax.sgd, config.step_size))
    keys = seed_keys(config.seed, config.num_seeds)
    records = run_each(protocol, plans, record_times(config), start, [distances(n)], keys)
    curves = worst(users_at(np.append(0.0, record_times(config)), start=config.start, **law))
    ends = worst(stationary_users(**law))
    found = records.assign({f"exact_{name}": ("record", curve) for name, curve in curves.items()})
    found = found.assign({f"settled_{name}": ((), float(end)) for name, end in ends.items()})
    if clock is not POISSON:
        found = found.assign(
            {name: np.nan * found[name] for kind in EXACT for name in (f"exact_{kind}", f"settled_{kind}")}
        )
    return found.assign(silence=((), float(longest_silence(n, gossip_rate=rate))))


def run(config: Config) -> xr.Dataset:
    """Run every number of users in all settings."""
    by_size = [
        xr.concat([one_setting(n, rate(n), clock, config) for rate, clock in SETTINGS.values()], "setting")
        for n in config.sizes
    ]
    coordinates = {
        "n": list(config.sizes),
        "setting": list(SETTINGS),
        "time": ("record", np.append(0.0, record_times(config)), {"units": "s"}),
    }
    facts = {name: getattr(config, name) for name in ("settled", "epsilon", "spread", "step_size", "dimension")}
    return xr.concat(by_size, "n").assign_coords(coordinates).assign_attrs(facts)


def curves(at: xr.Dataset, reading: str) -> np.ndarray:
    """Return the measured distance by a reading, ``(record, seed)``, of one network; the bias has one for all seeds."""
    if reading == "bias":  # of a mean over seeds, users and coordinates: no seed has a bias of its own
        return np.abs(at.model.mean("seed")).max("group").values[:, None]
    if reading == "rms":
        return np.sqrt(at.square.mean("seed").max("group").values)[:, None]
    return at.largest.transpose("record", "seed").values


def settled(at: xr.Dataset, reading: str) -> np.ndarray:
    """Return the stationary distance by a reading, for each seed."""
    late = at.isel(record=np.flatnonzero(at.time.values >= at.attrs["settled"]))
    if reading == "largest":
        return settled_mean(curves(at, reading), at.time.values, at.attrs["settled"])
    if reading == "rms":
        return np.sqrt(late.square.mean(["record", "group"]).values)
    sides = late.model.mean("record").transpose("group", "seed").values
    return 0.5 * (sides[0] - sides[1])


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare stationary distances and times T_ε with the exact ones; the instant's worst user has no exact law."""
    rows = []
    for n in dataset.n.values:
        for setting in dataset.setting.values:
            at, where = dataset.sel(n=n, setting=setting), f"n = {n}, {setting}"
            rows += [_end(at, reading, f"{name}, {where}") for reading, name in READINGS.items()]
            rows += [_time(at, reading, f"T_ε, {name}, {where}") for reading, name in READINGS.items()]
    return [row for row in rows if np.isfinite(row.measured)]


def _end(at: xr.Dataset, reading: str, label: str) -> Row:
    values = settled(at, reading)
    if reading in EXACT:
        law = float(at[f"settled_{reading}"])
        words = f"exact, z = {z_score(values, law):+.1f}" if np.isfinite(law) else "no exact law for c > 0"
        return over_seeds(label, values, law, words)
    alone = at.attrs["spread"] * (1 - np.exp(-at.attrs["step_size"] * float(at.silence)))
    words = f"no law; longest silence {float(at.silence):.2f} s, in which a user alone goes {alone:.2f} from b̄"
    if np.isinf(time_to(curves(at, reading).mean(axis=1), at.time.values, float(at.attrs["epsilon"]))):
        words += "; it does not stay below ε"
    return over_seeds(label, values, np.nan, words)


def _time(at: xr.Dataset, reading: str, label: str) -> Row:
    epsilon, times = float(at.attrs["epsilon"]), at.time.values
    mean, _ = mean_and_interval(curves(at, reading), axis=1)
    exact = np.nan
    if reading in EXACT and np.isfinite(at[f"settled_{reading}"]):
        exact = time_to(at[f"exact_{reading}"].values, times, epsilon)
    words = f"seconds until it stays below {epsilon:g}, at records"
    return Row(label, time_to(mean, times, epsilon), np.nan, exact, words)
