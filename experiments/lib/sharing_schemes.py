"""Sharing schemes that are compared at equal bytes: messages, their predicted costs, and verdicts.

Random sampling and top-k get the share of the model for which their mean message is as long as that of JWINS with the
released cut-offs, if positions are random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.lib import curves, trivial
from experiments.lib.asynchronous import barrier_ends
from experiments.lib.budgets import expected_share, message_share, top_k_share
from experiments.lib.compressed import Network, graphs_of, run_of
from experiments.lib.curves import reached
from experiments.lib.problems import Problem
from experiments.lib.report import Row
from gossipjax import Sharing
from gossipjax.compress.transforms import wavelet
from gossipjax.sharing import full, jwins, random_subset, top_k
from gossipjax.sharing._jwins import CUT_OFFS
from theory.check.policy import Band, Verdict, Word, above, all_of, decide

FULL, SAMPLING, TOP_K, JWINS = "full sharing", "random sampling", "top-k", "JWINS"
BUDGET = expected_share(CUT_OFFS)
"""Mean length of a JWINS message, relative to the model's."""
CLAIMED_SAVING = 64.0
"""Saving of bytes against full sharing, %, "up to" (Dhasade et al. 2023, abstract)."""
ENOUGH = 60.0
"""Smallest saving, %, that counts as the claimed one."""
SIMILAR = {True: 0.01, False: 0.02}
"""Largest loss that counts as similar: absolute for accuracies (True), relative to full sharing for errors (False)."""
GAIN = 0.95
"""The target is this share of the gain of full sharing from start to end."""
_INDEX_HEADER, _SEED = 16, 8


class Scheme(NamedTuple):
    """What nodes send, and its predicted length."""

    settings: str
    """Complete description; finished runs are stored under it."""
    build: Callable[[], Sharing]
    lengths: Callable[[int], tuple[float, ...]]
    """Bytes of a message of d parameters, in equally likely cases; each is the mean over random positions."""


def _jwins_lengths(d: int) -> tuple[float, ...]:
    count = wavelet("sym2", levels=4).size(d)
    return tuple(4 * count * (1.0 if a >= 0.5 else message_share(a)) + _INDEX_HEADER * (a < 0.5) for a in CUT_OFFS)


SCHEMES = {
    FULL: Scheme("full sharing", full, lambda d: (4.0 * d,)),
    SAMPLING: Scheme(
        f"random sampling of {BUDGET:.6f}", lambda: random_subset(BUDGET), lambda d: (4.0 * d * BUDGET + _SEED,)
    ),
    TOP_K: Scheme(
        f"top-k of {top_k_share(BUDGET):.6f}, accumulated",
        lambda: top_k(top_k_share(BUDGET)),
        lambda d: (4.0 * d * BUDGET + _INDEX_HEADER,),
    ),
    JWINS: Scheme(f"JWINS, wavelet sym2, cut-offs {CUT_OFFS}", jwins, _jwins_lengths),
}


def check_schemes(names: Sequence[str]) -> None:
    """Raise ValueError unless all names are schemes, and full sharing and JWINS are among them."""
    if unknown := [name for name in names if name not in SCHEMES]:
        raise ValueError(f"schemes {unknown}: choose among {', '.join(SCHEMES)}")
    if missing := [name for name in (FULL, JWINS) if name not in names]:
        raise ValueError(f"schemes={tuple(names)}: add {' and '.join(missing)}, which the claim compares")


def seconds_per_round(network: Network, compute: float, lengths: Sequence[float], *, copies: int = 4) -> float:
    """Predict the mean duration of a round in which nodes wait only for their neighbours.

    ``t_i ← max over i and its neighbours j of (t_j + compute + degree · length_j / rate)``, on the network's graphs
    from its first round on. Every node draws a length in every round; the result is exact if there is only one length.

    Args:
        network: graphs, number of rounds, rate.
        compute: seconds of local training in a round.
        lengths: bytes of a message; all entries are equally likely.
        copies: number of independent networks that are averaged.
    """
    busy = compute + network.degree * np.asarray(lengths) / network.bytes_per_second
    drawn = np.random.default_rng(network.seed).integers(
        len(busy), size=(network.num_rounds, network.num_nodes, copies)
    )
    return float(barrier_ends(graphs_of(network), busy[drawn])[-1].mean()) / network.num_rounds


