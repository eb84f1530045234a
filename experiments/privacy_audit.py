"""Who learns how much about whom, by hops, in rounds and with messages in flight, at equal numbers of messages?

D-PSGD with noise in every step, audited exactly on its plans: what one node hears about all steps of another, as the
share μ/μ_local of what anybody could learn, which is 1 if every step is seen with nothing but its own noise. Rounds mix
with Metropolis weights. With messages in flight, nodes take steps at rate 1 and push their model to random neighbours
at a rate of their graph's mean degree, for as many units of time as there are rounds: messages and steps are equal in
mean, but for those that are cut off at the end. A push has weight ½, or ``1/(1 + mean degree)`` as in rounds.

The claim was worded after first runs had been seen; the star, on which it fails at two hops, is measured only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.sparse.csgraph import shortest_path

from experiments.lib.report import Row, over_seeds
from gossipjax import Timeline, audit, mixing, privacy, topology
from gossipjax.timeline import clocks, push_gossip, rounds
from theory.check.policy import Band, decide

CLAIM = (
    "In flight, neighbours learn less than in rounds of as many messages; those two hops away more, except over hubs"
)
ROUNDS, HALF, LIGHT = "rounds", "in flight, w = ½", "in flight, w = 1/(1 + d)"
MODES = (ROUNDS, HALF, LIGHT)
HUB = "star"
"""The graph in which all messages pass one node: in flight, its neighbours hear it less often."""
EXACT = Band(1 - 1e-6, 1 + 1e-6)
"""Of certificates of the audit, which enclose the exact value to a few millionths."""


class Config(NamedTuple):
    """Settings; ``num_nodes`` is a square."""

    num_nodes: int = 25
    num_rounds: int = 12
    num_seeds: int = 5
    latency: float = 0.1
    """Of a push, over the mean time between two steps of a node."""
    most_hops: int = 6
    seed: int = 0


QUICK = Config(num_nodes=16, num_rounds=6, num_seeds=3)


def graphs(n: int, seed: int) -> dict[str, topology.Topology]:
    """Return the graphs that are compared; random ones are drawn for each seed."""
    side = round(n**0.5)
    return {
        "path": topology.path(n),
        "ring": topology.ring(n),
        HUB: topology.star(n),
        "torus": topology.torus(side, side),
        "random 4-regular": topology.random_regular(n, 4, seed=seed, tries=20),
        "Barabási–Albert, m = 2": topology.barabasi_albert(n, 2, seed=seed),
    }


def plan_of(mode: str, graph: topology.Topology, config: Config, seed: int) -> Timeline:
    """Plan steps and messages."""
    if mode == ROUNDS:
        return rounds(mixing.metropolis(graph), config.num_rounds)
    degree = float(graph.degrees.mean())
    return push_gossip(
        graph,
        float(config.num_rounds),
        compute=clocks.poisson(1.0),
        gossip=degree,
        weight=0.5 if mode == HALF else 1 / (1 + degree),
        latency=config.latency,
        seed=seed,
    )


def measure(mode: str, graph: topology.Topology, config: Config, seed: int) -> dict[str, np.ndarray]:
    """Audit one plan: shares by hops, their largest, what a wire over everything learns, messages and steps."""
    plan = plan_of(mode, graph, config, seed)
    n = config.num_nodes
    found = audit(plan, privacy.steps(), observers=[*range(n), privacy.Wire()])
    with np.errstate(invalid="ignore"):  # nodes that took no step have nothing to hide
        share = found.mu / found.local
    hops = shortest_path(graph.adjacency(), unweighted=True)
    by_hops = [share[:-1][(hops == h) & np.isfinite(share[:-1])] for h in range(1, config.most_hops + 1)]
    traffic = plan.properties.traffic
    messages = config.num_rounds * graph.degrees.sum() if traffic is None or mode == ROUNDS else traffic.sent
    return {
        "share": np.array([values.mean() if values.size else np.nan for values in by_hops]),
        "largest": np.array([values.max(initial=0.0) if values.size else np.nan for values in by_hops]),
        "wire": np.nanmean(share[-1]),
        "messages": np.asarray(messages, np.float64),
        "steps": np.asarray(found.num_contributions.sum(), np.float64),
    }


def run(config: Config) -> xr.Dataset:
    """Audit all graphs, modes and seeds."""
    names = list(graphs(config.num_nodes, config.seed))
    seeds = [config.seed + number for number in range(config.num_seeds)]
    grid = [
        [[measure(mode, graphs(config.num_nodes, seed)[name], config, seed) for seed in seeds] for mode in MODES]
        for name in names
    ]

    def stacked(quantity: str) -> np.ndarray:
        return np.array([[[cell[quantity] for cell in cells] for cells in row] for row in grid])

    axes = ("graph", "mode", "seed")
    return xr.Dataset(
        {quantity: ((*axes, "hops"), stacked(quantity)) for quantity in ("share", "largest")}
        | {quantity: (axes, stacked(quantity)) for quantity in ("wire", "messages", "steps")},
        {"graph": names, "mode": list(MODES), "hops": np.arange(1, config.most_hops + 1)},
        {"num_nodes": config.num_nodes, "num_rounds": config.num_rounds},
    )


def table(dataset: xr.Dataset) -> list[Row]:
    """What everybody together learns, messages beside those of rounds, and shares at one hop and at two."""
    rows = []
    for name in dataset.graph.values:
        at = dataset.sel(graph=name)
        wire = at.wire.sel(mode=ROUNDS).values
        words = f"every step is sent; {decide(wire, EXACT)}"
        rows.append(over_seeds(f"share, all messages of rounds, {name}", wire, 1.0, words))
        ratio = (at.messages.sel(mode=HALF) / at.messages.sel(mode=ROUNDS)).values
        rows.append(over_seeds(f"messages in flight / in rounds, {name}", ratio, 1.0, "in mean"))
        for hops in (1, 2):
            rows += _share_rows(at.share.sel(hops=hops), str(name), hops)
    return rows


def _share_rows(share: xr.DataArray, name: str, hops: int) -> list[Row]:
    """Return shares in rounds, and how they change in flight."""
    base = share.sel(mode=ROUNDS).values
    rows = [over_seeds(f"share, {hops} hop(s), {ROUNDS}, {name}", base, source="measured")]
    for mode in MODES[1:]:
        change = share.sel(mode=mode).values - base
        band = Band(-1, 0) if hops == 1 else Band(0, 1)
        claimed = hops == 1 or name != HUB
        words = str(decide(change, band)) if claimed else "measured"
        rows.append(over_seeds(f"change of the share, {hops} hop(s), {mode}, {name}", change, source=words))
    return rows
