"""Sharing schemes that are compared at equal bytes: what they send, what that costs by formula, and what is found.

Random sampling and top-k get the share of the model with which their mean message is as long as that of JWINS with the
released cut-offs, positions of selected entries taken at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.lib import curves
from experiments.lib.asynchronous import barrier_ends
from experiments.lib.budgets import expected_share, message_share, top_k_share
from experiments.lib.compressed import Network, graphs_of, run_of
from experiments.lib.curves import reached
from experiments.lib.problems import Problem
from gossipjax import Sharing
from gossipjax.compress.transforms import wavelet
from gossipjax.sharing import full, jwins, random_subset, top_k
from gossipjax.sharing._jwins import CUT_OFFS
from theory.check.policy import Band, Verdict, Word, above, all_of, decide

FULL, SAMPLING, TOP_K, JWINS = "full sharing", "random sampling", "top-k", "JWINS"
BUDGET = expected_share(CUT_OFFS)
"""Mean length of a JWINS message, over that of the model."""
CLAIMED_SAVING = 64.0
"""Of bytes against full sharing, %, "up to" (Dhasade et al. 2023, abstract)."""
ENOUGH = 60.0
"""The saving, %, that counts as the claimed one."""
SIMILAR = {True: 0.01, False: 0.02}
"""Loss that counts as similar: of accuracy (True) as it is, of errors in parts of full sharing's."""
GAIN = 0.95
"""The target: this share of what full sharing gains from the start to its end."""
_INDEX_HEADER, _SEED = 16, 8


class Scheme(NamedTuple):
    """What nodes send, and how long it is by formula."""

    settings: str
    """In words, complete: finished runs are kept under them."""
    build: Callable[[], Sharing]
    lengths: Callable[[int], tuple[float, ...]]
    """Of a message of d parameters, bytes: the equally likely cases, each the mean over random positions."""


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
    """Raise ValueError unless all are schemes, with full sharing and JWINS among them."""
    if unknown := [name for name in names if name not in SCHEMES]:
        raise ValueError(f"schemes {unknown}: choose among {', '.join(SCHEMES)}")
    if missing := [name for name in (FULL, JWINS) if name not in names]:
        raise ValueError(f"schemes={tuple(names)}: add {' and '.join(missing)}, which the claim compares")


def seconds_per_round(network: Network, compute: float, lengths: Sequence[float], *, copies: int = 4) -> float:
    """Predict the mean duration of a round in which a node waits for its neighbours only.

    ``t_i ← max over i and its neighbours j of (t_j + compute + degree · length_j / rate)``, on the graphs of the
    network and from its first round on, lengths being drawn by every node in every round; exact where there is one.

    Args:
        network: graphs, number of rounds, rate.
        compute: seconds of local training in a round.
        lengths: bytes of a message, equally likely.
        copies: independent networks that are simulated side by side, the mean of which is taken.
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


def compare(given: Problem, network: Network, names: Sequence[str], keep: str | None) -> xr.Dataset:
    """Run schemes on one problem and one network; each run is kept when it is done.

    Raises:
        ValueError: unknown schemes, or full sharing or JWINS not among them.
    """
    check_schemes(names)
    runs = {name: run_of(given, SCHEMES[name].settings, SCHEMES[name].build(), network, keep) for name in names}
    return join_schemes(runs, predicted(runs[FULL], network, names))


def join_seeds(runs: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join runs of one seed each; all have diverged if one has, as where seeds run together."""
    seeds = xr.DataArray(np.arange(len(runs)), dims="seed", name="seed")
    alone = [found.isel(seed=0, drop=True) for found in runs]
    joined = xr.concat(alone, seeds, coords="minimal", compat="override", combine_attrs="override")
    joined = joined.transpose("record", "seed", ..., missing_dims="ignore")
    return joined.assign_attrs(diverged=max(int(found.diverged) for found in runs))


