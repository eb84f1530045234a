"""Does learning go on while four of five nodes crash?

Of a hundred nodes, five crash each minute from t = 300 s on, without notice, until 80 are gone. Nodes count as active
for 20 rounds after a sign of life, and an unanswered ping times out after 2 s. References are the same network without
crashes, and with only the 20 survivors from the start. A second table plans, without learning, which numbers of
aggregators, and which shares of models that a mean waits for, survive. An aggregator that crashes ends its round unless
there is another one, and a mean that waits for the model of a crashed node is never taken.

Reference: de Vos et al. 2023, arXiv 2302.13837 v1 (MoDeST).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from experiments.lib import trivial
from experiments.lib.curves import good, grid_of_runs, held, last_known
from experiments.lib.kept import kept_run
from experiments.lib.plexus_runs import kind_of, learn, pad_timelines, phones
from experiments.lib.problems import Name, Problem, of_plexus
from experiments.lib.report import Row, over_seeds
from gossipjax import observe, systems
from gossipjax.systems import Machines, Plan
from gossipjax.systems._plexus.settings import models_needed
from theory.check.policy import Band, Verdict, Word, above, all_of, any_of, decide, in_part

CLAIM = "Learning goes on while 80 of 100 nodes crash, with several aggregators and means of part of the sample"
SCENARIOS = ("no crash", "crashes", "few from the start")
MINUTE = 60.0
ALIVE_S = 300.0
"""A run is alive if a mean is taken within this many seconds of its end."""
CLOSE = 0.03
"""Allowed deficit of the final score against the survivors alone, as a share of the largest gain."""


class Config(NamedTuple):
    """Settings."""

    task: Name = "cifar10"
    num_nodes: int = 100
    num_crashes: int = 80
    first_crash_s: float = 300.0
    crashes_a_minute: int = 5
    duration_s: float = 1800.0
    sample_size: int = 10
    num_aggregators: int = 5
    success_fraction: float = 0.6
    local_steps: int = 5
    time_batch: int = 1
    activity_window: int = 20
    ping_timeout_s: float = 2.0
    model_bytes: int = 4 * 85_354
    every: int = 30
    """Means between two records."""
    grid_aggregators: tuple[int, ...] = (1, 2, 3, 5)
    grid_fractions: tuple[float, ...] = (0.6, 0.8, 0.9, 1.0)
    grid_seeds: int = 10
    num_seeds: int = 3
    test_samples: int | None = 2000
    seed: int = 0
    keep: str | None = None
    """Folder of finished runs."""


QUICK = Config(
    "digits",
    time_batch=20,
    every=10,
    grid_aggregators=(1, 5),
    grid_fractions=(0.6, 1.0),
    grid_seeds=2,
    num_seeds=1,
    test_samples=None,
)


def machines_of(config: Config, scenario: str, seed: int) -> Machines:
    """Take phones, of which the first in a random order crash, or are absent."""
    machines = systems.machines(phones(config.num_nodes, seed))
    doomed = np.random.default_rng(seed).permutation(config.num_nodes)[: config.num_crashes]
    if scenario == "few from the start":
        return machines._replace(online=~np.isin(np.arange(config.num_nodes), doomed))
    times = config.first_crash_s + MINUTE * (np.arange(doomed.size) // config.crashes_a_minute)

    def transitions(until: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        known = times <= until
        return times[known], doomed[known], np.zeros(int(known.sum()), bool)

    return machines._replace(transitions=transitions) if scenario == "crashes" else machines


def plan_of(config: Config, scenario: str, seed: int, aggregators: int | None, fraction: float) -> Plan:
    """Plan MoDeST, or Plexus if there is no number of aggregators."""
    return systems.plexus(
        machines_of(config, scenario, seed),
        duration_s=config.duration_s,
        model_bytes=config.model_bytes,
        seed=seed,
        sample_size=config.sample_size,
        success_fraction=fraction,
        local_steps=config.local_steps,
        time_batch=config.time_batch,
        aggregators=aggregators or "next",
        membership=systems.Membership("crash", config.activity_window),
        timers=systems.Timers(ping_timeout_s=config.ping_timeout_s),
    )


def run(config: Config) -> xr.Dataset:
    """Learn in the three scenarios, and plan the grid of settings."""
    problem = of_plexus(config.task, config.num_nodes, seed=config.seed)
    source = kind_of(phones(config.num_nodes, config.seed))
    seeds = range(config.seed, config.seed + config.num_seeds)
    plans = {(name, seed): _own_plan(config, name, seed) for name in SCENARIOS for seed in seeds}
    timelines = dict(zip(plans, pad_timelines([plan.timeline for plan in plans.values()]), strict=True))
    named = _named(config) | {"devices": source} | problem.named

    def one(name: str, seed: int) -> xr.Dataset:
        def make(checkpoint: Any) -> xr.Dataset:
            return _learn(config, problem, plans[name, seed], timelines[name, seed], seed, checkpoint)

        settings = named | {"scenario": name, "of": seed}
        return kept_run(config.keep, settings, make, problem.task, phones(config.num_nodes, seed))

    learned = grid_of_runs(SCENARIOS, "scenario", seeds, one)
    facts = {"devices": source, "num_nodes": config.num_nodes, "num_crashes": config.num_crashes}
    facts |= {"first_crash_s": config.first_crash_s, "duration_s": config.duration_s}
    test = observe.subset(problem.task, config.test_samples, seed=0)
    facts |= {"trivial": trivial.noted(problem.task, problem.metric, test)}
    own = {"num_aggregators": config.num_aggregators, "success_fraction": config.success_fraction}
    return xr.merge([learned, survival(config)], combine_attrs="drop_conflicts").assign_attrs(facts | own)


def _own_plan(config: Config, scenario: str, seed: int) -> Plan:
    return plan_of(config, scenario, seed, config.num_aggregators, config.success_fraction)


def _named(config: Config) -> dict[str, Any]:
    settings = config._asdict() | {"experiment": "plexus_crash", "partition": config.seed}
    left_out = ("keep", "num_seeds", "seed", "grid_aggregators", "grid_fractions", "grid_seeds")
    return {name: value for name, value in settings.items() if name not in left_out}


def _learn(config: Config, problem: Problem, plan: Plan, timeline, seed: int, checkpoint) -> xr.Dataset:
    """Learn; record, minute by minute, who is online, who is believed active, and the rounds so far."""
    dataset = learn(
        problem,
        plan,
        timeline,
        local_steps=config.local_steps,
        every=config.every,
        test_samples=config.test_samples,
        seed=seed,
        checkpoint=checkpoint,
    )
    grid = np.arange(0.0, config.duration_s + 1, MINUTE)
    done = np.maximum.accumulate(np.append(0, plan.history.aggregation_round))
    columns = {
        "online": held(plan.history.online_s, plan.history.online_count, grid),
        "believed": held(plan.history.aggregation_s, plan.history.view_active[:, 2], grid),
        "rounds": held(np.append(0.0, plan.history.aggregation_s), done, grid),
    }
    return dataset.assign({name: ("minute", values) for name, values in columns.items()}).assign_coords(
        minute=grid / MINUTE
    )


def survival(config: Config) -> xr.Dataset:
    """Plan which runs still take means at the end; 0 aggregators stand for Plexus, with one and timeouts."""
    aggregators = (0, *config.grid_aggregators)
    seeds = range(config.seed, config.seed + config.grid_seeds)
    alive = np.zeros((len(aggregators), len(config.grid_fractions), config.grid_seeds))
    for i, count in enumerate(aggregators):
        for j, fraction in enumerate(config.grid_fractions):
            plans = [plan_of(config, "crashes", seed, count or None, fraction) for seed in seeds]
            alive[i, j] = [_is_alive(plan, config.duration_s) for plan in plans]
    coordinates = {"aggregators": list(aggregators), "fraction": list(config.grid_fractions)}
    estimates = [[estimate(config, count, fraction) for fraction in config.grid_fractions] for count in aggregators]
    variables = {"alive": (("aggregators", "fraction", "trial"), alive)}
    return xr.Dataset(variables | {"estimate": (("aggregators", "fraction"), np.array(estimates))}, coordinates)


def estimate(config: Config, aggregators: int, fraction: float) -> float:
    """Estimate the probability that a run survives: at every crash of k of m nodes, a round in training must survive.

    Of the s that train, at most s - ⌊s φ⌋ may die, and not all aggregators. Plexus goes on with fewer models after a
    timeout, so only its aggregator counts. The estimate ignores models that have already arrived, and means in flight.
    """
    s, k = config.sample_size, config.crashes_a_minute
    spare = s if not aggregators else s - models_needed(s, fraction)
    survives = 1.0
    for dead in range(0, config.num_crashes, k):
        m = config.num_nodes - dead
        models = stats.hypergeom.cdf(spare, m, k, s)
        survives *= models * (1.0 - stats.hypergeom.pmf(max(aggregators, 1), m, k, max(aggregators, 1)))
    return float(survives)


def _is_alive(plan: Plan, duration_s: float) -> bool:
    return bool(plan.history.aggregation_s.size and plan.history.aggregation_s[-1] > duration_s - ALIVE_S)


def table(dataset: xr.Dataset) -> list[Row]:
    """Report final scores, rounds per minute before, during and after the crashes, views, and which runs survive."""
    rows = [_score(dataset, name) for name in SCENARIOS]
    first = dataset.attrs["first_crash_s"] / MINUTE
    last = float(dataset.minute[-1])
    settled = int(np.nanargmin(dataset.online.sel(scenario="crashes").mean("seed").values))
    over = float(dataset.minute[settled])
    phases = {"before": (0.0, first), "during": (first, over), "after": (over, last)}
    for phase, (begin, end) in phases.items():
        if end > begin:
            pace = [_pace(dataset, name, begin, end) for name in ("crashes", "no crash")]
            words = f"without crashes; minutes {begin:.0f} to {end:.0f}"
            name = f"rounds per minute {phase} the crashes"
            rows.append(over_seeds(name, pace[0], float(pace[1].mean()), words))
    at = dataset.sel(scenario="crashes").isel(minute=-1)
    online = float(at.online.mean())
    rows.append(over_seeds("believed active at the end, median", at.believed.values, online, "nodes online"))
    rows += trivial.rows(f"{dataset.attrs['metric']}, ", trivial.stored(dataset), dataset.attrs["higher_is_better"])
    return rows + _survivors(dataset)


def _score(dataset: xr.Dataset, name: str) -> Row:
    ends = last_known(dataset.score.sel(scenario=name)).values
    known = last_known(dataset.score.sel(scenario="no crash")).values
    words = _verdict(dataset) if name == "crashes" else f"mean over {ends.size} seeds"
    predicted = np.nan if name == "no crash" else float(known.mean())
    return over_seeds(f"final {dataset.attrs['metric']}, {name}", ends, predicted, words)


class Course(NamedTuple):
    """How the runs with crashes continue, seed by seed; scores are relative to the gain without crashes."""

    after: np.ndarray
    """Gain after the last crash."""
    lost: np.ndarray
    """Final deficit against the run without crashes."""
    behind: np.ndarray
    """Final deficit against the survivors alone."""
    alive: np.ndarray
    """1 where means are taken until the end, else 0."""


def course_of(dataset: xr.Dataset) -> Course:
    """Measure how the runs with crashes continue."""
    higher = dataset.attrs["higher_is_better"]
    ends = {name: good(last_known(dataset.score.sel(scenario=name)).values, higher) for name in SCENARIOS}
    start = good(dataset.score.sel(scenario="no crash").isel(record=0).values, higher)
    gain, crashed = ends["no crash"] - start, ends["crashes"]
    return Course(
        (crashed - _scores_after_crashes(dataset)) / gain,
        (ends["no crash"] - crashed) / gain,
        (ends["few from the start"] - crashed) / gain,
        (_last_minutes(dataset) > 0).astype(np.float64),
    )


def judged(course: Course) -> tuple[Word, dict[str, Verdict]]:
    """Judge whether learning goes on, and whether it ends as well as that of the survivors alone.

    Learning goes on if all runs take means until the end, and gain after the last crash or have nothing left to gain.
    """
    statements = {
        "alive": decide(course.alive, Band(low=1.0)),
        "after": decide(course.after, above(0.0)),
        "lost": decide(course.lost, Band(high=CLOSE)),
        "behind": decide(course.behind, Band(high=CLOSE)),
    }
    goes_on = all_of(statements["alive"].word, any_of(statements["after"].word, statements["lost"].word))
    return in_part(all_of(goes_on, statements["behind"].word), goes_on), statements


def _verdict(dataset: xr.Dataset) -> str:
    course = course_of(dataset)
    ends = last_known(dataset.score.sel(scenario="crashes")).values
    word = trivial.gated(judged(course)[0], ends, trivial.stored(dataset), dataset.attrs["higher_is_better"])
    after, lost, behind = (float(100 * values.mean()) for values in course[:3])
    return (
        f"paper: adapts when 80 % stop; {word}: {after:+.1f} % of the gain after the last crash, {lost:.1f} % lost to "
        f"no crash, {behind:.1f} % to few from the start; {int(course.alive.sum())} of {course.alive.size} runs go on"
    )


def _scores_after_crashes(dataset: xr.Dataset) -> np.ndarray:
    """Return each seed's score at the first record after the last crash, or else at the last; higher is better."""
    at = dataset.sel(scenario="crashes")
    over = MINUTE * float(dataset.minute[int(np.nanargmin(at.online.mean("seed").values))])
    scores = []
    for seed in at.seed.values:
        run = at.sel(seed=seed).dropna("record", subset=["score"])
        later = run.score.values[run.time.values >= over]
        scores.append(later[0] if later.size else run.score.values[-1])
    return good(np.array(scores), dataset.attrs["higher_is_better"])


