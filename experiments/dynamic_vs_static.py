"""What is gained if every round has a graph of its own?

D-PSGD on one random 4-regular graph, on a fresh one in every round, and on the complete graph. A fresh graph costs the
same bytes. Two models that meet once do not meet again for long, so that differences die out within a few rounds
instead of travelling round the graph.

The paper's statement: with dynamic graphs accuracy comes near that of full connectivity, with far less communication.
In its systems a node of a complete graph sends its model to all n − 1 others; bytes are compared with that. Our run on
the complete graph counts a ring all-reduce, which sends fewer bytes than four models a round.

Reference: Dhasade et al. 2023, arXiv 2304.08322 (DecentralizePy).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments.lib import at_scale
from experiments.lib.at_scale import COMPLETE, DEGREE, FRESH, STATIC, Scale
from experiments.lib.curves import grid_of_runs
from experiments.lib.report import Row, over_seeds
from gossipjax.sharing import full
from theory.check.policy import Band, Verdict, above, all_of, decide

CLAIM = (
    "a fresh graph in every round comes near the complete graph in accuracy, with far fewer bytes than models to all"
)
NETWORKS = (STATIC, FRESH, COMPLETE)
NEAR = 0.01
"""How far below the complete graph an accuracy counts as near it."""


class Config(NamedTuple):
    """Settings."""

    scale: Scale = at_scale.TWO_CORES
    num_seeds: int = 3
    keep: str | None = None
    """Folder of finished runs."""


QUICK = Config(at_scale.QUICK)
PAPER = Config(at_scale.PAPER_CNN)


def run(config: Config) -> xr.Dataset:
    """Run D-PSGD on the static graph, on fresh ones and on the complete one."""
    given = at_scale.problem_of(config.scale)
    joined = grid_of_runs(
        NETWORKS,
        "graph",
        range(config.num_seeds),
        lambda name, seed: at_scale.run_of(given, config.scale, name, full(), seed, config.keep),
    )
    facts = at_scale.facts_of(given, config.scale)
    rounds, n = config.scale.num_rounds, config.scale.num_nodes
    sent = 4e-6 * facts["parameters"] * rounds * np.asarray([DEGREE, DEGREE, n - 1.0])
    return at_scale.with_summaries(joined).assign(megabytes_to_neighbors=("graph", sent)).assign_attrs(facts)


def ahead(dataset: xr.Dataset, name: str, other: str) -> np.ndarray:
    """Return by how much one graph ends above another, seed by seed: they share start and batches."""
    ends = (at_scale.final_accuracy(dataset.sel(graph=each)) for each in (name, other))
    return next(ends) - next(ends)


class Statements(NamedTuple):
    """The two statements on accuracy, each judged over the seeds."""

    better: Verdict
    """Fresh graphs end ahead of the static one."""
    near: Verdict
    """They end near the complete graph."""


def statements(dataset: xr.Dataset) -> Statements:
    """Judge both."""
    return Statements(
        decide(ahead(dataset, FRESH, STATIC), above(0.0)), decide(ahead(dataset, COMPLETE, FRESH), Band(high=NEAR))
    )


def table(dataset: xr.Dataset) -> list[Row]:
    """The paper's statement beside ours; accuracy, spread, worst decile and what was learned on each graph."""
    found, trivial = statements(dataset), float(dataset.attrs["trivial"])
    words = f"paper: near full connectivity; near: within {100 * NEAR:.0f} point; {found.near}"
    rows = [
        over_seeds("complete ahead of fresh (points)", 100 * ahead(dataset, COMPLETE, FRESH), 0.0, words),
        over_seeds("fresh ahead of static (points)", 100 * ahead(dataset, FRESH, STATIC), np.nan, str(found.better)),
    ]
    complete, fresh = (dataset.sel(graph=name) for name in (COMPLETE, FRESH))
    share = at_scale.megabytes(fresh) / float(complete.megabytes_to_neighbors)
    words = f"paper: far less; both statements: {all_of(found.better.word, found.near.word)}"
    known = DEGREE / (int(dataset.attrs["num_nodes"]) - 1)
    rows.append(over_seeds("bytes of fresh / of n − 1 models a round", share, known, words))
    for name in map(str, dataset.graph.values):
        at = dataset.sel(graph=name)
        rows.append(over_seeds(f"{name}: final accuracy (%)", 100 * at_scale.final_accuracy(at), np.nan, "all nodes"))
        rows.append(_sent(name, at, dataset.attrs))
        rows += at_scale.node_rows(name, at, trivial)
        rows.append(over_seeds(f"{name}: disagreement", at.disagreement.values, np.nan, at_scale.DISAGREEMENT))
    return rows


def _sent(name: str, at: xr.Dataset, facts: dict[str, Any]) -> Row:
    """Tabulate the megabytes that a node sends, beside the models that it sends times their size."""
    known = float(at.models_sent.mean()) * 4e-6 * facts["parameters"] * facts["num_rounds"]
    words = f"sent by a ring all-reduce; models to all others would be {float(at.megabytes_to_neighbors):.4g} MB"
    return over_seeds(f"{name}: MB per node", at_scale.megabytes(at), known, words if name == COMPLETE else "sent")