def join_schemes(runs: dict[str, xr.Dataset], extra: dict[str, Any]) -> xr.Dataset:
    """Join the schemes of one problem along ``scheme``; what the runs say of it, and the target, become variables."""
    first = next(iter(runs.values()))
    joined = xr.concat(
        [found.drop_vars("time").drop_attrs() for found in runs.values()],
        xr.DataArray(list(runs), dims="scheme", name="scheme"),
        coords="minimal",
        compat="override",
    ).reset_coords("event")
    facts = {name: ((), first.attrs[name]) for name in ("metric", "data", "parameters", "higher_is_better")}
    diverged = ("scheme", [int(found.attrs["diverged"]) for found in runs.values()])
    joined = joined.assign(facts | extra | {"diverged": diverged})
    sign = 1.0 if int(joined.higher_is_better) else -1.0
    return joined.assign(target=((), sign * target_of(joined)))


def part(dataset: xr.Dataset, **selected: Any) -> xr.Dataset:
    """Take one problem of :func:`experiments.lib.curves.side_by_side`, without what was filled up."""
    at = dataset.sel(selected)
    # By bytes, not by scores: those of a run that diverged are NaN themselves.
    return at.dropna("record", how="all", subset=["event"]).dropna("seed", how="all", subset=["node_bytes_sent"])


def scores(at: xr.Dataset, name: str) -> Float[np.ndarray, "record seed"]:
    """Return the mean scores over nodes, negative where less is better."""
    sign = 1.0 if int(at.higher_is_better) else -1.0
    return sign * at.score.sel(scheme=name, statistic="mean").transpose("record", "seed").values.astype(np.float64)


def target_of(at: xr.Dataset) -> float:
    """Choose the score (negative where less is better) at :data:`GAIN` of what full sharing gains in its mean."""
    mean = scores(at, FULL).mean(axis=1)
    return curves.target_of(float(mean[0]), mean[-1], GAIN)


class Cost(NamedTuple):
    """What a scheme has spent when its mean score first reaches a target, or, where it does not, in all."""

    reached: bool
    rounds: float
    megabytes: float
    """Per node."""
    seconds: float
    """Of the clock, mean over nodes."""


def cost_of(at: xr.Dataset, name: str, target: float) -> Cost:
    """Read rounds, bytes and seconds to a target off the mean curve over seeds, interpolated between records."""
    curve = scores(at, name).mean(axis=1)
    chosen = at.sel(scheme=name, statistic="mean")
    spent = (
        at.event.values.astype(np.float64),
        chosen.node_bytes_sent.transpose("record", "seed").values.mean(axis=1) / 1e6,
        chosen.node_clock.transpose("record", "seed").values.mean(axis=1),
    )
    found = [reached(target, np.asarray(axis, np.float64), curve) for axis in spent]
    if any(np.isnan(found)):
        return Cost(False, *(float(axis[-1]) for axis in spent))
    return Cost(True, *found)


def megabytes(at: xr.Dataset, name: str) -> Float[np.ndarray, " seed"]:
    """Return what a node has sent in all, mean over nodes."""
    return at.node_bytes_sent.sel(scheme=name, statistic="mean").isel(record=-1).values.astype(np.float64) / 1e6


def seconds_a_round(at: xr.Dataset, name: str) -> Float[np.ndarray, " seed"]:
    """Return the mean duration of a round by the nodes' clocks."""
    clock = at.node_clock.sel(scheme=name, statistic="mean").isel(record=-1)
    return clock.values.astype(np.float64) / float(at.event.values[-1])


def saving(at: xr.Dataset, name: str) -> float:
    """Return how much less than under full sharing a node has sent, in %."""
    return 100.0 * (1.0 - megabytes(at, name).mean() / megabytes(at, FULL).mean())


def waiting(at: xr.Dataset, name: str) -> float:
    """Return the duration of a round over that of one in which all messages have their mean length."""
    sending = 1e6 * megabytes(at, name).mean() / float(at.event.values[-1]) / float(at.bytes_per_second)
    return float(seconds_a_round(at, name).mean() / (float(at.compute_seconds) + sending))


