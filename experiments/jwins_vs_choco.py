"""How many bytes, and how much time, does JWINS save against CHOCO-SGD if messages must be small?

Both meet a budget: the mean size of a message relative to the model, positions included. CHOCO-SGD sends the k largest
differences from the copies that its neighbours hold, with positions as Elias gamma gaps. JWINS draws from a list of
cut-offs. The paper's lists for low budgets are not published; ours are the released list scaled down
(:func:`experiments.lib.budgets.low_budget`), with part of the bytes for messages of the whole model.

Both are tuned over grids of equal size on one seed, and compared on others: CHOCO-SGD over its consensus step γ and the
learning rate, JWINS over the share of bytes for whole models and the learning rate. Full sharing, which has only a
learning rate, is the reference. The best settings have the highest score at the end of the tuning run. Settings that
collapse in the longer runs of the comparison, as CHOCO-SGD may with the γ that was best in tuning, are replaced by the
next best, and the table says so. Seeds differ in graph, start and batches, but not in the partition of the data.

The default uses handwritten digits by writer, which takes an hour on two cores; :data:`PAPER` uses CIFAR-10.

Reference: Dhasade et al. 2023, arXiv 2306.04377 (JWINS); Koloskova, Stich, Jaggi 2019, arXiv 1902.00340 (CHOCO-SGD).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.lib import trivial
from experiments.lib.budgets import CutOffs, low_budget, ratio_in_words, top_k_share
from experiments.lib.compressed import Network, run_of
from experiments.lib.curves import reached, target_of
from experiments.lib.problems import Name, Problem, of_jwins
from experiments.lib.report import Row, over_seeds
from gossipjax import Sharing
from gossipjax.compress import top_k
from gossipjax.compress.codes import elias_gamma
from gossipjax.sharing import choco, full, jwins
from theory.check.policy import above, decide

CLAIM = "at low budgets JWINS reaches a score with up to 4 times fewer bytes, and in less time, than CHOCO-SGD"
SCHEMES = ("JWINS", "CHOCO-SGD")
PAPER_FACTOR = 4.0
COLLAPSE = 0.1
"""Loss from the best record to the last, as a share of the gain, that counts as a collapse."""


class Config(NamedTuple):
    """Settings: one task that saturates early, because two cores must run a grid of 48 points."""

    task: Name = "writers"
    num_nodes: int = 96
    budgets: tuple[float, ...] = (0.2, 0.1)
    """Mean size of a message over that of the model."""
    rate_factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Tuned learning rates, relative to that of the task."""
    gammas: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    wholes: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    """Shares of JWINS' bytes for messages of the whole model; as many as gammas."""
    tuning_rounds: int = 150
    num_rounds: int = 500
    record_every: int = 5
    num_seeds: int = 3
    test_nodes: int | None = 16
    target_share: float = 0.97
    """The target, as a share of the gain of the weaker scheme at its end."""
    seed: int = 0
    """Seed of the tuning; the comparison uses the following seeds."""
    keep: str | None = None
    """Folder of finished runs."""


QUICK = Config(
    task="digits",
    num_nodes=16,
    budgets=(0.1,),
    rate_factors=(2.0,),
    gammas=(0.2, 0.4),
    wholes=(0.0, 0.5),
    tuning_rounds=60,
    num_rounds=60,
    record_every=4,
    num_seeds=2,
    test_nodes=None,
)
PAPER = Config(task="cifar10", tuning_rounds=650, num_rounds=6500, record_every=65, num_seeds=5)


class Scheme(NamedTuple):
    """One point of a grid."""

    label: str
    sharing: Sharing


def schemes_of(config: Config, budget: float) -> dict[str, list[Scheme]]:
    """Build the schemes of one budget: for each of the two, one per value of its second setting."""
    # One list of all cut-offs, from which each scheme draws some, so that all share one compiled program.
    lists = [low_budget(each, whole) for each in config.budgets for whole in config.wholes]
    union = tuple(sorted({share for cut_offs in lists for share in cut_offs.shares}))
    chosen = [low_budget(budget, whole) for whole in config.wholes]
    share = top_k_share(budget)
    return {
        "JWINS": [Scheme(f"jwins {cut_offs} among {len(union)}", _drawn_from(union, cut_offs)) for cut_offs in chosen],
        "CHOCO-SGD": [
            Scheme(f"choco top-k {share} gamma {gamma}", choco(top_k(share=share, indices=elias_gamma), gamma))
            for gamma in config.gammas
        ],
    }


