"""Every verdict of an experiment, with measured values that make it come out each way."""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np
import xarray as xr

from experiments import (
    async_beats_sync_under_stragglers,
    hadfl_network,
    hadfl_scaling,
    hadfl_selection,
    hadfl_version_forecast,
    heterogeneity,
    jwins_ablation,
    jwins_dynamic_topology,
    plexus_churn,
    plexus_crash,
    plexus_join,
    plexus_round_duration,
    plexus_sample_size,
    plexus_vs_baselines,
)
from experiments.lib import budgets, sharing_schemes
from experiments.lib.sharing_schemes import FULL, JWINS, TOP_K
from theory.check.policy import Word

WORDS = set(get_args(Word))


FLOOR = {"accuracy": '{"majority class": 0.1}', "rmse": '{"user means": 1.2}'}
"""Scores without a model."""


class Case(NamedTuple):
    """A verdict as a function of what was measured, and measured values by the verdict that they must give."""

    name: str
    judge: Callable[[list[Any]], str]
    samples: dict[str, list[Any]]
    """Arrays over seeds; the first is the quantity that the verdict is about."""


def word_in(text: str) -> str:
    """Find the word of a verdict in what a table says."""
    return min((word for word in WORDS if word in text), key=text.index)


def ends(metric: str, **finals: Any) -> xr.Dataset:
    """Make the dataset of one problem whose schemes end with given scores, and have sent 4 and 1.4 MB."""
    start = 0.1 if metric == "accuracy" else 3.0
    score = np.stack([[np.full(len(values), start), values] for values in finals.values()])
    sent = np.array([4e6 if name == "full" else 1.4e6 for name in finals])[:, None, None] * np.ones_like(score)
    dims = ("scheme", "record", "seed", "statistic")
    names = {"full": FULL, "jwins": JWINS, "top_k": TOP_K}
    facts = {
        "metric": ((), metric),
        "higher_is_better": ((), int(metric == "accuracy")),
        "trivial": ((), FLOOR[metric]),
    }
    return xr.Dataset(
        {"score": (dims, score[..., None]), "node_bytes_sent": (dims, sent[..., None])} | facts,
        coords={"scheme": [names[name] for name in finals], "statistic": ["mean"]},
    )


def similar(metric: str) -> Callable[[list[Any]], str]:
    return lambda samples: sharing_schemes.similar(ends(metric, jwins=samples[0], full=samples[1])).word


def redrawn(samples: list[Any]) -> str:
    fixed, fresh = (ends("accuracy", jwins=values) for values in (samples[1], samples[0]))
    return jwins_dynamic_topology.unharmed(fixed, fresh, JWINS).word


def pace(samples: list[Any]) -> str:
    seconds = np.asarray(samples[0], float)
    at = xr.Dataset({"mean_duration": ("seed", seconds), "stalled": ("seed", np.resize(samples[1], len(seconds)))})
    return plexus_churn.pace(at, np.full(len(seconds), 50.0)).word


def known(samples: list[Any]) -> str:
    at = xr.Dataset({"rounds_until_known": (("seed", "join"), np.asarray(samples[0], float)[:, None])})
    return plexus_join.as_derived(at, 7.0).word


def crash(samples: list[Any]) -> str:
    behind, after, lost, alive = (np.asarray(values, float) for values in samples)
    return plexus_crash.judged(plexus_crash.Course(after, lost, behind, alive))[0]


def waiting(samples: list[Any]) -> str:
    waited = np.stack([np.asarray(samples[0], float), np.full(len(samples[0]), 10.0)])
    fields = {
        "time_to_target": (("system", "seed"), waited),
        "gradient_rate": (("system", "seed"), np.ones_like(waited)),
    }
    at = xr.Dataset(fields, {"system": ["D-PSGD", "AD-PSGD"]}, {"target": 0.9, "trivial": FLOOR["accuracy"]})
    return word_in(async_beats_sync_under_stragglers._ratio(at, "D-PSGD", "stragglers").source)