def _last_minutes(dataset: xr.Dataset) -> np.ndarray:
    """Return the rounds in the last minutes of the runs with crashes, by seed."""
    last = float(dataset.minute[-1])
    return _pace(dataset, "crashes", max(0.0, last - ALIVE_S / MINUTE), last)


def _pace(dataset: xr.Dataset, scenario: str, begin: float, end: float) -> np.ndarray:
    done = dataset.rounds.sel(scenario=scenario)
    return ((done.sel(minute=end) - done.sel(minute=begin)) / (end - begin)).values


def _survivors(dataset: xr.Dataset) -> list[Row]:
    rows = []
    for count in dataset.aggregators.values.tolist():
        system = f"{count} aggregator{'s' if count > 1 else ''}" if count else "Plexus"
        for fraction in dataset.fraction.values.tolist():
            alive = dataset.alive.sel(aggregators=count, fraction=fraction).values
            words = f"{int(alive.sum())} of {alive.size} runs take means in their last {ALIVE_S / MINUTE:.0f} minutes"
            share = 100 * float(alive.mean())
            expected = 100 * float(dataset.estimate.sel(aggregators=count, fraction=fraction))
            words += f"; a rough estimate, if every crash hits a round in training: {expected:.0f} %"
            rows.append(Row(f"% alive, {system}, {100 * fraction:.0f} % of models", share, np.nan, np.nan, words))
    return rows
