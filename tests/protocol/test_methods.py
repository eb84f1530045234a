"""What the table of methods says is conserved; test_combinations.py holds its other columns."""

import dataclasses
from inspect import signature

import jax.numpy as jnp
import numpy as np
import pytest
from combinations import GRAPH, KEY, PROTOCOLS, TREE, X0, built, runs, sharings_of
from methods import ANY, CONSERVED, EXACT, MASS, MEAN, NOTHING, conserves
from problems import CURVATURE, TARGETS, exact_quadratic, identical_samples

from gossipjax import Task, protocol, simulate, timeline
from gossipjax.mixing import lazy, metropolis
from gossipjax.tasks import FiniteSum

FLAT = exact_quadratic(curvature=np.full_like(CURVATURE, 1e-300))
ON_TREE = {"relay_averaging", "relay_sgd"}
ON_ONE_GRAPH = dict.fromkeys(("admm", "lt_admm", "lt_admm_vr", "admm_tracking"), ("rounds",)) | dict.fromkeys(
    ON_TREE, ("losses on one graph",)
)
"""Plans on the graph that a protocol is built for."""
SERVERS = {name for name in PROTOCOLS if name.startswith("fed")} | {"scaffold"}
"""There is one model, a server's: without training there is nothing that mixing could change."""


def test_names_in_the_table_of_conserved_quantities_are_protocols():
    assert CONSERVED.keys() < PROTOCOLS.keys()


def without_training(name):
    """All losses are constant, up to what vanishes by rounding."""
    build = PROTOCOLS[name]
    given, named = getattr(build, "args", ()), getattr(build, "keywords", {})
    flat = {Task: FLAT, FiniteSum: identical_samples(FLAT)}
    return getattr(build, "func", build)(*(flat.get(type(each), each) for each in given), **named)


def change_of_mean(name, plan):
    timeline = built(plan)
    free = dataclasses.replace(timeline.properties, message_bytes=None)  # the size of a message concerns times only
    timeline = dataclasses.replace(timeline, properties=free)
    x0 = np.random.default_rng(0).standard_normal((timeline.properties.num_rows, X0.shape[1]))
    run = simulate(KEY, without_training(name), timeline, jnp.asarray(x0))
    end = run.state.x if conserves(name) == MASS else run.x
    return float(np.abs(np.sum(end, axis=0) - x0.sum(0)).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PROTOCOLS.keys() - SERVERS))
def test_mixing_conserves_what_the_table_says(name):
    """Sums of a few dozen float64 numbers are exact to 1e-12; what is not conserved moves by more than 1e-3."""
    plans = ON_ONE_GRAPH.get(name) or runs(name, sharings_of(name)[0])
    doubly = [plan for plan in plans if "doubly_stochastic" in built(plan).properties]
    if conserves(name) == NOTHING:
        assert max(change_of_mean(name, plan) for plan in plans[:4]) > 1e-3
    else:
        plan = {MEAN: doubly[:1], ANY: plans[:1], MASS: ["directed rounds"]}[conserves(name)]
        assert change_of_mean(name, *plan) < 1e-12


ROUNDS = [name for name in PROTOCOLS if "task" in signature(getattr(protocol, name)).parameters or name == "admm"]
ROUNDS = [name for name in ROUNDS if "rounds" in runs(name, sharings_of(name)[0])]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUNDS)
def test_methods_are_exact_under_heterogeneity_as_the_table_says(name):
    """With the step sizes of the table of combinations, which are small enough for all, from one model."""
    graph = TREE if name in ON_TREE else GRAPH
    method = PROTOCOLS[name]()
    x = np.asarray(
        simulate(
            KEY, method, timeline.rounds(lazy(metropolis(graph)), 4000), jnp.asarray(np.repeat(X0[:1], len(X0), 0))
        ).x
    )
    error = np.abs(x - (CURVATURE * TARGETS).sum(0) / CURVATURE.sum(0)).max()
    assert error < 1e-10 if name in EXACT else error > 1e-4
