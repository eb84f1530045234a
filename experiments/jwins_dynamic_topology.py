"""Does JWINS work if every round has a new graph?

The same schemes run on one random regular graph, and on a new one in every round (a cycle of 64). Nodes without memory
of their neighbours need no change, and new graphs mix faster, so they should do no harm. CHOCO keeps copies of its
neighbours' models, which a new neighbour does not have, and must refuse to run.

Theory predicts bytes, but not scores. Differences are taken seed by seed; on both networks seeds share start, batches
and the random numbers of masks.

Reference: Dhasade et al. 2023, arXiv 2306.04377; Koloskova, Stich, Jaggi 2019, arXiv 1902.00340 (CHOCO).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.lib import sharing_schemes as schemes
from experiments.lib.compressed import Network, learn
from experiments.lib.curves import side_by_side
from experiments.lib.problems import Name, Problem, of_jwins
from experiments.lib.report import Row, over_seeds
from experiments.lib.sharing_schemes import FULL, JWINS, SAMPLING
from gossipjax import compress
from gossipjax.sharing import choco
from theory.check.policy import Band, Verdict, decide

CLAIM = "JWINS works unchanged on a graph redrawn in every round, where CHOCO cannot run"
FIXED, FRESH = "fixed", "fresh each round"


class Config(NamedTuple):
    """Settings."""

    task: Name = "writers"
    num_nodes: int = 96
    degree: int = 4
    num_rounds: int = 600
    num_records: int = 20
    num_seeds: int = 3
    schemes: tuple[str, ...] = (FULL, SAMPLING, JWINS)
    test_nodes: int | None = 8
    test_samples: int = 1000
    seed: int = 0
    keep: str | None = None
    """Folder of finished runs."""


QUICK = Config(task="digits", num_nodes=16, num_rounds=100, schemes=(FULL, JWINS))


def run(config: Config) -> xr.Dataset:
    """Run every scheme on the fixed and on the changing graph, and try CHOCO on the latter.

    Raises:
        ValueError: unknown schemes, or full sharing or JWINS not among them.
    """
    problem = of_jwins(config.task, config.num_nodes, seed=config.seed)
    fixed = Network(
        config.num_nodes,
        config.num_rounds,
        config.degree,
        num_records=config.num_records,
        num_seeds=config.num_seeds,
        test_nodes=config.test_nodes,
        test_samples=config.test_samples,
        seed=config.seed,
    )
    fresh = fixed._replace(dynamic=True)
    parts = [schemes.compare(problem, network, config.schemes, config.keep) for network in (fixed, fresh)]
    joined = side_by_side(parts, xr.DataArray([FIXED, FRESH], dims="graph", name="graph"))
    facts = {"task": config.task, "num_nodes": config.num_nodes, "degree": config.degree}
    return joined.assign_attrs(facts | {"refusal": refusal(problem, fresh)})


def refusal(problem: Problem, network: Network) -> str:
    """Try CHOCO with top-k on a network; return its error message, or an empty text if it runs."""
    try:
        learn(problem, choco(compress.top_k(share=0.1), 0.05), network)
    except ValueError as error:
        return str(error)
    return ""


def table(dataset: xr.Dataset) -> list[Row]:
    """Report the effect of a changing graph on every scheme, JWINS against full sharing there, and CHOCO's answer."""
    fixed, fresh = (schemes.part(dataset, graph=graph) for graph in (FIXED, FRESH))
    scale, unit = schemes.points(fresh)
    rows = []
    for name in dataset.scheme.values:
        gained = scale * (schemes.scores(fresh, str(name))[-1] - schemes.scores(fixed, str(name))[-1])
        words = f"no smaller: works unchanged; loss within {schemes.margin(fixed)[1]}: "
        words += schemes.trained(fixed, str(name), unharmed(fixed, fresh, str(name)))
        rows.append(over_seeds(f"gain of a fresh graph, {name} ({unit})", gained, 0.0, words))
    words = f"largest loss called similar, fresh graphs; {schemes.verdict(fresh)}"
    rows.append(
        over_seeds(
            f"JWINS behind full ({unit})", scale * schemes.behind(fresh, JWINS), scale * schemes.margin(fresh)[0], words
        )
    )
    refused = float(bool(dataset.attrs["refusal"]))
    words = f"says: {dataset.attrs['refusal']}" if refused else "it ran"
    rows.append(Row("CHOCO refuses fresh graphs (1: yes)", refused, np.nan, 1.0, words))
    for graph, at in ((FIXED, fixed), (FRESH, fresh)):
        rows += [*_facts(graph, at), *schemes.trivial_rows(graph, at)]
    return rows


def unharmed(fixed: xr.Dataset, fresh: xr.Dataset, name: str) -> Verdict:
    """Judge whether a scheme loses no more on a changing graph than what counts as similar, seed by seed.

    The loss is infinite if only the run on the changing graph diverged, and NaN if that on the fixed graph did.
    """
    before, after = (schemes.scores(at, name)[-1] for at in (fixed, fresh))
    accuracy = str(fixed.metric.values) == "accuracy"
    lost = (before - after) / (1.0 if accuracy else np.abs(before))
    return decide(schemes.diverged(after, before, lost), Band(high=schemes.SIMILAR[accuracy]))


def _facts(graph: str, at: xr.Dataset) -> list[Row]:
    rows = []
    for name in at.scheme.values:
        words = "the predicted one is that of full sharing"
        known = np.nan if name == FULL else float(schemes.shown(at, schemes.scores(at, FULL)[-1].mean()))
        rows.append(
            over_seeds(
                f"{graph}: final {schemes.unit(at)}, {name}",
                schemes.shown(at, schemes.scores(at, str(name))[-1]),
                known,
                words,
            )
        )
        words = f"formula, positions at random; {schemes.saving(at, str(name)):.1f} % saved"
        expected = float(at.predicted_megabytes.sel(scheme=name))
        rows.append(over_seeds(f"{graph}: MB per node, {name}", schemes.megabytes(at, str(name)), expected, words))
        words = f"barriers simulated; {schemes.waiting(at, str(name)):.2f} times rounds of equal messages"
        expected = float(at.predicted_seconds.sel(scheme=name))
        rows.append(
            over_seeds(f"{graph}: seconds per round, {name}", schemes.seconds_a_round(at, str(name)), expected, words)
        )
        rows.append(
            over_seeds(
                f"{graph}: consensus distance, {name}",
                at.consensus_distance.sel(scheme=name).isel(record=-1).values,
                np.nan,
                "at the end",
            )
        )
    return rows
