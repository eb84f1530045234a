"""Does JWINS keep its savings, and its accuracy relative to full sharing, when the network grows?

The same data are partitioned over more and more nodes, with the same degree and the same number of local steps per
round. A larger network takes more gradients in total, from smaller and more different shards, but mixes as fast,
because the spectral gap of random regular graphs does not shrink. The predicted bytes per node do not depend on the
size of the network.

Reference: Dhasade et al. 2023, arXiv 2306.04377, with up to 384 nodes.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.jwins_accuracy_vs_bytes import contents, one
from experiments.lib import sharing_schemes as schemes
from experiments.lib.cells import Cell, Keep, Missing, take_grid
from experiments.lib.compressed import Network
from experiments.lib.curves import side_by_side
from experiments.lib.problems import Name
from experiments.lib.report import Row, over_seeds
from experiments.lib.sharing_schemes import FULL, JWINS
from experiments.lib.trivial import MARGIN

CLAIM = "with several hundred nodes JWINS saves as many bytes per node, at an accuracy similar to full sharing"


class Config(NamedTuple):
    """Settings; one learning rate and one degree for all sizes."""

    task: Name = "writers"
    sizes: tuple[int, ...] = (96, 192, 384)
    degree: int = 4
    num_rounds: int = 400
    num_records: int = 20
    num_seeds: int = 3
    test_nodes: int | None = 8
    test_samples: int = 1000
    seed: int = 0
    keep: Keep = None
    """Where finished runs are."""


QUICK = Config(task="digits", sizes=(8, 32), num_rounds=100)
PAPER = Config()
"""The sizes of the paper, on another task; hours on two cores."""


def run(config: Config) -> xr.Dataset:
    """Run full sharing and JWINS on networks of every size."""
    parts = {}
    for n in config.sizes:
        with contextlib.suppress(Missing):
            parts[n] = _of_size(n, config)
    if not parts:
        raise Missing("no size has one seed of both full sharing and JWINS")
    joined = side_by_side(list(parts.values()), xr.DataArray(list(parts), dims="nodes", name="nodes"))
    return joined.assign_attrs(task=config.task, degree=config.degree)


def cells(config: Config) -> list[Cell]:
    """List the runs of a configuration."""
    return [cell for n in config.sizes for cell in _cells(n, config).values()]


def _cells(num_nodes: int, config: Config) -> dict[tuple[str, int], Cell]:
    """Name the runs of a size by scheme and seed."""
    shared = {"task": config.task, "network": _network(num_nodes, config)._asdict()}
    is_accuracy = config.task != "movielens"
    bands = {"loses at most": schemes.SIMILAR[is_accuracy], "better than trivial by": MARGIN[is_accuracy]}
    found = {}
    for seed, name in itertools.product(range(config.num_seeds), (FULL, JWINS)):
        labels = {"task": config.task, "nodes": num_nodes, "scheme": name, "seed": seed}
        settings = shared | {"scheme": name, "seed": seed}
        found[name, seed] = Cell("jwins_scalability", labels, one, contents, settings, bands=bands)
    return found


def _network(num_nodes: int, config: Config) -> Network:
    return Network(
        num_nodes,
        config.num_rounds,
        config.degree,
        num_records=config.num_records,
        test_nodes=config.test_nodes,
        test_samples=config.test_samples,
        seed=config.seed,
    )


def _of_size(num_nodes: int, config: Config) -> xr.Dataset:
    found = take_grid(config.keep, _cells(num_nodes, config), (FULL, JWINS))
    runs = {name: schemes.join_seeds([run for (of, _), run in found.items() if of == name]) for name in (FULL, JWINS)}
    return schemes.join_schemes(runs, schemes.predicted(runs[FULL], _network(num_nodes, config), (FULL, JWINS)))


def table(dataset: xr.Dataset) -> list[Row]:
    """Report verdict, scores, bytes and seconds by the number of nodes."""
    rows = []
    for n in dataset.nodes.values:
        at = schemes.part(dataset, nodes=n)
        scale, unit = schemes.points(at)
        words = f"largest loss called similar; {schemes.verdict(at)}"
        limit = scale * schemes.margin(at)[0]
        rows.append(over_seeds(f"n={n}: JWINS behind full ({unit})", scale * schemes.behind(at, JWINS), limit, words))
        rows += schemes.trivial_rows(f"n={n}", at)
    for name in (FULL, JWINS):
        for n in dataset.nodes.values:
            rows += _facts(int(n), name, schemes.part(dataset, nodes=n))
    return rows


def _facts(n: int, name: str, at: xr.Dataset) -> list[Row]:
    known = np.nan if name == FULL else float(schemes.shown(at, schemes.scores(at, FULL)[-1].mean()))
    score = over_seeds(
        f"n={n}: final {schemes.unit(at)}, {name}", schemes.shown(at, schemes.scores(at, name)[-1]), known, FULL
    )
    words = f"formula, the same for every n, positions at random; {schemes.saving(at, name):.1f} % saved"
    sent = over_seeds(
        f"n={n}: MB per node, {name}",
        schemes.megabytes(at, name),
        float(at.predicted_megabytes.sel(scheme=name)),
        words,
    )
    words = f"barriers simulated; {schemes.waiting(at, name):.2f} times rounds of equal messages"
    expected = float(at.predicted_seconds.sel(scheme=name))
    return [
        score,
        sent,
        over_seeds(f"n={n}: seconds per round, {name}", schemes.seconds_a_round(at, name), expected, words),
    ]
