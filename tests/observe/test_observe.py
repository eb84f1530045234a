"""Observers against NumPy, and what they refuse."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import TARGETS, X0, D, N, exact_quadratic

from gossipjax.observe import (
    Observer,
    Snapshot,
    average_model_metrics,
    consensus_distance,
    disagreement,
    distance_to,
    models,
    node_metrics,
    subset,
)
from gossipjax.observe._models import STATISTICS, metric_names
from gossipjax.tasks import classification, digits, iid, softmax_regression

TREE = {"a": jnp.asarray(X0), "b": jnp.asarray(X0[:, 0])}


def measure(observer: Observer, x):
    return observer.measure(Snapshot(jnp.zeros((), jnp.uint32), jnp.zeros((), jnp.float32), x))


@pytest.fixture(scope="module")
def images():
    dataset = digits(limit=(60, 30))
    return classification(dataset, iid(60, 4, seed=0), softmax_regression(64, 10), batch_size=4)


def test_consensus_distance():
    flat = np.concatenate([X0, X0[:, :1]], axis=1)
    expected = np.mean(np.sum((flat - flat.mean(0)) ** 2, 1))
    np.testing.assert_allclose(measure(consensus_distance(), TREE)["consensus_distance"], expected, rtol=1e-13)


def test_disagreement_is_the_largest_of_all_pairs():
    flat = np.concatenate([X0, X0[:, :1]], axis=1)
    expected = max(np.abs(a - b).max() for a in flat for b in flat)
    assert measure(disagreement(), TREE)["disagreement"] == expected


def test_distance_to_a_target():
    target = {"a": jnp.ones(D), "b": jnp.asarray(2.0)}
    expected = np.mean(np.sum((X0 - 1) ** 2, 1) + (X0[:, 0] - 2) ** 2)
    np.testing.assert_allclose(measure(distance_to(target), TREE)["squared_error"], expected, rtol=1e-13)


def test_models_are_kept_flat():
    found = measure(models(), TREE)["model"]
    np.testing.assert_array_equal(found, np.concatenate([X0, X0[:, :1]], axis=1))


def errors_of(x):
    return np.sum((x - np.asarray(exact_quadratic().test["optimum"])) ** 2, axis=-1)


@pytest.mark.parametrize("nodes", [None, [1, 5, 6]])
def test_node_metrics_are_statistics_over_nodes(nodes):
    observer = node_metrics(exact_quadratic(), nodes=nodes)
    found = measure(observer, jnp.asarray(X0))["test_squared_error"]
    errors = errors_of(X0 if nodes is None else X0[nodes])
    expected = [errors.mean(), errors.min(), errors.max(), *np.quantile(errors, [0.1, 0.5, 0.9])]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert {v.name: v.dims for v in observer.variables}["test_squared_error"] == ("statistic",)
    assert len(STATISTICS) == 6


def test_random_nodes_are_a_fixed_subset():
    task, x = exact_quadratic(), jnp.asarray(X0)
    first, second = (measure(node_metrics(task, nodes=3, seed=1), x)["test_squared_error"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert float(first[0]) != pytest.approx(float(measure(node_metrics(task), x)["test_squared_error"][0]))


def test_metrics_of_the_average_model():
    found = measure(average_model_metrics(exact_quadratic()), jnp.asarray(X0))
    np.testing.assert_allclose(found["average_model_squared_error"], errors_of(X0.mean(0)), rtol=1e-12)


def test_a_subset_of_the_test_set(images):
    part = subset(images, 10, seed=3)
    assert part["inputs"].shape[0] == part["labels"].shape[0] == 10
    whole = [tuple(np.asarray(image).ravel()) for image in images.test["inputs"]]
    assert all(tuple(np.asarray(image).ravel()) in whole for image in part["inputs"])
    assert subset(images, None) is images.test
    assert metric_names(images, images.test) == ["accuracy", "loss"]
    x = jax.vmap(images.init)(jax.random.split(jax.random.key(0), 4))
    all_of_it = measure(node_metrics(images, samples=30), x)["test_accuracy"]
    np.testing.assert_allclose(all_of_it, measure(node_metrics(images), x)["test_accuracy"], rtol=1e-6)


def test_bad_requests_are_refused(images):
    cases = [
        (lambda: node_metrics(images, samples=31), "samples=31"),
        (lambda: node_metrics(images, nodes=5), "nodes=5"),
        (lambda: node_metrics(images, nodes=0), "nodes=0"),
        (lambda: node_metrics(images, nodes=[0, 4]), r"nodes\[1\]=4"),
        (lambda: node_metrics(images, nodes=[]), r"nodes=\[\]"),
        (lambda: node_metrics(exact_quadratic(TARGETS), samples=3), "no test samples"),
    ]
    for build, message in cases:
        with pytest.raises(ValueError, match=message):
            build()
    assert inspect.unwrap(node_metrics)(images, nodes=N // 2).variables
