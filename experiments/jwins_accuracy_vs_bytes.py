"""How many bytes does JWINS save against full sharing, and what happens to the accuracy?

Four schemes run on the same problems: full sharing; JWINS with the released cut-offs; random sampling and top-k with
accumulation, whose shares make their mean message as long as that of JWINS. They are compared at equal rounds, at equal
bytes (JWINS, random sampling and top-k), and by the bytes and seconds to a target: 95 % of the gain of full sharing
from start to end.

Seconds come from a clock on which a node trains, sends its messages one after another, and waits for its neighbours.
With the released cut-offs one message in seven is the whole model, and neighbours wait for it, so JWINS saves far fewer
seconds than bytes. The table says how much longer its rounds are than rounds with messages of its mean length.

Reference: Dhasade et al. 2023, arXiv 2306.04377.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments.lib import sharing_schemes as schemes
from experiments.lib.cells import Cell, Keep, Missing, take_grid
from experiments.lib.compressed import Network, learn
from experiments.lib.curves import side_by_side
from experiments.lib.problems import Name, Problem, of_jwins
from experiments.lib.report import Row, over_seeds
from experiments.lib.sharing_schemes import FULL, JWINS, SCHEMES
from experiments.lib.store import mean_and_interval
from experiments.lib.trivial import MARGIN
from gossipjax import Sharing

CLAIM = "JWINS reaches an accuracy similar to full sharing with up to 64 % fewer bytes"


class Part(NamedTuple):
    """One task, and the length of its runs."""

    task: Name
    num_rounds: int
    num_records: int
    num_seeds: int


class Config(NamedTuple):
    """Settings, for two cores and a few hours; see :data:`PAPER`."""

    parts: tuple[Part, ...] = (
        Part("movielens", 600, 20, 1),
        Part("writers", 400, 20, 1),
        # The paper's script runs 6,500 rounds of CIFAR-10, which needs an accelerator.
        Part("cifar10", 150, 10, 1),
        # A round takes minutes on two cores: these rounds suffice to count bytes and seconds, not to learn the plays.
        Part("shakespeare", 8, 4, 1),
    )
    schemes: tuple[str, ...] = tuple(SCHEMES)
    num_nodes: int = 96
    degree: int = 4
    test_nodes: int | None = 8
    test_samples: int = 1000
    seed: int = 0
    keep: Keep = None
    """Where finished runs are."""


QUICK = Config(parts=(Part("digits", 100, 20, 3),), num_nodes=16)
PAPER = Config(
    parts=(
        # No number of rounds is published for MovieLens; this one is ours.
        Part("movielens", 3000, 60, 5),
        # In the role of FEMNIST, whose script runs 813 rounds.
        Part("writers", 813, 40, 5),
        Part("cifar10", 6500, 100, 5),
        # The script runs 6,300 rounds of 2 local steps; the configuration, like ours, has 10.
        Part("shakespeare", 6300, 60, 3),
    )
)
"""Rounds of the scripts released with the paper; needs an accelerator."""


def run(config: Config) -> xr.Dataset:
    """Run every scheme on every task; each run is stored when it is complete.

    Raises:
        ValueError: unknown schemes, or full sharing or JWINS not among them.
    """
    schemes.check_schemes(config.schemes)
    found = {}
    for part in config.parts:
        with contextlib.suppress(Missing):
            found[part.task] = _run_part(part, config)
    if not found:
        raise Missing("no task has one seed of both full sharing and JWINS")
    along = xr.DataArray(list(found), dims="task", name="task")
    return side_by_side(list(found.values()), along).assign_attrs(num_nodes=config.num_nodes, degree=config.degree)


def cells(config: Config) -> list[Cell]:
    """List the runs of a configuration."""
    return [cell for part in config.parts for cell in _cells(part, config).values()]


def _cells(part: Part, config: Config) -> dict[tuple[str, int], Cell]:
    """Name the runs of a task by scheme and seed."""
    shared = {"task": part.task, "network": _network(part, config)._asdict()}
    is_accuracy = part.task != "movielens"
    bands = {"loses at most": schemes.SIMILAR[is_accuracy], "saves at least, %": schemes.ENOUGH}
    bands |= {"better than trivial by": MARGIN[is_accuracy]}
    found = {}
    for seed in range(part.num_seeds):
        for name in config.schemes:
            labels = {"task": part.task, "scheme": name, "seed": seed}
            settings = shared | {"scheme": name, "seed": seed}
            found[name, seed] = Cell("jwins_accuracy_vs_bytes", labels, one, contents, settings, bands=bands)
    return found


def _network(part: Part, config: Config) -> Network:
    return Network(
        config.num_nodes,
        part.num_rounds,
        config.degree,
        num_records=part.num_records,
        test_nodes=config.test_nodes,
        test_samples=config.test_samples,
        seed=config.seed,
    )


def one(settings: dict[str, Any], checkpoint: Any) -> xr.Dataset:
    """Train with one scheme and one seed."""
    given, said = contents(settings)
    return learn(given, said, Network(**settings["network"]), only=settings["seed"], checkpoint=checkpoint)


def contents(settings: dict[str, Any]) -> tuple[Problem, Sharing]:
    """Build the problem and the sharing of a run."""
    network = settings["network"]
    given = of_jwins(settings["task"], network["num_nodes"], seed=network["seed"])
    return given, SCHEMES[settings["scheme"]].build()


def _run_part(part: Part, config: Config) -> xr.Dataset:
    found = take_grid(config.keep, _cells(part, config), (FULL, JWINS))
    names = list(dict.fromkeys(name for name, _ in found))
    runs = {name: schemes.join_seeds([run for (of, _), run in found.items() if of == name]) for name in names}
    return schemes.join_schemes(runs, schemes.predicted(runs[FULL], _network(part, config), names))


def table(dataset: xr.Dataset) -> list[Row]:
    """Report verdict, scores, bytes, seconds, and costs of the target, task by task."""
    rows = []
    for task in dataset.task.values:
        at = schemes.part(dataset, task=task)
        rows += [*_verdicts(str(task), at), *_ends(str(task), at), *_rounds(str(task), at), *_costs(str(task), at)]
    return rows


def _verdicts(task: str, at: xr.Dataset) -> list[Row]:
    limit, words = schemes.margin(at)
    scale, unit = schemes.points(at)
    saved, faster = (
        schemes.saving(at, JWINS),
        1 - schemes.seconds_a_round(at, JWINS) / schemes.seconds_a_round(at, FULL),
    )
    expected = at.predicted_seconds.sel(scheme=[JWINS, FULL]).values
    quicker, doubt = (float(value) for value in mean_and_interval(100.0 * faster))
    rows = [
        Row(f"{task}: JWINS saves bytes (%)", saved, np.nan, schemes.CLAIMED_SAVING, "paper: up to 64 %"),
        Row(
            f"{task}: JWINS saves seconds per round (%)",
            quicker,
            doubt,
            100.0 * float(1 - expected[0] / expected[1]),
            "barriers simulated; nodes wait for a neighbour's whole model",
        ),
        over_seeds(
            f"{task}: JWINS behind full ({unit})",
            scale * schemes.behind(at, JWINS),
            scale * limit,
            f"largest loss called similar; paper: similar at up to 64 % fewer bytes; {schemes.verdict(at)}",
        ),
    ]
    for name in at.scheme.values:
        if name not in (FULL, JWINS):
            words = f"at equal rounds and nearly equal bytes; paper: ahead; {schemes.ahead(at, str(name))}"
            rows.append(
                over_seeds(
                    f"{task}: JWINS ahead of {name} ({unit})",
                    scale * schemes.behind(at, str(name), JWINS),
                    np.nan,
                    words,
                )
            )
    return rows


def _ends(task: str, at: xr.Dataset) -> list[Row]:
    rows = []
    reference = float(schemes.shown(at, schemes.scores(at, FULL)[-1].mean()))
    for name in at.scheme.values:
        known = np.nan if name == FULL else reference
        rows.append(
            over_seeds(
                f"{task}: final {schemes.unit(at)}, {name}",
                schemes.shown(at, schemes.scores(at, str(name))[-1]),
                known,
                FULL,
            )
        )
    rows += schemes.trivial_rows(task, at)
    for name in at.scheme.values:
        words = f"formula, positions at random; {schemes.saving(at, str(name)):.1f} % saved"
        expected = float(at.predicted_megabytes.sel(scheme=name))
        rows.append(over_seeds(f"{task}: MB per node, {name}", schemes.megabytes(at, str(name)), expected, words))
    return rows


def _rounds(task: str, at: xr.Dataset) -> list[Row]:
    rows = []
    for name in at.scheme.values:
        words = f"barriers simulated; {schemes.waiting(at, str(name)):.2f} times rounds of equal messages"
        expected = float(at.predicted_seconds.sel(scheme=name))
        rows.append(
            over_seeds(f"{task}: seconds per round, {name}", schemes.seconds_a_round(at, str(name)), expected, words)
        )
    return rows


def _costs(task: str, at: xr.Dataset) -> list[Row]:
    rows, target = [], schemes.target_of(at)
    full = schemes.cost_of(at, FULL, target)
    aim = (
        f"{schemes.unit(at)} {float(schemes.shown(at, target)):.4g}, {100 * schemes.GAIN:.0f} % of full sharing's gain"
    )
    for name in at.scheme.values:
        cost = schemes.cost_of(at, str(name), target)
        for quantity, spent, reference in (
            ("MB per node", cost.megabytes, full.megabytes),
            ("seconds", cost.seconds, full.seconds),
        ):
            # If full sharing gains nothing, it reaches its target at the start.
            words = f"{aim}; {1 - spent / reference:.0%} saved" if reference else aim
            words = words if cost.reached else "not reached: total cost"
            rows.append(Row(f"{task}: {quantity} to target, {name}", spent, np.nan, np.nan, words))
    return rows