def margin(at: xr.Dataset) -> tuple[float, str]:
    """Say which loss still counts as similar: 1 point of accuracy, or 2 % of the error of full sharing."""
    if str(at.metric.values) == "accuracy":
        return SIMILAR[True], "1 point"
    return SIMILAR[False] * abs(float(scores(at, FULL)[-1].mean())), "2 %"


def behind(at: xr.Dataset, name: str, reference: str = FULL) -> Float[np.ndarray, " seed"]:
    """Return by how much a scheme ends below a reference, seed by seed: they share start and batches."""
    return scores(at, reference)[-1] - scores(at, name)[-1]


def loss(at: xr.Dataset, name: str) -> Float[np.ndarray, " seed"]:
    """Return by how much a scheme ends below full sharing: of errors, in parts of its own; infinite if it diverged.

    NaN where full sharing diverged.
    """
    lost, full = behind(at, name), scores(at, FULL)[-1]
    if str(at.metric.values) != "accuracy":
        lost = lost / np.abs(full)
    return diverged(scores(at, name)[-1], full, lost)


def diverged(
    score: Float[np.ndarray, " seed"], reference: Float[np.ndarray, " seed"], lost: Float[np.ndarray, " seed"]
) -> Float[np.ndarray, " seed"]:
    """Return what is lost against a reference, and infinity where the score is not finite but its reference is.

    NaN where the reference is not finite: its divergence says nothing about the score.
    """
    return np.where(np.isfinite(reference), np.where(np.isfinite(score), lost, np.inf), np.nan)


class Similar(NamedTuple):
    """Statements of "up to 64 % fewer bytes at similar accuracy", each judged over the seeds."""

    gains: Verdict
    """Full sharing gains more than the loss that counts as similar: else anything would be similar."""
    loses: Verdict
    """JWINS loses no more than that against full sharing."""
    saves: Verdict
    """JWINS saves enough bytes, in %."""

    @property
    def word(self) -> Word:
        """Judge the claim."""
        claim = all_of(self.loses.word, self.saves.word)
        # What is not learned contradicts nothing.
        return claim if self.gains.word in ("reproduced", "no verdict") else "undecided"


def similar(at: xr.Dataset) -> Similar:
    """Judge the three statements."""
    curve = scores(at, FULL)
    gained = curve[-1] - curve[0]
    if str(at.metric.values) != "accuracy":
        gained = gained / np.abs(curve[-1])
    saved = 100.0 * (1.0 - megabytes(at, JWINS) / megabytes(at, FULL))
    limit = SIMILAR[str(at.metric.values) == "accuracy"]
    return Similar(
        decide(gained, above(limit)), decide(loss(at, JWINS), Band(high=limit)), decide(saved, Band(low=ENOUGH))
    )


def verdict(at: xr.Dataset) -> str:
    """Say what :func:`similar` finds."""
    found, words = similar(at), margin(at)[1]
    text = f"{found.word}: {saving(at, JWINS):.1f} % saved"
    if found.gains.word not in ("reproduced", "no verdict"):
        return f"{text}, but that full sharing itself gains more than {words} is {found.gains.word}"
    if np.isinf(loss(at, JWINS)).any():
        return f"{text}, diverged"
    return f"{text}, similar within {words}: {found.loses.word}"


def ahead(at: xr.Dataset, name: str) -> Verdict:
    """Judge whether JWINS ends ahead of another scheme of the same bytes."""
    return decide(behind(at, name, JWINS), above(0.0))


def shown(at: xr.Dataset, value: Any) -> Any:
    """Turn scores into what is printed: accuracies in %, errors as they are, positive again."""
    return 100.0 * value if str(at.metric.values) == "accuracy" else -value


def unit(at: xr.Dataset) -> str:
    """Name the metric and its unit."""
    return "accuracy (%)" if str(at.metric.values) == "accuracy" else str(at.metric.values).upper()


def points(at: xr.Dataset) -> tuple[float, str]:
    """Return the factor and the unit in which differences of scores are printed."""
    return (100.0, "points") if str(at.metric.values) == "accuracy" else (1.0, unit(at))
