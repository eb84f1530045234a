"""Which topology should these devices use? Seconds to three accuracies, on phones, in a data centre, and at the edge.

Rounds to an accuracy are exact: of averaging (the share of the first disagreement that is left), and of a quadratic
with one label a node, where nodes train before they mix and sparse networks may never get there. The seconds of these
rounds are planned message by message, behind barriers, with shared bandwidth. Every draw has its own devices, its own
random networks and its own labels.

Phones are those of :func:`gossipjax.devices.fitted`. The other two kinds are made up: a data centre of nearly equal
machines at 10 Gbit/s, and edge devices whose speeds and bandwidths (20 Mbit/s up, four times as much down) are
log-normal. Claim and bands were written before the first run; the seconds of usual graphs on one draw of phones had
been seen. What networks that change from round to round gain was noticed in the first run, and is measured only.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import gossipjax as gj
from experiments.lib.in_seconds import (
    CENTRE,
    EDGE,
    GOALS,
    PHONES,
    Load,
    changing_networks,
    devices_of,
    fixed_networks,
    labels_of,
    pace_of,
    planned_for,
    round_ends,
    rounds_to,
    seconds_of,
)
from experiments.lib.report import Row, over_seeds
from gossipjax import design, mixing, topology
from theory.check.policy import Band, decide

CLAIM = (
    "Which topology is fastest depends on devices and accuracy: none is within 1.5 times the best everywhere; on "
    "phones that of the fewest rounds is not the fastest, in a data centre it nearly is"
)
KINDS = (PHONES, CENTRE, EDGE)
LEVELS = ("rough", "medium", "fine")
NEAR = 1.2
"""Ratio of seconds from which on one network is clearly slower than another."""
EVERYWHERE = 1.5
"""Within this ratio of the best, a network would do."""


class Config(NamedTuple):
    """Settings."""

    num_nodes: int = 32
    num_labels: int = 8
    """Of equally many nodes each."""
    load: Load = Load()
    consensus: tuple[float, float, float] = (1e-1, 1e-2, 1e-4)
    """Shares of the disagreement at the start that are left."""
    quadratic: tuple[float, float, float] = (1.0, 0.1, 0.01)
    """Mean ‖x − b̄‖²; labels are unit vectors, and every coordinate starts at 2."""
    step: float = 0.05
    """Share of the way to its own label that a node goes in a round."""
    horizon: int = 3000
    planned: int = 48
    """Rounds that are planned; later ones take the mean of their second half."""
    num_seeds: int = 5
    seed: int = 0


QUICK = Config(num_nodes=16, planned=16, num_seeds=3)


def networks(n: int, labels: np.ndarray, seed: int) -> dict[str, list[Any]]:
    """Return cycles of mixing matrices by name; fixed networks have a single one."""
    graphs = {
        "random tree": topology.random_tree(n, seed=seed),
        "small world": topology.watts_strogatz(n, 4, 0.2, seed=seed),
        "scale-free": topology.barabasi_albert(n, 2, seed=seed),
        "D-Cliques": topology.d_cliques(labels, labels.shape[1], seed=seed).topology,
    }
    fresh = gj.timeline.overlays.regular(n, 4, seed=seed)
    matchings = [topology.random_matching(n, seed=1000 * seed + t) for t in range(24)]
    others = {
        "one-way exponential": [mixing.uniform(topology.exponential(n))],
        "U-EquiStatic, 2 shifts": [mixing.equi_static(n, 2, seed=seed, directed=False)],
        "STL-FW, 4 neighbours": [mixing.stl_fw(labels, 4)],
        "OD-EquiDyn": mixing.equi_dynamic(n, 24, seed=seed),
        "OU-EquiDyn": mixing.equi_dynamic(n, 24, seed=seed, directed=False),
        "fresh matchings": [mixing.metropolis(graph) for graph in matchings],
        "fresh 4-regular": [mixing.metropolis(fresh.graph(t)) for t in range(12)],
    }
    drawn = {name: [mixing.metropolis(graph)] for name, graph in graphs.items()}
    return fixed_networks(n, seed) | drawn | others | changing_networks(n)


def run(config: Config) -> xr.Dataset:
    """Score all networks on all draws of all kinds of devices."""
    n, seeds = config.num_nodes, [config.seed + number for number in range(config.num_seeds)]
    errors = np.array([config.consensus, config.quadratic])
    rounds, seconds, pace = [], [], []
    for seed in seeds:
        labels = labels_of(n, config.num_labels, seed)
        named = networks(n, labels, seed)
        needed = [rounds_to(errors, each, labels, config.step, config.horizon) for each in named.values()]
        rounds.append(needed)
        for kind in KINDS:
            devices = devices_of(kind, n, seed)
            ends = [
                round_ends(devices, matrices, planned_for(known, config.planned), config.load)
                for matrices, known in zip(named.values(), needed, strict=True)
            ]
            seconds.append([seconds_of(*each) for each in zip(needed, ends, strict=True)])
            pace.append([pace_of(each) for each in ends])
    shape = (len(seeds), len(KINDS), len(named))
    return xr.Dataset(
        {
            "rounds": (("seed", "network", "goal", "level"), np.array(rounds)),
            "seconds": (("seed", "kind", "network", "goal", "level"), np.reshape(seconds, (*shape, 2, 3))),
            "pace": (("seed", "kind", "network"), np.reshape(pace, shape)),
            "error": (("goal", "level"), errors),
            "period": ("network", [len(matrices) for matrices in named.values()]),
            "checks": (("check", "side"), _checks(config)),
        },
        {"kind": list(KINDS), "network": list(named), "goal": list(GOALS), "level": list(LEVELS), "side": [0, 1]},
        {"num_nodes": n, "horizon": config.horizon},
    )


def _checks(config: Config) -> np.ndarray:
    """Return what engine and planner say, beside formulas: disagreement after 9 rounds; seconds without sharing."""
    ring, matrices = topology.ring(config.num_nodes), mixing.base_graph(config.num_nodes, 2)
    W = mixing.metropolis(ring)
    left = float(gj.learn.consensus_error(gj.timeline.rounds(W, 9)))
    known = np.sum(np.linalg.eigvalsh(W.toarray() - 1 / config.num_nodes) ** 18) / config.num_nodes
    exact = float(gj.learn.consensus_error(gj.timeline.rounds(matrices, len(matrices))))
    phones = devices_of(PHONES, config.num_nodes, config.seed)
    planned = pace_of(round_ends(phones, [W], 64, config.load, "unlimited"))
    cycle_mean = design.equal_split(phones, ring, bandwidth="unlimited", **config.load._asdict())
    return np.array([(left, known), (exact, 0.0), (planned, cycle_mean)])


CHECKS = (
    ("E_9 on the ring, by the engine", "Σ λ^18 / n"),
    ("E after a pass of Base-3, by the engine", "the exact average, but for float32"),
    ("seconds a round, ring of phones, links not shared", "largest cycle mean, Karp"),
)


def costs(dataset: xr.Dataset) -> xr.DataArray:
    """Return seconds, and those of the whole horizon where an accuracy is never reached."""
    return dataset.seconds.where(np.isfinite(dataset.seconds), dataset.attrs["horizon"] * dataset.pace)


def slowness(dataset: xr.Dataset) -> xr.DataArray:
    """Return seconds over those of the best network of the draw."""
    return costs(dataset) / costs(dataset).min("network")


def fewest_rounds(dataset: xr.Dataset) -> xr.DataArray:
    """Return the slowness of the network of the fewest rounds; of several, the fastest one."""
    fewest = dataset.rounds == dataset.rounds.min("network")
    return slowness(dataset).where(fewest).min("network")


def of_rough_winner(dataset: xr.Dataset) -> xr.DataArray:
    """Return the slowness, at the fine accuracy, of the network that is the fastest to the rough one."""
    ratio = slowness(dataset)
    return ratio.sel(level="fine").where(ratio.sel(level="rough") == 1).min("network")


def fixed_over_changing(dataset: xr.Dataset) -> xr.DataArray:
    """Return the seconds of the best network with one matrix over those of the best with several."""
    fixed, changing = (dataset.seconds.where(dataset.period == 1), dataset.seconds.where(dataset.period > 1))
    return fixed.min("network") / changing.min("network")


def table(dataset: xr.Dataset) -> list[Row]:
    """The statements of the claim, the best networks of every case, and checks by formulas."""
    least = slowness(dataset).max(["kind", "goal", "level"])
    name = str(least.network.values[int(least.mean("seed").argmin("network"))])
    words = f"in the mean over draws: {name}; {decide(least.min('network').values, Band(low=EVERYWHERE))}"
    rows = [over_seeds("worst slowness anywhere, of the network where it is least", least.min("network"), source=words)]
    for kind in (PHONES, CENTRE):
        for goal in GOALS:
            values = fewest_rounds(dataset).sel(kind=kind, goal=goal, level="medium").values
            band = Band(low=NEAR) if kind == PHONES else Band(1, NEAR)
            rows.append(
                over_seeds(f"slowness of the fewest rounds, {kind}, {goal}", values, source=str(decide(values, band)))
            )
    for kind in KINDS:
        values = of_rough_winner(dataset).sel(kind=kind, goal="quadratic").values
        words = str(decide(values, Band(low=NEAR)))
        rows.append(over_seeds(f"slowness at the fine accuracy of the rough one's best, {kind}", values, source=words))
    for kind in KINDS:
        ratio = fixed_over_changing(dataset).sel(kind=kind, goal="quadratic", level="medium")
        what = f"seconds of the best fixed network over those of the best changing one, quadratic, {kind}"
        rows.append(over_seeds(what, ratio.values, source="measured"))
    rows += [row for kind in KINDS for goal in GOALS for level in LEVELS for row in _best(dataset, kind, goal, level)]
    pairs = zip(CHECKS, dataset.checks.values, strict=True)
    return rows + [Row(what, float(found), np.nan, float(known), source) for (what, source), (found, known) in pairs]


def _best(dataset: xr.Dataset, kind: str, goal: str, level: str) -> list[Row]:
    at = dataset.sel(kind=kind, goal=goal, level=level)
    seconds = at.seconds.transpose("seed", "network")
    winners = Counter(str(dataset.network.values[index]) for index in seconds.argmin("network").values)
    words = ", ".join(f"{name} ({count})" for name, count in winners.most_common())
    return [
        over_seeds(
            f"seconds to {goal} {float(at.error):g}, {kind}", seconds.min("network"), source=f"the best: {words}"
        )
    ]