def _drawn_from(union: tuple[float, ...], cut_offs: CutOffs) -> Sharing:
    often = dict(zip(cut_offs.shares, cut_offs.probabilities, strict=True))
    return jwins(union, probabilities=[often.get(share, 0.0) for share in union], cap=1.0)


class Grid(NamedTuple):
    """Results of tuning, over settings (rows) and learning rates (columns)."""

    score: np.ndarray
    """Score at the end; −∞ if a run diverged."""
    share: np.ndarray
    """Mean size of a message over that of the model."""


def tuned(problem: Problem, schemes: Sequence[Scheme], config: Config) -> Grid:
    """Run all points of a grid with the tuning seed."""
    network = _network(config, config.tuning_rounds, config.seed)
    runs = [[_run(problem, scheme, network, factor, config) for factor in config.rate_factors] for scheme in schemes]
    score = np.array([[_signed(problem, run)[-1] for run in row] for row in runs])
    share = np.array([[_share(run, network) for run in row] for row in runs])
    return Grid(np.where(np.isfinite(score), score, -np.inf), share)


def best_first(score: np.ndarray) -> list[tuple[int, int]]:
    """List rows and columns by score, the highest first, without runs that diverged.

    Raises:
        ValueError: no score is finite.
    """
    if not np.isfinite(score).any():
        raise ValueError("every point of the grid diverged; use lower learning rates and consensus steps")
    order = [np.unravel_index(int(k), score.shape) for k in np.argsort(-score, axis=None, kind="stable")]
    return [(int(row), int(column)) for row, column in order if np.isfinite(score[row, column])]


def collapsed(score: np.ndarray) -> bool:
    """Return whether the mean of scores ``(record, seed)`` over seeds ends far below its best."""
    mean = score.mean(axis=1)
    return not np.isfinite(mean[-1]) or bool(mean.max() - mean[-1] > COLLAPSE * (mean.max() - mean[0]))