def predicted(run: xr.Dataset, network: Network, names: Sequence[str]) -> dict[str, Any]:
    """Predict megabytes per node and seconds per round of schemes, one of which made ``run``, as variables."""
    compute = int(run.batch_size) * int(run.local_steps) * network.seconds_per_sample
    lengths = [SCHEMES[name].lengths(int(run.parameters)) for name in names]
    sent = [network.num_rounds * network.degree * float(np.mean(each)) / 1e6 for each in lengths]
    seconds = [seconds_per_round(network, compute, each) for each in lengths]
    return {
        "predicted_megabytes": ("scheme", sent),
        "predicted_seconds": ("scheme", seconds),
        "compute_seconds": ((), compute),
        "bytes_per_second": ((), network.bytes_per_second),
    }


def compare(problem: Problem, network: Network, names: Sequence[str], keep: str | None) -> xr.Dataset:
    """Run schemes on one problem and one network; each run is stored when it is complete.

    Raises:
        ValueError: unknown schemes, or full sharing or JWINS not among them.
    """
    check_schemes(names)
    runs = {name: run_of(problem, SCHEMES[name].settings, SCHEMES[name].build(), network, keep) for name in names}
    return join_schemes(runs, predicted(runs[FULL], network, names))


def join_seeds(runs: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join runs of one seed each; all have diverged if one has, as where seeds run together."""
    seeds = xr.DataArray(np.arange(len(runs)), dims="seed", name="seed")
    alone = [found.isel(seed=0, drop=True) for found in runs]
    joined = xr.concat(alone, seeds, coords="minimal", compat="override", combine_attrs="override")
    joined = joined.transpose("record", "seed", ..., missing_dims="ignore")
    return joined.assign_attrs(diverged=max(int(found.diverged) for found in runs))


def join_schemes(runs: dict[str, xr.Dataset], extra: dict[str, Any]) -> xr.Dataset:
    """Join the schemes of one problem along ``scheme``; attributes of the runs and the target become variables."""
    first = next(iter(runs.values()))
    joined = xr.concat(
        [run.drop_vars("time").drop_attrs() for run in runs.values()],
        xr.DataArray(list(runs), dims="scheme", name="scheme"),
        coords="minimal",
        compat="override",
    ).reset_coords("event")
    facts = {name: ((), first.attrs[name]) for name in ("metric", "data", "parameters", "higher_is_better", "trivial")}
    diverged = ("scheme", [int(run.attrs["diverged"]) for run in runs.values()])
    joined = joined.assign(facts | extra | {"diverged": diverged})
    sign = 1.0 if int(joined.higher_is_better) else -1.0
    return joined.assign(target=((), sign * target_of(joined)))


def part(dataset: xr.Dataset, **selected: Any) -> xr.Dataset:
    """Select one problem of :func:`experiments.lib.curves.side_by_side`, without its padding."""
    at = dataset.sel(selected)
    # Padding shows in bytes; scores of a run that diverged are NaN as well.
    return at.dropna("record", how="all", subset=["event"]).dropna("seed", how="all", subset=["node_bytes_sent"])


def scores(at: xr.Dataset, name: str) -> Float[np.ndarray, "record seed"]:
    """Return the mean scores over nodes, with changed sign if lower is better."""
    sign = 1.0 if int(at.higher_is_better) else -1.0
    return sign * at.score.sel(scheme=name, statistic="mean").transpose("record", "seed").values.astype(np.float64)


def target_of(at: xr.Dataset) -> float:
    """Return the score, as in :func:`scores`, at the share :data:`GAIN` of the mean gain of full sharing."""
    mean = scores(at, FULL).mean(axis=1)
    return curves.target_of(float(mean[0]), mean[-1], GAIN)


class Cost(NamedTuple):
    """Costs until a scheme's mean score first reaches a target, or total costs if it never does."""

    reached: bool
    rounds: float
    megabytes: float
    """Per node."""
    seconds: float
    """Seconds of the clock, mean over nodes."""


def cost_of(at: xr.Dataset, name: str, target: float) -> Cost:
    """Compute rounds, bytes and seconds to a target from the mean curve over seeds, interpolated between records."""
    curve = scores(at, name).mean(axis=1)
    chosen = at.sel(scheme=name, statistic="mean")
    spent = (
        at.event.values.astype(np.float64),
        chosen.node_bytes_sent.transpose("record", "seed").values.mean(axis=1) / 1e6,
        chosen.node_clock.transpose("record", "seed").values.mean(axis=1),
    )
    costs = [reached(target, np.asarray(axis, np.float64), curve) for axis in spent]
    if any(np.isnan(costs)):
        return Cost(False, *(float(axis[-1]) for axis in spent))
    return Cost(True, *costs)


def megabytes(at: xr.Dataset, name: str) -> Float[np.ndarray, " seed"]:
    """Return the total megabytes that a node has sent, mean over nodes."""
    return at.node_bytes_sent.sel(scheme=name, statistic="mean").isel(record=-1).values.astype(np.float64) / 1e6


def seconds_a_round(at: xr.Dataset, name: str) -> Float[np.ndarray, " seed"]:
    """Return the mean duration of a round by the nodes' clocks."""
    clock = at.node_clock.sel(scheme=name, statistic="mean").isel(record=-1)
    return clock.values.astype(np.float64) / float(at.event.values[-1])


def saving(at: xr.Dataset, name: str) -> float:
    """Return how many bytes a node has saved against full sharing, in %."""
    return 100.0 * (1.0 - megabytes(at, name).mean() / megabytes(at, FULL).mean())


def waiting(at: xr.Dataset, name: str) -> float:
    """Return the duration of a round, relative to a round in which all messages have their mean length."""
    sending = 1e6 * megabytes(at, name).mean() / float(at.event.values[-1]) / float(at.bytes_per_second)
    return float(seconds_a_round(at, name).mean() / (float(at.compute_seconds) + sending))


def margin(at: xr.Dataset) -> tuple[float, str]:
    """Return the largest loss that counts as similar, and its description: 1 point, or 2 % of full sharing's error."""
    if str(at.metric.values) == "accuracy":
        return SIMILAR[True], "1 point"
    return SIMILAR[False] * abs(float(scores(at, FULL)[-1].mean())), "2 %"


def behind(at: xr.Dataset, name: str, reference: str = FULL) -> Float[np.ndarray, " seed"]:
    """Return by how much a scheme ends below a reference, seed by seed; both share start and batches."""
    return scores(at, reference)[-1] - scores(at, name)[-1]


def loss(at: xr.Dataset, name: str) -> Float[np.ndarray, " seed"]:
    """Return by how much a scheme ends below full sharing, relative for errors; infinite if it diverged.

    The result is NaN if full sharing diverged.
    """
    lost, full = behind(at, name), scores(at, FULL)[-1]
    if str(at.metric.values) != "accuracy":
        lost = lost / np.abs(full)
    return diverged(scores(at, name)[-1], full, lost)


def diverged(
    score: Float[np.ndarray, " seed"], reference: Float[np.ndarray, " seed"], lost: Float[np.ndarray, " seed"]
) -> Float[np.ndarray, " seed"]:
    """Return the loss against a reference; infinite if the score is not finite but the reference is.

    The loss is NaN if the reference is not finite, because its divergence says nothing about the score.
    """
    return np.where(np.isfinite(reference), np.where(np.isfinite(score), lost, np.inf), np.nan)


class Similar(NamedTuple):
    """Verdicts, over the seeds, on the statements in "up to 64 % fewer bytes at similar accuracy"."""

    gains: Verdict
    """Full sharing gains more than the loss that counts as similar; otherwise everything would be similar."""
    learned: Verdict
    """Full sharing beats the trivial predictors by the margin of :mod:`experiments.lib.trivial`."""
    loses: Verdict
    """JWINS loses no more than this loss against full sharing."""
    saves: Verdict
    """JWINS saves enough bytes, in %."""

    @property
    def word(self) -> Word:
        """Judge the claim."""
        claim = all_of(self.loses.word, self.saves.word)
        # If full sharing does not learn, nothing is contradicted.
        return claim if {self.gains.word, self.learned.word} <= {"reproduced", "no verdict"} else "undecided"


def similar(at: xr.Dataset) -> Similar:
    """Judge the three statements."""
    curve = scores(at, FULL)
    gained = curve[-1] - curve[0]
    if str(at.metric.values) != "accuracy":
        gained = gained / np.abs(curve[-1])
    saved = 100.0 * (1.0 - megabytes(at, JWINS) / megabytes(at, FULL))
    limit = SIMILAR[str(at.metric.values) == "accuracy"]
    return Similar(
        decide(gained, above(limit)),
        learned(at, FULL),
        decide(loss(at, JWINS), Band(high=limit)),
        decide(saved, Band(low=ENOUGH)),
    )


def verdict(at: xr.Dataset) -> str:
    """Describe the verdicts of :func:`similar`."""
    statements, words = similar(at), margin(at)[1]
    text = f"{statements.word}: {saving(at, JWINS):.1f} % saved"
    if untrained := trained(at, FULL, ""):
        return untrained
    if statements.gains.word not in ("reproduced", "no verdict"):
        return f"{text}, but that full sharing itself gains more than {words} is {statements.gains.word}"
    if np.isinf(loss(at, JWINS)).any():
        return f"{text}, diverged"
    return f"{text}, similar within {words}: {statements.loses.word}"


def ahead(at: xr.Dataset, name: str) -> str:
    """Describe whether JWINS ends ahead of another scheme with the same bytes, if it has learned."""
    return trained(at, JWINS, decide(behind(at, name, JWINS), above(0.0)))


def learned(at: xr.Dataset, name: str) -> Verdict:
    """Judge whether a scheme ends better than the trivial predictors."""
    return trivial.learned(shown_scores(at, name), trivial.stored(at), int(at.higher_is_better))


def trained(at: xr.Dataset, name: str, words: Any) -> str:
    """Return a verdict, or that it is undecided because a scheme has not learned."""
    return trivial.gated(words, shown_scores(at, name), trivial.stored(at), int(at.higher_is_better))


def shown_scores(at: xr.Dataset, name: str) -> Float[np.ndarray, " seed"]:
    """Return the scores of a scheme at the end, by the metric."""
    return scores(at, name)[-1] * (1.0 if int(at.higher_is_better) else -1.0)


def trivial_rows(label: str, at: xr.Dataset) -> list[Row]:
    """Tabulate the trivial predictors beside the models; accuracies in %."""
    known, factor = trivial.stored(at), 100.0 if int(at.higher_is_better) else 1.0
    rows = trivial.rows(f"{label}: final {unit(at)}, ", known, int(at.higher_is_better))
    return [row._replace(measured=factor * row.measured) for row in rows]


def shown(at: xr.Dataset, value: Any) -> Any:
    """Convert scores for printing: accuracies in %, errors with positive sign."""
    return 100.0 * value if str(at.metric.values) == "accuracy" else -value


def unit(at: xr.Dataset) -> str:
    """Name the metric and its unit."""
    return "accuracy (%)" if str(at.metric.values) == "accuracy" else str(at.metric.values).upper()


def points(at: xr.Dataset) -> tuple[float, str]:
    """Return the factor and the unit in which differences of scores are printed."""
    return (100.0, "points") if str(at.metric.values) == "accuracy" else (1.0, unit(at))
