"""A run that drifts towards infinity says so, and no other run does."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gossipjax as gj
from gossipjax._engine.growth import CONSENSUS, LOSS, LOSS_ALONE, note_growth
from gossipjax._engine.records import Log

N = 8
TARGETS = np.random.default_rng(0).standard_normal((N, 3))
PLAN = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(N)), 20)
KEY = jax.random.key(0)


def run(learning_rate, *, key=KEY, observers=True, rounds=20, throw=True):
    protocol = gj.dpsgd(gj.tasks.quadratic(TARGETS), jax.tree_util.Partial(optax.sgd, learning_rate))
    watch = [gj.observe.consensus_distance()] if observers else []
    return gj.simulate(
        key, protocol, PLAN[:rounds], jnp.zeros((N, 3)), observers=watch, record_every=1, progress=False, throw=throw
    )


@pytest.mark.parametrize("learning_rate", [3.5, 5.0, 10.0])
def test_a_large_learning_rate_is_said_before_infinity(learning_rate):
    """Errors grow by |1 - learning rate| at most a round: the loss by its square."""
    with pytest.warns(gj.Diverging, match=r"train loss from .* to .*consensus distance from .*lower the learning rate"):
        found = run(learning_rate)
    assert np.isfinite(found["consensus_distance"]).all()
    assert "diverged" not in found.manifest
    note = found.manifest["diverging"]
    for name in ("train_loss", "consensus_distance"):
        assert note[name] == [float(found[name][1]), float(found[name][-1])]
    assert note["train_loss"][1] > LOSS * note["train_loss"][0]
    assert note["consensus_distance"][1] > CONSENSUS * note["consensus_distance"][0]
    assert "diverging" in repr(found)
    assert "diverging" in found._repr_html_()


@pytest.mark.parametrize("learning_rate", [0.0, 0.1, 1.0, 1.9])
def test_other_runs_say_nothing(learning_rate):
    """Stable ones; warnings are errors here."""
    found = run(learning_rate)
    assert "diverging" not in found.manifest
    assert "diverging" not in repr(found)


def test_the_note_travels_with_the_file(tmp_path):
    with pytest.warns(gj.Diverging):
        found = run(5.0)
    again = gj.load(found.save(tmp_path / "run.nc"))
    assert again.manifest["diverging"] == found.manifest["diverging"]
    assert repr(again) == repr(found)


def test_seeds_are_told_apart():
    with pytest.warns(gj.Diverging, match="of seed 0 "):
        found = run(5.0, key=jax.random.split(KEY, 2))
    assert found.manifest["diverging"]["seed"] == 0


def test_a_run_that_reached_infinity_is_said_once():
    """It is noted as diverged; warnings are errors here."""
    found = run(1e38, throw=False)
    assert "diverged" in found.manifest
    assert "diverging" not in found.manifest
    assert "diverged at event" in repr(found)


def test_without_consensus_the_loss_must_grow_further():
    with pytest.warns(gj.Diverging) as caught:
        found = run(5.0, observers=False)
    assert "consensus" not in str(caught[0].message)
    assert set(found.manifest["diverging"]) == {"train_loss"}
    loss = found["train_loss"]
    between = next(t for t in range(2, 21) if float(loss[t] / loss[1]) > 2 * LOSS)
    assert float(loss[between] / loss[1]) < LOSS_ALONE
    assert "diverging" not in run(5.0, observers=False, rounds=between).manifest


def noted(loss, consensus):
    """The note on a run of these records, the start first."""
    log = object.__new__(Log)
    steps = np.where(np.isnan(loss), 0, 1)
    total = np.cumsum(np.where(np.isnan(loss), 0.0, loss))
    numbers = np.stack([np.cumsum(steps), np.zeros_like(steps)], axis=1)
    log.columns = {"loss": [total], "losses": [numbers], "values/consensus_distance": [np.asarray(consensus)]}
    log.bad, log.seeds = {"bits": np.zeros((), np.int32)}, None
    return note_growth(log)


@pytest.mark.parametrize(
    ("loss", "consensus"),
    [
        ([np.nan, 1.0, 1e5], [0.0, 1.0, 2.0]),  # nodes stay together: a hard problem
        ([np.nan, 1.0, 2.0], [0.0, 1e-9, 1e3]),  # nodes drift apart but learn
        ([np.nan, 1e9, 1.0], [0.0, 1e9, 1.0]),  # it came back
        ([np.nan, np.nan, np.nan], [1.0, 1e9, 1e30]),  # nobody trains
        ([np.nan, -1.0, 1e9], [0.0, 1.0, 1e9]),  # no ratio of a negative loss
        ([np.nan], [0.0]),
    ],
)
def test_one_of_the_two_is_not_enough(loss, consensus):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert noted(loss, consensus) == {}


def test_a_network_that_agrees_diverges_too():
    plan = gj.timeline.rounds(gj.mixing.averaging(N), 20)
    protocol = gj.allreduce_sgd(gj.tasks.quadratic(TARGETS), jax.tree_util.Partial(optax.sgd, 5.0))
    with pytest.warns(gj.Diverging):
        gj.simulate(KEY, protocol, plan, jnp.zeros((N, 3)), observers=[gj.observe.consensus_distance()], record_every=1)


def test_an_infinite_loss_counts_as_grown():
    with pytest.warns(gj.Diverging):
        assert noted([np.nan, 1.0, np.inf], [0.0, 1.0, 1e30])
