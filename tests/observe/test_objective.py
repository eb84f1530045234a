"""Objective and gradient at the average model, against NumPy and against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import CURVATURE, TARGETS, X0, N, exact_quadratic

from gossipjax import dpsgd, simulate
from gossipjax.mixing import averaging
from gossipjax.observe import Snapshot, optimality_gap, squared_gradient_norm
from gossipjax.tasks import classification, digits, iid, logistic_regression, softmax_regression
from gossipjax.timeline import rounds

TASK = exact_quadratic()


def measure(observer, x):
    (variable,) = observer.variables
    snapshot = Snapshot(jnp.zeros((), jnp.uint32), jnp.zeros((), jnp.float32), x)
    return float(observer.measure(snapshot)[variable.name])


def objective(x):
    return np.sum(CURVATURE * (x - TARGETS) ** 2) / (2 * N)


def test_the_gradient_of_a_quadratic_at_the_average_model():
    expected = np.sum(np.mean(CURVATURE * (X0.mean(0) - TARGETS), axis=0) ** 2)
    assert measure(squared_gradient_norm(TASK), jnp.asarray(X0)) == pytest.approx(expected, rel=1e-12)


def test_the_gap_of_a_quadratic_at_the_average_model():
    optimum = (CURVATURE * TARGETS).sum(0) / CURVATURE.sum(0)
    expected = objective(X0.mean(0)) - objective(optimum)
    assert measure(optimality_gap(TASK), jnp.asarray(X0)) == pytest.approx(expected, rel=1e-12)
    given = optimality_gap(TASK, minimum=1.5, metric="objective")
    assert measure(given, jnp.asarray(X0)) == pytest.approx(objective(X0.mean(0)) - 1.5, rel=1e-12)


def test_both_vanish_at_the_optimum_of_logistic_regression():
    task = logistic_regression(num_nodes=4, samples_per_node=20, dimension=3, heterogeneity=1.0, penalty=0.1, seed=0)
    x = jnp.broadcast_to(task.test["optimum"], (4, 3))
    assert measure(squared_gradient_norm(task), x) < 1e-20
    assert abs(measure(optimality_gap(task), x)) < 1e-15
    assert measure(optimality_gap(task), x + 0.1) > 1e-4


def test_the_gradient_of_a_classifier_is_that_of_its_loss_on_the_samples():
    dataset = digits(limit=(60, 30))
    task = classification(dataset, iid(60, 4, seed=0), softmax_regression(64, 10), batch_size=4)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), task.init(jax.random.key(0)))
    data = task.test | {name: task.test[name][:10] for name in ("inputs", "labels")}
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), params)
    found = measure(squared_gradient_norm(task, data=data), stacked)
    gradient = jax.grad(lambda x: task.metrics(x, data)["loss"])(params)
    assert found == pytest.approx(float(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))), rel=1e-5)
    with pytest.raises(ValueError, match="minimum=None: the task has no known optimum"):
        optimality_gap(task)
    with pytest.raises(ValueError, match=r"metric='cost'.*accuracy"):
        squared_gradient_norm(task, metric="cost")
    with pytest.raises(ValueError, match="metric=''"):
        squared_gradient_norm(task, metric="")


def test_gradient_descent_decreases_both():
    watch = [squared_gradient_norm(TASK), optimality_gap(TASK)]
    run = simulate(
        jax.random.key(0), dpsgd(TASK, optax.sgd(0.1)), rounds(averaging(N), 20), jnp.asarray(X0), observers=watch
    )
    for name in ("squared_gradient_norm", "optimality_gap"):
        values = run[name].values
        assert np.all(np.diff(values) < 0)
        assert np.all(values > 0)


def test_the_gap_on_other_data_needs_their_minimum():
    with pytest.raises(ValueError, match="on other data is not known"):
        optimality_gap(TASK, data=TASK.test)