def _network(config: Config, num_rounds: int, seed: int) -> Network:
    nodes = None if config.test_nodes is None else min(config.test_nodes, config.num_nodes)
    records = max(1, num_rounds // config.record_every)
    return Network(config.num_nodes, num_rounds, num_records=records, test_nodes=nodes, seed=seed)


def _run(problem: Problem, scheme: Scheme, network: Network, factor: float, config: Config) -> xr.Dataset:
    return run_of(
        problem, scheme.label, scheme.sharing, network, config.keep, learning_rate=problem.learning_rate * factor
    )


def _signed(problem: Problem, run: xr.Dataset) -> np.ndarray:
    """Return the nodes' mean score at every record; higher is better."""
    score = run.score.sel(statistic="mean").isel(seed=0).values.astype(np.float64)
    return score if problem.higher_is_better else -score


def _share(run: xr.Dataset, network: Network) -> float:
    messages = network.num_nodes * network.degree * network.num_rounds
    return float(run.bytes_sent.isel(record=-1, seed=0)) / (messages * 4 * run.attrs["parameters"])


def compare(problem: Problem, scheme: Scheme, factor: float, config: Config) -> xr.Dataset:
    """Run one tuned scheme with the seeds of the comparison; return score, MB and seconds by record."""
    seeds = range(config.seed + 1, config.seed + 1 + config.num_seeds)
    runs = [_run(problem, scheme, _network(config, config.num_rounds, seed), factor, config) for seed in seeds]
    mean = [run.isel(seed=0).sel(statistic="mean", drop=True) for run in runs]

    def stack(curves: list[np.ndarray]) -> tuple[tuple[str, str], np.ndarray]:
        return ("record", "seed"), np.stack(curves, axis=1).astype(np.float64)

    return xr.Dataset(
        {
            "score": stack([_signed(problem, run) for run in runs]),
            "megabytes": stack([run.node_bytes_sent.values / 1e6 for run in mean]),
            "clock": stack([run.node_clock.values for run in mean]),
        },
        {"round": ("record", runs[0].event.values)},
        {"parameters": runs[0].attrs["parameters"], "trivial": runs[0].attrs["trivial"]},
    )


def run(config: Config) -> xr.Dataset:
    """Tune and compare both schemes at every budget, and full sharing; compute their costs to the common target.

    Raises:
        ValueError: grids of different sizes.
    """
    if len(config.gammas) != len(config.wholes):
        raise ValueError(
            f"{len(config.gammas)} gammas and {len(config.wholes)} wholes: must be equally many, so that the "
            "schemes are tuned equally"
        )
    problem = of_jwins(config.task, config.num_nodes, seed=config.seed)
    reference = Scheme("full", full())
    grid = tuned(problem, [reference], config)
    rate = config.rate_factors[best_first(grid.score)[0][1]]
    whole = compare(problem, reference, rate, config)
    parts = [_at_budget(problem, budget, config) for budget in config.budgets]
    joined = xr.concat(parts, xr.DataArray(list(config.budgets), dims="budget", name="budget"))
    named = {name: f"full_{name}" for name in ("score", "megabytes", "clock")}
    tuning = {"full_grid_score": ("rate", grid.score[0]), "full_rate": ((), rate * problem.learning_rate)}
    network = _network(config, config.num_rounds, config.seed)
    facts = {
        "data": problem.source,
        "task": problem.name,
        "metric": problem.metric,
        "sign": 1 if problem.higher_is_better else -1,
        "num_nodes": config.num_nodes,
        "compute": problem.batch_size * problem.local_steps * network.seconds_per_sample,
        "bytes_per_second": network.bytes_per_second,
        "message_megabytes": 4e-6 * whole.attrs["parameters"],
        "degree": network.degree,
        "target_share": config.target_share,
        "trivial": whole.attrs["trivial"],
    }
    return joined.assign({named[name]: whole[name] for name in named} | tuning).drop_attrs().assign_attrs(facts)


def _at_budget(problem: Problem, budget: float, config: Config) -> xr.Dataset:
    """Tune and compare at one budget."""
    tried, grids, compared = schemes_of(config, budget), [], []
    settings = {"JWINS": config.wholes, "CHOCO-SGD": config.gammas}
    chosen, passed = [], []
    for name in SCHEMES:
        grids.append(tuned(problem, tried[name], config))
        place, (row, column), run = _first_that_holds(problem, tried[name], grids[-1], config)
        chosen.append((settings[name][row], config.rate_factors[column] * problem.learning_rate))
        passed.append(place)
        compared.append(run)
    dataset = xr.concat(compared, xr.DataArray(list(SCHEMES), dims="scheme", name="scheme"))
    mean = dataset.score.transpose("scheme", "record", "seed").values.astype(np.float64).mean(axis=-1)
    target = target_of(float(np.nanmean(mean[:, 0])), mean[:, -1], config.target_share)
    cell = ("scheme", "setting", "rate")
    return dataset.assign(
        grid_score=(cell, np.stack([grid.score for grid in grids])),
        grid_share=(cell, np.stack([grid.share for grid in grids])),
        setting_value=(("scheme", "setting"), np.array([settings[name] for name in SCHEMES], np.float64)),
        rate_value=("rate", np.array(config.rate_factors) * problem.learning_rate),
        chosen_setting=("scheme", np.array([pair[0] for pair in chosen], np.float64)),
        chosen_rate=("scheme", np.array([pair[1] for pair in chosen])),
        passed_over=("scheme", np.array(passed)),
        target=((), target),
        megabytes_to_target=(("scheme", "seed"), _spent(dataset, "megabytes", target)),
        seconds_to_target=(("scheme", "seed"), _spent(dataset, "clock", target)),
    )


def _first_that_holds(
    problem: Problem, schemes: Sequence[Scheme], grid: Grid, config: Config
) -> tuple[int, tuple[int, int], xr.Dataset]:
    """Compare with the best point of a grid that does not collapse; return its rank, its place and its runs."""
    for rank, (row, column) in enumerate(best_first(grid.score)):
        run = compare(problem, schemes[row], config.rate_factors[column], config)
        if not collapsed(run.score.values):
            return rank, (row, column), run
    raise ValueError(f"every point of the grid of {schemes[0].label} collapses: try smaller steps")


def _spent(run: xr.Dataset, cost: str, target: float) -> np.ndarray:
    def of(at: xr.Dataset) -> float:
        return reached(target, at[cost].values, at.score.values)

    number = run.sizes["seed"]
    return np.array([[of(run.sel(scheme=name).isel(seed=seed)) for seed in range(number)] for name in SCHEMES])


def table(dataset: xr.Dataset) -> list[Row]:
    """Report final scores and costs of each scheme, the ratio of costs to a common target, and the verdict."""
    rows = [_final(dataset.full_score, "full sharing", f"learning rate {float(dataset.full_rate):g}", dataset)]
    rows.append(_row("MB per node, full sharing", dataset.full_megabytes.isel(record=-1), _megabytes(dataset, 1.0)))
    higher, known = dataset.attrs["sign"] > 0, trivial.stored(dataset)
    rows += trivial.rows(f"{dataset.attrs['metric']}, ", known, higher)
    for budget in dataset.budget.values:
        at = dataset.sel(budget=budget)
        rows += [row for name in SCHEMES for row in _scheme_rows(at.sel(scheme=name), name, f"{budget:.0%}")]
        rows += [_ratio(at, "megabytes_to_target", f"bytes to target, {budget:.0%}")]
        rows += [_ratio(at, "seconds_to_target", f"time to target, {budget:.0%}")]
    return rows


def _row(quantity: str, values: xr.DataArray, predicted: float = np.nan, source: str = "4 B × parameters") -> Row:
    return over_seeds(quantity, values.values, predicted, source)


def _final(score: xr.DataArray, name: str, source: str, dataset: xr.Dataset) -> Row:
    return _row(f"{dataset.attrs['metric']}, {name}", dataset.attrs["sign"] * score.isel(record=-1), source=source)


def _megabytes(dataset: xr.Dataset, share: float) -> float:
    """Return the MB that a node sends in the whole run if a message has a given share of the model."""
    return share * dataset.attrs["message_megabytes"] * dataset.attrs["degree"] * float(dataset["round"][-1])


def _scheme_rows(at: xr.Dataset, name: str, budget: str) -> list[Row]:
    number, last = float(at["round"][-1]), at.isel(record=-1)
    sent = float(last.megabytes.mean()) / number
    equal_messages = at.attrs["compute"] + 1e6 * sent / at.attrs["bytes_per_second"]
    where = f"{name} at {budget}"
    rows = [
        _final(at.score, where, tuning_in_words(at, name), at),
        _row(f"MB per node, {where}", last.megabytes, _megabytes(at, float(at.budget)), "budget × 4 B × parameters"),
        _row(
            f"seconds per round, {where}", last.clock / number, equal_messages, "no waiting: messages of the mean size"
        ),
    ]
    for cost, unit in (("megabytes", "MB"), ("clock", "s")):
        spent = at[f"{'seconds' if cost == 'clock' else cost}_to_target"]
        target = f"{at.attrs['metric']} {at.attrs['sign'] * float(at.target):.4g}"
        missed = int(np.isnan(spent.values).sum())
        if missed:
            words = f"more: {missed} of {spent.size} seeds never reach {target}"
            rows.append(Row(f"{unit} to target, {where}", float(last[cost].mean()), np.nan, np.nan, words))
        else:
            rows.append(_row(f"{unit} to target, {where}", spent, source=target))
    return rows


def tuning_in_words(at: xr.Dataset, name: str) -> str:
    """Describe the best point of the grid, and whether a better one may lie beyond the grid."""
    setting, rate = float(at.chosen_setting), float(at.chosen_rate)
    knob = f"γ = {setting:g}" if name == "CHOCO-SGD" else f"{setting:.0%} of bytes in whole models"
    ends = []
    if setting in (at.setting_value.values[-1], *([at.setting_value.values[0]] if setting > 0 else [])):
        ends.append("γ" if name == "CHOCO-SGD" else "list")
    if rate in at.rate_value.values[[0, -1]]:
        ends.append("rate")
    edge = f"; at the end of the grid: {', '.join(ends)}" if ends else ""
    if passed := int(at.passed_over):
        edge += f"; {passed} better in tuning, but collapsed later"
    return f"{knob}, learning rate {rate:g}{edge}"


def _ratio(at: xr.Dataset, name: str, quantity: str) -> Row:
    """Return the cost of CHOCO-SGD over that of JWINS, seed by seed."""
    ratio = at[name].sel(scheme="CHOCO-SGD").values / at[name].sel(scheme="JWINS").values
    label = f"{quantity}, CHOCO-SGD / JWINS"
    if np.isnan(ratio).any():
        missed = [str(scheme) for scheme in SCHEMES if np.isnan(at[name].sel(scheme=scheme).values).any()]
        done = at.megabytes if name.startswith("mega") else at.clock
        ends = done.isel(record=-1).mean("seed")
        measured = float(ends.sel(scheme="CHOCO-SGD") / ends.sel(scheme="JWINS"))
        words = f"{decide(ratio, above(1.0)).word}: {', '.join(missed)} missed it; ratio of the ends"
        return Row(label, measured, np.nan, PAPER_FACTOR, _trained(at, words))
    words = _trained(at, ratio_in_words(ratio, PAPER_FACTOR, "JWINS", "CHOCO-SGD"))
    return over_seeds(label, ratio, PAPER_FACTOR, f"paper: up to 4 times; {words}")


def _trained(at: xr.Dataset, words: str) -> str:
    """Return a verdict, or that it is undecided because full sharing has not learned."""
    sign = at.attrs["sign"]
    return trivial.gated(words, sign * at.full_score.isel(record=-1).values, trivial.stored(at), sign > 0)
