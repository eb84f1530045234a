"""What the table of methods says is conserved; test_combinations.py holds its other columns."""

import dataclasses
from inspect import signature

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from combinations import GRAPH, KEY, PROTOCOLS, TREE, X0, built, runs, sharings_of
from methods import ANY, CONSERVED, EXACT, HALF, MASS, MEAN, NOTHING, conserves
from problems import CURVATURE, TARGETS, exact_quadratic, identical_samples

from gossipjax import Task, protocol, simulate, timeline
from gossipjax.mixing import lazy, metropolis
from gossipjax.tasks import FiniteSum
from gossipjax.topology import star

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
        plan = {MEAN: doubly[:1], HALF: doubly[:1], ANY: plans[:1], MASS: ["directed rounds"]}[conserves(name)]
        assert change_of_mean(name, *plan) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in CONSERVED if conserves(name) == HALF))
@pytest.mark.parametrize(("relaxation", "activity"), [(0.7, None), (0.5, timeline.activity.bernoulli(0.6, seed=0))])
def test_dual_methods_with_local_steps_move_the_mean_if_alpha_is_not_half_or_nodes_are_absent(
    name, relaxation, activity
):
    """By more than 1e-3, on a star; with one half and all nodes it stays."""
    tree, flat = star(len(X0)), exact_quadratic(curvature=np.full_like(CURVATURE, 1e-300))
    settings = {"local_steps": 2, "penalty": 0.2, "beta": 0.2}

    def change(relaxation, activity):
        given = (identical_samples(flat), 0.1) if name == "lt_admm_vr" else (flat, optax.sgd(0.1))
        method = getattr(protocol, name)(*given, tree, relaxation=relaxation, **settings)
        run = simulate(KEY, method, timeline.changing_rounds(tree, 40, activity=activity), jnp.asarray(X0))
        return np.abs(np.asarray(run.x).mean(0) - np.asarray(X0).mean(0)).max()

    assert change(0.5, None) < 1e-12
    assert change(relaxation, activity) > 1e-3


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
