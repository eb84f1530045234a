"""Which networks let a thousand nodes learn alike, and at what cost in bytes?

D-PSGD on images, few classes at each node, on seven networks: a ring, a torus, a small world, a random 4-regular graph,
the exponential graph, its rounds one after another (one peer a round), and the complete graph. Results are kept for
every node: means hide the nodes that are left behind.

Theory gives the bytes, and how far apart lasting differences between the nodes' updates leave them, from the matrices
alone (:func:`experiments.lib.at_scale.disagreement`). That orders the networks; it gives no accuracy.

Reference: Dhasade et al. 2023, arXiv 2304.08322 (DecentralizePy), which runs one process a node.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from experiments.lib import at_scale
from experiments.lib.at_scale import COMPLETE, FRESH, NETWORKS, Scale
from experiments.lib.curves import grid_of_runs
from experiments.lib.report import Row, over_seeds
from gossipjax.sharing import full
from theory.check.policy import Band, Verdict, decide

CLAIM = "with a thousand nodes the accuracies on networks are ordered by the disagreement that their matrices leave"
NEAR = 0.02
"""How far below the complete graph an accuracy counts as near it."""
FOLLOWS = 0.9
"""Rank correlation from which on accuracies follow the disagreement."""
TOPOLOGIES = tuple(name for name in NETWORKS if name != FRESH)


class Config(NamedTuple):
    """Settings."""

    scale: Scale = at_scale.TWO_CORES
    topologies: tuple[str, ...] = TOPOLOGIES
    num_seeds: int = 3
    keep: str | None = None
    """Folder of finished runs."""


QUICK = Config(at_scale.QUICK)
PAPER = Config(at_scale.PAPER)


def run(config: Config) -> xr.Dataset:
    """Run D-PSGD on every topology.

    Raises:
        ValueError: unknown topologies, or the complete graph not among them.
    """
    at_scale.check_names("topologies", config.topologies, NETWORKS, COMPLETE)
    given = at_scale.problem_of(config.scale)
    joined = grid_of_runs(
        config.topologies,
        "topology",
        range(config.num_seeds),
        lambda name, seed: at_scale.run_of(given, config.scale, name, full(), seed, config.keep),
    )
    facts = at_scale.facts_of(given, config.scale)
    sent = 4e-6 * facts["parameters"] * config.scale.num_rounds * joined.models_sent.mean("seed")
    return at_scale.with_summaries(joined).assign(predicted_megabytes=sent).assign_attrs(facts)


def behind(dataset: xr.Dataset, name: str) -> np.ndarray:
    """Return by how much a topology ends below the complete graph, seed by seed: they share start and batches."""
    ends = (at_scale.final_accuracy(dataset.sel(topology=each)) for each in (COMPLETE, name))
    return next(ends) - next(ends)


def follows(dataset: xr.Dataset) -> Verdict:
    """Judge whether accuracies fall in the order of the disagreement: Spearman's rank correlation, seed by seed."""
    known = dataset.disagreement.transpose("seed", "topology").values
    ends = dataset.mean_accuracy.isel(record=-1).transpose("seed", "topology").values
    return decide([-stats.spearmanr(*each).statistic for each in zip(known, ends, strict=True)], Band(low=FOLLOWS))


def table(dataset: xr.Dataset) -> list[Row]:
    """The order of the networks; accuracy, spread, worst decile, bytes and what was learned, of each."""
    trivial = float(dataset.attrs["trivial"])
    found = follows(dataset)
    rows = [Row("rank correlation of accuracy with small disagreement", found.mean, found.half, 1.0, str(found))]
    complete = 100 * float(at_scale.final_accuracy(dataset.sel(topology=COMPLETE)).mean())
    for name in map(str, dataset.topology.values):
        at = dataset.sel(topology=name)
        near = decide(behind(dataset, name), Band(high=NEAR))
        words = "the predicted one is that of the complete graph"
        words += "" if name == COMPLETE else f"; within {100 * NEAR:.0f} points of it: {near}"
        known = np.nan if name == COMPLETE else complete
        rows.append(over_seeds(f"{name}: final accuracy (%)", 100 * at_scale.final_accuracy(at), known, words))
        rows += at_scale.node_rows(name, at, trivial)
        words = "formula: 4 B × parameters × models"
        rows.append(over_seeds(f"{name}: MB per node", at_scale.megabytes(at), float(at.predicted_megabytes), words))
        rows.append(over_seeds(f"{name}: disagreement", at.disagreement.values, np.nan, at_scale.DISAGREEMENT))
    return rows
