"""At which bandwidths can HADFL reach the speed-ups of its paper?

Throughput is the number of samples that all devices train per second. HADFL is compared with data parallelism, which
has an all-reduce after every step, and with decentralized FedAvg, which has a barrier and an all-reduce after as many
local steps as the slowest device makes in a cycle of HADFL. There are two arrays of powers, messages as large as
ResNet-18 and VGG-16, and cycles of one local epoch or of a few steps of the slowest device. If communication is free,
the gain is that of training without a barrier, Σp/(n min p). This is less than the largest speed-ups of the abstract,
4.68 over data parallelism and 3.15 over FedAvg, which are of time to accuracy, not of throughput. Below the bandwidth
at which throughput alone gains as much, the network may explain them; above it, HADFL would have to need fewer samples
to the same accuracy.

The paper's text was not available: its link speeds and times per step, and the models and baselines of the two maxima,
are unknown, and formulas and defaults are our design. The time per sample is an assumption; half of it moves all curves
to twice the bandwidth, because there are no latencies here.

Reference: Cao et al. 2021, arXiv 2111.08274.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.lib.hadfl_plans import ARRAYS, DESIGN, PARAMETERS, duration_of, named, units_per_second
from experiments.lib.report import Row, over_seeds
from gossipjax import devices, systems
from gossipjax.devices import Devices
from theory.check.policy import Band, Verdict, around, decide
from theory.hadfl import compute_bound, ring_seconds

CLAIM = "On a free network HADFL trains 2.25 and 2 times as many samples per second; 3.15 and 4.68 need a slow one"
PAPER = {"data parallelism": 4.68, "FedAvg": 3.15}
"""Largest speed-ups in time to accuracy that the abstract claims, over "PyTorch distributed training" and over
"decentralized-FedAvg"."""
WITHIN = 0.01
"""Largest relative deviation from the bound that counts as reaching it."""


class Config(NamedTuple):
    """Settings."""

    powers: tuple[tuple[int, ...], ...] = ARRAYS
    parameters: tuple[tuple[str, int], ...] = tuple(PARAMETERS.items())
    bandwidths: tuple[float, ...] = (*(10 ** (6 + k / 6) for k in range(25)), 1e11, np.inf)
    """Bytes per second in each direction, increasing; the last is infinite."""
    cycle_steps: tuple[int, ...] = (195, 20)
    """Steps of the slowest device per cycle; the first is an epoch of a quarter of CIFAR-10."""
    batch: int = 64
    sample_s: float = 6e-4
    """Assumed seconds per sample of the fastest device, of the order of ResNet-18 on a V100."""
    ring_size: int = 2
    cycles: int = 100
    num_seeds: int = 5
    seed: int = 0


QUICK = Config(bandwidths=(1e6, 4e6, 2e7, 1e8, 4e8, 1e9, np.inf), cycle_steps=(195,), cycles=30, num_seeds=3)


def run(config: Config) -> xr.Dataset:
    """Plan the three systems for every array, model, cycle and bandwidth; seeds differ in HADFL's draws."""
    arrays = []
    for powers in config.powers:
        models = []
        for _, size in config.parameters:
            cycles = []
            for steps in config.cycle_steps:
                speeds = [_rates(config, powers, 4 * size, steps, bandwidth) for bandwidth in config.bandwidths]
                cycles.append(xr.concat(speeds, _axis("bandwidth", config.bandwidths)))
            models.append(xr.concat(cycles, _axis("steps", config.cycle_steps)))
        arrays.append(xr.concat(models, _axis("model", [name for name, _ in config.parameters])))
    dataset = xr.concat(arrays, _axis("array", [named(powers) for powers in config.powers]))
    slowest = [config.sample_s * config.batch * max(powers) / min(powers) for powers in config.powers]
    return dataset.assign(
        speedup=dataset.hadfl / dataset.other,
        bound=("array", [compute_bound(np.array(powers, np.float64)) for powers in config.powers]),
        step_s=("array", slowest),
        model_bytes=("model", [4 * size for _, size in config.parameters]),
        paper=("system", list(PAPER.values())),
    ).assign_attrs(
        num_nodes=len(config.powers[0]),
        sample_s=config.sample_s,
        batch=config.batch,
        ring_size=config.ring_size,
        note=DESIGN,
    )


def _axis(name: str, values) -> xr.DataArray:
    return xr.DataArray(list(values), dims=name, name=name)


def _rates(config: Config, powers: tuple[int, ...], model_bytes: int, steps: int, bandwidth: float) -> xr.Dataset:
    """Compute samples per second of HADFL, by seed, and of the other two systems, which are deterministic."""
    slowest = config.sample_s * max(powers) / min(powers)
    fleet = devices.from_powers(powers, seconds_per_sample=slowest / 3, bytes_per_second=bandwidth)
    seeds = range(config.seed, config.seed + config.num_seeds)
    samples = steps * config.batch
    plans = [_plan(config, fleet, model_bytes, steps, seed) for seed in seeds]
    hadfl = [samples * units_per_second(plan) for plan in plans]
    means = [plan.round_end_s.size / plan.history.cycle_sync_s.size for plan in plans]
    other = [_all_reduce(config, fleet, model_bytes, 1), _all_reduce(config, fleet, model_bytes, steps)]
    fields = {"hadfl": ("seed", hadfl), "means": ("seed", means), "other": ("system", other)}
    return xr.Dataset(fields, {"system": list(PAPER)})