def accuracy(samples: list[Any]) -> str:
    values = np.stack([samples[1], samples[0]]).astype(float)[:, None, None, :, None]
    dims = ("protocol", "partition", "record", "seed", "statistic")
    at = xr.Dataset(
        {"test_accuracy": (dims, values)}, {"protocol": ["D-PSGD", "D²"], "partition": ["IID"], "statistic": ["mean"]}
    )
    return heterogeneity.is_ahead(at, "IID", "D²").word


def lengths(samples: list[Any]) -> list[str]:
    """Sources of the table of round lengths: samples of 10 last as long as given, those of 40 a given share longer."""
    small, ratio = (np.asarray(values, float) for values in samples)
    seconds = np.stack([small, small * ratio])[..., None] * np.ones(5)
    at = xr.Dataset({"duration": (("sample_size", "seed", "round"), seconds)}, {"sample_size": [10, 40]})
    return [row.source for row in plexus_round_duration._durations(at, 1)]


def costs(samples: list[Any]) -> dict[str, str]:
    """Verdicts where a sample of 40 costs so many times that of 10."""
    spent = np.stack([np.ones(len(samples[0])), samples[0]])
    found = plexus_sample_size.judged(dict.fromkeys(plexus_sample_size.COSTS, spent))
    return {name: verdict.word for name, verdict in found.items()}


