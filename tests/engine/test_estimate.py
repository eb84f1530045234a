"""The estimate of a run's memory against counts by hand, and the refusal of runs that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax._base import memory
from gossipjax._engine import driver, prepare, programs

KEY, N, D = jax.random.key(0), 8, 2000
PLAN = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(N)), 10)
PUSHES = gj.timeline.rounds(gj.mixing.column_stochastic(gj.topology.exponential(N)), 10)
X0 = jnp.ones((N, D), jnp.float32)
MODELS = 4 * N * D
RECORDING = prepare.Recording(None, None, None)


def test_the_stages_of_gossip_are_counted_by_hand():
    """One copy of x0 at the start; state, mixed models and x0 while rounds run; x0 and state, which is the result."""
    estimate = gj.estimate_memory(KEY, gj.gossip_averaging(), PLAN, X0)
    assert estimate.state == MODELS
    small = 0.3 * MODELS  # a mask of finite entries, tables, keys
    assert 2 * MODELS <= estimate.start <= 2 * MODELS + small
    assert 3 * MODELS <= estimate.events <= 3 * MODELS + small
    assert estimate.end == 2 * MODELS
    assert estimate.peak == estimate.events + estimate.records


def test_more_is_estimated_for_seeds_and_for_records_of_models():
    one = gj.estimate_memory(KEY, gj.gossip_averaging(), PLAN, X0)
    watch = [gj.observe.models()]
    more = gj.estimate_memory(jax.random.split(KEY, 3), gj.gossip_averaging(), PLAN, X0, observers=watch)
    assert more.state == 3 * MODELS
    assert more.events >= one.events + 4 * MODELS
    assert more.records - 3 * one.records == 3 * (len(PLAN) + 1) * MODELS
    assert "at the peak" in repr(one)


def test_models_that_are_made_from_a_state_count_at_the_end():
    """The ratio of push-sum, also of several seeds."""
    estimate = gj.estimate_memory(jax.random.split(KEY, 3), gj.push_sum(), PUSHES, X0)
    assert estimate.end == MODELS + estimate.state + 3 * MODELS


def test_a_loaded_run_that_is_continued_has_an_estimate(tmp_path):
    run = gj.simulate(KEY, gj.push_sum(), PUSHES[:5], X0)
    run.save(tmp_path / "run.nc", models=True)
    found = [gj.estimate_memory(KEY, gj.push_sum(), PUSHES, start) for start in (run, gj.load(tmp_path / "run.nc"))]
    assert found[0].state == found[1].state > MODELS
    assert found[0].events == found[1].events


def meetings(seed, events=10):
    return gj.timeline.poisson_pairs(gj.topology.ring(N), events, seed=seed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": jax.random.key(1)}, "another run .it differs in key"),
        ({"protocol": gj.gossip_averaging(gj.sharing.top_k(0.5))}, "another run .it differs in .*protocol"),
        ({"timeline": meetings(0)[:2]}, "4 events are done already, more than the 2"),
        ({"timeline": meetings(1)}, "its 4 events are not the first of this timeline"),
        ({"record_every": 1}, "it differs in its records"),
        ({"x0": "loaded"}, "a trajectory without its models"),
    ],
)
def test_a_run_that_cannot_be_continued_has_no_estimate(tmp_path, change, words):
    """It is refused in the words of the run."""
    run = gj.simulate(KEY, gj.gossip_averaging(), meetings(0)[:4], X0, record_every=2)
    if "x0" in change:
        run.save(tmp_path / "run.nc")
        change = {"x0": gj.load(tmp_path / "run.nc")}
    arguments = {"key": KEY, "protocol": gj.gossip_averaging(), "timeline": meetings(0), "x0": run, "record_every": 2}
    errors = []
    for call in (gj.estimate_memory, gj.simulate):
        with pytest.raises(ValueError, match=words) as caught:
            call(**arguments | change)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


def test_the_state_of_an_optimizer_counts():
    task = gj.tasks.quadratic(np.ones((N, D)))
    protocol = gj.dpsgd(task, Partial(optax.sgd, 0.1, momentum=0.9))
    assert gj.estimate_memory(KEY, protocol, PLAN, task).state == 2 * N * task.init(KEY).nbytes


def test_an_estimate_runs_nothing_and_a_run_compiles_nothing_more(monkeypatch):
    monkeypatch.setattr(programs, "is_large", lambda size: True)
    calls = []

    def step(key, x, event):
        calls.append("traced")
        jax.debug.callback(lambda: calls.append("ran"))
        return x, gj.Info()

    protocol = gj.Protocol(lambda key, x0: x0, step, lambda x: x)
    gj.estimate_memory(KEY, protocol, PLAN, X0)
    traced = calls.count("traced")
    assert traced
    assert "ran" not in calls
    gj.simulate(KEY, protocol, PLAN, X0)
    assert calls.count("traced") == traced
    assert calls.count("ran") == len(PLAN)


def test_a_run_that_does_not_fit_is_refused_before_its_start_and_before_its_events(monkeypatch):
    monkeypatch.setattr(memory, "_ALWAYS_THERE", 0)
    starts = []

    def run(free, free_after_the_start):
        def check(finite):
            starts.append(finite)
            monkeypatch.setattr(memory, "free_bytes", lambda: float(free_after_the_start))

        monkeypatch.setattr(driver, "check_finite", check)
        monkeypatch.setattr(memory, "free_bytes", lambda: float(free))
        gj.simulate(KEY, gj.gossip_averaging(), PLAN, X0)

    run(2 * MODELS, 2 * MODELS)  # the state, then the mixed models beside it
    assert len(starts) == 1
    with pytest.raises(
        ValueError, match=r"the start of this run would take about \S+ GiB.* are free; take fewer nodes"
    ):
        run(MODELS, 2 * MODELS)
    assert len(starts) == 1
    with pytest.raises(ValueError, match=r"the events of this run.* would take about \S+ GiB.*; take fewer nodes"):
        run(2 * MODELS, MODELS)
    assert len(starts) == 2


def test_advice_names_what_the_run_does():
    """Seeds, packed events, and nodes that train at once are named only where there are any."""
    plan, x0 = gj.timeline.poisson_pairs(gj.topology.ring(N), 20, seed=0), jnp.ones((N, 2), jnp.float32)

    def words(key, plan, **how):
        how = prepare.as_execution(how.get("strategy"), how.get("packing", "auto"))
        return programs.advice(prepare.prepare(key, gj.gossip_averaging(), plan, x0, [], RECORDING, how)[0])

    everything = words(jax.random.split(KEY, 2), plan, packing="packed")
    assert all(word in everything for word in ("seeds", 'strategy="map"', 'packing="sequential"'))
    little = words(KEY, PLAN, strategy="map")
    assert not any(word in little for word in ("seeds", "strategy", "packing"))