def _plan(config: Config, fleet: Devices, model_bytes: int, steps: int, seed: int) -> systems.Plan:
    slowest = 3.0 * steps * config.batch * float(fleet.seconds_per_sample.max())
    return systems.hadfl(
        fleet,
        duration_of(config.cycles, slowest, slowest),
        model_bytes=model_bytes,
        local_steps=steps,
        time_batch=config.batch,
        cycle=systems.HADFLCycle(sync_s=slowest),
        selection=systems.HADFLSelection(count=config.ring_size),
        seed=seed,
    )


def _all_reduce(config: Config, fleet: Devices, model_bytes: int, steps: int) -> float:
    plan = systems.allreduce(fleet, 1, local_steps=steps, model_bytes=model_bytes, time_batch=config.batch)
    return plan.num_nodes * steps * config.batch / plan.end_s


def crossing(bandwidth: Float[np.ndarray, " b"], speedup: Float[np.ndarray, " b"], level: float) -> float:
    """Return the largest bandwidth at which a speed-up reaches a level, by interpolation of logarithms.

    Args:
        bandwidth: increasing and finite.
        speedup: speed-up at each bandwidth.
        level: level of the speed-up.

    Returns:
        The bandwidth; NaN if the level is never reached, or is reached at the largest bandwidth.
    """
    reached = np.flatnonzero(speedup >= level)
    if not reached.size or reached[-1] == speedup.size - 1:
        return np.nan
    pair = slice(reached[-1] + 1, reached[-1] - 1 if reached[-1] else None, -1)  # speed-ups increase along this order
    return float(np.exp(np.interp(np.log(level), np.log(speedup[pair]), np.log(bandwidth[pair]))))


def free_crossing(level: float, bound: float, model_bytes: float, n: int, seconds: float) -> float:
    """Compute the same bandwidth if rings and broadcasts of HADFL take no time.

    The speed-up is then ``bound · (1 + 2 (n − 1) S/(n B)/t)`` for t seconds of training between two all-reduces.

    Args:
        level: level of the speed-up, above the bound.
        bound: Σp/(n min p).
        model_bytes: S.
        n: devices.
        seconds: t, seconds of the slowest device.
    """
    return ring_seconds(n, model_bytes, 1.0, 0.0) / (seconds * (level / bound - 1))


def reaches(speedup: Float[np.ndarray, " seeds"], bound: float) -> Verdict:
    """Judge whether the speed-up on a free network is that of training without a barrier, over seeds."""
    return decide(speedup, around(bound, WITHIN))


def falls_short(speedup: Float[np.ndarray, " seeds"], paper: float) -> Verdict:
    """Judge whether the speed-up on a free network is less than the paper's largest, over seeds."""
    return decide(speedup, Band(high=float(np.nextafter(paper, 0.0))))


def table(dataset: xr.Dataset) -> list[Row]:
    """Report speed-ups on a free network, and the bandwidths above which the paper's maxima are out of reach."""
    rows, n = [], int(dataset.attrs["num_nodes"])
    for system in dataset.system.values:
        for array in dataset.array.values:
            at = dataset.sel(array=array, system=system, bandwidth=np.inf).isel(model=0, steps=0)
            gain, bound, paper = at.speedup.values, float(at.bound), float(at.paper)
            words = f"Σp/(n min p), without any communication; here links of 1 TB/s; {reaches(gain, bound)}"
            rows.append(over_seeds(f"speed-up over {system}, {array}, free network", gain, bound, words))
            words = f"the paper's, in time to accuracy, of an array not known; ours is less: {falls_short(gain, paper)}"
            rows.append(over_seeds(f"the same beside the paper's largest, {array}", gain, paper, words))
    for array in dataset.array.values:
        for steps in dataset.steps.values.tolist():
            at = dataset.sel(array=array, steps=steps).isel(model=0, bandwidth=0)
            where = f"{1e-6 * float(at.bandwidth):g} MB/s"
            words = "more samples do not replace means: throughput is not progress"
            rows.append(over_seeds(f"means per cycle at {where}, {array}, {steps} steps", at.means.values, 1.0, words))
    finite = dataset.isel(bandwidth=np.isfinite(dataset.bandwidth.values))
    for system in dataset.system.values:
        for array in dataset.array.values:
            for model in dataset.model.values:
                for steps in dataset.steps.values.tolist():
                    at = finite.sel(system=system, array=array, model=model, steps=steps)
                    rows.append(_crossing(at, f"{system}, {array}, {model}, {steps} steps", n))
    return rows


def _crossing(at: xr.Dataset, name: str, n: int) -> Row:
    paper, speedup = float(at.paper), at.speedup.transpose("seed", "bandwidth").values
    levels = [crossing(at.bandwidth.values, values, paper) for values in speedup]
    seconds = float(at.step_s) * (1 if str(at.system.values) == "data parallelism" else int(at.steps))
    free = free_crossing(paper, float(at.bound), float(at.model_bytes), n, seconds)
    words = f"MB/s below which throughput gains {paper:g}; predicted: if HADFL's rings cost nothing"
    return over_seeds(f"MB/s: {name}", 1e-6 * np.array(levels), 1e-6 * free, words)