GOOD, FAR, OPEN = [0.90, 0.91, 0.92], [0.80, 0.81, 0.82], [0.80, 0.91, 0.99]
LOST = [0.9, 0.91, np.nan]
NO_GAIN, ON = [0.105, 0.105, 0.105], [1, 1, 1]
CASES = (
    Case(
        "round length",
        lambda samples: word_in(lengths(samples)[0]),
        {
            "reproduced": [[45.0, 46.0, 45.5], [1.2] * 3],
            "contradicted": [[73.0, 74.0, 75.0], [1.2] * 3],
            "undecided": [[30.0, 45.0, 60.0], [1.2] * 3],
        },
    ),
    Case(
        "round length by sample size",
        lambda samples: word_in(lengths([samples[1], samples[0]])[2]),
        {
            "reproduced": [[1.21, 1.22, 1.22], [45.0] * 3],
            "contradicted": [[1.29, 1.30, 1.30], [45.0] * 3],
            "undecided": [[1.15, 1.22, 1.29], [45.0] * 3],
        },
    ),
    Case(
        "slow rounds",
        lambda samples: plexus_round_duration.slowness(np.asarray(samples[0], float)).word,
        {"reproduced": [[0.25, 0.26, 0.27]], "contradicted": [[9.0, 9.5, 10.0]], "undecided": [[0.17, 0.21, 0.25]]},
    ),
    Case(
        "bytes by sample size",
        lambda samples: costs(samples)["bytes"],
        {"reproduced": [[3.9, 4.0, 4.1]], "contradicted": [[1.9, 2.0, 2.1]], "undecided": [[3.3, 3.7, 4.1]]},
    ),
    Case(
        "hours by sample size",
        lambda samples: costs(samples)["time"],
        {"reproduced": [[1.4, 1.5, 1.6]], "contradicted": [[0.6, 0.7, 0.8]], "undecided": [[0.9, 1.15, 1.4]]},
    ),
    Case(
        "bytes of the baselines",
        lambda samples: plexus_vs_baselines.judged(dict.fromkeys(plexus_vs_baselines.RATIOS, samples[0]))["bytes"].word,
        {"reproduced": [[100.0, 101.0, 120.0]], "contradicted": [[2.0, 2.1, 2.2]], "undecided": [[5.0, 46.0, 90.0]]},
    ),
    Case(
        "time of the baselines",
        lambda samples: plexus_vs_baselines.judged(dict.fromkeys(plexus_vs_baselines.RATIOS, samples[0]))["time"].word,
        {"reproduced": [[1.4, 1.5, 1.6]], "contradicted": [[0.0, 0.0, 0.0]], "undecided": [[1.7, 0.0, 1.7]]},
    ),
    Case(
        "crashes",
        crash,
        {
            "reproduced": [[0.01, 0.02, 0.01], [0.1, 0.11, 0.12], [0.2] * 3, ON],
            "in part": [[0.05, 0.06, 0.05], [0.1, 0.11, 0.12], [0.2] * 3, ON],
            "contradicted": [[0.5, 0.5, 0.6], [-0.1, -0.11, -0.12], [0.4] * 3, ON],
            "undecided": [[0.01, 0.02, 0.01], [0.1, 0.11, 0.12], [0.2] * 3, [1, 1, 0]],
        },
    ),
    Case(
        "joins",
        known,
        {
            "reproduced": [[7.5, 7.6, 7.6]],
            "contradicted": [[9.0, 9.0, 9.1]],
            "undecided": [[5.0, 7.0, 9.0]],
        },
    ),
    Case(
        "a join that is never known",
        known,
        {"reproduced": [[7.0, 7.1, 7.2]], "contradicted": [[7.0, 7.0, np.nan]], "undecided": [[6.0, 7.0, 8.5]]},
    ),
    Case(
        "pace while devices come and go",
        pace,
        {
            "reproduced": [[53.0, 53.5, 54.0], [0] * 3],
            "contradicted": [[53.0, 53.5, 54.0], [0, 0, 1]],
            "undecided": [[50.0, 60.0, 70.0], [0] * 3],
        },
    ),
    Case(
        "frequency in rings",
        lambda samples: hadfl_selection.agrees(np.asarray(samples[0], float)).word,
        {"reproduced": [[0.01, -0.01, 0.0]], "contradicted": [[0.1, 0.11, 0.1]], "undecided": [[-0.05, 0.0, 0.05]]},
    ),
    Case(
        "devices left out of rings",
        lambda samples: hadfl_selection.collapses(np.asarray(samples[0], float), 2, 4).word,
        {"reproduced": [[0.5, 0.5, 0.5]], "contradicted": [[0.0, 0.0, 0.0]], "undecided": [[0.5, 0.5, 0.25]]},
    ),
    Case(
        "devices that take turns",
        lambda samples: hadfl_selection.takes_turns(np.asarray(samples[0], float)).word,
        {"reproduced": [[0.0, 0.0, 0.0]], "contradicted": [[0.5, 0.5, 0.5]], "undecided": [[0.0, 0.0, 0.25]]},
    ),
    Case(
        "a forecast without error",
        lambda samples: hadfl_version_forecast.vanishes(np.asarray(samples[0], float)).word,
        {"reproduced": [[1e-5, 1e-6, 0.0]], "contradicted": [[0.3, 0.31, 0.3]], "undecided": [[0.0, 0.0, 0.01]]},
    ),
    Case(
        "a better factor of the forecast",
        lambda samples: hadfl_version_forecast.gains(np.asarray(samples[0], float)).word,
        {"reproduced": [[0.1, 0.11, 0.1]], "contradicted": [[-0.1, -0.11, -0.1]], "undecided": [[-0.1, 0.0, 0.1]]},
    ),
    Case(
        "full speed",
        lambda samples: hadfl_scaling.at_full_speed(np.asarray(samples[0], float)).word,
        {"reproduced": [[0.98, 0.99, 0.99]], "contradicted": [[0.8, 0.81, 0.8]], "undecided": [[0.9, 0.95, 1.0]]},
    ),
    Case(
        "rings that wait",
        lambda samples: hadfl_scaling.waits(np.asarray(samples[0], float)).word,
        {"reproduced": [[0.8, 0.81, 0.8]], "contradicted": [[0.98, 0.99, 0.99]], "undecided": [[0.9, 0.95, 1.0]]},
    ),
    Case(
        "speed-up on a free network",
        lambda samples: hadfl_network.reaches(np.asarray(samples[0], float), 2.25).word,
        {"reproduced": [[2.25, 2.251, 2.25]], "contradicted": [[2.0, 2.01, 2.0]], "undecided": [[2.2, 2.25, 2.3]]},
    ),
    Case(
        "speed-up below the published one",
        lambda samples: hadfl_network.falls_short(np.asarray(samples[0], float), 3.15).word,
        {"reproduced": [[2.25, 2.25, 2.25]], "contradicted": [[4.0, 4.01, 4.0]], "undecided": [[3.0, 3.15, 3.3]]},
    ),
    Case(
        "a part of JWINS",
        lambda samples: jwins_ablation.helps(np.asarray(samples[0], float), 1).word,
        {"reproduced": [[-0.1, -0.11, -0.09]], "contradicted": [[0.1, 0.11, 0.09]], "undecided": [[-0.1, 0.1, 0.0]]},
    ),
    Case(
        "a part of JWINS, by an error",
        lambda samples: jwins_ablation.helps(np.asarray(samples[0], float), -1).word,
        {"reproduced": [[0.1, 0.11, 0.09]], "contradicted": [[-0.1, -0.11, -0.09]], "undecided": [[-0.1, 0.1, 0.0]]},
    ),
    Case(
        "JWINS and CHOCO",
        lambda samples: word_in(budgets.ratio_in_words(np.asarray(samples[0], float), 4.0, "JWINS", "CHOCO-SGD")),
        {
            "reproduced": [[4.1, 4.2, 4.3]],
            "in part": [[1.7, 1.75, 1.8]],
            "contradicted": [[0.5, 0.6, 0.55]],
            "undecided": [[1.0, 2.6, 4.2]],
        },
    ),
    Case(
        "similar accuracy",
        similar("accuracy"),
        {"reproduced": [GOOD, GOOD], "contradicted": [FAR, GOOD], "undecided": [OPEN, GOOD]},
    ),
    Case(
        "similar accuracy where nothing is learned",
        similar("accuracy"),
        {"reproduced": [GOOD, GOOD], "contradicted": [LOST, GOOD], "undecided": [NO_GAIN, NO_GAIN]},
    ),
    Case(
        "loss where full sharing diverges",
        lambda samples: sharing_schemes.similar(ends("accuracy", jwins=samples[0], full=samples[1])).loses.word,
        {"reproduced": [GOOD, GOOD], "contradicted": [FAR, GOOD], "undecided": [GOOD, LOST]},
    ),
    Case(
        "similar error",
        similar("rmse"),
        {
            "reproduced": [[1.010, 1.011, 1.012], [1.0] * 3],
            "contradicted": [[1.05, 1.05, 1.06], [1.0] * 3],
            "undecided": [[1.0, 1.02, 1.04], [1.0] * 3],
        },
    ),
    Case(
        "JWINS ahead of top-k",
        lambda samples: word_in(sharing_schemes.ahead(ends("accuracy", jwins=samples[0], top_k=samples[1]), TOP_K)),
        {"reproduced": [GOOD, FAR], "contradicted": [FAR, GOOD], "undecided": [OPEN, GOOD]},
    ),
    Case(
        "a graph redrawn every round",
        redrawn,
        {"reproduced": [GOOD, GOOD], "contradicted": [FAR, GOOD], "undecided": [OPEN, GOOD]},
    ),
    Case(
        "a graph redrawn every round, with divergence",
        redrawn,
        {"reproduced": [GOOD, GOOD], "contradicted": [LOST, GOOD], "undecided": [GOOD, LOST]},
    ),
    Case(
        "waiting for stragglers",
        waiting,
        {"reproduced": [[40.0, 42.0, 44.0]], "contradicted": [[5.0, 5.0, 6.0]], "undecided": [[5.0, 15.0, 25.0]]},
    ),
    Case(
        "bias on real data",
        accuracy,
        {"reproduced": [GOOD, FAR], "contradicted": [FAR, GOOD], "undecided": [OPEN, GOOD]},
    ),
)
