"""How does HADFL scale on real devices: how long are its cycles, what do devices do, and what does it cost?

Plans have 4 to 256 phones, with compute, bandwidth and latency from published traces if their files are available. A
cycle is as long as a unit of the slowest phone, because the common multiple of so many speeds would be longer. Rings
have two members, or a quarter of the phones. Two references are exact: training without waiting (the sum of all
speeds), and a barrier on a free network (n times the slowest speed); their ratio bounds the gain of any schedule. The
warm-up of one unit is not counted.

Formulas and defaults of HADFL are our design, because the paper's text was not available. The paper's arrays of powers
are of four devices.

Reference: Cao et al. 2021, arXiv 2111.08274.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.lib.hadfl_plans import DESIGN, STATES, duration_of, seconds_by_state, units_per_second
from experiments.lib.kept import kept_run
from experiments.lib.plexus_runs import kind_of, phones
from experiments.lib.report import Row, over_seeds
from gossipjax import systems
from gossipjax.devices import Devices
from gossipjax.systems._hadfl.tables import AVERAGED, BROADCAST, FRAGMENT, IN_FLIGHT, READ
from theory.check.policy import Band, Verdict, decide
from theory.hadfl import compute_bound

CLAIM = "HADFL with rings of two trains at nearly the sum of all speeds for every n; large rings wait"
RINGS = ("two", "a quarter")
FULL_SPEED = 0.95
"""Smallest share of the sum of all speeds that counts as nearly full speed."""


class Config(NamedTuple):
    """Settings."""

    sizes: tuple[int, ...] = (4, 16, 64, 256)
    cycles: int = 30
    local_steps: int = 5
    time_batch: int = 20
    model_bytes: int = 4 * 85_354
    num_seeds: int = 5
    seed: int = 0
    keep: str | None = None
    """Folder of finished plans."""


QUICK = Config(sizes=(4, 16, 64), cycles=10, num_seeds=3)


def members(ring: str, n: int) -> int:
    """Return N_p: two, or a quarter of n but at least two."""
    return 2 if ring == "two" else max(2, n // 4)


def run(config: Config) -> xr.Dataset:
    """Plan all sizes and rings, with different phones for each seed."""
    by_size = []
    for n in config.sizes:
        by_ring = []
        for ring in RINGS:
            seeds = range(config.seed, config.seed + config.num_seeds)
            by_ring.append(xr.concat([_kept(config, ring, n, seed) for seed in seeds], "seed"))
        by_size.append(xr.concat(by_ring, xr.DataArray(list(RINGS), dims="ring", name="ring")))
    dataset = xr.concat(by_size, xr.DataArray(list(config.sizes), dims="n", name="n"))
    data = kind_of(phones(config.sizes[0], config.seed))
    return dataset.assign_attrs(data=data, model_bytes=config.model_bytes, cycles=config.cycles, note=DESIGN)


def _kept(config: Config, ring: str, n: int, seed: int) -> xr.Dataset:
    settings = config._asdict() | {"experiment": "hadfl_scaling", "ring": ring, "n": n, "of": seed}
    for name in ("keep", "sizes", "num_seeds", "seed"):
        settings.pop(name)
    fleet = phones(n, seed)
    return kept_run(config.keep, settings, lambda _: _plan(config, members(ring, n), fleet, seed), fleet)


def _plan(config: Config, count: int, fleet: Devices, seed: int) -> xr.Dataset:
    """Plan a run of some units of the slowest phone, and measure it after the warm-up."""
    unit_s = 3.0 * config.local_steps * config.time_batch * fleet.seconds_per_sample
    slowest = float(unit_s.max())
    plan = systems.hadfl(
        fleet,
        duration_of(config.cycles, slowest, slowest),
        model_bytes=config.model_bytes,
        local_steps=config.local_steps,
        time_batch=config.time_batch,
        cycle=systems.HADFLCycle(max_hyperperiod=1.0),
        selection=systems.HADFLSelection(count=count),
        seed=seed,
    )
    history, n = plan.history, plan.num_nodes
    seconds = seconds_by_state(plan).sum(1)
    ended = plan.round_end_s.size
    fates = history.message_fate[history.transfer_kind[history.transfer_kind != FRAGMENT] == BROADCAST]
    facts = {
        "rate": units_per_second(plan),
        "full_rate": float(np.sum(1 / unit_s)),
        "barrier_rate": n / slowest,
        "bound": compute_bound(1 / unit_s),
        "cycle_s": (plan.round_end_s[-1] - history.start_s) / ended if ended else np.nan,
        "sync_s": history.sync_s,
        "bytes": plan.total_bytes(plan.end_s) / n / ended if ended else np.nan,
        "bytes_formula": bytes_of_cycle(n, count, config.model_bytes),
        "left_out": np.mean(history.cycle_outcome != AVERAGED),
        "read": np.mean(fates[fates != IN_FLIGHT] == READ),
    }
    fields = {name: ((), float(value)) for name, value in facts.items()}
    return xr.Dataset(fields | {"share": ("state", seconds / seconds.sum())}, {"state": list(STATES)})


def bytes_of_cycle(n: int, count: int, model_bytes: int) -> float:
    """Compute the bytes sent per device and cycle: a ring's fragments, a broadcast to the others, and a backup.

    ``(2 (N_p − 1) + (n − N_p) + 1) M/n``.
    """
    return (2 * (count - 1) + n - count + 1) * model_bytes / n


def at_full_speed(share: Float[np.ndarray, " seeds"]) -> Verdict:
    """Judge whether a system trains at nearly the sum of all speeds, from its share of it in each seed."""
    return decide(share, Band(low=FULL_SPEED))


def waits(share: Float[np.ndarray, " seeds"]) -> Verdict:
    """Judge whether a system trains at less than that."""
    return decide(share, Band(high=FULL_SPEED))


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare speeds with the two references; report cycles, what devices do, bytes, and the fate of broadcasts."""
    rows = []
    sizes = dataset.n.values.tolist()
    cases = [(ring, n) for ring in RINGS for n in sizes if ring == "two" or members(ring, n) > 2]
    for ring, n in cases:
        at = dataset.sel(ring=ring, n=n)
        share = (at.rate / at.full_rate).values
        words = f"nearly full speed: {at_full_speed(share)}" if ring == "two" else f"waits: {waits(share)}"
        rows.append(over_seeds(f"{_name(ring, n)}: units/s relative to the sum of speeds", share, 1.0, words))
    for ring, n in cases:
        rows += _costs(dataset.sel(ring=ring, n=n), _name(ring, n))
    for ring in RINGS:
        largest = int(dataset.n.max())
        at = dataset.sel(ring=ring, n=largest)
        for state in STATES:
            words = "share of device time after the warm-up"
            share = 100 * at.share.sel(state=state).values
            rows.append(over_seeds(f"{_name(ring, largest)}: % of time, {state}", share, source=words))
    return rows


def _costs(at: xr.Dataset, name: str) -> list[Row]:
    gain = (at.rate / at.barrier_rate).values
    words = "largest gain in units of training, without a barrier and communication"
    rows = [over_seeds(f"{name}: units/s relative to a barrier", gain, float(at.bound.mean()), words)]
    left = 100 * float(at.left_out.mean())
    words = f"one mean per T_sync; {left:.0f} % of synchronisations fall into a ring or end with the plan"
    rows.append(over_seeds(f"{name}: T_sync between means", (at.cycle_s / at.sync_s).values, 1.0, words))
    words = "(2 (N_p − 1) + (n − N_p) + 1) M/n; without broadcasts that the end of the plan cuts off"
    cost, formula = 1e-3 * at.bytes.values, 1e-3 * float(at.bytes_formula[0])
    rows.append(over_seeds(f"{name}: kB per device and mean", cost, formula, words))
    return [*rows, over_seeds(f"{name}: % of broadcasts read", 100 * at.read.values, source="the others came too late")]


def _name(ring: str, n: int) -> str:
    return f"n = {n}, N_p = {members(ring, n)}"
