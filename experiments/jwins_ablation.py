"""How much does each part of JWINS contribute: wavelet, accumulated scores, ranking by change, random cut-off?

One part is replaced at a time; everything else stays the same, including the learning rate. Variants send about the
same number of bytes, but not exactly: clustered positions cost less, and a fixed cut-off of 34 % never sends the whole
model, whose values need no positions. Variants are therefore compared at equal rounds, and at equal bytes: the smallest
total of any variant. Differences from JWINS are taken seed by seed, because seeds share start, batches and, if both
variants draw them, cut-offs.

Reference: Dhasade et al. 2023, arXiv 2306.04377.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.lib import trivial
from experiments.lib.budgets import expected_share
from experiments.lib.compressed import Network, run_of
from experiments.lib.curves import at_cost
from experiments.lib.problems import Name, of_jwins
from experiments.lib.report import Row, over_seeds
from gossipjax import Sharing
from gossipjax.compress.transforms import fourier, identity
from gossipjax.sharing import jwins
from gossipjax.sharing._jwins import CUT_OFFS
from theory.check.policy import Verdict, above, decide

CLAIM = "without its wavelet, its accumulated scores or its random cut-offs, JWINS ends with a lower score"
FIXED = 0.34
VARIANTS: dict[str, Callable[[], Sharing]] = {
    "JWINS": jwins,
    "no wavelet": lambda: jwins(transform=identity()),
    "Fourier": lambda: jwins(transform=fourier()),
    "no accumulation": lambda: jwins(accumulate="nothing"),
    "accumulated training": lambda: jwins(accumulate="training"),
    "ranked by value": lambda: jwins(rank_by="value"),
    "fixed cut-off": lambda: jwins((FIXED,)),
}
"""JWINS, and its variants with one part replaced."""


class Config(NamedTuple):
    """Settings."""

    tasks: tuple[Name, ...] = ("writers", "movielens")
    variants: tuple[str, ...] = tuple(VARIANTS)
    """The first is the reference of the others."""
    num_nodes: int = 96
    num_rounds: int = 400
    record_every: int = 10
    num_seeds: int = 3
    test_nodes: int | None = 16
    seed: int = 0
    keep: str | None = None
    """Folder of finished runs."""


QUICK = Config(
    tasks=("digits",),
    variants=("JWINS", "no wavelet", "fixed cut-off"),
    num_nodes=16,
    num_rounds=60,
    record_every=4,
    num_seeds=2,
    test_nodes=None,
)
PAPER = Config(tasks=("cifar10",), num_rounds=6500, record_every=65, num_seeds=5)


def run(config: Config) -> xr.Dataset:
    """Run every variant on every task.

    Raises:
        ValueError: an unknown variant.
    """
    if unknown := [name for name in config.variants if name not in VARIANTS]:
        raise ValueError(f"variants {unknown}: choose among {', '.join(VARIANTS)}")
    parts = [_on(task, config) for task in config.tasks]
    joined = xr.concat(parts, xr.DataArray(list(config.tasks), dims="task", name="task"))
    return joined.assign_attrs(num_nodes=config.num_nodes)


def _on(task: Name, config: Config) -> xr.Dataset:
    """Run all variants on one task; return score, MB sent per node, and the node's clock, by record and seed."""
    problem = of_jwins(task, config.num_nodes, seed=config.seed)
    nodes = None if config.test_nodes is None else min(config.test_nodes, config.num_nodes)
    network = Network(
        config.num_nodes,
        config.num_rounds,
        num_records=max(1, config.num_rounds // config.record_every),
        num_seeds=config.num_seeds,
        test_nodes=nodes,
        seed=config.seed,
    )
    runs = [run_of(problem, name, VARIANTS[name](), network, config.keep) for name in config.variants]
    parts = [
        xr.Dataset(
            {
                "score": (("record", "seed"), run.score.sel(statistic="mean").values.astype(np.float64)),
                "megabytes": (("record", "seed"), run.node_bytes_sent.sel(statistic="mean").values / np.float64(1e6)),
                "clock": (("record", "seed"), run.node_clock.sel(statistic="mean").values.astype(np.float64)),
            },
            {"round": ("record", run.event.values)},
        )
        for run in runs
    ]
    joined = xr.concat(parts, xr.DataArray(list(config.variants), dims="variant", name="variant"))
    full = 4e-6 * runs[0].attrs["parameters"] * network.degree * config.num_rounds
    shares = [expected_share((FIXED,) if name == "fixed cut-off" else CUT_OFFS) for name in config.variants]
    least = float(joined.megabytes.isel(record=-1).min())
    return joined.assign(
        predicted_megabytes=("variant", full * np.array(shares)),
        compute_seconds=((), problem.batch_size * problem.local_steps * network.seconds_per_sample),
        bytes_per_second=((), network.bytes_per_second),
        full_megabytes=((), full),
        equal_megabytes=((), least),
        score_at_equal=(("variant", "seed"), _at_equal(joined, least)),
        metric=((), problem.metric),
        data=((), problem.source),
        sign=((), 1 if problem.higher_is_better else -1),
        trivial=((), runs[0].attrs["trivial"]),
    )


def _at_equal(run: xr.Dataset, spent: float) -> np.ndarray:
    def of(at: xr.Dataset) -> float:
        return at_cost(spent, at.megabytes.values, at.score.values)

    seeds = range(run.sizes["seed"])
    return np.array([[of(run.sel(variant=name).isel(seed=s)) for s in seeds] for name in run.variant.values])


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare bytes with their expectation, and scores at equal rounds and bytes; judge whether each part helps."""
    rows = []
    for task in dataset.task.values:
        at = dataset.sel(task=task)
        for name in at.variant.values:
            one = at.sel(variant=name)
            sent = one.megabytes.isel(record=-1)
            saved = 1 - float(sent.mean()) / float(one.full_megabytes)
            words = f"positions at random; saves {saved:.1%} of full sharing"
            rows.append(_row(f"MB per node, {name}, {task}", sent.values, float(one.predicted_megabytes), words))
            rows.append(_pace(one, f"seconds per round, {name}, {task}"))
        for how, scores in _compared(at).items():
            for name in at.variant.values:
                own, whole = scores.sel(variant=name).values, scores.isel(variant=0).values
                first = name == at.variant.values[0]
                known, higher = trivial.stored(at), int(at.sign) > 0
                judged = trivial.gated(helps(own - whole, int(at.sign)), whole, known, higher)
                words = "all parts" if first else f"the part helps: {judged}"
                rows.append(_row(f"{at.metric.values!s} at equal {how}, {name}, {task}", own, source=words))
        rows += trivial.rows(f"{at.metric.values!s}, {task}, ", trivial.stored(at), int(at.sign) > 0)
    return rows


def _pace(one: xr.Dataset, quantity: str) -> Row:
    """Return the mean duration of a node's rounds, and that without waiting for large messages of neighbours."""
    number, last = float(one["round"][-1]), one.isel(record=-1)
    sent = 1e6 * float(last.megabytes.mean()) / number
    equal_messages = float(one.compute_seconds) + sent / float(one.bytes_per_second)
    return _row(quantity, last.clock.values / number, equal_messages, "no waiting: messages of the mean size")


def _compared(at: xr.Dataset) -> dict[str, xr.DataArray]:
    return {"rounds": at.score.isel(record=-1), "bytes": at.score_at_equal}


def _row(quantity: str, values: np.ndarray, predicted: float = np.nan, source: str = "") -> Row:
    return over_seeds(quantity, values, predicted, source)


def helps(difference: np.ndarray, sign: int) -> Verdict:
    """Judge whether a part helps, from the loss without it, seed by seed.

    Args:
        difference: score without the part minus score of the whole, ``(seeds,)``.
        sign: 1 if a higher score is better, −1 if a lower one is.
    """
    return decide(-sign * np.asarray(difference), above(0.0))
