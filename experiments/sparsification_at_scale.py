"""Does sending a tenth of the model pay with a thousand nodes?

D-PSGD on one random 4-regular graph, few classes at each node: full sharing, a random tenth, the top tenth, CHOCO with
the top tenth, and JWINS with its released cut-offs. Every scheme is compared with full sharing twice: after as many
rounds, and after as many bytes.

The paper's statement: in large networks with non-IID data sparsification loses accuracy against full sharing. Bytes are
predicted by formula, positions of entries taken at random.

Reference: Dhasade et al. 2023, arXiv 2304.08322 (DecentralizePy); Koloskova, Stich, Jaggi 2019, arXiv 1902.00340
(CHOCO); Dhasade et al. 2023, arXiv 2306.04377 (JWINS).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.lib import at_scale
from experiments.lib.at_scale import DEGREE, STATIC, Scale
from experiments.lib.budgets import message_share
from experiments.lib.curves import at_cost, grid_of_runs
from experiments.lib.report import Row, over_seeds
from experiments.lib.sharing_schemes import FULL, JWINS, SCHEMES
from gossipjax import Sharing, compress
from gossipjax.compress.codes import elias_gamma
from gossipjax.sharing import choco, full, jwins, random_subset, top_k
from theory.check.policy import Verdict, above, decide

CLAIM = "with a thousand nodes and non-IID data sparsification loses accuracy a round against full sharing"
SHARE = 0.1
GAMMA = 0.2
"""Consensus step of CHOCO: the best that did not collapse at a tenth of the bytes in ``jwins_vs_choco``."""
SENT: dict[str, Callable[[], Sharing]] = {
    FULL: full,
    "random 10 %": lambda: random_subset(SHARE),
    "top-k 10 %": lambda: top_k(SHARE),
    "CHOCO 10 %": lambda: choco(compress.top_k(share=SHARE, indices=elias_gamma), GAMMA),
    JWINS: jwins,
}


class Config(NamedTuple):
    """Settings."""

    scale: Scale = at_scale.TWO_CORES
    schemes: tuple[str, ...] = tuple(SENT)
    num_seeds: int = 3
    keep: str | None = None
    """Folder of finished runs."""


QUICK = Config(at_scale.QUICK)
PAPER = Config(at_scale.PAPER)


def message_bytes(name: str, parameters: int) -> float:
    """Predict the mean length of a message of d parameters, positions at random."""
    if name in SCHEMES:
        return float(np.mean(SCHEMES[name].lengths(parameters)))
    return 4.0 * parameters * (SHARE if name == "random 10 %" else message_share(SHARE))


def run(config: Config) -> xr.Dataset:
    """Run D-PSGD with every sharing on one static graph.

    Raises:
        ValueError: unknown schemes, or full sharing not among them.
    """
    at_scale.check_names("schemes", config.schemes, SENT, FULL)
    given = at_scale.problem_of(config.scale)
    joined = grid_of_runs(
        config.schemes,
        "scheme",
        range(config.num_seeds),
        lambda name, seed: at_scale.run_of(given, config.scale, STATIC, SENT[name](), seed, config.keep),
    )
    facts = at_scale.facts_of(given, config.scale)
    sent = [message_bytes(name, facts["parameters"]) for name in config.schemes]
    megabytes = 1e-6 * DEGREE * config.scale.num_rounds * np.asarray(sent)
    return at_scale.with_summaries(joined).assign(predicted_megabytes=("scheme", megabytes)).assign_attrs(facts)


def behind(dataset: xr.Dataset, name: str) -> np.ndarray:
    """Return by how much a scheme ends below full sharing after as many rounds, seed by seed."""
    ends = (at_scale.final_accuracy(dataset.sel(scheme=each)) for each in (FULL, name))
    return next(ends) - next(ends)


def ahead_in_bytes(dataset: xr.Dataset, name: str) -> np.ndarray:
    """Return by how much a scheme ends above full sharing after as many bytes, seed by seed."""
    own, reference = (dataset.sel(scheme=each) for each in (name, FULL))
    costs = reference.mean_megabytes.transpose("seed", "record").values
    curves = at_scale.mean_accuracy(reference).T
    spent = [at_cost(*each) for each in zip(at_scale.megabytes(own), costs, curves, strict=True)]
    return at_scale.final_accuracy(own) - np.asarray(spent)


def loses(dataset: xr.Dataset, name: str) -> Verdict:
    """Judge the paper's statement for a scheme."""
    return decide(behind(dataset, name), above(0.0))


def table(dataset: xr.Dataset) -> list[Row]:
    """Every scheme against full sharing, at equal rounds and at equal bytes; accuracy, spread and bytes of each."""
    rows, trivial = [], float(dataset.attrs["trivial"])
    for name in map(str, dataset.scheme.values):
        if name == FULL:
            continue
        words = f"paper: loses accuracy; {loses(dataset, name)}"
        rows.append(over_seeds(f"{name}: behind full, same rounds (points)", 100 * behind(dataset, name), 0.0, words))
        gained = ahead_in_bytes(dataset, name)
        words = f"ahead of full sharing: {decide(gained, above(0.0))}"
        rows.append(over_seeds(f"{name}: ahead of full, same bytes (points)", 100 * gained, 0.0, words))
    for name in map(str, dataset.scheme.values):
        at = dataset.sel(scheme=name)
        rows.append(over_seeds(f"{name}: final accuracy (%)", 100 * at_scale.final_accuracy(at), np.nan, "all nodes"))
        rows += at_scale.node_rows(name, at, trivial)
        words = "formula, positions at random"
        rows.append(over_seeds(f"{name}: MB per node", at_scale.megabytes(at), float(at.predicted_megabytes), words))
    return rows
